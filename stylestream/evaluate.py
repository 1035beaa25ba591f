"""Songs + styles → report: how far a style gets, beside what it has to beat.

The *reduction protocol*. A held-out MIDI piece of the style, an excerpt chosen by hash. The **song** is its piano reduction (for the
style piano: other instruments), played with a SoundFont that training never heard. The **truth** is the piece itself as the style plays
it, with the SoundFont of training. Every row of the table makes something of the song and is compared with the truth:

    copy < equalise, plain, lstm2017 < STYLE < ceiling          (ceiling: the truth's frames through the vocoder)

The headline is *way*: the part of the way from copy to ceiling on log-mel L1. Drums are in neither song nor truth; a second table has
the truth with its drums. Intervals are 95 % bootstraps over pieces. A NaN is reported, never averaged away: its mean is null.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylestream import __version__, baselines, dataset, metrics
from stylestream.dataset import Piece, StyleRecipe

if TYPE_CHECKING:
    from rich.console import Console

Array = NDArray[np.floating]
Row = Callable[[Array, Array], Array]  # (song, truth) → result, all (C, N)
Scores = dict[str, float]

SAMPLE_RATE = metrics.SAMPLE_RATE
OF_THE_TRUTH = ("ceiling", "truth")  # rows made from it
COLUMNS = {  # metric: heading
    "log_mel_l1": "log-mel L1, dB",
    "lsd": "LSD, dB",
    "mfcc": "MFCC distance",
    "centroid": "centroid, st",
    "chroma": "chroma cosine",
    "note_auc": "note AUC",
    "flux": "flux corr.",
    "modulation_2_5": "2–5 Hz, dB",
    "modulation_5_10": "5–10 Hz, dB",
    "modulation_10_20": "10–20 Hz, dB",
    "modulation_20_43": "20–43 Hz, dB",
    "onset_f1": "onset F1",
}


@dataclass(frozen=True)
class Protocol:
    """What is compared."""

    pieces: int = 10
    seconds: float = 20.0
    start: float = 0.25  # of the piece: past the introduction
    min_notes: int = 20  # in the excerpt
    song_soundfont: str = "musescore"  # never used in training
    truth_soundfont: str = "fluidr3"
    seed: int = 0  # of the transfer and the bootstrap
    resamples: int = 2000


QUICK = Protocol(pieces=4, seconds=8.0)


@dataclass(frozen=True)
class Excerpt:
    """A passage of a held-out piece."""

    piece: Piece
    content: bytes
    start_seconds: float
    seconds: float


# --- which passages ----------------------------------------------------------------------------------------------------------------


def excerpts(
    source: str | Path, style: str, protocol: Protocol = Protocol(), *, split: dataset.Split = "test"
) -> tuple[list[Excerpt], dict[str, str]]:
    """The first held-out passages of a style by hash, and why other pieces were passed over.

    Parameters
    ----------
    source : path
        A collection (``midi.csv`` beside ``midi.tar.xz``): its test split. Any other folder of MIDI files: all of them.
    split : "test", "valid" or "train"
        Of a collection. Settings are chosen on "valid", so that "test" chooses nothing.

    Raises
    ------
    ValueError
        If no piece can be used.
    """
    source = Path(source)
    source = source.parent if source.name in ("midi.csv", "midi.tar.xz") else source
    collection = dataset.pieces(source, style)
    recipe = dataset.recipe_of(style)
    candidates = dataset.select(collection, 4 * protocol.pieces, split=split) if (source / "midi.csv").is_file() else by_hash(collection)
    contents = {piece.path: content for piece, content in dataset.read_pieces(source, candidates)}
    chosen: list[Excerpt] = []
    refused: dict[str, str] = {}
    for piece in candidates:
        try:
            chosen.append(_excerpt(piece, contents.get(piece.path, b""), recipe, protocol))
        except ValueError as error:
            refused[piece.path] = str(error)
        if len(chosen) == protocol.pieces:
            break
    if not chosen:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(refused.items())[:3])
        raise ValueError(f"no held-out piece for style {style!r} in {source}" + (f" ({reasons})" if reasons else ""))
    return chosen, refused


def by_hash(collection: Sequence[Piece]) -> list[Piece]:
    """Pieces in the order of a hash of their paths: an order nobody chose."""
    return sorted(collection, key=lambda piece: hashlib.sha256(piece.path.encode()).hexdigest())


def _excerpt(piece: Piece, content: bytes, recipe: StyleRecipe, protocol: Protocol) -> Excerpt:
    from stylestream import midi

    score = dataset.target_score(midi.load_score(content), recipe)
    whole = midi.duration_seconds(score)
    start = 0.0 if whole <= protocol.seconds else min(protocol.start * whole, whole - protocol.seconds)
    excerpt = Excerpt(piece, content, start, min(protocol.seconds, whole))
    found = int((notes_of(score, excerpt)["onset_seconds"] >= 0).sum())
    if found < protocol.min_notes:
        raise ValueError(f"{found} notes in the excerpt; at least {protocol.min_notes} are needed")
    return excerpt


def notes_of(score: Any, excerpt: Excerpt) -> NDArray[Any]:
    """Notes sounding in the excerpt, seconds from its start."""
    from stylestream import midi

    notes = midi.notes(score).copy()
    notes["onset_seconds"] -= excerpt.start_seconds
    notes["offset_seconds"] -= excerpt.start_seconds
    return notes[(notes["offset_seconds"] > 0) & (notes["onset_seconds"] < excerpt.seconds)]


def song_score(target: Any, content: bytes, recipe: StyleRecipe) -> Any:
    """What the song plays: the notes of the truth on the piano, or on instruments drawn by the piece's hash."""
    from stylestream import midi

    if recipe.source == "piano":
        return midi.piano_reduction(target)
    return midi.random_orchestration(target, np.random.default_rng(list(hashlib.sha256(content).digest())))


