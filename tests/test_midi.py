"""MIDI in, waveform out: every fact about pitch, time and parts is measured on the sound."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")

from stylestream import midi  # noqa: E402

Event = tuple[int, bytes]  # ticks since the event before, message
PIANO, ORGAN, FLUTE = 0, 16, 73
END = b"\xff\x2f\x00"


def variable_length(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def midi_file(*tracks: list[Event], form: int = 1, division: int = 480) -> bytes:
    data = b"MThd" + struct.pack(">IHHH", 6, form, len(tracks), division)
    for track in tracks:
        body = b"".join(variable_length(delta) + message for delta, message in [*track, (0, END)])
        data += b"MTrk" + struct.pack(">I", len(body)) + body
    return data


def note(pitch: int, ticks: int, *, start: int = 0, channel: int = 0, velocity: int = 100) -> list[Event]:
    return [(start, bytes([0x90 + channel, pitch, velocity])), (ticks, bytes([0x80 + channel, pitch, 0]))]


def program(number: int, channel: int = 0) -> Event:
    return 0, bytes([0xC0 + channel, number])


def control(number: int, value: int, *, delta: int = 0, channel: int = 0) -> Event:
    return delta, bytes([0xB0 + channel, number, value])


def tempo(mspq: int, delta: int = 0) -> Event:
    return delta, b"\xff\x51\x03" + mspq.to_bytes(3, "big")


def metre(numerator: int, power: int, delta: int = 0) -> Event:
    return delta, bytes([0xFF, 0x58, 4, numerator, power, 24, 8])


def score_of(*tracks: list[Event], **header: int):
    return midi.load_score(midi_file(*tracks, **header))


def one_note(pitch: int = 69, ticks: int = 960, *, start: int = 0, instrument: int = FLUTE):
    return score_of([program(instrument), *note(pitch, ticks, start=start)])


def opened(soundfont: str | Path) -> midi.Synthesizer:
    try:
        return midi.Synthesizer(soundfont)
    except ValueError as error:
        if "apt-get install" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[midi.Synthesizer]:
    with opened("fluidr3") as fluidr3:
        yield fluidr3


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def sine_soundfont() -> bytes:
    """A SoundFont (version 2.01) of one preset: a cosine at 440 Hz on key 69, at full level from its first sample, looped."""
    period, n = 100, 44_000  # at 44,000 Hz a period of 100 samples is 440 Hz exactly
    wave = np.round(16_000 * np.cos(2 * np.pi * np.arange(n) / period)).astype("<i2").tobytes() + bytes(92)
    name = lambda text: text.encode().ljust(20, b"\0")  # noqa: E731
    # generators: no delay and no attack (33, 34), looped (54), sample 0 (53)
    generators = b"".join(struct.pack("<Hh", *pair) for pair in ((33, -32768), (34, -32768), (54, 1), (53, 0), (0, 0)))
    header = lambda text, bag: name(text) + struct.pack("<HHHIII", 0, 0, bag, 0, 0, 0)  # noqa: E731
    pdta = {
        b"phdr": header("sine", 0) + header("EOP", 1),
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HhHh", 41, 0, 0, 0),
        b"inst": name("sine") + struct.pack("<H", 0) + name("EOI") + struct.pack("<H", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 4, 0),
        b"imod": bytes(10),
        b"igen": generators,
        b"shdr": name("sine") + struct.pack("<IIIIIBbHH", 0, n, 0, n, 44_000, 69, 0, 0, 1) + name("EOS") + bytes(26),
    }
    info = chunk(b"ifil", struct.pack("<HH", 2, 1)) + chunk(b"isng", b"EMU8000\0") + chunk(b"INAM", b"sine")
    lists = {b"INFO": info, b"sdta": chunk(b"smpl", wave), b"pdta": b"".join(chunk(k, v) for k, v in pdta.items())}
    return chunk(b"RIFF", b"sfbk" + b"".join(chunk(b"LIST", kind + body) for kind, body in lists.items()))


@pytest.fixture(scope="module")
def sine(tmp_path_factory) -> Iterator[midi.Synthesizer]:
    path = tmp_path_factory.mktemp("soundfont") / "sine.sf2"
    path.write_bytes(sine_soundfont())
    with opened(path) as synthesizer:
        yield synthesizer


def frequency_hz(y: np.ndarray, near_hz: float, sample_rate: int = 44100) -> float:
    """Frequency of the strongest partial within a semitone of ``near_hz``, by a parabola through a fine spectrum's peak."""
    n_fft = 2**20
    spectrum = np.log(np.abs(np.fft.rfft(y * np.hanning(len(y)), n_fft)) + 1e-12)
    low, high = (int(near_hz * 2 ** (s / 12) * n_fft / sample_rate) for s in (-1, 1))
    peak = low + int(np.argmax(spectrum[low:high]))
    a, b, c = spectrum[peak - 1 : peak + 2]
    return float((peak + 0.5 * (a - c) / (a - 2 * b + c)) * sample_rate / n_fft)


