"""Song + style → song: the contracts of the whole chain, with a small network of random weights in the place of a style."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stylestream import audio, transfer
from stylestream.chunks import cut_into_chunks, in_order
from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.rhythm import NO_BEATS
from stylestream.style import Card, save_style
from stylestream.transfer import Dials, StyleTransfer, load_style, transfer_file

SAMPLE_RATE = 44100
SMALL = DrawConfig(
    steps=2, view_channels=8, view_blocks=1, encoder_channels=8, decoder_channels=8, texture_channels=8, texture_blocks=1, mix_groups=2
)


def small_network(config: DrawConfig = SMALL) -> Draw:
    """Weights large enough that every frame of the receptive field, and every draw, is heard in the result."""
    torch.manual_seed(0)
    draw = Draw(config)
    for parameter in draw.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.45 / parameter[0].numel() ** 0.5)
    return draw


@pytest.fixture(scope="module")
def style() -> StyleTransfer:
    return StyleTransfer(small_network(), half=False)


def music(seconds: float, *, sample_rate: int = SAMPLE_RATE, channels: int = 2, peak: float = 0.5) -> np.ndarray:
    """Plucked notes on a beat of 120 bpm, a little noise, every channel a little different."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    rng = np.random.default_rng(0)
    y = 0.003 * rng.standard_normal((channels, len(t)))
    for k, hz in enumerate((110, 220, 331, 660, 1320, 3000)):
        decay = np.exp(-4 * ((2 * t + 0.25 * (k % 4)) % 1))
        y += np.stack([np.sin(2 * np.pi * hz * (1 + 0.002 * c) * t + c) for c in range(channels)]) * decay / (k + 1)
    return (peak * y / np.abs(y).max()).astype(np.float32)


def null_db(result: np.ndarray, song: np.ndarray) -> float:
    return 10 * np.log10(np.square(result - song, dtype=float).mean() / np.square(song, dtype=float).mean() + 1e-30)


# ------------------------------------------------------------------------------------------------------- chunked = whole


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return music(13.3)


@pytest.fixture(scope="module")
def whole(style, song) -> np.ndarray:
    return style.transfer(song, SAMPLE_RATE, dream=0.7, grain=1.0, seed=5, chunk_seconds=1000)


@pytest.mark.parametrize("chunk_seconds", [0.6, 3.1, 5.0])
def test_a_song_in_chunks_is_the_song_in_one(style, song, whole, chunk_seconds):
    chunked = style.transfer(song, SAMPLE_RATE, dream=0.7, grain=1.0, seed=5, chunk_seconds=chunk_seconds)
    assert np.abs(chunked - whole).max() < 1e-4 * max(1, np.abs(whole).max())


def test_with_half_the_overlap_it_would_not_be(style, song, whole, monkeypatch):
    half = style.overlap_frames // 2 // style.grid_frames * style.grid_frames
    monkeypatch.setattr(StyleTransfer, "vocoder_frames", property(lambda self: 0))
    monkeypatch.setattr(StyleTransfer, "overlap_frames", property(lambda self: half))
    chunked = style.transfer(song, SAMPLE_RATE, dream=0.7, grain=1.0, seed=5, chunk_seconds=3.1)
    assert np.abs(chunked - whole).max() > 1e-3


def test_a_song_in_chunks_is_the_song_in_one_at_another_rate_with_one_channel(style):
    y = music(9, sample_rate=22050, channels=1)
    one, many = (style.transfer(y, 22050, chunk_seconds=s) for s in (1000, 1.5))
    assert np.abs(one - many).max() < 1e-4


def test_one_thread_and_two_give_the_same(style, song, whole):
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(style.transfer(song[:, : 6 * SAMPLE_RATE], SAMPLE_RATE, chunk_seconds=1.0))
            assert torch.get_num_threads() == threads  # given back as it was
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)


@pytest.mark.parametrize(("samples", "chunk", "overlap", "inner"), [(100, 8, 8, 4), (4097, 8, 12, 4), (4096, 16, 4, 0), (3, 4, 4, 4)])
def test_chunks_tile_the_song_whatever_blocks_it_comes_in(samples, chunk, overlap, inner):
    hop = 16
    y = np.arange(samples, dtype=np.float32)[None]
    for block in (7, 64, 10_000):
        parts = []
        for c in cut_into_chunks((y[:, i : i + block] for i in range(0, samples, block)), chunk, overlap, inner, hop):
            assert c.first_frame % 4 == 0
            np.testing.assert_array_equal(c.y[0], np.arange(c.first_frame * hop, c.first_frame * hop + c.y.shape[1]))
            inner_y = c.y[:, c.inner.start * hop : None if c.last else (c.inner.stop - 1) * hop]
            parts.append(inner_y[:, c.keep])
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), y)


