"""Thousands of songs as frames on disk: what a dataset is, and how it is read.

A dataset is a folder: ``dataset.json`` (format, feature and build configuration, styles, the shards' checksums), ``index.parquet`` (one
row a song, failures included) and ``shards/*.npz`` (``shards.py``). ``docs/formats.md`` has every field, and how to read it without
StyleStream. ``builder.py`` makes datasets; this module reads them, from a folder or from any address that fsspec knows.

Conventions: a *song* is one row of the index, known by its ``song_id`` (a hash of its file) or by its place among the songs that did not
fail. View 0 is the song itself, views 1 to N are re-orchestrations of it, aligned. Frames on disk are uint8, (T, F), in steps of
``step_db`` above ``floor_db``; frames as the model sees them are float32, (F, T), about [0, 1].
"""

from __future__ import annotations

import functools
import json
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from stylestream import shards
from stylestream.corpus import (
    LEVELS,
    FrameStore,
    StoredSong,
)
from stylestream.recipes import (
    Split,
)
from stylestream.shards import CHUNK_FRAMES

if TYPE_CHECKING:
    from stylestream.features import FeatureConfig


FORMAT_VERSION = 1
DESCRIPTION, INDEX, SHARDS = "dataset.json", "index.parquet", "shards"
UNFINISHED = "build.json"  # there as long as a build is not done
STEP_DB = 1.0  # 0.25 dB mean error; 12 KB a second. 0.75 dB would be 0.19 dB and 13.5 KB: noisy songs would pass 14 KB


@dataclass(frozen=True)
class DatasetConfig:
    """What is made of every song. Two builds that differ here do not mix."""

    max_seconds: float = 0.0  # of a song at most, from its beginning; 0: all of it, up to two hours
    views: int = 0  # re-orchestrations of each score, aligned with it
    drums: bool = True  # of scores; `stylestream train` paints music without them
    soundfont: str = "fluidr3"
    songs: int = 0  # at most, chosen by their ids; 0: all
    keep_audio: str = ""  # flac or opus: what was transformed is kept, too
    timeout_seconds: float = 600.0  # of one song, then it is given up
    memory_mib: int = 4096  # that one song may take
    shard_songs: int = 64  # rows of the index for which one shard is made: what a killed build loses at most


