"""What is in a dataset, and whether it is whole: totals and histograms for people, and every byte read for certainty.

``summarise`` reads the index alone. ``verify`` reads everything: the shards' checksums and each song's, every member's name, size and
shape, the directories that other programs read, and what the index promises of groups and splits. A *fault* is one thing that is not as
the format says, with the shard and the song it is in.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import shards
from stylestream.dataset import INDEX, SHARDS, Dataset
from stylestream.recipes import split_of

Array = NDArray[Any]

SPLITS = ("train", "valid", "test")
LENGTH_EDGES = (0, 5, 10, 20, 30, 60, 90, 120, 180, 240, 360, 600, 1200, 3600)  # seconds; the last bin is open
LEVEL_EDGES = tuple(range(-60, 1, 3))  # LUFS


# --- what is in it -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """Some of a dataset's songs."""

    songs: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """A dataset in numbers, from its index."""

    location: str
    songs: int
    failed: int
    seconds: float
    bytes: int  # of all shards
    groups: int
    repeated: int  # songs whose group has others
    warnings: int  # songs with something wrong that was survived
    views: Mapping[int, int]  # stored beside a song → songs
    stored_seconds: float  # of songs and views
    styles: Mapping[str, Mapping[str, Share]]  # style → split → songs
    licences: Mapping[str, Share]
    sources: Mapping[str, Share]
    kinds: Mapping[str, Share]
    splits: Mapping[str, Share]
    failures: Mapping[str, int]  # reason, its numbers left out → songs, the most frequent first
    length_histogram: tuple[int, ...]  # songs between LENGTH_EDGES
    level_histogram: tuple[int, ...]  # songs between LEVEL_EDGES, what lies outside in the first and last
    format_version: int
    package_version: str

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self) | {"length_edges_seconds": LENGTH_EDGES, "level_edges_lufs": LEVEL_EDGES}


def summarise(data: Dataset) -> Summary:
    """Count what is in a dataset; nothing but its index is read."""
    import pyarrow.compute as pc

    column = {
        name: data.songs[name].to_pylist() for name in ("style", "split", "licence", "source", "kind", "group_id", "views", "warning")
    }
    seconds = data.songs["seconds"].to_numpy().astype(np.float64)
    group_sizes = Counter(column["group_id"])
    by_style = {
        style: _shares([split for split, own in zip(column["split"], column["style"], strict=True) if own == style], part)
        for style in sorted(set(column["style"]))
        for part in [seconds[[own == style for own in column["style"]]]]
    }
    failures = data.index.filter(pc.not_equal(data.index["failure"], ""))["failure"].to_pylist()
    description = data.description
    return Summary(
        location=data.location,
        songs=len(data),
        failed=len(failures),
        seconds=round(float(seconds.sum()), 2),
        bytes=sum(int(shard["bytes"]) for shard in description.shards),
        groups=len(group_sizes),
        repeated=sum(count for count in group_sizes.values() if count > 1),
        warnings=sum(bool(warning) for warning in column["warning"]),
        views=dict(sorted(Counter(column["views"]).items())),
        stored_seconds=round(float((seconds * (1 + np.array(column["views"], np.float64))).sum()), 2),
        styles=by_style,
        **{name + "s": _shares(column[name], seconds) for name in ("licence", "source", "kind", "split")},
        failures=dict(Counter(map(_kind_of_failure, failures)).most_common()),
        length_histogram=_histogram(seconds, LENGTH_EDGES),
        level_histogram=_histogram(data.songs["loudness_lufs"].to_numpy().astype(np.float64), LEVEL_EDGES),
        format_version=description.format_version,
        package_version=description.package_version,
    )


def _shares(names: Sequence[str], seconds: Array) -> dict[str, Share]:
    """Songs and seconds of each name, the longest first."""
    counts = Counter(names)
    total: dict[str, float] = dict.fromkeys(counts, 0.0)
    for name, length in zip(names, seconds.tolist(), strict=True):
        total[name] += length
    return {name: Share(counts[name], round(length, 2)) for name, length in sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))}


