"""How wide music is, octave by octave, and a side made of the mid for a song that is narrower than a style.

Two channels are a *mid* and a *side*: M = (L + R) / 2, S = (L − R) / 2, so that L = M + S and R = M − S. Whatever is put into the side
leaves the mid as it is, and with it the mono fold-down: a side made of the mid widens a song and costs a mono listener nothing. It is how
Lauridsen and Schroeder made stereo [1]_. The filter between must be as loud at all frequencies, and like the mid at none, or the colour of
the sound changes and the image leans to one side: a chain of all-passes [2]_ of a few milliseconds, which decorrelates [3]_. It is causal:
nothing is heard before its cause; and over in 25 ms, within what the ear takes for one sound. Below `BASS_HZ` it gives nothing: basses and
bass drums stay in the middle.

Conventions: *widths* are powers of the side over those of the mid in `OCTAVES_HZ`, each octave from centre / √2 to centre √2: 0 is one
sound on both sides, 1 two that are not alike (their correlation is (1 − width) / (1 + width)), above 1 they oppose each other. Waveforms
are float32 (2, N); blocks may have any size, the results are the same.

References
----------
.. [1] M. R. Schroeder, "An artificial stereophonic effect obtained from a single audio signal", J. Audio Eng. Soc. 6(2), 1958.
.. [2] M. R. Schroeder, "Natural sounding artificial reverberation", J. Audio Eng. Soc. 10(3), 1962.
.. [3] G. S. Kendall, "The decorrelation of audio signals and its impact on spatial imagery", Computer Music J. 19(4), 1995.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylestream import audio

Array = np.ndarray[Any, Any]
Widths = tuple[float, ...]  # one for each of OCTAVES_HZ

OCTAVES_HZ = (63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)
MOST = 100.0  # 20 dB more side than mid: what is measured is not said to be wider
WIDEST = 1.0  # nothing is made wider: channels that oppose each other sound hollow, and lose more than 3 dB in mono
WINDOW_SECONDS = 0.09  # of the meter: seven bins in the lowest octave
FAINT = 1e-6  # of a song's power: an octave with less has no width of its own
BASS_HZ = 120.0  # nothing is made wider below; all of it from an octave above
FILTER_SECONDS = 0.025
# Of the decorrelating chain: milliseconds until it begins, then (milliseconds, coefficient) of each all-pass. Of 6,000 drawn, that in which
# the part in phase with the mid cancels best within each third of an octave above 250 Hz (to 0.17 of its size), so that no region leans to
# a side; nine tenths of its energy come within 11 ms, and 0.04 % after 25 ms.
BEGIN_MS = 3.5
ALL_PASSES = ((1.3, -0.5), (1.4, -0.4), (2.5, -0.4))


class WidthMeter:
    """How wide a song is, while it is being heard; silence and soft passages count as little as they sound.

    Parameters
    ----------
    sample_rate : int [Hz]

    Examples
    --------
    Half of one channel in the other: the side is a third of the mid, its power a ninth.

    >>> meter, y = WidthMeter(44100), np.random.default_rng(0).standard_normal(44100)
    >>> meter.push(np.stack([y, y / 2]))
    >>> round(meter.widths[4], 3)
    0.111
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._samples = 2 ** max(round(math.log2(WINDOW_SECONDS * sample_rate)), 1)
        self._window = np.hanning(self._samples).astype(np.float32)
        self._rest = np.zeros((2, 0), np.float32)
        self._powers = np.zeros((2, self._samples // 2 + 1))  # of mid and side in every bin

    def push(self, y: Array) -> None:
        """Take a block (2, n)."""
        y = np.concatenate([self._rest, y], axis=1)
        whole = y.shape[1] // self._samples * self._samples
        if whole:
            self._powers += self._powers_of(y[:, :whole])
        self._rest = y[:, whole:].copy()

    def _powers_of(self, y: Array) -> Array:
        from scipy.fft import rfft

        left, right = y.astype(np.float32).reshape(2, -1, self._samples)
        Y = rfft(np.stack([left + right, left - right]) * self._window)  # (mid and side, windows, bins)
        return np.einsum("swf,swf->sf", Y.real, Y.real) + np.einsum("swf,swf->sf", Y.imag, Y.imag)

    @property
    def widths(self) -> Widths:
        """Widths so far, each 0 … `MOST`. An octave in which nothing sounds is as wide as the nearest that does; silence is not wide."""
        last = np.pad(self._rest, ((0, 0), (0, self._samples - self._rest.shape[1])))
        hz = np.arange(self._powers.shape[1]) * self.sample_rate / self._samples
        octave = np.digitize(hz, [centre * 2**0.5 for centre in (OCTAVES_HZ[0] / 2, *OCTAVES_HZ)]) - 1
        powers = self._powers + self._powers_of(last)
        mid, side = np.array([[row[octave == k].sum() for k in range(len(OCTAVES_HZ))] for row in powers])
        heard = np.flatnonzero(mid + side > FAINT * (mid + side).sum())
        if not len(heard):
            return (0.0,) * len(OCTAVES_HZ)
        ratios = side[heard] / np.maximum(mid[heard], side[heard] / MOST)
        return tuple(np.interp(np.arange(len(OCTAVES_HZ)), heard, ratios).tolist())


def widths_of(y: Array, sample_rate: int) -> Widths:
    """How wide a waveform (2, N) is (`WidthMeter`)."""
    meter = WidthMeter(sample_rate)
    meter.push(y)
    return meter.widths


def widths_of_file(path: str | Path, *, max_seconds: float = 60.0) -> Widths | None:
    """How wide the beginning of a recording is; None where it has not two channels. Raises as `audio.load`."""
    y, sample_rate = audio.load(path, max_seconds=max_seconds)
    return widths_of(y, sample_rate) if len(y) == 2 else None


def typical(songs: Sequence[Widths]) -> Widths:
    """The median over songs, octave by octave, to three decimals: what a style file keeps."""
    return tuple(np.median(np.array(songs), axis=0).round(3).tolist())


def checked(widths: Any) -> Widths:
    """Widths from a stranger's file; ValueError where they cannot be any."""
    fits = isinstance(widths, list) and len(widths) == len(OCTAVES_HZ)
    if not fits or not all(type(value) in (int, float) and 0 <= value <= MOST for value in widths):  # NaN is in no range
        raise ValueError(f"its widths are not {len(OCTAVES_HZ)} numbers from 0 to {MOST:g}")
    return tuple(map(float, widths))


# --------------------------------------------------------------------------------------------------------------------- made wider


def side_filter(style: Widths, song: Widths, amount: float, sample_rate: int) -> Array | None:
    """The filter that makes of a song's mid what its side lacks to be as wide as a style.

    What it gives is not alike what the song has in its side, so that powers add: of a style of width w and a song of width v the octave
    needs w − v, which is a gain of √(w − v).

    Parameters
    ----------
    style, song : Widths
    amount : float in [0, 1]
        Factor of the side: equal turns are equal amplitudes, for the ear tells channels that are all but alike more finely than
        such as are hardly so.
    sample_rate : int [Hz]

    Returns
    -------
    array [shape=(FILTER_SECONDS sample_rate,), float32] or None
        Impulse response; None where nothing is lacking.
    """
    lacking = np.maximum(np.minimum(style, WIDEST) - np.asarray(song), 0.0)
    if not amount or not lacking.any():
        return None
    size = 2 ** math.ceil(math.log2(0.3 * sample_rate))  # many times what is kept: nothing wraps around
    hz = np.fft.rfftfreq(size, 1 / sample_rate)
    octaves = np.log2(np.maximum(hz, 1.0) / OCTAVES_HZ[0])
    ramp = np.clip(np.log2(np.maximum(hz, 1.0) / BASS_HZ), 0, 1)
    gain = amount * np.interp(octaves, np.arange(len(lacking)), np.sqrt(lacking)) * np.sin(ramp * np.pi / 2) ** 2
    taps = np.fft.irfft(_minimum_phase(gain) * _decorrelated(hz, sample_rate), size)[: round(FILTER_SECONDS * sample_rate)]
    end = len(taps) // 2  # a shorter fade would let basses through, 33 dB down instead of 49 at 60 Hz
    taps[-end:] *= np.cos(np.linspace(0, np.pi / 2, end)) ** 2
    return taps.astype(np.float32)


def _minimum_phase(gain: Array) -> Array:
    """The spectrum of this magnitude whose sound comes as early as it can: the causal part of its cepstrum, twice."""
    cepstrum = np.fft.irfft(np.log(np.maximum(gain, 1e-3 * gain.max())))
    half = len(cepstrum) // 2
    cepstrum[1:half] *= 2
    cepstrum[half + 1 :] = 0
    return np.exp(np.fft.rfft(cepstrum))


def _decorrelated(hz: Array, sample_rate: int) -> Array:
    """The chain of all-passes: of magnitude 1 everywhere."""

    def delay(ms: float) -> Array:  # of whole samples: one between them would begin before its time
        return np.exp(-2j * np.pi * hz * round(ms * sample_rate / 1000) / sample_rate)

    H = delay(BEGIN_MS)
    for ms, g in ALL_PASSES:
        H *= (delay(ms) - g) / (1 - g * delay(ms))
    return H


class Widener:
    """Adds a side made of the mid to a song of two channels, block by block; the mid stays as it is.

    Parameters
    ----------
    taps : array [shape=(K,)]
        As `side_filter` makes them.
    """

    def __init__(self, taps: Array) -> None:
        self.taps = taps
        self._tail = np.zeros(len(taps) - 1, np.float32)  # of the side, what is still to come of what has been heard

    def push(self, y: Array) -> Array:
        """Take (2, n), give as many samples."""
        from scipy.signal import oaconvolve

        count = y.shape[1]
        if not count:
            return y
        side = oaconvolve(y.mean(0), self.taps).astype(np.float32)
        side[: len(self._tail)] += self._tail
        self._tail = side[count:]
        return np.stack([y[0] + side[:count], y[1] - side[:count]])
