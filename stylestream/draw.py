"""The DRAW VAE: frames of a song → latents → a canvas painted in K steps, in one of several styles.

Letters as in Gregor et al. 2015 [1]_ and, for the convolutional kind with a learned prior, Gregor et al. 2016 [2]_: at step k

    r_k      = read(view, canvas c_{k-1}, h_dec_{k-1})
    h_enc_k  = LSTM_enc(h_enc_{k-1}, [r_k, h_dec_{k-1}])
    z_k      ~ q(z_k | h_enc_k)                  the song's latents; prior p(z_k | h_dec_{k-1}): the style's habits
    h_dec_k  = LSTM_dec(h_dec_{k-1}, z_k, style, beat phase)
    c_k      = c_{k-1} + write(h_dec_k, style)   c_0 is the style's mean spectrum

The loss is the Laplace cost of the last canvas plus β Σ_k KL(q_k ‖ p_k). The encoder sees a *style-neutral view* of the target
(``views.py``), so that the style has nowhere to live but in the decoder. A texture stage, trained on the detached last canvas,
puts back what an L1 loss smooths away; it is drawn from its own learned prior at transfer. A post-net, trained when all else is,
goes over the painted canvas bin by bin: patches are as fine as a painter's brush, and partials are finer.

Shapes: frames, view and canvas (B, F, T), T last; hidden maps (B, C, H, W), one cell for 6 bins × 4 frames; K steps.

References
----------
.. [1] K. Gregor, I. Danihelka, A. Graves, D. J. Rezende, D. Wierstra, "DRAW: A Recurrent Neural Network For Image Generation",
   arXiv 1502.04623.
.. [2] K. Gregor, F. Besse, D. J. Rezende, I. Danihelka, D. Wierstra, "Towards Conceptual Compression", arXiv 1604.08772.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream.views import RANGE_DB, envelope

Gates = tuple[Tensor, ...]  # input, forget, output, candidate: each (B, C, H, W)
Gaussian = tuple[Tensor, Tensor]  # mean and log standard deviation, (B, Z, H, W)
StyleVector = tuple[Tensor, Tensor]  # embedding (B, style_dim) and first canvas (B, F)
Choose = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor | None]]  # (step, h_enc, h_dec) → latents and, if asked for, their KL (B,)


@dataclass(frozen=True)
class DrawConfig:
    """Size and kind of the network. Multiply-adds are counted by ``Draw.gflop_per_second``."""

    n_bins: int = 324
    styles: int = 1  # rows of the style embedding
    clip_channels: int = 0  # of the style encoder, which hears a style in a clip; 0: none, as in a file of one style
    steps: int = 8  # K: with 4, all content sits in the first step and the dream dial is dead
    latents: int = 4  # Z per cell and step
    patch_bins: int = 6
    patch_frames: int = 4
    view_channels: int = 96  # read once, so it may be wide
    view_blocks: int = 4
    canvas_channels: int = 16  # read at every step
    encoder_channels: int = 32
    decoder_channels: int = 48
    style_dim: int = 32
    mix_groups: int = 8  # dense mixing along frequency: harmonics are far apart, 3x3 kernels are not
    attention: str = "conv"  # or "gaussian": the paper's N×N Gaussian filters
    glimpse: int = 12  # N of the Gaussian attention
    window_frames: int = 32  # what one Gaussian canvas spans
    texture_channels: int = 48  # 0: no texture stage
    texture_blocks: int = 2
    texture_latents: int = 2
    postnet_channels: int = 0  # 0: no post-net
    scale_db: float = 3.2  # Laplace scale b of the canvas
    texture_scale_db: float = 1.2  # at 3.2 a texture of 2 dB is not worth its bits
    beta: float = 1.0
    range_db: float = 90.0  # dB in one unit of a frame
    grain_power: float = 2.0  # draws have grain to this power of the learned spread; chosen for each style
    partial_lift: float = 0.0  # how far a note that the canvas paints fainter than the song plays it is raised; chosen for each style
    phase_iterations: float = 2.0  # of fast Griffin–Lim at transfer; 0 keeps the song's phase and its attacks, for styles of steady tones

    def __post_init__(self) -> None:
        if self.attention not in ("conv", "gaussian"):
            raise ValueError(f"unknown attention {self.attention!r}; known: conv, gaussian")
        if self.n_bins % self.patch_bins:
            raise ValueError(f"n_bins {self.n_bins} is not a multiple of patch_bins {self.patch_bins}")
        for name in ("patch_bins", "patch_frames"):
            if getattr(self, name) % 2:  # patches overlap by half
                raise ValueError(f"{name} {getattr(self, name)} is odd; patches overlap by half, so it must be even")
        if self.window_frames % Texture.PATCH_FRAMES:
            raise ValueError(f"window_frames {self.window_frames} is odd; it must be a multiple of {Texture.PATCH_FRAMES}")

    @property
    def grid_frames(self) -> int:
        """Frames in one cell: chunks of a song must start on a multiple of it."""
        return self.patch_frames if self.attention == "conv" else self.window_frames


def lift_partials(canvas: Tensor, song: Tensor, share: float, *, clear_db: float = 6.0) -> Tensor:
    """Raise the partials that stand out of the song further than out of the canvas, by a share of what is missing.

    An L1 loss lets the weak inner notes of a chord go. What stands out is counted from the mean over an octave, and the canvas keeps its
    own such mean: its timbre. Above some 2 kHz lie overtones, which are the style's affair.

    Parameters
    ----------
    canvas, song : Tensor [shape=(B, F, T)]
        Frames of 36 rows an octave from C1.
    share : float in [0, 1]
        0 gives the canvas back.
    clear_db : float [dB]
        What stands out of the song by less is no partial.

    Examples
    --------
    A note that the canvas lacks:

    >>> song, canvas = torch.full((1, 324, 1), 0.2), torch.full((1, 324, 1), 0.5)
    >>> song[0, 100] = 0.6
    >>> (lift_partials(canvas, song, 0.5) - canvas)[0, 100].item() > 0.15
    True
    """
    heard = song - envelope(song)
    missing = (heard - (canvas - envelope(canvas))).clamp(min=0) * (heard > clear_db / RANGE_DB)
    octave = torch.arange(canvas.shape[1], device=canvas.device)[:, None] / 36  # above C1
    lift = share * missing * (6.5 - octave).clamp(0, 1)  # all below 1.5 kHz, none above 3 kHz
    return canvas + lift - envelope(lift)


def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q ‖ p) of diagonal Gaussians given as (mean, log standard deviation), nats, element by element.

    >>> zero = torch.zeros(1)
    >>> gaussian_kl((zero + 1, zero), (zero, zero)).item()  # one standard deviation apart: half a nat
    0.5
    """
    variance_ratio = torch.exp(2 * (q[1] - p[1]))
    return 0.5 * (variance_ratio + (q[0] - p[0]).square() * torch.exp(-2 * p[1]) - 1) - (q[1] - p[1])


