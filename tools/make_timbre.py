"""Train the timbre embedding that judges how far a result sounds like its style: stylestream/timbre.safetensors.

    python tools/make_timbre.py --data DATA --work WORK

Heard: the styles' training pieces, with and without drums; the same pieces on the instruments of other styles, so that the notes say
nothing about the class; three quarters of the openly licensed recordings. All renders are FluidR3's. MuseScore's SoundFont, which plays
the songs of an evaluation, is kept for the test: what is heard there is how well a style is known in a sound never heard. No output of
a style or a baseline is ever heard. About ten minutes of one free core to render, five to train; the rendering resumes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stylestream import audio, midi, recipes
from stylestream.sound import FLOOR_DB, prepare
from stylestream.style import Card, Source, save_style
from stylestream.timbre import STYLES, WINDOW_FRAMES, Timbre, TimbreConfig, style_of_recording, timbre_file, windows

REARRANGED = ("rock", "choir", "strings", "piano", "chiptune")  # styles whose instruments can play any piece
SECONDS = 12.0


@dataclass(frozen=True)
class Item:
    """One song to hear."""

    style: str
    split: str  # train, test, or test-musescore, test-rearranged, test-recording
    source: str
    licence: str
    seconds: float
    path: str


def hashed(text: str) -> int:
    """A number that nobody chose."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def folder_of(options: argparse.Namespace, split: str) -> Path:
    """Where the spectrograms of a split lie."""
    folder: Path = options.work / split
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(options: argparse.Namespace, item: Item, y: np.ndarray, sample_rate: int) -> None:
    """Write a song's log-mel spectrogram as bytes of 1/3 dB, with what it is."""
    sound = prepare(y, sample_rate)
    if sound.silent:
        raise ValueError("it is silent")
    log_mel = np.rint((sound.log_mel - FLOOR_DB) * 3).clip(0, 255).astype(np.uint8)
    np.savez(place(options, item), log_mel=log_mel, **{key: np.array(value) for key, value in asdict(item).items()})


def place(options: argparse.Namespace, item: Item) -> Path:
    """File of a song."""
    return folder_of(options, item.split) / f"{item.style}-{hashed(item.path):08x}.npz"


def rearranged(score: Any, style: str) -> Any:
    """Any score on the instruments of a style."""
    if style == "choir":
        score = midi.reorchestrate(score, programs=52)
    return recipes.target_score(score, recipes.recipe_of(style))


def chosen(options: argparse.Namespace) -> dict[Any, list[tuple[str, str]]]:
    """Every piece that is heard, with the styles and splits it is heard in."""
    wanted: dict[Any, list[tuple[str, str]]] = {}
    for style in STYLES:
        collection = recipes.pieces(options.data, style)
        for split, count in (("train", options.per_style), ("test", options.per_style_test)):
            for piece in recipes.select(collection, count, split=split):
                wanted.setdefault(piece, []).append((style, split))
    return wanted


def render_piece(options: argparse.Namespace, style: str, split: str, piece: Any, content: bytes, fonts: dict[str, Any]) -> None:
    """One piece in all its versions."""
    score = midi.load_score(content)
    own = recipes.target_score(score, recipes.recipe_of(style), drums=bool(hashed(piece.path) % 2))
    others = [name for name in REARRANGED if name != style]
    other = others[hashed("other" + piece.path) % len(others)]
    versions = [
        (style, split, "fluidr3", own),
        (other, split if split == "train" else "test-rearranged", "fluidr3", rearranged(score, other)),
    ]
    if split == "test":
        versions.append((style, "test-musescore", "musescore", own))
    for name, where, font, score in versions:
        item = Item(name, where, piece.source, piece.licence, min(SECONDS, piece.seconds or SECONDS), piece.path)
        if not place(options, item).exists():
            keep(options, item, excerpt(score, piece.path, fonts[font]), 44100)


def excerpt(score: Any, path: str, synthesizer: midi.Synthesizer) -> np.ndarray:
    """Twelve seconds from somewhere in a piece."""
    room = max(0.0, midi.duration_seconds(score) - SECONDS)
    return synthesizer.render(score, start_seconds=room * (hashed("start" + path) % 100) / 100, max_seconds=SECONDS, tail_seconds=0.0)