# --- rendering, cached -------------------------------------------------------------------------------------------------------------


class Renderer:
    """Scores → waveforms; a render is kept as FLAC under a hash of everything it depends on. SoundFonts load when first needed."""

    def __init__(self, cache: str | Path) -> None:
        self.cache = Path(cache)
        self.synthesizers: dict[str, Any] = {}

    def render(self, score: Any, soundfont: str, excerpt: Excerpt) -> Array:
        """The excerpt of a score, (2, N) at 44.1 kHz."""
        from stylestream import midi

        font = midi.find_soundfont(soundfont)
        size = round(excerpt.seconds * SAMPLE_RATE)
        key = (score.dumps_midi(), font.name, font.stat().st_size, excerpt.start_seconds, size, "1")
        path = self.cache / (hashlib.sha256(repr(key).encode()).hexdigest()[:32] + ".flac")
        if path.is_file():
            return self._read(path)
        if soundfont not in self.synthesizers:
            self.synthesizers[soundfont] = midi.Synthesizer(font)
        y = self.synthesizers[soundfont].render(score, start_seconds=excerpt.start_seconds, max_seconds=excerpt.seconds)[:, :size]
        y = np.pad(y, ((0, 0), (0, size - y.shape[1])))
        self._write(path, y)
        return self._read(path)  # the first run hears what the second will

    @staticmethod
    def _read(path: Path) -> Array:
        import soundfile

        return soundfile.read(path, dtype="float32", always_2d=True)[0].T

    @staticmethod
    def _write(path: Path, y: Array) -> None:
        import soundfile

        from stylestream.files import whole_file

        path.parent.mkdir(parents=True, exist_ok=True)
        peak = float(np.abs(y).max(initial=0.0))
        with whole_file(path) as temporary:  # 24 bits under full scale: what a metric's floor of −80 dB cannot hear
            soundfile.write(temporary, (y * min(1.0, 0.99 / max(peak, 1e-9))).T, SAMPLE_RATE, format="FLAC", subtype="PCM_24")


