"""Metrics: what they say about sounds whose distance is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("librosa", reason="metrics need the extra [eval]")
pytest.importorskip("mir_eval", reason="metrics need the extra [eval]")

from stylestream import metrics

RATE = metrics.SAMPLE_RATE
NOTE = np.dtype([("onset_seconds", "f8"), ("offset_seconds", "f8"), ("pitch", "i8"), ("velocity", "i8"), ("drum", "?")])


def tone(hz: float, seconds: float = 2.0, *, partials: int = 1, amplitude: float = 0.3) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return amplitude * np.sum([np.sin(2 * np.pi * hz * k * t) / k for k in range(1, partials + 1)], axis=0)


def pitch_hz(pitch: float) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def melody(pitches: list[int], seconds: float = 0.5, partials: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Notes with an attack and a decay, and their table."""
    decay = np.exp(-np.arange(round(seconds * RATE)) / RATE * 6)
    y = np.concatenate([tone(pitch_hz(p), seconds, partials=partials) * decay for p in pitches])
    table = [(i * seconds, (i + 1) * seconds, p, 90, False) for i, p in enumerate(pitches)]
    return y, np.array(table, dtype=NOTE)


@pytest.fixture(scope="module")
def song() -> tuple[metrics.Sound, np.ndarray]:
    y, notes = melody([60, 64, 67, 72, 71, 67, 65, 62])
    return metrics.prepare(y), notes


def noise(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * RATE))


def unscaled(y: np.ndarray) -> metrics.Sound:
    """A sound as it is, without the matching of loudness."""
    return metrics.Sound(y)


def test_a_sound_is_perfectly_like_itself(song: tuple[metrics.Sound, np.ndarray]) -> None:
    scores = metrics.compare(song[0], song[0], song[1])
    zero = ["log_mel_l1", "lsd", "mfcc", "centroid", *(f"modulation_{a:.0f}_{b:.0f}" for a, b in metrics.MODULATION_HZ)]
    assert {key: scores[key] for key in zero} == dict.fromkeys(zero, 0.0)
    assert scores["chroma"] == pytest.approx(1)
    assert scores["flux"] == pytest.approx(1)


def test_level_and_panning_do_not_count() -> None:
    left = np.stack([noise(), np.zeros(2 * RATE)])
    assert metrics.log_mel_l1(metrics.prepare(left), metrics.prepare(0.05 * left[::-1])) == pytest.approx(0, abs=1e-6)


def test_a_prepared_song_has_minus_20_lufs() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    assert pyloudnorm.Meter(RATE).integrated_loudness(metrics.prepare(noise()).y) == pytest.approx(-20, abs=0.1)


def test_another_sample_rate_is_the_same_song() -> None:
    t48, t44 = np.arange(96000) / 48000, np.arange(88200) / 44100
    a, b = (metrics.prepare(0.3 * np.sin(2 * np.pi * 1000 * t), rate) for t, rate in ((t48, 48000), (t44, 44100)))
    assert b.y.size == a.y.size
    assert metrics.lsd(a, b) < 3  # the ends ring; log-mel below is what counts
    assert metrics.log_mel_l1(a, b) < 1


def test_a_full_scale_sine_reads_zero_db() -> None:
    for hz in (100, 440, 1000, 5000, 12000):
        sound = unscaled(tone(hz, amplitude=1.0))
        assert 10 * math.log10(sound.power[:, 20:-20].max()) == pytest.approx(0, abs=1.5)  # a sine between bins loses up to 1.42 dB
        assert -3.5 < sound.log_mel.max() < 2.5


def test_ten_times_the_magnitude_is_twenty_decibels() -> None:
    quiet, loud = unscaled(noise()), unscaled(10 * noise())
    assert metrics.lsd(quiet, loud) == pytest.approx(20, abs=0.01)
    assert metrics.log_mel_l1(quiet, loud) == pytest.approx(20, abs=0.01)


def test_below_the_floor_nothing_is_heard() -> None:
    silence, whisper = unscaled(np.zeros(RATE)), unscaled(1e-7 * noise(1))
    assert metrics.log_mel_l1(silence, whisper) == 0


