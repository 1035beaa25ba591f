"""Recordings → a style's drum layer: what their drummers repeat, and one hit of each of their drums, cut out.

What is short and broad is taken apart from what lasts (median filters along time and along frequency, Fitzgerald 2010 [1]_), and hits are
looked for where a band of it rises: the bass drum low down, where what rises must fall again; the snare in the middle, hi-hats and
cymbals on top. A *groove* is what most bars of a passage agree on that are alike; a *sound* is the hit of a drum that is most like all its
others, less what they do not share, and less what sounded before it.

Whether there are drums at all is decided passage by passage: there is a clear beat, there is something short above 11 kHz
(`rhythm.Pulse.cymbals`), and bars of at least two drums repeat. A folder has a drummer if three in ten of its recordings have one.

Conventions: as in `drums`; waveforms are mono (N,) at 44.1 kHz and at the working loudness, so that a hit is as loud as it is in a song.

References
----------
.. [1] D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, median_filter

from stylestream import audio
from stylestream.corpus import Window
from stylestream.drumming import (
    COMMON_METRES,
    LONG_SECONDS,
    MAX_BARS,
    MIN_BARS,
    MIN_HITS,
    MIN_SHARE,
    SHORT_SECONDS,
    Groove,
    PlayedBar,
    Sound,
    assemble,
    distinct,
    faded,
    levelled,
    write_layer,
)
from stylestream.drums import GRID, SAMPLE_RATE, TICKS, DrumLayer, song_bars
from stylestream.features import FeatureConfig, LogFrequency, stft
from stylestream.rhythm import BeatTracker, Pulse, Seconds

Array = NDArray[np.float32]
Frames = NDArray[np.int64]

FEATURES = FeatureConfig()
N_FFT, HOP = FEATURES.n_fft_high, FEATURES.hop_length
FRAMES_PER_SECOND = FEATURES.frames_per_second
# Bands of the spectrogram, in STFT bins: single bins to 500 Hz, then a tenth of an octave each, to 16.4 kHz.
EDGES = np.unique(np.concatenate([np.arange(1, 24), np.round(np.geomspace(24, 760, 61)).astype(int)]))
BAND_HZ = np.array([SAMPLE_RATE / N_FFT * np.arange(a, b).mean() for a, b in pairwise(EDGES)])
LASTING_FRAMES, BROAD_BANDS = 17, 9  # of the median filters: 0.2 s, and most of an octave
SOFT = 1e-3  # −60 dB: rises are looked for over it, so that what is nearly silent does not rise
RISE_FRAMES = 2
APART_FRAMES = 4  # of two hits of one drum

KICK, SNARE, HAT, RIDE = 36, 38, 42, 51
FAMILIES = (KICK, SNARE, HAT)
LOUD_VELOCITY = 112
LEAST_VELOCITY = 30
PASSAGE_SECONDS = 45.0
PASSAGES, PASSAGES_OF_ONE = 12, 3  # listened to in all, and of one recording: some seconds each
MIN_CYMBALS = 0.5
MIN_ALIKE = 0.5  # bars of one groove: the cosine between what is hit in them
MIN_REPEATED, MIN_OF_ONE = 0.4, 0.3  # of a passage's bars, that repeat, and that repeat one bar
MIN_TURN = 0.3  # by which bars are better counted from another beat: bass drum on one, snare on two and four
MOST_HITS = 24  # of a drum, that its sound is made of
LEAST_HITS = 4
SOFTER_DB = 4.0  # between a drum's loud and soft hits, that they are two sounds
CUT_FFT, CUT_HOP = 1024, 128  # where hits are cut out: 23 ms, for a sharp attack
BEFORE_SAMPLES = 64
ATTACK_FRAMES = 7  # of the cut, until the window has left the attack behind
FALL_DB = {KICK: 60.0, SNARE: 90.0, HAT: 40.0}  # a second, at least: what falls more slowly is not the drum
NOISE_HZ = 500.0  # above, a drum is noise, and a line is a note
RIDE_SECONDS = 0.25  # a hat that sounds longer before it has lost 20 dB is a ride
QUIET_DB = -40.0  # under its peak a sound ends


@dataclass(frozen=True)
class Rule:
    """Where a drum is looked for."""

    low_hz: float
    high_hz: float
    least_rise: float  # of the logarithm over SOFT
    share: float  # of the strongest rises of a passage
    fall_frames: int = 0  # after so many what rose must have fallen
    least_fall: float = 0.0
    within_db: float = 99.0  # of a passage's loud ones: what is softer is something else
    short: bool = True  # looked for in what is short and broad; else in everything


# Chosen on 35 renders of the training split (see docs/drums.md for what they find on others).
RULES = {
    KICK: Rule(35, 110, 1.0, 0.3, fall_frames=16, least_fall=0.7, within_db=12.0, short=False),
    SNARE: Rule(1500, 6000, 1.2, 0.65),
    HAT: Rule(8000, 16500, 0.4, 0.2),
}


@dataclass(frozen=True, eq=False)
class Struck:
    """One drum's hits in a passage."""

    seconds: Seconds  # ascending
    level_db: Seconds  # in the drum's band, where it is hit


