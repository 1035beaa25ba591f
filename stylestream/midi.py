"""MIDI file → waveform with a SoundFont; re-orchestration of the parsed score.

A score is a ``symusic.Score`` in ticks: its parts (``score.tracks``) hold notes, controllers and pitch bends. It is played by
FluidSynth, through ctypes, in this process: every event is sent when the samples before it have been pulled, so nothing runs in
real time, nothing opens a sound card, and the same score gives the same samples.

Conventions: times in seconds from the start of the score; programs are General MIDI numbers, 0–127; ``y`` is (2, N) float32,
left and right, at ``sample_rate``. FluidSynth computes blocks of 64 samples and acts between them, so an event lands on the nearest
multiple of 64 samples (at most 0.73 ms away at 44.1 kHz). No reverb, no chorus: the sound is the instrument's own.

References
----------
.. [1] "Standard MIDI Files 1.0", MIDI Manufacturers Association, RP-001, 1996.
.. [2] "General MIDI System Level 1", MIDI Manufacturers Association, 1991.
.. [3] FluidSynth API, https://www.fluidsynth.org/api/
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import warnings
import weakref
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 8 * 2**20  # the largest of 16,658 real pieces has 0.2 MiB; "black MIDI" of hundreds of MiB is not music to us
MAX_NOTES = 1_000_000  # thirty-five notes a second for MAX_SECONDS
MAX_CONTROLS = 4_000_000  # over all parts, each of which carries those of its channel
MAX_TICKS = 2**31 - 1  # a symusic time is a signed 32-bit number
MAX_SECONDS = 8 * 3600.0  # the longest concert works (Feldman, Sorabji) stay under it; a slip in the tempo map does not
MAX_RENDER_SECONDS = 2 * 3600.0  # 2.5 GB of samples in one array; longer pieces go through ``blocks``
MAX_PARTS = 256  # FluidSynth's channels at most; a part has one of its own
MAX_BEATS = 1_000_000  # eight hours at 2,000 beats a minute
BLOCK_SAMPLES = 64  # FluidSynth's own block; events act between blocks
PREROLL_SECONDS = 3.0  # an excerpt starts earlier by this much, unheard, so that notes already sounding are in their decay
DEFAULT_TAIL_SECONDS = 2.0  # most releases have died away by then
DEFAULT_GAIN = 0.2  # FluidSynth's own; of 80 real pieces the loudest peaked at 0.53, the median at 0.11

INSTALL_FLUIDSYNTH = "apt-get install libfluidsynth3 fluid-soundfont-gm (macOS: brew install fluid-synth)"

# Every General MIDI program that is not a piano, a style's own sound, or an effect: what a style-neutral view may be played on.
VIEW_PROGRAMS: tuple[int, ...] = (*range(8, 29), 32, *range(34, 47), *range(52, 55), *range(56, 80), *range(82, 96))

SOUNDFONTS: dict[str, tuple[tuple[str, ...], str]] = {
    "fluidr3": (("FluidR3_GM.sf2", "FluidR3_GM.sf3", "FluidR3Mono_GM.sf3"), "apt-get install fluid-soundfont-gm"),
    "musescore": (
        ("MuseScore_General.sf3", "MuseScore_General_Full.sf3", "MuseScore_General.sf2"),
        "apt-get install musescore-general-soundfont",
    ),
}
SOUNDFONT_FOLDERS = (
    "~/.local/share/soundfonts",
    "~/.local/share/sounds/sf2",
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)

NOTE_DTYPE = np.dtype(
    [("onset_seconds", "f8"), ("offset_seconds", "f8"), ("pitch", "i2"), ("velocity", "i2"), ("drum", "?")],
)


_TRUNCATED = "the MIDI file is truncated"
DRUM_CHANNEL = 9  # "channel 10", counted from 1 [2]
_PARAMETER_CONTROLS = (6, 38, 96, 97, 98, 99, 100, 101)  # address and value of a registered parameter: one setting, kept together
_NOTE_OFF, _NOTE_ON, _CONTROL_CHANGE, _PROGRAM_CHANGE, _PITCH_BEND = 0x8, 0x9, 0xB, 0xC, 0xE  # upper half of the status byte [1]

# --- the score -------------------------------------------------------------------------------------------------------------------


def load_score(source: str | Path | bytes) -> Any:
    """Read a Standard MIDI File, format 0 or 1.

    The file is read here rather than by ``symusic``, whose tracks forget their channel: a pedal written in another track of the same
    channel, or a volume set before a change of program, would be lost (3 % of real files). Here a part carries what its own track
    sets and, for the rest, what other tracks of its channel set, so that it sounds the same whatever else is dropped. A note that
    never ends lasts until the last event of the score. What cannot be decoded is left out with a warning. Lost: aftertouch, lyrics,
    system-exclusive messages.

    Parameters
    ----------
    source : path, or the bytes of the file

    Returns
    -------
    symusic.Score [in ticks]
        With at least one note. One part for each track, channel and program; channel 10 is drums.

    Raises
    ------
    ValueError
        If it is not a MIDI file, is damaged beyond use, holds no note, or exceeds a limit (``MAX_FILE_BYTES``, ``MAX_NOTES``,
        ``MAX_SECONDS``, ``MAX_PARTS``).
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        If the file is truncated or partly damaged; what decodes is returned.
    """
    name, data = _read_bytes(source)
    division, track_count = _header(name, data)
    symusic = _symusic()
    tracks = [_read_track(chunk, size) for chunk, size in _track_chunks(data)]
    damage = next((track.damage for track in tracks if track.damage), _TRUNCATED if len(tracks) < track_count else "")
    if damage:
        warnings.warn(f"{name}: {damage}; what decodes is used", stacklevel=2)
    return _checked(name, _score(name, symusic, tracks, *division))


def stuck_notes(source: str | Path | bytes) -> int:
    """How many notes of a MIDI file never end; ``load_score`` ends them with the score. Errors of the header are as there."""
    name, data = _read_bytes(source)
    _header(name, data)
    events = _merged([_read_track(chunk, size) for chunk, size in _track_chunks(data)])
    sounding: dict[tuple[int, int, int], int] = {}
    for _, track, kind, channel, pitch, velocity in events[events[:, 2] <= _NOTE_ON].tolist():
        key, begins = (track, channel, pitch), kind == _NOTE_ON and velocity > 0
        sounding[key] = max(sounding.get(key, 0) + (1 if begins else -1), 0)
    return sum(sounding.values())


def check_reader() -> None:
    """ValueError if what reads MIDI is not installed."""
    _symusic()


def _symusic() -> Any:
    try:
        import symusic
    except ModuleNotFoundError:
        raise ValueError("reading MIDI needs symusic: pip install 'stylestream[midi]'") from None
    return symusic


def _read_bytes(source: str | Path | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        name, data = "MIDI data", source[: MAX_FILE_BYTES + 1]
    else:
        name = str(source)
        with open(source, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{name}: larger than {MAX_FILE_BYTES // 2**20} MiB, the limit for a MIDI file")
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":  # a MIDI file in a RIFF coat, from Windows
        data = data[20:]
    return name, data


def _header(name: str, data: bytes) -> tuple[tuple[int, int | None], int]:
    """Time division (ticks per quarter note, fixed microseconds per quarter note or None) and the number of tracks."""
    if len(data) < 14 or data[:4] != b"MThd":
        what = "an empty file" if not data else "not a MIDI file (it does not begin with MThd)"
        raise ValueError(f"{name}: {what}; give a .mid file")
    form, track_count, division = struct.unpack(">HHH", data[8:14])
    if form not in (0, 1):
        raise ValueError(f"{name}: MIDI format {form} is not supported; save the song as format 0 or 1")
    return _division(name, division), track_count


def _division(name: str, division: int) -> tuple[int, int | None]:
    if division & 0x8000:
        # SMPTE [1]: frames a second (negated; 29 is 30000/1001) and ticks a frame. As a score: a quarter note is a second, always
        frames, ticks = 256 - (division >> 8), division & 0xFF
        if frames in (24, 25, 29, 30) and ticks:
            return (30 * ticks, 1_001_000) if frames == 29 else (frames * ticks, 1_000_000)
    if division == 0 or division & 0x8000:
        raise ValueError(f"{name}: broken MIDI header (time division {division:#06x}); save the song again from a notation program")
    return division, None


def _track_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Bytes of every track there are, and how many there should be."""
    start = 8 + int.from_bytes(data[4:8], "big")
    while start + 8 <= len(data):
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "big")
        if kind == b"MTrk":  # other kinds of chunk are to be passed over [1]
            yield data[start + 8 : start + 8 + size], size
        start += 8 + size


