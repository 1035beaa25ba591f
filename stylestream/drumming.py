"""Scores → a style's drum layer: grooves from what its drummers play, sounds from a SoundFont.

A *groove* is what one song's drummer repeats: its commonest bars, as they were played, with their timing and their velocities. A *sound* is
one hit of the kit that the style's songs are rendered with. The layer's loudness is that of the style's own songs: the median of drums
against everything else, brought about with the style's own network.

Conventions: as in `drums`; scores are ``symusic.Score`` in ticks. Needs the extra ``[midi]``.
"""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import audio, midi
from stylestream.drums import FAMILIES, GRID, SAMPLE_RATE, TICKS, DrumLayer, Numbers, loop, plan_hits, play
from stylestream.features import LogFrequency
from stylestream.recipes import Piece, StyleRecipe, pieces, read_pieces, select, target_score
from stylestream.style import PAINTS_TONES, features_of, load_style_file, network_of, read_card, update_drums
from stylestream.transfer import Dials, StyleTransfer

Array = NDArray[np.float32]

MAX_GROOVES = 40  # of a style
MAX_BARS = 6  # of a groove
MIN_BARS = 8  # of a song, that it has something to repeat
MIN_HITS, MIN_NOTES = 4.0, 3  # hits a bar in the mean, and drums: a bass drum by itself is no groove
COMMON_METRES = (2, 3, 4, 5, 6)
MAX_NOTES = 14  # of a kit: they make up 98 % of a style's hits
VELOCITIES = (64, 112)
LONG_SECONDS, SHORT_SECONDS = 1.1, 0.45  # cymbals, and all other drums
CYMBALS = (46, 49, 51, 52, 53, 55, 57, 59, 80, 81)
END_DB = -50.0  # a sound ends where it is so far under its peak
FADE_SECONDS = 0.02
MAX_BYTES = 1_000_000  # of a style's sounds
HIT_SPACING_SECONDS = 2.0
PIECES, CALIBRATION_PIECES = 120, 40  # songs of one style differ by 10 LU: of eight, the median is chance
MAX_LEVELLING_DB = 12.0
MIN_SHARE = 0.3  # of a style's songs that have drums, that drums belong to it


@dataclass(frozen=True)
class PlayedBar:
    """A bar that a song repeats."""

    beats: int
    count: int
    hits: tuple[tuple[int, int, int], ...]  # tick, note, velocity


@dataclass(frozen=True)
class Groove:
    """What one song's drummer plays."""

    bpm: float
    bars: tuple[PlayedBar, ...]


def drum_bars(score: Any) -> tuple[list[Numbers], list[int], float]:
    """Every bar of a score's drums.

    Returns
    -------
    hits : list of array [shape=(n, 3)]
        Tick from the bar's start, note, velocity; bars before the first hit and after the last are left out.
    beats : list of int
        Of each bar.
    bpm : float
        Median tempo in beats a minute.
    """
    notes = midi.notes(score)
    notes = notes[notes["drum"]]
    beats, downbeats = midi.beats(score)
    if not len(notes) or len(beats) < 2 or not len(downbeats):
        return [], [], 0.0
    place = np.interp(notes["onset_seconds"], beats, np.arange(len(beats)))
    grid = np.round(place * GRID) / GRID  # a hit a little early belongs to the beat it is meant for
    starts = np.searchsorted(beats, downbeats - 1e-6)
    bar = np.searchsorted(starts, grid, side="right") - 1
    lengths = np.diff(np.append(starts, len(beats)))
    rows = np.stack([np.round((place - starts[bar]) * TICKS), notes["pitch"], notes["velocity"]], axis=1).astype(np.int64)
    hits = [rows[bar == k] for k in range(bar[0], bar[-1] + 1)]
    return hits, lengths[bar[0] : bar[-1] + 1].tolist(), float(60 / np.median(np.diff(beats)))


