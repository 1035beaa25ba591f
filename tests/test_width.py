"""How wide music is, the side that is made for a narrow song, and the dial, from the style file to the written song."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stylestream import audio, width
from stylestream.blend import load_blend
from stylestream.draw import Draw, DrawConfig
from stylestream.style import (
    StyleData,
    has_widths,
    load_style_file,
    update_card,
    update_drums,
    update_widths,
)
from stylestream.transfer import Dials, StyleTransfer, how_it_was_made, load_style, transfer_file

SAMPLE_RATE = 44100
WIDE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALL = DrawConfig(
    steps=2, view_channels=8, view_blocks=1, encoder_channels=8, decoder_channels=8, texture_channels=8, texture_blocks=1, mix_groups=2
)


def noise(seconds: float = 4.0, *, side: float = 0.0, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Noise with as much power in every octave, (2, N); ``side`` is the amplitude of another in its side."""
    count = round(seconds * sample_rate)
    hz = np.fft.rfftfreq(count, 1 / sample_rate)
    rng = np.random.default_rng(0)
    white = np.fft.rfft(rng.standard_normal((2, count)), axis=1) / np.sqrt(np.maximum(hz, 20))
    m, s = 0.1 * np.fft.irfft(white, count, axis=1) / np.fft.irfft(white, count, axis=1).std(axis=1, keepdims=True)
    return np.stack([m + side * s, m - side * s]).astype(np.float32)


def widened(y: np.ndarray, amount: float = 1.0, style: width.Widths = WIDE) -> np.ndarray:
    taps = width.side_filter(style, width.widths_of(y, SAMPLE_RATE), amount, SAMPLE_RATE)
    return y if taps is None else width.Widener(taps).push(y)


