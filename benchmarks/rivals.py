"""What the baselines of an evaluation cost: processor seconds for the first run, and for every one after it.

    python benchmarks/rivals.py --out docs/baselines.md

The song is ten seconds of the bundled one; the rest of it, three times over, stands for sound of a style: the cost does not depend on
what is played.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stylestream import audio, baselines, timbre
from stylestream.cli import DEMO_SONG

SECONDS = 10.0
TEXT = """# Baselines, and what they cost

Written by `python benchmarks/rivals.py --out docs/baselines.md`; do not edit. Every row of an evaluation's table is a function that can be
called: `stylestream.baselines.musaicing(y, style_audio)`. `baselines.cached` keeps what a slow one made, under a hash of everything that
the result depends on; `stylestream evaluate` does the same, so its second run reads what the first one made. How well they do is in
[quality.md](quality.md).

"""
WHAT = {
    "copy": "the song itself",
    "random_piece": "a song of the style, drawn by the song's hash",
    "equalise": "the song with the style's mean spectrum",
    "musaicing": "the song from frames of the style's sound: NMF, repetition and polyphony restricted (Driedger et al. 2015)",
    "ulyanov": "the song's frames with the style's texture: Gram matrices of a random convolution, L-BFGS (Ulyanov and Lebedev 2016)",
    "ceiling": "the truth's frames through the vocoder",
}
Making = Callable[[np.ndarray, list[np.ndarray]], np.ndarray]


def rows(style_audio: list[np.ndarray]) -> dict[str, Making]:
    """Every baseline as a function of song and style audio."""
    mean = np.mean([baselines.mean_frames(y) for y in style_audio], axis=0)
    return {
        "copy": lambda y, style: baselines.copy(y),
        "random_piece": baselines.random_piece,
        "equalise": lambda y, style: baselines.equalise(y, mean),
        "musaicing": baselines.musaicing,
        "ulyanov": baselines.ulyanov,
        "ceiling": lambda y, style: baselines.ceiling(y, baselines.random_piece(y, style)),
    }


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of a call, which a busy machine does not stretch as it stretches the clock's."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measured(y: np.ndarray, style_audio: list[np.ndarray], cache: Path) -> list[str]:
    """Lines of the table."""
    lines = ["| row | what it is | first run, s | kept, s |", "|---|---|---:|---:|"]
    for name, make in rows(style_audio).items():
        call = functools.partial(baselines.cached, make, y, style_audio, cache=cache, name=name)
        call()
        again = seconds(call)
        lines.append(f"| {name} | {WHAT[name]} | {baselines.costs(cache)[name][1]:.1f} | {again:.2f} |")
    return lines


def card_lines() -> list[str]:
    """How often the timbre classifier is right, as its card says."""
    from stylestream.style import read_card

    said = {
        "test": "held-out pieces of the styles, as training renders them",
        "test-rearranged": "held-out pieces on the instruments of another style",
        "test-musescore": "held-out pieces in a SoundFont that was never heard",
        "test-recording": "held-out recordings, as their folders label them",
    }
    found = read_card(timbre.timbre_file()).metrics
    lines = ["", "## The timbre embedding", "", "Which of eight styles a song is heard as (`stylestream.timbre`): right on", ""]
    lines += ["| songs | accuracy | how many |", "|---|---:|---:|"]
    return lines + [f"| {text} | {found[key]['accuracy']:.0%} | {found[key]['songs']:.0f} |" for key, text in said.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    song, sample_rate = audio.load(DEMO_SONG, sample_rate=44100)
    cut = round(SECONDS * sample_rate)
    y, style_audio = song[:, :cut], [song[:, start : start + cut] for start in range(cut, song.shape[1] - cut // 2, cut)] * 3
    with tempfile.TemporaryDirectory() as folder:
        lines = measured(y, style_audio, Path(folder))
    about = f"One thread; {SECONDS:.0f} s of stereo song, {sum(s.shape[1] for s in style_audio) / sample_rate:.0f} s of style.\n"
    options.out.write_text("\n".join([TEXT + about, *lines, *card_lines()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
