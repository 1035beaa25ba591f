"""How loud a waveform is: integrated loudness and true peak, streaming.

A *waveform* ``y`` is float32 of shape ``(C, N)`` with full scale at 1.0, in blocks of any size: the meters hold one block, whatever the
song's length, and read the same for any cut.

References
----------
.. [1] ITU-R BS.1770-4, "Algorithms to measure audio programme loudness and true-peak audio level", 2015.
.. [2] B. De Man, "Evaluation of implementations of the EBU R128 loudness measurement", AES 145, 2018 (the K filter at any rate).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK_SAMPLES = 65_536


def in_blocks(y: Array, block_samples: int) -> Iterator[Array]:
    """A waveform (C, N) in pieces of so many samples; the last may be shorter."""
    for start in range(0, y.shape[1], block_samples):
        yield y[:, start : start + block_samples]


def _k_weighting(sample_rate: int) -> Array:
    """The K filter of BS.1770 as second-order sections (2, 6), at any rate [2]_; at 48 kHz these are the standard's own coefficients."""
    # a high shelf for the head …
    k = math.tan(math.pi * 1681.9744509555319 / sample_rate)
    q, high = 0.7071752369554193, 10 ** (3.99984385397 / 20)
    band = high**0.499666774155
    norm = 1 + k / q + k * k
    shelf = [(high + band * k / q + k * k) / norm, 2 * (k * k - high) / norm, (high - band * k / q + k * k) / norm]
    shelf += [1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    # … then a high-pass for what is not heard
    k = math.tan(math.pi * 38.13547087613982 / sample_rate)
    q = 0.5003270373253953
    norm = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    return np.array([shelf, high_pass])


# Weights by position, WAV order. Up to five as BS.1770 and pyloudnorm have them (L R C Ls Rs); the sixth channel of WAV order is
# the low-frequency one, third of 5.1 and 7.1, which the standard leaves out; the two back speakers of 7.1 lie behind 120°: weight 1.
_CHANNEL_WEIGHTS = {
    6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41),
    7: (1.0, 1.0, 1.0, 0.0, 1.0, 1.41, 1.41),
    8: (1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.41, 1.41),
}


def _channel_weights(channels: int) -> Array:
    return np.array(_CHANNEL_WEIGHTS.get(channels, (1.0, 1.0, 1.0, 1.41, 1.41)[:channels]))


