"""Where songs come from: folders, globs, archives and manifests, in any mixture, read as one stream of songs.

``find`` walks its sources in the order given and yields every song once, with what is known of it. Nothing is unpacked to disk: a member
of an archive is read while the archive streams past, so memory does not depend on the archive's size, and no name in it is ever used as a
path.

- A *folder* gives its files and archives, in order of name.
- An *archive* (``.tar``, ``.tar.xz``, ``.tar.gz``, ``.tar.bz2``, ``.zip``) gives its members, in the archive's order.
- A *manifest* (``.csv``, ``.parquet``) lists songs by ``path``, relative to itself: files, or members of the archive of the same name
  beside it. It may say ``style``, ``source``, ``licence``, ``title``, and ``group`` (an id shared by editions of one work).
- A manifest beside a folder or archive of its name (``audio.csv`` by ``audio/``), or at the top of a folder that is given, is read too.

A song's style is its manifest's, else the top folder it lies in. What cannot be read is no exception but a song with a ``problem``; only
what makes the whole list doubtful (a manifest without paths, two that disagree, an archive that unpacks to a hundred times its size) is
raised.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import hashlib
import lzma
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from stylestream.recipes import AUDIO_SUFFIXES, SCORE_SUFFIXES, csv_rows, group_of

SONG_SUFFIXES = frozenset((*SCORE_SUFFIXES, *AUDIO_SUFFIXES))
ARCHIVE_SUFFIXES = (".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")
MANIFEST_SUFFIXES = (".csv", ".parquet")
TRAINING_SUFFIX = ".safetensors.ckpt"  # of a folder in which a training keeps what it heard and painted
MAX_MEMBER_BYTES = 512 * 2**20  # of one song in an archive, which is held in memory; a file on disk is not
MAX_RATIO, MAX_UNPACKED_BYTES = 100, 2**30  # music in an archive is packed 1:10 at most; past both limits it is a bomb
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Found:
    """One song of the sources, not yet opened."""

    path: str  # as it is called below its source
    style: str
    source: str
    licence: str = NOT_STATED
    title: str = ""
    group: str = ""  # of the work, where the manifest knows it
    file: Path | None = None  # where it lies, if it is a file of its own
    problem: str = ""  # why it cannot be had
    member: Callable[[], bytes] | None = None  # of an archive: its bytes, to be asked for before the next song is

    def content(self) -> bytes | Path:
        """The bytes of a member or of a MIDI file; the path of a recording.

        Raises
        ------
        ValueError, OSError
            If it cannot be read.
        """
        if self.problem:
            raise ValueError(self.problem)
        if self.member is not None:
            return self.member()
        assert self.file is not None
        if self.file.suffix.lower() in SCORE_SUFFIXES and self.file.stat().st_size <= MAX_MEMBER_BYTES:
            return self.file.read_bytes()
        return self.file

    def song_id(self) -> str:
        """Id of its bytes; errors as in `content`."""
        content = self.content()
        if isinstance(content, bytes):
            return hashlib.sha256(content).hexdigest()[:16]
        with content.open("rb") as file:
            return file_id(file)


def file_id(file: IO[bytes]) -> str:
    """Id of a song that lies in an open file, read in blocks."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()[:16]


def find(sources: Sequence[str | Path]) -> Iterator[Found]:
    """Every song of the sources, once, in an order that depends on nothing but the sources.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    ValueError
        If a source is no folder, song, archive or manifest; a manifest has no paths; two manifests disagree; an archive is a bomb.
    """
    roots = [root for source in sources for root in _expand(str(source))]
    catalogue = Catalogue()
    for root in roots:
        for manifest in _manifests_of(root.path):
            catalogue.read(manifest)
    for root in roots:
        yield from _songs_of(root, catalogue)


@dataclass(frozen=True)
class _Root:
    """One source: a path, and where its style folders begin."""

    path: Path
    base: Path