def level_db(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(np.square(a, dtype=float).sum() / np.square(b, dtype=float).sum() + 1e-30)


# ---------------------------------------------------------------------------------------------------------------- the meter


@pytest.mark.parametrize("sample_rate", [22050, 44100, 48000, 96000])
def test_a_side_of_half_the_amplitude_is_a_quarter_wide_at_any_rate(sample_rate):
    there = [hz * 2**0.5 < sample_rate / 2 for hz in width.OCTAVES_HZ]
    got = np.array(width.widths_of(noise(8.0, side=0.5, sample_rate=sample_rate), sample_rate))
    np.testing.assert_allclose(got[there][1:], 0.25, rtol=0.15)


def test_the_octave_is_the_one_that_the_side_is_in():
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    for k, hz in enumerate(width.OCTAVES_HZ):
        side = 0.05 * np.sin(2 * np.pi * hz * t)
        got = width.widths_of(noise(2.0) + np.stack([side, -side]), SAMPLE_RATE)
        assert int(np.argmax(got)) == k
        assert got[k] > 20 * max(got[:k] + got[k + 1 :])


@pytest.mark.parametrize("block", [1, 700, 4096, 65536])
def test_what_is_heard_in_blocks_is_as_wide_as_what_is_heard_at_once(block):
    y = noise(0.3 if block == 1 else 2.0, side=0.3)
    meter = width.WidthMeter(SAMPLE_RATE)
    for start in range(0, y.shape[1], block):
        meter.push(y[:, start : start + block])
    np.testing.assert_allclose(meter.widths, width.widths_of(y, SAMPLE_RATE), rtol=1e-5)


def test_silence_and_soft_passages_do_not_change_how_wide_a_song_is():
    y = noise(side=0.4)
    soft = 0.001 * noise(side=2.0)
    with_rest = np.concatenate([np.zeros_like(y), y, soft], axis=1)
    np.testing.assert_allclose(width.widths_of(with_rest, SAMPLE_RATE)[1:], width.widths_of(y, SAMPLE_RATE)[1:], rtol=0.1)


def test_mono_is_0_and_opposed_channels_have_an_end_and_silence_is_a_number():
    y = noise(1.0)
    assert width.widths_of(y, SAMPLE_RATE) == (0.0,) * 9
    assert width.widths_of(np.stack([y[0], -y[0]]), SAMPLE_RATE) == pytest.approx((width.MOST,) * 9)
    for samples in (0, 5, SAMPLE_RATE):
        assert width.widths_of(np.zeros((2, samples), np.float32), SAMPLE_RATE) == (0.0,) * 9


def test_an_octave_without_sound_is_as_wide_as_its_neighbour():
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    y = np.stack([np.sin(2 * np.pi * 500 * t), 0.5 * np.sin(2 * np.pi * 500 * t)])
    np.testing.assert_allclose(width.widths_of(y, SAMPLE_RATE), 1 / 9, rtol=1e-3)


# ----------------------------------------------------------------------------------------------------------------- the filter


def test_a_song_of_one_sound_becomes_as_wide_as_the_style_octave_by_octave():
    got = width.widths_of(widened(noise(8.0)), SAMPLE_RATE)
    np.testing.assert_allclose(got[2:], WIDE[2:], rtol=0.25)  # about a decibel; interpolated between the octaves' middles


def test_a_side_that_is_there_is_filled_up_to_the_style():
    y = noise(10.0, side=0.4)
    got = width.widths_of(widened(y), SAMPLE_RATE)
    np.testing.assert_allclose(got[2:], WIDE[2:], rtol=0.25)


def test_where_the_song_is_wider_it_is_left_alone_to_the_bit():
    y = noise(side=1.0)
    assert widened(y) is y
    assert width.side_filter((0.0,) * 9, (0.0,) * 9, 1.0, SAMPLE_RATE) is None  # and so is every song by a style of one channel


def test_the_dial_turns_the_width_up_evenly():
    y = noise(8.0)
    got = [np.mean(np.sqrt(width.widths_of(widened(y, amount), SAMPLE_RATE)[2:])) for amount in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(np.array(got) / got[-1], [0, 0.25, 0.5, 0.75, 1], atol=1e-3)


def test_nothing_becomes_wider_than_channels_that_are_not_alike():
    got = width.widths_of(widened(noise(10.0), style=(50.0,) * 9), SAMPLE_RATE)
    np.testing.assert_allclose(got[3:], 1.0, rtol=0.1)


def test_the_mono_fold_down_is_what_it_was():
    y = noise(side=0.2)
    assert level_db(widened(y).mean(0) - y.mean(0), y.mean(0)) < -130  # the rounding of single precision


def test_the_filter_is_as_loud_everywhere_and_leans_to_no_side():
    taps = width.side_filter((1.0,) * 9, (0.0,) * 9, 1.0, SAMPLE_RATE)
    assert taps is not None
    H, hz = np.fft.rfft(taps, 65536), np.fft.rfftfreq(65536, 1 / SAMPLE_RATE)
    level = 20 * np.log10(np.abs(H[(hz > 350) & (hz < 20000)]))
    assert np.abs(level).max() < 2  # where an all-pass rings longest
    assert level.std() < 0.3
    y = widened(noise(20.0), style=(1.0,) * 9)
    assert abs(level_db(y[0], y[1])) < 0.2
    for low in width.OCTAVES_HZ[2:]:  # what is in phase with the mid is louder on one side
        assert abs(H[(hz > low) & (hz < 2 * low)].real.mean()) < 0.1


def test_basses_and_bass_drums_stay_in_the_middle():
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    taps = width.side_filter((1.0,) * 9, (0.0,) * 9, 1.0, SAMPLE_RATE)
    assert taps is not None
    for hz, most_db in ((41, -45), (60, -45), (100, -28), (400, 1)):
        y = width.Widener(taps).push(np.stack([np.sin(2 * np.pi * hz * t)] * 2).astype(np.float32))
        side = (y[0] - y[1])[SAMPLE_RATE // 2 :] / 2
        assert level_db(side, y.mean(0)[SAMPLE_RATE // 2 :]) < most_db
    kick = np.sin(2 * np.pi * 55 * t) * np.exp(-12 * t)
    y = width.Widener(taps).push(np.stack([kick, kick]).astype(np.float32))
    assert level_db(y[0] - y[1], 2 * y.mean(0)) < -30


def test_nothing_is_heard_before_an_attack_nor_long_after():
    y = np.zeros((2, SAMPLE_RATE), np.float32)
    y[:, 10000] = 1.0
    side = np.subtract(*widened(y, style=(1.0,) * 9)) / 2
    power = np.square(side, dtype=float)
    assert power[:10000].sum() < 1e-12 * power.sum()  # the rounding of the convolution
    assert power[: 10000 + round(0.012 * SAMPLE_RATE)].sum() > 0.88 * power.sum()
    assert power[10000 + round(0.0251 * SAMPLE_RATE) :].sum() < 1e-12 * power.sum()


@pytest.mark.parametrize("block", [1, 100, 1101, 5000])
def test_widened_in_blocks_is_widened_at_once(block):
    y = noise(0.1 if block == 1 else 1.0)
    taps = width.side_filter(WIDE, (0.0,) * 9, 1.0, SAMPLE_RATE)
    assert taps is not None
    whole, widener = width.Widener(taps).push(y), width.Widener(taps)
    parts = [widener.push(y[:, start : start + block]) for start in range(0, y.shape[1], block)]
    parts.append(widener.push(y[:, :0]))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- the whole chain


def network() -> Draw:
    torch.manual_seed(0)
    draw = Draw(SMALL)
    for parameter in draw.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.45 / parameter[0].numel() ** 0.5)
    return draw


@pytest.fixture(scope="module")
def style() -> StyleTransfer:
    return StyleTransfer(network(), half=False, widths=WIDE)


@pytest.fixture(scope="module")
def narrow() -> np.ndarray:
    return noise(7.3, side=0.1)


def rendered(style: StyleTransfer, y: np.ndarray, **dials: float) -> np.ndarray:
    song = style.listen(lambda: iter([y]), SAMPLE_RATE, len(y), peak=False)
    return np.concatenate([*style.render(lambda: iter([y]), song, Dials(**dials))], axis=1)


def test_width_0_is_what_it_would_be_if_no_width_were_known(style, narrow):
    unknown = StyleTransfer(style.draw, half=False)
    np.testing.assert_array_equal(style.transfer(narrow, SAMPLE_RATE, width=0.0), unknown.transfer(narrow, SAMPLE_RATE))


def test_a_narrow_song_becomes_wider_the_further_the_dial_is_turned(style, narrow):
    made = [rendered(style, narrow, width=w) for w in (0.0, 0.25, 0.5, 1.0)]
    wide = np.array([width.widths_of(y, SAMPLE_RATE) for y in made])[:, 3:]
    assert (np.diff(wide, axis=0) > 0).all()
    alike = [np.corrcoef(y)[0, 1] for y in made]
    assert alike == sorted(alike, reverse=True)


def test_the_fold_down_of_width_1_is_that_of_width_0_up_to_the_final_gain(style, narrow):
    before, after = (style.transfer(narrow, SAMPLE_RATE, width=w).mean(0).astype(float) for w in (0.0, 1.0))
    gain = (before * after).sum() / np.square(after).sum()
    assert gain > 1.05  # the side takes its part of the loudness
    assert level_db(gain * after - before, before) < -100


@pytest.mark.parametrize("chunk_seconds", [0.6, 2.3, 5.0])
def test_a_wide_song_in_chunks_is_the_song_in_one(style, narrow, chunk_seconds):
    one, many = (style.transfer(narrow, SAMPLE_RATE, width=1.0, seed=3, chunk_seconds=s) for s in (1000, chunk_seconds))
    assert np.abs(one - many).max() < 1e-4


def test_what_is_streamed_is_what_is_written(style, narrow, tmp_path):
    soundfile.write(tmp_path / "song.wav", narrow.T, SAMPLE_RATE, subtype="FLOAT")
    transfer_file(style, tmp_path / "song.wav", tmp_path / "out.wav", width=0.8)
    song = style.listen(lambda: iter([narrow]), SAMPLE_RATE, 2)
    kept: list[np.ndarray] = []
    heard = [*style.stream(lambda: iter([narrow]), song, Dials(width=0.8), keep=kept.append)]
    y, streamed = audio.load(tmp_path / "out.wav")[0], np.concatenate(kept, axis=1)
    assert sum(part.shape[1] for part in heard) == y.shape[1]
    gain = float((y * streamed).sum() / np.square(streamed).sum())
    assert np.abs(gain * streamed - y).max() < 1e-4


def test_strength_fades_the_width_in(style, narrow):
    assert level_db(style.transfer(narrow, SAMPLE_RATE, strength=0.0, width=1.0) - narrow, narrow) < -60
    sides = [np.subtract(*(rendered(style, narrow, strength=s, width=w)[0] for w in (1.0, 0.0))) for s in (0.25, 0.5, 1.0)]
    powers = [float(np.square(side, dtype=float).sum()) for side in sides]
    assert 0 < powers[0] < powers[1] < powers[2]


@pytest.mark.parametrize("channels", [1, 3])
def test_one_channel_stays_one_and_more_than_two_are_left_alone(style, channels):
    y = np.repeat(noise(2.0)[:1], channels, axis=0)
    np.testing.assert_array_equal(style.transfer(y, SAMPLE_RATE, width=1.0), style.transfer(y, SAMPLE_RATE))


def test_a_song_that_is_wide_already_is_left_alone_to_the_bit(style):
    y = noise(2.0, side=1.5)
    np.testing.assert_array_equal(rendered(style, y, width=1.0), rendered(style, y))


def test_silence_and_ten_milliseconds_can_be_widened(style):
    for y in (np.zeros((2, 30000), np.float32), noise(0.01), np.zeros((2, 0), np.float32)):
        made = style.transfer(y, SAMPLE_RATE, width=1.0)
        assert made.shape == y.shape
        assert np.isfinite(made).all()


def test_another_rate_becomes_as_wide(style):
    y = audio.resample(noise(6.0), SAMPLE_RATE, 48000)
    made = style.transfer(y, 48000, width=1.0)
    np.testing.assert_allclose(width.widths_of(made, 48000)[3:8], WIDE[3:8], rtol=0.3)


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.5, "width is 1.5; it must be from 0 to 1"), (-0.1, "width is -0.1"), (float("nan"), "width is nan"), ("wide", "width is 'wide'")],
)
def test_widths_outside_their_range_are_refused_in_one_line(style, tmp_path, value, message):
    with pytest.raises(ValueError, match=message) as error:
        style.transfer(np.zeros((2, 100), np.float32), SAMPLE_RATE, width=value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        transfer_file(style, tmp_path / "no.wav", tmp_path / "out.wav", width=value)


def test_a_width_that_a_style_does_not_know_is_refused_and_none_is_not(style):
    unknown, y = StyleTransfer(style.draw, half=False), noise(0.5)
    with pytest.raises(ValueError, match="width is 0.5, but this style's music is all in the middle"):
        unknown.transfer(y, SAMPLE_RATE, width=0.5)
    unknown.transfer(y, SAMPLE_RATE, width=0.0)


def test_the_comment_names_the_width_where_it_is_turned():
    assert "width" not in how_it_was_made(None, Dials())
    assert "width 0.5" in how_it_was_made(None, Dials(width=0.5))


# ------------------------------------------------------------------------------------------------------------- the style file


@pytest.fixture
def style_file(tiny_style, tmp_path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(tiny_style.read_bytes())
    return path


def with_metadata(path: Path, change) -> Path:
    """The file with other metadata, as a stranger might write it."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = json.loads(header["__metadata__"]["stylestream"])
    change(metadata)
    header["__metadata__"]["stylestream"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return path


def test_widths_come_back_from_the_style_file_and_all_else_stays_to_the_bit(style_file):
    before, original = load_style_file(style_file), style_file.read_bytes()
    assert before.widths == ()
    assert not has_widths(style_file)
    assert load_style(style_file).widths == ()
    update_widths(style_file, WIDE)
    update_card(style_file, title="still")
    update_drums(style_file, None)
    after = load_style_file(style_file)
    assert after.widths == load_style(style_file).widths == WIDE
    assert has_widths(style_file)
    for field in dataclasses.fields(StyleData):
        if field.name not in ("weights", "widths", "card"):
            assert getattr(after, field.name) == getattr(before, field.name)
    assert all(torch.equal(after.weights[name], weight) for name, weight in before.weights.items())
    update_card(style_file, title=before.card.title)
    update_widths(style_file, ())
    assert style_file.read_bytes() == original  # of format 1, as readers of that time know it


def test_music_that_is_all_in_the_middle_has_no_width_to_offer(style_file):
    update_widths(style_file, (0.0,) * 9)
    assert not has_widths(style_file)
    with pytest.raises(ValueError, match="this style's music is all in the middle"):
        load_style(style_file).transfer(noise(1.0), SAMPLE_RATE, width=1.0)


def test_a_song_that_is_not_stereo_is_told_that_the_dial_does_nothing(style_file, tmp_path):
    update_widths(style_file, (1.0,) * 9)
    soundfile.write(tmp_path / "mono.wav", noise(1.0)[0], SAMPLE_RATE)
    done = transfer_file(load_style(style_file), tmp_path / "mono.wav", tmp_path / "out.wav", width=1.0)
    assert done.warnings == ["width does nothing: the song has 1 channel, not two"]


@pytest.mark.parametrize(
    "value",
    [[], [0.5] * 8, [0.5] * 10, [float("nan")] * 9, [float("inf")] * 9, [-0.1] * 9, [1e9] * 9, ["0.5"] * 9, [True] * 9, [None] * 9,
     [[0.5]] * 9, "wide", 5, None, {"63": 0.5}, [10**400] * 9],
)  # fmt: skip
def test_hostile_widths_are_one_clear_line(style_file, value):
    with_metadata(style_file, lambda metadata: metadata.update(widths=value))
    with pytest.raises(ValueError, match=r"not a complete style file \(its widths are not 9 numbers from 0 to 100\)") as error:
        load_style_file(style_file)
    assert "\n" not in str(error.value)
    assert has_widths(style_file) in (True, False)  # a list of styles is not ended by one of them


def test_widths_that_are_none_are_not_written(style_file):
    before = style_file.read_bytes()
    with pytest.raises(ValueError, match="widths"):
        update_widths(style_file, (0.5, float("nan")))
    assert style_file.read_bytes() == before


def test_between_styles_the_width_is_the_mean_of_those_that_say_it(style_file, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, widths in zip(paths, ((0.2,) * 9, (0.6,) * 9, ()), strict=True):
        path.write_bytes(style_file.read_bytes())
        update_widths(path, widths)
    both = load_blend(f"{paths[0]}:0.25,{paths[1]}:0.75")
    assert both.widths == pytest.approx((0.5,) * 9)
    assert load_blend(f"{paths[0]}:0.2,{paths[1]}:0.2,{paths[2]}:0.6").widths == pytest.approx((0.4,) * 9)
    assert load_blend(paths[1]).widths == (0.6,) * 9
    assert load_blend(paths[2]).widths == ()


def test_a_recording_as_a_style_is_as_wide_as_it_is(tmp_path):
    soundfile.write(tmp_path / "record.wav", noise(4.0, side=0.5).T, SAMPLE_RATE)
    soundfile.write(tmp_path / "mono.wav", noise(4.0)[0], SAMPLE_RATE)
    np.testing.assert_allclose(load_blend(tmp_path / "record.wav").widths[2:], 0.25, rtol=0.25)
    assert load_blend(tmp_path / "mono.wav").widths == ()


def test_the_typical_song_is_the_one_in_the_middle():
    songs: list[width.Widths] = [(0.1,) * 9, (0.3004,) * 9, (9.0,) * 9]
    assert width.typical(songs) == (0.3,) * 9


@pytest.mark.parametrize("style", ["rock", "jazz", "electronic", "orchestra", "choir", "strings", "piano", "chiptune"])
def test_the_bundled_styles_say_how_wide_they_are(style):
    widths = load_blend(style).widths
    assert len(widths) == len(width.OCTAVES_HZ)
    assert max(widths) > 0.2 or style in ("rock", "jazz")  # whose scores put every instrument in the middle


# ----------------------------------------------------------------------------------------------------------------- in training


def trained_on(folder: Path, style_file: Path) -> str:
    from stylestream import corpus, workshop

    plan, _ = workshop.make_plan([folder], {}, base="none", steps=1)
    songs = corpus.find_music(plan.sources, plan.data)
    parts = [{"id": song.id, "split": "train" if k else "valid", "name": f"own-{k}.npz"} for k, song in enumerate(songs)]
    return workshop.add_widths(plan, corpus.Prepared(parts, {}, {}, 0.0), style_file)


def test_a_training_on_recordings_says_how_wide_they_are(style_file, tmp_path):
    for k in range(3):
        (tmp_path / "music").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "music" / f"{k}.wav", noise(2.0 + k, side=0.5).T, SAMPLE_RATE)
    assert trained_on(tmp_path / "music", style_file) == "width: the median of 2 songs of two channels"
    np.testing.assert_allclose(load_style_file(style_file).widths[2:], 0.25, rtol=0.3)


def test_recordings_of_one_channel_tell_no_width(style_file, tmp_path):
    for k in range(2):
        (tmp_path / "music").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "music" / f"{k}.wav", noise(2.0 + k)[0], SAMPLE_RATE)
    before = style_file.read_bytes()
    assert trained_on(tmp_path / "music", style_file) == "no width: none of the music has two channels"
    assert style_file.read_bytes() == before


def test_a_training_on_scores_says_how_wide_they_are_played(style_file, scores, fonts):
    assert trained_on(scores, style_file).startswith("width: the median of ")
    assert has_widths(style_file) or load_style_file(style_file).widths
