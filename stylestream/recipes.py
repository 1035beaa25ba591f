"""Which music a style is made of: pieces listed, split, read, and given the style's instruments.

A *piece* is one MIDI file, known by its path inside the collection. Its *group* is shared by pieces that are the same music
(editions of one work, arrangements of one tune); the split is a hash of the group, so no test piece was heard in training.
A *recipe* says what a style's songs are: folders of the collection, and which General MIDI programs play them. Training and
evaluation render their targets by the same recipe.

A collection is a folder with ``midi.csv`` beside ``midi.tar.xz`` (or the archive's content extracted there), or any folder of
MIDI files.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "valid", "test"]
Programs = Callable[[Sequence[Any]], list[int]]
MIDI_SUFFIXES = (".mid", ".midi")
SCORE_SUFFIXES = (*MIDI_SUFFIXES, ".kar", ".rmi")  # of a folder that a style is trained on
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".flac", ".ogg", ".oga", ".opus"),
    *(".mp3", ".mp2", ".m4a", ".m4b", ".aac", ".wma", ".wv", ".ape", ".mka", ".mkv", ".mp4", ".mov", ".webm", ".avi"),
)
MAX_FIELD_CHARACTERS = 1 << 17  # of a table


def song_id(content: bytes) -> str:
    """Id of a song: a hash of its bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def split_of(piece_id: str) -> Split:
    """Split of a group id: 80 % train, 5 % valid, 15 % test, the same on every machine and for ever.

    >>> split_of("rock/mma-nottingham/50sRock_hpps42_135_014.mid")
    'test'
    """
    bucket = int(text_hash(piece_id)[:8], 16) % 20
    return "test" if bucket < 3 else "valid" if bucket == 3 else "train"  # 15 %: ten of a style of 123 quartets must be held out


@dataclass(frozen=True)
class Piece:
    """One MIDI file of a collection. ``path`` is its id."""

    path: str
    style: str = ""  # folder of the collection, not a style of ours
    title: str = ""
    source: str = ""
    licence: str = ""
    seconds: float = 0.0  # 0: not known
    notes: int = 0  # 0: not known
    drums: bool = False
    generated: bool = False

    @property
    def group(self) -> str:
        """Id shared by pieces that are the same music."""
        return group_of(self.path, generated=self.generated)

    @property
    def split(self) -> Split:
        """Split of the group."""
        return split_of(self.group)


def group_of(path: str, *, generated: bool = False) -> str:
    """Group id of a piece, read off its file name; the path itself where the name says nothing.

    Generated accompaniments (``GROOVE_TUNE_TEMPO_NUMBER``) are grouped by tune, Chopin's first editions
    (``OPUS-PIECE-PUBLISHER-NUMBER``) by opus, Mutopia's files (``NAME__NUMBER``) by score.

    >>> group_of("rock/mma-nottingham/50sRock_hpps42_135_014.mid", generated=True)
    'tune/hpps42'
    """
    name = Path(path).stem
    if generated and len(name.rsplit("_", 3)) == 4:
        return "tune/" + name.rsplit("_", 3)[1]
    if "humdrum-chopin-first-editions" in path:
        return "chopin/" + name.split("-")[0]
    return re.sub(r"__\d+$", "", path.rsplit(".", 1)[0]) if "mutopia" in path else path


def licence_allowed(licence: str) -> bool:
    """Whether music under this licence may go into shipped weights.

    Public domain, CC0, CC-BY, CC-BY-SA, BSD, Artistic, and generated accompaniments: new music under traditional tunes, put out by a
    program whose own licence (GPL) is that of its code (docs/data.md).
    Not GPL, not non-commercial, and not the MIT collection of pop songs, whose compositions are commercial.
    """
    text = licence.lower()
    if text.startswith("generated"):
        return True
    if "-nc" in text or "gpl" in text or "third-party" in text:
        return False
    return text.startswith(("public domain", "cc0", "cc-by", "cc by", "bsd", "artistic", "mit"))


# Program rules: the tracks of a score that sound and are not drums -> one program each.


def given_programs(tracks: Sequence[Any]) -> list[int]:
    """As the score says."""
    return [track.program for track in tracks]


