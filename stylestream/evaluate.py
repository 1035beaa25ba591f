"""Songs + styles → report: how far a style gets, beside what it has to beat.

The *reduction protocol* has a truth: a held-out score, of which the song is a reduction in a SoundFont that training never heard, and
the truth the passage as the style plays it (``passages.py``). Every row of the table makes something of the song and is compared with
the truth:

    copy < random, equalise, plain, lstm2017, … < STYLE < ceiling          (ceiling: the truth's frames through the vocoder)

The headline is *way*: the part of the way from copy to ceiling on log-mel L1. Drums are in neither song nor truth; a second table has
the truth in the unseen SoundFont, where the same score in the training SoundFont is the ceiling; a third has the truth with its drums, and
the style with its drum layer (*no_drums* is the style as in the first table).

The *recordings protocol* has real songs and no truth. What is measured is what of the song is kept: an estimator's reading of the result
against its reading of the song. The rows *mp3* and *mild_eq* show how well that estimator agrees with itself on the song after a lossy
codec and a gentle equaliser; more than that nobody can keep.

A NaN is reported, never averaged away: its mean is null. What the baselines made of a passage, and how it scored, is kept in the cache
for as long as the code that made it stays as it is; the style itself always runs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import __version__, baselines, bootstrap, corpus, curves, metrics, recipes, timbre
from stylestream.drums import USUAL_DRUMS
from stylestream.passages import (
    QUICK,
    STANDARD,
    Excerpt,
    Protocol,
    Renderer,
    default_cache,
    excerpts,
    key_of,
    kinds,
    notes_of,
    recipe_named,
    song_score,
    source_hash,
)
from stylestream.sound import read_sound, write_sound

__all__ = [
    "QUICK",
    "Contenders",
    "Excerpt",
    "Judge",
    "Protocol",
    "Renderer",
    "Task",
    "default_cache",
    "evaluate",
    "evaluate_all",
    "excerpts",
    "notes_of",
    "song_score",
]

Array = NDArray[np.floating]
Scores = dict[str, float]

SAMPLE_RATE = metrics.SAMPLE_RATE
OF_THE_TRUTH = ("ceiling", "truth")  # rows made from it
OF_THE_SONG = ("mp3", "mild_eq")  # rows that say how well the estimators agree with themselves
MADE_BY = {  # row: the modules whose code decides what it is
    "network": (
        "audio",
        "blend",
        "chunks",
        "cymbals",
        "draw",
        "drums",
        "features",
        "meters",
        "rhythm",
        "transfer",
        "views",
        "vocoder",
        "width",
    ),
    "baseline": ("audio", "baselines", "features", "meters", "sound", "vocoder"),
    "scores": ("audio", "curves", "meters", "metrics", "sound", "timbre"),
}
PACKAGES = ("torch", "numpy", "scipy", "librosa", "mir_eval", "scikit-learn", "symusic")  # on which the numbers hang
COLUMNS = {  # metric: heading
    "log_mel_l1": "log-mel L1, dB",
    "lsd": "LSD, dB",
    "lsd_16k": "LSD to 8 kHz, dB",
    "mr_stft": "MR-STFT",
    "mfcc": "MFCC distance",
    "centroid": "centroid, st",
    "chroma": "chroma cosine",
    "cqt_pcc": "CQT-PCC",
    "note_auc": "note AUC",
    "frame_f1": "frame F1",
    "frame_jaccard": "frame Jaccard",
    "flux": "flux corr.",
    "onset_f1": "onset F1",
    "tempo": "same tempo",
    "beat_f1": "beat F1",
    "modulation_2_5": "2–5 Hz, dB",
    "modulation_5_10": "5–10 Hz, dB",
    "modulation_10_20": "10–20 Hz, dB",
    "modulation_20_43": "20–43 Hz, dB",
    "roughness_time": "roughness in time, dB",
    "roughness_frequency": "roughness in pitch, dB",
    "timbre_cosine": "timbre cosine",
    "style_probability": "style probability",
    "style_heard": "style heard",
    "style_cosine": "style cosine",
    "kernel_distance": "KAD",
    "frechet_distance": "FAD",
    "judge_auc": "judge AUC",
}
OF_SETS = ("kernel_distance", "frechet_distance", "judge_auc")  # of all passages together
LEAST = {"kernel_distance": -math.inf, "frechet_distance": 0.0, "judge_auc": 0.0}  # an unbiased kernel distance may be below 0
MOST = {"kernel_distance": math.inf, "frechet_distance": math.inf, "judge_auc": 1.0}


ROWS = (
    "copy",
    "random",
    "equalise",
    "plain",
    "attention",
    "lstm2017",
    "musaicing",
    "ulyanov",
    "ceiling",
    "truth",
    "same_score",
    "no_drums",
    *OF_THE_SONG,
)
KINDS = ("reduction", "recordings")
COSTLY = ("musaicing", "ulyanov")  # a minute of processor time for four passages, the first time
NEED_MATERIAL = ("random", *COSTLY)  # music of the style, beside what is judged
MATERIAL_PIECES = 3


# --- the rows ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contenders:
    """What is compared with what: paths of the style and of the trained baselines (None: not trained)."""

    name: str
    style: Path
    plain: Path | None
    attention: Path | None
    lstm2017: Path | None

    @classmethod
    def find(cls, style: str | Path, folder: str | Path | None = None) -> Contenders:
        """A style, and its ``NAME-plain.safetensors``, ``NAME-attention.safetensors`` and ``NAME-lstm2017.safetensors``.

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

        return cls(path.stem, path, there("plain"), there("attention"), there("lstm2017"))

    def missing(self) -> list[str]:
        """Baselines that every style should have, and that have no file."""
        return [kind for kind in ("plain", "lstm2017") if getattr(self, kind) is None]