def _expand(source: str) -> list[_Root]:
    source = os.path.expanduser(source)  # in quotes no shell does it
    path = Path(source)
    if path.exists():
        return [_Root(path, path if path.is_dir() else path.parent)]
    matches = sorted(glob.glob(source, recursive=True)) if glob.has_magic(source) else []
    if not matches:
        raise FileNotFoundError(
            f"no such file or folder: {_printable(source)}" + ("" if not glob.has_magic(source) else " (nothing matches)")
        )
    base = Path(*_fixed(path.parts))
    return [_Root(Path(match), base) for match in matches if Path(match).is_file() or not _below_others(match, matches)]


def _fixed(parts: tuple[str, ...]) -> list[str]:
    count = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return list(parts[:count])


def _below_others(folder: str, matches: list[str]) -> bool:
    """Whether a folder that ``**`` matched is walked anyway, or holds what is matched by itself."""
    return any(other != folder and (other.startswith(folder.rstrip("/") + "/")) for other in matches)


def _kind(path: Path) -> str:
    name = path.name.lower()
    if path.is_dir():
        return "folder"
    if name.endswith(ARCHIVE_SUFFIXES):
        return "archive"
    return "manifest" if name.endswith(MANIFEST_SUFFIXES) else "song"


def _songs_of(root: _Root, catalogue: Catalogue) -> Iterator[Found]:
    kind = _kind(root.path)
    if kind == "folder":
        yield from _folder(root, catalogue)
    elif kind == "archive":
        yield from _archive(root.path, catalogue)
    elif kind == "manifest":
        yield from _manifest(root.path, catalogue)
    else:
        yield from _file(root.path, root.base, catalogue)
    for manifest in _manifests_of(root.path, whole=True):
        yield from _unmet(manifest, catalogue)


# --- what is known of songs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    """A row of a manifest."""

    manifest: Path
    path: str
    style: str
    source: str
    licence: str
    title: str
    group: str


class Catalogue:
    """What manifests say, and which songs have been met. A song's key is its absolute path; a member's, as if it were unpacked there."""

    def __init__(self) -> None:
        self._listed: dict[str, _Listed] = {}
        self._manifests: dict[Path, list[str]] = {}
        self._met: set[str] = set()

    def read(self, manifest: Path) -> None:
        """Take in a manifest; ValueError if it is none, or disagrees with another."""
        real = Path(os.path.realpath(manifest))
        if real in self._manifests:
            return
        keys = self._manifests.setdefault(real, [])
        for row in _rows(manifest):
            key = os.path.normpath(real.parent / row.path)
            other = self._listed.setdefault(key, row)
            if (other.style, other.licence) != (row.style, row.licence):
                raise ValueError(_disagreement(other, row))
            keys.append(key)

    def keys(self, manifest: Path) -> list[str]:
        """Keys of a manifest's songs, in order."""
        return sorted(dict.fromkeys(self._manifests[Path(os.path.realpath(manifest))]))

    def __contains__(self, key: str) -> bool:
        return key in self._listed

    def met(self, key: str) -> bool:
        """Whether this song came before; from now on it did."""
        if key in self._met:
            return True
        self._met.add(key)
        return False

    def song(self, key: str, path: str, style: str, source: str) -> Found:
        """A song with what is known of it; path, style and source where nothing is."""
        row = self._listed.get(key)
        if row is None:
            return Found(_printable(path), _printable(style), _printable(source), group="")
        return Found(row.path, row.style or _printable(style), row.source or _printable(source), row.licence, row.title, row.group)


def _disagreement(one: _Listed, other: _Listed) -> str:
    what = "style" if one.style != other.style else "licence"
    who = "two rows of " + one.manifest.name if one.manifest == other.manifest else f"{one.manifest} and {other.manifest}"
    return f"{who} disagree on the {what} of {one.path}: {getattr(one, what)!r} and {getattr(other, what)!r}; correct one of them"


