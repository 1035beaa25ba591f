"""Ways to bring frames back to sound, in one table: rounds of fast Griffin–Lim from the song's phase, PGHI, and the learned polish.

    python benchmarks/vocoder.py DATA --polish polish.safetensors --out docs/vocoder.md

Passages of held-out pieces: the song in a SoundFont that training never heard, its truth in the style, the canvas that the shipped style
paints. Every way gets the same frames: the truth's own (what a perfect canvas would give), and the canvas.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylestream import baselines, bootstrap, metrics, midi, passages, recipes
from stylestream.files import whole_file
from stylestream.style import find_style
from stylestream.transfer import load_style
from stylestream.vocoder import Analysis, Vocoder

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from polish import PolishedVocoder, load_polish

RATE = 44100
STYLES = ("rock", "jazz", "electronic", "choir", "strings", "piano", "chiptune")
SHIPPED = "as the style asks"  # which of them is shipped
SCORES: dict[str, Callable[..., float]] = {
    "log-mel L1, dB": lambda truth, y, notes: metrics.log_mel_l1(truth, y),
    "LSD, dB": lambda truth, y, notes: metrics.lsd(truth, y),
    "MR-STFT": lambda truth, y, notes: metrics.mr_stft(truth, y),
    "roughness, time, dB": lambda truth, y, notes: metrics.roughness_difference(truth, y)["roughness_time"],
    "roughness, pitch, dB": lambda truth, y, notes: metrics.roughness_difference(truth, y)["roughness_frequency"],
    "note AUC": lambda truth, y, notes: metrics.note_auc(y, notes),
}
KINDS = {"true": "From the truth's own frames", "canvas": "From the canvases of the shipped styles"}


@dataclass(frozen=True)
class Passage:
    """One passage: frames by kind, the song they borrow from, the truth, its notes."""

    group: str
    key: str  # piece, place and style
    rounds: float  # that the style asks for
    frames: dict[str, Tensor]
    song: Analysis
    truth: metrics.Sound
    notes: Any


def ways(polishes: Sequence[Path]) -> dict[str, Vocoder]:
    """The rows."""
    found = {f"song's phase, {n} rounds": Vocoder(iterations=n) for n in (0, 2, 4, 8, 16)}
    found |= {"PGHI": Vocoder(method="pghi", iterations=0), "PGHI, 4 rounds": Vocoder(method="pghi", iterations=4)}
    for path in polishes:
        polish = load_polish(path)
        which = f" ({path.stem})" if len(polishes) > 1 else ""
        found[f"learned{which}, on {polish.config.rounds:g} rounds"] = PolishedVocoder(polish)
    return found


def canvas_of(style: Any, song: np.ndarray) -> tuple[Tensor, Analysis]:
    """What a style paints of a song, and what its vocoder would borrow from."""
    heard: list[tuple[Tensor, Analysis]] = []
    synthesise = style.vocoder.synthesise

    def remember(x_hat: Tensor, analysis: Analysis, **settings: Any) -> Tensor:
        heard.append((x_hat, analysis))
        result: Tensor = synthesise(x_hat, analysis, **settings)
        return result

    style.vocoder.synthesise = remember
    try:
        style.transfer(song, RATE, chunk_seconds=song.shape[1] / RATE + 1)
    finally:
        del style.vocoder.synthesise
    (found,) = heard
    return found


def passages_of(options: argparse.Namespace, name: str) -> Iterator[Passage]:
    """Held-out pieces of a style."""
    protocol, recipe = passages.Protocol(pieces=options.pieces, seconds=options.seconds), recipes.recipe_of(name)
    renderer, style = passages.Renderer(options.cache), load_style(name)
    for excerpt in passages.excerpts(options.data, name, protocol, split=options.split)[0]:
        score = midi.load_score(excerpt.content)
        target = recipes.target_score(score, recipe)
        song = renderer.render(passages.song_score(score if recipe.layers else target, excerpt.content, recipe), "musescore", excerpt)
        truth = renderer.render(target, "fluidr3", excerpt)
        canvas, analysis = canvas_of(style, song)
        own = style.vocoder.features(baselines.levelled(truth, style.config))[:, : canvas.shape[1]]
        notes = passages.notes_of(target, excerpt)
        key = passages.key_of(name, excerpt.id, excerpt.start_seconds, excerpt.seconds)
        yield Passage(
            excerpt.piece.group, key, style.vocoder.iterations, {"true": own, "canvas": canvas}, analysis, metrics.prepare(truth), notes
        )


def kept(options: argparse.Namespace, make: Callable[[], dict[str, Any]], *what: Any) -> dict[str, Any]:
    """What was measured once, as long as the code that makes and measures it is the same."""
    code = passages.source_hash(("features", "vocoder", "sound", "metrics"))
    path = options.cache / "scores" / f"{passages.key_of(code, *what)}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(make()), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def measured(passage: Passage, kind: str, vocoder: Vocoder) -> dict[str, Any]:
    """Scores of one way on one passage."""
    began = time.process_time()
    y = vocoder.synthesise(passage.frames[kind], passage.song).numpy()
    seconds = (time.process_time() - began) * RATE / y.shape[1]
    truth, sound = metrics.matched(passage.truth, metrics.prepare(y))
    found: dict[str, Any] = {name: float(ask(truth, sound, passage.notes)) for name, ask in SCORES.items()}
    return found | {"seconds per second": seconds, "patches": metrics.patch_numbers(sound).round(3).tolist()}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Kind → way → scores, for every passage."""
    rows, found = ways(options.polish), []
    learned = {way: path.read_bytes() for way, path in zip(list(rows)[-len(options.polish) :], options.polish, strict=False)}
    for name in options.style or STYLES:
        weights = find_style(name).read_bytes()
        for passage in passages_of(options, name):

            def score(kind: str, way: str, passage: Passage = passage, weights: bytes = weights) -> dict[str, Any]:
                key = passages.key_of(weights, learned.get(way, b""))
                return kept(options, lambda: measured(passage, kind, rows[way]), passage.key, kind, way, key)

            scores = {kind: {way: score(kind, way) for way in rows} for kind in KINDS}
            for table_of_kind in scores.values():
                table_of_kind[SHIPPED] = table_of_kind[f"song's phase, {passage.rounds:g} rounds"]
            truth = kept(options, lambda passage=passage: of_truth(passage), passage.key, "truth")
            found.append({"group": passage.group, "style": name, "truth": truth, **scores})
            print(f"{name}: {passage.group}", flush=True)
    return found


