"""What each part of the method is worth: views × kinds of network × steps of the canvas, each trained for the same time.

    python benchmarks/ablations.py train --frames FRAMES --out RUNS --style strings --minutes 8 --jobs 12
    python benchmarks/ablations.py lstm2017 --data DATA --out RUNS --style strings --minutes 8
    python benchmarks/ablations.py score --runs RUNS --data DATA --out docs/ablations.md

FRAMES is a folder of a style's rendered songs, as ``tools/make_styles.py render`` leaves it in WORK/frames; DATA a collection with
midi.csv. Every run is a process of its own with one thread of one core, on the CPU even where there is a GPU, and has the same minutes.
A finished run is a style file and a JSON beside it; it is not trained again. One that was interrupted goes on from its checkpoint.
`lstm2017` hears waveforms, not frames, so it renders DATA itself. `score` plays held-out test pieces by the reduction
protocol; a run's scores are kept beside it, and it is not played again.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylestream import recipes, train, views
from stylestream.corpus import FrameStore
from stylestream.draw import DrawConfig
from stylestream.features import FeatureConfig
from stylestream.files import whole_file
from stylestream.style import Card, load_style_file, save_style

# --- what is trained ---------------------------------------------------------------------------------------------------------------

SMALL = DrawConfig(  # as many weights as eight minutes of one core can teach; no texture stage: the canvas is what is compared
    steps=8,
    view_channels=32,
    view_blocks=3,
    canvas_channels=8,
    encoder_channels=16,
    decoder_channels=32,
    style_dim=8,
    texture_channels=0,
)
KINDS = {
    "conv": SMALL,
    # what the windows are for the paper: pictures, 0.37 s wide, painted with brushes of 12 × 12; one vector holds a window, so it is wide
    "attention": replace(SMALL, attention="gaussian", latents=16, encoder_channels=56, decoder_channels=56, window_frames=32, glimpse=12),
    "autoencoder": replace(SMALL, steps=1, beta=0.0),  # one pass, and its code is free
}
NAMES = {"conv": "ConvDRAW", "attention": "Gaussian attention", "autoencoder": "plain autoencoder", "lstm2017": "lstm2017"}
VIEWS = {
    "none": views.NEUTRAL,
    "signal": views.ViewConfig(other=0.0),
    "orchestration": replace(views.NEUTRAL, other=views.ViewConfig().other),
    "both": views.ViewConfig(),
}
TRAINING = train.TrainConfig(batch=8, crop_frames=64, critic_from=1.0, texture_from=1.0, threads=1)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Run:
    """One training: a kind of network, what it is shown, how often it paints, and its seed."""

    kind: str
    views: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.row}-s{self.seed}"

    @property
    def row(self) -> str:
        """Name without the seed."""
        return f"{self.kind}-{self.views}-k{self.steps}"

    @property
    def title(self) -> str:
        """For a table: the kind and its number of steps."""
        return NAMES[self.kind] + (f", K = {self.steps}" if self.kind in ("conv", "attention") else "")

    @property
    def model(self) -> DrawConfig:
        """Its network."""
        return replace(KINDS[self.kind], steps=self.steps)


STEPS = (1, 2, 4, 8)
HEADLINE = [
    *(("conv", "both", 8), ("autoencoder", "none", 1), ("attention", "both", 8)),
    *(("conv", seen, 8) for seen in ("none", "signal", "orchestration")),
    *(("conv", "both", steps) for steps in (1, 2, 4)),
]
CROSS = [*itertools.product(("conv", "attention"), VIEWS, STEPS), *(("autoencoder", seen, 1) for seen in VIEWS)]
# the headline seed by seed, so that a list cut short has every row of it; what is only in the cross has one seed
RUNS = [Run(*cell, seed) for seed in SEEDS for cell in HEADLINE] + [Run(*cell, SEEDS[0]) for cell in CROSS if cell not in HEADLINE]
LSTM = [Run("lstm2017", "none", 1, seed) for seed in SEEDS]


# --- training --------------------------------------------------------------------------------------------------------------------------


def train_all(options: argparse.Namespace) -> None:
    """All runs that are not finished, so many at once."""
    wanted = [run for run in RUNS if not options.only or any(part in run.name for part in options.only)]
    if not wanted:
        raise ValueError(f"no run's name contains {' or '.join(options.only)}; they are {', '.join(run.name for run in RUNS)}")
    for split in ("train", "valid"):
        if not any(options.frames.glob(f"{options.style}-{split}-*.npz")):
            raise ValueError(f"no songs in {options.frames}: {options.style}-{split}-*.npz; render them with tools/make_styles.py render")
    options.out.mkdir(parents=True, exist_ok=True)
    left = [run for run in wanted if not finished(run, options)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # told to end, it ends the runs, which save first
    print(f"{len(wanted)} runs, {len(wanted) - len(left)} finished before, {options.jobs} at once", flush=True)
    failed = in_processes({run.name: command_of(run, options) for run in left}, options)
    if failed:
        raise ValueError(f"not finished: {', '.join(failed)}; their logs are in {work_folder(options)}")


def command_of(run: Run, options: argparse.Namespace) -> list[str]:
    """The command of one run."""
    given = ("frames", "out", "work", "style", "minutes", "jobs")
    values = [(f"--{key}", str(getattr(options, key))) for key in given if getattr(options, key) is not None]
    return [sys.executable, __file__, "run", run.name, *itertools.chain(*values)]


def in_processes(commands: Mapping[str, list[str]], options: argparse.Namespace) -> list[str]:
    """Run commands, ``options.jobs`` at once, each on one thread of the CPU; returns the names of those that failed."""
    one_core = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    waiting, running, failed = deque(commands), dict[str, subprocess.Popen[bytes]](), list[str]()
    done = 0
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                name = waiting.popleft()
                log = work_folder(options) / f"{name}.log"
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("ab") as file:
                    running[name] = subprocess.Popen(commands[name], env=one_core, stdout=file, stderr=subprocess.STDOUT)
            time.sleep(0.2)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code, done = running.pop(name).returncode, done + 1
                if code:
                    failed.append(name)
                else:
                    (work_folder(options) / f"{name}.log").unlink(missing_ok=True)
                print(f"{done}/{len(commands)} {name} {'failed' if code else way_said(options.out / f'{name}.json')}", flush=True)
    finally:  # they write their checkpoints
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failed


def way_said(path: Path) -> str:
    """A line about a finished run."""
    about = json.loads(path.read_text())
    return f"{about['steps']} steps, {100 * about['history'][-1]['score/way']:.1f} % of the way on held-out frames"


def work_folder(options: argparse.Namespace) -> Path:
    """Where checkpoints and logs lie."""
    return options.work or options.out / "unfinished"


def finished(run: Run, options: argparse.Namespace) -> bool:
    """Whether the run's JSON, which is written last, is there.

    Raises
    ------
    ValueError
        If it is of other settings.
    """
    path = options.out / f"{run.name}.json"
    if not path.exists():
        return False
    _same(json.loads(path.read_text())["settings"], settings(run, options), path)
    return True


def settings(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """All that makes a run what it is, as JSON holds it."""
    lstm = run.kind == "lstm2017"
    tables = {} if lstm else {"model": asdict(run.model), "train": asdict(config_of(run, options)), "views": asdict(VIEWS[run.views])}
    return json.loads(json.dumps({"run": asdict(run), "style": options.style, "minutes": options.minutes, **tables}))


def _same(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    usual = {"model": asdict(DrawConfig()), "train": asdict(train.TrainConfig()), "views": asdict(views.ViewConfig())}
    for key, value in now.items():
        known = before.get(key)
        if isinstance(known, dict) and key in usual:  # a setting that came later was as it is by default now
            known = {name: known.get(name, usual[key][name]) for name in value}
        if known != value:
            raise ValueError(f"{path} is of other settings ({key} was {before.get(key)!r}); give another --out, or remove it")


def config_of(run: Run, options: argparse.Namespace) -> train.TrainConfig:
    """How it is trained: all alike, for the same minutes, scored eight times."""
    return replace(TRAINING, minutes=options.minutes, seed=run.seed, score_seconds=60 * options.minutes / 8)


def train_one(options: argparse.Namespace) -> None:
    """One run, in this process; goes on where it was interrupted."""
    run = next(run for run in RUNS if run.name == options.name)
    if finished(run, options):
        return
    torch.set_num_threads(1)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `fit` obeys it between two steps, when it has saved
    folder = work_folder(options) / run.name
    open_folder(folder, settings(run, options))
    store, held_out = (FrameStore(options.frames, (options.style,), split=split) for split in ("train", "valid"))
    config = config_of(run, options)
    state = train.new_state(run.model, config)
    train.load_checkpoint(state, folder)
    train.fit(state, store, held_out, config, VIEWS[run.views], folder, report=say, count=train.ProcessorClock)
    about = {
        "steps": state.step,
        "minutes": round(state.seconds / 60, 3),
        "weights": sum(p.numel() for p in state.model.parameters()),
        "gflop_per_second": round(state.model.gflop_per_second(), 3),
        "songs": len(store.songs),
        "history": [{key: round(value, 4) for key, value in row.items()} for row in state.history],
    }
    heard: dict[str, list[int]] = {name.split("-")[2]: [] for name, *_ in store.songs}
    write_run(run, options, best_weights(folder), asdict(run.model), asdict(FeatureConfig()), about, heard, TRAIN_COMMAND)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def open_folder(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Make the folder of checkpoints, or see that it holds the same run."""
    path = folder / "settings.json"
    if path.exists():
        _same(json.loads(path.read_text()), wanted, path)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(wanted))


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that were best on held-out songs."""
    from safetensors.torch import load_file

    return load_file(folder / "best.safetensors")


def say(row: Mapping[str, float]) -> None:
    """A row of scores, for the log."""
    print(json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


TRAIN_COMMAND = "train --frames FRAMES --out RUNS --style {style} --minutes {minutes:g} --jobs {jobs}"
LSTM_COMMAND = "lstm2017 --data DATA --out RUNS --style {style} --minutes {minutes:g}"


def write_run(
    run: Run,
    options: argparse.Namespace,
    weights: Mapping[str, torch.Tensor],
    model: Mapping[str, Any],
    features: Mapping[str, Any],
    about: Mapping[str, Any],
    heard: Mapping[str, Sequence[int]],
    command: str,
) -> None:
    """The style file, then the JSON that says it is there."""
    card = Card(
        title=f"{options.style}: {run.title}, views {run.views}, seed {run.seed}",
        description="A run of benchmarks/ablations.py: small, and trained for minutes.",
        training_minutes=about["minutes"],
        training_steps=about["steps"],
        training_device="cpu, one thread",
    )
    save_style(options.out / f"{run.name}.safetensors", weights, model_config=model, feature_config=features, card=card, fingerprints=heard)
    made = {"command": command.format(**vars(options)), "machine": machine()}
    write_text(options.out / f"{run.name}.json", json.dumps({"settings": settings(run, options), **about, **made}, indent=1) + "\n")


def machine() -> str:
    """What it was trained on, as far as it decides how many steps fit into a minute."""
    bf16 = isinstance(train.autocast("cpu"), torch.autocast)
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {'bfloat16' if bf16 else 'float32'}"


# --- the system of 2017 ------------------------------------------------------------------------------------------------------------


def train_lstm2017(options: argparse.Namespace) -> None:
    """It is small and has no checkpoints: one that was interrupted begins anew."""
    left = [run for run in LSTM if not finished(run, options)]
    if not left:
        return
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    songs = spectra_2017(options.data, options.style, jobs=options.jobs)
    for run in left:
        fit_lstm2017(run, songs, options)


def spectra_2017(data: Path, style: str, *, jobs: int | None) -> list[torch.Tensor]:
    """The style's training pieces, rendered as the style's own training renders them, as the 2017 system sees them."""
    from stylestream import baselines, midi, parallel

    training = baselines.Lstm2017Training()
    chosen = recipes.select(recipes.pieces(data, style), training.songs)
    work = functools.partial(rendered_spectrum, style, training.max_seconds)
    synthesizer = functools.partial(midi.Synthesizer, midi.find_soundfont("fluidr3"))
    done = parallel.over_songs(work, recipes.read_pieces(data, chosen), setup=synthesizer, jobs=jobs)
    good = sorted(((piece.path, S) for (piece, _), S in done if not isinstance(S, ValueError)), key=lambda pair: pair[0])
    return [torch.from_numpy(S) for _, S in good]


def rendered_spectrum(style: str, max_seconds: float, synthesizer: Any, task: tuple[recipes.Piece, bytes]) -> np.ndarray:
    from stylestream import baselines, midi

    score = recipes.target_score(midi.load_score(task[1]), recipes.recipe_of(style))
    rng = np.random.default_rng(list(task[1][:64]))
    start = float(rng.uniform(0, max(0.0, midi.duration_seconds(score) - max_seconds)))
    y = synthesizer.render(score, start_seconds=start, max_seconds=max_seconds)
    return baselines.spectrum_2017(y).half().numpy()


def fit_lstm2017(run: Run, songs: Sequence[torch.Tensor], options: argparse.Namespace) -> None:
    """As many steps as the minutes are worth, by the time of twenty; the time of the processor, for it is one process beside others."""
    from stylestream import baselines

    trial = baselines.Lstm2017Training(seed=run.seed, steps=20)
    began = time.process_time()
    baselines.fit_lstm2017(songs, trial)
    training = replace(trial, steps=max(20, round(20 * 60 * options.minutes / (time.process_time() - began))))
    began, history = time.process_time(), list[dict[str, float]]()

    def tell(step: int, losses: Mapping[str, float]) -> None:
        if losses and step % max(50, training.steps // 8 // 50 * 50) == 0:
            history.append({"step": step, "seconds": round(time.process_time() - began, 1), **{k: round(v, 5) for k, v in losses.items()}})

    network = baselines.fit_lstm2017(songs, training, progress=tell)
    minutes = (time.process_time() - began) / 60
    weights = sum(p.numel() for p in network.parameters())
    about = {"steps": training.steps, "minutes": round(minutes, 3), "weights": weights, "songs": len(songs), "history": history}
    model = {"model": "lstm2017", **asdict(network.config)}
    write_run(run, options, network.state_dict(), model, {}, about, {}, LSTM_COMMAND)
    print(f"{run.name}: {training.steps} steps, {minutes:.1f} minutes", flush=True)


# --- scoring -----------------------------------------------------------------------------------------------------------------------

METRICS = {"log_mel_l1", "mfcc", "note_auc", "flux", "modulation_2_5", "modulation_5_10", "modulation_10_20"}
REFERENCES = ("copy", "equalise", "mean spectrum", "ceiling", "truth")
Scores = dict[str, dict[str, float]]  # piece → metric → value


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    run: Run
    about: dict[str, Any]
    path: Path


@dataclass(frozen=True)
class Scene:
    """A held-out piece: the song, what it should become, and its notes."""

    name: str
    group: str
    song: Any
    truth: Any
    notes: Any


def score_all(options: argparse.Namespace) -> None:
    """Play every run that has not been played, then write the page."""
    found = trained(options.runs)
    torch.set_num_threads(1)
    scenes = functools.cache(lambda: list(scenes_of(found, options)))  # rendered if anything is left to play
    scores = {"references": kept(options, "references", found[0].path, lambda: reference_scores(found, scenes()))}
    for number, one in enumerate(found, 1):
        scores[one.run.name] = kept(options, one.run.name, one.path, functools.partial(played, one, scenes))
        print(f"{number}/{len(found)} {one.run.name}", flush=True)
    text = page(found, scores, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, text)


def trained(folder: Path) -> list[Trained]:
    """The finished runs of a folder, in the order of the list.

    Raises
    ------
    ValueError
        If there are none, or they differ in style or minutes, or those of the headline row are missing.
    """
    there = {run.name: folder / f"{run.name}.json" for run in [*RUNS, *LSTM]}
    found = [
        Trained(run, json.loads(path.read_text()), path.with_suffix(".safetensors"))
        for run, path in zip([*RUNS, *LSTM], there.values(), strict=True)
        if path.exists()
    ]
    for key in ("style", "minutes"):
        values = sorted({one.about["settings"][key] for one in found})
        if len(values) > 1:
            raise ValueError(f"the runs in {folder} differ in {key}: {', '.join(map(str, values))}; score them apart")
    if not any(one.run.row == FIRST for one in found):
        raise ValueError(f"no finished run of {FIRST} in {folder}; train it with `ablations.py train`")
    return found


def kept(options: argparse.Namespace, name: str, path: Path, make: Callable[[], Any]) -> Any:
    """What ``make`` gives, remembered in RUNS/scores under the name, as long as file and protocol are the same."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    key = {"file": digest, "pieces": options.pieces, "seconds": options.seconds, "version": 2}
    place = options.runs / "scores" / f"{name}.json"
    if place.exists():
        before = json.loads(place.read_text())
        if before["key"] == key:
            return before["value"]
    value = make()
    place.parent.mkdir(exist_ok=True)
    write_text(place, json.dumps({"key": key, "value": value}) + "\n")
    return value


