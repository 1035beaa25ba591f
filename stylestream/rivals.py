"""Two methods of others that need no training, only sound of the style: what a style has to beat without having learnt anything.

- *musaicing* [1]: every frame of the song is put together from frames of the style's sound, weighted by a constrained non-negative
  factorisation. Real sound of the style, wherever the style has played such a note.
- *ulyanov* [2]: the song's frames are changed, by gradient descent, until a random convolution of them has the correlations that it has
  of the style's frames, and still looks like the song. The texture synthesis of images, on a spectrogram.

Waveforms are ``(C, N)`` at 44.1 kHz; results are at the working loudness, every channel the same. ``style_audio`` is a sequence of
waveforms: training songs of the style, some seconds of each. Both methods are deterministic given a seed.

References
----------
.. [1] J. Driedger, T. Prätzlich and M. Müller, "Let it Bee: Towards NMF-inspired audio mosaicing", ISMIR 2015.
.. [2] D. Ulyanov and V. Lebedev, "Audio texture synthesis and style transfer", 2016; evaluated by O. Cífka et al., "Self-supervised
   VQ-VAE for one-shot music style transfer", ICASSP 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stylestream.features import FeatureConfig, LogFrequency, stft

Array = NDArray[np.floating]

FEATURES = FeatureConfig()


def levelled(y: Array, config: FeatureConfig = FEATURES) -> Tensor:
    """Mono fold-down at ``config.loudness_lufs``: (C, N) → (N,). Silence stays silence."""
    from stylestream.audio import loudness

    mono = np.asarray(y, dtype=np.float32).mean(0, keepdims=True)
    level = loudness(mono, config.sample_rate)
    gain = 10 ** ((config.loudness_lufs - level) / 20) if math.isfinite(level) else 1.0
    return torch.from_numpy(mono[0] * np.float32(gain))


def _check(style_audio: Sequence[Array]) -> None:
    if not any(np.size(song) for song in style_audio):
        raise ValueError("no sound of the style was given; pass waveforms of its training songs as style_audio")


# --- musaicing ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def musaicing(
    y: Array,
    style_audio: Sequence[Array],
    *,
    iterations: int = 10,
    repetition_frames: int = 3,
    polyphony: int = 10,
    continuity_frames: int = 3,
    style_seconds: float = 48.0,
    n_fft: int = 4096,
    hop_length: int = 1024,
    phase_rounds: int = 8,
    seed: int = 0,
) -> Array:
    """A song put together from frames of a style's sound.

    Parameters
    ----------
    y : array [shape=(C, N), 44.1 kHz]
    style_audio : sequence of array [shape=(C, M), 44.1 kHz]
        Songs of the style; the first ``style_seconds`` of all of them together are used.
    iterations, repetition_frames, polyphony, continuity_frames, seed
        See `activations`.
    phase_rounds : int
        Of fast Griffin–Lim, from the phase that the style's own frames add up to.

    Returns
    -------
    array [shape=(C, N)]

    Raises
    ------
    ValueError
        If there is no sound of the style.
    """
    _check(style_audio)
    analysis = {"n_fft": n_fft, "hop_length": hop_length}
    target = stft(levelled(y), **analysis).abs()
    frames = torch.cat([stft(levelled(song), **analysis) for song in style_audio if np.size(song)], dim=1)
    frames = frames[:, : max(1, round(style_seconds * FEATURES.sample_rate / hop_length))]
    limits = {"repetition_frames": repetition_frames, "polyphony": polyphony, "continuity_frames": continuity_frames}
    H = activations(target, frames.abs(), iterations=iterations, seed=seed, **limits)
    S = frames @ H.to(frames.dtype)
    return _sound_of(S, y, phase_rounds, **analysis)


def _sound_of(S: Tensor, y: Array, phase_rounds: int, **analysis: int) -> Array:
    from stylestream.vocoder import fast_griffin_lim

    sound = fast_griffin_lim(S.abs(), iterations=phase_rounds, phase=S.angle(), samples=y.shape[-1], **analysis)
    return np.repeat(sound.numpy()[None], y.shape[0], axis=0)


def activations(
    V: Tensor,
    W: Tensor,
    *,
    iterations: int = 10,
    repetition_frames: int = 3,
    polyphony: int = 10,
    continuity_frames: int = 3,
    seed: int = 0,
) -> Tensor:
    """Weights with which columns of W, kept as they are, add up to V: Kullback–Leibler updates under three restrictions.

    Each restriction weakens what it does not want by ``1 − round / iterations``, so that it is gentle at first and strict at last.

    Parameters
    ----------
    V : Tensor [shape=(F, T), ≥ 0]
        Magnitudes of the song.
    W : Tensor [shape=(F, M), ≥ 0]
        Magnitudes of the style's sound, frame after frame.
    repetition_frames : int
        A column may not sound again within so many frames: no stutter.
    polyphony : int
        Columns at once, before continuity is asked for.
    continuity_frames : int
        A column calls for so many of its neighbours before and after, in step: diagonals in the result, real passages in the sound.

    Returns
    -------
    Tensor [shape=(M, T), ≥ 0]
    """
    tiny = torch.finfo(V.dtype).tiny ** 0.5
    H = torch.rand(W.shape[1], V.shape[1], generator=torch.Generator().manual_seed(seed))
    total = W.sum(0)[:, None] + tiny
    for done in range(1, iterations + 1):
        weaker = 1 - done / iterations
        H = _without_repetition(H, repetition_frames, weaker)
        H = _without_crowds(H, polyphony, weaker)
        H = _with_continuity(H, continuity_frames)
        H = H * (W.mT @ (V / (W @ H + tiny))) / total
    return H


def _without_repetition(H: Tensor, frames: int, weaker: float) -> Tensor:
    largest = F.max_pool1d(H[None], 2 * frames + 1, stride=1, padding=frames)[0]
    return torch.where(largest == H, H, weaker * H)


def _without_crowds(H: Tensor, polyphony: int, weaker: float) -> Tensor:
    least = H.topk(min(polyphony, len(H)), dim=0).values[-1]
    return torch.where(least <= H, H, weaker * H)


def _with_continuity(H: Tensor, frames: int) -> Tensor:
    """Each value becomes the sum along its diagonal, ``frames`` before and after."""
    padded = F.pad(H, (frames, frames, frames, frames))
    rows, columns = H.shape
    return torch.stack([padded[i : i + rows, i : i + columns] for i in range(2 * frames + 1)]).sum(0)


# --- texture optimisation ----------------------------------------------------------------------------------------------------------


def ulyanov(
    y: Array,
    style_audio: Sequence[Array],
    *,
    style_weight: float = 3.0,  # more moves timbre no further and loses notes
    iterations: int = 30,
    filters: int = 512,
    kernel_frames: int = 11,
    seed: int = 0,
    config: FeatureConfig = FEATURES,
) -> Array:
    """A song whose spectrogram has the texture of a style's.

    The published method, on our frames and with our vocoder, so that only the method differs from the other rows; it starts from the
    song instead of noise, which a bounded number of rounds needs.

    Parameters
    ----------
    y : array [shape=(C, N), 44.1 kHz]
    style_audio : sequence of array [shape=(C, M), 44.1 kHz]
    style_weight : float ≥ 0
        Of the texture's relative error beside the content's.
    iterations : int
        Rounds of L-BFGS.
    filters, kernel_frames : int
        Of the random convolution over time; the rows of the frames are its channels.

    Returns
    -------
    array [shape=(C, N)]

    Raises
    ------
    ValueError
        If there is no sound of the style.
    """
    from stylestream.vocoder import Vocoder

    _check(style_audio)
    features = LogFrequency(config)
    vocoder = Vocoder(features)
    song = vocoder.analyse(levelled(y, config)[None])
    kernel = random_kernel(config.n_bins, filters, kernel_frames, seed=seed)
    styles = [features(levelled(style, config)) for style in style_audio if np.size(style)]
    texture = torch.stack([gram(responses(x, kernel)) for x in styles]).mean(0)
    x = textured(vocoder.frames(song), texture, kernel, style_weight=style_weight, iterations=iterations)
    return np.repeat(vocoder.synthesise(x, song).numpy(), y.shape[0], axis=0)


def random_kernel(n_bins: int, filters: int, kernel_frames: int, *, seed: int = 0) -> Tensor:
    """Weights (filters, n_bins, kernel_frames) of a convolution that nobody trained."""
    draw = torch.randn(filters, n_bins, kernel_frames, generator=torch.Generator().manual_seed(seed))
    return draw * 2 / math.sqrt((n_bins + filters) * kernel_frames)


def responses(x: Tensor, kernel: Tensor) -> Tensor:
    """Rectified convolution over time: (F, T) → (filters, T)."""
    return F.relu(F.conv1d(x[None], kernel, padding=kernel.shape[-1] // 2)[0])


def gram(f: Tensor) -> Tensor:
    """Which filters respond together, whenever that is: (filters, T) → (filters, filters), mean over time."""
    return f @ f.mT / f.shape[1]


def textured(x: Tensor, texture: Tensor, kernel: Tensor, *, style_weight: float, iterations: int) -> Tensor:
    """Frames near to ``x`` in their responses, and near to ``texture`` in which respond together: (F, T) → (F, T).

    Minimises |f − f_song|² / |f_song|² + style_weight · |G − texture|² / |texture|² by L-BFGS.
    """
    content = responses(x, kernel)
    sizes = content.square().sum() + 1e-12, texture.square().sum() + 1e-12
    found = x.clone(memory_format=torch.contiguous_format).requires_grad_()  # L-BFGS asks for it
    optimizer = torch.optim.LBFGS(
        [found], max_iter=iterations, max_eval=iterations + iterations // 4, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        f = responses(found, kernel)
        total = (f - content).square().sum() / sizes[0] + style_weight * (gram(f) - texture).square().sum() / sizes[1]
        total.backward()
        return total

    optimizer.step(loss)
    return found.detach().clamp(0, 1.1)