def piano_programs(tracks: Sequence[Any]) -> list[int]:
    """All on the grand piano."""
    return [0 for _ in tracks]


def choir_programs(tracks: Sequence[Any]) -> list[int]:
    """As the score says, but parts left on program 0 are voices: choir aahs."""
    return [track.program or 52 for track in tracks]


def quartet_programs(tracks: Sequence[Any]) -> list[int]:
    """Violin, violin, viola, cello by mean pitch; other numbers of parts by range.

    The collection's own programs are no guide: of 123 quartets many have a cello on every part, or a bass on program 0.
    """
    pitch = [_mean_pitch(track) for track in tracks]
    if len(tracks) == 4:
        from_top = sorted(range(4), key=lambda i: -pitch[i])
        return [(40, 40, 41, 42)[from_top.index(i)] for i in range(4)]
    return [40 if p >= 64 else 41 if p >= 56 else 42 for p in pitch]


def chiptune_programs(tracks: Sequence[Any]) -> list[int]:
    """Highest part square lead (80), lowest part synth bass (38), the others saw lead (81)."""
    pitch = [_mean_pitch(track) for track in tracks]
    programs = [81 for _ in tracks]
    if tracks:
        programs[pitch.index(min(pitch))] = 38
        programs[pitch.index(max(pitch))] = 80  # a single part is the tune
    return programs


def rock_programs(tracks: Sequence[Any]) -> list[int]:
    """Lowest part finger bass (33), the others distortion guitar (30).

    The rock folders' own programs are no style: of 345 pieces two in three give guitars and basses less than half of the playing time
    outside one arranger's output, and a piece for pads and an ocean wave (87, 100, 122) is nothing to aim at.
    """
    pitch = [_mean_pitch(track) for track in tracks]
    return [33 if len(tracks) > 1 and i == pitch.index(min(pitch)) else 30 for i in range(len(tracks))]


@dataclass(frozen=True)
class Layer:
    """One of several instruments that share a score by the height of its notes."""

    program: int  # General MIDI, from 0
    lowest: int = 0  # MIDI pitches it plays, both included
    highest: int = 127


# Scores whose own instruments are too many to be one sound are played by a fixed band: who plays a note is told by its pitch, which a
# song of any other instruments tells as well. Layers over the same pitches play in unison.
JAZZ_BAND = (Layer(32, highest=51), Layer(26, 52, 71), Layer(66, 52, 71), Layer(56, 72))  # acoustic bass; guitar and tenor saxes; trumpets
SYNTHESIZERS = (Layer(38, highest=51), Layer(90, 52), Layer(62, 64))  # synth bass; polysynth pad; synth brass
FUNK_BAND = (
    Layer(36, highest=51),
    Layer(28, 52, 71),
    Layer(4, 52),
    Layer(61, 67),
)  # slap bass; muted guitar, electric piano; brass section
LATIN_BAND = (Layer(32, highest=51), Layer(24, 52, 76), Layer(73, 72))  # acoustic bass; nylon-string guitar; flute
FULL_ORCHESTRA = (Layer(43, highest=50), Layer(48), Layer(60, 48, 66), Layer(73, 72))  # basses; string sections; horns; flutes


def _mean_pitch(track: Any) -> float:
    return sum(note.pitch for note in track.notes) / max(1, len(track.notes))


@dataclass(frozen=True)
class StyleRecipe:
    """What the songs of a style are."""

    folders: tuple[str, ...]  # of the collection
    programs: Programs = given_programs  # what plays them
    layers: tuple[Layer, ...] = ()  # or: what plays them, whatever the parts
    source: Literal["piano", "orchestration"] = "piano"  # what an evaluation starts from: a piano reduction, or other instruments
    allow: Callable[[str], bool] = field(default=licence_allowed)  # of a licence