def scenes_of(found: Sequence[Trained], options: argparse.Namespace) -> Iterator[Scene]:
    """Songs and truths of the first held-out test pieces.

    Raises
    ------
    ValueError
        If a run was trained on one of them.
    """
    from stylestream import metrics, midi, passages

    style = found[0].about["settings"]["style"]
    recipe, protocol = recipes.recipe_of(style), passages.Protocol(pieces=options.pieces, seconds=options.seconds)
    renderer = passages.Renderer(passages.default_cache())
    heard = {song for one in found for song in load_style_file(one.path).fingerprints}
    for excerpt in passages.excerpts(options.data, style, protocol)[0]:
        assert isinstance(excerpt.content, bytes)  # of a collection's recipe: a score
        if excerpt.id in heard:
            raise ValueError(f"{excerpt.piece.path} was trained on; score on songs that were not heard")
        target = recipes.target_score(midi.load_score(excerpt.content), recipe)
        song = renderer.render(passages.song_score(target, excerpt.content, recipe), protocol.song_soundfont, excerpt)
        truth = renderer.render(target, protocol.truth_soundfont, excerpt)
        yield Scene(excerpt.piece.path, excerpt.piece.group, song, metrics.prepare(truth), passages.notes_of(target, excerpt))


def compare(scene: Scene, result: Any) -> dict[str, float]:
    """What is measured of a result, (C, N)."""
    from stylestream import metrics

    truth, heard = metrics.matched(scene.truth, metrics.prepare(result))
    return {
        "log_mel_l1": metrics.log_mel_l1(truth, heard),
        "mfcc": metrics.mfcc_distance(truth, heard),
        "note_auc": metrics.note_auc(heard, scene.notes),
        "flux": metrics.flux_correlation(truth, heard),
        **{key: value for key, value in metrics.modulation_difference(truth, heard).items() if key in METRICS},
    }


