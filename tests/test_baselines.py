"""Baselines: each does exactly what its name says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylestream import baselines
from stylestream.baselines import Lstm2017, Lstm2017Config, Lstm2017Training
from stylestream.features import FeatureConfig

RATE = 44100
SMALL = Lstm2017Config(hidden=24, latents=8)
FROZEN_DB = [-14.949, -13.762, -18.929, -26.341, -28.16, -22.139, -15.224, -13.634, -18.491, -25.985]
FROZEN_SAMPLES = [-0.1119, -0.05522, -0.07153, -0.21221, 0.16395]


def noise(seconds: float = 1.5, *, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=(channels, round(seconds * RATE))).astype(np.float32)


def chord(*hz: float, seconds: float = 1.5, partials: int = 8) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    y = sum(np.sin(2 * np.pi * f * k * t) / k for f in hz for k in range(1, partials + 1))
    return (0.05 * y * (1 + 0.5 * np.sin(2 * np.pi * 3 * t)))[None].repeat(2, 0).astype(np.float32)


def test_copy_is_the_song() -> None:
    y = noise()
    assert baselines.copy(y) is y


# --- equalise


def test_equalising_to_its_own_mean_changes_nothing() -> None:
    y = noise()
    assert baselines.equalise(y, baselines.mean_frames(y)) == pytest.approx(y, abs=1e-4)


def test_the_equaliser_reaches_the_wanted_spectrum() -> None:
    y = noise(3)
    tilt_db = np.linspace(8, -8, FeatureConfig().n_bins)
    wanted = baselines.mean_frames(y) + tilt_db / 90
    result = baselines.mean_frames(baselines.equalise(y, wanted))
    error_db = 90 * (result - wanted)
    assert np.ptp(error_db[12:-12]) < 1.0  # the shape; the level is matched to −20 LUFS
    assert np.abs(np.diff(baselines.gain_db(baselines.mean_frames(y), wanted)[20:-20])).max() < 0.5


def test_a_third_octave_step_of_the_equaliser_is_bounded_and_smooth() -> None:
    gains = baselines.gain_db(np.zeros(324), np.where(np.arange(324) < 160, 0.0, 0.9))
    assert gains.min() == 0
    assert gains.max() == 24  # 81 dB were asked for
    assert (np.abs(np.diff(gains)) <= 81 / 13 + 1e-6).all()


def test_the_equaliser_is_linear_phase_and_aligned() -> None:
    h = baselines.equaliser(np.linspace(-6, 6, 324))
    assert h == pytest.approx(h[::-1], abs=1e-9)
    click = np.zeros((1, RATE), dtype=np.float32)
    click[0, 20000] = 1
    assert int(np.abs(baselines.equalise(click, np.full(324, 0.5))).argmax()) == 20000


@pytest.mark.parametrize(("hz", "row"), [(130.8, 72), (1046.5, 180), (8372.0, 288)])
def test_a_row_s_gain_is_applied_at_its_frequency(hz: float, row: int) -> None:
    gains = np.zeros(324)
    gains[row - 12 : row + 13] = 10
    response = np.abs(np.fft.rfft(baselines.equaliser(gains), RATE))  # 1 Hz a bin
    assert 20 * math.log10(response[round(hz)]) == pytest.approx(10, abs=0.2)
    assert abs(20 * math.log10(response[round(hz * 2)])) < 0.2


def test_silence_equalised_is_silence() -> None:
    assert not baselines.equalise(np.zeros((2, RATE), dtype=np.float32), np.full(324, 0.5)).any()


def test_means_of_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        baselines.equalise(noise(), np.zeros(100))


def test_the_equaliser_is_what_it_was_when_its_numbers_were_published() -> None:
    t = np.arange(3 * RATE) / RATE
    sweep = 0.2 * np.sin(2 * np.pi * 40 * 3 / np.log(400) * (400 ** (t / 3) - 1))[None]  # 40 Hz to 16 kHz
    curve_db = 8 * np.sin(np.arange(324) / 30) - 4
    result = baselines.equalise(sweep.astype(np.float32), baselines.mean_frames(sweep) + curve_db / 90)
    levels_db = 20 * np.log10(np.sqrt((result.reshape(10, -1) ** 2).mean(1)))  # of three tenths of a second each
    assert levels_db == pytest.approx(FROZEN_DB, abs=0.01)
    assert result[0, 30000:120000:20000] == pytest.approx(FROZEN_SAMPLES, abs=1e-4)


# --- a random piece, and what is kept on disk


def test_a_random_piece_is_of_the_style_and_always_the_same_for_a_song() -> None:
    song, style = noise(1.0), [chord(220 * (k + 1), seconds=0.4 + 0.4 * k) for k in range(4)]
    drawn = baselines.random_piece(song, style)
    assert drawn.shape == song.shape
    assert np.array_equal(drawn, baselines.random_piece(song.copy(), style))
    assert any(np.array_equal(drawn[0], np.resize(piece.mean(0), song.shape[1])) for piece in style)
    others = {baselines.random_piece(noise(1.0, seed=seed), style).tobytes() for seed in range(12)}
    assert len(others) > 1
    with pytest.raises(ValueError, match="training songs"):
        baselines.random_piece(song, [])


def test_what_is_kept_is_made_once_and_heard_the_same(tmp_path: Path) -> None:
    made = []

    def louder(y: np.ndarray, style: list[np.ndarray], *, factor: float) -> np.ndarray:
        made.append(factor)
        return factor * y + style[0].mean()

    y, style = noise(0.5), [noise(0.2, seed=1)]
    first = baselines.cached(louder, y, style, cache=tmp_path, name="louder", factor=2.0)
    again = baselines.cached(louder, y.copy(), [style[0].copy()], cache=tmp_path, name="louder", factor=2.0)
    assert made == [2.0]
    assert np.array_equal(first, again)
    assert first == pytest.approx(2 * y + style[0].mean(), abs=1e-6)
    changed = ((y * 0.5, style, 2.0), (y, [style[0] * 2], 2.0), (y, style, 3.0))
    for song, songs, factor in changed:
        baselines.cached(louder, song, songs, cache=tmp_path, name="louder", factor=factor)
    assert made == [2.0, 2.0, 2.0, 3.0]
    (name, (count, seconds)), *_ = baselines.costs(tmp_path).items()
    assert (name, count) == ("louder", 4)
    assert 0 <= seconds < 1


def test_without_a_cache_nothing_is_kept_and_nothing_is_turned_down() -> None:
    loud = np.full((1, 100), 3.0, dtype=np.float32)
    assert np.array_equal(baselines.cached(lambda y: y, loud, cache=None, name="copy"), loud)


def test_a_result_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training songs"):
        baselines.cached(baselines.random_piece, noise(0.1), [], cache=tmp_path, name="random_piece")
    assert not list(tmp_path.rglob("*.*"))


# --- twins


def test_a_song_after_mp3_is_the_song_aligned_and_not_quite(tone: Any) -> None:
    y = tone(2.0)
    heard = baselines.mp3(y)
    assert heard.shape == y.shape
    error = np.sum((heard - y) ** 2) / np.sum(y**2)
    assert 1e-8 < error < 1e-2
    assert baselines.mp3(np.concatenate([y, y])).shape == (4, y.shape[1])
    assert baselines.mp3(y[:1]).shape == (1, y.shape[1])


@pytest.mark.parametrize(("hz", "gain_db"), [(30, 3.0), (900, 0.0), (18000, -3.0)])
def test_the_mild_equaliser_is_three_decibels_up_and_down(hz: float, gain_db: float) -> None:
    y = 0.3 * np.sin(2 * np.pi * hz * np.arange(88200) / RATE)[None]
    heard = baselines.mild_eq(y)[:, 22050:]
    assert 10 * np.log10(np.mean(heard**2) / np.mean(y[:, 22050:] ** 2)) == pytest.approx(gain_db, abs=0.3)


# --- ceiling


def test_the_ceiling_of_a_song_as_its_own_truth_is_nearly_the_song() -> None:
    metrics = pytest.importorskip("stylestream.metrics")
    pytest.importorskip("librosa", reason="metrics need the extra [eval]")
    y = chord(220, 277.2, 329.6)
    result = baselines.ceiling(y, y)
    assert result.shape == y.shape
    assert metrics.log_mel_l1(metrics.prepare(y), metrics.prepare(result)) < 0.7


def test_the_ceiling_is_the_truth_and_not_the_song() -> None:
    metrics = pytest.importorskip("stylestream.metrics")
    pytest.importorskip("librosa", reason="metrics need the extra [eval]")
    song, truth = chord(220, 330, partials=2), chord(220, 330, partials=30)
    heard, wanted, source = (metrics.prepare(y) for y in (baselines.ceiling(song, truth), truth, song))
    assert metrics.log_mel_l1(wanted, heard) < 0.4 * metrics.log_mel_l1(wanted, source)


# --- lstm2017


def spectra(songs: int = 3, frames: int = 60) -> list[torch.Tensor]:
    """Steady tones at different bins over a quiet floor."""
    S = torch.full((songs, 513, frames), 1e-4)
    for i in range(songs):
        S[i, 40 + 60 * i :: 120] = 0.2
    return list(S)


def test_the_2017_model_has_its_published_size() -> None:
    model = Lstm2017()
    assert sum(p.numel() for p in model.parameters()) == 2_336_641
    assert model.reconstruct(torch.rand(1, 513, 7)).shape == (1, 513, 7)


def test_its_loss_is_thirty_mse_plus_kl() -> None:
    torch.manual_seed(0)
    model = Lstm2017(SMALL)
    S = torch.stack(spectra())
    losses = model.loss(S)
    assert losses["loss/total"].item() == pytest.approx(30 * losses["loss/mse"].item() + losses["loss/kl"].item(), rel=1e-5)
    mean, log_variance = model.encode(model._levels(S))
    q = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
    assert losses["loss/kl"].item() == pytest.approx(kl.item(), rel=1e-4)


def test_its_loss_reaches_every_parameter() -> None:
    model = Lstm2017(SMALL)
    model.loss(torch.rand(2, 513, 9))["loss/total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_levels_and_magnitudes_are_inverse() -> None:
    model = Lstm2017(SMALL)
    S = torch.tensor([1.0, 0.1, 0.01, 1e-3])[None, :, None]
    back = 10 ** ((1 - model._levels(S).mT) * model.config.floor_db / 20)
    assert back == pytest.approx(S.numpy(), rel=1e-4)


def test_a_seed_is_a_run() -> None:
    first, again, other = (
        baselines.fit_lstm2017(spectra(), Lstm2017Training(steps=3, batch=2, crop_frames=8, seed=seed), config=SMALL) for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.output.bias, other.output.bias)


def test_it_learns() -> None:
    first = baselines.fit_lstm2017(spectra(), Lstm2017Training(steps=80, batch=4, crop_frames=16, learning_rate=1e-2), config=SMALL)
    S = torch.stack(spectra())
    torch.manual_seed(0)
    before, after = (m.loss(S)["loss/mse"].item() for m in (Lstm2017(SMALL), first))
    assert after < 0.2 * before
    loud = first.reconstruct(S)[0].mean(-1)
    assert loud[40] > 2 * loud[100]  # this song's partials, not the next one's: the latents carry the song
    assert loud[40] > 2 * loud[70]


def test_a_song_through_2017_keeps_its_shape_and_loses_its_treble() -> None:
    y = noise(2)[:, :-123]
    result = baselines.lstm2017(y, Lstm2017(SMALL).eval())
    assert result.shape == y.shape
    assert (result[0] == result[1]).all()
    power = np.abs(np.fft.rfft(result[0])) ** 2
    hz = np.fft.rfftfreq(result.shape[1], 1 / RATE)
    assert power[hz > 2400].sum() < 1e-3 * power.sum()


def test_the_2017_spectrum_puts_a_tone_in_its_bin() -> None:
    S = baselines.spectrum_2017(chord(440, partials=1))
    assert S.shape[0] == 513
    assert int(S.mean(1).argmax()) == round(440 / (4410 / 1024))


def test_a_saved_2017_model_is_the_model(tmp_path: Path) -> None:
    from dataclasses import asdict

    from stylestream.style import Card, load_style_file, save_style

    model = Lstm2017(SMALL)
    path = tmp_path / "rock-lstm2017.safetensors"
    config = {"model": "lstm2017", **asdict(model.config)}
    save_style(path, model.state_dict(), model_config=config, feature_config={}, card=Card("t"))
    again = baselines.load_lstm2017(load_style_file(path))
    S = torch.rand(1, 513, 5)
    assert again.reconstruct(S).numpy() == pytest.approx(model.reconstruct(S).numpy(), rel=0.1)  # stored in 16 bits


def test_a_2017_model_that_asks_for_terabytes_takes_none_and_is_one_line(tmp_path: Path) -> None:
    from dataclasses import asdict

    from stylestream.style import Card, load_style_file, save_style

    for wrong in ({"hidden": 10**6}, {"hidden": 0}, {"latents": 10**12}, {"n_fft": "1024"}):
        config = {"model": "lstm2017", **asdict(SMALL), **wrong}
        save_style(tmp_path / "a.safetensors", Lstm2017(SMALL).state_dict(), model_config=config, feature_config={}, card=Card("t"))
        with pytest.raises(ValueError, match="weights and settings do not belong together") as error:
            baselines.load_lstm2017(load_style_file(tmp_path / "a.safetensors"))
        assert "\n" not in str(error.value)


def test_another_model_is_not_taken_for_2017(tmp_path: Path) -> None:
    from stylestream.style import Card, load_style_file, save_style

    save_style(tmp_path / "a.safetensors", {"w": torch.zeros(3)}, model_config={"steps": 8}, feature_config={}, card=Card("t"))
    with pytest.raises(ValueError, match="no lstm2017 network"):
        baselines.load_lstm2017(load_style_file(tmp_path / "a.safetensors"))


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ValueError, match="no songs to train on"):
        baselines.fit_lstm2017([])