@dataclass(frozen=True)
class Heard:
    """What a row may listen to: (C, N) at 44.1 kHz each."""

    song: Array
    material: Callable[[], list[Array]]  # music of the style, not of the songs that are judged
    cache: Path  # where costly sound is kept


@dataclass(frozen=True)
class Row:
    """A line of the table.

    ``made_by`` is a hash of what decides the result beside the song: what was made once is not made again. Empty: it always is.
    """

    make: Callable[[Heard], Array]
    made_by: str = ""


def rows_of(contenders: Contenders, seed: int = 0) -> dict[str, Row]:
    """Every row that is made of the song alone, in the order of the table."""
    from stylestream.style import load_style_file

    if contenders.name in ROWS:
        raise ValueError(f"{contenders.style}: {contenders.name!r} is a row of the table; rename the style's file")
    data = load_style_file(contenders.style)
    if "mean_frames" not in data.weights:
        raise ValueError(f"{contenders.style}: the style has no mean spectrum to equalise to; train it again with `stylestream train`")
    mean = data.weights["mean_frames"].reshape(-1, data.weights["mean_frames"].shape[-1])[0].numpy()
    code = source_hash(MADE_BY["baseline"])
    rows = {
        "copy": Row(lambda heard: baselines.copy(heard.song), "copy"),
        "random": Row(lambda heard: baselines.random_piece(heard.song, heard.material()), code),
        "equalise": Row(lambda heard: baselines.equalise(heard.song, mean), key_of(code, mean.tobytes())),
    }
    for name, path in (("plain", contenders.plain), ("attention", contenders.attention)):
        if path is not None:
            rows[name] = Row(_transferred(path, seed), _network_key(path, seed))
    if contenders.lstm2017 is not None:
        rows["lstm2017"] = Row(_lstm2017(contenders.lstm2017), key_of(code, contenders.lstm2017.read_bytes()))
    rows |= {name: Row(_kept(name), code) for name in COSTLY}
    rows[contenders.name] = Row(_transferred(contenders.style, seed))
    return rows | ({"with_drums": Row(_transferred(contenders.style, seed, drums=USUAL_DRUMS))} if data.drums else {})


def _kept(name: str) -> Callable[[Heard], Array]:
    """A row that takes long to make: its sound is kept, with what it cost."""
    make, code = baselines.OF_STYLE_AUDIO[name], source_hash(MADE_BY["baseline"])
    return lambda heard: baselines.cached(make, heard.song, heard.material(), cache=heard.cache, name=name, key=code)


def _network_key(path: Path, seed: int) -> str:
    import torch

    return key_of(source_hash(MADE_BY["network"]), path.read_bytes(), seed, torch.__version__)


