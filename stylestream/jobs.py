"""What visitors of the page wait for: songs played in a style while they are heard, styles trained; and the queue in which they wait.

Nothing here knows of HTTP; `serve` does. Trainings are child processes (``python -m stylestream.jobs``), at low priority.

Conventions: ids are unguessable, and who has one may use it. A job's state goes waiting → running → done, failed or cancelled, and
`Job.view` tells it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np

from stylestream.uploads import (
    Array,
    Limits,
    Refused,
    Song,
    Sound,
    clean_name,
    decode,
    excerpt_picture,
    flac,
    grey,
    import_path,
    in_words,
    png,
)

if TYPE_CHECKING:
    from stylestream.style import Card
    from stylestream.transfer import Hearing, StyleTransfer

EXCERPT_SECONDS = 8.0  # of a style's sample, of what is painted, of what a training lets one hear
LOADED_STYLES = 8  # kept in memory, a few megabytes each
LONG_SECONDS = 60.0  # a song that takes so long to be heard through that one plays its beginning before
BEGINNING_SECONDS = 20.0  # which is then what is heard of it
FADE_SECONDS = 0.05  # from that beginning to what is made once the song is known
LEAVE_SECONDS = 90.0  # a job whose page has gone is ended after so long; a tab that nobody looks at asks once a minute
BUNDLED_SONG = Path(__file__).parent / "demo" / "lamplight.ogg"
BUNDLED_TITLE = "Lamplight"


class Cancelled(Exception):
    """Raised inside a job's work when it is no longer wanted."""


# ---------------------------------------------------------------------------------------------------------------- styles


@dataclass
class Style:
    """A style on offer: bundled, installed, or a visitor's own."""

    name: str  # what `style` is set to in a request
    path: Path
    card: Card
    bundled: bool = False
    own: bool = False
    drums: bool = False
    width: bool = False  # whether it is known
    sample: bytes | None = None
    picture: bytes | None = None
    used: float = -math.inf  # when it was last asked for

    def view(self) -> dict[str, Any]:
        """What the page is told; no path."""
        keys = ("title", "description", "licence", "author", "training_minutes", "notes")
        card = {key: getattr(self.card, key) for key in keys}
        return {
            "name": self.name,
            **card,
            "hours": round(self.card.hours, 2),
            "bundled": self.bundled,
            "own": self.own,
            "drums": self.drums,
            "width": self.width,
        }


def _has(path: Path) -> dict[str, Any]:
    """Of the dials that not every style has, which a style file has."""
    from stylestream.style import has_drums, has_widths

    return {"drums": has_drums(path), "width": has_widths(path)}


class Styles:
    """The styles of this machine, loaded when they are first wanted."""

    def __init__(self, device: str = "cpu") -> None:
        from stylestream.style import list_styles

        self.device = device
        self._lock, self._sampling = threading.Lock(), threading.Lock()
        self._loaded: OrderedDict[str, StyleTransfer] = OrderedDict()
        self.known = {e.name: Style(e.name, e.path, e.card, e.bundled, **_has(e.path)) for e in list_styles() if e.card is not None}

    def offered(self) -> list[Style]:
        """Those that every visitor sees; own styles are for who has their name."""
        return [style for style in list(self.known.values()) if not style.own]

    def get(self, name: str) -> Style:
        """Find a style; an unknown one is `Refused` with the nearest name."""
        from stylestream.style import unknown_style

        if name in self.known:
            self.known[name].used = time.monotonic()
            return self.known[name]
        if name.startswith("own:"):
            raise Refused("that style is no longer here; train it again, or use its file with `stylestream transfer -s`", 404)
        raise Refused(unknown_style(name[:64], [style.name for style in self.offered()]).split("; see")[0], 404)

    def add(self, path: Path, card: Card) -> Style:
        """Take in a style that a visitor has trained."""
        style = Style(f"own:{secrets.token_urlsafe(12)}", path, card, own=True, **_has(path))
        self.known[style.name] = style
        return style

    def load(self, style: Style) -> StyleTransfer:
        """The network, from memory or the file."""
        from stylestream.transfer import load_style

        with self._lock:
            if style.name not in self._loaded:
                self._loaded[style.name] = load_style(style.path, device=self.device)
                while len(self._loaded) > LOADED_STYLES:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(style.name)
            return self._loaded[style.name]

    def remove(self, name: str) -> None:
        """Forget an own style."""
        with self._lock:
            self._loaded.pop(name, None)
            self.known.pop(name, None)

    def sample(self, style: Style) -> tuple[bytes, bytes]:
        """Some seconds of "Lamplight" in the style as FLAC, and their spectrogram as PNG; made once."""
        with self._sampling:  # one at a time: a page asks for all of them at once
            if style.sample is None or style.picture is None:
                from stylestream import audio

                y, sample_rate = audio.load(BUNDLED_SONG, max_seconds=EXCERPT_SECONDS)
                made = self.load(style).transfer(y, sample_rate)
                style.sample, style.picture = flac(made, sample_rate), png(excerpt_picture(made, sample_rate))
            return style.sample, style.picture

    def sample_all(self) -> None:
        """Make the samples of all styles on offer, before somebody asks."""
        for style in self.offered():
            with suppress(ValueError, OSError):  # whoever asks for this one is told why
                self.sample(style)


