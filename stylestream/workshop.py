"""Folders of music → style file: what is planned, prepared, shown while it runs, and written.

`train` is the whole way, and `OUT.ckpt/` its workbench: the plan, the songs' frames, checkpoints and logs. The same call goes on where
it was interrupted; another one is refused. The loop itself is `stylestream.train.fit`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylestream import audio, corpus, doctor, parallel, plots, recipes, views
from stylestream.blend import BLENDED_SETTINGS
from stylestream.corpus import BuildConfig, FrameStore
from stylestream.dataset import DESCRIPTION, Dataset
from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.files import alone_in, whole_file
from stylestream.passages import same_melody
from stylestream.sources import SONG_SUFFIXES, walk
from stylestream.style import check_room, check_settings
from stylestream.team import Team, assemble
from stylestream.train import (
    LEAST_BATCH,
    State,
    TrainConfig,
    batch_of,
    construct,
    distance_db,
    fit,
    is_out_of_memory,
    load_checkpoint,
    nearest,
    new_state,
    stand_in,
    start_weights,
    train_step,
)
from stylestream.vocoder import Vocoder, sound_of

if TYPE_CHECKING:
    from stylestream.style import Card, Source, StyleData
    from stylestream.width import Widths

MODELS = ("draw", "plain", "lstm2017")
TABLES = {"model": DrawConfig, "train": TrainConfig, "tune": TrainConfig, "views": views.ViewConfig, "data": BuildConfig}
# What [tune] starts from: training that starts from a style's weights. The encoder hears music already.
TUNE = TrainConfig(
    learning_rate=1e-3, final_rate=0.01, kl_warmup=0.0, critic_from=0.35, texture_from=0.0, ema=0.995, freeze_encoder=True
)  # fmt: skip
DONE = "done.json"  # what came of a training: its style is written, here or in its place, and nothing is left to do but tidying up
DRAFT = "style.safetensors"  # before it has its drums; of a name of its own, for the output may be called like a checkpoint
SONGS_SHARE = 0.5  # of the memory that is free, at most, holds songs: the rest is for the network, and for other programs
RENDER_SHARE = 0.25  # of the minutes given, at most, goes into rendering
WIDTH_SONGS, WIDTH_SECONDS = 24, 15.0  # that a style's width is measured on; of each score
SHOW_SECONDS = 110.0  # between two previews
EXCERPT_SECONDS = 4.0  # of music in one
PAUSE_SECONDS = 0.4  # in it between song, result and target
MOST_BATCH = 256
TRIAL_SHARE = 0.01  # of the minutes: a step on trial that takes longer ends the trial
SAMENESS_FRAMES = 50_000  # that are looked at, for whether the music is all alike
LITTLE_SECONDS = 1800.0
LARGE_BYTES = 200e6  # of a file, or an hour: it is not listened to in the first minute
INTENDED_USE = "to play songs of one's own, or free ones, in the sound of the music below; to listen, to make music, to study"
CALIBRATION_SCORES = 12  # that drums are levelled by: each takes seconds, at the end of what may be a minute
LEAST_SECONDS = 180.0  # of music: with less, a style knows its songs and not their sound
# of a network: others than those of the weights are no harm
_INHERITED = (
    "clip_channels",
    "postnet_channels",
)  # the base has an ear, a style of its own needs none; a post-net stays where there is one


@dataclass(frozen=True)
class Plan:
    """All that a training is. The same plan goes on where it was interrupted."""

    kind: str  # of MODELS
    start: str  # "none", "base", or a style
    model: DrawConfig
    config: TrainConfig
    views: Mapping[str, Any]  # as given; the rest depends on what the sources are
    data: BuildConfig
    sources: tuple[str, ...]

    def tables(self) -> dict[str, dict[str, Any]]:
        """As JSON, under the names that the user knows."""
        call = {"--model": self.kind, "--from": self.start, "sources": list(self.sources)}
        return {
            "": call,
            "[model] ": asdict(self.model),
            "[train] ": asdict(self.config),
            "[views] ": dict(self.views),
            "[data] ": asdict(self.data),
        }


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    path: Path
    songs: int  # found
    failures: dict[str, str]  # songs that could not be used, and why
    score: dict[str, float]  # the best row of held-out scores


def train(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    base: str | Path | None = None,
    model: str = "draw",
    jobs: int | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    progress: Callable[[str, float, str], None] = lambda phase, done, text: None,
    say: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Make a style file of music. The same call goes on where it was interrupted.

    Parameters
    ----------
    sources : sequence of paths
        Folders of MIDI or audio, single files, or a collection with ``midi.csv``: of this one the pieces of ``recipe`` in
        ``config["data"]``, or of the recipe that has the name of ``out``.
    out : path of a ``.safetensors``
        Checkpoints, frames and logs lie in ``OUT.ckpt/`` until it is done; then only the logs do.
    config : mapping of table to mapping of key to value
        ``model`` (`DrawConfig`), ``train`` and ``tune`` (`TrainConfig`; ``tune`` is taken for a start from weights), ``views``
        (`ViewConfig`), ``data`` (`BuildConfig`).
    minutes, steps : one of them, or neither: as the config says
        Minutes count rendering. Steps are the same on every run.
    base : "base", "none", or a style's name or file, optional
        What to start from; the bundled base when not given, unless ``config["model"]`` is a network of another size.
    model : "draw", "plain", "lstm2017"
        The latter two are what a style has to beat (`baselines`).
    jobs : int, optional
        Processes that render; one a core when not given.
    report, progress, say : functions
        Of a row of scores; of (what is done, share of it, text); of a line that the user should read.

    Raises
    ------
    ValueError, OSError
        If there is no music, the config is wrong, ``OUT.ckpt`` holds another training, or a file cannot be written.
    FloatingPointError
        If the loss is not finite time and again.
    """
    began = time.monotonic()
    plan, start = make_plan(sources, config or {}, minutes=minutes, steps=steps, seed=seed, base=base, model=model)
    team = assemble(device)
    if not team.leads:
        report, progress, say = (lambda *_: None for _ in range(3))
    out = Path(out)
    plan = replace(plan, data=replace(plan.data, recipe=_recipe_named(plan, out.stem, sources)))
    folder = out.with_name(out.name + ".ckpt")
    with contextlib.ExitStack() as held:
        team.first(lambda: held.enter_context(_workbench(folder)))
        team.first(lambda: _open_folder(folder, plan))
        if before := team.first(lambda: _finished(folder, out)):
            return before
        limit = None if plan.config.steps else RENDER_SHARE * 60 * plan.config.minutes
        prepared = team.first(lambda: _prepare(plan, start, folder, limit, jobs, progress, say, room_for_songs(team)))
        if limit is not None:
            whole = 60 * plan.config.minutes
            left = max(whole - max(time.monotonic() - began, prepared.seconds), whole * (1 - 2 * RENDER_SHARE))
            plan = replace(plan, config=replace(plan.config, minutes=left / 60, score_seconds=min(plan.config.score_seconds, left / 8)))
        if plan.kind == "lstm2017":
            return team.first(lambda: _train_lstm2017(plan, prepared, out, folder, team.device, progress))
        state = _fit_folder(plan, start, prepared, folder, team, report, progress, say)
        best = next((row for row in state.history if row["score/way"] == state.best_score), {})
        if team.leads:
            about, made = _card(plan, start, state, prepared, out, best), folder / DRAFT
            _write_style(plan, start, prepared, made, folder, about)
            if plan.kind == "draw":
                progress("training", 1.0, "listening for width and drums")
                say(add_widths(plan, prepared, made))
                say(add_drums(plan, prepared, made))
            _finish(folder, Trained(out, prepared.found, prepared.failures, best))
        team.agree(0.0)
        return Trained(out, prepared.found, prepared.failures, best)


