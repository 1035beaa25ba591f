"""A song → where its sound lies among the styles: a small embedding, and the style it is heard as.

For style what the other metrics are for content: it says whether a result *sounds like* rock, whatever it plays, and needs no truth. A
convolutional network of 0.1 M parameters sees a second and a half of log-mel spectrogram at a time and gives 32 numbers on the unit
sphere; cosines to a centre for each style name the style. It was trained on rendered pieces, each on the instruments of several styles,
so that the notes say nothing about the class, and on real recordings; never on an output of a style or a baseline.
``tools/make_timbre.py`` makes it; its card says of what, and how often it is right on pieces, recordings and a SoundFont it never heard.
On recordings it is right half of the time (electronic and orchestral music of games is itself made of samples): read it there with care.

Conventions: a sound is a `stylestream.sound.Sound`; windows are 128 frames (1.5 s), one every 64; embeddings are rows.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream.sound import FLOOR_DB, Array, Sound
from stylestream.style import StyleData, load_style_file, network_of_kind

WINDOW_FRAMES = 128
WEIGHTS = "f3b8d10a76b990b1"  # first digits of the SHA-256 of the file: scores kept under a hash of this module are of these weights
STYLES = ("rock", "jazz", "electronic", "orchestra", "choir", "strings", "piano", "chiptune", "funk-soul", "bossa-latin")


@dataclass(frozen=True)
class TimbreConfig:
    """Size of the network."""

    styles: tuple[str, ...] = STYLES
    channels: tuple[int, ...] = (16, 32, 64, 96)  # each layer halves both axes
    dimensions: int = 32  # few: a covariance of twenty songs' windows must have full rank
    sharpness: float = 12.0  # of the softmax over cosines


class Timbre(nn.Module):
    """Log-mel windows (B, 128, 128), dB → embeddings (B, dimensions) of length one, and logits (B, styles)."""

    origin: Tensor
    means: Tensor

    def __init__(self, config: TimbreConfig = TimbreConfig()) -> None:
        super().__init__()
        self.config = config
        sizes = (1, *config.channels)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(b // 8, b) for b in config.channels)
        rows = math.ceil(128 / 2 ** len(config.channels))  # what is left of 128 mels: where in the spectrum a thing is stays known
        self.out = nn.Linear(2 * rows * config.channels[-1], config.dimensions)
        self.centers = nn.Parameter(torch.randn(len(config.styles), config.dimensions))
        self.register_buffer("origin", torch.zeros(config.dimensions))  # what the sounds of all styles have in common
        self.register_buffer("means", torch.zeros(len(config.styles), config.dimensions))  # where a style's training songs lie from there

    def embed(self, log_mel: Tensor) -> Tensor:
        """(B, 128, 128) dB → (B, dimensions), unit length."""
        x = (log_mel[:, None] - FLOOR_DB) / 40 - 1  # −80 … 0 dB → −1 … 1
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.gelu(norm(layer(x)))
        x = torch.cat([x.mean(-1), x.std(-1)], dim=1).flatten(1)  # over time: which, not when
        return F.normalize(self.out(F.dropout(x, 0.4, training=self.training)), dim=-1)

    def centered(self, embedding: Tensor) -> Tensor:
        """(B, dimensions) → the same, seen from the origin, unit length: two sounds of unlike styles are not alike for being music."""
        return F.normalize(embedding - self.origin, dim=-1)

    def logits(self, embedding: Tensor) -> Tensor:
        """(B, dimensions) → (B, styles): cosines to the styles' centres, sharpened."""
        return self.config.sharpness * embedding @ F.normalize(self.centers, dim=-1).mT

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 128, 128) dB → embedding, logits."""
        embedding = self.embed(log_mel)
        return embedding, self.logits(embedding)


def windows(log_mel: Array, *, hop_frames: int = WINDOW_FRAMES // 2) -> Array:
    """Windows of a log-mel spectrogram: (128, T) → (W, 128, 128), the song filled up with the floor to one window at least."""
    short = max(0, WINDOW_FRAMES - log_mel.shape[1])
    filled = np.pad(log_mel, ((0, 0), (0, short)), constant_values=FLOOR_DB)
    views = np.lib.stride_tricks.sliding_window_view(filled, WINDOW_FRAMES, axis=1)[:, ::hop_frames]
    return np.array(views.transpose(1, 0, 2), dtype=np.float32, order="C")


# --- the file ----------------------------------------------------------------------------------------------------------------------


def timbre_file() -> Path:
    """The embedding that comes with the package."""
    return Path(__file__).parent / "timbre.safetensors"


@functools.lru_cache(maxsize=4)
def load_timbre(path: str | Path | None = None) -> Timbre:
    """The network of a file; that of the package when none is given.

    Raises
    ------
    ValueError
        If it is no such file, or damaged.
    """
    path = Path(path) if path is not None else timbre_file()
    return timbre_of(load_style_file(path), str(path))


def timbre_of(data: StyleData, name: str) -> Timbre:
    """The network that a file holds. Raises ValueError as `load_timbre`."""
    return network_of_kind(
        data, "timbre", lambda **settings: Timbre(TimbreConfig(**settings)), name, remedy="tools/make_timbre.py makes one"
    )


# --- one song ----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _embedded(sound: Sound, model: Timbre) -> Tensor:
    parts = torch.from_numpy(windows(sound.log_mel)).split(64)
    return torch.cat([model.embed(part) for part in parts])


@torch.no_grad()
def embeddings(sound: Sound, *, model: Timbre | None = None) -> Array:
    """Embeddings of a song's windows, (W, 32), unit length: what `metrics.frechet_distance` and `metrics.kernel_distance` take."""
    model = load_timbre() if model is None else model
    return model.centered(_embedded(sound, model)).double().numpy()