def played(one: Trained, scenes: Callable[[], Sequence[Scene]]) -> dict[str, Scores]:
    """What is kept of a run."""
    return {"scores": play(one, scenes())}


def play(one: Trained, scenes: Sequence[Scene]) -> Scores:
    """A run on every piece."""
    from stylestream import baselines, metrics
    from stylestream.transfer import load_style

    if one.run.kind == "lstm2017":
        network = baselines.load_lstm2017(load_style_file(one.path))
        return {scene.name: compare(scene, baselines.lstm2017(scene.song, network)) for scene in scenes}
    style = load_style(one.path)
    return {scene.name: compare(scene, style.transfer(scene.song, metrics.SAMPLE_RATE, drums=0.0)) for scene in scenes}


def reference_scores(found: Sequence[Trained], scenes: Sequence[Scene]) -> dict[str, Any]:
    """What the runs lie between, and what they all start from: the mean spectrum with nothing written on it."""
    from stylestream import baselines, metrics
    from stylestream.transfer import load_style

    first = next(one for one in found if one.run.row == FIRST)
    blank = load_style(first.path)
    for name, parameter in blank.draw.named_parameters():
        if name.startswith("write.write."):
            torch.nn.init.zeros_(parameter)
    mean = load_style_file(first.path).weights["mean_frames"][0].numpy()
    rows: dict[str, Callable[[Any, Any], Any]] = {
        "copy": lambda song, truth: song,
        "equalise": lambda song, truth: baselines.equalise(song, mean),
        "mean spectrum": lambda song, truth: blank.transfer(song, metrics.SAMPLE_RATE),
        "ceiling": lambda song, truth: baselines.ceiling(song, truth),
        "truth": lambda song, truth: truth,
    }
    scores = {row: {scene.name: compare(scene, make(scene.song, scene.truth.y[None])) for scene in scenes} for row, make in rows.items()}
    return {"scores": scores, "groups": {scene.name: scene.group for scene in scenes}}


