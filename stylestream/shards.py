"""Frames of songs in one file: a NumPy archive (``.npz``), written whole or not at all, read anywhere.

A shard is an ordinary zip of ``.npy`` members, so NumPy, ``unzip`` and anything else open it. Each member holds 64 frames of one song and
one view, (64, F) uint8 (the last of a song has fewer), named ``SONG/VIEW/FRAME.npy``: view 0 is the song, FRAME the number of its first
frame. Its first row is a frame, in steps of so many decibels above the floor; each other row is the difference to the row before, modulo
256, so ``np.cumsum(member, axis=0, dtype=np.uint8)`` are the frames. Differences of music are small numbers: compressed with run lengths
and Huffman codes (deflate with Z_RLE) they take two fifths of the raw bytes and a quarter of a millisecond per second of audio.

All names have one length, so a member's place follows from the sizes of those before it, and a crop is one read of consecutive bytes:
the reader never parses the zip's directory.

Conventions: frames are time first, (T, F), on disk. Sizes and offsets in bytes.

References
----------
.. [1] PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", 6.3.10, 2022 (§4.3.7, §4.3.12, §4.3.14–16, §4.5.3).
.. [2] P. Deutsch, "DEFLATE Compressed Data Format Specification", RFC 1951, 1996.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

Array = np.ndarray[Any, Any]

CHUNK_FRAMES = 64  # 0.74 s: a crop of 1.5 s reads three or four, and a member's 200 bytes of overhead stay under two in a hundred
MAX_VIEWS = 9  # one digit in a member's name
_NAME_BYTES = len("0123456789abcdef/0/0000000.npy")
MEMBER_OVERHEAD = 30 + _NAME_BYTES  # of a local header [1, §4.3.7]
_DATE = 0x21  # 1 January 1980, the zip's zero: equal songs are equal bytes
_UINT32 = 0xFFFFFFFF


@dataclass(frozen=True)
class EncodedSong:
    """The members of one song as they lie in a shard, and what the shard's directory says of them."""

    song_id: str
    frames: int
    bins: int
    views: int  # beside the song itself
    sizes: tuple[int, ...]  # of the members' compressed bytes, view by view
    crcs: tuple[int, ...]
    data: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of the song's bytes in the shard."""
        return hashlib.sha256(self.data).hexdigest()


def chunks_of(frames: int) -> int:
    """How many members hold so many frames of one view."""
    return -(-frames // CHUNK_FRAMES)


def member_name(song_id: str, view: int, chunk: int) -> str:
    """Name of a member.

    >>> member_name("0123456789abcdef", 1, 2)
    '0123456789abcdef/1/0000128.npy'
    """
    return f"{song_id}/{view}/{chunk * CHUNK_FRAMES:07d}.npy"


def encode(song_id: str, roles: Sequence[Array]) -> EncodedSong:
    """Compress a song and its views.

    Parameters
    ----------
    song_id : str of 16 characters
    roles : sequence of ndarray [shape=(T, F), uint8]
        The song, then its views, all of one shape.
    """
    sizes, crcs, parts = [], [], []
    for view, levels in enumerate(roles):
        for chunk in range(chunks_of(len(levels))):
            raw = _npy(levels[chunk * CHUNK_FRAMES : (chunk + 1) * CHUNK_FRAMES])
            data, crc = _deflate(raw), zlib.crc32(raw)
            parts += [_local_header(member_name(song_id, view, chunk), crc, len(data), len(raw)), data]
            sizes.append(len(data))
            crcs.append(crc)
    return EncodedSong(song_id, len(roles[0]), roles[0].shape[1], len(roles) - 1, tuple(sizes), tuple(crcs), b"".join(parts))


def _npy(levels: Array) -> bytes:
    steps = levels.copy()
    steps[1:] -= levels[:-1]  # modulo 256
    return _npy_header(levels.shape) + steps.tobytes()


@functools.lru_cache(maxsize=256)
def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _deflate(raw: bytes) -> bytes:
    # Z_RLE: differences hardly ever repeat in longer patterns; looking for them takes four times as long and finds less than nothing
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    return compressor.compress(raw) + compressor.flush()


def _local_header(name: str, crc: int, size: int, raw_size: int) -> bytes:
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, _DATE, crc, size, raw_size, len(name), 0) + name.encode("ascii")


