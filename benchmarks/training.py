"""How much music a training hears in a second: the shipped network, on this machine's kinds of arithmetic, threads, processes, devices.

    python benchmarks/training.py --out docs/benchmarks.md

Every row is a process (or two, under `accelerate launch`) of its own that trains the shipped network, critic and texture included, on
noise: what the frames hold does not matter to the clock. Rounds go through all rows in turn and the fastest of each is taken, so that
what else the machine does meanwhile hits them alike; read the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def write_noise(folder: Path) -> None:
    """Frames of two songs to train on, twelve seconds each, with one view."""
    rng = np.random.default_rng(0)
    for index in range(2):
        frames = rng.integers(0, 240, (2, 1024, 324), dtype=np.uint8)
        np.savez(folder / f"own-train-{index}-0.npz", frames=frames, phase=rng.integers(-127, 127, (1024, 4), dtype=np.int8))


def child(options: argparse.Namespace) -> None:
    """Train, and print seconds of music per second."""
    from stylestream import train, views
    from stylestream.corpus import FrameStore
    from stylestream.draw import DrawConfig
    from stylestream.team import assemble

    torch.set_num_threads(options.threads)
    if options.precision == "float32":
        train.autocast = lambda device: contextlib.nullcontext()  # type: ignore[assignment]
    team = assemble(options.device)
    config = train.TrainConfig(batch=options.batch, critic_from=0.0, texture_from=0.0)
    store = FrameStore(options.child, ["own"], device=team.device)
    state = train.new_state(DrawConfig(), config, device=team.device, team=team)
    began = 0.0
    for step in range(options.steps + 1):
        if step == 1:  # the first one is slower
            began = now(team.device)
        train.train_step(state, store, config, views.ViewConfig(), 0.9)
    seconds = now(team.device) - began
    if team.leads:
        print(json.dumps({"rate": options.steps * options.batch * config.crop_frames * 512 / 44100 / seconds}))


def now(device: str) -> float:
    """The clock, when the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def rows() -> dict[str, list[str]]:
    """What is measured: title → arguments of the child, after the number of processes."""
    from stylestream.train import _cpu_has_bf16

    found = {"CPU, float32, 1 thread": ["1", "--precision", "float32"]}
    if _cpu_has_bf16():
        found["CPU, bfloat16, 1 thread"] = ["1"]
    if (os.cpu_count() or 1) > 1:
        found["CPU, 2 threads"] = ["1", "--threads", "2"]
        found["CPU, 2 processes of 1 thread"] = ["2"]
    for count in sorted({1, torch.cuda.device_count()} if torch.cuda.is_available() else ()):
        found[f"{count} × {torch.cuda.get_device_name(0)}"] = [str(count), "--device", "cuda", "--batch", str(256 * count), "--steps", "20"]
    return found


def measure(processes: str, arguments: list[str], frames: Path, steps: int) -> float:
    """Seconds of music per second of one row."""
    launch = [*LAUNCH, "--num_processes", processes] if processes != "1" else []
    command = [sys.executable, *launch, __file__, "--child", str(frames), "--steps", str(steps), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=900)
    return float(json.loads(done.stdout.splitlines()[-1])["rate"])


def section(rounds: int, steps: int) -> str:
    """The table."""
    began_load, best = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, dict.fromkeys(rows(), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder))
        for _ in range(rounds):
            for title, (processes, *arguments) in rows().items():
                best[title] = max(best[title], measure(processes, arguments, Path(folder), steps))
    first = next(iter(best.values()))
    lines = ["| training the shipped network on | music heard in a second, s | ratio |", "|---|---|---|"]
    lines += [f"| {title} | {rate:.2f} | {rate / first:.2f} |" for title, rate in best.items()]
    where = f"{os.cpu_count()} cores, load {began_load:.1f} at the start, Python {platform.python_version()}, torch {torch.__version__}"
    command = f"Written by `python benchmarks/training.py --rounds {rounds} --steps {steps} --out docs/benchmarks.md`: {where}."
    note = "The fastest of the rounds, which go through all rows in turn. On a machine that is busy only the ratios mean anything."
    return f"{command}\n{note}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the page whose block `training` is filled; default is stdout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    text = section(options.rounds, options.steps)
    if options.out is None:
        print(text)
        return
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "training.md")
        part.write_text(text, encoding="utf-8")
        subprocess.run([sys.executable, str(ROOT / "tools" / "fill"), str(options.out), "training", str(part)], check=True)


if __name__ == "__main__":
    main()