# --- the page ----------------------------------------------------------------------------------------------------------------------

FIRST = "conv-both-k8"  # what every row is measured against
SECTIONS = {
    "Views: what the encoder is shown": [f"conv-{seen}-k8" for seen in VIEWS],
    "Kinds of network": [
        *(FIRST, "attention-both-k8", "autoencoder-both-k1"),
        *("conv-none-k8", "attention-none-k8", "autoencoder-none-k1", "lstm2017-none-k1"),
    ],
    "K: how many steps paint the canvas": [f"conv-both-k{steps}" for steps in STEPS],
}
HEADINGS = {
    "way": "of the way, %",
    "log_mel_l1": "log-mel L1, dB",
    "mfcc": "MFCC",
    "note_auc": "note AUC",
    "flux": "flux corr.",
    "modulation_2_5": "2–5 Hz, dB",
    "modulation_5_10": "5–10 Hz, dB",
    "modulation_10_20": "10–20 Hz, dB",
}


class Results:
    """Scores of all runs, and the statistics of the page."""

    def __init__(self, found: Sequence[Trained], scores: Mapping[str, Any]) -> None:
        from stylestream import bootstrap

        self.references, groups = scores["references"]["scores"], scores["references"]["groups"]
        self.pieces = sorted(groups)
        self.rows: dict[str, list[Trained]] = {}
        for one in found:
            self.rows.setdefault(one.run.row, []).append(one)
        self.of = {one.run.name: scores[one.run.name]["scores"] for one in found}
        self.resampled = bootstrap.resample([groups[piece] for piece in self.pieces], 2000)
        self.ends = [self.vector(self.references[row], "log_mel_l1") for row in ("copy", "ceiling")]

    def vector(self, scores: Scores, metric: str) -> Any:
        """Values of the pieces."""
        return np.array([scores[piece][metric] for piece in self.pieces])

    def value(self, scores: Scores, metric: str) -> float:
        """Mean over the pieces; of the way, the share of the mean distances, in percent."""
        if metric != "way":
            return float(self.vector(scores, metric).mean())
        copied, best = (end.mean() for end in self.ends)
        return float(100 * (copied - self.vector(scores, "log_mel_l1").mean()) / (copied - best))

    def seeds(self, row: str, metric: str) -> list[float]:
        """A value a seed."""
        return [self.value(self.of[one.run.name], metric) for one in self.rows[row]]

    def behind(self, row: str, other: str) -> tuple[float, float, float]:
        """How many points of the way ``row`` is before ``other``, the seeds' mean, with a 95 % bootstrap over the pieces."""
        from stylestream import bootstrap

        ours, theirs = (np.mean([self.vector(self.of[one.run.name], "log_mel_l1") for one in self.rows[r]], axis=0) for r in (row, other))

        def points(distances: Any, axis: int = -1) -> Any:
            copied, best, a, b = distances.mean(axis)
            return 100 * (b - a) / (copied - best)

        cell = bootstrap.interval(np.stack([*self.ends, ours, theirs]), self.resampled, points)
        return tuple(float(cell[key]) for key in ("mean", "low", "high"))  # type: ignore[return-value]

    def apart(self, row: str, other: str) -> bool:
        """Whether every seed of one is before every seed of the other, and the pieces agree."""
        a, b = self.seeds(row, "way"), self.seeds(other, "way")
        if min(len(a), len(b)) < 2:
            return False
        _, low, high = self.behind(row, other)
        return (min(a) > max(b) and low > 0) or (max(a) < min(b) and high < 0)