def cents(measured_hz: float, expected_hz: float) -> float:
    return 1200 * float(np.log2(measured_hz / expected_hz))


def rms_db(y: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(y)) + 1e-20))


# --- pitch and time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pitch", "expected_hz"), [(69, 440.0), (57, 220.0), (60, 261.6256), (81, 880.0), (108, 4186.009)])
def test_a_note_sounds_at_its_pitch_within_a_tenth_of_a_cent(sine, pitch, expected_hz):
    y = sine.render(one_note(pitch, 3840), mono=True)[0]
    assert abs(cents(frequency_hz(y[22050:154350], expected_hz), expected_hz)) < 0.1


def test_a4_on_the_soundfonts_own_piano_is_440_hz_within_two_cents(synthesizer):
    y = synthesizer.render(one_note(69, 3840, instrument=PIANO), mono=True)[0]
    assert abs(cents(frequency_hz(y[22050:154350], 440.0), 440.0)) < 2.0


def test_the_sample_rate_changes_the_samples_not_the_pitch(sine):
    with midi.Synthesizer(sine.soundfont, sample_rate=22050) as slow:
        y = slow.render(one_note(69, 3840), mono=True)[0]
    assert len(y) == 6 * 22050
    assert abs(cents(frequency_hz(y[11025:77175], 440.0, 22050), 440.0)) < 0.1


@pytest.mark.parametrize("start_ticks", [0, 1, 37, 480, 1001, 99_999])
def test_a_note_begins_within_half_a_block_of_its_time(sine, start_ticks):
    y = sine.render(one_note(start=start_ticks))[0]
    first = int(np.flatnonzero(y)[0])  # FluidSynth fades in over one block, from 0 at its first sample
    assert abs(first - 1 - start_ticks / 960 * 44100) <= 32


@pytest.mark.parametrize("start_ticks", [1, 1001, 99_999])
def test_a_note_moved_in_time_is_the_same_sound_moved_within_half_a_block(synthesizer, start_ticks):
    y = synthesizer.render(one_note(ticks=480, instrument=PIANO))
    moved = synthesizer.render(one_note(ticks=480, instrument=PIANO, start=start_ticks))
    shift = int(np.flatnonzero(moved[0])[0] - np.flatnonzero(y[0])[0])
    assert abs(shift - start_ticks / 960 * 44100) <= 32
    np.testing.assert_array_equal(moved[:, shift : shift + 20_000], y[:, :20_000])


def test_a_hit_begins_at_its_time(synthesizer):
    hits = score_of([event for _ in range(8) for event in note(42, 240, start=237, channel=9)])
    y = np.abs(synthesizer.render(hits)).max(axis=0)
    for onset in midi.notes(hits)["onset_seconds"]:
        begin = round(float(onset) * 44100)
        first = np.flatnonzero(y[begin - 200 : begin + 400] > 0.1 * y.max())[0] - 200
        assert -32 <= first <= 96  # the block it falls in, and the sample's own first millisecond


def test_a_note_ends_at_its_time(synthesizer):
    y = synthesizer.render(one_note(ticks=960, instrument=ORGAN), mono=True)[0]
    assert rms_db(y[35_000:43_000]) > -45
    assert rms_db(y[57_330:66_150]) < rms_db(y[35_000:43_000]) - 40