@dataclass(frozen=True, eq=False)
class Passage:
    """A part of a recording, and what is drummed in it."""

    y: Array  # (N,)
    pulse: Pulse
    struck: dict[int, Struck]  # by note
    groove: Groove | None
    reason: str  # why there is no groove


# ---------------------------------------------------------------------------------------------------------------------------- hits


def bands_of(y: Array) -> Array:
    """Magnitude of a waveform (N,) in `EDGES`' bands, (B, T)."""
    S = stft(torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32)), n_fft=N_FFT, hop_length=HOP).abs().numpy()
    return np.asarray(np.sqrt(np.add.reduceat(S[: EDGES[-1]] ** 2, EDGES[:-1], axis=0)), dtype=np.float32)


def percussive(size: Array) -> Array:
    """What of a spectrogram (B, T) is short and broad: its share by the squares of two medians (Fitzgerald's soft mask)."""
    lasting, broad = median_filter(size, (1, LASTING_FRAMES)), median_filter(size, (BROAD_BANDS, 1))
    return np.asarray(size * broad**2 / (broad**2 + lasting**2 + 1e-12), dtype=np.float32)


def find_hits(y: Array) -> dict[int, Struck]:
    """Bass drum, snare and hi-hat hits of a passage.

    Parameters
    ----------
    y : array [shape=(N,)]
        At the working loudness.

    Returns
    -------
    dict of int to Struck
        By General MIDI note; a drum that is not heard has no hits. Of music without drums there are hits too: see `drummed`.
    """
    size = bands_of(y)
    short = percussive(size)
    return {note: _struck(short if rule.short else size, rule) for note, rule in RULES.items()}


def _struck(size: Array, rule: Rule) -> Struck:
    rows = size[(rule.low_hz <= BAND_HZ) & (rule.high_hz > BAND_HZ)]
    loud = np.log1p(rows / SOFT)
    rise = np.maximum(loud - _later(loud, -RISE_FRAMES), 0).mean(0)
    if rule.fall_frames:
        level = loud.mean(0)
        rise = rise * (_later(level, 1) - _later(level, rule.fall_frames) > rule.least_fall)
    frames = _peaks(rise, rule.least_rise, rule.share)
    power = np.square(rows, dtype=np.float64).sum(0)
    level_db = 10 * np.log10(np.maximum(maximum_filter1d(power, 3)[frames], 1e-12))
    near = level_db > np.percentile(level_db, 90) - rule.within_db if len(frames) else np.zeros(0, bool)
    return Struck((frames[near] - RISE_FRAMES / 2 + 0.5) / FRAMES_PER_SECOND, level_db[near])


def _later(a: Array, frames: int) -> Array:
    """What comes so many frames later (before, if negative); the first and the last go on for ever."""
    at = np.clip(np.arange(a.shape[-1]) + frames, 0, a.shape[-1] - 1)
    return np.asarray(a[..., at])


def _peaks(rise: Array, least: float, share: float) -> Frames:
    peaks = np.flatnonzero((rise == maximum_filter1d(rise, 2 * APART_FRAMES + 1)) & (rise > least))
    return peaks[rise[peaks] > share * np.percentile(rise[peaks], 95)] if len(peaks) else peaks


# ------------------------------------------------------------------------------------------------------------------------- grooves


