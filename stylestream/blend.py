"""What ``-s`` names → one style in memory: a style, a recording as one, or a style between styles: ``rock:0.6,strings:0.4``.

*A recording* is a style at once and without training. The bundled base is a network of many styles with an ear: a style encoder, trained
with it, that hears in a clip of any orchestration where its sound lies among the styles. What the encoder hears becomes the embedding of a
style of its own, and the clip's mean spectrum, smoothed over an octave, its first canvas; the rest is the base. How far that leads, beside
the song equalised to the clip: docs/clips.md.

*A blend* is a style between styles. Those that ``train`` makes are fine-tunes of a base, and between such weights lies no barrier [1]_: a
straight line from one network to another passes through networks that paint as well, in a style between. So a blend of one *family*,
styles of one base, is one network, whose weights, mean spectrum and settings are means of its styles'; it costs what one style costs.
Styles of several families cannot share weights: each family paints, and the pictures are mixed in dB (`transfer.Together`), at the cost of
a network for each family. Both ways are smooth; measured, and against mixing embeddings inside the base: docs/morphs.md. Drums have no
mean: of the styles that have a drummer, the one with the largest share lends it. Widths do: over the shares of the styles that know theirs.

Conventions: shares are positive and sum to 1; a blend of one style is that style, to the bit. Frames (F, T) are as `features` makes them.

References
----------
.. [1] M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
   inference time", ICML 2022.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylestream.recipes import AUDIO_SUFFIXES, SCORE_SUFFIXES
from stylestream.style import SUFFIX, Card, Source, StyleData, base_path, features_of, find_style, load_style_file, network_of

if TYPE_CHECKING:
    from torch import Tensor

    from stylestream.draw import StyleVector
    from stylestream.features import LogFrequency

MAX_CLIP_SECONDS = 30.0  # of a recording: more of it tells little more
MIN_CLIP_SECONDS = 3.0  # as long as the clips that the encoder was trained on
MAX_STYLES = 8  # each is read into memory
MAX_SHARE = 1e6
FAINTEST = -12_000  # 1/100 dB, of a drummer whose share is next to nothing: what a drum layer can say
# Of a network's settings those that are numbers on a line; all others are its shape, and must be equal.
BLENDED_SETTINGS = ("beta", "scale_db", "texture_scale_db", "phase_iterations", "grain_power", "partial_lift")
OWN_WEIGHTS = ("style", "mean_frames")  # a style's own, whatever it descends from
FURTHEST = 0.6  # relative distance of weights: fine-tunes of one base are 0.15 to 0.21 apart, strangers 1.0

_PART = re.compile(r"(?P<name>.+?):\s*(?P<share>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf)", re.DOTALL)

Shares = tuple[tuple[str, float], ...]


# --- names and shares --------------------------------------------------------------------------------------------------------------


def parse(text: str) -> Shares:
    """Read ``NAME:SHARE,NAME:SHARE`` (or ``NAME,NAME``: equal shares); anything else is one name.

    Names are as `style.find_style` takes them, or recordings. Shares may have any positive sum; a style named twice gets both shares; a
    share of 0 leaves a style out.

    Returns
    -------
    tuple of (name, share)
        Shares > 0 that sum to 1.

    Raises
    ------
    ValueError
        If a share is missing, negative or not a number, all are 0, or there are too many.

    Examples
    --------
    >>> parse("rock:3,strings:1")
    (('rock', 0.75), ('strings', 0.25))
    >>> parse("rock")
    (('rock', 1.0),)
    """
    if Path(text).exists() or ("," not in text and not _PART.fullmatch(text)):
        return ((text, 1.0),)
    parts = [_part(part.strip(), text) for part in text.split(",")]
    if all(share is None for _, share in parts):
        parts = [(name, 1.0) for name, _ in parts]
    shares: dict[str, float] = {}
    for name, share in parts:
        if share is None:
            raise ValueError(f"{text!r}: {name!r} has no share; write a blend as rock:0.6,strings:0.4, or rock,strings for equal shares")
        shares[name] = shares.get(name, 0.0) + share
    return normalised(shares, text)


def _part(part: str, text: str) -> tuple[str, float | None]:
    if not part:
        raise ValueError(f"{text!r}: a style's name is missing; write a blend as rock:0.6,strings:0.4")
    match = _PART.fullmatch(part)
    return (match["name"], float(match["share"])) if match else (part, None)


def normalised(shares: Mapping[str, float], text: str = "") -> Shares:
    """Shares > 0 that sum to 1; raises ValueError as `parse`."""
    text = text or ",".join(f"{name}:{share}" for name, share in shares.items())
    for name, share in shares.items():
        if not 0 <= share <= MAX_SHARE:  # NaN is in no range
            raise ValueError(f"{text!r}: the share of {name!r} is {share}; shares are from 0 to {MAX_SHARE:g}")
    kept = {name: share for name, share in shares.items() if share > 0}
    if not kept:
        raise ValueError(f"{text!r}: all shares are 0; give at least one style a share")
    if len(kept) > MAX_STYLES:
        raise ValueError(f"{text!r}: {len(kept)} styles; a blend has at most {MAX_STYLES}")
    total = math.fsum(kept.values())
    return tuple((name, share / total) for name, share in kept.items())


def label(shares: Shares) -> str:
    """A blend's name for file names: shares in percent.

    >>> label((("rock", 0.6), ("strings", 0.4)))
    'rock60-strings40'
    """
    return _stem(shares[0][0]) if len(shares) == 1 else "-".join(f"{_stem(name)}{100 * share:.3g}" for name, share in shares)


def _stem(name: str) -> str:
    return Path(name).stem if is_recording(name) else Path(name).name.removesuffix(SUFFIX)


def is_recording(name: str | Path) -> bool:
    """Whether a style is named by a recording (or MIDI file), by its suffix."""
    return Path(name).suffix.lower() in (*AUDIO_SUFFIXES, *SCORE_SUFFIXES)


def locate(style: str | Path) -> list[Path]:
    """Files of what ``-s`` names, unread: to know a wrong name before any work is done. Raises as `parse` and `style.find_style`."""
    return [_find(name) for name, _ in _shares_of(style)]


def _find(name: str | Path) -> Path:
    if not is_recording(name):
        return find_style(name)
    if not Path(name).exists():
        raise FileNotFoundError(f"{name}: no such recording")
    return Path(name)


# --- in memory ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blend:
    """What is played: a style for each family, with its share, and the card of all."""

    styles: tuple[StyleData, ...]  # one, where all are of one family
    shares: tuple[float, ...]  # sum to 1
    card: Card
    drums: dict[str, Tensor] = field(default_factory=dict)  # as `StyleData.drums`
    widths: tuple[float, ...] = ()  # as `StyleData.widths`


def load_blend(style: str | Path) -> Blend:
    """What ``-s`` names, in memory: a style, a recording as one, or a blend of several.

    Raises as `parse`, `style.load_style_file`, `clip_style` and `blend`.
    """
    shares = _shares_of(style)
    loaded = [_load(name) for name, _ in shares]
    for data, (name, _) in zip(loaded, shares, strict=True):
        network_of(data, str(name))  # what is wrong with one of them is said of that one
    return blend(loaded, [share for _, share in shares], [str(name) for name, _ in shares])


def _load(name: str | Path) -> StyleData:
    return clip_style(_find(name)) if is_recording(name) else load_style_file(find_style(name))


def _shares_of(style: str | Path) -> Sequence[tuple[str | Path, float]]:
    return parse(style) if isinstance(style, str) else ((style, 1.0),)


# --- a recording as a style --------------------------------------------------------------------------------------------------------


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
    from stylestream.width import widths_of_file

    base = load_style_file(base_path())
    network = network_of(base, "base")
    x = clip_frames(path, LogFrequency(features_of(base, "base")))
    widths = widths_of_file(path, max_seconds=MAX_CLIP_SECONDS) or ()
    with torch.no_grad():
        return replace(_as_one_style(base, network.clip_vector(x[None]), Path(path)), widths=widths)


def clip_frames(path: str | Path, features: LogFrequency) -> Tensor:
    """Frames (F, T) of the start of a recording, as one channel at the loudness of training. Raises as `clip_style`."""
    import torch

    from stylestream import audio

    config = features.config
    y, rate = audio.load(path, sample_rate=config.sample_rate, mono=True, max_seconds=MAX_CLIP_SECONDS)
    if y.shape[1] < MIN_CLIP_SECONDS * rate:
        raise ValueError(f"{path}: {y.shape[1] / rate:.1f} s long; as a style a recording needs at least {MIN_CLIP_SECONDS:g} s")
    level_lufs = audio.loudness(y, rate)
    if not math.isfinite(level_lufs):
        raise ValueError(f"{path}: silent in its first {MAX_CLIP_SECONDS:g} s; give a recording in which something sounds there")
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


# --- styles between styles ---------------------------------------------------------------------------------------------------------


def blend(styles: Sequence[StyleData], shares: Sequence[float], names: Sequence[str]) -> Blend:
    """One style between several for each family among them.

    Parameters
    ----------
    styles : sequence of StyleData
    shares : sequence of float
        Sum to 1.
    names : sequence of str
        For messages and the card.

    Raises
    ------
    ValueError
        If two styles have frames of different kind.
    """
    found: list[list[int]] = []
    for index, style in enumerate(styles):
        _check_frames(styles[0], style, f"{names[0]} and {names[index]} cannot be blended")
        own = next((family for family in found if related(styles[family[0]], style)), None)
        if own is None:
            found.append([index])
        else:
            own.append(index)
    card = styles[0].card if len(styles) == 1 else _card([style.card for style in styles], shares, names)
    totals = [math.fsum(shares[i] for i in family) for family in found]
    means = [blend_family([styles[i] for i in f], [shares[i] / total for i in f]) for f, total in zip(found, totals, strict=True)]
    return Blend(tuple(means), tuple(totals), card, _drums(styles, shares), _widths(styles, shares))


def blend_family(styles: Sequence[StyleData], shares: Sequence[float]) -> StyleData:
    """One style between several of one family; its songs are those of all, its card is the first one's."""
    if len(styles) == 1:
        return styles[0]
    weights = {key: _mean([style.weights[key] for style in styles], shares) for key in styles[0].weights}
    settings = {key: math.fsum(share * value for share, value in zip(shares, _values(styles, key), strict=True)) for key in _known(styles)}
    heard = {song: hashes for style in styles for song, hashes in style.fingerprints.items()}
    return replace(styles[0], weights=weights, model_config={**styles[0].model_config, **settings}, fingerprints=heard)


