"""Songs → dataset: found, rendered or decoded, transformed, compressed and written, in parallel, in memory, and resumable.

A build is a plan and its shards. The plan is every song of the sources with its id, in the order in which they are found; shard *n* holds
its songs 64 *n* to 64 *n* + 63, whatever becomes of them. Workers turn a song into compressed frames; this process alone writes, shard
after shard, each whole or not at all. So a build that was killed goes on with the first shard that is missing, and gives the same bytes;
and of a dataset that has lost shards since it was done, the build goes on with those. The index comes last: only when all melodies are
known, is it known which songs are the same piece, and so which split they are in.

While a build is not done, its folder holds ``build.json`` (the plan's digest) and ``parts/`` (each shard's rows of the index).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stylestream import __version__, audio, groups, midi, parallel, recipes, rhythm, shards, sources, views
from stylestream.dataset import (
    DESCRIPTION,
    FORMAT_VERSION,
    INDEX,
    SHARDS,
    STEP_DB,
    UNFINISHED,
    DatasetConfig,
    Description,
    describe,
    index_schema,
)
from stylestream.features import FeatureConfig, QuickFrames
from stylestream.files import alone_in, whole_file

Array = np.ndarray[Any, Any]

PARTS, AUDIO = "parts", "audio"
LONGEST_SECONDS = midi.MAX_RENDER_SECONDS  # of a song: two hours
SILENT_LUFS = -60.0
BLOCK_FRAMES = 256  # of a waveform transformed at once: its STFTs stay in the cache, and in memory that is not asked for anew


# --- a worker: one song ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One song to be heard."""

    song_id: str
    name: str
    content: bytes | Path
    problem: str = ""  # why there is nothing to hear


@dataclass(frozen=True)
class Heard:
    """What became of it: its frames, and what the index says of it."""

    encoded: shards.EncodedSong
    about: dict[str, Any]
    sound: bytes = b""  # as it is kept, if it is