def test_length_is_the_last_notes_end_and_the_tail(synthesizer):
    score = one_note(ticks=960)
    assert midi.duration_seconds(score) == 1.0
    assert synthesizer.render(score).shape == (2, 3 * 44100)
    assert synthesizer.render(score, tail_seconds=0.0).shape == (2, 44100)
    assert synthesizer.render(score, max_seconds=0.25, mono=True).shape == (1, 11025)
    assert synthesizer.render(score, start_seconds=9.0).shape == (2, 0)


def test_tempo_changes_move_notes(synthesizer):
    score = score_of([tempo(500_000), tempo(1_000_000, delta=480), tempo(250_000, delta=480)], note(69, 480, start=960))
    assert midi.notes(score).tolist() == [(1.5, 1.75, 69, 100, False)]
    y = synthesizer.render(score)
    assert 1.499 < np.flatnonzero(y[0])[0] / 44100 < 1.51


# --- two ways, one result ----------------------------------------------------------------------------------------------------------


def busy_score():
    rng = np.random.default_rng(7)
    tracks = [
        [program(int(rng.integers(0, 100)), c), control(64, 127, channel=c)]
        + [
            e
            for _ in range(30)
            for e in note(int(rng.integers(36, 84)), int(rng.integers(0, 300)), start=int(rng.integers(0, 99)), channel=c)
        ]
        for c in (0, 1, 2, 9)
    ]
    return score_of(*tracks)


def test_the_same_score_twice_is_the_same_samples(synthesizer):
    score = busy_score()
    first = synthesizer.render(score)
    synthesizer.render(one_note(instrument=ORGAN), max_seconds=0.3)
    np.testing.assert_array_equal(synthesizer.render(score), first)
    assert np.abs(first).max() > 0.01


@pytest.mark.parametrize("block_samples", [1000, 4096, 44100])
def test_blocks_are_the_whole_cut_up(synthesizer, block_samples):
    score = busy_score()
    blocks = list(synthesizer.blocks(score, block_samples))
    assert {block.shape[1] for block in blocks[:-1]} == {block_samples}
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), synthesizer.render(score))


def test_two_streams_play_side_by_side(synthesizer):
    a, b = busy_score(), one_note()
    pairs = list(zip(synthesizer.blocks(a, 5000), synthesizer.blocks(b, 5000), strict=False))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in pairs], axis=1), synthesizer.render(a)[:, : 5000 * len(pairs)])
    np.testing.assert_array_equal(pairs[0][1], synthesizer.render(b)[:, :5000])


def test_an_excerpt_hears_the_volume_set_and_the_notes_begun_before_it(synthesizer):
    score = score_of([program(ORGAN), control(7, 40), *note(50, 9600)], [program(PIANO, 1), *note(62, 9600, channel=1)])
    whole = synthesizer.render(score)[:, 5 * 44100 : 7 * 44100]
    excerpt = synthesizer.render(score, start_seconds=5.0, max_seconds=2.0)
    assert excerpt.shape == whole.shape
    assert rms_db(excerpt) == pytest.approx(rms_db(whole), abs=1.0)


def test_an_excerpt_of_short_notes_is_the_whole_sample_for_sample(synthesizer):
    score = score_of([program(ORGAN), *(event for pitch in range(60, 90) for event in note(pitch, 300))])
    excerpt = synthesizer.render(score, start_seconds=5.0, max_seconds=2.0)
    np.testing.assert_allclose(excerpt, synthesizer.render(score)[:, 5 * 44100 : 7 * 44100], atol=1e-6)


def test_a_long_song_streams_in_bounded_memory(synthesizer):
    score = score_of([e for _ in range(20) for e in note(60, 480, start=28_320)])  # ten minutes: 212 MB at once
    assert 590 < midi.duration_seconds(score) < 610
    tracemalloc.start()
    try:
        samples = sum(block.shape[1] for block in synthesizer.blocks(score, 65_536))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples == synthesizer.samples(score)
    assert peak < 4 * 2**20