def recordings(options: argparse.Namespace) -> None:
    """Real recordings under open licences: every third passage of twelve seconds."""
    with (options.data / "audio.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if style_of_recording(row["style"]) and recipes.licence_allowed(row["licence"])]
    for row in rows:
        y, sample_rate = audio.load(options.data / row["path"], mono=True)
        split = "test-recording" if hashed(row["path"]) % 4 == 0 else "train"
        step = round(3 * SECONDS * sample_rate)
        for number, start in enumerate(range(0, max(1, y.shape[1] - step // 6), step)):
            style = style_of_recording(row["style"]) or ""
            item = Item(style, split, row["source"], row["licence"], SECONDS, f"{row['path']}#{number}")
            if not place(options, item).exists():
                with suppress(ValueError):  # a silent passage
                    keep(options, item, y[:, start : start + step // 3], sample_rate)


def render(options: argparse.Namespace) -> None:
    """Everything that is heard."""
    recordings(options)
    fonts = {name: midi.Synthesizer(midi.find_soundfont(name)) for name in ("fluidr3", "musescore")}
    wanted = chosen(options)
    for done, (piece, content) in enumerate(recipes.read_pieces(options.data, wanted), 1):
        for style, split in wanted[piece]:
            try:
                render_piece(options, style, split, piece, content, fonts)
            except ValueError as error:
                print(f"{piece.path}: {error}", flush=True)
        if done % 50 == 0:
            print(f"rendered {done}/{len(wanted)}", flush=True)


def songs(options: argparse.Namespace, split: str) -> Iterator[tuple[Item, np.ndarray]]:
    """What was kept of a split, in the order of the names."""
    for path in sorted(folder_of(options, split).glob("*.npz")):
        with np.load(path, allow_pickle=False) as kept:
            item = Item(*(kept[key].item() for key in ("style", "split", "source", "licence", "seconds", "path")))
            yield item, kept["log_mel"].astype(np.float32) / 3 + FLOOR_DB


def varied(x: Tensor, generator: torch.Generator) -> Tensor:
    """Windows (B, 128, 128), dB, under another equaliser, level and noise floor: what a result may differ in without another timbre."""
    size = len(x)
    curve = F.interpolate(torch.randn(size, 1, 6, generator=generator) * 5, 128, mode="linear", align_corners=True)[:, 0, :, None]
    level = torch.randn(size, 1, 1, generator=generator) * 3
    x = torch.maximum(x, together(x, generator))
    floor = FLOOR_DB + 25 * torch.rand(size, 1, 1, generator=generator) * (torch.rand(size, 1, 1, generator=generator) < 0.5)
    return torch.maximum(x + curve + level, floor)


def together(x: Tensor, generator: torch.Generator) -> Tensor:
    """Another window of the batch, 12 dB softer or more: recordings have a room, hiss and other players."""
    softer = 12 + 30 * torch.rand(len(x), 1, 1, generator=generator)
    return x[torch.randperm(len(x), generator=generator)] - softer


def batch(heard: list[tuple[int, np.ndarray]], by_style: list[list[int]], size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As many windows of every style, each from a song and a place drawn by chance."""
    labels = torch.randint(len(by_style), (size,), generator=generator)
    xs = []
    for label in labels.tolist():
        members = by_style[label]
        log_mel = heard[members[int(torch.randint(len(members), (), generator=generator))]][1]
        start = int(torch.randint(max(1, log_mel.shape[1] - WINDOW_FRAMES + 1), (), generator=generator))
        xs.append(torch.from_numpy(windows(log_mel[:, start : start + WINDOW_FRAMES])[0]))
    return varied(torch.stack(xs), generator), labels


def train(options: argparse.Namespace) -> Timbre:
    """Cross-entropy over the cosines to the styles' centres."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    heard = [(STYLES.index(item.style), log_mel) for item, log_mel in songs(options, "train")]
    by_style = [[i for i, (label, _) in enumerate(heard) if label == style] for style in range(len(STYLES))]
    model = Timbre(TimbreConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=options.steps)
    for step in range(options.steps):
        x, labels = batch(heard, by_style, options.batch, generator)
        loss = F.cross_entropy(model(x)[1], labels, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1} loss {loss.item():.3f}", flush=True)
    return with_means(model.eval(), options)


@torch.no_grad()
def with_means(model: Timbre, options: argparse.Namespace) -> Timbre:
    """The network with its origin, the mean of the styles' mean embeddings, and where each style's songs lie from there."""
    heard: dict[str, list[Tensor]] = {style: [] for style in STYLES}
    for item, log_mel in songs(options, "train"):
        heard[item.style].append(model.embed(torch.from_numpy(windows(log_mel))))
    model.origin.copy_(torch.stack([torch.cat(heard[style]).mean(0) for style in STYLES]).mean(0))
    model.means.copy_(torch.stack([model.centered(torch.cat(heard[style])).mean(0) for style in STYLES]))
    return model


@torch.no_grad()
def accuracy(model: Timbre, options: argparse.Namespace, split: str) -> tuple[float, int, Counter[tuple[str, str]]]:
    """Part of a split's songs that are heard as what they are, how many they are, and the mistakes."""
    mistakes: Counter[tuple[str, str]] = Counter()
    heard: dict[tuple[str, str], list[Tensor]] = {}
    for item, log_mel in songs(options, split):
        probabilities = model(torch.from_numpy(windows(log_mel)))[1].softmax(-1).mean(0)
        heard.setdefault((item.style, item.path.split("#")[0]), []).append(probabilities)  # passages of a recording are one song
    for (style, _), passages in heard.items():
        named = STYLES[int(torch.stack(passages).mean(0).argmax())]
        if named != style:
            mistakes[style, named] += 1
    return 1 - sum(mistakes.values()) / max(1, len(heard)), len(heard), mistakes


def card(options: argparse.Namespace, steps: int, minutes: float, scores: dict[str, dict[str, float]]) -> Card:
    """What it was made of, and how often it is right."""
    found: dict[tuple[str, str], list[Item]] = {}
    for item, _ in songs(options, "train"):
        found.setdefault((item.source, item.licence), []).append(item)
    return Card(
        title="Timbre embedding",
        description="Names the style of a second and a half of music by its sound. A measuring instrument, no style.",
        author="StyleStream contributors",
        licence="Apache-2.0",
        sources=tuple(
            Source(name, licence, songs=len({i.path.split("#")[0] for i in items}), hours=round(sum(i.seconds for i in items) / 3600, 2))
            for (name, licence), items in sorted(found.items())
        ),
        training_minutes=round(minutes, 1),
        training_steps=steps,
        training_device="CPU",
        metrics=scores,
        notes="Pieces rendered with FluidR3 (MIT); MuseScore's SoundFont only in the test. No output of a style or a baseline was heard.",
    )


def main() -> None:
    """Render, train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", default="all", choices=("render", "train", "all"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=timbre_file())
    parser.add_argument("--per-style", type=int, default=40)
    parser.add_argument("--per-style-test", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=48)
    options = parser.parse_args()
    if options.step != "train":
        render(options)
    if options.step == "render":
        return
    began = time.monotonic()
    model = train(options)
    scores = {}
    for split in ("train", "test", "test-rearranged", "test-musescore", "test-recording"):
        right, count, mistakes = accuracy(model, options, split)
        scores[split] = {"accuracy": round(right, 3), "songs": count}
        print(split, f"{right:.1%} of {count}", dict(mistakes.most_common(6)), flush=True)
    about = card(options, options.steps, (time.monotonic() - began) / 60, scores)
    config = {"model": "timbre", **asdict(model.config)}
    save_style(options.out, model.state_dict(), model_config=config, feature_config={}, card=about)
    print(f'for timbre.py: WEIGHTS = "{hashlib.sha256(options.out.read_bytes()).hexdigest()[:16]}"')


if __name__ == "__main__":
    main()