STYLE_RECIPES: dict[str, StyleRecipe] = {
    "rock": StyleRecipe(("rock", "rock-metal-game", "pop-rock-game"), programs=rock_programs),
    "jazz": StyleRecipe(("jazz", "jazz-blues"), layers=JAZZ_BAND),
    "electronic": StyleRecipe(("electronic",), layers=SYNTHESIZERS),
    "funk-soul": StyleRecipe(("funk-soul",), layers=FUNK_BAND),
    "bossa-latin": StyleRecipe(("bossa-latin",), layers=LATIN_BAND),
    "orchestra": StyleRecipe(("orchestral",), layers=FULL_ORCHESTRA),
    "choir": StyleRecipe(("choral",), programs=choir_programs),
    "strings": StyleRecipe(("string-quartet",), programs=quartet_programs),
    "piano": StyleRecipe(("romantic-piano", "classical-piano", "etude"), programs=piano_programs, source="orchestration"),
    "chiptune": StyleRecipe(("baroque", "rock", "rock-metal-game", "pop-rock-game"), programs=chiptune_programs),
    # On the instruments that the scores ask for: no bundled styles, but the base has heard them.
    "ballroom": StyleRecipe(("waltz", "tango", "march-polka", "ragtime")),
    "roots": StyleRecipe(("folk", "country", "blues", "reggae-ska", "pop-ballad")),
    "chamber": StyleRecipe(("chamber", "organ", "renaissance", "other-classical", "modern-classical")),
    "vocal": StyleRecipe(("art-song", "opera-oratorio", "sacred-choir-orchestra", "hymn")),
}


def recipe_of(style: str) -> StyleRecipe:
    """Recipe of a style's name; ValueError names the known ones."""
    if style not in STYLE_RECIPES:
        raise ValueError(f"no recipe for style {style!r}; known: {', '.join(STYLE_RECIPES)}")
    return STYLE_RECIPES[style]


def target_score(score: Any, recipe: StyleRecipe, *, drums: bool = False) -> Any:
    """The score as the style plays it: silent tracks out, programs by the recipe, drums only if asked. The argument is kept.

    Raises
    ------
    ValueError
        If nothing is left to play, or the recipe refuses the score.
    """
    melodic = [track for track in score.tracks if len(track.notes) and not track.is_drum]
    if not melodic:
        raise ValueError("the score has no melodic notes")
    result = score.copy()
    parts = [track for track in result.tracks if len(track.notes) and (drums or not track.is_drum)]
    programs = iter(recipe.programs(melodic))
    for track in parts:
        if not track.is_drum:
            track.program = next(programs)
    result.tracks = [played for track in parts for played in _layered(track, recipe.layers)]
    return result


def _layered(track: Any, layers: Sequence[Layer]) -> list[Any]:
    """A part, once for each layer that has something to play in it."""
    if track.is_drum or not layers:
        return [track]
    played = []
    for layer in layers:
        part = track.copy()
        part.program, low, high = layer.program, layer.lowest, layer.highest
        part.notes = track.notes.filter(lambda note, low=low, high=high: low <= note.pitch <= high, inplace=False)
        played += [part] if len(part.notes) else []
    return played


def melody_fingerprint(score: Any, *, notes: int = 8, hashes: int = 24) -> list[int]:
    """Hashes by which a melody is known again in another key, tempo or instrument.

    The upper line's intervals, in runs of ``notes``, hashed; the smallest ``hashes`` of them are kept (MinHash, Broder 1997), so that
    two pieces share as large a part of their fingerprints as of their melodies.
    """
    upper: dict[int, int] = {}
    for track in score.tracks:
        for note in () if track.is_drum else track.notes:
            upper[note.time] = max(note.pitch, upper.get(note.time, 0))
    line = [pitch for _, pitch in sorted(upper.items())]
    steps = [b - a for a, b in itertools.pairwise(line) if b != a]
    runs = {tuple(steps[i : i + notes]) for i in range(max(1, len(steps) - notes + 1))}
    return sorted(int(text_hash(repr(run))[:12], 16) for run in runs)[:hashes]


