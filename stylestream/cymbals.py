"""A song with drums, heard without its cymbals: what is short and high is taken back to what lasts.

A canvas paints what it is shown. Shown a hi-hat, it paints haze, in a style whose music has none. Above 5 kHz a hat or a cymbal stands
out of what sounds on around it: every bin is brought down to the second lowest of nine levels within a quarter of a second
(harmonic–percussive separation after Fitzgerald [1]_, with a low rank in the place of the median, because hats repeat). Lower down, bass
and snare drums lie among the notes, and taking them out takes more away from the notes than from the drums (measured); they stay. Songs
without cymbals, as `rhythm.Pulse.cymbals` hears them, are left alone to the bit.

References
----------
.. [1] D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from stylestream.vocoder import Analysis

FROM_HZ, FULL_HZ = 5000.0, 10000.0  # nothing is taken below; all above
STEP_FRAMES, STEPS = 3, 4  # nine frames, three apart
REACH_FRAMES = STEP_FRAMES * STEPS  # of the song each side that a frame depends on
TINY = 1e-7  # −140 dB: what is silent stays as it is


def without_cymbals(song: Analysis, amount: float, *, sample_rate: float = 44100.0) -> Analysis:
    """A song's analysis without its cymbals.

    Parameters
    ----------
    amount : float [0, 1]
        0: the song as it is.
    """
    if not amount:
        return song
    bins = song.high.shape[-2]
    hz = torch.arange(bins, device=song.high.device) * (sample_rate / 2 / (bins - 1))
    first = int((hz < FROM_HZ).sum())
    share = amount * ((hz[first:] - FROM_HZ) / (FULL_HZ - FROM_HZ)).clamp(0, 1)
    size = song.high[..., first:, :].abs()
    gain = ((lasting(size) + TINY) / (size + TINY)).clamp(max=1) ** share[:, None]
    lowered = tuple((low, _scaled(high, gain, first)) for low, high in song.differences)
    return replace(song, high=_scaled(song.high, gain, first), differences=lowered)


def lasting(size: Tensor) -> Tensor:
    """The second lowest of nine levels around each, (F, T) → (F, T); the first and the last frame go on for ever."""
    padded = F.pad(size[None], (REACH_FRAMES, REACH_FRAMES), mode="replicate")[0]
    lowest = second = torch.full_like(size, torch.inf)
    for k in range(2 * STEPS + 1):
        level = padded[:, STEP_FRAMES * k : STEP_FRAMES * k + size.shape[1]]
        second = torch.minimum(second, torch.maximum(lowest, level))
        lowest = torch.minimum(lowest, level)
    return second


def _scaled(S: Tensor, gain: Tensor, first: int) -> Tensor:
    return torch.cat([S[..., :first, :], S[..., first:, :] * gain], dim=-2)