def test_closing_in_the_middle_of_a_stream_is_an_error_not_a_crash(synthesizer):
    other = midi.Synthesizer("fluidr3")
    stream = other.blocks(one_note(), 1000)
    next(stream)
    other.close()
    other.close()
    with pytest.raises(ValueError, match="closed"):
        next(stream)
    with pytest.raises(ValueError, match="closed"):
        other.render(one_note())


# --- parts, channels, controllers --------------------------------------------------------------------------------------------------


def test_forty_parts_are_the_sum_of_forty_parts(synthesizer):
    tracks = [[program(8 * (i % 10), i % 9), *note(40 + i, 480, channel=i % 9)] for i in range(40)]
    score = score_of(*tracks)
    assert len(score.tracks) == 40
    alone = [synthesizer.render(midi.reorchestrate(score, drop_tracks=[j for j in range(40) if j != i])) for i in range(40)]
    np.testing.assert_allclose(synthesizer.render(score), np.sum(alone, axis=0), atol=1e-5)


def test_drums_are_where_the_score_says_not_where_the_channel_number_says(synthesizer):
    melodic = [[program(PIANO, c), *note(69, 3840, channel=c)] for c in (*range(9), 10, 11)]
    drums = note(38, 1920, channel=9)
    score = score_of(drums, *melodic)  # the drums are part 0; part 9 is a melody
    assert [t.is_drum for t in score.tracks] == [True] + [False] * 11
    ninth = midi.reorchestrate(score, drop_tracks=[i for i in range(12) if i != 9])
    assert abs(cents(frequency_hz(synthesizer.render(ninth, mono=True)[0][22050:154350], 440.0), 440.0)) < 2.0
    only_drums = midi.reorchestrate(score, drop_drums=False, drop_tracks=range(1, 12))
    in_channel_ten = synthesizer.render(score_of(drums))
    np.testing.assert_array_equal(synthesizer.render(only_drums), in_channel_ten)
    assert rms_db(in_channel_ten[:, :8000]) > -60


def test_a_pedal_in_another_track_of_the_channel_holds_the_note(synthesizer):
    hand = [program(PIANO), *note(69, 120)]
    dry = synthesizer.render(score_of(hand))
    held = synthesizer.render(score_of(hand, [control(64, 127), control(64, 0, delta=1920)]))
    second = slice(30_000, 40_000)
    assert rms_db(held[:, second]) > rms_db(dry[:, second]) + 20


def test_a_track_on_a_shared_channel_keeps_its_own_volume_and_program():
    loud = [program(ORGAN), control(7, 120), *note(69, 480)]
    soft = [program(FLUTE), control(7, 20), *note(72, 480)]
    score = score_of(loud, soft, [control(10, 5)])
    assert [(t.program, [(c.number, c.value) for c in t.controls]) for t in score.tracks] == [
        (ORGAN, [(7, 120), (10, 5)]),
        (FLUTE, [(7, 20), (10, 5)]),
    ]


def test_a_volume_outlives_a_change_of_program(synthesizer):
    track = [control(7, 30), program(PIANO), *note(60, 480), program(FLUTE), *note(69, 960)]
    quiet, full = (synthesizer.render(score_of(t))[:, 30_000:60_000] for t in (track, track[1:]))
    assert rms_db(quiet) == pytest.approx(rms_db(full) + 40 * np.log10(30 / 100), abs=1.5)  # 100 is the volume of the start [2]


def test_a_pitch_bend_is_two_semitones_and_the_registered_parameter_widens_it(sine):
    bend_up = (0, b"\xe0\x7f\x7f")
    wide = [control(101, 0), control(100, 0), control(6, 12)]
    plain = sine.render(score_of([bend_up, *note(69, 3840)]), mono=True)[0]
    octave = sine.render(score_of([*wide, bend_up, *note(69, 3840)]), mono=True)[0]
    assert abs(cents(frequency_hz(plain[22050:154350], 493.88), 493.88)) < 3.0  # FluidSynth's wheel itself is 1 % short
    assert abs(cents(frequency_hz(octave[22050:154350], 880.0), 880.0)) < 12.0