def test_a_first_chunk_may_be_shorter_and_nothing_else_is_begun_before_it_is_done():
    y = np.arange(4000, dtype=np.float32)[None]
    chunks = [*cut_into_chunks(iter([y]), 16, 4, 0, 16, first_frames=8)]
    assert [(c.keep.stop - c.keep.start) // 16 for c in chunks[:3]] == [8, 16, 16]
    np.testing.assert_array_equal(np.concatenate([c.y[:, c.inner.start * 16 :][:, c.keep] for c in chunks], axis=1), y)
    done: list[int] = []

    def cut():
        for number, chunk in enumerate(chunks):
            assert number == 0 or done
            yield chunk

    seen = in_order(lambda chunk: done.append(chunk.first_frame), cut(), workers=2, first_alone=True)
    assert len([*seen]) == len(done) == len(chunks)


def test_memory_holds_a_few_chunks_and_not_the_song(style):
    """However long the song, it is read only a few chunks ahead of what has come out."""
    y = music(1.0)
    read = 0

    def blocks():
        nonlocal read
        for _ in range(25):
            read += y.shape[1]
            yield y

    known = style.listen(blocks, SAMPLE_RATE, 2)
    read, written, furthest = 0, 0, 0
    for part in style.render(blocks, known, transfer.Dials(), chunk_seconds=1.0):
        written += part.shape[1]
        furthest = max(furthest, read - written)
    assert written == 25 * y.shape[1]
    chunks = 1 + torch.get_num_threads() + 1  # in work, waiting, being filled
    assert furthest <= chunks * 1.1 * SAMPLE_RATE + style.overlap_frames * 512 + y.shape[1]


# --------------------------------------------------------------------------------------------------------------- the dials


@pytest.mark.parametrize("sample_rate", [8000, 44100, 48000, 96000])
@pytest.mark.parametrize("peak", [0.3, 1.0])
def test_strength_0_gives_the_song_back(style, sample_rate, peak):
    y = music(3, sample_rate=sample_rate, peak=peak)
    assert null_db(style.transfer(y, sample_rate, strength=0.0), y) < -60


def test_strength_0_gives_back_what_lies_above_the_working_band(style):
    y = 0.2 * np.random.default_rng(1).standard_normal((1, 96000)).astype(np.float32)  # white up to 48 kHz
    assert null_db(style.transfer(y, 96000, strength=0.0), y) < -60


def test_strength_is_continuous_and_grows_away_from_the_song(style, song):
    y = song[:, : 3 * SAMPLE_RATE]
    away = [null_db(style.transfer(y, SAMPLE_RATE, strength=s), y) for s in (0.001, 0.01, 0.1, 0.3, 1.0)]
    assert away == sorted(away)
    assert away[0] < -50
    assert away[-1] > -10  # and at the end it is not the song


def test_strength_has_no_step_where_the_ceiling_sets_in(style):
    y = music(2, peak=1.0)
    below, above = (style.transfer(y, SAMPLE_RATE, strength=s) for s in (0.0999, 0.1001))
    assert null_db(below, above) < -50


def test_the_seed_matters_only_to_what_is_drawn(style, song):
    y = song[:, : 2 * SAMPLE_RATE]

    def run(**dials):
        return style.transfer(y, SAMPLE_RATE, **dials)

    np.testing.assert_array_equal(run(seed=1), run(seed=1))
    np.testing.assert_array_equal(run(seed=1, grain=0.0), run(seed=2, grain=0.0))
    assert null_db(run(seed=1, grain=1.0), run(seed=2, grain=1.0)) > -60
    assert null_db(run(dream=2.0, grain=0.0), run(dream=0.0, grain=0.0)) > -30


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"strength": 1.5}, "strength is 1.5; it must be from 0 to 1"),
        ({"strength": -0.1}, "strength is -0.1; it must be from 0 to 1"),
        ({"strength": float("nan")}, "strength is nan; it must be from 0 to 1"),
        ({"dream": 3}, "dream is 3; it must be from 0 to 2"),
        ({"grain": 2}, "grain is 2; it must be from 0 to 1"),
        ({"seed": 0.5}, "seed is 0.5; it must be a whole number"),
    ],
)
def test_a_dial_outside_its_range_is_an_error_with_the_range(style, tmp_path, dials, message):
    with pytest.raises(ValueError, match=message):
        style.transfer(np.zeros((1, 100), np.float32), SAMPLE_RATE, **dials)
    with pytest.raises(ValueError, match=message):
        transfer_file(style, tmp_path / "no.wav", tmp_path / "out.wav", **dials)