class Studio:
    """What a worker keeps from song to song: the SoundFont, the front end."""

    def __init__(self, config: DatasetConfig, *, scores: bool = True) -> None:
        self.config, self.features = config, QuickFrames()
        if scores:  # now, not with the first of them: what is not installed is one error, not one for each song
            midi.check_reader()
            _ = self.synthesizer

    @functools.cached_property
    def synthesizer(self) -> midi.Synthesizer:
        """Recordings need none."""
        return midi.Synthesizer(self.config.soundfont, sample_rate=self.features.config.sample_rate)

    @property
    def max_seconds(self) -> float:
        """Of a song, at most."""
        return self.config.max_seconds or LONGEST_SECONDS

    def hear(self, task: Task) -> Heard:
        """Frames of a song and its views.

        Raises
        ------
        ValueError, OSError
            If it cannot be read, is silent or too long.
        """
        if task.problem:
            raise ValueError(task.problem)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            is_score = isinstance(task.content, bytes) and _is_midi(task.content)
            sounds, about = self._play(task) if is_score else self._decode(task)
            mono = [y.mean(axis=0) if len(y) > 1 else y[0] for y in sounds]
            levels = [self.levels(y) for y in mono]
        if about["kind"] == "audio":
            about |= self._beats(levels[0][0]) | {"fingerprint": groups.sound_fingerprint(levels[0][0])}
        about["loudness_lufs"], about["peak"] = levels[0][1], float(max(mono[0].max(), -mono[0].min()))
        about["warning"] = "; ".join(sorted({" ".join(str(warning.message).split()) for warning in caught}))
        kept = keep(sounds[0], self.features.config.sample_rate, self.config.keep_audio) if self.config.keep_audio else b""
        return Heard(shards.encode(task.song_id, [own for own, _ in levels]), about, kept)

    def _play(self, task: Task) -> tuple[list[Array], dict[str, Any]]:
        """The score and its views as waveforms (2, N)."""
        assert isinstance(task.content, bytes)
        score = midi.load_score(task.content)
        if not self.config.drums:
            score = recipes.target_score(score, recipes.StyleRecipe(()))
        rng = np.random.default_rng([*bytes.fromhex(task.song_id)])
        scores = [score, *(views.orchestrations(score, rng, self.config.views) if self.config.views else ())]
        samples = self._samples(score)
        beats, downbeats = midi.beats(score)
        about = {
            "kind": "midi",
            "seconds": samples / self.features.config.sample_rate,
            "whole_seconds": midi.duration_seconds(score),
            "beats": beats,
            "downbeats": downbeats,
            "fingerprint": recipes.melody_fingerprint(score),
        }
        return [self._render(each, samples) for each in scores], about

    def _samples(self, score: Any) -> int:
        samples = self.synthesizer.samples(score, max_seconds=self.config.max_seconds or None)
        if samples > self.max_seconds * self.synthesizer.sample_rate:
            raise ValueError(f"longer than {LONGEST_SECONDS / 3600:g} h; give --max-seconds")
        return samples

    def _render(self, score: Any, samples: int) -> Array:
        y = self.synthesizer.render(score, max_seconds=samples / self.synthesizer.sample_rate)
        return y if y.shape[1] == samples else np.pad(y[:, :samples], ((0, 0), (0, max(samples - y.shape[1], 0))))

    def _decode(self, task: Task) -> tuple[list[Array], dict[str, Any]]:
        """The recording as a waveform (1 or 2, N)."""
        rate = self.features.config.sample_rate
        with _as_file(task) as path:
            info = audio.info(path)
            if not self.config.max_seconds and (info.seconds or 0) > LONGEST_SECONDS:
                raise ValueError(f"longer than {LONGEST_SECONDS / 3600:g} h; give --max-seconds")
            y = audio.load(path, sample_rate=rate, mono=not self.config.keep_audio, max_seconds=self.max_seconds)[0][:2]
        about = {"kind": "audio", "seconds": y.shape[1] / rate, "whole_seconds": info.seconds or 0.0}
        return [y], about

    def _beats(self, levels: Array) -> dict[str, Any]:
        """Beats of a recording, of its stored frames (T, F); none where they are not sure."""
        config = self.features.config
        tracker = rhythm.BeatTracker(frames_per_second=config.frames_per_second, bins_per_octave=config.bins_per_octave)
        table = rhythm.loudness(np.arange(256, dtype=np.float32) * np.float32(STEP_DB / -config.floor_db))
        for first in range(0, len(levels), BLOCK_FRAMES):
            tracker.push_loudness(table.take(levels[first : first + BLOCK_FRAMES]).T)
        beats = tracker.beats()
        known = beats if beats.reliable else rhythm.NO_BEATS
        return {"beats": known.beat_seconds, "downbeats": known.downbeat_seconds}

    def levels(self, y: Array) -> tuple[Array, float]:
        """Stored frames (T, F) uint8 of a waveform (N,), and its loudness in LUFS."""
        config = self.features.config
        loudness = audio.loudness(y[None], config.sample_rate)
        if not loudness > SILENT_LUFS:
            raise ValueError("it is silent" if np.abs(y).max(initial=0) < 1e-3 else f"it is too soft ({loudness:.0f} LUFS)")
        gain = np.float32(10 ** ((config.loudness_lufs - loudness) / 20))
        return np.concatenate(list(self._levels(y, gain))), loudness

    def _levels(self, y: Array, gain: np.float32) -> Iterator[Array]:
        """Stored frames (n, F) of a waveform times a gain, block by block."""
        config = self.features.config
        total = 1 + len(y) // config.hop_length
        for first in range(0, total, BLOCK_FRAMES):
            x = self.features(y, first=first, count=min(BLOCK_FRAMES, total - first), gain=gain)
            steps = np.rint(x * np.float32(-config.floor_db / STEP_DB))
            yield np.ascontiguousarray(np.clip(steps, 0, 255, out=steps).astype(np.uint8).T)


def _is_midi(data: bytes) -> bool:
    return data[:4] == b"MThd" or (data[:4] == b"RIFF" and data[8:12] == b"RMID")


