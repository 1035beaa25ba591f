"""The page as a hosted demo: a Gradio Space, or any host that says by GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and GRADIO_ROOT_PATH where."""

from stylestream.serve import Settings, run

if __name__ == "__main__":
    run(Settings.of_environment(host="0.0.0.0", trust_proxy=True), ready=lambda address: print(f"StyleStream is at {address}", flush=True))