def _rows(manifest: Path) -> Iterator[_Listed]:
    rows = _csv_rows(manifest) if manifest.suffix.lower() == ".csv" else _parquet_rows(manifest)
    for row in rows:
        path = _text(row.get("path"))
        if path:
            generated = _text(row.get("generated")) in ("1", "true", "True")
            group = _text(row.get("group")) or group_of(path, generated=generated)
            licence = _text(row.get("licence")) or _text(row.get("license")) or NOT_STATED
            about = (_text(row.get("style")), _text(row.get("source")), licence, _text(row.get("title")))
            yield _Listed(manifest, path.removeprefix("./"), *about, "" if group == path else group)


def _text(value: Any) -> str:
    return "" if value is None else _printable(str(value)).strip()


def _printable(text: str) -> str:
    """Text that can be stored and shown: names come from strangers, and from file systems that know no encoding."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in whole)


def _csv_rows(manifest: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in csv_rows(manifest, lambda columns: _check_columns(manifest, columns)))


def _parquet_rows(manifest: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ValueError(f"{manifest}: reading Parquet needs pyarrow: pip install 'stylestream[train]'") from None
    try:
        with pq.ParquetFile(manifest) as file:
            _check_columns(manifest, file.schema_arrow.names)
            for batch in file.iter_batches(columns=[name for name in file.schema_arrow.names if name in (*_COLUMNS, "license")]):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"{manifest}: not a Parquet file that can be read ({' '.join(str(error).split())[:80]})") from None


_COLUMNS = ("path", "style", "source", "licence", "title", "group", "generated")


def _check_columns(manifest: Path, columns: Iterable[str]) -> None:
    there = {str(column) for column in columns}
    if "path" not in there:
        raise ValueError(f"{manifest}: a manifest needs a column `path`; it has {', '.join(sorted(there)) or 'none'}")
    missing = [name for name in ("style", "licence", "title") if name not in there and not (name == "licence" and "license" in there)]
    if missing:
        warnings.warn(f"{manifest}: no column {', '.join(missing)}; the folder's name is the style, the rest stays empty", stacklevel=2)


def _manifests_of(path: Path, *, whole: bool = False) -> list[Path]:
    """Manifests that speak of a source: itself; at its top, if it is a folder; beside it under its name, or its folder's.

    ``whole``: only those of which every song is asked for.
    """
    kind = _kind(path)
    if kind == "manifest":
        return [path]
    real = Path(os.path.realpath(path))
    inside = (
        [p for p in sorted(path.iterdir()) if p.name.lower().endswith(MANIFEST_SUFFIXES) and p.name[0] != "."] if kind == "folder" else []
    )
    named = {"folder": [real], "archive": [real.with_name(_stem(real))], "song": []}[kind]
    above = [] if whole else [*real.parents[:3]]
    beside = [place.with_name(place.name + suffix) for place in (*named, *above) if place.name for suffix in MANIFEST_SUFFIXES]
    return [p for p in (*inside, *beside) if p.is_file() and _lists_songs(p)]


def _lists_songs(table: Path) -> bool:
    """Whether a table that lies about is a manifest: one that is not is none of our business."""
    try:
        if table.suffix.lower() == ".csv":
            with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
                return "path" in next(csv.reader([lines.readline(1 << 16)]), [])
        import pyarrow.parquet as pq

        return "path" in pq.read_schema(table).names and "song_id" not in pq.read_schema(table).names  # an index of ours is no manifest
    except (OSError, ValueError, ModuleNotFoundError, csv.Error):
        return False


def _stem(path: Path) -> str:
    """Name of an archive without its suffixes."""
    suffix = max((s for s in ARCHIVE_SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(suffix)]


# --- files and folders -----------------------------------------------------------------------------------------------------------------


def _file(path: Path, base: Path, catalogue: Catalogue) -> Iterator[Found]:
    key = _key(path)
    if not catalogue.met(key):
        below = _below(path, base)
        yield replace(catalogue.song(key, below.as_posix(), _top(below, base), _name(base)), file=path, problem=_no_file(path))


def _key(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)


def _below(path: Path, base: Path) -> Path:
    try:
        return path.relative_to(base)
    except ValueError:
        return Path(path.name)


def _top(below: Path, base: Path) -> str:
    return below.parts[0] if len(below.parts) > 1 else _name(base)


def _name(folder: Path) -> str:
    return Path(os.path.realpath(folder)).name


def _no_file(path: Path) -> str:
    if path.is_file():
        return ""
    return "a link to nothing" if path.is_symlink() else "not a regular file" if path.exists() else "no such file"


def walk(folder: str | Path, suffixes: Collection[str], *, without: str | Path | None = None) -> Iterator[Path]:
    """Files below a folder whose names end in one of these, in order; nothing hidden, nothing that a training keeps for itself.

    Parameters
    ----------
    suffixes : collection of str
        In lower case.
    without : path, optional
        A folder that is passed over.
    """
    skip, endings = os.path.realpath(without) if without is not None else None, tuple(suffixes)

    def wanted(place: str, name: str) -> bool:
        hidden = name.startswith(".") or name.endswith(TRAINING_SUFFIX)
        return not hidden and (skip is None or os.path.realpath(os.path.join(place, name)) != skip)

    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if wanted(place, name))
        yield from (Path(place) / name for name in sorted(files) if not name.startswith(".") and name.lower().endswith(endings))


def _folder(root: _Root, catalogue: Catalogue) -> Iterator[Found]:
    for path in walk(root.path, (*SONG_SUFFIXES, *ARCHIVE_SUFFIXES)):
        if path.suffix.lower() in SONG_SUFFIXES:
            yield from _file(path, root.base, catalogue)
        else:
            yield from _archive(path, catalogue)


def _manifest(manifest: Path, catalogue: Catalogue) -> Iterator[Found]:
    folder = Path(os.path.realpath(manifest)).parent
    for key in catalogue.keys(manifest):
        if os.path.lexists(key):
            yield from _file(Path(key), folder, catalogue)
    for suffix in ARCHIVE_SUFFIXES:
        archive = folder / (manifest.name[: -len(manifest.suffix)] + suffix)
        if archive.is_file():
            yield from _archive(archive, catalogue, listed_only=True)


def _unmet(manifest: Path, catalogue: Catalogue) -> Iterator[Found]:
    """Songs of a manifest that are nowhere."""
    folder = Path(os.path.realpath(manifest)).parent
    for key in catalogue.keys(manifest):
        if os.path.lexists(key):
            yield from _file(Path(key), folder, catalogue)
        elif not catalogue.met(key):
            found = catalogue.song(key, key, "", manifest.name)
            yield replace(found, problem=f"no such file, though {_printable(manifest.name)} lists it")


# --- archives --------------------------------------------------------------------------------------------------------------------------


_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, NotImplementedError)


def _archive(archive: Path, catalogue: Catalogue, *, listed_only: bool = False) -> Iterator[Found]:
    """Songs of an archive; one more, with a problem, if it breaks off."""
    folder = Path(os.path.realpath(archive)).parent
    members = _zip_members(archive) if _is_zip(archive) else _tar_members(archive)
    try:
        for name, problem, read in members:
            clean = name.removeprefix("./")
            key = os.path.normpath(folder / clean) if not problem else f"{archive}:{name}"
            if (listed_only and not problem and key not in catalogue) or catalogue.met(key):
                continue
            below = Path(clean)
            found = catalogue.song(key, clean, _top(below, Path(_stem(archive))) if not problem else "", _stem(archive))
            yield replace(found, member=read, problem=problem)
    except _DAMAGE as error:
        why = f"the archive is cut short or damaged ({' '.join(str(error).split())[:80]}); what came before is used"
        yield Found(_printable(archive.name), "", _printable(_stem(archive)), problem=why)


def _is_zip(archive: Path) -> bool:
    """By how it begins: a tar whose last member is a zip ends as one."""
    with archive.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


_Member = tuple[str, str, Callable[[], bytes]]  # name, problem, its bytes


def _leads_out(name: str) -> bool:
    """Whether a member's name would leave the folder it is unpacked to, on any system."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or (len(name) > 1 and name[1] == ":") or "\0" in name