def pieces(data_root: str | Path, style: str | None = None) -> list[Piece]:
    """Pieces of a style in a collection, in the order of their paths.

    Parameters
    ----------
    data_root : path
        A collection (see the module's docstring).
    style : str, optional
        A name in ``STYLE_RECIPES``: its folders, its licences. None, or a folder without ``midi.csv``: everything there.

    Raises
    ------
    ValueError
        If the style is unknown, or ``midi.csv`` lacks a column or has something else where a number belongs.
    FileNotFoundError
        If there is nothing at ``data_root``, or no MIDI file in it.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    if not (root / "midi.csv").is_file():
        return _files(root)
    listed = sorted(_listed(root / "midi.csv"), key=lambda piece: piece.path)
    if style is None:
        return listed
    recipe = recipe_of(style)
    return [piece for piece in listed if piece.style in recipe.folders and recipe.allow(piece.licence)]


def csv_rows(table: Path, check: Callable[[Sequence[str]], None] = lambda columns: None) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table with a heading, and the lines they end at; what a short row lacks is empty, what a long one has besides is dropped.

    Raises
    ------
    ValueError
        If it is no CSV in UTF-8, or ``check`` does not like the names of its columns.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, restval="")
            check(rows.fieldnames or ())
            for row in rows:
                row.pop(None, None)  # where DictReader keeps what has no heading
                yield rows.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table}: not a CSV in UTF-8 ({error}); save it again as one") from None


def _listed(manifest: Path) -> Iterator[Piece]:
    def check(columns: Sequence[str]) -> None:
        if missing := [column for column in ("path", "style", "licence") if column not in columns]:
            raise ValueError(f"{manifest} has no column {', '.join(missing)}; its first line names the columns")

    for line, row in csv_rows(manifest, check):
        if row["path"]:
            yield Piece(
                path=row["path"],
                style=row["style"],
                title=row.get("title", ""),
                source=row.get("source", ""),
                licence=row["licence"],
                seconds=_number(row.get("seconds", ""), manifest, line),
                notes=int(_number(row.get("notes", ""), manifest, line)),
                drums=row.get("drums") == "1",
                generated=row.get("generated") == "1",
            )


def _number(text: str, manifest: Path, line: int) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{manifest}, line {line}: {text!r} is no number")
    return number


def _files(root: Path) -> list[Piece]:
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in MIDI_SUFFIXES and path.is_file())
    if not found:
        raise FileNotFoundError(f"no MIDI file in {root}; give a folder with .mid files, or one with midi.csv and midi.tar.xz")
    return [Piece(path=path.relative_to(root).as_posix(), style=path.parent.name) for path in found]


def read_pieces(data_root: str | Path, wanted: Iterable[Piece]) -> Iterator[tuple[Piece, bytes]]:
    """The wanted pieces with the bytes of their MIDI files, in the order of the archive (one pass) or of the paths.

    Pieces that are not there are left out.
    """
    root = Path(data_root)
    by_path = {piece.path: piece for piece in wanted}
    on_disk = [path for path in sorted(by_path) if (root / path).is_file()]
    for path in on_disk:
        yield by_path.pop(path), (root / path).read_bytes()
    archive = root / "midi.tar.xz"
    if by_path and archive.is_file():
        yield from _read_archive(archive, by_path)


def _read_archive(archive: Path, by_path: dict[str, Piece]) -> Iterator[tuple[Piece, bytes]]:
    remaining = dict(by_path)
    with tarfile.open(archive, "r|xz") as members:  # a stream: xz has no random access
        for member in members:
            piece = remaining.pop(member.name.removeprefix("./"), None)
            content = members.extractfile(member) if piece else None
            if piece and content:
                yield piece, content.read()
            if not remaining:
                return


def select(collection: Sequence[Piece], count: int, *, split: Split = "train") -> list[Piece]:
    """The first ``count`` pieces of a split by hash of their path, one group after another, so that no tune fills the style."""
    by_group: dict[str, list[Piece]] = {}
    for piece in sorted((p for p in collection if p.split == split), key=lambda p: text_hash(p.path)):
        by_group.setdefault(piece.group, []).append(piece)
    rounds = [(depth, text_hash(group), piece) for group, members in by_group.items() for depth, piece in enumerate(members)]
    return [piece for _, _, piece in sorted(rounds, key=lambda r: r[:2])[:count]]


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal: chance that is the same on every machine."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()  # names of files need not be valid text
