"""Where the pulse of a song is: facts about clicks, bars, silence and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylestream import rhythm
from stylestream.features import LogFrequency
from stylestream.rhythm import Beats, BeatTracker, loudness, phase, track_beats

SAMPLE_RATE = 44100
FPS = SAMPLE_RATE / 512


@pytest.fixture(scope="module")
def frames():
    return LogFrequency()


def clicks(times: np.ndarray, seconds: float, *, bar: int = 1) -> np.ndarray:
    y = np.zeros(int(seconds * SAMPLE_RATE) + 2205, dtype=np.float32)
    n = np.arange(2205)
    click = 0.5 * np.exp(-n / 300) * np.sin(2 * np.pi * 1000 * n / SAMPLE_RATE)
    for i, t in enumerate(times):
        y[int(t * SAMPLE_RATE) :][:2205] += click * (1.0 if i % bar == 0 else 0.5)
    return y


def listen(frames: LogFrequency, y: np.ndarray, *, block: int = 1000) -> Beats:
    x = frames(torch.from_numpy(y)).numpy()
    tracker = BeatTracker(frames_per_second=FPS)
    for start in range(0, x.shape[1], block):
        tracker.push(x[:, start : start + block])
    return tracker.beats()


def f_measure(reference: np.ndarray, estimate: np.ndarray) -> float:
    mir_eval = pytest.importorskip("mir_eval", reason="mir_eval is in the extra [eval]")
    return mir_eval.beat.f_measure(reference, estimate)


@pytest.mark.parametrize("bpm", [60, 72, 90, 105, 120, 133, 150, 168, 180])
def test_every_click_of_a_metronome_is_a_beat(frames, bpm):
    times = np.arange(0.3, 20, 60 / bpm)
    beats = listen(frames, clicks(times, 20.5))
    assert f_measure(times, beats.beat_seconds) > 0.97
    nearest = np.abs(beats.beat_seconds[:, None] - times[None]).min(1)
    assert nearest.max() < 0.02
    assert beats.confidence > 0.9
    assert beats.reliable


def test_beats_follow_a_change_of_tempo(frames):
    times = np.concatenate([np.arange(0.2, 15, 0.5), np.arange(15.2, 30, 0.4)])
    beats = listen(frames, clicks(times, 30.5))
    assert f_measure(times, beats.beat_seconds) > 0.95


def test_beats_follow_a_slow_drift_of_tempo(frames):
    times = 0.2 + np.cumsum(60 / np.linspace(90, 120, 50))
    assert f_measure(times, listen(frames, clicks(times, times[-1] + 1)).beat_seconds) > 0.95


@pytest.mark.parametrize("beats_per_bar", [3, 4])
def test_bars_start_on_the_accents(frames, beats_per_bar):
    times = np.arange(0.3, 25, 0.5)
    downbeats = listen(frames, clicks(times, 25.5, bar=beats_per_bar)).downbeat_seconds
    accents = times[::beats_per_bar]
    assert len(downbeats) >= len(accents) - 1
    assert np.abs(downbeats[:, None] - accents[None]).min(1).max() < 0.02


def band(bpm: float, beats_per_bar: int, bars: int):
    """Bass on one, chords on the other beats, a tune in eighths with rests, harmony changing with the bar; no drums."""
    symusic = pytest.importorskip("symusic", reason="needs stylestream[midi]")
    rng = np.random.default_rng(0)
    bass, chords, tune = [], [], []
    for bar in range(bars):
        root = (0, 5, 7, 9)[bar % 4]
        start = 480 * beats_per_bar * bar
        bass.append(symusic.Note(start, 440, 40 + root, 90))
        for beat in range(1, beats_per_bar):
            chords += [symusic.Note(start + 480 * beat, 240, 60 + root + third, 70) for third in (0, 4, 7)]
        for eighth in np.flatnonzero(rng.random(2 * beats_per_bar) < 0.6):
            tune.append(symusic.Note(start + 240 * int(eighth), 220, 72 + root + int(rng.choice([0, 2, 4, 7])), 80))
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, qpm=bpm))
    score.time_signatures.append(symusic.TimeSignature(0, beats_per_bar, 4))
    for program, notes in ((33, bass), (25, chords), (73, tune)):
        track = symusic.Track(program=program)
        track.notes.extend(notes)
        score.tracks.append(track)
    return score


@pytest.mark.parametrize(("bpm", "beats_per_bar", "bars"), [(104, 4, 14), (92, 4, 12), (150, 3, 20)])
def test_the_beats_of_a_band_are_those_of_its_score(frames, bpm, beats_per_bar, bars):
    from stylestream import midi

    try:
        midi.find_soundfont()
    except (ValueError, OSError) as error:
        pytest.skip(str(error))
    score = band(bpm, beats_per_bar, bars)
    beat_seconds, downbeat_seconds = midi.beats(score)
    with midi.Synthesizer() as synthesizer:
        y = synthesizer.render(score).mean(0)
    beats = listen(frames, (y * 0.1 / np.sqrt(np.square(y).mean())).astype(np.float32))
    assert beats.reliable
    assert f_measure(beat_seconds, beats.beat_seconds) > 0.95
    assert f_measure(downbeat_seconds, beats.downbeat_seconds) > 0.9


@pytest.mark.parametrize(
    "y",
    [np.zeros(10 * SAMPLE_RATE), np.full(10 * SAMPLE_RATE, 0.3), np.zeros(441), np.zeros(1)],
    ids=["silence", "dc", "10 ms", "one sample"],
)
def test_nothing_that_starts_gives_no_beats(frames, y):
    beats = listen(frames, y.astype(np.float32))
    assert len(beats.beat_seconds) == len(beats.downbeat_seconds) == 0
    assert beats.confidence == 0
    assert not beats.reliable


def test_noise_has_no_reliable_beats(frames, rng):
    assert not listen(frames, (0.1 * rng.standard_normal(20 * SAMPLE_RATE)).astype(np.float32)).reliable


def test_there_are_no_beats_in_a_long_silence_between_two_passages(frames):
    times = np.concatenate([np.arange(0.2, 12, 0.5), np.arange(24.2, 36, 0.5)])
    beats = listen(frames, clicks(times, 36.5)).beat_seconds
    assert not ((beats > 15) & (beats < 21)).any()
    assert f_measure(times, beats) > 0.9


def test_beats_do_not_depend_on_the_blocks_they_came_in(frames):
    y = clicks(np.arange(0.3, 12, 0.5), 12.5, bar=4)
    whole, blocks = listen(frames, y, block=10**6), listen(frames, y, block=37)
    np.testing.assert_array_equal(whole.beat_seconds, blocks.beat_seconds)
    np.testing.assert_array_equal(whole.downbeat_seconds, blocks.downbeat_seconds)


def test_frames_in_steps_of_a_decibel_may_be_looked_up(frames):
    levels = np.rint(90 * frames(torch.from_numpy(clicks(np.arange(0.3, 12, 0.5), 12.5))).numpy()).clip(0, 255).astype(np.uint8)
    table = loudness(np.arange(256, dtype=np.float32) / 90)
    one, other = BeatTracker(frames_per_second=FPS), BeatTracker(frames_per_second=FPS)
    one.push(levels.astype(np.float32) / 90)
    for start in range(0, levels.shape[1], 100):
        other.push_loudness(table[levels[:, start : start + 100]])
    np.testing.assert_array_equal(one.beats().beat_seconds, other.beats().beat_seconds)
    np.testing.assert_array_equal(one.beats().downbeat_seconds, other.beats().downbeat_seconds)
    assert one.beats().reliable


def followed_frame_by_frame(curve: np.ndarray, lags: np.ndarray) -> list[int]:
    """Ellis's recursion, one frame after another."""
    score, back = curve.astype(np.float64), [-1] * len(curve)
    for t, lag in enumerate(np.rint(lags * 4) / 4):
        for step in range(round(2 * lag), max(round(lag / 2), 1) - 1, -1):
            if t - step >= 0:
                value = score[t - step] - rhythm.TIGHTNESS * np.log(step / lag) ** 2 / 10
                if value > 0 and curve[t] + value > score[t]:
                    score[t], back[t] = curve[t] + value, t - step
    tail = max(len(curve) - int(lags[-1]), 0)
    path = [tail + int(score[tail:].argmax())]
    while back[path[-1]] >= 0:
        path.append(back[path[-1]])
    return path[::-1]