def _transferred(path: Path, seed: int, *, drums: float = 0.0) -> Callable[[Heard], Array]:
    """A style's result; without its drums, as long as the truth has none."""

    @functools.cache
    def style() -> Any:  # loaded when it is first needed, which for a kept baseline is never
        from stylestream.transfer import load_style

        return load_style(path)

    return lambda heard: style().transfer(heard.song, SAMPLE_RATE, drums=drums, seed=seed)


def _lstm2017(path: Path) -> Callable[[Heard], Array]:
    @functools.cache
    def model() -> Any:
        from stylestream.style import load_style_file

        return baselines.load_lstm2017(load_style_file(path))

    return lambda heard: baselines.lstm2017(heard.song, model())


class Take:
    """What a row made of a song: made when it is first listened to."""

    def __init__(self, make: Callable[[], Array], key: str = "") -> None:
        self._make, self.key, self.seconds = make, key, 0.0

    @cached_property
    def y(self) -> Array:
        """(C, N) at 44.1 kHz; ``seconds`` is then how long it took."""
        start = time.perf_counter()
        y = self._make()
        self.seconds = time.perf_counter() - start
        return y

    @cached_property
    def sound(self) -> metrics.Sound:
        """As the metrics hear it."""
        return metrics.prepare(self.y)


class Store:
    """Scores, kept under a hash of what they depend on; without a key they are made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scores(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """JSON types."""
        from stylestream.files import whole_file

        path = self.folder / f"{key}.json"
        if key and path.is_file():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        made = make()
        if key:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(made), encoding="utf-8")
        return made


# --- one passage -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One passage, to be scored for one style."""

    contenders: Contenders
    recipe: str  # "" for recordings
    excerpt: Excerpt
    material: tuple[Excerpt, ...] = ()
    curves: bool = False


@dataclass(frozen=True)
class Stage:
    """A passage as it sounds: the song, a truth for each table, the notes."""

    song: Take
    truths: dict[str, Take]
    notes: NDArray[Any] | None  # None where there is no score


