"""The doctor: every ailment found where it was planted, none where there is none, and no file it could not survive."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import struct
import tarfile
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylestream import cli, doctor
from stylestream.doctor import Checkup, Finding, Sound, _Ear

RATE = 44_100
HOSTILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def found(checkup: Checkup) -> set[str]:
    return {finding.name for finding in checkup.findings}


def wav(path: Path, y, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, np.asarray(y).T, rate, subtype=subtype)
    return path


def variable_length(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def midi_file(*events: tuple[int, bytes]) -> bytes:
    """One track of (ticks since the event before, message); 480 ticks a quarter note, 120 of which make a minute."""
    body = b"".join(variable_length(delta) + message for delta, message in (*events, (0, b"\xff\x2f\x00")))
    return b"MThd" + struct.pack(">IHHH", 6, 1, 1, 480) + b"MTrk" + struct.pack(">I", len(body)) + body


def tune(pitches: Iterable[int], *, channel: int = 0, program: int = 0) -> list[tuple[int, bytes]]:
    events = [(0, bytes([0xC0 + channel, program]))]
    for pitch in pitches:
        events += [(0, bytes([0x90 + channel, pitch, 90])), (240, bytes([0x80 + channel, pitch, 0]))]
    return events


@pytest.fixture
def music(tone):
    """Six seconds that nothing is wrong with."""
    return tone(6.0)


@pytest.fixture
def melody(rng) -> list[int]:
    return [int(pitch) for pitch in 60 + rng.integers(0, 13, 64)]


@pytest.fixture
def needs_symusic():
    pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")


# ------------------------------------------------------------------------------------------------------------- recordings


def test_nothing_is_wrong_with_good_music(tmp_path, music):
    checkup = doctor.examine(wav(tmp_path / "a.wav", music))
    assert checkup.findings == ()
    assert checkup.usable
    assert checkup.sound is not None
    assert (checkup.sound.seconds, checkup.sound.sample_rate, checkup.sound.channels) == (6.0, RATE, 2)
    assert checkup.sound.peak_db == pytest.approx(20 * np.log10(np.abs(music).max()), abs=0.1)
    assert checkup.sound.loudness_lufs is not None


ODD = {
    "silent": lambda y: 0 * y,
    "quiet": lambda y: 0.01 * y,
    "clipped": lambda y: np.clip(20 * y, -1, 1),
    "dc": lambda y: y / 2 + 0.1,
    "pauses": lambda y: np.concatenate([y, np.zeros_like(y)], axis=1),
    "dead-channel": lambda y: y * np.array([[1.0], [0.0]]),
    "cancelling": lambda y: y[:1] * np.array([[1.0], [-1.0]]),
    "short": lambda y: y[:, : 2 * RATE],
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_wrong_with_a_recording_is_named(tmp_path, music, name):
    checkup = doctor.examine(wav(tmp_path / "a.wav", ODD[name](music)))
    assert found(checkup) == {name}
    assert checkup.usable == (name != "silent")
    assert all(finding.remedy for finding in checkup.findings)


def test_a_silent_file_with_an_offset_is_silent(tmp_path):
    sound = doctor.listen(wav(tmp_path / "a.wav", np.full((2, 6 * RATE), 0.3)))
    assert sound.silent_share == 1.0
    assert sound.dc == pytest.approx(0.3, abs=1e-3)
    assert sound.spectrum_db == ()


def test_pauses_are_measured_where_they_are(tmp_path, music):
    y = np.concatenate([np.zeros((2, 2 * RATE)), music, np.zeros((2, 3 * RATE))], axis=1)
    sound = doctor.listen(wav(tmp_path / "a.wav", y))
    assert sound.silent_start_seconds == 2.0
    assert sound.silent_end_seconds == 3.0
    assert sound.silent_share == pytest.approx(5 / 11, abs=0.01)


def test_a_wave_that_only_touches_full_scale_is_not_clipped(tmp_path):
    y = np.sin(2 * np.pi * RATE / 6 * np.arange(6 * RATE) / RATE + np.pi / 2)[None]  # six samples a period, one of them at the top
    assert doctor.listen(wav(tmp_path / "a.wav", y)).clipped_share == 0


def test_a_low_sample_rate_is_a_warning(tmp_path, tone):
    assert found(doctor.examine(wav(tmp_path / "a.wav", tone(6.0, sample_rate=22_050), 22_050))) == {"low-rate"}


def test_a_recording_longer_than_a_training_hears_is_a_note(music):
    ear = _Ear(RATE, 2)
    ear.push(music.astype(np.float32))
    sound = dataclasses.replace(ear.conclude("WAV", "PCM_16", ()), seconds=3600.0)
    assert {finding.name: finding.severity for finding in doctor.sound_findings(sound)} == {"long": "note"}


def test_what_is_heard_does_not_depend_on_the_blocks(rng, music):
    y = np.clip(music * 6, -1, 1).astype(np.float32)

    def heard(cuts) -> Sound:
        ear = _Ear(RATE, 2)
        for part in np.split(y, cuts, axis=1):
            ear.push(part)
        return dataclasses.replace(ear.conclude("WAV", "FLOAT", ()), spectrum_db=())  # the spectra are samples, taken where blocks begin

    whole = heard([])
    assert whole.clipped_share > 0.01
    for _ in range(3):
        cut = heard(np.sort(rng.integers(1, y.shape[1], 40)))
        assert dataclasses.replace(cut, dc=whole.dc) == whole
        assert cut.dc == pytest.approx(whole.dc, abs=1e-5)


def test_a_tone_is_loudest_in_its_band():
    ear = _Ear(48_000, 1)
    ear.push(np.sin(2 * np.pi * 1000 * np.arange(96_000) / 48_000).astype(np.float32)[None])
    loudest = np.argmax(ear.conclude("WAV", "FLOAT", ()).spectrum_db)
    assert doctor.BANDS_HZ[loudest] == pytest.approx(1000, rel=0.13)


def test_memory_does_not_grow_with_the_length(tmp_path, tone):
    def peak(seconds: int) -> int:
        path = wav(tmp_path / f"{seconds}.wav", np.tile(tone(1.0), seconds))
        tracemalloc.start()
        doctor.listen(path)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(4)  # what is imported and planned once
    assert peak(120) < 1.2 * peak(12) + 100_000


def test_a_file_that_takes_too_long_is_given_up(tmp_path, music):
    checkup = doctor.examine(wav(tmp_path / "a.wav", music), timeout_seconds=0.0)
    assert not checkup.usable
    assert "takes more than 0 s" in checkup.findings[0].text


# ----------------------------------------------------------------------------------------------------------------- scores


def test_a_score_is_counted(tmp_path, melody, needs_symusic):
    path = tmp_path / "a.mid"
    path.write_bytes(midi_file(*tune(melody, program=48), *tune([40] * 8, channel=9)))
    score = doctor.examine(path).score
    assert score is not None
    assert (score.notes, score.parts, score.drum_notes, score.stuck_notes) == (72, 2, 8, 0)
    assert (score.instruments, score.programs) == (("ensemble",), (48,))
    assert score.seconds == 18.0
    assert (score.slowest_tempo, score.fastest_tempo) == (120.0, 120.0)
    assert doctor.examine(path).findings == ()


def tempo(mspq: int) -> tuple[int, bytes]:
    return 0, b"\xff\x51\x03" + mspq.to_bytes(3, "big")


SCORES = {
    "short": midi_file(*tune([60, 62])),
    "only-drums": midi_file(*tune([40] * 40, channel=9)),
    "stuck": midi_file((0, b"\x90\x24\x50"), *tune([60, 62] * 20)),
    "drone": midi_file((0, b"\x90\x24\x50"), *tune([60, 62] * 130), (0, b"\x80\x24\x00")),
    "tempo": midi_file(tempo(10_000_000), *tune([60, 62] * 20)),
    "pauses": midi_file((480 * 30, b"\x90\x24\x50"), (480, b"\x80\x24\x00"), *tune([60, 62] * 20)),
    "damaged": midi_file(*tune([60, 62] * 40))[:-100],
}


@pytest.mark.parametrize("name", SCORES)
def test_what_is_wrong_with_a_score_is_named(tmp_path, name, needs_symusic):
    (tmp_path / "a.mid").write_bytes(SCORES[name])
    checkup = doctor.examine(tmp_path / "a.mid")
    assert found(checkup) >= {name}
    assert found(checkup) <= {name, "stuck"}
    assert checkup.usable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (midi_file(), "no notes"),
        (midi_file(*tune([60] * 30))[:10], "MThd"),
        (midi_file(tempo(16_777_215), (2_000_000, b"\x90\x3c\x50"), (1_000_000, b"\x80\x3c\x00")), "hours"),
        (b"MThd" + bytes(40), "broken MIDI header"),
    ],
    ids=["no notes", "broken off", "24 hours", "broken header"],
)
def test_a_score_that_cannot_be_used_says_why(tmp_path, content, words, needs_symusic):
    (tmp_path / "a.mid").write_bytes(content)
    checkup = doctor.examine(tmp_path / "a.mid")
    assert not checkup.usable
    assert words in checkup.findings[0].text + checkup.findings[0].remedy


# ------------------------------------------------------------------------------------------------------------ hostile files


def test_files_that_are_no_songs_are_findings(tmp_path, music):
    whole = wav(tmp_path / "whole.wav", music).read_bytes()
    contents = {
        "empty.wav": b"",
        "text.wav": b"not a song",
        "header.wav": whole[:44],
        "noise.mp3": bytes(range(256)) * 40,
        "a.ogg": b"OggS",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        checkup = doctor.examine(tmp_path / name)
        assert found(checkup) == {"unreadable"}, name
        assert str(tmp_path) not in checkup.findings[0].text, "the line names the file already"


def test_of_a_truncated_file_what_decodes_is_heard(tmp_path, music):
    for suffix in (".wav", ".ogg", ".flac", ".mp3"):
        path = tmp_path / f"a{suffix}"
        soundfile.write(path, np.tile(music, 3).T, RATE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        checkup = doctor.examine(path)
        assert found(checkup) == {"damaged"}, suffix
        assert checkup.usable
        assert 6 < checkup.seconds < 12


def test_samples_that_are_no_numbers_are_a_warning(tmp_path, music):
    y = music.copy()
    y[:, 1000:1010] = np.nan
    y[0, 2000] = np.inf
    assert found(doctor.examine(wav(tmp_path / "a.wav", y, subtype="FLOAT"))) == {"damaged"}


def test_a_missing_file_a_folder_and_a_pipe_are_findings(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for name in ("missing.wav", "", "pipe.wav"):
        assert found(doctor.examine(tmp_path / name)) == {"unreadable"}


@HOSTILE
@given(data=st.data())
def test_no_bytes_can_crash_the_doctor(tmp_path, music, data):
    heads = (
        b"",
        b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk",
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        b"fLaC",
        b"OggS\0\2",
        b"ID3\3\0\0",
        b"\xff\xfb\x90\0",
        b"RIFF____RMID",
    )
    content = data.draw(st.sampled_from(heads)) + data.draw(st.binary(max_size=400))
    path = tmp_path / f"a{data.draw(st.sampled_from(['.wav', '.mid', '.mp3', '.flac', '.ogg', '.m4a', '']))}"
    path.write_bytes(content)
    checkup = doctor.examine(path)
    assert checkup.findings
    assert "\n" not in doctor.line(checkup)


@HOSTILE
@given(where=st.integers(0, 4000), garbage=st.binary(min_size=1, max_size=40), suffix=st.sampled_from([".wav", ".flac", ".ogg", ".mp3"]))
def test_no_damage_to_a_good_file_can_crash_the_doctor(tmp_path_factory, tone, where, garbage, suffix):
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    soundfile.write(path, tone(0.3).T, RATE)
    content = bytearray(path.read_bytes())
    content[where : where + len(garbage)] = garbage
    path.write_bytes(content)
    json.dumps(doctor.as_json([doctor.examine(path)], doctor.diagnose([])), allow_nan=False)


@HOSTILE
@given(where=st.integers(0, 700), garbage=st.binary(min_size=1, max_size=12))
def test_no_damage_to_a_good_score_can_crash_the_doctor(tmp_path, needs_symusic, where, garbage):
    content = bytearray(midi_file(*tune([60, 64, 67] * 20)))
    content[where : where + len(garbage)] = garbage
    (tmp_path / "a.mid").write_bytes(content)
    json.dumps(doctor.as_json([doctor.examine(tmp_path / "a.mid")], doctor.diagnose([])), allow_nan=False)


# ------------------------------------------------------------------------------------------------------------- all together


def test_copies_are_told_apart_from_the_same_sound_in_another_format(tmp_path, music):
    a = wav(tmp_path / "a.wav", music)
    (tmp_path / "b.wav").write_bytes(a.read_bytes())
    soundfile.write(tmp_path / "c.flac", soundfile.read(a)[0], RATE)
    wav(tmp_path / "d.wav", 0.9 * music)
    checkups = doctor.relate([doctor.examine(tmp_path / name) for name in ("a.wav", "b.wav", "c.flac", "d.wav")])
    assert [found(checkup) for checkup in checkups] == [set(), {"copy"}, {"same-sound"}, set()]
    assert str(a) in checkups[1].findings[0].text
    assert doctor.diagnose(checkups).seconds == 12.0, "a song counts once"


def test_the_same_melody_in_another_key_and_on_another_instrument_is_known_again(tmp_path, rng, melody, needs_symusic):
    other = [int(pitch) for pitch in 60 + rng.integers(0, 13, 64)]
    tunes = {"a": tune(melody), "b": tune([pitch + 5 for pitch in melody], program=40), "c": tune(other)}
    for name, events in tunes.items():
        (tmp_path / f"{name}.mid").write_bytes(midi_file(*events))
    checkups = doctor.relate([doctor.examine(tmp_path / f"{name}.mid") for name in tunes])
    assert [found(checkup) for checkup in checkups] == [set(), {"same-melody"}, set()]


def test_a_recording_unlike_all_others_is_pointed_out(rng):
    def checkup(name: str, tilt_db: float) -> Checkup:
        ear = _Ear(RATE, 1)
        bins = np.fft.rfft(rng.standard_normal(5 * RATE))
        bins *= 10 ** (-tilt_db * np.log2(np.maximum(np.arange(len(bins)), 100) / 100) / 20)
        ear.push((0.1 * np.fft.irfft(bins) / np.fft.irfft(bins).std()).astype(np.float32)[None])
        return Checkup(name, id=name, sound=ear.conclude("WAV", "FLOAT", ()))

    checkups = doctor.relate([*(checkup(str(k), 3.0) for k in range(5)), checkup("odd one", 15.0)])
    assert [found(each) for each in checkups] == [*[set()] * 5, {"unlike"}]


def healthy(count: int, seconds: float, **kwargs) -> list[Checkup]:
    sound = Sound("WAV", "PCM_16", RATE, 2, seconds, -20.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -3.0, -1.0)
    return [Checkup(str(k), id=str(k), sound=dataclasses.replace(sound, sound_id=str(k)), **kwargs) for k in range(count)]


def test_the_verdict_says_whether_it_is_enough():
    def names(checkups):
        return {finding.name for finding in doctor.diagnose(checkups).findings}

    assert names(healthy(20, 200.0)) == set()
    assert names(healthy(20, 100.0)) == {"some"}
    assert names(healthy(3, 100.0)) == {"little"}
    assert names(healthy(1, 4000.0)) == {"little"}
    assert list(doctor.verdict_lines(doctor.diagnose(healthy(20, 200.0))))[-1] == "ready to build a dataset or to train on"


def test_the_verdict_says_that_all_is_silent_or_nothing_usable():
    silent = healthy(3, 100.0, findings=(Finding("silent", "fault", "it is silent"),))
    assert [finding.text for finding in doctor.diagnose(silent).findings] == ["everything is silent"]
    broken = healthy(3, 100.0, findings=(Finding("unreadable", "fault", "no"),))
    assert doctor.diagnose(broken).findings[0].name == "nothing-usable"
    assert doctor.diagnose(broken).severity == "fault"


def test_the_verdict_names_what_most_files_share():
    odd = healthy(20, 200.0, findings=(Finding("clipped", "warning", "clipped", "turn it down"),))
    assert [(finding.name, finding.remedy) for finding in doctor.diagnose(odd).findings] == [("mostly-clipped", "turn it down")]


def test_the_verdict_counts_styles():
    several = [dataclasses.replace(checkup, style="ab"[k % 2]) for k, checkup in enumerate(healthy(20, 200.0))]
    diagnosis = doctor.diagnose(several)
    assert {style: (group.files, group.seconds) for style, group in diagnosis.styles.items()} == {"a": (10, 2000.0), "b": (10, 2000.0)}
    assert [finding.name for finding in diagnosis.findings] == ["many-styles"]


def test_the_verdict_says_what_plays_midi_if_it_is_missing(monkeypatch):
    from stylestream import midi

    def missing(*_):
        raise ValueError("rendering MIDI needs FluidSynth 2 or newer: apt-get install libfluidsynth3")

    monkeypatch.setattr(midi, "check_synthesizer", missing)
    score = doctor.Score(4000.0, 10, 1, ("piano",), (0,), 0, 0, 1.0, 120.0, 120.0, 0.0)
    diagnosis = doctor.diagnose([Checkup(str(k), id=str(k), score=score) for k in range(10)])
    assert [(finding.name, finding.remedy) for finding in diagnosis.findings] == [("no-synthesizer", "apt-get install libfluidsynth3")]


# ------------------------------------------------------------------------------------------------------------------ the verb


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["doctor", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(exit_.value.code or 0), out, err


@pytest.fixture
def ward(tmp_path, music) -> Path:
    """A folder of recordings, one of them no song, one of them clipped."""
    folder = tmp_path / "songs"
    folder.mkdir()
    wav(folder / "good (1) 🎵.wav", music)
    wav(folder / "loud.wav", np.clip(20 * music, -1, 1))
    (folder / "broken\n.wav").write_text("not a song")
    return folder


def test_there_is_a_line_for_each_file_and_a_verdict(ward, capsys):
    code, out, _ = run(capsys, ward, "-j", 2)
    assert code == 1, "one of them cannot be used"
    files, verdict = out.split("\n\n")
    assert [line.split()[0] for line in files.splitlines()] == ["bad", "ok", "odd"]
    assert "🎵" in files
    assert "clipped" in files.splitlines()[2]
    assert verdict.startswith("2 of 3 files can be used: 2 different songs, 0:12 of music\n")
    assert files.splitlines()[1].endswith("good (1) 🎵.wav"), "a path below its source"


def test_json_is_all_that_goes_to_stdout_and_says_the_same(ward, capsys):
    code, out, _ = run(capsys, ward, "--json", "-j", 1)
    report = json.loads(out)
    assert (code, report["failed"], report["corpus"]["usable"]) == (1, 1, 2)
    assert [[finding["name"] for finding in file["findings"]] for file in report["files"]] == [["unreadable"], [], ["clipped"]]
    assert report["files"][1]["sound"]["sample_rate"] == RATE


def test_brief_leaves_out_the_healthy(ward, capsys):
    assert "good" not in run(capsys, ward, "--brief", "-j", 1)[1]


def test_odd_files_are_no_failure(ward, capsys):
    assert run(capsys, ward / "loud.wav", "-j", 1)[0] == 0


def test_no_song_and_no_such_place_are_one_line(tmp_path, capsys):
    for place in (tmp_path, tmp_path / "missing"):
        code, out, err = run(capsys, place)
        assert code == 1
        assert out == ""
        assert len(err.splitlines()) == 1
        assert str(place) in err


def test_songs_in_archives_are_examined_and_what_strangers_put_there_is_a_line(tmp_path, capsys, music, melody, needs_symusic):
    """A whole song, a score, a link, a way out of the archive; nothing is unpacked beside it."""
    with tarfile.open(tmp_path / "songs.tar.xz", "w:xz") as archive:
        contents = {
            "rock/a.wav": wav(tmp_path / "a.wav", music).read_bytes(),
            "rock/b.mid": midi_file(*tune(melody)),
            "../out.wav": b"RIFF",
        }
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("rock/link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = run(capsys, tmp_path / "songs.tar.xz", "--json", "-j", 1)
    report = json.loads(out)
    told = {file["path"]: [finding["text"] for finding in file["findings"]] for file in report["files"]}
    assert (code, told["rock/a.wav"], told["rock/b.mid"]) == (1, [], [])
    assert "leads out of the archive" in told["../out.wav"][0]
    assert "a link" in told["rock/link.wav"][0]
    assert report["corpus"]["styles"]["rock"]["files"] == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_gives_styles_and_what_it_lists_in_vain_is_a_line(ward, capsys):
    (ward / "list.csv").write_text("path,style,licence,title\nloud.wav,rock,CC0-1.0,Loud\ngone.wav,rock,CC0-1.0,Gone\n")
    code, out, _ = run(capsys, ward / "list.csv", "--json", "-j", 1)
    told = {file["path"]: (file["style"], file["usable"]) for file in json.loads(out)["files"]}
    assert (code, told) == (1, {"loud.wav": ("rock", True), "gone.wav": ("rock", False)})


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"a.csv": "name,style\nx.wav,rock\n"}, "a manifest needs a column `path`"),
        (
            {f"{style}.csv": f"path,style,licence,title\nloud.wav,{style},,\n" for style in ("rock", "jazz")},
            "disagree on the style of loud.wav",
        ),
    ],
    ids=["no paths", "they disagree"],
)
def test_manifests_that_cannot_be_trusted_are_one_line(ward, capsys, lists, words):
    for name, text in lists.items():
        (ward / name).write_text(text)
    code, out, err = run(capsys, *(ward / name for name in lists))
    lines = [line for line in err.splitlines() if "warning" not in line]
    assert (code, out, len(lines)) == (1, "", 1)
    assert words in lines[0]


def slow(timeout_seconds, state, task):
    if "loud" in task.name:
        threading.Event().wait()
    return doctor._examine(timeout_seconds, state, task)


def test_a_file_that_hangs_its_decoder_costs_only_itself(ward, monkeypatch):
    monkeypatch.setattr(doctor, "HANGS", 0)
    monkeypatch.setattr(doctor, "_work", lambda timeout: functools.partial(slow, timeout))
    checkups, _ = doctor.check([ward], jobs=1, timeout_seconds=6.0)
    assert [checkup.usable for checkup in checkups] == [False, True, False]
    assert "no result after" in checkups[2].findings[0].text


@pytest.mark.data
def test_real_recordings_are_found_usable(collection):
    paths = sorted((collection / "audio").rglob("*.ogg"))[::10]
    checkups = [doctor.examine(path) for path in paths]
    assert paths
    assert all(checkup.usable for checkup in checkups)
    with contextlib.suppress(ValueError):
        assert all((checkup.sound.loudness_lufs or -99) > -30 for checkup in checkups if checkup.sound)
