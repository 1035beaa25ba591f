"""The drum layer: bars of a style's own drummers, played on a song's own beats with the style's own hits.

A canvas that is asked to invent drums paints haze. So they are not painted: a style carries a small library, *grooves* (the commonest bars
of one of its songs each) and *sounds* (one hit each, as samples), and a song brings its beats, its onsets and its loudness. For a song the
groove is chosen whose hits fall where the song's own onsets do; for each bar the bar of that groove that fits best; and every hit is placed
between the beats that the song really has, together with a note where one is near, as loud as the song is there. Nothing is played where
the song is silent, or has no clear beat.

Which hits there are is decided for the whole song at once, from the seed and what `rhythm.BeatTracker` heard; playing them is adding
samples. So chunks are the whole, exactly.

Conventions: times are seconds from the start of the song; a *tick* is 1/480 of a beat; drums are named by their General MIDI note (36 is
the bass drum, 38 the snare, 42 the closed hi-hat); velocities are MIDI's, and amplitude goes with their square; waveforms are (C, N) at the
rate of the sounds and at the working loudness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from stylestream.rhythm import LONGEST_BEAT_SECONDS, NO_BEATS, Pulse, Seconds, nearest_beats

Array = NDArray[np.float32]
Numbers = NDArray[np.integer[Any]]

SAMPLE_RATE = 44100
TICKS = 480  # of a beat
GRID = 12  # places of a beat on which patterns and songs are compared: sixteenths and triplets both fall on it
USUAL_DRUMS = 0.5  # of the dial: as loud as in the style's own songs; the square of the dial counts, so 1 is 12 dB more
SLOW_BEAT_SECONDS = 0.92  # below 65 beats a minute a drummer counts in halves
START_SECONDS = 0.05  # a beat so near to the start of a song is where it begins
REPEAT_SECONDS = 0.07  # one drum is not hit again sooner
CHOKED, CHOKING = (46,), (42, 44, 46)  # an open hi-hat sounds until the hat is touched again
CHOKE_SECONDS = 0.01
EARLY_SECONDS = 0.014  # a note is heard this much after it is struck (chosen by flux on validation songs); a drummer strikes with it
TOGETHER_SECONDS = 0.045  # a hit this near to a note of the song falls together with it: nobody plays on the grid
SILENCE_DB = 35.0  # under the song's loudness a passage counts as silent
SOFTER_DB, LOUDER_DB = -15.0, 4.0  # how far dynamics go
COMPRESSION = 0.7  # of the song's dynamics: a soft drummer is still heard
USUAL_BEATS = 4

# Notes of drums that can stand in for each other, the first for all: a kit has few sounds.
FAMILIES = (
    *((36, 35), (38, 40), (37,), (39,), (42, 44), (46,), (51, 59, 53), (49, 57, 52, 55), (45, 41, 43), (48, 47, 50), (54, 69, 70, 82)),
    *((56, 67, 68), (62, 60, 61, 63, 64, 65, 66), (75, 76, 77, 37), (80, 81)),
)
KICKS, SNARES, HATS = (35, 36), (37, 38, 39, 40), (42, 44, 46, 51, 53, 59)

# What a stranger's file may hold: limits are ten times what the builder makes.
MAX_SAMPLES, MAX_SOUNDS, MAX_HITS, MAX_BARS, MAX_GROOVES, MAX_BEATS = 8_000_000, 256, 200_000, 20_000, 4_000, 16


@dataclass(frozen=True, eq=False)
class DrumLayer:
    """A style's grooves and sounds, as they lie in its file: all whole numbers.

    Attributes
    ----------
    samples : array [int16, shape=(n,)]
        All sounds, one after another; full scale is 32768.
    sounds : array [int32, shape=(m, 5)]
        Note, velocity, first sample, end, balance in 1/1000 (1000 is left only).
    hits : array [int16, shape=(h, 3)]
        Tick from the bar's start (early hits of the first beat are below 0), note, velocity.
    bars : array [int32, shape=(b, 5)]
        Groove, beats, how often its song plays it, first hit, end.
    grooves : array [int32, shape=(g, 2)]
        Beats a minute, times 100; gain in 1/100 dB, by which all grooves are equally loud.
    gain : array [int32, shape=(1,)]
        Of the samples, at the default of the dial, in 1/100 dB.
    """

    samples: NDArray[np.int16]
    sounds: Numbers
    hits: Numbers
    bars: Numbers
    grooves: Numbers
    gain: Numbers

    @cached_property
    def factor(self) -> float:
        """What a sample is multiplied by."""
        return float(10 ** (int(self.gain[0]) / 2000) / 32768)

    @cached_property
    def longest_samples(self) -> int:
        """Of all sounds."""
        return int((self.sounds[:, 3] - self.sounds[:, 2]).max())

    @cached_property
    def velocities(self) -> dict[int, Numbers]:
        """Note → rows of ``sounds``; a note that has none of its own is played by its family."""
        own: dict[int, Numbers] = {int(note): np.flatnonzero(self.sounds[:, 0] == note) for note in np.unique(self.sounds[:, 0])}
        lent = {note: own[there] for family in FAMILIES for note in family for there in family[::-1] if there in own}
        return lent | own

    def bars_of(self, groove: int) -> Numbers:
        """Rows of ``bars``."""
        return np.flatnonzero(self.bars[:, 0] == groove)

    @cached_property
    def usual_bpm(self) -> float:
        """Of the grooves, in the (geometric) middle."""
        return float(np.exp(np.log(self.grooves[:, 0] / 100).mean()))

    @cached_property
    def usual_hits(self) -> float:
        """A beat, in the middle of the grooves."""
        return float(np.median([self.hits_a_beat(groove) for groove in range(len(self.grooves))]))

    def hits_a_beat(self, groove: int) -> float:
        """Of all bars of a groove, as often as they are played."""
        bars = self.bars[self.bars_of(groove)]
        return float((bars[:, 2] * (bars[:, 4] - bars[:, 3])).sum() / max((bars[:, 2] * bars[:, 1]).sum(), 1))

    def hits_of(self, bar: int) -> Numbers:
        """Rows (tick, note, velocity) of a bar."""
        return self.hits[self.bars[bar, 3] : self.bars[bar, 4]].astype(np.int64)

    def tensors(self) -> dict[str, Any]:
        """As a style file keeps it (`style.save_style`)."""
        import torch

        return {field.name: torch.from_numpy(np.ascontiguousarray(getattr(self, field.name))) for field in fields(self)}


_KINDS = {
    "samples": (np.int16, (), MAX_SAMPLES),
    "sounds": (np.int32, (5,), MAX_SOUNDS),
    "hits": (np.int16, (3,), MAX_HITS),
    "bars": (np.int32, (5,), MAX_BARS),
    "grooves": (np.int32, (2,), MAX_GROOVES),
    "gain": (np.int32, (), 1),
}


def layer_of(tensors: Mapping[str, Any], where: str) -> DrumLayer | None:
    """The drum layer of a style file; None if it has none.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        `style.StyleData.drums`.
    where : str
        What the style is called in messages.

    Raises
    ------
    ValueError
        If it is not one: the file may be a stranger's.
    """
    if not tensors:
        return None
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    problem = _problem(arrays)
    if problem:
        raise ValueError(f"{where}: its drum layer is damaged ({problem}); get the style file again")
    return DrumLayer(**arrays)


def _problem(arrays: Mapping[str, NDArray[Any]]) -> str:
    if set(arrays) != set(_KINDS):
        return f"it has {', '.join(sorted(arrays))[:80]}"
    for name, (kind, shape, most) in _KINDS.items():
        array = arrays[name]
        if array.dtype != kind or array.shape[1:] != shape or array.ndim != 1 + len(shape) or not 1 <= len(array) <= most:
            return f"{name} is {array.dtype} {array.shape}"
    sounds, bars, hits = arrays["sounds"], arrays["bars"], arrays["hits"]
    spans = ((sounds[:, 2:4], len(arrays["samples"]), "sounds"), (bars[:, 3:5], len(hits), "bars"))
    for span, size, name in spans:
        if (span[:, 0] < 0).any() or (span[:, 0] >= span[:, 1]).any() or (span[:, 1] > size).any():
            return f"{name} point outside"
    ranges = (
        *((sounds[:, 0], 0, 127), (sounds[:, 1], 1, 127), (np.abs(sounds[:, 4]), 0, 1000), (hits[:, 1], 0, 127), (hits[:, 2], 1, 127)),
        *((bars[:, 0], 0, len(arrays["grooves"]) - 1), (bars[:, 1], 1, MAX_BEATS), (bars[:, 2], 1, 10**6), (hits[:, 0], -TICKS, 32767)),
        *((arrays["grooves"][:, 0], 100, 10**5), (np.abs(arrays["grooves"][:, 1]), 0, 6000), (np.abs(arrays["gain"]), 0, 12000)),
    )
    return next(
        (
            f"a number of {values.dtype} is not from {low} to {high}"
            for values, low, high in ranges
            if ((values < low) | (values > high)).any()
        ),
        "",
    )


# ------------------------------------------------------------------------------------------------------------------ what is played


@dataclass(frozen=True, eq=False)
class Hits:
    """What a drummer plays in a song, in order of time.

    Attributes
    ----------
    seconds : array [shape=(n,), ascending]
    notes : array [shape=(n,)]
        General MIDI.
    sounds : array [shape=(n,)]
        Rows of ``DrumLayer.sounds``.
    gains : array [shape=(n,), linear]
    stops : array [shape=(n,), seconds]
        Where a sound is cut short; inf: nowhere.
    """

    seconds: Seconds
    notes: NDArray[np.int64]
    sounds: NDArray[np.int64]
    gains: Seconds
    stops: Seconds

    def __len__(self) -> int:
        return len(self.seconds)


NO_HITS = Hits(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


STEADY = Pulse(NO_BEATS, np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0)  # neither loud nor soft anywhere


@dataclass(frozen=True, eq=False)
class Bar:
    """A bar of the song: where its beats are, and its end; ``first`` is above 0 where it is only the end of a bar."""

    edges: Seconds  # (beats + 1,)
    first: int = 0

    @property
    def beats(self) -> int:
        """How many there would be if it were whole."""
        return self.first + len(self.edges) - 1


def plan_hits(layer: DrumLayer, pulse: Pulse, *, seed: int = 0) -> Hits:
    """What the style's drummer plays to a song.

    Parameters
    ----------
    pulse : Pulse
        The song's beats, onsets and level; without reliable beats there are no hits.
    seed : int
        Of what is left to chance: between grooves and bars that fit as well.

    Returns
    -------
    Hits
        Before the loudness of the layer: a gain of 1 is the style's usual level.
    """
    pulse = counted(pulse)
    bars = song_bars(pulse) if pulse.beats.reliable else []
    if not bars:
        return NO_HITS
    drummer = _Drummer(layer, pulse, bars, seed)
    gain_db = int(layer.grooves[drummer.groove, 1]) / 100
    return _finished(layer, pulse, np.concatenate([drummer.bar(k) for k in range(len(bars))]), gain_db)


def counted(pulse: Pulse) -> Pulse:
    """A song as the style's drummer counts it, where he has his own count."""
    return pulse if pulse.drummed is None or not pulse.beats.reliable else replace(pulse, beats=pulse.drummed)


