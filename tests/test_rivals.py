"""Musaicing and texture optimisation: each does what its paper says, on sounds simple enough to know."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylestream import baselines
from stylestream.features import stft

RATE = 44100


def tone(hz: float, seconds: float = 1.0, *, partials: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    y = np.sum([np.sin(2 * np.pi * hz * k * t) / k for k in range(1, partials + 1) if hz * k < 20000], axis=0)
    return (0.1 * y)[None].repeat(2, 0).astype(np.float32)


def loudest_hz(y: np.ndarray, start: float, stop: float) -> float:
    part = y[0, round(start * RATE) : round(stop * RATE)]
    return float(np.abs(np.fft.rfft(part * np.hanning(part.size), 4 * RATE)).argmax()) / 4


# --- musaicing


def test_columns_that_make_up_the_song_are_found_again() -> None:
    generator = torch.Generator().manual_seed(1)
    W = torch.rand(40, 12, generator=generator) ** 4
    H = torch.zeros(12, 30)
    H[3, 5], H[7, 15], H[1, 25] = 1.0, 2.0, 0.5
    found = baselines.activations(W @ H, W, iterations=40, continuity_frames=0)
    assert found[:, 5].argmax() == 3
    assert found[:, 15].argmax() == 7
    assert found[7, 15] == pytest.approx(2.0, rel=0.05)
    assert found[:, 10].sum() < 1e-3


def test_not_more_columns_sound_at_once_than_allowed() -> None:
    V, W = torch.rand(30, 20, generator=torch.Generator().manual_seed(0)), torch.rand(30, 25, generator=torch.Generator().manual_seed(1))
    few = baselines.activations(V, W, polyphony=2, continuity_frames=0, repetition_frames=0)
    assert int((few > 1e-9).sum(0).max()) <= 2
    many = baselines.activations(V, W, polyphony=25, continuity_frames=0, repetition_frames=0)
    assert float((many > 1e-9).sum(0).float().mean()) > 10


def test_a_column_does_not_stutter() -> None:
    V, W = torch.ones(5, 20), torch.ones(5, 6)
    found = baselines.activations(V, W, repetition_frames=3, continuity_frames=0, polyphony=6)
    for row in found:
        at = torch.nonzero(row > 1e-6)[:, 0]
        assert not len(at) or len(at) == 1 or int(at.diff().min()) > 3


def test_continuity_plays_the_style_s_frames_in_their_order() -> None:
    W = torch.eye(20) + 0.01
    found = baselines.activations(W, W, iterations=30, continuity_frames=2, polyphony=1)
    assert [int(column.argmax()) for column in found.mT[3:-3]] == list(range(3, 17))


def test_the_diagonal_sum_is_a_convolution_with_a_diagonal_kernel() -> None:
    from scipy.signal import convolve2d

    H = torch.rand(9, 11, generator=torch.Generator().manual_seed(0))
    expected = convolve2d(H.numpy(), np.eye(5), mode="same")
    assert baselines._with_continuity(H, 2).numpy() == pytest.approx(expected, abs=1e-6)


def test_a_musaic_has_the_song_s_notes_and_the_style_s_spectrum() -> None:
    song = np.concatenate([tone(330), tone(440)], axis=1)
    bright = [tone(440, 1.5, partials=20), tone(330, 1.5, partials=20)]
    musaic = baselines.musaicing(song, bright)
    assert musaic.shape == song.shape
    assert loudest_hz(musaic, 0.3, 0.8) == pytest.approx(330, abs=3)
    assert loudest_hz(musaic, 1.3, 1.8) == pytest.approx(440, abs=3)
    S = np.abs(np.fft.rfft(musaic[0, round(1.3 * RATE) : round(1.8 * RATE)]))
    assert S[880 * 5 // 10 * 1 - 3 : 880 * 5 // 10 + 4].max() > 0.2 * S[440 // 2 - 3 : 440 // 2 + 4].max()  # the second partial, 2 Hz a bin


def test_a_musaic_is_the_same_twice_and_of_silence_is_silence() -> None:
    song, style = tone(300, 0.5), [tone(310, 0.5, partials=4)]
    assert np.array_equal(baselines.musaicing(song, style), baselines.musaicing(song, style))
    assert not baselines.musaicing(np.zeros_like(song), style).any()
    assert np.isfinite(baselines.musaicing(song, [np.zeros((2, RATE), np.float32)])).all()


# --- texture optimisation


def test_the_responses_are_a_convolution_over_time() -> None:
    x, kernel = torch.rand(6, 20, generator=torch.Generator().manual_seed(0)), baselines.random_kernel(6, 4, 3)
    f = baselines.responses(x, kernel)
    by_hand = sum(float(kernel[2, b, i] * x[b, 9 + i]) for b in range(6) for i in range(3))
    assert f[2, 10].item() == pytest.approx(max(by_hand, 0.0), abs=1e-6)
    assert f.shape == (4, 20)


def test_the_texture_does_not_know_when() -> None:
    f = torch.rand(5, 30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(baselines.gram(f), baselines.gram(f[:, torch.randperm(30, generator=torch.Generator().manual_seed(1))]))


def test_optimising_brings_the_texture_nearer_and_keeps_the_song_when_texture_weighs_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    x, style = torch.rand(24, 40, generator=generator) * 0.3, torch.rand(24, 60, generator=generator) ** 3
    kernel = baselines.random_kernel(24, 48, 5)
    texture = baselines.gram(baselines.responses(style, kernel))
    kept = baselines.textured(x.mT.contiguous().mT, texture, kernel, style_weight=0.0, iterations=20)
    changed = baselines.textured(x, texture, kernel, style_weight=100.0, iterations=60)
    assert torch.allclose(kept, x, atol=1e-4)

    def off(found: torch.Tensor) -> float:
        return float((baselines.gram(baselines.responses(found, kernel)) - texture).square().sum() / texture.square().sum())

    assert off(changed) < 0.1 * off(x)


def test_a_dull_song_becomes_brighter_under_a_bright_texture() -> None:
    song, bright = tone(330, 0.7), [tone(330, 0.7, partials=25)]
    result = baselines.ulyanov(song, bright, iterations=15, filters=128)
    high = [float(stft(torch.from_numpy(y[:1]), n_fft=2048, hop_length=512).abs()[0, 100:].square().sum()) for y in (song, result)]
    assert result.shape == song.shape
    assert high[1] > 10 * high[0]
    assert loudest_hz(result, 0.1, 0.6) == pytest.approx(330, abs=3)


@pytest.mark.parametrize("method", [baselines.musaicing, baselines.ulyanov])
def test_without_sound_of_the_style_a_rival_says_what_it_needs(method) -> None:
    with pytest.raises(ValueError, match="pass waveforms of its training songs"):
        method(tone(300, 0.2), [])
