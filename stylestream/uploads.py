"""An upload → samples in a private file, which a browser can hear and see.

What comes from strangers is decoded in a child process (``python -m stylestream.uploads``) with limits on time, memory and size, and
lies afterwards as plain float32 in a private folder: the process that serves never parses an upload.

Conventions: waveforms are float32 (C, N); a *part* is `PART_SECONDS` of a sound, numbered from 0, which is what a browser fetches.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stylestream.tags import Tags
    from stylestream.transfer import Hearing, StyleTransfer

Array = np.ndarray[Any, Any]
log = logging.getLogger("stylestream.serve")

PART_SECONDS = 4.0
BLOCK_SAMPLES = 65_536
RANGE_DB = 80.0  # of a spectrogram
PICTURE_COLUMNS = 1600  # of a song's spectrogram: as wide as screens are
PEAK_COLUMNS = 800
MAX_PICTURE_BYTES = 4_000_000  # of a cover; a larger one is left out


@dataclass(frozen=True)
class Limits:
    """What strangers may ask for; every one is an option of ``stylestream serve``."""

    upload_mb: float = 200.0
    song_seconds: float = 900.0
    decode_seconds: float = 60.0  # of a processor, for one upload
    decode_mb: float = 3000.0  # address space of the decoder; FluidSynth with its SoundFont takes half of it
    queue: int = 50  # jobs waiting, of all visitors
    address_jobs: int = 6  # waiting or running, of one address
    address_requests: int = 120  # uploads and jobs a minute, of one address
    train_minutes: float = 30.0  # 0: nobody trains here
    train_songs: int = 50
    keep_minutes: float = 60.0  # what nobody has asked for so long is removed
    store_mb: float = 20_000.0  # of all visitors' songs and results together

    def check(self) -> None:
        """Raise ValueError if a limit is no limit."""
        for name, value in vars(self).items():
            if not math.isfinite(value) or value < (0 if name == "train_minutes" else 1e-3):
                raise ValueError(f"{name.replace('_', ' ')} is {value:g}; it must be a number above 0")


class Refused(ValueError):
    """What was asked for is not done: one line for the visitor, and the HTTP status that says the same."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def clean_name(name: str) -> str:
    r"""Make a file name of what a stranger sent: no folders, no control characters, nothing hidden, at most 80 characters.

    >>> clean_name("../../etc/passwd"), clean_name("C:\\songs\\waltz no. 2.mp3"), clean_name("..\x00\n")
    ('passwd', 'waltz no. 2.mp3', 'song')
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .-")
    stem, dot, suffix = kept.rpartition(".")
    shortened = f"{stem[:72]}{dot}{suffix[:7]}" if dot and stem else kept[:80]
    while len(shortened.encode()) > 200:  # file systems count bytes
        shortened = shortened[1:]
    return shortened.strip(" .-") or "song"


def in_words(error: BaseException, folder: Path | None = None) -> str:
    """Say what went wrong to a visitor: one line, without a path of this machine."""
    if isinstance(error, MemoryError):
        return "this machine has not enough memory for it; try a shorter song"
    if isinstance(error, (Refused, ValueError)):
        text = " ".join(str(error).split())
        return text.replace(f"{folder}{os.sep}", "") if folder else text
    if isinstance(error, OSError) and error.errno is not None:
        return f"this machine could not write or read a file ({os.strerror(error.errno).lower()}); try again later"
    log.error("unexpected", exc_info=error)
    return "something went wrong on this machine, and it has been noted; try again, or another song"


# ---------------------------------------------------------------------------------------------------------------- sounds


class Sound:
    """Samples in a private file, interleaved float32, which may still be growing. Every reader sees what is written so far."""

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self.path, self.sample_rate, self.channels = path, sample_rate, channels
        self.gain = 1.0
        self._lock, self.making = threading.Lock(), threading.Lock()  # of writing; of what is made of it, once for all who ask
        self._peaks: tuple[tuple[int, float], list[int]] = ((-1, 1.0), [])
        self.samples = path.stat().st_size // (4 * channels) if path.exists() else 0

    @property
    def seconds(self) -> float:
        """How long it is, so far."""
        return self.samples / self.sample_rate

    def append(self, y: Array) -> None:
        """Write a block (C, n) to the end."""
        with self._lock, open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(y.T, dtype=np.float32).data)
        self.samples += y.shape[1]

    def read(self, start: int, stop: int) -> Array:
        """Samples [start, stop) as far as there are any, (C, n)."""
        start, stop = max(start, 0), min(stop, self.samples)
        count = max(stop - start, 0) * self.channels
        if not count:
            return np.zeros((self.channels, 0), np.float32)
        try:
            with open(self.path, "rb") as file:
                file.seek(start * self.channels * 4)
                data = np.fromfile(file, np.float32, count)
        except FileNotFoundError:  # it has been replaced by what it was the beginning of
            data = np.zeros(0, np.float32)
        y = np.ascontiguousarray(data.reshape(-1, self.channels).T)  # a channel in a row: what follows is several times faster on it
        return y if self.gain == 1 else y * np.float32(self.gain)

    def blocks(self) -> Iterator[Array]:
        """All of it from the start, block by block."""
        for start in range(0, self.samples, BLOCK_SAMPLES):
            yield self.read(start, start + BLOCK_SAMPLES)

    @property
    def part_samples(self) -> int:
        """Samples of a part."""
        return round(PART_SECONDS * self.sample_rate)

    def part(self, number: int) -> bytes | None:
        """Return a part as FLAC, for a browser: at most two channels, 16 bit; None where there is nothing yet."""
        y = self.read(number * self.part_samples, (number + 1) * self.part_samples)
        return flac(y[:2], self.sample_rate) if y.shape[1] else None

    def peaks(self) -> list[int]:
        """Highest level in each of `PEAK_COLUMNS` columns, 0 to 255; looked for again only where there is more."""
        with self.making:
            now = self.samples, self.gain
            if self._peaks[0] != now:
                width = max(-(-self.samples // PEAK_COLUMNS), 1)
                columns = [self.read(start, start + width) for start in range(0, self.samples, width)]
                self._peaks = now, [min(round(255 * float(np.abs(y).max(initial=0))), 255) for y in columns]
            return self._peaks[1]


def flac(y: Array, sample_rate: int) -> bytes:
    """Encode (C, N) as 16-bit FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(y, -1, 1).T, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


