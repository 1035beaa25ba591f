"""One recording → a style, at once: no training, some seconds.

The bundled base is one network of many styles, each a row of its tables: an embedding, which says what to paint with, and a mean
spectrum, from which painting starts. A clip gets a row of its own:

1. its beginning, equalised to the mean of all styles so that it says nothing of its own, is painted in each of them. The nearer a
   picture comes to the clip, the larger the style's share; the row is that mixture of their rows;
2. the clip is painted in that row. What the picture's mean spectrum lacks of the clip's own, smoothed over a third of an octave, is the
   clip's *tone*: from then on it is added to whatever is painted.

So a clip is reached as far as the base has instruments like it, and its tone to the full. What came of other ways, and how far this one
leads beside the song equalised to the clip: docs/clips.md.

Conventions: frames (F, T) as `features` makes them, 0 is −90 dB and 1 is 0 dB; a tone is (F,) in the same unit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stylestream.style import Card, Source, StyleData, bundled_folder, load_style_file

if TYPE_CHECKING:
    from torch import Tensor

    from stylestream.draw import Draw
    from stylestream.features import LogFrequency

MAX_SECONDS = 30.0  # of a clip; more of it changes its mean spectrum little, and takes longer
MIN_SECONDS = 3.0  # less is a chord or two, and no mean spectrum
PAINTED_SECONDS = 12.0  # of it are painted for its tone
TRIED_SECONDS = 5.0  # in every style, for its shares
TRIED_DB = 0.3  # a picture so much further away has 1 / e of the share
SOUNDING_DB = 50.0  # frames this far below the loudest are gaps, and say nothing of the sound
TONE_DB = 24.0  # largest, as the equaliser's (`baselines.gain_db`)
TONE_OCTAVES = 1 / 3


def base_path() -> Path:
    """The bundled base. Raises ValueError if this installation has none."""
    path = bundled_folder() / "base" / "base.safetensors"
    if not path.is_file():
        raise ValueError("no base is bundled with this installation, and a recording as a style needs it; install a release")
    return path


def clip_style(path: str | Path) -> StyleData:
    """A style made of one recording.

    Parameters
    ----------
    path : str or Path
        Any audio file, the sound of a video, or MIDI; its first 30 seconds are heard.

    Returns
    -------
    StyleData
        With a ``tone``. Its network is the base's.

    Raises
    ------
    ValueError, OSError
        If it cannot be read, is shorter than three seconds, or silent; or there is no base.
    """
    from stylestream.features import LogFrequency
    from stylestream.network import features_of, network_of

    base = load_style_file(base_path())
    features = features_of(base, "base")
    x, rate = clip_frames(path, LogFrequency(features)), features.frames_per_second
    style = _as_one_style(base, shares(network_of(base, "base"), x, frames_per_second=rate), Path(path))
    return replace(style, tone=tone(network_of(style, str(path)), x, frames_per_second=rate))


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


def shares(draw: Draw, x: Tensor, *, frames_per_second: float) -> Tensor:
    """How much of each of a network's styles is in a clip: (F, T) → (styles,), > 0, sum 1."""
    import torch

    part = x[:, : round(TRIED_SECONDS * frames_per_second)]
    neutral = (part + smooth(draw.mean_frames.mean(0) - _mean(part))[:, None]).clamp(min=0)
    every = torch.arange(draw.config.styles)
    pictures = draw.transfer(neutral.expand(len(every), -1, -1), style=every, grain=0.0).float()
    away_db = [draw.config.range_db * (picture + _lack(part, picture)[:, None] - part).abs().mean() for picture in pictures]
    return torch.softmax(-torch.stack(away_db) / TRIED_DB, 0)


def tone(draw: Draw, x: Tensor, *, frames_per_second: float) -> Tensor:
    """What the mean spectrum of a clip has that its picture lacks, (F,): of the clip (F, T), painted in its own style."""
    part = x[:, : round(PAINTED_SECONDS * frames_per_second)]
    painted = draw.transfer(part[None], grain=0.0)[0].float()
    limit = TONE_DB / draw.config.range_db
    return _lack(part, painted).clamp(-limit, limit)


def _lack(x: Tensor, painted: Tensor) -> Tensor:
    return smooth(_mean(x) - _mean(painted, like=x))


def smooth(spectrum: Tensor, *, octaves: float = TONE_OCTAVES, bins_per_octave: int = 36) -> Tensor:
    """Running mean along pitch, (F,) → (F,)."""
    from torch.nn import functional as F

    width = max(1, round(octaves * bins_per_octave) | 1)
    return F.avg_pool1d(F.pad(spectrum[None, None], (width // 2,) * 2, mode="replicate"), width, stride=1)[0, 0]


def _mean(x: Tensor, *, like: Tensor | None = None) -> Tensor:
    """Mean spectrum (F,) of the frames in which ``like``, or x itself, sounds."""
    loudest = (x if like is None else like).amax(0)
    return x[:, loudest >= loudest.max() - SOUNDING_DB / 90].mean(-1)


def _as_one_style(base: StyleData, mixture: Tensor, path: Path) -> StyleData:
    rows = {name: (mixture @ base.weights[name])[None] for name in ("style", "mean_frames")}
    made_of = Source(path.name, "the recording's own")
    card = Card(
        title=path.stem,
        description=f"Made of one recording, {path.name}, without training.",
        licence="the recording's own",
        sources=(made_of, *base.card.sources),
    )
    return replace(base, weights=base.weights | rows, model_config={**base.model_config, "styles": 1}, card=card)
