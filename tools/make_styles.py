"""Train the bundled styles: render, train a many-style base, fine-tune each style from it, write the style files.

    python tools/make_styles.py all --data DATA --work WORK --out stylestream/styles
    python tools/make_styles.py postnet --data DATA --work WORK                 the post-nets of style files that are there, anew
    python tools/make_styles.py drums --data DATA --out stylestream/styles      the drum layers of style files that are there, anew
    python tools/make_styles.py later --data DATA --out stylestream/styles      the styles that the base has not heard, from it
    python tools/make_styles.py widths --data DATA --out stylestream/styles     how wide the music of style files that are there is, anew
    python tools/make_styles.py lstm2017 --data DATA                            the baseline of 2017, with as many steps as each style had
    python tools/make_styles.py wider --start BASE --data DATA --work WORK      the packed base further, on more music: MORE below
    python tools/make_styles.py plain --plain-on --plain-steps N --data DATA --work WORK    the plain autoencoders, N steps further

The settings are those of stylestream/configs/STYLE.toml: [train] for the base, [tune] for each style; options replace them. Each step
resumes when run again. As shipped, in two runs: a base with --per-style 240 --views 4 --seconds 20 --batch 256 --rate 1.5e-3
--base-minutes 14 on an H100 (its views were disturbed more), and all styles from it with --start BASE --per-style 240 --views 3
--seconds 12 --batch 128 --crop-frames 256 --rate 1e-3 --base-minutes 4.9 --style-minutes 0.5 on an H200. The base then
further: render --styles ballroom,roots,chamber,vocal --per-style 330 --views 3 --seconds 12 --soundfont fluidr3,OPL-3_FM_128M.sf2, the
eight with --per-style 200, then wider --batch 16 --base-minutes 62 in two processes of a CPU (`torchrun --nproc_per_node 2`); and from
that the later ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from stylestream import corpus, drumming, midi, recipes, train, views, width, workshop
from stylestream.cli import read_config, reason
from stylestream.corpus import FrameStore
from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.files import whole_file
from stylestream.style import PAINTS_TONES, Card, Source, StyleData, load_style_file, save_style, update_card, update_widths
from stylestream.team import assemble

STYLES = ("rock", "jazz", "electronic", "orchestra", "choir", "strings", "piano", "chiptune")
LATER = ("funk-soul", "bossa-latin")  # from the packed base, by the command that anybody has
RECORDINGS = "recordings"  # the base hears real music too, as a style that is not shipped
MORE = ("ballroom", "roots", "chamber", "vocal")  # and scores on the instruments that they ask for
# Half of the base's crops are told their style by a clip, of any orchestration: so it learns to hear one. A file of one style needs no ear.
CLIP_CHANNELS, CLIP_SHARE = 32, 0.5  # not 24: oneDNN then gives gradients that are not numbers, in bf16
# Held-out ways without and with a post-net (docs/sound.md): jazz 44 and 53 %; rock, electronic, piano as far, piano less in tune.
POSTNETS, POSTNET_CHANNELS = frozenset({"jazz"}), 16
WIDTH_SONGS, WIDTH_SECONDS = 24, 15.0
BASE_VIEWS = replace(views.ViewConfig(), whiten_share=0.1)  # a recording has no other orchestration: some of its views are whitened


def render(options: argparse.Namespace) -> None:
    """Frames of all styles' songs."""
    began = time.monotonic()

    def progress(done: int, total: int, failure: str) -> None:
        if done % 50 == 0 or failure:
            print(f"rendered {done}/{total} {time.monotonic() - began:.0f} s {failure}", flush=True)

    config = corpus.BuildConfig(views=options.views, max_seconds=options.seconds, soundfont=options.soundfont)
    folder, how = options.work / "frames", {"per_style": options.per_style, "jobs": options.jobs, "progress": progress}
    try:
        failures = hear_recordings(options.data, folder, options.recording_seconds)
        failures += corpus.build_frames(options.data, folder, options.styles, config=config, **how)
    except OSError as error:
        raise SystemExit(f"make_styles: {reason(error, written=folder)}") from None
    (options.work / "failures.json").write_text(json.dumps(failures))


