"""What a post-net does to what is heard: styles with theirs and without it, on held-out pieces (validation split).

    python benchmarks/postnet.py DATA -s jazz --out docs/sound.md

A style may be a file, ``NAME=FILE``: that is how a post-net is tried before it is shipped (``tools/make_styles.py postnet``). Song and
truth are those of the reduction protocol.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stylestream import baselines, metrics, midi, passages, recipes
from stylestream.files import whole_file
from stylestream.transfer import load_style

RATE = 44100
COLUMNS: dict[str, Callable[..., float]] = {
    "log-mel L1, dB": lambda truth, y, notes: metrics.log_mel_l1(truth, y),
    "MFCC distance": lambda truth, y, notes: metrics.mfcc_distance(truth, y),
    "note AUC": lambda truth, y, notes: metrics.note_auc(y, notes),
    "flux corr.": lambda truth, y, notes: metrics.flux_correlation(truth, y),
    **{
        f"{low}–{high} Hz, dB": lambda truth, y, notes, band=index: list(metrics.modulation_difference(truth, y).values())[band]
        for index, (low, high) in enumerate(((2, 5), (5, 10), (10, 20), (20, 43)))
    },
}


def passages_of(options: argparse.Namespace, name: str) -> list[tuple[Any, Any, Any]]:
    """(song, truth, notes) of held-out pieces."""
    protocol, recipe = passages.Protocol(pieces=options.pieces, seconds=options.seconds), recipes.recipe_of(name)
    renderer, found = passages.Renderer(options.cache), []
    for excerpt in passages.excerpts(options.data, name, protocol, split="valid")[0]:
        score = midi.load_score(excerpt.content)
        target = recipes.target_score(score, recipe)
        song = passages.song_score(score if recipe.layers else target, excerpt.content, recipe)
        found.append(
            (renderer.render(song, "musescore", excerpt), renderer.render(target, "fluidr3", excerpt), passages.notes_of(target, excerpt))
        )
    return found


def row(heard: list[tuple[Any, Any, Any]], make: Callable[[Any, Any], Any]) -> list[float]:
    """Means over the passages of what ``make`` makes of (song, truth)."""
    rows = []
    for song, truth, notes in heard:
        a, b = metrics.matched(metrics.prepare(truth), metrics.prepare(make(song, truth)))
        rows.append([measure(a, b, notes) for measure in COLUMNS.values()])
    return [float(value) for value in np.mean(rows, axis=0)]


def measure_style(options: argparse.Namespace, text: str) -> list[str]:
    """Lines of the table."""
    name, _, path = text.partition("=")
    heard, style = passages_of(options, name), load_style(path or name)
    if style.draw.postnet is None:
        raise SystemExit(f"{text}: has no post-net; make one with tools/make_styles.py postnet")
    rows = {"copy": row(heard, lambda song, truth: song), "ceiling": row(heard, baselines.ceiling)}
    rows["with"] = row(heard, lambda song, truth: style.transfer(song, RATE))
    style.draw.postnet = None
    rows["without"] = row(heard, lambda song, truth: style.transfer(song, RATE))
    copy, ceiling = rows["copy"][0], rows["ceiling"][0]
    lines = []
    for kind in ("without", "with"):
        way = f"{100 * (copy - rows[kind][0]) / (copy - ceiling):.1f} %"
        lines.append(
            f"| {name} | {kind} | {way} | "
            + " | ".join(f"{v:.3f}" if "AUC" in c else f"{v:.2f}" for c, v in zip(COLUMNS, rows[kind], strict=True))
            + " |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--pieces", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--cache", type=Path, default=Path("build/postnet"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [line for style in options.style for line in measure_style(options, style)]
    head = ["style", "post-net", "part of the way", *COLUMNS]
    table = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])
    if options.out:
        text = options.out.read_text(encoding="utf-8")
        before, mark, _ = text.partition("<!-- generated -->\n")
        if not mark:
            sys.exit(f"{options.out}: has no line <!-- generated -->")
        with whole_file(options.out) as temporary:
            temporary.write_text(f"{before}{mark}\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
