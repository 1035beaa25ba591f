"""What each part of the method is worth: views × kinds of network × steps of the canvas, trained for the same time, over several seeds.

    python benchmarks/ablations.py train --frames FRAMES --out RUNS --style strings --minutes 8 --jobs 12
    python benchmarks/ablations.py lstm2017 --data DATA --out RUNS --style strings --minutes 8

FRAMES is a folder of a style's rendered songs, as ``tools/make_styles.py render`` leaves it in WORK/frames; DATA a collection with
midi.csv. Every run is a process of its own with one thread of one core, on the CPU even where there is a GPU, and has the same minutes.
A finished run is a style file and a JSON beside it; it is not trained again. One that was interrupted goes on from its checkpoint.
`lstm2017` hears waveforms, not frames, so it renders DATA itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylestream import train, views
from stylestream.dataset import FrameStore
from stylestream.draw import DrawConfig
from stylestream.features import FeatureConfig
from stylestream.files import whole_file
from stylestream.style import Card, save_style

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


HEADLINE = [
    *(("conv", "both", 8), ("autoencoder", "none", 1), ("attention", "both", 8)),
    *(("conv", seen, 8) for seen in ("none", "signal", "orchestration")),
]
OTHERS = [*(("conv", "both", steps) for steps in (1, 2, 4)), ("autoencoder", "both", 1), ("attention", "none", 8)]
# seed by seed, so that a list cut short has every headline row
RUNS = [Run(*cell, seed) for cells in (HEADLINE, OTHERS) for seed in SEEDS for cell in cells]
LSTM = [Run("lstm2017", "none", 1, seed) for seed in SEEDS]


# --- training --------------------------------------------------------------------------------------------------------------------------


def train_all(options: argparse.Namespace) -> None:
    """All runs that are not finished, so many at once."""
    wanted = [run for run in RUNS if not options.only or options.only in run.name]
    if not wanted:
        raise ValueError(f"no run's name contains {options.only!r}; they are {', '.join(run.name for run in RUNS)}")
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
    for key, value in now.items():
        if before.get(key) != value:
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `fit` obeys it between two steps, when it has saved
    folder = work_folder(options) / run.name
    open_folder(folder, settings(run, options))
    store, held_out = (FrameStore(options.frames, (options.style,), split=split) for split in ("train", "valid"))
    config = config_of(run, options)
    state = train.new_state(run.model, config)
    resumed = train.load_checkpoint(state, folder) and state.step > 0
    cpu, wall = time.process_time(), time.monotonic()
    train.fit(state, store, held_out, config, VIEWS[run.views], folder, report=say)
    shares = {} if resumed else {"core_share": round((time.process_time() - cpu) / (time.monotonic() - wall), 3)}
    about = {
        "steps": state.step,
        "minutes": round(state.seconds / 60, 3),
        "weights": sum(p.numel() for p in state.model.parameters()),
        "gflop_per_second": round(state.model.gflop_per_second(), 3),
        "songs": len(store.songs),
        "history": [{key: round(value, 4) for key, value in row.items()} for row in state.history],
        **shares,
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
    from stylestream import baselines

    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    _, songs = baselines.spectra_2017(options.data, options.style, jobs=options.jobs)
    for run in left:
        fit_lstm2017(run, songs, options)


def fit_lstm2017(run: Run, songs: Sequence[torch.Tensor], options: argparse.Namespace) -> None:
    """As many steps as the minutes are worth, by the time of twenty."""
    from stylestream import baselines

    trial = baselines.Lstm2017Training(seed=run.seed, steps=20)
    began = time.monotonic()
    baselines.fit_lstm2017(songs, trial)
    training = replace(trial, steps=max(20, round(20 * 60 * options.minutes / (time.monotonic() - began))))
    began, cpu, history = time.monotonic(), time.process_time(), list[dict[str, float]]()

    def tell(step: int, losses: Mapping[str, float]) -> None:
        if losses and step % max(50, training.steps // 8 // 50 * 50) == 0:
            history.append({"step": step, "seconds": round(time.monotonic() - began, 1), **{k: round(v, 5) for k, v in losses.items()}})

    network = baselines.fit_lstm2017(songs, training, progress=tell)
    seconds = time.monotonic() - began
    about = {
        "steps": training.steps,
        "minutes": round(seconds / 60, 3),
        "weights": sum(p.numel() for p in network.parameters()),
        "songs": len(songs),
        "history": history,
        "core_share": round((time.process_time() - cpu) / seconds, 3),
    }
    model = {"model": "lstm2017", **asdict(network.config)}
    write_run(run, options, network.state_dict(), model, {}, about, {}, LSTM_COMMAND)
    print(f"{run.name}: {training.steps} steps, {seconds / 60:.1f} minutes", flush=True)


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
            command.add_argument("--only", help="runs whose name contains this")
        command.add_argument("--frames", type=Path, required=True, help="folder of rendered songs")
        command.add_argument("--work", type=Path, help="where checkpoints and logs lie; default RUNS/unfinished")
        _common(command)
    command = commands.add_parser("lstm2017", help="train the system of 2017")
    command.set_defaults(do=train_lstm2017)
    command.add_argument("--data", type=Path, required=True, help="a collection with midi.csv")
    _common(command)
    return parser.parse_args()


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, help="where the runs' files go")
    command.add_argument("--style", default="strings")
    command.add_argument("--minutes", type=float, default=8.0, help="of one core, for every run")
    command.add_argument("--jobs", type=int, default=1, help="processes at once")


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    main()
