"""What several tests share: seeded randomness, songs, a style that needs no training, the music at $STYLESTREAM_DATA."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def collection() -> Path:
    """The folder with midi.csv, midi.tar.xz and audio.csv."""
    folder = os.environ.get("STYLESTREAM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set STYLESTREAM_DATA to a folder with midi.csv and midi.tar.xz (docs/data.md)")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_style(tmp_path_factory) -> Path:
    """A style file of an untrained network, the smallest that has every part: what it paints is no music, but it is painted."""
    import torch

    from stylestream.draw import Draw, DrawConfig
    from stylestream.features import FeatureConfig
    from stylestream.style import Card, Source, save_style

    torch.manual_seed(0)
    config = DrawConfig(
        steps=2, view_channels=8, view_blocks=1, canvas_channels=4, encoder_channels=8, decoder_channels=8, texture_channels=8
    )
    path = tmp_path_factory.mktemp("styles") / "tiny.safetensors"
    card = Card("Tiny", licence="CC0-1.0", sources=(Source("nothing", "CC0-1.0"),))
    return save_style(path, Draw(config).state_dict(), model_config=asdict(config), feature_config=asdict(FeatureConfig()), card=card)


def _tone(seconds: float, *, hz: float = 440.0, sample_rate: int = 44100, channels: int = 2) -> np.ndarray:
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    y = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 5)) * np.exp(-2 * (t % 0.5)) * 0.2
    return np.stack([y * (1 - 0.2 * c) for c in range(channels)]).astype(np.float32)


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """``tone(seconds, hz=, sample_rate=, channels=)``: a few partials that fade, (C, N); the smallest thing that sounds like music."""
    return _tone


@pytest.fixture
def song(tmp_path) -> Path:
    """A second of music as 16-bit WAV."""
    import soundfile

    soundfile.write(tmp_path / "song.wav", _tone(1.0).T, 44100, subtype="PCM_16")
    return tmp_path / "song.wav"