def _problem(name: str, size: int, *, plain: bool, link: bool) -> str:
    if _leads_out(name):
        return "its name leads out of the archive; refused"
    if link:
        return "a link, and only files are read from archives; refused"
    if not plain:
        return "not a regular file; refused"
    return f"larger than {MAX_MEMBER_BYTES // 2**20} MiB in an archive; unpack it" if size > MAX_MEMBER_BYTES else ""


def _is_song(name: str) -> bool:
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return os.path.splitext(base)[1].lower() in SONG_SUFFIXES and not base.startswith(".")


def _tar_members(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        stream = cast("IO[bytes]", _Counted(_unpacked(file), archive))
        with tarfile.open(fileobj=stream, mode="r|") as members:  # a stream: xz has no random access
            for member in members:
                if member.isdir() or not (_is_song(member.name) or _leads_out(member.name)):
                    continue
                problem = _problem(member.name, member.size, plain=member.isfile(), link=member.issym() or member.islnk())
                yield member.name, problem, lambda member=member: _read_tar(members, member)  # type: ignore[misc]


def _damaged(error: BaseException) -> ValueError:
    return ValueError(f"cut short or damaged in its archive ({' '.join(str(error).split())[:80]})")


def _read_tar(members: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        content = members.extractfile(member)
        data = content.read() if content else b""
    except _DAMAGE as error:
        raise _damaged(error) from None
    if len(data) < member.size:
        raise _damaged(EOFError("unexpected end"))
    return data


def _unpacked(file: IO[bytes]) -> Any:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(file)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    return bz2.BZ2File(file) if head.startswith(b"BZh") else file


class _Counted:
    """A stream that is read no further than an honest archive goes."""

    def __init__(self, stream: Any, archive: Path) -> None:
        self._stream, self._archive, self._bytes = stream, archive, 0
        self._limit = max(MAX_UNPACKED_BYTES, MAX_RATIO * archive.stat().st_size)

    def read(self, size: int) -> bytes:
        data = bytes(self._stream.read(size))
        self._bytes += len(data)
        if self._bytes > self._limit:
            raise ValueError(_bomb(self._archive))
        return data


def _bomb(archive: Path) -> str:
    return f"{archive}: unpacks to more than {MAX_RATIO} times its size: no music does; refused"


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as members:
        listed = members.infolist()
        unpacked = sum(info.file_size for info in listed)
        if unpacked > max(MAX_UNPACKED_BYTES, MAX_RATIO * archive.stat().st_size):
            raise ValueError(_bomb(archive))
        for info in listed:
            if info.is_dir() or not (_is_song(info.filename) or _leads_out(info.filename)):
                continue
            link = info.create_system == 3 and info.external_attr >> 28 == 0xA  # Unix, and its mode says so
            problem = _problem(info.filename, info.file_size, plain=True, link=link)
            problem = problem or ("encrypted; unpack it" if info.flag_bits & 1 else "")
            yield info.filename, problem, lambda info=info: _read_zip(members, info)  # type: ignore[misc]


def _read_zip(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with members.open(info) as file:
            return file.read(info.file_size + 1)  # its sizes may lie: no more than it says, and its checksum is looked at
    except (*_DAMAGE, RuntimeError) as error:  # a password is a RuntimeError
        raise _damaged(error) from None


def metadata(found: Found) -> Mapping[str, str]:
    """What the index says of a song before it is heard."""
    return {"style": found.style, "source": found.source, "licence": found.licence, "title": found.title, "path": found.path}
