"""Songs in, songs out: formats, alignment, length, tags, loudness, true peak, and every kind of bad file."""

from __future__ import annotations

import errno
import math
import os
import resource
import struct
import subprocess
import sys
import tracemalloc
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from stylestream import audio, meters
from stylestream import tags as tags_
from stylestream.audio import LoudnessMeter, Reader, Resampler, SongInfo, TruePeakMeter, Writer

RATE = 44_100


def tune(seconds: float = 1.5, sample_rate: int = RATE, channels: int = 2) -> np.ndarray:
    """A tune with attacks, so that a shift of one sample shows; each channel a little softer than the one before."""
    n = round(seconds * sample_rate)
    t = np.arange(n) / sample_rate
    y = 0.4 * np.sin(2 * np.pi * 440 * t) * np.exp(-8 * (t % 0.25))
    return np.stack([y * 0.9**c for c in range(channels)]).astype(np.float32)


def noise(rng: np.random.Generator, seconds: float, sample_rate: int, channels: int = 2) -> np.ndarray:
    return rng.normal(0, 0.1, (channels, round(seconds * sample_rate))).astype(np.float32)


def shift(reference: np.ndarray, y: np.ndarray) -> int:
    """By how many samples y comes later than the reference."""
    n = min(len(reference), len(y))
    correlation = np.fft.irfft(np.fft.rfft(y[:n], 2 * n) * np.conj(np.fft.rfft(reference[:n], 2 * n)))
    late = int(np.argmax(correlation))
    return late if late < n else late - 2 * n


def snr_db(reference: np.ndarray, y: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(reference**2) / max(float(np.mean((reference - y) ** 2)), 1e-30)))


def read_with_ffmpeg(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        to_float = av.AudioResampler(format="flt", layout=stream.layout, rate=stream.rate)
        frames = [part for frame in container.decode(stream) for part in to_float.resample(frame)]
        return np.concatenate([frame.to_ndarray().reshape(-1, stream.channels).T for frame in frames], axis=1)


def files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write_with_ffmpeg(path: Path, codec: str, y: np.ndarray, sample_rate: int, **metadata: str) -> None:
    import av

    layout = "mono" if y.shape[0] == 1 else "stereo"
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=sample_rate, layout=layout)
        stream.bit_rate = 128_000
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(y), format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        fifo.write(frame)
        sent = 0
        while (part := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            part.pts, sent = sent, sent + part.samples
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


# ----------------------------------------------------------------------------------------------------------------------
# Any song in, the same kind of song out

LOSSLESS = [
    ("wav", "PCM_U8"),
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "PCM_32"),
    ("wav", "FLOAT"),
    ("wav", "DOUBLE"),
    ("aiff", "PCM_S8"),
    ("aiff", "PCM_16"),
    ("aiff", "PCM_24"),
    ("flac", "PCM_S8"),
    ("flac", "PCM_16"),
    ("flac", "PCM_24"),
]
STEP = {"PCM_U8": 2**-7, "PCM_S8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-24, "FLOAT": 1e-9, "DOUBLE": 1e-9}


@pytest.mark.parametrize(("suffix", "subtype"), LOSSLESS)
def test_a_lossless_format_gives_the_song_back_within_half_a_step(tmp_path, suffix, subtype):
    y = tune()
    audio.save(tmp_path / f"a.{suffix}", y, RATE, subtype=subtype)
    z, rate = audio.load(tmp_path / f"a.{suffix}")
    assert rate == RATE
    assert z.shape == y.shape
    assert z.dtype == np.float32
    assert np.abs(z - y).max() <= STEP[subtype] / 2 * 1.001
    assert audio.info(tmp_path / f"a.{suffix}").subtype == subtype


@pytest.mark.parametrize(("suffix", "subtype"), LOSSLESS)
def test_read_and_written_again_a_lossless_song_is_the_same_to_the_bit(tmp_path, suffix, subtype):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    audio.save(first, tune(), RATE, subtype=subtype)
    y, _ = audio.load(first)
    song = audio.info(first)
    with Writer(second, **vars(audio.output_format(song, second))) as out:
        out.write(y)
    assert audio.info(second) == song
    np.testing.assert_array_equal(soundfile.read(second, dtype="float64")[0], soundfile.read(first, dtype="float64")[0])


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg"])
def test_every_rate_comes_back_at_that_rate_and_length(tmp_path, suffix, rate):
    y = tune(0.51, rate, 1)
    path = tmp_path / f"a.{suffix}"
    audio.save(path, y, rate)
    z, out_rate = audio.load(path)
    assert (out_rate, z.shape) == (rate, y.shape)
    assert shift(y[0], z[0]) == 0


def tones(channels: int) -> np.ndarray:
    """A different tone in every channel, low enough for a low-frequency channel."""
    t = np.arange(24_000) / 48_000
    return np.stack([0.1 * np.sin(2 * np.pi * (40 + 10 * c) * t) for c in range(channels)]).astype(np.float32)


def heard_hz(y: np.ndarray) -> list[int]:
    return [round(float(hz)) for hz in 2 * np.abs(np.fft.rfft(y[:, :24_000])).argmax(axis=1)]


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus"])
def test_up_to_eight_channels_keep_their_order_in_two_decoders(tmp_path, suffix, channels):
    path = tmp_path / f"a.{suffix}"
    audio.save(path, tones(channels), 48_000)
    z, _ = audio.load(path)
    assert z.shape == (channels, 24_000)
    assert heard_hz(z) == [40 + 10 * c for c in range(channels)]
    assert heard_hz(read_with_ffmpeg(path)) == [40 + 10 * c for c in range(channels)]


def test_beyond_stereo_a_wav_says_which_channel_is_which_speaker(tmp_path):
    audio.save(tmp_path / "a.wav", tune(channels=6), RATE)
    assert audio.info(tmp_path / "a.wav").format == "WAVEX"
    assert "LFE" in soundfile.info(tmp_path / "a.wav", verbose=True).extra_info


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_has_the_songs_length_and_place_in_two_decoders(tmp_path, rate, channels):
    y = tune(1.0, rate, channels)
    path = tmp_path / "a.mp3"
    audio.save(path, y, rate)
    for z in (audio.load(path)[0], read_with_ffmpeg(path)):
        assert z.shape == y.shape
        assert shift(y[0], z[0]) == 0
        assert snr_db(y, z) > 20


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_ogg_and_opus_have_the_songs_length_and_place_in_two_decoders(tmp_path, suffix):
    y = tune(1.0, 48_000)
    path = tmp_path / f"a.{suffix}"
    audio.save(path, y, 48_000)
    for z in (audio.load(path)[0], read_with_ffmpeg(path)):
        assert 0 <= z.shape[1] - y.shape[1] < 128  # FFmpeg gives Vorbis' last packet whole
        assert shift(y[0], z[0]) == 0
        assert snr_db(y, z[:, : y.shape[1]]) > 20


@pytest.mark.parametrize("samples", [RATE, 500, 10 * 1024, 10 * 1024 + 1])
def test_m4a_starts_and_ends_with_the_song(tmp_path, samples):
    import av

    y = tune(1.0)[:, :samples]
    audio.save(tmp_path / "a.m4a", y, RATE)
    z, rate = audio.load(tmp_path / "a.m4a")
    assert (rate, z.shape[1]) == (RATE, samples)
    assert shift(y[0], z[0]) == 0
    assert snr_db(y, z) > 20
    with av.open(str(tmp_path / "a.m4a")) as container:  # the edit list tells the exact length to who asks
        assert container.streams.audio[0].duration == y.shape[1]


def test_m4a_of_others_whose_edit_list_counts_in_milliseconds_loses_no_sample(tmp_path):
    y = tune(0.5)[:, :21_637]  # 490.6 ms
    write_m4a_with_index_first(tmp_path / "a.m4a", y, RATE)
    assert audio.load(tmp_path / "a.m4a")[0].shape == y.shape


def test_opus_of_a_44100_hz_song_is_written_at_48000_hz(tmp_path):
    y = tune(1.0)
    audio.save(tmp_path / "a.opus", y, RATE)
    z, rate = audio.load(tmp_path / "a.opus")
    assert (rate, z.shape[1]) == (48_000, 48_000)
    assert shift(audio.resample(y, RATE, 48_000)[0], z[0]) == 0


@pytest.mark.parametrize(("rate", "expected"), [(96_000, 48_000), (88_200, 44_100), (192_000, 48_000), (37_800, 44_100), (64_000, 48_000)])
def test_mp3_above_48_khz_is_resampled_to_the_nearest_rate_it_holds(tmp_path, rate, expected):
    audio.save(tmp_path / "a.mp3", tune(0.3, rate), rate)
    z, out_rate = audio.load(tmp_path / "a.mp3")
    assert out_rate == expected
    assert z.shape[1] == math.ceil(round(0.3 * rate) * expected / rate)


def test_mp3_of_more_than_two_channels_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"MP3 holds at most 2 channels, the song has 6; write \.wav, \.flac or \.ogg"):
        audio.save(tmp_path / "a.mp3", tune(channels=6), RATE)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.wma", "wmav2"), ("a.mp4", "aac"), ("a.mkv", "flac"), ("a.m4a", "alac")])
