"""Music → passages to judge a style on: held out, chosen by hash, each with the sound of its song and of its truth.

*Reduction* passages come of scores. The **song** is the passage's piano reduction (for the style piano: other instruments), played with
a SoundFont that training never heard; the **truth** is the passage as the style plays it, with the SoundFont of training.
*Recordings* are songs without a truth. Pieces come in the order of a hash of their names, which nobody chose, and begin at a quarter of
their length, past the introduction.

A song that the style was trained on is refused: by the hash of its content, and, in another key, tempo, edition or instrument, by its
melody's fingerprint, both of which a style file carries.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import recipes, sound
from stylestream.groups import resemblance
from stylestream.recipes import Piece, StyleRecipe
from stylestream.sources import Found, file_id
from stylestream.sources import find as find_songs

Array = NDArray[np.floating]

SAMPLE_RATE = sound.SAMPLE_RATE
# Of the 111.5 million pairs of 14,937 scores, 738 of different names resemble each other by at least a quarter (benchmarks/melodies.py).
# Of 96 that were looked at, nearly all are the same music: editions, transposed copies, a Kyrie sung again as Dona nobis; the others are
# variants of a folk tune. From 0.1 to 0.2 tunes meet that share a phrase. Where fewer runs agree, short melodies do so by chance.
SAME_MELODY = 0.25
LEAST_RUNS = 6
OWN = "own"  # recipe of scores that say themselves what plays them


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
    curve_pieces: int = 0  # on which the dials are swept and the steps replaced; 0: no curves
    curve_seconds: float = 8.0


STANDARD = Protocol(curve_pieces=3)  # of the command line
QUICK = Protocol(pieces=4, seconds=8.0)


@dataclass(frozen=True)
class Candidate:
    """A song that might be judged on: a MIDI file's bytes, or where a recording lies."""

    piece: Piece
    content: bytes | Path
    id: str
    fingerprint: tuple[int, ...] = ()  # of its melody, where that is known without its score
    problem: str = ""  # why it cannot be had


@dataclass(frozen=True)
class Excerpt:
    """A passage of a held-out piece: of a score (bytes of a MIDI file), or of a recording (its path)."""

    piece: Piece
    content: bytes | Path
    start_seconds: float
    seconds: float
    id: str = ""  # hash of the content
    truth: Path | None = None  # of a recording that has one

    @property
    def recorded(self) -> bool:
        """Whether it is a recording."""
        return isinstance(self.content, Path)


# --- which passages ----------------------------------------------------------------------------------------------------------------


