"""Where the error is, what the dials do, what the steps hold: each shown on a sound of which that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("librosa", reason="evaluation needs the extra [eval]")

from stylestream import curves, metrics
from stylestream.sound import FRAMES_PER_SECOND

NOTES = np.dtype([("onset_seconds", "f8"), ("offset_seconds", "f8"), ("pitch", "i8"), ("velocity", "i8"), ("drum", "?")])


def notes(*rows: tuple[float, float, int]) -> Any:
    return np.array([(*row, 80, False) for row in rows], dtype=NOTES)


def sine(hz: float, seconds: float = 2.0) -> Any:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(44100 * seconds)) / 44100)


def test_an_error_is_in_the_octave_where_it_was_made(rng: np.random.Generator) -> None:
    noise = rng.normal(scale=0.05, size=88200)
    plain, whistling = metrics.prepare(noise), metrics.prepare(noise + sine(1500.0))
    found = curves.errors(plain, whistling, notes((0.0, 2.0, 60)))["octave"]
    assert list(found) == [f"C{octave}" for octave in range(1, 10)]
    assert max(found, key=lambda octave: found[octave]) == "C6"  # C6 is 1047 Hz, C7 2093 Hz


def test_an_error_is_as_long_after_the_onset_as_it_was_made(rng: np.random.Generator) -> None:
    noise = rng.normal(scale=0.05, size=88200)
    dropped = noise.copy()
    dropped[round(1.45 * 44100) : round(1.75 * 44100)] *= 0.1  # 0.45 to 0.75 s after the second onset
    found = curves.errors(metrics.prepare(noise), metrics.prepare(dropped), notes((0.0, 1.0, 60), (1.0, 2.0, 62)))["since_onset"]
    assert max(found, key=lambda label: found[label]) == "400–800 ms"
    assert found["0–50 ms"] < 0.2 * found["400–800 ms"]


def test_an_error_is_counted_where_so_many_notes_sound(rng: np.random.Generator) -> None:
    noise = rng.normal(scale=0.05, size=88200)
    louder = noise.copy()
    louder[44100:] *= 2
    chord = notes((0.0, 2.0, 60), (1.0, 2.0, 64), (1.0, 2.0, 67))
    found = curves.errors(metrics.prepare(noise), metrics.prepare(louder), chord)["polyphony"]
    assert list(found) == ["0", "1", "2", "3", "4–5", "6–8", "9+"]
    assert np.isnan(found["2"])  # never two
    assert {label for label, value in found.items() if not np.isnan(value)} == {"1", "3"}
    frames = curves.polyphony(chord, 172)
    assert frames[round(0.5 * FRAMES_PER_SECOND)] == 1
    assert frames[round(1.5 * FRAMES_PER_SECOND)] == 3


def test_equal_sounds_have_no_error_anywhere(tone: Any) -> None:
    sound = metrics.prepare(tone(2.0))
    for axis in curves.errors(sound, sound, notes((0.0, 2.0, 69))).values():
        assert all(value == 0 or np.isnan(value) for value in axis.values())


# --- dials and steps


@pytest.fixture(scope="module")
def style(tiny_style: Path) -> Any:
    from stylestream.transfer import load_style

    return load_style(tiny_style)


def distance_to(song: Any) -> Any:
    reference = metrics.prepare(song)
    return lambda y: {"log_mel_l1": metrics.log_mel_l1(reference, metrics.prepare(y))}


def test_the_strength_dial_leaves_the_song_step_by_step(style: Any, tone: Any) -> None:
    song = tone(2.0)
    swept = curves.dials(style, song, distance_to(song))
    far = [scores["log_mel_l1"] for scores in swept["strength"].values()]
    assert list(swept["strength"]) == ["0", "0.25", "0.5", "0.75", "1"]
    assert far[0] < 0.1
    assert far == sorted(far)
    assert list(swept["dream"]) == ["0", "0.5", "1", "1.5", "2"]  # this network has two steps
    assert swept["dream"]["0"] == swept["strength"]["1"]


def test_every_step_tells_something_and_takes_it_along(style: Any, tone: Any) -> None:
    song = tone(2.0)
    steps = curves.steps(style, song, distance_to(song))
    assert len(steps) == 2
    assert all(step["kl"] > 0 and step["grew_db"] > 0 for step in steps)
    passage = curves.Passage(style, song)
    whole, dreamt = passage.sound(), passage.sound((0, 1))
    assert whole.shape == song.shape
    assert np.abs(passage.sound((1,)) - whole).max() > 0
    import torch

    with torch.inference_mode():  # all steps replaced is a dream of all
        x_hat = style.draw.transfer(passage.x, phase=passage.phase, dream=2.0)
        dream = style.vocoder.synthesise(x_hat[0].float(), passage.analysis).numpy()
    assert np.allclose(dreamt, dream, atol=1e-6)


def test_the_kl_of_a_step_is_that_of_the_loss(style: Any, tone: Any) -> None:
    """Both in nats a cell; the loss draws its latents, the curve takes their means, which an untrained network hardly feels."""
    import torch

    passage = curves.Passage(style, tone(2.0))
    told = [step["kl"] for step in passage.told()]
    cut = passage.x.shape[-1] // 4 * 4
    x, phase = passage.x[..., :cut].clone(), passage.phase[..., :cut].clone()
    torch.manual_seed(0)
    with torch.no_grad():
        loss = style.draw(x, x, torch.zeros(1, dtype=torch.int64), phase, texture=False)
    assert told == pytest.approx(loss["loss/kl_steps"].tolist(), rel=0.1)