def test_where_notes_of_one_key_overlap_the_last_end_is_the_end(synthesizer):
    on, off = b"\x90\x45\x64", b"\x80\x45\x00"
    overlapping = score_of([program(ORGAN), (0, on), (480, on), (480, off), (960, off)])
    assert midi.notes(overlapping)[["onset_seconds", "offset_seconds"]].tolist() == [(0.0, 1.0), (0.5, 2.0)]
    y = synthesizer.render(overlapping)
    assert rms_db(y[:, 66_150:86_000]) > rms_db(y[:, 26_000:40_000]) - 6


# --- the score ---------------------------------------------------------------------------------------------------------------------


def score_facts(score) -> list:
    return [
        (
            t.program,
            t.is_drum,
            [(n.time, n.duration, n.pitch, n.velocity) for n in t.notes],
            [(c.time, c.number, c.value) for c in t.controls],
        )
        for t in score.tracks
    ]


def band_score():
    return score_of(
        [program(30, 0), *note(60, 480)],
        [program(33, 1), *note(40, 480, channel=1)],
        note(36, 480, channel=9),
        [program(30, 2), *note(64, 480, channel=2)],
    )


def programs_of(score) -> list[int]:
    return [track.program for track in score.tracks]


@pytest.mark.parametrize(
    ("programs", "expected"),
    [(None, [30, 33, 30]), (7, [7, 7, 7]), ([1, 2], [1, 2, 1]), ([4, 5, 6, 7], [4, 5, 6]), ({30: 48}, [48, 33, 48]), ({}, [30, 33, 30])],
)
def test_reorchestration_changes_programs_and_leaves_its_argument_alone(programs, expected):
    score = band_score()
    before = score_facts(score)
    assert programs_of(midi.reorchestrate(score, programs=programs)) == expected
    assert score_facts(score) == before
    with_drums = midi.reorchestrate(score, programs=programs, drop_drums=False)
    assert [t.is_drum for t in with_drums.tracks] == [False, False, True, False]
    assert with_drums.tracks[2].program == score.tracks[2].program
    assert midi.notes(with_drums).tolist() == midi.notes(score).tolist()


def test_dropped_parts_are_gone_and_the_score_may_be_empty(synthesizer):
    score = band_score()
    assert programs_of(midi.reorchestrate(score, drop_tracks=[0])) == [33, 30]
    empty = midi.reorchestrate(score, drop_tracks=range(4))
    assert midi.duration_seconds(empty) == 0.0
    assert len(midi.notes(empty)) == 0
    assert not synthesizer.render(empty).any()


@pytest.mark.parametrize(
    "arguments", [{"programs": 128}, {"programs": [0, -1]}, {"programs": {0: 200}}, {"programs": []}, {"drop_tracks": [4]}]
)
def test_an_impossible_orchestration_is_refused(arguments):
    with pytest.raises(ValueError, match=r"program|parts"):
        midi.reorchestrate(band_score(), **arguments)


def test_a_piano_reduction_has_every_tone_on_the_piano_and_no_drum():
    reduction = midi.piano_reduction(band_score())
    assert programs_of(reduction) == [0, 0, 0]
    assert midi.notes(reduction)["pitch"].tolist() == [40, 60, 64]


def test_a_random_orchestration_depends_on_the_generator_only():
    draw = lambda seed: programs_of(midi.random_orchestration(band_score(), np.random.default_rng(seed)))  # noqa: E731
    assert draw(1) == draw(1)
    drawn = {p for seed in range(200) for p in draw(seed)}
    assert drawn <= set(midi.VIEW_PROGRAMS)
    assert len(drawn) > 0.9 * len(midi.VIEW_PROGRAMS)
    assert programs_of(midi.random_orchestration(band_score(), np.random.default_rng(0), [5])) == [5, 5, 5]


def test_another_orchestration_is_another_sound_of_the_same_length(synthesizer):
    score = band_score()
    piano, original = synthesizer.render(midi.piano_reduction(score)), synthesizer.render(score)
    assert piano.shape == original.shape
    assert rms_db(piano - original) > rms_db(original) - 6


