"""Beat and bar phase of a song: where its pulse is, told to the model as four numbers a frame.

What rises in the frames is an onset; onsets that repeat are a tempo; the beats are the path through the song that meets the
strongest onsets at that tempo; bars are counted from the beats that carry the accents. Nothing here hears drums in
particular, and nothing is trained.

Conventions: times are seconds from the start of the song; frame ``t`` is centred on ``t / frames_per_second``; a tempo is the
frames between two beats (its *lag*); phase 0 is on the beat (or the downbeat) and grows to 1 at the next. One pass over the song
collects :class:`BeatTracker`'s curves (about 60 bytes a frame), and everything else is computed from them.

References
----------
D. P. W. Ellis, "Beat tracking by dynamic programming", Journal of New Music Research 36(1), 2007.
S. Böck and G. Widmer, "Maximum filter vibrato suppression for onset detection", DAFx 2013.
P. Grosche and M. Müller, "Extracting predominant local pulse information from music recordings", IEEE TASLP 19(6), 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, uniform_filter1d

Array = NDArray[np.float32]
Seconds = NDArray[np.float64]

RISE_FRAMES = 2  # over 23 ms: an attack is spread over the analysis window
SLOWEST_BPM, FASTEST_BPM, USUAL_BPM = 38.0, 230.0, 115.0
USUAL_OCTAVES, DRUMMED_OCTAVES = 1.0, 0.7  # how far tempi lie about the usual one: of all music, and of a style whose tempo is known
LATE_FRAMES = 0.5  # the window sees a click 21 ms early, and a played note 3 ms early, its attack being slow: between the two
TEMPO_WINDOW_SECONDS = 10.0  # at least six beats of the slowest tempo
TEMPO_HOP_SECONDS = 1.0
WINDOWS_AT_ONCE = 64  # a minute; their spectra take a hundred times the memory of the song's curves
TIGHTNESS = 100.0  # Ellis's alpha: how dear an uneven beat is
LONGEST_BEAT_SECONDS = 2.5  # two beats further apart than this are not neighbours: silence lies between them
DYNAMICS_SECONDS = 1.0  # over which loudness is followed: about two beats
SILENT_SECONDS = 0.5  # a rest shorter than this is no silence
STANDING_OUT, NEAR_SECONDS = 0.2, 4.0  # an onset rises by so much of the highest around it
TOP_ROWS = 22  # above 11 kHz, where a cymbal is and hardly anything else
CYMBALS_DB = (-45.0, -41.0)  # what is short there against all: below there are none, above there are
MIN_CONFIDENCE = 0.12  # noise, held chords and rubato without a pulse read 0.02 to 0.08


@dataclass(frozen=True)
class Beats:
    """The pulse of a song.

    Attributes
    ----------
    beat_seconds : array [shape=(n,), ascending]
    downbeat_seconds : array [shape=(m,), ascending]
        Those of the beats that start a bar.
    confidence : float [0 to 1]
        How much of the onset curve repeats at the tempo found (its autocorrelation): 1 is a metronome, noise is near 0.
    """

    beat_seconds: Seconds
    downbeat_seconds: Seconds
    confidence: float

    @property
    def reliable(self) -> bool:
        """Whether the pulse is clear enough to tell a model about it."""
        return self.confidence >= MIN_CONFIDENCE and len(self.beat_seconds) >= 4


NO_BEATS = Beats(np.zeros(0), np.zeros(0), 0.0)


@dataclass(frozen=True, eq=False)
class Pulse:
    """What a drummer hears of a song: its beats, and at every frame how much starts and how loud it is.

    Attributes
    ----------
    beats : Beats
    onset : array [shape=(T,), >= 0]
    level_db : array [shape=(T,), dB]
        Of all rows together; silence is near -90.
    top_db : array [shape=(T,), dB], optional
        Of the rows above 11 kHz.
    frames_per_second : float
    drummed : Beats, optional
        As a drummer counts who knows the tempo of his style: where a song of eighths is slow or fast, this says.
    """

    beats: Beats
    onset: Array
    level_db: Array
    frames_per_second: float
    top_db: Array | None = None
    drummed: Beats | None = None

    @cached_property
    def cymbals(self) -> float:
        """How sure it is that the song has cymbals, 0 to 1: by how much there is above 11 kHz that is short.

        Of renders, eight seconds each, nothing without drums reached the lower bound, and of those with drums nine in ten did.
        """
        if self.top_db is None or not len(self.top_db):
            return 0.0
        top, padded = _power_of(self.top_db), np.pad(_power_of(self.top_db), 12, mode="edge")
        lasting = np.sort([padded[3 * k : 3 * k + len(top)] for k in range(9)], axis=0)[1]
        short_db = 10 * np.log10((top - np.minimum(lasting, top)).mean() / max(_power_of(self.level_db).mean(), 1e-9) + 1e-12)
        low, high = CYMBALS_DB
        return float(np.clip((short_db - low) / (high - low), 0, 1))

    @cached_property
    def usual_db(self) -> float:
        """Mean level of the song where it sounds."""
        power = 10.0 ** (self.level_db / 10)
        loud = power > 1e-4 * power.max(initial=1e-12)
        return float(10 * np.log10(power[loud].mean())) if loud.any() else -90.0

    @cached_property
    def onset_seconds(self) -> Seconds:
        """Where something starts: the tops of the onset curve that stand out of it, between frames."""
        from scipy.signal import find_peaks

        curve = gaussian_filter1d(self.onset.astype(np.float64), 1)
        around = int(NEAR_SECONDS * self.frames_per_second) | 1
        tops, found = find_peaks(curve, prominence=1e-6, wlen=max(around, 3))
        tops = tops[found["prominences"] > STANDING_OUT * maximum_filter1d(curve, around)[tops]]
        return (_snap(tops, curve) + LATE_FRAMES) / self.frames_per_second

    @cached_property
    def _around_db(self) -> Array:
        smooth = uniform_filter1d(10.0 ** (self.level_db.astype(np.float64) / 10), int(DYNAMICS_SECONDS * self.frames_per_second) | 1)
        return np.asarray(10 * np.log10(np.maximum(smooth, 1e-9)), dtype=np.float32)

    @cached_property
    def _loudest_near_db(self) -> Array:
        return maximum_filter1d(self.level_db, int(SILENT_SECONDS * self.frames_per_second) | 1)

    def dynamics_db(self, seconds: Seconds) -> Seconds:
        """How loud the song is around these times, in dB re its usual level."""
        return np.interp(seconds * self.frames_per_second, np.arange(len(self.level_db)), self._around_db) - self.usual_db

    def mean_db(self, start_seconds: float, stop_seconds: float) -> float:
        """Level between two times, dB."""
        start = min(max(int(start_seconds * self.frames_per_second), 0), len(self.level_db) - 1)
        part = self.level_db[start : max(int(stop_seconds * self.frames_per_second), start + 1)]
        return float(10 * np.log10((10.0 ** (part.astype(np.float64) / 10)).mean()))

    def silent_at(self, seconds: Seconds, below_db: float) -> NDArray[np.bool_]:
        """Whether all around these times is further below the usual level than this."""
        frames = np.clip(np.round(seconds * self.frames_per_second).astype(np.int64), 0, len(self.level_db) - 1)
        return self._loudest_near_db[frames] < self.usual_db - below_db


def _power_of(level_db: Array) -> Seconds:
    return np.asarray(10.0 ** (level_db.astype(np.float64) / 10))


NO_PULSE = Pulse(NO_BEATS, np.zeros(1, np.float32), np.full(1, -90, np.float32), 1.0)


class BeatTracker:
    """Collects what beats are found from, block by block; the blocks may be of any length.

    >>> x = np.zeros((324, 1200), dtype=np.float32)
    >>> x[:, ::50] = 0.5  # a click every 50 frames
    >>> tracker = BeatTracker(frames_per_second=100.0)
    >>> for start in range(0, 1200, 77):
    ...     tracker.push(x[:, start : start + 77])
    >>> np.unique(np.diff(tracker.beats().beat_seconds).round(2)).tolist()
    [0.5]
    """

    def __init__(self, *, frames_per_second: float, bins_per_octave: int = 36) -> None:
        self.frames_per_second = frames_per_second
        self.bins_per_octave = bins_per_octave
        self._last: Array | None = None
        self._onset: list[Array] = []
        self._bass: list[Array] = []
        self._chroma: list[Array] = []
        self._level: list[Array] = []
        self._top: list[Array] = []

    def push(self, x: Array) -> None:
        """Take the next frames (F, T), as of ``features.LogFrequency``, at the working loudness."""
        x = np.asarray(x, dtype=np.float32)
        if x.shape[-1]:
            self._level.append(_level_db(x))
            self._top.append(_level_db(x[-TOP_ROWS:]))
        self.push_loudness(loudness(x))

    def push_loudness(self, loud: Array) -> None:
        """Take the `loudness` of the next frames (F, T): whoever has frames in steps looks it up in a table, a sixth of the time."""
        if not loud.shape[-1]:
            return
        before = np.repeat(loud[:, :1], RISE_FRAMES, axis=1) if self._last is None else self._last
        both = np.concatenate([before, loud], axis=1)
        self._last = both[:, -RISE_FRAMES:]
        # a neighbour's level counts as the row's own past, so that vibrato and glides are no onsets (Böck and Widmer)
        rise = loud - _highest_of_neighbours(both[:, :-RISE_FRAMES])
        np.maximum(rise, 0, out=rise)
        self._onset.append(rise.mean(0))
        self._bass.append(rise[: 2 * self.bins_per_octave].mean(0))
        self._chroma.append(_chroma(loud, self.bins_per_octave).astype(np.float16).T)

    def beats(self, *, usual_bpm: float = USUAL_BPM, octaves: float = USUAL_OCTAVES) -> Beats:
        """The beats of everything pushed; see `track_beats`."""
        if not self._onset:
            return NO_BEATS
        onset, bass = np.concatenate(self._onset), np.concatenate(self._bass)
        chroma = np.concatenate(self._chroma).T
        return track_beats(onset, self.frames_per_second, bass=bass, chroma=chroma, usual_bpm=usual_bpm, octaves=octaves)

    def pulse(self, *, drummer_bpm: float | None = None) -> Pulse:
        """The same with the curves of what was pushed as frames; beats that are not reliable are none.

        Parameters
        ----------
        drummer_bpm : float, optional
            Usual tempo of a style's drummer, who counts by it.
        """
        if not self._level:
            return NO_PULSE
        beats = self.beats()
        kept = beats if beats.reliable else Beats(np.zeros(0), np.zeros(0), beats.confidence)
        onset, level_db, top_db = (np.concatenate(curve) for curve in (self._onset, self._level, self._top))
        counted = None if drummer_bpm is None else self.beats(usual_bpm=drummer_bpm, octaves=DRUMMED_OCTAVES)
        drummed = counted if counted is not None and counted.reliable else None
        return Pulse(kept, onset, level_db, self.frames_per_second, top_db, drummed)


def loudness(x: Array) -> Array:
    """How loud each row of frames is to the ear, about [0, 1]: what onsets are looked for in."""
    # Dry decibels rise as soon as the foot of the window touches an attack; over a soft floor at -60 dB they rise with it.
    return np.log1p(10.0 ** ((x - 1) * 4.5 + 3.0)) / np.float32(np.log(10) * 3)


def _level_db(x: Array) -> Array:
    # frames are dB over a soft floor at -90
    return np.asarray(10 * np.log10(np.maximum((10.0 ** ((x - 1) * 9) - 1e-9).sum(0), 1e-9)), dtype=np.float32)


def _highest_of_neighbours(a: Array) -> Array:
    """The highest of each row and the rows above and below it."""
    top = a.copy(order="K")
    np.maximum(top[1:], a[:-1], out=top[1:])
    np.maximum(top[:-1], a[1:], out=top[:-1])
    return top


def _chroma(loud: Array, bins_per_octave: int) -> Array:
    of_class = _pitch_classes(len(loud) // bins_per_octave * bins_per_octave, bins_per_octave)
    return np.asarray(of_class @ loud[: of_class.shape[1]])


@lru_cache(maxsize=4)
def _pitch_classes(rows: int, bins_per_octave: int) -> Array:
    """Which rows belong to each of the twelve, (12, rows)."""
    of_class = np.arange(rows) % bins_per_octave // (bins_per_octave // 12) == np.arange(12)[:, None]
    return of_class.astype(np.float32)


def track_beats(
    onset: Array,
    frames_per_second: float,
    *,
    bass: Array | None = None,
    chroma: Array | None = None,
    usual_bpm: float = USUAL_BPM,
    octaves: float = USUAL_OCTAVES,
) -> Beats:
    """Beats and downbeats of an onset curve.

    Parameters
    ----------
    onset : array [shape=(T,), >= 0]
        How much starts at each frame.
    frames_per_second : float
    bass : array [shape=(T,)], optional
        The same, of the bass alone: bars tend to start with it.
    chroma : array [shape=(12, T)], optional
        Energy of the pitch classes: harmony tends to change with the bar.
    usual_bpm, octaves : float
        Which tempo is likely, and how far from it others are as well: half and double are both a pulse, and this decides.

    Returns
    -------
    Beats
        Empty where nothing repeats: silence, a held tone, less than three seconds.
    """
    onset = np.asarray(onset, dtype=np.float32)
    if len(onset) < 3 * frames_per_second or onset.max() < 1e-4:
        return NO_BEATS
    curve = _normalised(onset, frames_per_second)
    lags, strength = _tempo(curve, frames_per_second, usual_bpm, octaves)
    frames = _snap(_sounding(_follow(curve, lags), onset, frames_per_second), curve)
    if len(frames) < 2:
        return NO_BEATS
    down = _downbeats(frames, [c for c in (onset, bass) if c is not None], chroma)
    seconds = np.maximum(frames + LATE_FRAMES, 0) / frames_per_second
    return Beats(seconds, seconds[down], strength)


def _normalised(onset: Array, frames_per_second: float) -> Array:
    # local mean and spread, four seconds around: a quiet passage has a pulse too
    window = int(4 * frames_per_second)
    smooth = gaussian_filter1d(onset, frames_per_second * 0.012)
    centred = smooth - uniform_filter1d(smooth, window, mode="nearest")
    spread = np.sqrt(np.maximum(uniform_filter1d(centred**2, window, mode="nearest"), 0))  # a running sum may round below 0
    return centred / np.maximum(spread, 0.1 * spread.max() + 1e-6)


def _tempo(curve: Array, frames_per_second: float, usual_bpm: float, octaves: float) -> tuple[Seconds, float]:
    """Lag in frames at every frame, and how much of the curve repeats at it."""
    lags = 60 * frames_per_second / np.geomspace(FASTEST_BPM, SLOWEST_BPM, 156)  # 1/60 octave apart
    window = min(int(TEMPO_WINDOW_SECONDS * frames_per_second), len(curve))
    starts = np.arange(0, len(curve) - window + 1, max(int(TEMPO_HOP_SECONDS * frames_per_second), 1))
    windows = sliding_window_view(curve, window)
    some = [_autocorrelation(windows[starts[i : i + WINDOWS_AT_ONCE]]) for i in range(0, len(starts), WINDOWS_AT_ONCE)]
    repeats = np.concatenate(some)  # (windows, lag in frames)
    path = _steady(_tempo_score(repeats, lags, frames_per_second, usual_bpm, octaves))
    near = np.linspace(lags[path] - 1, lags[path] + 1, 9, axis=1)
    strength = _between(repeats, near).max(1).mean()
    centre = starts + window / 2
    return np.interp(np.arange(len(curve)), centre, lags[path]), float(np.clip(strength, 0, 1))


def _autocorrelation(curves: Array) -> Array:
    """Of each row: (windows, frames) → (windows, lags). Unbiased, so that a slow tempo is not held against a song; at 0 it is 1."""
    frames = curves.shape[1]
    spectrum = np.fft.rfft(curves, 2 * frames)
    r = np.fft.irfft(np.abs(spectrum) ** 2)[:, : frames * 3 // 4 + 1]
    r = r / (1 - np.arange(frames * 3 // 4 + 1) / frames)
    return (r / np.maximum(r[:, :1], 1e-9)).astype(np.float32)


def _tempo_score(repeats: Array, lags: Seconds, frames_per_second: float, usual_bpm: float, octaves: float) -> Seconds:
    """How well each lag would be a beat: (windows, lags in frames) → (windows, lags)."""
    value = np.zeros((len(repeats), len(lags)))
    for times, weight in ((1, 1.0), (2, 0.5), (3, 0.25), (4, 0.25)):
        value += weight * _between(repeats, lags * times)
    # a pulse that also sounds halfway is the double tempo, unless the halves are weak; eighth notes are common, so mildly
    value = value - 0.3 * _between(repeats, lags / 2)
    off = np.log2(60 * frames_per_second / lags / usual_bpm)
    return value * np.exp(-0.5 * (off / octaves) ** 2)


def _between(r: Array, at: Seconds) -> Seconds:
    """Rows (windows, n) read at places between 0 and n − 1, the same or its own for each: (windows, places); 0 beyond."""
    left = np.clip(at.astype(np.int64), 0, r.shape[1] - 2)
    rows = np.arange(len(r))[:, None]
    low, high = r[rows, left].astype(np.float64), r[rows, left + 1].astype(np.float64)
    return np.where(at <= r.shape[1] - 1, low + (high - low) * (at - left), 0.0)


def _steady(scores: Seconds) -> NDArray[np.int64]:
    # Viterbi over windows; a jump of tempo costs, however far, or 60 songs in an hour would be one
    n = len(scores[0])
    step = np.abs(np.arange(n)[:, None] - np.arange(n)[None])
    cost = np.minimum(0.05 * step, 0.8)
    best, back = scores[0], []
    for score in scores[1:]:
        total = best[None] - cost
        back.append(total.argmax(1))
        best = score + total[np.arange(n), back[-1]]
    path = [int(best.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return np.array(path[::-1])


def _follow(curve: Array, lags: Seconds) -> NDArray[np.int64]:
    """Ellis's recursion: the best score of a beat here is the onset here plus the best of the beats about one lag before."""
    keys = np.rint(lags * 4).astype(np.int64)
    room = int(keys.max()) // 2 + 2
    score = np.concatenate([np.full(room, -np.inf), curve])  # before the song there is no beat
    frame = np.arange(len(curve))
    back = np.empty_like(frame)  # of the best beat before, whether it is worth it or not
    highest = np.empty(len(curve))
    edges = np.flatnonzero(np.diff(keys)) + 1
    prepared: dict[int, tuple[NDArray[np.int64], Seconds, Seconds]] = {}
    for first, last in pairwise([0, *edges.tolist(), len(curve)]):
        key = int(keys[first])
        if key not in prepared:
            steps = np.arange(max(round(key / 8), 1), round(key / 2) + 1)[::-1]  # half a beat to two beats ago, the longest first
            prepared[key] = steps, -TIGHTNESS * np.log(steps * 4 / key) ** 2 / 10, sliding_window_view(score, len(steps))
        steps, penalty, before = prepared[key]
        longest, shortest = int(steps[0]), int(steps[-1])
        for t in range(first, last, shortest):  # so many frames at once: none of them is a beat that another could follow
            end = min(t + shortest, last)
            total = before[room + t - longest : room + end - longest] + penalty
            back[t:end] = frame[t:end] - longest + total.argmax(1)
            best = total.max(1, out=highest[t:end])
            score[room + t : room + end] += np.maximum(best, 0)
    back[highest <= 0] = -1
    score = score[room:]
    tail = max(len(curve) - int(lags[-1]), 0)
    t = tail + int(score[tail:].argmax())
    path = []
    while t >= 0:
        path.append(t)
        t = int(back[t])
    return np.array(path[::-1])


