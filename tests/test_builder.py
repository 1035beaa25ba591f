"""Datasets built from any mixture of sources: whole, the same bytes however they came about, and honest about what failed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stylestream import builder, cli, midi, recipes, shards
from stylestream.builder import Studio, build, make_plan
from stylestream.dataset import Dataset, DatasetConfig
from stylestream.features import LogFrequency

pytest.importorskip("pyarrow", reason="datasets need pyarrow: pip install 'stylestream[train]'")
torch.set_num_threads(1)
RATE = 44100
SHORT = DatasetConfig(max_seconds=3.0, shard_songs=2, timeout_seconds=120.0)


# --- helpers ---------------------------------------------------------------------------------------------------------------------------


def tune(path: Path, seed: int, *, transpose: int = 0, ticks: int = 240, program: int = 0, drums: bool = False) -> Path:
    """A MIDI file: a tune of its own, a bass, drums if asked."""
    symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    rng = np.random.default_rng(seed)
    line = 67 + np.cumsum(rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], 60)).clip(-12, 12) + transpose
    score = symusic.Score(480)
    for part in range(3 if drums else 2):
        track = symusic.Track(program=program + part, is_drum=part == 2)
        for i, pitch in enumerate(line):
            track.notes.append(symusic.Note(ticks * i, ticks - 10, 38 if part == 2 else int(pitch) - 24 * part, 90))
        score.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    score.dump_midi(str(path))
    return path


def recording(path: Path, y: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, y.T, rate, subtype="PCM_16")
    return path


def needs_fluidsynth() -> None:
    try:
        midi.Synthesizer(midi.find_soundfont("fluidr3")).close()
    except ValueError as error:
        pytest.skip(str(error))


def bytes_below(folder: Path) -> dict[str, str]:
    """Every file of a folder, hidden ones too, and its hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in Dataset(folder).index.to_pylist()}


@pytest.fixture(scope="module")
def music(tmp_path_factory, tone) -> Path:
    """A mixture: folders, an archive with a manifest, recordings; a tune in three guises; and what goes wrong."""
    needs_fluidsynth()
    root = tmp_path_factory.mktemp("music")
    tune(root / "rock" / "a.mid", 1, drums=True)
    tune(root / "rock" / "b.mid", 2)
    tune(root / "jazz" / "a in G.mid", 1, transpose=-5, program=24)
    (root / "jazz" / "broken.mid").write_bytes(b"MThd no more")
    shutil.copy(root / "rock" / "b.mid", root / "jazz" / "copy of b.mid")
    recording(root / "field" / "bell.wav", tone(4.0, hz=440.0))
    recording(root / "field" / "bell 48.flac", tone(4.0, hz=500.0, sample_rate=48000), 48000)
    recording(root / "field" / "nothing.wav", np.zeros((2, RATE)))
    members = root / "members"
    with tarfile.open(root / "more.tar.xz", "w:xz") as archive:
        archive.add(tune(members / "x.mid", 1, transpose=2, ticks=200), "waltz/edition.mid")
        archive.add(recording(members / "y.ogg.wav", tone(3.5, hz=300.0)), "waltz/sound.wav")
        archive.add(root / "rock" / "b.mid", "../out.mid")
    shutil.rmtree(members)
    (root / "more.csv").write_text(
        "path,style,source,licence,title\nwaltz/edition.mid,walzer,Me,CC0,An edition\nwaltz/sound.wav,,,,\nwaltz/gone.mid,walzer,Me,CC0,\n"
    )
    return root


@pytest.fixture(scope="module")
def built(music, tmp_path_factory) -> tuple[Path, builder.Progress]:
    folder = tmp_path_factory.mktemp("built") / "DATA"
    return folder, build([music], folder, config=SHORT, jobs=1)


# --- what is in a dataset --------------------------------------------------------------------------------------------------------------


