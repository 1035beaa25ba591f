"""What is wrong with a folder of music, before hours are spent on it: a line for each file, and a verdict on the whole.

A *finding* is one thing worth saying of a file or of all of them: what it is, and what to do about it. A *fault* is a file that cannot be
used, a *warning* one that can and perhaps should not be, a *note* is no more than that. Nothing a file contains makes this module fail:
that would be a finding too.

Conventions: levels in dB re full scale; ``y`` is (C, n) float32; sound is heard once, block by block, in memory that does not grow with
its length. Scores are read, not played.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stylestream.groups import COMMON, MIN_RESEMBLANCE, MIN_SHARED, resemblance
from stylestream.sources import SONG_SUFFIXES, file_id, find

Severity = Literal["note", "warning", "fault"]
_RANK = {"note": 0, "warning": 1, "fault": 2}

SILENT_LUFS = -60.0  # a dataset refuses what is softer
QUIET_LUFS = -40.0  # raised to the working level, −20 LUFS, its noise comes up by 20 dB too
SILENCE_DB = -60.0  # of a tenth of a second: softer is a pause
SILENT_SHARE = 0.3  # of a song: more than pauses between phrases
SILENT_SECONDS = 10.0  # at one end of a song: more than a fade
MAX_DC = 0.02  # of full scale; one in thirty recordings has half of that, and it harms nothing
FULL_SCALE = 0.9995  # 16 bits reach 0.99997; a limiter's ceiling lies lower
CLIPPED_SHARE = 1e-4  # of samples: five in a second; single overs of a coder are inaudible
CANCELLING_DB = -9.0  # mono fold-down of a stereo song below its channels; unrelated channels lose 3
DEAD_CHANNEL_DB = -60.0
SHORT_SECONDS = 4.0  # a training passes over what is shorter
LONG_SECONDS = 600.0  # a training hears the first ten minutes of a recording
LOW_SAMPLE_RATE = 32_000  # the nine octaves of the features end at 16.7 kHz
LITTLE_SECONDS = 10 * 60.0  # a style that heard less knows its songs by heart
ENOUGH_SECONDS = 60 * 60.0  # the bundled styles heard about seventy minutes each
FEW_SONGS = 10
MIN_TEMPO, MAX_TEMPO = 20.0, 400.0  # quarter notes a minute
DRONE_SECONDS = 60.0
UNLIKE_DB = 8.0  # of fifty recordings in six styles four are farther from their style's median spectrum
TIMEOUT_SECONDS, MEMORY_MIB = 300.0, 2048  # that one file may take
HANGS = 60.0  # seconds more, and its worker is ended: a slow file gives up by itself, one that hangs its decoder does not
BANDS_HZ = tuple(50.0 * 2 ** (k / 3) for k in range(25))  # thirds of an octave, 50 Hz to 12.8 kHz

FAMILIES = (
    *("piano", "mallets", "organ", "guitar", "bass", "solo strings", "ensemble", "brass"),
    *("reeds", "flutes", "synth lead", "synth pad", "synth effects", "ethnic", "percussion", "sound effects"),
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Finding:
    """One thing that was found, and what to do about it."""

    name: str  # for programs: "silent", "clipped", …
    severity: Severity
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Sound:
    """What was heard of a recording."""

    format: str
    subtype: str
    sample_rate: int  # Hz
    channels: int
    seconds: float
    loudness_lufs: float | None  # None: silence
    peak_db: float | None
    dc: float  # the largest of any channel, of full scale
    clipped_share: float  # of samples that lie in runs at full scale, or above it
    silent_share: float  # of tenths of a second
    silent_start_seconds: float
    silent_end_seconds: float
    mono_db: float | None  # level of the mean of the channels re the channels' own
    softest_channel_db: float | None
    spectrum_db: tuple[float, ...] = field(default=(), repr=False)  # mean level in BANDS_HZ; empty if silent
    sound_id: str = ""  # hash of the samples: the same in WAV and FLAC
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """What was read of a MIDI file."""

    seconds: float
    notes: int
    parts: int
    instruments: tuple[str, ...]  # families, the most played first
    programs: tuple[int, ...]  # General MIDI, ascending
    drum_notes: int
    stuck_notes: int
    longest_note_seconds: float
    slowest_tempo: float  # quarter notes a minute
    fastest_tempo: float
    silent_start_seconds: float
    melody: tuple[int, ...] = field(default=(), repr=False)  # recipes.melody_fingerprint
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkup:
    """What was found out about one file."""

    path: str
    style: str = ""
    id: str = ""  # hash of the bytes
    sound: Sound | None = None
    score: Score | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def severity(self) -> Severity | None:
        """The gravest of the findings."""
        return max((finding.severity for finding in self.findings), key=_RANK.__getitem__, default=None)

    @property
    def usable(self) -> bool:
        """Whether a dataset or a training can use it."""
        return self.severity != "fault"

    @property
    def seconds(self) -> float:
        """Length, 0 where it is not known."""
        heard = self.sound or self.score
        return heard.seconds if heard else 0.0


# --- one recording -----------------------------------------------------------------------------------------------------------------


class _Ear:
    """Statistics of a waveform that comes in blocks."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        from stylestream.audio import LoudnessMeter

        self.sample_rate, self.channels = sample_rate, channels
        self.samples = self.clipped = 0
        self._meter = LoudnessMeter(sample_rate, channels)
        self._digest = hashlib.sha256(f"{sample_rate} {channels}".encode())
        self._sum, self._power, self._fold_power = np.zeros(channels), np.zeros(channels), 0.0
        self._peak = np.zeros(channels)
        self._last = np.zeros((channels, 3), bool)  # whether the last three samples were at full scale
        self._open = np.zeros((channels, 0), np.float32)
        self._levels: list[Array] = []  # level of each tenth of a second, one array a block
        self._n_fft = 2 ** round(math.log2(0.09 * sample_rate))
        self._spectrum, self._spectra = np.zeros(self._n_fft // 2 + 1), 0

    def push(self, y: Array) -> None:
        self.samples += y.shape[1]
        self._meter.push(y)
        self._digest.update(y.T.tobytes())  # sample by sample: the same however it is cut into blocks
        self._sum += y.sum(axis=1, dtype=np.float64)
        self._power += np.square(y).sum(axis=1, dtype=np.float64)
        fold = y.mean(axis=0)
        self._fold_power += float(np.square(fold).sum(dtype=np.float64))
        self._peak = np.maximum(self._peak, np.abs(y).max(axis=1))
        self._count_clipped(y)
        self._measure_pauses(y)
        self._add_spectra(fold)

    def _count_clipped(self, y: Array) -> None:
        top = np.concatenate([self._last, np.abs(y) >= FULL_SCALE], axis=1)
        if top.any():
            runs = top[:, :-2] & top[:, 1:-1] & top[:, 2:]  # a wave may touch full scale; one that stays there was cut off
            begun = runs[:, 1:] & ~runs[:, :-1]
            self.clipped += int(runs[:, 1:].sum() + 2 * begun.sum())
        self._last = top[:, -3:]

    def _measure_pauses(self, y: Array) -> None:
        y, window = np.concatenate([self._open, y], axis=1), max(self.sample_rate // 10, 1)
        whole = y.shape[1] // window * window
        if whole:
            # the deviation, not the power: a constant is silence
            self._levels.append(y[:, :whole].reshape(self.channels, -1, window).std(axis=2).max(axis=0).astype(np.float32))
        self._open = y[:, whole:].copy()

    def _add_spectra(self, fold: Array, *, each: int = 4) -> None:
        """A few short spectra from every block: enough for a mean."""
        if fold.size < self._n_fft:
            fold = np.pad(fold, (0, self._n_fft - fold.size)) if not self._spectra else fold[:0]
        starts = np.linspace(0, fold.size - self._n_fft, each).astype(int) if fold.size else ()
        for start in sorted(set(starts)):
            bins = np.fft.rfft(fold[start : start + self._n_fft] * np.hanning(self._n_fft))
            self._spectrum += np.square(np.abs(bins))
            self._spectra += 1

    def conclude(self, format: str, subtype: str, damage: Sequence[str]) -> Sound:
        levels = np.concatenate([*self._levels, self._open.std(axis=1).max(keepdims=True)] if self._open.size else self._levels)
        silent = levels < 10 ** (SILENCE_DB / 20)
        sounding = np.flatnonzero(~silent)
        first, last = (sounding[0], sounding[-1]) if sounding.size else (len(silent), -1)
        power = self._power / self.samples
        loudness = self._meter.integrated_lufs
        return Sound(
            format=format,
            subtype=subtype,
            sample_rate=self.sample_rate,
            channels=self.channels,
            seconds=round(self.samples / self.sample_rate, 3),
            loudness_lufs=round(loudness, 1) if math.isfinite(loudness) else None,
            peak_db=_db(float(self._peak.max())),
            dc=round(float(np.abs(self._sum).max()) / self.samples, 5),
            clipped_share=self.clipped / (self.samples * self.channels),
            silent_share=round(float(silent.mean()), 4),
            silent_start_seconds=round(first / 10, 1),
            silent_end_seconds=round((len(silent) - 1 - last) / 10, 1) if sounding.size else 0.0,
            mono_db=_db(math.sqrt(self._fold_power / self.samples / power.mean())) if power.any() else None,
            softest_channel_db=_db(float(self._peak.min())),
            spectrum_db=self._bands_db() if sounding.size else (),
            sound_id=self._digest.hexdigest()[:16],
            damage=tuple(damage),
        )

    def _bands_db(self) -> tuple[float, ...]:
        bins_hz = np.fft.rfftfreq(self._n_fft, 1 / self.sample_rate)
        edges = np.searchsorted(bins_hz, [hz * 2 ** (-1 / 6) for hz in (*BANDS_HZ, BANDS_HZ[-1] * 2 ** (1 / 3))])
        power = [self._spectrum[a : max(b, a + 1)].sum() if a < len(bins_hz) else 0.0 for a, b in itertools.pairwise(edges)]
        levels_db = 10 * np.log10(np.array(power) + 1e-12 * max(power) + 1e-30)
        return tuple(round(float(level), 1) for level in levels_db - levels_db.max())


def _db(amplitude: float) -> float | None:
    return round(20 * math.log10(amplitude), 1) if amplitude > 0 else None


def listen(path: str | Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Sound:
    """Hear a recording once, from end to end.

    Raises
    ------
    ValueError, OSError
        As :class:`stylestream.audio.Reader`; also if it takes longer than ``timeout_seconds``.
    """
    from stylestream.audio import Reader

    until = time.monotonic() + timeout_seconds
    with Reader(path) as song:
        ear = _Ear(song.sample_rate, song.channels)
        for y in song.blocks():
            ear.push(y)
            if time.monotonic() > until:
                raise ValueError(f"hearing it takes more than {timeout_seconds:g} s; cut it into parts")
        return ear.conclude(song.format, song.subtype, song.warnings)


def sound_findings(sound: Sound) -> Iterator[Finding]:
    """What is to be said of a recording, from what was heard."""
    for text in sound.damage:
        yield Finding("damaged", "warning", text, "get a whole copy; what decodes is used")
    if sound.loudness_lufs is None or sound.loudness_lufs < SILENT_LUFS:
        yield Finding("silent", "fault", "it is silent", "remove it, or export it again with the right input")
    elif sound.seconds < SHORT_SECONDS:
        yield _too_short(sound.seconds)
    else:
        yield from _level_findings(sound)
    if sound.channels == 2 and sound.peak_db is not None and sound.loudness_lufs is not None:
        yield from _stereo_findings(sound)
    if sound.seconds > LONG_SECONDS:
        heard = f"a training hears the first {LONG_SECONDS / 60:.0f} minutes"
        yield Finding("long", "note", f"{_clock(sound.seconds)} long", f"{heard}; cut it into songs to use all of it")
    if sound.sample_rate < LOW_SAMPLE_RATE:
        text = f"{sound.sample_rate / 1000:g} kHz: nothing above {sound.sample_rate / 2000:.1f} kHz"
        yield Finding("low-rate", "warning", text, "use the original recording; a style learns dull sound from it")


def _too_short(seconds: float) -> Finding:
    return Finding(
        "short", "warning", f"{seconds:.2g} s long", f"join short pieces: a training passes over what is under {SHORT_SECONDS:g} s"
    )


def _level_findings(sound: Sound) -> Iterator[Finding]:
    assert sound.loudness_lufs is not None
    if sound.loudness_lufs < QUIET_LUFS:
        text = f"very quiet ({_lufs(sound.loudness_lufs)})"
        yield Finding("quiet", "warning", text, "record or export it louder: its noise is raised too")
    if sound.clipped_share > CLIPPED_SHARE:
        text = f"clipped: {_percent(sound.clipped_share)} of the samples are at full scale"
        yield Finding("clipped", "warning", text, "use a copy that was not limited so hard, if there is one")
    if sound.dc > MAX_DC:
        text = f"its mean is not zero (DC {_percent(sound.dc)} of full scale)"
        yield Finding("dc", "warning", text, "high-pass it at 20 Hz; the rest is usable")
    ends = sound.silent_start_seconds, sound.silent_end_seconds
    if sound.loudness_lufs < QUIET_LUFS:
        return
    if sound.silent_share > SILENT_SHARE or max(ends) > SILENT_SECONDS:
        text = f"{_percent(sound.silent_share)} of it is silence, {ends[0]:.0f} s at the start and {ends[1]:.0f} s at the end"
        yield Finding("pauses", "warning" if sound.silent_share > SILENT_SHARE else "note", text, "cut the silence out")


def _stereo_findings(sound: Sound) -> Iterator[Finding]:
    if sound.softest_channel_db is None or sound.softest_channel_db < DEAD_CHANNEL_DB:
        yield Finding("dead-channel", "warning", "one channel is silent", "make it mono, or look at the cable")
    elif sound.mono_db is None or sound.mono_db < CANCELLING_DB:
        yield Finding("cancelling", "warning", "left and right cancel in mono", "turn the polarity of one channel")


def _lufs(level: float) -> str:
    return f"{level:.1f} LUFS".replace("-", "−")


def _percent(share: float) -> str:
    """Format a share with two digits that say something.

    >>> _percent(0.0123), _percent(0.4), _percent(0.00025)
    ('1.2 %', '40 %', '0.025 %')
    """
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _clock(seconds: float) -> str:
    """Format a length.

    >>> _clock(83.2), _clock(3723)
    ('1:23', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


# --- one score ---------------------------------------------------------------------------------------------------------------------


def read_score(source: str | Path | bytes) -> Score:
    """Read a MIDI file; nothing is played.

    Raises
    ------
    ValueError, OSError
        As :func:`stylestream.midi.load_score`.
    """
    from stylestream import midi
    from stylestream.recipes import melody_fingerprint

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score = midi.load_score(source)
    notes = midi.notes(score)
    tempi = [60e6 / tempo.mspq for tempo in score.tempos] or [120.0]
    played = Counter[int]()
    for track in score.tracks:
        if not track.is_drum:
            played[track.program] += len(track.notes)
    families = Counter[str]()
    for program, count in played.items():
        families[FAMILIES[program // 8]] += count
    return Score(
        seconds=round(midi.duration_seconds(score), 3),
        notes=len(notes),
        parts=len(score.tracks),
        instruments=tuple(family for family, _ in families.most_common()),
        programs=tuple(sorted(played)),
        drum_notes=int(notes["drum"].sum()),
        stuck_notes=midi.stuck_notes(source),
        longest_note_seconds=round(float((notes["offset_seconds"] - notes["onset_seconds"]).max()), 3),
        slowest_tempo=round(min(tempi), 2),
        fastest_tempo=round(max(tempi), 2),
        silent_start_seconds=round(float(notes["onset_seconds"].min()), 3),
        melody=tuple(melody_fingerprint(score)),
        damage=tuple(sorted({str(warning.message).split(": ", 1)[-1] for warning in caught})),
    )


def score_findings(score: Score) -> Iterator[Finding]:
    """What is to be said of a MIDI file, from what was read."""
    for text in score.damage:
        yield Finding("damaged", "warning", text, "get a whole copy")
    if score.seconds < SHORT_SECONDS:
        yield _too_short(score.seconds)
    if score.drum_notes == score.notes:
        yield Finding("only-drums", "warning", "it has drums and nothing else", "leave it out of a style: styles are made of tones")
    if score.stuck_notes:
        text = "a note never ends" if score.stuck_notes == 1 else f"{score.stuck_notes} notes never end"
        yield Finding("stuck", "warning", text, "save it again from a notation program; they sound until the end")
    elif score.longest_note_seconds > DRONE_SECONDS:
        yield Finding("drone", "note", f"a note lasts {score.longest_note_seconds:.0f} s", "look whether it should")
    if not MIN_TEMPO <= score.slowest_tempo <= score.fastest_tempo <= MAX_TEMPO:
        slowest, fastest = score.slowest_tempo, score.fastest_tempo
        text = f"{slowest:.3g} to {fastest:.3g} quarter notes a minute" if slowest < fastest else f"{slowest:.3g} quarter notes a minute"
        yield Finding("tempo", "warning", text, "mend the tempo, or leave it out")
    if score.silent_start_seconds > SILENT_SECONDS:
        yield Finding("pauses", "note", f"{score.silent_start_seconds:.0f} s of silence at the start", "cut it off")


# --- one file ----------------------------------------------------------------------------------------------------------------------


def examine(content: str | Path | bytes, *, name: str = "", style: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> Checkup:
    """Everything about one file. Raises nothing, whatever the file holds: what cannot be read is a finding.

    Parameters
    ----------
    content : path, or bytes of a file
    name : str
        What to call it; its path when not given.
    style : str
        What it is said to be.
    """
    name = name or ("(bytes)" if isinstance(content, bytes) else str(content))
    with contextlib.ExitStack() as stack:
        hashed, about = "", Path(name)
        try:
            path = about = _as_file(content, Path(name).suffix, stack)
            hashed, is_score = _identify(path)
            if is_score:
                score = read_score(path)
                return Checkup(name, style, hashed, score=score, findings=tuple(score_findings(score)))
            sound = listen(path, timeout_seconds=timeout_seconds)
            return Checkup(name, style, hashed, sound=sound, findings=tuple(sound_findings(sound)))
        except Exception as error:  # decoders have many ways to fail on a hostile file, and one file must not end the round
            return Checkup(name, style, hashed, findings=(_unreadable(error, about),))


def _as_file(content: str | Path | bytes, suffix: str, stack: contextlib.ExitStack) -> Path:
    """A file to be read: decoders want one. A member of an archive becomes one for as long as the stack is open."""
    if not isinstance(content, bytes):
        return Path(content)
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stylestream-")), "song" + suffix.lower()[:8])
    path.write_bytes(content)
    return path


def _identify(path: Path) -> tuple[str, bool]:
    """Hash of a file's bytes, and whether they are a MIDI file."""
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file; copy the song into one first")
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        return file_id(file), head[:4] == b"MThd" or (head[:4] == b"RIFF" and head[8:12] == b"RMID")


def _unreadable(error: Exception, path: Path) -> Finding:
    """A finding of an error: the path is said already, so it is left out of the text."""
    known = isinstance(error, (ValueError, OSError))
    text = (getattr(error, "strerror", None) or str(error)) if known else f"{type(error).__name__}: {error}"
    for said in (repr(str(path)), str(path)):
        text = text.removeprefix(said).removeprefix(":").strip()
    text, _, remedy = " ".join(text.split()).partition("; ")
    return Finding("unreadable", "fault", text or type(error).__name__, remedy or "get another copy, or leave it out")


# --- all of them -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """The files of one style."""

    files: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about files together."""

    files: int
    usable: int
    seconds: float  # of what is usable, each song once
    styles: Mapping[str, Group]  # of what is usable
    findings: tuple[Finding, ...]

    @property
    def severity(self) -> Severity | None:
        """The gravest of the findings about the whole; single files do not count."""
        return max((finding.severity for finding in self.findings), key=_RANK.__getitem__, default=None)


def diagnose(checkups: Sequence[Checkup]) -> Diagnosis:
    """Is it enough, is it one style, is it any good: the verdict on a collection, from that on its files."""
    usable = [checkup for checkup in checkups if checkup.usable]
    once = {_content(checkup): checkup for checkup in reversed(usable)}
    styles: dict[str, Group] = {}
    for checkup in once.values():
        known = styles.get(checkup.style, Group())
        styles[checkup.style] = Group(known.files + 1, known.seconds + checkup.seconds)
    seconds = sum(checkup.seconds for checkup in once.values())
    findings = tuple(_corpus_findings(checkups, usable, list(once.values()), seconds, sorted(styles)))
    return Diagnosis(len(checkups), len(usable), round(seconds, 1), dict(sorted(styles.items())), findings)


def _content(checkup: Checkup) -> str:
    """What is the same in two copies: the samples of a recording, the bytes of a score."""
    return checkup.sound.sound_id if checkup.sound else checkup.id


def _corpus_findings(
    checkups: Sequence[Checkup], usable: Sequence[Checkup], once: Sequence[Checkup], seconds: float, styles: Sequence[str]
) -> Iterator[Finding]:
    if not usable:
        names = Counter(finding.name for checkup in checkups for finding in checkup.findings if finding.severity == "fault")
        worst = names.most_common(1)[0][0] if names else "nothing"
        text = "everything is silent" if set(names) == {"silent"} else f"nothing here can be used (most often: {worst})"
        yield Finding("nothing-usable", "fault", text, "see what the files say")
        return
    if len(usable) < 0.8 * len(checkups):
        text = f"{len(checkups) - len(usable)} of {len(checkups)} files cannot be used"
        yield Finding("many-faults", "warning", text, "the rest can; see what the files say")
    yield from _amount_findings(len(once), seconds)
    yield from _style_findings(once, styles)
    yield from _common_faults(usable)
    if any(checkup.score for checkup in usable):
        yield from _synthesizer_findings()


def _amount_findings(songs: int, seconds: float) -> Iterator[Finding]:
    remedy = f"an hour of {FEW_SONGS} songs or more makes a style; more is better"
    if seconds < LITTLE_SECONDS or songs < 2:
        text = f"{_clock(seconds)} of music in {songs} song{'s' if songs > 1 else ''} is too little for a style of its own"
        yield Finding("little", "warning", text, remedy)
    elif seconds < ENOUGH_SECONDS or songs < FEW_SONGS:
        yield Finding("some", "note", f"{_clock(seconds)} of music in {songs} songs is a small style", remedy)


def _style_findings(once: Sequence[Checkup], styles: Sequence[str]) -> Iterator[Finding]:
    if len(styles) > 1:
        some = ", ".join(style or "(none)" for style in styles[:6]) + (", …" if len(styles) > 6 else "")
        text = f"{len(styles)} styles ({some})"
        yield Finding("many-styles", "note", text, "fine for a dataset; to train a style, name its folder alone")
    elif (lead := _lead_instruments(once)) and lead[0][1] < 0.5:
        text = "instruments differ from piece to piece (" + ", ".join(f"{family} {_percent(share)}" for family, share in lead[:4]) + ")"
        yield Finding("mixed", "note", text, "is it one style? A style has a sound; sort the pieces into folders by it")
    recordings = sum(bool(checkup.sound) for checkup in once)
    if 0 < recordings < len(once):
        text = f"recordings ({recordings}) and MIDI files ({len(once) - recordings}) together"
        yield Finding("both-kinds", "note", text, "a SoundFont plays the MIDI, unlike a recording; a style of one kind is clearer")


def _lead_instruments(once: Iterable[Checkup]) -> list[tuple[str, float]]:
    """The most played families of scores, with the share of the scores."""
    leads = Counter(checkup.score.instruments[0] for checkup in once if checkup.score and checkup.score.instruments)
    return [(family, count / leads.total()) for family, count in leads.most_common()] if leads.total() >= 4 else []


def _common_faults(usable: Sequence[Checkup]) -> Iterator[Finding]:
    """What most files share is no accident, but the recording chain."""
    names = Counter(finding.name for checkup in usable for finding in checkup.findings if finding.severity == "warning")
    for name, count in names.most_common():
        if count >= max(3, 0.5 * len(usable)):
            first = next(finding for checkup in usable for finding in checkup.findings if finding.name == name)
            yield Finding(f"mostly-{name}", "warning", f"{count} of {len(usable)} files: {name}", first.remedy)


def _synthesizer_findings() -> Iterator[Finding]:
    from stylestream import midi

    try:
        midi.check_synthesizer()
    except ValueError as error:
        text, _, remedy = str(error).rpartition(": ")
        yield Finding("no-synthesizer", "fault", text, remedy)


def relate(checkups: Sequence[Checkup]) -> list[Checkup]:
    """The same checkups, each told which earlier one it repeats, and whether it sounds unlike all others of its style."""
    said: dict[int, list[Finding]] = {}
    for index, finding in (*_copies(checkups), *_melodies(checkups), *_outliers(checkups)):
        said.setdefault(index, []).append(finding)
    return [replace(checkup, findings=(*checkup.findings, *said.get(index, ()))) for index, checkup in enumerate(checkups)]


def _copies(checkups: Sequence[Checkup]) -> Iterator[tuple[int, Finding]]:
    files: dict[str, int] = {}
    sounds: dict[str, int] = {}
    for index, checkup in enumerate(checkups):
        if not checkup.usable:
            continue
        first, first_sound = files.setdefault(checkup.id, index), sounds.setdefault(_content(checkup), index)
        if first != index:
            yield index, Finding("copy", "note", f"the same file as {checkups[first].path}", "remove one; it counts once")
        elif first_sound != index:
            yield index, Finding("same-sound", "warning", f"sample for sample the sound of {checkups[first_sound].path}", "remove one")


def _melodies(checkups: Sequence[Checkup]) -> Iterator[tuple[int, Finding]]:
    """Scores that are an earlier one in another edition or key: they share `MIN_SHARED` phrases, and such a part as a dataset groups by."""
    earlier: dict[int, list[int]] = {}
    known: set[str] = set()
    for index, checkup in enumerate(checkups):
        if not checkup.usable or checkup.score is None or checkup.id in known:
            continue
        known.add(checkup.id)
        melody = checkup.score.melody
        shared = Counter(other for hash in melody for other in earlier.get(hash, ()))
        for other, count in shared.most_common(1):
            if count >= MIN_SHARED and resemblance(melody, _melody(checkups[other])) >= MIN_RESEMBLANCE:
                text = f"the melody of {checkups[other].path} in another edition or key"
                yield index, Finding("same-melody", "note", text, "fine: a dataset keeps both in one split")
        for hash in melody:
            if len(having := earlier.setdefault(hash, [])) < COMMON:
                having.append(index)


def _melody(checkup: Checkup) -> tuple[int, ...]:
    return checkup.score.melody if checkup.score else ()


def _outliers(checkups: Sequence[Checkup]) -> Iterator[tuple[int, Finding]]:
    """Recordings whose mean spectrum is unlike that of all others of their style."""
    by_style: dict[str, list[tuple[int, Array]]] = {}
    for index, checkup in enumerate(checkups):
        if checkup.usable and checkup.sound and checkup.sound.spectrum_db:
            levels = np.maximum(checkup.sound.spectrum_db, -60.0)
            by_style.setdefault(checkup.style, []).append((index, levels - levels.mean()))
    for members in by_style.values():
        if len(members) < 5:
            continue
        spectra = np.array([levels for _, levels in members])
        distance_db = np.abs(spectra - np.median(spectra, axis=0)).mean(axis=1)
        for (index, _), far_db in zip(members, distance_db, strict=True):
            if far_db > max(UNLIKE_DB, 2 * float(np.median(distance_db))):
                text = f"its mean spectrum is {far_db:.0f} dB from that of the others"
                yield index, Finding("unlike", "note", text, "listen whether it is the same style, and the same kind of sound")


@dataclass(frozen=True)
class _Task:
    """A song to be examined. Two files of one name in two sources are two songs."""

    index: int
    name: str
    style: str
    content: bytes | Path
    problem: str = ""


def _tasks(sources: Sequence[str | Path]) -> Iterator[_Task]:
    for index, found in enumerate(find(sources)):
        try:
            yield _Task(index, found.path, found.style, found.content())
        except (ValueError, OSError) as error:
            yield _Task(index, found.path, found.style, b"", str(error))


def _examine(timeout_seconds: float, state: None, task: _Task) -> Checkup:
    if task.problem:
        return Checkup(task.name, task.style, findings=(_unreadable(ValueError(task.problem), Path(task.name)),))
    return examine(task.content, name=task.name, style=task.style, timeout_seconds=timeout_seconds)


def _work(timeout_seconds: float) -> Callable[[Any, _Task], Checkup]:
    return functools.partial(_examine, timeout_seconds)


def check(
    sources: Sequence[str | Path],
    *,
    jobs: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    memory_mib: int = MEMORY_MIB,
    progress: Callable[[int, str], None] = lambda done, name: None,
) -> tuple[list[Checkup], Diagnosis]:
    """Examine all songs of some sources, in worker processes.

    Parameters
    ----------
    sources : sequence of path or glob
        Folders, files, archives, manifests: see `sources`.
    timeout_seconds, memory_mib
        That one file may take; one that takes more is a finding.
    progress : function of (files done, name of the last)

    Returns
    -------
    checkups : list of Checkup
        In the order of the sources.
    diagnosis : Diagnosis

    Raises
    ------
    ValueError, OSError
        If a source does not exist or cannot be trusted, or no song is there.
    """
    from stylestream import parallel

    checkups: list[Checkup] = []
    results = parallel.over_songs(
        _work(timeout_seconds),
        _tasks(sources),
        setup=_nothing,
        jobs=jobs,
        ordered=True,
        timeout_seconds=timeout_seconds + HANGS,
        memory_mib=memory_mib,
    )
    with contextlib.closing(results):
        for task, result in results:
            if isinstance(result, ValueError):
                result = Checkup(task.name, task.style, findings=(_unreadable(result, Path(task.name)),))
            checkups.append(result)
            progress(len(checkups), task.name)
    if not checkups:
        raise ValueError(f"no song found in {', '.join(map(str, sources))} (looked for {' '.join(sorted(SONG_SUFFIXES))})")
    checkups = relate(checkups)
    return checkups, diagnose(checkups)


def _nothing() -> None:
    return None


def as_json(checkups: Sequence[Checkup], diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything that was found out, as JSON types; fingerprints and spectra are left out."""
    files = [{**asdict(checkup), "severity": checkup.severity, "usable": checkup.usable} for checkup in checkups]
    for file in files:
        for part, left_out in (("sound", "spectrum_db"), ("score", "melody")):
            if file[part]:
                del file[part][left_out]
    return {"files": files, "corpus": {**asdict(diagnosis), "severity": diagnosis.severity}, "failed": diagnosis.files - diagnosis.usable}


# --- as text -----------------------------------------------------------------------------------------------------------------------

_MARKS: dict[Severity | None, str] = {None: "ok", "note": "ok", "warning": "odd", "fault": "bad"}


def line(checkup: Checkup) -> str:
    """One line about a file: whether it can be used, what it is, its name, what is wrong and what to do about it."""
    found = sorted(checkup.findings, key=lambda finding: -_RANK[finding.severity])
    said = "; ".join(finding.text + (f" → {finding.remedy}" if finding.remedy and finding is found[0] else "") for finding in found)
    length = _clock(checkup.seconds) if checkup.sound or checkup.score else ""
    return f"{_MARKS[checkup.severity]:4}{length:>8}  {_about(checkup):36}  {checkup.path}" + (f": {said}" if said else "")


def _about(checkup: Checkup) -> str:
    if sound := checkup.sound:
        channels = {1: "mono", 2: "stereo"}.get(sound.channels, f"{sound.channels} channels")
        level = "silent" if sound.loudness_lufs is None else _lufs(sound.loudness_lufs)
        return f"{sound.sample_rate / 1000:g} kHz {channels}, {level}"
    if score := checkup.score:
        more = (["…"] if len(score.instruments) > 2 else []) + (["drums"] if score.drum_notes else [])
        return f"{score.notes} notes, {'+'.join([*score.instruments[:2], *more])}"
    return ""


def verdict_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """The verdict on all files, as lines of text."""
    songs = sum(group.files for group in diagnosis.styles.values())
    yield f"{diagnosis.usable} of {diagnosis.files} files can be used: {songs} different songs, {_clock(diagnosis.seconds)} of music"
    if len(diagnosis.styles) > 1:
        width = max(map(len, diagnosis.styles))
        for style, group in diagnosis.styles.items():
            yield f"  {style or '(none)':{width}}  {group.files:6} songs  {_clock(group.seconds):>9}"
    for finding in sorted(diagnosis.findings, key=lambda finding: -_RANK[finding.severity]):
        yield f"{finding.severity}: {finding.text}" + (f" → {finding.remedy}" if finding.remedy else "")
    if diagnosis.severity is None:
        yield "ready to build a dataset or to train on"
