"""Which songs are the same piece: planted editions, transpositions and arrangements are found, strangers are not joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stylestream.groups import group_ids, resemblance
from stylestream.recipes import melody_fingerprint, split_of


def melody(seed: int, *, notes: int = 200) -> np.ndarray:
    """A tune that wanders within two octaves."""
    rng = np.random.default_rng(seed)
    pitch, line = 67, []
    for step in rng.integers(-4, 5, notes):
        pitch = pitch + step if 55 <= pitch + step <= 84 else pitch - step
        line.append(pitch)
    return np.array(line)


def score(line: np.ndarray, *, transpose: int = 0, ticks: int = 240, bass: int = -24, program: int = 0) -> Any:
    """A tune over a bass that follows it."""
    symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    made = symusic.Score(480)
    for part, shift in ((program, 0), (program + 1, bass)):
        track = symusic.Track(program=part)
        for i, pitch in enumerate(line):
            track.notes.append(symusic.Note(ticks * i, ticks - 10, int(pitch) + transpose + shift, 90))
        made.tracks.append(track)
    return made


def test_planted_duplicates_share_a_group_and_a_split_and_strangers_do_not():
    tunes = {f"{seed:016x}": score(melody(seed)) for seed in range(40)}
    original = melody(3)
    edition = np.concatenate([original[:150], original[160:], melody(99, notes=12)])  # a cut, and an ending of its own
    planted = {
        "f" * 16: score(original, transpose=5),
        "e" * 16: score(original, transpose=-7, ticks=200, bass=-19, program=40),
        "d" * 16: score(edition),
    }
    prints = {song: melody_fingerprint(made) for song, made in (tunes | planted).items()}
    songs = list(prints)
    groups = group_ids(songs, prints, {})
    family = {song for song, group in groups.items() if group == groups[f"{3:016x}"]}
    assert family == {f"{3:016x}", *planted}
    assert groups["f" * 16] == f"{3:016x}"  # the smallest id
    assert len(set(groups.values())) == 40
    assert len({split_of(groups[song]) for song in family}) == 1
    assert group_ids(songs[::-1], prints, {}) == groups  # whatever the order


def test_what_a_manifest_knows_joins_and_joining_is_transitive():
    prints = {"a": list(range(24)), "b": list(range(24)), "c": list(range(100, 124)), "d": [], "e": []}
    works = {"b": "opus 1", "c": "opus 1", "d": "", "e": ""}
    assert group_ids(list("edcba"), prints, works) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}


def test_songs_without_a_tune_are_not_the_same_song():
    drums = {"a": [7], "b": [7], "c": [7, 8, 9], "d": [7, 8, 9]}
    assert group_ids(list(drums), drums, {}) == {song: song for song in drums}


def test_a_phrase_that_everybody_has_joins_nobody():
    common = list(range(8))
    songs = {f"{i:03d}": sorted(common + [1000 + 16 * i + k for k in range(16)]) for i in range(100)}
    assert len(set(group_ids(list(songs), songs, {}).values())) == 100
    few = dict(list(songs.items())[:5])
    assert len(set(group_ids(list(few), few, {}).values())) == 1


def test_resemblance_is_the_share_of_phrases_in_common(rng):
    numbers = rng.permutation(2**20)
    one, other = set(numbers[:1000].tolist()), set(numbers[500:1500].tolist())
    sketches = sorted(one)[:400], sorted(other)[:400]
    assert resemblance(*sketches) == pytest.approx(1 / 3, abs=0.07)  # 500 of 1500
    assert resemblance([], [1]) == 0.0