def _histogram(values: Array, edges: Sequence[float]) -> tuple[int, ...]:
    """How many values lie between the edges; below the first or above the last, or not known, they count in the outer bins."""
    inside = np.clip(np.searchsorted(edges, np.nan_to_num(values, nan=edges[0]), side="right") - 1, 0, len(edges) - 1)
    return tuple(np.bincount(inside, minlength=len(edges)).tolist())


def _kind_of_failure(reason: str) -> str:
    """A reason without its numbers and names, so that reasons can be counted.

    >>> _kind_of_failure("the same bytes as rock/a b.mid"), _kind_of_failure("3.2 s long; at least 4 s are needed")
    ('the same bytes as …', '… s long; at least … s are needed')
    """
    text = re.sub(r"the same bytes as .*", "the same bytes as …", reason)
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*", "…", text)
    return re.sub(r"\b\d[\d.,]*", "…", text).removeprefix("… is ").removeprefix("…: ")


def mean_spectra(data: Dataset, *, songs: int = 12, crop_frames: int = 256) -> dict[str, Array]:
    """Mean frame (F,) float32 of each style, about [0, 1], of the middles of a few songs."""
    spectra = {}
    styles = np.array(data.songs["style"].to_pylist(), dtype=object)
    for style in sorted(set(styles.tolist())):
        rows = np.flatnonzero(styles == style)
        chosen = rows[np.linspace(0, len(rows) - 1, min(songs, len(rows))).astype(int)]
        spectra[style] = np.mean([_middle(data, int(row), crop_frames) for row in chosen], axis=0)
    return spectra


def draw(data: Dataset, path: str | Path) -> None:
    """One picture of a dataset: hours, lengths, levels, and the mean spectrum of each style."""
    from stylestream import plots

    summary = summarise(data)
    plots.plot_dataset(
        path,
        title=f"{Path(summary.location).name}: {summary.songs:,} songs, {_hours(summary.seconds)}, {_bytes(summary.bytes)}",
        hours={style: {split: share.seconds / 3600 for split, share in parts.items()} for style, parts in summary.styles.items()},
        lengths=(LENGTH_EDGES, summary.length_histogram),
        levels=(LEVEL_EDGES, summary.level_histogram),
        spectra=mean_spectra(data),
        config=data.features,
    )


def _middle(data: Dataset, song: int, crop_frames: int) -> Array:
    count = min(crop_frames, data.frames(song))
    return data.read(song, (data.frames(song) - count) // 2, count).mean(axis=1)


def summary_lines(summary: Summary) -> Iterator[str]:
    """A summary as text."""
    yield f"{summary.location}: {summary.songs:,} songs, {_hours(summary.seconds)}, {summary.failed:,} that failed"
    rate = summary.bytes / summary.stored_seconds / 1000 if summary.stored_seconds else 0.0
    maker = f", made by StyleStream {summary.package_version}" if summary.package_version else ""
    yield f"{_bytes(summary.bytes)}, {rate:.1f} KB a second of each song and view, format {summary.format_version}{maker}"
    views = ", ".join(f"{count:,} with {number} view{'' if number == 1 else 's'}" for number, count in summary.views.items())
    yield f"{summary.groups:,} pieces, {summary.repeated:,} songs are versions of a piece that has others; {views}"
    if summary.warnings:
        yield f"{summary.warnings:,} songs are there with a warning (column `warning` of the index)"
    yield from _style_table(summary)
    for title, shares in (("licence", summary.licences), ("source", summary.sources), ("kind", summary.kinds)):
        yield ""
        yield from _share_table(title, shares)
    yield ""
    yield from _bars("length", [f"{low} s" for low in LENGTH_EDGES], summary.length_histogram)
    yield ""
    yield from _bars("level", [f"{low} LUFS" for low in LEVEL_EDGES], summary.level_histogram)
    if summary.failures:
        yield ""
        yield "failed because"
        for reason, count in summary.failures.items():
            yield f"  {count:7,}  {reason}"


def _style_table(summary: Summary) -> Iterator[str]:
    width = max([len("style"), *(len(style) for style in summary.styles)])
    yield ""
    yield f"{'style':{width}}  {'songs':>7}  {'hours':>7}  " + "  ".join(f"{split:>6}" for split in SPLITS)
    totals = {style: sum(share.seconds for share in parts.values()) for style, parts in summary.styles.items()}
    for style, seconds in sorted(totals.items(), key=lambda pair: -pair[1]):
        parts = summary.styles[style]
        counts = "  ".join(f"{parts[split].songs if split in parts else 0:6,}" for split in SPLITS)
        yield f"{style or '(none)':{width}}  {sum(share.songs for share in parts.values()):7,}  {seconds / 3600:7.2f}  {counts}"


def _share_table(title: str, shares: Mapping[str, Share]) -> Iterator[str]:
    width = max([len(title), *(len(name) for name in shares)])
    yield f"{title:{width}}  {'songs':>7}  {'hours':>7}"
    for name, share in shares.items():
        yield f"{name or '(not known)':{width}}  {share.songs:7,}  {share.seconds / 3600:7.2f}"


def _bars(title: str, labels: Sequence[str], counts: Sequence[int], *, width: int = 40) -> Iterator[str]:
    """A histogram, from the first bin that has any to the last."""
    yield f"{title}, from"
    there = [index for index, count in enumerate(counts) if count]
    for index in range(there[0], there[-1] + 1) if there else ():
        yield f"  {labels[index]:>9}  {'█' * round(width * counts[index] / max(counts)):{width}}  {counts[index]:,}"


def _hours(seconds: float) -> str:
    """Format a total length.

    >>> _hours(90), _hours(7200)
    ('1.5 minutes', '2.00 hours')
    """
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.2f} hours"