def test_every_song_of_a_mixture_is_there_or_says_why_not(built):
    folder, done = built
    index = rows(folder)
    failures = {path: row["failure"] for path, row in index.items() if row["failure"]}
    assert set(failures) == {"field/nothing.wav", "jazz/broken.mid", "rock/b.mid", "../out.mid", "waltz/gone.mid"}
    assert failures["field/nothing.wav"] == "it is silent"
    assert "time division" in failures["jazz/broken.mid"] or "MIDI" in failures["jazz/broken.mid"]
    assert failures["rock/b.mid"] == "the same bytes as jazz/copy of b.mid"
    assert failures["../out.mid"] == "its name leads out of the archive; refused"
    assert failures["waltz/gone.mid"] == "no such file, though more.csv lists it"
    assert sum(done.failures.values()) == 5
    assert done.songs == len(index) == 12
    assert {path: row["style"] for path, row in index.items() if not row["failure"]} == {
        "field/bell 48.flac": "field",
        "field/bell.wav": "field",
        "jazz/a in G.mid": "jazz",
        "jazz/copy of b.mid": "jazz",
        "rock/a.mid": "rock",
        "waltz/edition.mid": "walzer",
        "waltz/sound.wav": "waltz",
    }
    assert index["waltz/edition.mid"]["licence"] == "CC0"
    assert index["waltz/edition.mid"]["title"] == "An edition"
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "index.parquet", "shards"]


def test_one_tune_in_three_guises_is_one_group_in_one_split(built):
    index = rows(built[0])
    guises = [index[path] for path in ("rock/a.mid", "jazz/a in G.mid", "waltz/edition.mid")]
    assert len({row["group_id"] for row in guises}) == len({row["split"] for row in guises}) == 1
    assert guises[0]["group_id"] == min(row["song_id"] for row in guises)
    assert guises[0]["split"] == recipes.split_of(guises[0]["group_id"])
    others = [row["group_id"] for path, row in index.items() if row not in guises and not row["failure"]]
    assert len(set(others)) == len(others)


def test_frames_are_those_of_the_song_within_a_third_of_a_decibel_and_fourteen_kilobytes(built, music):
    data = Dataset(built[0])
    front = LogFrequency()
    errors, total_bytes, seconds = [], 0, 0.0
    for row in data.songs.to_pylist():
        total_bytes, seconds = total_bytes + row["bytes"], seconds + row["seconds"]
        if row["path"] not in ("rock/a.mid", "field/bell.wav"):
            continue
        path = music / row["path"]
        if row["kind"] == "midi":
            y = midi.render(path, max_seconds=3.0)[0].mean(0)
        else:
            y = soundfile.read(path, dtype="float32")[0][: 3 * RATE].mean(1)
        gain = 10 ** ((data.features.loudness_lufs - row["loudness_lufs"]) / 20)
        x = front(torch.from_numpy(y * np.float32(gain))).numpy()
        stored = data.read(row["song_id"])
        assert stored.shape == x.shape == (324, row["frames"])
        assert row["peak"] == pytest.approx(np.abs(y).max(), rel=1e-5)
        heard = x > 10 / 90  # above −80 dB
        errors.append(90 * np.abs(stored - x)[heard])
    assert len(errors) == 2
    assert np.concatenate(errors).mean() <= 0.3
    assert np.concatenate(errors).max() <= 0.51
    assert total_bytes / seconds <= 14_000