@pytest.mark.parametrize("end_lag", [40.0, 22.6, 95.0])
def test_beats_followed_by_runs_of_frames_are_those_followed_frame_by_frame(rng, end_lag):
    curve = (rng.random(900) ** 6).astype(np.float32)
    curve[::40] += 1
    lags = np.linspace(40.0, end_lag, 900)
    assert rhythm._follow(curve, lags).tolist() == followed_frame_by_frame(curve, lags)


def test_a_tracker_that_heard_nothing_has_no_beats():
    assert len(BeatTracker(frames_per_second=FPS).beats().beat_seconds) == 0


def test_an_onset_curve_alone_is_enough():
    onset = np.zeros(2000, dtype=np.float32)
    onset[10::40] = 1
    assert np.diff(track_beats(onset, 100.0).beat_seconds) == pytest.approx(0.4, abs=0.005)


def test_the_phase_is_zero_on_the_beat_and_on_the_downbeat():
    beats = np.arange(0, 10, 0.5)
    p = phase(beats, beats[1::3], 400, 40.0)  # a beat every 20 frames
    on_beat, on_downbeat = p[:, :381:20], p[:, 20:381:60]
    np.testing.assert_allclose(on_beat[0], 0, atol=1e-5)
    np.testing.assert_allclose(on_beat[1], 1, atol=1e-5)
    np.testing.assert_allclose(on_downbeat[2], 0, atol=1e-5)
    np.testing.assert_allclose(on_downbeat[3], 1, atol=1e-5)
    # one beat after a downbeat, a third of a turn
    np.testing.assert_allclose(p[2:, 40], [np.sin(2 * np.pi / 3), np.cos(2 * np.pi / 3)], atol=1e-5)
    np.testing.assert_allclose(p[2:, 0], [np.sin(4 * np.pi / 3), np.cos(4 * np.pi / 3)], atol=1e-5)  # the upbeat, from the bars that follow