# --------------------------------------------------------------------------------------------------------------- odd songs


ODD = {
    "silence": (np.zeros((2, SAMPLE_RATE)), SAMPLE_RATE),
    "dc": (np.full((2, SAMPLE_RATE), 0.3), SAMPLE_RATE),
    "10 ms": (music(0.01), SAMPLE_RATE),
    "one sample": (np.full((1, 1), 0.5), SAMPLE_RATE),
    "no samples": (np.zeros((2, 0)), SAMPLE_RATE),
    "mono": (music(1, channels=1), SAMPLE_RATE),
    "8 kHz": (music(1, sample_rate=8000), 8000),
    "192 kHz": (music(0.5, sample_rate=192000), 192000),
    "six channels": (music(1, channels=6), 48000),
    "clipped": (np.clip(music(1, peak=5.0), -1, 1), SAMPLE_RATE),
    "beyond full scale": (music(1, peak=30.0), SAMPLE_RATE),
    "one side only": (music(1) * [[1], [0]], SAMPLE_RATE),
    "out of phase": (music(1, channels=1) * [[1], [-1]], SAMPLE_RATE),
    "very soft": (music(1, peak=1e-6), SAMPLE_RATE),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_lawful_songs_are_done(style, name):
    y, sample_rate = ODD[name]
    y = y.astype(np.float32)
    before = y.copy()
    result = style.transfer(y, sample_rate)
    assert result.shape == y.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert audio.true_peak_db(result, sample_rate) < -0.99
    np.testing.assert_array_equal(y, before)  # never written into


def test_silence_stays_silence(style):
    assert not style.transfer(np.zeros((2, SAMPLE_RATE), np.float32), SAMPLE_RATE).any()


def test_what_is_too_soft_to_have_a_loudness_does_not_get_louder(style):
    y = music(1, peak=1e-5)
    result = style.transfer(y, SAMPLE_RATE)
    assert 0 < np.abs(result).max() <= 1e-5


@pytest.mark.parametrize(
    ("y", "sample_rate", "message"),
    [
        (np.zeros(100, np.float32), 44100, r"shape \(100,\)"),
        (np.zeros((9, 100), np.float32), 44100, "1 to 8 channels"),
        (np.full((1, 100), np.nan, np.float32), 44100, "not numbers"),
        (np.full((1, 100), 1e300), 44100, "not numbers"),
        (np.full((1, 100), 1e20, np.float32), 44100, "up to 1e\\+20; full scale is 1"),
        (np.zeros((1, 100), np.int16), 44100, "holds int16"),
        (np.zeros((1, 100), np.float32), 44100.0, "whole number of Hz"),
        (np.zeros((1, 100), np.float32), 4000, "8000 to 192000"),
    ],
)
def test_what_is_no_waveform_is_refused(style, y, sample_rate, message):
    with pytest.raises(ValueError, match=message):
        style.transfer(y, sample_rate)


def test_the_result_is_as_loud_as_the_song(style):
    y = music(4, peak=0.05)
    result = style.transfer(y, SAMPLE_RATE)
    assert audio.loudness(result, SAMPLE_RATE) == pytest.approx(audio.loudness(y, SAMPLE_RATE), abs=0.1)


def test_the_true_peak_wins_over_the_loudness(style):
    y = music(4, peak=1.0)
    y = np.tanh(20 * y) * 0.99  # as loud as it goes
    result = style.transfer(y, SAMPLE_RATE)
    assert audio.true_peak_db(result, SAMPLE_RATE) == pytest.approx(-1.0, abs=0.05)
    assert audio.loudness(result, SAMPLE_RATE) < audio.loudness(y, SAMPLE_RATE)


@pytest.mark.parametrize("suffix", ["wav", "ogg", "opus", "mp3", "m4a"])
def test_no_codec_lifts_the_true_peak_over_the_ceiling(style, tmp_path, suffix):
    y = np.tanh(20 * music(4, peak=1.0)) * 0.99
    soundfile.write(tmp_path / "song.wav", y.T, SAMPLE_RATE)
    told = transfer_file(style, tmp_path / "song.wav", tmp_path / f"out.{suffix}")
    assert told.true_peak_db == pytest.approx({"wav": -1.0, "mp3": -1.5}.get(suffix, -1.2), abs=1e-3)
    assert audio.true_peak_db(*audio.load(tmp_path / f"out.{suffix}")) <= -0.99


def test_the_level_of_a_song_changes_nothing_but_the_level(style):
    y = music(3, peak=0.5)
    loud, soft = style.transfer(y, SAMPLE_RATE), style.transfer(y / 8, SAMPLE_RATE) * 8
    scale = (loud * soft).sum() / (soft * soft).sum()  # the ceiling may have taken the loud one down
    assert null_db(scale * soft, loud) < -60


def test_the_beats_of_the_song_reach_the_network(style, song):
    y = song[:, : 8 * SAMPLE_RATE]
    known = style.listen(lambda: [y], SAMPLE_RATE, 2)
    assert known.beats.reliable
    assert np.median(np.diff(known.beats.beat_seconds)) == pytest.approx(0.5, abs=0.01)
    unknown = dataclasses.replace(known, pulse=dataclasses.replace(known.pulse, beats=NO_BEATS))
    with_beats, without = (np.concatenate([*style.render(lambda: [y], k, transfer.Dials())], 1) for k in (known, unknown))
    assert null_db(with_beats, without) > -40


# ------------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("suffix", "subtype", "sample_rate", "channels"),
    [
        ("wav", "PCM_16", 44100, 2),
        ("wav", "FLOAT", 8000, 1),
        ("flac", "PCM_24", 48000, 2),
        ("wav", "PCM_24", 96000, 6),
        ("ogg", "VORBIS", 32000, 2),
    ],
)
def test_a_song_file_comes_back_as_the_same_kind_of_file(style, tmp_path, suffix, subtype, sample_rate, channels):
    path, out = tmp_path / f"a song (1) 🎵.{suffix}", tmp_path / f"out.{suffix}"
    soundfile.write(path, music(1.237, sample_rate=sample_rate, channels=channels).T, sample_rate, subtype=subtype)
    told: list[float] = []
    result = transfer_file(style, path, out, progress=told.append)
    before, after = soundfile.info(path), soundfile.info(out)
    assert (after.samplerate, after.channels, after.frames, after.subtype) == (sample_rate, channels, before.frames, subtype)
    assert result.path == out
    assert result.warnings == []
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, out.name])


