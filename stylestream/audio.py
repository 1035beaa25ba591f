r"""Any song file, audio or MIDI, to a waveform and back: the one door.

A *song* is a file. A *waveform* ``y`` is float32 of shape ``(C, N)`` with full scale at 1.0. Everything that touches a song file is
here, so that the rest of the package sees only arrays: decoding, encoding, resampling; with its tags (``tags.py``), loudness and true
peak (``meters.py``).

Conventions
-----------
- What the file's bytes say counts, not its suffix, when reading; when writing, the suffix chooses the container.
- Everything streams: :class:`Reader`, :class:`Resampler`, the meters and :class:`Writer` hold one block, whatever the song's length,
  and give the same result for any block size.
- A file appears whole or not at all: :class:`Writer` writes beside the target, syncs, and renames.
- Sample ``n`` at rate ``a`` is sample ``n b / a`` at rate ``b``. A song of ``N`` samples has ``ceil(N b / a)`` at rate ``b``: all that lie
  in its time. Going there and back therefore never loses a sample; trim to ``N``.
- Encoder delay is undone where the format can say it: WAV, FLAC, AIFF, Vorbis and Opus are exact by nature; MP3 is exact, shift and
  length, in every player that reads the LAME header (libsndfile, FFmpeg and all current browsers do), and late by 1105 samples in one
  that does not; AAC in M4A is exact here, and may end with up to 1023 samples of padding in a player that ignores the edit list.

"""

from __future__ import annotations

import errno
import math
import os
import secrets
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np
import soundfile

from stylestream.meters import BLOCK_SAMPLES, Array, LoudnessMeter, TruePeakMeter, in_blocks, loudness, true_peak_db
from stylestream.tags import INFO_FIELDS, Tags, read_tags, write_tags

__all__ = [
    "LoudnessMeter",
    "OutputFormat",
    "Reader",
    "Resampler",
    "SongInfo",
    "TruePeakMeter",
    "Writer",
    "info",
    "load",
    "loudness",
    "output_format",
    "output_suffix",
    "resample",
    "save",
    "true_peak_db",
]

MAX_CHANNELS = 8
LARGEST = 1e10  # of a sample, where full scale is 1: 32-bit integers taken for floats are below
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 8_000, 192_000
MAX_SECONDS = 24 * 3600.0  # a small file can decode to years of silence; a day is longer than any song
MAX_LOAD_BYTES = 4 * 1024**3  # of a song held in memory at once; streaming has no such limit
_DECODE_SAMPLES = 4_096  # libsndfile drops the whole read in which a damaged file breaks off: so read little at a time
_UNPACKED = ("WAV", "AIFF")  # plain samples: nothing to drop, and every read has its price
_EXACT = ("FLAC",)  # says how long it is: whether a long read got all it should is known, and it is read again where it did not
_VORBIS_FRAME = 4_096  # samples at most: half of the longest window

# ----------------------------------------------------------------------------------------------------------------------
# What a song is


@dataclass(frozen=True)
class SongInfo:
    """What a song file says of itself, before it is decoded.

    Parameters
    ----------
    sample_rate : int [Hz]
    channels : int [1, 8]
    samples : int or None
        Samples per channel, or None where only decoding can tell (AAC, video).
    format, subtype : str
        In libsndfile's words ("WAV", "PCM_16"); for what FFmpeg decodes, its container and codec ("mov,mp4,m4a", "aac").
    seconds : float or None
        Length; an estimate where `samples` is None, None where the file does not say.
    """

    sample_rate: int
    channels: int
    samples: int | None
    format: str
    subtype: str
    seconds: float | None


def _quoted(path: str | Path) -> str:
    # repr, not str: a file name may hold a line break, and an error is one line
    return repr(str(path))


def _check_song_path(path: Path) -> None:
    """Fail at the door for what is no readable file at all."""
    if path.is_dir():
        raise IsADirectoryError(f"{_quoted(path)} is a folder, not a song; name a song file in it")
    if not path.exists():
        raise FileNotFoundError(f"no such song: {_quoted(path)}; check the path")
    if not path.is_file():
        raise ValueError(f"{_quoted(path)} is not a regular file; copy the song into one first")
    try:
        with path.open("rb") as f:
            head = f.read(1)
    except PermissionError:
        raise PermissionError(f"no right to read {_quoted(path)}; change its permissions") from None
    if not head:
        raise ValueError(f"{_quoted(path)} is empty (0 bytes); is the copy or download complete?")


def _check_shape(path: Path, sample_rate: int, channels: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"{_quoted(path)} has {channels} channels; at most {MAX_CHANNELS} are supported: mix it down first")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{_quoted(path)} is at {sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are supported: resample it first"
        )


# ----------------------------------------------------------------------------------------------------------------------
# Three ways to decode, one behaviour: chunks of any size, and a word of complaint at the end


class _Source(Protocol):
    info: SongInfo

    def chunks(self) -> Iterator[Array]:
        """Waveform pieces (C, n), in order, of any length."""

    def complaint(self, samples: int) -> str | None:
        """What was wrong with the file, asked after `samples` samples came out of it."""

    def close(self) -> None: ...


class _Forward(soundfile.SoundFile):
    """A sound file read or written only forward: python-soundfile seeks at every block, which is slow, and in MP3 not exact."""

    def seekable(self) -> bool:
        return False


# Where WAV's channels are among those of Vorbis and Opus, which put the centre second and the low frequencies last; libsndfile
# hands them over as they lie. WAV order: L R C LFE, then back, then side.
_OGG_ORDER = {3: [0, 2, 1], 5: [0, 2, 1, 3, 4], 6: [0, 2, 1, 5, 3, 4], 7: [0, 2, 1, 6, 5, 3, 4], 8: [0, 2, 1, 7, 5, 6, 3, 4]}