def _recipe_named(plan: Plan, name: str, sources: Sequence[str | Path]) -> str:
    """A collection, and a dataset, may have many styles: the output says which, where the config does not."""
    if plan.data.recipe:
        return plan.data.recipe
    if name in recipes.STYLE_RECIPES and any((Path(source) / "midi.csv").is_file() for source in sources):
        return name
    built = [Dataset(source) for source in sources if is_dataset(source)]
    return name if any(name in data.description.styles for data in built) else ""


def make_plan(
    sources: Sequence[str | Path],
    config: Mapping[str, Mapping[str, Any]],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    base: str | Path | None = None,
    model: str = "draw",
) -> tuple[Plan, StyleData | None]:
    """Check what was asked for before anything is done; the plan, and the style to start from.

    Raises
    ------
    ValueError
        If it cannot be.
    """
    for name in config:
        if name not in TABLES:
            raise ValueError(f"unknown table [{name}]; {nearest(name, list(TABLES))}")
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; {nearest(model, MODELS)}")
    if model != "draw" and base not in (None, "none"):
        raise ValueError(f"--model {model} is trained from nothing; leave --from out")
    check_settings(config.get("model", {}), "[model]")
    made: dict[str, Any] = {name: construct(kind, config.get(name, {}), f"[{name}]") for name, kind in TABLES.items()}
    start = _start(base, config.get("model", {})) if model == "draw" else None
    network = made["model"] if start is None else _adopted(start, config.get("model", {}), str(base or "base"))
    table = "train" if start is None or "tune" not in config else "tune"
    settings = made["train"] if start is None else construct(TrainConfig, {**asdict(TUNE), **config.get(table, {})}, f"[{table}]")
    if model == "plain":  # as a style is trained, but shown the target itself, and nothing that is not in the 2017 way
        settings = replace(settings, critic_from=1.0, texture_from=1.0)
    if steps is not None or minutes is not None:
        settings = replace(settings, steps=steps or 0, minutes=settings.minutes if minutes is None else minutes)
    settings = replace(settings, seed=seed)
    if network.n_bins != FeatureConfig().n_bins:
        raise ValueError(f"[model] n_bins is {network.n_bins}, and frames have {FeatureConfig().n_bins}; leave it out")
    check_room(network, "[model]")
    if settings.crop_frames % network.grid_frames or settings.crop_frames % 4:
        raise ValueError(f"[train] crop_frames {settings.crop_frames} is not a multiple of {max(network.grid_frames, 4)}")
    name = "none" if start is None else "base" if base in (None, "base") else str(base)
    where = tuple(str(Path(source).resolve()) for source in sources)
    return Plan(model, name, replace(network, styles=1), settings, dict(config.get("views", {})), made["data"], where), start


# -- what to start from ----------------------------------------------------------------------------------------------------


def _start(base: str | Path | None, wanted: Mapping[str, Any]) -> StyleData | None:
    """The style to start from; None: from nothing."""
    from stylestream.style import base_path, find_style, load_style_file, network_of

    if base == "none":
        return None
    path = base_path() if base in (None, "base") else find_style(base or "")
    data = load_style_file(path)
    name = f"--from {base or 'base'}"
    network_of(data, name)
    return None if base is None and _different(data, wanted) else data


def _different(data: StyleData, wanted: Mapping[str, Any]) -> list[str]:
    own = {**asdict(DrawConfig()), **data.model_config}
    return [key for key, value in wanted.items() if key not in (*BLENDED_SETTINGS, *_INHERITED, "styles") and value != own.get(key)]


def _adopted(data: StyleData, wanted: Mapping[str, Any], name: str) -> DrawConfig:
    """The network of a style's weights, with the settings that are asked for and free."""
    for key in _different(data, wanted):
        raise ValueError(f"[model] {key} is {wanted[key]!r}, in {name} it is another; leave it out, or start from nothing with --from none")
    own = construct(DrawConfig, data.model_config, f"--from {name}")
    return replace(own, clip_channels=0, **{key: wanted[key] for key in BLENDED_SETTINGS if key in wanted})  # `start_weights` has no ear