def hear_recordings(data: Path, folder: Path, seconds: float) -> list[tuple[str, str]]:
    """Frames of the middle of each recording that ``DATA/audio.csv`` lists and whose licence allows it; none of the test split."""
    failures = []
    renderer = corpus.PieceRenderer(corpus.BuildConfig())
    for piece in recordings(data):
        half = min(0.5, seconds / 2 / piece.seconds)
        path = folder / f"{RECORDINGS}-{piece.split}-{recipes.song_id(piece.path.encode())}-0.npz"
        if path.exists():
            continue
        try:
            arrays = renderer.hear(data / piece.path, window=(0.5 - half, 0.5 + half))
        except (ValueError, OSError) as error:
            failures.append((piece.path, str(error)))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    return failures


def recordings(data: Path) -> list[recipes.Piece]:
    """Recordings to train on and to score on."""
    if not (data / "audio.csv").is_file():
        return []
    with (data / "audio.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    listed = [recipes.Piece(row["path"], source=row["source"], licence=row["licence"], seconds=float(row["seconds"])) for row in rows]
    return [piece for piece in listed if recipes.licence_allowed(piece.licence) and piece.split != "test"]


def heard_styles(options: argparse.Namespace) -> tuple[str, ...]:
    """The styles of the base, in the order of its rows."""
    folder = options.work / "frames"
    return (*options.styles, *(style for style in (RECORDINGS, *MORE) if any(folder.glob(f"{style}-train-*.npz"))))


Stores = tuple[FrameStore, FrameStore]  # of training songs and of held-out ones


def open_stores(options: argparse.Namespace) -> Stores:
    """What is rendered so far."""
    folder = options.work / "frames"
    return (
        FrameStore(folder, heard_styles(options), split="train", device=options.device),
        FrameStore(folder, heard_styles(options), split="valid", device=options.device),
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


def base_config(options: argparse.Namespace) -> DrawConfig:
    """The network of all styles, with an ear for others."""
    return DrawConfig(styles=len(heard_styles(options)), clip_channels=CLIP_CHANNELS)


def compiled(options: argparse.Namespace, config: DrawConfig) -> Draw:
    """A network, compiled where that pays."""
    model = Draw(config)
    if options.device.startswith("cuda"):
        train.compile_model(model)
    return model


def settings(options: argparse.Namespace, style: str, table: str) -> train.TrainConfig:
    """Of a style's bundled recipe, with what the options replace."""
    minutes = options.base_minutes if table == "train" else options.style_minutes
    rate = options.rate if table == "train" or options.rate is None else options.rate / 2
    given = {"minutes": minutes, "batch": options.batch, "crop_frames": options.crop_frames, "learning_rate": rate}
    return replace(
        train.construct(train.TrainConfig, read_config(style)[table], f"{style}.toml [{table}]"),
        **{key: value for key, value in given.items() if value is not None},
    )


def base(options: argparse.Namespace, model: Draw, stores: Stores) -> None:
    """All styles at once."""
    config = replace(settings(options, options.styles[0], "train"), clip_share=CLIP_SHARE)
    start = load_style_file(options.start).weights if options.start else None
    state = train.new_state(model.config, config, device=options.device, base=start, model=model)
    train.load_checkpoint(state, options.work / "base")
    train.fit(state, *stores, config, BASE_VIEWS, options.work / "base", report=say, grow=True)


def wider(options: argparse.Namespace) -> None:
    """The packed base, trained on with more music that is rendered already; several processes share a batch under ``accelerate launch``."""
    team, network = assemble(options.device), base_config(options)
    start = load_style_file(options.start)
    config = replace(settings(options, options.styles[0], "train"), clip_share=CLIP_SHARE, critic_from=1.0, texture_from=0.0, kl_warmup=0.0)
    config = replace(config, score_seconds=300.0)  # a score of all styles takes as long as twelve steps
    state = train.new_state(network, config, device=team.device, base=with_rows(start.weights, network.styles), team=team)
    train.load_checkpoint(state, options.work / "base")
    train.fit(state, *open_stores(options), config, BASE_VIEWS, options.work / "base", report=say)
    if team.leads:
        pack_wider(options, start, state)


def with_rows(weights: Mapping[str, torch.Tensor], styles: int) -> dict[str, torch.Tensor]:
    """The weights of a network of more styles: the new ones begin as the mean of those that it knows."""
    mean = {key: weights[key].mean(0, keepdim=True) for key in ("style", "mean_frames")}
    return {**weights, **{key: torch.cat([weights[key], row.expand(styles - len(weights[key]), -1)]) for key, row in mean.items()}}


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
    """The baseline: the same network as an autoencoder, shown the target itself; from nothing, or from the packed ones on."""
    wait_for_songs(options, options.enough)
    config = replace(settings(options, options.styles[0], "train"), critic_from=1.0, texture_from=1.0)
    config = replace(config, minutes=options.plain_minutes or config.minutes, steps=options.plain_steps or 0)
    network = replace(base_config(options), clip_channels=0)
    start, before = packed_plain(options) if options.plain_on else (Draw(network).state_dict(), 0)
    model = compiled(options, network)
    state = train.new_state(network, config, device=options.device, base=start, model=model)
    train.load_checkpoint(state, options.work / "plain")
    train.fit(state, *open_stores(options), config, views.NEUTRAL, options.work / "plain", report=say, grow=True)
    pack_plain(options, before)


def packed_plain(options: argparse.Namespace) -> tuple[dict[str, torch.Tensor], int]:
    """The packed plain autoencoders as the network of all styles that they were cut from, and its steps; a style that it had not heard
    begins as the mean of those that it had."""
    files = {style: load_style_file(options.baselines / f"{style}-plain.safetensors") for style in STYLES}
    weights = dict(files[STYLES[0]].weights)
    for key in ("style", "mean_frames"):
        known = {style: data.weights[key] for style, data in files.items()}
        mean = torch.stack([*known.values()]).mean(0)
        weights[key] = torch.cat([known.get(style, mean) for style in heard_styles(options)])
    return weights, files[STYLES[0]].card.training_steps


def pack_plain(options: argparse.Namespace, steps_before: int) -> None:
    """Files of the plain autoencoder for evaluation, one for each style."""
    options.baselines.mkdir(parents=True, exist_ok=True)
    folder = options.work / "plain"
    last, trained = json.loads((folder / "history.json").read_text())[-1], load_file(folder / "best.safetensors")
    for index, style in enumerate(options.styles):
        about, heard = card(options, style, last["seconds"], steps_before + int(last["step"]))
        about = replace(
            about,
            title=f"{about.title} (plain autoencoder)",
            description="A baseline: the same network, of all styles, shown its target.",
            notes=f"One network of {', '.join(options.styles)}. Songs rendered with FluidR3 (MIT).",
        )
        how = {"model_config": read_config(style)["model"], "feature_config": asdict(FeatureConfig()), "card": about, "fingerprints": heard}
        save_style(options.baselines / f"{style}-plain.safetensors", train.one_style(trained, index), **how)


def lstm2017(options: argparse.Namespace) -> None:
    """The baseline of 2017 for every style file that is there: as many steps as the style's card says, of the style's songs."""
    for style, path in packed(options):
        tables = read_config(style)
        given = {"batch": options.batch, "crop_frames": options.crop_frames}
        how = {**tables["train"], **{key: value for key, value in given.items() if value is not None}}
        tables = {**tables, "data": {**tables["data"], "recipe": style}, "train": how}
        out = options.baselines / f"{style}-lstm2017.safetensors"
        about = load_style_file(path).card
        base = load_style_file(options.out / "base" / "base.safetensors").card if style in LATER else None
        steps = about.training_steps + (base.training_steps if base else 0)
        workshop.train([options.data], out, config=tables, steps=steps, model="lstm2017", jobs=options.jobs, say=print)
        print(f"{style}: {steps} steps", flush=True)


LIMITS = f"{PAINTS_TONES}; every note comes of the song, nobody plays a new part; voices, reverberation, dense mixes become haze"
TITLES = {
    "rock": ("Rock band", "distortion guitars over a finger bass; the canvas has no drums"),
    "jazz": ("Jazz band", "tenor saxophones and a hollow-body guitar over an acoustic bass, trumpets on top; the canvas has no drums"),
    "electronic": ("Electronic", "a polysynth pad and synth brass over a synth bass; the canvas has no drums"),
    "orchestra": ("Orchestra", "string sections, horns in the middle, flutes above and basses below, in unison"),
    "funk-soul": ("Funk band", "slap bass, a muted guitar and an electric piano, brass on top; the canvas has no drums"),
    "bossa-latin": ("Bossa trio", "a nylon-string guitar over an acoustic bass, a flute on top; the canvas has no drums"),
    "choir": ("Choir", "choir aahs singing choral music in parts"),
    "strings": ("String quartet", "violins, viola and cello, bowed"),
    "piano": ("Piano", "a grand piano playing whatever comes"),
    "chiptune": ("Chiptune", "square and saw leads over a synth bass"),
}


def songs_heard(options: argparse.Namespace, style: str) -> tuple[tuple[Source, ...], dict[str, list[int]]]:
    """Where a style's training songs are from, and their fingerprints."""
    heard: dict[tuple[str, str], list[float]] = {}
    fingerprints = {}
    chosen = recipes.select(recipes.pieces(options.data, style), options.per_style)
    excerpts = max(1, round(options.per_style / max(1, len(chosen))))
    for piece, content in recipes.read_pieces(options.data, chosen):
        fingerprints[recipes.song_id(content)] = recipes.melody_fingerprint(midi.load_score(content))
        heard.setdefault((piece.source, piece.licence), []).append(min(piece.seconds, options.seconds * excerpts))
    return tuple(Source(name, licence, len(s), round(sum(s) / 3600, 2)) for (name, licence), s in sorted(heard.items())), fingerprints


def card(options: argparse.Namespace, style: str, seconds: float, steps: int) -> tuple[Card, dict[str, list[int]]]:
    """What a style was made of, and the fingerprints of its training songs."""
    sources, fingerprints = songs_heard(options, style)
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
            intended_use=workshop.INTENDED_USE,
            limits=LIMITS,
            notes=f"From a base of {', '.join(options.styles)}. Songs rendered with FluidR3 (MIT), transposed by up to 3 semitones.",
        ),
        fingerprints,
    )