class _SoundFileSource:
    """WAV, AIFF, FLAC, Ogg, Opus, MP3 and the rest of libsndfile's formats."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _Forward(os.fsencode(path))  # bytes: a name need not be valid text
        samples = self._file.frames
        rate = self._file.samplerate
        self.info = SongInfo(rate, self._file.channels, samples, self._file.format, self._file.subtype, samples / rate)
        self._order = _OGG_ORDER.get(self._file.channels) if self._file.format == "OGG" else None
        self._error: str | None = None
        self._read_samples = BLOCK_SAMPLES if self._file.format in _UNPACKED + _EXACT else _DECODE_SAMPLES
        self._exact, self._given = self._file.format in _EXACT, 0
        self._dtype = "int16" if self._file.subtype == "PCM_16" else "float32"
        self._buffer = np.empty((BLOCK_SAMPLES, self.info.channels), self._dtype)

    def chunks(self) -> Iterator[Array]:
        while len(y := self._block()):
            yield _planes(y) if self._order is None else _planes(y)[self._order]

    def _block(self) -> Array:
        """The next samples (n, C), as many as there are up to a block, or up to where a damaged file breaks off.

        They stay until the next block is read.
        """
        have = self._read()
        if self._exact and have < min(BLOCK_SAMPLES, (self.info.samples or 0) - self._given):
            self._again_from(self._given)
            have = self._read()
        self._given += have
        return self._buffer[:have]

    def _read(self) -> int:
        """Fill the buffer as far as the file goes, and say how far."""
        have = 0
        while have < BLOCK_SAMPLES and self._error is None:
            try:
                read = self._file.buffer_read_into(self._buffer[have : have + self._read_samples], dtype=self._dtype)
            except soundfile.LibsndfileError as error:
                self._error = str(error).strip() or "damaged data"
                break
            have += read
            if read < self._read_samples:
                break
        return have

    def _again_from(self, sample: int) -> None:
        """Go back to a sample of a damaged file, and read little at a time from there on."""
        self._file.close()
        self._file, self._error = _Forward(os.fsencode(self._path)), None
        self._exact, self._read_samples = False, _DECODE_SAMPLES
        for start in range(0, sample, BLOCK_SAMPLES):  # without seeking: a damaged file may say where what is not there begins
            self._file.buffer_read_into(self._buffer[: min(BLOCK_SAMPLES, sample - start)], dtype=self._dtype)

    def complaint(self, samples: int) -> str | None:
        expected = self.info.samples or 0
        if self._error is not None or samples < expected:
            missing_seconds = (expected - samples) / self.info.sample_rate
            return f"the file is cut short or damaged: {samples / self.info.sample_rate:.2f} s decode, {missing_seconds:.2f} s are missing"
        if _says_cut_short(self._file.extra_info):
            return f"the file is cut short: {samples / self.info.sample_rate:.2f} s decode, the rest is missing"
        return None

    def close(self) -> None:
        self._file.close()


def _planes(y: Array) -> Array:
    """Samples (n, C) as a waveform (C, n) of its own; integers of 16 bits as libsndfile makes them floats, which takes it far longer."""
    planes = np.empty(y.shape[::-1], np.float32)
    if y.dtype == np.int16:
        np.multiply(y.T, np.float32(2**-15), out=planes)
    else:
        planes[:] = y.T
    return planes


class _VorbisSource:
    """Vorbis, decoded by FFmpeg in half the time, as far as it finds every packet in its place; by libsndfile from there on.

    Both decoders give the same samples, within 4e-7. They differ in what they make of a damaged file, and one behaviour is enough.
    """

    def __init__(self, path: Path, slow: _SoundFileSource) -> None:
        self._path, self._slow = path, slow
        self.info, self._samples = slow.info, slow.info.samples or 0

    def chunks(self) -> Iterator[Array]:
        given = 0
        with suppress(ImportError):
            for y in self._quick_chunks():
                given += y.shape[1]
                yield y
        if given < self._samples:
            yield from _without_first(self._slow.chunks(), given)

    def complaint(self, samples: int) -> str | None:
        return self._slow.complaint(samples)

    def close(self) -> None:
        self._slow.close()

    def _quick_chunks(self) -> Iterator[Array]:
        """What FFmpeg decodes, up to the first packet that is damaged or missing."""
        import av

        with (
            self._path.open("rb") as file,
            suppress(OSError, ValueError, EOFError),  # FFmpeg's errors are all of these
            av.open(file, mode="r", format="ogg") as container,
        ):
            if [(s.codec_context.name, s.codec_context.sample_rate, s.codec_context.channels) for s in container.streams.audio] == [
                ("vorbis", self.info.sample_rate, self.info.channels)
            ]:
                yield from self._in_place(container.decode(audio=0))

    def _in_place(self, frames: Iterable[Any]) -> Iterator[Array]:
        """Frames as blocks, as long as each begins where those before it end.

        FFmpeg is wrong about where a frame begins after a change of window, and right again with the next: two in a row are a gap.
        """
        import av

        fifo: Any = av.AudioFifo()  # gathers frames without an array of each
        given, at, sure = 0, 0, 0  # samples that were given; those after them that are here; of these, the ones that are in their place
        in_place = True
        for frame in frames:
            begins, samples = frame.pts, frame.samples
            was_in_place, in_place = in_place, begins == given + at
            if not (in_place or was_in_place) or samples > _VORBIS_FRAME:
                break
            sure = at if in_place else sure
            if sure >= BLOCK_SAMPLES:
                yield fifo.read(sure).to_ndarray()  # (C, n): Vorbis comes in planes
                given, at, sure = given + sure, at - sure, 0
            frame.pts = None  # the fifo would not take one that is out of place
            fifo.write(frame)
            at += samples
        else:
            sure = at if given + at >= self._samples else sure
        if (left := min(sure, self._samples - given)) > 0:
            yield fifo.read(left).to_ndarray()


def _without_first(chunks: Iterable[Array], samples: int) -> Iterator[Array]:
    """Chunks (C, any) from this sample on."""
    for y in chunks:
        if y.shape[1] > samples:
            yield y[:, samples:]
        samples = max(samples - y.shape[1], 0)


def _says_cut_short(log: str) -> bool:
    """Whether libsndfile's parse log tells of a data chunk longer than the file, or of an Ogg stream without its last page."""
    for line in log.splitlines():
        if "lacks an end-of-stream" in line:
            return True
        name, _, sizes = line.partition(":")
        if name.strip() in ("data", "SSND") and "should be" in sizes:
            said, _, real = sizes.partition("(should be")
            said_bytes = int("".join(filter(str.isdigit, said)) or 0)
            real_bytes = int("".join(filter(str.isdigit, real)) or 0)
            # a recorder that cannot seek back leaves a size near 2**31 or 2**32: unknown, not cut; one byte is RIFF padding
            return real_bytes + 1 < said_bytes < 0x7FFF_0000
    return False


