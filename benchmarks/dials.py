"""What the grain and the rounds of Griffin–Lim do to a style, on held-out validation pieces: the table that chose their defaults.

    python benchmarks/dials.py DATA -s piano -s chiptune --out docs/dials.md
    python benchmarks/dials.py DATA -s piano -s rock --sweep --out docs/sweeps.md       strength, dream and grain, from end to end
    python benchmarks/dials.py DATA -s piano -s rock --dream-curve                      what `transfer.DREAM_CURVE` should be

DATA is a collection with midi.csv. The pieces are of the *valid* split: the ten test pieces of docs/quality.md choose nothing.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stylestream import evaluate, metrics, midi, recipes
from stylestream.transfer import DREAM_CURVE, StyleTransfer, load_style
from stylestream.vocoder import Vocoder

Array = NDArray[np.floating]
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
            results |= {f"{n} rounds, grain {g}": player.transfer(song, evaluate.SAMPLE_RATE, grain=g, drums=0.0) for g in grains}
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


SWEEPS = {  # dial: its positions; the others stay at their defaults
    "strength": [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0],
    "dream": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "grain": [0.0, 0.25, 0.5, 0.75, 1.0],
}


def sweep(player: StyleTransfer, song: Array, dial: str) -> dict[str, list[float]]:
    """What happens along a dial: distance (log-mel L1, dB) from where it starts, from where it ends, and from the position before."""
    made = [metrics.prepare(player.transfer(song, evaluate.SAMPLE_RATE, drums=0.0, **{dial: position})) for position in SWEEPS[dial]]
    steps = [metrics.log_mel_l1(a, b) for a, b in itertools.pairwise(made)]
    return {
        "start": [metrics.log_mel_l1(made[0], m) for m in made],
        "end": [metrics.log_mel_l1(made[-1], m) for m in made],
        "step": [0.0, *steps],
    }


def sweeps(data: Path, styles: list[str], count: int) -> str:
    """Markdown: a table for each dial, a line for each style, and how many songs went the right way at every step."""
    renderer, parts = evaluate.Renderer(evaluate.default_cache()), []
    found: dict[str, dict[str, list[dict[str, list[float]]]]] = {dial: defaultdict(list) for dial in SWEEPS}
    for style in styles:
        player, recipe, protocol = load_style(style), recipes.recipe_of(style), evaluate.Protocol(pieces=count, seconds=6.0)
        for excerpt in evaluate.excerpts(data, style, protocol, split="valid")[0]:
            target = recipes.target_score(midi.load_score(excerpt.content), recipe)
            song = renderer.render(evaluate.song_score(target, excerpt.content, recipe), protocol.song_soundfont, excerpt)
            for dial in SWEEPS:
                found[dial][style].append(sweep(player, song, dial))
            print(style, excerpt.piece.path, flush=True)
    for dial, positions in SWEEPS.items():
        head = [
            "style",
            *(f"{p:g}" for p in positions),
            "from the start, ever further",
            "to the end, ever nearer",
            "largest step, dB",
            "largest turn / even",
        ]
        lines = [f"## {dial}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for style, songs in found[dial].items():
            mean = {key: np.mean([song[key] for song in songs], axis=0) for key in songs[0]}
            further = sum(bool((np.diff(song["start"]) > 0).all()) for song in songs)
            nearer = sum(bool((np.diff(song["end"]) < 0).all()) for song in songs)
            cells = [
                *(f"{x:.2f}" for x in mean["start"]),
                f"{further} of {len(songs)}",
                f"{nearer} of {len(songs)}",
                f"{mean['step'].max():.2f}",
                f"{uneven(positions, mean['start']):.2f}",
            ]
            lines.append(f"| {style} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


LATENT_SHARES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.77, 0.82, 0.86, 0.89, 0.92, 0.94, 0.96, 0.98, 1.0)


def dream_curve(data: Path, styles: list[str], count: int) -> list[float]:
    """Shares of the latents that lie at even distances from the song in the style: nine, the mean over styles."""
    renderer, curves = evaluate.Renderer(evaluate.default_cache()), []
    for style in styles:
        player, recipe, protocol = load_style(style), recipes.recipe_of(style), evaluate.Protocol(pieces=count, seconds=6.0)
        dreams = player.draw.config.steps * np.interp(LATENT_SHARES, DREAM_CURVE, np.linspace(0, 1, len(DREAM_CURVE)))
        away = []
        for excerpt in evaluate.excerpts(data, style, protocol, split="valid")[0]:
            score = midi.load_score(excerpt.content)
            song = evaluate.song_score(score if recipe.layers else recipes.target_score(score, recipe), excerpt.content, recipe)
            sound = renderer.render(song, protocol.song_soundfont, excerpt)
            made = [metrics.prepare(player.transfer(sound, evaluate.SAMPLE_RATE, drums=0.0, dream=dream)) for dream in dreams]
            away.append([metrics.log_mel_l1(made[0], m) for m in made])
        distance = np.maximum.accumulate(np.mean(away, axis=0))
        curves.append(np.interp(np.linspace(0, distance[-1], len(DREAM_CURVE)), distance, LATENT_SHARES))
        print(style, np.round(curves[-1], 3).tolist(), flush=True)
    return [round(float(share), 3) for share in np.mean(curves, axis=0)]


def uneven(positions: list[float], away: Array) -> float:
    """How much further the furthest turn of a dial leads than it would if equal turns were equal distances."""
    return float((np.diff(away) / np.diff(positions)).max() * (positions[-1] - positions[0]) / away[-1])


SWEEP_TEXT = """# The dials from end to end

Written by `python benchmarks/dials.py DATA {arguments}`: {pieces} songs of 6 s for each style, piano reductions (for piano: other
instruments) of pieces of the valid split, which train nothing and are in no table of docs/quality.md.

A cell is the distance of the result from where the dial starts, log-mel L1 in dB, mean over songs. *Ever further*: in how many songs every
position is further from the start than the one before. *Ever nearer*: in how many every position is nearer to the end than the one before.
*Largest turn / even*: how much further from the start a turn of the dial leads at most than it would if equal turns were equal distances,
which are 1.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--sweep", action="store_true", help="turn every dial from end to end instead")
    parser.add_argument("--out", type=Path, default=Path("docs/dials.md"))
    parser.add_argument("--dream-curve", action="store_true", help="print the curve of the dream dial that would make its turns even")
    options = parser.parse_args()
    if options.dream_curve:
        print(dream_curve(options.data, options.style, options.pieces))
        return
    if options.sweep:
        text = SWEEP_TEXT.format(arguments=" ".join(sys.argv[2:]), pieces=options.pieces)
        options.out.write_text(text + sweeps(options.data, options.style, options.pieces), encoding="utf-8")
        return
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