@dataclass
class _TrackEvents:
    """What one track chunk says. ``events``: tick << 24 | status << 16 | first byte << 8 | second byte, in the order of the file."""

    events: array[int] = field(default_factory=lambda: array("q"))
    tempos: list[tuple[int, int]] = field(default_factory=list)  # tick, microseconds per quarter note
    metres: list[tuple[int, int, int]] = field(default_factory=list)  # tick, numerator, denominator
    name: str = ""
    damage: str = ""


def _read_track(data: bytes, size: int) -> _TrackEvents:
    track = _TrackEvents(damage=_TRUNCATED if len(data) < size else "")
    try:
        _read_events(data, track)
    except IndexError:
        track.damage = _TRUNCATED
    except ValueError as error:
        track.damage = str(error)
    return track


def _read_events(data: bytes, track: _TrackEvents) -> None:
    i = tick = running = 0
    append = track.events.append
    while i < len(data):
        delta, i = _variable_length(data, i)
        tick += delta
        if tick > MAX_TICKS:
            raise ValueError(f"an event lies beyond tick {MAX_TICKS:,}")
        if data[i] >= 0x80:
            running, i = data[i], i + 1
        if 0x80 <= running < 0xF0:
            first = data[i] & 0x7F
            if running & 0xE0 == 0xC0:  # program change and channel pressure have one data byte, the others two
                append(tick << 24 | running << 16 | first << 8)
                i += 1
            else:
                append(tick << 24 | running << 16 | first << 8 | data[i + 1] & 0x7F)
                i += 2
        elif running in (0xF0, 0xF7, 0xFF):
            kind, i = (data[i], i + 1) if running == 0xFF else (-1, i)
            size, i = _variable_length(data, i)
            if kind == 0x2F:
                return
            _read_meta(track, tick, kind, data[i : i + size])
            i, running = i + size, 0  # these end running status [1]
        else:
            raise ValueError(f"the MIDI file has an impossible event ({running:#04x})")
    if i > len(data):
        raise IndexError


def _variable_length(data: bytes, i: int) -> tuple[int, int]:
    """A number in at most four bytes of seven bits [1], and the index behind it."""
    value = 0
    for _ in range(4):
        value = value << 7 | data[i] & 0x7F
        i += 1
        if data[i - 1] < 0x80:
            return value, i
    raise ValueError("the MIDI file has an impossible time or length")


