"""The music of a training: found, planned, rendered to frames, and drawn in batches.

A training's sources become *parts* (excerpts of songs), each a small file of frames in the training's own folder; ``FrameStore`` holds
them in memory and gives random crops. What is kept for good, of thousands of songs, is a dataset (``dataset.py``), of which a
``FrameStore`` can be made too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylestream.groups import group_ids, sound_fingerprint
from stylestream.recipes import (
    AUDIO_SUFFIXES,
    SCORE_SUFFIXES,
    STYLE_RECIPES,
    Piece,
    Split,
    StyleRecipe,
    csv_rows,
    melody_fingerprint,
    pieces,
    read_pieces,
    recipe_of,
    select,
    song_id,
    split_of,
    target_score,
    text_hash,
)
from stylestream.sources import MAX_MEMBER_BYTES, file_id, walk

LEVELS = 240.0  # a frame is stored as a byte of this many steps to one unit: 0.375 dB each, 0.19 dB at most off


@dataclass(frozen=True)
class BuildConfig:
    """What is rendered of a piece."""

    views: int = 4  # other orchestrations beside the target
    max_seconds: float = 45.0
    min_seconds: float = 4.0
    transpose_semitones: int = 3  # drawn in ±: a style has more keys than its tunes
    soundfont: str = "fluidr3"  # of several, with commas between, the first plays the target, and any an orchestration
    # What `plan` takes of a training's sources; `build_frames` is told by its arguments.
    recipe: str = ""  # whose folders and instruments (a key of STYLE_RECIPES); empty: the scores' own
    songs: int = 200  # files of frames to train on, at most
    held_out: int = 4  # and to score on
    excerpts: int = 4  # of one score at most, in other keys
    audio_seconds: float = 600.0  # of one recording at most: one long mix must not be the style

    def __post_init__(self) -> None:
        many = (1.0, math.inf)
        check_ranges(self, views=(0, 64), max_seconds=many, min_seconds=(0.0, math.inf), transpose_semitones=(0, 24))
        check_ranges(self, songs=many, held_out=many, excerpts=many, audio_seconds=many)


def check_ranges(config: Any, **bounds: tuple[float, float]) -> None:
    """ValueError for the first field of a config that is outside its bounds, which belong to the range themselves."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= high:
            upwards = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise ValueError(f"{name} is {value!r}; it must be {upwards}")


Window = tuple[float, float]  # part of a song, as shares of its length


def to_bytes(x: Any) -> Any:
    """Frames (0 … about 1.06) → uint8."""
    import numpy as np

    return np.clip(np.rint(np.asarray(x) * LEVELS), 0, 255).astype(np.uint8)


def _pitch_range(score: Any) -> tuple[int, int]:
    """Lowest and highest MIDI pitch of a score's tracks, drums included: all of them are shifted."""
    ends = [(int(pitches.min()), int(pitches.max())) for track in score.tracks if (pitches := track.notes.numpy()["pitch"]).size]
    return min((low for low, _ in ends), default=60), max((high for _, high in ends), default=60)