def listen(y: Array) -> Passage:
    """What is drummed in a passage (N,), at the working loudness."""
    tracker = BeatTracker(frames_per_second=FRAMES_PER_SECOND, bins_per_octave=FEATURES.bins_per_octave)
    tracker.push(_features()(torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32))).numpy())
    pulse = tracker.pulse()
    if not pulse.beats.reliable:
        return Passage(y, pulse, {}, None, "it has no clear beat")
    if pulse.cymbals < MIN_CYMBALS:
        return Passage(y, pulse, {}, None, "nothing in it sounds like a cymbal")
    struck = find_hits(y)
    groove = groove_heard(struck, pulse)
    return Passage(y, pulse, struck, groove, "" if groove else "no bars of its hits repeat")


@functools.cache
def _features() -> LogFrequency:
    return LogFrequency(FEATURES)


def groove_heard(struck: dict[int, Struck], pulse: Pulse) -> Groove | None:
    """What most bars agree on, of those that are alike; None where too few are, or too little is hit."""
    bars = [bar for bar in song_bars(pulse) if not bar.first and len(bar.edges) - 1 in COMMON_METRES]
    if len(bars) < MIN_BARS:
        return None
    beats = int(np.median([len(bar.edges) - 1 for bar in bars]))
    edges = [bar.edges for bar in bars if len(bar.edges) - 1 == beats]
    hit, tick, velocity = _tables(struck, edges, beats)  # (bars, drums, places)
    alike = _alike(hit.reshape(len(edges), -1))
    patterns = [_agreed(hit[members], tick[members], velocity[members], beats) for members in alike[:MAX_BARS]]
    found = [PlayedBar(beats, len(members), rows) for members, rows in zip(alike, patterns, strict=False) if rows]
    if not found or found[0].count < MIN_OF_ONE * len(edges) or sum(bar.count for bar in found) < MIN_REPEATED * len(edges):
        return None
    mean_hits = sum(bar.count * len(bar.hits) for bar in found) / sum(bar.count for bar in found)
    if mean_hits < MIN_HITS or len({note for bar in found for _, note, _ in bar.hits}) < 2:
        return None
    return Groove(float(60 / np.median(np.concatenate([np.diff(e) for e in edges]))), tuple(found))


def _tables(struck: dict[int, Struck], edges: Sequence[Seconds], beats: int) -> tuple[NDArray[np.bool_], Seconds, Seconds]:
    """Whether each drum is hit at each place of each bar; where exactly, in ticks; and how hard."""
    allowed = _subdivision(struck, edges)
    shape = (len(edges), len(FAMILIES), beats * GRID)
    hit, tick, velocity = np.zeros(shape, bool), np.full(shape, np.nan), np.full(shape, np.nan)
    for row, note in enumerate(FAMILIES):
        if note not in struck or not len(struck[note].seconds):
            continue
        hard = _velocities(struck[note].level_db)
        for k, bar in enumerate(edges):
            at, which = _within(struck[note].seconds, bar)
            place = _nearest(at, allowed) % (beats * GRID)
            hit[k, row, place] = True
            tick[k, row, place] = (at - _nearest(at, allowed) / GRID) * TICKS
            velocity[k, row, place] = hard[which]
    offset = np.nanmedian(tick) if np.isfinite(tick).any() else 0.0  # beats are found a little beside the hits
    turn = -GRID * _first_beat(struck, edges)
    return np.roll(hit, turn, axis=2), np.roll(tick - offset, turn, axis=2), np.roll(velocity, turn, axis=2)


def _first_beat(struck: dict[int, Struck], edges: Sequence[Seconds]) -> int:
    """Which beat of the bars as they are counted is their first to the drums; 0 where these do not say, or bars are not of four."""
    if len(edges[0]) != 5:
        return 0
    kick, snare = (_on_beats(struck[note].seconds, edges) if note in struck else np.zeros(4) for note in (KICK, SNARE))
    backbeat = np.array([-1, 1, -1, 1])
    fit = [float(np.roll(kick, -r) @ (1, -0.5, 0.5, -0.5) + np.roll(snare, -r) @ backbeat) for r in range(4)]
    best = int(np.argmax(fit))
    return best if fit[best] > fit[0] + MIN_TURN else 0


def _on_beats(seconds: Seconds, edges: Sequence[Seconds]) -> Seconds:
    """How often each beat of a bar is hit, 0 to 1."""
    beats = np.stack(edges)[:, :-1]
    return np.asarray((np.abs(beats[..., None] - seconds).min(-1) < 0.05).mean(0)) if len(seconds) else np.zeros(beats.shape[1])