def test_a_file_holds_what_transfer_returns(style, tmp_path, song):
    soundfile.write(tmp_path / "song.wav", song[:, :200_000].T, SAMPLE_RATE, subtype="FLOAT")
    transfer_file(style, tmp_path / "song.wav", tmp_path / "out.wav", strength=0.8, dream=1, grain=0.2, seed=3, chunk_seconds=1.0)
    written, _ = soundfile.read(tmp_path / "out.wav", dtype="float32", always_2d=True)
    returned = style.transfer(song[:, :200_000], SAMPLE_RATE, strength=0.8, dream=1, grain=0.2, seed=3)
    np.testing.assert_allclose(written.T, returned, atol=1e-4)


def test_a_16_bit_song_at_strength_0_comes_back_to_the_bit_or_nearly(style, tmp_path, song):
    soundfile.write(tmp_path / "song.wav", song[:, :100_000].T, SAMPLE_RATE, subtype="PCM_16")
    transfer_file(style, tmp_path / "song.wav", tmp_path / "out.wav", strength=0.0)
    before, after = (soundfile.read(tmp_path / name, dtype="int16")[0].astype(int) for name in ("song.wav", "out.wav"))
    assert np.abs(before - after).max() <= 1


def test_a_rate_that_the_format_cannot_hold_is_resampled(style, tmp_path):
    soundfile.write(tmp_path / "song.wav", music(1, sample_rate=96000).T, 96000)
    transfer_file(style, tmp_path / "song.wav", tmp_path / "out.mp3")
    after = soundfile.info(tmp_path / "out.mp3")
    assert after.samplerate == 48000
    assert after.frames == 48000


