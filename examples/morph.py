"""A song that changes its style from beginning to end: every part of it in a blend that has more of the second style.

    python examples/morph.py waltz.mp3 strings chiptune waltz-morph.wav

The song is transferred once for each stop on the way, and the results, which are aligned to the sample, are cross-faded.
"""

from __future__ import annotations

import sys

import numpy as np

import stylestream as ss

STOPS = 5  # blends, the two styles themselves among them


def morph(song: str, first: str, last: str, out: str) -> None:
    y, sample_rate = ss.load(song)
    at = np.linspace(0, STOPS - 1, y.shape[1])  # where between the stops each sample lies
    mixed = np.zeros_like(y)
    for stop in range(STOPS):
        share = stop / (STOPS - 1)
        style = ss.load_style(f"{first}:{1 - share},{last}:{share}")
        mixed += style.transfer(y, sample_rate) * np.maximum(0, 1 - np.abs(at - stop)).astype(np.float32)
    ss.save(out, mixed, sample_rate)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("python examples/morph.py SONG STYLE STYLE OUT.wav")
    morph(*sys.argv[1:])