def _sounding(frames: NDArray[np.int64], onset: Array, frames_per_second: float) -> NDArray[np.int64]:
    # beats in a silence are beats of nothing: within two seconds something must start
    near = maximum_filter1d(onset, int(4 * frames_per_second) | 1, mode="constant")
    keep = near[frames] > 0.05 * np.percentile(onset[onset > 0], 95)
    around = int(0.1 * frames_per_second)
    first, last = np.flatnonzero(onset > 0)[[0, -1]]
    return frames[keep & (frames >= first - around) & (frames <= last + around)]


def _snap(frames: NDArray[np.int64], curve: Array) -> Seconds:
    # the top of the parabola through a local maximum and its neighbours
    inner = np.clip(frames, 1, len(curve) - 2)
    left, here, right = curve[inner - 1], curve[inner], curve[inner + 1]
    bend = left - 2 * here + right
    shift = np.where((here >= left) & (here >= right) & (bend < 0), 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0)
    return np.asarray(inner + shift, dtype=np.float64)


def _downbeats(frames: Seconds, curves: list[Array], chroma: Array | None) -> NDArray[np.int64]:
    accents = _accents(frames, curves, chroma)
    four, evidence_four = _count(accents, 4)
    three, evidence_three = _count(accents, 3)
    return three if evidence_three > 1.5 * max(evidence_four, 0) + 0.6 else four  # most music counts to four