def excerpts(
    sources: str | Path | Sequence[str | Path],
    style: str,
    protocol: Protocol = STANDARD,
    *,
    split: recipes.Split = "test",
    known: Mapping[str, Sequence[int]] | None = None,
    kind: str = "reduction",
) -> tuple[list[Excerpt], dict[str, str]]:
    """The first held-out passages of a style by hash, and why other pieces were passed over.

    Parameters
    ----------
    sources : path or several
        Collections (``midi.csv`` beside ``midi.tar.xz``): their test split. Other folders: all of their songs. Single songs.
    style : str
        A key of ``recipes.STYLE_RECIPES``; of recordings it says nothing.
    split : "test", "valid" or "train"
        Of a collection. Settings are chosen on "valid", so that "test" chooses nothing.
    known : mapping of str to sequence of int, optional
        Training song id → melody fingerprint, of a style file: songs that are refused.
    kind : "reduction" or "recordings"
        Scores, or recordings.

    Raises
    ------
    ValueError
        If no piece can be used.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    count, named, chosen, refused = 0, list[Candidate](), list[Excerpt](), dict[str, str]()
    while len(chosen) < protocol.pieces and len(named) >= count:  # many were refused or the same, and there may be more
        count = 4 * max(count, protocol.pieces)
        named = candidates(listed, style, count, kind=kind, split=split)
        chosen, refused = _usable(_each_once(named), style, protocol, known or {})
    if not chosen:
        raise ValueError(_none_left(style, listed, refused))
    return chosen, refused


def _usable(
    songs: Iterable[Candidate], style: str, protocol: Protocol, known: Mapping[str, Sequence[int]]
) -> tuple[list[Excerpt], dict[str, str]]:
    """As many as the protocol takes, and why those before them were passed over."""
    chosen: list[Excerpt] = []
    refused: dict[str, str] = {}
    for song in songs:
        if any(excerpt.piece.path == song.piece.path for excerpt in chosen):  # of another source: a piece is known by its name
            song = replace(song, piece=replace(song.piece, path=f"{song.piece.path} ({song.id[:8]})"))
        try:
            chosen.append(_excerpt(song, style, protocol, known))
        except (ValueError, OSError) as error:
            refused[song.piece.path] = str(error)
        if len(chosen) == protocol.pieces:
            break
    return chosen, refused


def _none_left(style: str, sources: Sequence[str | Path], refused: Mapping[str, str]) -> str:
    reasons = "; ".join(f"{path}: {reason}" for path, reason in list(refused.items())[:3]) + (" …" if len(refused) > 3 else "")
    return f"no held-out piece for style {style!r} in {', '.join(map(str, sources))}" + (f" ({reasons})" if reasons else "")


def candidates(
    sources: Sequence[str | Path], style: str, count: int, *, kind: str = "reduction", split: recipes.Split = "test"
) -> list[Candidate]:
    """Songs of the sources in the order of a hash, of each source ``count`` at most; twice what lies there twice. Recordings are not opened
    yet."""
    named = [candidate for source in sources for candidate in _named(Path(source), style, count, kind, split)]
    if len(sources) > 1:
        named.sort(key=lambda candidate: recipes.text_hash(candidate.piece.path))
    return named


def _each_once(named: Iterable[Candidate]) -> Iterator[Candidate]:
    seen: set[str] = set()
    for candidate in named:
        if candidate.id not in seen:
            seen.add(candidate.id)
            yield candidate


def kinds(sources: Sequence[str | Path]) -> list[str]:
    """Which protocols the sources have songs for."""
    roots = [_root(Path(source)) for source in sources]
    built = any((root / "dataset.json").is_file() for root in roots)
    listed = [root for root in roots if (root / "midi.csv").is_file()]
    others = [source for source, root in zip(sources, roots, strict=True) if root not in listed and not _built(root)]
    suffixes = {Path(path).suffix.lower() for path in _paths(others)}
    scores = bool(listed) or bool(suffixes & set(recipes.SCORE_SUFFIXES))
    return ["reduction"] * scores + ["recordings"] * (built or bool(suffixes & set(recipes.AUDIO_SUFFIXES)))


def _named(source: Path, style: str, count: int, kind: str, split: recipes.Split) -> list[Candidate]:
    root = _root(source)
    if _built(root):
        return _kept_sounds(root, count, split) if kind == "recordings" else []
    if (root / "midi.csv").is_file():
        return _collected(root, style, count, split) if kind == "reduction" else []
    return _found(source, count, recipes.AUDIO_SUFFIXES if kind == "recordings" else recipes.SCORE_SUFFIXES)


def _root(source: Path) -> Path:
    return source.parent if source.name in ("midi.csv", "midi.tar.xz", "dataset.json") else source


def _built(root: Path) -> bool:
    return (root / "dataset.json").is_file()


def _collected(root: Path, style: str, count: int, split: recipes.Split) -> list[Candidate]:
    """Pieces of a collection's split."""
    chosen = recipes.select(recipes.pieces(root, style), count, split=split)
    contents = {piece.path: content for piece, content in recipes.read_pieces(root, chosen)}
    return [_in_archive(piece, contents.get(piece.path)) for piece in chosen]


def _in_archive(piece: Piece, content: bytes | None) -> Candidate:
    if content is None:
        return Candidate(piece, b"", piece.path, problem="it is not in the archive")
    return Candidate(piece, content, recipes.song_id(content))