def _drums(styles: Sequence[StyleData], shares: Sequence[float]) -> dict[str, Tensor]:
    """The drummer of the style with the largest share that has one, as loud as all the styles with drums together have shares."""
    drummers = [(share, style.drums) for share, style in zip(shares, styles, strict=True) if style.drums]
    if not drummers:
        return {}
    drums = max(drummers, key=lambda one: one[0])[1]
    if "gain" not in drums:
        return drums  # damaged; `drums.layer_of` says so
    change_db = 20 * math.log10(math.fsum(share for share, _ in drummers))
    return drums | {"gain": (drums["gain"] + round(100 * change_db)).clamp(min=FAINTEST).to(drums["gain"].dtype)}


def _widths(styles: Sequence[StyleData], shares: Sequence[float]) -> tuple[float, ...]:
    """The mean over the shares of the styles that say how wide their music is."""
    known = [(share, style.widths) for share, style in zip(shares, styles, strict=True) if style.widths]
    total = math.fsum(share for share, _ in known)
    octaves = zip(*(widths for _, widths in known), strict=True)
    return tuple(math.fsum(share * value for (share, _), value in zip(known, octave, strict=True)) / total for octave in octaves)


def _known(styles: Sequence[StyleData]) -> list[str]:
    return [key for key in BLENDED_SETTINGS if any(key in style.model_config for style in styles)]


