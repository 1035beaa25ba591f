"""How fast, and in how much memory: ``make bench`` runs this and writes docs/benchmarks.md.

    python benchmarks/speed.py --out docs/benchmarks.md [--style NAME] [--quick]

A song is made up (plucked notes, noise; the time does not depend on what sounds), played in a style file to file, and every stage is timed
alone. Memory is that of a child process, as the system counts it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from stylestream import audio
from stylestream.draw import Draw, DrawConfig
from stylestream.rhythm import BeatTracker
from stylestream.style import list_styles
from stylestream.transfer import StyleTransfer, load_style

SAMPLE_RATE = 44_100
STAGE_SECONDS = 30.0
Rows = list[tuple[str, ...]]


# ---------------------------------------------------------------------------------------------------------------- material


def second_of_music(k: int, rng: np.random.Generator) -> np.ndarray:
    """One second of stereo, (2, 44100)."""
    t = k + np.arange(SAMPLE_RATE) / SAMPLE_RATE
    y = 0.002 * rng.standard_normal((2, SAMPLE_RATE))
    for i, semitone in enumerate((0, 7, 12, 16, 24, 36)):
        hz = 110 * 2 ** ((semitone + (k // 2) % 5) / 12)
        decay = np.exp(-4 * ((2 * t + 0.25 * (i % 4)) % 1))
        y += 0.08 * decay * np.stack([np.sin(2 * np.pi * hz * detune * t) for detune in (1.0, 1.001)])
    return y


def write_song(path: Path, seconds: float) -> Path:
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, "PCM_16") as file:
        for k in range(round(seconds)):
            file.write(second_of_music(k, rng).T)
    return path


def the_style(name: str | None) -> tuple[str, StyleTransfer]:
    """The style of this name, else the first bundled one, else the default network with random weights: as fast as a trained one."""
    names = [entry.name for entry in list_styles()]
    if name or names:
        return (name or names[0]), load_style(name or names[0])
    torch.manual_seed(0)
    return "default network, random weights", StyleTransfer(Draw(DrawConfig()))


# ---------------------------------------------------------------------------------------------------------------- measuring


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run_child(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of a child process; it must succeed."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed: {shlex.join(arguments)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, usage.ru_maxrss / unit


def stages(style: StyleTransfer, runs: int) -> Rows:
    """One thread, each stage alone: milliseconds per second of stereo."""
    rng = np.random.default_rng(0)
    y = np.concatenate([second_of_music(k, rng) for k in range(round(STAGE_SECONDS))], axis=1).astype(np.float32)
    wave = torch.from_numpy(y)
    vocoder, features = style.vocoder, style.vocoder.features
    song = vocoder.analyse(wave)
    x = vocoder.frames(song)
    x_hat = style._paint(x, None, dream=0.0, grain=0.5, seed=0, first_frame=0)
    frames = x.numpy()

    def beats() -> None:
        tracker = BeatTracker(frames_per_second=style.config.frames_per_second)
        tracker.push(frames)
        tracker.beats()

    def network(half: bool, dream: float = 0.0) -> torch.Tensor:
        style.half, own = half, style.half
        painted = style._paint(x, None, dream=dream, grain=0.5, seed=0, first_frame=0)
        style.half = own
        return painted

    margin = 2 * style.overlap_frames / style.config.frames_per_second
    chunk = style._chunk_frames(None) / style.config.frames_per_second
    work: list[tuple[str, Callable[[], Any]]] = [
        ("first pass: loudness of song and mid", lambda: (audio.loudness(y, SAMPLE_RATE), audio.loudness(y[:1], SAMPLE_RATE))),
        ("first pass: frames of the mid", lambda: features(wave.mean(0))),
        ("first pass: beats", beats),
        ("analysis: STFTs of mid and side, frames", lambda: vocoder.frames(vocoder.analyse(wave))),
        ("network", lambda: network(style.half)),
        ("network, dreaming of half of its latents", lambda: network(style.half, style.draw.config.steps / 2)),
        ("inversion, stereo", lambda: vocoder.synthesise(x_hat, song)),
        ("last pass: loudness and true peak", lambda: (audio.loudness(y, SAMPLE_RATE), audio.true_peak_db(y, SAMPLE_RATE))),
        ("44.1 → 48 kHz, where the song is not at 44.1 kHz", lambda: audio.resample(y, SAMPLE_RATE, 48_000)),
    ]
    if style.half:
        work.insert(6, ("network in float32, on CPUs that do not multiply in bfloat16", lambda: network(False)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    with torch.inference_mode():
        for name, function in work:
            function()  # warm
            ms = median_seconds(function, runs) / STAGE_SECONDS * 1000
            again = 1 + margin / chunk if name.startswith(("analysis", "network")) else 1.0
            rows.append((name, f"{ms:.1f}", f"{ms * again:.1f}"))
    torch.set_num_threads(threads)
    return rows


def file_to_file(style_argument: str, folder: Path, seconds: float, runs: int) -> Rows:
    song = write_song(folder / "song.wav", seconds)
    inside = [child_transfer(style_argument, song, folder / "out.wav", timed=True) for _ in range(runs)]
    alone = statistics.median(float(text) for text in inside)
    rows = [(f"`transfer_file`, {seconds / 60:g} min WAV", f"{alone:.2f}", f"{seconds / alone:.1f}×")]
    if list_styles() or style_argument:
        name = style_argument or list_styles()[0].name
        command = ["-m", "stylestream", "transfer", str(song), "-s", name, "-o", str(folder / "out.wav"), "--force"]
        whole = statistics.median(run_child(command)[0] for _ in range(runs))
        rows.append(("`stylestream transfer`, start of Python included", f"{whole:.2f}", f"{seconds / whole:.1f}×"))
    return rows


def child_transfer(style_argument: str, song: Path, out: Path, *, timed: bool = False) -> Any:
    """Play in a process of its own: seconds as text if timed, else (seconds, peak MiB)."""
    arguments = [__file__, "--child", str(song), str(out), "--style", style_argument]
    if timed:
        return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout.strip()
    return run_child(arguments)


def memory(style_argument: str, folder: Path, minutes: tuple[float, ...]) -> Rows:
    rows, first = [], 0.0
    for length in minutes:
        song = write_song(folder / "song.wav", 60 * length)
        seconds, peak = child_transfer(style_argument, song, folder / "out.wav")
        first = first or peak
        rows.append((f"{length:g} min", f"{peak:.0f} MiB", f"{peak / first:.2f}", f"{60 * length / seconds:.1f}×"))
    return rows


def start_up(runs: int) -> Rows:
    commands = {
        "`stylestream --help`": ["-m", "stylestream", "--help"],
        "`import typer`": ["-c", "import typer"],
        "`import stylestream`": ["-c", "import stylestream"],
        "`import stylestream.transfer` (torch, scipy)": ["-c", "import stylestream.transfer"],
    }
    times = {name: statistics.median(run_child(command)[0] for _ in range(runs)) for name, command in commands.items()}
    return [(name, f"{1000 * t:.0f} ms", f"{t / times['`import typer`']:.2f}") for name, t in times.items()]


# ------------------------------------------------------------------------------------------------------------------ the page


def table(header: tuple[str, ...], rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (header, tuple("---" for _ in header), *rows)]
    return "\n".join(lines)


def machine() -> str:
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0] if lines else model
    load = f"load {os.getloadavg()[0]:.1f} at the start, " if hasattr(os, "getloadavg") else ""
    return f"{model}, {torch.get_num_threads()} threads, {load}Python {platform.python_version()}, torch {torch.__version__}"


def page(style_argument: str, *, quick: bool) -> str:
    runs = 1 if quick else 3
    where = machine()
    name, style = the_style(style_argument or None)
    gflop = style.draw.gflop_per_second()
    precision = "bfloat16" if style.half else "float32"
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "speed": table(
                ("file to file", "s", "times real time"), file_to_file(style_argument, Path(folder), 60 if quick else 240, runs)
            ),
            "stages": table(("stage, one thread", "ms per s of stereo", "with the overlap of chunks"), stages(style, runs)),
            "memory": table(
                ("song", "peak memory", "× the first", "times real time"),
                memory(style_argument, Path(folder), (1, 5) if quick else (3, 60)),
            ),
            "start": table(("start", "median", "× `import typer`"), start_up(3 if quick else 9)),
        }
    command = (
        "python benchmarks/speed.py" + (f" --style {shlex.quote(style_argument)}" if style_argument else "") + (" --quick" if quick else "")
    )
    return f"""# Benchmarks

