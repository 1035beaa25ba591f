"""How much of a song an estimator finds again in the result, beside how much of it there is in the truth.

    python benchmarks/kept.py DATA -s rock -s strings … --out TABLE && tools/fill docs/recordings.md kept TABLE

A recording has no truth, so there notes, onsets and beats heard in the result are compared with those heard in the song. What an
estimator hears depends on what plays: this table says by how much. Its songs are scores, of which the truth is known: the same
notes at the same moments in the sound of the style, which is all that a transfer could give. Held-out pieces of the test split.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from stylestream import bootstrap, metrics, midi, passages, recipes
from stylestream.files import whole_file
from stylestream.style import find_style, load_style_file
from stylestream.transfer import StyleTransfer, load_style

RATE = 44100
MEASURES = ("frame F1", "onset F1", "beat F1")


def agreement(song: metrics.Sound, other: metrics.Sound) -> list[float]:
    """Of the notes, onsets and beats heard in a song, and those heard in another sound."""
    return [
        metrics.pitch_agreement(song, other)["frame_f1"],
        metrics.onset_agreement(song, other),
        metrics.beat_agreement(song, other)["beat_f1"],
    ]


def measured(style: StyleTransfer, excerpt: passages.Excerpt, recipe: recipes.StyleRecipe, renderer: passages.Renderer) -> list[float]:
    """Of one passage: the truth's agreements with the song, then the result's."""
    score = midi.load_score(excerpt.content)
    target = recipes.target_score(score, recipe)
    song = renderer.render(passages.song_score(score if recipe.layers else target, excerpt.content, recipe), "musescore", excerpt)
    heard = metrics.prepare(song)
    truth, result = metrics.prepare(renderer.render(target, "fluidr3", excerpt)), metrics.prepare(style.transfer(song, RATE))
    return [*agreement(heard, truth), *agreement(heard, result)]


def row(options: argparse.Namespace, name: str) -> str:
    """A style's line of the table: means with 95 % intervals over passages."""
    path, protocol = find_style(name), passages.Protocol(pieces=options.pieces, seconds=options.seconds)
    style, recipe, renderer = load_style(path), recipes.recipe_of(path.stem), passages.Renderer(options.cache)
    found = passages.excerpts(options.data, path.stem, protocol, known=load_style_file(path).fingerprints)[0]
    values = np.array([measured(style, excerpt, recipe, renderer) for excerpt in found])
    pieces = bootstrap.resample([excerpt.piece.group for excerpt in found], protocol.resamples, seed=0)
    cells = [bootstrap.interval(column, pieces) for column in values.T]
    return f"| {path.stem} | " + " | ".join(f"{c['mean']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" for c in cells) + " |"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--cache", type=Path, default=Path("build/kept"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = ["style", *(f"{who}: {measure}" for who in ("truth", "result") for measure in MEASURES)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in options.style:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a passage without beats scores 0, and is counted
            lines.append(row(options, name))
        print(lines[-1], flush=True)
    if options.out:
        with whole_file(options.out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