def embedding(sound: Sound, *, model: Timbre | None = None) -> Array:
    """Embedding of a song, (32,), unit length: the mean of its windows' directions."""
    mean = embeddings(sound, model=model).mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def timbre_cosine(reference: Sound, estimate: Sound, *, model: Timbre | None = None) -> float:
    """Cosine between the embeddings of two songs, −1 to 1: do they sound alike, whatever they play.

    References
    ----------
    .. [1] O. Cífka, A. Ozerov, U. Şimşekli and G. Richard, "Self-supervised VQ-VAE for one-shot music style transfer", ICASSP 2021, judge
       timbre by the cosine of a learned embedding too (of MFCC, by triplets).
    """
    if reference.silent or estimate.silent:
        return _silent("timbre_cosine")
    return float(embedding(reference, model=model) @ embedding(estimate, model=model))


def style_cosine(sound: Sound, style: str | Sequence[Sound] | Array, *, model: Timbre | None = None) -> float:
    """Cosine of a song's embedding to a style, −1 to 1.

    Parameters
    ----------
    style : str, sequence of Sound, or array [shape=(32,)]
        A style that the classifier knows; songs of any style: their mean direction; a direction that is known (`style_center`).

    Raises
    ------
    ValueError
        If the classifier does not know the style, or there are no songs.

    References
    ----------
    .. [1] J. Snell, K. Swersky and R. Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017: a class is the mean of what is
       known of it.
    """
    if sound.silent:
        return _silent("style_cosine")
    center = style if isinstance(style, np.ndarray) else style_center(style, model=model)
    return float(embedding(sound, model=model) @ center)


def style_center(style: str | Sequence[Sound], *, model: Timbre | None = None) -> Array:
    """Direction of a style, (32,), unit length; see `style_cosine`."""
    model = load_timbre() if model is None else model
    if isinstance(style, str):
        center = model.means[_known(style, model)].double().numpy()
    elif not style:
        raise ValueError("no songs of the style were given")
    else:
        center = np.mean([embedding(sound, model=model) for sound in style], axis=0)
    return center / max(float(np.linalg.norm(center)), 1e-12)


@torch.no_grad()
def style_probabilities(sound: Sound, *, model: Timbre | None = None) -> dict[str, float]:
    """How probable each style is for a song, by the classifier: mean over its windows; sums to 1. Silence is no style: all 0.

    References
    ----------
    .. [1] J.-J. Aucouturier and F. Pachet, "Improving timbre similarity: How high is the sky?", J. Negative Results in Speech and Audio
       Sciences 1(1), 2004, on how far timbre alone names a genre.
    """
    model = load_timbre() if model is None else model
    if sound.silent:
        return dict.fromkeys(model.config.styles, _silent("style_probability"))
    logits = model.logits(_embedded(sound, model))
    return dict(zip(model.config.styles, logits.softmax(-1).mean(0).tolist(), strict=True))


def style_heard(sound: Sound, *, model: Timbre | None = None) -> str:
    """The most probable style of a song; silence is heard as "silence"."""
    probabilities = style_probabilities(sound, model=model)
    return max(probabilities, key=lambda name: probabilities[name]) if any(probabilities.values()) else "silence"


def style_scores(sound: Sound, style: str, *, model: Timbre | None = None) -> dict[str, float]:
    """How much a song sounds like a style that the classifier knows.

    Returns
    -------
    dict
        ``style_probability`` (0 to 1), ``style_heard`` (1 if it is the most probable, otherwise 0: their mean is the accuracy),
        ``style_cosine`` (−1 to 1).
    """
    model = load_timbre() if model is None else model
    _known(style, model)
    probabilities = style_probabilities(sound, model=model)
    return {
        "style_probability": probabilities[style],
        "style_heard": float(probabilities[style] > 0 and probabilities[style] == max(probabilities.values())),
        "style_cosine": style_cosine(sound, style, model=model),
    }


def _known(style: str, model: Timbre) -> int:
    if style not in model.config.styles:
        raise ValueError(f"the timbre classifier does not know style {style!r}; it knows {', '.join(model.config.styles)}")
    return model.config.styles.index(style)


def _silent(metric: str) -> float:
    warnings.warn(f"{metric}: a song is silent; it scores 0", stacklevel=3)
    return 0.0


def style_of_recording(folder: str) -> str | None:
    """Which of our styles a folder of recordings is; None: none of them.

    >>> style_of_recording("rock-game"), style_of_recording("ambient")
    ('rock', None)
    """
    name = folder.removesuffix("-game").replace("orchestral", "orchestra")
    return name if name in STYLES else None