def _bytes(count: int) -> str:
    """Format a size.

    >>> _bytes(12_300_000_000), _bytes(900_000)
    ('12.3 GB', '0.9 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# --- whether it is whole -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Something that is not as the format says."""

    text: str
    shard: str = ""
    song: str = ""  # its id
    path: str = ""  # what it was called where it came from

    def __str__(self) -> str:
        song = f"song {self.song}" + (f" ({self.path})" if self.path else "") if self.song else ""
        return ": ".join(filter(None, [", ".join(filter(None, [self.shard, song])), self.text]))


@dataclass(frozen=True)
class _ShardTask:
    """A shard as dataset.json has it, and its songs as the index has them."""

    about: dict[str, Any]
    songs: tuple[dict[str, Any], ...] = field(repr=False)


_COLUMNS = ("song_id", "path", "shard", "offset", "bytes", "checksum", "frames", "views", "sizes")


def verify(data: Dataset, *, jobs: int = 1, progress: Callable[[int, int, str], None] = lambda done, total, name: None) -> Iterator[Fault]:
    """Read every byte of a dataset and yield what is not as it should be.

    Parameters
    ----------
    jobs : int
        Processes; with 1 everything is read in this one, as it must be for addresses that only this process knows (``memory://``).
    progress : function of (shards done, shards, name)
    """
    yield from index_faults(data)
    tasks = _shard_tasks(data)
    for done, (task, faults) in enumerate(_checked(data, tasks, jobs), 1):
        yield from [Fault(str(faults), task.about["name"])] if isinstance(faults, ValueError) else faults
        progress(done, len(tasks), task.about["name"])
    yield from _strangers(data)


def _checked(data: Dataset, tasks: Sequence[_ShardTask], jobs: int) -> Iterator[tuple[_ShardTask, list[Fault] | ValueError]]:
    import functools

    from stylestream import parallel

    if jobs == 1 or len(tasks) < 2:
        return ((task, _shard_faults(data, task)) for task in tasks)
    return parallel.over_songs(_shard_faults, tasks, setup=functools.partial(Dataset, data.location), jobs=min(jobs, len(tasks)))


def _shard_tasks(data: Dataset) -> list[_ShardTask]:
    by_shard: dict[str, list[dict[str, Any]]] = {str(about["name"]): [] for about in data.description.shards}
    for row in data.songs.select(_COLUMNS).to_pylist():
        by_shard.get(row["shard"], []).append(row)  # a song of an unknown shard is a fault of the index
    return [_ShardTask(dict(about), tuple(by_shard[str(about["name"])])) for about in data.description.shards]


# --- the index