def _values(styles: Sequence[StyleData], key: str) -> list[float]:
    """A setting of each; of a style that is older than the setting, the default, with which it has always been played."""
    from stylestream.draw import DrawConfig

    return [style.model_config.get(key, getattr(DrawConfig, key)) for style in styles]


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = tensors[0] * shares[0]
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        total += tensor * share
    return total


def related(a: StyleData, b: StyleData) -> bool:
    """Whether two styles are of one family: networks of one shape, trained from one base."""
    return not _different(a.model_config, b.model_config) and distance(a.weights, b.weights) <= FURTHEST


def _different(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*a, *b}) if key not in BLENDED_SETTINGS and a.get(key) != b.get(key)]


def _check_frames(a: StyleData, b: StyleData, what: str) -> None:
    for key in _different(a.feature_config, b.feature_config):
        values = f"{a.feature_config.get(key)!r} and {b.feature_config.get(key)!r}"
        raise ValueError(f"{what}: their frames differ ({key} is {values}); train both with one version of StyleStream")


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """How far two networks' kernels are apart, relative to their sizes: 0 is the same, 1 is strangers."""
    apart, size = 0.0, 0.0
    for key, tensor in a.items():
        if key not in OWN_WEIGHTS and tensor.ndim > 1:
            apart += float((tensor - b[key]).square().sum())
            size += float(tensor.square().sum() + b[key].square().sum())
    return math.sqrt(apart / size) if size else 0.0


def _card(cards: Sequence[Card], shares: Sequence[float], names: Sequence[str]) -> Card:
    """The card of a blend: what it is made of, with the sources and licences of all."""
    percent = [f"{100 * share:.3g} % {_stem(name)}" for share, name in zip(shares, names, strict=True)]
    one: dict[str, Any] = {key: _agreed([getattr(card, key) for card in cards]) for key in ("author", "licence", "training_device")}
    return Card(title=" + ".join(percent), description="A blend of " + ", ".join(percent) + ".", sources=_sources(cards), **one)


def _agreed(values: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


def _sources(cards: Sequence[Card]) -> tuple[Source, ...]:
    return tuple(dict.fromkeys(source for card in cards for source in card.sources))
