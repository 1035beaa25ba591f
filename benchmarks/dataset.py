"""How fast, how small and how exact a dataset is built, beside the way of 2017 and beside FluidSynth alone.

    python benchmarks/dataset.py DATA --out docs/dataset-benchmarks.md [--songs 40] [--seconds 60] [--built DATASET --log LOG]

DATA is a collection (docs/data.md). Every song goes through every way, one after another, in this one process on one core, the SoundFont
loaded once; so the ways share whatever else the machine does, and their ratios stand where seconds would not. ``--built`` adds what a real
build came to, from its dataset and the log of its run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import librosa
import numpy as np
import soundfile
import torch

from stylestream import midi, recipes
from stylestream.builder import Studio, Task, build
from stylestream.dataset import Dataset, DatasetConfig
from stylestream.features import FeatureConfig, filterbank

Array = np.ndarray[Any, Any]
RATE = 44_100
COLLECTION_SONGS = 16_658


# ------------------------------------------------------------------------------------------------------------------- the ways


class Ways:
    """(a) this pipeline, (b) the 2017 way at its settings and at ours, (c) FluidSynth alone."""

    def __init__(self, seconds: float, folder: Path) -> None:
        self.seconds, self.folder = seconds, folder
        self.studio = Studio(DatasetConfig(max_seconds=seconds))
        config = FeatureConfig()
        self.rows = [filterbank(config, n_fft, RATE).numpy() for n_fft in (config.n_fft_low, config.n_fft_high)]

    def ours(self, content: bytes | Path) -> None:
        """Found bytes to compressed frames."""
        self.studio.hear(Task("0" * 16, "song", content))

    def fluidsynth(self, content: bytes) -> Array:
        """A score to samples, which are dropped."""
        return self.studio.synthesizer.render(midi.load_score(content), max_seconds=self.seconds)

    def to_wav(self, content: bytes) -> Path:
        """FluidSynth to a WAV file."""
        path = self.folder / "song.wav"
        soundfile.write(path, self.fluidsynth(content).T, RATE, subtype="PCM_16")
        return path

    def of_2017(self, path: Path) -> None:
        """A file to 513 bins at 4.41 kHz."""
        y, _ = librosa.load(path, sr=4410, duration=self.seconds)
        np.save(self.folder / "frames.npy", np.abs(librosa.stft(y, n_fft=1024)))

    def of_2017_at_our_settings(self, path: Path) -> None:
        """A file to our 324 rows, with librosa's means."""
        y, _ = librosa.load(path, sr=RATE, duration=self.seconds)
        powers = [np.abs(librosa.stft(y, n_fft=n_fft, hop_length=512)) ** 2 for n_fft in (4096, 2048)]
        rows = sum(weights @ power for weights, power in zip(self.rows, powers, strict=True))
        np.save(self.folder / "frames.npy", librosa.power_to_db(rows, amin=1e-9, top_db=None))


