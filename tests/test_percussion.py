"""Drums cut out of recordings: hits are where they were struck, grooves are what was played, sounds are the drums and not the notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.signal import butter, sosfilt

from stylestream import audio, drums, percussion
from stylestream.drums import TICKS, layer_of, plan_hits
from stylestream.percussion import HAT, KICK, SNARE, Passage, Struck

RATE = 44100
BEAT = 0.5
BARS = 12


def kit() -> dict[int, np.ndarray]:
    rng, t = np.random.default_rng(5), np.arange(round(0.3 * RATE)) / RATE
    noise = rng.standard_normal((2, len(t)))
    kick = np.sin(2 * np.pi * (50 * t + 3 * (1 - np.exp(-30 * t)))) * np.exp(-14 * t)
    snare = 0.4 * sosfilt(butter(2, 900, "high", fs=RATE, output="sos"), noise[0]) * np.exp(-30 * t) + 0.3 * np.sin(
        2 * np.pi * 190 * t
    ) * np.exp(-25 * t)
    hat = 0.15 * sosfilt(butter(4, 7000, "high", fs=RATE, output="sos"), noise[1]) * np.exp(-45 * t)
    return {KICK: kick, SNARE: snare, HAT: hat}


PATTERN = {KICK: (0.0, 2.0, 2.5), SNARE: (1.0, 3.0), HAT: tuple(k / 2 for k in range(8))}


def struck(note: int, beats: tuple[float, ...] | None = None) -> np.ndarray:
    """Seconds."""
    played = PATTERN[note] if beats is None else beats
    return np.array([0.4 + BEAT * (4 * bar + beat) for bar in range(BARS) for beat in played])


def chords(seconds: float) -> np.ndarray:
    """Plucked chords on every beat, another each bar."""
    t = np.arange(round(seconds * RATE)) / RATE
    y = np.zeros_like(t)
    roots = (110.0, 146.8, 98.0, 164.8)
    for k in range(int((seconds - 0.4) / BEAT)):
        start = 0.4 + k * BEAT
        near = (t >= start) & (t < start + 0.6)
        since = t[near] - start
        for ratio in (1, 1.26, 1.5, 2, 3):
            y[near] += np.minimum(since / 0.01, 1) * np.exp(-3 * since) * np.sin(2 * np.pi * roots[k // 4 % 4] * ratio * since) / ratio
    return y


def levelled(y: np.ndarray) -> np.ndarray:
    return (y * 10 ** ((-20 - audio.loudness(y[None].astype(np.float32), RATE)) / 20)).astype(np.float32)


def a_song(*, with_drums: bool = True, notes: float = 0.15) -> np.ndarray:
    seconds = 0.4 + 4 * BEAT * BARS + 1
    y = notes * chords(seconds)
    for note, wave in kit().items() if with_drums else ():
        for at in struck(note):
            start = round(at * RATE)
            y[start : start + len(wave)] += wave
    return levelled(y)


def f_measure(truth: np.ndarray, found: np.ndarray, within: float = 0.05) -> float:
    near = np.abs(truth[:, None] - found[None]) <= within
    return float(2 * min(near.any(1).sum(), near.any(0).sum()) / (len(truth) + len(found)))


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return a_song()


@pytest.fixture(scope="module")
def passage(song) -> Passage:
    return percussion.listen(song)


@pytest.mark.parametrize("note", [KICK, SNARE, HAT])
def test_hits_are_found_where_they_were_struck(song, note):
    found = percussion.find_hits(song)[note].seconds
    assert f_measure(struck(note), found) > 0.9
    late = [np.abs(found - at).min() for at in struck(note)]
    assert np.median(late) < 0.012


def test_what_is_short_and_broad_is_kept_and_what_lasts_is_not():
    t = np.arange(2 * RATE) / RATE
    tone, click = 0.1 * np.sin(2 * np.pi * 440 * t), np.zeros(2 * RATE)
    click[RATE] = 1.0
    sizes = [percussion.bands_of(y) for y in (tone, click)]
    kept = [np.square(percussion.percussive(size)[:, 20:-20]).sum() / np.square(size[:, 20:-20]).sum() for size in sizes]
    assert kept[0] < 0.01
    assert kept[1] > 0.9


def test_the_groove_is_what_was_played(passage):
    groove = passage.groove
    assert groove is not None
    bar = groove.bars[0]
    assert (bar.beats, round(groove.bpm)) == (4, 120)
    assert bar.count >= BARS - 3
    for note, beats in PATTERN.items():
        ticks = sorted(tick for tick, n, _ in bar.hits if n == note)
        assert len(ticks) == len(beats)
        np.testing.assert_allclose(ticks, TICKS * np.array(beats), atol=0.04 * TICKS)  # 20 ms


def test_bars_are_counted_from_the_beat_that_drums_count_from(passage):
    edges = [0.4 + BEAT * (4 * bar + 1 + np.arange(5)) for bar in range(BARS - 1)]  # from the second beat
    assert percussion._first_beat(passage.struck, edges) in (1, 3)  # bass drum on one and three: either may be the first
    beats = np.unique(np.round(np.concatenate(edges), 6))
    late = replace(passage.pulse, beats=replace(passage.pulse.beats, beat_seconds=beats, downbeat_seconds=beats[::4]))
    groove = percussion.groove_heard(passage.struck, late)
    assert groove is not None
    assert {round(tick / TICKS) for tick, note, _ in groove.bars[0].hits if note == SNARE} == {1, 3}


def test_soft_hits_are_softer_in_the_groove():
    level = np.tile([-10.0, -30.0], 20)
    velocity = percussion._velocities(level)
    np.testing.assert_allclose(20 * np.log10((velocity[0::2] / velocity[1::2]) ** 2), 20.0, atol=0.01)


def test_sounds_are_the_drums_and_not_the_notes(passage):
    sounds = {sound.note: sound.y for sound in percussion.sounds_heard([passage])}
    assert set(sounds) == {KICK, SNARE, HAT}

    def octaves_db(y: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(y, 16384)) ** 2
        edges = np.round(40 * 2.0 ** np.arange(10) * 16384 / RATE).astype(int)
        return 10 * np.log10(np.add.reduceat(power, edges)[:-1] + 1e-12)

    for note, y in sounds.items():
        size, true_db = round(0.15 * RATE), octaves_db(kit()[note])
        loud = true_db > true_db.max() - 20
        assert np.std((octaves_db(kit()[note][:size]) - octaves_db(y[:size]))[loud]) < 4, note
    silent = np.concatenate([y[-200:] for y in sounds.values()])
    assert np.abs(silent).max() < 0.02 * max(np.abs(y).max() for y in sounds.values())


def test_a_drum_that_is_hit_hard_and_softly_has_two_sounds():
    wave, y = kit()[KICK], np.zeros(round(30 * RATE))
    at = 0.5 + 0.5 * np.arange(48)
    for k, seconds in enumerate(at):
        start = round(seconds * RATE)
        y[start : start + len(wave)] += wave * (1.0 if k % 2 else 0.25)
    y = levelled(y + 1e-4 * np.random.default_rng(1).standard_normal(len(y)))
    hits = percussion.find_hits(y)
    loud, soft = percussion.sounds_heard([Passage(y, percussion.listen(y).pulse, {KICK: hits[KICK]} | _no_others(), None, "")])
    assert (loud.note, soft.note, loud.velocity) == (KICK, KICK, percussion.LOUD_VELOCITY)
    gap_db = 20 * np.log10(np.abs(loud.y).max() / np.abs(soft.y).max())
    assert gap_db == pytest.approx(12.0, abs=2.5)
    assert 40 * np.log10(loud.velocity / soft.velocity) == pytest.approx(gap_db, abs=2.5)


def _no_others() -> dict[int, Struck]:
    return {note: Struck(np.zeros(0), np.zeros(0)) for note in (SNARE, HAT)}


def test_chords_alone_are_no_drums():
    heard = percussion.listen(a_song(with_drums=False))
    assert heard.groove is None
    assert heard.reason == "nothing in it sounds like a cymbal"
    with pytest.raises(ValueError, match=r"0 of 1 recordings listened to have drums \(of most, nothing in it sounds like a cymbal\)"):
        percussion.layer_heard([("a", heard)])


def test_a_folder_where_few_recordings_have_drums_has_no_drummer(passage):
    quiet = replace(passage, groove=None, reason="it has no clear beat")
    with pytest.raises(ValueError, match=r"1 of 5 recordings .* it has no clear beat"):
        percussion.layer_heard([("a", passage), *((name, quiet) for name in "bcde")])
    assert percussion.layer_heard([("a", passage), ("b", passage), ("c", quiet)]) is not None


def test_a_layer_of_recordings_is_one_that_a_style_file_may_hold(passage):
    layer = percussion.layer_heard([("a", passage)])
    assert layer_of(layer.tensors(), "made") is not None
    assert layer.samples.nbytes < 1_000_000
    hits = plan_hits(layer, passage.pulse)
    assert f_measure(struck(KICK), hits.seconds[hits.notes == KICK] + drums.EARLY_SECONDS) > 0.9
    y = drums.play(layer, hits, len(passage.y))
    played, song_lufs = audio.loudness(y, RATE), audio.loudness(passage.y[None], RATE)
    assert abs(played - song_lufs) < 6  # nearly all that is heard in this song is its drums


def test_passages_come_from_the_part_that_is_trained_on_and_of_few_recordings_more(tmp_path):
    t = np.arange(150 * 8000) / 8000
    y = 0.3 * np.sin(2 * np.pi * (200 + 4 * t) * t)  # the later the higher
    soundfile.write(tmp_path / "one.wav", y, 8000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000 * 5), 8000)
    (tmp_path / "not music.wav").write_bytes(b"RIFF")
    paths = [tmp_path / name for name in ("one.wav", "silent.wav", "not music.wav", "gone.wav")]
    found = [*percussion.passages_of(paths, window=(0.0, 0.65))]
    assert [path.name for path, _ in found] == ["one.wav"] * 2
    assert all(len(part) == round(percussion.PASSAGE_SECONDS * RATE) for _, part in found)
    highest = max(np.abs(np.fft.rfft(part[-8192:])).argmax() * RATE / 8192 for _, part in found)
    assert highest < 200 + 8 * 0.65 * 150 + 10  # its frequency where training ends


@pytest.fixture(scope="module")
def scores(fonts, collection) -> dict[str, list[Any]]:
    """Of the training split: four string quartets, and a song with drums."""
    from stylestream import recipes
    from stylestream.drumming import read_scores

    listed = recipes.pieces(collection)
    quartets = recipes.select([piece for piece in listed if piece.style == "string-quartet" and piece.seconds > 30], 4)
    drummed = recipes.select([piece for piece in listed if piece.style == "electronic" and piece.drums], 1)
    found = read_scores(collection, [*quartets, *drummed])
    return {style: [score for piece, score in found if piece.style == style] for style in ("string-quartet", "electronic")}


def test_string_quartets_have_no_drums(scores, tmp_path):
    from stylestream import midi

    with midi.Synthesizer("fluidr3") as synthesizer:
        for k, score in enumerate(scores["string-quartet"]):
            soundfile.write(tmp_path / f"{k}.wav", synthesizer.render(score, start_seconds=10.0, max_seconds=20.0).T, RATE)
    heard = [(path, percussion.listen(y)) for path, y in percussion.passages_of(sorted(tmp_path.glob("*.wav")))]
    assert len(heard) == 4
    with pytest.raises(ValueError, match="of 4 recordings listened to have drums"):
        percussion.layer_heard(heard)


def test_a_rendered_song_with_drums_gives_its_own(scores):
    from stylestream import midi

    (score,) = scores["electronic"]
    with midi.Synthesizer("fluidr3") as synthesizer:
        y = synthesizer.render(score, start_seconds=5.0, max_seconds=30.0, tail_seconds=0.0).mean(0)
    notes = midi.notes(score)
    truth = notes[notes["drum"] & (notes["onset_seconds"] > 5) & (notes["onset_seconds"] < 34.5)]
    kicks = np.unique(truth["onset_seconds"][np.isin(truth["pitch"], drums.KICKS)]) - 5
    heard = percussion.listen(levelled(y))
    assert f_measure(kicks, heard.struck[KICK].seconds) > 0.8
    assert heard.groove is not None


def test_a_style_file_keeps_its_weights_and_says_where_its_drums_come_from(tiny_style, song, tmp_path):
    from stylestream.style import load_style_file, read_card

    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(tiny_style).read_bytes())
    soundfile.write(tmp_path / "a.wav", song / 4, RATE)
    line = percussion.add_drums_heard(path, [tmp_path / "a.wav"])
    assert line == "Drums: 1 bars in 1 grooves and 3 drums, cut out of 1 of its recordings."
    assert read_card(path).notes.endswith(line)
    before, after = load_style_file(tiny_style), load_style_file(path)
    assert all((after.weights[name] == tensor).all() for name, tensor in before.weights.items())
    assert layer_of(after.drums, "mine") is not None


def test_a_training_on_recordings_gives_them_to_its_style(tiny_style, song, tmp_path):
    from stylestream import corpus, workshop
    from stylestream.style import has_drums

    (tmp_path / "music").mkdir()
    for k in range(2):
        soundfile.write(tmp_path / "music" / f"{k}.wav", song[k * RATE :] / 4, RATE)
    plan, _ = workshop.make_plan([tmp_path / "music"], {}, base="none", steps=1)
    songs = corpus.find_music(plan.sources, plan.data)
    parts = [
        {"id": song.id, "split": split, "name": f"own-{split}-{k}.npz"}
        for k, (song, split) in enumerate(zip(songs, ("train", "valid"), strict=True))
    ]
    prepared = corpus.Prepared(parts, {}, {}, 0.0)
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(tiny_style).read_bytes())
    assert workshop.add_drums(plan, prepared, path) == "Drums: 1 bars in 1 grooves and 3 drums, cut out of 1 of its recordings."
    assert has_drums(path)  # of the one that it was trained on; the other is held out
