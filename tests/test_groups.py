"""Which songs are the same piece: planted editions, transpositions and arrangements are found, strangers are not joined."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.ndimage import maximum_filter

from stylestream import audio, groups
from stylestream.builder import Studio, build
from stylestream.dataset import Dataset, DatasetConfig
from stylestream.groups import group_ids, resemblance, sound_fingerprint
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


# --- recordings ------------------------------------------------------------------------------------------------------------------------


RATE = 44100
STUDIO = Studio(DatasetConfig(), scores=False)


def fingerprint(y: np.ndarray) -> list[int]:
    """Of a waveform (C, N)."""
    return sound_fingerprint(STUDIO.levels(np.ascontiguousarray(y.mean(axis=0), np.float32))[0])


@functools.cache
def plucked(pitch: int) -> np.ndarray:
    n, hz = np.arange(RATE), 440 * 2 ** ((pitch - 69) / 12)
    return sum(np.sin(2 * np.pi * hz * k * n / RATE) * np.exp(-n * k / 12000) / k for k in range(1, 8)).astype(np.float32)


def performance(seed: int, *, seconds: float = 25.0) -> np.ndarray:
    """A piece for plucked strings in C major at 120 to the minute, all of them alike but for the order of their notes; stereo."""
    rng = np.random.default_rng(seed)
    y = np.zeros(int(seconds * RATE), np.float32)
    for beat in np.arange(0, seconds - 1, 0.25):
        for pitch in rng.choice([48, 50, 52, 53, 55, 57, 59, 60, 64, 67, 72, 76], 2, replace=False):
            y[int(beat * RATE) :][:RATE] += np.float32(0.05 * rng.uniform(0.5, 1)) * plucked(int(pitch))
    return np.stack([y, 0.7 * y]) + rng.normal(0, 1e-4, (2, len(y))).astype(np.float32)


def as_mp3(y: np.ndarray, kbps: int) -> np.ndarray:
    file = io.BytesIO()
    level = (320 - kbps) / (320 - 32)
    soundfile.write(file, y.T, RATE, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=level)
    file.seek(0)
    return np.ascontiguousarray(soundfile.read(file, dtype="float32", always_2d=True)[0].T)


def test_a_recording_in_another_format_trimmed_or_softer_shares_a_group_and_others_of_its_style_do_not():
    pieces = {f"{seed:02d}": performance(seed) for seed in range(8)}
    cut = round(3.0037 * RATE)  # not a whole number of frames
    original = pieces["03"]
    planted = {
        "as mp3": as_mp3(original, 128),
        "as a small mp3": as_mp3(original, 64),
        "trimmed": original[:, cut:],
        "softer": original * np.float32(0.5),
        "all of it": as_mp3(original * np.float32(0.5), 128)[:, cut:],
        "in mono": original[:1],
    }
    prints = {name: fingerprint(y) for name, y in (pieces | planted).items()}
    songs = list(prints)
    groups = group_ids(songs, {}, {}, recordings=prints)
    assert {song for song in songs if groups[song] == groups["03"]} == {"03", *planted}
    assert len(set(groups.values())) == 8
    assert group_ids(songs[::-1], {}, {}, recordings=prints) == groups


def test_a_dataset_keeps_a_recording_and_its_mp3_in_one_split(tmp_path):
    pytest.importorskip("pyarrow", reason="datasets need pyarrow: pip install 'stylestream[train]'")
    (tmp_path / "folk").mkdir()
    for seed in range(2):
        soundfile.write(tmp_path / "folk" / f"{seed}.wav", performance(seed, seconds=15.0).T, RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "folk" / "1 again.mp3", 0.4 * performance(1, seconds=15.0)[:, 2 * RATE + 99 :].T, RATE)
    build([tmp_path / "folk"], tmp_path / "DATA", jobs=1)
    index = {row["path"]: row for row in Dataset(tmp_path / "DATA").songs.to_pylist()}
    assert len(index) == 3
    assert (
        index["1.wav"]["group_id"] == index["1 again.mp3"]["group_id"] == min(index[name]["song_id"] for name in ("1.wav", "1 again.mp3"))
    )
    assert index["1.wav"]["split"] == index["1 again.mp3"]["split"]
    assert index["0.wav"]["group_id"] == index["0.wav"]["song_id"]


def test_the_landmarks_of_a_sound_are_where_nothing_around_is_louder(rng):
    levels = rng.integers(0, 60, (1200, 324), dtype=np.uint8)
    planted = [(5, 90), (300, 150), (511, 200), (512, 120), (530, 250), (1023, 70), (1195, 180)]
    for frame, row in planted:
        levels[max(frame - 2, 0) : frame + 3, row] = 250 - row // 4  # five frames of it
    times, rows = groups._landmarks(levels)
    x = np.pad(levels[:, groups.LANDMARK_ROWS].astype(int), ((2, 2), (0, 0)))
    smooth = sum(x[shift : shift + 1200] for shift in range(5))
    highest = maximum_filter(smooth, (33, 25), mode="constant")
    expected = np.argwhere((smooth == highest) & (smooth >= 5 * groups.LANDMARK_LEVEL))
    assert np.array_equal(np.stack([times, rows], axis=1), expected)
    assert {(frame, row - groups.LANDMARK_ROWS.start) for frame, row in planted} <= set(zip(times.tolist(), rows.tolist(), strict=True))


def test_a_sound_without_landmarks_has_no_fingerprint_and_is_like_nothing(rng):
    assert sound_fingerprint(np.zeros((0, 324), np.uint8)) == []
    assert sound_fingerprint(np.zeros((500, 324), np.uint8)) == []
    bare = {"a": sound_fingerprint(np.zeros((500, 324), np.uint8)), "b": [], "c": [1, 2, 3], "d": [1, 2, 3]}
    assert group_ids(list(bare), {}, {}, recordings=bare) == {song: song for song in bare}


@pytest.mark.parametrize("frames", [10, 100, 1000])
def test_a_landmark_is_what_a_slow_search_finds(rng, frames):
    from stylestream.groups import LANDMARK_ROWS, _landmarks

    levels = rng.integers(0, 90, (frames, 324)).astype(np.uint8)
    sums = np.zeros((frames + 4, 324), int)
    for shift in range(5):
        sums[shift : shift + frames] += levels
    sums = sums[2:-2, LANDMARK_ROWS]
    times, rows = _landmarks(levels)
    assert len(times) >= 1
    for t, r in zip(times.tolist(), rows.tolist(), strict=True):
        assert sums[t, r] == sums[max(t - 16, 0) : t + 17, max(r - 12, 0) : r + 13].max() >= 125
    t, r = np.unravel_index(sums.argmax(), sums.shape)
    assert (t, r) in set(zip(times.tolist(), rows.tolist(), strict=True))


@pytest.mark.data
def test_real_recordings_are_known_again_and_not_taken_for_each_other(collection):
    prints = {}
    for path in sorted(Path(collection, "audio").rglob("*.ogg"))[::2]:
        y, _ = audio.load(path, sample_rate=RATE, max_seconds=30)
        y = y if len(y) == 2 else np.repeat(y, 2, axis=0)
        prints[path.name] = fingerprint(y)
        if len(prints) % 10 == 1:
            prints[f"{path.name} again"] = fingerprint(as_mp3(y * np.float32(0.5), 128)[:, round(3.0037 * RATE) :])
    groups = group_ids(list(prints), {}, {}, recordings=prints)
    again = [name for name in prints if name.endswith(" again")]
    assert len(again) == 3
    assert all(groups[name] == groups[name.removesuffix(" again")] for name in again)
    assert len(set(groups.values())) == 25