def timed(work: Callable[[], Any]) -> Array:
    """Wall and CPU seconds of a piece of work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


def scores(collection: Path, count: int) -> list[bytes]:
    """The first scores of the collection by hash."""
    chosen = sorted(recipes.pieces(collection), key=lambda piece: recipes.text_hash(piece.path))[:count]
    return [content for _, content in recipes.read_pieces(collection, chosen)]


def measure_scores(ways: Ways, songs: list[bytes]) -> dict[str, Array]:
    names = ("a", "b2017", "bours", "c")
    spent = {name: np.zeros(2) for name in names}
    for content in [songs[0], *songs]:  # the first one twice: it warms caches, and is taken off again
        first = content is songs[0] and not spent["c"].any()
        found = {
            "c": timed(lambda content=content: ways.fluidsynth(content)),
            "a": timed(lambda content=content: ways.ours(content)),
            "b2017": timed(lambda content=content: ways.of_2017(ways.to_wav(content))),
            "bours": timed(lambda content=content: ways.of_2017_at_our_settings(ways.to_wav(content))),
        }
        for name in names:
            spent[name] += 1e-12 if first else found[name]
    return spent


def measure_recordings(ways: Ways, songs: list[Path]) -> dict[str, Array]:
    spent = {name: np.zeros(2) for name in ("decoded", "a", "b2017", "bours")}
    ways.ours(songs[0])
    for path in songs:
        frames = int(ways.seconds * soundfile.info(path).samplerate)
        spent["decoded"] += timed(lambda path=path, frames=frames: soundfile.read(path, frames, dtype="float32"))
        spent["a"] += timed(lambda path=path: ways.ours(path))
        spent["b2017"] += timed(lambda path=path: ways.of_2017(path))
        spent["bours"] += timed(lambda path=path: ways.of_2017_at_our_settings(path))
    return spent


# ------------------------------------------------------------------------------------------------------------------- the dataset


def crops_per_second(data: Dataset, *, count: int = 4000) -> float:
    """Random crops of 64 frames as float32, read once before (the files are in the system's cache)."""
    rng = np.random.default_rng(0)
    lengths = np.array([data.frames(song) for song in range(len(data))])
    songs = rng.choice(np.flatnonzero(lengths >= 64), count)
    firsts = [int(rng.integers(lengths[song] - 63)) for song in songs]
    for _ in range(2):
        start = time.process_time()
        for song, first in zip(songs.tolist(), firsts, strict=True):
            data.read(song, first, 64)
        took = time.process_time() - start
    return count / took


def error_db(ways: Ways, songs: list[bytes]) -> float:
    """Mean error of stored frames above −80 dB."""
    errors = []
    for content in songs:
        y = ways.fluidsynth(content).mean(0)
        levels, loudness = ways.studio.levels(y)
        exact = ways.studio.features(torch.from_numpy(y * np.float32(10 ** ((-20 - loudness) / 20)))).numpy()
        errors.append(np.abs(levels.T - 90 * exact)[exact > 10 / 90])
    return float(np.concatenate(errors).mean())


def peak_mib(collection: Path, songs: int) -> tuple[float, float]:
    """Largest memory of the process that writes and of the largest worker, of a build of so many songs."""
    code = (
        "import resource, sys, tempfile; from stylestream import builder; from stylestream.dataset import DatasetConfig\n"
        "if __name__ == '__main__':\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        config = DatasetConfig(max_seconds=5, songs=int(sys.argv[2]), shard_songs=16)\n"
        "        builder.build([sys.argv[1]], folder, config=config, jobs=1)\n"
        "    own = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "    print(own / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "build.py")
        script.write_text(code)
        said = subprocess.run([sys.executable, str(script), str(collection), str(songs)], capture_output=True, text=True, check=True).stdout
    own, worker = map(float, said.split())
    return own, worker


# ------------------------------------------------------------------------------------------------------------------- a real build


def real_build(folder: Path, log: str) -> Iterator[str]:
    """What a build came to. The log has, for each run, a line ``exit CODE, wall S s, largest process M MiB, cpu C s``."""
    data = Dataset(folder)
    runs = re.findall(r"^exit (\d+), wall (\d+) s, largest process (\d+) MiB, cpu (\d+) s", log, re.MULTILINE)
    wall, cpu = sum(int(run[1]) for run in runs), sum(int(run[3]) for run in runs)
    hours = sum(data.songs["seconds"].to_pylist()) / 3600
    frame_bytes = sum(shard["bytes"] for shard in data.description.shards)
    failures = Counter(filter(None, data.index["failure"].to_pylist()))
    rows = len(data.index)
    share = COLLECTION_SONGS / rows
    yield "| | |"
    yield "|---|---|"
    yield f"| songs | {len(data):,} of {rows:,} |"
    longest = data.description.build["max_seconds"]
    yield f"| music | {hours:.1f} hours, {longest:g} s of a song at most, {len(data.description.styles)} styles |"
    yield f"| failures | {sum(failures.values())}{''.join(f'; {count} × {why}' for why, count in failures.most_common())} |"
    yield f"| groups | {len(set(data.songs['group_id'].to_pylist())):,} |"
    yield f"| wall time | {wall / 60:.0f} min in {len(runs)} run{'s' if len(runs) > 1 else ''}, 2 jobs; {cpu / 60:.0f} min of CPU |"
    yield f"| rate | {rows / wall:.2f} songs/s, {3600 * hours / wall:.0f} × real time; {3600 * hours / cpu:.0f} × per core |"
    yield f"| bytes | {frame_bytes / 1e9:.2f} GB, {frame_bytes / hours / 3600 / 1000:.2f} KB per second of music |"
    yield f"| peak memory | {max(int(run[2]) for run in runs)} MiB (the largest process) |"
    yield (
        f"| all {COLLECTION_SONGS:,} pieces | {share * wall / 3600:.1f} h at this rate, {share * cpu / 3600:.1f} h of CPU, "
        f"{share * frame_bytes / 1e9:.1f} GB |"
    )


# ------------------------------------------------------------------------------------------------------------------- the page


def table(head: str, rows: list[tuple[str, Array]], seconds: float, reference: Array) -> Iterator[str]:
    yield f"| {head} | ms wall per s of music | ms CPU per s of music | × real time (CPU) | wall, as a share of the first row's |"
    yield "|---|---:|---:|---:|---:|"
    for name, (wall, cpu) in rows:
        yield f"| {name} | {1e3 * wall / seconds:.1f} | {1e3 * cpu / seconds:.1f} | {seconds / cpu:.0f} | {wall / reference[0]:.2f} |"


def page(collection: Path, count: int, seconds: float) -> Iterator[str]:
    songs = scores(collection, count)
    recordings = sorted((collection / "audio").rglob("*.ogg"))[:count]
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(seconds, Path(folder))
        of_scores, of_recordings = measure_scores(ways, songs), measure_recordings(ways, recordings)
        score_seconds = sum(ways.studio.synthesizer.samples(midi.load_score(c), max_seconds=seconds) for c in songs) / RATE
        recorded_seconds = sum(min(soundfile.info(path).duration, seconds) for path in recordings)
        built = build([collection], Path(folder, "DATA"), config=DatasetConfig(max_seconds=seconds, songs=count), jobs=1)
        data = Dataset(Path(folder, "DATA"))
        size = sum(data.songs["bytes"].to_pylist()) / sum(data.songs["seconds"].to_pylist())
        crops, error = crops_per_second(data), error_db(ways, songs[:10])
    yield f"## {count} scores"
    yield ""
    a, b2017, bours, c = (of_scores[name] for name in ("a", "b2017", "bours", "c"))
    rows = [("(c) FluidSynth alone", c), ("(a) this pipeline: rendered, transformed, compressed", a)]
    rows += [("(b) the 2017 way: WAV on disk, librosa, 4.41 kHz, 513 bins", b2017), ("(b) the 2017 way at our settings", bours)]
    yield from table(f"{score_seconds / 60:.0f} minutes of music", rows, score_seconds, c)
    yield ""
    yield f"This pipeline takes {a[0] / c[0]:.2f} times as long as FluidSynth alone (CPU time: {a[1] / c[1]:.2f})."
    yield ""
    yield f"## {len(recordings)} recordings"
    yield ""
    decoded, a, b2017, bours = (of_recordings[name] for name in ("decoded", "a", "b2017", "bours"))
    rows = [("decoding alone, which every way begins with", decoded)]
    rows += [
        ("(a) this pipeline, beats tracked too", a),
        ("(b) librosa, 4.41 kHz, 513 bins", b2017),
        ("(b) librosa at our settings", bours),
    ]
    yield from table(f"{recorded_seconds / 60:.0f} minutes of Ogg Vorbis", rows, recorded_seconds, decoded)
    yield ""
    yield f"This pipeline is {bours[0] / a[0]:.1f} times as fast as librosa at our settings (CPU time: {bours[1] / a[1]:.1f})."
    yield f"More than {bours[1] / decoded[1]:.1f} times is not to be had on one core: so long does decoding alone take."
    yield ""
    yield "## On disk"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| size | {size / 1000:.2f} KB per second of music ({built.songs} songs of the collection) |"
    yield f"| error of frames above −80 dB | {error:.3f} dB mean, of ten scores |"
    yield f"| random crops of 64 frames, one process, warm cache | {crops:,.0f} per second of CPU time |"
    yield ""
    yield "## Memory"
    yield ""
    yield "| songs in the build | the process that writes | its worker |"
    yield "|---:|---:|---:|"
    for number in (16, 64, 256):
        own, worker = peak_mib(collection, number)
        yield f"| {number} | {own:.0f} MiB | {worker:.0f} MiB |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("collection", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--built", type=Path)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    load = os.getloadavg()[0]
    command = "python benchmarks/dataset.py DATA --out FILE" + (" --built DATASET --log LOG" if arguments.built else "")
    lines = ["# Benchmarks of the dataset", "", f"Written by `{command}`; do not edit."]
    lines += [f"{platform.machine()}, {os.cpu_count()} threads, load {load:.1f} at the start, Python {platform.python_version()}.", ""]
    lines += list(page(arguments.collection, arguments.songs, arguments.seconds))
    if arguments.built:
        lines += ["", "## A real build", "", *real_build(arguments.built, arguments.log.read_text())]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps({"written": str(arguments.out), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