def pack(options: argparse.Namespace) -> None:
    """Style files of what is trained so far, with their cards; the base."""
    features = asdict(FeatureConfig())
    options.out.mkdir(parents=True, exist_ok=True)
    base_row = json.loads((options.work / "base" / "history.json").read_text())[-1]
    for style in options.styles:
        row = json.loads((options.work / style / "history.json").read_text())[-1]
        about, heard = card(options, style, base_row["seconds"] + row["seconds"], int(base_row["step"] + row["step"]))
        weights = load_file(options.work / style / "style.safetensors")
        one = read_config(style)["model"]
        save_style(options.out / f"{style}.safetensors", weights, model_config=one, feature_config=features, card=about, fingerprints=heard)
    pack_base(options)


def postnet(options: argparse.Namespace) -> None:
    """Give the packed files of `POSTNETS` their post-nets."""
    for style in sorted(POSTNETS.intersection(options.styles)):
        add_postnet(
            options.out / f"{style}.safetensors",
            FrameStore(options.work / "frames", (style,), split="train", device=options.device),
            options,
        )


def add_postnet(path: Path, store: FrameStore, options: argparse.Namespace) -> None:
    """Train the post-net of one style file on canvases of the store's songs; everything else in the file stays."""
    data, config = load_style_file(path), train.PostNetConfig()
    if options.postnet_steps is not None:
        config = replace(config, steps=options.postnet_steps)
    settings = {**data.model_config, "postnet_channels": POSTNET_CHANNELS}
    torch.manual_seed(config.seed)
    model = Draw(train.construct(DrawConfig, settings, str(path)))
    before = {key: value for key, value in data.weights.items() if not key.startswith("postnet.")}
    model.load_state_dict(model.state_dict() | before)
    model.to(options.device)
    canvases, targets = train.paint_crops(model, store, config, BASE_VIEWS)
    print(
        path.stem,
        f"painted {len(canvases)} crops, off by {views.RANGE_DB * (canvases.float() - targets.float()).abs().mean():.2f} dB",
        flush=True,
    )
    train.fit_postnet(model, canvases, targets, config, report=lambda step, loss: print(path.stem, step, f"{loss:.3f}", flush=True))
    note = f"Post-net: {config.steps} steps of {config.batch} crops, when all else was trained."
    about = replace(data.card, notes=" ".join([*(data.card.notes.split(" Post-net:")[:1]), note]))
    weights = model.state_dict()
    kept = {"feature_config": data.feature_config, "fingerprints": data.fingerprints, "drums": data.drums, "widths": data.widths}
    save_style(path, weights, model_config=settings, card=about, **kept)


