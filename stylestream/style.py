"""The style file: weights, configs and card in one ``.safetensors``; its network; and where styles are found.

A style file is a safetensors file [1]_: eight bytes of header length, a JSON header, tensors. Weights are kept in float16.
Everything else is one JSON text in the header's metadata under the key ``stylestream``: format version, package version, feature
config, model config, card, and the ids and melody fingerprints of the training songs, by which an evaluation refuses songs that
the style has seen; and how wide its music is (``width.py``), where that was measured. A style with a drum layer (``drums.py``) has it in
tensors of its own, whole numbers that are kept as they are.

Loading executes nothing: JSON and plain tensors are all there is. Every size is checked before memory is taken: a network is given its
sizes before it is given memory, so that a file that asks for a terabyte gets one line. A file that is wrong, truncated, newer than this
package, or a pickle raises ``ValueError`` with one line that says so.

A style is named by a path, by the name of a bundled style, or by the name of one installed in the user's style folder, in this
order. Reading a card or listing styles does not import torch.

References
----------
.. [1] https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import base64
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stylestream import __version__
from stylestream.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stylestream.draw import Draw, DrawConfig
    from stylestream.features import FeatureConfig

    Config = TypeVar("Config", FeatureConfig, DrawConfig)
    Network = TypeVar("Network", bound=nn.Module)

FORMAT_VERSION = 3  # 1 had no drums, and 2 no packed fingerprints; a style without them is still written so, for readers of that time
HASH_BYTES = 6  # of a melody's hash in a packed fingerprint
DRUMS = "drums."  # what the names of a drum layer's tensors begin with
SUFFIX = ".safetensors"
MAX_FILE_BYTES = 64 * 2**20  # sixteen times what a bundled style may be: a file beyond it is not a style
MAX_HEADER_BYTES = 16 * 2**20
MAX_STEPS = 64  # of a network: a hostile style file must not run for ever
# What a network's settings may be. The sizes of a file must be those of its weights; what no weight tells, and takes time, is bounded here.
_SIZES = ("n_bins", "styles", "latents", "patch_bins", "patch_frames", "view_channels", "canvas_channels", "encoder_channels")
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys((*_SIZES, "decoder_channels", "style_dim", "mix_groups", "texture_latents"), (1, 2**30)),
    **dict.fromkeys(("clip_channels", "texture_channels", "postnet_channels"), (0, 2**30)),
    **dict.fromkeys(("view_blocks", "texture_blocks"), (0, 64)),
    **dict.fromkeys(("scale_db", "texture_scale_db", "range_db"), (1e-3, 1e3)),
    "steps": (1, MAX_STEPS),
    "glimpse": (2, 1024),
    "window_frames": (2, 4096),
    "beta": (0, 1e3),
    "grain_power": (0, 64),
    "partial_lift": (0, 1),
    "phase_iterations": (0, 64),
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PAINTS_TONES = "it paints tones: no drums, no words"  # among the limits of a style without a drum layer


@dataclass(frozen=True)
class Source:
    """One source of training songs, and the licence they came under."""

    name: str
    licence: str = "unknown"
    songs: int = 0
    hours: float = 0.0
    address: str = ""


@dataclass(frozen=True)
class Card:
    """What a style is, where it comes from, and how well it does. Shown by ``stylestream styles show``."""

    title: str
    description: str = ""
    author: str = ""
    licence: str = "unknown"
    sources: tuple[Source, ...] = ()
    training_minutes: float = 0.0
    training_steps: int = 0
    training_device: str = ""
    # row of the quality table → column → value; rows are named as in the table ("this style", "copy the song", …)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: str = ""
    intended_use: str = ""
    limits: str = ""

    @property
    def hours(self) -> float:
        """Hours of training music, all sources together."""
        return sum(source.hours for source in self.sources)


@dataclass(frozen=True)
class StyleData:
    """A style file in memory: plain tensors (float32), plain dicts."""

    weights: dict[str, Tensor]
    model_config: dict[str, Any]
    feature_config: dict[str, Any]
    card: Card
    fingerprints: dict[str, list[int]]  # training song id → hashes of its melody; empty where none was taken
    package_version: str
    drums: dict[str, Tensor] = field(default_factory=dict)  # as `drums.DrumLayer.tensors`; empty: the style has none
    widths: tuple[float, ...] = ()  # of its music, in `width.OCTAVES_HZ`; empty: not known


@dataclass(frozen=True)
class StyleEntry:
    """One line of ``stylestream styles``. ``card`` is None where the file cannot be read; then ``problem`` says why."""

    name: str
    path: Path
    bundled: bool
    size_bytes: int
    card: Card | None
    problem: str = ""


# ---------------------------------------------------------------------------------------------------------------- writing


def save_style(
    path: str | Path,
    model_state: Mapping[str, Tensor],
    *,
    model_config: Mapping[str, Any],
    feature_config: Mapping[str, Any],
    card: Card,
    fingerprints: Mapping[str, Sequence[int]] | None = None,
    drums: Mapping[str, Tensor] | None = None,
    widths: Sequence[float] = (),
) -> Path:
    """Write a style file, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``; an existing file is replaced.
    model_state : mapping of str to Tensor
        The model's ``state_dict()``. Floating-point weights are stored as float16.
    model_config, feature_config : mapping
        Arguments of the constructors, JSON types only.
    card : Card
        Title, licence, corpus, metrics.
    fingerprints : mapping of str to sequence of int, optional
        For every training song its id and the hashes of its melody.
    drums : mapping of str to Tensor, optional
        `drums.DrumLayer.tensors`.
    widths : sequence of float, optional
        How wide the training music is (`width.Widths`).

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    ValueError
        If the name does not end in ``.safetensors``, a weight is not finite in float16, a config is not JSON, or widths are none.
    OSError
        If the file cannot be written.
    """
    from safetensors.torch import save

    from stylestream.width import checked

    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"a style file's name ends in {SUFFIX}, {path.name!r} does not")
    heard = {song: _packed([int(h) for h in hashes]) for song, hashes in (fingerprints or {}).items()}
    packed = any(isinstance(hashes, str) for hashes in heard.values())
    metadata = {
        "format_version": FORMAT_VERSION if packed else 2 if drums else 1,
        "package_version": __version__,
        "model_config": dict(model_config),
        "feature_config": dict(feature_config),
        "card": asdict(card),
        "fingerprints": heard,
    }
    if widths:  # readers that do not know them pass them over
        metadata["widths"] = [*checked([float(value) for value in widths])]
    weights = {name: _half(name, tensor) for name, tensor in sorted(model_state.items())}
    weights |= {DRUMS + name: tensor.contiguous().clone() for name, tensor in sorted((drums or {}).items())}
    # One key: the order of several would differ from run to run, and equal styles would be unequal files.
    data = save(weights, metadata={"stylestream": _to_json(metadata)})
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return path


def update_card(path: str | Path, **changes: Any) -> Path:
    """Change fields of a style file's card; the weights stay as they are, bit for bit.

    Parameters
    ----------
    changes
        Fields of `Card`, as ``metrics={…}``.

    Raises
    ------
    ValueError
        If it is not a style file.
    TypeError
        If the card has no such field.
    """
    return _changed(path, changes)


def update_drums(path: str | Path, drums: Mapping[str, Tensor] | None, **changes: Any) -> Path:
    """Give a style file another drum layer (None: none), and change fields of its card; the weights stay as they are, bit for bit.

    Raises as `update_card`.
    """
    return _changed(path, changes, drums=drums)


def update_widths(path: str | Path, widths: Sequence[float]) -> Path:
    """Say in a style file how wide its music is (`width.Widths`; empty: not known); all else stays as it is, bit for bit.

    Raises ValueError if it is not a style file.
    """
    return _changed(path, {}, widths=tuple(widths))


def _changed(path: str | Path, changes: Mapping[str, Any], **parts: Any) -> Path:
    data = replace(load_style_file(path), **parts)
    kept = {name: getattr(data, name) for name in ("model_config", "feature_config", "fingerprints", "drums", "widths")}
    return save_style(path, data.weights, card=replace(data.card, **changes), **kept)


def _half(name: str, tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor.clone()
    half = tensor.half()
    if not half.isfinite().all():
        raise ValueError(f"weight {name!r} is not finite in float16; the training diverged, train again with a smaller learning rate")
    return half.clone()


def _to_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a style's configs and card must be plain JSON values: {error}") from None


# ---------------------------------------------------------------------------------------------------------------- reading


def load_style_file(path: str | Path) -> StyleData:
    """Read a style file, checking everything that can be checked.

    Parameters
    ----------
    path : str or Path
        A style file; `find_style` makes a path of a name.

    Returns
    -------
    StyleData
        Weights in float32, on the CPU.

    Raises
    ------
    ValueError
        If the file is not a style file, is truncated, is newer than this package, or is a pickle.
    OSError
        If the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    metadata = _read_metadata(path)
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: the weights are damaged ({_one_line(error)}); get the style file again") from None
    drums = {name.removeprefix(DRUMS): tensors.pop(name) for name in [*tensors] if name.startswith(DRUMS)}
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: weight {broken[0]!r} is not finite; get the style file again")
    return StyleData(
        weights=weights,
        model_config=_table(metadata, "model_config", path),
        feature_config=_table(metadata, "feature_config", path),
        card=_card(metadata, path),
        fingerprints=_fingerprints(metadata, path),
        package_version=str(metadata.get("package_version", "")),
        drums=drums,
        widths=_widths(metadata, path),
    )