def groove_of(score: Any) -> Groove | None:
    """What a score's drummer repeats; None where there is too little of it, or its bars make no sense."""
    hits, beats, bpm = drum_bars(score)
    if len(hits) < MIN_BARS or np.mean([len(h) for h in hits]) < MIN_HITS or not 40 <= bpm <= 250:
        return None
    if int(np.median(beats)) not in COMMON_METRES or len(np.unique(np.concatenate(hits)[:, 1])) < MIN_NOTES:
        return None
    kinds = [_kind(h, b) for h, b in zip(hits, beats, strict=True)]
    common = Counter(kind for kind, b in zip(kinds, beats, strict=True) if b in COMMON_METRES and kind[1]).most_common(MAX_BARS)
    found = []
    for kind, count in common:
        first = kinds.index(kind)
        rows = np.unique(hits[first], axis=0)
        rows = rows[(rows[:, 2] > 0) & (rows[:, 0] > -TICKS)]
        found.append(PlayedBar(kind[0], count, tuple((int(t), int(n), int(v)) for t, n, v in rows)))
    return Groove(bpm, tuple(bar for bar in found if bar.hits)) if found else None


def _kind(hits: Numbers, beats: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Bars are the same whose hits are, on the grid."""
    places = np.round(hits[:, 0] * (GRID / TICKS)).astype(np.int64)
    return beats, tuple(sorted(set(zip(places.tolist(), hits[:, 1].tolist(), strict=True))))


def distinct(grooves: Iterable[Groove], most: int = MAX_GROOVES) -> list[Groove]:
    """The first grooves that no groove before them is like: of an arranger's many songs on one pattern one is kept."""
    kept: list[Groove] = []
    seen: set[tuple[int, tuple[tuple[int, int], ...]]] = set()
    for groove in grooves:
        main = _main(groove)
        if not main & seen:
            kept.append(groove)
            seen |= main
        if len(kept) == most:
            break
    return kept


def _main(groove: Groove) -> set[tuple[int, tuple[tuple[int, int], ...]]]:
    return {(b.beats, tuple(sorted({(round(t * GRID / TICKS), n) for t, n, _ in b.hits}))) for b in groove.bars[:2]}


def kit_of(scores: Sequence[Any]) -> int:
    """The General MIDI kit (program of channel 10) that most of the drum notes are for."""
    kits: Counter[int] = Counter()
    for score in scores:
        for track in score.tracks:
            if track.is_drum:
                kits[track.program] += len(track.notes)
    return kits.most_common(1)[0][0] if kits else 0


def common_notes(grooves: Sequence[Groove]) -> list[int]:
    """Drums that the grooves are played on, the commonest first."""
    counts: Counter[int] = Counter()
    for groove in grooves:
        for bar in groove.bars:
            counts.update({note: sum(1 for _, n, _ in bar.hits if n == note) * bar.count for _, note, _ in bar.hits})
    return [note for note, _ in counts.most_common(MAX_NOTES)]


# --------------------------------------------------------------------------------------------------------------------------- sounds


@dataclass(frozen=True, eq=False)
class Sound:
    """One hit: mono samples, and how far left it stands, −1 to 1."""

    note: int
    velocity: int
    y: Array
    balance: float


def record(synthesizer: midi.Synthesizer, notes: Sequence[int], kit: int = 0) -> list[Sound]:
    """One hit of each drum at each of `VELOCITIES`; drums that the SoundFont does not have are left out."""
    asked = [(note, velocity) for note in notes for velocity in VELOCITIES]
    y = synthesizer.render(_hits_apart(asked, kit))
    step = round(HIT_SPACING_SECONDS * SAMPLE_RATE)
    cut = [_trimmed(y[:, i * step : (i + 1) * step], note, velocity) for i, (note, velocity) in enumerate(asked)]
    return [sound for sound in cut if sound is not None]


def _hits_apart(asked: Sequence[tuple[int, int]], kit: int) -> Any:
    import symusic

    score: Any = symusic.Score(480)  # its stubs know less than it does
    score.tempos.append(symusic.Tempo(0, 60.0))
    track: Any = symusic.Track("drums", kit, True)
    for i, (note, velocity) in enumerate(asked):
        track.notes.append(symusic.Note(round(i * HIT_SPACING_SECONDS * 480), 480, note, velocity))
    score.tracks.append(track)
    return score


def _trimmed(y: Array, note: int, velocity: int) -> Sound | None:
    """From the hit's first sample to where it has died away."""
    mono, peak = y.mean(0), float(np.abs(y).max(initial=0.0))
    if peak < 1e-4:
        return None
    longest = round((LONG_SECONDS if note in CYMBALS else SHORT_SECONDS) * SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(y).max(0) > peak * 10 ** (END_DB / 20))
    end = min(int(loud[-1]) + 1, longest)
    left, right = np.sqrt(np.square(y[:2, :end], dtype=float).mean(1))
    return Sound(note, velocity, faded(mono[:end].copy()), float((left - right) / (left + right)))


def faded(y: Array) -> Array:
    """The end of a sound, brought to nothing."""
    size = min(round(FADE_SECONDS * SAMPLE_RATE), len(y))
    y[len(y) - size :] *= np.linspace(1, 0, size, dtype=np.float32)
    return y


# ---------------------------------------------------------------------------------------------------------------------------- layer


def assemble(grooves: Sequence[Groove], sounds: Sequence[Sound], *, gain_db: float = 0.0) -> DrumLayer:
    """Grooves and sounds as a style file keeps them.

    Parameters
    ----------
    gain_db : float
        Of the sounds, at the dial's default, beside a song at the working loudness.

    Raises
    ------
    ValueError
        If there is no groove or no sound.
    """
    if not grooves or not sounds:
        raise ValueError("no drums: a layer needs a groove and a sound")
    peak = max(float(np.abs(sound.y).max()) for sound in sounds)
    ends = np.cumsum([len(sound.y) for sound in sounds])
    table = [
        (sound.note, sound.velocity, end - len(sound.y), end, round(1000 * sound.balance)) for sound, end in zip(sounds, ends, strict=True)
    ]
    hits, bars = _bar_tables(grooves, {sound.note for sound in sounds})
    return DrumLayer(
        samples=np.round(np.concatenate([sound.y for sound in sounds]) * (32000 / peak)).astype(np.int16),
        sounds=np.array(table, np.int32),
        hits=hits,
        bars=bars,
        grooves=np.array([(round(100 * groove.bpm), 0) for groove in grooves], np.int32),
        gain=np.array([round(100 * (gain_db + 20 * math.log10(peak * 32768 / 32000)))], np.int32),
    )


def _bar_tables(grooves: Sequence[Groove], there: set[int]) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    stand_ins = there | {note for family in FAMILIES if there & set(family) for note in family}
    hits: list[tuple[int, int, int]] = []
    bars = []
    for number, groove in enumerate(grooves):
        for bar in groove.bars:
            heard = [hit for hit in bar.hits if hit[1] in stand_ins]
            if heard:
                bars.append((number, bar.beats, bar.count, len(hits), len(hits) + len(heard)))
                hits += heard
    if not bars:
        raise ValueError("none of the grooves is played on drums that there are sounds of")
    return np.array(hits, np.int16), np.array(bars, np.int32)


def layer_of_scores(scores: Sequence[Any], synthesizer: midi.Synthesizer) -> DrumLayer:
    """The drum layer of a style whose songs are scores, as loud as the SoundFont makes it.

    Parameters
    ----------
    scores : sequence of symusic.Score
        Of training; those without drums, or with too few, are passed over.

    Raises
    ------
    ValueError
        If none has drums that are repeated.
    """
    found = [groove for groove in map(groove_of, scores) if groove is not None]
    grooves = distinct(found)
    if not grooves:
        raise ValueError(f"none of {len(scores)} scores has {MIN_BARS} bars of drums")
    sounds = record(synthesizer, common_notes(grooves), kit_of(scores))
    return levelled(assemble(grooves, _within(sounds, MAX_BYTES)))


def _within(sounds: Sequence[Sound], most_bytes: int) -> list[Sound]:
    """Sounds made shorter until they fit."""
    share = min(1.0, most_bytes / max(sum(2 * len(sound.y) for sound in sounds), 1))
    if share == 1.0:
        return list(sounds)
    return [Sound(s.note, s.velocity, faded(s.y[: int(share * len(s.y))].copy()), s.balance) for s in sounds]


# ------------------------------------------------------------------------------------------------------------------------- loudness


def levelled(layer: DrumLayer) -> DrumLayer:
    """The layer with all grooves as loud as the one in the middle: how loud a song's drummer is must not hang on which one it is."""
    levels = np.array([_loop_lufs(layer, groove) for groove in range(len(layer.grooves))])
    wanted = np.median(levels[np.isfinite(levels)]) if np.isfinite(levels).any() else 0.0
    gains = np.where(np.isfinite(levels), np.clip(wanted - levels, -MAX_LEVELLING_DB, MAX_LEVELLING_DB), 0.0)
    return replace(layer, grooves=np.stack([layer.grooves[:, 0], np.round(100 * gains)], axis=1).astype(np.int32))


def _loop_lufs(layer: DrumLayer, groove: int) -> float:
    hits = loop(layer, groove)
    return audio.loudness(play(layer, hits, round((hits.seconds.max(initial=0.0) + 0.5) * SAMPLE_RATE)), SAMPLE_RATE)


def balance_db(drums: Array, rest: Array, sample_rate: int = SAMPLE_RATE) -> float:
    """How much louder drums are than what they go with, LU; NaN where one of them is silent."""
    levels = [audio.loudness(np.atleast_2d(y), sample_rate) for y in (drums, rest)]
    return levels[0] - levels[1] if all(map(math.isfinite, levels)) else math.nan


def parts_of(score: Any, *, drums: bool) -> Any:
    """A score's drums, or everything else."""
    part = score.copy()
    part.tracks = [track for track in score.tracks if track.is_drum == drums and len(track.notes)]
    return part


def songs_balance_db(scores: Sequence[Any], synthesizer: midi.Synthesizer, *, seconds: float = 15.0) -> list[float]:
    """The balance of drums and everything else in a passage of each score, from a quarter of its length on; NaNs are left out."""
    found = []
    for score in scores:
        start = 0.25 * midi.duration_seconds(score)
        kit, rest = (synthesizer.render(parts_of(score, drums=drums), start_seconds=start, max_seconds=seconds) for drums in (True, False))
        found.append(balance_db(kit, rest))
    return [value for value in found if math.isfinite(value)]


def songs_of(scores: Sequence[Any], synthesizer: midi.Synthesizer, *, seconds: float = 15.0) -> list[Array]:
    """What a drummer might have to play to: the same passages on the piano, without drums."""
    return [
        synthesizer.render(midi.piano_reduction(score), start_seconds=0.25 * midi.duration_seconds(score), max_seconds=seconds)
        for score in scores
    ]


def layer_balance_db(layer: DrumLayer, style: StyleTransfer, song: Array) -> float:
    """How much louder the layer is than what the style's network makes of a song, LU; NaN where nobody drums."""

    def blocks() -> list[Array]:
        return [song]

    heard = style.listen(blocks, SAMPLE_RATE, len(song), peak=False)
    made = np.concatenate([*style.render(blocks, heard, Dials(drums=0.0))], axis=1) * np.float32(heard.gain)
    drums = play(layer, plan_hits(layer, heard.pulse), made.shape[1], channels=len(made))
    return balance_db(drums, made)


def calibrated(layer: DrumLayer, style: StyleTransfer, scores: Sequence[Any], synthesizer: midi.Synthesizer) -> DrumLayer:
    """The layer, as loud beside the style's network as drums are in the style's own songs.

    Parameters
    ----------
    style : StyleTransfer
    scores : sequence of symusic.Score
        As the style plays them, with drums.

    Returns
    -------
    DrumLayer
        With the gain at which the medians agree; unchanged where none of the songs could be compared. What is made of the songs differs
        less than they do among themselves: a quarter of them is played.
    """
    wanted = songs_balance_db(scores, synthesizer)
    few = scores[: math.ceil(len(scores) / 4)]
    found = [value for song in songs_of(few, synthesizer) if math.isfinite(value := layer_balance_db(layer, style, song))]
    if not wanted or not found:
        return layer
    change = round(100 * (float(np.median(wanted)) - float(np.median(found))))
    return replace(layer, gain=np.array([np.clip(int(layer.gain[0]) + change, -6000, 6000)], np.int32))


# ---------------------------------------------------------------------------------------------------------------- style files


def training_pieces(data_root: str | Path, recipe: StyleRecipe, count: int = PIECES) -> tuple[list[Piece], bool]:
    """Pieces of a recipe's training split that have drums, and whether drums belong to the style."""
    allowed = [piece for piece in pieces(data_root) if piece.style in recipe.folders and recipe.allow(piece.licence)]
    train = [piece for piece in allowed if piece.split == "train"]
    with_drums = [piece for piece in train if piece.drums]
    return select(with_drums, count), len(with_drums) >= MIN_SHARE * max(len(train), 1)


def read_scores(data_root: str | Path, wanted: Sequence[Piece]) -> list[tuple[Piece, Any]]:
    """Pieces and their scores, in the order asked for; what cannot be read is left out."""
    order = {piece.path: place for place, piece in enumerate(wanted)}
    found = []
    for piece, content in read_pieces(data_root, wanted):
        with contextlib.suppress(ValueError):
            found.append((piece, quiet_score(content)))
    return sorted(found, key=lambda pair: order[pair[0].path])


def add_drums(path: str | Path, data_root: str | Path, recipe: StyleRecipe, synthesizer: midi.Synthesizer) -> str:
    """Give a style file the drum layer of its own songs; its weights stay as they are, bit for bit.

    Parameters
    ----------
    path : path
        A style file; a layer that it has is replaced.
    data_root : path
        A collection (`recipes`).
    recipe : StyleRecipe
        Of the style's songs; its training split is read.

    Returns
    -------
    str
        What was found, for people.

    Raises
    ------
    ValueError
        If it is not a style file, or too few of its songs have drums, or none that are repeated.
    """
    chosen, usual = training_pieces(data_root, recipe)
    if not usual:
        raise ValueError("too few of its songs have drums")
    found = read_scores(data_root, chosen)
    return add_drums_of(path, [score for _, score in found], recipe, synthesizer, licences=[piece.licence for piece, _ in found])


def add_drums_of(
    path: str | Path,
    scores: Sequence[Any],
    recipe: StyleRecipe,
    synthesizer: midi.Synthesizer,
    *,
    licences: Iterable[str] = (),
    calibration_pieces: int = CALIBRATION_PIECES,
) -> str:
    """Give a style file the drum layer of scores; its weights stay as they are, bit for bit.

    Parameters
    ----------
    path : path
        A style file; a layer that it has is replaced.
    scores : sequence of symusic.Score
        Of training, with their drums.
    recipe : StyleRecipe
        What plays everything else.
    licences : iterable of str
        Of the scores, for the card.
    calibration_pieces : int
        So many of the scores are played to hear how loud their drums are.

    Returns
    -------
    str
        What was found, for people.

    Raises
    ------
    ValueError
        If it is not a style file, or the scores have no drums that are repeated; the file is left as it is.
    """
    layer = layer_of_scores(scores, synthesizer)
    played = [target_score(score, recipe, drums=True) for score in scores[:calibration_pieces]]
    layer = calibrated(layer, without_drums(path), played, synthesizer)
    about = note(layer, len(scores), sorted(set(licences)), synthesizer.soundfont.stem)
    write_layer(path, layer, about)
    return about


def without_drums(path: str | Path) -> StyleTransfer:
    """A style's network without the drums that its file may have, be they ever so damaged."""
    data = load_style_file(path)
    return StyleTransfer(network_of(data, str(path)), features=LogFrequency(features_of(data, str(path))), card=data.card)


def write_layer(path: str | Path, layer: DrumLayer, about: str) -> None:
    """Put a layer into a style file, and on its card where it comes from."""
    card = read_card(path)
    notes = re.sub(r"\s*Drums: .*?(hits of .*?|of its recordings)\.(?=\s|$)", "", card.notes).strip()  # what else is said there stays
    description = card.description.replace("the canvas has no drums", "its drums play on the song's own beats when asked")
    limits = card.limits.replace(PAINTS_TONES, "it paints tones, no words; its drums play when asked")
    update_drums(path, layer.tensors(), notes=f"{notes} {about}".strip(), description=description, limits=limits)


def note(layer: DrumLayer, songs: int, licences: Sequence[str], kit: str) -> str:
    """For the card: where a layer comes from."""
    what = f"{len(layer.bars)} bars in {len(layer.grooves)} grooves of {songs} training songs"
    return f"Drums: {what} ({'; '.join(licences) or 'licence unknown'}); {len(layer.sounds)} hits of {kit}."


def quiet_score(content: bytes) -> Any:
    """A score, read without a word about what is wrong with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return midi.load_score(content)
