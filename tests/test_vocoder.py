"""Inversion: on tones, against librosa, in chunks, in stereo, and at both ends of the dial."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stylestream.features import LogFrequency, stft
from stylestream.vocoder import Vocoder, fast_griffin_lim, griffin_lim, istft, pghi

RATE = 44100
SIZE = {"n_fft": 2048, "hop_length": 512}


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder()


def noise(rng: np.random.Generator, *shape: int) -> Tensor:
    return 0.1 * torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def notes(timbre: float, decay: float, *, seconds: float = 3.0, seed: int = 1) -> Tensor:
    """A tune with chords, (N,): partial k at 1 / k ** timbre, each fading with its note."""
    rng = np.random.default_rng(seed)
    y = np.zeros(round(seconds * RATE))
    for onset in np.arange(0, seconds, 0.25):
        t = np.arange(len(y) - round(onset * RATE)) / RATE
        for pitch in rng.choice([36, 43, 48, 52, 55, 60, 64, 67, 72], 3, replace=False):
            hz = 440 * 2 ** ((pitch - 69) / 12)
            envelope = np.exp(-decay * t) * (1 - np.exp(-400 * t)) * (t < 0.5) * np.minimum(1, np.maximum(0, (0.5 - t) * 50))
            for k in range(1, min(40, int(16000 / hz))):
                y[len(y) - len(t) :] += np.sin(2 * np.pi * hz * k * t + rng.uniform(0, 6)) * k**-timbre * envelope * 0.02
    return torch.from_numpy(y + 1e-4 * rng.standard_normal(len(y))).float()


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """One score on two instruments: a dull one that dies away, a bright one that lasts."""
    return notes(2.0, 8.0), notes(0.9, 1.0)


@pytest.fixture(scope="module")
def stereo(pair) -> Tensor:
    """The dull instrument with a room: (2, N)."""
    y = pair[0]
    return torch.stack([y + 0.3 * torch.roll(y, 700), 0.6 * y + 0.3 * torch.roll(y, 1100)])


def convergence_db(y: Tensor, S: Tensor) -> float:
    found = stft(y, **SIZE).abs()
    return 20 * math.log10(float((found - S).norm() / S.norm()))


def level_db(error: Tensor, reference: Tensor) -> float:
    return 10 * math.log10(float(error.square().mean() / reference.square().mean()) + 1e-30)


def log_mel_db(a: Tensor, b: Tensor) -> float:
    librosa = pytest.importorskip("librosa", reason="librosa is in the extra [eval]")
    mel = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=128, fmin=30, fmax=16000, norm=None))
    loud = [10 * torch.log10((mel @ stft(y, **SIZE).abs().square()).clamp(min=1e-8)) for y in (a, b)]
    return float((loud[0] - loud[1]).abs().mean())


# a waveform of an STFT


@pytest.mark.parametrize("samples", [1, 100, 511, 2048, 20001])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(2048, 512), (512, 64)])
def test_the_inverse_of_an_stft_is_its_waveform(rng, samples, n_fft, hop_length):
    y = noise(rng, 2, samples)
    z = istft(stft(y, n_fft=n_fft, hop_length=hop_length), n_fft=n_fft, hop_length=hop_length, samples=samples)
    assert float((z - y).abs().max()) < 1e-6


def test_the_inverse_is_the_least_squares_one(rng):
    S = torch.view_as_complex(noise(rng, 1025, 20, 2))
    y = istft(S, **SIZE, samples=19 * 512)
    theirs = torch.istft(S * 2048 / 4, **SIZE, window=torch.hann_window(2048), length=19 * 512)
    assert torch.allclose(y[1024:-1024], theirs[1024:-1024], atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim_is_librosas(pair, momentum):
    librosa = pytest.importorskip("librosa", reason="librosa is in the extra [eval]")
    S = stft(pair[1], **SIZE).abs()
    ours = fast_griffin_lim(S, **SIZE, iterations=10, momentum=momentum)
    theirs = librosa.griffinlim((S * 2048 / 4).numpy(), n_iter=10, hop_length=512, momentum=momentum, init=None)
    assert np.abs(theirs).max() > 0.05
    assert level_db(ours - torch.from_numpy(theirs), ours) < -55  # rounding, ten rounds on; momentum 0.98 for 0.99 would be −31


def test_fast_griffin_lim_gets_closer_than_griffin_lim(pair):
    S = stft(pair[1], **SIZE).abs()
    samples = pair[1].numel()
    slow = convergence_db(griffin_lim(S, **SIZE, iterations=24, samples=samples), S)
    fast = convergence_db(fast_griffin_lim(S, **SIZE, iterations=24, samples=samples), S)
    assert fast < slow - 2


def test_the_true_phase_is_a_fixed_point(pair):
    S = stft(pair[1], **SIZE)
    y = fast_griffin_lim(S.abs(), **SIZE, iterations=5, phase=S.angle(), samples=pair[1].numel())
    assert level_db(y - pair[1], pair[1]) < -90


def test_a_part_of_a_round_lies_on_the_way_to_the_whole_one(rng):
    S = noise(rng, 1025, 12).abs()
    one, nearly_one, half, nearly_two, two = (fast_griffin_lim(S, **SIZE, iterations=n) for n in (1, 1.001, 1.5, 1.999, 2.0))
    whole = torch.dist(one, two)
    assert torch.dist(one, nearly_one) < 0.01 * whole
    assert torch.dist(two, nearly_two) < 0.01 * whole
    assert 0.2 * whole < torch.dist(one, half) < 0.9 * whole
    assert 0.2 * whole < torch.dist(half, two) < 0.9 * whole
    assert torch.equal(two, fast_griffin_lim(S, **SIZE, iterations=2))


def test_a_batch_is_inverted_as_its_songs_one_by_one(rng):
    S = noise(rng, 2, 3, 1025, 12).abs()
    together = fast_griffin_lim(S, **SIZE, iterations=3)
    assert torch.equal(together[1, 2], fast_griffin_lim(S[1, 2], **SIZE, iterations=3))
    assert together.shape == (2, 3, 11 * 512)


@pytest.mark.parametrize("hz", [440.0, 1234.5, 7000.0])
def test_heap_integration_turns_a_tone_at_its_own_frequency(hz):
    y = torch.sin(2 * math.pi * hz / RATE * torch.arange(RATE // 2))
    S = stft(y, **SIZE).abs()
    row = round(hz / RATE * 2048)
    advance = pghi(S, **SIZE)[row].diff()[5:-5]
    wrong = torch.remainder(advance - 2 * math.pi * hz * 512 / RATE + math.pi, 2 * math.pi) - math.pi
    assert float(wrong.abs().max()) < 0.05  # radians a frame; Hann is nearly a Gaussian


def test_heap_integration_puts_a_click_where_it_was():
    y = torch.zeros(20480)
    y[10123] = 1.0
    S = stft(y, **SIZE).abs()
    z = istft(torch.polar(S, pghi(S, **SIZE)), **SIZE, samples=20480)
    assert abs(int(z.abs().argmax()) - 10123) <= 8  # of a window of 2048
    assert float(z.abs().max()) > 0.5


def test_heap_integration_is_a_better_start_than_zero(pair):
    S = stft(pair[1], **SIZE).abs()
    samples = pair[1].numel()
    phase = pghi(S, **SIZE)
    assert convergence_db(fast_griffin_lim(S, **SIZE, iterations=0, phase=phase, samples=samples), S) < -13
    started = convergence_db(fast_griffin_lim(S, **SIZE, iterations=8, phase=phase, samples=samples), S)
    assert started < convergence_db(fast_griffin_lim(S, **SIZE, iterations=8, samples=samples), S) - 6


def test_heap_integration_is_the_same_twice_and_bears_silence(pair):
    S = stft(pair[1][:20000], **SIZE).abs()
    assert torch.equal(pghi(S, **SIZE), pghi(S, **SIZE))
    assert bool(torch.isfinite(pghi(torch.zeros(1025, 4), **SIZE)).all())
    assert bool(torch.isfinite(pghi(torch.ones(1025, 1), **SIZE)).all())


# frames and a song


def test_frames_of_another_instrument_sound_like_it(vocoder, pair):
    song, truth = pair
    y = vocoder.synthesise(vocoder.features(truth), vocoder.analyse(song[None]))[0]
    assert log_mel_db(song, truth) > 8
    assert log_mel_db(y, truth) < 1.3


def test_more_rounds_get_closer(pair):
    song, truth = pair
    errors = []
    for iterations in (0, 1, 4):
        vocoder = Vocoder(iterations=iterations)
        errors.append(log_mel_db(vocoder.synthesise(vocoder.features(truth), vocoder.analyse(song[None]))[0], truth))
    assert errors[0] > errors[1] > errors[2]


def test_the_result_has_the_frames_it_was_asked_for(vocoder, pair):
    song, truth = pair
    x = vocoder.features(truth)
    y = vocoder.synthesise(x, vocoder.analyse(song[None]))[0]
    loud = x > 0.4
    assert float((vocoder.features(y) - x)[loud].abs().mean()) * 90 < 1.2
    assert float((vocoder.features(song) - x)[loud].abs().mean()) * 90 > 6


def test_attacks_stay_where_the_song_has_them(vocoder):
    y = torch.zeros(RATE)
    y[20000] = 1.0
    brighter = 0.5 * y
    brighter[20000:] += (
        0.1 * torch.exp(-torch.arange(RATE - 20000) / 300) * torch.sin(2 * math.pi * 3000 / RATE * torch.arange(RATE - 20000))
    )
    z = vocoder.synthesise(vocoder.features(brighter), vocoder.analyse(y[None]))[0]
    assert abs(int(z.abs().argmax()) - 20000) <= 2
    assert float(z[: 20000 - 1300].square().sum()) < 0.01 * float(z.square().sum())  # no echo before it


def test_frames_from_the_analysis_are_the_features(vocoder, stereo):
    assert torch.allclose(vocoder.frames(vocoder.analyse(stereo)), vocoder.features(stereo.mean(0)), atol=1e-6)


def test_heap_integration_serves_both_bands(pair):
    song, truth = (y[: RATE // 2] for y in pair)
    vocoder = Vocoder(method="pghi", iterations=2)
    x = vocoder.features(truth)
    assert log_mel_db(vocoder.synthesise(x, vocoder.analyse(song[None]))[0], truth) < 1.3
    assert level_db(vocoder.synthesise(x, vocoder.analyse(song[None]), strength=0.0)[0] - song, song) < -60


# the dial


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_strength_zero_is_the_song(vocoder, rng, pair, channels):
    song = pair[0][:30000] * torch.rand(channels, 1, generator=torch.Generator().manual_seed(0)) + 0.02 * noise(rng, channels, 30000)
    x = torch.rand(324, 59, generator=torch.Generator().manual_seed(1))
    y = vocoder.synthesise(x, vocoder.analyse(song), strength=0.0)
    assert level_db(y - song, song) < -100


def test_the_dial_is_continuous_at_the_song_and_moves_one_way(vocoder, stereo, pair):
    x, song = vocoder.features(pair[1]), vocoder.analyse(stereo)
    away = [level_db(vocoder.synthesise(x, song, strength=s) - stereo, stereo) for s in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert away[0] < -60
    assert all(10 < b - a < 24 for a, b in itertools.pairwise(away))  # tenfold the dial is about tenfold the difference
    results = [vocoder.synthesise(x, song, strength=s).mean(0) for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    to_song = [log_mel_db(y, stereo.mean(0)) for y in results]
    to_style = [log_mel_db(y, pair[1]) for y in results]
    assert to_song == sorted(to_song)
    assert to_style == sorted(to_style, reverse=True)


def test_a_sound_outside_the_nine_octaves_goes_with_the_dial(vocoder):
    y = 0.1 * torch.sin(2 * math.pi * 19000 / RATE * torch.arange(RATE))[None]
    x, song = vocoder.features(y[0]), vocoder.analyse(y)
    levels = [level_db(vocoder.synthesise(x, song, strength=s), y) for s in (0.0, 0.3, 0.6, 1.0)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] < -50


# stereo


def test_the_mono_fold_down_is_the_styled_mid(vocoder, stereo, pair):
    x = vocoder.features(pair[1])
    both = vocoder.synthesise(x, vocoder.analyse(stereo))
    mono = vocoder.synthesise(x, vocoder.analyse(stereo.mean(0, keepdim=True)))
    assert level_db(both.mean(0) - mono[0], mono[0]) < -100


def test_two_equal_channels_stay_equal(vocoder, pair):
    y = vocoder.synthesise(vocoder.features(pair[1]), vocoder.analyse(pair[0].expand(2, -1)))
    assert torch.equal(y[0], y[1])


def test_panned_notes_stay_where_they_were_in_another_timbre(vocoder):
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    left, right = (0.1 * torch.sin(2 * math.pi * hz * t) for hz in (440.0, 622.25))
    styled = sum(torch.sin(2 * math.pi * hz * k * t) / k for hz in (440.0, 622.25) for k in (1, 3)) * 0.3
    song = torch.stack([left, right]).float()
    y = vocoder.synthesise(vocoder.features(styled.float()), vocoder.analyse(song))
    S = stft(y, n_fft=8192, hop_length=2048).abs()[..., 5:-5].mean(-1)
    for hz, channel in ((440.0, 0), (622.25, 1)):
        row = round(hz / RATE * 8192)
        assert 20 * math.log10(float(S[channel, row] / S[1 - channel, row])) > 20
        assert 20 * math.log10(float(S[channel, row])) > 20 * math.log10(0.4)  # 0.3 in the mid is 0.6 on one side


def test_the_room_comes_along(vocoder, rng):
    """A decorrelated side keeps its share of a sound that gets louder."""
    mid, side = noise(rng, 2, RATE)
    song = torch.stack([mid + 0.5 * side, mid - 0.5 * side])
    y = vocoder.synthesise(vocoder.features(2 * mid), vocoder.analyse(song))
    assert level_db(0.5 * (y[0] - y[1]), y.mean(0)) == pytest.approx(-6, abs=1)


def test_what_is_painted_into_the_room_is_no_wider_than_what_was_played_there(vocoder, rng):
    """A centred tone in a wide, soft room; the style paints a comb of tones between and above, where the song has only room."""
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    tones = sum(0.2 * torch.sin(2 * math.pi * hz * t) for hz in range(300, 4000, 100)).float()
    room_mid, room_side = (0.01 * noise(rng, 2, RATE)).unbind()
    mid, side = tones + room_mid, room_side
    styled = sum(0.2 * torch.sin(2 * math.pi * (hz + 50) * t) for hz in range(300, 4000, 100)).float()
    y = vocoder.synthesise(vocoder.features(styled), vocoder.analyse(torch.stack([mid + side, mid - side])))
    song_width_db = level_db(side, mid)
    assert level_db(0.5 * (y[0] - y[1]), y.mean(0)) < song_width_db + 1


def test_a_song_without_a_mid_keeps_its_sides(vocoder, rng):
    y = noise(rng, RATE // 2)
    song = torch.stack([y, -y])
    z = vocoder.synthesise(torch.zeros(324, 44), vocoder.analyse(song))
    assert bool(torch.isfinite(z).all())
    assert float(z.mean(0).abs().max()) < 1e-4


# chunks


def in_chunks(vocoder: Vocoder, x: Tensor, song: Tensor, chunk_frames: int, strength: float) -> Tensor:
    hop, context, n = 512, vocoder.context_frames, song.shape[-1]
    parts = []
    for first in range(0, x.shape[-1], chunk_frames):
        start = max(first - context, 0)
        y = song[:, start * hop : (first + chunk_frames + context) * hop]
        if first * hop >= n:
            break
        z = vocoder.synthesise(x[:, start : start + 1 + y.shape[-1] // hop], vocoder.analyse(y, first_frame=start), strength=strength)
        parts.append(z[:, (first - start) * hop : (first - start + chunk_frames) * hop])
    return torch.cat(parts, -1)


@pytest.mark.parametrize(("chunk_frames", "strength"), [(37, 1.0), (86, 0.5), (130, 1.0)])
def test_a_song_in_chunks_is_the_song_in_one(vocoder, stereo, pair, chunk_frames, strength):
    x = vocoder.features(pair[1])
    whole = vocoder.synthesise(x, vocoder.analyse(stereo), strength=strength)
    chunks = in_chunks(vocoder, x, stereo, chunk_frames, strength)
    assert chunks.shape == whole.shape
    assert float((chunks - whole).abs().max()) < 1e-5 * max(1.0, float(whole.abs().max()))


@pytest.mark.parametrize("iterations", [0, 1, 8])
def test_the_context_follows_the_rounds(stereo, pair, iterations):
    vocoder = Vocoder(iterations=iterations)
    x = vocoder.features(pair[1])
    whole = vocoder.synthesise(x, vocoder.analyse(stereo))
    assert float((in_chunks(vocoder, x, stereo, 60, 1.0) - whole).abs().max()) < 1e-4
    assert vocoder.context_samples == 512 * vocoder.context_frames


def test_chunks_agree_where_the_song_is_empty(vocoder, pair):
    """Rounding must not choose the phase: a song of a few low partials, frames with everything above."""
    song = 0.1 * torch.sin(2 * math.pi * 220 / RATE * torch.arange(pair[1].numel()))[None]
    x = vocoder.features(pair[1])
    whole = vocoder.synthesise(x, vocoder.analyse(song))
    assert float((in_chunks(vocoder, x, song, 50, 1.0) - whole).abs().max()) < 1e-4


# odd songs


@pytest.mark.parametrize("samples", [1, 10, 441, 512, 5000])
def test_short_songs_are_done(vocoder, samples):
    y = torch.full((2, samples), 0.1)
    z = vocoder.synthesise(torch.full((324, 1 + samples // 512), 0.5), vocoder.analyse(y))
    assert z.shape == y.shape
    assert bool(torch.isfinite(z).all())


def test_silence_stays_silence(vocoder):
    y = torch.zeros(2, 20000)
    song = vocoder.analyse(y)
    assert float(vocoder.synthesise(vocoder.frames(song), song).abs().max()) < 1e-6


def test_loud_frames_of_a_silent_song_are_finite_and_bounded(vocoder):
    z = vocoder.synthesise(torch.full((324, 40), 0.7), vocoder.analyse(torch.zeros(2, 20000)))
    assert bool(torch.isfinite(z).all())
    assert 1e-3 < float(z.abs().max()) < 2


def test_arguments_are_not_written_into(vocoder, stereo, pair):
    x, song = vocoder.features(pair[1]), vocoder.analyse(stereo)
    before = x.clone(), song.low.clone(), song.high.clone(), stereo.clone()
    vocoder.synthesise(x, song, strength=0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, song.low, song.high, stereo), strict=True))


def test_what_cannot_be_is_refused_with_the_remedy(vocoder, stereo):
    with pytest.raises(ValueError, match="pass y as"):
        vocoder.analyse(torch.zeros(2, 0))
    with pytest.raises(ValueError, match="pass y as"):
        vocoder.analyse(torch.zeros(100))
    song = vocoder.analyse(stereo[:, :5000])
    with pytest.raises(ValueError, match="outside"):
        vocoder.synthesise(torch.zeros(324, 10), song, strength=1.5)
    with pytest.raises(ValueError, match="frames of this song"):
        vocoder.synthesise(torch.zeros(324, 11), song)
    with pytest.raises(ValueError, match="song or pghi"):
        Vocoder(method="random")
    with pytest.raises(ValueError, match="1025 rows"):
        griffin_lim(torch.zeros(1024, 5), **SIZE)
    with pytest.raises(ValueError, match="divides 1024"):
        griffin_lim(torch.zeros(1025, 5), n_fft=2048, hop_length=500)


def test_another_front_end_works_too(pair):
    from stylestream.features import FeatureConfig

    vocoder = Vocoder(LogFrequency(FeatureConfig(hop_length=256, decimation=4)))
    song, truth = (y[:30000] for y in pair)
    assert log_mel_db(vocoder.synthesise(vocoder.features(truth), vocoder.analyse(song[None]))[0], truth) < 1.5