def read_card(path: str | Path) -> Card:
    """Read only the card of a style file; the weights stay on the disk. Raises as `load_style_file`."""
    return _card(_read_metadata(Path(path)), Path(path))


def has_drums(path: str | Path) -> bool:
    """Whether a style file has a drum layer, from its header alone. Raises as `load_style_file`."""
    return any(name.startswith(DRUMS) for name in _read_header(Path(path)))


def read_widths(path: str | Path) -> tuple[float, ...]:
    """Read only how wide a style's music is; empty where the file does not say. Raises as `load_style_file`."""
    return _widths(_read_metadata(Path(path)), Path(path))


def has_widths(path: str | Path) -> bool:
    """Whether a style's music has any width, from its file's header alone. Raises as `read_card`."""
    found = _read_metadata(Path(path)).get("widths")
    return isinstance(found, list) and any(found)


def _read_metadata(path: Path) -> dict[str, Any]:
    header = _read_header(path)
    text = header.get("__metadata__")
    text = text.get("stylestream") if isinstance(text, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"{path}: a safetensors file, but not a style; styles are made by `stylestream train`")
    metadata = _parse(text, path)
    version = metadata.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{path}: not a style file (format version {version!r})")
    if version > FORMAT_VERSION:
        made_by = str(metadata.get("package_version", "a newer version"))[:40]
        raise ValueError(
            f"{path}: made by StyleStream {made_by} in style format {version}, this is {__version__} and reads format {FORMAT_VERSION}; "
            "upgrade with: pip install --upgrade stylestream"
        )
    return metadata


