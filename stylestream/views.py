"""Style-neutral views: what the encoder is shown instead of the target.

An autoencoder fed the target itself learns to copy, and then copies every song. So it is fed the same passage in another guise and
asked to paint the target: *orchestration views*, the passage played by other instruments (rendered, ``orchestrations``), and *signal
views*, its frames disturbed (``perturb``). Disturbances act on frames, in dB, on any device, a different draw for each batch row.

References: the formant shift and random equalisation follow the perturbations of H.-S. Choi et al., "Neural Analysis and
Synthesis", NeurIPS 2021, done here on log-frequency frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stylestream import midi

RANGE_DB = 90.0  # of one unit of a frame
PIANO_PROGRAMS = (0, 1, 2, 3, 4)  # acoustic and electric: the songs people bring are often played on one


@dataclass(frozen=True)
class ViewConfig:
    """How a view is drawn. With MIDI, 85 % other orchestrations, half of them undisturbed, and 15 % disturbed targets."""

    other: float = 0.85  # share of crops whose view is another orchestration, where there is one
    clean_share: float = 0.5  # of crops whose view is far from the target are shown as they are: songs come undisturbed too
    formant_semitones: float = 3.0  # largest shift of the envelope along pitch
    equaliser_db: float = 5.0  # standard deviation of the random equaliser's eight knots
    gain_db: float = 3.0  # standard deviation; songs and targets are levelled alike
    contrast: float = 0.25  # fine structure is multiplied by 1 ± this
    noise_share: float = 0.5  # of crops get a noise floor
    decay_share: float = 0.25  # of crops ring on, as with a pedal or in a room
    whiten_share: float = 0.0  # of crops lose their slow envelope; 0.4 for folders of audio


# Of folders of audio: the target itself is all there is to show, so it is disturbed more, and some of it whitened.
RECORDINGS = ViewConfig(other=0.0, clean_share=0.0, formant_semitones=4.0, equaliser_db=6.0, gain_db=6.0, whiten_share=0.4)
STAND_IN = replace(RECORDINGS, whiten_share=1.0, equaliser_db=12.0, noise_share=0.0)  # a recording as another band might sound
# The target itself.
NEUTRAL = ViewConfig(
    other=0, clean_share=0, formant_semitones=0, equaliser_db=0, gain_db=0, contrast=0, noise_share=0, decay_share=0, whiten_share=0
)


def orchestrations(score: Any, rng: np.random.Generator, count: int) -> list[Any]:
    """Scores of the same passage on other instruments, no drums: the first on a piano, the others on random programs.

    In the last, often, an inner part is left out, so that the model learns to fill the texture; the others are whole, so that they can be
    targets themselves.
    """
    piano = midi.reorchestrate(score, programs=int(rng.choice(PIANO_PROGRAMS)))
    scores = [piano, *(midi.random_orchestration(score, rng) for _ in range(count - 1))][:count]
    return [*scores[:-1], _thinned(scores[-1], rng)] if count > 1 else scores


def _thinned(score: Any, rng: np.random.Generator) -> Any:
    if len(score.tracks) < 4 or rng.random() > 2 / 3:
        return score
    return midi.reorchestrate(score, drop_tracks=[int(rng.integers(1, len(score.tracks) - 1))])


def envelope(x: Tensor, *, rows: int = 36) -> Tensor:
    """Frames smoothed over an octave: (B, F, T) → the same, the formants without the partials."""
    half = rows // 2
    padded = F.pad(x, (0, 0, half, half), mode="replicate")
    summed = F.pad(padded.cumsum(1), (0, 0, 1, 0))  # a running sum costs the same for any width
    return (summed[:, 2 * half + 1 :] - summed[:, : -2 * half - 1]) / (2 * half + 1)


def shift_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Move frames (B, F, T) up the pitch axis by ``rows`` (B,), fractions interpolated, edges repeated."""
    position = torch.arange(x.shape[1], device=x.device)[None] - rows[:, None]
    position = position.clamp(0, x.shape[1] - 1)
    below = position.floor().long().clamp(max=x.shape[1] - 2)
    share = (position - below)[..., None].to(x.dtype)
    index = below[..., None].expand(-1, -1, x.shape[2])
    return x.gather(1, index) * (1 - share) + x.gather(1, index + 1) * share