class ShardWriter:
    """Appends songs to an open file; ``close`` writes the directory. Whoever opens the file sees to it that it appears whole."""

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self._file, self._digest = file, hashlib.sha256()
        self._directory: list[bytes] = []

    @property
    def checksum(self) -> str:
        """SHA-256 of what is written so far."""
        return self._digest.hexdigest()

    def add(self, song: EncodedSong) -> int:
        """Append a song; returns where its bytes begin."""
        offset = self.bytes
        self._directory += _central_headers(song, offset)
        self._write(song.data)
        return offset

    def close(self) -> None:
        """Write the directory."""
        start = self.bytes
        self._write(b"".join(self._directory))
        self._write(_end(len(self._directory), start, self.bytes - start))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)


def _central_headers(song: EncodedSong, offset: int) -> list[bytes]:
    headers = []
    for index, (size, crc) in enumerate(zip(song.sizes, song.crcs, strict=True)):
        view, chunk = divmod(index, chunks_of(song.frames))
        rows = min(CHUNK_FRAMES, song.frames - chunk * CHUNK_FRAMES)
        raw_size = len(_npy_header((rows, song.bins))) + rows * song.bins
        headers.append(_central_header(member_name(song.song_id, view, chunk), crc, size, raw_size, offset))
        offset += MEMBER_OVERHEAD + size
    return headers


def _central_header(name: str, crc: int, size: int, raw_size: int, offset: int) -> bytes:
    far = struct.pack("<2HQ", 1, 8, offset) if offset >= _UINT32 else b""  # beyond 4 GiB the place goes into an extra field [1, §4.5.3]
    version = 45 if far else 20
    fixed = struct.pack("<4s6H3L", b"PK\1\2", version, version, 0, 8, 0, _DATE, crc, size, raw_size)
    rest = struct.pack("<5H2L", len(name), len(far), 0, 0, 0, 0, min(offset, _UINT32))
    return fixed + rest + name.encode("ascii") + far


def _end(count: int, start: int, size: int) -> bytes:
    """The end of the directory; always with the 64-bit record, so that there is one way to write it."""
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    few = min(count, 0xFFFF)
    return wide + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, few, few, min(size, _UINT32), min(start, _UINT32), 0)


def decode(data: bytes, sizes: Sequence[int], *, bins: int, frames: int | None = None) -> Array:
    """Frames of consecutive members, without the zip around them.

    Parameters
    ----------
    data : bytes
        From the first member's local header to the last one's end.
    sizes : sequence of int
        Of the members' compressed bytes.
    frames : int, optional
        Wanted; what the last member has beyond them is not unpacked. All, if not given.

    Returns
    -------
    ndarray [shape=(T, bins), uint8]

    Raises
    ------
    ValueError
        If the bytes are not such members.
    """
    left = len(sizes) * CHUNK_FRAMES if frames is None else frames
    parts, start = [], 0
    for size in sizes:
        start += MEMBER_OVERHEAD
        parts.append(_decode_member(data[start : start + size], size, bins, None if left >= CHUNK_FRAMES else left))
        start, left = start + size, left - CHUNK_FRAMES
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _decode_member(data: bytes, size: int, bins: int, frames: int | None = None) -> Array:
    """All frames of a member, or its first ones."""
    limit = (CHUNK_FRAMES if frames is None else frames) * bins + 256  # of what may come out: a damaged member must not fill the memory
    try:
        inflate = zlib.decompressobj(-15)
        raw = inflate.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"its bytes are damaged ({error})") from None
    header = 10 + int.from_bytes(raw[8:10], "little")
    rows, rest = divmod(len(raw) - header, bins)
    whole = inflate.eof and not rest if frames is None else rows >= frames
    if len(data) < size or not whole or raw[:6] != b"\x93NUMPY":
        raise ValueError("its bytes are cut short or damaged")
    steps = np.frombuffer(raw, np.uint8, offset=header, count=(rows if frames is None else frames) * bins).reshape(-1, bins)
    return np.add.accumulate(steps, axis=0, dtype=np.uint8)
