"""Complex frames that a phase was borrowed for → the same frames, nearer to a sound that exists: the learned part of the inversion.

`vocoder` gives frames the song's phase and a few rounds of fast Griffin–Lim. What is left is the difference between the frames that it
wants and the frames of the waveform that they give: partials that cancel between windows, attacks that smear, a fine structure that is
the song's. A small convolutional network [1]_, [2]_ looks at both and turns each bin: a gain and a rotation, X ↦ X exp(g + iθ), on the
low band's STFT and on the high one's. It starts as the identity, so that it can only be worse than nothing where it has learned wrongly.
`docs/vocoder.md` has what it gains and what it takes; ``tools/make_vocoder.py`` trains it.

What it sees of a bin does not depend on where the phase of the whole stands: levels, the angle between the wanted and the given, and
the phase's steps to the next frame and to the next bin. Several neighbouring bins share a column, so that a column is cheap.

Conventions: frames first, ``(B, T, bins)``, magnitudes those of `features.stft`.

References
----------
.. [1] Y. Masuyama, K. Yatabe, Y. Koizumi, Y. Oikawa and N. Harada, "Deep Griffin–Lim iteration", ICASSP 2019.
.. [2] H. Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders", ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream.features import LogFrequency
from stylestream.style import load_style_file, network_of_kind
from stylestream.vocoder import Analysis, Vocoder, _Band, _iterate, _OverlapAdd

CHANNELS_SEEN = 9  # see `seen`
FLOOR = 1e-9  # a power 90 dB under a full-scale sine


@dataclass(frozen=True)
class BandConfig:
    """Which bins of one STFT are turned, and how many share a column."""

    n_fft: int
    hop_length: int
    first: int
    columns: int
    fold: int

    @property
    def bins(self) -> slice:
        """Bins in reach; the others stay as they are."""
        return slice(self.first, self.first + self.columns * self.fold)


@dataclass(frozen=True)
class PolishConfig:
    """Size of the network."""

    channels: int = 32
    blocks: int = 3  # in each band
    rounds: float = 0.0  # of fast Griffin–Lim that come before it: what it was trained after
    low: tuple[int, ...] = (512, 64, 0, 36, 4)  # a BandConfig: up to 1550 Hz; above, the low band is not heard
    high: tuple[int, ...] = (2048, 512, 40, 123, 8)  # from 860 Hz


class _Block(nn.Module):
    """ConvNeXt on the plane of time and columns: (B, C, T, columns) → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, 2 * channels)
        self.back = nn.Linear(2 * channels, channels)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the neighbourhood says."""
        h = self.norm(self.near(x).permute(0, 2, 3, 1))
        return x + self.back(F.gelu(self.wide(h), approximate="tanh")).permute(0, 3, 1, 2)


class BandPolish(nn.Module):
    """One band: what is `seen` of it, (B, CHANNELS_SEEN, T, bins in reach) → gain (nepers) and angle, (B, T, bins in reach) each."""

    def __init__(self, config: BandConfig, *, channels: int, blocks: int) -> None:
        super().__init__()
        self.config = config
        self.fold = nn.Conv2d(CHANNELS_SEEN, channels, (3, config.fold), stride=(1, config.fold), padding=(1, 0))
        self.place = nn.Parameter(torch.zeros(channels, 1, config.columns))
        self.blocks = nn.ModuleList(_Block(channels) for _ in range(blocks))
        self.unfold = nn.Linear(channels, 2 * config.fold)
        nn.init.zeros_(self.unfold.weight)
        nn.init.zeros_(self.unfold.bias)

    def forward(self, seen_bins: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and angle."""
        h = self.fold(seen_bins.contiguous(memory_format=torch.channels_last)) + self.place
        for block in self.blocks:
            h = block(h)
        turned = self.unfold(h.permute(0, 2, 3, 1))  # (B, T, columns, 2 fold)
        gain, angle = turned.float().unflatten(-1, (2, -1)).unbind(-2)
        return 3 * torch.tanh(gain.flatten(-2) / 3), angle.flatten(-2)


class Polish(nn.Module):
    """Both bands.

    >>> X = torch.randn(1, 20, 1025, dtype=torch.complex64)
    >>> bool((Polish().high(X, X, X) == X).all())  # it starts as the identity
    True
    """

    def __init__(self, config: PolishConfig = PolishConfig()) -> None:
        super().__init__()
        self.config = config
        sizes = {"channels": config.channels, "blocks": config.blocks}
        self.low_band = BandPolish(BandConfig(*config.low), **sizes)
        self.high_band = BandPolish(BandConfig(*config.high), **sizes)

    @property
    def context_frames(self) -> int:
        """Frames on each side that a frame depends on."""
        return 1 + 2 * self.config.blocks

    def low(self, X: Tensor, given: Tensor, song: Tensor, *, strength: float = 1.0) -> Tensor:
        """Frames X of the low band, polished; see `polished`."""
        return polished(self.low_band, X, given, song, strength=strength)

    def high(self, X: Tensor, given: Tensor, song: Tensor, *, strength: float = 1.0) -> Tensor:
        """Frames X of the high band, polished; see `polished`."""
        return polished(self.high_band, X, given, song, strength=strength)