def test_what_libsndfile_cannot_read_comes_through_ffmpeg(tmp_path, name, codec):
    y = tune(1.0)
    write_with_ffmpeg(tmp_path / name, codec, y, RATE)
    with Reader(tmp_path / name) as song:
        z = np.concatenate(list(song), axis=1)
        assert (song.sample_rate, song.channels, song.warnings) == (RATE, 2, [])
    padding = 4096 if codec == "wmav2" else 1024  # WMA has no word for its coder's delay
    assert abs(shift(y[0], z[0])) < (padding if codec == "wmav2" else 1)
    assert abs(z.shape[1] - y.shape[1]) < padding


def test_a_video_gives_its_sound(tmp_path):
    import av

    y = tune(1.0, 48_000)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        sound = container.add_stream("aac", rate=48_000, layout="stereo")
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        for k in range(0, y.shape[1] - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(y[:, k : k + 1024]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, k
            container.mux(sound.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    z, rate = audio.load(tmp_path / "a.mp4")
    assert rate == 48_000
    assert shift(y[0], z[0]) == 0


def test_eight_channels_through_ffmpeg_keep_their_order(tmp_path):
    audio.save(tmp_path / "a.ogg", tones(8), 48_000)
    source = audio._AvSource(tmp_path / "a.ogg")
    z = np.concatenate(list(source.chunks()), axis=1)
    source.close()
    assert heard_hz(z) == [40 + 10 * c for c in range(8)]


def test_the_bytes_count_not_the_suffix(tmp_path):
    y = tune()
    audio.save(tmp_path / "a.flac", y, RATE)
    (tmp_path / "a.flac").rename(tmp_path / "a.mp3")
    assert audio.info(tmp_path / "a.mp3").format == "FLAC"


def test_full_scale_is_held_not_wrapped(tmp_path):
    y = np.array([[1.5, -1.5, 1.0, -1.0, 0.0]], np.float32)
    for subtype, top in (("PCM_16", 1 - 2**-15), ("PCM_24", 1 - 2**-23), ("PCM_U8", 1 - 2**-7), ("PCM_32", 1.0)):
        audio.save(tmp_path / "a.wav", y, RATE, subtype=subtype)
        np.testing.assert_allclose(audio.load(tmp_path / "a.wav")[0], [[top, -1.0, top, -1.0, 0.0]], atol=1e-9)
    audio.save(tmp_path / "a.wav", y, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav")[0], y)


def test_rounding_leaves_no_constant_behind(tmp_path, rng):
    y = noise(rng, 1.0, RATE)
    audio.save(tmp_path / "a.wav", y, RATE)
    error = (audio.load(tmp_path / "a.wav")[0] - y) * 2**15
    assert abs(float(error.mean())) < 0.01  # libsndfile's own conversion: half a step
    assert np.abs(error).max() <= 0.501


def test_the_same_song_gives_the_same_bytes(tmp_path):
    for name in ("a.wav", "a.flac", "a.mp3", "f.wav"):
        outputs = []
        for _ in range(2):
            audio.save(tmp_path / name, tune(0.3), RATE, subtype="FLOAT" if name == "f.wav" else None)
            outputs.append((tmp_path / name).read_bytes())
            assert b"PEAK" not in outputs[-1]  # libsndfile would put the time of day there
        assert outputs[0] == outputs[1]


def test_half_a_second_of_a_long_song_is_half_a_second(tmp_path):
    audio.save(tmp_path / "a.wav", tune(2.0), RATE)
    y, rate = audio.load(tmp_path / "a.wav", max_seconds=0.5)
    assert y.shape == (2, RATE // 2)
    assert rate == RATE
    y, rate = audio.load(tmp_path / "a.wav", max_seconds=0.5, sample_rate=16_000, mono=True)
    assert (y.shape, rate) == ((1, 8_000), 16_000)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("aiff", "PCM_16"), ("flac", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT")]
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_samples_are_to_the_bit_those_that_libsndfile_makes_floats(tmp_path, rng, suffix, subtype, channels):
    y = rng.uniform(-1, 1, (2 * audio.BLOCK_SAMPLES + 321, channels))
    y[:2] = [[-1.0], [1.0]]
    soundfile.write(tmp_path / f"a.{suffix}", y, RATE, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32", always_2d=True)
    np.testing.assert_array_equal(audio.load(tmp_path / f"a.{suffix}")[0], expected.T)


@pytest.mark.parametrize(("first", "size"), [(0.1, 40), (0.5, 40), (0.5, 5_000), (0.97, 40), (0.7, None)])
def test_a_damaged_flac_gives_what_many_short_reads_give(tmp_path, monkeypatch, rng, first, size):
    path = tmp_path / "a.flac"
    soundfile.write(path, rng.uniform(-1, 1, (3 * audio.BLOCK_SAMPLES + 321, 2)), RATE)
    data = bytearray(path.read_bytes())
    place = int(first * len(data))
    data[place : place + size if size else None] = bytes(size or 0)
    path.write_bytes(data)

    def heard() -> tuple[np.ndarray, list[str]]:
        with warnings.catch_warnings(record=True) as caught, Reader(path) as song:
            warnings.simplefilter("always")
            return np.concatenate(list(song.blocks()), axis=1), [str(warning.message) for warning in caught]

    y, said = heard()
    monkeypatch.setattr(audio, "_EXACT", ())
    short, said_short = heard()
    np.testing.assert_array_equal(y, short)
    assert said == said_short


@pytest.mark.parametrize("trusted_samples", [1, 1_000, 70_000])
@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
def test_a_song_that_outgrows_what_is_known_of_its_length_is_loaded_whole(tmp_path, monkeypatch, name, trusted_samples):
    audio.save(tmp_path / name, tune(5.0), RATE)
    with Reader(tmp_path / name) as song:
        expected = np.concatenate(list(song.blocks()), axis=1)
    monkeypatch.setattr(audio._Growing, "_TRUSTED_SAMPLES", trusted_samples)
    y, _ = audio.load(tmp_path / name)
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(y, expected)


def test_mono_is_the_mean_of_the_channels(tmp_path):
    y = tune()
    audio.save(tmp_path / "a.wav", y, RATE, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav", mono=True)[0], y.mean(axis=0, keepdims=True), atol=1e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "m4a"])
@pytest.mark.parametrize("block_samples", [1_000, 4_096, 70_001])
def test_a_song_is_the_same_in_any_blocks(tmp_path, suffix, block_samples):
    path = tmp_path / f"a.{suffix}"
    audio.save(path, tune(2.0), RATE)
    whole, _ = audio.load(path)
    with Reader(path) as song:
        blocks = list(song.blocks(block_samples))
    assert {block.shape[1] for block in blocks[:-1]} <= {block_samples}
    assert all(block.flags.c_contiguous and block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_a_song_is_written_the_same_in_any_blocks(tmp_path):
    y = tune(2.0)
    for name in ("a.wav", "a.flac", "a.mp3"):
        results = set()
        for block_samples in (999, 5_000, y.shape[1]):
            with Writer(tmp_path / name, sample_rate=RATE, channels=2) as out:
                for start in range(0, y.shape[1], block_samples):
                    out.write(y[:, start : start + block_samples])
                assert out.samples_written == y.shape[1]
            results.add((tmp_path / name).read_bytes())
        assert len(results) == 1


def test_twelve_minutes_take_no_more_memory_than_six(tmp_path):
    def peak_bytes(minutes: int) -> int:
        path = tmp_path / f"{minutes}.flac"
        with Writer(path, sample_rate=8_000, channels=1) as out:
            for _ in range(minutes):
                out.write(np.zeros((1, 60 * 8_000), np.float32))
        tracemalloc.start()
        loudness, peak, resampler = LoudnessMeter(8_000, 1), TruePeakMeter(8_000, 1), Resampler(8_000, 11_025, 1)
        samples = 0
        with Reader(path) as song, Writer(tmp_path / "out.flac", sample_rate=11_025, channels=1) as out:
            for block in song:
                samples += block.shape[1]
                loudness.push(block)
                peak.push(block)
                out.write(resampler.push(block))
        assert samples == minutes * 60 * 8_000
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak_bytes(1)  # what is imported on first use
    assert peak_bytes(12) < peak_bytes(6) + 300_000  # the loudness meter keeps 80 bytes a second; six minutes are 11.5 MB of samples


# ----------------------------------------------------------------------------------------------------------------------
# Which format a song is written in


def song_of(format: str = "WAV", subtype: str = "PCM_24", rate: int = RATE, channels: int = 2, seconds: float = 60.0) -> SongInfo:
    return SongInfo(rate, channels, round(rate * seconds), format, subtype, seconds)


@pytest.mark.parametrize(
    ("own", "name", "expected"),
    [
        ("PCM_24", "a.wav", "PCM_24"),
        ("PCM_U8", "a.wav", "PCM_U8"),
        ("FLOAT", "a.wav", "FLOAT"),
        ("FLOAT", "a.flac", "PCM_24"),
        ("PCM_32", "a.flac", "PCM_24"),
        ("PCM_U8", "a.flac", "PCM_S8"),
        ("PCM_S8", "a.WAV", "PCM_U8"),
        ("MPEG_LAYER_III", "a.wav", "PCM_16"),
        ("VORBIS", "a.flac", "PCM_16"),
        ("PCM_24", "a.mp3", "MPEG_LAYER_III"),
        ("PCM_16", "a.opus", "OPUS"),
        ("PCM_16", "a.aif", "PCM_16"),
        ("aac", "a.m4a", "AAC"),
    ],
)
def test_the_subtype_is_the_songs_own_or_the_nearest(own, name, expected):
    assert audio.output_format(song_of(subtype=own), name).subtype == expected


@pytest.mark.parametrize(("asked", "expected"), [("PCM_16", "PCM_16"), ("16", "PCM_16"), ("float", "FLOAT"), ("pcm-24", "PCM_24")])
def test_a_subtype_asked_for_overrides_the_songs(asked, expected):
    assert audio.output_format(song_of(subtype="PCM_32"), "a.wav", asked).subtype == expected


@pytest.mark.parametrize(
    ("name", "subtype", "message"),
    [
        ("a.flac", "FLOAT", "FLAC has no subtype 'FLOAT'; choose one of PCM_16, PCM_24, PCM_S8"),
        ("a.wma", None, "cannot write 'a.wma': the name must end in one of .wav .flac .aiff .ogg .opus .mp3 .m4a"),
        ("a", None, "cannot write 'a': the name must end in one of"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_choices(name, subtype, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        audio.output_format(song_of(), name, subtype)


def test_a_wav_over_4_gib_is_written_as_rf64():
    assert audio.output_format(song_of(seconds=3 * 3600.0), "a.wav").format == "WAV"
    assert audio.output_format(song_of(subtype="FLOAT", channels=8, seconds=3 * 3600.0), "a.wav").format == "RF64"


def test_rf64_is_written_and_read(tmp_path):
    y = tune()
    with Writer(tmp_path / "a.wav", sample_rate=RATE, channels=2, format="RF64", subtype="PCM_24") as out:
        out.write(y)
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav")[0], y, atol=2**-23)


def test_a_wav_that_grows_over_4_gib_is_stopped_and_removed(tmp_path):
    out = Writer(tmp_path / "a.wav", sample_rate=RATE, channels=1)
    out.write(np.zeros((1, 10), np.float32))
    out.samples_written = 2**31
    with pytest.raises(OSError, match=r"would exceed the 4 GiB that WAV can hold; write \.flac instead"):
        out.write(np.zeros((1, 10), np.float32))
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.wav", ".wav"),
        ("a.flac", ".flac"),
        ("a.ogg", ".ogg"),
        ("a.opus", ".opus"),
        ("a.mp3", ".mp3"),
        ("a.m4a", ".m4a"),
        ("a.aiff", ".aiff"),
    ],
)
def test_a_song_of_some_kind_is_written_as_the_same_kind(tmp_path, name, expected):
    audio.save(tmp_path / name, tune(0.2, 48_000), 48_000)
    assert audio.output_suffix(audio.info(tmp_path / name)) == expected


def test_a_kind_that_cannot_be_written_becomes_lossless():
    assert audio.output_suffix(SongInfo(RATE, 2, None, "asf", "wmav2", 1.0)) == ".wav"
    assert audio.output_suffix(SongInfo(RATE, 2, None, "MIDI", "PCM_16", 1.0)) == ".wav"
    assert audio.output_suffix(SongInfo(RATE, 6, None, "mov,mp4,m4a,3gp,3g2,mj2", "aac", 1.0)) == ".wav"


# ----------------------------------------------------------------------------------------------------------------------
# Resampling


@pytest.mark.parametrize(
    ("a", "b"), [(48_000, 44_100), (44_100, 48_000), (8_000, 44_100), (192_000, 44_100), (44_100, 11_025), (44_101, 44_100)]
)
@pytest.mark.parametrize("samples", [1, 441, 30_011])
def test_a_resampled_song_has_exactly_the_samples_of_its_time(a, b, samples):
    assert audio.resample(np.ones((2, samples), np.float32), a, b).shape == (2, -(-samples * b // a))


@pytest.mark.parametrize(("a", "b"), [(48_000, 44_100), (44_100, 96_000), (8_000, 44_100), (192_000, 44_100)])
@pytest.mark.parametrize("block_samples", [100, 4_096, 50_000])
def test_resampled_in_blocks_is_resampled_whole(rng, a, b, block_samples):
    y = noise(rng, 0.7, a)
    resampler = Resampler(a, b, 2)
    parts = [resampler.push(y[:, k : k + block_samples]) for k in range(0, y.shape[1], block_samples)] + [resampler.flush()]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), audio.resample(y, a, b), atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(48_000, 44_100), (44_100, 48_000), (22_050, 44_100), (192_000, 44_100)])
def test_a_resampled_sine_is_the_sine_at_the_new_times(a, b):
    def sine(rate: int) -> np.ndarray:
        t = np.arange(rate) / rate
        return (0.5 * np.sin(2 * np.pi * 1_000 * t) * np.sin(np.pi * t) ** 2)[None].astype(np.float32)

    assert np.abs(audio.resample(sine(a), a, b) - sine(b)).max() < 1e-5


@pytest.mark.parametrize(("a", "b"), [(48_000, 44_100), (96_000, 44_100), (8_000, 44_100), (44_101, 44_100)])
def test_there_and_back_loses_no_sample(a, b):
    y = tune(0.5, a)
    there_and_back = audio.resample(audio.resample(y, a, b), b, a)
    assert there_and_back.shape[1] >= y.shape[1]
    assert shift(y[0], there_and_back[0]) == 0


def test_the_same_rate_is_the_same_samples(rng):
    y = noise(rng, 0.1, RATE)
    np.testing.assert_array_equal(audio.resample(y, RATE, RATE), y)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="a sample rate must be above 0 Hz, not 0"):
        Resampler(0, RATE, 2)


# ----------------------------------------------------------------------------------------------------------------------
# Loudness and true peak


def music_like(rng: np.random.Generator, seconds: float, rate: int, channels: int) -> np.ndarray:
    """Coloured noise whose level goes up and down by 40 dB, so that both gates have work."""
    n = round(seconds * rate)
    spectrum = np.fft.rfft(rng.normal(size=(channels, n))) / np.maximum(1, np.arange(n // 2 + 1)) ** 0.5
    y = np.fft.irfft(spectrum, n)
    level = 10 ** (np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(-45, -3, 9)) / 20)
    return (y / np.abs(y).max() * level).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_loudness_agrees_with_pyloudnorm(rng, rate, channels):
    import pyloudnorm

    y = music_like(rng, 6.0, rate, channels)
    expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(y.T.astype(np.float64))
    assert abs(audio.loudness(y, rate) - expected) < 0.05
    if rate >= 22_050:  # pyloudnorm's default filter is another approximation, which departs from the standard's at low rates
        assert abs(audio.loudness(y, rate) - pyloudnorm.Meter(rate).integrated_loudness(y.T.astype(np.float64))) < 0.1


@pytest.mark.parametrize("rate", [44_100, 48_000, 192_000])
def test_a_997_hz_sine_at_full_scale_is_minus_3_01_lufs(rate):
    y = np.sin(2 * np.pi * 997 * np.arange(2 * rate) / rate)[None]
    assert abs(audio.loudness(y, rate) + 3.01) < 0.03


def test_the_k_filter_is_the_standards_own_at_48_khz():
    shelf, high_pass = meters._k_weighting(48_000)
    np.testing.assert_allclose(shelf[:3], [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-7)
    np.testing.assert_allclose(shelf[4:], [-1.69065929318241, 0.73248077421585], atol=1e-7)
    np.testing.assert_allclose(high_pass[4:], [-1.99004745483398, 0.99007225036621], atol=1e-7)


@pytest.mark.parametrize("rate", [11_025, 44_100])
@pytest.mark.parametrize("block_samples", [777, 10_000, 60_000])
def test_loudness_in_blocks_is_loudness_of_the_whole(rng, rate, block_samples):
    y = music_like(rng, 5.0, rate, 2)
    meter = LoudnessMeter(rate, 2)
    for k in range(0, y.shape[1], block_samples):
        meter.push(y[:, k : k + block_samples])
    assert meter.integrated_lufs == pytest.approx(audio.loudness(y, rate), abs=1e-9)


def test_ten_times_the_signal_is_twenty_units_louder(rng):
    y = noise(rng, 2.0, RATE)
    assert audio.loudness(y, RATE) - audio.loudness(0.1 * y, RATE) == pytest.approx(20, abs=1e-4)


def test_silence_before_a_song_does_not_make_it_softer(rng):
    y = noise(rng, 2.0, RATE)
    padded = np.concatenate([np.zeros((2, 3 * RATE), np.float32), y], axis=1)
    assert audio.loudness(padded, RATE) == pytest.approx(audio.loudness(y, RATE), abs=0.5)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 192_000])
def test_a_filter_by_rows_is_the_filter_sample_by_sample(rng, rate):
    from scipy.signal import sosfilt

    from stylestream.meters import _k_weighting, _RowFilter

    y = (0.1 * rng.standard_normal((2, 3 * rate + 5)) + 0.3).astype(np.float32)
    sections = _k_weighting(rate)
    by_rows = _RowFilter(sections)
    first, state = by_rows(y[:, :320], np.zeros((2, 2), complex))
    rest, _ = by_rows(y[:, 320:], state)
    expected = sosfilt(sections, y.astype(np.float64), axis=-1)
    assert np.abs(np.concatenate([first, rest], axis=1) - expected).max() < 1e-6


def test_ten_milliseconds_have_a_loudness_and_silence_has_none(rng):
    y = noise(rng, 0.01, RATE)
    assert -40 < audio.loudness(y, RATE) < 0
    assert audio.loudness(np.zeros_like(y), RATE) == -math.inf
    assert audio.loudness(np.zeros((2, 0)), RATE) == -math.inf
    assert audio.true_peak_db(np.zeros((2, 0)), RATE) == -math.inf
    assert audio.true_peak_db(np.zeros((2, 1_000)), RATE) == -math.inf


def test_the_low_frequency_channel_does_not_count(rng):
    y = np.zeros((6, 2 * RATE), np.float32)
    y[3] = noise(rng, 2.0, RATE, 1)
    assert audio.loudness(y, RATE) == -math.inf


def test_the_filter_leaves_no_denormal_numbers_after_the_music(rng):
    meter = LoudnessMeter(RATE, 1)
    meter.push(noise(rng, 0.5, RATE, 1))
    meter.push(np.zeros((1, 10 * RATE), np.float32))
    assert not meter._state.any()


@pytest.mark.parametrize(("rate", "worst_db"), [(44_100, 0.05), (48_000, 0.05), (96_000, 0.05), (192_000, 3.02)])
@pytest.mark.parametrize("phase", [0.1, 0.25, 0.4])
def test_the_true_peak_of_a_sine_is_its_amplitude_though_no_sample_hits_it(rate, worst_db, phase):
    n = np.arange(8_000)
    # a quarter of 44.1 or 48 kHz; where less oversampling is done, the samples alone are that close
    frequency = 0.25 if rate < 88_000 else 0.125
    y = (0.5 * np.sin(2 * np.pi * (frequency * n + phase / 2)) * np.hanning(8_000))[None]
    true_db = 20 * math.log10(0.5)
    oversampled_grid_db = 20 * math.log10(math.cos(math.pi * frequency / (4 if rate < 88_000 else 2)))
    assert true_db + min(oversampled_grid_db, -worst_db) - 0.01 < audio.true_peak_db(y, rate) < true_db + 0.01


def test_the_true_peak_agrees_with_ideal_interpolation(rng):
    y = music_like(rng, 1.0, RATE, 2) * np.hanning(RATE)
    spectrum = np.fft.rfft(y)
    spectrum[:, 20_000:] = 0  # bins of 1 Hz
    y = np.fft.irfft(spectrum, RATE)
    between = 4 * np.fft.irfft(spectrum, 4 * RATE)
    expected_db = 20 * np.log10(np.abs(between).max())
    assert expected_db > 20 * np.log10(np.abs(y).max()) + 0.1
    assert audio.true_peak_db(y, RATE) == pytest.approx(expected_db, abs=0.03)


def slow_true_peak(y: np.ndarray) -> float:
    """The obvious twin: the whole oversampled signal by direct convolution, no window left out."""
    matrix, _ = meters._interpolation_matrix(4, 40, 16)
    kernels = matrix.reshape(56, 16, 3)[:40, 0]  # (taps, phases)
    peak = np.abs(y).max()
    for channel in y:
        padded = np.pad(channel, 60)
        for kernel in kernels.T:
            peak = max(peak, np.abs(np.convolve(padded, kernel[::-1])).max())
    return float(20 * np.log10(peak))


@pytest.mark.parametrize("kind", ["noise", "square", "click at the end", "click at the start", "one sample"])
@pytest.mark.parametrize("block_samples", [7, 1_000, 100_000])
def test_no_window_that_matters_is_left_out_in_any_blocks(rng, kind, block_samples):
    y = {
        "noise": noise(rng, 0.1, RATE),
        "square": np.sign(noise(rng, 0.1, RATE)),
        "click at the end": np.concatenate([0.01 * noise(rng, 0.05, RATE), [[0.9], [0.1]], [[0.9], [0.1]]], axis=1),
        "click at the start": np.concatenate([[[0.9], [0.1]], [[0.9], [0.1]], 0.01 * noise(rng, 0.05, RATE)], axis=1),
        "one sample": np.array([[0.3], [-0.7]]),
    }[kind].astype(np.float32)
    meter = TruePeakMeter(RATE, 2)
    for k in range(0, y.shape[1], block_samples):
        meter.push(y[:, k : k + block_samples])
    assert meter.true_peak_db == pytest.approx(slow_true_peak(y), abs=1e-4)


# ----------------------------------------------------------------------------------------------------------------------
# Tags and cover

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)
TAGGED = ["mp3", "flac", "ogg", "opus", "m4a", "wav", "aiff"]


def tagged_song(folder: Path, suffix: str) -> Path:
    """A song with tags and a cover, written by mutagen alone."""
    path = folder / f"tagged.{suffix}"
    audio.save(path, tune(0.2, 48_000), 48_000)
    tags = tags_.Tags()
    for name, value in {
        "title": "Wälzer 🎻", "artist": "A. Composer", "album": "Dances", "date": "1867", "tracknumber": "3/12", "genre": "Waltz",
        "comment": "first take", "my field": "kept too", "encoder": "old encoder", "replaygain_track_gain": "-7 dB",
    }.items():  # fmt: skip
        tags.fields[name] = [value]
    tags.pictures.append(tags_.picture(3, "image/png", "front", PNG))
    output = audio.output_format(audio.info(path), path)
    tags_.write_tags(path, output.format, output.subtype, tags)
    return path


def seen_by_mutagen(path: Path) -> tuple[str, list[bytes]]:
    """All of a file's tags as one text, and its pictures, without our code."""
    import mutagen
    from mutagen.flac import Picture

    file = mutagen.File(path)
    pictures = [picture.data for picture in getattr(file, "pictures", [])]
    pictures += [frame.data for frame in getattr(file.tags, "getall", lambda name: [])("APIC")]
    pictures += [bytes(cover) for cover in (file.tags.get("covr", []) if path.suffix == ".m4a" else [])]
    if path.suffix in (".ogg", ".opus"):
        import base64

        pictures += [Picture(base64.b64decode(text)).data for text in file.tags.get("metadata_block_picture", [])]
    return file.tags.pprint(), pictures


@pytest.mark.parametrize("source", TAGGED)
@pytest.mark.parametrize("target", TAGGED)
def test_tags_and_cover_are_kept_from_any_format_to_any(tmp_path, source, target):
    song = tagged_song(tmp_path, source)
    out = tmp_path / f"out.{target}"
    audio.save(out, tune(0.2, 48_000), 48_000, tags_from=song)
    text, pictures = seen_by_mutagen(out)
    for value in ("Wälzer 🎻", "A. Composer", "Dances", "1867", "Waltz", "first take", "kept too"):
        assert value in text
    assert "3/12" in text or "(3, 12)" in text
    assert pictures == [PNG]
    assert audio.load(out)[0].shape[1] >= round(0.2 * 48_000)


@pytest.mark.parametrize("source", TAGGED)
def test_what_was_true_only_of_the_old_samples_is_dropped(tmp_path, source):
    out = tmp_path / "out.flac"
    audio.save(out, tune(0.2, 48_000), 48_000, tags_from=tagged_song(tmp_path, source))
    text, _ = seen_by_mutagen(out)
    assert "old encoder" not in text
    assert "-7 dB" not in text


def test_a_song_of_a_wav_info_list_keeps_it_where_other_programs_look(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.wav", "w", RATE, 2) as f:
        f.title, f.artist = "Wälzer", "A. Composer"
        f.write(tune(0.2).T)
    audio.save(tmp_path / "b.wav", tune(0.2), RATE, tags_from=tmp_path / "a.wav")
    with soundfile.SoundFile(tmp_path / "b.wav") as f:
        assert (f.title, f.artist) == ("Wälzer", "A. Composer")
    assert "A. Composer" in seen_by_mutagen(tmp_path / "b.wav")[0]


def test_wma_tags_reach_a_flac(tmp_path):
    write_with_ffmpeg(tmp_path / "a.wma", "wmav2", tune(0.5), RATE, title="Wälzer", artist="A. Composer", album="Dances")
    audio.save(tmp_path / "b.flac", tune(0.5), RATE, tags_from=tmp_path / "a.wma")
    text, _ = seen_by_mutagen(tmp_path / "b.flac")
    assert "Wälzer" in text
    assert "A. Composer" in text
    assert "Dances" in text


def test_a_song_without_tags_gives_a_song_without_tags(tmp_path):
    audio.save(tmp_path / "a.wav", tune(0.1), RATE)
    audio.save(tmp_path / "b.wav", tune(0.1), RATE, tags_from=tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_damaged_tags_cost_a_warning_not_the_song(tmp_path):
    song = tagged_song(tmp_path, "mp3")
    data = bytearray(song.read_bytes())
    data[10:200] = os.urandom(190)
    song.write_bytes(data)
    with Writer(tmp_path / "b.mp3", sample_rate=RATE, channels=2, tags_from=song) as out:
        out.write(tune(0.2))
    assert audio.load(tmp_path / "b.mp3")[0].shape[1] == tune(0.2).shape[1]
    with Writer(tmp_path / "c.mp3", sample_rate=RATE, channels=2, tags_from=tmp_path / "missing.mp3") as out:
        out.write(tune(0.2))
    assert "are not kept" in out.warnings[0]


# ----------------------------------------------------------------------------------------------------------------------
# Bad songs


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) > 20
    return str(error)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.mid", "a.ogg", "a"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"is empty \(0 bytes\)") as caught:
        audio.load(tmp_path / name)
    one_line(caught.value)


def test_a_song_of_no_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), RATE)
    with pytest.raises(ValueError, match="holds no samples") as caught:
        audio.info(tmp_path / "a.wav")
    one_line(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.raw", "a.txt", "a.m3u8"])
@pytest.mark.parametrize("text", ["this is not a song\n" * 50, "#EXTM3U\nhttp://127.0.0.1:9/a.mp3\n", "x"])
def test_a_text_named_as_a_song_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="is not a song that can be read .*convert it to WAV or FLAC") as caught:
        audio.load(tmp_path / name)
    one_line(caught.value)


def test_a_playlist_cannot_make_us_open_another_file(tmp_path):
    audio.save(tmp_path / "secret.mp3", tune(), RATE)
    for text in (
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp3\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile 'secret.mp3'\n",
    ):
        (tmp_path / "list.m3u8").write_text(text)
        with pytest.raises(ValueError, match="is not a song that can be read"):
            audio.load(tmp_path / "list.m3u8")


def test_a_picture_is_no_song(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(ValueError, match="is not a song that can be read"):
        audio.load(tmp_path / "a.png")


def test_a_missing_path_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such song: .*nothing.wav") as caught:
        audio.load(tmp_path / "nothing.wav")
    one_line(caught.value)
    with pytest.raises(IsADirectoryError, match="is a folder, not a song") as caught_folder:
        audio.load(tmp_path)
    one_line(caught_folder.value)
    with pytest.raises(FileNotFoundError, match="no such song") as caught:
        audio.load(tmp_path / "two\nlines.wav")
    one_line(caught.value)


def test_a_device_or_pipe_is_not_read_forever(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", Path("/dev/zero")):
        with pytest.raises(ValueError, match="not a regular file"):
            audio.load(path)


@pytest.mark.parametrize("name", ["a song (live) [2].wav", "été 🎻.wav", "it's; rm -rf $HOME & %s {x}.wav", "-o.wav", "a" * 251 + ".wav"])
def test_odd_names_are_names(tmp_path, name):
    audio.save(tmp_path / name, tune(0.1), RATE)
    assert audio.load(tmp_path / name)[0].shape == tune(0.1).shape
    assert files_in(tmp_path) == [name]


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OSError, match="name (is )?too long") as caught:
        audio.save(tmp_path / ("a" * 300 + ".wav"), tune(0.1), RATE)
    one_line(caught.value)
    assert files_in(tmp_path) == []


ODD = {
    "ten milliseconds": tune(0.01),
    "one sample": np.ones((1, 1), np.float32),
    "silence": np.zeros((2, 10_000), np.float32),
    "a constant": np.full((2, 10_000), 0.5, np.float32),
    "clipped": np.clip(20 * tune(0.3), -1, 1),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus", "m4a"])
def test_an_odd_song_is_done(tmp_path, kind, suffix):
    y = audio.resample(ODD[kind], RATE, 48_000)
    path = tmp_path / f"a.{suffix}"
    audio.save(path, y, 48_000)
    with Reader(path) as song:
        z = np.concatenate(list(song), axis=1)
        assert song.warnings == []
    assert z.shape[0] == y.shape[0]
    assert z.shape[1] == y.shape[1]
    audio.loudness(z, 48_000)
    audio.true_peak_db(z, 48_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e36, -1e15])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_not_numbers_are_silence_with_a_warning(tmp_path, bad, subtype):
    y = tune(0.2)
    damaged = y.copy()
    damaged[0, 100:103] = bad
    soundfile.write(tmp_path / "a.wav", damaged.T, RATE, subtype=subtype)
    with Reader(tmp_path / "a.wav") as song:
        z = np.concatenate(list(song), axis=1)
    y[0, 100:103] = 0
    np.testing.assert_array_equal(z, y)
    assert song.warnings == ["3 samples are not numbers (NaN, infinite, or far too large) and count as silence"]


def test_what_is_taken_for_numbers_of_another_scale_is_kept(tmp_path):
    y = (tune(0.2) * 2**31).astype(np.float32)  # 32-bit integers as floats
    soundfile.write(tmp_path / "a.wav", y.T, RATE, subtype="FLOAT")
    with Reader(tmp_path / "a.wav") as song:
        np.testing.assert_array_equal(np.concatenate(list(song), axis=1), y)
    assert song.warnings == []


@pytest.mark.parametrize(
    ("shape", "rate", "message"), [((2205, 2), RATE, r"\(channels, samples\)"), ((2, 99), 44100.0, "whole"), ((2, 99), 0, "whole")]
)
def test_what_cannot_be_a_song_is_not_saved(tmp_path, shape, rate, message):
    with pytest.raises(ValueError, match=message):
        audio.save(tmp_path / "a.wav", np.zeros(shape, np.float32), rate)
    assert not list(tmp_path.iterdir())


def test_an_infinity_and_its_negative_are_both_found(tmp_path):
    y = np.zeros((1, 100), np.float32)
    y[0, :2] = np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", y.T, RATE, subtype="FLOAT")
    assert np.isfinite(audio.load(tmp_path / "a.wav")[0]).all()


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "mp3", "ogg", "opus", "m4a", "mkv"])
def test_of_a_cut_song_what_decodes_is_given_with_a_warning(tmp_path, suffix, capfd):
    y = tune(4.0, 48_000)
    path = tmp_path / f"a.{suffix}"
    if suffix == "m4a":  # with its index in front, as for the web: with the index lost there is nothing to decode
        write_m4a_with_index_first(path, y, 48_000)
    elif suffix == "mkv":
        write_with_ffmpeg(path, "flac", y, 48_000)
    else:
        audio.save(path, y, 48_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10 + 1])
    whole_tail = {"ogg": 1.0, "opus": 1.1, "mkv": 1.5}  # Ogg and Matroska lose the page or cluster in which they are cut
    with Reader(path) as song:
        z = np.concatenate(list(song), axis=1)
    assert len(song.warnings) == 1
    assert "cut short" in song.warnings[0] or "damaged" in song.warnings[0]
    assert (2.4 - whole_tail.get(suffix, 0.35)) * 48_000 < z.shape[1] < 3.0 * 48_000
    assert shift(y[0], z[0]) == 0
    assert capfd.readouterr().err == ""


def write_m4a_with_index_first(path: Path, y: np.ndarray, rate: int) -> None:
    import av

    with av.open(str(path), "w", format="ipod", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=rate, layout="stereo")
        for k in range(0, y.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(y[:, k : k + 1024]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"])
@pytest.mark.parametrize("kept_bytes", [1, 13, 40, 100])
def test_a_song_cut_to_its_first_bytes_is_refused_in_one_line(tmp_path, suffix, kept_bytes):
    path = tmp_path / f"a.{suffix}"
    audio.save(path, tune(0.5, 48_000), 48_000)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    try:
        y, _ = audio.load(path)
        assert y.shape[1] <= 1_200  # a few samples may be there already
    except ValueError as error:
        one_line(error)


def test_a_recorders_unknown_length_is_not_a_cut(tmp_path):
    path = tmp_path / "a.wav"
    audio.save(path, tune(0.5), RATE)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFF_FFFF)
    path.write_bytes(data)
    with Reader(path) as song:
        samples = sum(block.shape[1] for block in song)
    assert samples == tune(0.5).shape[1]
    assert song.warnings == []


def test_nine_channels_and_odd_rates_are_refused_with_the_remedy(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 9)), RATE)
    with pytest.raises(ValueError, match="has 9 channels; at most 8 are supported: mix it down first"):
        audio.load(tmp_path / "a.wav")
    for rate in (4_000, 384_000):
        soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), rate)
        with pytest.raises(ValueError, match=f"is at {rate} Hz; 8000 to 192000 Hz are supported: resample it first"):
            audio.load(tmp_path / "a.wav")


def test_a_song_longer_than_the_limit_is_refused_at_the_door_or_when_it_shows(tmp_path):
    audio.save(tmp_path / "a.wav", tune(2.0), RATE)
    audio.save(tmp_path / "a.m4a", tune(2.0), RATE)
    with pytest.raises(ValueError, match="is longer than .* h; cut it into parts"):
        Reader(tmp_path / "a.wav", max_seconds=1.0)
    with Reader(tmp_path / "a.m4a", max_seconds=1.0) as song, pytest.raises(ValueError, match="is longer than .* h; cut it into parts"):
        list(song.blocks(1_000))


def test_a_song_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    audio.save(tmp_path / "a.wav", tune(2.0), RATE)
    monkeypatch.setattr(audio, "MAX_LOAD_BYTES", 100_000)
    with pytest.raises(ValueError, match="is too long to hold in memory; pass max_seconds, or stream it with Reader"):
        audio.load(tmp_path / "a.wav")


def test_reading_a_cut_mp3_and_its_tags_prints_nothing(tmp_path, capfd):
    audio.save(tmp_path / "a.mp3", tune(4.0), RATE)
    song = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(song[: len(song) // 2])
    with Reader(tmp_path / "a.mp3") as cut:
        blocks = list(cut.blocks(10_000))
        assert any("cut short" in warning for warning in cut.warnings)
    with Writer(tmp_path / "b.wav", sample_rate=RATE, channels=blocks[0].shape[0], tags_from=tmp_path / "a.mp3") as out:
        out.write(blocks[0])
    assert capfd.readouterr() == ("", "")


def test_a_coding_nobody_knows_is_one_clear_line(tmp_path):
    audio.save(tmp_path / "a.wav", tune(0.3), RATE)
    song = bytearray((tmp_path / "a.wav").read_bytes())
    song[34] = 0  # bits per sample
    (tmp_path / "a.wav").write_bytes(song)
    with pytest.raises(ValueError, match="coded in a way nobody here can read"):
        audio.load(tmp_path / "a.wav")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(["wav", "flac", "ogg", "mp3", "aiff"]))
def test_a_damaged_song_gives_finite_samples_or_one_clear_line(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / f"a.{suffix}"
    audio.save(path, tune(0.3), RATE)
    song = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        # headers are where it hurts
        song[data.draw(st.integers(0, min(len(song) - 1, 200)))] = data.draw(st.integers(0, 255))
    path.write_bytes(song)
    try:
        y, _ = audio.load(path, max_seconds=5.0)
        assert np.isfinite(y).all()
    except (ValueError, OSError) as error:
        one_line(error)


def ogg_pages(song: bytes) -> list[tuple[int, int]]:
    """Where each page begins and ends."""
    pages, start = [], 0
    while song[start : start + 4] == b"OggS":
        sizes = song[start + 27 : start + 27 + song[start + 26]]
        pages.append((start, start + 27 + len(sizes) + sum(sizes)))
        start = pages[-1][1]
    return pages


def without_a_page(song: bytes) -> bytes:
    start, end = ogg_pages(song)[12]
    return song[:start] + song[end:]


def with_a_page_twice(song: bytes) -> bytes:
    start, end = ogg_pages(song)[12]
    return song[:end] + song[start:]


@pytest.mark.parametrize(
    ("damage", "quick"),
    [
        (lambda song: song, 1.0),
        (without_a_page, 0.6),
        (with_a_page_twice, 0.2),
        (lambda song: song[:60_000] + b"\0" * 2_000 + song[62_000:], 0.4),
        (lambda song: song[:60_000] + song[60_700:], 0.4),
        (lambda song: song[:60_000] + bytes([song[60_000] ^ 16]) + song[60_001:], 0.4),
        (lambda song: song[:60_000], 0.4),
    ],
    ids=["whole", "page lost", "page twice", "zeros", "hole", "one bit", "cut"],
)
def test_of_a_damaged_vorbis_file_the_quick_decoder_gives_what_libsndfile_gives(tmp_path, rng, damage, quick):
    y = 0.1 * rng.standard_normal((2, 6 * RATE)).astype(np.float32)
    y[:, ::7_000] = 0.9  # short windows among the long ones
    soundfile.write(tmp_path / "a.ogg", y.T, RATE, format="OGG", subtype="VORBIS")
    (tmp_path / "a.ogg").write_bytes(damage((tmp_path / "a.ogg").read_bytes()))
    slow, both = audio._SoundFileSource(tmp_path / "a.ogg"), audio._open_source(tmp_path / "a.ogg")
    assert isinstance(both, audio._VorbisSource)
    by_ffmpeg = sum(z.shape[1] for z in both._quick_chunks())
    expected, z = (np.concatenate(list(source.chunks()), axis=1) for source in (slow, both))
    assert z.shape == expected.shape
    assert np.abs(z - expected).max() < 1e-6
    assert both.complaint(z.shape[1]) == slow.complaint(z.shape[1])
    assert by_ffmpeg > quick * 0.5 * z.shape[1]  # and it is FFmpeg that gave most of what comes before the damage


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("seconds", [1, 2])
def test_of_an_ogg_file_of_joined_songs_all_are_read(tmp_path, rng, subtype, seconds):
    rate, joined = 48_000, b""
    for length in (2, seconds):
        soundfile.write(tmp_path / "a.ogg", 0.1 * rng.standard_normal((length * rate, 2)), rate, format="OGG", subtype=subtype)
        joined += (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "joined.ogg").write_bytes(joined)
    with audio.Reader(tmp_path / "joined.ogg") as song:
        samples = sum(y.shape[1] for y in song.blocks(rate))
    assert abs(samples / rate - 2 - seconds) < 0.05
    assert song.warnings == []


def test_a_name_that_is_no_text_keeps_depth_and_tags(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    audio.save(tmp_path / "a.wav", np.zeros((2, 4410), np.float32), 44100, subtype="PCM_24")
    (tmp_path / "a.wav").rename(path)
    assert audio.info(path).subtype == "PCM_24"
    with audio.Reader(path) as song:
        assert sum(y.shape[1] for y in song.blocks(1000)) == 4410


def test_integers_are_no_waveform(tmp_path):
    with pytest.raises(ValueError, match="y holds int16; a waveform is floating point"):
        audio.save(tmp_path / "a.wav", np.zeros((2, 100), np.int16), 44100)


# ----------------------------------------------------------------------------------------------------------------------
# Writing: whole or not at all


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus", "m4a"])
def test_an_aborted_file_leaves_nothing_and_the_old_one_stands(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="interrupted"), Writer(path, sample_rate=48_000, channels=2) as out:
        out.write(tune(0.5, 48_000))
        assert path.read_bytes() == b"old"
        raise RuntimeError("interrupted")
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == [path.name]
    out.abort()
    out.close()
    assert path.read_bytes() == b"old"


def test_a_song_may_be_written_over_itself_while_it_is_read(tmp_path):
    path = tmp_path / "a.wav"
    y = tune(1.0)
    audio.save(path, y, RATE, subtype="FLOAT")
    with Reader(path) as song, Writer(path, **vars(audio.output_format(song.info, path)), tags_from=path) as out:
        for block in song.blocks(1_000):
            out.write(0.5 * block)
    np.testing.assert_array_equal(audio.load(path)[0], 0.5 * y)
    assert files_in(tmp_path) == ["a.wav"]


def test_a_new_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    audio.save(tmp_path / "a.wav", tune(0.1), RATE)
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"])
def test_a_full_disk_is_one_clear_line_and_no_file(tmp_path, suffix):
    """The operating system refuses to let the file grow, as it does on a full disk."""
    y = np.random.default_rng(0).normal(0, 0.2, (2, 20 * 48_000)).astype(np.float32)
    with limited_file_size(100_000), pytest.raises(OSError, match="cannot write .*; write elsewhere|write elsewhere") as caught:
        audio.save(tmp_path / f"a.{suffix}", y, 48_000)
    one_line(caught.value)
    assert caught.value.errno == errno.EFBIG
    assert files_in(tmp_path) == []


def test_a_disk_that_fills_while_the_tags_are_written_is_one_clear_line_and_no_file(tmp_path):
    song = tagged_song(tmp_path, "flac")
    import mutagen.flac

    file = mutagen.flac.FLAC(song)
    file.clear_pictures()
    file.add_picture(tags_.picture(3, "image/png", "", os.urandom(1_000_000)))
    file.save()
    for suffix in ("wav", "flac", "mp3", "ogg", "m4a"):
        with limited_file_size(500_000), pytest.raises(OSError, match="cannot write") as caught:
            audio.save(tmp_path / f"a.{suffix}", tune(0.5, 48_000), 48_000, tags_from=song)
        one_line(caught.value)
        assert files_in(tmp_path) == ["tagged.flac"]


class limited_file_size:
    """No file of this process may grow beyond so many bytes while inside."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    def __enter__(self) -> None:
        import signal

        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, self.before[1]))

    def __exit__(self, *_: object) -> None:
        import signal

        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.handler)


def test_no_space_left_is_said_in_words(tmp_path, monkeypatch):
    out = Writer(tmp_path / "a.wav", sample_rate=RATE, channels=2)
    out.write(tune(0.1))
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="cannot write .*a.wav': there is no space left; free some, or write elsewhere") as caught:
        out.close()
    one_line(caught.value)
    assert files_in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_without_the_right_to_read_or_write_it_is_one_clear_line(tmp_path):
    audio.save(tmp_path / "a.wav", tune(0.1), RATE)
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(PermissionError, match="no right to read .*; change its permissions"):
        audio.load(tmp_path / "a.wav")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="there is no right to write in that folder"):
        audio.save(tmp_path / "b.wav", tune(0.1), RATE)
    tmp_path.chmod(0o700)


def test_no_right_to_write_is_said_in_words(tmp_path, monkeypatch):
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="cannot write .*: there is no right to write in that folder") as caught:
        audio.save(tmp_path / "a.wav", tune(0.1), RATE)
    one_line(caught.value)


def test_a_folder_that_is_not_there_or_is_the_target_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*; make it first"):
        audio.save(tmp_path / "no" / "a.wav", tune(0.1), RATE)
    (tmp_path / "b.wav").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        audio.save(tmp_path / "b.wav", tune(0.1), RATE)


def test_a_waveform_of_the_wrong_shape_or_of_no_numbers_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match=r"expected a waveform of shape \(2, n\), not \(1, 10\)"),
        Writer(tmp_path / "a.wav", sample_rate=RATE, channels=2) as out,
    ):
        out.write(np.zeros((1, 10), np.float32))
    with pytest.raises(ValueError, match="not numbers"):
        audio.save(tmp_path / "a.wav", np.full((2, 10), np.nan), RATE)
    with pytest.raises(ValueError, match="OPUS cannot hold 44100 Hz; resample to 48000 Hz first"):
        Writer(tmp_path / "a.opus", sample_rate=RATE, channels=2)
    assert files_in(tmp_path) == []


# ----------------------------------------------------------------------------------------------------------------------
# The product


def test_importing_audio_imports_nothing_heavy():
    code = (
        "import sys, stylestream.audio; "
        "print([m for m in ('torch', 'scipy', 'soxr', 'av', 'mutagen', 'pyloudnorm', 'symusic', 'stylestream.midi') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_standard_library_reads_our_wav(tmp_path):
    y = tune(0.1)
    audio.save(tmp_path / "a.wav", y, RATE)
    with wave.open(str(tmp_path / "a.wav")) as f:
        assert (f.getframerate(), f.getnchannels(), f.getsampwidth(), f.getnframes()) == (RATE, 2, 2, y.shape[1])
        samples = np.frombuffer(f.readframes(y.shape[1]), "<i2").reshape(-1, 2).T
    np.testing.assert_array_equal(samples, np.rint(y * 32768))


def variable_length(value: int) -> bytes:
    out = bytes([value & 0x7F])
    while value := value >> 7:
        out = bytes([value & 0x7F | 0x80]) + out
    return out


def midi_file(*notes: tuple[int, int]) -> bytes:
    """A MIDI file of notes (pitch, ticks) one after the other, 480 ticks each half second."""
    events = b"".join(bytes([0, 0x90, pitch, 100]) + variable_length(ticks) + bytes([0x80, pitch, 0]) for pitch, ticks in notes)
    track = events + b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(track)) + track


def soundfont_or_skip() -> None:
    from stylestream import midi

    try:
        midi.Synthesizer().close()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["a.mid", "a.wav", "a"])
def test_a_midi_file_is_a_song_like_any_other(tmp_path, name):
    soundfont_or_skip()
    (tmp_path / name).write_bytes(midi_file((69, 960), (69, 960)))
    with Reader(tmp_path / name) as song:
        assert (song.format, song.sample_rate, song.channels) == ("MIDI", RATE, 2)
        y = np.concatenate(list(song.blocks(10_000)), axis=1)
    assert y.shape[1] == song.samples
    assert audio.load(tmp_path / name, mono=True, sample_rate=22_050)[0].shape[0] == 1
    spectrum = np.abs(np.fft.rfft(y[0, :RATE] * np.hanning(RATE)))  # bins of 1 Hz
    assert abs(int(spectrum[400:500].argmax()) + 400 - 440) <= 1


def test_a_cut_midi_file_is_played_with_a_warning(tmp_path):
    soundfont_or_skip()
    (tmp_path / "a.mid").write_bytes(midi_file(*[(69, 96)] * 20)[:-40])
    with Reader(tmp_path / "a.mid") as song:
        assert sum(block.shape[1] for block in song) == song.samples
    assert len(song.warnings) == 1


@pytest.mark.parametrize("data", [b"MThd", midi_file(), midi_file((60, 10))[:20]])
def test_a_broken_midi_file_is_one_clear_line(tmp_path, data):
    pytest.importorskip("symusic", reason="needs stylestream[midi]")
    (tmp_path / "a.mid").write_bytes(data)
    with pytest.raises(ValueError) as caught:
        audio.load(tmp_path / "a.mid")
    one_line(caught.value)


def without_lame_header(data: bytes) -> bytes:
    """An MP3 at 44.1 kHz less its first frame, which holds the header instead of sound."""
    kilobits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[data[2] >> 4]
    length = 144_000 * kilobits // RATE + (data[2] >> 1 & 1)
    assert b"Xing" in data[:length]
    assert data[length : length + 2] == data[:2]
    return data[length:]


def test_two_mp3_joined_are_read_to_the_end_of_the_second(tmp_path, capfd):
    audio.save(tmp_path / "a.mp3", tune(1.0), RATE)
    (tmp_path / "a.mp3").write_bytes(2 * (tmp_path / "a.mp3").read_bytes())
    assert audio.load(tmp_path / "a.mp3")[0].shape[1] >= 2 * RATE
    assert capfd.readouterr().err == ""


def test_an_mp3_without_a_length_is_read_to_its_end_without_complaint(tmp_path):
    y = tune(3.0)
    y[:, RATE:] *= 0.01  # an encoder of variable rate spends little here, so that the length cannot be told from the size
    audio.save(tmp_path / "a.mp3", y, RATE)
    (tmp_path / "a.mp3").write_bytes(without_lame_header((tmp_path / "a.mp3").read_bytes()))
    with Reader(tmp_path / "a.mp3") as song:
        z = np.concatenate(list(song), axis=1)
    assert song.warnings == []
    assert 0 <= z.shape[1] - y.shape[1] <= 3 * 1152
    assert shift(y[0], z[0]) == 1105  # encoder and decoder delay, which nothing tells any more: as the module says


DATA = Path(os.environ.get("STYLESTREAM_DATA", ""))


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("STYLESTREAM_DATA"), reason="set STYLESTREAM_DATA to the folder with the music")
def test_a_real_recording_goes_through_every_format_in_place():
    import tempfile

    song = sorted((DATA / "audio").rglob("*.ogg"))[0]
    y, rate = audio.load(song, max_seconds=10.0)
    for suffix in ("wav", "flac", "mp3", "ogg", "m4a"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a.{suffix}"
            audio.save(path, y, rate, tags_from=song)
            z, out_rate = audio.load(path)
        assert out_rate == rate
        assert shift(y[0], z[0]) == 0
        assert z.shape[1] == y.shape[1]
        assert snr_db(y, z[:, : y.shape[1]]) > 12


def test_what_id3_has_no_place_for_is_kept_beside():
    song = tags_.Tags()
    song.add("date", "Spring 1999")
    song.add("lyrics", "one", "two")
    frames = {frame.FrameID: frame for frame in tags_._id3_frames(song)}
    assert (frames["TXXX"].desc, frames["TXXX"].text) == ("date", ["Spring 1999"])
    assert frames["USLT"].text == "one\n\ntwo"


def test_what_was_true_of_an_mp3_alone_is_not_carried_over(tmp_path):
    from mutagen import id3

    audio.save(tmp_path / "a.mp3", np.zeros((2, 44100), np.float32), 44100)
    own = id3.ID3()
    own.add(id3.RVA2(desc="track", channel=1, gain=-12.0, peak=0.5))
    own.add(id3.TENC(encoding=3, text="LAME"))
    own.add(id3.TIT2(encoding=3, text="Waltz"))
    own.save(tmp_path / "a.mp3")
    found = tags_.read_tags(tmp_path / "a.mp3")
    assert [frame.FrameID for frame in found.id3] == ["TIT2"]