def test_an_interruption_leaves_nothing(style, tmp_path, song):
    soundfile.write(tmp_path / "song.wav", song.T, SAMPLE_RATE)
    (tmp_path / "out").mkdir()

    def interrupt(done):
        if done > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer_file(style, tmp_path / "song.wav", tmp_path / "out" / "song.wav", chunk_seconds=2.0, progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interruption_leaves_the_file_that_was_there(style, tmp_path, song):
    soundfile.write(tmp_path / "song.wav", song.T, SAMPLE_RATE)
    (tmp_path / "out.wav").write_bytes(b"before")

    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer_file(style, tmp_path / "song.wav", tmp_path / "out.wav", progress=interrupt)
    assert (tmp_path / "out.wav").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_midi_file_is_played_in_the_style(style, tmp_path):
    symusic = pytest.importorskip("symusic", reason="needs stylestream[midi]")
    from stylestream import midi

    try:
        midi.Synthesizer().close()
    except ValueError as error:
        pytest.skip(str(error))
    score, track = symusic.Score(480), symusic.Track(program=0)
    track.notes.extend([symusic.Note(240 * i, 200, 60 + i % 12, 90) for i in range(16)])
    score.tracks.append(track)
    score.dump_midi(tmp_path / "song.mid")
    result = transfer_file(style, tmp_path / "song.mid", tmp_path / "out.wav", strength=0.0)
    y, sample_rate = audio.load(tmp_path / "song.mid")
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert sample_rate == soundfile.info(tmp_path / "out.wav").samplerate
    assert null_db(out.T, y) < -60
    assert result.seconds == pytest.approx(y.shape[1] / sample_rate)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.wav", "song.mid"]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_leaves_nothing(tmp_path, style_file):
    soundfile.write(tmp_path / "song.wav", np.tile(music(10), 4).T, SAMPLE_RATE)
    (tmp_path / "out").mkdir()
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's children are deaf to it
        "from stylestream.transfer import transfer_file; transfer_file(*sys.argv[1:], chunk_seconds=1.0, progress=print)"
    )
    names = [str(style_file), str(tmp_path / "song.wav"), str(tmp_path / "out" / "song.wav")]
    child = subprocess.Popen([sys.executable, "-u", "-c", code, *names], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with child:
        for line in child.stdout:
            if float(line) > 0.1:  # the song is being made
                assert list((tmp_path / "out").iterdir()) != []
                child.send_signal(signal.SIGINT)
                break
    assert child.returncode != 0
    assert list((tmp_path / "out").iterdir()) == []


def test_transfers_that_run_at_once_do_not_disturb_each_other(style, song):
    before = torch.get_num_threads()
    y = song[:, : 4 * SAMPLE_RATE]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: style.transfer(y, SAMPLE_RATE, chunk_seconds=1.0), range(3)))
        assert pool.submit(torch.get_num_threads).result() == before
    assert torch.get_num_threads() == before
    for other in results[1:]:  # to rounding: how many threads an FFT had is up to the moment
        np.testing.assert_allclose(results[0], other, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"this is a letter, not a song" * 100, "not a song")], ids=["empty", "text"]
)
def test_a_file_that_is_no_song_is_one_clear_line_and_nothing_is_left(style, tmp_path, content, message):
    (tmp_path / "song.wav").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        transfer_file(style, tmp_path / "song.wav", tmp_path / "out.wav")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]


def test_a_missing_folder_is_known_before_the_work_is_done(style, tmp_path, song):
    soundfile.write(tmp_path / "song.wav", song.T, SAMPLE_RATE)
    told: list[float] = []
    with pytest.raises(OSError, match="folder"):
        transfer_file(style, tmp_path / "song.wav", tmp_path / "no" / "out.wav", progress=told.append)
    assert told == []


# ----------------------------------------------------------------------------------------------------------------- loading


@pytest.fixture
def style_file(tmp_path):
    return save_style(
        tmp_path / "small.safetensors",
        small_network().state_dict(),
        model_config=dataclasses.asdict(SMALL),
        feature_config=dataclasses.asdict(FeatureConfig()),
        card=Card("small"),
    )