@dataclass(frozen=True)
class Description:
    """What ``dataset.json`` says."""

    features: dict[str, Any]  # arguments of FeatureConfig
    build: dict[str, Any]  # arguments of DatasetConfig
    styles: tuple[str, ...]  # of the songs that did not fail, in order of name
    songs: int
    failures: int
    shards: tuple[dict[str, Any], ...]  # name, songs, bytes, sha256
    index_sha256: str = ""  # of index.parquet
    step_db: float = STEP_DB
    chunk_frames: int = CHUNK_FRAMES
    plan: str = ""  # digest of the songs and options it was built from
    format_version: int = FORMAT_VERSION
    package_version: str = ""

    def to_json(self) -> str:
        """Text of ``dataset.json``."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def describe(text: str | bytes, *, where: str = "the dataset") -> Description:
    """Read ``dataset.json``.

    Raises
    ------
    ValueError
        If it is not such a description, or of a newer format.
    """
    try:
        entries = json.loads(text)
        version = entries["format_version"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{where}: its {DESCRIPTION} is damaged or not StyleStream's; build it again") from None
    if not isinstance(version, int) or version != FORMAT_VERSION:
        remedy = "upgrade with pip install -U stylestream" if isinstance(version, int) and version > FORMAT_VERSION else "build it again"
        raise ValueError(f"{where}: a dataset of format {version!r}, and this StyleStream reads format {FORMAT_VERSION}; {remedy}")
    known = {f.name for f in fields(Description)}
    kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entries.items() if key in known}
    try:
        return Description(**kept)
    except TypeError as error:
        raise ValueError(f"{where}: its {DESCRIPTION} lacks something ({error}); build it again") from None


def index_schema() -> Any:
    """Columns of ``index.parquet``, a pyarrow schema."""
    import pyarrow as pa

    text, real = pa.string(), pa.float32()
    columns = {
        "song_id": text, "group_id": text, "style": text, "split": text, "source": text, "licence": text, "title": text, "path": text,
        "kind": text, "seconds": real, "whole_seconds": real, "loudness_lufs": real, "peak": real, "frames": pa.int32(),
        "views": pa.int8(), "shard": text, "offset": pa.int64(), "bytes": pa.int64(), "sizes": pa.list_(pa.int32()), "checksum": text,
        "beats": pa.list_(real), "downbeats": pa.list_(real), "fingerprint": pa.list_(pa.int64()), "warning": text, "failure": text,
    }  # fmt: skip
    return pa.schema(list(columns.items()))


# --- where the bytes lie ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Folder:
    """Files of a local folder, kept open: byte ranges by name."""

    root: str
    _open: OrderedDict[str, int] = field(default_factory=OrderedDict)
    MAX_OPEN = 200

    def read(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    def read_range(self, name: str, start: int, size: int) -> bytes:
        if name not in self._open:
            if len(self._open) >= self.MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(os.path.join(self.root, name), os.O_RDONLY)
        self._open.move_to_end(name)
        return os.pread(self._open[name], size, start)

    def exists(self, name: str) -> bool:
        return Path(self.root, name).exists()

    def size(self, name: str) -> int:
        return Path(self.root, name).stat().st_size

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(os.path.join(self.root, folder))) if self.exists(folder) else []

    def open(self, name: str) -> BinaryIO:
        return Path(self.root, name).open("rb")

    def __getstate__(self) -> dict[str, Any]:  # a worker opens its own
        return {"root": self.root, "_open": OrderedDict()}

    def __del__(self) -> None:
        for handle in self._open.values():
            os.close(handle)


class _Remote:
    """Files at an address that fsspec knows: byte ranges by name."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ModuleNotFoundError:
            raise ValueError(f"{url}: reading from an address needs fsspec: pip install 'stylestream[train]'") from None
        self.system, self.root = fsspec.core.url_to_fs(url)

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        return bytes(self.system.cat_file(self._at(name)))

    def read_range(self, name: str, start: int, size: int) -> bytes:
        return bytes(self.system.cat_file(self._at(name), start=start, end=start + size))

    def exists(self, name: str) -> bool:
        return bool(self.system.exists(self._at(name)))

    def size(self, name: str) -> int:
        return int(self.system.size(self._at(name)))

    def names(self, folder: str) -> list[str]:
        there = self.system.ls(self._at(folder), detail=False) if self.exists(folder) else []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in there)

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.system.open(self._at(name), "rb"))


# --- the reader ------------------------------------------------------------------------------------------------------------------------