def _read_header(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not a style file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such style file; see `stylestream styles`")
    with open(path, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        start = file.read(8)
        header_bytes = _header_bytes(path, start, size_bytes)
        if 8 + header_bytes > size_bytes:
            raise ValueError(f"{path}: truncated, or not a style file; get it again")
        text = file.read(header_bytes)
    header = _parse(text, path)
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__" and _has_offsets(tensor)]
    if 8 + header_bytes + max(ends, default=0) > size_bytes:
        raise ValueError(f"{path}: truncated ({size_bytes} bytes of {8 + header_bytes + max(ends)}); get the style file again")
    return header


def _header_bytes(path: Path, start: bytes, size_bytes: int) -> int:
    if size_bytes == 0:
        raise ValueError(f"{path}: empty, not a style file")
    header_bytes = int.from_bytes(start, "little")
    # A header of 0x0280 bytes begins like a pickle of protocol 2; only the pickle goes on to be an absurd length.
    wrong = len(start) < 8 or header_bytes > MAX_HEADER_BYTES
    if wrong and (start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))):
        raise ValueError(f"{path}: a pickle or zip (torch.save), not a style file; pickles can run code and are never loaded")
    if wrong:
        raise ValueError(f"{path}: not a style file")
    if size_bytes > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {size_bytes / 2**20:.0f} MiB, a style file has at most {MAX_FILE_BYTES // 2**20} MiB")
    return header_bytes


def _has_offsets(tensor: Any) -> bool:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(offset, int) for offset in offsets)


