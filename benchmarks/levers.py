"""What a lever does to what is heard: styles with it and without it, on held-out pieces (validation split), which is where it is set.

    python benchmarks/levers.py DATA -s jazz --postnet --out TABLE
    python benchmarks/levers.py DATA -s piano -s strings --setting partial_lift=0,0.2,0.4 --out TABLE
    python benchmarks/levers.py DATA -s piano -s strings --soundfont musescore,fluidr3,FILE.sf2 --out TABLE
    tools/fill docs/sound.md postnet TABLE

A SoundFont is what plays the song; nothing but what a style is given changes then. A setting is one of the network's that a transfer
heeds (``draw.DrawConfig``). A style may be a file, ``NAME=FILE``: that is how a post-net is tried before it is shipped
(``tools/make_styles.py postnet``). Song and truth are those of the reduction protocol.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stylestream import baselines, metrics, midi, passages, recipes
from stylestream.files import whole_file
from stylestream.transfer import StyleTransfer, load_style

RATE = 44100
Heard = list[tuple[Any, Any, Any]]  # (song, truth, notes) of held-out pieces
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


def passages_of(options: argparse.Namespace, name: str, soundfont: str = "musescore") -> Heard:
    """(song, truth, notes) of held-out pieces."""
    protocol, recipe = passages.Protocol(pieces=options.pieces, seconds=options.seconds), recipes.recipe_of(name)
    renderer, found = passages.Renderer(options.cache), []
    for excerpt in passages.excerpts(options.data, name, protocol, split="valid")[0]:
        score = midi.load_score(excerpt.content)
        target = recipes.target_score(score, recipe)
        song = passages.song_score(score if recipe.layers else target, excerpt.content, recipe)
        found.append(
            (renderer.render(song, soundfont, excerpt), renderer.render(target, "fluidr3", excerpt), passages.notes_of(target, excerpt))
        )
    return found


def row(heard: Heard, make: Callable[[Any, Any], Any]) -> list[float]:
    """Means over the passages of what ``make`` makes of (song, truth)."""
    rows = []
    for song, truth, notes in heard:
        a, b = metrics.matched(metrics.prepare(truth), metrics.prepare(make(song, truth)))
        rows.append([measure(a, b, notes) for measure in COLUMNS.values()])
    return [float(value) for value in np.mean(rows, axis=0)]


def variants(options: argparse.Namespace, text: str) -> Iterator[tuple[str, StyleTransfer, Heard]]:
    """What the second column says, the style so, and what it is given."""
    name, _, path = text.partition("=")
    if options.soundfont:
        style = load_style(path or name)
        for soundfont in options.soundfont.split(","):
            yield Path(soundfont).stem, style, passages_of(options, name, soundfont)
        return
    heard = passages_of(options, name)
    if options.postnet:
        style = load_style(path or name)
        if style.draw.postnet is None:
            raise SystemExit(f"{text}: has no post-net; make one with tools/make_styles.py postnet")
        yield "with", style, heard
        style.draw.postnet = None
        yield "without", style, heard
        return
    setting, _, values = options.setting.partition("=")
    for value in values.split(","):
        network = load_style(path or name).draw
        network.config = replace(network.config, **{setting: float(value)})
        yield value, StyleTransfer(network), heard


def measure_style(options: argparse.Namespace, text: str) -> list[str]:
    """Lines of the table."""
    name, lines = text.partition("=")[0], []
    limits: dict[int, list[float]] = {}  # of the same passages the same
    for kind, style, heard in variants(options, text):
        if id(heard) not in limits:
            limits = {id(heard): [row(heard, make)[0] for make in (lambda song, truth: song, baselines.ceiling)]}
        copy, ceiling = limits[id(heard)]
        values = row(heard, lambda song, truth, style=style: style.transfer(song, RATE))  # type: ignore[misc]
        way = f"{100 * (copy - values[0]) / (copy - ceiling):.1f} %"
        cells = (f"{v:.3f}" if "AUC" in c else f"{v:.2f}" for c, v in zip(COLUMNS, values, strict=True))
        lines.append(f"| {name} | {kind} | {way} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    lever = parser.add_mutually_exclusive_group(required=True)
    lever.add_argument("--postnet", action="store_true", help="with and without the style's")
    lever.add_argument("--setting", help="NAME=VALUE,VALUE,…")
    lever.add_argument("--soundfont", help="NAME,FILE,…: what plays the songs")
    parser.add_argument("--pieces", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--cache", type=Path, default=Path("build/levers"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [line for style in options.style for line in measure_style(options, style)]
    varied = "post-net" if options.postnet else "the song's SoundFont" if options.soundfont else f"`{options.setting.partition('=')[0]}`"
    head = ["style", varied, "part of the way", *COLUMNS]
    table = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])
    if options.out:
        with whole_file(options.out) as temporary:
            temporary.write_text(f"{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
