"""Watch a song being painted: the canvas after every stroke of the network, in one picture.

    python examples/strokes.py waltz.mp3 rock strokes.png

Ten seconds from the start of the song; low notes below, three rows a semitone, as everywhere in StyleStream.
"""

from __future__ import annotations

import sys

import torch

import stylestream as ss
from stylestream import audio, plots

SECONDS = 10.0


def strokes(song: str, style_name: str, out: str) -> None:
    style = ss.load_style(style_name)
    y, sample_rate = ss.load(song, sample_rate=style.config.sample_rate, mono=True, max_seconds=SECONDS)
    quieter_db = style.config.loudness_lufs - audio.loudness(y, sample_rate)  # the network expects one loudness
    pictures = style.canvases(torch.from_numpy(y * 10 ** (quieter_db / 20)).float())
    titles = ["the song", *(f"stroke {k}" for k in range(1, len(pictures) - 1)), "with texture"]
    plots.canvas_figure([*pictures.numpy()], titles).savefig(out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("python examples/strokes.py SONG STYLE OUT.png")
    strokes(*sys.argv[1:])