class Judge:
    """Passages → scores of every row. Holds models and SoundFonts; one per process.

    Parameters
    ----------
    keep : path, optional
        Where songs, results and truths are left for `kept_sound`.
    rows : collection of str, optional
        Which baselines; all when not given.
    """

    def __init__(self, protocol: Protocol, cache: Path, *, keep: Path | None = None, rows: Sequence[str] | None = None) -> None:
        self.protocol, self.keep, self.wanted = protocol, keep, rows
        self.renderer, self.store = Renderer(cache), Store(cache / "scores")
        self.rows_of = functools.cache(functools.partial(rows_of, seed=protocol.seed))
        self.code = key_of(source_hash(MADE_BY["scores"]), timbre.timbre_file().read_bytes(), versions())
        self._centers: dict[tuple[str, tuple[Excerpt, ...]], Array] = {}

    def score(self, task: Task) -> dict[str, Any]:
        """Tables (row → metric → value), ``errors`` of some rows, ``curves``, ``cost`` in seconds by row, ``warnings``."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stage = self.stage(task)
            if stage.truths["rows"].sound.silent:
                raise ValueError("the truth is silent; there is nothing to compare with")
            takes = self._takes(task, stage)
            tables = {table: self._table(stage, table, takes, task) for table in stage.truths}
            result = self._facts(task, tables, takes)
            if task.curves:
                result["curves"] = self.curves(task, stage)
        said = {str(warning.message) for warning in caught} | {text for row in tables["rows"].values() for text in row["warnings"]}
        self._leave(task, stage, takes)
        return result | {"warnings": sorted(said)}

    def stage(self, task: Task) -> Stage:
        """Song and truths, rendered or read."""
        return self._recorded(task.excerpt) if task.excerpt.recorded else self._rendered(task)

    def _rendered(self, task: Task) -> Stage:
        from stylestream import midi

        assert isinstance(task.excerpt.content, bytes)
        recipe, score = recipe_named(task.recipe), midi.load_score(task.excerpt.content)
        target = recipes.target_score(score, recipe)
        fonts = self.protocol.song_soundfont, self.protocol.truth_soundfont
        truths = {"rows": self._played(target, fonts[1], task.excerpt)}
        if fonts[0] != fonts[1]:
            truths["unseen_soundfont"] = self._played(target, fonts[0], task.excerpt)
        if any(track.is_drum and len(track.notes) for track in score.tracks):
            full = recipes.target_score(score, recipe, drums=True)
            truths["with_drums"] = self._played(full, fonts[1], task.excerpt)
        song = self._played(song_score(target, task.excerpt.content, recipe), fonts[0], task.excerpt)
        return Stage(song, truths, notes_of(target, task.excerpt))

    def _played(self, score: Any, soundfont: str, excerpt: Excerpt) -> Take:
        key = self.renderer.path(score, soundfont, excerpt).stem
        return Take(lambda: self.renderer.render(score, soundfont, excerpt), key)

    def _recorded(self, excerpt: Excerpt) -> Stage:
        song = Take(lambda: self.renderer.listen(excerpt), key_of(excerpt.id, excerpt.start_seconds, excerpt.seconds))
        return Stage(song, {"rows": song}, None)

    def _takes(self, task: Task, stage: Stage) -> dict[str, Take]:
        """What the rows make of the song; nothing is made yet."""
        rows = self.rows_of(task.contenders)
        chosen = {name: row for name, row in rows.items() if self._wants(name, task)}
        takes = {name: self._take(name, row, task, stage) for name, row in chosen.items()}
        if task.excerpt.recorded:
            code = source_hash(MADE_BY["baseline"])
            takes |= {
                name: Take(functools.partial(_as_itself, name, stage.song), key_of(name, code, stage.song.key)) for name in OF_THE_SONG
            }
        return takes

    def _wants(self, name: str, task: Task) -> bool:
        if name in NEED_MATERIAL and not task.material:
            return False
        return name in ("copy", "with_drums", task.contenders.name) or self.wanted is None or name in self.wanted

    def _take(self, name: str, row: Row, task: Task, stage: Stage) -> Take:
        others = [(part.id, part.start_seconds, part.seconds) for part in task.material]
        key = key_of(name, stage.song.key, row.made_by, others) if row.made_by else ""
        heard = Heard(stage.song.y, lambda: [self._of_style(task, part) for part in task.material], self.store.folder.parent)
        return Take(lambda: row.make(heard), key)

    def _of_style(self, task: Task, excerpt: Excerpt) -> Array:
        """A passage as the style plays it."""
        if excerpt.recorded:
            return self.renderer.listen(excerpt)
        stage = self._rendered(Task(task.contenders, task.recipe, excerpt))
        return stage.truths["rows"].y

    def _table(self, stage: Stage, table: str, takes: Mapping[str, Take], task: Task) -> dict[str, dict[str, Any]]:
        """Row → ``scores``, ``errors``, ``seconds``, ``warnings``; in the first table how much it sounds like the style, too."""
        truth, every = stage.truths[table], {name: take for name, take in takes.items() if name != "with_drums"}
        if table == "with_drums" and table in takes:
            every |= {task.contenders.name: takes[table], "no_drums": takes[task.contenders.name]}
        if table == "unseen_soundfont":
            every["same_score"] = stage.truths["rows"]
        elif truth is not stage.song:
            every["ceiling"] = Take(
                lambda: baselines.ceiling(stage.song.y, truth.y), key_of("ceiling", source_hash(MADE_BY["baseline"]), stage.song.key)
            )
            every["truth"] = truth
        return {name: self._scored(truth, take, stage.notes, task if table == "rows" else None) for name, take in every.items()}

    def _scored(self, truth: Take, take: Take, notes: NDArray[Any] | None, task: Task | None) -> dict[str, Any]:
        heard, style = b"" if notes is None else notes.tobytes(), None if task is None else task.recipe or task.contenders.name
        center = None if task is None or style in timbre.STYLES or not task.material else self._center(task)
        asked = (self.code, truth.key, take.key, heard, style, *(() if center is None else (center.tobytes(),)))
        key = key_of(*asked) if take.key and truth.key else ""
        return self.store.scores(key, lambda: _compared(truth, take, notes, style, center))

    def _center(self, task: Task) -> Array:
        """Where the music of a style lies that the classifier does not know."""
        key = task.recipe, task.material
        if key not in self._centers:
            sounds = [metrics.prepare(self._of_style(task, part)) for part in task.material]
            self._centers[key] = timbre.style_center(sounds)
        return self._centers[key]

    def _facts(self, task: Task, tables: Mapping[str, Any], takes: Mapping[str, Take]) -> dict[str, Any]:
        piece, excerpt = task.excerpt.piece, task.excerpt
        facts = {
            "path": piece.path,
            "id": excerpt.id,
            "group": piece.group,
            "start_seconds": excerpt.start_seconds,
            "seconds": excerpt.seconds,
        }
        scores = {table: {name: row["scores"] for name, row in rows.items()} for table, rows in tables.items()}
        cost = {name: row["seconds"] for name, row in tables["rows"].items() if name in takes}
        shown = ("copy", task.contenders.name, "ceiling")
        errors = {name: tables["rows"][name]["errors"] for name in shown if name in tables["rows"]}
        sets = {name: row["sets"] for name, row in tables["rows"].items()}
        return facts | scores | {"cost": cost, "errors": errors, "sets": sets}

    def curves(self, task: Task, stage: Stage) -> dict[str, Any]:
        """The dials and the steps of the style, on the beginning of a passage."""
        from stylestream.transfer import load_style

        size = round(self.protocol.curve_seconds * SAMPLE_RATE)
        style, song, truth = load_style(task.contenders.style), stage.song.y[:, :size], metrics.prepare(stage.truths["rows"].y[:, :size])
        assert stage.notes is not None
        notes = stage.notes[stage.notes["onset_seconds"] < self.protocol.curve_seconds]

        def compare(y: Array) -> dict[str, float]:
            return metrics.compare(truth, metrics.prepare(y), notes)

        seed = self.protocol.seed
        return curves.dials(style, song, compare, seed=seed) | {"steps": curves.steps(style, song, compare, seed=seed)}

    def _leave(self, task: Task, stage: Stage, takes: Mapping[str, Take]) -> None:
        if self.keep is None:
            return
        name = task.contenders.name
        parts = {"song": stage.song, "style": takes[name]} | ({} if task.excerpt.recorded else {"truth": stage.truths["rows"]})
        for part, take in parts.items():
            write_sound(_kept_path(self.keep, name, part, task.excerpt.id), take.y)


def _kept_path(folder: Path, style: str, part: str, song: str) -> Path:
    return folder / f"{key_of(style, part, song)}.flac"


def kept_sound(folder: Path, style: str, part: str, song: str) -> Array | None:
    """The ``song``, ``style`` (its result) or ``truth`` of a passage, (C, N), as ``evaluate_all`` left it; None where it did not."""
    path = _kept_path(folder, style, part, song)
    return read_sound(path) if path.is_file() else None


def _compared(truth: Take, take: Take, notes: NDArray[Any] | None, style: str | None, center: Array | None) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = metrics.compare(truth.sound, take.sound, notes)
        if notes is None:  # a recording: the reading of the result against the reading of the song
            scores |= metrics.pitch_agreement(truth.sound, take.sound)
            scores["onset_f1"] = metrics.onset_agreement(truth.sound, take.sound)
        scores |= {} if style is None else _style_reached(truth.sound, take.sound, style, center)
        errors = {} if notes is None else curves.errors(truth.sound, take.sound, notes)
        sets = {} if style is None else _of_sets(take.sound)
    said = sorted({str(warning.message) for warning in caught})
    return {"scores": scores, "errors": errors, "sets": sets, "seconds": take.seconds, "warnings": said}


def _style_reached(truth: metrics.Sound, result: metrics.Sound, style: str, center: Array | None) -> Scores:
    """How much a result sounds like the truth, and like the style: as the classifier knows it, or like other music of it (``center``)."""
    alike = {"timbre_cosine": timbre.timbre_cosine(truth, result)}
    if style in timbre.STYLES:
        return alike | timbre.style_scores(result, style)
    return alike if center is None else alike | {"style_cosine": timbre.style_cosine(result, center)}


def _of_sets(sound: metrics.Sound) -> dict[str, list[list[float]]]:
    """What is asked of many results together: embeddings, and what the judge hears."""
    return {"embeddings": timbre.embeddings(sound).round(4).tolist(), "patches": metrics.patch_numbers(sound).round(2).tolist()}


def _as_itself(name: str, song: Take) -> Array:
    return {"mp3": baselines.mp3, "mild_eq": baselines.mild_eq}[name](song.y)


def _score(judge: Judge, task: Task) -> dict[str, Any]:
    return judge.score(task)


# --- many pieces → one report ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is to be scored for a style, and what was passed over."""

    contenders: Contenders
    recipe: str
    kind: str
    tasks: list[Task]
    refused: dict[str, str]


