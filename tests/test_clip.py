"""One recording as a style: what is heard of it, what is refused, and that its sound is reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stylestream import baselines, metrics
from stylestream.blend import clip_frames, clip_style, load_blend, locate
from stylestream.features import LogFrequency
from stylestream.transfer import load_style

SAMPLE_RATE = 44100


def melody(seconds: float, *, partials: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Notes of a third of a second, in a sound of so many partials: few are dull, many are bright."""
    rng, length = np.random.default_rng(seed), SAMPLE_RATE // 3
    t = np.arange(length) / SAMPLE_RATE
    notes = []
    for pitch in rng.integers(48, 72, round(3 * seconds)):
        hz = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * hz * k * t) / k**0.7 for k in range(1, partials + 1) if hz * k < 16000)
        notes.append(tone * np.minimum(1, t / 0.01) * np.exp(-2 * t))
    y = np.concatenate(notes)
    return np.repeat(0.3 * y[None] / np.abs(y).max(), channels, axis=0).astype(np.float32)


@pytest.fixture(scope="module")
def bright(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "bright.wav"
    soundfile.write(path, melody(5, partials=40, seed=1, channels=2).T, SAMPLE_RATE)
    return path


# ------------------------------------------------------------------------------------------------------- what is heard of it


def test_level_and_channels_of_a_clip_change_nothing(tmp_path, bright):
    y, _ = soundfile.read(bright)
    soundfile.write(tmp_path / "soft.wav", 0.05 * y[:, :1], SAMPLE_RATE, subtype="FLOAT")
    features = LogFrequency()
    torch.testing.assert_close(clip_frames(tmp_path / "soft.wav", features), clip_frames(bright, features), atol=0.02, rtol=0)


def test_of_a_long_recording_only_the_start_is_heard(tmp_path):
    y = np.tile(melody(4, partials=3)[0], 20)
    soundfile.write(tmp_path / "long.wav", y, SAMPLE_RATE)
    assert clip_frames(tmp_path / "long.wav", LogFrequency()).shape[1] == 1 + 30 * SAMPLE_RATE // 512


# ----------------------------------------------------------------------------------------------------------- what is refused


def write(path: Path, y: np.ndarray) -> None:
    soundfile.write(path, y, SAMPLE_RATE)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("short.wav", lambda path: write(path, melody(2, partials=3)[0]), "2.0 s long; as a style a recording needs at least 3 s"),
        ("empty.wav", lambda path: write(path, np.zeros(0)), "holds no samples"),
        ("silent.flac", lambda path: write(path, np.zeros(5 * SAMPLE_RATE)), "silent in its first 30 s; give a recording in which"),
        ("late.wav", lambda path: write(path, np.append(np.zeros(31 * SAMPLE_RATE), melody(4, partials=3)[0])), "silent in its first 30 s"),
        ("text.mp3", lambda path: path.write_text("this is a letter, not a song" * 99), "not"),
        ("nothing.ogg", lambda path: path.write_bytes(b""), "empty"),
    ],
)
def test_a_clip_that_cannot_be_a_style_is_one_clear_line(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        load_style(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_recording_that_is_not_there_is_no_unknown_style(tmp_path):
    with pytest.raises(FileNotFoundError, match="record.mp3: no such recording"):
        locate(str(tmp_path / "record.mp3"))


def test_without_a_base_the_line_says_so(monkeypatch, tmp_path, bright):
    monkeypatch.setattr("stylestream.style.bundled_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="no base is bundled with this installation"):
        load_style(bright)


# ------------------------------------------------------------------------------------------------------------- its sound


def test_a_song_takes_on_the_sound_of_a_clip(bright):
    """A dull song comes nearer to its own notes in the clip's bright sound than its equalised self, or as near."""
    song, truth = melody(2, partials=2, seed=7), metrics.prepare(melody(2, partials=40, seed=7))
    made = metrics.prepare(load_style(bright).transfer(song, SAMPLE_RATE))
    clip = soundfile.read(bright, dtype="float32")[0].T
    rivals = {"copy": song, "equalise": baselines.equalise(song, baselines.mean_frames(clip))}
    for rival in rivals.values():
        assert metrics.mfcc_distance(truth, made) < metrics.mfcc_distance(truth, metrics.prepare(rival))
    assert metrics.log_mel_l1(truth, made) < metrics.log_mel_l1(truth, metrics.prepare(song))


def test_two_clips_of_one_sound_are_nearer_than_clips_of_two(tmp_path, bright):
    soundfile.write(tmp_path / "other.wav", melody(4, partials=40, seed=3)[0], SAMPLE_RATE)
    soundfile.write(tmp_path / "dull.wav", melody(4, partials=1, seed=3)[0], SAMPLE_RATE)
    first, same, different = (clip_style(path).weights["style"] for path in (bright, tmp_path / "other.wav", tmp_path / "dull.wav"))
    assert torch.dist(first, same) < 0.75 * torch.dist(first, different)


def test_a_clip_is_one_style_without_an_ear_and_can_be_blended_with_another(bright):
    clip, mixed, electronic = clip_style(bright), load_blend(f"{bright}:0.25,electronic:0.75"), load_blend("electronic")
    assert clip.weights["style"].shape[0] == clip.model_config["styles"] == 1
    assert not [name for name in clip.weights if name.startswith("clip.")]
    (network,), (other,) = mixed.styles, electronic.styles
    torch.testing.assert_close(network.weights["style"], 0.25 * clip.weights["style"] + 0.75 * other.weights["style"])
    assert mixed.card.title == "25 % bright + 75 % electronic"


def test_a_clip_and_a_style_of_another_base_are_blended_on_the_canvas(bright):
    mixed = load_blend(f"{bright}:0.5,chiptune:0.5")
    assert [style.weights["style"].shape[0] for style in mixed.styles] == [1, 1]
    assert mixed.shares == (0.5, 0.5)
