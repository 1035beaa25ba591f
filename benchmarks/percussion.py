"""Drums cut out of recordings, beside the drums that are in them: docs/drums.md's second half.

    python benchmarks/percussion.py DATA --count 6

The recordings are renders of held-out scores (test split) in MuseScore_General on their own instruments, so that what is struck is known.
Nothing was chosen on them: the rules were chosen on the training split in FluidR3. Beside them: the same songs without their drums, and
folders of music that has none.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import audio, drumming, drums, midi, percussion, recipes
from stylestream.passages import Excerpt, Renderer
from stylestream.percussion import HAT, KICK, RIDE, SNARE

Array = NDArray[np.floating[Any]]
WITH = ("rock", "jazz", "electronic", "funk-soul", "bossa-latin", "pop-rock-game", "rock-metal-game")
WITHOUT = ("string-quartet", "chamber", "choral", "classical-piano", "romantic-piano", "classical-guitar", "orchestral", "baroque")
KINDS = {KICK: drums.KICKS, SNARE: drums.SNARES, HAT: (*drums.HATS, 49, 52, 55, 57, 54, 69, 70, 82)}
NAMES = {KICK: "bass drum", SNARE: "snare", HAT: "hi-hat, cymbals, shaker"}
NEAR_SECONDS = 0.05
RATE = drums.SAMPLE_RATE


@dataclass(frozen=True)
class Song:
    """A render whose score is known."""

    score: Any
    excerpt: Excerpt
    y: Array
    heard: percussion.Passage


def songs(data: Path, folder: str, count: int, seconds: float, renderer: Renderer, *, keep_drums: bool) -> Iterator[Song]:
    """The first songs of a folder's test split by hash; of folders with drums, those that drum in the passage."""
    listed = [p for p in recipes.pieces(data) if p.style == folder and p.drums == (folder in WITH) and p.seconds > 20]
    chosen = recipes.select(listed, 2 * count, split="test")
    order = {piece.path: place for place, piece in enumerate(chosen)}
    found = 0
    for piece, content in sorted(recipes.read_pieces(data, chosen), key=lambda pair: order[pair[0].path]):
        try:
            score = drumming.quiet_score(content)
        except ValueError:
            continue
        whole = midi.duration_seconds(score)
        excerpt = Excerpt(piece, content, min(0.25 * whole, max(whole - seconds, 0.0)), min(seconds, whole))
        if folder in WITH and len(struck(score, excerpt)) < 20:
            continue
        y = renderer.render(score if keep_drums else drumming.parts_of(score, drums=False), "musescore", excerpt).mean(0)
        level = audio.loudness(y[None], RATE)
        if level > -60:
            y = (y * 10 ** ((-20 - level) / 20)).astype(np.float32)
            yield Song(score, excerpt, y, percussion.listen(y))
            found += 1
        if found == count:
            return


def struck(score: Any, excerpt: Excerpt) -> NDArray[Any]:
    """Drum notes of a passage, seconds from its start."""
    notes = midi.notes(score)
    notes = notes[notes["drum"]].copy()
    notes["onset_seconds"] -= excerpt.start_seconds
    return notes[(notes["onset_seconds"] >= 0) & (notes["onset_seconds"] < excerpt.seconds)]


def matched(truth: Array, found: Array) -> int:
    """Hits within 50 ms, each once."""
    used = np.zeros(len(found), bool)
    for at in truth:
        far = np.where(used, np.inf, np.abs(found - at))
        if len(far) and far.min() <= NEAR_SECONDS:
            used[far.argmin()] = True
    return int(used.sum())


def counts(song: Song, note: int) -> tuple[int, int, int]:
    """Of one drum: matched, true, found."""
    notes = struck(song.score, song.excerpt)
    truth = np.unique(notes["onset_seconds"][np.isin(notes["pitch"], KINDS[note])].round(3))
    found = (song.heard.struck or percussion.find_hits(song.y))[note].seconds
    return matched(truth, found), len(truth), len(found)


def f1(rows: Sequence[tuple[int, int, int]]) -> str:
    """Of all songs together; with recall and precision."""
    both, true, found = np.sum(rows, axis=0)
    if not true:
        return f"– ({found} found, none there)"
    return f"{2 * both / (true + found):.2f} ({both / true:.2f}, {both / max(found, 1):.2f})"


def three_drums(rows: Array) -> Array:
    """Hits (tick, note, velocity) of the three kinds, by the first of each; others are left out."""
    kind = np.select([np.isin(rows[:, 1], notes) for notes in KINDS.values()], list(KINDS), -1)
    kept = np.stack([rows[:, 0], kind, rows[:, 2]], axis=1)[kind > 0]
    places = np.round(kept[:, 0] * drums.GRID / drums.TICKS)
    return kept[np.unique(np.stack([places, kept[:, 1]], axis=1), axis=0, return_index=True)[1]] if len(kept) else kept


def true_statistics(scores: Sequence[Any]) -> dict[str, float]:
    """Of the bars of some scores, of the three kinds of drum."""
    bars = [(three_drums(h), b) for score in scores for h, b in zip(*drumming.drum_bars(score)[:2], strict=True)]
    return drums.bar_statistics([h for h, _ in bars], [b for _, b in bars])