def test_beats_follow_metre_and_tempo():
    score = score_of([tempo(600_000), metre(3, 2), metre(6, 3, delta=1440), tempo(300_000)], note(60, 4 * 1440))
    beats, downbeats = midi.beats(score)
    # a bar of three quarters of 0.6 s, then bars of two dotted quarters of 0.45 s
    np.testing.assert_allclose(beats, [0.0, 0.6, 1.2, *(1.8 + 0.45 * np.arange(7))])
    np.testing.assert_allclose(downbeats, [0.0, 1.8, 2.7, 3.6, 4.5])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 15), st.integers(0, 127), st.integers(0, 127), st.integers(1, 127), st.integers(1, 999), st.integers(0, 999)
        ),
        min_size=1,
        max_size=30,
    ),
    st.booleans(),
)
def test_symusic_reads_the_same_notes(rows, one_track):
    tracks = [[program(p, c), *note(pitch, ticks, start=start, channel=c, velocity=v)] for c, p, pitch, v, ticks, start in rows]
    tracks = [[event for track in tracks for event in track]] if one_track else tracks
    data = midi_file(*tracks, form=0 if one_track else 1)
    facts = lambda score: sorted(  # noqa: E731
        (n.time, n.duration, n.pitch, n.velocity, t.program, t.is_drum) for t in score.tracks for n in t.notes
    )
    assert facts(midi.load_score(data)) == facts(symusic.Score.from_midi(data))


# --- odd and hostile files ---------------------------------------------------------------------------------------------------------