def test_a_style_file_plays_as_the_network_it_was_made_of(style, style_file, song):
    loaded = load_style(style_file, half=False)
    assert loaded.card.title == "small"
    y = song[:, :50_000]
    half_precision_weights = null_db(loaded.transfer(y, SAMPLE_RATE), style.transfer(y, SAMPLE_RATE))
    assert half_precision_weights < -25


def test_bfloat16_is_near_float32(style_file, song):
    y = song[:, : 2 * SAMPLE_RATE]
    half, full = (load_style(style_file, half=h).transfer(y, SAMPLE_RATE) for h in (True, False))
    assert null_db(half, full) < -20


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"steps": 10**9}, "steps is 1000000000; it must be from 1 to 64"),
        ({"decoder_channels": 10**9}, "do not fit"),
        ({"decoder_channels": 16}, "do not fit"),
        ({"latents": "4"}, "latents is '4', not a int"),
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"patch_bins": 0}, "get the style file again"),
        ({"attention": "none"}, "unknown attention 'none'"),
    ],
)
def test_a_style_whose_config_is_wrong_is_one_clear_line(tmp_path, config, message):
    path = save_style(
        tmp_path / "wrong.safetensors",
        small_network().state_dict(),
        model_config={**dataclasses.asdict(SMALL), **config},
        feature_config=dataclasses.asdict(FeatureConfig()),
        card=Card("wrong"),
    )
    with pytest.raises(ValueError, match=message) as error:
        load_style(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_baseline_is_not_a_style_and_says_so(tmp_path):
    from stylestream.baselines import Lstm2017, Lstm2017Config

    small = Lstm2017Config(hidden=4, latents=2)
    settings = {"model": "lstm2017", **dataclasses.asdict(small)}
    path = tmp_path / "rock-lstm2017.safetensors"
    save_style(path, Lstm2017(small).state_dict(), model_config=settings, feature_config={}, card=Card("old"))
    with pytest.raises(ValueError, match=r"a baseline \(lstm2017\), not a style; `stylestream evaluate --baselines FOLDER`"):
        load_style(path)


def test_an_unknown_style_names_the_nearest(monkeypatch, tmp_path, style_file):
    monkeypatch.setenv("STYLESTREAM_STYLES", str(tmp_path))
    with pytest.raises(ValueError, match="did you mean 'small'"):
        load_style("smal")


def test_a_device_that_is_not_there_is_named(style_file):
    with pytest.raises(ValueError, match="device 'abacus' cannot be used"):
        load_style(style_file, device="abacus")


def test_a_config_survives_its_trip_through_json():
    assert DrawConfig(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


def test_a_stream_is_the_result_levelled_as_it_goes(tiny_style, tone):
    style = load_style(tiny_style)
    y = 0.2 * tone(20.0)  # soft, or its peaks would bound the level
    song = style.listen(lambda: iter([y]), 44100, 2)
    kept: list[np.ndarray] = []
    heard = np.concatenate([*style.stream(lambda: iter([y]), song, Dials(), keep=kept.append)], axis=1)
    whole = np.concatenate([*style.render(lambda: iter([y]), song, Dials())], axis=1)
    np.testing.assert_allclose(np.concatenate(kept, axis=1), whole, atol=1e-2 * np.abs(whole).max())
    first = next(style.stream(lambda: iter([y]), song, Dials()))
    assert 4.0 <= first.shape[1] / 44100 < 5.0  # what a player fetches at once, and not much more
    assert heard.shape == y.shape
    assert audio.loudness(heard, 44100) == pytest.approx(audio.loudness(y, 44100), abs=1.0)
    assert np.abs(heard).max() <= 1


def test_a_result_keeps_the_songs_tags_and_says_how_it_was_made(style_file, tmp_path):
    from mutagen.mp3 import MP3

    from stylestream.tags import Tags

    with audio.Writer(tmp_path / "song.mp3", sample_rate=44100, channels=2, tags=Tags({"title": ["Waltz"], "comment": ["a take"]})) as song:
        song.write(music(1.0))
    transfer_file(style_file, tmp_path / "song.mp3", tmp_path / "out.mp3", strength=0.75, seed=7)
    told: Any = MP3(tmp_path / "out.mp3").tags
    (comment,) = told.getall("COMM")
    assert told["TIT2"].text == ["Waltz"]
    assert comment.text == ["a take", f"StyleStream: as {load_style(style_file).card.title} (strength 0.75, dream 0, grain 0.5, seed 7)"]