class _AvSource:
    """What libsndfile cannot read: M4A, AAC, WMA, the sound of a video, through FFmpeg's libraries."""

    # Only containers that hold their own data: a playlist (HLS, concat, DASH) could name other files and addresses.
    CONTAINERS = (
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,avi,flv,mpegts,mpeg,mp3,ogg,aac,ac3,eac3,dts,amr,ape,wv,tta,tak,aiff,wav,w64,caf,"
        "flac,au,voc,mpc,mpc8,adts,latm,loas,rm,oma,dsf,iff,xwma,mlp,truehd,shn"
    )

    def __init__(self, path: Path) -> None:
        import av

        self._file = path.open("rb")  # an open file, not a name: FFmpeg would read "http:…" or "concat:…" as an address
        try:
            self._container = av.open(self._file, mode="r", options={"format_whitelist": self.CONTAINERS})
            self._stream = self._best_stream()
        except BaseException:
            self._file.close()
            raise
        codec = self._stream.codec_context
        seconds = self._seconds()
        # a container's own length is that of its picture, where it has one
        self._sure = self._stream.duration is not None or not self._container.streams.video
        self.info = SongInfo(int(codec.sample_rate or 0), int(codec.channels), None, self._container.format.name, codec.name, seconds)
        self._error: str | None = None

    def _best_stream(self) -> Any:
        stream = self._container.streams.best("audio")
        if stream is None:
            raise ValueError("it holds no sound")
        if stream.codec_context is None:  # FFmpeg has found a stream and no decoder for it
            raise ValueError("its sound is coded in a way nobody here can read")
        return stream

    def _seconds(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def chunks(self) -> Iterator[Array]:
        import av

        # packed "flt": PyAV 18 reads past the end of an 8-channel planar frame
        to_float = av.AudioResampler(format="flt", layout=self._stream.codec_context.layout, rate=self.info.sample_rate)
        held: Array | None = None  # until it is known whether it is the last
        said = 0
        try:
            for packet in self._container.demux(self._stream):
                for y in self._arrays(frame for part in self._decoded(packet) for frame in to_float.resample(part)):
                    if held is not None:
                        yield held
                    held, said = y, self._samples_of(packet)
        except (av.FFmpegError, ValueError) as error:  # the container breaks off, or the layout changes on the way
            self._error = str(error)
        if held is not None:
            yield held[:, :said]

    def _samples_of(self, packet: Any) -> int:
        """How many samples an MP4 says a packet holds: of the last one fewer than are decoded, where the coder has filled it up."""
        if not packet.duration or not self._container.format.name.startswith("mov,"):  # others round
            return sys.maxsize
        tick = self._stream.time_base * self.info.sample_rate
        return packet.duration * int(tick) if tick.denominator == 1 else sys.maxsize

    def _decoded(self, packet: Any) -> list[Any]:
        """The frames of a packet; none if it is damaged, and the next may be whole again."""
        try:
            return list(packet.decode())
        except (OSError, ValueError, EOFError) as error:
            self._error = str(error)
            return []

    def _arrays(self, frames: Iterable[Any]) -> Iterator[Array]:
        for frame in frames:
            if frame.samples:
                yield frame.to_ndarray().reshape(-1, self.info.channels).T  # (C, n)

    def complaint(self, samples: int) -> str | None:
        seconds = samples / self.info.sample_rate
        if self._error is not None:
            return f"the file is damaged: {seconds:.2f} s decode"
        if self._sure and self.info.seconds is not None and seconds < self.info.seconds - 0.5:  # containers round, not by half a second
            return f"the file is cut short: {seconds:.2f} s of {self.info.seconds:.2f} s decode"
        return None

    def close(self) -> None:
        self._container.close()
        self._file.close()


class _MidiSource:
    """A score, played by a SoundFont."""

    def __init__(self, path: Path) -> None:
        from stylestream import midi  # lazily: a transfer of audio needs no synthesizer

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._score = midi.load_score(path)
        self._complaint = "; ".join(str(warning.message) for warning in caught) or None
        self._midi = midi
        self._synthesizer: Any = None
        rate = 44_100
        samples = round((midi.duration_seconds(self._score) + midi.DEFAULT_TAIL_SECONDS) * rate)
        self.info = SongInfo(rate, 2, samples, "MIDI", "PCM_16", samples / rate)

    def chunks(self) -> Iterator[Array]:
        self._synthesizer = self._midi.Synthesizer(sample_rate=self.info.sample_rate)
        yield from self._synthesizer.blocks(self._score, BLOCK_SAMPLES)

    def complaint(self, samples: int) -> str | None:
        return self._complaint

    def close(self) -> None:
        if self._synthesizer is not None:
            self._synthesizer.close()


def _is_midi(path: Path) -> bool:
    with path.open("rb") as f:
        head = f.read(12)
    return head[:4] == b"MThd" or (head[:4] == b"RIFF" and head[8:12] == b"RMID")


def _is_mp3_of_unsure_length(path: Path) -> bool:
    """Whether this is an MP3 whose Xing or LAME header is missing or speaks of a file of another size."""
    with path.open("rb") as f:
        head = f.read(10)
        start = 0
        if head[:3] == b"ID3":  # its size is four times seven bits
            start = 10 + sum((byte & 0x7F) << (7 * (3 - k)) for k, byte in enumerate(head[6:10]))
        f.seek(start)
        frame = f.read(8192).lstrip(b"\0")[:64]  # some taggers leave more padding than they say
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return False
    where = max(frame.find(b"Xing"), frame.find(b"Info"))
    if len(frame) < 64 or not 0 <= where <= 48 or not frame[where + 7] & 2:
        return True
    at = where + (12 if frame[where + 7] & 1 else 8)  # after the number of frames, if there is one
    promised_bytes = int.from_bytes(frame[at : at + 4], "big")
    return abs(promised_bytes - (path.stat().st_size - start)) > 0.005 * promised_bytes


def _is_chained_ogg(path: Path) -> bool:
    """Whether a stream begins in this Ogg file after another has ended, as in a radio that was saved. Reads the headers of its pages."""
    begun = False
    with path.open("rb") as f:
        while len(header := f.read(27)) == 27 and header[:4] == b"OggS":
            first = bool(header[5] & 2)
            if first and begun:
                return True
            begun = begun or not first
            f.seek(sum(f.read(header[26])), os.SEEK_CUR)
    return False


def _open_source(path: Path) -> _Source:
    """The decoder that can read this file; a ValueError with both decoders' words where none can."""
    _check_song_path(path)
    if _is_midi(path):
        return _MidiSource(path)
    # Of an MP3 without a header that tells its length, or with a wrong one (cut off, or several joined), libsndfile guesses the length
    # from the first frame and stops there, and its decoder prints its surprise straight to stderr. FFmpeg reads to the end, in silence.
    # So it does of several songs that were joined to one Ogg file, of which libsndfile reads the first.
    if not (_is_mp3_of_unsure_length(path) or _is_chained_ogg(path)):
        with suppress(soundfile.SoundFileError, TypeError, ValueError):  # TypeError: a name ending in .raw asks for a rate
            source = _SoundFileSource(path)
            return _VorbisSource(path, source) if source.info.subtype == "VORBIS" and source.info.channels <= 2 else source
    try:
        return _AvSource(path)
    except ImportError:
        raise ValueError(f"{_quoted(path)} is not WAV, AIFF, FLAC, Ogg, Opus or MP3, and the rest needs PyAV: pip install av") from None
    except (OSError, ValueError, EOFError) as error:  # FFmpeg's errors are all of these
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{_quoted(path)} is not a song that can be read ({reason}); convert it to WAV or FLAC") from None


class Reader:
    """A song, decoded block by block in bounded memory.

    Parameters
    ----------
    path : str or Path
        Any audio file, the sound of a video, or MIDI.
    max_seconds : float [s]
        A longer song is refused: a small file can decode to years of silence.

    Attributes
    ----------
    info : SongInfo
    sample_rate, channels, samples, format, subtype
        The fields of `info`.
    samples_read : int
        Samples per channel that came out so far.
    warnings : list of str
        What was wrong with the file and was survived; complete once the last block is out.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
        If there is no file to read.
    ValueError
        If the file is empty, not audio, has over 8 channels, lies outside 8 to 192 kHz, holds no sample, or is too long.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "a.wav")
    >>> save(path, np.zeros((2, 1000)), 44100)
    >>> with Reader(path) as song:
    ...     print(song.sample_rate, [y.shape for y in song.blocks(600)])
    44100 [(2, 600), (2, 400)]
    """

    def __init__(self, path: str | Path, *, max_seconds: float = MAX_SECONDS) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self.samples_read = 0
        self._max_seconds = max_seconds
        self._source = _open_source(self.path)
        self.info = self._source.info
        try:
            self._check_door()
        except BaseException:
            self.close()
            raise

    def _check_door(self) -> None:
        _check_shape(self.path, self.info.sample_rate, self.info.channels)
        if self.info.samples == 0:
            raise ValueError(f"{_quoted(self.path)} holds no samples; nothing to play")
        self._check_length((self.info.samples or 0) / self.info.sample_rate)

    def _check_length(self, seconds: float) -> None:
        if seconds > self._max_seconds:
            raise ValueError(f"{_quoted(self.path)} is longer than {self._max_seconds / 3600:g} h; cut it into parts")

    @property
    def sample_rate(self) -> int:
        """The song's sample rate in Hz."""
        return self.info.sample_rate

    @property
    def channels(self) -> int:
        """The song's number of channels."""
        return self.info.channels

    @property
    def samples(self) -> int | None:
        """Samples per channel, or None where only decoding can tell."""
        return self.info.samples

    @property
    def format(self) -> str:
        """The container."""
        return self.info.format

    @property
    def subtype(self) -> str:
        """The sample format or codec."""
        return self.info.subtype

    def blocks(self, block_samples: int = BLOCK_SAMPLES) -> Iterator[Array]:
        """Yield the song in blocks (C, block_samples) float32; the last one may be shorter.

        A sample that is not a number counts as silence, with a warning. Call it once: a Reader goes forward only.
        """
        bad_samples = 0
        for y in _regroup(self._source.chunks(), block_samples):
            y, bad = _silence_not_numbers(y)
            bad_samples += bad
            self.samples_read += y.shape[1]
            self._check_length(self.samples_read / self.sample_rate)
            yield y
        self._conclude(bad_samples)

    def _conclude(self, bad_samples: int) -> None:
        complaint = self._source.complaint(self.samples_read)
        if not self.samples_read:
            raise ValueError(f"{_quoted(self.path)}: nothing in it decodes; is the copy or download complete?")
        if complaint:
            self.warnings.append(complaint)
        if bad_samples:
            self.warnings.append(f"{bad_samples} samples are not numbers (NaN, infinite, or far too large) and count as silence")

    def close(self) -> None:
        """Close the file; harmless when closed already."""
        self._source.close()

    def __iter__(self) -> Iterator[Array]:
        return self.blocks()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _regroup(chunks: Iterable[Array], block_samples: int) -> Iterator[Array]:
    """Chunks (C, any) to contiguous blocks (C, block_samples); the last one may be shorter."""
    if block_samples < 1:
        raise ValueError(f"block_samples must be at least 1, not {block_samples}")
    kept: list[Array] = []
    count = 0
    for y in chunks:
        if not count and y.shape[1] == block_samples and y.flags.c_contiguous and y.flags.owndata:
            yield y
            continue
        while count + y.shape[1] >= block_samples:
            cut = block_samples - count
            yield _joined([*kept, y[:, :cut]])
            kept, count, y = [], 0, y[:, cut:]
        if y.shape[1]:
            kept.append(y)
            count += y.shape[1]
    if count:
        yield _joined(kept)


def _joined(parts: list[Array]) -> Array:
    """Pieces (C, n) as one, each channel contiguous: numpy alone would keep the decoders' interleaved order."""
    y = np.empty((parts[0].shape[0], sum(part.shape[1] for part in parts)), np.float32)
    return np.concatenate(parts, axis=1, out=y)


def _silence_not_numbers(y: Array) -> tuple[Array, int]:
    """The block with NaN, infinity and what is beyond all sound as zero, and how many there were."""
    # one pass over the memory in the usual case: the energy is small only if every sample is
    flat = y.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        if flat @ flat <= LARGEST**2:
            return y, 0
    bad = ~(np.abs(y) <= LARGEST)
    return np.where(bad, np.float32(0), y), int(bad.sum())


def info(path: str | Path) -> SongInfo:
    """What a song file says of itself; errors as in :class:`Reader`."""
    with Reader(path) as song:
        return song.info


def load(path: str | Path, *, sample_rate: int | None = None, mono: bool = False, max_seconds: float | None = None) -> tuple[Array, int]:
    """Decode a whole song into memory.

    Parameters
    ----------
    path : str or Path
        Any audio file, the sound of a video, or MIDI.
    sample_rate : int, optional [Hz]
        Resample to this rate; default is the song's own.
    mono : bool
        Fold down to one channel, the mean of all.
    max_seconds : float, optional [s]
        Stop after this much of the song.

    Returns
    -------
    y : ndarray [shape=(C, N), float32]
        Full scale is 1.0.
    sample_rate : int [Hz]

    Raises
    ------
    ValueError, OSError
        As :class:`Reader`; also if the song would take over 4 GiB of memory.
    """
    if sample_rate is not None and (isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer))):
        raise ValueError(f"sample_rate is {sample_rate!r}; it must be a whole number of Hz")
    with Reader(path) as song:
        rate = sample_rate or song.sample_rate
        channels = 1 if mono else song.channels
        resampler = Resampler(song.sample_rate, rate, channels)
        seconds = min((song.samples or 0) / song.sample_rate, max_seconds or math.inf)
        y = _Growing(channels, math.ceil(seconds * rate))
        for block in _first(song, max_seconds):
            y.add(resampler.push(_folded(block) if mono and len(block) > 1 else block))
            if 4 * channels * song.samples_read * rate > MAX_LOAD_BYTES * song.sample_rate:
                raise ValueError(f"{_quoted(path)} is too long to hold in memory; pass max_seconds, or stream it with Reader")
        y.add(resampler.flush())
    return y.all(), rate


