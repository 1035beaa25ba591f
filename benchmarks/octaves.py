"""Is the bass as loud as it should be? Level of the result against the truth's, octave by octave, on held-out pieces: docs/sound.md.

    python benchmarks/octaves.py DATA -s strings -s piano … --out TABLE && tools/fill docs/sound.md octaves TABLE

Song and truth are those of the reduction protocol, both brought to one loudness. Of each octave of the frames those cells count in which
the truth sounds: within 40 dB of its loudest there. Positive is too loud, negative dimmed. An octave in which the style plays nothing
(less than one cell in a hundred frames and rows) is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from levers import passages_of

from stylestream import bootstrap, metrics
from stylestream.features import LogFrequency
from stylestream.files import whole_file
from stylestream.transfer import load_style

RATE, ACTIVE_DB, FLOOR_DB, LEAST_SHARE = 44100, 40.0, -60.0, 0.01
OCTAVES = tuple(f"C{n}" for n in range(1, 10))


def levels_db(y: np.ndarray, front_end: LogFrequency) -> np.ndarray:
    """Frames (octave, rows, T) of a waveform at the metrics' loudness, dB."""
    config = front_end.config
    x = front_end(torch.from_numpy(metrics.prepare(y).y.astype(np.float32))).numpy()
    return (x * -config.floor_db + config.floor_db).reshape(len(OCTAVES), config.bins_per_octave, -1)


def differences(truth: np.ndarray, result: np.ndarray) -> list[float]:
    """Mean of result − truth where the truth sounds, for each octave, dB; NaN where it does not."""
    frames = min(truth.shape[-1], result.shape[-1])
    found = []
    for a, b in zip(truth[..., :frames], result[..., :frames], strict=True):
        active = (a > a.max() - ACTIVE_DB) & (a > FLOOR_DB)
        found.append(float((b - a)[active].mean()) if active.mean() > LEAST_SHARE else np.nan)
    return found


def line(options: argparse.Namespace, name: str) -> str:
    """A style's row of the table: means and 95 % intervals over passages."""
    style, front_end = load_style(name), LogFrequency()
    rows = np.array(
        [
            differences(levels_db(truth, front_end), levels_db(style.transfer(song, RATE), front_end))
            for song, truth, _ in passages_of(options, name)
        ]
    )
    cells = []
    for column in rows.T:
        there = column[np.isfinite(column)]
        if len(there) < len(column) / 2:
            cells.append("")
            continue
        cell = bootstrap.interval(there, bootstrap.resample([str(i) for i in range(len(there))], 2000, seed=0))
        cells.append(f"{cell['mean']:+.1f} [{cell['low']:+.1f}, {cell['high']:+.1f}]")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--cache", type=Path, default=Path("build/levers"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = ["| style | " + " | ".join(OCTAVES) + " |", "|---" * (1 + len(OCTAVES)) + "|"]
    for name in options.style:
        lines.append(line(options, name))
        print(lines[-1], flush=True)
    if options.out:
        with whole_file(options.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