def test_the_log_mel_is_librosa_s() -> None:
    import librosa

    y = noise()
    theirs = librosa.feature.melspectrogram(
        y=y, sr=RATE, n_fft=2048, hop_length=512, n_mels=128, fmin=30, fmax=16000, norm=None, pad_mode="constant", power=2.0
    )
    scale = 20 * math.log10(4 / 2048)  # librosa's window is not scaled
    expected = np.maximum(10 * np.log10(theirs) + scale, -80)
    assert unscaled(y).log_mel == pytest.approx(expected, abs=1e-3)


def test_the_mfcc_are_librosa_s() -> None:
    import librosa

    a, b = unscaled(noise()), unscaled(tone(440, partials=10))
    mean = [librosa.feature.mfcc(S=s.log_mel, n_mfcc=20).mean(1)[1:] for s in (a, b)]
    assert metrics.mfcc_distance(a, b) == pytest.approx(np.linalg.norm(mean[0] - mean[1]), rel=1e-5)


def test_mfcc_hear_brightness_and_not_level() -> None:
    dark, bright = tone(220, partials=2), tone(220, partials=20)
    assert metrics.mfcc_distance(unscaled(dark), unscaled(bright)) > 20
    assert metrics.mfcc_distance(unscaled(noise()), unscaled(2 * noise())) < 1e-6


def test_an_octave_up_is_a_centroid_of_twelve_semitones() -> None:
    difference = metrics.centroid_difference(metrics.prepare(tone(1000)), metrics.prepare(tone(2000)))
    assert difference == pytest.approx(12, abs=0.3)


def test_chroma_forgives_octaves_and_hears_semitones() -> None:
    c4, c5, c_sharp = (metrics.prepare(tone(pitch_hz(p), partials=3)) for p in (60, 72, 61))
    assert metrics.chroma_cosine(c4, c5) > 0.95
    assert metrics.chroma_cosine(c4, c_sharp) < 0.35


def test_the_notes_played_are_salient_and_others_are_not(song: tuple[metrics.Sound, np.ndarray]) -> None:
    sound, notes = song
    wrong = notes.copy()
    wrong["pitch"] += 1
    assert metrics.note_auc(sound, notes) > 0.97
    assert metrics.note_auc(sound, wrong) < 0.7