def _accents(frames: Seconds, curves: list[Array], chroma: Array | None) -> Seconds:
    """How much each beat sounds like the first of a bar; zero mean, unit spread."""
    at = np.round(frames).astype(np.int64)
    total = np.zeros(len(at))
    for curve in curves:
        total += _standard(maximum_filter1d(curve, 5)[np.minimum(at, len(curve) - 1)])
    if chroma is not None:
        beat = np.add.reduceat(chroma.astype(np.float32), np.minimum(at, chroma.shape[1] - 1), axis=1).T
        beat /= np.linalg.norm(beat, axis=1, keepdims=True) + 1e-6
        total += 1.5 * _standard(np.append(0, 1 - (beat[1:] * beat[:-1]).sum(1)))
    return _standard(total)


def _standard(a: Array | Seconds) -> Seconds:
    a = np.asarray(a, dtype=np.float64)
    return np.clip((a - a.mean()) / (a.std() + 1e-9), -2.5, 2.5)


def _count(accents: Seconds, beats_per_bar: int) -> tuple[NDArray[np.int64], float]:
    """Where bars of this many beats start, and the evidence for them: their accents, in standard errors of chance.

    Counting may slip (a bar of two, a missed beat) where several bars are the better for it.
    """
    slip = 8.0
    best, back = [0.0] * beats_per_bar, []  # lists: of four numbers, arrays are the slower
    for accent in accents.tolist():
        highest = max(best)
        jump, from_highest = highest - slip, best.index(highest)
        stay = best[-1:] + best[:-1]
        back.append([(place - 1) % beats_per_bar if stay[place] >= jump else from_highest for place in range(beats_per_bar)])
        best = [max(each, jump) for each in stay]
        best[0] += accent
    position = [best.index(max(best))]
    for came in reversed(back[1:]):
        position.append(came[position[-1]])
    down = np.flatnonzero(np.array(position[::-1]) == 0)
    return down, float(accents[down].sum() / np.sqrt(max(len(down), 1)))