def default_cache() -> Path:
    """Where renders are kept: the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("stylestream")) / "renders"


# --- the rows ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contenders:
    """What is compared with what: paths of the style and of the two trained baselines (None: not trained)."""

    name: str
    style: Path
    plain: Path | None
    lstm2017: Path | None

    @classmethod
    def find(cls, style: str | Path, folder: str | Path | None = None) -> Contenders:
        """A style, and its ``NAME-plain.safetensors`` and ``NAME-lstm2017.safetensors``.

        Parameters
        ----------
        folder : path, optional
            Where the baselines lie. When not given: ``baselines/`` beside the style, then ``benchmarks/baselines/`` here, which is
            where a checkout has those of the bundled styles (they are no styles, so the package does not carry them).

        Raises
        ------
        ValueError
            If there is no such style, or ``folder`` is none.
        """
        from stylestream.style import find_style

        path = find_style(style)
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder of baselines; leave --baselines out to do without them")
        folders = [Path(folder)] if folder is not None else [path.parent / "baselines", Path("benchmarks", "baselines")]

        def there(kind: str) -> Path | None:
            files = (place / f"{path.stem}-{kind}.safetensors" for place in folders)
            return next((file for file in files if file.is_file()), None)

        return cls(path.stem, path, there("plain"), there("lstm2017"))

    def missing(self) -> list[str]:
        """Baselines that have no file."""
        return [kind for kind in ("plain", "lstm2017") if getattr(self, kind) is None]


def rows_of(contenders: Contenders, seed: int = 0) -> dict[str, Row]:
    """Every row of the table as a function of song and truth."""
    from stylestream.style import load_style_file

    weights = load_style_file(contenders.style).weights
    if "mean_frames" not in weights:
        raise ValueError(f"{contenders.style}: the style has no mean spectrum to equalise to; train it again with `stylestream train`")
    mean = weights["mean_frames"].reshape(-1, weights["mean_frames"].shape[-1])[0].numpy()
    rows: dict[str, Row] = {
        "copy": lambda song, truth: baselines.copy(song),
        "equalise": lambda song, truth: baselines.equalise(song, mean),
    }
    if contenders.plain is not None:
        rows["plain"] = _transfer_row(contenders.plain, seed)
    if contenders.lstm2017 is not None:
        model = baselines.load_lstm2017(load_style_file(contenders.lstm2017))
        rows["lstm2017"] = lambda song, truth: baselines.lstm2017(song, model)
    rows[contenders.name] = _transfer_row(contenders.style, seed)
    rows["ceiling"] = baselines.ceiling
    rows["truth"] = lambda song, truth: truth  # perfect but where the score is asked: the estimators' own values
    return rows


def _transfer_row(path: Path, seed: int) -> Row:
    from stylestream.transfer import load_style

    style = load_style(path)
    return lambda song, truth: style.transfer(song, SAMPLE_RATE, seed=seed)


class Judge:
    """Excerpt → scores of every row. Holds models and SoundFonts; one per process."""

    def __init__(self, contenders: Contenders, recipe: str, protocol: Protocol, cache: Path) -> None:
        self.recipe, self.protocol = dataset.recipe_of(recipe), protocol
        self.renderer, self.rows = Renderer(cache), rows_of(contenders, protocol.seed)

    def score(self, excerpt: Excerpt) -> dict[str, Any]:
        """``rows`` and, where the piece has drums, ``with_drums``: row → metric → value; ``warnings``."""
        from stylestream import midi

        score = midi.load_score(excerpt.content)
        target = dataset.target_score(score, self.recipe)
        song = self.renderer.render(song_score(target, excerpt.content, self.recipe), self.protocol.song_soundfont, excerpt)
        truth = self.renderer.render(target, self.protocol.truth_soundfont, excerpt)
        truths = {"rows": truth}
        if any(track.is_drum and len(track.notes) for track in score.tracks):
            full = dataset.target_score(score, self.recipe, drums=True)
            truths["with_drums"] = self.renderer.render(full, self.protocol.truth_soundfont, excerpt)
        notes = notes_of(target, excerpt)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = {name: metrics.prepare(row(song, truth)) for name, row in self.rows.items() if name not in OF_THE_TRUTH}
            tables = {key: self._table(song, truth, results, notes) for key, truth in truths.items()}
        said = sorted({str(warning.message) for warning in caught})
        return {"path": excerpt.piece.path, "start_seconds": excerpt.start_seconds, "seconds": excerpt.seconds, "warnings": said, **tables}

    def _table(self, song: Array, truth: Array, results: dict[str, metrics.Sound], notes: NDArray[Any]) -> dict[str, Scores]:
        reference = metrics.prepare(truth)
        own = {name: metrics.prepare(self.rows[name](song, truth)) for name in OF_THE_TRUTH}
        return {name: metrics.compare(reference, result, notes) for name, result in (results | own).items()}


def _score(judge: Judge, excerpt: Excerpt) -> dict[str, Any]:
    return judge.score(excerpt)


# --- many pieces → one report ------------------------------------------------------------------------------------------------------


def evaluate(
    source: str | Path,
    style: str | Path,
    *,
    recipe: str | None = None,
    protocol: Protocol = Protocol(),
    baselines_folder: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Score a style by the reduction protocol.

    Parameters
    ----------
    source : path
        A collection, or a folder of MIDI files (see `excerpts`).
    style : str or path
        A style's name or file.
    recipe : str, optional
        Which of ``dataset.STYLE_RECIPES`` makes the truth; the style's name when not given.
    baselines_folder : path, optional
        See `Contenders.find`.
    cache : path, optional
        Where renders are kept; the user's cache folder when not given.

    Returns
    -------
    dict [JSON types]
        ``rows.{copy,equalise,plain,lstm2017,STYLE,ceiling,truth}.{metric}``: ``mean, low, high, n``; ``way`` by row; ``with_drums``
        with the same two; ``claims``; ``pieces`` with every single score; ``failures``, ``refused``, ``missing``, ``protocol``.

    Raises
    ------
    ValueError
        If the style or its recipe is unknown, there are no held-out pieces, none could be scored, or the style was trained on one.
    """
    from stylestream import parallel

    contenders = Contenders.find(style, baselines_folder)
    recipe = recipe or contenders.name
    chosen, refused = excerpts(source, recipe, protocol)
    _check(contenders, chosen, protocol)
    setup = functools.partial(Judge, contenders, recipe, protocol, Path(cache) if cache is not None else default_cache())
    scored: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for excerpt, result in parallel.over_songs(_score, chosen, setup=setup, jobs=jobs):
        if isinstance(result, ValueError):
            failures[excerpt.piece.path] = str(result)
        else:
            scored.append(result)
        progress(len(scored) + len(failures), len(chosen))
    if not scored:
        raise ValueError("no piece could be scored: " + "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:3]))
    group = {excerpt.piece.path: excerpt.piece.group for excerpt in chosen}
    head = {"style": contenders.name, "recipe": recipe, "protocol": asdict(protocol), "made_with": made_with()}
    rest = {"failures": failures, "refused": refused, "missing": contenders.missing()}
    return head | summarise(sorted(scored, key=lambda piece: piece["path"]), group, contenders.name, protocol) | rest


def _check(contenders: Contenders, chosen: Sequence[Excerpt], protocol: Protocol) -> None:
    """Fail here, with the reason, and not in a worker."""
    from stylestream import midi
    from stylestream.style import load_style_file

    known = load_style_file(contenders.style).fingerprints
    heard = [excerpt.piece.path for excerpt in chosen if dataset.song_id(excerpt.content) in known]
    if heard:
        named = ", ".join(heard[:3]) + (" …" if len(heard) > 3 else "")
        raise ValueError(f"the style was trained on {len(heard)} of these songs ({named}); evaluate on songs it has not heard")
    for name in (protocol.song_soundfont, protocol.truth_soundfont):
        midi.find_soundfont(name)
    rows_of(contenders, protocol.seed)


def made_with() -> dict[str, str | int]:
    """Versions and hardware."""
    import torch

    from stylestream.parallel import cores

    return {
        "stylestream": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": cores(),
    }


def summarise(scored: Sequence[Mapping[str, Any]], group: Mapping[str, str], name: str, protocol: Protocol) -> dict[str, Any]:
    """Scores of single pieces → means with intervals, the part of the way, and the claims."""
    report: dict[str, Any] = table(scored, group, "rows", protocol)
    drummed = [piece for piece in scored if "with_drums" in piece]
    report["with_drums"] = table(drummed, group, "with_drums", protocol) if drummed else None
    report["claims"] = claims(report, name)
    report["pieces"] = _plain_json(list(scored))
    return report


def table(scored: Sequence[Mapping[str, Any]], group: Mapping[str, str], key: str, protocol: Protocol) -> dict[str, Any]:
    """``rows`` (row → metric → mean, low, high, n) and ``way`` (row → the same) of one table."""
    resampled = resample([group[piece["path"]] for piece in scored], protocol.resamples, seed=protocol.seed)
    names = list(scored[0][key])
    values = {name: {metric: np.array([piece[key][name][metric] for piece in scored]) for metric in scored[0][key][name]} for name in names}
    rows = {name: {metric: interval(v, resampled, np.mean) for metric, v in columns.items()} for name, columns in values.items()}
    copied, best = values["copy"]["log_mel_l1"], values["ceiling"]["log_mel_l1"]
    ways = {name: interval(np.stack([copied, columns["log_mel_l1"], best]), resampled, way) for name, columns in values.items()}
    return {"rows": rows, "way": ways}


def way(distances: Array, axis: int = -1) -> Array:
    """Part of the way from copy to ceiling, of mean distances (copy, row, ceiling) along the first axis.

    >>> float(way(np.array([[9.0, 11.0], [5.0, 7.0], [1.0, 3.0]])))
    0.5
    """
    copied, row, best = distances.mean(axis)
    return (copied - row) / (copied - best)


def resample(groups: Sequence[str], resamples: int, *, seed: int = 0) -> list[NDArray[np.intp]]:
    """Bootstrap samples of the pieces, drawn by group: pieces that are the same music come together.

    References
    ----------
    .. [1] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, §8.
    """
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(index == g) for g in range(len(names))]
    return [np.concatenate([members[g] for g in rng.integers(len(names), size=len(names))]) for _ in range(resamples)]