def _read_meta(track: _TrackEvents, tick: int, kind: int, payload: bytes) -> None:
    if kind == 0x51 and len(payload) == 3:
        if mspq := int.from_bytes(payload, "big"):  # 0 would be infinitely fast: no tempo at all
            track.tempos.append((tick, mspq))
    elif kind == 0x58 and len(payload) >= 2 and payload[0] and payload[1] < 8:
        track.metres.append((tick, payload[0], 2 ** payload[1]))
    elif kind == 0x03 and not track.name:
        track.name = payload[:256].decode("utf-8", "replace").strip("\0 ")


def _merged(tracks: Sequence[_TrackEvents]) -> NDArray[np.int64]:
    """Events of all tracks in the order they act, shape (n, 6): tick, track, kind, channel, first byte, second byte."""
    packed = [np.frombuffer(track.events, np.int64) if track.events else np.zeros(0, np.int64) for track in tracks]
    words = np.concatenate([np.zeros(0, np.int64), *packed])
    track_of = np.repeat(np.arange(len(tracks)), [len(p) for p in packed])
    columns = (words >> 24, track_of, words >> 20 & 0xF, words >> 16 & 0xF, words >> 8 & 0xFF, words & 0xFF)
    events = np.stack(columns, axis=1)
    # a program change acts before the notes of its tick, whichever track it is in; everything else keeps the order of the file
    return np.asarray(events[np.lexsort((events[:, 2] != _PROGRAM_CHANGE, events[:, 0]))])


_Part = tuple[int, int, int]  # track, channel, program


def _paired_notes(name: str, events: NDArray[np.int64], ticks_per_quarter: int) -> dict[_Part, list[tuple[int, int, int, int]]]:
    """Notes (onset tick, length in ticks, pitch, velocity) of every part; the first note begun is the first to end."""
    programs: dict[tuple[int, int], int] = {}  # by track and channel
    latest = [0] * 16  # by channel, from any track
    parts: dict[_Part, list[tuple[int, int, int, int]]] = {}
    open_notes: dict[tuple[int, int, int], deque[tuple[int, int, int]]] = {}  # by track, channel, pitch: onset, velocity, program
    is_note = events[:, 2] <= _NOTE_ON
    if int(((events[:, 2] == _NOTE_ON) & (events[:, 5] > 0)).sum()) > MAX_NOTES:
        raise ValueError(f"{name}: more than {MAX_NOTES:,} notes; split the MIDI file")
    for tick, track, kind, channel, first, second in events[is_note | (events[:, 2] == _PROGRAM_CHANGE)].tolist():
        if kind == _PROGRAM_CHANGE:
            programs[track, channel] = latest[channel] = first
        elif kind == _NOTE_ON and second > 0:
            open_notes.setdefault((track, channel, first), deque()).append((tick, second, programs.get((track, channel), latest[channel])))
        elif begun := open_notes.get((track, channel, first)):
            onset, velocity, program = begun.popleft()
            parts.setdefault((track, channel, program), []).append((onset, tick - onset, first, velocity))
    last_tick = int(events[is_note, 0].max(initial=0))
    for (track, channel, pitch), begun in open_notes.items():
        for onset, velocity, program in begun:
            length = max(last_tick - onset, ticks_per_quarter)  # a beat at least, where nothing follows
            parts.setdefault((track, channel, program), []).append((onset, length, pitch, velocity))
    return {part: sorted(parts[part]) for part in sorted(parts)}


def _score(name: str, symusic: Any, tracks: Sequence[_TrackEvents], ticks_per_quarter: int, fixed_mspq: int | None) -> Any:
    events = _merged(tracks)
    parts = _paired_notes(name, events, ticks_per_quarter)
    _check_parts(name, parts, events)
    tempos = [tempo for track in tracks for tempo in track.tempos] if fixed_mspq is None else [(0, fixed_mspq)]
    score = symusic.Score(ticks_per_quarter)
    for tick, mspq in sorted(dict(tempos).items()):
        score.tempos.append(symusic.Tempo(tick, mspq=mspq))
    for tick, numerator, denominator in sorted({metre[0]: metre for track in tracks for metre in track.metres}.values()):
        score.time_signatures.append(symusic.TimeSignature(tick, numerator, denominator))
    score.tracks = [_part(symusic, tracks[part[0]].name, part, rows, events) for part, rows in parts.items()]
    return score


def _part(symusic: Any, name: str, part: _Part, rows: list[tuple[int, int, int, int]], events: NDArray[np.int64]) -> Any:
    track, channel, program = part
    time, duration, pitch, velocity = np.ascontiguousarray(np.array(rows, dtype=np.int32).T)
    channel_events = events[events[:, 3] == channel]
    controls = _own_or_shared(track, channel_events[channel_events[:, 2] == _CONTROL_CHANGE])
    bends = _own_or_shared(track, channel_events[channel_events[:, 2] == _PITCH_BEND])
    return symusic.Track(
        name,
        program,
        channel == DRUM_CHANNEL,
        symusic.Note.from_numpy(time=time, duration=duration, pitch=pitch.astype(np.int8), velocity=velocity.astype(np.int8), ttype="tick"),
        symusic.ControlChange.from_numpy(
            time=controls[:, 0].copy(), number=controls[:, 4].astype(np.uint8), value=controls[:, 5].astype(np.uint8), ttype="tick"
        ),
        symusic.PitchBend.from_numpy(time=bends[:, 0].copy(), value=bends[:, 4] + (bends[:, 5] << 7) - 8192, ttype="tick"),
    )


