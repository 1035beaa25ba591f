# docker build -t stylestream .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/music" stylestream                                          the demo, into ./demo
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/music" stylestream transfer song.mp3 -s rock -o song-rock.mp3
# docker run --rm -p 7860:7860 stylestream serve                                                  the page, at http://localhost:7860
# --user: a folder of yours can be written by you, not by the container's own user.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends fluidsynth fluid-soundfont-gm \
    && rm -rf /var/lib/apt/lists/*

# The CPU build of torch, 200 MB instead of 3 GB; build with --build-arg TORCH_INDEX=https://pypi.org/simple for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/stylestream
COPY constraints.txt ./
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY stylestream stylestream
RUN pip install --no-cache-dir -c constraints.txt '.[midi,serve]'

RUN useradd --create-home --uid 1000 musician && mkdir /music && chown musician /music
USER musician
# Whoever --user names has no home here.
ENV MPLCONFIGDIR=/tmp/matplotlib
# For `serve`: inside a container, "this machine alone" would be nobody.
ENV GRADIO_SERVER_NAME=0.0.0.0
EXPOSE 7860
WORKDIR /music
ENTRYPOINT ["stylestream"]
CMD ["demo", "-o", "demo"]
