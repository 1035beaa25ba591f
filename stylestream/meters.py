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
from functools import lru_cache
from typing import Any, cast

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK_SAMPLES = 65_536
_ROW = 32  # samples of a filter in one product


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

    _UNIT = 1024 * _ROW  # samples filtered at once, always on one grid: so the cut of the blocks cannot change a bit

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self._filter = _k_filter(sample_rate)
        self._state = np.zeros((channels, self._filter.poles.size), np.complex128)
        self._weights = _channel_weights(channels).astype(np.float32)
        self._rest: Array = np.zeros((channels, 0), np.float32)  # not filtered yet
        self._open: Array = np.zeros(0, np.float32)  # weighted power of the samples after the last full hop
        self._hops = array("d")

    def push(self, y: Array) -> None:
        """Take (C, n), any n."""
        taken = 0
        while self._rest.shape[1] + y.shape[1] - taken >= self._UNIT:
            need = self._UNIT - self._rest.shape[1]
            unit = y[:, taken : taken + need] if need == self._UNIT else np.concatenate([self._rest, y[:, taken : taken + need]], axis=1)
            self._rest, taken = self._rest[:, :0], taken + need
            power, self._state = self._powers(unit)
            sums, self._open = self._hop_sums(power)
            self._hops.extend(sums)
        if taken < y.shape[1]:
            self._rest = np.concatenate([self._rest, y[:, taken:]], axis=1, dtype=np.float32)

    def _powers(self, y: Array) -> tuple[Array, Array]:
        """Weighted power (n,) of the filtered samples (C, n), and the filter's state after them."""
        z, state = self._filter(y, self._state)
        z *= z
        return self._weights @ z if self.channels > 1 else z[0], state

    def _hop_sums(self, power: Array) -> tuple[Array, Array]:
        """Energy of each hop that is full when these samples are there, and the power of what is left."""
        power, hop = np.concatenate([self._open, power]), len(self._hops)
        last = (self._edge(hop) + len(power)) * 10 // self.sample_rate
        last += self._edge(last + 1) - self._edge(hop) <= len(power)  # floor is one short where the edge itself is rounded down
        edges = self._edge(np.arange(hop, last + 1)) - self._edge(hop)
        return np.add.reduceat(power[: edges[-1]], edges[:-1]) if last > hop else power[:0], power[edges[-1] :]

    def _edge(self, hop: Any) -> Any:
        """The sample at which a hop, or each of several, begins."""
        return hop * self.sample_rate // 10

    @property
    def integrated_lufs(self) -> float:
        """Loudness of all that was pushed, in LUFS; −inf for silence (nothing above −70 LUFS)."""
        return _gated(self._block_powers())

    def _block_powers(self) -> Array:
        """Mean weighted power in blocks of 0.4 s, one every 0.1 s; under 0.4 s, all there is counts as one block."""
        sums, rest = self._hop_sums(self._powers(self._rest)[0])
        hops = np.concatenate([np.array(self._hops), sums])
        if len(hops) < 4:
            samples = self._edge(len(hops)) + len(rest)
            return np.array([(hops.sum() + rest.sum(dtype=np.float64)) / samples]) if samples else np.zeros(0)
        edges = self._edge(np.arange(len(hops) + 1))
        sums = hops[:-3] + hops[1:-2] + hops[2:-1] + hops[3:]
        return cast(Array, sums / (edges[4:] - edges[:-4]))


class _RowFilter:
    """A recursive filter by rows of samples: products of matrices, which take a third of the time that sample after sample takes.

    In its modes a filter is ``y = d x + 2 Re Σ c_k s_k`` with ``s_k`` going on as ``p_k s_k + b_k x``. So a row of samples out is a
    triangular matrix times the row in, and a matrix times the states before it; only the states go from row to row one after another.
    In float32 samples are 1e-7 of full scale off, and energies 1e-8 of themselves.

    Parameters
    ----------
    sections : ndarray [shape=(n, 6)]
        Second-order sections, each with a pair of complex poles and no two of them equal.
    """

    def __init__(self, sections: Array) -> None:
        A, b, c, d = _state_space(sections)
        poles, modes = np.linalg.eig(A)
        upper = poles.imag > 0  # one of each pair
        poles, b, c = poles[upper], np.linalg.solve(modes, b.astype(complex))[upper], (c @ modes)[upper]
        powers = poles ** np.arange(_ROW)[:, None]  # (row, pole)
        response = np.concatenate([[d], 2 * (powers @ (b * c)).real[:-1]])
        row = np.array([np.concatenate([np.zeros(n), response[: _ROW - n]]) for n in range(_ROW)])
        into, out = powers[::-1] * b, 2 * powers * c
        self.poles = poles**_ROW
        self._rows = row.astype(np.float32)
        self._into = np.hstack([into.real, into.imag]).astype(np.float32)
        self._out = np.ascontiguousarray(np.hstack([out.real, -out.imag]).T, dtype=np.float32)

    def __call__(self, y: Array, state: Array) -> tuple[Array, Array]:
        """Samples (C, n) filtered, and the state (C, pole) after them; a last row that is not full is filled up with silence."""
        from scipy.signal import lfilter

        count, samples = len(self.poles), y.shape[1]
        x = np.asarray(y, dtype=np.float32)
        if samples % _ROW:
            x = np.pad(x, ((0, 0), (0, -samples % _ROW)))
        x = x.reshape(len(x), -1, _ROW)
        driven = x @ self._into  # (C, rows, 2 poles)
        before, after = np.empty_like(driven), np.empty_like(state)
        for k, pole in enumerate(self.poles):
            drive = driven[..., k] + 1j * driven[..., count + k].astype(np.float64)
            states = np.concatenate([state[:, k : k + 1], lfilter([1.0], [1.0, -pole], drive, zi=pole * state[:, k : k + 1])[0]], axis=1)
            before[..., k], before[..., count + k] = states[:, :-1].real, states[:, :-1].imag
            after[:, k] = states[:, -1]
        after[np.abs(after) < 1e-30] = 0.0  # what would fall into denormal numbers in silence, which are slow
        z = x @ self._rows
        z += before @ self._out
        return z.reshape(len(x), -1)[:, :samples], after


@lru_cache(maxsize=8)
def _k_filter(sample_rate: int) -> _RowFilter:
    return _RowFilter(_k_weighting(sample_rate))


def _state_space(sections: Array) -> tuple[Array, Array, Array, float]:
    """Second-order sections in a row as one system: ``s' = A s + b x``, ``y = c s + d x``."""
    A, b, c, d = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    for b0, b1, b2, _, a1, a2 in sections:
        own = np.array([b1 - a1 * b0, b2 - a2 * b0])
        A = np.block([[A, np.zeros((len(A), 2))], [np.outer(own, c), np.array([[-a1, 1.0], [-a2, 0.0]])]])
        b, c, d = np.concatenate([b, own * d]), np.concatenate([b0 * c, [1.0, 0.0]]), b0 * d
    return A, b, c, d


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
