"""The drum layer: hits are where the song's beats are, as loud as the song is there, and nowhere else."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylestream import audio, drums
from stylestream.draw import Draw, DrawConfig
from stylestream.drums import NO_HITS, TICKS, DrumLayer, layer_of, plan_hits, play
from stylestream.features import FeatureConfig
from stylestream.rhythm import LATE_FRAMES, NO_BEATS, Beats, Pulse
from stylestream.style import load_style_file, save_style, update_card, update_drums
from stylestream.transfer import Dials, StyleTransfer, load_style, transfer_file

SAMPLE_RATE = 44100
FPS = 100.0
KICK, SNARE, CLOSED, OPEN = 36, 38, 42, 46
ROCK = [(0, KICK), (TICKS, SNARE), (2 * TICKS, KICK), (3 * TICKS, SNARE)]
EIGHTHS = [(k * TICKS // 2, CLOSED) for k in range(8)]


def a_layer(*grooves: list[list[tuple[int, int]]], beats: int = 4, gain_db: float = -10.0, velocity: int = 100) -> DrumLayer:
    """Grooves of bars of (tick, note), on sounds that begin with their loudest sample."""
    grooves = grooves or ([ROCK + EIGHTHS],)
    rows: list[Any] = []
    bars: list[Any] = []
    for number, groove in enumerate(grooves):
        for bar in groove:
            bars.append((number, beats, 4, len(rows), len(rows) + len(bar)))
            rows += [(tick, note, velocity) for tick, note in sorted(bar)]
    wave = np.round(30000 * np.exp(-np.arange(4000) / 600) * np.cos(np.arange(4000) * 0.3)).astype(np.int16)
    sounds = [(note, 100, 0, len(wave), balance) for note, balance in ((KICK, 0), (SNARE, 200), (CLOSED, -500), (OPEN, -500))]
    return DrumLayer(
        samples=wave,
        sounds=np.array(sounds, np.int32),
        hits=np.array(rows, np.int16),
        bars=np.array(bars, np.int32),
        grooves=np.array([(12000, 0)] * len(grooves), np.int32),
        gain=np.array([round(100 * gain_db)], np.int32),
    )


def a_pulse(beats: np.ndarray, *, bar: int = 4, level_db: np.ndarray | float = -20.0, seconds: float | None = None) -> Pulse:
    """A song whose beats are known, with an onset on each of them."""
    frames = round((seconds or beats[-1] + 1) * FPS)
    onset = onsets_at(beats, frames)
    level = np.full(frames, level_db, np.float32) if np.isscalar(level_db) else np.asarray(level_db, np.float32)
    return Pulse(Beats(beats, beats[::bar], 0.9), onset, level, FPS)


def onsets_at(seconds: np.ndarray, frames: int) -> np.ndarray:
    """An onset curve that rises to 1 at these times, as a tracker hears them."""
    away = np.arange(frames)[:, None] + LATE_FRAMES - seconds[None] * FPS
    return np.exp(-0.5 * away**2).max(1).astype(np.float32)


def planned(layer: DrumLayer, pulse: Pulse, **how: int) -> drums.Hits:
    """The plan, with hits where the beats are found and not a little before, where they are struck."""
    hits = plan_hits(layer, pulse, **how)
    return replace(hits, seconds=hits.seconds + drums.EARLY_SECONDS, stops=hits.stops + drums.EARLY_SECONDS)


# ------------------------------------------------------------------------------------------------------------ where hits are


def test_hits_are_on_the_beats_to_the_millisecond():
    beats = 0.37 + 0.5 * np.arange(32)
    hits = planned(a_layer(), a_pulse(beats))
    np.testing.assert_allclose(plan_hits(a_layer(), a_pulse(beats)).seconds, hits.seconds - drums.EARLY_SECONDS)  # struck as the notes are
    kicks, snares = (hits.seconds[hits.notes == note] for note in (KICK, SNARE))
    np.testing.assert_allclose(kicks, beats[::2], atol=1e-3)
    np.testing.assert_allclose(snares, beats[1::2], atol=1e-3)
    eighths = hits.seconds[hits.notes == CLOSED]
    np.testing.assert_allclose(eighths, 0.37 + 0.25 * np.arange(64), atol=1e-3)


def test_a_hit_begins_on_its_sample():
    layer, beats = a_layer([ROCK]), 0.3 + 0.5 * np.arange(16)
    y = play(layer, planned(layer, a_pulse(beats)), 9 * SAMPLE_RATE)[0]
    loud = np.abs(y) > 0.9 * np.abs(y).max()
    starts = np.flatnonzero(loud)[np.diff(np.flatnonzero(loud), prepend=-SAMPLE_RATE) > 0.1 * SAMPLE_RATE]
    np.testing.assert_allclose(starts / SAMPLE_RATE, beats, atol=1e-3)


@pytest.mark.parametrize("begin", [-0.03, 0.0, 0.006, 0.03])
def test_a_song_that_begins_on_a_beat_is_drummed_on_it(begin):
    beats = begin + 0.5 + 0.5 * np.arange(15)  # nothing rises at the first frame: the first beat that is found is the second
    pulse = a_pulse(beats)
    hits = plan_hits(a_layer(), replace(pulse, beats=Beats(beats, beats[3::4], 0.9)))
    assert hits.seconds[0] == pytest.approx(max(begin - drums.EARLY_SECONDS, 0.0), abs=1e-6)
    assert set(hits.notes[hits.seconds < 0.1]) == {KICK, CLOSED}  # the first of a whole bar
    snares = hits.seconds[hits.notes == SNARE] + drums.EARLY_SECONDS
    np.testing.assert_allclose(snares, beats[::2], atol=1e-3)


@pytest.mark.parametrize("first", [0.2, 0.9])
def test_what_is_before_the_first_beat_is_left_alone(first):
    hits = planned(a_layer([ROCK]), a_pulse(first + 0.5 * np.arange(16)))
    assert hits.seconds[0] == pytest.approx(first, abs=1e-3)


def test_hits_follow_a_tempo_ramp():
    beats = 0.2 + np.concatenate([[0], np.cumsum(60 / np.linspace(90, 150, 40))])
    hits = planned(a_layer(), a_pulse(beats))
    np.testing.assert_allclose(hits.seconds[np.isin(hits.notes, (KICK, SNARE))], beats, atol=1e-3)
    eighths = hits.seconds[hits.notes == CLOSED]
    halves = eighths[np.abs(eighths[:, None] - beats).min(1) > 0.1]
    np.testing.assert_allclose(halves[:-1], (beats[:-1] + beats[1:]) / 2, atol=1e-3)


def test_timing_within_the_beat_is_kept_where_no_note_is_near():
    late = [(tick + 20, note) for tick, note in ROCK]  # 20 ticks of 480, of half a second
    beats = 0.3 + 0.5 * np.arange(16)
    pulse = a_pulse(beats)
    silent = planned(a_layer([late]), replace(pulse, onset=np.zeros_like(pulse.onset)))
    np.testing.assert_allclose(silent.seconds - beats, 20 / 480 * 0.5, atol=1e-6)
    far = planned(a_layer([late]), replace(pulse, onset=onsets_at(beats + 0.07, len(pulse.onset))))
    np.testing.assert_allclose(far.seconds - beats, 20 / 480 * 0.5, atol=1e-6)


def test_a_hit_falls_together_with_the_note_that_is_near():
    late = [(tick + 20, note) for tick, note in ROCK]
    beats, played = 0.3 + 0.5 * np.arange(16), 0.02 * np.sin(np.arange(16))  # nobody plays on the grid
    pulse = a_pulse(beats)
    hits = planned(a_layer([late]), replace(pulse, onset=onsets_at(beats + played, len(pulse.onset))))
    np.testing.assert_allclose(hits.seconds, beats + played, atol=1e-3)


def test_ripple_is_no_note():
    beats = 0.3 + 0.5 * np.arange(16)
    pulse = a_pulse(beats)
    ripple = 0.9 + 0.05 * np.random.default_rng(0).standard_normal(len(pulse.onset)).astype(np.float32)
    hits = planned(a_layer([[(tick + 20, note) for tick, note in ROCK]]), replace(pulse, onset=ripple))
    np.testing.assert_allclose(hits.seconds - beats, 20 / 480 * 0.5, atol=1e-6)


def test_of_a_grace_note_and_its_stroke_on_one_note_the_stroke_is_played():
    layer = a_layer([[(0, SNARE), (24, SNARE), *ROCK[1:]]])
    layer.hits[0, 2], layer.hits[1, 2] = 20, 110
    beats = 0.3 + 0.5 * np.arange(8)
    hits, plain = (planned(each, a_pulse(beats)) for each in (layer, a_layer([[(0, SNARE), *ROCK[1:]]])))
    np.testing.assert_allclose(hits.seconds, plain.seconds)
    assert hits.gains[0] > plain.gains[0]


def test_a_bar_starts_on_the_songs_downbeat():
    beats = 0.3 + 0.5 * np.arange(19)
    pulse = a_pulse(beats)
    pulse = replace(pulse, beats=Beats(beats, beats[3::4], 0.9))  # three beats of upbeat
    layer = a_layer([[(0, KICK), (TICKS, SNARE), (2 * TICKS, SNARE), (3 * TICKS, SNARE)]])
    hits = planned(layer, pulse)
    np.testing.assert_allclose(hits.seconds[hits.notes == KICK], beats[3::4], atol=1e-3)
    np.testing.assert_allclose(hits.seconds[hits.notes == SNARE][:3], beats[:3], atol=1e-3)


def test_a_bar_of_three_is_played_to_by_a_style_that_only_knows_four():
    beats = 0.3 + 0.5 * np.arange(18)
    hits = planned(a_layer(), a_pulse(beats, bar=3))
    np.testing.assert_allclose(hits.seconds[np.isin(hits.notes, (KICK, SNARE))], beats, atol=1e-3)
    assert (np.isin(beats[::3].round(4), hits.seconds[hits.notes == KICK].round(4))).all()


def test_a_slow_song_is_counted_in_halves():
    beats = 0.3 + 1.2 * np.arange(16)  # fifty a minute
    hits = planned(a_layer(), a_pulse(beats))
    between = np.sort(np.concatenate([beats, (beats[:-1] + beats[1:]) / 2]))
    struck = hits.seconds[np.isin(hits.notes, (KICK, SNARE))]
    np.testing.assert_allclose(struck[: len(between)], between, atol=1e-3)


def test_a_drummer_plays_what_the_song_accents():
    beats = 0.3 + 0.5 * np.arange(32)
    swung = [[(TICKS * k // 3, CLOSED) for k in (0, 2, 3, 5, 6, 8, 9, 11)]]
    straight = [[(TICKS * k // 2, CLOSED) for k in range(8)]]
    layer = a_layer(swung, straight)
    for offset, groove in ((1 / 3, 0), (0.25, 1)):
        pulse = a_pulse(beats)
        pulse = replace(pulse, onset=np.maximum(pulse.onset, 0.8 * onsets_at(beats + offset, len(pulse.onset))))
        for seed in range(3):
            off_beat = planned(layer, pulse, seed=seed).seconds[1]
            assert off_beat == pytest.approx(beats[0] + (1 / 3 if groove == 0 else 0.25), abs=2e-3)


def test_a_drummer_counts_by_the_tempo_of_his_style():
    from stylestream.rhythm import BeatTracker

    x = np.zeros((324, 2000), dtype=np.float32)
    x[:, ::35], x[:, ::70] = 0.45, 0.5  # 171 a minute, every second one stronger
    tracker = BeatTracker(frames_per_second=FPS)
    tracker.push(x)
    fast, slow = (tracker.pulse(drummer_bpm=bpm) for bpm in (170.0, 85.0))
    assert [np.diff(drums.counted(p).beats.beat_seconds).mean().round(2) for p in (fast, slow)] == [0.35, 0.7]
    for pulse in (fast, slow):  # what the network is told does not hang on who drums
        np.testing.assert_array_equal(pulse.beats.beat_seconds, tracker.pulse().beats.beat_seconds)
    kicks = planned(a_layer(), fast)
    assert (np.diff(kicks.seconds[np.isin(kicks.notes, (KICK, SNARE))]) < 0.4).all()


def test_nobody_drums_without_a_clear_beat():
    pulse = a_pulse(0.3 + 0.5 * np.arange(16))
    for beats in (replace(pulse.beats, confidence=0.05), NO_BEATS):
        assert len(planned(a_layer(), replace(pulse, beats=beats))) == 0


def test_nobody_drums_where_the_song_is_silent():
    beats, level = 0.3 + 0.5 * np.arange(32), np.full(1700, -20.0)
    level[500:900] = -90.0
    hits = planned(a_layer(), a_pulse(beats, level_db=level, seconds=17.0))
    assert not ((hits.seconds > 5.3) & (hits.seconds < 8.7)).any()
    assert ((hits.seconds > 4) & (hits.seconds < 5)).any()
    assert ((hits.seconds > 9) & (hits.seconds < 10)).any()


def test_nobody_drums_in_a_gap_between_beats():
    beats = np.concatenate([0.3 + 0.5 * np.arange(8), 10.0 + 0.5 * np.arange(8)])
    hits = planned(a_layer(), a_pulse(beats))
    assert not ((hits.seconds > 3.85) & (hits.seconds < 9.8)).any()


def test_a_soft_passage_is_drummed_to_softly_and_with_fewer_hits():
    beats, level = 0.3 + 0.5 * np.arange(64), np.full(3400, -15.0)
    level[1700:] = -33.0
    hits = planned(a_layer(), a_pulse(beats, level_db=level, seconds=34.0))
    loud, soft = hits.seconds < 16, (hits.seconds > 18) & (hits.seconds < 32)
    difference_db = 20 * np.log10(hits.gains[soft].mean() / hits.gains[loud].mean())
    assert -14 < difference_db < -8
    assert 0.3 < soft.sum() / 14 / (loud.sum() / 16) < 0.8


def test_an_open_hat_rings_until_the_hat_is_touched():
    layer = a_layer([[(0, OPEN), (TICKS // 8, CLOSED)]])
    beats = 0.3 + 0.5 * np.arange(8)
    hits = planned(layer, a_pulse(beats))
    assert (hits.stops[hits.notes == OPEN] == hits.seconds[hits.notes == CLOSED]).all()
    hits = replace(hits, gains=hits.gains * (hits.notes == OPEN))
    rings, touched = (play(layer, part, SAMPLE_RATE)[0] for part in (replace(hits, stops=np.full(len(hits), np.inf)), hits))
    late = slice(round((hits.seconds[1] + 0.012) * SAMPLE_RATE), round((hits.seconds[1] + 0.05) * SAMPLE_RATE))
    assert np.abs(rings[late]).max() > 5e-4
    assert not touched[late].any()


def test_a_drum_the_kit_lacks_is_played_by_its_family():
    electric_snare = [(tick, 40 if note == SNARE else note) for tick, note in ROCK]
    beats = 0.3 + 0.5 * np.arange(8)
    layer = a_layer([electric_snare])
    hits = planned(layer, a_pulse(beats))
    assert (layer.sounds[hits.sounds[hits.notes == 40], 0] == SNARE).all()


def test_a_seed_of_numpy_is_a_number():
    hits, again = (plan_hits(a_layer(), a_pulse(0.3 + 0.5 * np.arange(16)), seed=seed) for seed in (5000, np.int32(5000)))
    np.testing.assert_array_equal(hits.sounds, again.sounds)


def test_equal_seeds_drum_alike_and_others_do_not():
    grooves = [[[(0, KICK), (TICKS * (1 + k % 3), SNARE), (TICKS * k // 4, CLOSED)]] * 2 for k in range(1, 9)]
    layer, pulse = a_layer(*grooves), a_pulse(0.3 + 0.5 * np.arange(64))
    one, same, *others = (planned(layer, pulse, seed=seed) for seed in (3, 3, *range(4, 12)))
    for name in ("seconds", "notes", "sounds", "gains", "stops"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert any(len(other) != len(one) or not np.array_equal(other.seconds, one.seconds) for other in others)
    assert len(planned(layer, pulse, seed=-1)) > 0


@pytest.mark.parametrize("size", [1000, 44100, 70001])
def test_any_part_of_the_sound_is_that_part_of_the_whole(size):
    layer = a_layer()
    hits = planned(layer, a_pulse(0.3 + 0.5 * np.arange(8)))
    whole = play(layer, hits, 200_000, channels=2)
    parts = [play(layer, hits, min(size, 200_000 - at), first_sample=at, channels=2) for at in range(0, 200_000, size)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_the_fold_down_of_two_channels_is_the_sound_of_one():
    layer = a_layer()
    hits = planned(layer, a_pulse(0.3 + 0.5 * np.arange(8)))
    one, two, six = (play(layer, hits, 100_000, channels=c) for c in (1, 2, 6))
    np.testing.assert_allclose(two.mean(0), one[0], atol=1e-6)
    np.testing.assert_allclose(six.mean(0), one[0], atol=1e-6)
    assert np.abs(two[0] - two[1]).max() > 0.1 * np.abs(one).max()


# ------------------------------------------------------------------------------------------------------------ a whole style


SMALL = DrawConfig(
    steps=2, view_channels=8, view_blocks=1, encoder_channels=8, decoder_channels=8, texture_channels=8, texture_blocks=1, mix_groups=2
)


def network() -> Draw:
    torch.manual_seed(0)
    return Draw(SMALL)


@pytest.fixture(scope="module")
def style() -> StyleTransfer:
    return StyleTransfer(network(), half=False, layer=a_layer(gain_db=-20))


def music(seconds: float, *, bpm: float = 120.0, silence: tuple[float, float] | None = None) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    decay = np.exp(-5 * (t * bpm / 60 % 1))
    y = np.stack([sum(np.sin(2 * np.pi * hz * t + c) / k for k, hz in enumerate((110, 220, 331, 662), 1)) * decay for c in (0, 1)])
    if silence:
        y[:, (t > silence[0]) & (t < silence[1])] = 0
    return (0.25 * y / np.abs(y).max()).astype(np.float32)


@pytest.fixture(scope="module")
def drummed(style) -> np.ndarray:
    return style.transfer(music(12.0), SAMPLE_RATE, seed=2, drums=0.5)


def null_db(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(np.square(a - b, dtype=float).mean() / np.square(b, dtype=float).mean() + 1e-30)


def test_without_drums_a_style_is_what_it_would_be_if_it_had_none(style, drummed):
    y = music(12.0)
    plain = StyleTransfer(style.draw, half=False).transfer(y, SAMPLE_RATE, seed=2)
    np.testing.assert_array_equal(style.transfer(y, SAMPLE_RATE, seed=2), plain)
    assert null_db(drummed, plain) > -40


@pytest.mark.parametrize("chunk_seconds", [0.7, 3.1])
def test_a_drummed_song_in_chunks_is_the_song_in_one(style, drummed, chunk_seconds):
    chunked = style.transfer(music(12.0), SAMPLE_RATE, seed=2, drums=0.5, chunk_seconds=chunk_seconds)
    assert np.abs(chunked - drummed).max() < 1e-4


def test_the_songs_beats_are_hit(style, drummed):
    y = music(12.0)
    heard = style.listen(lambda: [y], SAMPLE_RATE, 2)
    hits = plan_hits(style.layer, heard.pulse, seed=2)
    true_beats = np.arange(0.5, 11.5, 0.5)
    nearest = np.abs(hits.seconds[np.isin(hits.notes, (KICK, SNARE))][:, None] - true_beats).min(0)
    assert nearest.max() < 0.03


def test_what_is_silent_in_the_song_stays_so(style):
    y = music(14.0, silence=(6.0, 9.0))
    heard = style.listen(lambda: [y], SAMPLE_RATE, 2)
    with_drums, without = (np.concatenate([*style.render(lambda: [y], heard, Dials(drums=d))], 1) for d in (1.0, 0.0))
    quiet, loud = slice(round(6.4 * SAMPLE_RATE), round(8.6 * SAMPLE_RATE)), slice(round(3 * SAMPLE_RATE), round(5.5 * SAMPLE_RATE))
    np.testing.assert_array_equal(with_drums[:, quiet], without[:, quiet])
    assert np.abs(with_drums[:, loud] - without[:, loud]).max() > 0.02


def test_the_dial_is_the_drums_loudness(style):
    y = music(8.0)
    heard = style.listen(lambda: [y], SAMPLE_RATE, 2)
    made = [np.concatenate([*style.render(lambda: [y], heard, Dials(drums=d))], 1) for d in (0.0, 0.25, 0.5, 1.0)]
    levels = [10 * np.log10(np.square(m - made[0]).mean()) for m in made[1:]]
    np.testing.assert_allclose(np.diff(levels), [12.04, 12.04], atol=0.05)


def test_drums_without_a_beat_are_said_to_do_nothing(style, tmp_path):
    audio.save(tmp_path / "held.wav", np.full((2, SAMPLE_RATE), 0.1, np.float32), SAMPLE_RATE)
    warned = [transfer_file(style, tmp_path / "held.wav", tmp_path / f"{drums}.wav", drums=drums).warnings for drums in (0.0, 1.0)]
    assert warned == [[], ["drums do nothing: the song has no clear beat"]]


def test_strength_fades_the_drums_in(style):
    y = music(8.0)
    assert null_db(style.transfer(y, SAMPLE_RATE, strength=0.0, drums=1.0), y) < -60
    heard = style.listen(lambda: [y], SAMPLE_RATE, 2)

    def drums_alone(strength: float) -> np.ndarray:
        on, off = ([*style.render(lambda: [y], heard, Dials(strength=strength, drums=d))] for d in (0.5, 0.0))
        return np.concatenate(on, 1) - np.concatenate(off, 1)

    np.testing.assert_allclose(drums_alone(0.25), 0.25 * drums_alone(1.0), atol=1e-5)


def test_a_drummed_song_is_as_loud_as_the_song_and_under_the_ceiling(style):
    for level in (0.2, 1.0):
        y = level * music(8.0) / 0.25
        made = style.transfer(y, SAMPLE_RATE, drums=1.0)
        assert audio.true_peak_db(made, SAMPLE_RATE) <= -1 + 1e-3
        if audio.true_peak_db(made, SAMPLE_RATE) < -1.01:
            assert audio.loudness(made, SAMPLE_RATE) == pytest.approx(audio.loudness(y, SAMPLE_RATE), abs=0.1)


def test_another_rate_and_one_channel_are_drummed_to_as_well(style):
    y = audio.resample(music(8.0), SAMPLE_RATE, 22050).mean(0, keepdims=True)
    one, many = (style.transfer(y, 22050, drums=0.5, chunk_seconds=s) for s in (1000, 1.5))
    assert np.abs(one - many).max() < 1e-4
    assert null_db(one, style.transfer(y, 22050, drums=0)) > -40


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.5, "drums is 1.5; it must be from 0 to 1"), (-0.1, "drums is -0.1"), (float("nan"), "drums is nan"), ("loud", "drums is 'loud'")],
)
def test_drums_outside_their_range_are_refused_in_one_line(style, tmp_path, value, message):
    with pytest.raises(ValueError, match=message) as error:
        style.transfer(np.zeros((1, 100), np.float32), SAMPLE_RATE, drums=value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        transfer_file(style, tmp_path / "no.wav", tmp_path / "out.wav", drums=value)


def test_drums_that_a_style_has_not_are_refused_and_none_are_not(style):
    plain, y = StyleTransfer(style.draw, half=False), music(1.0)
    with pytest.raises(ValueError, match="this style has no drums"):
        plain.transfer(y, SAMPLE_RATE, drums=0.5)
    np.testing.assert_array_equal(plain.transfer(y, SAMPLE_RATE, drums=0), plain.transfer(y, SAMPLE_RATE))


# ------------------------------------------------------------------------------------------------------------ the style file


@pytest.fixture
def style_file(tmp_path) -> Path:
    from stylestream.style import Card

    given = {"model_config": dataclasses.asdict(SMALL), "feature_config": dataclasses.asdict(FeatureConfig())}
    return save_style(tmp_path / "small.safetensors", network().state_dict(), card=Card("small"), **given)


def test_a_layer_comes_back_from_the_style_file_as_it_was(style_file):
    layer = a_layer()
    before = load_style_file(style_file)
    update_drums(style_file, layer.tensors(), notes="with drums")
    update_card(style_file, title="still")
    after, loaded = load_style_file(style_file), load_style(style_file).layer
    for field in dataclasses.fields(layer):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(layer, field.name))
        assert getattr(loaded, field.name).dtype == getattr(layer, field.name).dtype
    assert (after.card.title, after.card.notes) == ("still", "with drums")
    assert all(torch.equal(after.weights[name], weight) for name, weight in before.weights.items())
    assert set(after.weights) == set(before.weights)


def test_a_layer_that_is_made_anew_replaces_its_own_words_and_no_others(style_file):
    from stylestream import drumming

    about = drumming.note(a_layer(), 3, ["CC0", "Artistic-1.0 (LICENSE.txt)"], "FluidR3_GM")
    update_card(style_file, notes=f"From a base. {about} Post-net: 800 steps.")
    heard = "Drums: 1 bars in 1 grooves and 3 drums, cut out of 1 of its recordings."
    drumming.write_layer(style_file, a_layer(), heard)
    assert load_style_file(style_file).card.notes == f"From a base. Post-net: 800 steps. {heard}"
    drumming.write_layer(style_file, a_layer(), about)
    assert load_style_file(style_file).card.notes == f"From a base. Post-net: 800 steps. {about}"


def test_only_a_file_with_drums_asks_for_a_newer_reader(style_file):
    import json

    def version() -> int:
        data = style_file.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return json.loads(header["__metadata__"]["stylestream"])["format_version"]

    without = style_file.read_bytes()
    assert version() == 1
    update_drums(style_file, a_layer().tensors())
    assert version() == 2
    update_drums(style_file, None)
    assert style_file.read_bytes() == without


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("samples", np.zeros(0, np.int16)),
        ("samples", np.zeros(4000, np.float32)),
        ("sounds", np.array([(36, 100, 0, 4001, 0)], np.int32)),
        ("sounds", np.array([(36, 0, 0, 10, 0)], np.int32)),
        ("sounds", np.array([(36, 100, 10, 10, 0)], np.int32)),
        ("hits", np.array([(0, 200, 100)], np.int16)),
        ("hits", np.zeros((1, 2), np.int16)),
        ("bars", np.array([(1, 4, 1, 0, 1)], np.int32)),
        ("bars", np.array([(0, 4, 1, 0, 10**6)], np.int32)),
        ("bars", np.array([(0, 0, 1, 0, 1)], np.int32)),
        ("grooves", np.array([(0, 0)], np.int32)),
        ("gain", np.array([2**30], np.int32)),
    ],
)
def test_a_damaged_layer_is_one_clear_line(name, array):
    tensors = a_layer().tensors() | {name: torch.from_numpy(array)}
    with pytest.raises(ValueError, match=r"strange: its drum layer is damaged .*get the style file again") as error:
        layer_of(tensors, "strange")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="damaged"):
        layer_of({"samples": tensors["samples"]}, "strange")


def test_between_styles_the_one_with_the_largest_share_and_a_drummer_drums(style_file, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(style_file.read_bytes())
    update_drums(style_file, a_layer(gain_db=-10).tensors())
    half = load_style(f"{style_file}:0.5,{other}:0.5").layer
    assert half.gain[0] == pytest.approx(-1000 - 602, abs=1)
    assert load_style(f"{style_file}:1e-6,{other}:1").layer.gain[0] == -12000  # as faint as a layer can be
    update_drums(other, a_layer([EIGHTHS], gain_db=-30).tensors())
    both = load_style(f"{style_file}:0.4,{other}:0.6").layer
    assert both.gain[0] == -3000
    assert len(both.hits) == 8


def test_no_hits_are_silence():
    assert not play(a_layer(), NO_HITS, 100).any()


# ------------------------------------------------------------------------------------------------------------ where layers come from


def drum_score(bars: list[list[tuple[int, int, int]]], *, bpm: float = 100.0, numerator: int = 4):
    symusic = pytest.importorskip("symusic", reason="needs the extra [midi]")
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, bpm))
    score.time_signatures.append(symusic.TimeSignature(0, numerator, 4))
    kit, tune = symusic.Track("kit", 0, True), symusic.Track("tune", 0, False)
    for k, bar in enumerate(bars):
        kit.notes.extend([symusic.Note(480 * numerator * k + tick, 60, note, velocity) for tick, note, velocity in bar])
        tune.notes.append(symusic.Note(480 * numerator * k, 480 * numerator, 60, 90))
    score.tracks.extend([kit, tune])
    return score


GROOVE = [(0, KICK, 110), (480, SNARE, 100), (960, KICK, 90), (1440, SNARE, 101), *((240 * k, CLOSED, 70) for k in range(8))]
FILL = [*GROOVE[:3], *((1440 + 120 * k, 45, 100) for k in range(4))]


def test_the_bars_that_a_song_repeats_are_its_groove():
    from stylestream.drumming import groove_of

    groove = groove_of(drum_score([*[GROOVE] * 3, FILL] * 3))
    assert groove is not None
    assert groove.bpm == pytest.approx(100)
    assert [(bar.beats, bar.count) for bar in groove.bars] == [(4, 9), (4, 3)]
    assert set(groove.bars[0].hits) == set(GROOVE)
    assert set(groove.bars[1].hits) == set(FILL)


def test_a_hit_a_little_early_belongs_to_the_bar_it_opens():
    from stylestream.drumming import drum_bars

    early = [(max(tick - 6, 0), note, velocity) for tick, note, velocity in GROOVE]
    first, *rest = [sorted(early)] * 8
    score = drum_score([first, *rest])
    for note in score.tracks[0].notes[len(early) :]:
        note.time -= 6
    hits, beats, _ = drum_bars(score)
    assert beats == [4] * 8
    assert [len(bar) for bar in hits] == [len(GROOVE)] * 8
    assert hits[3][:, 0].min() == -6 or hits[3][:, 0].min() == -12


def test_songs_without_a_groove_have_none():
    from stylestream.drumming import groove_of

    assert groove_of(drum_score([GROOVE] * 4)) is None  # too short to repeat anything
    assert groove_of(drum_score([[(0, KICK, 100)] * 5] * 12)) is None  # one drum
    assert groove_of(drum_score([GROOVE] * 12, bpm=300)) is None


def test_of_an_arrangers_songs_on_one_pattern_one_is_kept():
    from stylestream.drumming import distinct, groove_of

    same, other = groove_of(drum_score([GROOVE] * 9)), groove_of(drum_score([FILL] * 9))
    louder = groove_of(drum_score([[(t, n, v + 10) for t, n, v in GROOVE]] * 9))
    assert same is not None
    assert louder is not None
    assert other is not None
    assert distinct([same, louder, other]) == [same, other]


def test_a_layer_of_scores_plays_what_they_play(fonts):
    from stylestream import midi
    from stylestream.drumming import layer_of_scores

    with midi.Synthesizer("fluidr3") as synthesizer:
        layer = layer_of_scores([drum_score([*[GROOVE] * 3, FILL] * 3), drum_score([GROOVE] * 3)], synthesizer)
    assert set(layer.sounds[:, 0]) == {KICK, SNARE, CLOSED, 45}
    assert layer.samples.nbytes < 1_000_000
    assert layer_of(layer.tensors(), "made") is not None
    hits = plan_hits(layer, a_pulse(0.3 + 0.6 * np.arange(32)))
    assert {KICK, SNARE, CLOSED} <= set(hits.notes)
    y = play(layer, hits, 5 * SAMPLE_RATE)
    assert 1e-3 < np.abs(y).max() < 1


@pytest.mark.parametrize(
    ("drummed", "line"),
    [
        (2, r"Drums: 2 bars in 1 grooves of 2 training songs \(not stated\); \d+ hits of FluidR3_GM\."),
        (0, "no drums: 0 of its 3 scores have them"),
    ],
)
def test_a_training_on_scores_gives_their_drums_to_its_style(fonts, tiny_style, tmp_path, drummed, line):
    from stylestream import corpus, workshop
    from stylestream.style import has_drums

    (tmp_path / "music").mkdir()
    for k in range(4):
        score = drum_score([*[GROOVE] * 3, FILL] * 3, bpm=100 + k)
        score.tracks = [track for track in score.tracks if k < drummed or not track.is_drum]
        score.dump_midi(tmp_path / "music" / f"{k}.mid")
    plan, _ = workshop.make_plan([tmp_path / "music"], {}, base="none", steps=1)
    found = sorted(corpus.find_music(plan.sources, plan.data), key=lambda song: song.piece.path)
    parts = [{"id": song.id, "split": "train", "name": "own-train-0.npz"} for song in found[:3]]
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(tiny_style).read_bytes())
    before = load_style_file(path)
    assert re.fullmatch(line, workshop.add_drums(plan, corpus.Prepared(parts, {}, {}, 0.0), path))
    assert has_drums(path) == bool(drummed)
    assert all((load_style_file(path).weights[name] == tensor).all() for name, tensor in before.weights.items())


def test_pattern_statistics_are_those_of_the_bars():
    numbers = drums.bar_statistics([np.array(GROOVE)] * 4, [4] * 4)
    assert numbers == pytest.approx({"hits": 12, "syncopation": 0, "kick": 2 / 12, "snare": 2 / 12, "hat": 8 / 12})
    off = drums.bar_statistics([np.array([(240, KICK, 100), (480, SNARE, 100)])], [4])
    assert off["syncopation"] == 0.5


@pytest.mark.parametrize("folder", ["funk-soul", "bossa-latin"])
def test_grooves_are_found_in_any_folder_of_the_collection(collection, folder):
    from stylestream import drumming, recipes

    chosen, usual = drumming.training_pieces(collection, recipes.StyleRecipe((folder,)), 24)
    assert usual
    assert all(piece.split == "train" for piece in chosen)
    grooves = [groove for _, score in drumming.read_scores(collection, chosen) if (groove := drumming.groove_of(score))]
    assert len(drumming.distinct(grooves)) >= 6


# ------------------------------------------------------------------------------------------------------------ a song that has drums


def hats(seconds: float) -> np.ndarray:
    rng, t = np.random.default_rng(1), np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.diff(rng.standard_normal(len(t) + 2), 2)  # the higher the louder
    return (0.02 * noise * np.exp(-30 * (t % 0.25))).astype(np.float32)[None].repeat(2, 0)


def test_cymbals_are_heard_where_there_are_any(style):
    y = music(8.0)
    none, some = (style.listen(lambda y=y: [y], SAMPLE_RATE, 2).pulse.cymbals for y in (y, y + hats(8.0)))
    assert (none, some) == (0.0, 1.0)


def test_a_song_without_cymbals_is_left_alone_to_the_bit(style):
    from stylestream.cymbals import without_cymbals

    song = style.vocoder.analyse(torch.from_numpy(music(2.0)))
    assert without_cymbals(song, 0.0) is song


def test_cymbals_leave_and_what_lasts_stays(style):
    from stylestream.cymbals import without_cymbals

    t = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    tone = np.stack([0.02 * np.sin(2 * np.pi * 12000 * t)] * 2).astype(np.float32) + music(4.0)
    clean, drummed = (style.vocoder.analyse(torch.from_numpy(y)) for y in (tone, tone + hats(4.0)))
    left = without_cymbals(drummed, 1.0)
    hz = np.arange(1025) * SAMPLE_RATE / 2048
    high, inner = (hz > 10000) & ((hz < 11800) | (hz > 12200)), slice(20, -20)
    before_db, after_db = (10 * np.log10(np.square(s.high.abs().numpy()[high, inner]).mean()) for s in (drummed, left))
    assert after_db < before_db - 12
    at = np.abs(hz - 12000).argmin()
    np.testing.assert_allclose(left.high.abs()[at, inner], clean.high.abs()[at, inner], rtol=0.35)
    assert torch.equal(left.high[hz < 5000], drummed.high[hz < 5000])
    assert torch.equal(left.low, drummed.low)


def test_a_song_with_cymbals_in_chunks_is_the_song_in_one(style):
    y = music(8.0) + hats(8.0)
    one, many = (style.transfer(y, SAMPLE_RATE, chunk_seconds=s) for s in (1000, 1.3))
    assert np.abs(one - many).max() < 1e-4
    assert null_db(style.transfer(y, SAMPLE_RATE, strength=0.0), y) < -60