def protocol_of(*, quick: bool = False, curves: bool = True, **chosen: Any) -> Protocol:
    """The usual protocol, or the quick one, with what was chosen otherwise (None: nothing)."""
    usual = QUICK if quick else STANDARD
    settings = {name: value for name, value in chosen.items() if value is not None}
    return replace(usual, **settings) if curves else replace(usual, **settings, curve_pieces=0)


def rows_named(names: str | None, *, quick: bool = False) -> list[str] | None:
    """Rows as they are typed: ``equalise,plain``; None is all, of a quick look all but the costly ones."""
    if names is not None:
        return names.split(",")
    return [row for row in ROWS if row not in COSTLY] if quick else None


def check(
    styles: Sequence[str | Path],
    recipe: str | None,
    kind: str | None,
    rows: str | None,
    baselines_folder: str | Path | None,
    protocol: Protocol,
) -> None:
    """Raise ValueError for what was asked for wrongly: before anything is rendered."""
    from stylestream import midi

    if kind not in (None, *KINDS):
        raise ValueError(f"--kind is {kind!r}; known: {', '.join(KINDS)}")
    unknown = [row for row in (rows or "").split(",") if row not in ("", "none", *ROWS)]
    if unknown:
        raise ValueError(f"--rows: no row {unknown[0]!r}; known: {', '.join(ROWS)}, or none")
    for style in styles:
        contenders = Contenders.find(style, baselines_folder)
        if kind != "recordings":
            recipe_named(recipe or contenders.name)
    for name in () if kind == "recordings" else (protocol.song_soundfont, protocol.truth_soundfont):
        midi.find_soundfont(name)