def song_bars(pulse: Pulse) -> list[Bar]:
    """Bars of a song as a drummer counts them: in halves where the beat is slow."""
    beats = _from_the_start(pulse.beats.beat_seconds)
    edges = np.append(beats, 2 * beats[-1] - beats[-2])  # the last beat is as long as the one before
    down = (
        nearest_beats(beats, pulse.beats.downbeat_seconds) if len(pulse.beats.downbeat_seconds) else np.arange(0, len(beats), USUAL_BEATS)
    )
    lengths = np.diff(down)
    usual = int(np.median(lengths)) if len(lengths) else USUAL_BEATS
    starts = np.unique(np.concatenate([[0], down, [len(beats)]]))
    bars = [Bar(edges[a : b + 1], max(usual - (b - a), 0) if a < down[0] else 0) for a, b in pairwise(starts)]
    return [part for bar, slow in zip(bars, _slow(bars), strict=True) for part in (_halved(bar, usual) if slow else [bar])]


def _from_the_start(beats: Seconds) -> Seconds:
    """Beats with the one on which a song begins: nothing rises there, so it is not among those that are found."""
    first = 2 * beats[0] - beats[1]
    return np.concatenate([[max(first, 0.0)], beats]) if abs(first) <= START_SECONDS else beats


def _slow(bars: list[Bar]) -> NDArray[np.bool_]:
    # by the median of some bars around, so that one long beat does not change the count
    beat = np.array([np.median(np.diff(bar.edges)) for bar in bars])
    near = np.pad(beat, 4, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(near, 9), axis=1) > SLOW_BEAT_SECONDS