class Columns:
    """Frames pooled into a picture of at most `PICTURE_COLUMNS` columns: the loudest frame of each, so that attacks stay visible.

    Parameters
    ----------
    frames : int
        How many will come, about.
    """

    def __init__(self, frames: int) -> None:
        self.pool = max(-(-frames // PICTURE_COLUMNS), 1)
        self._columns: list[Array] = []
        self._held: Array | None = None

    def push(self, x: Array) -> None:
        """Take the next frames (F, any), in [0, 1]."""
        x = x if self._held is None else np.concatenate([self._held, x], axis=1)
        whole = x.shape[1] // self.pool * self.pool
        self._columns.append(x[:, :whole].reshape(x.shape[0], -1, self.pool).max(-1))
        self._held = x[:, whole:]

    def picture(self, floor_db: float) -> Array:
        """As `grey` of all columns."""
        rest = [] if self._held is None or not self._held.shape[1] else [self._held.max(1, keepdims=True)]
        columns = [*self._columns, *rest]
        return grey(np.concatenate(columns, axis=1) if columns else np.zeros((1, 1), np.float32), floor_db)


def spectrogram(sound: Sound) -> Array:
    """Frames as a grey picture, (F, columns) in 0 … 255, low notes at the bottom row; 255 is the loudest cell, 0 is 80 dB below."""
    import torch

    from stylestream import audio
    from stylestream.features import FeatureConfig, LogFrequency

    config = FeatureConfig()
    front, resampler = LogFrequency(config), audio.Resampler(sound.sample_rate, config.sample_rate, 1)
    columns = Columns(math.ceil(sound.seconds * config.frames_per_second))
    piece, held = config.hop_length * round(20 * config.frames_per_second), np.zeros((1, 0), np.float32)

    def see(y: Array) -> None:
        with torch.inference_mode():
            x = front(torch.from_numpy(np.ascontiguousarray(y)))[0].numpy()  # (F, T)
        columns.push(x[:, : max(y.shape[1] // config.hop_length, 1)])

    for block in sound.blocks():
        held = np.concatenate([held, resampler.push(block.mean(0, keepdims=True))], axis=1)
        while held.shape[1] >= piece:
            see(held[:, :piece])
            held = held[:, piece:]
    held = np.concatenate([held, resampler.flush()], axis=1)
    if held.shape[1]:
        see(held)
    return columns.picture(config.floor_db)


def excerpt_picture(y: Array, sample_rate: int) -> Array:
    """Spectrogram of some seconds (C, N), a column a frame, as `spectrogram` gives it."""
    import torch

    from stylestream import audio
    from stylestream.features import FeatureConfig, LogFrequency

    config = FeatureConfig()
    mono = audio.resample(np.ascontiguousarray(y.mean(0, keepdims=True)), sample_rate, config.sample_rate)
    with torch.inference_mode():
        return grey(LogFrequency(config)(torch.from_numpy(mono))[0].numpy(), config.floor_db)


def grey(x: Array, floor_db: float = -90.0) -> Array:
    """Frames in [0, 1] as bytes: the loudest 255, `RANGE_DB` under it and less 0; the top row the highest note."""
    below_db = (x - x.max(initial=1e-6)) * -floor_db
    return np.asarray(np.clip(255 * (1 + below_db / RANGE_DB), 0, 255).astype(np.uint8)[::-1])


def png(picture: Array) -> bytes:
    """A grey picture as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------- songs


@dataclass
class Song:
    """An upload, decoded."""

    id: str
    name: str
    folder: Path
    upload: Path  # kept for its tags
    sound: Sound
    kind: str
    warnings: list[str]
    plain_tags: dict[str, Any]
    address: str = ""
    used: float = field(default_factory=time.monotonic)
    hearings: dict[Any, Hearing] = field(default_factory=dict)
    picture: bytes | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def view(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "id": self.id,
            "name": self.name,
            "seconds": round(self.sound.seconds, 3),
            "sample_rate": self.sound.sample_rate,
            "channels": self.sound.channels,
            "samples": self.sound.samples,
            "part_seconds": self.sound.part_samples / self.sound.sample_rate,
            "kind": self.kind,
            "warnings": self.warnings,
        }

    def tags(self) -> Tags:
        """What the file says of itself to people: title, artist, cover, …"""
        from stylestream.tags import Tags

        try:
            return Tags.of_plain(self.plain_tags)
        except ValueError:
            return Tags()

    def is_heard(self, style: StyleTransfer, *, peak: bool) -> bool:
        """Whether `hearing` has been done."""
        return (style.config, peak) in self.hearings

    def hearing(self, style: StyleTransfer, *, peak: bool, progress: Callable[[int], None] = lambda samples: None) -> Hearing:
        """The first passes over the song, the same for every style with this front end; done once. They see its picture, too."""
        key, sound = (style.config, peak), self.sound
        with self.lock:
            if key not in self.hearings:
                columns = Columns(math.ceil(sound.seconds * style.config.frames_per_second))
                self.hearings[key] = style.listen(
                    sound.blocks, sound.sample_rate, sound.channels, peak=peak, progress=progress, seen=columns.push
                )
                self.picture = self.picture or png(columns.picture(style.config.floor_db))
            return self.hearings[key]


def decode(upload: Path, target: Path, limits: Limits) -> dict[str, Any]:
    """Decode an upload in a child process into interleaved float32.

    Returns
    -------
    dict
        ``sample_rate``, ``channels``, ``samples``, ``kind``, ``warnings``, ``tags`` (`Tags.plain`).

    Raises
    ------
    Refused
        If it is no song, or takes more time, memory or room than `Limits` allows.
    """
    command = [sys.executable, "-m", "stylestream.uploads", upload.name, str(target)]
    command += [str(limits.song_seconds), str(limits.decode_seconds), str(limits.decode_mb)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": import_path()}
    try:
        # the folder of the upload is where the child works, so that whatever it says names the file and no folder
        done = subprocess.run(
            command,
            cwd=upload.parent,
            env=environment,
            capture_output=True,
            timeout=3 * limits.decode_seconds + 20,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{upload.name!r} takes too long to decode; convert it to WAV or FLAC first", 422) from None
    try:
        answer = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
    except (ValueError, IndexError):
        answer = {"error": _how_it_ended(upload.name, done.returncode)}
        log.warning("decoder ended with %s: %s", done.returncode, done.stderr.decode("utf-8", "replace")[-400:])
    if "error" in answer:
        raise Refused(answer["error"], 422)
    return dict(answer)


def import_path() -> str:
    """So that the child finds this package, wherever it works."""
    return os.pathsep.join([str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH", "")])])


def _how_it_ended(name: str, code: int) -> str:
    if code in (-24, -9):  # SIGXCPU, SIGKILL
        return f"{name!r} takes too long to decode; convert it to WAV or FLAC first"
    return f"{name!r} broke the decoder; convert it to WAV or FLAC first"


# ---------------------------------------------------------------------------------------------------------------- the child


def _limit(cpu_seconds: float, memory_mb: float, file_bytes: float) -> None:
    """Bound what this process may take; on systems that have no such bounds the parent's clock is the only one."""
    try:
        import resource
    except ImportError:
        return
    bounds = {"RLIMIT_CPU": math.ceil(cpu_seconds), "RLIMIT_AS": int(memory_mb * 1e6), "RLIMIT_FSIZE": int(file_bytes), "RLIMIT_CORE": 0}
    for name, bound in bounds.items():
        with suppress(ValueError, OSError, AttributeError):  # macOS refuses some
            resource.setrlimit(getattr(resource, name), (bound, bound))


def _decode_child(upload: str, target: str, song_seconds: float, cpu_seconds: float, memory_mb: float) -> dict[str, Any]:
    _limit(cpu_seconds, memory_mb, 400_000 * song_seconds + 1e6)  # 48 kHz, stereo, float32
    from stylestream import audio

    try:
        with audio.Reader(upload) as song, open(target, "wb") as out:
            longest = round(song_seconds * song.sample_rate)
            if (song.samples or 0) > longest:
                raise ValueError(_too_long(upload, (song.samples or 0) / song.sample_rate, song_seconds))
            for y in song.blocks():
                out.write(np.ascontiguousarray(y.T).data)
                if song.samples_read > longest:
                    raise ValueError(_too_long(upload, None, song_seconds))
        return {
            "sample_rate": song.sample_rate,
            "channels": song.channels,
            "samples": song.samples_read,
            "kind": song.format,
            "warnings": [*song.warnings],
            "tags": _tags_in(upload),
        }
    except OSError as error:
        if error.errno is None or error.filename == upload:
            return {"error": str(error)}
        return {"error": f"{upload!r} is too large when decoded; send a shorter part of it"}
    except MemoryError:
        return {"error": f"{upload!r} takes too much memory to decode; convert it to WAV or FLAC first"}
    except ValueError as error:
        return {"error": " ".join(str(error).split())}
    except ModuleNotFoundError as error:
        return {"error": f"{error.name} is missing on this server: pip install 'stylestream[midi]'"}


def _tags_in(upload: str) -> dict[str, Any]:
    """Its tags, as far as they are of a usual size; whatever is wrong with them, the song is a song."""
    from stylestream.audio import tags_of
    from stylestream.tags import Tags

    try:
        tags = tags_of(Path(upload))
        tags.fields = {name[:80]: [text[:2000] for text in texts[:20]] for name, texts in [*tags.fields.items()][:100]}
        tags.pictures = [p for p in tags.pictures[:4] if len(p.data) <= MAX_PICTURE_BYTES and re.fullmatch(r"image/[\w.+-]{1,40}", p.mime)]
        return tags.plain()
    except Exception:  # mutagen and libsndfile have many words for it
        return Tags().plain()


def _too_long(name: str, seconds: float | None, longest: float) -> str:
    def clock(s: float) -> str:
        return f"{int(s) // 60}:{int(s) % 60:02d}"

    said = f"lasts {clock(seconds)} minutes" if seconds else "is too long"
    return f"{name!r} {said}; at most {clock(longest)} minutes are taken here. Send a part of it, or use `stylestream transfer`"


if __name__ == "__main__":
    _, _upload, _target, *_bounds = sys.argv
    print(json.dumps(_decode_child(_upload, _target, *map(float, _bounds))))