# ---------------------------------------------------------------------------------------------------------------- jobs


class Job(ABC):
    """Something heavy that a visitor waits for. Subclasses say in `work` what is done; it raises `Cancelled` when told to stop."""

    kind = "job"

    def __init__(self, folder: Path, address: str = "") -> None:
        self.id = secrets.token_urlsafe(16)
        self.folder, self.address = folder / self.id, address
        self.state, self.fraction, self.text, self.error = "waiting", 0.0, "", ""
        self.position, self.wait_seconds = 0, 0.0
        self.version = 0
        self.created = self.used = time.monotonic()
        self.began: float | None = None
        self.seconds = 0.0  # that the work took
        self.watched = False  # by a page, which may leave
        self._cancel = threading.Event()

    @abstractmethod
    def work(self) -> None:
        """Do it."""

    @abstractmethod
    def estimate_seconds(self, speed: float) -> float:
        """How long the work will take from its start, ``speed`` being seconds of music a second."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "failed", "cancelled")

    def tell(self, **changes: Any) -> None:
        """Change what `view` says; whoever watches sees a new version."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.version += 1

    def cancel(self) -> None:
        """Ask the work to stop; a waiting job is cancelled at once."""
        self._cancel.set()

    def check(self) -> None:
        """Raise `Cancelled` if nobody wants this any more."""
        if self._cancel.is_set():
            raise Cancelled

    def view(self) -> dict[str, Any]:
        """What the page is told."""
        names = ("id", "kind", "state", "text", "error", "position")
        return {
            **{name: getattr(self, name) for name in names},
            "fraction": round(self.fraction, 4),
            "wait_seconds": round(self.wait_seconds, 1),
            "seconds": round(self.seconds, 2),
        }


