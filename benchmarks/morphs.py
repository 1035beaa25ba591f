"""How smooth a blend of two styles is, and whether notes survive on the way: weights, canvases and embeddings blended, one table.

    python benchmarks/morphs.py DATA --out docs/morphs.md

DATA is a collection with midi.csv. Songs are piano reductions of *valid* pieces, which train nothing and are in no table of
docs/quality.md, played with the SoundFont that training never heard.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stylestream import metrics, midi, passages, recipes
from stylestream.blend import load_blend
from stylestream.style import base_path, load_style_file, network_of
from stylestream.transfer import StyleTransfer, Together, load_style

Array = NDArray[np.floating]
SHARES = [round(0.1 * i, 1) for i in range(11)]


class Embeddings(nn.Module):
    """The rival: one network of many styles, the base, with a blend of its embeddings."""

    def __init__(self, network: nn.Module, mixture: Tensor) -> None:
        super().__init__()
        self.network, self.mixture, self.config, self.context_frames = network, mixture, network.config, network.context_frames

    def transfer(self, view: Tensor, **dials: Any) -> Tensor:
        """As `Draw.transfer`."""
        return self.network.transfer(view, **(dials | {"style": self.mixture.expand(view.shape[0], -1)}))


Between = Callable[[float], StyleTransfer]


def weights(a: str, b: str) -> Between | None:
    """One network of mean weights: what ships for styles of one family."""
    return None if len(load_blend(f"{a},{b}").styles) > 1 else lambda share: load_style(f"{a}:{1 - share},{b}:{share}")


def canvases(a: str, b: str) -> Between:
    """Both networks paint, and what they painted is mixed in dB: what ships for styles of two families."""
    one, other = (load_blend(name) for name in (a, b))

    def between(share: float) -> StyleTransfer:
        return StyleTransfer(Together([network_of(found.styles[0], "") for found in (one, other)], [1 - share, share]))

    return between


def embeddings(a: str, b: str) -> Between | None:
    """`Embeddings` of two styles that the base knows by name."""
    data = load_style_file(base_path())
    known = data.card.description.removeprefix("A network of ").split(", to ")[0].split(", ")
    if a not in known or b not in known:
        return None
    network = network_of(data, "base")

    def between(share: float) -> StyleTransfer:
        mixture = torch.zeros(1, network.config.styles)
        mixture[0, known.index(a)], mixture[0, known.index(b)] = 1 - share, share
        return StyleTransfer(Embeddings(network, mixture))  # type: ignore[arg-type]

    return between


@dataclass
class Song:
    """A song with what is known of it."""

    y: Array
    notes: NDArray[Any]


def songs(data: Path, styles: list[str], seconds: float) -> list[Song]:
    """One song of each style's valid pieces."""
    protocol, renderer, out = passages.Protocol(pieces=1, seconds=seconds), passages.Renderer(passages.default_cache()), []
    for style in styles:
        recipe = recipes.recipe_of(style)
        excerpt = passages.excerpts(data, style, protocol, split="valid")[0][0]
        target = recipes.target_score(midi.load_score(excerpt.content), recipe)
        y = renderer.render(passages.song_score(target, excerpt.content, recipe), protocol.song_soundfont, excerpt)
        out.append(Song(y, passages.notes_of(target, excerpt)))
    return out


def path(between: Between, song: Song) -> dict[str, list[float]]:
    """Metric → value at each of SHARES."""
    made = [between(share).transfer(song.y, metrics.SAMPLE_RATE, drums=0.0) for share in SHARES]
    heard, own = [metrics.prepare(y) for y in made], metrics.prepare(song.y)
    first, last = heard[0], heard[-1]
    return {
        "from_a": [metrics.log_mel_l1(first, h) for h in heard],
        "from_b": [metrics.log_mel_l1(last, h) for h in heard],
        "timbre_a": [metrics.mfcc_distance(first, h) for h in heard],
        "timbre_b": [metrics.mfcc_distance(last, h) for h in heard],
        "step": [0.0, *(metrics.log_mel_l1(p, q) for p, q in itertools.pairwise(heard))],
        "chroma": [metrics.chroma_cosine(own, h) for h in heard],
        "note_auc": [metrics.note_auc(h, song.notes) for h in heard],
        "level_db": [float(h.log_mel.mean()) for h in heard],
    }


def monotone(values: Array) -> bool:
    """Never back: by no more than a hundredth of the whole way."""
    return bool((np.diff(values) >= -0.01 * np.ptp(values)).all())