@contextlib.contextmanager
def _as_file(task: Task) -> Iterator[Path]:
    """The song as a file: decoders want one. A member of an archive becomes one for as long as it is read."""
    if isinstance(task.content, Path):
        yield task.content
        return
    with tempfile.TemporaryDirectory(prefix="stylestream-") as folder:
        path = Path(folder, "song" + Path(task.name).suffix.lower()[:8])
        path.write_bytes(task.content)
        yield path


def keep(y: Array, sample_rate: int, form: str) -> bytes:
    """A waveform (C, N) as the bytes of a FLAC or Opus file; equal waveforms give equal bytes."""
    if form == "opus":
        y, sample_rate = audio.resample(y, sample_rate, 48_000), 48_000
    with tempfile.TemporaryDirectory(prefix="stylestream-") as folder:
        path = Path(folder, f"song.{form}")
        audio.save(path, y, sample_rate)
        return path.read_bytes() if form == "flac" else with_serial(path.read_bytes(), 1)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def with_serial(ogg: bytes, serial: int) -> bytes:
    """An Ogg file under another stream number: libsndfile draws one by the time of day, and equal songs shall be equal bytes.

    A page's checksum is the CRC of zlib's polynomial, run the other way: over bytes and into a word whose bits are reversed (RFC 3533, §6).
    """
    data, start = bytearray(ogg), 0
    while data[start : start + 4] == b"OggS":
        sizes = data[start + 27 : start + 27 + data[start + 26]]
        end = start + 27 + len(sizes) + sum(sizes)
        data[start + 14 : start + 18] = serial.to_bytes(4, "little")
        data[start + 22 : start + 26] = bytes(4)
        crc = zlib.crc32(data[start:end].translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        data[start + 22 : start + 26] = int(f"{crc:032b}"[::-1], 2).to_bytes(4, "little")
        start = end
    return bytes(data)


def _hear(studio: Studio, task: Task) -> Heard:
    try:
        return studio.hear(task)
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:  # seven thousand strangers' files: what breaks a library must not break the build
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None


# --- the plan --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """A row of the index before it is heard."""

    position: int  # among all songs of the sources
    song_id: str
    found: sources.Found
    failure: str = ""

    def row(self) -> dict[str, Any]:
        """What is known of it."""
        return dict(sources.metadata(self.found)) | {"song_id": self.song_id, "failure": self.failure}


@dataclass(frozen=True)
class Plan:
    """All songs of a build, and what is made of them."""

    places: tuple[str | Path, ...]
    config: DatasetConfig
    songs: tuple[Planned, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Of everything that the dataset's bytes depend on."""
        rows = [[*planned.row().values(), planned.found.group] for planned in self.songs]
        text = json.dumps([FORMAT_VERSION, __version__, asdict(FeatureConfig()), _lasting(self.config), rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def has_scores(self) -> bool:
        """Whether there is a MIDI file among them, by its name."""
        return any(Path(planned.found.path).suffix.lower() in recipes.SCORE_SUFFIXES for planned in self.songs)

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-len(self.songs) // self.config.shard_songs)

    def shard(self, number: int) -> tuple[Planned, ...]:
        """The songs of a shard."""
        return self.songs[number * self.config.shard_songs : (number + 1) * self.config.shard_songs]


def _lasting(config: DatasetConfig) -> dict[str, Any]:
    """The settings that a song's bytes depend on: patience and memory may be changed when a build goes on."""
    return {key: value for key, value in asdict(config).items() if key not in ("timeout_seconds", "memory_mib")}


def make_plan(places: Sequence[str | Path], config: DatasetConfig) -> Plan:
    """Find all songs. The same bytes under two names count once; of ``config.songs`` those with the smallest ids are taken.

    Raises
    ------
    ValueError, OSError
        As `sources.find`; if there is no song.
    """
    songs: list[Planned] = []
    first: dict[str, str] = {}
    for position, found in enumerate(sources.find(places)):
        try:
            song, failure = found.song_id(), ""
        except (ValueError, OSError) as error:
            song, failure = "", _one_line(error)
        if song in first:
            failure = f"the same bytes as {first[song]}"
        elif song:
            first[song] = found.path
        songs.append(Planned(position, song, replace(found, member=None), failure))
    if not songs:
        looked_for = " ".join(sorted((*sources.SONG_SUFFIXES, *sources.ARCHIVE_SUFFIXES, *sources.MANIFEST_SUFFIXES)))
        raise ValueError(f"no song in {', '.join(map(str, places))} (looked for {looked_for})")
    if config.songs:
        chosen = set(sorted(first)[: config.songs])
        songs = [planned for planned in songs if planned.song_id in chosen and not planned.failure]
    return Plan(tuple(places), config, tuple(songs))


def _one_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


# --- the build -------------------------------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a build is. ``begun`` and ``resumed_songs`` let a rate be told."""

    total: int
    songs: int = 0  # rows done, failures included
    seconds: float = 0.0  # of music
    failures: Counter[str] = field(default_factory=Counter)  # by reason
    resumed_songs: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def songs_per_second(self) -> float:
        """Since this run began."""
        return (self.songs - self.resumed_songs) / max(time.monotonic() - self.begun, 1e-9)

    @property
    def seconds_left(self) -> float:
        """At this rate; infinite where none is known yet."""
        rate = self.songs_per_second
        return (self.total - self.songs) / rate if rate else float("inf")

    def line(self) -> str:
        """For the terminal.

        >>> Progress(4).line()
        '0 of 4 songs, 0.0 hours of music, 0 failed'
        """
        said = f"{self.songs:,} of {self.total:,} songs, {self.seconds / 3600:.1f} hours of music, {sum(self.failures.values()):,} failed"
        if self.songs == self.resumed_songs:
            return said
        left = self.seconds_left
        minutes = f", {left / 60:.0f} min left" if left >= 60 else f", {left:.0f} s left" if left else ""
        return f"{said}, {self.songs_per_second:.2f} songs/s{minutes}"

    def summary(self) -> dict[str, Any]:
        """As plain types."""
        took = round(time.monotonic() - self.begun, 1)
        rest = {"songs": self.songs - sum(self.failures.values()), "hours": round(self.seconds / 3600, 4), "seconds_taken": took}
        return rest | {"failed": sum(self.failures.values()), "failures": dict(self.failures.most_common()), "resumed": self.resumed_songs}

    def count(self, row: Mapping[str, Any]) -> None:
        """Take in a row of the index."""
        self.songs += 1
        self.seconds += row.get("seconds") or 0.0
        if row["failure"]:
            self.failures[row["failure"]] += 1


def build(
    places: Sequence[str | Path],
    out: str | Path,
    *,
    config: DatasetConfig | None = None,
    jobs: int | None = None,
    engine: parallel.Engine = "local",
    progress: Callable[[Progress, str], None] = lambda done, failure: None,
) -> Progress:
    """Build a dataset, or go on with one.

    Parameters
    ----------
    places : sequence of path or glob
        See `sources`.
    out : path
        The dataset's folder: new, empty, or one in which the same build was begun. Of one that is done, every byte is read, and shards that
        are damaged or gone are built anew.
    jobs, engine
        As `parallel.over_songs`.
    progress : function of (Progress, "" or the song that failed and why)

    Raises
    ------
    ValueError, OSError
        If the sources cannot be used; ``out`` holds something else, or another build is at work in it; the disk is full.
    """
    config = config or DatasetConfig()
    check(config)
    folder = Path(out)
    plan = make_plan(places, config)
    with _alone(folder, plan):
        done = Progress(len(plan.songs))
        if not (folder / UNFINISHED).exists() and (damaged := _damaged(folder)):
            _reopen(folder, plan, damaged)
        if (folder / UNFINISHED).exists():
            _write_shards(folder, plan, jobs, engine, done, progress)
            _write_index(folder, plan)
        else:
            _count_all(folder, done)
        _tidy(folder)
    return done


def check(config: DatasetConfig) -> None:
    """ValueError if these are no settings of a build."""
    if not 0 <= config.views <= shards.MAX_VIEWS:
        raise ValueError(f"{config.views} views; 0 to {shards.MAX_VIEWS} can be stored")
    if config.max_seconds < 0 or config.max_seconds > LONGEST_SECONDS:
        raise ValueError(f"max_seconds {config.max_seconds:g}: 0 (all of a song) to {LONGEST_SECONDS:g}")
    if config.keep_audio not in ("", "flac", "opus"):
        raise ValueError(f"keep_audio {config.keep_audio!r}: flac or opus")


@contextlib.contextmanager
def _alone(folder: Path, plan: Plan) -> Iterator[None]:
    """The folder, made ready for this plan, and no other process at work in it."""
    _check_folder(folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, f"another build is at work in {folder}; wait for it, or choose another -o"):
        _check_folder(folder, plan)  # again: another may just have finished
        if not (folder / DESCRIPTION).exists():
            _mark_unfinished(folder, plan)
        yield


def _check_folder(folder: Path, plan: Plan) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another -o")
    if (folder / DESCRIPTION).exists():
        there, what = describe((folder / DESCRIPTION).read_bytes(), where=str(folder)).plan, "a dataset"
    elif (folder / UNFINISHED).exists():
        there, what = _begun(folder / UNFINISHED), "the beginning of a dataset"
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no dataset; choose another -o")
    else:
        return
    if there != plan.digest:
        raise ValueError(f"{folder} holds {what} of other songs, options or version; choose another -o, or remove it")


def _begun(file: Path) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(file.read_bytes())["plan"])
    return ""


def _mark_unfinished(folder: Path, plan: Plan) -> None:
    _write_text(folder / UNFINISHED, json.dumps({"format_version": FORMAT_VERSION, "plan": plan.digest}) + "\n")


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_shards(
    folder: Path, plan: Plan, jobs: int | None, engine: parallel.Engine, done: Progress, progress: Callable[[Progress, str], None]
) -> None:
    for name in (SHARDS, PARTS, *([AUDIO] if plan.config.keep_audio else [])):
        (folder / name).mkdir(exist_ok=True)
        _remove_scraps(folder / name)
    missing = []
    for number in range(plan.shards):
        rows = _rows_there(folder, number)
        missing += [number] if rows is None else []
        for row in rows or ():
            done.count(row)
    done.resumed_songs = done.songs
    progress(done, "")
    tasks = _tasks(
        plan,
        {planned.position: planned for number in missing for planned in plan.shard(number) if not planned.failure},
        travels=engine != "local",
    )
    heard = parallel.over_songs(
        _hear,
        tasks,
        setup=functools.partial(Studio, plan.config, scores=plan.has_scores),
        jobs=jobs,
        ordered=True,
        timeout_seconds=plan.config.timeout_seconds,
        memory_mib=plan.config.memory_mib,
        engine=engine,
    )
    with contextlib.closing(heard):
        for number in missing:
            _write_shard(folder, number, plan.shard(number), heard, functools.partial(_told, done, progress))


# --- what was done, and is damaged since -----------------------------------------------------------------------------------------------


def _damaged(folder: Path) -> set[int]:
    """Numbers of the shards of a finished dataset that are not as they were written, or whose songs' sounds are gone.

    Raises
    ------
    ValueError
        If its index is damaged: that alone says what is in the shards.
    """
    description = describe((folder / DESCRIPTION).read_bytes(), where=str(folder))
    if not (folder / INDEX).exists() or _sha256(folder / INDEX) != description.index_sha256:
        raise ValueError(f"{folder}: its {INDEX} is damaged, and cannot be made again of the rest; remove {folder}, and build it anew")
    damaged = set()
    for number, shard in enumerate(description.shards):
        file = folder / str(shard["name"])
        if not file.is_file() or file.stat().st_size != shard["bytes"] or _sha256(file) != shard["sha256"]:
            damaged.add(number)
    return damaged | _without_sound(folder, description)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _without_sound(folder: Path, description: Description) -> set[int]:
    import pyarrow.parquet as pq

    kept = description.build["keep_audio"]
    if not kept:
        return set()
    rows = pq.read_table(folder / INDEX, columns=["song_id", "failure"]).to_pylist()
    return {
        position // description.build["shard_songs"]
        for position, row in enumerate(rows)
        if not row["failure"] and not (folder / AUDIO / f"{row['song_id']}.{kept}").is_file()
    }


def _reopen(folder: Path, plan: Plan, damaged: set[int]) -> None:
    """Make a finished dataset one whose build was broken off before these shards."""
    import pyarrow.parquet as pq

    described = describe((folder / DESCRIPTION).read_bytes(), where=str(folder)).shards
    index = pq.read_table(folder / INDEX)
    (folder / PARTS).mkdir(exist_ok=True)
    for number, shard in enumerate(described):
        if number not in damaged:
            rows = index.slice(number * plan.config.shard_songs, plan.config.shard_songs)
            _write_part(folder, number, rows, shard)
    for number in damaged:
        _part(folder, number).unlink(missing_ok=True)
    _mark_unfinished(folder, plan)  # last: killed before, it is still a dataset that is done and damaged


def _told(done: Progress, progress: Callable[[Progress, str], None], row: Mapping[str, Any]) -> None:
    done.count(row)
    progress(done, f"{row['path']}: {row['failure']}" if row["failure"] else "")


def _tasks(plan: Plan, wanted: Mapping[int, Planned], *, travels: bool) -> Iterator[Task]:
    """The wanted songs, read while their sources stream past once more; as bytes, if they travel to other machines."""
    last = max(wanted, default=-1)
    for position, found in enumerate(sources.find(plan.places) if wanted else ()):
        if position in wanted:
            yield _task(wanted[position], found, travels=travels)
        if position == last:
            return


def _task(planned: Planned, found: sources.Found, *, travels: bool) -> Task:
    try:
        content = found.content()
        content = content.read_bytes() if travels and isinstance(content, Path) else content
    except (ValueError, OSError) as error:
        return Task(planned.song_id, found.path, b"", _one_line(error))
    changed = isinstance(content, bytes) and recipes.song_id(content) != planned.song_id
    return Task(planned.song_id, found.path, content, "it changed while the dataset was built" if changed else "")


def _write_shard(
    folder: Path, number: int, songs: Sequence[Planned], heard: Iterator[tuple[Task, Any]], tell: Callable[[Mapping[str, Any]], None]
) -> None:
    name = f"{SHARDS}/{number:05d}.npz"
    rows = []
    with whole_file(folder / name) as temporary, temporary.open("wb") as file:
        writer = shards.ShardWriter(file)
        for planned in songs:
            row = _row(planned, None if planned.failure else _next(heard), name, writer, folder)
            rows.append(row)
            tell(row)
        writer.close()
    about = {"name": name, "songs": sum(not row["failure"] for row in rows), "bytes": writer.bytes, "sha256": writer.checksum}
    _write_rows(folder, number, rows, about)


def _next(heard: Iterator[tuple[Task, Any]]) -> tuple[Task, Any]:
    for answer in heard:
        return answer
    raise ValueError("the sources changed while the dataset was built; run the same command again")


def _row(planned: Planned, answer: tuple[Task, Any] | None, name: str, writer: shards.ShardWriter, folder: Path) -> dict[str, Any]:
    """The index's row of a song, which is added to the shard if it was heard."""
    row = planned.row()
    if answer is None:
        return row
    task, heard = answer
    assert task.song_id == planned.song_id
    if isinstance(heard, ValueError):
        return row | {"failure": _one_line(heard)}
    if heard.sound:
        _keep_sound(folder / AUDIO, planned.song_id, heard.sound)
    song = heard.encoded
    place = {"shard": name, "offset": writer.add(song), "bytes": len(song.data), "sizes": list(song.sizes), "checksum": song.checksum}
    return row | heard.about | {"frames": song.frames, "views": song.views} | place


def _keep_sound(folder: Path, song: str, sound: bytes) -> None:
    with whole_file(folder / f"{song}.{'flac' if sound[:4] == b'fLaC' else 'opus'}") as temporary:
        temporary.write_bytes(sound)


def _part(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:05d}.parquet"


def _write_rows(folder: Path, number: int, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    import pyarrow as pa

    _write_part(folder, number, pa.Table.from_pylist([_DEFAULTS | row for row in rows], schema=index_schema()), about)


def _write_part(folder: Path, number: int, table: Any, about: Mapping[str, Any]) -> None:
    import pyarrow.parquet as pq

    with whole_file(_part(folder, number)) as temporary:
        pq.write_table(table.replace_schema_metadata({"shard": json.dumps(about)}), temporary, compression="zstd")


_DEFAULTS: dict[str, Any] = {
    "group_id": "", "split": "", "kind": "", "seconds": 0.0, "whole_seconds": 0.0, "loudness_lufs": float("nan"), "peak": 0.0,
    "frames": 0, "views": 0, "shard": "", "offset": 0, "bytes": 0, "sizes": [], "checksum": "", "beats": [], "downbeats": [],
    "fingerprint": [], "warning": "", "failure": "",
}  # fmt: skip


def _rows_there(folder: Path, number: int) -> list[dict[str, Any]] | None:
    """Rows of a shard that is written, by what progress counts; None if it is not, or not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(_part(folder, number), columns=["seconds", "failure", "path"])
        about = json.loads(table.schema.metadata[b"shard"])
        whole = (folder / about["name"]).stat().st_size == about["bytes"]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    return table.to_pylist() if whole else None


def _remove_scraps(folder: Path) -> None:
    """What a killed build left half-written."""
    for path in folder.glob(".*.part"):
        path.unlink()


# --- the index -------------------------------------------------------------------------------------------------------------------------


def _write_index(folder: Path, plan: Plan) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    group_of = _groups(folder, plan)
    styles: set[str] = set()
    listed, failures = [], 0
    with whole_file(folder / INDEX) as temporary, pq.ParquetWriter(temporary, index_schema(), compression="zstd") as writer:
        for first in range(0, plan.shards, 64):  # 4096 rows at a time, however many there are
            tables = [pq.read_table(_part(folder, number)) for number in range(first, min(first + 64, plan.shards))]
            listed += [json.loads(table.schema.metadata[b"shard"]) for table in tables]
            rows = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).to_pylist()
            for row in rows:
                if not row["failure"]:
                    row["group_id"] = group_of[row["song_id"]]
                    row["split"] = recipes.split_of(row["group_id"])
                    styles.add(row["style"])
            failures += sum(bool(row["failure"]) for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=index_schema()))
    description = Description(
        features=asdict(FeatureConfig()),
        build=_lasting(plan.config),
        styles=tuple(sorted(styles)),
        songs=len(plan.songs) - failures,
        failures=failures,
        shards=tuple(listed),
        index_sha256=hashlib.sha256((folder / INDEX).read_bytes()).hexdigest(),
        plan=plan.digest,
        package_version=__version__,
    )
    _write_text(folder / DESCRIPTION, description.to_json())


def _groups(folder: Path, plan: Plan) -> dict[str, str]:
    import pyarrow.parquet as pq

    of_kind: dict[str, dict[str, list[int]]] = {"midi": {}, "audio": {}}
    songs = []
    for number in range(plan.shards):
        for row in pq.read_table(_part(folder, number), columns=["song_id", "kind", "fingerprint", "failure"]).to_pylist():
            if not row["failure"]:
                songs.append(row["song_id"])
                of_kind[row["kind"]][row["song_id"]] = row["fingerprint"]
    works = {planned.song_id: planned.found.group for planned in plan.songs if planned.found.group}
    return groups.group_ids(songs, of_kind["midi"], works, recordings=of_kind["audio"])


def _count_all(folder: Path, done: Progress) -> None:
    import pyarrow.parquet as pq

    for row in pq.read_table(folder / INDEX, columns=["seconds", "failure"]).to_pylist():
        done.count(row)
    done.resumed_songs = done.songs


def _tidy(folder: Path) -> None:
    """Take away what only the build needed. In this order: a folder without ``build.json`` is a dataset that is done."""
    (folder / UNFINISHED).unlink(missing_ok=True)
    _remove_scraps(folder)
    _remove_scraps(folder / SHARDS)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
