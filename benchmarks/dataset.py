"""How fast, how small and how exact a dataset is built, beside the way of 2017 and beside FluidSynth alone.

    python benchmarks/dataset.py DATA --out docs/benchmarks.md [--songs 40] [--seconds 60]
                                 [--built DATASET --log LOG] [--mixed DATASET]

Fills the block `dataset` of that page. DATA is a collection (docs/data.md). Every song goes through every way, one after another, in this
one process on one core, the SoundFont loaded once; so the ways share whatever else the machine does, and their ratios stand where seconds
would not. Recordings go through the worker processes of a build, too, one a core, as a build does by default. ``--built`` adds what a real
build came to, from its dataset and the log of its runs, ``--mixed`` what is in one that was built of scores and recordings together.
"""

from __future__ import annotations

import argparse
import functools
import itertools
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

from stylestream import audio, audit, builder, groups, midi, parallel, recipes, shards
from stylestream.builder import Studio, Task, build
from stylestream.dataset import Dataset, DatasetConfig
from stylestream.features import FeatureConfig, filterbank
from stylestream.loader import Crops

Array = np.ndarray[Any, Any]
RATE = 44_100
COLLECTION_SONGS = 16_658
ROUNDS = 3  # of the recordings


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

    def of_2017_without_rows(self, path: Path) -> None:
        """What of that is `librosa.load` and `librosa.stft`; nothing is kept."""
        y, _ = librosa.load(path, sr=RATE, duration=self.seconds)
        for n_fft in (4096, 2048):
            np.abs(librosa.stft(y, n_fft=n_fft, hop_length=512))


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
    spent = {name: np.zeros(2) for name in ("decoded", "a", "b2017", "bours", "bstft")}
    ways.ours(songs[0])
    ways.of_2017_at_our_settings(songs[0])
    for path in songs:
        frames = int(ways.seconds * soundfile.info(path).samplerate)
        spent["decoded"] += timed(lambda path=path, frames=frames: soundfile.read(path, frames, dtype="float32"))
        spent["a"] += timed(lambda path=path: ways.ours(path))
        spent["b2017"] += timed(lambda path=path: ways.of_2017(path))
        spent["bours"] += timed(lambda path=path: ways.of_2017_at_our_settings(path))
        spent["bstft"] += timed(lambda path=path: ways.of_2017_without_rows(path))
    return spent


def fastest(ways: Ways, formats: dict[str, list[Path]]) -> dict[str, tuple[dict[str, Array], float]]:
    """Every way in the best of its rounds, and all cores in theirs: what else the machine does only ever adds.

    A round goes over all formats, so that a busy minute falls on one round of each.
    """
    spent: dict[str, list[dict[str, Array]]] = {form: [] for form in formats}
    walls: dict[str, list[float]] = {form: [] for form in formats}
    for _ in range(ROUNDS):
        for form, songs in formats.items():
            walls[form].append(on_all_cores(songs, ways.seconds))
            spent[form].append(measure_recordings(ways, songs))
            walls[form].append(on_all_cores(songs, ways.seconds))

    def best(rounds: list[dict[str, Array]]) -> dict[str, Array]:
        return {way: min((found[way] for found in rounds), key=lambda pair: float(pair[0])) for way in rounds[0]}

    return {form: (best(spent[form]), min(walls[form])) for form in formats}