# -- OUT.ckpt/ -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _workbench(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, f"another training is at work in {folder}; wait for it, or choose another -o"):
        yield


def _open_folder(folder: Path, plan: Plan) -> None:
    """Make the folder, or see that it holds the same training. What lies there without a plan is of one that is done, or never began."""
    path = folder / "plan.json"
    for half in folder.rglob(".*.part"):  # of a process that was killed while writing
        half.unlink(missing_ok=True)
    tables = json.loads(json.dumps(plan.tables()))
    if not path.exists() or not _begun(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(tables, indent=1))
        return
    before = json.loads(path.read_text())
    for table, values in tables.items():
        for key, value in values.items():
            was = before.get(table, {}).get(key)
            if was != value:
                remedy = f"give the same command to go on with it, or remove {folder} to begin anew"
                raise ValueError(f"{folder} holds another training ({table}{key} was {was!r}, now {value!r}); {remedy}")


def _begun(folder: Path) -> bool:
    """Whether anything would be lost."""
    if (folder / DONE).exists():
        return (folder / DRAFT).exists() or folder.with_suffix("").exists()
    return any((folder / "frames").glob("*.npz")) or (folder / "last.safetensors").exists()


def is_untidy(out: Path) -> bool:
    """Whether a style is written, and its training was killed before it had tidied up: then the same command does."""
    return (out.with_name(out.name + ".ckpt") / DONE).exists()


def _finish(folder: Path, trained: Trained) -> None:
    """Put the style in its place, and tidy up; whoever is killed while at it has said first that nothing else is left to do."""
    with whole_file(folder / DONE) as temporary:
        temporary.write_text(json.dumps([trained.songs, trained.failures, trained.score]))
    _finished(folder, trained.path)


def _finished(folder: Path, out: Path) -> Trained | None:
    """What came of a training that was done, but for the last tidying; None of another."""
    if not (folder / DONE).exists():
        return None
    trained = Trained(out, *json.loads((folder / DONE).read_text()))
    if (folder / DRAFT).exists():
        (folder / DRAFT).replace(out)  # whole, or not there
    _tidy(folder)
    return trained


def is_dataset(source: str | Path) -> bool:
    """Whether a source is a built dataset, not music."""
    return (Path(source) / DESCRIPTION).is_file()


def _prepare(
    plan: Plan,
    start: StyleData | None,
    folder: Path,
    seconds: float | None,
    jobs: int | None,
    progress: Callable[[str, float, str], None],
    say: Callable[[str], None],
    room_bytes: float = math.inf,
) -> corpus.Prepared:
    """The frames of the sources; remembered in ``songs.json``, so that a song that is added meanwhile does not change the training."""
    path = folder / "songs.json"
    if path.exists():
        return corpus.Prepared(**json.loads(path.read_text()))
    built = [source for source in plan.sources if is_dataset(source)]
    for line in () if built else first_look(plan.sources, plan.data):
        say(f"warning: {line}")

    def done(count: int, total: int, failure: str) -> None:
        progress("rendering", count / total, f"rendering {count}/{total}")
        if failure:
            say(failure)

    def found(songs: Sequence[corpus.Song]) -> None:
        if line := known_already({song.id: corpus.melody_of(song) for song in songs}, start):
            say(f"warning: {line}")

    make = _spectrum if plan.kind == "lstm2017" else corpus.frames_of
    try:
        if built:
            prepared = _listed(plan, built)
            if line := known_already(fingerprints(prepared), start):
                say(f"warning: {line}")
        else:
            how: dict[str, Any] = {"make": make, "seconds": seconds, "jobs": jobs, "found": found, "progress": done}
            prepared = corpus.prepare(plan.sources, folder / "frames", plan.data, **how)
    except (ValueError, OSError):
        if not _begun(folder):  # there was no music
            _tidy(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    prepared = _held(prepared, folder, room_bytes, say)
    if prepared.music_seconds < LEAST_SECONDS:
        heard, least = prepared.music_seconds, LEAST_SECONDS / 60
        say(f"warning: only {heard:.0f} s of music to train on; with less than {least:.0f} minutes a style learns songs, not a sound")
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(prepared)))
    return prepared


def room_for_songs(team: Team) -> float:
    """Bytes that one process of a team may fill with songs."""
    if team.device.startswith("cuda"):
        return SONGS_SHARE * torch.cuda.mem_get_info(team.device)[0]
    return SONGS_SHARE * parallel.free_memory_bytes() / team.size


def _held(prepared: corpus.Prepared, folder: Path, room_bytes: float, say: Callable[[str], None]) -> corpus.Prepared:
    """What the memory holds of it. Chosen once: a training that goes on elsewhere is the same training."""
    held = prepared.within(room_bytes)
    if len(held.songs) < len(prepared.songs):
        count = f"{len(held.songs)} of {len(prepared.songs)} songs and excerpts, drawn by hash, are used"
        say(f"warning: {count}: more do not fit into the {room_bytes / 2**30:.1f} GiB that are free for them")
    for song in prepared.songs:
        if song not in held.songs:
            (folder / "frames" / song["name"]).unlink(missing_ok=True)
    return held