def _parse(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # ValueError covers bad JSON, bad UTF-8 and absurdly long integers
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a style file")
    return value


def _table(metadata: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = metadata.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a complete style file ({key} is missing)")
    return value


def _card(metadata: dict[str, Any], path: Path) -> Card:
    values = _table(metadata, "card", path)
    try:
        sources = tuple(Source(**_known(Source, source)) for source in values.get("sources") or ())
        metrics = {row: {name: _number(value) for name, value in columns.items()} for row, columns in (values.get("metrics") or {}).items()}
        return Card(**{**_known(Card, values), "sources": sources, "metrics": metrics})
    except (TypeError, AttributeError, ValueError, OverflowError):
        raise ValueError(f"{path}: not a complete style file (the card is damaged)") from None


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values a dataclass has a field for, of the type the field's default has; later versions may add fields."""
    known = {f.name: f for f in fields(kind) if f.name in values and f.name not in ("sources", "metrics")}
    return {name: _number(values[name]) if f.type in ("int", "float") else _text(values[name]) for name, f in known.items()}


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"not a number: {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}")
    return value


def _packed(hashes: list[int]) -> str | list[int]:
    """A fingerprint in base 64, a third shorter: a base of thousands of songs has to fit. The numbers where one is too large."""
    if not hashes or any(not 0 <= h < 256**HASH_BYTES for h in hashes):
        return hashes
    return base64.b64encode(b"".join(h.to_bytes(HASH_BYTES, "little") for h in hashes)).decode()


def _unpacked(hashes: object) -> list[int]:
    if isinstance(hashes, str):
        data = base64.b64decode(hashes, validate=True)
        if len(data) % HASH_BYTES:
            raise ValueError("it ends within a hash")
        return [int.from_bytes(data[i : i + HASH_BYTES], "little") for i in range(0, len(data), HASH_BYTES)]
    if not isinstance(hashes, list) or not all(isinstance(h, int) for h in hashes):
        raise ValueError("neither numbers nor packed")
    return hashes


def _fingerprints(metadata: dict[str, Any], path: Path) -> dict[str, list[int]]:
    try:
        return {song: _unpacked(hashes) for song, hashes in _table(metadata, "fingerprints", path).items()}
    except ValueError as error:
        raise ValueError(f"{path}: not a complete style file (the fingerprints are damaged: {error})") from None


def _widths(metadata: dict[str, Any], path: Path) -> tuple[float, ...]:
    if "widths" not in metadata:
        return ()
    from stylestream.width import checked

    try:
        return checked(metadata["widths"])
    except ValueError as error:
        raise ValueError(f"{path}: not a complete style file ({error})") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


# -------------------------------------------------------------------------------------------------------- its network


def network_of(data: StyleData, where: str) -> Draw:
    """The network of a style, with its weights.

    Parameters
    ----------
    where : str
        What the style is called in messages: a path, or names.

    Raises
    ------
    ValueError
        If it is a baseline's and no style's, its settings are not a network's, or the weights or frames do not fit it.
    """
    from stylestream.draw import DrawConfig

    if "model" in data.model_config:  # a network of another kind says so; DrawConfig has no such field
        kind = str(data.model_config["model"])[:40]
        raise ValueError(f"{where}: a baseline ({kind}), not a style; `stylestream evaluate --baselines FOLDER` compares styles with it")
    check_settings(data.model_config, where, remedy="; get the style file again")
    config = _from_table(DrawConfig, data.model_config, where)
    rows = features_of(data, where).n_bins
    if config.n_bins != rows:
        raise ValueError(f"{where}: a network of {config.n_bins} rows, frames of {rows}; get the style file again")
    for name, weight in data.weights.items():
        if not weight.is_floating_point():
            raise ValueError(f"{where}: weight {name[:40]!r} is of {weight.dtype}, not of floating point; get the style file again")
    return _fitted(config, data, where)


def check_settings(table: Mapping[str, Any], where: str, *, remedy: str = "") -> None:
    """Refuse settings of a network (`DrawConfig`) that none can have; what is no number is left to others.

    Raises
    ------
    ValueError
        For the first that is outside its range.
    """
    for name, (low, high) in _RANGES.items():
        value = table.get(name, low)
        if isinstance(value, (int, float)) and not low <= value <= high:
            raise ValueError(f"{where}: {name} is {str(value)[:40]}; it must be from {low:g} to {high:g}{remedy}")


def check_room(config: DrawConfig, where: str) -> None:
    """Refuse a network that no style file has room for, before it takes memory and hours.

    Raises
    ------
    ValueError
        Names the setting that is furthest above the usual.
    """
    import torch

    from stylestream.draw import Draw

    try:
        with torch.device("meta"):  # sizes only
            weights = sum(tensor.numel() for tensor in Draw(config).state_dict().values())
    except RuntimeError:  # of the product of two sizes: more than it can count
        weights = sys.maxsize
    room = MAX_FILE_BYTES // 2  # in float16
    if weights > room:
        above = {f.name: getattr(config, f.name) / max(f.default, 1) for f in fields(config) if type(f.default) is int}
        name = max(above, key=lambda key: above[key])
        size = f"{weights / 1e6:,.0f} million weights, and a style file has room for {room / 1e6:.0f} million"
        raise ValueError(f"{where}: {name} is {getattr(config, name)}: a network of {size}; lower it")


def network_of_kind(data: StyleData, kind: str, build: Callable[..., Network], where: str, *, remedy: str) -> Network:
    """The network of a file that holds another kind than a style's, as its ``model`` says: an embedding, a baseline.

    Parameters
    ----------
    build : function of the settings → network
        JSON's lists come as tuples.
    where : str
        What the file is called in messages.
    remedy : str
        What makes such a file.

    Returns
    -------
    nn.Module
        As it is asked: in evaluation mode, without gradients.

    Raises
    ------
    ValueError
        If it is of another kind, or settings and weights do not belong together.
    """
    import torch

    if data.model_config.get("model") != kind:
        raise ValueError(f"{where} holds no {kind} network; {remedy}")
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in data.model_config.items() if key != "model"}
    try:
        with torch.device("meta"):  # sizes only, as of a style
            network = build(**settings)
        network.load_state_dict(data.weights, assign=True)
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: weights and settings do not belong together ({_one_line(error)[:80]}); get the file again") from None
    return network.eval().requires_grad_(False)