class LoudnessMeter:
    """Integrated loudness after BS.1770-4, streaming.

    Keeps the energy of each tenth of a second (288 kB an hour) and gates at the end, as the standard asks.

    Parameters
    ----------
    sample_rate : int [Hz]
    channels : int [1, 8]
        In WAV order; the low-frequency channel of 5.1 and 7.1 does not count.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self._sections = _k_weighting(sample_rate)
        self._state = np.zeros((2, channels, 2))
        self._weights = _channel_weights(channels)
        self._open: Array = np.zeros(0)  # weighted power of the samples after the last full hop
        self._hops = array("d")

    def push(self, y: Array) -> None:
        """Take (C, n), any n."""
        # half a second at a time: stays in cache, and the filter's tail cannot fall into denormal numbers, which are slow
        for block in in_blocks(y, self.sample_rate // 2):
            self._push(block)

    def _push(self, y: Array) -> None:
        from scipy.signal import sosfilt

        z, self._state = sosfilt(self._sections, y.astype(np.float64), axis=-1, zi=self._state)
        self._state[np.abs(self._state) < 1e-30] = 0.0
        z *= z
        power = np.concatenate([self._open, self._weights @ z])
        hop = len(self._hops)
        last = (self._edge(hop) + len(power)) * 10 // self.sample_rate
        last += self._edge(last + 1) - self._edge(hop) <= len(power)  # floor is one short where the edge itself is rounded down
        edges = self._edge(np.arange(hop, last + 1)) - self._edge(hop)
        if last > hop:
            self._hops.extend(np.add.reduceat(power[: edges[-1]], edges[:-1]))
        self._open = power[edges[-1] :]

    def _edge(self, hop: Any) -> Any:
        """The sample at which a hop, or each of several, begins."""
        return hop * self.sample_rate // 10

    @property
    def integrated_lufs(self) -> float:
        """Loudness of all that was pushed, in LUFS; −inf for silence (nothing above −70 LUFS)."""
        return _gated(self._block_powers())

    def _block_powers(self) -> Array:
        """Mean weighted power in blocks of 0.4 s, one every 0.1 s; under 0.4 s, all there is counts as one block."""
        hops = np.array(self._hops)
        if len(hops) < 4:
            samples = self._edge(len(hops)) + len(self._open)
            return np.array([(hops.sum() + self._open.sum()) / samples]) if samples else np.zeros(0)
        edges = self._edge(np.arange(len(hops) + 1))
        sums = hops[:-3] + hops[1:-2] + hops[2:-1] + hops[3:]
        return cast(Array, sums / (edges[4:] - edges[:-4]))


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power) if power > 0 else -math.inf


def _gated(powers: Array) -> float:
    """Mean over the blocks above −70 LUFS and within 10 LU of the mean of those."""
    powers = powers[powers > 10 ** ((-70 + 0.691) / 10)]
    if not len(powers):
        return -math.inf
    return _lufs(float(powers[powers > 0.1 * powers.mean()].mean()))


class TruePeakMeter:
    """Highest true peak after BS.1770-4 annex 2, streaming: the level between the samples, four times oversampled.

    Parameters
    ----------
    sample_rate : int [Hz]
        Four times oversampled up to 88 kHz, twice up to 176 kHz, not above: as the annex allows.
    channels : int
    """

    _TAPS = 40  # per phase: flat to 0.03 dB up to 20 kHz of 44.1; the twelve of the annex's example lose half a dB at 18 kHz
    _GROUP = 16  # samples interpolated by one row of a matrix product

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.channels = channels
        factor = 4 if sample_rate < 88_000 else 2 if sample_rate < 176_000 else 1
        self._matrix, self._bound = _interpolation_matrix(factor, self._TAPS, self._GROUP)
        self._past = np.zeros((channels, self._TAPS), np.float32)
        self._peak = 0.0

    def push(self, y: Array) -> None:
        """Take (C, n), any n."""
        for block in in_blocks(y, BLOCK_SAMPLES):
            block = np.asarray(block, dtype=np.float32)
            self._peak = max(self._peak, float(block.max()), -float(block.min()))
            x = np.concatenate([self._past, block], axis=1)
            groups = (x.shape[1] - self._TAPS) // self._GROUP
            self._past = x[:, max(0, groups) * self._GROUP :]
            self._peak = max(self._peak, self._between(x, groups))

    def _between(self, x: Array, groups: int) -> float:
        """Highest magnitude between samples in so many groups of x (C, n), where it exceeds the peak so far; else 0."""
        if groups < 1 or not self._matrix.shape[1]:
            return 0.0
        chosen = self._windows(x)[:, :groups][self._largest(x, groups) * self._bound > self._peak]  # (windows, group + taps)
        if not len(chosen):
            return 0.0
        between = chosen @ self._matrix
        return max(float(between.max()), -float(between.min()))

    def _windows(self, x: Array) -> Array:
        return np.lib.stride_tricks.sliding_window_view(x, self._GROUP + self._TAPS, axis=1)[:, :: self._GROUP]

    def _largest(self, x: Array, groups: int) -> Array:
        """A bound (C, groups) on the largest sample of each window.

        No interpolated value exceeds the largest sample of its window times the filter's absolute sum. A window that cannot beat the
        peak so far is left out: exact, and it spares nine tenths of the work on music.
        """
        reach = self._TAPS // self._GROUP + 1  # groups that a window touches after its own
        magnitude = np.abs(x)
        cells = magnitude[:, : groups * self._GROUP].reshape(x.shape[0], groups, self._GROUP).max(axis=2)
        rest = np.repeat(magnitude[:, groups * self._GROUP :].max(axis=1, initial=0.0, keepdims=True), reach, axis=1)
        cells = np.concatenate([cells, rest], axis=1)
        return cast(Array, np.lib.stride_tricks.sliding_window_view(cells, reach + 1, axis=1).max(axis=2))

    @property
    def true_peak_db(self) -> float:
        """Highest level so far, in dBTP (dB re full scale); −inf for silence."""
        # after the last sample there is silence: enough of it to bring all that is kept into full groups
        tail = np.concatenate([self._past, np.zeros((self.channels, self._TAPS + self._GROUP), np.float32)], axis=1)
        peak = max(self._peak, self._between(tail, (tail.shape[1] - self._TAPS) // self._GROUP))
        return 20 * math.log10(peak) if peak > 0 else -math.inf


def _interpolation_matrix(factor: int, taps: int, group: int) -> tuple[Array, float]:
    """Matrix (group + taps, group (factor − 1)): a window of samples to the values between them; and the filter's absolute sum."""
    matrix = np.zeros((group + taps, group, factor - 1))
    offsets = np.arange(taps) - (taps // 2 - 1)  # samples around the gap 0 … 1
    bound = 1.0
    for phase in range(1, factor):
        distance = offsets - phase / factor
        window = np.i0(6.0 * np.sqrt(np.maximum(0.0, 1 - (distance / (taps / 2)) ** 2))) / np.i0(6.0)
        kernel = np.sinc(distance) * window
        kernel /= kernel.sum()  # a constant passes unchanged
        bound = max(bound, float(np.abs(kernel).sum()))
        for n in range(group):
            matrix[n : n + taps, n, phase - 1] = kernel
    return matrix.reshape(group + taps, -1).astype(np.float32), 1.0001 * bound  # a little more: float32 rounds


def loudness(y: Array, sample_rate: int) -> float:
    """Integrated loudness of a waveform (C, N) after BS.1770-4, in LUFS; −inf for silence.

    Examples
    --------
    A full-scale sine at 997 Hz in one channel is −3.01 LUFS, by definition:

    >>> y = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)[None]
    >>> round(loudness(y, 48000), 2)
    -3.01
    """
    meter = LoudnessMeter(sample_rate, y.shape[0])
    meter.push(y)
    return meter.integrated_lufs


def true_peak_db(y: Array, sample_rate: int) -> float:
    """Highest true peak of a waveform (C, N) after BS.1770-4, in dBTP; −inf for silence.

    Examples
    --------
    A full-scale sine whose samples all fall beside its peaks reads −3.01 dB by its samples, and 0 dB in truth:

    >>> y = np.sin(np.pi / 2 * np.arange(4000) + np.pi / 4)[None] * np.hanning(4000)
    >>> round(20 * float(np.log10(abs(y).max())), 2), abs(round(true_peak_db(y, 44100), 2))
    (-3.01, 0.0)
    """
    meter = TruePeakMeter(sample_rate, y.shape[0])
    meter.push(y)
    return meter.true_peak_db