def cell_noise(shape: tuple[int, int, int, int], *, seed: int, step: int, first_cell: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise that is a function of (seed, step, absolute cell) alone, so that chunks of a song draw what the whole draws.

    Parameters
    ----------
    shape : (B, Z, H, W)
        Column w is absolute column ``first_cell + w``; every batch row draws the same.

    Notes
    -----
    The counter is mixed by SplitMix64 (Steele et al., OOPSLA 2014), then Box–Muller.
    """
    batch, channels, rows, columns = shape
    wanted, device = device, noise_device(device)
    column = torch.arange(first_cell, first_cell + columns, device=device, dtype=torch.int64)
    row = torch.arange(channels * rows, device=device, dtype=torch.int64)[:, None]
    key = _mix64(torch.tensor((int(seed) * 1_000_003 + step) & (2**62 - 1), device=device, dtype=torch.int64))
    counter = _mix64(_mix64(column + key) + row)
    u1, u2 = _uniform(_mix64(counter)), _uniform(_mix64(counter ^ 0x5555_5555_5555))
    normal = torch.sqrt(-2 * torch.log(u1)) * torch.cos(2 * math.pi * u2)
    return normal.float().to(wanted).reshape(1, channels, rows, columns).expand(batch, -1, -1, -1)


def noise_device(device: torch.device | str) -> torch.device:
    """Where the noise of a device is computed: MPS has no float64, and in float32 a seed would mean something else there."""
    return torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)


def _mix64(n: Tensor) -> Tensor:
    n = n + (-7046029254386353131)  # 0x9E3779B97F4A7C15 as a signed number; products wrap, as they should
    n = (n ^ ((n >> 30) & 0x3_FFFF_FFFF)) * (-4658895280553007687)
    n = (n ^ ((n >> 27) & 0x1F_FFFF_FFFF)) * (-7723592293110705685)
    return n ^ ((n >> 31) & 0x1_FFFF_FFFF)


def _uniform(n: Tensor) -> Tensor:
    return (((n >> 11) & 0x1F_FFFF_FFFF_FFFF).double() + 0.5) / 2**53  # in (0, 1): never 0, its log is taken


class RowMix(nn.Module):
    """Dense mixing along frequency, channels in groups: (B, C, H, W) → the same, added to its input."""

    def __init__(self, rows: int, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = math.gcd(groups, channels)
        self.weight = nn.Parameter(torch.randn(self.groups, rows, rows) * (0.1 / math.sqrt(rows)))

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        B, C, H, W = h.shape
        grouped = h.permute(0, 3, 2, 1).reshape(B * W, H, self.groups, C // self.groups)  # channels stay last
        mixed = torch.einsum("gij,njgc->nigc", self.weight.to(h.dtype), grouped)
        return h + mixed.reshape(B, W, H, C).permute(0, 3, 2, 1)


class Residual(nn.Module):
    """Two 3×3 convolutions around an identity; ``dilation`` stretches the first along frequency (6 cells are an octave)."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=(dilation, 1), dilation=(dilation, 1))
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=0.1 / math.sqrt(9 * channels))  # starts near the identity: depth costs nothing early

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return h + self.second(F.gelu(self.first(F.gelu(h))))