def add(sources: dict[tuple[str, str], Source], more: Source) -> None:
    """Count songs and hours of a source together."""
    same = sources.get((more.name, more.licence), Source(more.name, more.licence))
    sources[more.name, more.licence] = replace(same, songs=same.songs + more.songs, hours=round(same.hours + more.hours, 2))


def pack_base(options: argparse.Namespace) -> None:
    """The base as `train --from base` reads it: what each of its styles was made of is on their cards."""
    packed = [load_style_file(options.out / f"{style}.safetensors") for style in options.styles]
    sources: dict[tuple[str, str], Source] = {}
    for data in packed:
        for source in data.card.sources:
            add(sources, source)
    for piece in recordings(options.data):
        add(sources, Source(piece.source, piece.licence, 1, min(piece.seconds, options.recording_seconds) / 3600))
    row = json.loads((options.work / "base" / "history.json").read_text())[-1]
    about = Card(
        title="StyleStream base",
        description="A network of " + ", ".join(heard_styles(options)) + ", to start new styles from, and an ear for the style of a clip.",
        author="StyleStream contributors",
        licence="Apache-2.0",
        sources=tuple(source for _, source in sorted(sources.items())),
        training_minutes=round(row["seconds"] / 60, 1),
        training_steps=int(row["step"]),
        training_device=options.trained_on,
        intended_use="to start new styles from; to hear the style of a clip",
        limits=LIMITS,
        notes="Songs that are in several styles are counted in each.",
    )
    fingerprints = {song: hashes for data in packed for song, hashes in data.fingerprints.items()}
    config = asdict(base_config(options))
    path = options.out / "base" / "base.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = load_file(options.work / "base" / "best.safetensors")
    save_style(path, weights, model_config=config, feature_config=asdict(FeatureConfig()), card=about, fingerprints=fingerprints)