def features_of(data: StyleData, where: str) -> FeatureConfig:
    """What a style's frames are. Raises ValueError as `network_of`, and if they are not those of this version."""
    from stylestream.features import FeatureConfig

    config = _from_table(FeatureConfig, data.feature_config, where)
    if config != FeatureConfig():  # of all others none was ever tried, and some never end
        raise ValueError(f"{where}: its frames are not those of this StyleStream; get a style file of this version, or train it anew")
    return config


def _fitted(config: DrawConfig, data: StyleData, where: str) -> Draw:
    import torch

    from stylestream.draw import Draw

    try:
        with torch.device("meta"):  # sizes only: a config that asks for a terabyte gets none
            draw = Draw(config)
        draw.load_state_dict(data.weights, assign=True)
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{where}: the weights do not fit the network they are for ({reason}); get the style file again") from None
    return draw


def _from_table(kind: type[Config], table: Mapping[str, Any], where: str) -> Config:
    """A config dataclass from a style file's table; a stranger's file, so names and types are checked."""
    known = {f.name: type(f.default) for f in fields(kind)}
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"{where}: unknown setting {name!r} in {kind.__name__}; upgrade with: pip install --upgrade stylestream")
        fits = isinstance(value, (int, float)) if known[name] is float else isinstance(value, known[name])
        if not fits or isinstance(value, bool):
            raise ValueError(f"{where}: {name} is {value!r}, not a {known[name].__name__}; get the style file again")
    try:
        return kind(**table)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: {error}; get the style file again") from None


# ---------------------------------------------------------------------------------------------------------------- finding


def bundled_folder() -> Path:
    """Return the folder of the styles that come with the package."""
    return Path(__file__).parent / "styles"


def base_path() -> Path:
    """The bundled base: a network of many styles, to start a new one from. Raises ValueError if this installation has none."""
    path = bundled_folder() / "base" / "base.safetensors"
    if not path.is_file():
        raise ValueError("no base is bundled with this installation; a recording as a style, and `train` but for --from none, need it")
    return path


def user_folder() -> Path:
    """Return the user's style folder: ``$STYLESTREAM_STYLES``, else the platform's folder for application data. It may not exist."""
    if os.environ.get("STYLESTREAM_STYLES"):
        return Path(os.environ["STYLESTREAM_STYLES"]).expanduser()
    from platformdirs import user_data_path

    return user_data_path("stylestream", appauthor=False) / "styles"