def phase(beat_seconds: Seconds, downbeat_seconds: Seconds, frames: int, frames_per_second: float, *, first_frame: int = 0) -> Array:
    """Beat and bar phase as a model reads them.

    Parameters
    ----------
    beat_seconds, downbeat_seconds : array [shape=(n,) and (m,), ascending, seconds]
        Of a :class:`Beats`, or of a score. A downbeat is the beat nearest to it.
    frames : int
        How many frames to fill.
    frames_per_second : float
    first_frame : int
        The frame of the song that column 0 is: any part of the song gives the columns that the whole gives.

    Returns
    -------
    array [shape=(4, frames), -1 to 1]
        Sine and cosine of the beat phase; sine and cosine of the bar phase. Zeros where no beat is known: before the first,
        after the last, in a gap longer than 2.5 s, and in the bar rows where there are no downbeats.

    Examples
    --------
    Half a beat is half a turn:

    >>> phase(np.array([0.0, 1.0, 2.0]), np.array([]), 3, 2.0)[1].round(3).tolist()
    [1.0, -1.0, 1.0]
    """
    beats = np.asarray(beat_seconds, dtype=np.float64)
    out = np.zeros((4, frames), dtype=np.float32)
    if len(beats) < 2:
        return out
    t = (first_frame + np.arange(frames)) / frames_per_second
    i = np.clip(np.searchsorted(beats, t, side="right") - 1, 0, len(beats) - 2)
    known = (t >= beats[0]) & (t <= beats[-1]) & (beats[i + 1] - beats[i] <= LONGEST_BEAT_SECONDS)
    _turn(out[:2], np.interp(t, beats, np.arange(len(beats))), known)
    if len(downbeat_seconds):
        _turn(out[2:], np.interp(t, beats, _bars(beats, np.asarray(downbeat_seconds, dtype=np.float64))), known)
    return out