def interval(values: Array, resampled: Iterable[NDArray[np.intp]], statistic: Callable[..., Any]) -> dict[str, float | int | None]:
    """A statistic over pieces (last axis) with its 95 % percentile interval; null, with the count of NaN, where a value is NaN."""
    n = values.shape[-1]
    if np.isnan(values).any():
        return {"mean": None, "low": None, "high": None, "n": n, "nan": int(np.isnan(values).sum())}
    drawn = [statistic(values[..., sample], axis=-1) for sample in resampled]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mean": float(statistic(values, axis=-1)), "low": float(low), "high": float(high), "n": n}


def claims(report: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """What a bundled style promises, each with its value, its bound, and whether it holds (not where a value is null).

    *No ripple*: in no band may the result be modulated more than the truth. Where the ceiling itself is (the truth's own frames,
    brought back with the song's phase, have been seen 0.8 dB above the truth at 20–43 Hz), the ceiling's value is the bound instead
    of 0 dB: that ripple is the vocoder's, and no canvas could avoid it. The claim's note names the band that is worst against its
    bound, and what the ceiling has there.
    """
    rows = {row: {metric: cell["mean"] for metric, cell in columns.items()} for row, columns in report["rows"].items()}
    ours, copied, equalised, truth, ceiling = (_Cells(rows[row]) for row in (name, "copy", "equalise", "truth", "ceiling"))
    flux_least = max(copied["flux"] - 0.05, 0.5) if name == "strings" else copied["flux"] - 0.05
    reached = report["way"][name]["mean"]
    band, ripple, most_ripple = _ripple(ours, ceiling)
    listed = [
        ("part of the way", math.nan if reached is None else reached, ">=", 0.40),
        ("ceiling, log-mel L1 dB", ceiling["log_mel_l1"], "<=", 1.3),
        ("log-mel L1 re equalise", ours["log_mel_l1"] / equalised["log_mel_l1"], "<=", 0.85),
        ("MFCC distance re equalise", ours["mfcc"] / equalised["mfcc"], "<=", 0.85),
        ("chroma", ours["chroma"], ">=", copied["chroma"]),
        ("note AUC", ours["note_auc"], ">=", truth["note_auc"] - 0.02),
        ("flux correlation", ours["flux"], ">=", flux_least),
        ("modulation 2–5 Hz dB", ours["modulation_2_5"], ">=", -3.0),
        ("modulation 5–10 Hz dB", ours["modulation_5_10"], ">=", -8.0),
        ("modulation, worst band dB", ripple, "<=", most_ripple),
    ]
    notes = {"modulation, worst band dB": f"{COLUMNS[band].removesuffix(', dB')}, where the ceiling has {ceiling[band]:+.2f}"}
    return [
        {
            "claim": claim,
            "value": _number(value),
            "sign": sign,
            "bound": _number(bound),
            "holds": value >= bound if sign == ">=" else value <= bound,
            "note": notes.get(claim, ""),
        }
        for claim, value, sign, bound in listed
    ]


def _ripple(ours: Mapping[str, float], ceiling: Mapping[str, float]) -> tuple[str, float, float]:
    """The band that is worst against its bound, the value there, and the bound."""
    bounds = {key: max(ceiling[key], 0.0) for key in ours if key.startswith("modulation")}
    excess = {key: ours[key] - bound for key, bound in bounds.items()}
    worst = max(excess, key=lambda key: math.inf if math.isnan(excess[key]) else excess[key])  # of a null nothing can be claimed
    return worst, ours[worst], bounds[worst]


class _Cells(dict[str, float]):
    """Means of a row, null as NaN: no claim about it holds."""

    def __init__(self, cells: Mapping[str, float | None]) -> None:
        super().__init__({key: math.nan if value is None else value for key, value in cells.items()})


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain_json(inner) for inner in value]
    return _number(value) if isinstance(value, float) else value