def test_the_index_says_where_the_bytes_are_and_how_long_and_loud_the_song_was(built):
    folder, _ = built
    index = rows(folder)
    for row in index.values():
        if not row["failure"]:
            data = (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["bytes"]]
            assert hashlib.sha256(data).hexdigest() == row["checksum"]
            assert len(row["sizes"]) == (1 + row["views"]) * shards.chunks_of(row["frames"])
            assert row["seconds"] == pytest.approx(3.0)
            assert row["frames"] == 1 + 3 * RATE // 512
    assert index["field/bell.wav"]["whole_seconds"] == pytest.approx(4.0)
    assert index["rock/a.mid"]["whole_seconds"] == pytest.approx(60 * 0.25, abs=0.1)
    assert index["rock/a.mid"]["beats"][:3] == pytest.approx([0.0, 0.5, 1.0])
    for path, most in (("rock/a.mid", 24), ("field/bell.wav", 256)):
        prints = index[path]["fingerprint"]
        assert prints == sorted(set(prints))
        assert 0 < len(prints) <= most
    described = json.loads((folder / "dataset.json").read_text())
    for shard in described["shards"]:
        data = (folder / shard["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])


def test_views_lie_beside_their_song_and_drums_can_be_left_out(music, tmp_path):
    config = DatasetConfig(max_seconds=3.0, views=2, drums=False)
    build([music / "rock" / "a.mid", music / "field" / "bell.wav"], tmp_path / "DATA", config=config, jobs=1)
    data = Dataset(tmp_path / "DATA")
    score, sound = (data.row(row["song_id"]) for row in data.songs.to_pylist())
    assert (data.views(score), data.views(sound)) == (2, 0)
    target, piano, other = (data.read(score, view=view) for view in range(3))
    assert target.shape == piano.shape == other.shape
    assert np.abs(target - other).mean() > 2 / 90
    chroma = [np.stack([x[i::36] for i in range(36)]).sum(1) for x in (target, piano, other)]
    for view in chroma[1:]:  # the same notes at the same time: half a second later they are others

        def likeness(lag: int, view: np.ndarray = view) -> float:
            return float(np.corrcoef(chroma[0][:, 50:-50].ravel(), view[:, 50 + lag : view.shape[1] - 50 + lag].ravel())[0, 1])

        assert likeness(0) > max(likeness(lag) for lag in (-43, -22, 22, 43)) + 0.1
    without = data.read(score)
    studio = Studio(DatasetConfig(max_seconds=3.0))
    with_drums = studio.hear(builder.Task("0" * 16, "a.mid", (music / "rock" / "a.mid").read_bytes()))
    levels = shards.decode(with_drums.encoded.data, with_drums.encoded.sizes, bins=324)
    assert np.abs(levels.T / 90 - without).mean() > 1 / 90


@pytest.mark.parametrize("form", ["flac", "opus"])
def test_the_sound_that_was_transformed_is_kept_if_asked(music, tmp_path, form):
    config = DatasetConfig(max_seconds=2.0, keep_audio=form)
    for folder in ("one", "two"):
        build([music / "rock" / "a.mid", music / "field" / "bell.wav"], tmp_path / folder, config=config, jobs=1)
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")
    for row in Dataset(tmp_path / "one").songs.to_pylist():
        y, rate = soundfile.read(tmp_path / "one" / "audio" / f"{row['song_id']}.{form}")
        assert y.shape == (2 * rate, 2)
        assert np.abs(y.mean(1)).max() == pytest.approx(row["peak"], rel=0.3 if form == "opus" else 1e-3)


# --- the same bytes, however they came about -------------------------------------------------------------------------------------------


def test_two_jobs_build_what_one_does(built, music, tmp_path):
    build([music], tmp_path / "two", config=SHORT, jobs=2)
    assert bytes_below(tmp_path / "two") == bytes_below(built[0])


def test_a_cluster_of_two_nodes_builds_what_one_machine_does(built, music, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the engine ray needs Ray: pip install 'stylestream[scale]'")
    from ray.cluster_utils import Cluster

    root = str(Path(builder.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        build([music], tmp_path / "ray", config=SHORT, engine="ray")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert bytes_below(tmp_path / "ray") == bytes_below(built[0])


def begin(music: Path, folder: Path) -> subprocess.Popen[str]:
    """A build in a process group of its own, that says a word for each song."""
    code = (
        "import sys; from stylestream import builder; from stylestream.dataset import DatasetConfig\n"
        "if __name__ == '__main__':\n"
        "    config = DatasetConfig(max_seconds=3.0, shard_songs=2, timeout_seconds=120.0)\n"
        "    builder.build([sys.argv[1]], sys.argv[2], config=config, jobs=1, progress=lambda done, _: print(done.songs, flush=True))\n"
    )
    script = folder.parent / "begin.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(builder.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, str(script), str(music), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


@pytest.mark.parametrize("songs", [1, 5])
def test_a_build_that_is_killed_goes_on_to_the_same_bytes(built, music, tmp_path, songs):
    running = begin(music, tmp_path / "DATA")
    with running:
        assert running.stdout is not None
        next(line for line in running.stdout if int(line) >= songs)
        os.killpg(running.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match="a dataset that is not finished; run its `stylestream dataset build` again"):
        Dataset(tmp_path / "DATA")
    told = []
    done = build([music], tmp_path / "DATA", config=SHORT, jobs=1, progress=lambda progress, _: told.append(progress.songs))
    assert told[0] == done.resumed_songs == (songs // 2) * 2  # whole shards are not built again
    assert bytes_below(tmp_path / "DATA") == bytes_below(built[0])


def test_what_is_half_there_is_built_again(built, music, tmp_path, monkeypatch):
    """As after a crash of the machine: a shard cut short, a part that is none, scraps of temporary files."""
    monkeypatch.setattr(builder, "_write_index", fail_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        build([music], tmp_path / "DATA", config=SHORT, jobs=1)
    monkeypatch.undo()
    first, second = sorted((tmp_path / "DATA" / "shards").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:-1])
    (tmp_path / "DATA" / "parts" / f"{second.stem}.parquet").write_bytes(b"PAR1")
    (tmp_path / "DATA" / "shards" / ".00000.npz.x.part").write_bytes(b"scrap")
    build([music], tmp_path / "DATA", config=SHORT, jobs=1)
    assert bytes_below(tmp_path / "DATA") == bytes_below(built[0])


def one_bit_flipped(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)


DAMAGES = {"gone": Path.unlink, "one bit": one_bit_flipped, "cut short": lambda shard: shard.write_bytes(shard.read_bytes()[:-9])}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_finished_dataset_with_a_damaged_shard_is_repaired_to_the_same_bytes(built, music, tmp_path, capsys, damage):
    folder = tmp_path / "DATA"
    shutil.copytree(built[0], folder)
    damage(sorted((folder / "shards").iterdir())[1])
    with pytest.raises(SystemExit, match="1"):
        cli.main(["dataset", "verify", str(folder)])
    assert "the `stylestream dataset build` that made it repairs it" in capsys.readouterr().err
    heard = []
    done = build([music], folder, config=SHORT, jobs=1, progress=lambda progress, _: heard.append(progress.songs))
    assert heard == [10, 11, 12]  # the two songs of that shard, and no other
    assert (done.songs, done.resumed_songs) == (12, 10)
    assert bytes_below(folder) == bytes_below(built[0])


def test_a_repair_that_is_killed_goes_on_to_the_same_bytes(built, music, tmp_path, monkeypatch):
    folder = tmp_path / "DATA"
    shutil.copytree(built[0], folder)
    for shard in sorted((folder / "shards").iterdir())[:2]:
        one_bit_flipped(shard)
    mark = builder._mark_unfinished
    monkeypatch.setattr(builder, "_mark_unfinished", fail_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        build([music], folder, config=SHORT, jobs=1)
    monkeypatch.setattr(builder, "_mark_unfinished", mark)
    monkeypatch.setattr(builder, "_write_index", fail_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        build([music], folder, config=SHORT, jobs=1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="a dataset that is not finished"):
        Dataset(folder)
    assert build([music], folder, config=SHORT, jobs=1).resumed_songs == 12
    assert bytes_below(folder) == bytes_below(built[0])


def test_of_a_damaged_index_nothing_is_guessed(built, music, tmp_path):
    folder = tmp_path / "DATA"
    shutil.copytree(built[0], folder)
    one_bit_flipped(folder / "index.parquet")
    before = bytes_below(folder)
    with pytest.raises(ValueError, match=r"its index.parquet is damaged, .* build it anew"):
        build([music], folder, config=SHORT, jobs=1)
    assert bytes_below(folder) == before


def test_a_kept_sound_that_is_gone_is_made_again(music, tmp_path):
    config = DatasetConfig(max_seconds=2.0, shard_songs=1, keep_audio="flac")
    build([music / "field"], tmp_path / "DATA", config=config, jobs=1)
    before = bytes_below(tmp_path / "DATA")
    next(iter((tmp_path / "DATA" / "audio").iterdir())).unlink()
    assert build([music / "field"], tmp_path / "DATA", config=config, jobs=1).resumed_songs == 2
    assert bytes_below(tmp_path / "DATA") == before


def fail_with(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_full_disk_is_one_line_and_the_build_goes_on_when_there_is_room(built, music, tmp_path, monkeypatch, capsys):
    write, written = shards.ShardWriter._write, [0]

    def until_full(self: shards.ShardWriter, data: bytes) -> None:
        written[0] += len(data)
        if written[0] > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(shards.ShardWriter, "_write", until_full)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["dataset", "build", str(music), "-o", str(tmp_path / "DATA"), "--max-seconds", "3", "-j", "1"])
    assert stopped.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "stylestream: no space left on the disk; free some, or choose another place with -o"
    assert list((tmp_path / "DATA" / "shards").iterdir()) == []  # nothing that is not whole
    monkeypatch.undo()
    done = build([music], tmp_path / "DATA", config=DatasetConfig(max_seconds=3.0), jobs=1)
    assert done.songs == built[1].songs


def test_a_finished_build_is_not_begun_again_and_other_songs_are_refused(built, music, tmp_path, monkeypatch):
    shutil.copytree(built[0], tmp_path / "DATA")
    monkeypatch.setattr(builder.parallel, "over_songs", fail_with(AssertionError("nothing is to be done")))
    done = build([music], tmp_path / "DATA", config=SHORT)
    assert (done.songs, done.resumed_songs) == (12, 12)
    assert done.failures == built[1].failures
    for places, config in (([music / "rock"], SHORT), ([music], DatasetConfig(max_seconds=2.0, shard_songs=2))):
        with pytest.raises(ValueError, match="holds a dataset of other songs, options or version; choose another -o"):
            build(places, tmp_path / "DATA", config=config)
    assert bytes_below(tmp_path / "DATA") == bytes_below(built[0])


def test_a_folder_with_something_else_is_left_alone(music, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no dataset"):
        build([music / "rock"], tmp_path, config=SHORT)
    with pytest.raises(ValueError, match=r"mine\.txt is a file; choose another -o"):
        build([music / "rock"], tmp_path / "mine.txt", config=SHORT)


def test_two_builds_do_not_work_in_one_folder(music, tmp_path):
    plan = make_plan([music / "rock"], SHORT)
    with builder._alone(tmp_path / "DATA", plan), pytest.raises(ValueError, match="another build is at work in"):
        build([music / "rock"], tmp_path / "DATA", config=SHORT)


# --- the plan, and one song ------------------------------------------------------------------------------------------------------------


def test_so_many_songs_are_chosen_by_their_ids(music):
    every = make_plan([music], SHORT)
    few = make_plan([music], DatasetConfig(songs=3))
    ids = sorted(planned.song_id for planned in every.songs if not planned.failure)
    assert sorted(planned.song_id for planned in few.songs) == ids[:3]
    with pytest.raises(ValueError, match=r"no song in .*shards \(looked for \.aac"):
        (music.parent / "shards").mkdir(exist_ok=True)
        make_plan([music.parent / "shards"], SHORT)


def test_patience_and_memory_may_change_when_a_build_goes_on(music):
    assert make_plan([music], SHORT).digest == make_plan([music], DatasetConfig(max_seconds=3.0, shard_songs=2, memory_mib=1)).digest
    assert make_plan([music], SHORT).digest != make_plan([music], DatasetConfig(max_seconds=3.0, shard_songs=2, views=1)).digest


def test_no_soundfont_is_one_error_that_says_what_to_install(music, tmp_path, monkeypatch, capsys):
    missing = tmp_path / "none.sf2"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["dataset", "build", str(music / "rock"), "-o", str(tmp_path / "DATA"), "--soundfont", str(missing), "-j", "1"])
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "songs, 0.0 hours" not in line]
    assert len(lines) == 1
    assert str(missing) in lines[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 10}, "10 views; 0 to 9 can be stored"),
        ({"max_seconds": -1.0}, "max_seconds -1: 0"),
        ({"max_seconds": 1e9}, "max_seconds 1e"),
        ({"keep_audio": "mp3"}, "keep_audio 'mp3': flac or opus"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_door(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        build([tmp_path], tmp_path / "DATA", config=DatasetConfig(**settings))


def test_frames_block_by_block_are_frames_at_once(rng):
    y = rng.standard_normal(600 * 512 + 100).astype(np.float32) * 0.05
    levels, loudness = Studio(DatasetConfig(), scores=False).levels(y)
    gain = np.float32(10 ** ((-20.0 - loudness) / 20))
    whole = (LogFrequency()(torch.from_numpy(y * gain)).numpy().T * 90).round()
    assert levels.shape == whole.shape == (601, 324)
    difference = np.abs(levels - whole)
    assert difference.max() <= 1  # a rounding that falls the other way
    assert (difference > 0).mean() < 1e-3


def test_what_breaks_a_library_is_a_failure_of_that_song(monkeypatch):
    monkeypatch.setattr(builder.recipes, "melody_fingerprint", fail_with(ZeroDivisionError("by a stranger's file")))
    studio = Studio(SHORT, scores=False)
    monkeypatch.setattr(Studio, "_play", lambda self, task: builder.recipes.melody_fingerprint(task))
    with pytest.raises(ValueError, match="ZeroDivisionError: by a stranger's file"):
        builder._hear(studio, builder.Task("0" * 16, "x.mid", b"MThd"))


def test_the_verb_prints_what_was_built_and_lists_failures(music, tmp_path, capsys):
    sources = [str(music / "field"), str(music / "rock" / "a.mid")]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["dataset", "build", *sources, "-o", str(tmp_path / "DATA"), "--max-seconds", "3", "-j", "1", "--json"])
    out, err = capsys.readouterr()
    assert stopped.value.code == 1  # some songs failed
    summary = json.loads(out)
    assert (summary["songs"], summary["failed"], summary["failures"]) == (3, 1, {"it is silent": 1})
    assert summary["hours"] == pytest.approx(9 / 3600, abs=1e-4)
    assert "stylestream: nothing.wav: it is silent" in err.splitlines()
    assert re.search(r"^\d of 4 songs, 0\.0 hours of music, \d failed", err, re.MULTILINE)


@pytest.mark.data
@pytest.mark.parametrize("names", [["midi.tar.xz"], ["audio"], ["midi.csv", "audio.csv"]])
def test_the_collection_is_found_with_one_command_each_and_together(collection, names):
    from stylestream import sources

    found = [song for song in sources.find([collection / name for name in names])]
    scores = [song for song in found if song.path.endswith(".mid")]
    sounds = [song for song in found if not song.path.endswith(".mid")]
    assert not [song.problem for song in found if song.problem]
    assert (len(scores) > 16_000) == any(name.startswith(("midi", ".")) for name in names)
    assert (len(sounds) == 50) == any(name.startswith(("audio", ".")) for name in names)
    assert all(song.style and song.licence != "not stated" for song in found)


@pytest.mark.data
def test_real_scores_and_recordings_build_together(collection, tmp_path):
    needs_fluidsynth()
    config = DatasetConfig(max_seconds=3.0, songs=8)
    done = build([collection / "midi.csv", collection / "audio"], tmp_path / "DATA", config=config, jobs=1)
    data = Dataset(tmp_path / "DATA")
    assert (done.songs, len(data), sum(done.failures.values())) == (8, 8, 0)
    assert all(data.read(song).max() > 0.5 for song in range(8))
