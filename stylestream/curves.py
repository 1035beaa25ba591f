"""Where a style's result differs from the truth, what its dials do, and what the steps of its network hold.

*Error*: the mean absolute difference of the log-mel spectrograms, dB, as ``metrics.log_mel_l1``, but apart for every octave, for the
time since the last onset, and for the number of notes that sound.

*Dials*: scores of the result as strength goes from 0 to 1, and as dream goes from 0 to K: content kept against style reached.

*Steps*: KL(q_k ‖ p_k), the nats that a step tells about the song beyond what the style expects; and the scores of the result when the
latents of that step alone are the style's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import metrics, sound
from stylestream.sound import Sound

Array = NDArray[np.floating]
Compare = Callable[[Array], dict[str, float]]  # waveform → scores

SINCE_ONSET_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, math.inf)
POLYPHONY = (0, 1, 2, 3, 4, 6, 9, math.inf)  # notes: 0, 1, 2, 3, 4–5, 6–8, 9 and more
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DREAMS = 4  # points beside 0, up to K


# --- error -------------------------------------------------------------------------------------------------------------------------


def errors(reference: Sound, estimate: Sound, notes: NDArray[np.void]) -> dict[str, dict[str, float]]:
    """Mean absolute log-mel difference, dB, by octave, time since the last onset, and polyphony; NaN where the passage has none.

    Parameters
    ----------
    reference, estimate : Sound
        Of equal length.
    notes : structured array
        ``midi.notes``, in seconds from the first sample.

    Returns
    -------
    dict
        ``"octave"``, ``"since_onset"``, ``"polyphony"`` → label → dB. The octave of C4 is from C4 up to C5.
    """
    reference, estimate = metrics.matched(reference, estimate)
    difference = np.abs(reference.log_mel - estimate.log_mel)
    frames = difference.mean(0)
    return {
        "octave": _binned(difference.mean(1), octaves_of_mels(), range(10), _octave_label),
        "since_onset": _binned(frames, since_onset(notes, frames.size), SINCE_ONSET_SECONDS, _seconds_label),
        "polyphony": _binned(frames, polyphony(notes, frames.size), POLYPHONY, _count_label),
    }


def octaves_of_mels() -> Array:
    """Octaves above C1 of the mel bins' centres, (128,); below 0 is under C1."""
    import librosa

    hz = librosa.mel_frequencies(n_mels=sound.N_MELS + 2, fmin=sound.FMIN_HZ, fmax=sound.FMAX_HZ)[1:-1]
    return np.log2(hz / sound.C1_HZ)


def since_onset(notes: NDArray[np.void], frames: int) -> Array:
    """Seconds from the last onset to every frame, (frames,); NaN before the first.

    >>> notes = np.array([(0.5, 60)], dtype=[("onset_seconds", float), ("pitch", int)])
    >>> since_onset(notes, 88)[[0, 87]].round(2)
    array([ nan, 0.51])
    """
    onsets = np.concatenate([[-math.inf], np.sort(notes["onset_seconds"])])
    seconds = np.arange(frames) / metrics.FRAMES_PER_SECOND
    elapsed = seconds - onsets[np.searchsorted(onsets, seconds, side="right") - 1]
    return np.where(np.isfinite(elapsed), elapsed, math.nan)


def polyphony(notes: NDArray[np.void], frames: int) -> Array:
    """Sounding notes at every frame, (frames,); drums are not counted."""
    return metrics.piano_roll(notes, frames).sum(0).astype(float)


def _binned(values: Array, where: Array, edges: Sequence[float], label: Callable[[float, float], str]) -> dict[str, float]:
    """Mean of the values whose place is in [edge, next edge)."""
    inside = [(a, b, (a <= where) & (where < b)) for a, b in itertools.pairwise(edges)]
    return {label(a, b): float(values[mask].mean()) if mask.any() else math.nan for a, b, mask in inside}


def _octave_label(low: float, high: float) -> str:
    return f"C{low + 1:.0f}"


def _seconds_label(low: float, high: float) -> str:
    return f"{low * 1000:.0f}–{high * 1000:.0f} ms" if math.isfinite(high) else f"over {low * 1000:.0f} ms"


def _count_label(low: float, high: float) -> str:
    if not math.isfinite(high):
        return f"{low:.0f}+"
    return f"{low:.0f}" if high == low + 1 else f"{low:.0f}–{high - 1:.0f}"


# --- dials and steps ---------------------------------------------------------------------------------------------------------------