def find_style(name_or_path: str | Path) -> Path:
    """Make a path of a style's name.

    Parameters
    ----------
    name_or_path : str or Path
        A path to a style file, the name of a bundled style, or the name of a style in the user's folder.

    Returns
    -------
    Path
        An existing file; it has not been read yet.

    Raises
    ------
    FileNotFoundError
        If a path is given and nothing is there.
    ValueError
        If no style has this name; the message names the nearest.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(SUFFIX) or os.sep in text:
        if not Path(text).exists():
            raise FileNotFoundError(f"{text}: no such style file; see `stylestream styles`")
        return Path(text)
    paths = _named_paths()
    if text in paths:
        return paths[text]
    if Path(text).is_file():
        return Path(text)
    raise ValueError(unknown_style(text, list(paths)))


def unknown_style(name: str, known: Sequence[str]) -> str:
    """Return the line for a style that does not exist, with the nearest name.

    >>> unknown_style("rokc", ["piano", "rock"])
    "unknown style 'rokc'; did you mean 'rock'? Installed: piano, rock; see `stylestream styles`"
    """
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown style {name[:80]!r}{guess} Installed: {', '.join(known) or 'none'}; see `stylestream styles`"


def list_styles() -> list[StyleEntry]:
    """List bundled and installed styles, by name, bundled first. A file that cannot be read is listed with its problem."""
    bundled = bundled_folder()
    return [_entry(name, path, bundled=path.parent == bundled) for name, path in _named_paths().items()]


def _named_paths() -> dict[str, Path]:
    bundled = {path.stem: path for path in sorted(bundled_folder().glob(f"*{SUFFIX}"))}
    user = {path.stem: path for path in _installed() if not path.name.startswith(".")}
    return {**bundled, **{name: path for name, path in user.items() if name not in bundled}}


def _installed() -> list[Path]:
    try:
        return sorted(user_folder().glob(f"*{SUFFIX}"))
    except OSError:  # a folder that may not be read, as under another user's HOME: the bundled styles are still there
        return []


def _entry(name: str, path: Path, *, bundled: bool) -> StyleEntry:
    try:
        card, problem = read_card(path), ""
    except (ValueError, OSError) as error:
        card, problem = None, _one_line(error)
    return StyleEntry(name, path, bundled, path.stat().st_size if path.exists() else 0, card, problem)


def install_style(source: str | Path, *, force: bool = False) -> Path:
    """Copy a style file into the user's style folder, after reading all of it.

    Returns
    -------
    Path
        Where it lies; the file's name without suffix is the style's name.

    Raises
    ------
    ValueError
        If it is not a style file, or not of a network that can play; if its name cannot be a style's, or belongs to a bundled style.
    FileExistsError
        If a style of this name is installed and ``force`` is not given.
    """
    from stylestream.recipes import AUDIO_SUFFIXES, SCORE_SUFFIXES

    source = Path(source)
    network_of(load_style_file(source), str(source))  # a file that cannot be played is not a style
    name = source.name[: -len(SUFFIX)] if source.suffix == SUFFIX else source.name
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a style's name: letters, digits, '-', '_', '.' only; rename the file")
    if name.lower().endswith((*AUDIO_SUFFIXES, *SCORE_SUFFIXES)):
        raise ValueError(f"{name!r} would be taken for a recording, not for a style; rename the file")
    if (bundled_folder() / f"{name}{SUFFIX}").exists():
        raise ValueError(f"{name!r} is the name of a bundled style; rename the file")
    target = user_folder() / f"{name}{SUFFIX}"
    if target.exists() and not force:
        raise FileExistsError(f"{target}: a style of this name is installed; use --force to replace it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        temporary.write_bytes(source.read_bytes())
    return target


def remove_style(name: str) -> Path:
    """Remove a style from the user's folder; bundled styles stay. Raises ValueError if there is none of this name."""
    target = user_folder() / f"{name}{SUFFIX}"
    if _NAME.fullmatch(name) and target.is_file():
        target.unlink()
        return target
    if (bundled_folder() / f"{name}{SUFFIX}").exists():
        raise ValueError(f"{name!r} is bundled with StyleStream and cannot be removed")
    raise ValueError(unknown_style(name, [n for n, path in _named_paths().items() if path.parent == user_folder()]))