def of_truth(passage: Passage) -> dict[str, Any]:
    """What the truth itself scores."""
    patches = metrics.patch_numbers(passage.truth).round(3).tolist()
    return {"note AUC": float(metrics.note_auc(passage.truth, passage.notes)), "patches": patches}


def cell(values: np.ndarray, groups: list[str], places: int, *, sign: bool = False) -> str:
    """Mean with its interval."""
    found = bootstrap.interval(values, bootstrap.resample(groups, 2000))
    one, low, high = (f"{found[key]:{'+' if sign else ''}.{places}f}" for key in ("mean", "low", "high"))
    return f"{one} [{low}, {high}]"


def table(pieces: list[dict[str, Any]], kind: str) -> list[str]:
    """One kind of frames."""
    groups = [piece["group"] for piece in pieces]
    base = np.mean([piece[kind][SHIPPED]["seconds per second"] for piece in pieces])
    head = ["", *SCORES, "judge's AUC", "seconds per second", "re shipped"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for way in pieces[0][kind]:
        cells = [
            cell(np.array([piece[kind][way][name] for piece in pieces]), groups, 3 if name in ("MR-STFT", "note AUC") else 2)
            for name in SCORES
        ]
        told = metrics.patches_auc(
            *(
                [np.array(p[part]["patches"]) if part == "truth" else np.array(p[kind][way]["patches"]) for p in pieces]
                for part in ("truth", way)
            ),
            groups=groups,
        )
        seconds = np.mean([piece[kind][way]["seconds per second"] for piece in pieces])
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {told:.2f} | {seconds:.4f} | × {seconds / base:.1f} |")
    return lines


def differences(pieces: list[dict[str, Any]], kind: str) -> list[str]:
    """Every way less the shipped one, piece by piece."""
    groups = [piece["group"] for piece in pieces]
    lines = ["| less " + SHIPPED + " | " + " | ".join(SCORES) + " |", "|" + "---|" * (len(SCORES) + 1)]
    for way in pieces[0][kind]:
        if way != SHIPPED:
            values = [np.array([p[kind][way][name] - p[kind][SHIPPED][name] for p in pieces]) for name in SCORES]
            lines.append(f"| {way} | " + " | ".join(cell(v, groups, 3, sign=True) for v in values) + " |")
    return lines


def page(pieces: list[dict[str, Any]]) -> str:
    """Everything that was measured."""
    parts = []
    for kind, title in KINDS.items():
        parts += [f"## {title}", "", *table(pieces, kind), "", *differences(pieces, kind), ""]
    auc = np.mean([piece["truth"]["note AUC"] for piece in pieces])
    return (
        "\n".join(parts)
        + f"\n{len(pieces)} passages of {len({p['group'] for p in pieces})} works; the truth's own note AUC is {auc:.3f}.\n"
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--polish", type=Path, action="append", default=[], help="weights that tools/make_vocoder.py made")
    parser.add_argument("-s", "--style", action="append", choices=STYLES)
    parser.add_argument("--pieces", type=int, default=2, help="of each style")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--split", choices=("test", "valid"), default="test")
    parser.add_argument("--cache", type=Path, default=Path("build/vocoder"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = page(measure(options))
    print(text)
    if options.out:
        before, mark, _ = options.out.read_text(encoding="utf-8").partition("<!-- generated -->\n")
        if not mark:
            sys.exit(f"{options.out}: has no line <!-- generated -->")
        with whole_file(options.out) as temporary:
            temporary.write_text(f"{before}{mark}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