def _listed(plan: Plan, built: Sequence[str]) -> corpus.Prepared:
    """The songs of a built dataset that a training hears.

    Raises
    ------
    ValueError
        If there are other sources beside it, it has many styles and none is named, or its frames are of another kind.
    """
    if len(plan.sources) > 1:
        raise ValueError("a dataset is trained on alone; build one of all sources with `stylestream dataset build`")
    if plan.kind == "lstm2017":
        raise ValueError("--model lstm2017 hears sound, and a dataset has frames; give the folder of music")
    data = Dataset(built[0])
    if data.features != FeatureConfig():
        raise ValueError(f"{built[0]}: its frames are not those of this StyleStream; build it again")
    names = data.description.styles
    style = plan.data.recipe or (names[0] if len(names) == 1 else "")
    if style not in names:
        raise ValueError(f"{built[0]} holds {', '.join(names[:8])}; name the output after one, or set recipe in [data]")
    columns = ("song_id", "style", "split", "source", "licence", "path", "seconds", "whole_seconds", "fingerprint", "frames", "views")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(data.songs[name].to_pylist() for name in columns), strict=True)]
    songs = [
        {"name": row["song_id"], "id": row["song_id"], **{key: row[key] for key in ("path", "split", "source", "licence", "seconds")}}
        | {"whole_seconds": row["whole_seconds"] or row["seconds"], "fingerprint": row["fingerprint"] or []}
        | {"bytes": row["frames"] * (row["views"] + 1) * data.features.n_bins}
        for row in rows
        if row["style"] == style and row["split"] in ("train", "valid")
    ]
    return corpus.Prepared(songs, {}, {}, 0.0)


def _tidy(folder: Path) -> None:
    """Leave only the logs: what is done needs no resuming, and another training may have the name.

    The plan goes last: for as long as it is there, the rest is its own.
    """
    shutil.rmtree(folder / "frames", ignore_errors=True)
    for name in ("songs.json", "last.safetensors", "best.safetensors", DRAFT, DONE, "plan.json"):
        (folder / name).unlink(missing_ok=True)


# -- what the user should know in the first minute -------------------------------------------------------------------------


def first_look(sources: Sequence[str], config: BuildConfig, *, seconds: float = 20.0, files: int = 24) -> list[str]:
    """What is odd about the music, by a look at some of its files: one line each.

    Parameters
    ----------
    seconds : float
        After so long no further file is looked at.
    """
    until = time.monotonic() + seconds
    places = [Path(source) for source in sources if not (Path(source) / "midi.csv").is_file()]
    paths = sorted((path for place in places for path in _music_below(place)), key=lambda path: recipes.text_hash(path.name))
    large = [path for index, path in enumerate(paths) if path.stat().st_size >= LARGE_BYTES or (index < files and _lasts_hours(path))]
    checkups: list[doctor.Checkup] = []
    for path in paths[:files]:
        if time.monotonic() > until:
            break
        if path not in large:  # too long to be listened to now
            checkups.append(doctor.examine(path, timeout_seconds=seconds))
    most = f"of one recording at most {clock(config.audio_seconds)} are used (audio_seconds in [data])"
    lines = [f"{len(large)} of {len(paths)} files are very long ({', '.join(path.name for path in large[:3])}); {most}"] if large else []
    return lines + list(_look_lines(len(paths), checkups, config))


def _lasts_hours(path: Path) -> bool:
    """By what its head says; a score, and a file whose head says nothing, do not."""
    try:
        seconds = None if path.suffix.lower() in recipes.SCORE_SUFFIXES else audio.info(path).seconds
    except (ValueError, OSError):
        return False
    return seconds is not None and seconds > 3600


def _music_below(place: Path) -> list[Path]:
    return [path for path in (walk(place, SONG_SUFFIXES) if place.is_dir() else [place]) if path.is_file()]


def _look_lines(found: int, checkups: Sequence[doctor.Checkup], config: BuildConfig) -> Iterator[str]:
    names = [[finding.name for finding in checkup.findings] for checkup in checkups]
    silent = sum("silent" in own for own in names)
    if silent:
        yield f"{silent} of {len(checkups)} files looked at are silent; they are left out"
    different = len({checkup.id for checkup in checkups if checkup.id})
    if found > 1 and len(checkups) > 1 and different == 1:
        yield f"all {len(checkups)} files looked at are the same file; it counts once, and a style of one song is that song"
    seconds = sum(checkup.seconds for checkup in {checkup.id: checkup for checkup in checkups}.values())
    if len(checkups) == found and 0 < seconds < LEAST_SECONDS:
        yield f"{clock(seconds)} of music in all; with less than {LEAST_SECONDS / 60:.0f} minutes a style learns songs, not a sound"
    long = [checkup for checkup in checkups if checkup.sound and checkup.seconds > 1.5 * config.audio_seconds]
    if long:
        longest = max(long, key=lambda checkup: checkup.seconds)
        rest = f"of one recording at most {clock(config.audio_seconds)} are used (audio_seconds in [data])"
        yield f"{len(long)} of {len(checkups)} files looked at are long ({Path(longest.path).name} {clock(longest.seconds)}); {rest}"


def known_already(songs: Mapping[str, Sequence[int]], start: StyleData | None) -> str:
    """A line, if what is to be trained on is in the weights that the training starts from.

    Parameters
    ----------
    songs : mapping of song id to melody fingerprint
    """
    if start is None:
        return ""
    count = sum(song in start.fingerprints or same_melody(own, start.fingerprints) is not None for song, own in songs.items())
    if not songs or count < len(songs) / 2:
        return ""
    return f"{count} of {len(songs)} songs are in {start.card.title} already; its own styles may do, see `stylestream styles`"


