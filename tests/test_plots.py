"""Pictures of songs: pitch where the note names say, equal pictures for equal songs, and no song that cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from stylestream import plots
from stylestream.features import FeatureConfig


@pytest.mark.parametrize(("note", "hz"), [("C3", 130.81), ("A4", 440.0), ("C7", 2093.0)])
def test_a_note_is_drawn_at_its_name(note, hz):
    config = FeatureConfig()
    y = (0.5 * np.sin(2 * np.pi * hz * np.arange(44100) / 44100)).astype(np.float32)[None]
    levels_db = plots._levels_db(y, config, 60.0)
    loudest = int(levels_db[:, 40].argmax())
    assert (
        abs(loudest / 3 + 24 - next(n for n in range(128) if plots.note_name(n) == note)) <= 1 / 3
    )  # C1 is MIDI note 24; three rows a semitone
    assert levels_db.max() == 0.0


def test_the_pictures_axes_say_notes_and_seconds(tone):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    config = FeatureConfig()
    plots._draw(axes, plots._levels_db(tone(2.0), config, 60.0), config)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.split()[0] for name in names] == [f"C{octave}" for octave in range(1, 10)]
    assert names[3] == "C4  262 Hz"
    assert [label.get_text() for label in axes.get_yticklabels(minor=True)] == [f"G{octave}" for octave in range(1, 10)]
    height = axes.get_yticks(minor=True)[0] - axes.get_yticks()[0]
    assert height == 21  # a fifth: seven semitones of three rows
    assert axes.get_xlim() == (0, pytest.approx(2.0, abs=0.02))


def test_equal_songs_are_equal_pictures(tone, tmp_path):
    for name in ("a", "b"):
        plots.plot_pair(tmp_path / f"{name}.png", tone(0.5), tone(0.5, hz=300.0), 44100)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = imread(tmp_path / "a.png")
    assert picture.shape[:2] == (825, 1320)


@pytest.mark.parametrize("samples", [1, 441, 44100])
@pytest.mark.parametrize("sample_rate", [44100, 48000])
def test_short_and_silent_songs_are_drawn(tmp_path, samples, sample_rate):
    silence = np.zeros((2, samples), np.float32)
    plots.plot_pair(tmp_path / "a.png", silence, silence, sample_rate, titles=("silence $x_", "🎸"))
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_of_a_long_song_only_the_beginning_is_drawn(tone):
    config = FeatureConfig()
    assert plots._levels_db(tone(3.0), config, 1.0).shape == (config.n_bins, 1 + 44100 // config.hop_length)


def test_numbers_are_drawn_as_svg_that_says_them_and_is_the_same_again():
    rows = {"copy": (9.0, 8.0, 10.0), "rock & roll": (4.0, 3.5, 4.5)}
    svg = plots.plot_dots(rows, label="log-mel L1, dB", highlight="rock & roll")
    assert svg.startswith("<svg")
    assert "rock &amp; roll" in svg
    assert "log-mel L1, dB" in svg
    assert plots.plot_dots(rows, label="log-mel L1, dB", highlight="rock & roll") == svg
    nowhere = float("nan")
    curve = ([1.0, nowhere, 3.0], [0.5, nowhere, 2.0], [1.5, nowhere, 4.0])
    lines = plots.plot_lines([("octave", ["C1", "C2", "C3"], {"copy": curve, "rock": curve})], label="dB")
    assert all(text in lines for text in ("octave", "C2", "copy", "rock"))


def test_spectrograms_of_a_page_are_small_pictures(tone):
    picture = plots.plot_spectrograms({"song": tone(2.0), "truth": tone(2.0, hz=330)}, 44100)
    assert picture.startswith(b"\xff\xd8")
    assert 3_000 < len(picture) < 60_000