class TransferJob(Job):
    """A song in a style, to be heard while it is made."""

    kind = "transfer"

    def __init__(self, folder: Path, song: Song, style: Style, styles: Styles, dials: dict[str, Any], address: str = "") -> None:
        super().__init__(folder, address)
        self.song, self.style, self._styles = song, style, styles
        self.dials = {name: dials[name] for name in ("strength", "dream", "grain", "drums", "width", "seed")}
        rate, channels = song.sound.sample_rate, song.sound.channels
        self.heard = Sound(self.folder / "heard", rate, channels)  # levelled as it came
        self.made = Sound(self.folder / "made", rate, channels)  # as the network made it; what the files are written from
        self.canvases: tuple[int, bytes] | None = None
        self.loudness_lufs = self.true_peak_db = -math.inf
        self._writing = threading.Lock()

    def estimate_seconds(self, speed: float) -> float:
        """As `Job.estimate_seconds`."""
        return 1 + self.song.sound.seconds / speed

    @property
    def sound(self) -> Sound:
        """What can be heard of it now."""
        return self.made if self.state == "done" else self.heard

    def view(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            **super().view(),
            "song": self.song.view(),
            "style": self.style.view(),
            "dials": self.dials,
            "samples": self.sound.samples,
            "painted": self.canvases is not None,
        }

    def work(self) -> None:
        """Listen, play, level."""
        from stylestream import audio
        from stylestream.transfer import PEAK_RAMP, Dials, final_gain

        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.tell(text="reading the style")
        style, sound = self._styles.load(self.style), self.song.sound
        self.tell(text="listening to the song")
        low = self.dials["strength"] < PEAK_RAMP
        ends = self._begin(style) if sound.seconds > LONG_SECONDS and not self.song.is_heard(style, peak=low) else None
        song = self.song.hearing(style, peak=low, progress=self._listened)
        loudness, peak = audio.LoudnessMeter(sound.sample_rate, sound.channels), audio.TruePeakMeter(sound.sample_rate, sound.channels)

        def keep(y: Array) -> None:
            self.made.append(y)
            loudness.push(y)
            peak.push(y)

        self.tell(text="playing", fraction=0.1)
        with closing(style.stream(self._blocks, song, Dials(**self.dials), keep=keep)) as heard:
            for y in heard:
                self.heard.append(y if ends is None else self._joined(ends, y))
                ends = None
                self.tell(fraction=0.1 + 0.88 * self.heard.samples / max(sound.samples, 1))
                if self.canvases is None and self.heard.samples:
                    self._paint(style, song)
                self.check()
        self.made.gain = final_gain(song, loudness.integrated_lufs, peak.true_peak_db, self.dials["strength"])
        self.loudness_lufs, self.true_peak_db = loudness.integrated_lufs, peak.true_peak_db

    def _begin(self, style: StyleTransfer) -> Array:
        """Let the first seconds sound, played to what their own beginning tells of the song, while the rest is listened to.

        Returns
        -------
        array [shape=(C, n)]
            Their end, kept back, to fade from.
        """
        from stylestream.transfer import FIRST_SECONDS, Dials

        rate, channels = self.song.sound.sample_rate, self.song.sound.channels
        song = style.listen(lambda: self._blocks(BEGINNING_SECONDS), rate, channels)
        seen = FIRST_SECONDS + style.overlap_frames / style.config.frames_per_second + 0.2  # what the first chunk sees
        with closing(style.stream(lambda: self._blocks(seen), song, Dials(**self.dials))) as heard:
            y = next(heard)
            fade = round(FADE_SECONDS * rate)
            self.heard.append(y[:, :-fade])
            self.tell()
        return y[:, -fade:]

    def _joined(self, ends: Array, y: Array) -> Array:
        """Of the first block, what has not sounded yet, faded in."""
        y = y[:, self.heard.samples :]
        count = min(ends.shape[1], y.shape[1])
        share = np.linspace(0, 1, count, dtype=np.float32)
        return np.concatenate([ends[:, :count] * (1 - share) + y[:, :count] * share, y[:, count:]], axis=1)

    def _blocks(self, seconds: float = math.inf) -> Iterator[Array]:
        sound = self.song.sound
        left = round(min(seconds, sound.seconds) * sound.sample_rate)
        for y in sound.blocks():
            self.check()
            yield y[:, :left]
            left -= y.shape[1]
            if left <= 0:
                return

    def _listened(self, samples: int) -> None:
        self.check()
        self.tell(fraction=0.08 * samples / max(self.song.sound.samples, 1))

    def _paint(self, style: StyleTransfer, song: Hearing) -> None:
        """The canvases of some seconds, from a quarter into the song, where the music has begun."""
        import torch

        from stylestream import audio

        sound = self.song.sound
        count = round(EXCERPT_SECONDS * sound.sample_rate)
        start = max(min(sound.samples // 4, sound.samples - count), 0)
        y = audio.resample(sound.read(start, start + count) * np.float32(song.gain), sound.sample_rate, style.config.sample_rate)
        dials = {name: value for name, value in self.dials.items() if name not in ("strength", "drums", "width")}
        x = style.canvases(torch.from_numpy(np.ascontiguousarray(y)), **dials).cpu().numpy()  # (K + 2, F, T)
        peak = x[[0, -1]].max()
        self.tell(canvases=(x.shape[0], png(np.concatenate([grey(np.minimum(c + (1 - peak), 1), style.config.floor_db) for c in x]))))

    def file(self, suffix: str) -> Path:
        """The result as a file of this kind, written when it is first wanted."""
        from stylestream import audio

        if self.state != "done":
            raise Refused("the result is not finished yet; wait until it is", 409)
        stem, style = Path(self.song.name).stem, clean_name(self.style.path.stem if self.style.own else self.style.name)
        while len(stem.encode()) > 120:  # file systems count bytes
            stem = stem[:-1]
        path = self.folder / f"{stem}-{style}.{suffix}"
        with self._writing:
            if not path.exists():
                self._write(path, audio)
        return path

    def _write(self, path: Path, audio: Any) -> None:
        from stylestream.transfer import MAX_TRUE_PEAK_DB, Dials, codec_margin_db, how_it_was_made

        sound = self.made
        output = audio.output_format(audio.SongInfo(sound.sample_rate, sound.channels, sound.samples, "", "", sound.seconds), path)
        peak_db = self.true_peak_db + 20 * math.log10(max(sound.gain, 1e-9))  # of silence nothing is left
        margin_db = codec_margin_db(output.subtype)
        over_db = peak_db - (MAX_TRUE_PEAK_DB - margin_db) if margin_db else 0.0
        margin = np.float32(10 ** (-max(over_db, 0.0) / 20))
        resampler = audio.Resampler(sound.sample_rate, output.sample_rate, sound.channels)
        # a Writer may change them; and they are plain here, for only the child has read the upload
        tags, comment = self.song.tags(), how_it_was_made(self.style.card, Dials(**self.dials))
        with audio.Writer(path, **vars(output), tags=tags, comment=comment) as out:
            for y in sound.blocks():
                out.write(resampler.push(y * margin))
            out.write(resampler.flush())


class TrainJob(Job):
    """A style made of a visitor's songs, in a child process."""

    kind = "train"

    def __init__(self, folder: Path, songs: list[Song], title: str, minutes: float, styles: Styles, address: str = "") -> None:
        super().__init__(folder, address)
        self.songs, self.minutes, self._styles = songs, minutes, styles
        self.title = "".join(c for c in title if c.isprintable()).strip()[:60] or "my style"
        self.rows: list[dict[str, float]] = []
        self.lines: list[str] = []
        self.style: Style | None = None
        self.excerpts: list[tuple[str, bytes]] = []
        self._previews: set[str] = set()

    def estimate_seconds(self, speed: float) -> float:
        """As `Job.estimate_seconds`."""
        return 60 * self.minutes + 20

    def view(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            **super().view(),
            "title": self.title,
            "minutes": self.minutes,
            "rows": self.rows,
            "lines": self.lines,
            "excerpts": [title for title, _ in self.excerpts],
            "style": self.style.view() if self.style else None,
        }

    def work(self) -> None:
        """Put the songs into a folder, train, make excerpts."""
        from stylestream.style import read_card, update_card

        source, out = (
            self.folder / "songs",
            self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.title).strip('-.') or 'own'}.safetensors",
        )
        source.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.tell(text="gathering the songs")
        for number, song in enumerate(self.songs):
            self._put(song, source, number)
        self._train(source, out)
        update_card(out, title=self.title)
        self.style = self._styles.add(out, read_card(out))
        self.tell(text="playing excerpts", fraction=0.99)
        self._play_excerpts()
        shutil.rmtree(source, ignore_errors=True)

    def _put(self, song: Song, source: Path, number: int) -> None:
        """A score as it came, for it teaches more; a recording as it was decoded."""
        import soundfile

        if song.kind == "MIDI":
            shutil.copyfile(song.upload, source / f"{number:03d}.mid")
            return
        with soundfile.SoundFile(source / f"{number:03d}.wav", "w", song.sound.sample_rate, song.sound.channels, "PCM_16") as file:
            for y in song.sound.blocks():
                self.check()
                file.write(np.clip(y, -1, 1).T)

    def _train(self, source: Path, out: Path) -> None:
        command = [sys.executable, "-m", "stylestream.jobs", str(source), str(out), str(self.minutes)]
        environment = {**os.environ, "PYTHONPATH": import_path()}
        with open(self.folder / "train.log", "wb") as errors:
            child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        watcher = threading.Thread(target=self._end_when_cancelled, args=(child,), daemon=True)
        watcher.start()
        assert child.stdout is not None
        error = ""
        for line in child.stdout:
            with suppress(ValueError, KeyError, TypeError):
                error = self._heard(json.loads(line)) or error
            self._take_previews(out.with_name(out.name + ".ckpt") / "preview")
        code = child.wait()
        child.stdout.close()
        self.check()
        if error or code or not out.exists():
            raise Refused(error or "the training broke off; try again with fewer or other songs")

    def _end_when_cancelled(self, child: subprocess.Popen[bytes]) -> None:
        while child.poll() is None:
            if self._cancel.wait(0.2):
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(5)
                    return
                child.kill()

    def _heard(self, message: dict[str, Any]) -> str:
        """Take in a line of the child; the error if it tells one."""
        if "row" in message:
            self.rows.append({str(key): float(value) for key, value in message["row"].items()})
            self.tell()
        elif "progress" in message:
            phase, done, text = message["progress"]
            share = 0.2 * done if phase == "rendering" else 0.2 + 0.78 * done
            self.tell(fraction=max(self.fraction, min(share, 0.98)), text=str(text))
        elif "line" in message:
            self.lines.append(str(message["line"])[:300])
            self.tell()
        return str(message.get("error", ""))

    def _take_previews(self, folder: Path) -> None:
        """What the training lets one hear on the way: of a held-out passage the song, the result, and what it should be."""
        import soundfile

        for path in sorted(folder.glob("step-*.ogg"), key=lambda path: path.stat().st_mtime):
            if path.name not in self._previews:
                self._previews.add(path.name)
                y, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
                steps = path.stem.partition("-")[2]
                title = f"after {steps} step{'s' * (steps != '1')}: a song, the style so far, what it should be"
                self.excerpts.append((title, flac(y.T, sample_rate)))
                self.tell()

    def _play_excerpts(self) -> None:
        from stylestream import audio

        assert self.style is not None
        style = self._styles.load(self.style)
        y, rate = audio.load(BUNDLED_SONG, max_seconds=EXCERPT_SECONDS)
        own = self.songs[0].sound
        start = max(min(own.samples // 4, own.samples - round(EXCERPT_SECONDS * own.sample_rate)), 0)
        excerpts = [(f"“{BUNDLED_TITLE}” in your style", y, rate)]
        excerpts.append(
            (
                f"“{self.songs[0].name}” through your style",
                own.read(start, start + round(EXCERPT_SECONDS * own.sample_rate)),
                own.sample_rate,
            )
        )
        for title, song, sample_rate in excerpts:
            self.excerpts.append((title, flac(style.transfer(song, sample_rate)[:2], sample_rate)))
            self.tell()


# ---------------------------------------------------------------------------------------------------------------- the desk


class Desk:
    """Where jobs wait their turn, first come, first served, and where songs and results lie until nobody asks for them.

    Parameters
    ----------
    folder : Path
        Private; removed by `close`.
    slots : int
        Transfers at once: one for each set of cores that a transfer uses. Trainings have one slot of their own, at low priority.
    exchange : Path, optional
        Another folder in which visitors' files lie for a while; it counts with the desk's own, and what is old in it is removed.
    """

    def __init__(self, folder: Path, styles: Styles, limits: Limits, *, slots: int = 1, exchange: Path | None = None) -> None:
        limits.check()
        self.folder, self.styles, self.limits, self.slots, self.exchange = folder, styles, limits, slots, exchange
        self.songs: dict[str, Song] = {}
        self.jobs: dict[str, Job] = {}
        self.speed = 10.0  # seconds of music a second; learned
        self.counts: Counter[tuple[str, str]] = Counter()  # (kind, how it ended)
        self.work_seconds: dict[str, float] = {"transfer": 0.0, "train": 0.0}
        self.music_seconds = 0.0
        self.decoders = anyio.CapacityLimiter(2)  # uploads decoded at once: who waits for it keeps no thread from others
        self.closing = False
        self._unheard: deque[Song] = deque()
        self._bundling = threading.Lock()
        self._waiting: dict[str, deque[Job]] = {"transfer": deque(), "train": deque()}
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._open = True
        self._threads = [threading.Thread(target=self._serve, args=("transfer",), daemon=True) for _ in range(slots)]
        self._threads += [threading.Thread(target=self._serve, args=("train",), daemon=True)]
        self._threads += [threading.Thread(target=work, daemon=True) for work in (self._sweep, self._listen)]
        for thread in self._threads:
            thread.start()

    # -- songs ------------------------------------------------------------------------------------------------------

    def new_upload(self, name: str) -> Path:
        """A path in a new private folder, to write an upload to."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder / clean_name(name)

    def add_song(self, upload: Path, address: str = "") -> Song:
        """Decode an upload that lies in its own folder of the desk; what cannot be decoded is removed and `Refused`. Takes seconds."""
        try:
            self.check_room()
            about = decode(upload, upload.parent / ".decoded", self.limits)
        except BaseException:
            shutil.rmtree(upload.parent, ignore_errors=True)
            self.counts["decode", "failed"] += 1
            raise
        self.counts["decode", "done"] += 1
        sound = Sound(upload.parent / ".decoded", about["sample_rate"], about["channels"])
        song = Song(upload.parent.name, upload.name, upload.parent, upload, sound, about["kind"], about["warnings"], about["tags"], address)
        self._take_in(song)
        return song

    def _take_in(self, song: Song) -> None:
        self.songs[song.id] = song
        with self._changed:
            self._unheard.append(song)
            self._changed.notify_all()

    def bundled_song(self) -> Song:
        """The song that comes with the package."""
        with self._bundling:
            if "lamplight" not in self.songs:
                folder = self.folder / "lamplight"
                folder.mkdir(mode=0o700, exist_ok=True)
                upload = folder / f"{BUNDLED_TITLE}.ogg"
                shutil.copyfile(BUNDLED_SONG, upload)
                about = decode(upload, folder / ".decoded", self.limits)
                sound = Sound(folder / ".decoded", about["sample_rate"], about["channels"])
                self._take_in(Song("lamplight", upload.name, folder, upload, sound, about["kind"], [], about["tags"]))
        return self.songs["lamplight"]

    def song(self, id: str) -> Song:
        """Find a song; an unknown one is `Refused`."""
        if id == "lamplight":
            return self.bundled_song()
        if id not in self.songs:
            raise Refused("that song is no longer here; send it again", 404)
        self.songs[id].used = time.monotonic()
        return self.songs[id]

    def check_room(self) -> None:
        """Raise Refused if songs and results fill what they may fill."""
        if self.stored_bytes() > self.limits.store_mb * 1e6:
            raise Refused("this machine is full of songs; try again in an hour", 507)

    def stored_bytes(self) -> int:
        """Bytes of all songs and results."""
        total = 0
        for root in (self.folder, self.exchange) if self.exchange else (self.folder,):
            for folder, _, names in os.walk(root):  # it passes over folders that are removed meanwhile
                for name in names:
                    with suppress(OSError):
                        total += os.lstat(os.path.join(folder, name)).st_size
        return total

    # -- jobs -------------------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Job:
        """Put a job into the queue.

        Raises
        ------
        Refused
            If the queue is full, or this address has enough in it.
        """
        with self._changed:
            if not self._open:
                raise Refused("the server is closing", 503)
            unfinished = [other for other in list(self.jobs.values()) if not other.finished]
            if len(unfinished) - len(self._running) >= self.limits.queue:
                raise Refused("too many are waiting; try again in a few minutes", 503)
            if sum(other.address == job.address for other in unfinished) >= self.limits.address_jobs:
                raise Refused(
                    f"{self.limits.address_jobs} of yours are waiting or in work already; wait for one of them, or cancel it", 429
                )
            self.jobs[job.id] = job
            self._waiting[job.kind].append(job)
            self._number()
            self._changed.notify_all()
        return job

    def job(self, id: str) -> Job:
        """Find a job; an unknown one is `Refused`."""
        if id not in self.jobs:
            raise Refused("that result is no longer here; make it again", 404)
        job = self.jobs[id]
        job.used = time.monotonic()
        for song in songs_of(job) if isinstance(job, TransferJob) else []:
            song.used = job.used  # who hears a result compares it with its song
        return job

    def cancel(self, job: Job) -> None:
        """End a job: at once if it waits, within about a second if it is in work."""
        job.cancel()
        with self._changed:
            if job in self._waiting[job.kind]:
                self._waiting[job.kind].remove(job)
                self.counts[job.kind, "cancelled"] += 1
                job.tell(state="cancelled", text="cancelled")
                self._number()

    def queue_lengths(self) -> dict[str, int]:
        """Jobs waiting, by kind."""
        return {kind: len(jobs) for kind, jobs in self._waiting.items()}

    def running(self) -> dict[str, int]:
        """Jobs in work, by kind."""
        return {kind: sum(job.kind == kind for job in self._running) for kind in self._waiting}

    def _number(self) -> None:
        """Tell everyone who waits their place, and how long it will take."""
        for kind, jobs in self._waiting.items():
            slots = self.slots if kind == "transfer" else 1
            ahead = sum(self._left_seconds(job) for job in self._running if job.kind == kind)
            busy = sum(job.kind == kind for job in self._running) >= slots
            for position, job in enumerate(jobs, 1 if busy else 0):
                if (job.position, round(job.wait_seconds)) != (position, round(ahead / slots)):
                    job.tell(position=position, wait_seconds=ahead / slots)
                ahead += job.estimate_seconds(self.speed)

    def _left_seconds(self, job: Job) -> float:
        return max(job.estimate_seconds(self.speed) * (1 - job.fraction), 0.5)

    def _serve(self, kind: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting[kind] or not self._open)
                if not self._open:
                    return
                job = self._waiting[kind].popleft()
                self._running.append(job)
                self._number()
            self._do(job)
            with self._changed:
                self._running.remove(job)
                self._number()
                self._changed.notify_all()

    def _listen(self) -> None:
        """Hear songs through as they come, while their visitors choose a style: then the first sound comes sooner."""
        with suppress(Exception):  # whoever wants to use a style that cannot be loaded is told so
            self.styles.load(self.styles.offered()[0])
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unheard or not self._open)
                if not self._open:
                    return
                song = self._unheard.popleft()
            with suppress(Exception):  # a job that needs it says what is wrong
                self.picture(song)

    def picture(self, song: Song) -> bytes:
        """A song's spectrogram as PNG: what its first hearing sees."""
        if song.picture is None:
            song.hearing(self.styles.load(self.styles.offered()[0]), peak=False)
        assert song.picture is not None
        return song.picture

    def _do(self, job: Job) -> None:
        job.began = time.monotonic()
        job.tell(state="running", position=0, wait_seconds=0.0)
        try:
            job.check()
            job.work()
            ended: dict[str, Any] = {"state": "done", "text": "done", "fraction": 1.0}
        except Cancelled:
            ended = {"state": "cancelled", "text": "cancelled"}
        except Exception as error:
            ended = {"state": "failed", "text": "failed", "error": in_words(error, job.folder)}
        if ended["state"] != "done":
            shutil.rmtree(job.folder, ignore_errors=True)
        seconds = time.monotonic() - job.began
        job.used = time.monotonic()
        self._account(job, str(ended["state"]), seconds)
        job.tell(**ended, seconds=seconds)
        if isinstance(job, TransferJob):
            job.heard.path.unlink(missing_ok=True)  # from now on `sound` is what was made
        if len(self._running) == 1:
            give_back_memory()

    def _account(self, job: Job, state: str, seconds: float) -> None:
        self.counts[job.kind, state] += 1
        self.work_seconds[job.kind] += seconds
        if isinstance(job, TransferJob) and state == "done":
            music = job.song.sound.seconds
            self.music_seconds += music
            if music > 5:  # of a shorter song one measures the start
                self.speed += 0.3 * (max(music / max(seconds, 0.1), 0.1) - self.speed)

    # -- what nobody asks for ---------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: not self._open, timeout=5):
                    return
            with suppress(Exception):
                self.sweep()

    def sweep(self, now: float | None = None) -> None:
        """Remove what has not been asked for in `Limits.keep_minutes`, and end jobs whose page has gone."""
        now = time.monotonic() if now is None else now
        keep = 60 * self.limits.keep_minutes
        for job in list(self.jobs.values()):
            if not job.finished and job.watched and now - job.used > LEAVE_SECONDS:
                self.cancel(job)
            elif job.finished and now - last_used(job) > keep and not self.style_in_use(job):
                self.remove_job(job)
        busy = {song.id for job in list(self.jobs.values()) if not job.finished for song in songs_of(job)}
        for song in list(self.songs.values()):
            if song.id not in busy and song.id != "lamplight" and now - song.used > keep:
                self.remove_song(song)
        for place in self.exchange.iterdir() if self.exchange else ():
            with suppress(OSError):  # it may go meanwhile
                if place.stat().st_mtime < time.time() - keep:
                    shutil.rmtree(place, ignore_errors=True)
        give_back_memory()

    def remove_song(self, song: Song) -> None:
        """Remove an upload and all that was decoded of it."""
        self.songs.pop(song.id, None)
        shutil.rmtree(song.folder, ignore_errors=True)

    def style_in_use(self, job: Job) -> bool:
        """Whether somebody waits for a song in the style that a training made."""
        style = job.style if isinstance(job, TrainJob) else None
        waiting = [other.style for other in list(self.jobs.values()) if isinstance(other, TransferJob) and not other.finished]
        return style is not None and any(other is style for other in waiting)

    def remove_job(self, job: Job) -> None:
        """Remove a finished job, its result, and the style it made."""
        self.jobs.pop(job.id, None)
        if isinstance(job, TrainJob) and job.style:
            self.styles.remove(job.style.name)
        shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """End all work and remove the folder."""
        with self._changed:
            self._open = False
            for job in self.jobs.values():
                job.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def give_back_memory() -> None:
    """Ask the allocator to return to the system what is free; glibc keeps it for each thread there ever was."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def last_used(job: Job) -> float:
    """When a job, or the style it made, was last asked for."""
    style = job.style if isinstance(job, TrainJob) else None
    return max(job.used, style.used if style else -math.inf)


def songs_of(job: Job) -> list[Song]:
    """The songs that a job needs."""
    return [job.song] if isinstance(job, TransferJob) else job.songs if isinstance(job, TrainJob) else []


# ---------------------------------------------------------------------------------------------------------------- the child


def _train_child(source: str, out: str, minutes: float) -> dict[str, Any]:
    with suppress(OSError, AttributeError):
        os.nice(10)  # whoever listens comes first
    from stylestream import workshop

    def say(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    try:
        workshop.train(
            [source],
            out,
            minutes=minutes,
            jobs=1,
            report=lambda row: say(row={key: value for key, value in row.items() if math.isfinite(value)}),
            progress=lambda phase, done, text: say(progress=[phase, done, text]),
            say=lambda line: say(line=line.replace(f"{source}{os.sep}", "")),
        )
    except (ValueError, OSError, MemoryError, FloatingPointError, ModuleNotFoundError) as error:
        return {"error": in_words(error, Path(source)) if not isinstance(error, FloatingPointError) else str(error)}
    return {}


if __name__ == "__main__":
    _, _source, _out, _minutes = sys.argv
    print(json.dumps(_train_child(_source, _out, float(_minutes))))