def parts_of(ways: Ways, songs: list[Path]) -> dict[str, float]:
    """CPU seconds of each step of this pipeline."""
    spent: Counter[str] = Counter()

    def step(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        spent[name] += time.process_time() - start
        return result

    studio, gain = ways.studio, np.float32(1.0)
    for path in songs:
        y = step("decoded, folded to mono", lambda path=path: audio.load(path, sample_rate=RATE, mono=True, max_seconds=ways.seconds)[0][0])
        step("loudness (BS.1770)", lambda y=y: audio.loudness(y[None], RATE))
        levels = step("frames: two STFTs, 324 rows, decibels", lambda y=y: np.concatenate(list(studio._levels(y, gain))))
        step("beats", lambda levels=levels: studio._beats(levels))
        step("fingerprint", lambda levels=levels: groups.sound_fingerprint(levels))
        step("compressed", lambda levels=levels: shards.encode("0" * 16, [levels]))
    return dict(spent)


def on_all_cores(songs: list[Path], seconds: float) -> float:
    """Wall seconds of a build's workers, one a core, from the moment that all have started."""
    jobs = parallel.cores()
    with tempfile.TemporaryDirectory() as folder:
        setup = functools.partial(start_together, DatasetConfig(max_seconds=seconds), songs[0], Path(folder), jobs)
        tasks = [Task(f"{number:016x}", path.name, path) for number, path in enumerate(songs)]
        heard = list(parallel.over_songs(builder._hear, tasks, setup=setup, jobs=jobs, ordered=True))
        end, start = time.time(), max(path.stat().st_mtime for path in Path(folder).iterdir())
    assert not [result for _, result in heard if isinstance(result, ValueError)]
    return end - start


def start_together(config: DatasetConfig, song: Path, folder: Path, jobs: int) -> Studio:
    """What a worker has, when all are as warm as this process is."""
    studio = Studio(config, scores=False)
    studio.hear(Task("0" * 16, song.name, song))
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < jobs:
        time.sleep(0.01)
    return studio


def in_other_formats(songs: list[Path], seconds: float, folder: Path) -> dict[str, list[Path]]:
    """The beginnings of the songs in three formats, 16 bits where there are bits."""
    found = {
        "Ogg Vorbis": songs,
        "FLAC": [folder / f"{path.stem}.flac" for path in songs],
        "WAV": [folder / f"{path.stem}.wav" for path in songs],
    }
    for path, *others in zip(*found.values(), strict=True):
        y, rate = soundfile.read(path, int(seconds * soundfile.info(path).samplerate), dtype="float32")
        for other in others:
            soundfile.write(other, y, rate, subtype="PCM_16")
    return found


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


def loader_crops_per_second(data: Dataset, *, batches: int = 60) -> tuple[float, float]:
    """Random crops of 64 frames in batches of 64 float32 tensors: per CPU second of this process; per second from one worker process."""
    crops = Crops(data, crop_frames=64, weights="seconds")
    numbers = [list(range(64 * batch, 64 * batch + 64)) for batch in range(batches)]
    for _ in range(2):  # the first time, from the disk
        start = time.process_time()
        for batch in numbers:
            crops[batch]
        own = 64 * batches / (time.process_time() - start)
    given, start = 0, 0.0
    loader = crops.loader(64, workers=1)
    while given <= 64 * batches:
        for batch in loader:
            start = start or time.perf_counter()  # when the worker has started, and given its first batch
            given += len(batch["song"])
    return own, (given - 64) / (time.perf_counter() - start)


def error_db(ways: Ways, songs: list[bytes]) -> float:
    """Mean error of stored frames above −80 dB."""
    errors = []
    for content in songs:
        y = ways.fluidsynth(content).mean(0)
        levels, loudness = ways.studio.levels(y)
        exact = ways.studio.features(y * np.float32(10 ** ((-20 - loudness) / 20)))
        errors.append(np.abs(levels.T - 90 * exact)[exact > 10 / 90])
    return float(np.concatenate(errors).mean())


def peak_mib(collection: Path, songs: int) -> tuple[float, float]:
    """Largest memory of the process that writes and of the largest worker, of a build of so many songs."""
    code = (
        "import resource, sys, tempfile; from stylestream import builder; from stylestream.dataset import DatasetConfig\n"
        "if __name__ == '__main__':\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        config = DatasetConfig(max_seconds=2, songs=int(sys.argv[2]), shard_songs=16)\n"
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


RUN = re.compile(
    r"^begin (\d+)|^([\d,]+) of [\d,]+ songs, ([\d.]+) hours|^exit (\d+), wall (\d+) s, largest process (\d+) MiB, cpu (\d+) s",
    re.MULTILINE,
)


def runs_of(log: str) -> list[dict[str, float]]:
    """The runs of a build: when each began, where, and, of those that could still say so, how they ended."""
    runs: list[dict[str, float]] = []
    for begun, songs, hours, code, wall, mib, cpu in RUN.findall(log):
        if begun:
            runs.append({"begun": float(begun)})
        elif songs:
            runs[-1].setdefault("from_songs", float(songs.replace(",", "")))
            runs[-1].setdefault("from_hours", float(hours))
        else:
            runs[-1] |= {"code": float(code), "wall": float(wall), "mib": float(mib), "cpu": float(cpu)}
    for run, after in itertools.pairwise(runs):
        run.setdefault("wall", after["begun"] - run["begun"])  # killed: at most until the next began
    return runs


def real_build(folder: Path, log: str) -> Iterator[str]:
    """What a build came to.

    Its log has the progress and, for each run, ``begin SECONDS`` and, if it was not killed, ``exit CODE, wall …``; then what `verify` said.
    """
    data, runs = Dataset(folder), runs_of(log)
    hours = sum(data.songs["seconds"].to_pylist()) / 3600
    frame_bytes = sum(shard["bytes"] for shard in data.description.shards)
    failures = Counter(filter(None, data.index["failure"].to_pylist()))
    rows, last = len(data.index), runs[-1]
    last_rows, last_hours = rows - last["from_songs"], hours - last["from_hours"]
    share = COLLECTION_SONGS / rows
    verified = re.findall(r": (whole: .* read)$", log, re.MULTILINE)
    yield f"`stylestream dataset build DATA/midi.tar.xz --max-seconds 60 --songs {rows} -j 2`"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| songs | {len(data):,} of {rows:,} |"
    longest = data.description.build["max_seconds"]
    yield f"| music | {hours:.1f} hours, {longest:g} s of a song at most, {len(data.description.styles)} styles |"
    yield f"| failures | {sum(failures.values())}{''.join(f': {count} × {why}' for why, count in failures.most_common())} |"
    yield f"| pieces (groups) | {len(set(data.songs['group_id'].to_pylist())):,} |"
    yield f"| `stylestream dataset verify` | {verified[-1] if verified else 'not run'} |"
    from_songs = ", ".join(f"{run['from_songs']:,.0f}" for run in runs[1:])
    yield f"| runs | {len(runs)}: broken off {len(runs) - 1} times, gone on with the same command at song {from_songs} |"
    all_hours = sum(run["wall"] for run in runs) / 3600
    yield f"| wall time of all runs | at most {all_hours:.1f} h, beside other work on the same two cores, often thrice what they can do |"
    used = last["cpu"] / (2 * last["wall"])
    yield (
        f"| the last run, not broken off | {last_rows:,.0f} songs, {last_hours:.1f} hours of music in {last['wall'] / 60:.0f} min "
        f"of wall time and {last['cpu'] / 60:.0f} min of CPU: {100 * used:.0f} % of two cores |"
    )
    for what, spent in (("its rate", last["wall"]), ("its rate by CPU time, of one core", last["cpu"])):
        yield f"| {what} | {last_rows / spent:.2f} songs/s, {3600 * last_hours / spent:.0f} × real time |"
    yield f"| bytes | {frame_bytes / 1e9:.2f} GB, {frame_bytes / hours / 3600 / 1000:.2f} KB per second of music |"
    yield f"| peak memory | {max(run.get('mib', 0) for run in runs):.0f} MiB (the largest process) |"
    hours_for_all = COLLECTION_SONGS / last_rows * last["wall"] / 3600, COLLECTION_SONGS / last_rows * last["cpu"] / 3600
    yield (
        f"| all {COLLECTION_SONGS:,} pieces | {hours_for_all[0]:.1f} h at the last run's rate; {hours_for_all[1]:.1f} h of CPU, so "
        f"{hours_for_all[1] / 2:.1f} h on two cores of one's own; {share * frame_bytes / 1e9:.1f} GB |"
    )


def mixed_build(folder: Path) -> Iterator[str]:
    """What is in a dataset of scores and recordings."""
    summary = audit.summarise(Dataset(folder))
    build_of = Dataset(folder).description.build
    options = f"--max-seconds {build_of['max_seconds']:g} --songs {build_of['songs']}"
    yield f"`stylestream dataset build DATA/midi.csv DATA/audio.csv {options}`:"
    yield f"{summary.songs:,} songs of {len(summary.styles)} styles, {summary.groups:,} pieces, {summary.failed} failed."
    yield ""
    yield "| kind | songs | minutes |"
    yield "|---|---:|---:|"
    for name, share in summary.kinds.items():
        yield f"| {name} | {share.songs:,} | {share.seconds / 60:.1f} |"
    yield ""
    most = [f"{name}: {share.songs:,}" for name, share in list(summary.licences.items())[:4]]
    yield f"Under {len(summary.licences)} licences, as the manifests name them ({'; '.join(most)}; …)."


# ------------------------------------------------------------------------------------------------------------------- the page


def table(head: str, rows: list[tuple[str, Array]], seconds: float, reference: Array) -> Iterator[str]:
    yield f"| {head} | ms wall per s of music | ms CPU per s of music | × real time (CPU) | wall, as a share of the first row's |"
    yield "|---|---:|---:|---:|---:|"
    for name, (wall, cpu) in rows:
        of_cpu = "| | |" if np.isnan(cpu) else f"| {1e3 * cpu / seconds:.2f} | {seconds / cpu:.0f} |"
        yield f"| {name} | {1e3 * wall / seconds:.2f} {of_cpu} {wall / reference[0]:.2f} |"


def page(collection: Path, count: int, seconds: float, built_before: Path | None) -> Iterator[str]:
    songs = scores(collection, count)
    recordings = sorted((collection / "audio").rglob("*.ogg"))[:count]
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(seconds, Path(folder))
        of_scores = measure_scores(ways, songs)
        formats = in_other_formats(recordings, seconds, Path(folder))
        of_recordings = fastest(ways, formats)
        parts = parts_of(ways, formats["WAV"])
        score_seconds = sum(ways.studio.synthesizer.samples(midi.load_score(c), max_seconds=seconds) for c in songs) / RATE
        recorded_seconds = sum(min(soundfile.info(path).duration, seconds) for path in recordings)
        built = build([collection], Path(folder, "DATA"), config=DatasetConfig(max_seconds=seconds, songs=count), jobs=1)
        data = Dataset(Path(folder, "DATA"))
        size = sum(data.songs["bytes"].to_pylist()) / sum(data.songs["seconds"].to_pylist())
        crops, error = crops_per_second(data), error_db(ways, songs[:10])
        from_loader, from_worker = loader_crops_per_second(Dataset(built_before) if built_before else data)
    yield f"### {count} scores"
    yield ""
    a, b2017, bours, c = (of_scores[name] for name in ("a", "b2017", "bours", "c"))
    rows = [("(c) FluidSynth alone", c), ("(a) this pipeline: rendered, transformed, compressed", a)]
    rows += [("(b) the 2017 way: WAV on disk, librosa, 4.41 kHz, 513 bins", b2017), ("(b) the 2017 way at our settings", bours)]
    yield from table(f"{score_seconds / 60:.0f} minutes of music", rows, score_seconds, c)
    yield ""
    yield f"This pipeline takes {a[0] / c[0]:.2f} times as long as FluidSynth alone (CPU time: {a[1] / c[1]:.2f})."
    yield ""
    yield f"### {len(recordings)} recordings"
    yield ""
    yield "(b) is a script: one song after another, on one core. A build has a worker on each core. Ours is given both ways."
    yield f"Every row is the fastest of its rounds over all songs: {ROUNDS} in which the ways of one core take turns song by song,"
    yield f"and {2 * ROUNDS} of all cores, before and after each of those."
    for form, (spent, wall) in of_recordings.items():
        decoded, a, b2017, bours, bstft = (spent[name] for name in ("decoded", "a", "b2017", "bours", "bstft"))
        rows = [("decoding alone by libsndfile, as librosa does", decoded)]
        rows += [
            ("(a) this pipeline on one core; beats and fingerprint, too", a),
            (f"(a) this pipeline as it is run, {parallel.cores()} cores", np.array([wall, np.nan])),
            ("(b) librosa, 4.41 kHz, 513 bins", b2017),
            ("(b) librosa at our settings", bours),
            ("of that, `load` and two `stft`, without rows, and nothing kept", bstft),
        ]
        yield ""
        yield from table(f"{recorded_seconds / 60:.0f} minutes of {form}", rows, recorded_seconds, decoded)
        yield ""
        yield (
            f"{form}: as it is run, this pipeline is **{bours[0] / wall:.1f}** times as fast as librosa at our settings, on one core "
            f"{bours[0] / a[0]:.1f} times (CPU time: {bours[1] / a[1]:.1f})."
        )
    yield ""
    yield "| a WAV in this pipeline, step by step | ms CPU per s of music |"
    yield "|---|---:|"
    for name, spent in parts.items():
        yield f"| {name} | {1e3 * spent / recorded_seconds:.2f} |"
    yield ""
    shared = sum(spent for name, spent in parts.items() if name.startswith(("decoded", "frames")))
    of_wav = of_recordings["WAV"][0]["bours"][1]
    least = min(spent["bours"][0] / wall for spent, wall in of_recordings.values())
    yield (
        f"The aim is five times as fast as librosa at our settings; the least of the three is {least:.1f} times. "
        "(b) makes the same frames (mono, STFTs of 4,096 and 2,048 samples, 324 rows, decibels), and leaves out loudness, beats, "
        "fingerprint and compression; its rows are a product with the whole filterbank, as in `librosa.feature.melspectrogram`. "
        "What both do with a "
        f"WAV, decoding and frames, takes this pipeline {1e3 * shared / recorded_seconds:.2f} ms of CPU per second of music, librosa "
        f"{of_wav / shared:.1f} times as long."
    )
    yield ""
    yield "### On disk"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| size | {size / 1000:.2f} KB per second of music ({built.songs} songs of the collection) |"
    yield f"| error of frames above −80 dB | {error:.3f} dB mean, of ten scores |"
    yield f"| random crops of 64 frames, the reader alone, warm cache | {crops:,.0f} per second of CPU time |"
    yield f"| the same as batches of 64 tensors (`Crops`) | {from_loader:,.0f} per second of CPU time |"
    yield f"| the same from one worker process (`Crops.loader(64, workers=1)`) | {from_worker:,.0f} per second of wall time |"
    yield ""
    yield "### Memory"
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
    parser.add_argument("--mixed", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    load = os.getloadavg()[0]
    command = "python benchmarks/dataset.py DATA --out docs/benchmarks.md" + (" --built DATASET --log LOG" if arguments.built else "")
    command += " --mixed DATASET" if arguments.mixed else ""
    lines = [f"Written by `{command}`."]
    lines += [f"{platform.machine()}, {os.cpu_count()} threads, load {load:.1f} at the start, Python {platform.python_version()}.", ""]
    lines += ["LOAD", ""]
    lines += list(page(arguments.collection, arguments.songs, arguments.seconds, arguments.built))
    if arguments.built:
        lines += ["", "### A real build", "", *real_build(arguments.built, arguments.log.read_text())]
    if arguments.mixed:
        lines += ["", "### Scores and recordings together", "", *mixed_build(arguments.mixed)]
    lines[lines.index("LOAD")] = f"Load of the machine at the end: {os.getloadavg()[0]:.1f}."
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "dataset.md")
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fill = Path(__file__).parent.parent / "tools" / "fill"
        subprocess.run([sys.executable, str(fill), str(arguments.out), "dataset", str(part)], check=True)
    print(json.dumps({"written": str(arguments.out), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