def _own_or_shared(track: int, events: NDArray[np.int64]) -> NDArray[np.int32]:
    """Of one channel's controllers, those the track sets itself, and from other tracks those it never sets.

    Several tracks on one channel are either hands of one instrument, where one writes the pedal for both, or, beyond sixteen parts,
    instruments that each set their own volume.
    """
    number = np.where(np.isin(events[:, 4], _PARAMETER_CONTROLS), _PARAMETER_CONTROLS[0], events[:, 4])
    number[events[:, 2] == _PITCH_BEND] = 0  # its first byte is data
    own = events[:, 1] == track
    return np.asarray(events[own | ~np.isin(number, number[own])], dtype=np.int32)


def _check_parts(name: str, parts: Mapping[_Part, Sequence[Any]], events: NDArray[np.int64]) -> None:
    if not parts:
        raise ValueError(f"{name}: the MIDI file has no notes")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"{name}: {len(parts)} parts (tracks × channels × programs); the limit is {MAX_PARTS}")
    settings = np.bincount(events[np.isin(events[:, 2], (_CONTROL_CHANGE, _PITCH_BEND)), 3], minlength=16)
    if sum(int(settings[channel]) for _, channel, _ in parts) > MAX_CONTROLS:
        raise ValueError(f"{name}: more than {MAX_CONTROLS:,} controller changes; thin them out")


def _checked(name: str, score: Any) -> Any:
    seconds = duration_seconds(score)
    if seconds > MAX_SECONDS:
        raise ValueError(f"{name}: lasts {seconds / 3600:.1f} hours; the limit is {MAX_SECONDS / 3600:.0f}; split the MIDI file")
    return score