def pack_wider(options: argparse.Namespace, start: StyleData, state: train.State) -> None:
    """The base that was trained on; its card is that of before, and what came since."""
    sources = {(source.name, source.licence): source for source in start.card.sources}
    fingerprints = dict(start.fingerprints)
    for style in MORE:
        more, heard = songs_heard(options, style)
        fingerprints |= heard
        for source in more:
            add(sources, source)
    about = replace(
        start.card,
        description=f"A network of {', '.join(heard_styles(options))}, to start new styles from, and an ear for the style of a clip.",
        sources=tuple(source for _, source in sorted(sources.items())),
        training_minutes=round(start.card.training_minutes + state.seconds / 60, 1),
        training_steps=start.card.training_steps + state.step,
        training_device=f"{start.card.training_device}; {options.trained_on}",
        notes=f"{start.card.notes} {options.notes}".strip(),
    )
    weights, config = load_file(options.work / "base" / "best.safetensors"), asdict(state.model.config)
    path = options.out / "base" / "base.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_style(path, weights, model_config=config, feature_config=start.feature_config, card=about, fingerprints=fingerprints)


def later(options: argparse.Namespace) -> None:
    """Styles that the base has not heard, with the settings of their configs and the cards of bundled styles."""
    for style in LATER:
        path = options.out / f"{style}.safetensors"
        start = options.out / "base" / "base.safetensors"
        workshop.train([options.data], path, config=read_config(style), base=start, device=options.device, say=print)
        title, description = TITLES[style]
        update_card(path, title=title, description=description, author="StyleStream contributors", licence="Apache-2.0", limits=LIMITS)