def polished(band: BandPolish, X: Tensor, given: Tensor, song: Tensor, *, strength: float = 1.0) -> Tensor:
    """Turn the bins of X.

    Parameters
    ----------
    X : Tensor [shape=(B, T, bins), complex]
        The frames that are wanted: magnitudes from the style, phase as good as the rounds made it.
    given : Tensor [shape=X.shape, complex]
        Frames of the waveform that X gives.
    song : Tensor [shape=X.shape, complex]
        Frames of the song.
    strength : float in [0, 1]
        Share of the turn.

    Returns
    -------
    Tensor [shape=X.shape, complex]
    """
    bins = band.config.bins
    gain, angle = band(seen(X[..., bins], given[..., bins], song[..., bins], band.config))
    turned = X[..., bins] * torch.polar(torch.exp(strength * gain), strength * angle)
    return torch.cat([X[..., : bins.start], turned, X[..., bins.stop :]], dim=-1)


def seen(X: Tensor, given: Tensor, song: Tensor, config: BandConfig) -> Tensor:
    """What the network sees of each bin, (B, CHANNELS_SEEN, T, bins), each about −1 … 1.

    Level; level of what is given re wanted, and of the song; angle from wanted to given; steps of the phase to the next frame and to the
    next bin, less those of a steady sine in the middle of the bin and of a click in the middle of the frame. Angles as cosine and sine.
    """
    power, has, had = (_power(S) for S in (X, given, song))
    size = torch.log10(power + FLOOR)
    unit = X * (power + 1e-30).rsqrt()
    k = torch.arange(config.first, config.bins.stop, device=X.device)
    steady = torch.polar(torch.ones_like(k, dtype=torch.float32), -2 * math.pi * config.hop_length / config.n_fft * k)
    ahead = F.pad(unit[:, 1:] * unit[:, :-1].conj(), (0, 0, 0, 1)) * steady
    above = -F.pad(unit[..., 1:] * unit[..., :-1].conj(), (0, 1))
    off = given * unit.conj() * (has + 1e-30).rsqrt()
    levels = (size / 4 + 1, (torch.log10(has + FLOOR) - size).clamp(-2, 2), (torch.log10(had + FLOOR) - size).clamp(-4, 4) / 2)
    return torch.stack([*levels, *(part for turn in (off, ahead, above) for part in (turn.real, turn.imag))], dim=1)


def _power(S: Tensor) -> Tensor:
    return S.real.square() + S.imag.square()


class PolishedVocoder(Vocoder):
    """A vocoder whose frames are polished once the rounds are done. Local as the other is, with more context.

    Parameters
    ----------
    polish : Polish
    features, **settings
        As of `Vocoder`, but for the rounds, which are those that the network was trained after.
    """

    def __init__(self, polish: Polish, features: LogFrequency | None = None, **settings: Any) -> None:
        super().__init__(features, iterations=polish.config.rounds, **settings)
        self.polish = polish

    @property
    def context_frames(self) -> int:
        """As of `Vocoder`; half a window more to see what the frames give, and the network's own."""
        half_window = self.features.config.n_fft_low // 2 // self.features.config.hop_length
        return super().context_frames + half_window + self.polish.context_frames

    def _invert(
        self, band: _Band, target: Tensor, M: Tensor, sides: Sequence[Tensor], song: Analysis, *, samples: int, strength: float
    ) -> Tensor:
        grid = _OverlapAdd(band.n_fft, band.hop_length, samples, target.shape[0], like=target)
        found, given = arrived(self, band, target, M, grid, strength=strength, first_frame=song.first_frame)
        X = self._polished(band, found, given, M.mT, grid, strength=strength)
        return band.waveforms(X, M.mT, [D.mT for D in sides], grid, strength=strength)

    def _polished(self, band: _Band, X: Tensor, given: Tensor, M: Tensor, grid: _OverlapAdd, *, strength: float) -> Tensor:
        turn, reach = self.polish.low if band is self.low else self.polish.high, self.polish.context_frames
        parts = []
        for block in grid.blocks():
            near = slice(max(block.start - reach, 0), block.stop + reach)
            part = turn(X[None, near], given[None, near], M[None, near], strength=strength)[0]
            parts.append(part[block.start - near.start :][: block.stop - block.start])
        return torch.cat(parts)


def arrived(
    vocoder: Vocoder, band: _Band, target: Tensor, M: Tensor, grid: _OverlapAdd, *, strength: float, first_frame: int
) -> tuple[Tensor, Tensor]:
    """The frames that the rounds arrive at in one band, and those that their waveform has, (T, bins) each."""
    start = band.start(M.mT, target, method=vocoder.method, strength=strength, first_frame=first_frame)
    found = _iterate(start, target, grid, iterations=vocoder.iterations, momentum=vocoder.momentum)
    rows = grid.waveform(found)
    return torch.cat(found), torch.cat([grid.frames(rows, block) for block in grid.blocks()])


@torch.no_grad()
def both_arrived(vocoder: Vocoder, x_hat: Tensor, song: Analysis) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`arrived` of both bands, as `Vocoder.synthesise` has them on its way: what a polish learns from."""
    powers = vocoder.features.powers(x_hat, song.low.abs(), song.high.abs(), iterations=vocoder.solver_iterations)
    n = song.y.shape[-1]
    lengths = (-(-n // vocoder.features.config.decimation), n)
    found = []
    for band, P, M, samples in zip((vocoder.low, vocoder.high), powers, (song.low, song.high), lengths, strict=True):
        grid = _OverlapAdd(band.n_fft, band.hop_length, samples, P.shape[-1], like=P)
        found.append(arrived(vocoder, band, P.mT.sqrt(), M, grid, strength=1.0, first_frame=song.first_frame))
    return found[0], found[1]


def load_polish(path: str | Path) -> Polish:
    """The network of a file.

    Raises
    ------
    ValueError
        If it is no such file, or damaged.
    """
    data = load_style_file(path)
    return network_of_kind(
        data, "polish", lambda **settings: Polish(PolishConfig(**settings)), str(path), remedy="tools/make_vocoder.py makes one"
    )
