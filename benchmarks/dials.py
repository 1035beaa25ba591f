"""What the grain and the rounds of Griffin–Lim do to a style, on held-out validation pieces: the table that chose their defaults.

    python benchmarks/dials.py DATA -s piano -s chiptune --out docs/dials.md

DATA is a collection with midi.csv. The pieces are of the *valid* split: the ten test pieces of docs/quality.md choose nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from stylestream import evaluate, metrics, midi, recipes
from stylestream.transfer import load_style
from stylestream.vocoder import Vocoder

COLUMNS = ("log_mel_l1", "flux", "note_auc", "modulation_2_5", "modulation_5_10", "modulation_10_20", "modulation_20_43")


def rows(data: Path, style: str, count: int, grains: list[float], iterations: list[int]) -> dict[str, dict[str, list[float]]]:
    """Setting → metric → value per piece."""
    player, recipe, protocol = load_style(style), recipes.recipe_of(style), evaluate.Protocol(pieces=count)
    player.draw.config = replace(player.draw.config, grain_power=2.0)  # one scale for all styles, whatever each has chosen since
    renderer = evaluate.Renderer(evaluate.default_cache())
    out: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for excerpt in evaluate.excerpts(data, style, protocol, split="valid")[0]:
        target = recipes.target_score(midi.load_score(excerpt.content), recipe)
        song = renderer.render(evaluate.song_score(target, excerpt.content, recipe), protocol.song_soundfont, excerpt)
        truth = metrics.prepare(renderer.render(target, protocol.truth_soundfont, excerpt))
        notes = evaluate.notes_of(target, excerpt)
        results = {"copy": song}
        for n in iterations:
            player.vocoder = Vocoder(player.vocoder.features, iterations=n)
            results |= {f"{n} rounds, grain {g}": player.transfer(song, evaluate.SAMPLE_RATE, grain=g) for g in grains}
        for name, sound in (results | {"truth": None}).items():
            heard = truth if sound is None else metrics.prepare(sound)
            for key, value in metrics.compare(truth, heard, notes).items():
                out[name][key].append(value)
    return out


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Markdown."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{np.nanmean(scores[c]):.3f}" for c in COLUMNS) + " |" for name, scores in found.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parts = [
        "# Grain and rounds of Griffin–Lim\n",
        f"Written by `python benchmarks/dials.py DATA {' '.join(sys.argv[2:])}`: means over {options.pieces} pieces of the valid split,\n"
        "which train nothing and are in no table of docs/quality.md. Modulation is against the truth's, dB: below 0 is blur,\n"
        "above it ripple. Grain is squared here for every style (`grain_power` 2), whatever the style itself has chosen by this table.\n",
    ]
    for style in options.style:
        parts.append(f"## {style}\n\n{table(rows(options.data, style, options.pieces, [0.0, 0.35, 0.5, 0.7, 1.0], [0, 2, 4]))}\n")
    options.out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
