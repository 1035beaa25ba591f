"""Train the bundled styles: render, train a many-style base, fine-tune each style from it, write the style files.

    python tools/make_styles.py all --data DATA --work WORK --out stylestream/styles

The settings are those of stylestream/configs/STYLE.toml: [train] for the base, [tune] for each style; options replace them. Each step
resumes when run again. The shipped weights: --batch 256 --rate 1.5e-3 --base-minutes 12.5 --style-minutes 1 on an H100.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from stylestream import dataset, midi, train, views
from stylestream.cli import read_config
from stylestream.dataset import FrameStore
from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.style import Card, Source, load_style_file, save_style

# Of these eight, orchestra and jazz are in the base and no more: their scores name so many instruments that there is no one sound to aim at
# (18 % and 28 % of the way, docs/quality.md), and a style that cannot keep its promises is not shipped.
NOT_SHIPPED = ("orchestra", "jazz")
STYLES = ("rock", "jazz", "electronic", "orchestra", "choir", "strings", "piano", "chiptune")


def render(options: argparse.Namespace) -> None:
    """Frames of all styles' songs."""
    began = time.monotonic()

    def progress(done: int, total: int, failure: str) -> None:
        if done % 50 == 0 or failure:
            print(f"rendered {done}/{total} {time.monotonic() - began:.0f} s {failure}", flush=True)

    config = dataset.BuildConfig(views=options.views, max_seconds=options.seconds, soundfont=options.soundfont)
    folder, how = options.work / "frames", {"per_style": options.per_style, "jobs": options.jobs, "progress": progress}
    failures = dataset.build_frames(options.data, folder, options.styles, config=config, **how)
    (options.work / "failures.json").write_text(json.dumps(failures))


Stores = tuple[FrameStore, FrameStore]  # of training songs and of held-out ones


def open_stores(options: argparse.Namespace) -> Stores:
    """What is rendered so far."""
    folder = options.work / "frames"
    return (
        FrameStore(folder, options.styles, split="train", device=options.device),
        FrameStore(folder, options.styles, split="valid", device=options.device),
    )


def wait_for_songs(options: argparse.Namespace, count: int) -> None:
    """Until every style has some songs of both splits."""
    folder = options.work / "frames"
    while any(
        len(list(folder.glob(f"{style}-train-*.npz"))) < count or not list(folder.glob(f"{style}-valid-*.npz")) for style in options.styles
    ):
        time.sleep(2)


def say(row: dict[str, float]) -> None:
    """One row of scores, for the log."""
    print(json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)


def compiled(options: argparse.Namespace) -> Draw:
    """The network of all styles, compiled where that pays."""
    model = Draw(DrawConfig(styles=len(options.styles)))
    if options.device.startswith("cuda"):
        train.compile_model(model)
    return model


def settings(options: argparse.Namespace, style: str, table: str) -> train.TrainConfig:
    """Of a style's bundled recipe, with what the options replace."""
    minutes = options.base_minutes if table == "train" else options.style_minutes
    rate = options.rate if table == "train" or options.rate is None else options.rate / 2
    given = {"minutes": minutes, "batch": options.batch, "learning_rate": rate}
    return replace(
        train.construct(train.TrainConfig, read_config(style)[table], f"{style}.toml [{table}]"),
        **{key: value for key, value in given.items() if value is not None},
    )


def base(options: argparse.Namespace, model: Draw, stores: Stores) -> None:
    """All styles at once."""
    config = settings(options, options.styles[0], "train")
    state = train.new_state(model.config, config, device=options.device, model=model)
    train.load_checkpoint(state, options.work / "base")
    train.fit(state, *stores, config, views.ViewConfig(), options.work / "base", report=say, grow=True)


def tune(options: argparse.Namespace, style: str, model: Draw, stores: Stores) -> None:
    """One style from the base; the model keeps the base's table of styles (a compiled one is used again), its file keeps one row."""
    config, folder = settings(options, style, "tune"), options.work / style
    weights = load_file(options.work / "base" / "best.safetensors")
    state = train.new_state(model.config, config, device=options.device, base=weights, model=model)
    train.load_checkpoint(state, folder)
    how = train.construct(views.ViewConfig, read_config(style)["views"], f"{style}.toml [views]")
    train.fit(state, *(store.only(style) for store in stores), config, how, folder, report=say)
    index = options.styles.index(style)
    save_file(train.one_style(load_file(folder / "best.safetensors"), index), folder / "style.safetensors")


def plain(options: argparse.Namespace) -> None:
    """The baseline: the same network as an autoencoder, shown the target itself."""
    wait_for_songs(options, options.enough)
    config = replace(settings(options, options.styles[0], "train"), critic_from=1.0, texture_from=1.0)
    model = compiled(options)
    state = train.new_state(model.config, config, device=options.device, model=model)
    train.load_checkpoint(state, options.work / "plain")
    train.fit(state, *open_stores(options), config, views.NEUTRAL, options.work / "plain", report=say, grow=True)


TITLES = {
    "rock": ("Rock band", "distortion guitars over a finger bass; the canvas has no drums"),
    "jazz": ("Jazz combo", "hollow-body guitar, acoustic bass, piano, saxophone; the canvas has no drums"),
    "electronic": ("Electronic", "synth leads, pads and synth bass of dance accompaniments; the canvas has no drums"),
    "orchestra": ("Orchestra", "strings, winds and brass as Polish orchestral scores assign them"),
    "choir": ("Choir", "choir aahs singing choral music in parts"),
    "strings": ("String quartet", "violins, viola and cello, bowed"),
    "piano": ("Piano", "a grand piano playing whatever comes"),
    "chiptune": ("Chiptune", "square and saw leads over a synth bass"),
}