def test_note_auc_is_scikit_learn_s(song: tuple[metrics.Sound, np.ndarray]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    sound, notes = song
    roll = metrics.piano_roll(notes, sound.salience.shape[1])
    frames = [t for t in range(roll.shape[1]) if roll[:, t].any()]
    expected = np.mean([sklearn.roc_auc_score(roll[:, t], sound.salience[:, t]) for t in frames])
    assert metrics.note_auc(sound, notes) == pytest.approx(expected)


def test_noise_has_no_pitch(song: tuple[metrics.Sound, np.ndarray]) -> None:
    assert metrics.note_auc(metrics.prepare(noise(4)), song[1]) == pytest.approx(0.5, abs=0.15)


def test_drums_and_pitches_out_of_range_are_not_in_the_roll() -> None:
    notes = np.array([(0, 1, 60, 90, True), (0, 1, 5, 90, False), (0.0, 0.5, 60, 90, False)], dtype=NOTE)
    roll = metrics.piano_roll(notes, 87)
    assert roll.sum() == math.ceil(0.5 * metrics.FRAMES_PER_SECOND)
    assert roll[60 - metrics.PITCHES.start, 0]


def test_flux_hears_when_and_not_what(song: tuple[metrics.Sound, np.ndarray]) -> None:
    other, _ = melody([48, 52, 55, 60, 59, 55, 53, 50], partials=12)  # an octave lower, brighter, same rhythm
    late = np.concatenate([np.zeros(RATE // 5), song[0].y])[: song[0].y.size]
    assert metrics.flux_correlation(song[0], metrics.prepare(other)) > 0.8
    assert metrics.flux_correlation(song[0], metrics.prepare(late)) < 0.3


def tremolo(hz: float, depth_db: float = 6.0) -> metrics.Sound:
    """Noise whose level swings at one rate."""
    t = np.arange(6 * RATE) / RATE
    return unscaled(noise(6) * 10 ** (depth_db / 20 * np.sin(2 * np.pi * hz * t)))


@pytest.mark.parametrize(("hz", "band"), [(3, "2_5"), (7, "5_10"), (15, "10_20"), (30, "20_43")])
def test_a_ripple_shows_in_its_own_modulation_band(hz: float, band: str) -> None:
    difference = metrics.modulation_difference(unscaled(noise(6)), tremolo(hz))
    assert max(difference, key=lambda key: difference[key]) == f"modulation_{band}"
    assert difference[f"modulation_{band}"] > 2 + sorted(difference.values())[-2]


def test_half_the_swing_is_six_decibels_less_modulation() -> None:
    t = np.arange(4 * RATE) / RATE
    swing = np.sin(2 * np.pi * 4 * t)
    deep, shallow = (unscaled(tone(1000, 4) * 10 ** (depth / 20 * swing)) for depth in (6.0, 3.0))
    level = deep.log_mel > deep.log_mel.max() - 10  # one bin: the tone itself
    assert metrics._modulation(shallow.log_mel, level)[0] / metrics._modulation(deep.log_mel, level)[0] == pytest.approx(0.25, rel=0.1)


def test_blur_takes_the_fast_modulations_and_leaves_the_slow(song: tuple[metrics.Sound, np.ndarray]) -> None:
    level = song[0].log_mel
    blurred = np.apply_along_axis(np.convolve, 1, level, np.ones(9) / 9, "same")  # 0.1 s: the first zero is at 9.6 Hz
    active = level > level.max() - metrics.ACTIVE_DB
    slow, _, fast, _ = 10 * np.log10(np.divide(metrics._modulation(blurred, active), metrics._modulation(level, active)))
    assert fast < -10
    assert -4 < slow < 0


def test_onsets_are_found_where_the_score_has_them(song: tuple[metrics.Sound, np.ndarray]) -> None:
    after_a_rest, notes = metrics.Sound(np.concatenate([np.zeros(RATE // 2), song[0].y])), song[1].copy()
    notes["onset_seconds"] += 0.5
    late = notes.copy()
    late["onset_seconds"] += 0.2
    assert metrics.onset_f1(after_a_rest, notes) > 0.9
    assert metrics.onset_f1(after_a_rest, late) < 0.2


def test_a_chord_is_one_onset() -> None:
    assert metrics._distinct(np.array([0.0, 0.01, 0.02, 0.5, 0.53]), 0.025).tolist() == [0.0, 0.5, 0.53]


def test_silence_is_nan_and_said(song: tuple[metrics.Sound, np.ndarray]) -> None:
    silent = unscaled(np.zeros(song[0].y.size))
    with pytest.warns(UserWarning, match="the value is NaN"):
        scores = metrics.compare(silent, song[0], song[1])
    assert all(math.isnan(scores[key]) for key in ("centroid", "chroma", "flux", "modulation_2_5"))
    assert math.isfinite(scores["log_mel_l1"])
    with pytest.warns(UserWarning, match="note_auc: no note is sounding"):
        assert math.isnan(metrics.note_auc(song[0], song[1][:0]))


def test_different_lengths_are_cut_and_said() -> None:
    a, b = metrics.prepare(noise(2)), metrics.prepare(noise(2)[: RATE + 1000])
    with pytest.warns(UserWarning, match="lengths differ"):
        scores = metrics.compare(a, b)
    assert scores["log_mel_l1"] < 0.5
    assert "note_auc" not in scores


@pytest.mark.parametrize(("y", "match"), [(np.zeros((2, 0)), "no samples"), (np.array([[0.0, np.nan]]), "not finite")])
def test_what_cannot_be_measured_is_refused(y: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        metrics.prepare(y)


def test_very_short_songs_are_measured() -> None:
    sound = metrics.prepare(noise(0.01))
    assert metrics.log_mel_l1(sound, sound) == 0