def test_the_phase_grows_linearly_between_beats():
    p = phase(np.array([0.0, 1.0, 1.5]), np.array([]), 160, 100.0)
    turns = np.unwrap(np.arctan2(p[0], p[1])[:150]) / (2 * np.pi)
    np.testing.assert_allclose(np.diff(turns)[:99], 0.01, atol=1e-4)
    np.testing.assert_allclose(np.diff(turns)[101:], 0.02, atol=1e-4)


def test_the_phase_is_nothing_where_no_beat_is_known():
    p = phase(np.array([1.0, 2.0, 10.0, 11.0]), np.array([1.0]), 1200, 100.0)
    assert not p[:, :100].any()
    assert not p[:, 1101:].any()
    assert not p[:, 201:999].any()  # eight seconds are no beat
    assert (np.abs(p[:2, 100:200]).sum(0) > 0).all()
    assert (np.abs(p[:2, 1000:1101]).sum(0) > 0).all()
    assert not phase(np.array([1.0]), np.array([]), 10, 10.0).any()


def test_the_phase_of_a_part_is_the_part_of_the_phase():
    beats = np.cumsum(np.full(40, 0.47))
    whole = phase(beats, beats[::4], 1500, FPS)
    np.testing.assert_array_equal(phase(beats, beats[::4], 300, FPS, first_frame=700), whole[:, 700:1000])