def _halved(bar: Bar, usual: int) -> list[Bar]:
    edges = np.interp(np.arange(2 * len(bar.edges) - 1) / 2, np.arange(len(bar.edges)), bar.edges)
    if bar.first:
        cut = edges[-(usual + 1) :]
        return [Bar(cut, usual - (len(cut) - 1))]
    middle = len(bar.edges) - 1
    return [Bar(edges[: middle + 1]), Bar(edges[middle:])]


class _Drummer:
    """Chooses what is played in each bar of one song."""

    def __init__(self, layer: DrumLayer, pulse: Pulse, bars: list[Bar], seed: int) -> None:
        self.layer, self.pulse, self.bars, self.seed = layer, pulse, bars, int(seed) % 2**63
        onset = maximum_filter1d(pulse.onset, 3)
        self.heard = [_profile_of_song(bar, onset, pulse.frames_per_second) for bar in bars]
        self.groove = self._choose_groove()
        self.choices = layer.bars_of(self.groove)
        self.profiles = {int(bar): _profile(layer, int(bar)) for bar in self.choices}
        self.full = np.percentile([self._level(k) for k in range(len(bars))], 75)

    def _choose_groove(self) -> int:
        """The groove whose hits fall where the song's onsets do, of about the song's tempo and metre."""
        beats = int(np.median([bar.beats for bar in self.bars]))
        bpm = 60 / np.median(np.concatenate([np.diff(bar.edges) for bar in self.bars]))
        mean = np.mean([_fitted(heard, beats * GRID) for heard in self.heard], axis=0)
        chance = np.random.default_rng([self.seed, 2**32]).gumbel(size=len(self.layer.grooves))
        return int(np.argmax([self._liking(g, mean, beats, bpm) for g in range(len(self.layer.grooves))] + 0.05 * chance))

    def _liking(self, groove: int, song: Seconds, beats: int, bpm: float) -> float:
        bars = self.layer.bars_of(groove)
        if not len(bars):
            return -np.inf
        counts = self.layer.bars[bars, 2]
        profile = np.average([_fitted(_profile(self.layer, int(bar)), beats * GRID) for bar in bars], axis=0, weights=counts)
        octaves = abs(np.log2(bpm / (self.layer.grooves[groove, 0] / 100)))
        density = abs(np.log2(self.layer.hits_a_beat(groove) / self.layer.usual_hits))  # else few hits, all on the song's own, would win
        other_metre = np.average(self.layer.bars[bars, 1] != beats, weights=counts)
        return _correlation(song, profile) - 0.3 * octaves - 0.3 * density - 0.5 * other_metre

    def _level(self, k: int) -> float:
        edges = self.bars[k].edges
        return self.pulse.mean_db(edges[0], edges[-1])

    def bar(self, k: int) -> Seconds:
        """Rows (seconds, note, velocity) of bar k."""
        bar, heard = self.bars[k], self.heard[k]
        fits = [_correlation(heard, _fitted(self.profiles[int(i)], len(heard))) for i in self.choices]
        same_metre = self.layer.bars[self.choices, 1] == bar.beats
        chance = np.random.default_rng([self.seed, k]).gumbel(size=len(self.choices))
        liking = 2.0 * np.array(fits) + 0.5 * np.log(self.layer.bars[self.choices, 2]) + 2.0 * same_metre + 0.5 * chance
        chosen = int(self.choices[int(liking.argmax())])
        hits = _repeated(self.layer.hits_of(chosen), int(self.layer.bars[chosen, 1]), bar.beats)
        return _placed(self._thinned(hits, k), bar)

    def _thinned(self, hits: Numbers, k: int) -> Numbers:
        """Where the song is soft, the pattern's softest and least accented hits are left out."""
        intensity = np.clip(1 + (self._level(k) - self.full) / 24, 0, 1)
        if intensity > 0.75 or not len(hits):
            return hits
        on_beat = np.abs((hits[:, 0] + TICKS // 2) % TICKS - TICKS // 2) < TICKS / GRID
        accent = hits[:, 2] / max(int(hits[:, 2].max()), 1) + 0.5 * on_beat
        keep = max(1, round(len(hits) * (0.4 + 0.8 * intensity)))
        return hits[np.sort(np.argsort(-accent, kind="stable")[:keep])]


def _profile(layer: DrumLayer, bar: int) -> Seconds:
    """How much is hit at each place of a bar, (beats * GRID,)."""
    hits, places = layer.hits_of(bar), int(layer.bars[bar, 1]) * GRID
    at = np.round(hits[:, 0] * (GRID / TICKS)).astype(np.int64) % places
    return np.sqrt(np.bincount(at, weights=(hits[:, 2] / 127.0) ** 2, minlength=places))


def _profile_of_song(bar: Bar, onset: Array, frames_per_second: float) -> Seconds:
    """How much starts at each place of a bar of the song; of the part that is missing nothing is known: 0."""
    places = np.arange((len(bar.edges) - 1) * GRID) / GRID
    frames = np.interp(places, np.arange(len(bar.edges)), bar.edges) * frames_per_second
    found = np.interp(frames, np.arange(len(onset)), onset)
    return np.concatenate([np.zeros(bar.first * GRID), found])


def _fitted(profile: Seconds, places: int) -> Seconds:
    """A bar cut off, or begun again, to the length of another."""
    return np.resize(profile, places)


def _correlation(a: Seconds, b: Seconds) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 1e-12 else 0.0


def _repeated(hits: Numbers, beats: int, wanted: int) -> Numbers:
    """A bar that is too short begins again."""
    times = -(-wanted // beats)
    return np.concatenate([hits + np.array([beats * TICKS * i, 0, 0]) for i in range(times)])


def _placed(hits: Numbers, bar: Bar) -> Seconds:
    """Ticks → seconds, between the beats that the song has."""
    if not len(hits):
        return np.zeros((0, 3))
    beat = hits[:, 0] / TICKS - bar.first
    inside = (beat > -1 / 4) & (beat < len(bar.edges) - 1)
    at = np.arange(-1, len(bar.edges))
    edges = np.concatenate([[2 * bar.edges[0] - bar.edges[1]], bar.edges])
    in_gap = (np.diff(edges) > LONGEST_BEAT_SECONDS)[np.clip(np.floor(beat).astype(np.int64) + 1, 0, len(edges) - 2)]
    keep = inside & ~in_gap
    return np.stack([np.interp(beat[keep], at, edges), hits[keep, 1], hits[keep, 2]], axis=1)


def _finished(layer: DrumLayer, pulse: Pulse, rows: Seconds, gain_db: float) -> Hits:
    """Rows (seconds, note, velocity) → hits: in order, none in silence, none twice, each with its sound and its loudness."""
    seconds = _together(rows[:, 0], pulse.onset_seconds)
    keep = np.isin(rows[:, 1], list(layer.velocities)) & (seconds >= 0)
    rows = np.column_stack([np.maximum(seconds - EARLY_SECONDS, 0), rows[:, 1:]])[keep]
    rows = rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]  # of two that fall together the louder is played
    rows = rows[~pulse.silent_at(rows[:, 0], SILENCE_DB)]
    rows = rows[_apart(rows)]
    if not len(rows):
        return NO_HITS
    dynamics = np.clip(COMPRESSION * pulse.dynamics_db(rows[:, 0]), SOFTER_DB, LOUDER_DB)
    chosen = [_sound(layer, int(note), float(velocity)) for _, note, velocity in rows]
    sounds, gains = np.array([c[0] for c in chosen]), np.array([c[1] for c in chosen])
    notes = rows[:, 1].astype(np.int64)
    return Hits(rows[:, 0], notes, sounds, gains * 10 ** ((dynamics + gain_db) / 20), _stops(rows[:, 0], notes))


def _together(seconds: Seconds, onset_seconds: Seconds) -> Seconds:
    """Each time, or the nearest onset if that is near."""
    if not len(onset_seconds):
        return seconds
    after = np.clip(np.searchsorted(onset_seconds, seconds), 0, len(onset_seconds) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(seconds - onset_seconds[before] < onset_seconds[after] - seconds, onset_seconds[before], onset_seconds[after])
    return np.where(np.abs(nearest - seconds) < TOGETHER_SECONDS, nearest, seconds)


def _apart(rows: Seconds) -> NDArray[np.bool_]:
    last: dict[int, float] = {}
    keep = np.ones(len(rows), dtype=bool)
    for i, (seconds, note, _) in enumerate(rows):
        keep[i] = seconds - last.get(int(note), -1.0) >= REPEAT_SECONDS
        if keep[i]:
            last[int(note)] = float(seconds)
    return keep


def _sound(layer: DrumLayer, note: int, velocity: float) -> tuple[int, float]:
    """The sound recorded at the nearest velocity, and what brings it to this one."""
    rows = layer.velocities[note]
    best = int(rows[np.abs(layer.sounds[rows, 1] - velocity).argmin()])
    return best, float((velocity / layer.sounds[best, 1]) ** 2)


def _stops(seconds: Seconds, notes: NDArray[np.int64]) -> Seconds:
    stops = np.full(len(seconds), np.inf)
    touched = seconds[np.isin(notes, CHOKING)]
    rings = np.isin(notes, CHOKED)
    after = np.searchsorted(touched, seconds[rings] + 1e-6, side="right")
    stops[rings] = np.append(touched, np.inf)[after]
    return stops


# --------------------------------------------------------------------------------------------------------------------------- sound


def loop(layer: DrumLayer, groove: int, bars: int = 8) -> Hits:
    """A groove by itself at its own tempo: its bars as often as they are played, without its gain."""
    rows, beat = layer.bars[layer.bars_of(groove)], 6000 / int(layer.grooves[groove, 0])
    chosen = np.repeat(layer.bars_of(groove), np.maximum(np.round(bars * rows[:, 2] / rows[:, 2].sum()), 1).astype(np.int64))
    starts = np.concatenate([[0], np.cumsum(layer.bars[chosen, 1])])
    placed = [_placed(layer.hits_of(int(k)), Bar(beat * np.arange(a, b + 1))) for k, (a, b) in zip(chosen, pairwise(starts), strict=True)]
    return _finished(layer, STEADY, np.concatenate(placed), 0.0)


def play(layer: DrumLayer, hits: Hits, samples: int, *, first_sample: int = 0, channels: int = 1) -> Array:
    """Hits → waveform.

    Parameters
    ----------
    samples : int
        How many to make.
    first_sample : int
        Where in the song they start: any part of the song gives the samples that the whole gives.
    channels : int
        With two, every drum stands where its sound was recorded; else all channels are alike.

    Returns
    -------
    array [shape=(channels, samples), float32]
        At `SAMPLE_RATE`, and the style's usual loudness beside a song at the working loudness. The mean over channels is the mono sound.
    """
    out = np.zeros((channels, samples), dtype=np.float32)
    starts = np.round(hits.seconds * SAMPLE_RATE).astype(np.int64) - first_sample
    for i in np.flatnonzero((starts > -layer.longest_samples) & (starts < samples)):
        _add(out, layer, int(hits.sounds[i]), float(hits.gains[i]), int(starts[i]), float(hits.stops[i] - hits.seconds[i]))
    return out


def _add(out: Array, layer: DrumLayer, sound: int, gain: float, start: int, seconds: float) -> None:
    _, _, first, end, balance = layer.sounds[sound].tolist()
    wave = layer.samples[first:end] * np.float32(gain * layer.factor)
    if seconds < len(wave) / SAMPLE_RATE:
        wave = _cut_short(wave, round(seconds * SAMPLE_RATE))
    skip, stop = max(-start, 0), min(len(wave), out.shape[1] - start)
    if stop > skip:
        sides = (1 + balance / 1000, 1 - balance / 1000) if len(out) == 2 else (1.0,) * len(out)
        for channel, side in zip(out, sides, strict=True):
            channel[start + skip : start + stop] += wave[skip:stop] * np.float32(side)


def _cut_short(wave: Array, samples: int) -> Array:
    fade = round(CHOKE_SECONDS * SAMPLE_RATE)
    cut = wave[: samples + fade].copy()
    tail = cut[samples:]
    tail *= np.linspace(1, 0, fade, dtype=np.float32)[: len(tail)]
    return cut


# --------------------------------------------------------------------------------------------------------------------- statistics


def bar_statistics(hits_per_bar: list[Numbers], beats: list[int]) -> dict[str, float]:
    """What a drummer plays, in numbers.

    Parameters
    ----------
    hits_per_bar : list of array [shape=(n, 3)]
        Tick from the bar's start, note, velocity, bar by bar.
    beats : list of int
        Of each bar.

    Returns
    -------
    dict
        ``hits`` a bar; ``syncopation``: share of bass and snare drum hits that are on no beat; ``kick``, ``snare``, ``hat``: shares of the
        hits (of cymbals the ride is a hat).
    """
    hits = np.concatenate(hits_per_bar) if hits_per_bar else np.zeros((0, 3), np.int64)
    if not len(hits):
        return dict.fromkeys(("hits", "syncopation", "kick", "snare", "hat"), 0.0)
    notes = hits[:, 1]
    struck = np.isin(notes, (*KICKS, *SNARES))
    place = np.round(hits[:, 0] * (GRID / TICKS)).astype(np.int64) % GRID
    per_four_beats = USUAL_BEATS / max(sum(beats), 1)
    return {
        "hits": len(hits) * per_four_beats,
        "syncopation": float((place[struck] != 0).mean()) if struck.any() else 0.0,
        **{name: float(np.isin(notes, kinds).mean()) for name, kinds in (("kick", KICKS), ("snare", SNARES), ("hat", HATS))},
    }