def _tempo_map(score: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ticks where the tempo changes (first is 0), seconds there, and seconds per tick from there on."""
    changes = {0: 500_000}  # 120 quarter notes a minute until told otherwise [1]
    for tempo in sorted(score.tempos, key=lambda t: t.time):
        if tempo.mspq > 0:  # 0 would be infinitely fast: no tempo at all
            changes[max(tempo.time, 0)] = tempo.mspq
    ticks = np.array(list(changes), dtype=np.float64)
    per_tick = np.array(list(changes.values()), dtype=np.float64) * 1e-6 / score.ticks_per_quarter
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * per_tick[:-1])])
    return ticks, seconds, per_tick


def _seconds_at(score: Any, ticks: NDArray[Any]) -> NDArray[np.float64]:
    change_ticks, change_seconds, per_tick = _tempo_map(score)
    index = np.maximum(np.searchsorted(change_ticks, ticks, side="right") - 1, 0)
    return np.asarray(change_seconds[index] + (ticks - change_ticks[index]) * per_tick[index])


def duration_seconds(score: Any) -> float:
    """When the last note ends, in seconds; 0.0 for a score without notes."""
    return float(_seconds_at(score, np.array([_end_tick(score)]))[0])


def _end_tick(score: Any) -> int:
    arrays = [_note_arrays(track) for track in score.tracks]
    return max((int((a["time"] + a["duration"]).max(initial=0)) for a in arrays), default=0)


def _note_arrays(track: Any) -> dict[str, NDArray[np.int64]]:
    return {key: np.asarray(value, dtype=np.int64) for key, value in track.notes.numpy().items()}


def notes(score: Any) -> NDArray[Any]:
    """All notes of a score, in order of onset, then pitch.

    Returns
    -------
    np.ndarray [shape=(n,), structured]
        ``onset_seconds``, ``offset_seconds`` (written length: no pedal), ``pitch`` (MIDI number, 69 is A4), ``velocity`` (1–127),
        ``drum`` (bool: pitch names a drum, not a tone).

    Examples
    --------
    A4, two beats long, at 120 beats a minute (all a MIDI file must say: header, one track, note on, note off, end):

    >>> score = load_score(bytes.fromhex("4d546864000000060000000101e0 4d54726b0000000d 00904564 8740804500 00ff2f00"))
    >>> notes(score).tolist()
    [(0.0, 1.0, 69, 100, False)]
    """
    parts = [_part_notes(score, track) for track in score.tracks]
    table = np.concatenate(parts) if parts else np.zeros(0, NOTE_DTYPE)
    return np.asarray(table[np.lexsort((table["pitch"], table["onset_seconds"]))])


def _part_notes(score: Any, track: Any) -> NDArray[Any]:
    arrays = _note_arrays(track)
    table = np.zeros(len(arrays["time"]), NOTE_DTYPE)
    table["onset_seconds"] = _seconds_at(score, arrays["time"])
    table["offset_seconds"] = _seconds_at(score, arrays["time"] + arrays["duration"])
    table["pitch"], table["velocity"], table["drum"] = arrays["pitch"], arrays["velocity"], track.is_drum
    return table


def beats(score: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Beats and downbeats of a score, from its tempi and time signatures, up to its last note's end.

    A beat is the lower number of the time signature; in compound metre (6/8, 9/8, 12/8 …) it is three of them. A change of time
    signature starts a bar. Without a time signature it is 4/4.

    Returns
    -------
    beat_seconds, downbeat_seconds : np.ndarray [seconds, ascending]

    Raises
    ------
    ValueError
        If there are more than ``MAX_BEATS``.

    Examples
    --------
    >>> score = load_score(bytes.fromhex("4d546864000000060000000101e0 4d54726b0000000d 00904564 8f00804500 00ff2f00"))
    >>> [seconds.tolist() for seconds in beats(score)]
    [[0.0, 0.5, 1.0, 1.5, 2.0], [0.0, 2.0]]
    """
    end = _end_tick(score)
    beat_ticks: list[NDArray[np.float64]] = []
    downbeat_ticks: list[NDArray[np.float64]] = []
    metres = _metres(score)
    for (start, numerator, denominator), stop in zip(metres, [*(m[0] for m in metres[1:]), end + 1], strict=True):
        compound = numerator > 3 and numerator % 3 == 0 and denominator >= 8
        unit = score.ticks_per_quarter * 4 / denominator * (3 if compound else 1)
        count = int(np.ceil(max(min(stop, end + 1) - start, 0) / unit))
        if count + sum(len(ticks) for ticks in beat_ticks) > MAX_BEATS:
            raise ValueError(f"more than {MAX_BEATS:,} beats: the time signatures or tempi of this MIDI file make no sense")
        ticks = start + unit * np.arange(count)
        beat_ticks.append(ticks)
        downbeat_ticks.append(ticks[:: numerator // 3 if compound else numerator])
    return _seconds_at(score, np.concatenate(beat_ticks)), _seconds_at(score, np.concatenate(downbeat_ticks))


def _metres(score: Any) -> list[tuple[int, int, int]]:
    metres = {0: (4, 4)}
    for signature in sorted(score.time_signatures, key=lambda s: s.time):
        if signature.numerator > 0 and signature.denominator > 0:
            metres[max(signature.time, 0)] = (signature.numerator, signature.denominator)
    return [(time, *metre) for time, metre in sorted(metres.items())]


# --- re-orchestration --------------------------------------------------------------------------------------------------------------


def reorchestrate(
    score: Any,
    *,
    programs: Sequence[int] | Mapping[int, int] | int | None = None,
    drop_drums: bool = True,
    drop_tracks: Sequence[int] = (),
) -> Any:
    """The same notes on other instruments, as a new score.

    Parameters
    ----------
    programs : int, sequence, mapping or None [General MIDI, 0–127]
        One program for every melodic part; one for each melodic part in turn (repeated if there are fewer); new program by old
        one (others stay); or None: instruments stay.
    drop_drums : bool
        Leave out the drum parts.
    drop_tracks : sequence of int
        Parts to leave out, as indices into ``score.tracks``.

    Returns
    -------
    symusic.Score
        May be without notes, if everything was dropped.

    Raises
    ------
    ValueError
        If a program is outside 0–127 or an index outside the score.
    """
    _check_programs(programs)
    if any(not 0 <= index < len(score.tracks) for index in drop_tracks):
        raise ValueError(f"drop_tracks {list(drop_tracks)}: the score has {len(score.tracks)} parts, counted from 0")
    result = score.copy()
    kept = [t for i, t in enumerate(result.tracks) if i not in set(drop_tracks) and not (drop_drums and t.is_drum)]
    melodic = 0
    for track in kept:
        if not track.is_drum:
            track.program = _program(programs, track.program, melodic)
            melodic += 1
    result.tracks = kept
    return result


def _program(programs: Sequence[int] | Mapping[int, int] | int | None, old: int, part: int) -> int:
    if programs is None:
        return old
    if isinstance(programs, Mapping):
        return int(programs.get(old, old))
    return int(programs) if isinstance(programs, (int, np.integer)) else int(programs[part % len(programs)])


def _check_programs(programs: Sequence[int] | Mapping[int, int] | int | None) -> None:
    if programs is None:
        return
    if isinstance(programs, Mapping):
        values = list(programs.values())
    else:
        values = [programs] if isinstance(programs, (int, np.integer)) else list(programs)
    if not values and not isinstance(programs, Mapping):
        raise ValueError("programs is empty; give at least one General MIDI program, or None to keep the instruments")
    for value in values:
        if not 0 <= value <= 127:
            raise ValueError(f"program {value}: General MIDI programs are 0 to 127")


def piano_reduction(score: Any) -> Any:
    """Every melodic part on the piano, no drums: the source of the reduction protocol."""
    return reorchestrate(score, programs=0)


def random_orchestration(score: Any, rng: np.random.Generator, programs: Sequence[int] = VIEW_PROGRAMS, *, drop_drums: bool = True) -> Any:
    """Every melodic part on an instrument drawn from ``programs``, each part on its own: a style-neutral view of the score."""
    _check_programs(programs)
    return reorchestrate(score, programs=[int(p) for p in rng.choice(programs, size=max(len(score.tracks), 1))], drop_drums=drop_drums)


# --- the synthesizer ---------------------------------------------------------------------------------------------------------------


def find_soundfont(name: str | Path | None = None) -> Path:
    """Path of a SoundFont.

    Parameters
    ----------
    name : "fluidr3", "musescore", the path of an SF2 or SF3 file, or None
        None is the file that the environment variable STYLESTREAM_SOUNDFONT names, else "fluidr3".

    Raises
    ------
    ValueError
        If it is not there; says what to install.
    """
    wanted = str(name) if name is not None else os.environ.get("STYLESTREAM_SOUNDFONT") or "fluidr3"
    if wanted.lower() not in SOUNDFONTS:
        if Path(wanted).is_file():
            return Path(wanted)
        raise ValueError(f"no SoundFont {wanted!r}: give the path of an SF2 or SF3 file, or one of {', '.join(SOUNDFONTS)}")
    files, install = SOUNDFONTS[wanted.lower()]
    for file in files:
        for folder in _soundfont_folders():
            if (folder / file).is_file():
                return folder / file
    raise ValueError(f"SoundFont {wanted!r} not found ({files[0]}): {install}, or set STYLESTREAM_SOUNDFONT to a SoundFont's path")


def check_synthesizer(soundfont: str | Path | None = None) -> None:
    """Fail, saying what to install, where FluidSynth or the SoundFont (see ``find_soundfont``) is missing."""
    find_soundfont(soundfont)
    _open_library()


def _soundfont_folders() -> list[Path]:
    extra = os.environ.get("STYLESTREAM_SOUNDFONTS", "")  # more folders, separated like PATH
    return [Path(folder).expanduser() for folder in (*filter(None, extra.split(os.pathsep)), *SOUNDFONT_FOLDERS)]


_P, _S, _I, _D = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_double
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "new_fluid_settings": (_P, ()),
    "delete_fluid_settings": (None, (_P,)),
    "fluid_settings_setint": (_I, (_P, _S, _I)),
    "fluid_settings_setnum": (_I, (_P, _S, _D)),
    "new_fluid_synth": (_P, (_P,)),
    "delete_fluid_synth": (None, (_P,)),
    "fluid_synth_sfload": (_I, (_P, _S, _I)),
    "fluid_synth_get_sfont_by_id": (_P, (_P, _I)),
    "fluid_synth_add_sfont": (_I, (_P, _P)),
    "fluid_synth_remove_sfont": (_I, (_P, _P)),
    "fluid_synth_set_channel_type": (_I, (_P, _I, _I)),
    "fluid_synth_program_change": (_I, (_P, _I, _I)),
    "fluid_synth_noteon": (_I, (_P, _I, _I, _I)),
    "fluid_synth_noteoff": (_I, (_P, _I, _I)),
    "fluid_synth_cc": (_I, (_P, _I, _I, _I)),
    "fluid_synth_pitch_bend": (_I, (_P, _I, _I)),
    "fluid_synth_write_float": (_I, (_P, _I, _P, _I, _I, _P, _I, _I)),
    "fluid_set_log_function": (_P, (_I, _P, _P)),
}
_LIBRARY_NAMES = {
    "linux": ("libfluidsynth.so.3", "libfluidsynth.so.2", "libfluidsynth.so"),
    "darwin": ("libfluidsynth.dylib", "/opt/homebrew/lib/libfluidsynth.dylib", "/usr/local/lib/libfluidsynth.dylib"),
    "win32": ("libfluidsynth-3.dll", "libfluidsynth-2.dll", "fluidsynth.dll"),
}


def _open_library() -> Any:
    """libfluidsynth, by the loader's own search (LD_LIBRARY_PATH included), then by ``find_library``."""
    # find_library comes second: on Linux it asks ldconfig and compilers, and does not see LD_LIBRARY_PATH without them
    names = [*_LIBRARY_NAMES.get(sys.platform, ()), find_library("fluidsynth")]
    for name in filter(None, names):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, (result, arguments) in _SIGNATURES.items():
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments
        for level in range(5):  # warnings about voices and presets would fill stderr; errors come back as return codes
            library.fluid_set_log_function(level, None, None)
        return library
    raise ValueError(f"rendering MIDI needs FluidSynth 2 or newer: {INSTALL_FLUIDSYNTH}")


_G_LOG_LEVEL_CRITICAL = 1 << 3
_SAY_NOTHING = ctypes.CFUNCTYPE(None, _S, _I, _S, _P)(lambda domain, level, message, data: None)


@contextmanager
def _silent_glib(library: Any) -> Iterator[None]:
    """For as long as a SoundFont is loaded: libinstpatch, which is asked after FluidSynth itself has failed, complains through GLib."""
    if not hasattr(library, "g_log_set_handler"):  # a FluidSynth without GLib
        yield
        return
    handler = library.g_log_set_handler(None, _G_LOG_LEVEL_CRITICAL, _SAY_NOTHING, None)
    try:
        yield
    finally:
        library.g_log_remove_handler(None, handler)


_OFF, _CONTROL, _BEND, _ON, _OFF_AT_ONCE = range(5)  # also the order within one block
# Bank select would leave General MIDI; omni, mono and poly modes would join neighbouring channels, which are other parts here
_IGNORED_CONTROLS = (0, 32, 124, 125, 126, 127)


def _part_events(score: Any, track: Any, channel: int) -> NDArray[np.int64]:
    """Events of a part, shape (n, 6): tick, kind, channel, first value, second value, order of writing."""
    a = _note_arrays(track)
    off_kind = np.where(a["duration"] > 0, _OFF, _OFF_AT_ONCE)
    zeros = np.zeros_like(a["time"])
    columns = [
        np.stack([a["time"], zeros + _ON, zeros, a["pitch"], a["velocity"]], axis=1),
        np.stack([a["time"] + a["duration"], off_kind, zeros, a["pitch"], zeros], axis=1),
    ]
    controls = [(c.time, _CONTROL, 0, c.number, c.value) for c in track.controls if c.number not in _IGNORED_CONTROLS]
    bends = [(b.time, _BEND, 0, b.value + 8192, 0) for b in track.pitch_bends]
    columns += [np.array(rows, dtype=np.int64).reshape(-1, 5) for rows in (controls, bends)]
    events = np.concatenate(columns)
    events[:, 2] = channel
    return events


def _events(score: Any, sample_rate: int) -> NDArray[np.int64]:
    """Events of a score in order, shape (n, 5): sample (a multiple of 64), kind, channel, first value, second value."""
    parts = [_part_events(score, track, channel) for channel, track in enumerate(score.tracks)]
    events = np.concatenate(parts) if parts else np.zeros((0, 5), np.int64)
    ticks = events[:, 0].copy()
    blocks = np.rint(_seconds_at(score, ticks) * sample_rate / BLOCK_SAMPLES).astype(np.int64)
    events[:, 0] = np.maximum(blocks, 0) * BLOCK_SAMPLES
    return np.asarray(events[np.lexsort((events[:, 1], ticks))])


class Synthesizer:
    """A SoundFont, loaded once, that plays scores.

    Every render has a FluidSynth of its own on the shared SoundFont (0.4 ms to make; its own reset leaves traces in the samples),
    so the same score gives the same samples whatever was played before or is played beside it. Not for use from two threads at once.

    Parameters
    ----------
    soundfont : see ``find_soundfont``
    sample_rate : int [Hz, 8000–96000]
    gain : float [linear, 0–10]

    Raises
    ------
    ValueError
        If FluidSynth or the SoundFont is missing, or the SoundFont cannot be read.
    """

    def __init__(self, soundfont: str | Path | None = None, *, sample_rate: int = 44100, gain: float = DEFAULT_GAIN) -> None:
        self._streams: weakref.WeakSet[_Stream] = weakref.WeakSet()
        self._keeper = self._settings = None
        self.soundfont = find_soundfont(soundfont)
        if not 8000 <= sample_rate <= 96000:
            raise ValueError(f"sample rate {sample_rate} Hz: FluidSynth renders at 8000 to 96000 Hz")
        self.sample_rate = sample_rate
        self._library = _open_library()
        self._settings = _new_settings(self._library, sample_rate, gain)
        self._keeper = self._library.new_fluid_synth(self._settings)  # owns the SoundFont, plays nothing
        with _silent_glib(self._library):
            font = self._library.fluid_synth_sfload(self._keeper, os.fsencode(self.soundfont), 0)
        if font < 0:
            self.close()
            raise ValueError(f"{self.soundfont}: not a SoundFont that FluidSynth can read (SF2; SF3 if it was built with libsndfile)")
        self._font = self._library.fluid_synth_get_sfont_by_id(self._keeper, font)

    def close(self) -> None:
        """Free the SoundFont. Closing twice is harmless."""
        for stream in list(self._streams):
            stream.close()
        if self._keeper is not None:
            self._library.delete_fluid_synth(self._keeper)
        if self._settings is not None:
            self._library.delete_fluid_settings(self._settings)
        self._keeper = self._settings = None

    def __enter__(self) -> Synthesizer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def render(
        self,
        score: Any,
        *,
        start_seconds: float = 0.0,
        max_seconds: float | None = None,
        tail_seconds: float = DEFAULT_TAIL_SECONDS,
        mono: bool = False,
    ) -> NDArray[np.float32]:
        """Play a score, or an excerpt of it.

        Parameters
        ----------
        start_seconds : float [>= 0]
            Where the excerpt begins; notes already sounding there are heard.
        max_seconds : float or None
            Length at most.
        tail_seconds : float [>= 0]
            Time after the last note's end, for its decay.
        mono : bool
            The mean of left and right.

        Returns
        -------
        np.ndarray [shape=(2, N), or (1, N) if mono]

        Raises
        ------
        ValueError
            If the excerpt is longer than ``MAX_RENDER_SECONDS``: use ``blocks``.
        """
        samples = self.samples(score, start_seconds=start_seconds, max_seconds=max_seconds, tail_seconds=tail_seconds)
        if samples > MAX_RENDER_SECONDS * self.sample_rate:
            raise ValueError(
                f"{samples / self.sample_rate / 3600:.1f} hours are too long for one array; give max_seconds, or use Synthesizer.blocks"
            )
        y = next(self._play(score, start_seconds, samples, max(samples, 1)), np.zeros((2, 0), np.float32))
        return np.asarray(y.mean(axis=0, keepdims=True)) if mono else y

    def blocks(
        self,
        score: Any,
        block_samples: int,
        *,
        start_seconds: float = 0.0,
        max_seconds: float | None = None,
        tail_seconds: float = DEFAULT_TAIL_SECONDS,
    ) -> Iterator[NDArray[np.float32]]:
        """Play a score in blocks of ``block_samples`` (the last may be shorter): ``render`` in bounded memory, sample for sample."""
        if block_samples < 1:
            raise ValueError(f"block_samples {block_samples}: at least 1")
        samples = self.samples(score, start_seconds=start_seconds, max_seconds=max_seconds, tail_seconds=tail_seconds)
        return self._play(score, start_seconds, samples, block_samples)

    def samples(
        self,
        score: Any,
        *,
        start_seconds: float = 0.0,
        max_seconds: float | None = None,
        tail_seconds: float = DEFAULT_TAIL_SECONDS,
    ) -> int:
        """How many samples ``render`` and ``blocks`` give for these arguments."""
        for name, value in (("start_seconds", start_seconds), ("max_seconds", max_seconds or 0.0), ("tail_seconds", tail_seconds)):
            if not value >= 0:  # NaN too
                raise ValueError(f"{name} {value}: must be 0 or more")
        seconds = max(duration_seconds(score) + tail_seconds - start_seconds, 0.0)
        return round(min(seconds, np.inf if max_seconds is None else max_seconds) * self.sample_rate)

    def _play(self, score: Any, start_seconds: float, samples: int, block_samples: int) -> Iterator[NDArray[np.float32]]:
        if self._keeper is None:
            raise ValueError("this Synthesizer is closed")
        start = round(min(start_seconds, 2 * MAX_SECONDS) * self.sample_rate)
        origin = max(start - round(PREROLL_SECONDS * self.sample_rate), 0) // BLOCK_SAMPLES * BLOCK_SAMPLES
        stream = _Stream(self._library, self._settings, self._font, score, _from(_events(score, self.sample_rate), origin))
        self._streams.add(stream)
        try:
            stream.skip(start - origin if samples else 0)
            for first in range(0, samples, block_samples):
                yield stream.pull(min(block_samples, samples - first))
        finally:
            stream.close()


def _new_settings(library: Any, sample_rate: int, gain: float) -> Any:
    settings = library.new_fluid_settings()
    for key, number in {"synth.sample-rate": float(sample_rate), "synth.gain": gain}.items():
        if library.fluid_settings_setnum(settings, key.encode(), number) < 0:
            raise ValueError(f"FluidSynth refuses {key} = {number}")
    integers = {
        "synth.midi-channels": 256,
        "synth.polyphony": 256,
        "synth.cpu-cores": 1,  # songs are rendered side by side; threads inside one would only quarrel
        "synth.reverb.active": 0,
        "synth.chorus.active": 0,
    }
    for key, integer in integers.items():
        library.fluid_settings_setint(settings, key.encode(), integer)
    return settings


def _from(events: NDArray[np.int64], origin: int) -> NDArray[np.int64]:
    """Events from sample ``origin`` on, counted from there: settings made before are kept, notes that still sound begin anew."""
    if origin == 0:
        return events
    past = events[:, 0] < origin
    ends: dict[tuple[int, int], int] = {}
    for index in np.flatnonzero(past & np.isin(events[:, 1], (_ON, _OFF, _OFF_AT_ONCE))).tolist():
        key = (int(events[index, 2]), int(events[index, 3]))
        if events[index, 1] == _ON:
            ends[key] = index
        else:
            ends.pop(key, None)
    keep = ~past | np.isin(events[:, 1], (_CONTROL, _BEND))
    keep[list(ends.values())] = True
    begin = np.maximum(events[keep, 0] - origin, 0)
    return np.column_stack([begin, events[keep, 1:]])


class _Stream:
    """A FluidSynth with the events still to come: pull samples, and they are sent in time."""

    def __init__(self, library: Any, settings: Any, font: Any, score: Any, events: NDArray[np.int64]) -> None:
        if len(score.tracks) > MAX_PARTS:
            raise ValueError(f"{len(score.tracks)} parts; the limit is {MAX_PARTS}")
        self._library, self._font = library, font
        self._events, self._next, self._now = events, 0, 0
        self._sounding: dict[tuple[int, int], int] = {}
        self._synth = library.new_fluid_synth(settings)
        library.fluid_synth_add_sfont(self._synth, font)
        for channel, track in enumerate(score.tracks):
            library.fluid_synth_set_channel_type(self._synth, channel, int(track.is_drum))
            library.fluid_synth_program_change(self._synth, channel, track.program)

    def close(self) -> None:
        if self._synth is not None:
            self._library.fluid_synth_remove_sfont(self._synth, self._font)  # else it would be freed with this synth
            self._library.delete_fluid_synth(self._synth)
        self._synth = None

    def skip(self, samples: int) -> None:
        for first in range(0, samples, 2**16):
            self.pull(min(2**16, samples - first))

    def pull(self, samples: int) -> NDArray[np.float32]:
        if self._synth is None:
            raise ValueError("this Synthesizer was closed while it played")
        y = np.empty((2, samples), np.float32)
        left, right = y.ctypes.data, y.ctypes.data + y.strides[0]
        write, synth = self._library.fluid_synth_write_float, self._synth
        begin, end = self._now, self._now + samples
        while self._now < end:
            due = self._send_due()
            stop = min(due, end)
            write(synth, stop - self._now, left, self._now - begin, 1, right, self._now - begin, 1)
            self._now = stop
        return y

    def _send_due(self) -> int:
        """Send what is due now; the sample of the next event."""
        stop = int(np.searchsorted(self._events[:, 0], self._now, side="right"))
        for _, kind, channel, a, b in self._events[self._next : stop].tolist():
            self._send(kind, channel, a, b)
        self._next = max(stop, self._next)
        return int(self._events[self._next, 0]) if self._next < len(self._events) else 2**62

    def _send(self, kind: int, channel: int, a: int, b: int) -> None:
        if kind == _ON:
            self._sounding[channel, a] = self._sounding.get((channel, a), 0) + 1
            self._library.fluid_synth_noteon(self._synth, channel, a, b)
        elif kind == _CONTROL:
            self._library.fluid_synth_cc(self._synth, channel, a, b)
        elif kind == _BEND:
            self._library.fluid_synth_pitch_bend(self._synth, channel, a)
        else:
            # FluidSynth ends every voice of a key at once; where notes of one key overlap, the last end is the end
            self._sounding[channel, a] = self._sounding.get((channel, a), 1) - 1
            if self._sounding[channel, a] <= 0:
                self._library.fluid_synth_noteoff(self._synth, channel, a)


def render(
    source: str | Path | bytes,
    *,
    soundfont: str | Path | None = None,
    sample_rate: int = 44100,
    start_seconds: float = 0.0,
    max_seconds: float | None = None,
) -> tuple[NDArray[np.float32], int]:
    """A MIDI file as sound, in one call: ``(y (2, N), sample_rate)``. For many files keep a ``Synthesizer``."""
    score = load_score(source)
    with Synthesizer(soundfont, sample_rate=sample_rate) as synthesizer:
        return synthesizer.render(score, start_seconds=start_seconds, max_seconds=max_seconds), sample_rate