def packed(options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Style files that are there, of the styles that are asked for."""
    for style in (*STYLES, *LATER) if options.styles == STYLES else options.styles:
        path = options.out / f"{style}.safetensors"
        if path.is_file():
            yield style, path


def drums(options: argparse.Namespace) -> None:
    """The drum layer of every style file that is there and whose songs have drums; the weights stay as they are."""
    with midi.Synthesizer(options.soundfont) as synthesizer:
        for style, path in packed(options):
            try:
                said = drumming.add_drums(path, options.data, recipes.recipe_of(style), synthesizer)
            except ValueError as error:
                said = f"no drums: {error}"
            print(f"{style}: {said}", flush=True)


def widths(options: argparse.Namespace) -> None:
    """How wide the training music of every style file that is there is, without drums; the weights stay as they are."""
    with midi.Synthesizer(options.soundfont) as synthesizer:
        for style, path in packed(options):
            heard = [*widths_heard(options.data, style, synthesizer)]
            update_widths(path, width.typical(heard))
            print(f"{style}: {' '.join(f'{w:.3f}' for w in width.typical(heard))}, of {len(heard)} songs", flush=True)


def widths_heard(data: Path, style: str, synthesizer: midi.Synthesizer) -> Iterator[width.Widths]:
    """How wide a passage of each of `WIDTH_SONGS` training songs is, from a quarter of its length on, as the style plays it."""
    recipe = recipes.recipe_of(style)
    for _, score in drumming.read_scores(data, recipes.select(recipes.pieces(data, style), WIDTH_SONGS)):
        with suppress(ValueError):  # a score without notes
            start = 0.25 * midi.duration_seconds(score)
            y = synthesizer.render(recipes.target_score(score, recipe), start_seconds=start, max_seconds=WIDTH_SECONDS)
            yield width.widths_of(y, drumming.SAMPLE_RATE)


def main() -> None:
    """Do the step that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("render", "plain", "all", "pack", "postnet", "later", "drums", "widths", "lstm2017", "wider"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, help="of all steps but later, drums, widths and lstm2017: what is not finished")
    parser.add_argument("--out", type=Path, default=Path("stylestream/styles"))
    parser.add_argument("--baselines", type=Path, default=Path("benchmarks/baselines"))
    parser.add_argument("--trained-on", default="CPU", help="for the cards")
    parser.add_argument("--notes", default="", help="of the step wider, for the base's card")
    parser.add_argument("--styles", type=lambda text: tuple(text.split(",")), default=STYLES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--soundfont", default="fluidr3")
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--per-style", type=int, default=200)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--recording-seconds", type=float, default=60.0)
    parser.add_argument("--plain-minutes", type=float, help="also train the plain autoencoder, after the styles")
    parser.add_argument("--plain-steps", type=int, help="so many steps of it instead")
    parser.add_argument("--plain-on", action="store_true", help="the step plain goes on from the files in --baselines")
    parser.add_argument("--postnet-steps", type=int)
    parser.add_argument("--enough", type=int, default=8, help="songs of each style with which the training may start")
    parser.add_argument("--base-minutes", type=float)
    parser.add_argument("--style-minutes", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--crop-frames", type=int)
    parser.add_argument("--start", type=Path, help="a base to go on from, instead of nothing")
    parser.add_argument("--rate", type=float, help="of the base; a style takes half of it")
    options = parser.parse_args()
    whole = {"later": later, "drums": drums, "widths": widths, "lstm2017": lstm2017}
    if options.step in whole:
        whole[options.step](options)
        return
    if options.work is None:
        parser.error(f"the step {options.step} needs --work")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step != "all":
        {"render": render, "plain": plain, "pack": pack, "postnet": postnet, "wider": wider}[options.step](options)
        return
    command = [sys.executable, __file__, "render", *sys.argv[2:]]
    with subprocess.Popen(command) as renderer:  # rendering goes on beside the training
        wait_for_songs(options, options.enough)
        model, stores = compiled(options, base_config(options)), open_stores(options)
        base(options, model, stores)
        renderer.wait()
    for store in stores:
        store.refresh()
    for style in options.styles:
        print(style, flush=True)
        tune(options, style, model, stores)
    if options.plain_minutes:
        plain(options)
    pack(options)
    postnet(options)
    later(options)
    drums(options)
    widths(options)


if __name__ == "__main__":
    main()