GOOD = midi_file([tempo(400_000), metre(4, 2), program(30), control(7, 99), *note(60, 480), *note(64, 480)], note(38, 480, channel=9))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, this is a text file named .mid\n", "not a MIDI file"),
        (GOOD[:10], "not a MIDI file"),
        (b"RIFF" + GOOD, "not a MIDI file"),
        (midi_file(note(60, 480), division=0), "time division"),
        (midi_file(note(60, 480), division=0xE000), "time division"),
        (midi_file(note(60, 480), form=2), "format 2"),
        (midi_file(note(60, 480), form=999), "format 999"),
        (midi_file(), "no notes"),
        (midi_file([tempo(500_000)]), "no notes"),
        (GOOD[:14], "no notes"),
        (midi_file([e for _ in range(300) for e in (*note(60, 480), *note(60, 2**27))]), "hours"),
        (midi_file(note(60, 480, start=24 * 3600 * 960)), "24.0 hours"),
        (midi_file(*([program(i % 128, i // 128), *note(60, 1, channel=i // 128)] for i in range(300))), "300 parts"),
        (b"MThd" + bytes(midi.MAX_FILE_BYTES), "larger than 8 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hopeless_file_is_one_clear_line(data, message, tmp_path):
    path = tmp_path / "a song (1) 🎵.mid"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(ValueError, match=message) as error, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            midi.load_score(source)
        assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        midi.load_score(tmp_path / "nowhere.mid")
    with pytest.raises(IsADirectoryError):
        midi.load_score(tmp_path)


def test_too_many_notes_are_refused(monkeypatch):
    monkeypatch.setattr(midi, "MAX_NOTES", 10)
    with pytest.raises(ValueError, match="more than 10 notes"):
        score_of([e for _ in range(11) for e in note(60, 1)])


def test_too_many_controllers_over_all_parts_are_refused(monkeypatch):
    monkeypatch.setattr(midi, "MAX_CONTROLS", 100)
    volumes = [control(7, 100)] * 60
    score_of([*volumes, *note(60, 1)])
    with pytest.raises(ValueError, match="controller"):
        score_of(note(60, 1), note(61, 1), volumes)


def test_a_million_notes_fit_in_a_file_and_are_still_bounded():
    body = b"\x00\x90\x3c\x40" + b"\x00\x3c\x40" * midi.MAX_NOTES  # running status: three bytes a note, none of them ends
    with pytest.raises(ValueError, match="more than 1,000,000 notes"):
        midi.load_score(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(body)) + body)


@pytest.mark.parametrize(
    ("ending", "end_seconds"),
    [([], 2.5), ([(2**27, END)], 2.5), (note(80, 96_000), 102.5)],  # a beat is half a second
)
def test_a_note_that_never_ends_lasts_as_long_as_there_are_notes(ending, end_seconds):
    score = score_of([(480, b"\x90\x3c\x64"), *note(70, 1920), *ending])
    assert midi.notes(score)[0].tolist() == (0.5, end_seconds, 60, 100, False)


def test_a_lone_note_that_never_ends_is_heard(synthesizer):
    score = score_of([(480, b"\x90\x3c\x64")])
    assert midi.duration_seconds(score) == 1.0  # a beat
    assert rms_db(synthesizer.render(score)) > -80


def test_tempi_of_one_and_of_a_million_are_played(synthesizer):
    slow = score_of([tempo(2**24 - 1), *note(69, 480)])  # 3.6 a minute, the slowest that can be written
    assert midi.duration_seconds(slow) == pytest.approx(16.777, abs=1e-3)
    fast = score_of([tempo(60), *(e for _ in range(100) for e in note(69, 480))])  # a million a minute
    assert midi.duration_seconds(fast) == pytest.approx(0.006)
    assert len(midi.beats(fast)[0]) == 101
    assert np.isfinite(synthesizer.render(fast)).all()
    assert midi.duration_seconds(score_of([tempo(0), *note(69, 480)])) == 0.5  # no tempo at all


def test_more_beats_than_make_sense_are_refused(monkeypatch):
    monkeypatch.setattr(midi, "MAX_BEATS", 50)
    with pytest.raises(ValueError, match="50 beats"):
        midi.beats(one_note(ticks=480 * 60))


@pytest.mark.parametrize("cut", [0, 4, 6, 9])
def test_of_a_truncated_file_what_decodes_is_used(cut):
    with pytest.warns(UserWarning, match="truncated"):
        score = midi.load_score(GOOD[: GOOD.index(b"MTrk", 30) - cut])
    assert midi.notes(score)["pitch"].tolist() == [60, 64]
    assert midi.duration_seconds(score) == pytest.approx(0.8)  # where the second note lost its end, it lasts a beat


def test_a_damaged_track_does_not_take_the_others_with_it():
    data = midi_file([(0, b"\xf4"), *note(60, 480)], note(64, 480))
    with pytest.warns(UserWarning, match="impossible event"):
        assert midi.notes(midi.load_score(data))["pitch"].tolist() == [64]


def test_time_in_film_frames_is_read():
    score = score_of([tempo(100_000), *note(69, 1000)], division=(256 - 25) << 8 | 40)  # milliseconds [1]; the tempo says nothing here
    assert midi.duration_seconds(score) == 1.0
    drop_frame = score_of(note(69, 3000), division=(256 - 29) << 8 | 100)
    assert midi.duration_seconds(drop_frame) == pytest.approx(1.001)


def test_a_riff_coat_and_a_strange_chunk_are_taken_off():
    odd = GOOD[:14] + b"XFIH" + struct.pack(">I", 3) + b"abc" + GOOD[14:]
    coat = b"RIFF" + struct.pack("<I", len(odd) + 12) + b"RMIDdata" + struct.pack("<I", len(odd)) + odd
    assert score_facts(midi.load_score(coat)) == score_facts(midi.load_score(GOOD))


def read_hostile(data: bytes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return midi.load_score(data)
        except ValueError as error:
            assert "\n" not in str(error)
            return None


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 0xFFFF))
def test_no_bytes_crash_the_reader(body, tracks, division):
    read_hostile(body)
    read_hostile(b"MThd" + struct.pack(">IHHH", 6, 1, tracks, division) + b"MTrk" + struct.pack(">I", len(body)) + body)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 40))
def test_a_mutilated_file_is_refused_or_played(synthesizer, changes, cut):
    data = bytearray(GOOD)
    for index, value in changes:
        data[index] = value
    score = read_hostile(bytes(data[: len(data) - cut]))
    if score is not None:
        y = synthesizer.render(score, max_seconds=0.05)
        assert np.isfinite(y).all()
        assert len(midi.notes(score)) > 0


# --- SoundFonts and the library ----------------------------------------------------------------------------------------------------


def test_a_soundfont_is_found_by_name_path_or_environment(tmp_path, monkeypatch):
    mine = tmp_path / "FluidR3_GM.sf2"
    mine.write_bytes(b"")
    monkeypatch.setenv("STYLESTREAM_SOUNDFONTS", str(tmp_path))
    assert midi.find_soundfont("fluidr3") == mine
    assert midi.find_soundfont(mine) == mine
    monkeypatch.setenv("STYLESTREAM_SOUNDFONT", str(mine))
    assert midi.find_soundfont() == mine


def test_a_missing_soundfont_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(midi, "SOUNDFONT_FOLDERS", (str(tmp_path),))
    monkeypatch.delenv("STYLESTREAM_SOUNDFONT", raising=False)
    monkeypatch.delenv("STYLESTREAM_SOUNDFONTS", raising=False)
    with pytest.raises(ValueError, match="apt-get install fluid-soundfont-gm"):
        midi.find_soundfont()
    with pytest.raises(ValueError, match="apt-get install musescore-general-soundfont"):
        midi.find_soundfont("musescore")
    with pytest.raises(ValueError, match="no SoundFont 'nope.sf2'"):
        midi.find_soundfont("nope.sf2")


def test_a_file_that_is_no_soundfont_is_refused_and_no_library_adds_words_of_its_own(synthesizer, tmp_path, capfd):
    fake = tmp_path / "fake.sf2"
    fake.write_bytes(b"RIFF\x10\x00\x00\x00sfbkLIST" + bytes(64))
    with pytest.raises(ValueError, match="not a SoundFont"):
        midi.Synthesizer(fake)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [{"sample_rate": 4000}, {"sample_rate": 192_000}, {"gain": -1.0}])
def test_impossible_settings_are_refused(synthesizer, arguments):
    with pytest.raises(ValueError, match=r"sample rate|gain"):
        midi.Synthesizer("fluidr3", **arguments)


def test_impossible_excerpts_are_refused(synthesizer):
    score = one_note()
    for arguments in ({"start_seconds": -1.0}, {"max_seconds": float("nan")}, {"tail_seconds": -0.1}):
        with pytest.raises(ValueError, match="must be 0 or more"):
            synthesizer.render(score, **arguments)
    with pytest.raises(ValueError, match="blocks"):
        synthesizer.render(one_note(start=6 * 3600 * 960))
    with pytest.raises(ValueError, match="at least 1"):
        synthesizer.blocks(score, 0)


def test_without_fluidsynth_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(midi, "_LIBRARY_NAMES", {sys.platform: ("libnothing.so.9",)})
    monkeypatch.setattr(midi, "find_library", lambda name: None)
    with pytest.raises(ValueError, match="apt-get install libfluidsynth3"):
        midi._open_library()


@pytest.mark.skipif(sys.platform != "linux", reason="LD_LIBRARY_PATH and /proc are Linux")
def test_the_library_may_lie_in_a_folder_of_its_own(synthesizer, tmp_path):
    loaded = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libfluidsynth.so" in line)
    private = tmp_path / "libfluidsynth.so.3"
    private.write_bytes(Path(loaded).read_bytes())
    code = "from stylestream import midi; midi._open_library(); print(open('/proc/self/maps').read())"
    root = Path(midi.__file__).parents[1]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(root)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert str(private) in result.stdout


def test_render_is_the_file_as_sound_in_one_call(synthesizer, tmp_path):
    path = tmp_path / "good.mid"
    path.write_bytes(GOOD)
    y, sample_rate = midi.render(path, max_seconds=1.0)
    assert sample_rate == 44100
    np.testing.assert_array_equal(y, synthesizer.render(midi.load_score(GOOD), max_seconds=1.0))


@pytest.mark.data
def test_real_pieces_are_read_and_played(synthesizer):
    folder = os.environ.get("STYLESTREAM_DATA")
    archive = Path(folder or "", "midi.tar.xz")
    if not folder or not archive.is_file():
        pytest.skip("set STYLESTREAM_DATA to a folder with midi.tar.xz")
    with tarfile.open(archive) as tar:
        pieces = [tar.extractfile(member).read() for member, _ in zip(filter(tarfile.TarInfo.isfile, tar), range(20), strict=False)]
    for piece in pieces:
        score = midi.load_score(piece)
        y = synthesizer.render(score, max_seconds=5.0)
        assert rms_db(y) > -80
        assert np.abs(y).max() < 1.0