def _turn(out: Array, turns: Seconds, known: NDArray[np.bool_]) -> None:
    angle = 2 * np.pi * (turns[known] % 1)
    out[0, known], out[1, known] = np.sin(angle), np.cos(angle)


def _bars(beats: Seconds, downbeats: Seconds) -> Seconds:
    """Position of each beat in bars: 0, 1/4, 2/4, 3/4, 1, …; whole numbers on downbeats."""
    down = nearest_beats(beats, downbeats)
    lengths = np.diff(down)
    usual = int(np.median(lengths)) if len(lengths) else 4
    # whole bars beyond the first and the last downbeat, so that every beat lies between two of them
    before, after = down[0] // usual + 1, (len(beats) - 1 - down[-1]) // usual + 1
    knots = np.concatenate([down[0] - usual * np.arange(before, 0, -1), down, down[-1] + usual * np.arange(1, after + 1)])
    return np.interp(np.arange(len(beats)), knots, np.arange(len(knots)))


def nearest_beats(beats: Seconds, downbeats: Seconds) -> NDArray[np.int64]:
    """For each downbeat which beat it is, ascending, each once."""
    right = np.clip(np.searchsorted(beats, downbeats), 1, len(beats) - 1)
    return np.unique(np.where(downbeats - beats[right - 1] <= beats[right] - downbeats, right - 1, right))
