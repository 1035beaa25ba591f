"""The learned part of the inversion: harmless before it has learned, blind to the phase of the whole, exact in chunks, and it learns."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylestream.features import stft
from stylestream.vocoder import Vocoder

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import make_vocoder  # type: ignore[import-not-found]
from polish import Polish, PolishConfig, PolishedVocoder, both_arrived, load_polish, seen  # type: ignore[import-not-found]

HOP = 512


def awake(polish: Polish, seed: int = 0) -> Polish:
    """A network that does something, wherever it would have learned to."""
    generator = torch.Generator().manual_seed(seed)
    for band in (polish.low_band, polish.high_band):
        band.unfold.weight.data.normal_(std=0.05, generator=generator)
        for block in band.blocks:
            block.back.weight.data.normal_(std=0.1, generator=generator)
    return polish.eval().requires_grad_(False)


@pytest.fixture
def polish() -> Polish:
    torch.manual_seed(0)
    return awake(Polish(PolishConfig(channels=16, blocks=2, rounds=2)))


def noise(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(0.1 * rng.standard_normal(shape).astype(np.float32))


def frames_of(y: Tensor) -> Tensor:
    return stft(y, n_fft=2048, hop_length=HOP).mT[None]


def test_before_it_has_learned_it_changes_nothing(rng):
    song = noise(rng, 2, 100 * HOP)
    vocoder, polished = Vocoder(iterations=3), PolishedVocoder(Polish(PolishConfig(rounds=3)))
    analysis = vocoder.analyse(song)
    x = 0.9 * vocoder.frames(analysis)
    torch.testing.assert_close(polished.synthesise(x, analysis), vocoder.synthesise(x, analysis), atol=1e-6, rtol=0)


def test_a_song_turned_by_any_angle_is_polished_by_the_same_turn(rng, polish):
    X, given, song = (frames_of(noise(rng, 40 * HOP)) for _ in range(3))
    turn = torch.polar(torch.tensor(1.0), torch.tensor(2.0))
    torch.testing.assert_close(polish.high(turn * X, turn * given, song), turn * polish.high(X, given, song), atol=1e-5, rtol=1e-3)


def test_a_steady_sine_in_the_middle_of_a_bin_and_a_click_in_the_middle_of_a_frame_have_phases_that_stand_still(polish):
    config, k = polish.high_band.config, 200
    sine = frames_of(torch.sin(2 * math.pi * k / 2048 * torch.arange(40 * HOP)))[..., config.bins]
    assert float(seen(sine, sine, sine, config)[0, 5, 5:-5, k - config.first].min()) > 0.999
    click = torch.zeros(40 * HOP)
    click[20 * HOP] = 1.0
    X = frames_of(click)[..., config.bins]
    assert float(seen(X, X, X, config)[0, 7, 20, :-1].min()) > 0.999


def test_a_song_in_chunks_is_polished_as_the_song_in_one(rng, polish):
    vocoder = PolishedVocoder(polish)
    song = noise(rng, 1, 300 * HOP)
    whole = vocoder.synthesise(0.9 * vocoder.frames(vocoder.analyse(song)), vocoder.analyse(song))
    reach, first, length = vocoder.context_frames, 120, 40
    a, b = first - reach - 8, first + length + reach + 8  # eight frames more: half a window, of the song's own frames
    part = vocoder.analyse(song[:, a * HOP : b * HOP], first_frame=a)
    made = vocoder.synthesise(0.9 * vocoder.frames(part), part)
    inner = slice((first - a) * HOP, (first - a + length) * HOP)
    torch.testing.assert_close(made[:, inner], whole[:, first * HOP : (first + length) * HOP], atol=1e-4, rtol=0)
    plain = Vocoder(iterations=2).synthesise(0.9 * vocoder.frames(vocoder.analyse(song)), vocoder.analyse(song))
    assert float((whole - plain).abs().max()) > 1e-3  # and it is not nothing that was done


def test_a_frame_is_reached_by_as_many_frames_as_the_network_says(rng, polish):
    X = frames_of(noise(rng, 60 * HOP))
    other = X.clone()
    other[:, 30] *= 2
    changed = (polish.high(X, X, X) != polish.high(other, X, X)).any(-1)[0].nonzero()[:, 0]
    assert changed.min() >= 30 - polish.context_frames
    assert changed.max() <= 30 + polish.context_frames
    assert len(changed) > polish.context_frames  # and it does look around


def test_at_strength_0_a_polished_song_is_the_song(rng, polish):
    song = noise(rng, 2, 60 * HOP)
    vocoder = PolishedVocoder(polish)
    analysis = vocoder.analyse(song)
    assert float((vocoder.synthesise(0.8 * vocoder.frames(analysis), analysis, strength=0.0) - song).abs().max()) < 1e-6


def test_what_trains_hears_the_waveform_that_the_vocoder_makes(rng):
    vocoder = Vocoder()
    song = noise(rng, 1, 60 * HOP)
    analysis = vocoder.analyse(song)
    x = 0.9 * vocoder.frames(analysis)
    (low, _), (high, _) = both_arrived(vocoder, x, analysis)
    y = make_vocoder.waveform(vocoder, low[None], high[None])
    torch.testing.assert_close(y[:, 4096:-4096], vocoder.synthesise(x, analysis)[:, 4096:-4096], atol=1e-5, rtol=0)
    assert float(make_vocoder.loss_of(make_vocoder.Distance()(y, y))) < 1e-3


@pytest.fixture
def pairs(rng, tmp_path) -> Path:
    """One pair, to learn and to be asked: a bright tone, borrowed from itself in noise."""
    t = torch.arange(80 * HOP) / 44100
    truth = torch.stack([torch.sin(2 * math.pi * 220 * k * t + k) / k for k in range(1, 20)]).sum(0) * 0.05
    for split in ("train", "valid"):
        song = truth + noise(rng, 80 * HOP)
        make_vocoder.keep(tmp_path / "pairs" / split / "a.flac", truth.numpy(), song.numpy(), Vocoder().features(truth).numpy())
    return tmp_path


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, float]:
    """Scores after a training of so many steps."""
    small = {"minutes": 5, "batch": 2, "frames": 40, "channels": 16, "blocks": 1} | settings
    options = [text for name, value in small.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    monkeypatch.setattr(sys, "argv", ["make_vocoder.py", "train", "--work", str(folder), *options])
    make_vocoder.main()
    scores: dict[str, float] = json.loads((folder / "polish.jsonl").read_text(encoding="utf-8").splitlines()[-1])["valid"]
    return scores


def test_trained_on_a_pair_it_comes_nearer_to_it_and_is_read_back(pairs, monkeypatch):
    untouched, after = (trained(pairs, monkeypatch, steps=steps, critic_from=2) for steps in (1, 120))
    assert after["true mel"] < 0.9 * untouched["true mel"]
    assert after["canvas log"] < 0.9 * untouched["canvas log"]
    assert load_polish(pairs / "polish.safetensors").config.channels == 16


def test_with_a_critic_it_trains_on_and_what_came_before_is_kept(pairs, monkeypatch):
    assert np.isfinite(trained(pairs, monkeypatch, steps=3, critic_from=-1)["true mel"])
    assert (pairs / "polish-plain.safetensors").is_file()


def test_a_prepared_pair_is_one_passage_on_two_instruments_and_what_the_style_paints_of_it(collection, tmp_path):
    options = argparse.Namespace(data=collection, work=tmp_path, seconds=2.0, most=0)
    make_vocoder.prepare_style(options, "strings", "valid", 1)
    ((truth, song, canvas),) = make_vocoder.read_pairs(options, "valid")
    features = Vocoder().features
    own, borrowed = (features(torch.from_numpy(np.ascontiguousarray(y))).numpy() for y in (truth, song))
    assert canvas.shape == own.shape == borrowed.shape
    assert np.abs(canvas - own).mean() < 0.8 * np.abs(borrowed - own).mean()


def test_a_file_that_holds_no_polish_is_refused():
    from stylestream.timbre import timbre_file

    with pytest.raises(ValueError, match="holds no polish network; tools/make_vocoder.py makes one"):
        load_polish(timbre_file())
