"""Frames in a style + the song they came from → waveform.

The model, not this module, limits how good a result sounds; this module limits how fast it comes. So the default borrows what
the song knows: its phase, which carries the attacks, and the fine structure inside each row of the frames. A few rounds of
fast Griffin–Lim make the borrowed phase fit the new magnitudes. Where there is no song to borrow from, `pghi` integrates a
phase from the magnitudes alone.

Each band of `features.LogFrequency` is inverted on its own STFT; between 1 and 1.5 kHz the result cross-fades from one to
the other. Only the mid (the mean of the channels) is inverted. How each channel differs from the mid is predicted from the
mid, bin by bin, as the song does it; the differences sum to zero, so that a mono fold-down is the styled mid.

Everything but `pghi` is local: with `Vocoder.context_samples` of overlap on each side a song in chunks is the song in one,
as long as chunks start on a multiple of `hop_length`.

Conventions: magnitudes are those of `features.stft`, in which a sine of amplitude 1 peaks at 1; ``S (..., F, T)``, time last.

References
----------
.. [1] D. Griffin and J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE Trans. ASSP 32(2), 1984.
.. [2] N. Perraudin, P. Balazs and P. Søndergaard, "A fast Griffin–Lim algorithm", WASPAA 2013.
.. [3] Z. Průša, P. Balazs and P. Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude",
   IEEE/ACM Trans. ASLP 25(5), 2017.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .features import LogFrequency

BLOCK_FRAMES = 96  # frames handled at once: about 1 MB, so that a block stays in the cache
HANN_GAMMA = 0.25645  # of n_fft²: the Gaussian closest to a Hann window, from [3], table I
SMOOTH = 2  # frames and bins each way over which the stereo image is read: 46 ms and the main lobe of a partial
REGION = 8  # bins, with as many on each side, over which a result is no wider than the song: 260 Hz in the low band, 520 Hz in the high
MAX_ROOM_GAIN = 4.0  # what the mid does not explain may grow by 12 dB with it
TINY = 1e-30  # under a power, so that nothing is divided by zero; far below what float32 rounding leaves in an empty bin


class _OverlapAdd:
    """Hann frames of a waveform of ``samples`` and back, a block of frames at a time.

    The waveform is kept as rows of one hop, half a window of zeros at each end: adding a block of frames is then ``n_fft // hop``
    additions of whole rows, and nothing outside the song survives a round.
    """

    def __init__(self, n_fft: int, hop_length: int, samples: int, n_frames: int, *, like: Tensor) -> None:
        if n_fft % (2 * hop_length):
            raise ValueError(
                f"half a window of {n_fft} samples is no whole number of hops of {hop_length}; choose a hop that divides {n_fft // 2}"
            )
        self.n_fft, self.hop_length, self.samples, self.n_frames = n_fft, hop_length, samples, n_frames
        self.window = torch.hann_window(n_fft, device=like.device, dtype=like.dtype) * (4.0 / n_fft)
        self.scale = self._inverse_of_summed_squares()

    def _inverse_of_summed_squares(self) -> Tensor:
        squares = self.window.square().reshape(-1, self.hop_length)
        total = self._rows()
        for j, row in enumerate(squares):
            total[j : j + self.n_frames] += row
        total = total.reshape(-1)
        scale = torch.zeros_like(total)
        inside = slice(self.n_fft // 2, self.n_fft // 2 + self.samples)
        scale[inside] = 1 / total[inside].clamp(min=1e-12 / self.n_fft**2)
        return scale.reshape(-1, self.hop_length)

    def _rows(self) -> Tensor:
        return self.window.new_zeros(self.n_frames + self.n_fft // self.hop_length - 1, self.hop_length)

    def blocks(self) -> list[slice]:
        """Slices of frames."""
        return [slice(a, min(a + BLOCK_FRAMES, self.n_frames)) for a in range(0, self.n_frames, BLOCK_FRAMES)]

    def add(self, rows: Tensor, X: Tensor, block: slice) -> None:
        """Add the inverse of the frames X (block, n_fft // 2 + 1) to the rows."""
        pieces = (torch.fft.irfft(X, self.n_fft) * self.window).reshape(X.shape[0], -1, self.hop_length)
        for j in range(pieces.shape[1]):
            rows[block.start + j : block.stop + j] += pieces[:, j]

    def waveform(self, blocks: Iterable[Tensor]) -> Tensor:
        """Rows whose STFT is closest [1] to the frames (T, n_fft // 2 + 1), which come in blocks."""
        rows = self._rows()
        for block, X in zip(self.blocks(), blocks, strict=True):
            self.add(rows, X, block)
        return rows.mul_(self.scale)

    def frames(self, rows: Tensor, block: slice) -> Tensor:
        """STFT of the rows, frames of one block (block, n_fft // 2 + 1)."""
        n = block.stop - block.start
        pieces = rows.as_strided((n, self.n_fft), (self.hop_length, 1), block.start * self.hop_length)
        return torch.fft.rfft(pieces * self.window)

    def samples_of(self, rows: Tensor) -> Tensor:
        """The song inside the rows, (samples,)."""
        return rows.reshape(-1)[self.n_fft // 2 : self.n_fft // 2 + self.samples]


def _power(X: Tensor) -> Tensor:
    return X.real.square().addcmul_(X.imag, X.imag)  # four times as fast as abs()


def _with_magnitude(X: Tensor, target: Tensor) -> Tensor:
    return X * (_power(X).add_(TINY).rsqrt_() * target)


def _iterate(X: Tensor, target: Tensor, grid: _OverlapAdd, *, iterations: float, momentum: float) -> list[Tensor]:
    """Fast Griffin–Lim [2]: frames in blocks with the magnitude of ``target``, and the phase of X made to fit it, both (T, bins).

    t = c + momentum (c − c_before), and only the phase of t is used, so t ∝ c − momentum / (1 + momentum) c_before. Of a last round that
    is a fraction, so much of the way is gone: between styles of two and of four rounds nothing jumps.
    """
    back = momentum / (1 + momentum)
    before: list[Tensor] = []
    found = [_with_magnitude(X[b], target[b]) for b in grid.blocks()]
    for done in range(math.ceil(iterations)):
        rows = grid.waveform(found)
        c = [grid.frames(rows, b) for b in grid.blocks()]
        ahead = [torch.sub(now, old, alpha=back) for now, old in zip(c, before, strict=True)] if before and momentum else c
        fitted = [_with_magnitude(t, target[b]) for t, b in zip(ahead, grid.blocks(), strict=True)]
        share = iterations - done
        if share < 1:
            fitted = [_with_magnitude(X + share * (Y - X), target[b]) for X, Y, b in zip(found, fitted, grid.blocks(), strict=True)]
        found, before = fitted, c
    return found


def istft(S: Tensor, *, n_fft: int, hop_length: int, samples: int) -> Tensor:
    """Waveform whose `features.stft` is closest to S in the least-squares sense [1].

    Parameters
    ----------
    S : Tensor [shape=(..., n_fft // 2 + 1, T), complex]
    samples : int
        Length of the waveform; ``1 + samples // hop_length`` is T.

    Returns
    -------
    Tensor [shape=(..., samples)]
    """
    _check(S, n_fft)
    grid = _OverlapAdd(n_fft, hop_length, samples, S.shape[-1], like=S.real)
    flat = S.reshape(-1, *S.shape[-2:]).mT
    return torch.stack([grid.samples_of(grid.waveform(X[b] for b in grid.blocks())) for X in flat]).reshape(*S.shape[:-2], samples)


def griffin_lim(
    S: Tensor, *, n_fft: int, hop_length: int, iterations: float = 32, phase: Tensor | None = None, samples: int | None = None
) -> Tensor:
    """Waveform with the STFT magnitudes S, by alternating projections [1]. See `fast_griffin_lim`, which is better and as fast."""
    return fast_griffin_lim(S, n_fft=n_fft, hop_length=hop_length, iterations=iterations, momentum=0.0, phase=phase, samples=samples)


def fast_griffin_lim(
    S: Tensor,
    *,
    n_fft: int,
    hop_length: int,
    iterations: float = 32,
    momentum: float = 0.99,
    phase: Tensor | None = None,
    samples: int | None = None,
) -> Tensor:
    """Waveform with the STFT magnitudes S, by accelerated alternating projections [2].

    Parameters
    ----------
    S : Tensor [shape=(..., n_fft // 2 + 1, T), non-negative]
        Magnitudes on the scale of `features.stft`.
    n_fft, hop_length : int [samples]
        Hann window and hop; half a window must be a whole number of hops.
    momentum : float
        0 is the plain algorithm; the paper recommends 0.99.
    phase : Tensor [shape=S.shape, radians] or None
        Where to start. None: zero, as in ``librosa.griffinlim(init=None)``.
    samples : int or None
        Length of the waveform. None: ``hop_length * (T - 1)``.

    Returns
    -------
    Tensor [shape=(..., samples)]

    Raises
    ------
    ValueError
        If S has not n_fft // 2 + 1 rows, or the hop does not divide half the window.

    Examples
    --------
    >>> from stylestream.features import stft
    >>> y = torch.sin(2 * torch.pi * 440 / 44100 * torch.arange(22050))
    >>> S = stft(y, n_fft=2048, hop_length=512)
    >>> z = fast_griffin_lim(S.abs(), n_fft=2048, hop_length=512, iterations=2, phase=S.angle(), samples=22050)
    >>> bool((z - y).abs().max() < 1e-4)
    True
    """
    _check(S, n_fft)
    samples = hop_length * (S.shape[-1] - 1) if samples is None else samples
    grid = _OverlapAdd(n_fft, hop_length, samples, S.shape[-1], like=S)
    targets = S.reshape(-1, *S.shape[-2:]).mT
    start = torch.polar(torch.ones_like(S), torch.zeros_like(S) if phase is None else phase).reshape(-1, *S.shape[-2:]).mT
    found = [_iterate(X, target, grid, iterations=iterations, momentum=momentum) for X, target in zip(start, targets, strict=True)]
    return torch.stack([grid.samples_of(grid.waveform(X)) for X in found]).reshape(*S.shape[:-2], samples)


def _check(S: Tensor, n_fft: int) -> None:
    if S.ndim < 2 or S.shape[-2] != n_fft // 2 + 1:
        raise ValueError(f"an STFT of n_fft {n_fft} has {n_fft // 2 + 1} rows, not shape {tuple(S.shape)}; pass magnitudes as (..., F, T)")


def pghi(S: Tensor, *, n_fft: int, hop_length: int, tolerance: float = 1e-6, seed: int = 0) -> Tensor:
    r"""Phase of an STFT from its magnitudes alone, by phase-gradient heap integration [3].

    For a Gaussian window the phase's gradient is the gradient of the log-magnitude s turned by 90°. With the phase measured at
    the centre of each frame, γ the width of the Gaussian closest to Hann, a the hop and M the window:

    .. math:: \phi_t = 2 \pi a m / M + (a M / γ) ∂_m s, \qquad \phi_m = -(γ / (a M)) ∂_t s

    The gradient is integrated from the loudest bin outwards, always from the loudest border, by the trapezoidal rule. Needs no
    song; is global, so chunks do not join; a second of 2048-point frames takes about 0.2 s of plain Python.

    Parameters
    ----------
    S : Tensor [shape=(..., n_fft // 2 + 1, T), non-negative]
    tolerance : float
        Bins below this share of the maximum get a random phase.

    Returns
    -------
    Tensor [shape=S.shape, radians]
        For `features.stft`, whose frames start half a window before their centre.
    """
    _check(S, n_fft)
    flat = S.detach().double().reshape(-1, *S.shape[-2:]).cpu().numpy()
    rng = np.random.default_rng(seed)
    phases = np.stack([_integrate(s, n_fft, hop_length, tolerance, rng) for s in flat])
    return torch.from_numpy(phases).to(S).reshape(S.shape)


def _gradients(s: np.ndarray, n_fft: int, hop_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Phase advance per frame and per bin, (F, T) each, of the log-magnitude s; phase counted from the frame's centre."""
    ratio = hop_length / (HANN_GAMMA * n_fft)  # a M / γ
    bins = np.arange(s.shape[0])[:, None]
    per_frame = 2 * np.pi * hop_length / n_fft * bins + ratio * np.gradient(s, axis=0)
    per_bin = -np.gradient(s, axis=1) / ratio if s.shape[1] > 1 else np.zeros_like(s)
    return per_frame, per_bin


def _integrate(S: np.ndarray, n_fft: int, hop_length: int, tolerance: float, rng: np.random.Generator) -> np.ndarray:
    n_rows, n_frames = S.shape
    per_frame, per_bin = _gradients(np.log(np.maximum(S, tolerance * max(S.max(), 1e-30))), n_fft, hop_length)
    # a border of finished bins all round: neighbours need no bounds check
    done = np.ones((n_rows + 2, n_frames + 2), dtype=bool)
    silence = tolerance * S.max()
    done[1:-1, 1:-1] = silence >= S
    phase = np.zeros(done.shape)
    phase[1:-1, 1:-1] = rng.uniform(0, 2 * np.pi, S.shape)
    stride = n_frames + 2
    todo, out = bytearray(done.tobytes()), phase.reshape(-1).tolist()
    loud = np.pad(S, 1).reshape(-1).tolist()
    dt, dm = (np.pad(g, 1).reshape(-1).tolist() for g in (per_frame, per_bin))
    order = np.argsort(-np.pad(S, 1).reshape(-1), kind="stable")
    for seed in order[: int((~done).sum())].tolist():
        if todo[seed]:
            continue
        todo[seed], out[seed] = 1, 0.0
        heap = [(-loud[seed], seed)]
        while heap:
            i = heapq.heappop(heap)[1]
            for j, step in ((i + 1, dt), (i - 1, dt), (i + stride, dm), (i - stride, dm)):
                if todo[j]:
                    continue
                todo[j] = 1
                mean = 0.5 * (step[i] + step[j])
                out[j] = out[i] + mean if j > i else out[i] - mean
                heapq.heappush(heap, (-loud[j], j))
    centred = np.array(out).reshape(done.shape)[1:-1, 1:-1]
    return np.angle(np.exp(1j * (centred + np.pi * np.arange(n_rows)[:, None])))  # frames start half a window early: (−1)^m


@dataclass(frozen=True)
class Analysis:
    """What the vocoder keeps of a song: the STFTs of the mid, and of each channel's difference from it."""

    y: Tensor  # (C, N)
    low: Tensor  # (257, T), complex; decimated
    high: Tensor  # (1025, T), complex
    differences: tuple[tuple[Tensor, Tensor], ...]  # (low, high) of every channel but the last: differences sum to zero
    first_frame: int  # of the song, column 0 here


class _Band(nn.Module):
    """One of the two STFTs, backwards. Everything is frames first, (T, bins)."""

    share: Tensor
    noise: Tensor

    def __init__(self, n_fft: int, hop_length: int, *, share: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("share", share, persistent=False)  # (bins,) of this band in the sum of the two
        self.register_buffer("noise", noise, persistent=False)

    def start(self, M: Tensor, target: Tensor, *, method: str, strength: float, first_frame: int) -> Tensor:
        """Complex frames whose phase the rounds start from; at strength 0 the song's own."""
        if method == "pghi":
            angle = pghi(target.mT, n_fft=self.n_fft, hop_length=self.hop_length).mT
            return (1 - strength) * _with_magnitude(M, torch.ones_like(target)) + strength * torch.polar(torch.ones_like(angle), angle)
        rows = (torch.arange(M.shape[0], device=M.device) + first_frame) % self.noise.shape[0]
        return M + strength * self.noise[rows]

    def waveforms(self, X: Tensor, M: Tensor, sides: Sequence[Tensor], grid: _OverlapAdd, *, strength: float) -> Tensor:
        """Styled mid X and its differences, each less (1 − strength) of the song's: (1 + sides, samples)."""
        keep = 1 - strength
        mid = grid.waveform(torch.sub(X[b], M[b], alpha=keep) * self.share for b in grid.blocks())
        waves = [grid.samples_of(mid)]
        for D in sides:
            side = grid.waveform(torch.sub(_difference(D, M, X, b), D[b], alpha=keep) * self.share for b in grid.blocks())
            waves.append(grid.samples_of(side))
        return torch.stack(waves)


class Vocoder(nn.Module):
    """Frames and the song they came from → waveform.

    Parameters
    ----------
    features : LogFrequency, optional
        The front end the frames were made with.
    iterations : float
        Rounds of fast Griffin–Lim in each band; of a fraction that part. Four: eight are no better on blurred frames, two lose 0.03 dB.
    method : "song" or "pghi"
        Where the phase starts: the song's own, or integrated from the magnitudes (slow, global).
    momentum : float
        Of fast Griffin–Lim.
    solver_iterations : int
        Rounds of `LogFrequency.powers`.

    Examples
    --------
    A song's own frames give the song back, nearly; at strength 0 exactly:

    >>> y = 0.1 * torch.sin(2 * torch.pi * 440 / 44100 * torch.arange(22050)).repeat(2, 1)
    >>> vocoder = Vocoder()
    >>> song = vocoder.analyse(y)
    >>> bool((vocoder.synthesise(vocoder.frames(song), song, strength=0.0) - y).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        features: LogFrequency | None = None,
        *,
        iterations: float = 4,
        method: str = "song",
        momentum: float = 0.99,
        solver_iterations: int = 5,
    ) -> None:
        super().__init__()
        if method not in ("song", "pghi"):
            raise ValueError(f"unknown phase method {method!r}; choose song or pghi")
        self.features = LogFrequency() if features is None else features
        self.iterations, self.method, self.momentum, self.solver_iterations = iterations, method, momentum, solver_iterations
        c = self.features.config
        low_share = _low_share(c.n_fft_decimated, c.sample_rate / c.decimation)
        high_share = 1 - _low_share(c.n_fft_high, c.sample_rate)
        low_noise, high_noise = _noise(self.features)
        self.low = _Band(c.n_fft_decimated, c.hop_decimated, share=low_share, noise=low_noise)
        self.high = _Band(c.n_fft_high, c.hop_length, share=high_share, noise=high_noise)

    @property
    def context_frames(self) -> int:
        """Frames a chunk needs on each side so that its inside is the whole song's, to 1e-5 at full scale.

        Half a long window for the song's STFT, half for the output and half for each round: a round reaches a whole window,
        but through the square of a Hann window, which leaves next to nothing of the outer half. Four frames for image and filters.
        """
        half_window = self.features.config.n_fft_low // 2 // self.features.config.hop_length
        return (math.ceil(self.iterations) + 2) * half_window + 4

    @property
    def context_samples(self) -> int:
        """`context_frames` in samples."""
        return self.context_frames * self.features.config.hop_length

    @torch.no_grad()
    def analyse(self, y: Tensor, *, first_frame: int = 0) -> Analysis:
        """Take apart what `synthesise` needs.

        Parameters
        ----------
        y : Tensor [shape=(C, N)]
            Song or chunk at ``config.sample_rate``, brought to ``config.loudness_lufs``.
        first_frame : int
            Where in the song a chunk starts, in hops; a chunk starts on a multiple of ``config.hop_length`` samples.

        Raises
        ------
        ValueError
            If y is not (C, N) or has no samples.
        """
        if y.ndim != 2 or y.numel() == 0:
            raise ValueError(f"a song is channels × samples and has some of both, not shape {tuple(y.shape)}; pass y as (C, N)")
        mid = y.mean(0)
        low, high = self.features.bands(mid)
        return Analysis(y, low, high, tuple(self.features.bands(channel - mid) for channel in y[:-1]), first_frame)

    @torch.no_grad()
    def frames(self, song: Analysis) -> Tensor:
        """Frames of the mid, (F, T), as `LogFrequency` makes them, from the STFTs that are there already."""
        return self.features.frames(_power(song.low), _power(song.high))

    @torch.no_grad()
    def synthesise(self, x_hat: Tensor, song: Analysis, *, strength: float = 1.0) -> Tensor:
        """Give frames a waveform.

        The two bands do not quite add up to the song (−70 dB), so what they leave out is added, (1 − strength) of it:
        ŷ = synthesis(X̂ − (1 − strength) X) + (1 − strength) y, and strength 0 is the song to rounding.

        Parameters
        ----------
        x_hat : Tensor [shape=(F, T)]
            Frames in the style.
        song : Analysis
            Of the song they came from, T frames.
        strength : float [0, 1]
            From the song to the frames, a straight line in log-magnitude.

        Returns
        -------
        Tensor [shape=(C, N)]
            The mean over channels is the styled mid.

        Raises
        ------
        ValueError
            If the strength is outside [0, 1] or x_hat is not (F, T) of the song.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength} is outside [0, 1]; 0 is the song, 1 the song in the style")
        expected = (self.features.config.n_bins, song.high.shape[-1])
        if x_hat.shape != expected:
            raise ValueError(f"frames of shape {tuple(x_hat.shape)} do not fit a song of shape {expected}; pass the frames of this song")
        sizes = _power(song.low).sqrt_(), _power(song.high).sqrt_()
        styled = self.features.powers(x_hat, *sizes, iterations=self.solver_iterations)
        targets = [_between(size.mT, power.mT.sqrt(), strength) for size, power in zip(sizes, styled, strict=True)]
        n = song.y.shape[-1]
        few = -(-n // self.features.config.decimation)
        low = self._invert(self.low, targets[0], song.low, [d for d, _ in song.differences], song, samples=few, strength=strength)
        high = self._invert(self.high, targets[1], song.high, [d for _, d in song.differences], song, samples=n, strength=strength)
        mid, *sides = high + torch.stack([self._interpolate(wave, n) for wave in low])
        differences = torch.stack([*sides, -sum(sides, torch.zeros_like(mid))])
        return mid + differences + (1 - strength) * song.y

    def _invert(
        self, band: _Band, target: Tensor, M: Tensor, sides: Sequence[Tensor], song: Analysis, *, samples: int, strength: float
    ) -> Tensor:
        grid = _OverlapAdd(band.n_fft, band.hop_length, samples, target.shape[0], like=target)
        start = band.start(M.mT, target, method=self.method, strength=strength, first_frame=song.first_frame)
        X = torch.cat(_iterate(start, target, grid, iterations=self.iterations, momentum=self.momentum))
        return band.waveforms(X, M.mT, [D.mT for D in sides], grid, strength=strength)

    def _interpolate(self, y: Tensor, samples: int) -> Tensor:
        """Decimated waveform → (samples,), through the filter that decimated it."""
        d = self.features.config.decimation
        taps = self.features.decimate_taps * d
        reach = taps.numel() // 2 // d
        phases = F.pad(taps, (0, d - taps.numel() % d)).reshape(-1, d).flip(0)  # (2 reach + 1, d)
        return (F.pad(y, (reach, reach)).unfold(0, 2 * reach + 1, 1) @ phases).reshape(-1)[:samples]


def sound_of(x: Tensor, *, iterations: int = 8) -> Tensor:
    """Waveform (1, N) of frames (F, T) alone, at the working loudness: the phase is made up, so it is a little hollow.

    >>> x = torch.zeros(324, 87)
    >>> x[135:138] = 0.8
    >>> tuple(sound_of(x, iterations=2).shape)
    (1, 44032)
    """
    vocoder, frames = Vocoder(method="pghi", iterations=iterations), x.shape[-1]
    low, high = (torch.ones(band.n_fft // 2 + 1, frames, dtype=torch.complex64) for band in (vocoder.low, vocoder.high))
    silence = torch.zeros(1, (frames - 1) * vocoder.features.config.hop_length)
    return vocoder.synthesise(x.float().cpu(), Analysis(silence, low, high, (), 0))


def _low_share(n_fft: int, sample_rate: float, *, from_hz: float = 1000.0, to_hz: float = 1500.0) -> Tensor:
    """Share of the low band in the sum of the two, for every bin: 1 below, 0 above."""
    hz = torch.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    return torch.cos(math.pi / 2 * ((hz - from_hz) / (to_hz - from_hz)).clamp(0, 1)).square()


def _noise(features: LogFrequency, *, n_frames: int = 64, level_db: float = -100.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """STFTs of noise at level_db a bin that repeats after n_frames, frames first: (n_frames, bins) of both bands.

    In bins that are empty in the song the phase is what rounding left there, and differs from chunk to chunk. Noise far under
    the floor of the frames gives them one that does not. Of a waveform, because independent phases contradict each other.
    """
    samples = n_frames * features.config.hop_length
    y = torch.randn(samples, generator=torch.Generator().manual_seed(seed)).repeat(3).to(features.blend.device)
    low, high = (band[:, n_frames : 2 * n_frames].mT.contiguous() for band in features.bands(y))
    level = 10 ** (level_db / 20)
    return low * (level / _power(low).mean().sqrt()), high * (level / _power(high).mean().sqrt())


def _between(size: Tensor, styled: Tensor, strength: float, *, floor_db: float = -100.0) -> Tensor:
    """Magnitude on the way from the song's to the style's: a straight line in decibels, over a floor so that zero is a number."""
    if strength == 1:
        return styled
    floor = 10 ** (floor_db / 20)
    song_part = (size + floor).log_().mul_(1 - strength)
    return song_part.add_((styled + floor).log_(), alpha=strength).exp_().sub_(floor).clamp_(min=0)


def _difference(D: Tensor, M: Tensor, X: Tensor, block: slice) -> Tensor:
    """What the styled mid X needs as its channel difference, as the song's mid M has D; frames of one block, (block, bins).

    Around each bin the song's difference is p M, panning, and a rest that the mid does not explain, room. Panning goes over to X
    as it is; the room is brought to the level of X. With X = M this is D. Where X is louder than M was, it stands in the song's
    reverberation and noise, which are wide; so that it is not wider than what was played there, the difference has at most
    the share of the mid that it has in the song, over some `REGION` bins.
    """
    near = slice(max(block.start - SMOOTH, 0), block.stop + SMOOTH)
    D, M, X = D[near], M[near], X[near]
    M_power, X_power = _power(M), _power(X)
    mm = _smooth(M_power).add_(1e-10)
    p = torch.complex(
        _smooth(torch.addcmul(D.real * M.real, D.imag, M.imag)), _smooth(torch.addcmul(D.imag * M.real, D.real, M.imag, value=-1))
    )
    p = p * torch.minimum(_power(p).add_(TINY).rsqrt_(), 1 / mm)  # |p| ≤ 1: no further out than the loudspeaker
    g = _smooth(X_power).add_(1e-10).div_(mm).sqrt_().clamp_(max=MAX_ROOM_GAIN)
    inner = slice(block.start - near.start, block.stop - near.start)
    styled = (p * (X - g * M) + g * D)[inner]
    side, mid, song_side, song_mid = map(_region, (_power(styled), X_power[inner], _power(D[inner]), M_power[inner]))
    allowed = song_side.mul_(mid).div_(side.mul_(song_mid).add_(TINY)).sqrt_().clamp_(max=1.0)
    return styled.mul_(allowed.repeat_interleave(REGION, 1)[:, : X.shape[1]])


def _region(P: Tensor) -> Tensor:
    """Mean over REGION bins and as many on each side, (T, bins) → (T, bins / REGION, rounded up)."""
    return F.avg_pool1d(F.pad(P, (0, -P.shape[1] % REGION)).unflatten(1, (-1, REGION)).sum(-1), 3, stride=1, padding=1)


def _smooth(P: Tensor) -> Tensor:
    """Sum over the frames and bins within SMOOTH of each, (T, bins)."""
    for axis in (0, 1):
        n = P.shape[axis]
        Q = F.pad(P, (0, 0, SMOOTH, SMOOTH) if axis == 0 else (SMOOTH, SMOOTH))
        P = Q.narrow(axis, 0, n) + Q.narrow(axis, 1, n)
        for j in range(2, 2 * SMOOTH + 1):
            P += Q.narrow(axis, j, n)
    return P