def index_faults(data: Dataset) -> Iterator[Fault]:
    """What is wrong with the index itself: rows that contradict the format, dataset.json or each other."""
    if data.description.index_sha256 and hashlib.sha256(data.files.read(INDEX)).hexdigest() != data.description.index_sha256:
        yield Fault("bytes of index.parquet are not those that were written (checksum)")
    promised, there = (data.description.songs, data.description.failures), (len(data), len(data.index) - len(data))
    if promised != there:
        yield Fault(f"dataset.json has {promised[0]} songs and {promised[1]} failures, the index {there[0]} and {there[1]}")
    names = [name for name in data.index.schema.names if name not in ("beats", "downbeats", "fingerprint")]
    rows = data.songs.select(names).to_pylist()
    if {row["style"] for row in rows} != set(data.description.styles):
        yield Fault("dataset.json and the index name different styles")
    counted = Counter(row["song_id"] for row in rows)
    known = {str(about["name"]) for about in data.description.shards}
    for row in rows:
        for text in _row_faults(row, data, known):
            yield Fault(text, row["shard"], row["song_id"], row["path"])
        if counted[row["song_id"]] > 1:
            yield Fault(f"its id is in the index {counted[row['song_id']]} times", row["shard"], row["song_id"], row["path"])
    yield from _split_faults(rows)


def _row_faults(row: Mapping[str, Any], data: Dataset, known: set[str]) -> Iterator[str]:
    members = (1 + row["views"]) * shards.chunks_of(max(row["frames"], 0))
    if not re.fullmatch(r"[0-9a-f]{16}", row["song_id"]):
        yield "its id is not 16 hexadecimal digits"
    if row["shard"] not in known:
        yield "its shard is not one of dataset.json's"
    if row["frames"] < 1 or not 0 <= row["views"] <= shards.MAX_VIEWS:
        yield f"it has {row['frames']} frames and {row['views']} views"
    elif len(row["sizes"]) != members:
        yield f"the index has {len(row['sizes'])} members of it; its frames and views need {members}"
    elif row["bytes"] != sum(row["sizes"]) + members * shards.MEMBER_OVERHEAD:
        yield "its bytes in the index are not the sum of its members'"
    if abs(row["seconds"] * data.features.frames_per_second - row["frames"]) > 2:
        yield f"{row['seconds']:.2f} s are not {row['frames']} frames"