def over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval; of one seed, NaN."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def span(values: Sequence[float], digits: int) -> str:
    """Mean with its interval over the seeds."""
    mean, low, high = over_seeds(values)
    return f"{mean:.{digits}f}" if low != low else f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def digits_of(metric: str) -> int:
    """Decimals of a metric in a table."""
    return {"way": 1, "note_auc": 3, "flux": 3}.get(metric, 2)


def title_of(run: Run) -> str:
    """A run's name in a table."""
    return f"{run.title}, {'no views' if run.views == 'none' else 'views: ' + run.views}" if run.kind != "lstm2017" else run.title


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def rule(columns: int) -> str:
    """The line under a heading; all but the first column are numbers."""
    return line(["---", *["---:"] * (columns - 1)])


def way_table(results: Results, rows: Sequence[str]) -> list[str]:
    """The headline metric: every seed, the interval over seeds, and the distance from the first row of the page over pieces."""
    heading = ("", "steps trained", "weights", "of the way, %, over seeds", "each seed", "points behind the default, over pieces")
    lines = [line(heading), rule(len(heading))]
    for row in rows:
        about, values = results.rows[row], results.seeds(row, "way")
        gap = "" if row == FIRST else "{:.1f} [{:.1f}, {:.1f}]".format(*results.behind(FIRST, row))
        steps = f"{np.mean([one.about['steps'] for one in about]):.0f}"
        weights = f"{about[0].about['weights'] / 1e6:.2f} M"
        lines.append(line((title_of(about[0].run), steps, weights, span(values, 1), " · ".join(f"{v:.1f}" for v in values), gap)))
    return lines