def apart(y: Array, styles: Sequence[str | Path], *, sample_rate: int = SAMPLE_RATE) -> dict[str, float]:
    """Log-mel L1 between one song's results in every two styles, dB: styles that differ are 3 dB apart or more.

    Parameters
    ----------
    y : array [shape=(C, N)]
        The song.

    Returns
    -------
    dict
        ``"piano–rock"`` → dB.
    """
    from stylestream.style import find_style
    from stylestream.transfer import load_style

    heard = {find_style(s).stem: metrics.prepare(load_style(s).transfer(y, sample_rate), sample_rate) for s in styles}
    return {f"{a}–{b}": metrics.log_mel_l1(heard[a], heard[b]) for a, b in itertools.combinations(sorted(heard), 2)}


# --- report → page -----------------------------------------------------------------------------------------------------------------


def write_report(report: Mapping[str, Any], folder: str | Path) -> Path:
    """Write ``folder/report.json``, whole or not at all."""
    from stylestream.files import whole_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return folder / "report.json"


def _cell(cell: Mapping[str, Any] | None, *, span: bool = False, percent: bool = False) -> str:
    if cell is None:
        return ""
    if cell["mean"] is None:
        return f"NaN ({cell['nan']} of {cell['n']})"
    digits = "{:.0%}" if percent else "{:.2f}"
    text = digits.format(cell["mean"])
    return f"{text} [{digits.format(cell['low'])}, {digits.format(cell['high'])}]" if span else text