class _Growing:
    """A waveform (C, N) that grows at its end: blocks are copied once, into memory that is asked for once where its length is known."""

    _TRUSTED_SAMPLES = 1 << 24  # a damaged header may promise more than there is memory for

    def __init__(self, channels: int, expected_samples: int) -> None:
        self._y = np.empty((channels, max(min(expected_samples, self._TRUSTED_SAMPLES), 1)), np.float32)
        self._samples = 0

    def add(self, y: Array) -> None:
        start, self._samples = self._samples, self._samples + y.shape[1]
        if self._samples > self._y.shape[1]:
            grown = np.empty((len(self._y), max(self._samples, 3 * start // 2)), np.float32)
            grown[:, :start] = self._y[:, :start]
            self._y = grown
        self._y[:, start : self._samples] = y

    def all(self) -> Array:
        return np.ascontiguousarray(self._y[:, : self._samples])


def _folded(y: Array) -> Array:
    """All channels in one (1, n): the mean, not the sum, since a mono fold-down must not clip."""
    total = y[:1] + y[1:2]  # np.mean takes three times as long over so few rows
    for channel in y[2:]:
        total += channel
    total /= np.float32(len(y))
    return total


def _first(song: Reader, max_seconds: float | None) -> Iterator[Array]:
    """The blocks of the first so many seconds of a song."""
    left = math.inf if max_seconds is None else math.ceil(max_seconds * song.sample_rate)
    for y in song.blocks():
        if y.shape[1] >= left:
            yield y[:, : int(left)]
            return
        yield y
        left -= y.shape[1]


# ----------------------------------------------------------------------------------------------------------------------
# Resampling


class Resampler:
    """Streaming sample-rate conversion (soxr), exactly aligned and of exact length.

    Output sample ``n`` lies at the time of input sample ``n from_rate / to_rate``; ``N`` samples in give ``ceil(N to_rate / from_rate)``
    out, in all, whatever the blocks.

    Parameters
    ----------
    from_rate, to_rate : int [Hz]
    channels : int
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"a sample rate must be above 0 Hz, not {min(from_rate, to_rate)}")
        self.from_rate, self.to_rate, self.channels = int(from_rate), int(to_rate), channels
        self._taken = 0
        self._given = 0
        self._stream: Any = None
        if self.from_rate != self.to_rate:
            import soxr

            self._stream = soxr.ResampleStream(self.from_rate, self.to_rate, channels, dtype="float32", quality="HQ")

    def push(self, y: Array) -> Array:
        """Take (C, n), give what is ready (C, m) of the result, perhaps nothing yet."""
        self._taken += y.shape[1]
        if self._stream is None:
            self._given += y.shape[1]
            return np.asarray(y, dtype=np.float32)
        return self._give(self._process(y, last=False))

    def flush(self) -> Array:
        """Give the rest; nothing may be pushed after it."""
        if self._stream is None:
            return np.zeros((self.channels, 0), np.float32)
        # silence after the end pushes the last samples through the filter; a tenth of a second is longer than any of soxr's
        silence = np.zeros((self.channels, self.from_rate // 10 + 1), np.float32)
        return self._give(np.concatenate([self._process(silence, last=False), self._process(silence, last=True)], axis=1))

    def _process(self, y: Array, *, last: bool) -> Array:
        interleaved = np.ascontiguousarray(y.T, dtype=np.float32)  # (n, C): soxr's order
        return cast(Array, self._stream.resample_chunk(interleaved, last=last).T)

    def _give(self, y: Array) -> Array:
        due = -(-self._taken * self.to_rate // self.from_rate)  # ceil, in integers
        y = np.ascontiguousarray(y[:, : due - self._given])
        self._given += y.shape[1]
        return y


def resample(y: Array, from_rate: int, to_rate: int) -> Array:
    """A whole waveform (C, N) at another rate: (C, ceil(N to_rate / from_rate)).

    Examples
    --------
    >>> resample(np.zeros((2, 44100), np.float32), 44100, 48000).shape
    (2, 48000)
    """
    resampler = Resampler(from_rate, to_rate, y.shape[0])
    return np.concatenate([*map(resampler.push, in_blocks(y, BLOCK_SAMPLES)), resampler.flush()], axis=1)


# ----------------------------------------------------------------------------------------------------------------------
# Out: which format, and the file


@dataclass(frozen=True)
class OutputFormat:
    """How a song is written; ``Writer(path, **vars(output))``.

    Parameters
    ----------
    sample_rate : int [Hz]
        The song's own where the format can, else the nearest it can.
    channels : int
        Always the song's own.
    format, subtype : str
        In libsndfile's words ("WAV", "PCM_16"); "M4A" with "AAC" is FFmpeg's.
    """

    sample_rate: int
    channels: int
    format: str
    subtype: str


@dataclass(frozen=True)
class _Container:
    format: str
    subtypes: tuple[str, ...]  # the first is what a song gets whose own subtype is not among them, unless finer
    rates: tuple[int, ...] = ()  # none: any
    max_channels: int = MAX_CHANNELS
    nearest: Mapping[str, str] = field(default_factory=dict)  # the subtype that comes nearest to a foreign one


_PCM = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

_CONTAINERS = {
    ".wav": _Container("WAV", (*_PCM, "PCM_U8"), nearest={"PCM_S8": "PCM_U8"}),
    ".flac": _Container(
        "FLAC",
        ("PCM_16", "PCM_24", "PCM_S8"),
        nearest={"PCM_U8": "PCM_S8", "PCM_32": "PCM_24", "FLOAT": "PCM_24", "DOUBLE": "PCM_24", "alac": "PCM_24"},
    ),
    ".aiff": _Container("AIFF", (*_PCM, "PCM_S8"), nearest={"PCM_U8": "PCM_S8"}),
    ".ogg": _Container("OGG", ("VORBIS",)),
    ".opus": _Container("OGG", ("OPUS",), rates=(48_000,)),
    ".mp3": _Container("MP3", ("MPEG_LAYER_III",), rates=_MPEG_RATES, max_channels=2),
    ".m4a": _Container("M4A", ("AAC",), rates=(*_MPEG_RATES, 64_000, 88_200, 96_000), max_channels=2),
}
_ALIASES = {".aif": ".aiff", ".aifc": ".aiff", ".oga": ".ogg", ".wave": ".wav", ".mp4": ".m4a"}
# What people call a subtype
_SUBTYPE_NAMES = {"16": "PCM_16", "24": "PCM_24", "32": "PCM_32", "FLOAT32": "FLOAT", "32F": "FLOAT", "FLOAT64": "DOUBLE", "64F": "DOUBLE"}
_LARGEST_WAV_BYTES = 2**32 - 2**20  # RIFF counts in 32 bits; a mebibyte is left for tags and cover


def output_suffix(song: SongInfo) -> str:
    """The suffix under which a song of this format is written as the same kind of song.

    Examples
    --------
    >>> output_suffix(SongInfo(44100, 2, None, "mov,mp4,m4a,3gp,3g2,mj2", "aac", 1.0))
    '.m4a'
    """
    if song.subtype == "OPUS":
        return ".opus"
    by_format = {"FLAC": ".flac", "AIFF": ".aiff", "OGG": ".ogg", "MP3": ".mp3"}
    suffix = by_format.get(song.format, ".m4a" if song.subtype.startswith("aac") else ".wav")
    return suffix if song.channels <= _CONTAINERS[suffix].max_channels else ".wav"


def output_format(song: SongInfo, out_path: str | Path, subtype: str | None = None) -> OutputFormat:
    """How to write a song to `out_path`: container by the suffix, the rest as near to the song as the container allows.

    Parameters
    ----------
    song : SongInfo
    out_path : str or Path
        .wav, .flac, .aiff, .ogg, .opus, .mp3, .m4a
    subtype : str, optional
        Sample format, as ``PCM_16``, ``PCM_24``, ``FLOAT`` (or 16, 24, float); default is the song's own where the container has it.

    Returns
    -------
    OutputFormat
        Rate and channels are the song's; the rate is another only where the format cannot hold it (MP3 above 48 kHz, Opus).

    Raises
    ------
    ValueError
        If the suffix or the subtype is unknown, or the format cannot hold so many channels.

    Examples
    --------
    >>> output_format(SongInfo(44100, 2, 100, "WAV", "PCM_24", 0.1), "a.flac").subtype
    'PCM_24'
    >>> output_format(SongInfo(44100, 2, 100, "WAV", "PCM_24", 0.1), "a.opus").sample_rate
    48000
    """
    suffix = Path(out_path).suffix.lower()
    container = _CONTAINERS.get(_ALIASES.get(suffix, suffix))
    if container is None:
        raise ValueError(f"cannot write {_quoted(out_path)}: the name must end in one of {' '.join(_CONTAINERS)}")
    if song.channels > container.max_channels:
        raise ValueError(
            f"{suffix[1:].upper()} holds at most {container.max_channels} channels, the song has {song.channels}; write .wav, .flac or .ogg"
        )
    chosen = _choose_subtype(container, song.subtype, subtype)
    return OutputFormat(_choose_rate(container, song.sample_rate), song.channels, _choose_format(container, song, chosen), chosen)


def _choose_subtype(container: _Container, own: str, asked: str | None) -> str:
    if asked is not None:
        name = asked.upper().replace("-", "_")
        name = _SUBTYPE_NAMES.get(name, name)
        if name not in container.subtypes:
            raise ValueError(f"{container.format} has no subtype {asked!r}; choose one of {', '.join(container.subtypes)}")
        return name
    return own if own in container.subtypes else container.nearest.get(own, container.subtypes[0])


def _choose_rate(container: _Container, own: int) -> int:
    if not container.rates or own in container.rates:
        return own
    # of the same family if possible (88.2 → 44.1 kHz), else the lowest that keeps all, else the highest there is
    whole_parts = [rate for rate in container.rates if own % rate == 0 and rate >= 44_100]
    above = [rate for rate in container.rates if rate > own]
    return max(whole_parts, default=0) or min(above, default=max(container.rates))


def _choose_format(container: _Container, song: SongInfo, subtype: str) -> str:
    if container.format != "WAV":
        return container.format
    if (song.seconds or 0) * song.sample_rate * song.channels * _BYTES[subtype] > _LARGEST_WAV_BYTES:
        return "RF64"
    # beyond stereo, plain WAV does not say which channel is which speaker
    return "WAVEX" if song.channels > 2 or song.format == "WAVEX" else "WAV"


_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
# libsndfile's scale, 0 best: about 256 kb/s variable for stereo MP3 and Vorbis, 256 kb/s Opus: nothing to hear, and no larger
_COMPRESSION = {"MPEG_LAYER_III": 0.0, "VORBIS": 0.2, "OPUS": 0.5}
_AAC_BITS_PER_SECOND = 128_000  # per channel


class _File:
    """An open file that remembers why a write failed: libsndfile itself says at most that one did, and some encoders not even that."""

    def __init__(self, path: Path) -> None:
        # our own name, made exclusively, with the rights any new file gets: tempfile's are for the owner alone
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "r+b")
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data) if self.error is None else 0
        except OSError as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)  # flushes, so it may fail as a write does
        except OSError as error:
            self.error = error
            return -1

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def sync(self) -> None:
        """Bring it to the disk; raise what went wrong on the way."""
        if self.error is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        with suppress(OSError):  # what did not reach the disk was raised by sync
            self._file.close()


class _Sink(Protocol):
    def write(self, y: Array) -> None: ...

    def close(self) -> None: ...


_SET_ADD_PEAK_CHUNK = 0x1050  # SFC_SET_ADD_PEAK_CHUNK of sndfile.h


class _SoundFileSink:
    def __init__(self, file: _File, output: OutputFormat, tags: Tags) -> None:
        self._subtype = output.subtype
        self._order = np.argsort(_OGG_ORDER[output.channels]) if output.format == "OGG" and output.channels in _OGG_ORDER else None
        self._file = _Forward(
            file,
            "w",
            samplerate=output.sample_rate,
            channels=output.channels,
            format=output.format,
            subtype=output.subtype,
            compression_level=_COMPRESSION.get(output.subtype),
        )
        with suppress(AttributeError):  # WAV's PEAK chunk holds the time of day: the same song must give the same bytes
            soundfile._snd.sf_command(self._file._file, _SET_ADD_PEAK_CHUNK, soundfile._ffi.NULL, 0)
        if output.format in ("WAV", "WAVEX", "RF64"):  # the others get theirs, and more of them, from mutagen
            for name in INFO_FIELDS:
                if name in tags.fields:
                    setattr(self._file, name, "; ".join(tags.fields[name])[:1000])

    def write(self, y: Array) -> None:
        y = y if self._order is None else y[self._order]
        for block in in_blocks(y, _DECODE_SAMPLES):  # in one long write, libsndfile's Vorbis encoder runs over its stack
            self._file.write(_quantise(np.ascontiguousarray(block.T), self._subtype))

    def close(self) -> None:
        self._file.close()


def _quantise(y: Array, subtype: str) -> Array:
    """To the integers of the subtype, rounded and limited to full scale.

    libsndfile would truncate (half a step of DC). No dither: a copy of a 16-bit song must be the same 16 bits.
    """
    bits = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}.get(subtype)
    if bits is None:
        return y if subtype in ("FLOAT", "DOUBLE") else np.clip(y, -1.0, 1.0)
    dtype = np.int16 if bits <= 16 else np.int32
    scale = 2.0 ** (bits - 1)
    steps = np.rint(y * (np.float64(scale) if bits == 32 else np.float32(scale)))
    steps = np.clip(steps, -scale, scale - 1)
    return steps.astype(dtype) << (8 * np.dtype(dtype).itemsize - bits)


class _AacSink:
    """AAC in M4A, through FFmpeg's own encoder."""

    def __init__(self, file: _File, output: OutputFormat) -> None:
        try:
            import av
        except ImportError:
            raise ValueError("writing M4A needs PyAV: pip install av; or write .mp3 or .flac") from None
        self._av = av
        self._layout = "mono" if output.channels == 1 else "stereo"
        self._rate = output.sample_rate
        # the edit list, which says where the song starts and ends among the coder's padding, counts in this unit: make it samples
        self._container = av.open(file, mode="w", format="ipod", options={"movie_timescale": str(output.sample_rate)})
        self._stream = self._container.add_stream("aac", rate=output.sample_rate, layout=self._layout)
        self._stream.bit_rate = _AAC_BITS_PER_SECOND * output.channels
        self._fifo = av.AudioFifo()
        self._sent = 0

    def write(self, y: Array) -> None:
        frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(np.clip(y, -1.0, 1.0)), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        self._fifo.write(frame)
        self._drain(partial=False)

    def _drain(self, *, partial: bool) -> None:
        # the encoder takes frames of just this length, and only the last may be shorter
        while (frame := self._fifo.read(1024, partial=partial)) is not None:
            frame.pts, self._sent = self._sent, self._sent + frame.samples
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._drain(partial=True)
        self._container.mux(self._stream.encode(None))
        self._container.close()


def tags_of(path: Path) -> Tags:
    """Tags and pictures of a song file; where there are none, WAV's INFO list and its like."""
    tags = read_tags(path)
    if not tags:
        _from_sound_file(path, tags)
    return tags


def _from_sound_file(path: Path, tags: Tags) -> None:
    if _is_mp3_of_unsure_length(path):  # has none, and libsndfile would print its surprise at the length
        return
    with suppress(soundfile.SoundFileError, TypeError), soundfile.SoundFile(str(path)) as file:
        for name, text in file.copy_metadata().items():
            if name in INFO_FIELDS:
                tags.add(name, text)


def _open_sink(file: _File, output: OutputFormat, tags: Tags) -> _Sink:
    return _AacSink(file, output) if output.format == "M4A" else _SoundFileSink(file, output, tags)


class Writer:
    """A song file, written block by block, that appears whole or not at all.

    The blocks go to a hidden file in the same folder; :meth:`close` finishes it, brings it to the disk and renames it over `path`.
    As a context manager it closes at the end, and aborts on an exception.

    Parameters
    ----------
    path : str or Path
        An existing file is replaced, at the end and at once.
    sample_rate : int [Hz]
    channels : int
    format, subtype : str, optional
        As :func:`output_format` gives them; default is by the suffix. ``Writer(path, **vars(output_format(…)))``.
    tags_from : str or Path, optional
        A song whose tags and cover are copied.
    tags : Tags, optional
        Tags that were read already, instead.
    comment : str, optional
        Added to the comments there are.

    Attributes
    ----------
    samples_written : int
        Per channel.
    warnings : list of str
        What was survived: tags that could not be kept.

    Raises
    ------
    ValueError
        If the format cannot hold such a song.
    OSError
        If there is no folder, no right to write, or no space; nothing is left behind.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sample_rate: int,
        channels: int,
        format: str | None = None,
        subtype: str | None = None,
        tags_from: str | Path | None = None,
        tags: Tags | None = None,
        comment: str = "",
    ) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self.samples_written = 0
        self.output = _checked_output(self.path, sample_rate, channels, format, subtype)
        self._tags = self._read_tags(tags_from) if tags is None else tags
        if comment:
            self._tags.note(comment)
        self._temporary = self.path.with_name(f".stylestream-{secrets.token_hex(6)}.part")
        self._open = False
        _check_target(self.path)
        with self._or_nothing():
            self._file = _File(self._temporary)
            self._open = True
            self._sink = _open_sink(self._file, self.output, self._tags)

    def _read_tags(self, tags_from: str | Path | None) -> Tags:
        if tags_from is None:
            return Tags()
        try:
            return tags_of(Path(tags_from))
        except Exception as error:  # hostile or unknown tags are no reason to lose the song
            self.warnings.append(f"the tags of {_quoted(tags_from)} cannot be read ({type(error).__name__}) and are not kept")
            return Tags()

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Whatever fails inside, the unfinished file goes, and an OSError says what to do."""
        try:
            yield
        except BaseException as error:
            reason = self._file.error if self._open and self._file.error is not None else error
            self.abort()
            if isinstance(reason, OSError):
                raise _explained(reason, self.path) from None
            if isinstance(reason, soundfile.SoundFileError):
                raise ValueError(f"cannot write {_quoted(self.path)} as {self.output.format}: {reason}") from None
            raise

    def write(self, y: Array) -> None:
        """Append (C, n). What exceeds full scale is limited to it, but kept in the float subtypes."""
        if y.ndim != 2 or y.shape[0] != self.output.channels:
            raise ValueError(f"expected a waveform of shape ({self.output.channels}, n), not {y.shape}")
        if _silence_not_numbers(y)[1]:
            raise ValueError("the waveform holds samples that are not numbers; nothing was written")
        with self._or_nothing():
            self._check_size(y.shape[1])
            self._sink.write(np.asarray(y, dtype=np.float32))
            if self._file.error is not None:
                raise self._file.error
        self.samples_written += y.shape[1]

    def _check_size(self, more_samples: int) -> None:
        size = (self.samples_written + more_samples) * self.output.channels * _BYTES.get(self.output.subtype, 0)
        if self.output.format in ("WAV", "WAVEX", "AIFF") and size > _LARGEST_WAV_BYTES:
            raise OSError(f"{_quoted(self.path)} would exceed the 4 GiB that {self.output.format} can hold; write .flac instead")

    def close(self) -> None:
        """Finish the file: it now stands at `path`. Harmless when closed or aborted already."""
        if not self._open:
            return
        with self._or_nothing():
            self._sink.close()
            self._file.sync()
            self._write_tags()
            self._file.sync()
            self._file.close()
            os.replace(self._temporary, self.path)
            self._open = False
        _sync_folder(self.path.parent)

    def _write_tags(self) -> None:
        try:
            write_tags(self._temporary, self.output.format, self.output.subtype, self._tags)
        except OSError:
            raise
        except Exception as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise cause from None
            self.warnings.append(f"tags are not kept ({type(error).__name__}: {error})")

    def abort(self) -> None:
        """Drop what was written; what stood at `path` before still stands. Harmless when closed already."""
        if not self._open:
            return
        self._open = False
        with suppress(Exception):  # an encoder may fail to finish; what it made is dropped anyway
            self._sink.close()
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def _checked_output(path: Path, sample_rate: int, channels: int, format: str | None, subtype: str | None) -> OutputFormat:
    """What a Writer was asked for, completed, or a ValueError with the remedy."""
    song = SongInfo(sample_rate, channels, None, format or "", "", None)
    _check_shape(path, sample_rate, channels)
    output = output_format(song, path, subtype)
    if output.sample_rate != sample_rate:
        raise ValueError(f"{path.suffix[1:].upper()} cannot hold {sample_rate} Hz; resample to {output.sample_rate} Hz first")
    return replace(output, format=format) if format else output


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{_quoted(path)} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {_quoted(path.parent)}; make it first")


def _explained(error: OSError, path: Path) -> OSError:
    """The same error in one line with the remedy."""
    remedies = {
        errno.ENOSPC: "there is no space left; free some, or write elsewhere",
        errno.EDQUOT: "the quota is used up; free some space, or write elsewhere",
        errno.EFBIG: "the file is larger than may be written there; write elsewhere, or .flac",
        errno.EACCES: "there is no right to write in that folder; change its permissions, or write elsewhere",
        errno.EPERM: "there is no right to write in that folder; change its permissions, or write elsewhere",
        errno.EROFS: "the disk is read-only; write elsewhere",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }
    if error.errno is None:
        return error
    explained = type(error)(f"cannot write {_quoted(path)}: {remedies.get(error.errno, error.strerror)}")
    explained.errno = error.errno
    return explained


def _sync_folder(folder: Path) -> None:
    # the rename itself must reach the disk too; not every system lets one open a folder
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save(path: str | Path, y: Array, sample_rate: int, *, subtype: str | None = None, tags_from: str | Path | None = None) -> None:
    """Write a waveform to a file, which appears whole or not at all.

    Parameters
    ----------
    path : str or Path
        The suffix chooses the format: .wav, .flac, .aiff, .ogg, .opus, .mp3, .m4a
    y : ndarray [shape=(C, N) or (N,), full scale 1.0]
    sample_rate : int [Hz]
        Where the format cannot hold it (MP3 above 48 kHz, Opus), the waveform is resampled to the nearest that it can.
    subtype : str, optional
        As ``PCM_24`` or ``FLOAT``; default is 16 bit where the format leaves a choice.
    tags_from : str or Path, optional
        A song whose tags and cover are copied.

    Raises
    ------
    ValueError, OSError
        As :class:`Writer`.
    """
    if not np.issubdtype(np.asarray(y).dtype, np.floating):
        raise ValueError(f"y holds {np.asarray(y).dtype}; a waveform is floating point with full scale at 1.0")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)) or sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate!r}; it must be a whole number of Hz")
    y = np.atleast_2d(np.asarray(y, dtype=np.float32))
    if y.ndim != 2 or y.shape[0] > MAX_CHANNELS:
        raise ValueError(f"y has shape {y.shape}; a waveform is (channels, samples) with 1 to {MAX_CHANNELS} channels")
    song = SongInfo(sample_rate, y.shape[0], y.shape[1], "", "", y.shape[1] / sample_rate)
    output = output_format(song, path, subtype)
    with Writer(path, **vars(output), tags_from=tags_from) as out:
        out.write(resample(y, sample_rate, output.sample_rate) if output.sample_rate != sample_rate else y)
