"""Metrics: what they say about sounds whose distance is known."""

from __future__ import annotations

import math
import warnings

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
    of_the_score = {"note_auc", "onset_f1", "frame_f1", "frame_jaccard"}
    one = {"chroma", "cqt_pcc", "flux", "tempo", "beat_f1"}
    assert {key: scores[key] for key in scores.keys() - of_the_score - one} == dict.fromkeys(scores.keys() - of_the_score - one, 0.0)
    assert {key: scores[key] for key in one} == pytest.approx(dict.fromkeys(one, 1.0))
    assert min(scores[key] for key in of_the_score) > 0.8
    assert metrics.pitch_agreement(song[0], song[0]) == {"frame_f1": 1, "frame_jaccard": 1}
    assert metrics.onset_agreement(song[0], song[0]) == 1


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
    with pytest.warns(UserWarning, match="log_mel_l1: both songs are silent"):
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


def test_lsd_is_its_formula_on_scipy_s_spectra() -> None:
    from scipy.signal import stft

    a, b = noise(1), tone(440, 1, partials=10)
    x, z = (stft(y, nperseg=2048, noverlap=1536, window="hann")[2][:, : 1 + RATE // 512] * 2 for y in (a, b))  # a sine of amplitude 1 is 1
    level_db = [20 * np.log10(np.maximum(np.abs(S), 1e-4)) for S in (x, z)]
    expected = np.mean(np.sqrt(np.mean((level_db[0] - level_db[1]) ** 2, axis=0)))
    assert metrics.lsd(unscaled(a), unscaled(b)) == pytest.approx(expected, rel=1e-4)


def test_the_centroids_are_librosa_s() -> None:
    import librosa

    a, b = unscaled(noise()), unscaled(tone(440, partials=10))
    hz = [librosa.feature.spectral_centroid(S=np.sqrt(s.power).sum(1, keepdims=True), sr=RATE).item() for s in (a, b)]
    assert metrics.centroid_difference(a, b) == pytest.approx(12 * abs(math.log2(hz[0] / hz[1])), rel=1e-6)


def test_an_octave_up_is_a_centroid_of_twelve_semitones() -> None:
    difference = metrics.centroid_difference(metrics.prepare(tone(1000)), metrics.prepare(tone(2000)))
    assert difference == pytest.approx(12, abs=0.3)


def test_chroma_forgives_octaves_and_hears_semitones() -> None:
    c4, c5, c_sharp = (metrics.prepare(tone(pitch_hz(p), partials=3)) for p in (60, 72, 61))
    assert metrics.chroma_cosine(c4, c5) > 0.95
    assert metrics.chroma_cosine(c4, c_sharp) < 0.35


def test_the_chroma_cosine_is_scikit_learn_s(song: tuple[metrics.Sound, np.ndarray]) -> None:
    from sklearn.metrics.pairwise import paired_cosine_distances

    other = metrics.prepare(melody([60, 65, 67, 71, 71, 66, 65, 62])[0])
    there = song[0].sounding
    expected = 1 - paired_cosine_distances(song[0].chroma[:, there].T, other.chroma[:, there].T).mean()
    assert expected < 0.95
    assert metrics.chroma_cosine(song[0], other) == pytest.approx(expected, abs=1e-6)


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


def test_the_flux_correlation_is_scipy_s(song: tuple[metrics.Sound, np.ndarray]) -> None:
    from scipy.stats import pearsonr

    other = metrics.prepare(melody([60, 64, 67, 72], seconds=1.0)[0])
    assert metrics.flux_correlation(song[0], other) == pytest.approx(pearsonr(song[0].flux, other.flux).statistic)


def test_the_modulation_of_a_band_is_the_power_that_scipy_finds_in_it() -> None:
    from scipy.signal import periodogram

    level = np.random.default_rng(0).normal(size=(1, 600))
    hz, density = periodogram(level[0], fs=metrics.FRAMES_PER_SECOND)
    width = hz[1] - hz[0]
    expected = [density[(low <= hz) & (hz < high)].sum() * width for low, high in metrics.MODULATION_HZ]
    assert metrics._modulation(level, np.ones_like(level, dtype=bool)) == pytest.approx(expected, rel=1e-6)


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


def test_the_onset_f1_is_that_of_scipy_s_matching(song: tuple[metrics.Sound, np.ndarray]) -> None:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    other = metrics.prepare(melody([60, 64, 67], 0.52)[0])
    known, found = song[0].onset_seconds, other.onset_seconds
    near = csr_matrix(np.abs(known[:, None] - found[None]) <= 0.05)
    matched = (maximum_bipartite_matching(near) >= 0).sum()
    assert 0 < matched < len(known)
    assert metrics.onset_agreement(song[0], other) == pytest.approx(2 * matched / (len(known) + len(found)))


def test_a_chord_is_one_onset() -> None:
    assert metrics._distinct(np.array([0.0, 0.01, 0.02, 0.5, 0.53]), 0.025).tolist() == [0.0, 0.5, 0.53]


def warned(reference: metrics.Sound, estimate: metrics.Sound, notes: np.ndarray | None = None) -> tuple[dict[str, float], str]:
    """Scores, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = metrics.compare(reference, estimate, notes)
    return scores, " ".join(str(warning.message) for warning in caught)


AGREEMENTS = ("chroma", "cqt_pcc", "flux", "tempo", "beat_f1", "note_auc", "onset_f1", "frame_f1", "frame_jaccard")


def test_where_silence_leaves_nothing_to_agree_on_the_score_is_0_and_a_distance_is_nan(song: tuple[metrics.Sound, np.ndarray]) -> None:
    silent = unscaled(np.zeros(song[0].y.size))
    for pair in ((silent, song[0]), (song[0], silent)):
        scores, said = warned(*pair, notes=song[1])
        heard = pair[1] is song[0]  # what asks the score listens to the estimate alone
        assert {key: scores[key] for key in AGREEMENTS[: 5 if heard else 9]} == dict.fromkeys(AGREEMENTS[: 5 if heard else 9], 0.0)
        assert all(math.isnan(scores[key]) for key in scores if key.startswith(("centroid", "modulation", "roughness")))
        assert all(math.isfinite(scores[key]) and scores[key] > 1 for key in ("log_mel_l1", "lsd", "lsd_16k", "mr_stft"))
        assert f"the {'reference' if heard else 'estimate'} is silent; it is NaN" in said
        assert "it scores 0" in said
        for key in ("log_mel_l1", "lsd", "lsd_16k", "mr_stft", "mfcc"):
            assert f"{key}: the {'reference' if heard else 'estimate'} is silent; it is the distance to silence" in said


def test_two_silences_are_at_no_distance_and_agree_on_nothing() -> None:
    silent = unscaled(np.zeros(RATE))
    scores, said = warned(silent, silent)
    for key in ("log_mel_l1", "lsd", "lsd_16k", "mr_stft", "mfcc", "centroid", "modulation", "roughness"):
        assert f"{key}: both songs are silent; it is 0" in said
    assert set(scores.values()) == {0.0}


def test_a_song_without_a_sample_is_silence(song: tuple[metrics.Sound, np.ndarray]) -> None:
    with pytest.warns(UserWarning, match="without a sample"):
        empty = metrics.prepare(np.zeros((2, 0)))
    scores, said = warned(song[0], empty, notes=song[1])
    assert "it scores 0" in said
    assert scores["log_mel_l1"] > 5
    assert {scores[key] for key in AGREEMENTS} == {0.0}
    with pytest.warns(UserWarning, match="note_auc: no note is sounding"):
        assert metrics.note_auc(song[0], song[1][:0]) == 0


def test_different_lengths_are_cut_and_said() -> None:
    a, b = metrics.prepare(noise(2)), metrics.prepare(noise(2)[: RATE + 1000])
    with pytest.warns(UserWarning, match="lengths differ"):
        scores = metrics.compare(a, b)
    assert scores["log_mel_l1"] < 0.5
    assert "note_auc" not in scores


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_cannot_be_measured_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics.prepare(np.array([[0.0, wrong]]))


def test_very_short_songs_are_measured() -> None:
    sound = metrics.prepare(noise(0.01))
    assert metrics.log_mel_l1(sound, sound) == 0


# --- spectra, as others measure them


def test_the_distance_of_ss_vq_vae_is_its_formula() -> None:
    librosa, soxr = pytest.importorskip("librosa"), pytest.importorskip("soxr")
    a, b = noise(), tone(440, partials=10)

    def spectrum(y: np.ndarray) -> np.ndarray:
        y = soxr.resample(y, RATE, 16000)
        return librosa.power_to_db(librosa.feature.melspectrogram(y=y / np.sqrt(np.mean(y**2)), sr=16000))

    expected = np.mean([np.sqrt(np.mean((x - z) ** 2)) for x, z in zip(spectrum(a), spectrum(b), strict=True)])
    assert metrics.lsd_16k(unscaled(a), unscaled(b)) == pytest.approx(expected, rel=1e-4)


def test_the_distance_of_ss_vq_vae_hears_no_level_and_nothing_above_8_khz() -> None:
    low = tone(500, partials=5) + 0.01 * noise()
    assert metrics.lsd_16k(unscaled(low), unscaled(3 * low)) == pytest.approx(0, abs=1e-3)
    assert metrics.lsd_16k(unscaled(low), unscaled(low + tone(12000))) < 0.5  # where the tone starts it clicks
    assert metrics.lsd_16k(unscaled(low), unscaled(low + tone(3000))) > 1


def test_the_multi_resolution_distance_is_scipy_s_spectra_by_its_formula() -> None:
    from scipy.signal import stft

    a, b = noise(1), tone(440, 1, partials=10)

    def distance(*sizes: int) -> float:
        n_fft, hop, length = sizes
        window = np.zeros(n_fft)
        start = (n_fft - length) // 2
        window[start : start + length] = np.hanning(length + 1)[:-1]
        kept = (slice(None), slice(0, 1 + RATE // hop))
        x, z = (np.abs(stft(y, window=window, nperseg=n_fft, noverlap=n_fft - hop)[2])[kept] * window.sum() * 4 / length for y in (a, b))
        x, z = np.maximum(x, 10**-3.5), np.maximum(z, 10**-3.5)
        return float(np.sqrt(((x - z) ** 2).sum()) / np.sqrt((x**2).sum()) + np.abs(np.log(x) - np.log(z)).mean())

    expected = np.mean([distance(*sizes) for sizes in metrics.RESOLUTIONS])
    assert metrics.mr_stft(unscaled(a), unscaled(b)) == pytest.approx(expected, rel=1e-3)


def test_ten_times_the_magnitude_is_ln_ten_nepers_and_nine_of_convergence() -> None:
    assert metrics.mr_stft(unscaled(noise()), unscaled(10 * noise())) == pytest.approx(math.log(10) + 9, rel=1e-3)


# --- pitch


def test_the_constant_q_correlation_is_scipy_s_and_hears_wrong_notes(song: tuple[metrics.Sound, np.ndarray]) -> None:
    from scipy.stats import pearsonr

    brighter, wrong = (metrics.prepare(melody(p, partials=h)[0]) for p, h in (([60, 64, 67, 72, 71, 67, 65, 62], 8), ([61] * 8, 5)))
    expected = pearsonr(song[0].constant_q.ravel(), brighter.constant_q.ravel()).statistic
    assert metrics.cqt_pcc(song[0], brighter) == pytest.approx(expected)
    assert metrics.cqt_pcc(song[0], brighter) > 0.9
    assert metrics.cqt_pcc(song[0], wrong) < 0.3


def chords() -> tuple[metrics.Sound, np.ndarray]:
    """Three notes at a time, eight partials each."""
    triads = [(60, 64, 67), (57, 60, 65), (55, 59, 62), (48, 64, 72)]
    y = np.concatenate([sum(tone(pitch_hz(p), 1.0, partials=8, amplitude=0.1) for p in triad) for triad in triads])
    table = [(i, i + 1, p, 90, False) for i, triad in enumerate(triads) for p in triad]
    return metrics.prepare(y), np.array(table, dtype=NOTE)


def test_the_notes_of_chords_are_heard() -> None:
    sound, notes = chords()
    scores = metrics.pitch_scores(sound, notes)
    assert scores["frame_f1"] > 0.85
    assert scores["frame_jaccard"] > 0.75
    wrong = notes.copy()
    wrong["pitch"] += 1
    assert metrics.pitch_scores(sound, wrong)["frame_f1"] < 0.15


def test_frame_f1_is_mir_eval_s() -> None:
    from mir_eval.multipitch import metrics as theirs

    rng = np.random.default_rng(0)
    rolls = [rng.random((len(metrics.PITCHES), 50)) < 0.05 for _ in range(2)]
    times = np.arange(50) / metrics.FRAMES_PER_SECOND
    lists = [[np.array([pitch_hz(p + 24) for p in np.flatnonzero(roll[:, t])]) for t in range(50)] for roll in rolls]
    precision, recall = theirs(times, lists[0], times, lists[1])[:2]
    assert metrics.frame_f1(*rolls) == pytest.approx(2 * precision * recall / (precision + recall))


def test_frame_jaccard_is_scikit_learn_s() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    a, b = (rng.random((len(metrics.PITCHES), 50)) < 0.02 for _ in range(2))
    assert metrics.frame_jaccard(a, b) == pytest.approx(sklearn.jaccard_score(a.T, b.T, average="samples", zero_division=1.0))


# --- rhythm


def clicks(bpm: float, seconds: float = 12.0) -> metrics.Sound:
    y = np.zeros(round(seconds * RATE))
    for start in np.arange(0, seconds - 0.1, 60 / bpm):
        y[round(start * RATE) :][:2000] += noise(1)[:2000] * np.exp(-np.arange(2000) / 300)
    return metrics.prepare(y)


def test_the_same_beat_is_found_under_another_sound_and_another_tempo_is_another() -> None:
    beat, filtered = clicks(120), clicks(120)
    filtered = metrics.prepare(np.convolve(filtered.y, np.hanning(31), "same"))
    assert metrics.beat_agreement(beat, filtered) == {"tempo": 1, "beat_f1": pytest.approx(1, abs=0.05)}
    assert metrics.beat_agreement(beat, clicks(93)) == {"tempo": 0, "beat_f1": pytest.approx(0.2, abs=0.25)}
    assert beat.beats[0] == pytest.approx(120, rel=0.03)


def test_beat_f1_is_mir_eval_s() -> None:
    from mir_eval.beat import f_measure

    a, b = clicks(120), clicks(125)
    assert metrics.beat_agreement(a, b)["beat_f1"] == f_measure(a.beats[1], b.beats[1])


# --- texture


def test_half_the_fine_structure_is_six_decibels_less_roughness() -> None:
    fine = noise(3)
    smooth = metrics.prepare(tone(1000, 3)).log_mel.mean()
    level = smooth + np.random.default_rng(1).normal(size=(128, 300))
    half, whole = (unscaled(fine) for _ in range(2))
    half.__dict__["log_mel"], whole.__dict__["log_mel"] = smooth + 0.5 * (level - smooth), level
    assert metrics.roughness_difference(whole, half) == {
        "roughness_time": pytest.approx(-6.02, abs=0.01),
        "roughness_frequency": pytest.approx(-6.02, abs=0.01),
    }


def test_the_roughness_is_that_of_scipy_s_second_derivative(song: tuple[metrics.Sound, np.ndarray]) -> None:
    from scipy.signal import convolve2d

    other = metrics.Sound(song[0].y + noise(song[0].y.size / RATE)[: song[0].y.size] * 0.02)
    active = song[0].log_mel > song[0].log_mel.max() - metrics.ACTIVE_DB
    for key, kernel in (("roughness_time", [[1, -2, 1]]), ("roughness_frequency", [[1], [-2], [1]])):
        powers = [(convolve2d(s.log_mel, kernel, "same", "symm")[active] ** 2).mean() for s in (other, song[0])]
        assert metrics.roughness_difference(song[0], other)[key] == pytest.approx(10 * np.log10(powers[0] / powers[1]), abs=1e-4)


def test_a_steady_tone_is_smooth_and_noise_is_rough() -> None:
    rough, steady = unscaled(noise()), unscaled(tone(200, partials=40))
    assert metrics.roughness_difference(rough, steady)["roughness_time"] < -5


# --- level and seams


def test_the_loudness_error_is_pyloudnorm_s() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    a, b = np.stack([noise(), noise(seed=1)]), 0.3 * np.stack([noise(seed=2), noise(seed=3)])
    meter = pyloudnorm.Meter(RATE)
    expected = abs(meter.integrated_loudness(a.T) - meter.integrated_loudness(b.T))
    assert metrics.loudness_error(a, b, RATE) == pytest.approx(expected, abs=0.05)
    assert metrics.loudness_error(a, 0.5 * a, RATE) == pytest.approx(6.02, abs=0.01)
    assert metrics.loudness_error(a, a, RATE) == 0


def test_the_loudness_error_of_silence_is_said() -> None:
    silent = np.zeros((1, RATE))
    with pytest.warns(UserWarning, match="both songs are silent"):
        assert metrics.loudness_error(silent, silent, RATE) == 0
    with pytest.warns(UserWarning, match="one song is silent"):
        assert math.isnan(metrics.loudness_error(noise()[None], silent, RATE))


def test_the_true_peak_between_samples_counts_and_below_the_ceiling_nothing_is_wrong() -> None:
    between = np.sin(np.pi / 2 * np.arange(4000) + np.pi / 4)[None] * np.hanning(4000)  # samples at −3 dB, peaks at 0 dB
    assert metrics.true_peak_error(between, RATE) == pytest.approx(1.0, abs=0.05)
    assert metrics.true_peak_error(0.5 * between, RATE) == 0


def test_the_true_peak_is_that_of_scipy_s_interpolation() -> None:
    from scipy.signal import resample_poly

    y = tone(11_000, 0.2, amplitude=0.9) + tone(7_350, 0.2, amplitude=0.4)
    peak_db = 20 * np.log10(np.abs(resample_poly(y, 16, 1)).max())
    assert peak_db > 20 * np.log10(np.abs(y).max()) + 0.05
    assert metrics.true_peak_error(y[None], RATE) == pytest.approx(peak_db + 1, abs=0.1)


def test_the_energy_at_a_border_is_scipy_s_filter_s() -> None:
    from scipy.signal import lfilter

    y = noise(1.0)
    y[RATE // 2 :] += 0.3
    fine = lfilter([1, -4, 6, -4, 1], [1], y)[4:] ** 2
    window, middle = round(0.003 * RATE), RATE // 2 - 2
    start = middle - window // 2
    sums = [fine[start + k * window : start + (k + 1) * window].sum() for k in range(-16, 17)]
    expected = 10 * np.log10(sums[16] / np.median(sums[:16] + sums[17:]))
    assert metrics.seam_energy(y[None], [RATE // 2], RATE) == pytest.approx(expected, abs=0.2)


def test_a_click_at_a_border_is_heard_and_music_is_not() -> None:
    y = tone(330, 3, partials=8) + 0.002 * noise(3)
    borders = [RATE, 2 * RATE]
    clicked = y.copy()
    clicked[RATE:] += 0.05
    assert metrics.seam_energy(y[None], borders, RATE) == pytest.approx(0, abs=2)
    assert metrics.seam_energy(clicked[None], borders[:1], RATE) > 10
    assert metrics.seam_energy(clicked[None], [RATE + 5000], RATE) < 2  # a click elsewhere is no seam
    with pytest.warns(UserWarning, match="no chunk border"):
        assert metrics.seam_energy(y[None], [], RATE) == 0


def test_the_difference_at_a_border_is_measured_against_the_whole() -> None:
    whole = noise(2)[None]
    chunked = whole.copy()
    chunked[:, RATE - 100 : RATE + 100] *= 1.1
    inside = (whole[:, RATE - 2205 : RATE + 2205] ** 2).sum()
    expected = 10 * math.log10(0.01 * (whole[:, RATE - 100 : RATE + 100] ** 2).sum() / inside)
    assert metrics.seam_difference(whole, chunked, [RATE], RATE) == pytest.approx(expected, abs=0.01)
    assert metrics.seam_difference(whole, chunked, [RATE // 2], RATE) == -150
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.seam_difference(whole, chunked[:, 1:], [RATE], RATE)