def sameness(store: FrameStore) -> Iterator[str]:
    """Lines about music that is too much alike to learn a style of."""
    every = max(8, store.frames.shape[1] // SAMENESS_FRAMES)  # all of a hundred hours would take their memory again
    rows = store.frames[0, ::every].float() / corpus.LEVELS  # (T, F)
    notes = torch.nn.functional.relu(rows - rows.mean(1, keepdim=True)).mean(0)
    classes = notes[: notes.numel() // 36 * 36].reshape(-1, 12, 3).sum((0, 2))
    if float(classes.sort(descending=True).values[:3].sum() / classes.sum().clamp(min=1e-9)) > 0.75:
        yield "nearly all of the music is on three notes; other keys will sound like them"
    if float(rows.mean(1).std() * 90) < 0.5:
        yield "all of the music is equally loud from beginning to end; the style will have no dynamics"
    if len(store.songs) > 1:
        means = torch.stack([store.frames[0, first : first + count : 8].float().mean(0) for _, _, first, count in store.songs])
        far_db = (means - means.mean(0)).abs().mean() / corpus.LEVELS * 90
        if float(far_db) < 0.2:
            yield "all songs sound the same on average, to a fifth of a decibel; are they copies?"


# -- the training itself ---------------------------------------------------------------------------------------------------


def _fit_folder(
    plan: Plan,
    start: StyleData | None,
    prepared: corpus.Prepared,
    folder: Path,
    team: Team,
    report: Callable[[dict[str, float]], None],
    progress: Callable[[str, float, str], None],
    say: Callable[[str], None],
) -> State:
    device = team.device
    store, held_out = _stores(plan, prepared, folder, device)
    if not store.starts(plan.config.crop_frames):
        raise ValueError(f"no song is as long as a crop of {plan.config.crop_frames} frames; lower crop_frames in [train], or add songs")
    base = None if start is None else start_weights(start.weights, store.mean_frames()[0])
    state = new_state(plan.model, plan.config, device=device, base=base, team=team)
    if load_checkpoint(state, folder) and state.step:
        say(f"resuming from step {state.step}")
    for line in sameness(store) if state.step == 0 else ():
        say(f"warning: {line}")
    how = view_config(plan, store)
    began = time.monotonic()
    with _threads(plan, store, how, device), _tensorboard(folder, state.step, team) as writer:
        state.batch = state.batch or team.share(_batch_for(plan, store, how, team))
        excerpt = Excerpt(held_out)
        left = max(plan.config.minutes - (time.monotonic() - began) / 60, plan.config.minutes / 2)
        config = replace(plan.config, minutes=left)
        watch = Watch(config, state, excerpt, folder, writer, progress, report)
        every = min(SHOW_SECONDS, 60 * left / 4) if not plan.config.steps else SHOW_SECONDS
        fit(
            state, store, held_out, config, how, folder, report=watch.report, tick=watch.tick, show=watch.show, show_seconds=every, say=say
        )  # fmt: skip
    if not state.history or state.history[-1]["progress"] < 1:
        return state
    steps = f"{state.step} step{'s' * (state.step != 1)}"
    say(f"trained {steps}; the best weights score {100 * state.best_score:.1f} % of the way from copying to the target")
    return state


def _stores(plan: Plan, prepared: corpus.Prepared, folder: Path, device: str) -> tuple[FrameStore, FrameStore]:
    """Songs to train on and to score on; of a dataset without a song to score on, the last is held out."""
    built = next((source for source in plan.sources if is_dataset(source)), None)
    if built is None:
        train, valid = (FrameStore(folder / "frames", [corpus.OWN_STYLE], split=split, device=device) for split in ("train", "valid"))
        return train, valid
    data = Dataset(built)
    names, only = [plan.data.recipe or data.description.styles[0]], {song["name"] for song in prepared.songs}
    store = data.frame_store(names, split="train", device=device, only=only)
    try:
        return store, data.frame_store(names, split="valid", device=device, only=only)
    except ValueError:
        if len(store.songs) < 2:
            raise ValueError(f"{built}: only one song to train on, and none to score on; build it of more songs") from None
        return store.part(store.songs[:-1]), store.part(store.songs[-1:])


def _batch_for(plan: Plan, store: FrameStore, how: views.ViewConfig, team: Team) -> int:
    """Crops in a step where the config leaves it open: on a GPU as many as still make it a tenth faster, by a quick trial."""
    if plan.config.batch or plan.config.steps or not team.device.startswith("cuda") or team.size > 1:
        return plan.config.batch
    state, best, batch = new_state(plan.model, plan.config, device=team.device), (0.0, LEAST_BATCH), LEAST_BATCH
    while batch <= MOST_BATCH:
        try:
            rate = batch / _seconds_per_step(state, store, replace(plan.config, batch=batch), how, torch.get_num_threads())
        except torch.cuda.OutOfMemoryError:
            break
        used = torch.cuda.max_memory_reserved(team.device) / torch.cuda.get_device_properties(team.device).total_memory
        if rate < 1.1 * best[0] or used > 0.6:
            break
        best, batch = (rate, batch), 2 * batch
    torch.cuda.empty_cache()
    return best[1]


@contextlib.contextmanager
def _threads(plan: Plan, store: FrameStore, how: views.ViewConfig, device: str) -> Iterator[None]:
    """As many threads as asked for; where minutes count, one if that is faster: beside other programs two can be slower than one."""
    before = torch.get_num_threads()
    try:
        trial = not plan.config.threads and not plan.config.steps and device == "cpu" and before > 1
        torch.set_num_threads(_faster_threads(plan, store, how) if trial else plan.config.threads or before)
        yield
    finally:
        torch.set_num_threads(before)


def _faster_threads(plan: Plan, store: FrameStore, how: views.ViewConfig) -> int:
    """One thread, or those that torch takes, by a trial; without one where a step is dear, or does not fit into memory as it is."""
    usual = torch.get_num_threads()
    state = new_state(plan.model, plan.config)
    config = replace(plan.config, batch=batch_of(state, plan.config))
    most = TRIAL_SHARE * 60 * plan.config.minutes
    try:
        seconds = _seconds_per_step(state, store, config, how, usual, most_seconds=most)
        return 1 if math.isfinite(seconds) and _seconds_per_step(state, store, config, how, 1, most_seconds=most) < seconds else usual
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return usual  # the training will halve its batch


def _seconds_per_step(
    state: State, store: FrameStore, config: TrainConfig, how: views.ViewConfig, threads: int, *, most_seconds: float = math.inf
) -> float:
    """Of the second step, which is faster than the first; infinite where the first took so long that no more is to be tried."""
    torch.set_num_threads(threads)
    for _ in range(2):
        began = time.monotonic()
        train_step(state, store, config, how, 0.0)
        seconds = time.monotonic() - began
        if seconds > most_seconds:
            return math.inf
    return seconds


def view_config(plan: Plan, store: FrameStore) -> views.ViewConfig:
    """How this training draws its views: as asked, and the rest by how much of the music is recordings."""
    if plan.kind == "plain":
        return views.NEUTRAL
    windows = [slice(first, first + count) for _, _, first, count in store.songs]
    recorded = sum(torch.equal(store.frames[-1, window], store.frames[0, window]) for window in windows) / len(windows)
    usual = replace(views.ViewConfig(), whiten_share=views.RECORDINGS.whiten_share * recorded) if recorded < 1 else views.RECORDINGS
    return replace(usual, **plan.views)


# -- what a training sounds and looks like while it runs --------------------------------------------------------------------
# In the preview folder, at every showing: ``step-N.ogg``, the song, the result and the target after one another; ``step-N.png``, the
# canvas after every step of the painter between song and target; ``curve.png``, the held-out score so far, between its two lines: what
# copying the song scores, and what the target itself scores after the way through frames and back. The excerpt is of a held-out piece.


class Excerpt:
    """A passage of a held-out piece: the song that is shown, and the target.

    Parameters
    ----------
    held_out : FrameStore
    seconds : float
        Taken from a quarter of the piece on: past the introduction.
    """

    def __init__(self, held_out: FrameStore, *, seconds: float = EXCERPT_SECONDS) -> None:
        _, self.style, first, count = max(held_out.songs, key=lambda song: song[3])
        frames = min(count, round(seconds * 44100 / 512))
        start = first + min(count // 4, count - frames)
        window = slice(start, start + frames)
        self.target = held_out.frames[0, window].T.float()[None] / corpus.LEVELS  # (1, F, T)
        self.song = stand_in(held_out, window, self.target)
        self.phase = held_out.phase[window].T.float()[None] / 127

    @functools.cached_property
    def sounds(self) -> tuple[Tensor, Tensor]:
        """Song and target, (1, N) each."""
        return sound_of(self.song[0]), sound_of(self.target[0])

    @functools.cached_property
    def ceiling_db(self) -> float:
        """How far the target's frames are from themselves after the way to a sound and back."""
        target = self.target.cpu()
        return distance_db(Vocoder().features(self.sounds[1])[..., : target.shape[-1]], target)

    def canvases(self, model: Draw) -> Tensor:
        """The canvas after every step, and with its texture: (K + 1, F, T)."""
        style = self.style if model.config.styles > 1 else 0
        return model.transfer(self.song, style=style, phase=self.phase, canvases=True)[:, 0].float().cpu()

    def heard(self, result: Tensor) -> NDArray[np.float32]:
        """Song, result (F, T) and target after one another, (N,); the result has the song's phase, as a transfer has."""
        song, target = self.sounds
        vocoder = Vocoder()
        styled = vocoder.synthesise(result, vocoder.analyse(song))
        pause = torch.zeros(1, round(PAUSE_SECONDS * 44100))
        y = torch.cat([song, pause, styled, pause, target], 1)[0].numpy()
        return np.asarray(y * min(1.0, 0.9 / max(float(np.abs(y).max()), 1e-6)), dtype=np.float32)


def show(model: Draw, excerpt: Excerpt, history: Sequence[Mapping[str, float]], folder: Path, step: int, writer: Any = None) -> None:
    """Write excerpt, canvases and curve of the weights as they are.

    Parameters
    ----------
    history : sequence of rows of scores
    writer : torch.utils.tensorboard.SummaryWriter, optional
        Gets sound and pictures too.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    canvases = excerpt.canvases(model)
    y = excerpt.heard(canvases[-1])
    audio.save(folder / f"step-{step}.ogg", y, 44100)
    titles = ["the song", *(f"canvas {k}" for k in range(1, len(canvases))), "with texture", "the target"]
    pictures = [excerpt.song[0].cpu().numpy(), *canvases.numpy(), excerpt.target[0].cpu().numpy()]
    figures = {f"step-{step}.png": plots.canvas_figure(pictures, titles), "curve.png": plots.curve_figure(history)}
    for name, figure in figures.items():
        with whole_file(folder / name) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    if writer is not None:
        writer.add_audio("excerpt: song, result, target", y[None], step, sample_rate=44100)
        for name, figure in zip(("canvas", "curve"), figures.values(), strict=True):
            writer.add_image(name, plots.pixels(figure), step, dataformats="HWC")


class Watch:
    """What a user sees of a training: a line, rows of scores, previews, TensorBoard."""

    def __init__(
        self,
        config: TrainConfig,
        state: State,
        excerpt: Excerpt,
        folder: Path,
        writer: Any,
        progress: Callable[[str, float, str], None],
        report: Callable[[dict[str, float]], None],
    ) -> None:
        self.config, self.excerpt, self.folder, self.writer = config, excerpt, folder, writer
        self._progress, self._report, self._told, self.ceiling = progress, report, -math.inf, math.nan
        self._since = (state.step, state.seconds)  # of the last row
        self.speed = 0.0  # seconds of music in a second

    def tick(self, state: State, spent: float, losses: Mapping[str, Tensor]) -> None:
        """Tell how far it is, a few times a second: reading a loss waits for the device."""
        if not state.team.leads or time.monotonic() - self._told < 0.5:
            return
        self._told = time.monotonic()
        self._measure(state)
        way = f" · way {100 * state.history[-1]['score/way']:.0f} %, {self._lines()}" if state.history else ""
        shown = f"L1 {float(losses['loss/l1_db']):.2f} dB · KL {float(losses['loss/kl']):.2f}"
        left = f" · {clock(self._left_after({'progress': spent, 'seconds': state.seconds, 'step': state.step}))} left"
        text = f"step {state.step} · {self.speed:.0f} s of music a second · {shown}{way}{left}"
        self._progress("training", min(spent, 1.0), text)

    def report(self, row: dict[str, float]) -> None:
        """Complete a row of scores, and pass it on."""
        if math.isnan(self.ceiling):
            self.ceiling = 1 - self.excerpt.ceiling_db / max(row["score/copy_db"], 1e-6)
        row["score/ceiling"] = self.ceiling
        row |= {"speed/music": self.speed, "left_seconds": self._left_after(row)}
        self._log(row)
        self._report(row)

    def _log(self, row: Mapping[str, float]) -> None:
        """Tell TensorBoard, for as long as it can write."""
        try:
            for key, value in row.items() if self.writer is not None else ():
                self.writer.add_scalar(key, value, int(row["step"]))
        except OSError:
            self.writer = None

    def show(self, state: State) -> None:
        """Write excerpt and pictures; a disk that is full of them must not end the training."""
        if state.team.leads:
            with contextlib.suppress(OSError):
                show(state.average, self.excerpt, state.history, self.folder / "preview", state.step, self.writer)

    def _measure(self, state: State) -> None:
        step, seconds = self._since
        if state.seconds - seconds > 5:
            crops = (state.step - step) * batch_of(state, self.config)
            self.speed = max(crops * self.config.crop_frames * 512 / 44100 / (state.seconds - seconds), 0.0)
            self._since = (state.step, state.seconds)

    def _left_after(self, row: Mapping[str, float]) -> float:
        """Seconds of training, by the clock or by the steps so far."""
        if not self.config.steps:
            return max(1 - row["progress"], 0.0) * 60 * self.config.minutes
        return row["seconds"] / max(row["step"], 1) * (self.config.steps - row["step"])

    def _lines(self) -> str:
        return "copying 0" + ("" if math.isnan(self.ceiling) else f", ceiling {100 * self.ceiling:.0f}")


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> clock(75), clock(7300)
    ('1:15', '2 h 01 min')
    """
    minutes = int(seconds / 60)
    return f"{minutes}:{int(seconds) % 60:02}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


@contextlib.contextmanager
def _tensorboard(folder: Path, step: int, team: Team) -> Iterator[Any]:
    """A writer of logs, in the first process, where TensorBoard is installed and its files can be written."""
    writer: Any = None
    if team.leads:
        with contextlib.suppress(ImportError, OSError):
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
    try:
        yield writer
    finally:
        with contextlib.suppress(OSError):  # a log that cannot be ended must not end the training
            if writer is not None:
                writer.close()


# -- what is written --------------------------------------------------------------------------------------------------------


def _card(plan: Plan, start: StyleData | None, state: State, prepared: corpus.Prepared, out: Path, best: Mapping[str, float]) -> Card:
    about = replace(card(out.stem, prepared, state.team.device), training_minutes=round(state.seconds / 60, 1), training_steps=state.step)
    if best:
        scores = {key: round(best[f"score/{key}"], 3) for key in ("way", "ceiling", "l1_db", "copy_db") if f"score/{key}" in best}
        about = replace(about, metrics={"held-out frames": scores})
    about = replace(about, limits=limits(prepared, best))
    if start is not None:
        about = replace(about, notes=f"Trained on from {start.card.title} ({start.card.licence}).")
    if plan.kind == "plain":
        about = replace(about, title=f"{about.title} (plain autoencoder)", description="A baseline: the same network shown its target.")
    return about


def _write_style(plan: Plan, start: StyleData | None, prepared: corpus.Prepared, out: Path, folder: Path, about: Card) -> None:
    from safetensors.torch import load_file

    from stylestream.style import save_style

    heard = {**(start.fingerprints if start is not None else {}), **fingerprints(prepared)}
    weights, features = load_file(folder / "best.safetensors"), asdict(FeatureConfig())
    save_style(out, weights, model_config=asdict(plan.model), feature_config=features, card=about, fingerprints=heard)


def add_drums(plan: Plan, prepared: corpus.Prepared, out: Path) -> str:
    """Give a style the drums of its scores, or those heard in its recordings; a line that says which, or why it has none."""
    from stylestream.percussion import add_drums_heard

    windows = {song["id"]: corpus.window_named(song["name"]) for song in prepared.songs if song["split"] == "train"}
    try:
        songs = [] if any(map(is_dataset, plan.sources)) else corpus.find_music(plan.sources, plan.data)
        learned = [song for song in songs if song.id in windows]
        if not learned:
            raise ValueError("a dataset keeps neither scores nor sound")
        recorded = [(song.id, song.content) for song in learned if isinstance(song.content, Path)]
        if 2 * len(recorded) > len(learned):
            return add_drums_heard(out, [path for _, path in recorded], window=windows[recorded[0][0]])
        return _add_drums_written(plan, learned, out)
    except (ValueError, OSError) as error:
        return f"no drums: {error}"


def _add_drums_written(plan: Plan, songs: Sequence[corpus.Song], out: Path) -> str:
    from stylestream import drumming, midi

    scores = [(song, drumming.quiet_score(song.content)) for song in songs if isinstance(song.content, bytes)]
    drummed = [(song, score) for song, score in scores if any(track.is_drum and len(track.notes) for track in score.tracks)]
    if len(drummed) < max(drumming.MIN_SHARE * len(scores), 1):
        raise ValueError(f"{len(drummed)} of its {len(scores)} scores have them")
    with midi.Synthesizer(plan.data.soundfont.split(",")[0]) as synthesizer:
        return drumming.add_drums_of(
            out,
            [score for _, score in drummed],
            corpus.own_recipe(plan.data),
            synthesizer,
            licences=[song.piece.licence for song, _ in drummed],
            calibration_pieces=CALIBRATION_SCORES,
        )


def add_widths(plan: Plan, prepared: corpus.Prepared, out: Path) -> str:
    """Say in a style file how wide the music is that it was trained on; a line that says so, or why it is not known."""
    from stylestream.style import update_widths
    from stylestream.width import typical, widths_of, widths_of_file

    trained = {song["id"] for song in prepared.songs if song["split"] == "train"}
    renderer, recipe = corpus.PieceRenderer(replace(plan.data, max_seconds=WIDTH_SECONDS)), corpus.own_recipe(plan.data)

    def heard(content: Path | bytes) -> Widths | None:
        with contextlib.suppress(ValueError, OSError):  # what could not be used was said before
            if isinstance(content, Path):
                return widths_of_file(content)
            return widths_of(renderer.sound(content, recipe, seed=0), renderer.features.config.sample_rate)
        return None

    try:
        songs = [] if any(map(is_dataset, plan.sources)) else corpus.find_music(plan.sources, plan.data)
        found = [heard(song.content) for song in [song for song in songs if song.id in trained][:WIDTH_SONGS]]
        stereo = [widths for widths in found if widths is not None]
        if not stereo:
            raise ValueError("none of the music has two channels" if songs else "a dataset keeps no channels")
        update_widths(out, typical(stereo))
    except (ValueError, OSError) as error:
        return f"no width: {error}"
    return f"width: the median of {len(stereo)} song{'s' if len(stereo) > 1 else ''} of two channels"


def card(name: str, prepared: corpus.Prepared, device: str) -> Card:
    """What a style was made of."""
    from stylestream.style import Card, Source

    whence = {song["id"]: (song["source"], song["licence"]) for song in prepared.songs}
    seconds: dict[tuple[str, str], list[float]] = {}
    for song_id, heard in prepared.heard().items():
        seconds.setdefault(whence[song_id], []).append(heard)
    sources = tuple(Source(source, licence, len(s), round(sum(s) / 3600, 3)) for (source, licence), s in sorted(seconds.items()))
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device}, {torch.get_num_threads()} threads"
    songs, minutes = sum(source.songs for source in sources), sum(source.hours for source in sources) * 60
    return Card(
        name.replace("-", " ").replace("_", " ").capitalize(),
        description=f"The sound of {songs} song{'s' if songs > 1 else ''}, {minutes:.0f} minutes of music.",
        licence=licence(sources),
        sources=sources,
        training_device=hardware,
        intended_use=INTENDED_USE,
    )


def licence(sources: Sequence[Source]) -> str:
    """What a style's card says of its licence: that of its music, all of it.

    >>> from stylestream.style import Source
    >>> licence([Source("a", "CC0-1.0"), Source("b", "CC-BY-4.0"), Source("c", "CC0-1.0")])
    'that of its music: CC-BY-4.0, CC0-1.0'
    """
    names = sorted({source.licence or "not stated" for source in sources})
    return "not stated" if "not stated" in names or not names else f"that of its music: {', '.join(names)}"


def limits(prepared: corpus.Prepared, best: Mapping[str, float]) -> str:
    """What a style cannot do, as far as its training tells."""
    from stylestream.style import PAINTS_TONES

    parts = [PAINTS_TONES]
    if prepared.music_seconds < LITTLE_SECONDS:
        parts.append(f"it has heard only {clock(prepared.music_seconds)} of music, and may play that again rather than your song")
    if any(song["licence"] in ("", "not stated") for song in prepared.songs):
        parts.append("the licence of its music is not stated: ask before you pass it on")
    if best:
        parts.append(
            f"on {'a piece' if len(prepared.songs) < 3 else 'pieces'} it has not heard it goes {100 * best['score/way']:.0f} % of the way"
        )
    return "; ".join(parts)


def fingerprints(prepared: corpus.Prepared) -> dict[str, list[int]]:
    """Training songs by id, with the hashes of their melodies."""
    return {song["id"]: song["fingerprint"] for song in prepared.songs if song["split"] == "train"}


# -- the baseline of 2017 --------------------------------------------------------------------------------------------------


def _spectrum(renderer: corpus.PieceRenderer, part: corpus.Part) -> dict[str, Any]:
    """A part as the system of 2017 sees it."""
    from stylestream import baselines

    content = part.song.content
    if isinstance(content, Path):
        y = renderer.recording(content, window=part.window)[None]
    else:
        y = renderer.sound(content, corpus.own_recipe(renderer.config), seed=part.seed, window=part.window)
    return {"spectrum": baselines.spectrum_2017(y).half().numpy(), "seconds": y.shape[1] / baselines.FEATURES.sample_rate}


def _train_lstm2017(
    plan: Plan, prepared: corpus.Prepared, out: Path, folder: Path, device: str, progress: Callable[[str, float, str], None]
) -> Trained:
    """Train it; from the beginning, if it was interrupted: it is small."""
    from stylestream import baselines
    from stylestream.style import save_style

    songs = []
    for song in prepared.songs:
        if song["split"] == "train":
            with np.load(folder / "frames" / song["name"], allow_pickle=False) as arrays:
                songs.append(torch.from_numpy(arrays["spectrum"]))
    began, training = time.monotonic(), baselines.Lstm2017Training(seed=plan.config.seed, steps=plan.config.steps or 20)
    training = replace(training, batch=plan.config.batch or training.batch, crop_frames=plan.config.crop_frames)
    if not plan.config.steps:  # how many steps the minutes are worth
        baselines.fit_lstm2017(songs, training, device=device)
        training = replace(training, steps=max(int(20 * 60 * plan.config.minutes / (time.monotonic() - began)), 20))

    def tell(step: int, losses: dict[str, float]) -> None:
        if losses:
            progress("training", step / training.steps, f"step {step} · loss {losses['loss/total']:.3f}")

    network = baselines.fit_lstm2017(songs, training, device=device, progress=tell)
    about = replace(
        card(out.stem, prepared, device),
        description="A baseline: the system of 2017, a frame-wise VAE with LSTMs at 4.41 kHz.",
        training_minutes=round((time.monotonic() - began) / 60, 1),
        training_steps=training.steps,
    )
    settings = {"model": "lstm2017", **asdict(network.config)}
    save_style(
        folder / DRAFT, network.state_dict(), model_config=settings, feature_config={}, card=about, fingerprints=fingerprints(prepared)
    )
    trained = Trained(out, prepared.found, prepared.failures, {})
    _finish(folder, trained)
    return trained