class PatchRead(nn.Conv2d):
    """Overlapping patches, twice the patch wide and one patch apart: frames (B, 1, F, T) → cells (B, channels, F/p, T/q).

    Overlap instead of tiles: tiles leave a ripple at the patch rate (21.5 Hz) that is heard and that gamed our roughness ratio. Computed
    from the pixels of half-shifted tiles as channels: a GPU takes several times longer for convolutions of a single one.
    """

    def __init__(self, channels: int, patch: tuple[int, int]) -> None:
        p, q = patch
        super().__init__(1, channels, (2 * p, 2 * q), stride=(p, q), padding=(p // 2, q // 2))

    def forward(self, input: Tensor) -> Tensor:
        """Frames (B, 1, F, T) → (B, channels, F/p, T/q)."""
        (p, q), C = self.stride, self.out_channels
        B, _, rows, T = input.shape
        H, W = rows // p + 1, T // q + 1
        after = (H * p - rows - p // 2, W * q - T - q // 2)  # less than none where part of a patch is left over
        tiles = F.pad(input[:, 0], (q // 2, after[1], p // 2, after[0])).reshape(B, H, p, W, q)
        pixels = tiles.permute(0, 2, 4, 1, 3).reshape(B, p * q, H, W).contiguous(memory_format=torch.channels_last)
        weight = self.weight.reshape(C, 2, p, 2, q).permute(0, 2, 4, 1, 3).reshape(C, p * q, 2, 2)
        return F.conv2d(pixels, weight, self.bias)


class PatchWrite(nn.ConvTranspose2d):
    """The transpose of ``PatchRead``: cells (B, C, F/p, T/q) → frames (B, 1, F, T), overlapping and added, float32.

    Starts small: a canvas begins as the mean spectrum. Computed as a matrix product and four shifted sums: with a single output channel
    the transposed convolutions of CPU libraries are several times slower.
    """

    def __init__(self, channels: int, patch: tuple[int, int]) -> None:
        p, q = patch
        super().__init__(channels, 1, (2 * p, 2 * q), stride=(p, q), padding=(p // 2, q // 2))
        nn.init.normal_(self.weight, std=0.02 / math.sqrt(channels))
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Cells (B, C, H, W) → frames (B, 1, p H, q W)."""
        B, C, H, W = input.shape
        p, q = self.stride
        patches = (self.weight.reshape(C, -1).T @ input.flatten(2)).reshape(B, 2, p, 2, q, H, W)  # a patch is 2 × 2 quarters of p × q
        added = patches.new_zeros(B, p, q, H + 1, W + 1, dtype=torch.float32)
        for i in (0, 1):
            for j in (0, 1):
                added[..., i : i + H, j : j + W] += patches[:, i, :, j]
        frames = added.permute(0, 3, 1, 4, 2).reshape(B, 1, (H + 1) * p, (W + 1) * q)
        assert self.bias is not None
        return frames[..., p // 2 : p // 2 + H * p, q // 2 : q // 2 + W * q] + self.bias


class ConvRead(nn.Module):
    """Convolutional read: the view once through a residual trunk, the canvas at every step through one overlapping convolution."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        rows, C = config.n_bins // config.patch_bins, config.view_channels
        patch = (config.patch_bins, config.patch_frames)
        self.view = PatchRead(C, patch)
        self.row = nn.Parameter(torch.zeros(C, rows, 1))  # where on the pitch axis a cell lies
        self.phase = nn.Conv1d(4, C, config.patch_frames, stride=config.patch_frames)
        self.blocks = nn.Sequential(*(Residual(C, dilation=(1, 6, 3)[i % 3]) for i in range(config.view_blocks)))
        self.mix = RowMix(rows, C, config.mix_groups)
        self.canvas = PatchRead(config.canvas_channels, patch)
        self.channels, self.grid = config.canvas_channels, (rows, config.patch_frames)
        self.static = nn.Conv2d(C, 4 * config.encoder_channels, 3, padding=1)  # the view's share of the gates, the same at every step

    def prepare(self, view: Tensor, phase: Tensor) -> Tensor:
        """What a song contributes to the encoder's gates at every step: (B, F, T), (B, 4, T) → (B, 4 C_enc, H, W)."""
        h = self.view(view[:, None])
        h = h + self.row.to(h.dtype) + self.phase(phase)[:, :, None]
        return self.static(F.gelu(self.mix(self.blocks(h))))

    def forward(self, view: Tensor, canvas: Tensor, h_dec: Tensor) -> Tensor:
        """Cells of the canvas, (B, canvas_channels, H, W)."""
        return self.canvas(canvas[:, None].to(view.dtype))


class ConvWrite(nn.Module):
    """Convolutional write: the decoder's map mixed along frequency, then overlapping patches added to the canvas."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.mix = RowMix(config.n_bins // config.patch_bins, config.decoder_channels, config.mix_groups)
        self.write = PatchWrite(config.decoder_channels, (config.patch_bins, config.patch_frames))

    def forward(self, h_dec: Tensor, film: Tensor) -> Tensor:
        """What a step adds to the canvas, (B, F, T)."""
        return self.write(self.mix(h_dec * film))[:, 0]


def gaussian_filters(center: Tensor, stride: Tensor, sigma: Tensor, *, glimpse: int, size: int) -> Tensor:
    """Filterbank matrix of the paper's equations 25 and 26: N Gaussians on a line of ``size`` points, each row summing to 1.

    Parameters
    ----------
    center, stride, sigma : Tensor [shape=(B,)]
        g, δ and σ in points; the i-th mean is ``g + (i − N/2 + 0.5) δ`` (equations 19 and 20, counted from 0).

    Returns
    -------
    Tensor [shape=(B, glimpse, size)]
    """
    i = torch.arange(glimpse, device=center.device, dtype=center.dtype)
    mean = center[:, None] + (i - glimpse / 2 + 0.5) * stride[:, None]
    point = torch.arange(size, device=center.device, dtype=center.dtype)
    weight = torch.exp(-(point - mean[..., None]).square() / (2 * sigma[:, None, None].square()))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-8)


class GaussianAttention(nn.Module):
    """The paper's attention: five numbers of h_dec place an N×N grid of Gaussian filters on the window (equations 21 to 29).

    The paper's pixels are square; a bin and a frame have no common unit. δ and σ are therefore measured along the longer side, and shrunk
    along the shorter one as the window is: the grid covers both sides alike. On a square window this is the paper to the letter.
    """

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.bins, self.frames, self.glimpse = config.n_bins, config.window_frames, config.glimpse
        self.longest = max(self.frames, self.bins) - 1
        self.place = nn.Linear(config.decoder_channels, 5)
        nn.init.normal_(self.place.weight, std=0.01)
        nn.init.zeros_(self.place.bias)  # the grid begins as wide as the window,
        with torch.no_grad():
            self.place.bias[2] = 2 * math.log(self.longest / (self.glimpse - 1) / 2)  # and its filters, δ/2 wide, leave no gaps

    def filters(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, C) → F_Y (n, N, F), F_X (n, N, T) and intensity γ (n, 1, 1)."""
        g_x, g_y, log_variance, log_stride, log_gamma = self.place(h).float().unbind(-1)
        center_x, center_y = (self.frames + 1) / 2 * (g_x + 1) - 1, (self.bins + 1) / 2 * (g_y + 1) - 1  # equations 22, 23, from 0
        stride = self.longest / (self.glimpse - 1) * torch.exp(log_stride)  # equation 24
        sigma = torch.exp(0.5 * log_variance)

        def along(center: Tensor, size: int) -> Tensor:
            shrink = (size - 1) / self.longest
            # a filter narrower than a tenth of a point falls between the points, and its gradient with it
            return gaussian_filters(center, shrink * stride, (shrink * sigma).clamp(min=0.1), glimpse=self.glimpse, size=size)

        return along(center_y, self.bins), along(center_x, self.frames), torch.exp(log_gamma)[:, None, None]

    def read(self, image: Tensor, h: Tensor) -> Tensor:
        """γ F_Y x F_Xᵀ: (n, F, T), (n, C) → (n, N, N)."""
        F_y, F_x, gamma = self.filters(h)
        return gamma * (F_y @ image.float() @ F_x.mT)

    def write(self, patch: Tensor, h: Tensor) -> Tensor:
        """γ⁻¹ F_Yᵀ w F_X: (n, N, N), (n, C) → (n, F, T)."""
        F_y, F_x, gamma = self.filters(h)
        return (F_y.mT @ patch.float() @ F_x) / gamma


def to_windows(x: Tensor, frames: int) -> Tensor:
    """(B, F, T) → (B · T/frames, F, frames): the songs' windows, each a picture of its own."""
    B, rows, T = x.shape
    return x.reshape(B, rows, T // frames, frames).transpose(1, 2).reshape(-1, rows, frames)


def from_windows(x: Tensor, batch: int) -> Tensor:
    """The inverse of ``to_windows``."""
    return x.reshape(batch, -1, *x.shape[1:]).transpose(1, 2).reshape(batch, x.shape[1], -1)


def map_to_vectors(h: Tensor) -> Tensor:
    """(B, C, 1, W) → (B · W, C)."""
    return h[:, :, 0].transpose(1, 2).reshape(-1, h.shape[1])


class GaussianRead(nn.Module):
    """Glimpses of the view and of what the canvas still lacks, read where h_dec looks: (equation 27)."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.attention = GaussianAttention(config)
        self.channels, self.grid = 2 * config.glimpse**2, (1, config.window_frames)
        self.phase = nn.Conv1d(4, 4 * config.encoder_channels, config.window_frames, stride=config.window_frames)

    def prepare(self, view: Tensor, phase: Tensor) -> Tensor:
        """What is the same at every step: the beat phase, (B, 4 C_enc, 1, W)."""
        return self.phase(phase)[:, :, None]

    def forward(self, view: Tensor, canvas: Tensor, h_dec: Tensor) -> Tensor:
        """Glimpses of both pictures, (B, 2 N², 1, W)."""
        h, T = map_to_vectors(h_dec), self.grid[1]
        both = [self.attention.read(to_windows(image, T), h) for image in (view, view - canvas)]
        glimpses = torch.cat([g.flatten(1) for g in both], 1)  # (B · W, 2 N²)
        return glimpses.reshape(view.shape[0], -1, self.channels).transpose(1, 2)[:, :, None]


class GaussianWrite(nn.Module):
    """An N×N patch written where h_dec looks (equation 29)."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.attention = GaussianAttention(config)
        self.patch = nn.Linear(config.decoder_channels, config.glimpse**2)

    def forward(self, h_dec: Tensor, film: Tensor) -> Tensor:
        """What a step adds to the canvas, (B, F, T)."""
        h, N = map_to_vectors(h_dec * film), self.attention.glimpse
        return from_windows(self.attention.write(self.patch(h).reshape(-1, N, N), h), h_dec.shape[0])


class GateConv(nn.Conv2d):
    """The four gates of a convolutional LSTM: (B, C_in, H, W) → 4 maps (B, C, H, W), to which their constant shares are added."""

    def forward(self, h: Tensor, shares: Gates) -> Gates:  # type: ignore[override]
        """Gates of the joined inputs, each (B, C, H, W)."""
        if torch.is_grad_enabled():
            return tuple(gate + share for gate, share in zip(super().forward(h).chunk(4, 1), shares, strict=True))
        # one by one: in memory of their own, channels last, the arithmetic of the LSTM is three times as fast as in slices of one map
        assert self.bias is not None
        assert isinstance(self.padding, tuple)
        weights = zip(self.weight.chunk(4), self.bias.chunk(4), shares, strict=True)
        return tuple(F.conv2d(h, weight, bias, padding=self.padding).add_(share) for weight, bias, share in weights)


def gate_shares(h: Tensor) -> Gates:
    """What is added to the gates at every step, (B, 4C, H, W) → 4 maps, each in memory of its own; the forget gate starts open (+1)."""
    i, f, o, g = (share.contiguous(memory_format=torch.channels_last) for share in h.chunk(4, 1))
    return i, f + 1, o, g


def lstm_cell(gates: Gates, c: Tensor) -> tuple[Tensor, Tensor]:
    """LSTM update from gates and cell (B, C, H, W) → (h, c)."""
    i, f, o, g = gates
    c = torch.addcmul(torch.sigmoid(i) * torch.tanh(g), torch.sigmoid(f), c)
    return torch.sigmoid(o) * torch.tanh(c), c


class Texture(nn.Module):
    """What the canvas smooths away, as latents with a learned prior: ConvDRAW with one step on finer cells (6 bins × 2 frames).

    Trained on the detached canvas with a posterior that sees the target; at transfer z comes from the prior, its spread
    multiplied by the grain to the style's power.
    """

    PATCH_FRAMES = 2

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        C, Z = config.texture_channels, config.texture_latents
        rows, patch = config.n_bins // config.patch_bins, (config.patch_bins, self.PATCH_FRAMES)
        self.canvas = PatchRead(C, patch)
        self.row = nn.Parameter(torch.zeros(C, rows, 1))
        self.style = nn.Linear(config.style_dim, C)
        self.blocks = nn.Sequential(*(Residual(C, dilation=(1, 6)[i % 2]) for i in range(config.texture_blocks)))
        self.target = PatchRead(C, patch)
        self.q = nn.Sequential(nn.Conv2d(2 * C, C, 3, padding=1), nn.GELU(), nn.Conv2d(C, 2 * Z, 1))
        self.p = nn.Conv2d(C, 2 * Z, 1)
        self.latent = nn.Conv2d(Z, C, 3, padding=1)
        self.block = Residual(C)
        self.write = PatchWrite(C, patch)

    def context(self, canvas: Tensor, style: Tensor) -> Tensor:
        """(B, F, T), (B, style_dim) → (B, C, H, 2 W)."""
        h = self.canvas(canvas[:, None])
        return self.blocks(h + (self.row + self.style(style)[:, :, None, None]).to(h.dtype))

    def prior(self, h: Tensor) -> Gaussian:
        """p(z | canvas, style)."""
        return split_gaussian(self.p(h))

    def posterior(self, h: Tensor, residual: Tensor) -> Gaussian:
        """q(z | canvas, style, what the canvas lacks): training only."""
        return split_gaussian(self.q(torch.cat([h, self.target(residual[:, None])], 1)))

    def decode(self, h: Tensor, z: Tensor) -> Tensor:
        """What is added to the canvas, (B, F, T)."""
        return self.write(F.gelu(self.block(h + self.latent(z))))[:, 0]


class PostNet(nn.Module):
    """Canvas → canvas at the resolution of its pixels: haze between partials taken away, partials drawn through.

    It sees the canvas and not the song, so that there is no way around the latents.
    """

    DILATIONS = (1, 12, 3, 36)  # along frequency: neighbours, a third, a semitone, an octave

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        C = config.postnet_channels
        self.first = nn.Conv2d(1, C, 5, padding=2)
        self.row = nn.Parameter(torch.zeros(C, config.n_bins, 1))
        self.wide = nn.ModuleList(nn.Conv2d(C, C, 3, padding=(d, 1), dilation=(d, 1)) for d in self.DILATIONS)
        self.joint = nn.ModuleList(nn.Conv2d(C, C, 1) for _ in self.DILATIONS)
        self.last = nn.Conv2d(C, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # starts as the identity
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    @property
    def context_frames(self) -> int:
        """Frames each side that an output frame depends on."""
        return 2 + len(self.DILATIONS) + 1

    def forward(self, canvas: Tensor) -> Tensor:
        """What is added to a canvas (B, F, T), the same shape, float32."""
        h = self.first(canvas[:, None].to(self.row.dtype)) + self.row
        for wide, joint in zip(self.wide, self.joint, strict=True):
            h = h + joint(F.gelu(wide(F.gelu(h))))
        return 0.1 * self.last(F.gelu(h))[:, 0].float()


def split_gaussian(h: Tensor) -> Gaussian:
    """Channels (B, 2 Z, H, W) → mean and log standard deviation, float32."""
    mean, log_sigma = h.float().chunk(2, 1)
    return mean, log_sigma.clamp(-6, 3)  # beyond e^±6 the KL overflows half precision and means nothing


class StyleEncoder(nn.Module):
    """Frames of a clip → where its sound lies among the styles: what lasts of it, whatever is played."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        C, rows = config.clip_channels, config.n_bins // config.patch_bins
        self.patches = PatchRead(C, (config.patch_bins, config.patch_frames))
        self.row = nn.Parameter(torch.zeros(C, rows, 1))
        self.blocks = nn.Sequential(*(Residual(C, dilation) for dilation in (1, 6, 3)))
        self.pooled = nn.Sequential(nn.Linear(2 * C * rows, 4 * C), nn.GELU(), nn.Linear(4 * C, config.style_dim))

    def forward(self, clip: Tensor) -> Tensor:
        """(B, F, T) → embedding (B, style_dim)."""
        h = self.blocks(self.patches(clip[:, None]) + self.row).float()
        lasting = torch.cat([h.mean(-1), (h.var(-1, correction=0) + 1e-5).sqrt()], 1)  # (B, 2 C, H)
        return self.pooled(lasting.flatten(1))


class Draw(nn.Module):
    """The recurrent VAE. ``forward`` trains, ``transfer`` paints."""

    mean_frames: Tensor

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.config = config
        self.noise: Callable[[Tensor], Tensor] = torch.randn_like  # of training; processes that train as one draw each its rows of it
        E, D, S = config.encoder_channels, config.decoder_channels, config.style_dim
        conv = config.attention == "conv"
        self.read: ConvRead | GaussianRead = ConvRead(config) if conv else GaussianRead(config)
        self.write: ConvWrite | GaussianWrite = ConvWrite(config) if conv else GaussianWrite(config)
        rows = self.read.grid[0]
        kernel, padding = ((3, 3), (1, 1)) if conv else ((1, 3), (0, 1))
        self.encoder = GateConv(self.read.channels + E + D, 4 * E, kernel, padding=padding)
        self.decoder = GateConv(config.latents + D, 4 * D, kernel, padding=padding)
        self.q = nn.Conv2d(E, 2 * config.latents, 1)
        self.p = nn.Conv2d(D, 2 * config.latents, 1)
        self.phase = nn.Conv1d(4, 4 * D, config.grid_frames, stride=config.grid_frames)
        self.style = nn.Parameter(torch.randn(config.styles, S))
        self.register_buffer("mean_frames", torch.full((config.styles, config.n_bins), 0.3))  # c_0: the mean spectrum of the style's songs
        self.style_gates = nn.Linear(S, 4 * D)
        self.style_film = nn.Linear(S, D)
        self.start = nn.Parameter(torch.zeros(D, rows, 1))
        self.style_start = nn.Linear(S, D)
        self.texture = Texture(config) if config.texture_channels else None
        self.clip = StyleEncoder(config) if config.clip_channels else None
        self.postnet = PostNet(config) if config.postnet_channels else None

    # -- sizes ------------------------------------------------------------------------------------------------------

    @property
    def context_frames(self) -> int:
        """Frames each side that an output frame depends on: the overlap with which chunks equal the whole, a multiple of the grid."""
        c = self.config
        after = math.ceil(self.postnet.context_frames / c.grid_frames) if self.postnet else 0
        if c.attention == "gaussian":
            return c.window_frames * (2 * c.steps + 1 + (self.texture is not None) + after)
        trunk = 1 + 2 * c.view_blocks + 1  # patch, blocks, static gates
        steps = 4 * c.steps  # canvas read, encoder, decoder, write: a cell each
        texture = math.ceil((2 * c.texture_blocks + 5) * Texture.PATCH_FRAMES / c.patch_frames) if self.texture else 0
        return c.patch_frames * (trunk + steps + texture + after)

    def gflop_per_second(self, frames_per_second: float = 44100 / 512) -> float:
        """Forward cost of one second of audio, 2 operations per multiply-add, counted by torch on a 128-frame transfer."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.transfer(torch.zeros(1, self.config.n_bins, 128))
        return counter.get_total_flops() / 1e9 * frames_per_second / 128

    # -- the recurrence ---------------------------------------------------------------------------------------------

    def style_vector(self, style: Tensor | StyleVector) -> StyleVector:
        """Style ids (B,) or blends (B, styles) → embedding (B, style_dim) and first canvas (B, F); what is one already stays."""
        if isinstance(style, tuple):
            return style
        weights = F.one_hot(style, self.config.styles).float() if style.dim() == 1 else style
        return weights.to(self.style.dtype) @ self.style, weights.to(self.mean_frames.dtype) @ self.mean_frames

    def clip_vector(self, clip: Tensor) -> StyleVector:
        """What the style encoder hears in a clip (B, F, T), frames at the working loudness.

        Raises
        ------
        ValueError
            If the network has no style encoder.
        """
        if self.clip is None:
            raise ValueError("this network has no style encoder; use the base's")
        return self.clip(clip), envelope(clip.mean(-1, keepdim=True))[..., 0]  # smoothed: which notes a clip plays is not its sound

    def paint(
        self, view: Tensor, style: Tensor | StyleVector, phase: Tensor, choose: Choose, *, keep: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The K steps: view (B, F, T), style (B,), (B, styles) or a vector, phase (B, 4, T) → last canvas (B, F, T), KL of every step.

        ``choose`` makes z_k of h_enc and h_dec, and says what it costs if that is wanted. Canvases go into ``keep`` when one wants to
        watch. T is a multiple of the grid.
        """
        embedding, mean = self.style_vector(style)
        static = gate_shares(self.read.prepare(view, phase))
        film = 1 + self.style_film(embedding)[:, :, None, None]
        shape = (view.shape[0], self.config.decoder_channels, *static[0].shape[2:])
        h_dec = (self.start + self.style_start(embedding)[:, :, None, None]).to(static[0].dtype).expand(shape)
        h_dec = h_dec.contiguous(memory_format=torch.channels_last)
        always = gate_shares((self.phase(phase) + self.style_gates(embedding)[:, :, None])[:, :, None].expand(-1, -1, shape[2], -1))
        c_dec = torch.zeros_like(h_dec)
        h_enc = c_enc = torch.zeros_like(static[0])
        canvas = mean[:, :, None].expand_as(view).float()
        kl = []
        for k in range(self.config.steps):
            r = self.read(view, canvas, h_dec)
            h_enc, c_enc = lstm_cell(self.encoder(torch.cat([r.to(h_dec.dtype), h_enc, h_dec], 1), static), c_enc)
            z, cost = choose(k, h_enc, h_dec)
            kl += [] if cost is None else [cost]
            h_dec, c_dec = lstm_cell(self.decoder(torch.cat([z.to(h_dec.dtype), h_dec], 1), always), c_dec)
            canvas = canvas + self.write(h_dec, film).float()
            if keep is not None:
                keep.append(canvas)
        return canvas, kl

    def posterior(self, h_enc: Tensor) -> Gaussian:
        """q(z_k | h_enc_k)."""
        return split_gaussian(self.q(h_enc))

    def prior(self, h_dec: Tensor) -> Gaussian:
        """p(z_k | h_dec_{k−1})."""
        return split_gaussian(self.p(h_dec))

    # -- training ---------------------------------------------------------------------------------------------------

    def forward(
        self, view: Tensor, target: Tensor, style: Tensor | StyleVector, phase: Tensor, *, texture: bool = True, beta: float = 1.0
    ) -> dict[str, Tensor]:
        """Losses of a batch, in units per frame pixel.

        Parameters
        ----------
        view, target : Tensor [shape=(B, F, T)]
            Style-neutral view and what to paint; T a multiple of the grid.
        style : Tensor [shape=(B,), int64] or style vector
        phase : Tensor [shape=(B, 4, T)]
            Beat and bar phase, zeros where unknown.

        Returns
        -------
        dict of Tensor
            ``"loss/total"`` (nats per pixel), ``"loss/l1_db"``, ``"loss/kl"`` (nats per cell), ``"loss/kl_steps"`` (K,), ``"canvas"`` and,
            with a texture stage, ``"loss/texture_db"``, ``"loss/texture_kl"``.
        """
        c = self.config
        canvas, kl = self.paint(view, style, phase, self._sampled)
        error_db = (canvas - target).abs().mean() * c.range_db
        pixels = target[0].numel() * target.shape[0]
        kl_steps = torch.stack([step.sum() for step in kl])
        total = error_db / c.scale_db + beta * c.beta * kl_steps.sum() / pixels
        cells = pixels / (c.patch_bins * c.patch_frames)
        out = {"loss/l1_db": error_db, "loss/kl": kl_steps.sum() / cells, "loss/kl_steps": kl_steps / cells, "canvas": canvas}
        if self.texture is not None and texture:
            texture_out = self._texture_loss(canvas.detach(), target, style)
            out |= texture_out
            texture_kl = texture_out["loss/texture_kl"] / (c.patch_bins * Texture.PATCH_FRAMES)
            total = total + texture_out["loss/texture_db"] / c.texture_scale_db + beta * c.beta * texture_kl
        return out | {"loss/total": total}

    def _sampled(self, k: int, h_enc: Tensor, h_dec: Tensor) -> tuple[Tensor, Tensor]:
        q = self.posterior(h_enc)
        return sample(q, self.noise), gaussian_kl(q, self.prior(h_dec)).sum((1, 2, 3))

    def _texture_loss(self, canvas: Tensor, target: Tensor, style: Tensor | StyleVector) -> dict[str, Tensor]:
        assert self.texture is not None
        h = self.texture.context(canvas, self.style_vector(style)[0].detach())
        p, q = self.texture.prior(h), self.texture.posterior(h, target - canvas)
        kl = gaussian_kl(q, p)
        error_db = (canvas + self.texture.decode(h, sample(q, self.noise)) - target).abs().mean() * self.config.range_db
        return {"loss/texture_db": error_db, "loss/texture_kl": kl.sum(1).mean()}

    # -- transfer ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def transfer(
        self,
        view: Tensor,
        *,
        style: Tensor | StyleVector | int = 0,
        phase: Tensor | None = None,
        dream: float = 0.0,
        grain: float = 0.5,
        seed: int = 0,
        first_frame: int = 0,
        canvases: bool = False,
        replaced: Collection[int] = (),
    ) -> Tensor:
        """Frames of a song in a style.

        Parameters
        ----------
        view : Tensor [shape=(B, F, T)]
            Frames of the song; any T.
        style : int, Tensor [shape=(B,) or (B, styles)], or style vector (``clip_vector``)
        phase : Tensor [shape=(B, 4, T)], optional
            Beat and bar phase; unknown when not given.
        dream : float in [0, K]
            How many latents, counted from the last step, are the style's own instead of the song's.
        grain : float in [0, 1]
            How much of the learned spread is drawn from a prior, to the style's ``grain_power``: 0 is the smoothest, 1 what was learned.
        first_frame : int
            Absolute frame of column 0, a multiple of the grid: where chunks of a song lie.
        canvases : bool
            Return all K canvases (and the textured one), stacked in front: (K + 1, B, F, T).
        replaced : collection of int in [0, K)
            Steps whose latents are the style's own, wherever the dream is: what a step holds is what is lost with it.
        """
        if first_frame % self.config.grid_frames:
            raise ValueError(f"first_frame {first_frame} is not a multiple of {self.config.grid_frames}; let chunks start on the grid")
        B, _, T = view.shape
        song = view.float()
        style = torch.full((B,), style, device=view.device) if isinstance(style, int) else style
        phase = view.new_zeros(B, 4, T) if phase is None else phase
        pad = -T % self.config.grid_frames
        kept: list[Tensor] = []
        spread = grain**self.config.grain_power
        dtype = autocast_dtype(view.device.type)
        network = self._cast(dtype or self.style.dtype)
        view, phase = (F.pad(x, (0, pad)).to(network.style.dtype) for x in (view, phase))
        with torch.autocast(view.device.type, enabled=False) if dtype else nullcontext():
            choose = network._dreamer(dream, spread, seed, first_frame // self.config.grid_frames, replaced)
            canvas, _ = network.paint(view, style, phase, choose, keep=kept if canvases else None)
            canvas = network._finished(canvas, style, spread, seed, first_frame)[..., :T]
        # what the style dreams up need not be the song's notes
        if lift := self.config.partial_lift * (1 - min(dream / self.config.steps, 1.0)):
            canvas = lift_partials(canvas, song, lift)
        return torch.stack([*(c[..., :T] for c in kept), canvas]) if canvases else canvas

    def _cast(self, dtype: torch.dtype) -> Draw:
        """A copy to transfer with: weights are cast once, not by autocast at every step.

        Its weights lie channels last, and so does all that is computed with them: oneDNN is up to twice as fast there.
        """
        network = copy.deepcopy(self)
        for parameter in network.parameters():
            parameter.data = parameter.data.to(dtype)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _finished(self, canvas: Tensor, style: Tensor | StyleVector, spread: float, seed: int, first_frame: int) -> Tensor:
        """Texture and post-net. What a draw adds to the mean texture is added last: the post-net would take it for haze."""
        drawn = mean = canvas.new_zeros(())
        if self.texture is not None:
            h = self.texture.context(canvas.to(self.style.dtype), self.style_vector(style)[0])
            prior = self.texture.prior(h)
            z = _draw(prior, spread, seed=seed, step=self.config.steps, first_cell=first_frame // Texture.PATCH_FRAMES)
            drawn = self.texture.decode(h, z.to(h.dtype)).float()
            mean = self.texture.decode(h, prior[0].to(h.dtype)).float() if self.postnet is not None and spread else drawn
        if self.postnet is None:
            return canvas + drawn
        smooth = canvas + mean
        return smooth + self.postnet(smooth) + (drawn - mean)

    def _dreamer(self, dream: float, spread: float, seed: int, first_cell: int, replaced: Collection[int]) -> Choose:
        """The song's latents, the last ``dream`` of them replaced by the style's; a fraction is a mixture, so the dial is smooth."""

        def choose(k: int, h_enc: Tensor, h_dec: Tensor) -> tuple[Tensor, None]:
            share = 1.0 if k in replaced else min(max(dream - (self.config.steps - 1 - k), 0.0), 1.0)
            if share == 0:
                return self.posterior(h_enc)[0], None
            own = _draw(self.prior(h_dec), spread, seed=seed, step=k, first_cell=first_cell)
            return (1 - share) * self.posterior(h_enc)[0] + share * own, None

        return choose


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast would compute in; None where it is off, or where there is none (MPS before torch 2.5)."""
    on = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if on else None


def sample(gaussian: Gaussian, noise: Callable[[Tensor], Tensor] = torch.randn_like) -> Tensor:
    """One reparameterised draw."""
    return gaussian[0] + torch.exp(gaussian[1]) * noise(gaussian[0])


def _draw(gaussian: Gaussian, spread: float, *, seed: int, step: int, first_cell: int) -> Tensor:
    if spread == 0:
        return gaussian[0]
    mean, log_sigma = gaussian
    noise = cell_noise(tuple(mean.shape), seed=seed, step=step, first_cell=first_cell, device=mean.device)  # type: ignore[arg-type]
    return mean + spread * torch.exp(log_sigma) * noise


class PatchCritic(nn.Module):
    """Small two-scale patch discriminator (hinge loss, feature matching) that sharpens the canvas once its content is trained.

    References: Isola et al. 2017 (patches), Lim and Ye 2017 (hinge), Wang et al. 2018 (scales, feature matching).
    """

    def __init__(self, n_bins: int, styles: int, channels: int = 32) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.linspace(-1, 1, n_bins)[None, None, :, None], requires_grad=False)
        self.scales = nn.ModuleList(self._scale(channels) for _ in range(2))
        self.style = nn.Embedding(styles, 2 * channels)

    @staticmethod
    def _scale(C: int) -> nn.ModuleList:
        return nn.ModuleList(
            [
                nn.Conv2d(2, C, 5, stride=(2, 1), padding=2),
                nn.Conv2d(C, 2 * C, 3, stride=2, padding=1),
                nn.Conv2d(2 * C, 2 * C, 3, stride=2, padding=1),
                nn.Conv2d(2 * C, 2 * C, 3, padding=1),
                nn.Conv2d(2 * C, 1, 1),
            ]
        )

    def forward(self, x: Tensor, style: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Frames (B, F, T) → a score map and the inner features of each scale."""
        scores, features = [], []
        image = torch.cat([x[:, None], self.position.expand(x.shape[0], -1, -1, x.shape[-1])], 1)
        for scale in self.scales:
            h = image
            assert isinstance(scale, nn.ModuleList)
            for layer in list(scale)[:-1]:
                h = F.leaky_relu(layer(h), 0.2)
                features.append(h)
            joint = (h * self.style(style)[:, :, None, None]).sum(1, keepdim=True)  # projection (Miyato and Koyama 2018)
            scores.append(scale[-1](h) + joint / h.shape[1])
            image = F.avg_pool2d(image, 2)
        return scores, features