def ring(x: Tensor, decay_db_per_second: Tensor, *, frames_per_second: float = 44100 / 512) -> Tensor:
    """Let every row ring on, falling by so many dB a second: max over s ≤ t of x_s − d (t − s), (B, F, T) and (B,)."""
    slope = (decay_db_per_second / RANGE_DB / frames_per_second)[:, None, None] * torch.arange(x.shape[-1], device=x.device)
    return (x + slope).cummax(-1).values - slope


def whiten(x: Tensor, *, frames: int = 173) -> Tensor:
    """Take the slow octave envelope away (two seconds: faster would take the attacks too), keep the mean level."""
    smooth = envelope(x)
    width = min(frames, x.shape[-1]) // 2 * 2 + 1
    slow = F.avg_pool1d(F.pad(smooth, (width // 2,) * 2, mode="replicate"), width, stride=1)
    return (x - slow + slow.mean((1, 2), keepdim=True)).clamp(min=0)


def perturb(x: Tensor, config: ViewConfig, generator: torch.Generator) -> Tensor:
    """A disturbed copy of frames (B, F, T): formants moved, equalised, louder or softer, flatter or sharper, ringing, noisy."""
    B, rows, _ = x.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*(shape or (B,)), device=x.device, generator=generator) * (high - low) + low

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=x.device, generator=generator)

    if config.whiten_share:
        x = torch.where(uniform(0, 1)[:, None, None] < config.whiten_share, whiten(x), x)
    smooth = envelope(x)
    moved = shift_rows(smooth, uniform(-config.formant_semitones, config.formant_semitones) * 3)
    knots = normal(B, 1, 8) * (config.equaliser_db / RANGE_DB)
    curve = F.interpolate(knots, size=rows, mode="linear", align_corners=True)[:, 0, :, None]
    gain = normal(B)[:, None, None] * (config.gain_db / RANGE_DB)
    contrast = uniform(1 - config.contrast, 1 + config.contrast)[:, None, None]
    out = moved + (x - smooth) * contrast + curve + gain
    out = torch.where(uniform(0, 1)[:, None, None] < config.decay_share, ring(out, uniform(20, 200)), out)
    floor_db = torch.where(uniform(0, 1) < config.noise_share, uniform(-85, -45), -90.0)[:, None, None]
    tilt = normal(B, 1, 1) * 8 * torch.linspace(-1, 1, rows, device=x.device)[:, None]
    noise = torch.empty_like(x).exponential_(generator=generator).clamp(min=1e-3)  # power of a noise band in one frame
    noise_db = floor_db + tilt + 10 * torch.log10(noise)
    signal_db = (out - 1) * RANGE_DB
    both = torch.maximum(signal_db, noise_db) + 10 * torch.log10(1 + 10 ** (-(signal_db - noise_db).abs() / 10))  # powers add
    return (both / RANGE_DB + 1).clamp(min=0)


def drawn(view: Tensor, target: Tensor, config: ViewConfig, generator: torch.Generator, *, far_db: float = 2.0) -> Tensor:
    """What the encoder is shown of views (B, F, T): disturbed, or as they are. Nothing near its target is: that would be copied."""
    disturbed = perturb(view, config, generator)
    if not config.clean_share:
        return disturbed
    far = (view - target).abs().mean((1, 2)) * RANGE_DB > far_db
    clean = far & (torch.rand(len(view), device=view.device, generator=generator) < config.clean_share)
    return torch.where(clean[:, None, None], view, disturbed)