def card(options: argparse.Namespace, style: str, seconds: float, steps: int) -> tuple[Card, dict[str, list[int]]]:
    """What a style was made of, and the fingerprints of its training songs."""
    heard: dict[tuple[str, str], list[float]] = {}
    fingerprints = {}
    chosen = dataset.select(dataset.pieces(options.data, style), options.per_style)
    excerpts = max(1, round(options.per_style / max(1, len(chosen))))
    for piece, content in dataset.read_pieces(options.data, chosen):
        fingerprints[dataset.song_id(content)] = dataset.melody_fingerprint(midi.load_score(content))
        heard.setdefault((piece.source, piece.licence), []).append(min(piece.seconds, options.seconds * excerpts))
    sources = tuple(Source(name, licence, songs=len(s), hours=round(sum(s) / 3600, 2)) for (name, licence), s in sorted(heard.items()))
    title, description = TITLES[style]
    return (
        Card(
            title=title,
            description=description,
            author="StyleStream contributors",
            licence="Apache-2.0",
            sources=sources,
            training_minutes=round(seconds / 60, 1),
            training_steps=steps,
            training_device=options.trained_on,
            notes=f"From a base of {', '.join(options.styles)}. Songs rendered with FluidR3 (MIT), transposed by up to 3 semitones.",
        ),
        fingerprints,
    )


def packed_path(options: argparse.Namespace, style: str) -> Path:
    """Where a style's file goes: to the bundled ones, or not."""
    return (options.work if style in NOT_SHIPPED else options.out) / f"{style}.safetensors"


def pack(options: argparse.Namespace) -> None:
    """Style files of what is trained so far, with their cards; the base; the plain autoencoders for evaluation."""
    features = asdict(FeatureConfig())
    options.out.mkdir(parents=True, exist_ok=True)
    base_row = json.loads((options.work / "base" / "history.json").read_text())[-1]
    for style in options.styles:
        row = json.loads((options.work / style / "history.json").read_text())[-1]
        about, heard = card(options, style, base_row["seconds"] + row["seconds"], int(base_row["step"] + row["step"]))
        weights = load_file(options.work / style / "style.safetensors")
        one = read_config(style)["model"]
        save_style(packed_path(options, style), weights, model_config=one, feature_config=features, card=about, fingerprints=heard)
        plain_file = options.work / "plain" / "best.safetensors"
        if plain_file.exists():
            options.baselines.mkdir(parents=True, exist_ok=True)
            about = replace(about, title=f"{about.title} (plain autoencoder)", description="A baseline: the same network shown its target.")
            weights = train.one_style(load_file(plain_file), options.styles.index(style))
            path = options.baselines / f"{style}-plain.safetensors"
            save_style(path, weights, model_config=one, feature_config=features, card=about, fingerprints=heard)
    pack_base(options)


def pack_base(options: argparse.Namespace) -> None:
    """The base as `train --from base` reads it: what each of its styles was made of is on their cards."""
    packed = [load_style_file(packed_path(options, style)) for style in options.styles]
    sources: dict[tuple[str, str], Source] = {}
    for data in packed:
        for source in data.card.sources:
            same = sources.get((source.name, source.licence), Source(source.name, source.licence))
            sources[source.name, source.licence] = replace(same, songs=same.songs + source.songs, hours=round(same.hours + source.hours, 2))
    row = json.loads((options.work / "base" / "history.json").read_text())[-1]
    about = Card(
        title="StyleStream base",
        description="A network of " + ", ".join(options.styles) + ", to start new styles from.",
        author="StyleStream contributors",
        licence="Apache-2.0",
        sources=tuple(source for _, source in sorted(sources.items())),
        training_minutes=round(row["seconds"] / 60, 1),
        training_steps=int(row["step"]),
        training_device=options.trained_on,
        notes="Songs that are in several styles are counted in each.",
    )
    fingerprints = {song: hashes for data in packed for song, hashes in data.fingerprints.items()}
    config = asdict(DrawConfig(styles=len(options.styles)))
    path = options.out / "base" / "base.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = load_file(options.work / "base" / "best.safetensors")
    save_style(path, weights, model_config=config, feature_config=asdict(FeatureConfig()), card=about, fingerprints=fingerprints)


def main() -> None:
    """Do the step that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("render", "plain", "all", "pack"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("stylestream/styles"))
    parser.add_argument("--baselines", type=Path, default=Path("benchmarks/baselines"))
    parser.add_argument("--trained-on", default="CPU", help="for the cards")
    parser.add_argument("--styles", type=lambda text: tuple(text.split(",")), default=STYLES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--soundfont", default="fluidr3")
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--per-style", type=int, default=200)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--enough", type=int, default=8, help="songs of each style with which the training may start")
    parser.add_argument("--base-minutes", type=float)
    parser.add_argument("--style-minutes", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, help="of the base; a style takes half of it")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step != "all":
        {"render": render, "plain": plain, "pack": pack}[options.step](options)
        return
    command = [sys.executable, __file__, "render", *sys.argv[2:]]
    with subprocess.Popen(command) as renderer:  # rendering goes on beside the training
        wait_for_songs(options, options.enough)
        model, stores = compiled(options), open_stores(options)
        base(options, model, stores)
        renderer.wait()
    for store in stores:
        store.refresh()
    for style in options.styles:
        print(style, flush=True)
        tune(options, style, model, stores)
    pack(options)


if __name__ == "__main__":
    main()