def evaluate(source: str | Path | Sequence[str | Path], style: str | Path, **settings: Any) -> dict[str, Any]:
    """Score one style: `evaluate_all` of one, with the same settings. ``recipe`` is a name."""
    recipe = settings.pop("recipe", None)
    return evaluate_all(source, [style], recipes=[recipe], **settings)[0]


def evaluate_all(
    sources: str | Path | Sequence[str | Path],
    styles: Sequence[str | Path],
    *,
    recipes: Sequence[str | None] | None = None,
    protocol: Protocol = STANDARD,
    kind: str | None = None,
    split: recipes.Split = "test",
    baselines_folder: str | Path | None = None,
    rows: Sequence[str] | None = None,
    material: Sequence[str | Path] = (),
    cache: str | Path | None = None,
    keep: str | Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[dict[str, Any]]:
    """Score styles, all in one pool of workers.

    Parameters
    ----------
    sources : path or several
        Collections, folders, songs (see `passages.excerpts`).
    styles : sequence of str or path
        Names or files.
    recipes : sequence of str or None, optional
        Which of ``recipes.STYLE_RECIPES`` makes each style's truth; the style's name where not given. Recordings need none.
    kind : "reduction" or "recordings", optional
        By default reduction where the sources have scores, else recordings.
    baselines_folder : path, optional
        See `Contenders.find`.
    rows : sequence of str, optional
        Which baselines; all when not given. Copy and the style are always there, and so are ceiling and truth.
    material : sequence of path, optional
        Music of the style for the rows that need some; by default the train split of a collection, or what else lies in the folder.
    cache : path, optional
        Where renders and scores of baselines are kept; the user's cache folder when not given.
    keep : path, optional
        Where songs, truths and the style's results are left as FLAC.

    Returns
    -------
    list of dict [JSON types]
        A report for each style: ``rows.{copy,random,equalise,plain,lstm2017,…,STYLE,ceiling,truth}.{metric}``: ``mean, low, high, n``;
        ``way`` by row; ``unseen_soundfont`` and ``with_drums`` with the same two; ``claims``; ``errors``; ``curves``; ``cost``; ``pieces``
        with every single score; ``failures``, ``refused``, ``missing``, ``protocol``, ``made_with``.

    Raises
    ------
    ValueError
        If a style or its recipe is unknown, there are no held-out pieces, or none could be scored.
    """
    from stylestream import parallel

    named = recipes if recipes is not None else [None] * len(styles)
    found = [Contenders.find(style, baselines_folder) for style in styles]
    kind = kind or (kinds(_listed(sources)) or ["reduction"])[0]
    plans = [_plan(_listed(sources), c, recipe, protocol, kind, split, material) for c, recipe in zip(found, named, strict=True)]
    _check(plans, protocol)
    folder = Path(cache) if cache is not None else default_cache()
    setup = functools.partial(Judge, protocol, folder, keep=None if keep is None else Path(keep), rows=rows)
    tasks = [task for plan in plans for task in plan.tasks]
    done: dict[Task, dict[str, Any] | ValueError] = {}
    for task, result in parallel.over_songs(_score, tasks, setup=setup, jobs=min(jobs or parallel.cores(), len(tasks))):
        done[task] = result
        progress(len(done), len(tasks), task.contenders.name)
    return [_report(plan, done, protocol, folder) for plan in plans]


def _listed(sources: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [sources] if isinstance(sources, (str, Path)) else list(sources)


def _plan(
    sources: Sequence[str | Path],
    contenders: Contenders,
    recipe: str | None,
    protocol: Protocol,
    kind: str,
    split: recipes.Split,
    material: Sequence[str | Path],
) -> Plan:
    from stylestream.style import load_style_file

    known = load_style_file(contenders.style).fingerprints
    name = "" if kind == "recordings" else recipe or contenders.name
    recipe_named(name)
    chosen, refused = excerpts(sources, name, protocol, split=split, known=known, kind=kind)
    others = _material(sources, material, name, protocol, kind, chosen)
    tasks = [
        Task(contenders, name, excerpt, others, curves=index < protocol.curve_pieces and kind == "reduction")
        for index, excerpt in enumerate(chosen)
    ]
    return Plan(contenders, name, kind, tasks, refused)


def _material(
    sources: Sequence[str | Path], named: Sequence[str | Path], recipe: str, protocol: Protocol, kind: str, chosen: Sequence[Excerpt]
) -> tuple[Excerpt, ...]:
    """A few passages of the style's music that are not judged: what is named, or the train split, or what else lies in the folder."""
    if kind == "recordings" and not named:
        return ()
    wanted = replace(protocol, pieces=MATERIAL_PIECES + (0 if named else len(chosen)), min_notes=1)
    try:
        found, _ = excerpts(named or sources, recipe, wanted, split="train", kind=kinds(_listed(named))[0] if named else kind)
    except ValueError:
        return ()
    judged = {excerpt.id for excerpt in chosen}
    return tuple(excerpt for excerpt in found if excerpt.id not in judged)[:MATERIAL_PIECES]


def _check(plans: Sequence[Plan], protocol: Protocol) -> None:
    """Fail here, with the reason, and not in a worker."""
    from stylestream import midi

    if any(plan.kind == "reduction" for plan in plans):
        for name in (protocol.song_soundfont, protocol.truth_soundfont):
            midi.find_soundfont(name)
    for plan in plans:
        rows_of(plan.contenders, protocol.seed)


def _report(plan: Plan, done: Mapping[Task, dict[str, Any] | ValueError], protocol: Protocol, cache: Path) -> dict[str, Any]:
    results = {task.excerpt.piece.path: done[task] for task in plan.tasks}
    failures = {path: str(result) for path, result in results.items() if isinstance(result, ValueError)}
    groups = _same_music(plan.tasks)
    scored = [r | {"group": groups[r["id"]]} for _, r in sorted(results.items()) if not isinstance(r, ValueError)]
    if not scored:
        raise ValueError("no piece could be scored: " + "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:3]))
    head = {"style": plan.contenders.name, "recipe": plan.recipe, "kind": plan.kind, "protocol": asdict(protocol)}
    head |= {"made_with": made_with(), "style_sha256": hashlib.sha256(plan.contenders.style.read_bytes()).hexdigest()}
    rest = {"failures": failures, "refused": plan.refused, "missing": _missing(plan, scored)}
    report = head | summarise(scored, plan.contenders.name, protocol) | rest
    spent = baselines.costs(cache)  # what is kept was paid for once
    return report | {"cost": report["cost"] | {row: spent[row][1] for row in COSTLY if row in spent and row in report["rows"]}}


def _same_music(tasks: Sequence[Task]) -> dict[str, str]:
    """Group of every piece, by its id: one melody in two keys is one, whatever its files are called."""
    return corpus.same_music([corpus.Song(task.excerpt.piece, task.excerpt.id, task.excerpt.content) for task in tasks], {})


def _missing(plan: Plan, scored: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows that the table lacks because there is no file or no music to make them of."""
    needed = NEED_MATERIAL if not any(task.material for task in plan.tasks) else ()
    return [row for row in (*needed, *plan.contenders.missing()) if row not in scored[0]["rows"]]


def summarise(scored: Sequence[Mapping[str, Any]], name: str, protocol: Protocol) -> dict[str, Any]:
    """Scores of single pieces → means with intervals, the part of the way, claims, errors and curves."""
    table = functools.partial(bootstrap.table, resamples=protocol.resamples, seed=protocol.seed)
    report: dict[str, Any] = table(scored)
    for row, cells in _of_all(scored, (name, "ceiling")).items():
        report["rows"][row] |= cells
    for key, best in (("unseen_soundfont", "same_score"), ("with_drums", "ceiling")):
        there = [piece for piece in scored if key in piece]
        report[key] = table(there, key, best=best) if there else None
    report["claims"] = claims(report, name) if {"equalise", "ceiling"} <= set(report["rows"]) else []
    report["errors"] = _averaged([piece["errors"] for piece in scored], scored, protocol, absent=True)
    swept = [piece for piece in scored if "curves" in piece]
    report["curves"] = _averaged([piece["curves"] for piece in swept], swept, protocol) if swept else None
    report["cost"] = {row: _mean([piece["cost"][row] for piece in scored if row in piece["cost"]]) for row in scored[0]["cost"]}
    report["pieces"] = _plain_json([{k: v for k, v in piece.items() if k not in ("curves", "errors", "sets")} for piece in scored])
    return report


def _of_all(scored: Sequence[Mapping[str, Any]], judged: Sequence[str]) -> dict[str, dict[str, bootstrap.Cell]]:
    """Row → what is asked of all passages together, against the truths: Fréchet and kernel distance; of some rows a judge's AUC."""
    if "truth" not in scored[0]["sets"]:
        return {}
    groups = [piece["group"] for piece in scored]
    found: dict[str, dict[str, bootstrap.Cell]] = {}
    for row in scored[0]["sets"]:
        asked = OF_SETS if row in judged else OF_SETS[:2]
        asks = {metric: functools.partial(_asked_of_all, scored, row, metric) for metric in asked}
        found[row] = {metric: bootstrap.jackknife(ask, groups, least=LEAST[metric], most=MOST[metric]) for metric, ask in asks.items()}
    return found


def _asked_of_all(scored: Sequence[Mapping[str, Any]], row: str, metric: str, pieces: Sequence[int]) -> float:
    kind = "patches" if metric == "judge_auc" else "embeddings"
    truths, results = ([np.array(scored[i]["sets"][name][kind]) for i in pieces] for name in ("truth", row))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few pieces the value is NaN, which says it
        if metric == "judge_auc":
            return metrics.patches_auc(truths, results, groups=[scored[i]["group"] for i in pieces])
        ask = metrics.frechet_distance if metric == "frechet_distance" else metrics.kernel_distance
        return ask(np.concatenate(truths), np.concatenate(results))


def _averaged(
    parts: Sequence[Mapping[str, Any]], pieces: Sequence[Mapping[str, Any]], protocol: Protocol, *, absent: bool = False
) -> dict[str, Any]:
    """Trees of scores → cells. If something may be absent of a piece (an octave it does not play), that is left out, and ``n`` says so."""
    groups = [piece["group"] for piece in pieces]

    def summary(values: Array) -> bootstrap.Cell:
        there = np.flatnonzero(np.isfinite(values)) if absent else np.arange(len(values))
        if not there.size:
            return {"mean": None, "low": None, "high": None, "n": 0}
        return bootstrap.interval(values[there], bootstrap.resample([groups[i] for i in there], 400, seed=protocol.seed))

    return curves.gathered(parts, summary)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def made_with() -> dict[str, str | int]:
    """Versions and hardware."""
    from stylestream.parallel import cores

    return {**versions(), "python": platform.python_version(), "machine": _processor(), "cores": cores()}


def versions() -> dict[str, str]:
    """Of the package, and of those on which the numbers hang: scores are kept for as long as all stay."""
    import importlib.metadata

    found = {"stylestream": __version__}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _processor() -> str:
    """What the processor is called, where the system says it."""
    with contextlib.suppress(OSError, StopIteration):
        names = (line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        return f"{platform.machine()}, {next(names).partition(':')[2].strip()}"
    return platform.machine()


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