def _split_faults(rows: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """No group lies in two splits, and each lies where its hash says."""
    splits: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        splits.setdefault(row["group_id"], {})[row["split"]] = row
    for group, found in splits.items():
        row = next(iter(found.values()))
        if len(found) > 1:
            songs = ", ".join(f"{other['song_id']} in {split or 'none'}" for split, other in sorted(found.items()))
            yield Fault(f"its group {group} is in {len(found)} splits ({songs})", row["shard"], row["song_id"], row["path"])
        elif not group or row["split"] != split_of(group):
            text = f"it is in the split {row['split']!r}; its group {group!r} belongs to {split_of(group)}"
            yield Fault(text, row["shard"], row["song_id"], row["path"])


# --- a shard


def _shard_faults(data: Dataset, task: _ShardTask) -> list[Fault]:
    name = str(task.about["name"])
    try:
        size = data.files.size(name)
    except OSError:
        return [Fault("the file is missing", name)]
    faults = [Fault(text, name) for text in _shard_promises(task, size)]
    whole, of_songs = _read_through(data, name, size, sorted(task.songs, key=lambda row: row["offset"]))
    if whole != task.about["sha256"] and not of_songs and not faults:
        faults.append(Fault("bytes of its directory, or between its songs, are not those that were written (checksum)", name))
    return [*faults, *of_songs] or _directory_faults(data, name, task.songs)


def _shard_promises(task: _ShardTask, size: int) -> Iterator[str]:
    promised = int(task.about["bytes"])
    if len(task.songs) != task.about["songs"]:
        yield f"dataset.json has {task.about['songs']} songs in it, the index {len(task.songs)}"
    if size != promised:
        yield f"it has {size:,} bytes and {promised:,} were written" + (": half-written, or cut short by a copy" if size < promised else "")


def _read_through(data: Dataset, name: str, size: int, songs: Sequence[Mapping[str, Any]]) -> tuple[str, list[Fault]]:
    """A shard's checksum, and what is wrong with its songs, in one pass."""
    digest, position, faults = hashlib.sha256(), 0, []
    for row in songs:
        about = name, row["song_id"], row["path"]
        if row["offset"] < position:
            faults.append(Fault("the index has it overlap the song before", *about))
            continue
        if row["bytes"] < 0 or row["offset"] + row["bytes"] > size:
            faults.append(Fault(f"only {max(size - row['offset'], 0):,} of its {row['bytes']:,} bytes are there", *about))
            continue
        digest.update(data.files.read_range(name, position, row["offset"] - position))
        content = data.files.read_range(name, row["offset"], row["bytes"])
        digest.update(content)
        position = row["offset"] + row["bytes"]
        if text := _song_fault(content, row, data.features.n_bins):
            faults.append(Fault(text, *about))
    for start in range(position, size, 1 << 24):
        digest.update(data.files.read_range(name, start, min(1 << 24, size - start)))
    return digest.hexdigest(), faults


def _song_fault(content: bytes, row: Mapping[str, Any], bins: int) -> str:
    """What is wrong with a song's bytes; empty if nothing is."""
    damaged = hashlib.sha256(content).hexdigest() != row["checksum"]
    place, start = "", 0
    chunks = shards.chunks_of(row["frames"])
    for index, size in enumerate(row["sizes"]):
        view, chunk = divmod(index, max(chunks, 1))
        rows = min(shards.CHUNK_FRAMES, row["frames"] - chunk * shards.CHUNK_FRAMES)
        member = content[start : start + shards.MEMBER_OVERHEAD + size]
        start += len(member)
        if text := _member_fault(member, shards.member_name(row["song_id"], view, chunk), rows, bins):
            place = f"; view {view}, frames from {chunk * shards.CHUNK_FRAMES}: {text}"
            break
    return "its bytes are not those that were written (checksum)" + place if damaged else place[2:]


def _member_fault(member: bytes, name: str, rows: int, bins: int) -> str:
    if len(member) < shards.MEMBER_OVERHEAD:
        return "it ends within a header"
    signature, crc, size, raw_size, length = struct.unpack("<4s10x3LH2x", member[:30])
    if signature != b"PK\3\4" or member[30 : 30 + length] != name.encode():
        return f"its header does not name {name}"
    inflate = zlib.decompressobj(-15)
    try:
        raw = inflate.decompress(member[shards.MEMBER_OVERHEAD :], rows * bins + 1024)
    except zlib.error as error:
        return f"it cannot be unpacked ({error})"
    if not inflate.eof or len(raw) != raw_size or size != len(member) - shards.MEMBER_OVERHEAD or zlib.crc32(raw) != crc:
        return "its checksum or size is wrong"
    try:
        frames = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return "it is no NumPy array"
    return (
        ""
        if (frames.shape, frames.dtype) == ((rows, bins), np.uint8)
        else f"shape {frames.shape} {frames.dtype}, not ({rows}, {bins}) uint8"
    )


def _directory_faults(data: Dataset, name: str, songs: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """What other programs would not find: a shard's directory, as Python's own zipfile reads it, beside the index."""
    expected = {}
    for row in songs:
        place, chunks = row["offset"], shards.chunks_of(row["frames"])
        for index, size in enumerate(row["sizes"]):
            expected[shards.member_name(row["song_id"], *divmod(index, max(chunks, 1)))] = place, size
            place += shards.MEMBER_OVERHEAD + size
    try:
        with data.files.open(name) as file, zipfile.ZipFile(file) as archive:
            listed = {member.filename: (member.header_offset, member.compress_size) for member in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        return [Fault(f"its directory cannot be read ({error})", name)]
    return [] if listed == expected else [Fault("its directory and the index have different members", name)]


def _strangers(data: Dataset) -> Iterator[Fault]:
    """Files where the shards lie that belong to none: left by a copy that broke off, or by somebody else."""
    known = {Path(str(about["name"])).name for about in data.description.shards}
    for name in sorted(set(data.files.names(SHARDS)) - known):
        yield Fault("no shard of this dataset; remove it", f"{SHARDS}/{name}")
    if kept := str(data.description.build.get("keep_audio", "")):
        there = set(data.files.names("audio"))
        for song, path in zip(data.songs["song_id"].to_pylist(), data.songs["path"].to_pylist(), strict=True):
            if f"{song}.{kept}" not in there:
                yield Fault(f"its sound (audio/{song}.{kept}) is missing", song=song, path=path)