def summary(p: dict[str, Array]) -> list[str]:
    """Cells of a line: what a mean path is like. A dip is how far below the straight line between the ends something falls."""
    steps = p["step"][1:]

    def dip(key: str) -> float:
        line = np.interp(SHARES, [0, 1], [p[key][0], p[key][-1]])
        return float(max((line - p[key]).max(), 0.0))

    back = [monotone(p["from_a"]), monotone(-p["from_b"]), monotone(p["timbre_a"]), monotone(-p["timbre_b"])]
    return [
        f"{p['from_a'][-1]:.2f}",
        "yes" if all(back) else "**no**",
        f"{steps.max() / steps.mean():.2f}",
        f"{steps.sum() / p['from_a'][-1]:.2f}",
        f"{p['from_a'][5] / p['from_a'][-1]:.2f} / {p['from_b'][5] / p['from_b'][0]:.2f}",
        f"{dip('chroma'):.3f}",
        f"{dip('note_auc'):.3f}",
        f"{dip('level_db'):.2f}",
    ]


HEADINGS = (
    *("ends apart, dB", "monotone", "largest step / mean", "length / ends apart"),
    *("middle from a / b", "chroma dip", "note AUC dip", "level dip, dB"),
)
WAYS = {"weights": weights, "canvases": canvases, "embeddings": embeddings}


def shipped(a: str, b: str) -> str:
    """Which way `-s a:0.5,b:0.5` goes."""
    return "weights" if len(load_blend(f"{a},{b}").styles) == 1 else "canvases"


def tables(options: argparse.Namespace, pairs: list[tuple[str, str]]) -> str:
    """Markdown."""
    heard = songs(options.data, sorted({name for pair in pairs for name in pair})[::2][: options.songs], options.seconds)
    lines = ["| | blended | " + " | ".join(HEADINGS) + " |", "|---" * (len(HEADINGS) + 2) + "|"]
    curves = []
    for a, b in pairs:
        for way in options.way:
            between = WAYS[way](a, b)
            if between is None:
                continue
            found = [path(between, song) for song in heard]
            p = {key: np.mean([f[key] for f in found], axis=0) for key in found[0]}
            lines.append(f"| {a}–{b} | {way} | " + " | ".join(summary(p)) + " |")
            print(lines[-1], flush=True)
            if way == shipped(a, b):
                curves.append(f"| {a}–{b} | " + " | ".join(f"{x:.2f}" for x in p["from_a"]) + " |")
                curves.append("| | " + " | ".join(f"{x:.2f}" for x in p["from_b"]) + " |")
    head = ["| from a, from b | " + " | ".join(f"{s:.1f}" for s in SHARES) + " |", "|---" * (len(SHARES) + 1) + "|"]
    return (
        "\n".join(lines)
        + "\n\n## The way, as it ships\n\nLog-mel L1 from either end at each share of b, dB.\n\n"
        + "\n".join(head + curves)
        + "\n"
    )


TEXT = """# Blends

Written by `python benchmarks/morphs.py DATA {arguments}`: means over {songs} songs of {seconds:g} s, piano reductions of valid pieces of
the styles, which train nothing and are in no table of docs/quality.md.

`-s rock:0.6,strings:0.4` plays a song in a style between two or more. Three ways to make one:

- **weights** (what StyleStream does with styles of one family): one network whose weights are means of its styles'. The styles are
  fine-tunes of one base, so the straight line between their weights leads through networks that work. Costs what one style costs.
- **canvases** (what it does with styles of several families, which have no weights in common): every family paints, and the pictures are
  mixed in dB. Costs a network for each family.
- **embeddings**: the base, which has all styles in one network, with a mean of their embeddings. It knows only its own styles, and none
  of what fine-tuning adds: its ends are not the shipped styles, and another number of dB apart.

*Monotone*: with the share of b, the distance from a (log-mel L1; MFCC) never falls and that from b never grows, by more than a
hundredth of the way.
*Largest step / mean*: of the ten steps of 0.1; 1 is perfectly even. *Length / ends apart*: of the way; 1 is a straight line.
*Middle*: how far the half-and-half blend is from either end, relative to the ends' distance. *Dips*: by how much chroma (against the
song), note AUC (against its score) and mean level fall below a straight line between the ends, at worst: do the notes survive in
the middle.

"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--pair",
        action="append",
        help="A:B; default: four pairs, which have all bundled styles",
    )
    parser.add_argument("--way", action="append", choices=sorted(WAYS), help="default: all")
    parser.add_argument("--songs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.way = options.way or list(WAYS)
    pairs = [tuple(pair.split(":", 1)) for pair in options.pair or ("rock:strings", "piano:choir", "electronic:jazz", "chiptune:jazz")]
    text = TEXT.format(arguments=" ".join(sys.argv[2:]), songs=options.songs, seconds=options.seconds)
    options.out.write_text(text + tables(options, pairs), encoding="utf-8")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