def dials(style: Any, song: Array, compare: Compare, *, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """Scores as the dials turn.

    Parameters
    ----------
    style : StyleTransfer
    song : array [shape=(C, N), 44.1 kHz]

    Returns
    -------
    dict
        ``"strength"`` and ``"dream"`` → value of the dial → metric → score.
    """

    def scores(**dial: float) -> dict[str, float]:
        return compare(style.transfer(song, metrics.SAMPLE_RATE, drums=0.0, seed=seed, **dial))  # the truth has none

    swept = {"strength": STRENGTHS, "dream": dreams(style.draw.config.steps)}
    return {dial: {f"{value:g}": scores(**{dial: value}) for value in values} for dial, values in swept.items()}


def dreams(steps: int) -> list[float]:
    """Values of the dial that are tried, 0 to K.

    >>> dreams(8)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    return [steps * i / DREAMS for i in range(DREAMS + 1)]


def steps(style: Any, song: Array, compare: Compare, *, seed: int = 0) -> list[dict[str, Any]]:
    """For each of the K steps ``kl`` and ``grew_db`` (see `Passage.told`), and ``without``: the scores with its latents replaced."""
    passage = Passage(style, song)
    told = passage.told()
    replaced = [compare(passage.sound((k,), seed=seed)) for k in range(style.draw.config.steps)]
    return [part | {"without": scores} for part, scores in zip(told, replaced, strict=True)]


class Passage:
    """A short song between analysis and synthesis, where the network can be asked what it does.

    Parameters
    ----------
    style : StyleTransfer
    song : array [shape=(C, N), 44.1 kHz]
        Not longer than a chunk: the whole of it is seen at once.
    """

    def __init__(self, style: Any, song: Array) -> None:
        import torch

        from stylestream import rhythm

        self.style = style
        hearing = style.listen(lambda: iter([song]), metrics.SAMPLE_RATE, song.shape[0], peak=False)
        with torch.inference_mode():
            self.analysis = style.vocoder.analyse(torch.from_numpy(song * np.float32(hearing.gain)).to(style.device))
            self.x = style.vocoder.frames(self.analysis)[None]  # (1, F, T)
        beats, rate = hearing.beats, style.config.frames_per_second
        where = rhythm.phase(beats.beat_seconds, beats.downbeat_seconds, self.x.shape[-1], rate)
        self.phase = torch.from_numpy(where)[None].to(style.device)

    def sound(self, replaced: Sequence[int] = (), *, seed: int = 0) -> Array:
        """The passage in the style, with the latents of some steps the style's own: (C, N), at the working loudness."""
        import torch

        with torch.inference_mode():
            x_hat = self.style.draw.transfer(self.x, style=self.style.style, phase=self.phase, seed=seed, replaced=replaced)
            return self.style.vocoder.synthesise(x_hat[0].float(), self.analysis).cpu().numpy()

    def told(self) -> list[dict[str, float]]:
        """For each step ``kl``, nats per cell told about the song, and ``grew``, the mean change of the canvas in dB."""
        import torch
        from torch.nn import functional as F

        from stylestream.draw import gaussian_kl

        draw, cells = self.style.draw, []

        def choose(k: int, h_enc: Any, h_dec: Any) -> tuple[Any, None]:
            q = draw.posterior(h_enc)
            cells.append(float(gaussian_kl(q, draw.prior(h_dec)).sum(1).mean()))
            return q[0], None

        pad = -self.x.shape[-1] % draw.config.grid_frames
        canvases: list[Any] = [draw.mean_frames[self.style.style][None, :, None]]
        with torch.inference_mode():
            x, phase = (F.pad(part, (0, pad)) for part in (self.x, self.phase))
            draw.paint(x, torch.full((1,), self.style.style, device=x.device), phase, choose, keep=canvases)
        grown = [float((b - a).abs().mean()) * draw.config.range_db for a, b in itertools.pairwise(canvases)]
        return [{"kl": kl, "grew_db": grew} for kl, grew in zip(cells, grown, strict=True)]


# --- many pieces → one -------------------------------------------------------------------------------------------------------------


def gathered(parts: Sequence[Mapping[str, Any]], summary: Callable[[Array], Any]) -> dict[str, Any]:
    """Trees of numbers of equal shape, one a piece → the same tree with a summary of the pieces at each leaf.

    >>> gathered([{"a": {"x": 1.0}}, {"a": {"x": 3.0}}], lambda values: float(values.mean()))
    {'a': {'x': 2.0}}
    """
    return {key: _gathered([part[key] for part in parts], summary) for key in parts[0]}


def _gathered(values: Sequence[Any], summary: Callable[[Array], Any]) -> Any:
    if isinstance(values[0], Mapping):
        return gathered(values, summary)
    if isinstance(values[0], list):
        return [_gathered(same, summary) for same in zip(*values, strict=True)]
    return summary(np.array([math.nan if value is None else value for value in values], dtype=float))