def metric_table(results: Results, rows: Sequence[str]) -> list[str]:
    """The other metrics, with intervals over seeds."""
    metrics = [metric for metric in HEADINGS if metric != "way"]
    lines = [line(["", *(HEADINGS[metric] for metric in metrics)]), rule(len(metrics) + 1)]
    for row in rows:
        cells = (span(results.seeds(row, metric), digits_of(metric)) for metric in metrics)
        lines.append(line([title_of(results.rows[row][0].run), *cells]))
    return lines


def reference_table(results: Results) -> list[str]:
    """What lies at both ends."""
    lines = [line(["", *HEADINGS.values()]), rule(len(HEADINGS) + 1)]
    for row in REFERENCES:
        cells = [f"{results.value(results.references[row], metric):.{digits_of(metric)}f}" for metric in HEADINGS]
        lines.append(line([row, *([""] if row == "truth" else cells[:1]), *cells[1:]]))
    return lines


def cross(results: Results) -> list[str]:
    """The section of all cells, if all are there: what each part is worth in the mean of the others, and the cells."""
    runs = [run for run in (Run(*cell, SEEDS[0]) for cell in CROSS) if run.row in results.rows]
    if len(runs) < len(CROSS):
        return []
    way = {run: float(np.mean(results.seeds(run.row, "way"))) for run in runs}
    best, worst = max(runs, key=way.__getitem__), min(runs, key=way.__getitem__)
    said = (
        f"All cells, the headline rows among them. A cell with an interval (Student's, over seeds) has {len(SEEDS)} seeds, the others one. "
        f"Furthest is *{title_of(best)}* with {way[best]:.1f} % of the way, least far *{title_of(worst)}* with {way[worst]:.1f}. "
        "Of the way, %, in the mean of the cells of a line:"
    )
    means = [f"- {NAMES[kind]}, by views: {means_over(way, 'views', kind)}" for kind in KINDS]
    means += [f"- {NAMES[kind]}, by steps: {means_over(way, 'steps', kind)}" for kind in ("conv", "attention")]
    tables = ["\n".join([f"Cells: {HEADINGS[metric]}", "", *grid(results, metric)]) for metric in ("way", "note_auc")]
    return ["## Views × kind × K", said, "\n".join(means), *tables]


