"""Every verb on real files, some of them wrong: outputs, exit codes, one line for every error, no traceback ever."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylestream import __version__, audio, cli, recipes, style
from stylestream.cli import Job, Song, WrongUsage, find_songs, plan


@pytest.fixture
def stylestream(capsys, monkeypatch, tmp_path):
    """Run a command line in this process: (exit code, stdout, stderr), with all that must hold of any."""
    monkeypatch.setenv("STYLESTREAM_STYLES", str(tmp_path / "user-styles"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        for line in err.splitlines():
            assert line.startswith(("stylestream: ", "no styles are installed")), line
        assert not list(tmp_path.rglob("*.part")), "a temporary file is left"
        return exit_.value.code, out, err

    return run


# ------------------------------------------------------------------------------------------------------------------ no song


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom stylestream.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'rich', 'soundfile', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(code or ' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "transfer" in done.stdout


@pytest.mark.parametrize("verb", ["transfer", "render", "styles", "demo", "evaluate"])
def test_every_verb_has_help(stylestream, verb):
    code, out, _ = stylestream(verb, "--help")
    assert code == 0
    assert out.startswith(f"Usage: stylestream {verb}")


def test_the_version_is_printed(stylestream):
    assert stylestream("--version")[:2] == (0, f"stylestream {__version__}\n")


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "stylestream", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"stylestream {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage"),
        (["tranfser"], "No such command"),
        (["transfer"], "Missing"),
        (["transfer", "song.wav"], "--style"),
        (["transfer", "song.wav", "-s", "tiny", "--strength", "loud"], "--strength"),
        (["transfer", "song.wav", "-s", "tiny", "--strength", "1.5"], "--strength"),
        (["transfer", "song.wav", "-s", "tiny", "--strength", "-0.1"], "--strength"),
        (["transfer", "song.wav", "-s", "tiny", "--strength", "nan"], "--strength"),
        (["transfer", "song.wav", "-s", "tiny", "--grain", "inf"], "--grain"),
        (["transfer", "song.wav", "-s", "tiny", "--dream", "inf"], "--dream"),
        (["transfer", "song.wav", "-s", "tiny", "--drums", "1.5"], "--drums"),
        (["transfer", "song.wav", "-s", "tiny", "--drums", "nan"], "--drums"),
        (["transfer", "song.wav", "-s", "tiny", "--width", "1.5"], "--width"),
        (["transfer", "song.wav", "-s", "tiny", "--width", "nan"], "--width"),
        (["transfer", "song.wav", "-s", "no-such-style"], "unknown style 'no-such-style'"),
        (["transfer", "song.wav", "-s", "no-such.safetensors"], "no such style file"),
        (["transfer", "song.wav", "-s", "rock:0.5,strigns:0.5"], "unknown style 'strigns'; did you mean 'strings'?"),
        (["transfer", "song.wav", "-s", "rock:0.5,strings:x"], "has no share; write a blend as rock:0.6,strings:0.4"),
        (["transfer", "song.wav", "-s", "rock:0,strings:0"], "all shares are 0"),
        (["transfer", "song.wav", "-s", "record.mp3"], "record.mp3: no such recording"),
        (["transfer", "song.wav", "-s", "rock", "-o", "-"], "results are files"),
        (["transfer", "song.wav", "-s", "rock", "-s", "strings", "--drums", "0.5"], "strings: drums is 0.5, but this style has no drums"),
        (["styles", "--json", "list"], "stylestream styles list --json"),
        (["render", "song.mid"], "--out"),
        (["styles", "show", "no-such-style"], "unknown style"),
        (["styles", "install", "no-such-file"], "no such style file"),
        (["styles", "remove", "no-such-style"], "unknown style"),
        (["evaluate", ".", "-s", "no-such-style", "-o", "report"], "unknown style"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert message in err
    assert out == ""
    assert len(err.splitlines()) == 1 or not arguments
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["transfer", "-weird.wav", "-s", "rock"], "-weird.wav"),
        (["render", "-weird.mid", "-o", "out"], "-weird.mid"),
        (["doctor", "-weird.wav"], "-weird.wav"),
        (["train", "-weird", "-o", "x.safetensors"], "-weird"),
        (["evaluate", "-songs", "-s", "rock", "-o", "report"], "-songs"),  # read as -s ongs: no source is left
        (["transfer", "-song.wav", "other.wav"], "-song.wav"),  # read as -s ong.wav, which is no style
    ],
)
def test_a_name_that_begins_with_a_dash_is_told_from_options(stylestream, tmp_path, arguments, name):
    (tmp_path / name).write_bytes(b"")
    code, out, err = stylestream(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"; for the file '{name}' write ./{name}" in err


def test_a_name_that_begins_with_a_dash_is_taken_where_it_can_be_no_option(stylestream, tmp_path):
    (tmp_path / "-weird.wav").write_bytes(b"")
    for arguments in (["transfer", "-s", "rock", "--", "-weird.wav"], ["transfer", "./-weird.wav", "-s", "rock"]):
        code, _, err = stylestream(*arguments)
        assert code == 1
        assert "'-weird.wav' is empty" in err
    assert "write ./" not in stylestream("transfer", "-s", "no-such-style", "--", "-weird.wav")[2]


# ----------------------------------------------------------------------------------------------------------------- transfer


def test_a_width_that_the_style_does_not_know_is_wrong_usage(stylestream, song, tiny_style):
    code, out, err = stylestream("transfer", song, "-s", tiny_style, "--width", "0.5")
    assert (code, out) == (2, "")
    assert "width is 0.5, but this style's music is all in the middle" in err


def test_a_song_becomes_the_same_kind_of_song(stylestream, song, tiny_style):
    code, out, err = stylestream("transfer", song, "-s", tiny_style)
    assert (code, out, err) == (0, "song-tiny.wav\n", "")
    result, source = soundfile.info("song-tiny.wav"), soundfile.info(song)
    assert (result.frames, result.channels, result.samplerate, result.subtype) == (source.frames, 2, 44100, "PCM_16")
    y, _ = soundfile.read("song-tiny.wav")
    x, _ = soundfile.read(song)
    assert np.abs(y - x).max() > 0.01


def test_strength_0_gives_the_song_back(stylestream, song, tiny_style):
    assert stylestream("transfer", song, "-s", tiny_style, "--strength", "0", "-o", "same.wav")[0] == 0
    y, _ = soundfile.read("same.wav")
    x, _ = soundfile.read(song)
    assert np.sum((y - x) ** 2) <= 1e-6 * np.sum(x**2)  # −60 dB


def test_a_blend_of_styles_is_named_by_its_shares(stylestream, song):
    code, out, err = stylestream("transfer", song, "-s", "rock:3,strings:1")
    assert (code, out, err) == (0, "song-rock75-strings25.wav\n", "")
    assert soundfile.info("song-rock75-strings25.wav").frames == soundfile.info(song).frames


def test_equal_seeds_give_equal_files_and_others_do_not(stylestream, song, tiny_style):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert stylestream("transfer", song, "-s", tiny_style, "--seed", seed, "--dream", "1", "-o", f"{name}.wav")[0] == 0
    a, b, c = (Path(f"{name}.wav").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_subtype_can_be_chosen(stylestream, song, tiny_style):
    assert stylestream("transfer", song, "-s", tiny_style, "--subtype", "PCM_24", "-o", "a.flac")[0] == 0
    assert soundfile.info("a.flac").subtype == "PCM_24"


def test_an_unknown_subtype_is_one_line(stylestream, song, tiny_style):
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "--subtype", "PCM_12")
    assert code == 2
    assert "PCM_12" in err


def test_a_subtype_that_fits_some_songs_is_used_for_them(stylestream, song, tiny_style):
    y, _ = soundfile.read(song)
    soundfile.write("other.mp3", y, 44100)
    code, out, err = stylestream("transfer", "other.mp3", song, "-s", tiny_style, "--subtype", "PCM_24", "-o", "out")
    assert (code, out) == (1, "out/song-tiny.wav\n")
    assert "MP3 has no subtype 'PCM_24'" in err


def test_an_unknown_suffix_names_those_that_can_be_written(stylestream, song, tiny_style):
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "-o", "a.xyz")
    assert code == 2
    assert ".flac" in err
    assert not Path("a.xyz").exists()


def test_an_existing_output_is_refused_without_force(stylestream, song, tiny_style):
    Path("a.wav").write_text("mine")
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "-o", "a.wav")
    assert code == 1
    assert "--force" in err
    assert Path("a.wav").read_text() == "mine"
    assert stylestream("transfer", song, "-s", tiny_style, "-o", "a.wav", "--force")[0] == 0
    assert soundfile.info("a.wav").frames == 44100


def test_a_song_is_never_written_over_itself(stylestream, song, tiny_style):
    before = song.read_bytes()
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "-o", song, "--force")
    assert code == 1
    assert "the song itself" in err
    assert song.read_bytes() == before


def test_one_bad_song_is_named_and_the_others_are_done(stylestream, song, tiny_style):
    Path("bad.wav").write_text("I am a text")
    Path("empty.wav").write_bytes(b"")
    code, out, err = stylestream("transfer", "bad.wav", "missing.mp3", "empty.wav", song, "-s", tiny_style, "-o", "out/")
    assert code == 1
    assert out == "out/song-tiny.wav\n"
    for line, name in zip(err.splitlines(), ("bad.wav", "missing.mp3", "empty.wav", "3 of 4 failed"), strict=True):
        assert line.count(name) == 1
    assert [path.name for path in Path("out").iterdir()] == ["song-tiny.wav"]


def test_json_says_what_became_of_every_song(stylestream, song, tiny_style):
    code, out, _ = stylestream("transfer", "missing.mp3", song, "-s", tiny_style, "-o", "out", "--json")
    result = json.loads(out)
    assert code == 1
    assert result["failed"] == 1
    assert [Path(entry["song"]).name for entry in result["songs"]] == ["missing.mp3", "song.wav"]
    assert "no such file" in result["songs"][0]["error"]
    assert result["songs"][1]["error"] is None
    assert Path(result["songs"][1]["output"]).exists()


def test_folders_keep_their_shape_and_outputs_are_no_songs(stylestream, song, tiny_style):
    for place in ("music/a (live)/x y 🎸.wav", "music/b/x.wav", "music/.hidden/z.wav", "music/b/._x.wav"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(song, place)
    Path("music/notes.txt").write_text("not a song")
    command = ("transfer", "music", "-s", tiny_style, "-o", "music/out")
    code, out, _ = stylestream(*command)
    assert code == 0
    assert out.splitlines() == ["music/out/a (live)/x y 🎸-tiny.wav", "music/out/b/x-tiny.wav"]
    code, _, err = stylestream(*command)  # again: the same two songs, not four
    assert code == 1
    assert err.count("--force") == 2


def test_several_songs_and_styles_fill_a_template(stylestream, song, tiny_style):
    shutil.copy(song, "b {x}.wav")
    shutil.copy(tiny_style, "other.safetensors")
    code, out, _ = stylestream(
        "transfer", song, "b {x}.wav", "-s", tiny_style, "-s", "./other.safetensors", "-o", "out/{style}/{name}.flac"
    )
    assert code == 0
    assert out.splitlines() == ["out/tiny/song.flac", "out/other/song.flac", "out/tiny/b {x}.flac", "out/other/b {x}.flac"]


@pytest.mark.parametrize("folder", ["empty", "text"])
def test_a_folder_without_songs_is_exit_code_1(stylestream, tiny_style, folder):
    Path(folder).mkdir()
    (Path(folder) / "readme.txt").write_text("hello")
    code, out, err = stylestream("transfer", folder, "-s", tiny_style)
    assert (code, out) == (1, "")
    assert "no song found" in err


def test_a_dial_beyond_the_style_is_wrong_usage(stylestream, song, tiny_style):
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "--dream", "99")
    assert code == 2
    assert "dream" in err


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:nonsense"])
def test_a_device_that_is_not_there_is_wrong_usage(stylestream, song, tiny_style, device):
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "-d", device)
    assert code == 2
    assert device in err


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "truncated", "folder"])
def test_a_bad_style_file_is_one_line(stylestream, song, tiny_style, kind):
    bad = Path("bad.safetensors")
    if kind == "folder":
        bad.mkdir()
    else:
        contents = {
            "empty": b"",
            "text": b"hello, this is text",
            "pickle": pickle.dumps({"a": 1}),
            "truncated": tiny_style.read_bytes()[:5000],
        }
        bad.write_bytes(contents[kind])
    code, _, err = stylestream("transfer", song, "-s", bad)
    assert code == 2
    assert "bad.safetensors" in err
    assert len(err.splitlines()) == 1


def silent(name, y, sample_rate=44100):
    soundfile.write(name, y.T, sample_rate, subtype="FLOAT")
    return name


@pytest.mark.parametrize(
    "y",
    [
        np.zeros((2, 0)),
        np.zeros((2, 441)),
        np.zeros((1, 44100)),
        np.full((2, 44100), 0.5),
        np.clip(np.sin(np.arange(44100))[None] * 30, -1, 1),
        np.where(np.arange(44100)[None] % 1000 == 0, np.nan, 0.1),
    ],
    ids=["zero samples", "10 ms", "silence", "dc", "clipped", "nan"],
)
def test_odd_but_lawful_songs_are_done(stylestream, tiny_style, y):
    name = silent("odd.wav", y)
    code, out, err = stylestream("transfer", name, "-s", tiny_style)
    if y.shape[1] == 0:
        assert code == 1
        assert "odd.wav" in err
        assert not Path("odd-tiny.wav").exists()
    else:
        assert (code, out) == (0, "odd-tiny.wav\n")
        result, _ = soundfile.read("odd-tiny.wav", always_2d=True)
        assert result.T.shape == y.shape
        assert np.isfinite(result).all()


def test_of_a_truncated_song_what_decodes_is_done_with_a_warning(stylestream, tiny_style):
    y = np.random.default_rng(0).normal(0, 0.1, (100_000, 2))
    soundfile.write("whole.ogg", y, 44100)
    Path("cut.ogg").write_bytes(Path("whole.ogg").read_bytes()[: Path("whole.ogg").stat().st_size // 2])
    code, out, err = stylestream("transfer", "cut.ogg", "-s", tiny_style)
    assert (code, out) == (0, "cut-tiny.ogg\n")
    assert "warning" in err
    assert 10_000 < soundfile.info("cut-tiny.ogg").frames < 90_000


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="/sys, where not even root may make a file, is Linux")
def test_no_right_to_write_is_one_line(stylestream, song, tiny_style):
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "-o", "/sys/kernel/song.wav")
    assert code == 1
    assert "/sys/kernel/song.wav: no" in err
    assert len(err.splitlines()) == 1


def test_a_file_where_the_folder_should_be_is_one_line(stylestream, song, tiny_style):
    Path("out").write_text("a file")
    code, _, err = stylestream("transfer", song, "-s", tiny_style, "-o", "out/a.wav")
    assert code == 1
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux")
def test_a_full_disk_is_said_so():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "stylestream", "styles", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m stylestream --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("Usage")
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "stylestream: interrupted\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")]
)
def test_an_interruption_leaves_nothing(tmp_path, tiny_style, number, code, message):
    y = np.random.default_rng(0).normal(0, 0.1, (44100 * 120, 1))
    soundfile.write(tmp_path / "long.wav", y, 44100, subtype="PCM_16")
    work = tmp_path / "work"
    work.mkdir()
    # a shell's background job, such as these tests may be, is deaf to SIGINT or SIGHUP, and so are its children unless they ask
    asks = "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    program = f"import signal; {asks}; from stylestream.cli import main; main()"
    command = [sys.executable, "-c", program, "transfer", "../long.wav", "-s", str(tiny_style)]
    process = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not opened(process, work):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert (out, err) == ("", message)
    assert not list(work.iterdir())


def test_a_song_that_fails_leaves_no_folder_and_one_that_is_done_keeps_its_own(stylestream, song, tiny_style):
    Path("text.wav").write_text("no song")
    code, _, _ = stylestream("transfer", "text.wav", "-s", tiny_style, "-o", "new/folder/x.wav")
    assert (code, Path("new").exists()) == (1, False)
    Path("here").mkdir()
    stylestream("transfer", "text.wav", "-s", tiny_style, "-o", "here/x.wav")
    assert Path("here").is_dir()
    code, _, _ = stylestream("transfer", song, "text.wav", "-s", tiny_style, "-o", "both/{style}/{name}.wav")
    assert code == 1
    assert [path.name for path in Path("both/tiny").iterdir()] == ["song.wav"]


def opened(process, folder):
    """What a process holds open in a folder: the result in the making."""
    names = []
    for handle in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in between
            names.append(os.readlink(handle))
    return [name for name in names if name.startswith(f"{folder}/")]


# ---------------------------------------------------------------------------------------------------------- outputs, reasons


def test_a_named_file_is_tried_whatever_it_is_called(tmp_path):
    (tmp_path / "song.dat").write_bytes(b"")
    (tmp_path / "song.WAV").write_bytes(b"")
    assert find_songs([tmp_path / "song.dat"], recipes.AUDIO_SUFFIXES) == [Song(tmp_path / "song.dat")]
    assert find_songs([tmp_path], recipes.AUDIO_SUFFIXES) == [Song(tmp_path / "song.WAV", Path())]


def test_results_beside_their_songs_are_no_songs_of_the_next_style(tmp_path, tone):
    from stylestream import audio, tags

    y, made = tone(0.1), f"{tags.MADE}Rock Band (strength 1)"
    how = audio.output_format(audio.SongInfo(44100, len(y), None, "", "", 0.1), "a.mp3")
    for name, comment in (("waltz", ""), ("waltz-rock", made), ("waltz-piano", ""), ("a-b", made)):
        with audio.Writer(tmp_path / f"{name}.mp3", **vars(how), comment=comment) as out:
            out.write(y)
    with pytest.warns(UserWarning, match=r"not played: .*waltz-rock\.mp3; name one"):
        found = find_songs([tmp_path], recipes.AUDIO_SUFFIXES)
    assert [song.path.stem for song in found] == ["a-b", "waltz-piano", "waltz"]  # no a.mp3 is there; another recording is a song
    assert find_songs([tmp_path / "waltz-rock.mp3"], recipes.AUDIO_SUFFIXES) == [Song(tmp_path / "waltz-rock.mp3")]


def test_a_song_that_is_named_twice_is_played_once(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_songs([Path("a.wav"), tmp_path, Path("./a.wav")], recipes.AUDIO_SUFFIXES) == [Song(Path("a.wav"))]


@pytest.mark.parametrize(
    ("song", "out", "expected"),
    [
        ("a/x.mp3", None, "x-rock.mp3"),
        ("a/x.MP3", "out/", "out/x-rock.MP3"),
        ("a/x.mid", "out", "out/x-rock.wav"),
        ("a/x.mkv", "out", "out/x-rock.wav"),
        ("a/x.mp4", "out", "out/x-rock.m4a"),
        ("a/x", "out", "out/x-rock.wav"),
        ("a/x.wav", "y.flac", "y.flac"),
        ("a/x.wav", "{style}/{name}.ogg", "rock/x.ogg"),
        ("a/x.wav", "o/{name} in {style}", "o/x in rock.wav"),
        ("a/x.mp3", "o/{name}.{suffix}", "o/x.mp3"),
        ("a/x.mid", "{style}/{name}.{suffix}", "rock/x.wav"),
        ("a/v1.2 x.flac", "{name}", "v1.2 x.flac"),
    ],
)
def test_outputs_are_named(song, out, expected):
    assert plan([Song(Path(song))], ["rock"], out) == [Job(Path(song), Path(expected), "rock")]


def test_a_template_keeps_the_folders_of_an_album_apart():
    songs = [Song(Path("m/a/01.wav"), Path("a")), Song(Path("m/b/01.wav"), Path("b")), Song(Path("m/02.wav"))]
    jobs = plan(songs, ["rock"], "out/{style}/{folder}/{name}")
    assert [str(job.output) for job in jobs] == ["out/rock/a/01.wav", "out/rock/b/01.wav", "out/rock/02.wav"]


def test_a_template_keeps_a_score_and_its_recording_apart():
    jobs = plan([Song(Path("m/01.wav")), Song(Path("m/01.mid"))], ["rock"], "{name}-{suffix}")
    assert [str(job.output) for job in jobs] == ["01-wav.wav", "01-mid.wav"]


def test_the_sound_of_a_film_in_six_channels_becomes_wav(tmp_path):
    audio.save(tmp_path / "film.wav", np.full((6, 4410), 0.1, np.float32), 44100)
    as_film(tmp_path / "film.wav", tmp_path / "film.mp4")
    (job,) = plan([Song(tmp_path / "film.mp4")], ["rock"], None)
    assert str(job.output) == "film-rock.wav"


def as_film(song, out):
    """The same sound as AAC in an MP4."""
    av = pytest.importorskip("av")
    with av.open(str(song)) as source, av.open(str(out), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="5.1")
        for frame in source.decode(audio=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_what_was_written_beside_the_songs_is_no_song():
    songs = [Song(Path("m/waltz-rock.wav"), Path()), Song(Path("m/waltz.wav"), Path())]
    assert [job.song.name for job in plan(songs, ["rock"], "m/")] == ["waltz.wav"]
    with pytest.warns(UserWarning, match=r"m/waltz-rock\.wav is what m/waltz\.wav becomes; it is not played"):  # it was named
        assert [job.song.name for job in plan([Song(song.path) for song in songs], ["rock"], "m/")] == ["waltz.wav"]
    (itself,) = plan([Song(Path("m/waltz.wav"))], ["rock"], "m/{name}")
    assert itself.output == itself.song  # which is refused, in words


@pytest.mark.parametrize("out", ["{song}.wav", "{}", "{name", "name}{style}", "{{name}}"])
def test_a_wrong_template_says_what_it_may_hold(out):
    with pytest.raises(WrongUsage, match=r"\{name\}, \{style\}, \{suffix\}, \{folder\}"):
        plan([Song(Path("x.wav"))], ["rock"], out)


def test_two_songs_with_one_output_are_refused_before_anything_is_done():
    with pytest.raises(WrongUsage, match=r"a/x\.wav and b/x\.wav would both become out/x-rock\.wav"):
        plan([Song(Path("a/x.wav")), Song(Path("b/x.wav"))], ["rock"], "out/")
    with pytest.raises(WrongUsage, match=r"rock and strings would both become o/x\.wav; add \{style\} to the template"):
        plan([Song(Path("a/x.wav"))], ["rock", "strings"], "o/{name}.wav")
    with pytest.raises(WrongUsage, match="have one name and would both write"):
        plan([Song(Path("a/x.wav"))], ["m/mine.safetensors", "n/mine.safetensors"], "out/")
    with pytest.raises(WrongUsage, match="is one file, there are 2 songs"):
        plan([Song(Path("a/x.wav")), Song(Path("b/x.wav"))], ["rock"], "out.wav")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_failing_disk_is_one_line_with_the_place(number):
    line = cli.reason(OSError(number, os.strerror(number), "some/place.wav"))
    assert line.startswith("some/place.wav: ")
    assert "\n" not in line
    assert "Errno" not in line


def test_a_missing_extra_is_named():
    assert (
        cli.reason(ModuleNotFoundError("No module named 'librosa'", name="librosa"))
        == "librosa is missing: pip install 'stylestream[eval]'"
    )


# ------------------------------------------------------------------------------------------------------------------- styles


def test_a_style_is_installed_shown_used_and_removed(stylestream, song, tiny_style, tmp_path):
    code, out, _ = stylestream("styles", "install", tiny_style)
    assert (code, out) == (0, f"{tmp_path / 'user-styles' / 'tiny.safetensors'}\n")
    assert "tiny" in stylestream("styles")[1]
    entries = json.loads(stylestream("styles", "list", "--json")[1])["styles"]
    assert [(entry["bundled"], entry["card"]["title"]) for entry in entries if entry["name"] == "tiny"] == [(False, "Tiny")]
    code, out, _ = stylestream("styles", "show", "tiny")
    assert code == 0
    assert "CC0-1.0" in out
    assert json.loads(stylestream("styles", "show", "tiny", "--json")[1])["card"]["licence"] == "CC0-1.0"
    assert stylestream("transfer", song, "-s", "tiny")[0] == 0
    code, _, err = stylestream("transfer", song, "-s", "tyni")
    assert code == 2
    assert "did you mean 'tiny'" in err
    assert stylestream("styles", "remove", "tiny")[0] == 0
    assert stylestream("transfer", song, "-s", "tiny", "-o", "b.wav")[0] == 2


def test_the_card_of_a_blend_has_the_shares_files_licences_and_sources_of_all(stylestream, tiny_style, tmp_path):
    other = tmp_path / "other.safetensors"
    shutil.copy(tiny_style, other)
    style.update_card(other, licence="CC-BY-4.0", sources=(style.Source("songs of others", "CC-BY-4.0", songs=3, hours=0.25),))
    style.update_widths(other, (0.5,) * 9)
    blend = f"{tiny_style}:3,{other}:1"
    code, out, _ = stylestream("styles", "show", blend)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "75 % tiny + 25 % other")
    assert [line.split(" (")[0] for line in lines if line.startswith("file: ")] == [f"file: {tiny_style}", f"file: {other}"]
    assert "licence: CC0-1.0; CC-BY-4.0" in lines
    assert "  songs of others: 3 songs, 0.2 h, CC-BY-4.0" in lines
    assert "  nothing: 0 songs, 0.0 h, CC0-1.0" in lines
    assert not [line for line in lines if line.startswith("trained")]
    shown = json.loads(stylestream("styles", "show", blend, "--json")[1])
    assert [(part["path"], part["share"]) for part in shown["styles"]] == [(str(tiny_style), 0.75), (str(other), 0.25)]
    assert (shown["name"], shown["card"]["title"]) == ("tiny75-other25", "75 % tiny + 25 % other")
    assert shown["widths"] == pytest.approx([0.5] * 9)  # of the one that knows its own


def test_a_blend_that_cannot_be_shown_is_wrong_usage(stylestream, tiny_style):
    code, out, err = stylestream("styles", "show", f"{tiny_style}:0.5,no-such-style:0.5")
    assert (code, out) == (2, "")
    assert "unknown style 'no-such-style'" in err


def test_a_card_cannot_drive_the_terminal(stylestream, tmp_path):
    import torch

    from stylestream.style import Card, save_style

    card = Card("evil\x1b]0;owned\x07 title", description="[bold]not markup[/]\nsecond line")
    save_style(tmp_path / "evil.safetensors", {"w": torch.zeros(1)}, model_config={}, feature_config={}, card=card)
    _, out, _ = stylestream("styles", "show", tmp_path / "evil.safetensors")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]not markup[/] second line" in out


# -------------------------------------------------------------------------------------------------------------------- train


def test_a_config_is_read_by_name_or_path_and_errors_are_named(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text("[model]\nsteps = 2\n")
    monkeypatch.setattr(cli, "CONFIGS", tmp_path)
    assert cli.read_config("small") == cli.read_config(str(tmp_path / "small.toml")) == {"model": {"steps": 2}}
    with pytest.raises(ValueError, match="no config 'smal'; give a TOML file, or one of small"):
        cli.read_config("smal")
    (tmp_path / "bad.toml").write_text("[model")
    with pytest.raises(ValueError, match=r"bad\.toml is not TOML"):
        cli.read_config("bad")
    (tmp_path / "loose.toml").write_text("steps = 2")
    with pytest.raises(ValueError, match="steps stands outside a table"):
        cli.read_config("loose")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "1", "--steps", "1"], "give one of them"),
        (["-c", "no-such-config"], "no config 'no-such-config'"),
        (["-o", "a.txt"], "ends in .safetensors"),
    ],
)
def test_a_training_that_cannot_begin_is_wrong_usage(stylestream, arguments, message):
    code, _, err = stylestream("train", "music", "-o", "a.safetensors", *arguments)
    assert code == 2
    assert message in err


# ------------------------------------------------------------------------------------------------------------- render, demo


MIDI = (Path(cli.__file__).parent / "demo" / "lamplight.mid").read_bytes()


@pytest.fixture
def fluidsynth():
    pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    from stylestream.midi import Synthesizer

    try:
        Synthesizer("fluidr3").close()
    except ValueError as error:
        pytest.skip(str(error))


def test_a_song_whose_channels_cancel_each_other_is_said_so(stylestream, tone, tiny_style):
    y = 0.1 * tone(2.0, channels=1)
    audio.save("a.wav", np.concatenate([y, -y]), 44100)
    code, _, err = stylestream("transfer", "a.wav", "-s", tiny_style)
    assert code == 0
    assert "left and right cancel each other" in err


@pytest.mark.usefixtures("fluidsynth")
def test_midi_is_rendered_as_opus_which_has_another_rate(stylestream):
    Path("a.mid").write_bytes(MIDI)
    code, out, err = stylestream("render", "a.mid", "-o", "a.opus")
    assert (code, out, err) == (0, "a.opus\n", "")
    found = soundfile.info("a.opus")
    assert (found.samplerate, found.channels) == (48000, 2)
    assert 31 < found.duration < 36


@pytest.mark.usefixtures("fluidsynth")
def test_midi_is_rendered_and_a_bad_file_is_named(stylestream):
    Path("scores").mkdir()
    Path("scores/good (1).mid").write_bytes(MIDI)
    Path("scores/bad.mid").write_bytes(MIDI[:10])
    Path("scores/not.mid").write_text("not MIDI")
    code, out, err = stylestream("render", "scores", "-o", "out")
    assert (code, out) == (1, "out/good (1).wav\n")
    assert len(err.splitlines()) == 3
    assert "2 of 3 failed" in err
    found = soundfile.info("out/good (1).wav")
    assert (found.samplerate, found.channels) == (44100, 2)
    assert 31 < found.duration < 36


@pytest.mark.usefixtures("fluidsynth")
def test_midi_is_a_song_too(stylestream, tiny_style):
    Path("lamplight.mid").write_bytes(MIDI)
    assert stylestream("transfer", "lamplight.mid", "-s", tiny_style)[:2] == (0, "lamplight-tiny.wav\n")


@pytest.mark.usefixtures("fluidsynth")
def test_a_style_is_measured_and_the_report_written(stylestream, tiny_style, monkeypatch, tmp_path):
    for module in ("librosa", "mir_eval"):
        pytest.importorskip(module, reason="evaluation needs the extra [eval]")
    from stylestream import evaluate

    short = evaluate.Protocol(pieces=1, seconds=2.0, min_notes=5, song_soundfont="fluidr3", resamples=50)
    monkeypatch.setattr(evaluate, "QUICK", short)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("scores").mkdir()
    Path("scores/lamplight.mid").write_bytes(MIDI)
    tiny = shutil.copy(tiny_style, "tiny.safetensors")
    command = ("evaluate", "scores", "-s", tiny, "-o", "report", "--quick", "-j", "1", "--card")
    code, _, err = stylestream(*command)
    assert code == 2
    assert "no recipe for style 'tiny'" in err
    code, out, _ = stylestream(*command, "--recipe", "rock", "--json")
    assert code == 0
    (report,) = json.loads(out)["reports"]
    written = json.loads(Path("report/report.json").read_text())
    assert written.pop("command").startswith("stylestream")
    assert report == written
    assert "<audio" in Path("report/report.html").read_text()
    assert report["rows"]["ceiling"]["log_mel_l1"]["mean"] < report["rows"]["copy"]["log_mel_l1"]["mean"]
    assert "tiny: 1 held-out pieces" in Path("report/report.md").read_text()
    assert Path("report/report.md").read_text().startswith(Path("report/summary.md").read_text().strip())
    assert "| part of the way | " in Path("report/summary.md").read_text()
    assert style.read_card(tiny).metrics["copy"]["log_mel_l1"] == pytest.approx(report["rows"]["copy"]["log_mel_l1"]["mean"], abs=1e-4)
    code, _, err = stylestream(*command, "--recipe", "rock")
    assert code == 2
    assert "--force" in err


def test_an_unknown_soundfont_is_wrong_usage(stylestream):
    pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    Path("a.mid").write_bytes(MIDI)
    code, _, err = stylestream("render", "a.mid", "-o", "out", "--soundfont", "no-such-soundfont")
    assert code == 2
    assert "no-such-soundfont" in err


def test_the_demo_plays_and_draws_every_bundled_style(stylestream, tiny_style, monkeypatch, tmp_path):
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    shutil.copy(tiny_style, bundled / "one.safetensors")
    monkeypatch.setattr(style, "bundled_folder", lambda: bundled)
    code, out, _ = stylestream("demo")
    assert (code, out) == (0, "demo/one.wav\n")
    assert sorted(path.name for path in Path("demo").iterdir()) == ["one.png", "one.wav"]
    assert soundfile.info("demo/one.wav").frames == soundfile.info(cli.DEMO_SONG).frames
    assert Path("demo/one.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = stylestream("demo")
    assert code == 1
    assert "--force" in err