def _found(source: Path, count: int, suffixes: Sequence[str]) -> list[Candidate]:
    """Songs of a folder, an archive or a manifest: the first by hash, of an archive read in a second pass."""
    paths = [path for path in _paths([source]) if Path(path).suffix.lower() in suffixes]
    chosen = {path: place for place, path in enumerate(sorted(paths, key=recipes.text_hash)[:count])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a manifest lacks does not matter here
        read = [(chosen[song.path], _candidate(song)) for song in find_songs([source]) if song.path in chosen]
    return [candidate for _, candidate in sorted(read, key=lambda pair: pair[0])]


def _paths(sources: Sequence[str | Path]) -> list[str]:
    """Of all songs that can be had."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [song.path for song in find_songs(sources) if not song.problem]


def _candidate(song: Found) -> Candidate:
    piece = Piece(path=song.path, style=song.style, title=song.title, source=song.source, licence=song.licence)
    try:
        content = song.content()
        if isinstance(content, Path):
            with content.open("rb") as file:
                return Candidate(piece, content, file_id(file))
    except (ValueError, OSError) as error:
        return Candidate(piece, b"", song.path, problem=str(error))
    packed = Path(song.path).suffix.lower() in recipes.AUDIO_SUFFIXES
    return Candidate(piece, content, recipes.song_id(content), problem="a recording in an archive; unpack it first" if packed else "")


def _kept_sounds(root: Path, count: int, split: recipes.Split) -> list[Candidate]:
    """Songs of a built dataset's split, where it keeps their sound."""
    from stylestream.dataset import Dataset

    data = Dataset(root)
    suffix = str(data.description.build.get("keep_audio", ""))
    if not suffix:
        raise ValueError(f"{root} keeps no sound; build it with --keep-audio flac, or evaluate on the songs it was built from")
    rows = [row for row in data.songs.to_pylist() if row["split"] == split]
    rows.sort(key=lambda row: recipes.text_hash(row["path"]))
    return [
        Candidate(
            Piece(path=row["path"], style=row["style"], title=row["title"], source=row["source"], licence=row["licence"]),
            root / "audio" / f"{row['song_id']}.{suffix}",
            row["song_id"],
            tuple(row["fingerprint"] or ()),
        )
        for row in rows[:count]
    ]


def _excerpt(song: Candidate, style: str, protocol: Protocol, known: Mapping[str, Sequence[int]]) -> Excerpt:
    if song.problem:
        raise ValueError(song.problem)
    if song.id in known:
        raise ValueError("the style was trained on it")
    _check_melody(song.fingerprint, known)
    if isinstance(song.content, Path):
        return _recorded(song, song.content, protocol)
    return _scored(song, song.content, recipe_named(style), protocol, known)


def recipe_named(style: str) -> StyleRecipe:
    """A style's recipe; of ``own`` or no name the scores' own instruments. ValueError names the known ones."""
    if style in ("", OWN):
        return StyleRecipe(())
    try:
        return recipes.recipe_of(style)
    except ValueError as error:
        raise ValueError(f"{error}, or {OWN} for the scores' own instruments (--recipe)") from None


def _scored(song: Candidate, content: bytes, recipe: StyleRecipe, protocol: Protocol, known: Mapping[str, Sequence[int]]) -> Excerpt:
    from stylestream import midi

    score = midi.load_score(content)
    _check_melody(recipes.melody_fingerprint(score), known)
    target = recipes.target_score(score, recipe)
    excerpt = Excerpt(song.piece, content, *_place(midi.duration_seconds(target), protocol), song.id)
    found = int((notes_of(target, excerpt)["onset_seconds"] >= 0).sum())
    if found < protocol.min_notes:
        raise ValueError(f"{found} notes in the excerpt; at least {protocol.min_notes} are needed")
    return excerpt


def _recorded(song: Candidate, path: Path, protocol: Protocol) -> Excerpt:
    from stylestream import audio

    seconds = audio.info(path).seconds
    if seconds is None:
        y, sample_rate = audio.load(path, mono=True)
        seconds = y.shape[1] / sample_rate
    if seconds < 2.0:
        raise ValueError(f"{seconds:.1f} s long; at least 2 s are needed")
    return Excerpt(song.piece, path, *_place(seconds, protocol), song.id)


def _place(whole_seconds: float, protocol: Protocol) -> tuple[float, float]:
    """Start and length of the passage."""
    start = 0.0 if whole_seconds <= protocol.seconds else min(protocol.start * whole_seconds, whole_seconds - protocol.seconds)
    return start, min(protocol.seconds, whole_seconds)


def _check_melody(fingerprint: Sequence[int], known: Mapping[str, Sequence[int]]) -> None:
    heard = same_melody(fingerprint, known)
    if heard:
        raise ValueError(f"the style was trained on this melody ({heard[0]:.0%} of that of song {heard[1]})")


def same_melody(fingerprint: Sequence[int], known: Mapping[str, Sequence[int]]) -> tuple[float, str] | None:
    """The training song whose melody this is, with their resemblance; None if there is none."""
    found = [(resemblance(fingerprint, heard), song) for song, heard in known.items() if len({*fingerprint} & {*heard}) >= LEAST_RUNS]
    return max(((share, song) for share, song in found if share >= SAME_MELODY), default=None)


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
        return midi.piano_reduction(_without_unisons(target) if recipe.layers else target)
    return midi.random_orchestration(target, np.random.default_rng(list(hashlib.sha256(content).digest())))


def _without_unisons(score: Any) -> Any:
    """Layers in unison are one note of the song, not louder ones."""
    single, heard = score.copy(), set()
    for track in single.tracks:
        notes = [(note.time, note.duration, note.pitch) for note in track.notes]
        new = [note not in heard for note in notes]
        track.notes = type(track.notes)([note for note, is_new in zip(track.notes, new, strict=True) if is_new])
        heard.update(notes)
    return single


# --- their sound, cached -----------------------------------------------------------------------------------------------------------


class Renderer:
    """Scores → waveforms; a render is kept as FLAC under a hash of everything it depends on. SoundFonts load when first needed."""

    def __init__(self, cache: str | Path) -> None:
        self.cache = Path(cache)
        self.synthesizers: dict[str, Any] = {}

    def render(self, score: Any, soundfont: str, excerpt: Excerpt) -> Array:
        """The excerpt of a score, (2, N) at 44.1 kHz."""
        from stylestream import midi

        path, size = self.path(score, soundfont, excerpt), round(excerpt.seconds * SAMPLE_RATE)
        if path.is_file():
            return sound.read_sound(path)
        if soundfont not in self.synthesizers:
            self.synthesizers[soundfont] = midi.Synthesizer(midi.find_soundfont(soundfont))
        y = self.synthesizers[soundfont].render(score, start_seconds=excerpt.start_seconds, max_seconds=excerpt.seconds)[:, :size]
        sound.write_sound(path, np.pad(y, ((0, 0), (0, size - y.shape[1]))))
        return sound.read_sound(path)  # the first run hears what the second will

    def path(self, score: Any, soundfont: str, excerpt: Excerpt) -> Path:
        """Where a render is kept."""
        from stylestream import midi

        font, size = midi.find_soundfont(soundfont), round(excerpt.seconds * SAMPLE_RATE)
        return self.cache / (
            key_of(score.dumps_midi(), font.name, font.stat().st_size, excerpt.start_seconds, size, source_hash(["midi"])) + ".flac"
        )

    def listen(self, excerpt: Excerpt) -> Array:
        """The excerpt of a recording, (C, N) at 44.1 kHz."""
        from stylestream import audio

        assert isinstance(excerpt.content, Path)
        y, _ = audio.load(excerpt.content, sample_rate=SAMPLE_RATE, max_seconds=excerpt.start_seconds + excerpt.seconds)
        y = y[:, round(excerpt.start_seconds * SAMPLE_RATE) :]
        if not np.abs(y).max(initial=0.0) > 1e-4:
            raise ValueError("the passage is silent")
        return y


def key_of(*parts: Any) -> str:
    """A name for what depends on these things."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def default_cache() -> Path:
    """Where renders are kept: the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("stylestream")) / "renders"


def source_hash(modules: Iterable[str]) -> str:
    """Hash of the source of some of the package's modules: what they made of a song is kept for as long as they stay as they are."""
    return key_of(*((Path(__file__).parent / f"{name}.py").read_bytes() for name in modules))