class PieceRenderer:
    """MIDI bytes → aligned frames of target and views. Holds the SoundFont and the front end; one per process."""

    def __init__(self, config: BuildConfig) -> None:
        from stylestream.features import LogFrequency

        self.config, self.features = config, LogFrequency()

    @functools.cached_property
    def synthesizers(self) -> list[Any]:
        """Of the target, and all that may play an orchestration. Loaded when the first score comes: folders of audio need none."""
        from stylestream import midi

        return [midi.Synthesizer(midi.find_soundfont(name)) for name in self.config.soundfont.split(",")]

    def render(self, content: bytes, recipe: StyleRecipe, *, seed: int, window: Window = (0.0, 1.0)) -> dict[str, Any]:
        """``frames`` (1 + views, T, F) uint8, target first, and ``phase`` (T, 4) int8 (127 is 1).

        Parameters
        ----------
        window : (float, float) in [0, 1]
            Part of the piece that the excerpt is drawn from.

        Raises
        ------
        ValueError
            If the piece is not MIDI, or too short, or its recipe refuses it.
        """
        import numpy as np

        from stylestream import midi, rhythm, views

        rng = np.random.default_rng([seed, *hashlib.sha256(content).digest()[:8]])
        target = target_score(midi.load_score(content), recipe)
        lowest, highest = _pitch_range(target)
        down, up = min(self.config.transpose_semitones, lowest), min(self.config.transpose_semitones, 127 - highest)
        target = target.shift_pitch(int(rng.integers(-down, up + 1)))
        start, seconds = self._excerpt(midi.duration_seconds(target), window, rng)
        scores = [target, *views.orchestrations(target, rng, self.config.views)]
        players = [0, *rng.integers(len(self.synthesizers), size=len(scores) - 1)]
        frames = np.stack([self._frames(score, start, seconds, self.synthesizers[i]) for score, i in zip(scores, players, strict=True)])
        rate = self.features.config.frames_per_second
        beat_seconds, downbeat_seconds = midi.beats(target)
        phase = rhythm.phase(beat_seconds - start, downbeat_seconds - start, frames=frames.shape[1], frames_per_second=rate)
        return {"frames": frames, "phase": np.rint(phase.T * 127).astype(np.int8)}

    def sound(self, content: bytes, recipe: StyleRecipe, *, seed: int, window: Window = (0.0, 1.0)) -> Any:
        """Waveform (2, N) of an excerpt as the style plays it: what `render` makes the first of its frames of, in its own key."""
        import numpy as np

        from stylestream import midi

        target = target_score(midi.load_score(content), recipe)
        rng = np.random.default_rng([seed, *hashlib.sha256(content).digest()[:8]])
        start, seconds = self._excerpt(midi.duration_seconds(target), window, rng)
        return self.synthesizers[0].render(target, start_seconds=start, max_seconds=seconds, tail_seconds=0.0)

    def _excerpt(self, duration_seconds: float, window: Window, rng: Any) -> tuple[float, float]:
        """Start and length in seconds, drawn within a window of the piece."""
        first, last = (share * duration_seconds for share in window)
        seconds = min(self.config.max_seconds, last - first)
        self._check_length(seconds, window)
        return float(rng.uniform(first, last - seconds)), seconds

    def _check_length(self, seconds: float, window: Window) -> None:
        least = self.config.min_seconds * (window[1] - window[0])
        if seconds < least:
            raise ValueError(f"{seconds:.1f} s long; at least {least:g} s are needed")

    def recording(self, path: Path, *, window: Window = (0.0, 1.0)) -> Any:
        """Mono waveform (N,) at 44.1 kHz of a window of a recording's first ``audio_seconds``.

        Raises
        ------
        ValueError, OSError
            If it cannot be read, or is too short.
        """
        from stylestream import audio

        rate = self.features.config.sample_rate
        y = audio.load(path, sample_rate=rate, mono=True, max_seconds=self.config.audio_seconds)[0][0]
        first, last = (round(share * len(y)) for share in window)
        self._check_length((last - first) / rate, window)
        return y[first:last]

    def hear(self, path: Path, *, window: Window = (0.0, 1.0)) -> dict[str, Any]:
        """``frames`` (1, T, F) and ``phase`` (T, 4) of a recording, as `render` gives them; beats are tracked.

        Raises
        ------
        ValueError, OSError
            If it cannot be read, or is too short, or silent.
        """
        import numpy as np

        from stylestream import rhythm

        y, config = self.recording(path, window=window), self.features.config
        x = self.features_of(y)
        tracker = rhythm.BeatTracker(frames_per_second=config.frames_per_second, bins_per_octave=config.bins_per_octave)
        tracker.push(x)
        beats = tracker.beats()
        known = beats if beats.reliable else rhythm.NO_BEATS
        phase = rhythm.phase(known.beat_seconds, known.downbeat_seconds, frames=x.shape[1], frames_per_second=config.frames_per_second)
        return {"frames": to_bytes(x.T)[None], "phase": np.rint(phase.T * 127).astype(np.int8)}

    def features_of(self, y: Any, *, block_frames: int = 2048) -> Any:
        """Frames (F, T) of a waveform (N,) at the working loudness, block by block: an STFT of ten minutes is a gigabyte."""
        import numpy as np
        import torch

        from stylestream.audio import loudness

        config = self.features.config
        level = loudness(y[None], config.sample_rate)
        if level < -60:
            raise ValueError("it is silent")
        levelled = torch.from_numpy(y * np.float32(10 ** ((config.loudness_lufs - level) / 20)))
        hop, margin = config.hop_length, 16  # frames each side: half the longest window and the decimation filter
        parts = []
        for first in range(0, 1 + len(y) // hop, block_frames):
            start = max(first - margin, 0)
            x = self.features(levelled[start * hop : (first + block_frames + margin) * hop])
            parts.append(x[:, first - start : first - start + block_frames].numpy())
        return np.concatenate(parts, axis=1)[:, : 1 + len(y) // hop]

    def _frames(self, score: Any, start_seconds: float, seconds: float, synthesizer: Any) -> Any:
        import torch

        from stylestream.audio import loudness

        y = synthesizer.render(score, start_seconds=start_seconds, max_seconds=seconds, tail_seconds=0.0).mean(0, keepdims=True)
        config = self.features.config
        samples = round(seconds * config.sample_rate)
        mono = torch.zeros(samples)
        mono[: y.shape[1]] = torch.from_numpy(y[0, :samples])
        level = loudness(y, config.sample_rate)
        if level < -60:
            raise ValueError("an orchestration of it is silent")
        return to_bytes(self.features(mono * 10 ** ((config.loudness_lufs - level) / 20)).T.numpy())


@dataclass(frozen=True)
class _Task:
    piece: Piece
    style: str
    content: bytes
    seed: int

    @property
    def name(self) -> str:
        return f"{self.style}-{self.piece.split}-{song_id(self.content)}-{self.seed}.npz"


def build_frames(
    data_root: str | Path,
    folder: str | Path,
    styles: Sequence[str],
    *,
    config: BuildConfig = BuildConfig(),
    per_style: int = 200,
    per_style_valid: int = 8,
    jobs: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, failure: None,
) -> list[tuple[str, str]]:
    """Render the pieces of some styles and write their frames, one ``.npz`` a song; what is already there is left.

    A style with fewer than ``per_style`` pieces gives several excerpts of each, in other keys.

    Returns
    -------
    list of (path, reason)
        Pieces that could not be rendered.

    Raises
    ------
    OSError
        If frames cannot be written. Those that are there stay; the same call goes on.
    """
    from stylestream import parallel

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(data_root, styles, per_style, per_style_valid)
    missing = [task for task in tasks if not (folder / task.name).exists()]
    failures, done = [], len(tasks) - len(missing)
    work = functools.partial(_render_to, folder)
    with contextlib.closing(parallel.over_songs(work, missing, setup=functools.partial(PieceRenderer, config), jobs=jobs)) as results:
        for task, result in results:
            if isinstance(result, OSError):
                raise result
            done += 1
            if isinstance(result, ValueError):
                failures.append((task.piece.path, str(result)))
            progress(done, len(tasks), failures[-1][1] if isinstance(result, ValueError) else "")
    return failures


def _tasks(data_root: str | Path, styles: Sequence[str], per_style: int, per_style_valid: int) -> list[_Task]:
    chosen: dict[str, list[tuple[Piece, str, int]]] = {}
    for style in styles:
        collection = pieces(data_root, style)
        train, valid = select(collection, per_style), select(collection, per_style_valid, split="valid")
        for index in range(per_style if train else 0):
            piece = train[index % len(train)]
            chosen.setdefault(piece.path, []).append((piece, style, index // len(train)))
        for piece in valid:
            chosen.setdefault(piece.path, []).append((piece, style, 0))
    wanted = [entry[0][0] for entry in chosen.values()]
    read = read_pieces(data_root, wanted)
    tasks = [_Task(piece, style, content, seed) for found, content in read for piece, style, seed in chosen[found.path]]
    return sorted(
        tasks, key=lambda task: (task.piece.split == "train", text_hash(task.name))
    )  # mixed: a run cut short has some of every style


def _render_to(folder: Path, renderer: PieceRenderer, task: _Task) -> OSError | None:
    return _written(folder / task.name, renderer.render(task.content, recipe_of(task.style), seed=task.seed))


def _written(path: Path, arrays: Mapping[str, Any]) -> OSError | None:
    """Write frames. What goes wrong is returned: raised, it would be taken for a fault of the song."""
    import numpy as np

    from stylestream.files import whole_file

    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        return error
    return None


# --- the music of a training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Song:
    """One song of a training's sources, found and read."""

    piece: Piece
    id: str
    content: bytes | Path  # a MIDI file's bytes; where a recording lies
    problem: str = ""  # why it cannot be had


@dataclass(frozen=True)
class Part:
    """What one file of frames is made of."""

    song: Song
    split: Split
    seed: int = 0
    window: Window = (0.0, 1.0)

    @property
    def name(self) -> str:
        """Name of the file; ``FrameStore`` reads style and split off it."""
        place = "" if self.window == (0.0, 1.0) else "-late" if HELD_OUT_SHARE in self.window else "-window"
        return f"{OWN_STYLE}-{self.split}-{self.song.id}-{self.seed}{place}.npz"


def window_named(name: str) -> Window:
    """The window of the part to train on that has this file name."""
    return (HELD_OUT_SHARE, 1.0) if "-late." in name else (0.0, 1 - HELD_OUT_SHARE) if "-window." in name else (0.0, 1.0)


OWN_STYLE = "own"  # of files of frames whose style has no name yet
HELD_OUT_SHARE = 0.2  # of the only song
SPLIT_SHARES = {"train": 0.9, "valid": 0.1}  # of the memory for songs, where it does not hold them all


def find_music(sources: Sequence[str | Path], config: BuildConfig) -> list[Song]:
    """Songs to train on and to score on, drawn by hash from folders, files and collections.

    A collection (a folder with ``midi.csv``) gives the pieces of ``config.recipe``, without its test split. Of other folders all MIDI
    and audio files count; the same file under two names counts once. A file that cannot be read is a song with a ``problem``.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    ValueError
        If no music is there.
    """
    found: dict[str, Song] = {}
    taken: set[str] = set()
    for source in map(Path, sources):
        for song in _collected(source, config) if (source / "midi.csv").is_file() else _lying_about(source, config):
            if song.id not in found:
                found[song.id] = _named_apart(song, source, taken)
                taken.add(found[song.id].piece.path)
    if not found:
        looked_for = " ".join(suffix for suffix in (*SCORE_SUFFIXES, *AUDIO_SUFFIXES))
        raise ValueError(f"no music in {', '.join(map(str, sources))} (looked for {looked_for})")
    return list(found.values())


def _named_apart(song: Song, source: Path, taken: Collection[str]) -> Song:
    """Under its source's name too, and its id, where two sources have a song of one name: each fails and is grouped for itself."""
    path = song.piece.path
    names = (path, f"{source.resolve().name}/{path}", f"{song.id}/{path}")
    return replace(song, piece=replace(song.piece, path=next(name for name in names if name not in taken)))


def _collected(root: Path, config: BuildConfig) -> Iterator[Song]:
    if not config.recipe:
        raise ValueError(f"{root} holds many styles; name the output after one ({', '.join(STYLE_RECIPES)}), or set recipe in [data]")
    collection = pieces(root, config.recipe)
    chosen = [*select(collection, config.songs), *select(collection, config.held_out, split="valid")]
    return (Song(piece, song_id(content), content) for piece, content in read_pieces(root, chosen))


def _lying_about(source: Path, config: BuildConfig) -> Iterator[Song]:
    if not source.exists():
        raise FileNotFoundError(f"no such file or folder: {source}")
    suffixes = (*SCORE_SUFFIXES, *AUDIO_SUFFIXES)
    files = list(walk(source, suffixes)) if source.is_dir() else [source] if source.suffix.lower() in suffixes else []
    files = [path for path in files if os.path.isfile(path)]  # a link may lead nowhere, and a pipe never ends
    chosen = sorted(files, key=lambda path: text_hash(path.name))[: config.songs + config.held_out]
    licences = _licences(source)
    for path in sorted(chosen):
        name = path.relative_to(source).as_posix() if path != source else path.name
        origin, licence = licences.get(path.resolve(), (source.resolve().name, "not stated"))
        yield _read(path, Piece(path=name, source=origin, licence=licence))


def _read(path: Path, piece: Piece) -> Song:
    try:
        with path.open("rb") as file:
            if path.suffix.lower() not in SCORE_SUFFIXES:
                return Song(piece, file_id(file), path)
            content = file.read(MAX_MEMBER_BYTES + 1)
        problem = f"larger than {MAX_MEMBER_BYTES // 2**20} MiB; no score is" if len(content) > MAX_MEMBER_BYTES else ""
        if not problem:
            return Song(piece, song_id(content), content)
    except OSError as error:
        problem = f"it cannot be read ({error.strerror or error})"
    return Song(piece, text_hash(str(path))[:16], path, problem)


def _licences(source: Path) -> dict[Path, tuple[str, str]]:
    """Source and licence of recordings, from an ``audio.csv`` in the folder or up to two above it."""
    for folder in (source.resolve(), *source.resolve().parents[:2]):
        if (folder / "audio.csv").is_file():
            rows = [row for _, row in csv_rows(folder / "audio.csv")]
            return {folder / row.get("path", ""): (row.get("source") or folder.name, row.get("licence") or "not stated") for row in rows}
    return {}


def plan(
    songs: Sequence[Song], config: BuildConfig, *, hold_out_start: bool = False, landmarks: Mapping[str, Sequence[int]] | None = None
) -> list[Part]:
    """What is rendered of these songs, in this order, so that a run cut short has something to train on and something to score on.

    The same music is one group (`same_music`, with the ``landmarks`` of recordings that have been heard). Songs whose group falls in the
    valid split are held out; if none does, the group of the fewest songs, of several the one with the smallest hash; if there are only two
    groups, the smaller one; if there is only one, the end of each of its songs, or the start. A score gives several excerpts, in other
    keys; a recording comes whole.
    """
    music = same_music(songs, landmarks or {})
    groups = _by_size(songs, music)
    if len(groups) == 1:
        windows: dict[Split, Window] = {"train": (0.0, 1 - HELD_OUT_SHARE), "valid": (1 - HELD_OUT_SHARE, 1.0)}
        if hold_out_start:
            windows = {"train": (HELD_OUT_SHARE, 1.0), "valid": (0.0, HELD_OUT_SHARE)}
        train = [Part(song, "train", seed, windows["train"]) for seed, song in _excerpts(songs, config)]
        valid = [Part(song, "valid", 0, windows["valid"]) for song in songs]
    else:
        held = [group for group in groups if split_of(group) == "valid"]
        held = held if 0 < len(held) < len(groups) else groups[:1]
        train = [Part(song, "train", seed) for seed, song in _excerpts([s for s in songs if music[s.id] not in held], config)]
        valid = [Part(song, "valid") for song in sorted(songs, key=lambda s: text_hash(s.piece.path)) if music[song.id] in held]
    ranked = [(5 * i, part) for i, part in enumerate(valid[: config.held_out])] + list(enumerate(train[: config.songs]))
    return [part for _, part in sorted(ranked, key=lambda pair: pair[0])]


def _by_size(songs: Sequence[Song], music: Mapping[str, str]) -> list[str]:
    """Groups from the one of the fewest songs on; of two, from the one with less content: what is held out is not trained on."""
    members: dict[str, list[Song]] = {}
    for song in songs:
        members.setdefault(music[song.id], []).append(song)
    weighed = len(members) == 2  # of many, the shortest is no better than another, and worse to score on
    keys = {group: (len(own), sum(map(_content_bytes, own)) if weighed else 0, text_hash(group)) for group, own in members.items()}
    return sorted(keys, key=lambda group: keys[group])


def _content_bytes(song: Song) -> int:
    if isinstance(song.content, bytes):
        return len(song.content)
    with contextlib.suppress(OSError):
        return song.content.stat().st_size
    return 0


def same_music(songs: Sequence[Song], landmarks: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Name of every song's group, by song id: songs of one path but for its number, of one melody, or of one recording are the same."""
    melodies = {song.id: melody_of(song) for song in songs if isinstance(song.content, bytes)}
    leaders = group_ids([song.id for song in songs], melodies, {song.id: song.piece.group for song in songs}, recordings=landmarks)
    names: dict[str, str] = {}
    for song in sorted(songs, key=lambda song: text_hash(song.piece.group)):
        names.setdefault(leaders[song.id], song.piece.group)
    return {song.id: names[leaders[song.id]] for song in songs}


def melody_of(song: Song) -> tuple[int, ...]:
    """Fingerprint of a score's melody; a recording has none."""
    return _melody(song.content) if isinstance(song.content, bytes) else ()


@functools.lru_cache(maxsize=1024)
def _melody(content: bytes) -> tuple[int, ...]:
    """Fingerprint of a score's melody; empty of what is no score, which is said when it is rendered."""
    from stylestream import midi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tuple(melody_fingerprint(midi.load_score(content)))
        except ValueError:
            return ()


def _excerpts(songs: Sequence[Song], config: BuildConfig) -> list[tuple[int, Song]]:
    by_hash = sorted(songs, key=lambda song: text_hash(song.piece.path))
    return [(seed, song) for seed in range(config.excerpts) for song in by_hash if seed == 0 or isinstance(song.content, bytes)]


def frames_of(renderer: PieceRenderer, part: Part) -> dict[str, Any]:
    """Arrays of a part: ``frames``, ``phase``, ``seconds``."""
    content, window = part.song.content, part.window
    if isinstance(content, Path):
        arrays = renderer.hear(content, window=window)
    else:
        arrays = renderer.render(content, own_recipe(renderer.config), seed=part.seed, window=window)
    return arrays | {"seconds": len(arrays["phase"]) / renderer.features.config.frames_per_second}


def own_recipe(config: BuildConfig) -> StyleRecipe:
    """The recipe that is named, or the scores' own instruments."""
    return recipe_of(config.recipe) if config.recipe else StyleRecipe(())


@dataclass(frozen=True)
class Prepared:
    """What was made of a training's sources: JSON types only."""

    songs: list[dict[str, Any]]  # name, path, id, split, source, licence, seconds, bytes, fingerprint: one for each file of frames
    failures: dict[str, str]  # path → reason
    passed_over: dict[str, str]  # the same, and no failure: a collection's, refused by the recipe; or what the memory does not hold
    seconds: float  # it took

    @property
    def found(self) -> int:
        """How many songs were found."""
        return len({song["id"] for song in self.songs}) + len(self.failures) + len(self.passed_over)

    @property
    def music_seconds(self) -> float:
        """Music trained on; of a song no more than it has, in however many keys it was heard."""
        return sum(self.heard().values())

    def heard(self) -> dict[str, float]:
        """Seconds trained on by song id."""
        seconds: dict[str, float] = {}
        for song in self.songs:
            if song["split"] == "train":
                seconds[song["id"]] = min(seconds.get(song["id"], 0.0) + song["seconds"], song["whole_seconds"])
        return seconds

    def within(self, room_bytes: float) -> Prepared:
        """With the songs that this much memory holds, drawn by hash: one of each split at least, and few to score on."""
        # a store gives every song as many roles as the richest has
        each = max((song["bytes"] / song["seconds"] for song in self.songs), default=0.0)
        sizes = {song["name"]: each * song["seconds"] for song in self.songs}
        if sum(sizes.values()) <= room_bytes:
            return self
        left, kept = {split: share * room_bytes for split, share in SPLIT_SHARES.items()}, dict[str, str]()
        for song in sorted(self.songs, key=lambda song: text_hash(song["name"])):
            name, split = song["name"], song["split"]
            if sizes[name] <= left[split] or split not in kept.values():
                kept[name] = split
                left[split] -= sizes[name]
        songs = [song for song in self.songs if song["name"] in kept]
        lost = {song["path"] for song in self.songs} - {song["path"] for song in songs}
        return replace(self, songs=songs, passed_over=self.passed_over | dict.fromkeys(sorted(lost), "the memory does not hold it"))


def prepare(
    sources: Sequence[str | Path],
    folder: str | Path,
    config: BuildConfig,
    *,
    make: Callable[[PieceRenderer, Part], dict[str, Any]] = frames_of,
    seconds: float | None = None,
    jobs: int | None = None,
    found: Callable[[Sequence[Song]], None] = lambda songs: None,
    progress: Callable[[int, int, str], None] = lambda done, total, failure: None,
) -> Prepared:
    """Write the frames of a training's sources, one ``.npz`` a part; what is already there is left.

    Parameters
    ----------
    make : function at the top of a module
        What becomes of a part, ``seconds`` among it; ``frames_of``, but a baseline sees its songs in another way.
    seconds : float, optional
        Stop after so long, with something to train on and something to score on.
    found : function of the songs that can be read
        Called before the first of them is rendered.
    progress : function of (done, total, "" or the reason of a failure)

    Raises
    ------
    ValueError
        If there is no music, or none that can be used.
    OSError
        If frames cannot be written. A song that cannot be read is a failure of its own.
    """
    import time

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    songs = find_music(sources, config)
    failures = {song.piece.path: song.problem for song in songs if song.problem}
    for name, reason in failures.items():
        progress(0, len(songs), f"{name}: {reason}")
    found([song for song in songs if not song.problem])
    done: list[Part] = []
    landmarks: dict[str, list[int]] = {}
    start, whole = False, False  # held out of an only song is its end, or its start if that cannot be used
    while not whole:  # again without the songs that failed, if they were all of a split, or where one music is on both sides
        usable, known = [song for song in songs if song.piece.path not in failures], len(failures)
        if not usable:
            raise ValueError("no song can be used: " + "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:3]))
        parts = plan(usable, config, hold_out_start=start, landmarks=landmarks)
        done = _render_parts(parts, folder, config, make, failures, None if seconds is None else began + seconds, jobs, progress)
        if {part.split for part in done} == {"train", "valid"}:
            landmarks |= _landmarks(folder, done)
            whole = not _torn(done, same_music(usable, landmarks))
        elif known == len(failures):
            if start:
                raise ValueError(f"{usable[0].piece.path}: too little of it is music to train on one part and score on another")
            start = True
    for path in set(folder.glob("*.npz")) - {folder / part.name for part in done}:
        path.unlink()  # of a plan that failed
    listed = {song.piece.path for song in songs if song.piece.style}
    passed_over = {path: failures.pop(path) for path in listed & set(failures)}
    return Prepared([_entry(folder, part) for part in done], failures, passed_over, time.monotonic() - began)


def _landmarks(folder: Path, parts: Sequence[Part]) -> dict[str, list[int]]:
    """By what a recording is known again, by song id; of those that are heard whole."""
    import numpy as np

    found = {}
    for part in parts:
        if isinstance(part.song.content, Path) and part.window == (0.0, 1.0):
            with np.load(folder / part.name, allow_pickle=False) as arrays:
                found[part.song.id] = [int(h) for h in arrays["landmarks"]] if "landmarks" in arrays else []
    return found


def _torn(parts: Sequence[Part], music: Mapping[str, str]) -> bool:
    """Whether one music is trained on and scored on, though there is other music."""
    train, valid = ({music[part.song.id] for part in parts if part.split == split} for split in ("train", "valid"))
    return bool(train & valid) and any(part.window == (0.0, 1.0) for part in parts)


def _render_parts(
    parts: Sequence[Part],
    folder: Path,
    config: BuildConfig,
    make: Callable[[PieceRenderer, Part], dict[str, Any]],
    failures: dict[str, str],
    until: float | None,
    jobs: int | None,
    progress: Callable[[int, int, str], None],
) -> list[Part]:
    """Render what is missing, until the time is up; ``failures`` is filled in. Returns the parts that are there."""
    import time

    from stylestream import parallel

    there = [part for part in parts if (folder / part.name).exists()]
    missing = [part for part in parts if not (folder / part.name).exists()]
    if not missing:
        return there
    work, setup = functools.partial(_write_part, folder, make), functools.partial(PieceRenderer, config)
    jobs = min(jobs or parallel.cores(), len(missing))
    with contextlib.closing(parallel.over_songs(work, missing, setup=setup, jobs=jobs)) as results:
        for part, result in results:
            if isinstance(result, OSError):
                raise result
            reason = str(result) if isinstance(result, ValueError) else ""
            if reason:
                failures[part.song.piece.path] = reason
            else:
                there.append(part)
            progress(len(there), len(parts), f"{part.song.piece.path}: {reason}" if reason else "")
            if until is not None and time.monotonic() > until and {part.split for part in there} == {"train", "valid"}:
                break
    for path in {part.song.piece.path for part in there} & set(failures):
        del failures[path]  # an excerpt of it was silent, others are music
    order = {part.name: i for i, part in enumerate(parts)}
    return sorted(there, key=lambda part: order[part.name])


def _write_part(folder: Path, make: Callable[[PieceRenderer, Part], dict[str, Any]], renderer: PieceRenderer, part: Part) -> OSError | None:
    """Make a part and write it, or say why it cannot be written."""
    import numpy as np

    from stylestream import midi

    with warnings.catch_warnings(record=True) as caught:  # say which song is truncated
        warnings.simplefilter("always")
        arrays = make(renderer, part)
    for text in sorted({str(warning.message) for warning in caught}):
        warnings.warn(f"{part.song.piece.path}: {text}", stacklevel=2)
    whole, heard, landmarks = float(arrays["seconds"]), list[int](), list[int]()
    if isinstance(part.song.content, bytes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they have been said
            score = midi.load_score(part.song.content)
        whole, heard = midi.duration_seconds(score) * (part.window[1] - part.window[0]), melody_fingerprint(score)
    elif "frames" in arrays:
        landmarks = sound_fingerprint(np.rint(arrays["frames"][0] * (90 / LEVELS)).astype(np.uint8))
    kept: dict[str, Any] = {"fingerprint": np.array(heard, dtype=np.int64), "landmarks": np.array(landmarks, dtype=np.int64)}
    return _written(folder / part.name, {**arrays, "whole_seconds": whole, **kept})


def _entry(folder: Path, part: Part) -> dict[str, Any]:
    import numpy as np

    with np.load(folder / part.name, allow_pickle=False) as arrays:
        heard: dict[str, Any] = {key: round(float(arrays[key]), 2) for key in ("seconds", "whole_seconds")}
        heard["fingerprint"] = [int(h) for h in arrays["fingerprint"]]
    piece = part.song.piece
    about = {"path": piece.path, "source": piece.source, "licence": piece.licence, "bytes": (folder / part.name).stat().st_size}
    return {"name": part.name, "id": part.song.id, "split": part.split} | about | heard


@dataclass(frozen=True)
class StoredSong:
    """A song that lies on a disk."""

    name: str
    style: str
    shape: tuple[int, int, int]  # (R, T, F) of its frames
    read: Callable[[], tuple[Any, Any]]  # frames uint8 of ``LEVELS`` steps, and phase (T, 4) int8


def _shape_of(path: Path) -> tuple[int, int, int]:
    """Shape of the frames in a file, by its head."""
    import zipfile

    import numpy as np

    with zipfile.ZipFile(path) as file, file.open("frames.npy") as array:
        np.lib.format.read_magic(array)
        roles, count, bins = np.lib.format.read_array_header_1_0(array)[0]
    return roles, count, bins


def _read_frames(path: Path) -> tuple[Any, Any]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return arrays["frames"], arrays["phase"]


class FrameStore:
    """Songs' frames in one tensor on a device, and batches of random crops of them.

    An hour of music takes 96 MiB for each of its roles (the song, and its other orchestrations), and no more while it is read. What a
    training holds is planned by memory (`Prepared.within`); a store takes what it is given.

    Parameters
    ----------
    folder : path
        As written by ``build_frames``.
    styles : sequence of str
        Which styles, in the order of their ids.
    """

    def __init__(self, folder: str | Path, styles: Sequence[str], *, split: Split = "train", device: str = "cpu") -> None:
        self._empty(Path(folder), styles, split, device)
        self.refresh()

    @classmethod
    def of(cls, songs: Iterable[StoredSong], styles: Sequence[str], *, split: Split = "train", device: str = "cpu") -> FrameStore:
        """A store of songs that lie elsewhere, for example in a dataset.

        Parameters
        ----------
        songs : iterable of StoredSong

        Raises
        ------
        ValueError
            If there is none of these styles.
        """
        store = cls.__new__(cls)
        store._empty(None, styles, split, device)
        store._take(songs)
        return store

    def _empty(self, folder: Path | None, styles: Sequence[str], split: Split, device: str) -> None:
        self.folder, self.styles, self.split, self.device = folder, tuple(styles), split, device
        self.songs: list[tuple[str, int, int, int]] = []  # (name, style id, first frame, frames)
        self.frames: Any = None  # (R, T, F) uint8 of all songs, one after another
        self.phase: Any = None  # (T, 4) int8
        self._starts: dict[int, list[Any]] = {}
        self._bounds: Any = None  # first frame and length of each song, (2, songs)

    def refresh(self) -> None:
        """Take in songs written since."""
        if self.folder is not None:
            self._take(self._written_since(self.folder))

    def _written_since(self, folder: Path) -> Iterator[StoredSong]:
        known = {song[0] for song in self.songs}
        for path in sorted(folder.glob(f"*-{self.split}-*.npz")):
            style = path.name.split(f"-{self.split}-")[0]
            if path.name not in known and style in self.styles:
                yield StoredSong(path.name, style, _shape_of(path), functools.partial(_read_frames, path))

    def _take(self, songs: Iterable[StoredSong]) -> None:
        """Read songs to where they stay: pieces put together afterwards would need the memory twice."""
        import torch

        songs = list(songs)
        if not songs and self.frames is None:
            raise ValueError(f"{self.folder or 'the dataset'}: no songs of {', '.join(self.styles)} ({self.split})")
        if not songs:
            return
        before, old_phase, total = self.frames, self.phase, sum(song[3] for song in self.songs)
        roles = max(0 if before is None else len(before), *(song.shape[0] for song in songs), 1)
        count = total + sum(song.shape[1] for song in songs)
        self.frames = torch.empty((roles, count, songs[0].shape[2]), dtype=torch.uint8, device=self.device)
        self.phase = torch.empty((count, 4), dtype=torch.int8, device=self.device)
        if before is not None:
            self._fill(0, before, old_phase)
        for song in songs:
            frames, phase = map(torch.from_numpy, song.read())
            self._fill(total, frames, phase)
            self.songs.append((song.name, self.styles.index(song.style), total, len(phase)))
            total += len(phase)
        self._starts, self._bounds = {}, None

    def _fill(self, first: int, frames: Any, phase: Any) -> None:
        """Put frames in their place. A recording has no other orchestration: it stands in for its own."""
        window = slice(first, first + len(phase))
        self.frames[: len(frames), window], self.frames[len(frames) :, window] = frames, frames[:1]
        self.phase[window] = phase

    def only(self, style: str) -> FrameStore:
        """The songs of one style, under the same ids, sharing the frames."""
        return self.part([song for song in self.songs if song[1] == self.styles.index(style)])

    def part(self, songs: Sequence[tuple[str, int, int, int]]) -> FrameStore:
        """Some of the songs, sharing the frames."""
        import copy

        store = copy.copy(self)
        store.songs, store._starts, store._bounds = list(songs), {}, None
        return store

    def starts(self, crop_frames: int) -> list[Any]:
        """For each style that has songs, the first frames of its possible crops."""
        import torch

        if crop_frames not in self._starts:
            per_style: dict[int, list[Any]] = {}
            for _, style, first, count in self.songs:
                if count >= crop_frames:
                    per_style.setdefault(style, []).append(torch.arange(first, first + count - crop_frames + 1, dtype=torch.int32))
            self._starts[crop_frames] = [(style, torch.cat(parts)) for style, parts in sorted(per_style.items())]
        return self._starts[crop_frames]

    def mean_frames(self) -> Any:
        """Mean spectrum of each style's targets, (styles, F)."""
        import torch

        mean = torch.zeros(len(self.styles), self.frames.shape[2], device=self.device)
        for style in range(len(self.styles)):
            parts = [self.frames[0, first : first + count].float().mean(0) for _, s, first, count in self.songs if s == style]
            if parts:
                mean[style] = torch.stack(parts).mean(0) / LEVELS
        return mean

    def batch(
        self, size: int, crop_frames: int, *, other: float, generator: Any, swapped: float = 0.0, clip_frames: int = 0
    ) -> dict[str, Any]:
        """Random crops, styles equally often.

        Parameters
        ----------
        other : float
            Share of crops whose view is another orchestration; the others are shown the target.
        generator : torch.Generator [CPU]
        swapped : float
            Share of crops whose target is another orchestration, too: any but the last, which may lack a part.
        clip_frames : int
            Frames of ``clip``: the target's song and orchestration, anywhere in it.

        Returns
        -------
        dict
            ``view``, ``target`` (B, F, T) float, ``style`` (B,), ``phase`` (B, 4, T) float, on the device; with ``clip_frames``, ``clip``
            (B, F, clip_frames) and ``swapped`` (B,) bool.
        """
        import torch

        starts = self.starts(crop_frames)
        pick = torch.randint(len(starts), (size,), generator=generator)
        where = torch.rand(size, generator=generator, dtype=torch.float64)
        start, style = torch.zeros(size, dtype=torch.int32), torch.zeros(size, dtype=torch.int64)
        for i, (style_id, candidates) in enumerate(starts):
            mine = pick == i
            start[mine] = candidates[(where[mine] * len(candidates)).long()]
            style[mine] = style_id
        roles = self.frames.shape[0]
        is_other = torch.rand(size, generator=generator) < (other if roles > 1 else 0.0)
        away = torch.where(is_other, torch.randint(1, max(roles, 2), (size,), generator=generator), 0)
        target_role = torch.zeros_like(away)
        if swapped and roles > 2:
            is_swapped = torch.rand(size, generator=generator) < swapped
            target_role = torch.where(is_swapped, torch.randint(1, roles - 1, (size,), generator=generator), 0)
        index = start.to(self.device)[:, None] + torch.arange(crop_frames, device=self.device)  # a large copy would wait for the GPU
        batch = {
            "view": self._crops((target_role + away) % roles, index),
            "target": self._crops(target_role, index),
            "style": style.to(self.device),
            "phase": self.phase[index].transpose(1, 2).float() / 127,
        }
        if clip_frames:
            batch["swapped"] = (target_role > 0).to(self.device)
            batch["clip"] = self._crops(target_role, self._elsewhere(start, clip_frames, generator).to(self.device))
        return batch

    def _crops(self, role: Any, index: Any) -> Any:
        """Roles (B,), frames (B, T) → (B, F, T) float."""
        return self.frames[role.to(self.device)[:, None], index].transpose(1, 2).float() / LEVELS

    def _elsewhere(self, start: Any, count: int, generator: Any) -> Any:
        """Frames (B, count) anywhere in the song that a crop is of; of a shorter song, its frames again and again."""
        import torch

        if self._bounds is None:
            self._bounds = torch.tensor(sorted(song[2:] for song in self.songs)).T.contiguous()
        firsts, lengths = self._bounds
        song = torch.searchsorted(firsts, start.long(), right=True) - 1
        room = (lengths[song] - count).clamp(min=0)
        offset = (torch.rand(len(start), generator=generator, dtype=torch.float64) * (room + 1)).long()
        return firsts[song][:, None] + (offset[:, None] + torch.arange(count)) % lengths[song][:, None]