def _within(seconds: Seconds, edges: Seconds) -> tuple[Seconds, Frames]:
    """Hits of a bar, in beats from its start; one just before it belongs to it."""
    reach = 0.12 * np.diff(edges)[[0, -1]]
    which = np.flatnonzero((seconds >= edges[0] - reach[0]) & (seconds < edges[-1] - reach[1]))
    steps = np.arange(-1, len(edges))
    return np.interp(seconds[which], np.concatenate([[2 * edges[0] - edges[1]], edges]), steps), which


def _subdivision(struck: dict[int, Struck], edges: Sequence[Seconds]) -> Frames:
    """Places of a beat that are played: sixteenths or triplets, whichever the hits lie nearer to."""
    at = np.concatenate([_within(s.seconds, bar)[0] for s in struck.values() for bar in edges] or [np.zeros(0)])
    straight, swung = (np.arange(0, GRID, step) for step in (3, 4))

    def distance(places: Frames) -> float:  # beside what chance would give
        return float(np.abs(at - _nearest(at, places) / GRID).mean() * len(places)) if len(at) else 0.0

    return straight if distance(straight) <= distance(swung) else swung


def _nearest(at: Seconds, places: Frames) -> Frames:
    """Beats → the nearest place that is played, in `GRID`-ths."""
    near = np.concatenate([places, [GRID]])
    beat = np.floor(at)
    chosen = np.abs((at - beat)[:, None] * GRID - near).argmin(1) if len(at) else np.zeros(0, np.int64)
    return (beat * GRID + near[chosen]).astype(np.int64)


def _velocities(level_db: Seconds) -> Seconds:
    """MIDI's, whose square is the amplitude; the loud ones are `LOUD_VELOCITY`."""
    loud = np.percentile(level_db, 80)
    return np.clip(LOUD_VELOCITY * 10 ** ((level_db - loud) / 40), LEAST_VELOCITY, 127)


def _alike(hit: NDArray[np.bool_]) -> list[Frames]:
    """Bars (n, cells) that are alike, the largest group first; a bar that is like no other is left out."""
    rows = hit / np.maximum(np.linalg.norm(hit, axis=1, keepdims=True), 1e-9)
    near = rows @ rows.T
    left, groups = np.ones(len(hit), bool), []
    while left.any():
        support = (near > MIN_ALIKE) & left
        leader = int(np.where(left, (near * support).sum(1), -1).argmax())
        members = np.flatnonzero(support[leader])
        left[members], left[leader] = False, False
        if len(members) > 1:
            groups.append(members)
    return sorted(groups, key=len, reverse=True)


def _agreed(hit: NDArray[np.bool_], tick: Seconds, velocity: Seconds, beats: int) -> tuple[tuple[int, int, int], ...]:
    """Tick, note and velocity of what at least half of the bars hit."""
    rows = []
    for row, place in zip(*np.nonzero(hit.mean(0) >= 0.5), strict=True):
        there = hit[:, row, place]
        late = float(np.median(tick[there, row, place]))
        at = round(place * TICKS / GRID + float(np.clip(late, -TICKS / GRID / 2, TICKS / GRID / 2)))
        rows.append((min(at, beats * TICKS - 1), FAMILIES[row], round(float(np.median(velocity[there, row, place])))))
    return tuple(sorted(rows))


# -------------------------------------------------------------------------------------------------------------------------- sounds


@dataclass(frozen=True, eq=False)
class Cut:
    """A drum's sound, cut out of one passage."""

    y: Array
    level_db: float  # in the drum's band, as `Struck.level_db`
    clear_db: float  # how much it stands out of what sounded before it, and how much it falls


def sounds_heard(passages: Sequence[Passage]) -> list[Sound]:
    """One sound of each drum at two velocities, where there are two: of the passage where it stands out most, as loud as it usually is."""
    found: list[Sound] = []
    for note in FAMILIES:
        cuts = [(pair, passage) for passage in passages if (pair := _cut(passage, note))]
        if not cuts:
            continue
        usual_db = float(np.median([pair[0].level_db for pair, _ in cuts]))
        (loud, soft), _ = max(cuts, key=lambda c: c[0][0].clear_db)
        gain = np.float32(10 ** ((usual_db - loud.level_db) / 20))
        kind = RIDE if note == HAT and _sounds_for(loud.y) > RIDE_SECONDS else note
        found.append(Sound(kind, LOUD_VELOCITY, loud.y * gain, 0.0))
        if soft is not None:
            velocity = round(LOUD_VELOCITY * 10 ** ((soft.level_db - loud.level_db) / 40))
            found.append(Sound(kind, max(velocity, LEAST_VELOCITY), soft.y * gain, 0.0))
    return found


