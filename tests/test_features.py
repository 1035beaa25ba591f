"""Frames: what they say about known sounds, against librosa and SciPy, in chunks, and back to power."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stylestream.features import FeatureConfig, LogFrequency, QuickFrames, decimation_filter, filterbank, from_frames, stft, to_frames

CONFIG = FeatureConfig()


@pytest.fixture(scope="module")
def features() -> LogFrequency:
    return LogFrequency()


def sine(hz: float, *, seconds: float = 0.5, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * hz / 44100 * torch.arange(round(seconds * 44100), dtype=torch.float64)).float()


def noise(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) * 0.1


def middle(x: Tensor) -> Tensor:
    return x[..., x.shape[-1] // 2]


# physics


@pytest.mark.parametrize("semitones", [12, 26, 40, 57, 64, 80, 99, 107])
def test_a_note_peaks_in_its_own_row_at_its_own_level(features, semitones):
    hz = CONFIG.fmin_hz * 2 ** (semitones / 12)
    x = middle(features(sine(hz, amplitude=0.5)))
    assert int(x.argmax()) == pytest.approx(3 * semitones, abs=1)
    assert float(x.max()) == pytest.approx(1 - 6.02 / 90, abs=1.9 / 90)  # a wide row gathers a whole main lobe: 1.76 dB


def test_ten_times_the_amplitude_is_twenty_decibels(features):
    quiet, loud = features(sine(1500, amplitude=0.05)), features(sine(1500, amplitude=0.5))
    row = int(middle(loud).argmax())
    assert float((middle(loud) - middle(quiet))[row]) * 90 == pytest.approx(20, abs=0.01)


def test_silence_is_zero_in_every_row(features):
    assert torch.equal(features(torch.zeros(5000)), torch.zeros(324, 10))


@pytest.mark.parametrize(("low", "semitones"), [(110.0, 5), (220.0, 3)])
def test_two_low_notes_are_two_ridges(features, low, semitones):
    high = low * 2 ** (semitones / 12)
    x = middle(features(0.5 * sine(low) + 0.5 * sine(high)))
    a, b = (round(36 * math.log2(hz / CONFIG.fmin_hz)) for hz in (low, high))
    assert float(x[a + 1 : b].min()) < min(float(x[a]), float(x[b])) - 10 / 90


def test_a_click_lights_up_the_frame_it_is_centred_on(features):
    y = torch.zeros(20480)
    y[20 * 512] = 1
    x = features(y)
    assert int(x[250:].mean(0).argmax()) == 20
    assert int(x[:150].mean(0).argmax()) == 20


@pytest.mark.parametrize("hz", [1050.0, 1414.0, 1900.0])
def test_the_cross_fade_between_the_bands_keeps_the_level(features, hz):
    assert float(middle(features(sine(hz))).max()) == pytest.approx(1.0, abs=1.5 / 90)


def test_a_sound_above_the_low_band_does_not_alias_into_it(features):
    low, _ = features.bands(sine(3600))
    below = round(2050 / (44100 / 8 / 512))
    assert float(low[:below].abs()[:, 10:-10].max()) < 10 ** (-75 / 20)


def test_every_row_reads_one_at_its_own_centre():
    for n_fft, rate in ((512, 44100 / 8), (2048, 44100)):
        W = filterbank(CONFIG, n_fft, rate)
        assert W.min() >= 0
        assert W.max() <= 1
        centre = CONFIG.center_hz()
        inside = (centre > 20 * rate / n_fft) & (centre < rate / 2.2)  # a row narrower than a bin may miss every bin's middle
        assert (W[inside].sum(1) > 0.4).all()


# another's answer


def test_the_stft_is_librosas(rng):
    librosa = pytest.importorskip("librosa", reason="librosa is in the extra [eval]")
    y = noise(rng, 30000)
    theirs = librosa.stft(y.numpy(), n_fft=2048, hop_length=512, window="hann", center=True, pad_mode="constant")
    assert np.abs(stft(y, n_fft=2048, hop_length=512).numpy() - theirs * 4 / 2048).max() < 1e-6


def test_decimation_is_scipys_polyphase_filter(features, rng):
    from scipy.signal import upfirdn

    y = noise(rng, 10001)
    h = decimation_filter(8).numpy()
    theirs = upfirdn(h, y.numpy(), down=1)[128:][: len(y)][::8]
    assert np.abs(features.decimate(y).numpy() - theirs).max() < 1e-6


@pytest.mark.parametrize("samples", [1, 8, 9, 127, 128, 129, 1025])
def test_decimation_of_any_length_of_any_shape_is_a_convolution(features, rng, samples):
    y = noise(rng, 2, 3, samples)
    slow = torch.nn.functional.conv1d(torch.nn.functional.pad(y.reshape(6, 1, -1), (128, 128)), decimation_filter(8)[None, None], stride=8)
    assert features.decimate(y).shape == (2, 3, -(-samples // 8))
    assert float((features.decimate(y).reshape(6, 1, -1) - slow).abs().max()) < 1e-6


# two ways, one result


def test_frames_of_a_chunk_are_frames_of_the_song(features, rng):
    y = noise(rng, 44100)
    whole = features(y)
    start, reach = 30, 5  # half a window and the decimation filter reach 4.25 hops
    part = features(y[(start - reach) * 512 : (start + 20 + reach) * 512])
    assert float((part[:, reach : reach + 20] - whole[:, start : start + 20]).abs().max()) < 1e-5


@pytest.mark.parametrize("samples", [1, 511, 512, 5_000, 44_100])
def test_the_quick_frames_are_the_frames(features, rng, samples):
    y = (rng.standard_normal(samples) * np.linspace(0, 1, samples)).astype(np.float32)
    x, expected = QuickFrames()(y), features(torch.from_numpy(y)).numpy()
    assert x.shape == expected.shape
    assert x.dtype == np.float32
    assert np.abs(x - expected).max() < 1e-5


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 7), (3, 60), (100, 200), (298, 3)])
def test_some_quick_frames_of_a_song_are_those_of_all_of_it_louder_by_a_gain(features, rng, first, count):
    y = (0.1 * rng.standard_normal(300 * 512 + 77)).astype(np.float32)
    x, expected = QuickFrames()(y, first=first, count=count, gain=2.5), features(torch.from_numpy(2.5 * y)).numpy()
    assert np.abs(x - expected[:, first : first + count]).max() < 1e-5


def test_the_quick_frames_of_silence_are_zero():
    assert np.abs(QuickFrames()(np.zeros(5000, np.float32))).max() < 1e-6


def test_a_batch_is_its_songs_one_by_one(features, rng):
    y = noise(rng, 2, 3, 9000)
    together = features(y)
    alone = torch.stack([torch.stack([features(song) for song in row]) for row in y])
    assert float((together - alone).abs().max()) < 1e-5


@pytest.mark.parametrize("samples", [1, 10, 511, 512, 513, 44100])
def test_a_song_of_n_samples_has_one_frame_a_hop_and_one_more(features, samples):
    assert features(torch.full((samples,), 0.1)).shape == (324, 1 + samples // 512)


def test_decibels_there_and_back_give_the_power():
    power = torch.logspace(-8, 0, 50)
    assert torch.allclose(from_frames(to_frames(power)), power, rtol=2e-2)
    assert torch.allclose(from_frames(to_frames(power[25:])), power[25:], rtol=1e-4)


def test_frames_below_the_floor_are_silence():
    assert float(from_frames(torch.tensor([0.0, -0.1])).abs().max()) < 1e-15


# back to power


def slow_powers(features: LogFrequency, x: Tensor, low: Tensor, high: Tensor, iterations: int) -> list[Tensor]:
    """Multiplicative updates with the whole filterbank, as the paper writes them; the first in decibels."""
    wanted = from_frames(x)
    found = []
    for W, P, used in ((features.low_rows, low, features.blend < 1), (features.high_rows, high, features.blend > 0)):
        W = (W * used).double()
        P = P.double() + 1e-12
        share = W.sum(0)[:, None].clamp(min=1e-9)
        for i in range(iterations):
            ratio = wanted.double() / (W @ P).clamp(min=1e-20)
            if i == 0:
                ratio = (wanted.double() + 1e-12) / (W @ P).clamp(min=1e-20)
                P = P * torch.exp(W.T @ (ratio.log() * used) / share) * (share > 1e-9)
            else:
                P = P * (W.T @ ratio) / share
        found.append(P)
    return found


def test_the_solver_in_groups_is_the_solver_with_the_whole_filterbank(features, rng):
    song, other = noise(rng, 20000), sine(440, seconds=20000 / 44100) + noise(rng, 20000)
    x = features(other)
    low, high = (band.abs() for band in features.bands(song))
    for fast, slow in zip(features.powers(x, low, high, iterations=3), slow_powers(features, x, low, high, 3), strict=True):
        assert float(((fast - slow).abs() / (slow + 1e-9)).max()) < 1e-3


def test_powers_have_the_rows_they_were_asked_for(features, rng):
    x = features(noise(rng, 30000) + sine(660, seconds=30000 / 44100, amplitude=0.3))
    start = [torch.ones(257, x.shape[1]), torch.ones(1025, x.shape[1])]
    errors = []
    for iterations in (1, 5, 30):
        low, high = features.powers(x, *start, iterations=iterations)
        assert low.min() >= 0
        assert high.min() >= 0
        errors.append(float((features.frames(low, high) - x).abs().mean()) * 90)
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.7  # dB
    assert errors[2] < 0.15


def test_the_song_decides_where_in_a_row_the_energy_sits(features):
    hz = 9000.0
    song = sine(hz, amplitude=0.1)
    x = features(sine(hz * 1.01, amplitude=0.1))  # half a row higher, within the same triangle
    _, high = features.powers(x, *(band.abs() for band in features.bands(song)))
    assert abs(int(middle(high).argmax()) - hz / (44100 / 2048)) <= 1.5  # not at 422, where the frames alone would put it


def test_bins_beyond_the_nine_octaves_are_nobodys(features, rng):
    x = features(noise(rng, 20000))
    _, high = features.powers(x, torch.ones(257, x.shape[1]), torch.ones(1025, x.shape[1]))
    assert float(high[math.ceil(17200 / (44100 / 2048)) :].max()) == 0


def test_powers_come_in_batches(features, rng):
    x = features(noise(rng, 2, 9000))
    low, high = (band.abs() for band in features.bands(noise(rng, 2, 9000)))
    together = features.powers(x, low, high)
    for i in range(2):
        for a, b in zip(together, features.powers(x[i], low[i], high[i]), strict=True):
            assert torch.allclose(a[i], b, rtol=1e-3, atol=1e-9)


# frozen


def test_frames_have_not_moved(features):
    """Style files were trained on these; new values are a new feature version. Made by this very song on 44.1 kHz defaults."""
    t = torch.arange(22050, dtype=torch.float64) / 44100
    y = sum(torch.sin(2 * math.pi * 55 * k**1.5 * t) * torch.exp(-3 * t) / k for k in range(1, 40)).float() * 0.1
    x = features(y)
    assert x.shape == (324, 44)
    assert x[::36, 20].tolist() == pytest.approx(GOLDEN, abs=1e-4)
    assert float(x.mean()) == pytest.approx(GOLDEN_MEAN, abs=1e-4)


GOLDEN = [0.4703, 0.6547, 0.40032, 0.36479, 0.00077, 0.35722, 0.03035, 0.44017, 0.00182]
GOLDEN_MEAN = 0.29010