def layer_statistics(layer: drums.DrumLayer) -> dict[str, float]:
    """Of the bars of a layer, as often as they are played."""
    rows = [k for k in range(len(layer.bars)) for _ in range(int(layer.bars[k, 2]))]
    return drums.bar_statistics([layer.hits_of(k) for k in rows], [int(layer.bars[k, 1]) for k in rows])


def octaves_db(y: Array) -> Array:
    """Level in each octave from 40 Hz, of the first 0.15 s; what is 30 dB under the loudest counts as that."""
    power = np.abs(np.fft.rfft(y[: round(0.15 * RATE)], 16384)) ** 2
    edges = np.round(40 * 2.0 ** np.arange(10) * 16384 / RATE).astype(int)
    level_db = 10 * np.log10(np.add.reduceat(power, edges)[:-1] + 1e-12)
    return np.asarray(np.maximum(level_db, level_db.max() - 30))


def unlike_db(true: Array, y: Array) -> float:
    """Spread of the difference by octaves, where the true sound is loud: its level does not count."""
    a, b = octaves_db(true), octaves_db(y)
    return float(np.std((a - b)[a > a.max() - 20]))


def sound_rows(layer: drums.DrumLayer, found: Sequence[Song], renderer: Renderer) -> list[str]:
    """Each of a layer's sounds beside the SoundFont's, and beside a hit as it lies in the mix."""
    notes = np.concatenate([struck(song.score, song.excerpt)["pitch"] for song in found])
    kit = drumming.kit_of([song.score for song in found])
    rows = []
    for note, kind, y in ((n, HAT if n == RIDE else n, layer.samples[a:b].astype(float)) for n, v, a, b, _ in layer.sounds if v == 112):
        common = Counter(notes[np.isin(notes, KINDS[kind])].tolist()).most_common(1)
        if not common:
            rows.append(f"{NAMES[kind]}: there is none")
            continue
        true = drumming.record(renderer.synthesizers["musescore"], [common[0][0]], kit)[-1].y.astype(float)
        mixed = []
        for song in found:
            notes_here = struck(song.score, song.excerpt)
            for at in notes_here["onset_seconds"][notes_here["pitch"] == common[0][0]][:8]:
                mixed.append(unlike_db(true, song.y[round(at * RATE) : round(at * RATE) + 8192]))
        rows.append(
            f"{NAMES[kind]} {unlike_db(true, y):.1f} dB (in the mix {np.median(mixed):.1f})" + (", as a ride" if note == RIDE else "")
        )
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stylestream-drums")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    renderer = Renderer(options.cache)
    renderer.synthesizers["musescore"] = midi.Synthesizer(midi.find_soundfont("musescore"))

    def of(folder: str, *, keep_drums: bool) -> list[Song]:
        return [*songs(options.data, folder, options.count, options.seconds, renderer, keep_drums=keep_drums)]

    every: list[Song] = []
    hits = ["| folder | songs | bass drum | snare | hi-hat, cymbals, shaker |", "|---|---:|---:|---:|---:|"]
    patterns = ["| folder | | hits in four beats | off the beat | bass drum | snare | hi-hat |", "|---|---|---:|---:|---:|---:|---:|"]
    sounds, silent = [], ["| folder | with a groove | of | why the others have none |", "|---|---:|---:|---|"]
    for folder in WITH:
        found = of(folder, keep_drums=True)
        every += found
        cells = " | ".join(f1([counts(song, note) for song in found]) for note in KINDS)
        hits.append(f"| {folder} | {len(found)} | {cells} |")
        silent.append(silence_row(folder, found))
        try:
            layer = percussion.layer_heard([(song.excerpt.piece.path, song.heard) for song in found])
        except ValueError as error:
            sounds.append(f"* {folder}: {error}")
            continue
        with_groove = [song.score for song in found if song.heard.groove is not None]
        for what, numbers in (("cut out", layer_statistics(layer)), ("truth", true_statistics(with_groove))):
            patterns.append(f"| {folder} | {what} | " + " | ".join(f"{v:.2f}" for v in numbers.values()) + " |")
        sounds.append(f"* {folder}: {'; '.join(sound_rows(layer, found, renderer))}")
    hits.append(f"| all | {len(every)} | " + " | ".join(f1([counts(song, note) for song in every]) for note in KINDS) + " |")
    silent += [silence_row(f"{folder}, drums left out", of(folder, keep_drums=False)) for folder in WITH]
    silent += [silence_row(folder, of(folder, keep_drums=True)) for folder in WITHOUT]
    print("\n\n".join("\n".join(lines) for lines in (hits, patterns, sounds, silent)))


def silence_row(folder: str, found: Sequence[Song]) -> str:
    """How many songs of a folder have drums, as far as is heard."""
    reasons = Counter(song.heard.reason for song in found if song.heard.reason)
    why = "; ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    return f"| {folder} | {sum(song.heard.groove is not None for song in found)} | {len(found)} | {why} |"


if __name__ == "__main__":
    main()