def _lines(part: Mapping[str, Any], name: str, *, span: bool) -> list[list[str]]:
    """Cells of a table: a heading, the part of the way, then a line a metric; a column a row of the report."""
    rows = part["rows"]
    ways = ["" if row in ("copy", *OF_THE_TRUTH) else _cell(part["way"][row], span=span and row == name, percent=True) for row in rows]
    lines = [["", *rows], ["part of the way", *ways]]
    for metric, heading in COLUMNS.items():
        lines.append([heading, *(_cell(cells.get(metric), span=span and row == name) for row, cells in rows.items())])
    return lines


def _parts(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Titles and tables."""
    name, drummed = report["style"], report["with_drums"]
    parts = [(f"{name}: {len(report['pieces'])} held-out pieces", report)]
    if drummed:
        parts.append((f"{name}, truth with its drums: {drummed['way'][name]['n']} pieces", drummed))
    return parts


def markdown(report: Mapping[str, Any], *, drums: bool = True) -> str:
    """The tables for README and cards: means, and for the style 95 % intervals."""
    text = []
    for title, part in _parts(report)[: 2 if drums else 1]:
        heading, *lines = _lines(part, report["style"], span=True)
        lines = [line for line in lines if any(line[1:])]
        text += [
            title,
            "",
            _markdown_line(heading),
            _markdown_line(["---"] + ["---:"] * (len(heading) - 1)),
            *map(_markdown_line, lines),
            "",
        ]
    return "\n".join(text)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown_summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """One table for several styles: a line a style, log-mel L1 of every row, and the part of the way."""
    names = ["copy", "equalise", "plain", "lstm2017", "style", "ceiling"]
    text = [_markdown_line(["log-mel L1, dB", *names, "part of the way", "pieces"]), _markdown_line(["---"] * (len(names) + 3))]
    for report in reports:
        rows = {"style" if row == report["style"] else row: columns["log_mel_l1"] for row, columns in report["rows"].items()}
        cells = [_cell(rows.get(name)) for name in names]
        reached = _cell(report["way"][report["style"]], span=True, percent=True)
        text.append(_markdown_line([report["style"], *cells, f"**{reached}**", str(len(report["pieces"]))]))
    return "\n".join(text) + "\n"


def markdown_claims(reports: Sequence[Mapping[str, Any]]) -> str:
    """What the styles promise: a line a promise, a column a style, and whether it is kept."""
    text = [_markdown_line(["promise", *(report["style"] for report in reports)]), _markdown_line(["---"] * (len(reports) + 1))]
    for same in zip(*(report["claims"] for report in reports), strict=True):
        text.append(_markdown_line([same[0]["claim"], *map(_claim_cell, same)]))
    return "\n".join(text) + "\n"


def _claim_cell(claim: Mapping[str, Any]) -> str:
    value, bound = ("NaN" if number is None else f"{number:.2f}" for number in (claim["value"], claim["bound"]))
    sign = {">=": "≥", "<=": "≤"}[claim["sign"]]
    note = f" ({claim['note']})" if claim["note"] else ""
    return (f"{value} {sign} {bound}" if claim["holds"] else f"**no:** {value}, not {sign} {bound}") + note


def card_metrics(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The means of a report as a style's card keeps them: row → metric → value, ``way`` among them; nulls are left out."""
    rows: dict[str, dict[str, float]] = {}
    for row, columns in report["rows"].items():
        cells = {**columns, "way": report["way"][row]}
        rows[row] = {metric: round(cell["mean"], 4) for metric, cell in cells.items() if cell["mean"] is not None}
    return rows


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the tables, the claims, and what went wrong."""
    name = report["style"]
    for title, part in _parts(report):
        _show_table(title, part, name, console)
        spans = [_cell(part["way"][name], span=True, percent=True), _cell(part["rows"][name]["log_mel_l1"], span=True)]
        console.print(f"{name} (95 %): part of the way {spans[0]}, log-mel L1 {spans[1]} dB", markup=False, highlight=False, soft_wrap=True)
    for claim in report["claims"]:
        mark = "[green]yes[/]" if claim["holds"] else "[red]no [/]"
        value, bound = ("NaN" if number is None else f"{number:.3f}" for number in (claim["value"], claim["bound"]))
        note = f" ({claim['note']})" if claim["note"] else ""
        console.print(f"{mark} {claim['claim']}: {value} {claim['sign']} {bound}{note}", soft_wrap=True)
    for kind in report["missing"]:
        console.print(f"row {kind}: not trained for this style")
    for path, reason in report["failures"].items():
        console.print(f"not scored: {path}: {reason}", markup=False)


def _show_table(title: str, part: Mapping[str, Any], name: str, console: Console) -> None:
    from rich.table import Table

    heading, *lines = _lines(part, name, span=False)
    shown = Table(title=title)
    for column in heading:
        shown.add_column(column, justify="right" if column else "left", style="bold" if column == name else "")
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