class Dataset:
    """A built dataset, open for reading. Can be pickled: a loader's workers open it anew.

    Parameters
    ----------
    location : path or str
        Its folder, or an address that fsspec knows (``s3://…``, ``memory://…``, ``simplecache::https://…``).

    Attributes
    ----------
    files
        Where its bytes lie, by name: ``read``, ``read_range``, ``size``, ``names``, ``exists``, ``open``.
    description : Description
    index : pyarrow.Table
        All rows, failures included.
    songs : pyarrow.Table
        The rows of the songs that are there, in the order of the index.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no dataset, or only the beginning of one, or one of another format.

    Examples
    --------
    >>> data = Dataset("music/")                                              # doctest: +SKIP
    >>> x = data.read("0a1b2c3d4e5f6071", 128, 64)     # (324, 64)            # doctest: +SKIP
    """

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        self.files: _Folder | _Remote = _Remote(self.location) if "://" in self.location else _Folder(self.location)
        self._check_there()
        self.description = describe(self.files.read(DESCRIPTION), where=self.location)
        self.index = self._read_index()
        self._prepare()

    def _check_there(self) -> None:
        if self.files.exists(UNFINISHED):
            raise ValueError(f"{self.location}: a dataset that is not finished; run its `stylestream dataset build` again")
        if not self.files.exists(DESCRIPTION):
            raise FileNotFoundError(f"{self.location}: no dataset there; make one with `stylestream dataset build SOURCE -o DATA`")

    def _read_index(self) -> Any:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ModuleNotFoundError:
            raise ValueError("reading a dataset needs pyarrow: pip install 'stylestream[train]'") from None
        content = self.files.read(INDEX)
        try:
            table = pq.read_table(pa.BufferReader(content)).select(index_schema().names).cast(index_schema())
        except (pa.ArrowException, OSError, KeyError) as error:  # Arrow's reader has OSErrors of its own
            raise ValueError(f"{self.location}: its {INDEX} is damaged ({' '.join(str(error).split())[:80]}); build it again") from None
        if holes := [name for name in table.column_names if table[name].null_count]:
            raise ValueError(f"{self.location}: its {INDEX} is damaged (no value in {', '.join(holes)}); build it again")
        return table

    def _prepare(self) -> None:
        """Plain arrays of what a read needs: a look-up in a table takes longer than the read."""
        import pyarrow.compute as pc

        self.songs = self.index.filter(pc.equal(self.index["failure"], "")).combine_chunks()
        column = {name: self.songs[name].to_numpy() for name in ("frames", "views", "offset")}
        self._frames, self._views, self._offset = (column[name].astype(np.int64) for name in ("frames", "views", "offset"))
        shard = self.songs["shard"].dictionary_encode().combine_chunks()
        self._shard, self._shard_names = shard.indices.to_numpy(), shard.dictionary.to_pylist()
        sizes = self.songs["sizes"].combine_chunks()
        self._first_size = sizes.offsets.to_numpy()
        self._size = sizes.values.to_numpy()
        self._begin = np.concatenate([[0], np.cumsum(self._size + shards.MEMBER_OVERHEAD, dtype=np.int64)])  # as if in one file
        self._rows = {song: row for row, song in enumerate(self.songs["song_id"].to_pylist())}

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["location"])  # type: ignore[misc]

    def __len__(self) -> int:
        """How many songs are there."""
        return len(self._frames)

    def __repr__(self) -> str:
        return f"Dataset({self.location!r}: {len(self)} songs of {len(self.description.styles)} styles)"

    @functools.cached_property
    def features(self) -> FeatureConfig:
        """What a frame is."""
        from stylestream.features import FeatureConfig

        return FeatureConfig(**self.description.features)

    def row(self, song: str | int) -> int:
        """A song's place among the songs; ValueError if there is none of this id."""
        if isinstance(song, str):
            if song not in self._rows:
                raise ValueError(f"{self.location}: no song {song!r}")
            return self._rows[song]
        if not 0 <= song < len(self):
            raise ValueError(f"{self.location}: no song {song}; there are {len(self)}")
        return int(song)

    def frames(self, song: str | int) -> int:
        """How many frames a song has."""
        return int(self._frames[self.row(song)])

    def views(self, song: str | int) -> int:
        """How many views are stored beside a song."""
        return int(self._views[self.row(song)])

    def read_levels(self, song: str | int, first: int = 0, count: int | None = None, *, view: int = 0) -> shards.Array:
        """Frames as they are stored: (count, F) uint8, in steps of ``description.step_db`` above the floor. Arguments as in `read`."""
        row = self.row(song)
        total = int(self._frames[row])
        count = total - first if count is None else count
        if min(first, count) < 0 or first + count > total:
            raise ValueError(f"frames {first} to {first + count} of a song that has {total}")
        if not 0 <= view <= self._views[row]:
            raise ValueError(f"view {view} of a song that has {self._views[row]} beside itself (view 0)")
        if count == 0:
            return np.zeros((0, self.features.n_bins), np.uint8)
        a, b = first // CHUNK_FRAMES, shards.chunks_of(first + count)
        levels = self._chunks(row, view * shards.chunks_of(total) + a, b - a, first + count - a * CHUNK_FRAMES)
        return levels[first - a * CHUNK_FRAMES :]

    def _chunks(self, row: int, first: int, count: int, frames: int) -> shards.Array:
        """The first frames of so many members of a song from the given one on, read at once."""
        base = self._first_size[row]
        begin = self._begin[base + first] - self._begin[base]
        size = self._begin[base + first + count] - self._begin[base + first]
        name = self._shard_names[self._shard[row]]
        data = self.files.read_range(name, int(self._offset[row] + begin), int(size))
        try:
            sizes = self._size[base + first : base + first + count].tolist()
            return shards.decode(data, sizes, bins=self.features.n_bins, frames=frames)
        except ValueError as error:
            song = self.songs["song_id"][row].as_py()
            raise ValueError(f"{self.location}: {name}, song {song}: {error}; see `stylestream dataset verify`") from None

    def read(self, song: str | int, first: int = 0, count: int | None = None, *, view: int = 0) -> shards.Array:
        """Frames of a song, or of a crop of it.

        Parameters
        ----------
        song : str or int
            Its id, or its place among the songs.
        first, count : int
            The crop; to the end where ``count`` is not given. Only what it needs is read.
        view : int
            0: the song; 1 to `views`: a re-orchestration of the same passage.

        Returns
        -------
        ndarray [shape=(F, count), float32, about [0, 1]]

        Raises
        ------
        ValueError
            If there is no such song, view or passage, or its bytes are damaged.
        """
        levels = self.read_levels(song, first, count, view=view)
        return levels.T * np.float32(self.description.step_db / -self.features.floor_db)

    def phase(self, song: str | int, first: int = 0, count: int | None = None) -> shards.Array:
        """Beat and bar phase (``rhythm.phase``) of a song or a crop of it: (4, count) float32, zeros where no beats are known."""
        from stylestream import rhythm

        row = self.row(song)
        beats, downbeats = (np.array(self.songs[name][row].as_py(), np.float64) for name in ("beats", "downbeats"))
        frames, rate = int(self._frames[row]) - first if count is None else count, self.features.frames_per_second
        return np.asarray(rhythm.phase(beats, downbeats, frames=frames, frames_per_second=rate, first_frame=first), np.float32)

    def frame_store(
        self, styles: Sequence[str] | None = None, *, split: Split = "train", device: str = "cpu", only: Collection[str] | None = None
    ) -> FrameStore:
        """The songs of a split in one tensor on a device, with their views: what a training draws its batches from.

        Parameters
        ----------
        only : collection of song ids, optional
            The others are left out.

        Raises
        ------
        ValueError
            If the dataset has no such song.
        """
        styles = self.description.styles if styles is None else styles
        songs = (song for song in self._stored(styles, split) if only is None or song.name in only)
        return FrameStore.of(songs, styles, split=split, device=device)

    def _stored(self, styles: Sequence[str], split: Split) -> Iterator[StoredSong]:
        listed = zip(*(self.songs[name].to_pylist() for name in ("song_id", "style", "split")), strict=True)
        for row, (song, style, own_split) in enumerate(listed):
            if style in styles and own_split == split:
                shape = self.views(row) + 1, self.frames(row), self.features.n_bins
                yield StoredSong(song, style, shape, functools.partial(self._levels_and_phase, row))

    def _levels_and_phase(self, row: int) -> tuple[shards.Array, shards.Array]:
        """As a `FrameStore` holds them."""
        scale = LEVELS * self.description.step_db / -self.features.floor_db
        table = np.clip(np.rint(np.arange(256) * scale), 0, 255).astype(np.uint8)
        roles = np.stack([self.read_levels(row, view=view) for view in range(self.views(row) + 1)])
        return table[roles], np.rint(self.phase(row).T * 127).astype(np.int8)