def _sounds_for(y: Array) -> float:
    """Seconds until a sound has lost 20 dB for good."""
    level = maximum_filter1d(np.abs(y), 441)
    return float(np.flatnonzero(level > 0.1 * level.max())[-1] / SAMPLE_RATE)


def _cut(passage: Passage, note: int) -> tuple[Cut, Cut | None] | None:
    """A drum's loud and soft sound; None where it is hit too seldom."""
    struck = passage.struck[note]
    apart = _free_seconds(passage.struck, note)
    alone = _alone(passage.struck, note)
    order = np.lexsort((-apart, ~alone))  # those that nothing else is hit with first, then those with most time after them
    order = order[apart[order] > 0.08][: 2 * MOST_HITS]
    if len(order) < LEAST_HITS:
        return None
    level = struck.level_db[order]
    loud = order[level >= np.median(level)][:MOST_HITS]
    soft = order[level < np.median(level) - SOFTER_DB][:MOST_HITS]
    longest = LONG_SECONDS if note == HAT else SHORT_SECONDS

    def made(which: Frames) -> Cut | None:
        seconds = min(float(np.median(apart[which])), longest)
        return _median_hit(passage.y, struck.seconds[which], struck.level_db[which], seconds, note)

    first = made(loud)
    return (first, made(soft) if len(soft) >= LEAST_HITS else None) if first else None


def _free_seconds(struck: dict[int, Struck], note: int) -> Seconds:
    """After each hit of a drum, how long until it, or a drum that would cover it, is hit again."""
    covering = (KICK, SNARE) if note != HAT else FAMILIES
    every = np.sort(np.concatenate([struck[n].seconds for n in {*covering, note} if n in struck]))
    after = np.append(every, np.inf)[np.searchsorted(every, struck[note].seconds + 0.05)]
    return np.minimum(after - struck[note].seconds, 2.0)


def _alone(struck: dict[int, Struck], note: int) -> NDArray[np.bool_]:
    others = np.concatenate([s.seconds for n, s in struck.items() if n != note] or [np.zeros(0)])
    if not len(others):
        return np.ones(len(struck[note].seconds), bool)
    return np.asarray(np.abs(struck[note].seconds[:, None] - others).min(1) > 0.05)