def means_over(way: Mapping[Run, float], part: str, kind: str) -> str:
    """The way of a kind of network with each value of its ``views`` or ``steps``, in the mean of the other."""
    cells: dict[Any, list[float]] = {}
    for run, value in way.items():
        if run.kind == kind:
            cells.setdefault(getattr(run, part), []).append(value)
    return ", ".join(f"{f'K = {value}' if part == 'steps' else value} {np.mean(values):.1f}" for value, values in cells.items())


def grid(results: Results, metric: str) -> list[str]:
    """Kind and K down, views across; the mean of the seeds."""
    lines = [line(["", *("no views" if seen == "none" else f"views: {seen}" for seen in VIEWS)]), rule(len(VIEWS) + 1)]
    for kind, steps in dict.fromkeys((kind, steps) for kind, _, steps in CROSS):
        runs = [Run(kind, seen, steps, SEEDS[0]) for seen in VIEWS]
        lines.append(line([runs[0].title, *(span(results.seeds(run.row, metric), digits_of(metric)) for run in runs)]))
    return lines


def run_table(results: Results) -> list[str]:
    """Every run."""
    lines = [line(["", "seed", "steps trained", *HEADINGS.values()]), rule(len(HEADINGS) + 3)]
    for members in results.rows.values():
        for one in members:
            cells = (f"{results.value(results.of[one.run.name], metric):.{digits_of(metric)}f}" for metric in HEADINGS)
            lines.append(line([title_of(one.run), f"{one.run.seed}", f"{one.about['steps']}", *cells]))
    return lines


def reading(results: Results, rows: Sequence[str]) -> str:
    """What the numbers of a section say, and what they do not."""
    best = max(rows, key=lambda row: np.mean(results.seeds(row, "way")))
    name = {row: title_of(results.rows[row][0].run) for row in rows}
    others = sorted((row for row in rows if row != best), key=lambda row: -np.mean(results.seeds(row, "way")))
    said = [f"Furthest is *{name[best]}*, with {np.mean(results.seeds(best, 'way')):.1f} % of the way."]
    behind = [row for row in others if results.apart(best, row)]
    if behind:
        gaps = "; ".join("*{}* {:.1f} [{:.1f}, {:.1f}]".format(name[row], *results.behind(best, row)) for row in behind)
        said.append(f"Behind it by so many points, with every seed and over the pieces: {gaps}.")
    alone = len(results.rows[best]) < 2
    single = [row for row in others if alone or len(results.rows[row]) < 2]
    if single:
        gaps = "; ".join("*{}* {:.1f} [{:.1f}, {:.1f}]".format(name[row], *results.behind(best, row)) for row in single)
        said.append(f"{'It is of one seed; behind it' if alone else 'Of one seed only, behind it'} over the pieces: {gaps}.")
    unclear = [f"*{name[row]}*" for row in others if row not in behind and row not in single]
    if unclear:
        said.append(f"Not told apart from it by these seeds and pieces: {', '.join(unclear)}.")
    steps = {row: float(np.mean([one.about["steps"] for one in results.rows[row]])) for row in rows}
    if steps[best] == min(steps.values()):
        said.append(f"No row had fewer steps of training than it ({steps[best]:.0f}).")
    notes = max(rows, key=lambda row: np.mean(results.seeds(row, "note_auc")))
    blurred = min(rows, key=lambda row: abs(np.mean(results.seeds(row, "modulation_2_5"))))
    said.append(f"Notes are clearest with *{name[notes]}*, the modulation at 2–5 Hz is nearest to the truth's with *{name[blurred]}*.")
    return " ".join(said)


def page(found: Sequence[Trained], scores: Mapping[str, Any], options: argparse.Namespace) -> str:
    """docs/ablations.md."""
    results = Results(found, scores)
    parts = [introduction(found, results, options), "\n".join(reference_table(results))]
    for title, rows in SECTIONS.items():
        rows = [row for row in rows if row in results.rows]
        parts += [f"## {title}", reading(results, rows), "\n".join(way_table(results, rows)), "\n".join(metric_table(results, rows))]
    parts += [*cross(results), "## Every run", "\n".join(run_table(results))]
    return "\n\n".join(parts) + "\n"


