"""One recording → a style, at once and without training.

The bundled base is a network of many styles with an ear: a style encoder, trained with it, that hears in a clip of any orchestration where
its sound lies among the styles. What the encoder hears becomes the embedding of a style of its own, and the clip's mean spectrum, smoothed
over an octave, its first canvas; the rest is the base. How far that leads, beside the song equalised to the clip: docs/clips.md.

Conventions: frames (F, T) as `features` makes them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stylestream.style import Card, Source, StyleData, base_path, load_style_file

if TYPE_CHECKING:
    from torch import Tensor

    from stylestream.draw import StyleVector
    from stylestream.features import LogFrequency

MAX_SECONDS = 30.0  # of a clip: more of it tells little more
MIN_SECONDS = 3.0  # as long as the clips that the encoder was trained on


def clip_style(path: str | Path) -> StyleData:
    """A style made of one recording.

    Parameters
    ----------
    path : str or Path
        Any audio file, the sound of a video, or MIDI; its first 30 seconds are heard.

    Returns
    -------
    StyleData
        The base's network, with the recording as its one style.

    Raises
    ------
    ValueError, OSError
        If it cannot be read, is shorter than three seconds, or silent; or there is no base, or it has no style encoder.
    """
    import torch

    from stylestream.features import LogFrequency
    from stylestream.network import features_of, network_of

    base = load_style_file(base_path())
    network = network_of(base, "base")
    x = clip_frames(path, LogFrequency(features_of(base, "base")))
    with torch.no_grad():
        return _as_one_style(base, network.clip_vector(x[None]), Path(path))


def clip_frames(path: str | Path, features: LogFrequency) -> Tensor:
    """Frames (F, T) of the start of a recording, as one channel at the loudness of training. Raises as `clip_style`."""
    import torch

    from stylestream import audio

    config = features.config
    y, rate = audio.load(path, sample_rate=config.sample_rate, mono=True, max_seconds=MAX_SECONDS)
    if y.shape[1] < MIN_SECONDS * rate:
        raise ValueError(f"{path}: {y.shape[1] / rate:.1f} s long; as a style a recording needs at least {MIN_SECONDS:g} s")
    level_lufs = audio.loudness(y, rate)
    if not math.isfinite(level_lufs):
        raise ValueError(f"{path}: silent in its first {MAX_SECONDS:g} s; give a recording in which something sounds there")
    return features(torch.from_numpy(y[0] * 10 ** ((config.loudness_lufs - level_lufs) / 20)).float())


def _as_one_style(base: StyleData, heard: StyleVector, path: Path) -> StyleData:
    weights = {name: tensor for name, tensor in base.weights.items() if not name.startswith("clip.")}  # the ear has heard
    embedding, mean_frames = heard
    card = Card(
        title=path.stem,
        description=f"Made of one recording, {path.name}, without training.",
        licence="the recording's own",
        sources=(Source(path.name, "the recording's own"), *base.card.sources),
    )
    return replace(
        base,
        weights=weights | {"style": embedding, "mean_frames": mean_frames},
        model_config={**base.model_config, "styles": 1, "clip_channels": 0},
        card=card,
    )
