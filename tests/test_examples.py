"""The examples run as their first lines say, and do what these say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_stroke_of_a_style_is_in_the_picture(tmp_path, tiny_style, tone):
    from PIL import Image

    soundfile.write(tmp_path / "song.wav", tone(1.0).T, 44100)
    run("strokes.py", tmp_path / "song.wav", tiny_style, tmp_path / "strokes.png")
    pixels = np.asarray(Image.open(tmp_path / "strokes.png").convert("L"))
    assert pixels.std() > 10  # not one colour: white paper, dark canvases


def test_a_morph_begins_in_the_one_style_and_ends_in_the_other(tmp_path, tone):
    import stylestream as ss

    y = 0.3 * tone(1.0)
    soundfile.write(tmp_path / "song.wav", y.T, 44100, subtype="FLOAT")
    run("morph.py", tmp_path / "song.wav", "piano", "strings", tmp_path / "morph.wav")
    heard, sample_rate = ss.load(tmp_path / "morph.wav")
    assert (heard.shape, sample_rate) == (y.shape, 44100)
    piano, strings = (ss.load_style(name).transfer(y, 44100) for name in ("piano", "strings"))
    for part, near, far in ((slice(0, 400), piano, strings), (slice(-400, None), strings, piano)):
        assert np.abs(heard[:, part] - near[:, part]).max() < 0.3 * np.abs(near[:, part] - far[:, part]).max()