def introduction(found: Sequence[Trained], results: Results, options: argparse.Namespace) -> str:
    """How it was done."""
    about = found[0].about
    style, minutes = about["settings"]["style"], about["settings"]["minutes"]
    commands = [*dict.fromkeys(one.about["command"] for one in found)]
    commands.append(f"score --runs RUNS --data DATA --pieces {options.pieces} --seconds {options.seconds:g} --out docs/ablations.md")
    machines = "; ".join(
        f"{machine}: {', '.join(sorted({NAMES[one.run.kind] for one in found if one.about['machine'] == machine}))}"
        for machine in dict.fromkeys(one.about["machine"] for one in found)
    )
    listed = "\n".join(f"    python benchmarks/ablations.py {command}" for command in commands)
    crop = TRAINING.crop_frames * 512 / 44100
    mean_way = results.value(results.references["mean spectrum"], "way")
    return f"""# Ablations

Written by the last of these commands; do not edit.

{listed}

What each part of the method is worth: style *{style}*, everything else alike, and for every run the same {minutes:g} minutes
of a core's time. A dearer network therefore takes fewer steps. Batches of {TRAINING.batch} crops of {crop:.2f} s,
learning rate {TRAINING.learning_rate:g}, neither critic nor texture stage; the weights kept are those with the best held-out score.
The networks are small, so compare the rows with each other, not with [the shipped styles](quality.md). Trained on {machines}.

Scored by the reduction protocol of [quality.md](quality.md): {len(results.pieces)} held-out test pieces, {options.seconds:g} s of each.
*Of the way*: from copying the song (0) to the truth's own frames through the vocoder (100), by log-mel L1. Intervals over
seeds are Student's, 95 %, of the values a seed; intervals over pieces are bootstraps, 95 %, of differences on the same pieces,
seeds averaged. Two rows are told apart only if every seed of one is before every seed of the other and the interval over
pieces does not contain 0. The way alone says little: the mean spectrum, which has no notes, is {mean_way:.1f} % along it; note AUC, flux
and modulation say whether the music is still there.
Modulation is against the truth's: below 0 is blur.

- *Views*: none, the target itself; signal, the target disturbed; orchestration, in {100 * VIEWS["both"].other:.0f} % of the crops other
  instruments, undisturbed; both, the default.
- *Plain autoencoder*: the same layers, one pass, no price on its code (β = 0). What other pages call `plain` is ConvDRAW without views.
- *Gaussian attention*: the N × N filters of the DRAW paper in windows of 0.37 s.
- *lstm2017*: the system of 2017 on its own terms: no views, and nothing above 2.2 kHz.
- *Mean spectrum*: what every ConvDRAW starts from, with nothing written on it."""


# --- the command line --------------------------------------------------------------------------------------------------------------


def main() -> None:
    options = arguments()
    try:
        options.do(options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, do, text in (("train", train_all, "train all runs"), ("run", train_one, "train one of them (train does it)")):
        command = commands.add_parser(name, help=text)
        command.set_defaults(do=do)
        if name == "run":
            command.add_argument("name", choices=[run.name for run in RUNS])
        else:
            command.add_argument("--only", action="append", help="runs whose name contains this; repeat for several")
        command.add_argument("--frames", type=Path, required=True, help="folder of rendered songs")
        command.add_argument("--work", type=Path, help="where checkpoints and logs lie; default RUNS/unfinished")
        _common(command)
    command = commands.add_parser("score", help="play held-out pieces through all runs and write the page")
    command.set_defaults(do=score_all)
    command.add_argument("--runs", type=Path, required=True, help="folder of trained runs")
    command.add_argument("--data", type=Path, required=True, help="a collection with midi.csv")
    command.add_argument("--pieces", type=int, default=10, help="held-out test pieces")
    command.add_argument("--seconds", type=float, default=20.0, help="of each")
    command.add_argument("--out", type=Path, default=Path("docs", "ablations.md"), help="the page")
    command = commands.add_parser("lstm2017", help="train the system of 2017")
    command.set_defaults(do=train_lstm2017)
    command.add_argument("--data", type=Path, required=True, help="a collection with midi.csv")
    _common(command)
    return parser.parse_args()


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, help="where the runs' files go")
    command.add_argument("--style", default="strings")
    command.add_argument("--minutes", type=float, default=8.0, help="of a core's time, for every run")
    command.add_argument("--jobs", type=int, default=1, help="processes at once")


if __name__ == "__main__":
    main()