Written by `{command} --out docs/benchmarks.md`; do not edit.
{where}. Style: {name}; network {gflop:.1f} GFLOP per second of audio, in {precision}. Songs are stereo, 44.1 kHz, 16 bit.

## Speed

{parts["speed"]}

{parts["stages"]}

Two chunks are in work at once, one thread each; reading, metering and writing go on beside them.

## Memory

{parts["memory"]}

Peak resident memory of the one process there is, Python and torch (about 270 MiB) included.

## Start

{parts["start"]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="where to write the page; default is stdout")
    parser.add_argument("--style", default="", help="a style's name or path; default is the first bundled one")
    parser.add_argument("--quick", action="store_true", help="one run, short songs")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("SONG", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        from stylestream.transfer import transfer_file

        _, style = the_style(arguments.style or None)
        print(median_seconds(lambda: transfer_file(style, *arguments.child), 1))
        return
    text = page(arguments.style, quick=arguments.quick)
    if arguments.out is None:
        print(text)
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    before = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else ""
    others = before.find("\n## Training\n")  # sections that other benchmarks fill
    temporary = arguments.out.with_name(f".{arguments.out.name}.part")
    temporary.write_text(text + (before[others:] if others >= 0 else ""), encoding="utf-8")
    os.replace(temporary, arguments.out)


if __name__ == "__main__":
    main()