def _median_hit(y: Array, seconds: Seconds, level_db: Seconds, length_seconds: float, note: int) -> Cut | None:
    """The hit that is most like all, less what they do not share and what sounded before."""
    size, room = round(length_seconds * SAMPLE_RATE), 2 * CUT_FFT
    starts = np.array([_attack(y, s, note) for s in seconds])
    inside = (starts - BEFORE_SAMPLES >= room) & (starts + size < len(y))
    if inside.sum() < LEAST_HITS:
        return None
    starts, level_db = starts[inside] - BEFORE_SAMPLES, level_db[inside]
    scale = 10 ** ((np.median(level_db) - level_db) / 20)
    pieces = np.stack([g * y[s - room : s + size] for s, g in zip(starts, scale, strict=True)]).astype(np.float32)
    S = stft(torch.from_numpy(pieces), n_fft=CUT_FFT, hop_length=CUT_HOP)  # (hits, bins, frames)
    M = S.abs().numpy()
    usual, first = np.median(M, axis=0), room // CUT_HOP
    before = np.median(M[:, :, 2 : first - CUT_FFT // 2 // CUT_HOP], axis=(0, 2))[:, None]
    best = int(_far_db(M[:, :, first:], usual[:, first:]).argmin())
    own = np.maximum(M[best], 1e-9)
    usual = np.sqrt(np.maximum(usual**2 - before**2, 0))
    fall_db = _fall_db(usual[:, first:])
    usual[:, first:] = _falling(_noise_of(usual[:, first:]), FALL_DB[note]) * np.clip(10 * fall_db / FALL_DB[note], 0, 1)[:, None]
    kept = np.minimum(usual / own, 1) * _band_gain(note)[:, None]
    sound = _inverse(S[best] * torch.from_numpy(kept.astype(np.float32)), pieces.shape[1])[room:]
    contrast_db = 10 * np.log10(np.square(sound[:4096]).mean() / max(np.square(pieces[best, room - 2048 : room]).mean(), 1e-12) + 1e-12)
    clear_db = min(contrast_db, 20.0) + float(np.clip(np.average(fall_db, weights=usual[:, first + ATTACK_FRAMES] + 1e-9), 0, 20))
    return Cut(_ended(sound), float(np.median(level_db)), clear_db) if np.abs(sound).max() > 1e-4 else None


def _noise_of(size: Array) -> Array:
    """A hit's spectrogram (bins, frames) without the lines of notes, above `NOISE_HZ`."""
    broad, lasting = median_filter(size, (17, 1)), median_filter(size, (1, 2 * LASTING_FRAMES + 1))
    masked = size * broad**2 / (broad**2 + np.minimum(lasting, size) ** 2 / 4 + 1e-12)
    low = np.arange(len(size)) * SAMPLE_RATE / CUT_FFT < NOISE_HZ
    return np.where(low[:, None], size, np.minimum(masked, 2 * broad))


def _fall_db(size: Array) -> Array:
    """By how much each row of a hit's spectrogram has fallen a tenth of a second after its attack: a chord's hardly."""
    after = ATTACK_FRAMES + round(0.1 * SAMPLE_RATE / CUT_HOP)
    early, late = size[:, ATTACK_FRAMES - 2 : ATTACK_FRAMES + 3].mean(1), size[:, min(after, size.shape[1] - 8) :][:, :8].mean(1)
    return median_filter(20 * np.log10((early + 1e-6) / (late + 1e-6)), 5)


def _falling(size: Array, fall_db: float) -> Array:
    """A hit's spectrogram that only falls after its attack, and so fast at least: the next hits of other drums are not in it."""
    size = size.copy()
    tail = np.arange(size.shape[1] - ATTACK_FRAMES, dtype=np.float32) * np.float32(CUT_HOP / SAMPLE_RATE)
    rising = np.float32(10) ** (fall_db / 20 * tail)
    size[:, ATTACK_FRAMES:] = np.minimum.accumulate(size[:, ATTACK_FRAMES:] * rising, axis=1) / rising
    return size


def _attack(y: Array, seconds: float, note: int) -> int:
    """The sample where a hit begins, near where it was found: where its band rises most."""
    reach = round(0.03 * SAMPLE_RATE)
    start = max(round(seconds * SAMPLE_RATE) - reach, 0)
    near = y[start : start + 2 * reach].astype(np.float64)
    if len(near) < 512:
        return start
    near = np.diff(near, prepend=near[0]) if note != KICK else near  # highs count more
    energy = np.cumsum(np.concatenate([[0], near**2]))
    span = 220  # 5 ms after against 5 ms before
    at = np.arange(span, len(near) - span)
    gain = np.log(energy[at + span] - energy[at] + 1e-7) - np.log(energy[at] - energy[at - span] + 1e-7)
    return start + int(at[gain.argmax()])


def _far_db(M: Array, usual: Array) -> Seconds:
    """How far each hit is from the usual one, where this is loud."""
    loud = usual > 0.01 * usual.max()
    return np.asarray(np.abs(20 * np.log10((M + 1e-6) / (usual + 1e-6)))[:, loud].mean(1))


def _band_gain(note: int) -> Seconds:
    """Where a drum can sound at all: no highs in a bass drum, no lows in a hat; half an octave wide."""
    hz = np.arange(CUT_FFT // 2 + 1) * SAMPLE_RATE / CUT_FFT
    low, high = {KICK: (0.0, 6000.0), SNARE: (120.0, 1e9), HAT: (2000.0, 1e9)}[note]
    rising = np.clip(2 * np.log2(np.maximum(hz, 1) / max(low, 1)) + 1, 0, 1)
    return np.asarray(rising * np.clip(1 - 2 * np.log2(np.maximum(hz, 1) / high), 0, 1))


def _inverse(S: torch.Tensor, samples: int) -> Array:
    window = torch.hann_window(CUT_FFT) * (4.0 / CUT_FFT)
    y = torch.istft(S, CUT_FFT, CUT_HOP, window=window, center=True, length=samples)
    return np.asarray(y.numpy())


def _ended(y: Array) -> Array:
    """Until it has died away; it dies away where it was cut off."""
    level = maximum_filter1d(np.abs(y), 441)
    loud = np.flatnonzero(level > level.max() * 10 ** (QUIET_DB / 20))
    y = y[: int(loud[-1]) + 1].copy()
    tail = np.arange(len(y)) / len(y)
    y *= np.clip(2 - 2 * tail, 0, 1).astype(np.float32)  # over its second half
    y[: BEFORE_SAMPLES // 2] *= np.linspace(0, 1, BEFORE_SAMPLES // 2, dtype=np.float32)
    return faded(y)


# --------------------------------------------------------------------------------------------------------------------------- layer


def passages_of(paths: Sequence[Path], *, window: Window = (0.0, 1.0)) -> Iterable[tuple[Path, Array]]:
    """Passages of recordings (N,), at the working loudness; what cannot be read, or is silent, gives none.

    Parameters
    ----------
    window : (float, float) in [0, 1]
        Of each recording: the rest is held out.
    """
    each = max(1, min(PASSAGES_OF_ONE, PASSAGES // max(len(paths), 1)))
    step = max(len(paths) / PASSAGES, 1.0)
    for path in [paths[int(k * step)] for k in range(min(len(paths), PASSAGES))]:
        for y in _parts(path, each, window):
            level = audio.loudness(y[None], SAMPLE_RATE)
            if level > -60:
                yield path, y * np.float32(10 ** ((FEATURES.loudness_lufs - level) / 20))


def _parts(path: Path, count: int, window: Window) -> list[Array]:
    try:
        y = audio.load(path, sample_rate=SAMPLE_RATE, mono=True, max_seconds=600.0)[0][0]
    except (ValueError, OSError):
        return []
    y = y[round(window[0] * len(y)) : round(window[1] * len(y))]
    size = round(PASSAGE_SECONDS * SAMPLE_RATE)
    count = max(1, min(count, len(y) // size))
    starts = [round((k + 1) / (count + 1) * max(len(y) - size, 0)) for k in range(count)]
    return [y[s : s + size] for s in starts]


def layer_heard(passages: Sequence[tuple[Any, Passage]]) -> DrumLayer:
    """The drum layer of what was heard in recordings.

    Parameters
    ----------
    passages : sequence of (which recording, Passage)

    Raises
    ------
    ValueError
        If too few of the recordings have drums, or none of their drums can be cut out.
    """
    recordings = {name for name, _ in passages}
    drummed = [(name, passage) for name, passage in passages if passage.groove is not None]
    share = len({name for name, _ in drummed}) / max(len(recordings), 1)
    if share < MIN_SHARE or not drummed:
        reasons = [passage.reason for _, passage in passages if passage.reason]
        why = max(set(reasons), key=reasons.count) if reasons else "there is no recording"
        raise ValueError(f"{len({n for n, _ in drummed})} of {len(recordings)} recordings listened to have drums (of most, {why})")
    sounds = sounds_heard([passage for _, passage in drummed])
    if not {sound.note for sound in sounds} - {HAT, RIDE}:
        raise ValueError("no drum can be cut out of its recordings: too few hits are alike")
    hat = RIDE if any(sound.note == RIDE for sound in sounds) else HAT
    grooves = distinct(_named(passage.groove, hat) for _, passage in drummed if passage.groove)
    return levelled(assemble(grooves, sounds))


def _named(groove: Groove, hat: int) -> Groove:
    """Its hats are what the kit has for them."""
    bars = tuple(PlayedBar(b.beats, b.count, tuple((t, hat if n == HAT else n, v) for t, n, v in b.hits)) for b in groove.bars)
    return Groove(groove.bpm, bars)


def add_drums_heard(style_path: str | Path, paths: Sequence[Path], *, window: Window = (0.0, 1.0)) -> str:
    """Give a style file the drum layer of the recordings that it was trained on; its weights stay as they are, bit for bit.

    Parameters
    ----------
    style_path : path
        A style file; a layer that it has is replaced.
    paths : sequence of paths
        Recordings.
    window : (float, float) in [0, 1]
        See `passages_of`.

    Returns
    -------
    str
        What was found, for people.

    Raises
    ------
    ValueError
        If they have no drums that are repeated, and why; the file is left as it is.
    """
    heard = [(path, listen(y)) for path, y in passages_of(paths, window=window)]
    layer = layer_heard(heard)
    songs = len({path for path, _ in heard})
    kinds = len(np.unique(layer.sounds[:, 0]))
    about = f"Drums: {len(layer.bars)} bars in {len(layer.grooves)} grooves and {kinds} drums, cut out of {songs} of its recordings."
    write_layer(style_path, layer, about)
    return about
