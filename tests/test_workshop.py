"""The workshop: folders of music become style files, through interruptions and bad input."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stylestream import cli, corpus, recipes, train, views, workshop
from stylestream.baselines import load_lstm2017
from stylestream.corpus import BuildConfig, FrameStore
from stylestream.draw import Draw, DrawConfig
from stylestream.evaluate import Contenders
from stylestream.recipes import Piece
from stylestream.style import base_path, load_style_file
from stylestream.team import ALONE
from stylestream.train import TrainConfig
from stylestream.transfer import load_style
from stylestream.workshop import make_plan

RATE = 44100

CHOSEN = ("phase_iterations", "grain_power", "partial_lift")  # by each style for itself


class Killed(BaseException):
    """What no code catches."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- what is asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(cli.CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_bundled_config_is_a_training_that_can_be(path):
    tables = cli.read_config(path.stem)
    plan, start = make_plan(["music"], tables)
    assert (plan.start == "none") == (start is None) == (path.stem == "tiny")
    Draw(plan.model)
    if path.stem != "tiny":
        assert plan.model == replace(DrawConfig(), **{name: getattr(plan.model, name) for name in CHOSEN})
        for table in ("model", "train", "tune", "data"):  # whole files: nothing is hidden
            assert set(tables[table]) == {f.name for f in fields(workshop.TABLES[table])}
    if path.stem not in ("tiny", "default"):
        assert plan.data.recipe == path.stem
        assert set(tables["views"]) == {f.name for f in fields(views.ViewConfig)}


def test_there_is_a_config_for_every_bundled_style():
    from stylestream.style import list_styles

    assert {entry.name for entry in list_styles() if entry.bundled} <= {path.stem for path in cli.CONFIGS.glob("*.toml")}


def test_what_cannot_be_is_said_before_anything_is_done():
    with pytest.raises(ValueError, match=r"unknown table \[trian\]; did you mean 'train'\?"):
        make_plan(["x"], {"trian": {}})
    with pytest.raises(ValueError, match=r"unknown model 'drwa'; did you mean 'draw'\?"):
        make_plan(["x"], {}, model="drwa")
    with pytest.raises(ValueError, match="plain is trained from nothing; leave --from out"):
        make_plan(["x"], {}, model="plain", base="base")
    with pytest.raises(ValueError, match=r"\[model\] latents is 3, in base it is another; leave it out, or start from nothing"):
        make_plan(["x"], {"model": {"latents": 3}}, base="base")
    with pytest.raises(ValueError, match="unknown style 'rokc'; did you mean 'rock'"):
        make_plan(["x"], {}, base="rokc")
    with pytest.raises(ValueError, match=r"crop_frames 50 is not a multiple of 4"):
        make_plan(["x"], {"train": {"crop_frames": 50}}, base="none")
    with pytest.raises(ValueError, match=r"\[model\] n_bins is 300, and frames have 324; leave it out"):
        make_plan(["x"], {"model": {"n_bins": 300}}, base="none")
    with pytest.raises(ValueError, match=r"\[model\]: patch_bins is 0; it must be from 1 to"):
        make_plan(["x"], {"model": {"patch_bins": 0}}, base="none")
    with pytest.raises(ValueError, match=r"\[model\]: view_blocks is 10000000; it must be from 0 to 64"):
        make_plan(["x"], {"model": {"view_blocks": 10**7}}, base="none")
    with pytest.raises(ValueError, match=r"\[model\]: steps is 65; it must be from 1 to 64"):  # such a style could not be played
        make_plan(["x"], {"model": {"steps": 65}}, base="none")


@pytest.mark.parametrize(("name", "value"), [("encoder_channels", 1000), ("decoder_channels", 60_000), ("view_channels", 2**30)])
def test_a_network_that_no_style_file_has_room_for_takes_no_memory(name, value):
    said = rf"^\[model\]: {name} is {value}: a network of [\d,]+ million weights, and a style file has room for 34 million; lower it$"
    with pytest.raises(ValueError, match=said):
        make_plan(["x"], {"model": {name: value, "texture_channels": 64}}, base="none")


def test_a_start_from_weights_takes_tune_and_one_from_nothing_train():
    tables = {"train": {"learning_rate": 0.5, "minutes": 1.0}, "tune": {"learning_rate": 0.25}}
    assert make_plan(["x"], tables, base="none")[0].config == TrainConfig(learning_rate=0.5, minutes=1.0)
    assert make_plan(["x"], tables)[0].config == replace(workshop.TUNE, learning_rate=0.25)
    assert make_plan(["x"], {"train": {"batch": 3}})[0].config == replace(workshop.TUNE, batch=3)  # not ignored
    assert make_plan(["x"], tables, steps=7, seed=3)[0].config == replace(workshop.TUNE, learning_rate=0.25, steps=7, seed=3)
    assert make_plan(["x"], {"model": {"beta": 2.0}})[0].model == DrawConfig(beta=2.0)  # a loss may change


def test_views_follow_the_sources(rng, tmp_path):
    frames, phase = rng.integers(0, 240, (2, 64, 324), dtype=np.uint8), np.zeros((64, 4), np.int8)
    np.savez(tmp_path / "own-train-0-0.npz", frames=frames, phase=phase)
    store = FrameStore(tmp_path, ["own"])
    plan = make_plan(["x"], {"views": {"gain_db": 1.0}}, base="none")[0]
    assert workshop.view_config(plan, store) == views.ViewConfig(gain_db=1.0)
    store.frames = store.frames[:1]
    assert workshop.view_config(plan, store) == replace(views.RECORDINGS, gain_db=1.0)
    assert workshop.view_config(replace(plan, kind="plain"), store) == views.NEUTRAL


# --- folders of music ------------------------------------------------------------------------------------------------------

CONFIG = """
[model]
steps = 2
view_channels = 8
view_blocks = 1
canvas_channels = 4
encoder_channels = 8
decoder_channels = 8
texture_channels = 0

[train]
batch = 2
crop_frames = 32
critic_from = 1.0
score_frames = 64

[data]
views = 1
max_seconds = 4.0
excerpts = 1
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, tone) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for i, hz in enumerate((220.0, 330.0, 440.0)):
        soundfile.write(folder / f"{i}.wav", tone(5.0, hz=hz).T, RATE, subtype="PCM_16")
    return folder


def program(*arguments: object) -> list[str]:
    # a shell's background job, such as these tests may be, is deaf to SIGINT, and so are its children unless they ask
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from stylestream.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_three_scores_become_a_style_through_ctrl_c(tmp_path, tone):
    symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    from stylestream import midi

    try:
        midi.Synthesizer(midi.find_soundfont("fluidr3")).close()
    except ValueError as error:
        pytest.skip(str(error))
    (tmp_path / "music").mkdir()
    for i in range(3):
        score = symusic.Score(480)
        for part in range(2):
            score.tracks.append(symusic.Track(program=73 + part))
            score.tracks[part].notes.extend(
                [symusic.Note(240 * j, 230, 48 + 24 * part + (3 * i + (5 + 2 * i) * j) % 17, 90) for j in range(24)]
            )
        score.dump_midi(str(tmp_path / "music" / f"{i}.mid"))
    (tmp_path / "music" / "broken.mid").write_bytes(b"MThd and no more")
    (tmp_path / "small.toml").write_text(CONFIG)
    command = program("train", "music", "-o", "mine.safetensors", "-c", "small.toml", "--steps", 150, "-j", 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    checkpoint = tmp_path / "mine.safetensors.ckpt" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists():  # written before the first step
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, ""), err
    assert err.endswith("stylestream: interrupted\n")
    assert "Traceback" not in err
    assert "broken.mid: " in err
    assert not (tmp_path / "mine.safetensors").exists()
    assert (tmp_path / "mine.safetensors.ckpt" / "songs.json").exists()

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "mine.safetensors\n"), done.stderr  # 1: a song failed
    assert "1 of 4 songs could not be used" in done.stderr
    assert "stylestream: resuming from step " in done.stderr
    assert "held-out way" in done.stderr
    data = load_style_file(tmp_path / "mine.safetensors")
    assert (data.card.training_steps, data.card.sources[0].name, data.card.sources[0].songs) == (150, "music", 2)
    assert len(data.fingerprints) == 2
    assert all(data.fingerprints.values())
    style = load_style(tmp_path / "mine.safetensors")
    y = tone(1.0)
    assert np.abs(style.transfer(y, RATE) - y).max() > 0.01
    left = tmp_path / "mine.safetensors.ckpt"
    assert {path.name for path in left.iterdir()} <= {"history.json", "tensorboard", "preview"}
    assert {"curve.png", "step-150.png", "step-150.ogg"} <= {path.name for path in (left / "preview").iterdir()}
    heard, rate = soundfile.read(left / "preview" / "step-150.ogg")
    thirds = [np.abs(heard[round(share * len(heard)) :][: rate // 2]).max() for share in (0.1, 0.45, 0.8)]
    assert min(thirds) > 1e-3, "song, result and target are to be heard"


def test_the_verb_under_accelerate_makes_one_style(recordings, tmp_path):
    pytest.importorskip("accelerate", reason="several processes need accelerate: pip install 'stylestream[scale]'")
    (tmp_path / "small.toml").write_text(CONFIG)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "stylestream"]
    command = ["train", recordings, "-o", "mine.safetensors", "-c", "small.toml", "--from", "none", "--steps", 4, "-j", 1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *map(str, command)], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=200)
    assert (done.returncode, done.stdout) == (0, "mine.safetensors\n"), done.stderr  # said by the first alone
    assert load_style_file(tmp_path / "mine.safetensors").card.training_steps == 4
    assert not {path.name for path in tmp_path.iterdir()} - {"small.toml", "mine.safetensors", "mine.safetensors.ckpt"}


def test_a_style_is_made_from_recordings_and_the_base(recordings, tmp_path):
    said: list[str] = []
    phases: list[str] = []
    config = {"tune": {"batch": 1, "crop_frames": 32, "critic_from": 1.0, "score_frames": 32}}
    done = workshop.train(
        [recordings],
        tmp_path / "bells.safetensors",
        config=config,
        steps=2,
        jobs=1,
        say=said.append,
        progress=lambda p, *_: phases.append(p),
    )
    assert any("only 10 s of music to train on" in line for line in said)
    assert {"rendering", "training"} == set(phases)
    assert done.failures == {}
    data, base = load_style_file(done.path), load_style_file(base_path())
    assert data.weights["style"].shape == (1, 32)
    assert torch.equal(data.weights["encoder.weight"], base.weights["encoder.weight"])  # frozen
    assert not torch.equal(data.weights["decoder.weight"], base.weights["decoder.weight"])
    assert data.card.metrics["held-out frames"]["copy_db"] > 1
    assert "StyleStream base" in data.card.notes
    assert len(data.fingerprints) == len(base.fingerprints) + 2
    assert load_style(done.path).draw.config == DrawConfig()


def test_the_baselines_are_trained_on_the_same_sources(recordings, tmp_path):
    folder = tmp_path / "baselines"
    tables = cli.read_config(str(_written(tmp_path)))
    for model in ("plain", "lstm2017"):
        workshop.train([recordings], folder / f"bells-{model}.safetensors", config=tables, steps=2, jobs=1, model=model)
    shutil.copy(folder / "bells-plain.safetensors", tmp_path / "bells.safetensors")
    found = Contenders.find(tmp_path / "bells.safetensors")
    assert found.missing() == []
    assert load_style(folder / "bells-plain.safetensors").draw.config.steps == 2
    lstm = load_style_file(folder / "bells-lstm2017.safetensors")
    load_lstm2017(lstm)
    assert (lstm.card.training_steps, lstm.card.sources[0].songs) == (2, 2)
    with pytest.raises(ValueError, match="a baseline"):
        make_plan(["x"], {}, base=folder / "bells-lstm2017.safetensors")


def _written(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text(CONFIG)
    return path


def test_what_a_killed_process_left_half_written_is_swept_up(tmp_path):
    plan = make_plan(["x"], {}, base="none")[0]
    workshop._open_folder(tmp_path, plan)
    (tmp_path / "last.safetensors").write_bytes(b"")
    for place in (tmp_path, tmp_path / "frames", tmp_path / "preview"):
        place.mkdir(exist_ok=True)
        (place / ".stylestream-x1.part").write_bytes(b"half")
    workshop._open_folder(tmp_path, plan)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["frames", "last.safetensors", "plan.json", "preview"]


def test_what_lies_in_a_folder_without_a_plan_is_not_taken_up(tmp_path):
    """As a process leaves it that was killed while it tidied up."""
    (tmp_path / "frames").mkdir()
    for name in ("last.safetensors", "best.safetensors", "songs.json", "style.safetensors", "history.json", "frames/own-train-1-0.npz"):
        (tmp_path / name).write_bytes(b"another's")
    workshop._open_folder(tmp_path, make_plan(["x"], {}, base="none")[0])
    assert {path.name for path in tmp_path.rglob("*")} == {"plan.json", "history.json"}  # logs may stay


def test_the_plan_goes_last(tmp_path, monkeypatch):
    unlink, there = Path.unlink, list[bool]()
    (tmp_path / "frames").mkdir()
    for name in (
        "plan.json",
        "songs.json",
        "last.safetensors",
        "best.safetensors",
        "style.safetensors",
        "done.json",
        "frames/own-train-1-0.npz",
    ):
        (tmp_path / name).write_bytes(b"")

    def watched(path: Path, **how: Any) -> None:
        there.append((tmp_path / "plan.json").exists())
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", watched)
    workshop._tidy(tmp_path)
    assert there == [True] * 6
    assert not list(tmp_path.iterdir())


def test_another_plan_does_not_get_the_songs_of_the_one_before(tmp_path):
    workshop._open_folder(tmp_path, make_plan(["a"], {}, base="none")[0])
    (tmp_path / "songs.json").write_text("{}")  # of a dataset, which is listed and not rendered; then it was interrupted
    workshop._open_folder(tmp_path, make_plan(["b"], {}, base="none")[0])
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_two_trainings_do_not_work_in_one_folder(tmp_path):
    out, half = tmp_path / "a.safetensors", tmp_path / "a.safetensors.ckpt" / ".last.safetensors.x1.part"
    with (
        workshop._workbench(half.parent),
        pytest.raises(ValueError, match=r"another training is at work in .*a\.safetensors\.ckpt; wait for it"),
    ):
        half.write_bytes(b"the other's")
        workshop.train([tmp_path], out, base="none", steps=1)
    assert half.exists()
    with pytest.raises(ValueError, match="no music"):  # it has let go
        workshop.train([tmp_path], out, base="none", steps=1)


def test_a_folder_of_another_training_is_not_gone_on_with(tmp_path):
    folder = tmp_path / "a.safetensors.ckpt"
    plan = make_plan(["music"], {}, base="none", steps=10)[0]
    workshop._open_folder(folder, make_plan(["typo"], {}, base="none", steps=10)[0])
    workshop._open_folder(folder, plan)  # nothing had been done
    (folder / "last.safetensors").write_bytes(b"")
    workshop._open_folder(folder, make_plan(["music"], {}, base="none", steps=10)[0])
    with pytest.raises(ValueError, match=r"holds another training \(\[train\] steps was 10, now 11\); give the same command to go on"):
        workshop._open_folder(folder, make_plan(["music"], {}, base="none", steps=11)[0])
    with pytest.raises(ValueError, match=r"sources was \['.*music'\], now \['.*other'\]"):
        workshop._open_folder(folder, make_plan(["other"], {}, base="none", steps=10)[0])


def test_where_there_is_no_music_nothing_is_left(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, error in (("empty", ValueError), ("missing", FileNotFoundError)):
        with pytest.raises(error, match=r"no music in|no such file or folder"):
            workshop.train([tmp_path / source], tmp_path / "a.safetensors", steps=1, base="none")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_minutes_count_rendering_and_leave_some_for_training(recordings, tmp_path, monkeypatch):
    seen: list[TrainConfig] = []

    def fit_folder(plan: workshop.Plan, *_: Any) -> Any:
        seen.append(plan.config)
        raise Killed

    monkeypatch.setattr(workshop, "_fit_folder", fit_folder)
    prepared = corpus.Prepared([], {}, {}, 30.0)
    monkeypatch.setattr(corpus, "prepare", lambda *_, seconds, **__: replace(prepared, seconds=min(seconds, prepared.seconds)))
    for minutes, left in ((4.0, 3.5), (0.5, 0.375)):
        with pytest.raises(Killed):
            workshop.train([recordings], tmp_path / f"{minutes}.safetensors", minutes=minutes)
        assert seen[-1].minutes == pytest.approx(left)
        assert seen[-1].score_seconds == pytest.approx(60 * left / 8)  # eight scores at least


def test_a_recipe_is_named_by_the_output_only_for_a_collection(tmp_path, monkeypatch):
    asked: list[BuildConfig] = []

    def prepare(sources: Any, folder: Any, config: BuildConfig, **_: Any) -> Any:
        asked.append(config)
        raise Killed

    monkeypatch.setattr(corpus, "prepare", prepare)
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection" / "midi.csv").write_text("path\n")
    for source in ("collection", "folder"):
        with pytest.raises(Killed):
            workshop.train([tmp_path / source], tmp_path / source / "rock.safetensors", steps=1)
    assert [config.recipe for config in asked] == ["rock", ""]


# --- music as it comes -----------------------------------------------------------------------------------------------------


def small_style(
    tmp_path: Path, sources: list[Path], *, name: str = "mine.safetensors", **options: Any
) -> tuple[workshop.Trained, list[str]]:
    said: list[str] = []
    tables = cli.read_config(str(_written(tmp_path)))
    return workshop.train(sources, tmp_path / name, config=tables, jobs=1, base="none", say=said.append, **options), said


def test_twenty_seconds_of_mixed_rates_and_channels_are_a_style_with_a_warning_and_a_card(tmp_path, tone):
    (tmp_path / "music").mkdir()
    for i, (rate, channels) in enumerate(((8000, 1), (22050, 2), (48000, 1))):
        y = tone(6.5, hz=220.0 * (i + 2) / 2, sample_rate=rate, channels=channels)
        soundfile.write(tmp_path / "music" / f"{i}.wav", y.T, rate)
    done, said = small_style(tmp_path, [tmp_path / "music"], steps=3)
    assert done.failures == {}
    assert any("0:19 of music in all; with less than 3 minutes a style learns songs, not a sound" in line for line in said)
    assert said[-1].startswith("no drums: 0 of 2 recordings listened to have drums (of most,")
    card = load_style_file(done.path).card
    assert card.licence == "not stated"
    assert card.description.startswith("The sound of 2 songs")
    assert "it has heard only 0:13 of music" in card.limits
    assert "ask before you pass it on" in card.limits
    assert card.intended_use
    assert 0 < card.metrics["held-out frames"]["ceiling"] <= 1
    assert card.training_device == "cpu, 1 threads"
    lines = list(cli.card_lines(card, done.path))
    assert any(line.startswith("limits: it paints tones") for line in lines)


def test_a_first_look_says_what_is_odd(tmp_path, tone):
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(3):
        soundfile.write(folder / f"same{i}.wav", tone(5.0).T, RATE)
    look = workshop.first_look([str(folder)], BuildConfig(audio_seconds=2.0))
    assert "all 3 files looked at are the same file; it counts once, and a style of one song is that song" in look
    assert any(
        line.startswith("3 of 3 files looked at are long (same") and "0:05); of one recording at most 0:02 are used" in line
        for line in look
    )
    soundfile.write(folder / "silence.wav", np.zeros((5 * RATE, 2)), RATE)
    assert "1 of 4 files looked at are silent; they are left out" in workshop.first_look([str(folder)], BuildConfig())
    with (folder / "ten hours.wav").open("wb") as file:  # as far as one can see without listening
        file.truncate(10 * 3600 * RATE * 4)
    look = workshop.first_look([str(folder)], BuildConfig())
    assert look[0].startswith("1 of 5 files are very long (ten hours.wav); of one recording at most 10:00 are used")
    assert workshop.first_look([str(folder)], BuildConfig(), seconds=-1.0)[1:] == []  # the time is up
    with soundfile.SoundFile(tmp_path / "night.flac", "w", 8000, 1) as file:  # packed to a few megabytes, and as long
        file.write(tone(5.0).mean(0))
        for _ in range(61):
            file.write(np.zeros(60 * 8000))
    assert workshop.first_look([str(tmp_path / "night.flac")], BuildConfig())[0].startswith("1 of 1 files are very long (night.flac)")


def test_of_ten_hours_in_one_file_the_beginning_is_a_style(tmp_path, tone):
    (tmp_path / "music").mkdir()
    minute = tone(60.0, sample_rate=8000, channels=1)[0]
    with soundfile.SoundFile(tmp_path / "music" / "night.flac", "w", 8000, 1) as file:
        for i in range(600):
            file.write(minute * (0.2 + 0.7 * (i % 7) / 7))
    tables = cli.read_config(str(_written(tmp_path)))
    tables["data"]["audio_seconds"] = 20.0
    said: list[str] = []
    how: dict[str, Any] = {"config": tables, "jobs": 1, "base": "none", "steps": 2, "say": said.append}
    done = workshop.train([tmp_path / "music"], tmp_path / "night.safetensors", **how)
    assert "1 of 1 files are very long (night.flac); of one recording at most 0:20 are used" in said[0]
    assert done.failures == {}
    assert "it has heard only 0:16 of music" in load_style_file(done.path).card.limits  # the end of the twenty seconds is held out


def test_a_style_appears_when_it_has_its_drums_and_not_before(recordings, tmp_path, monkeypatch):
    """Though it be called like the checkpoint that it must not be mistaken for."""
    out = "last.safetensors"
    with monkeypatch.context() as broken:
        broken.setattr(workshop, "add_drums", lambda *_: fail())
        with pytest.raises(KeyboardInterrupt):
            small_style(tmp_path, [recordings], name=out, steps=3)
    assert not (tmp_path / out).exists()
    done, said = small_style(tmp_path, [recordings], name=out, steps=3)  # the same command goes on
    assert any("resuming from step 3" in line for line in said)
    assert said[-1].startswith("no drums")
    assert load_style_file(done.path).card.training_steps == 3
    assert not list((tmp_path / f"{out}.ckpt").glob("*.safetensors"))


def test_a_training_killed_at_any_step_of_its_tidying_ends_quietly_by_the_same_command(tmp_path, monkeypatch):
    out, folder = tmp_path / "mine.safetensors", tmp_path / "mine.safetensors.ckpt"
    tables, said = cli.read_config(str(_written(tmp_path))), list[str]()
    again = {"config": tables, "steps": 1, "base": "none", "say": said.append}
    plan = make_plan([tmp_path / "music"], tables, steps=1, base="none")[0]  # no music is there any more, nor needed
    trained = workshop.Trained(out, 3, {"broken.mid": "no score"}, {"score/way": 0.5})
    unlink, replaced, rmtree = Path.unlink, Path.replace, shutil.rmtree
    for last in range(9):  # at which it is killed: the move of the style to its place, or a removal; at 8, that of the plan, it is over
        out.unlink(missing_ok=True)
        workshop._open_folder(folder, plan)
        (folder / "frames").mkdir()
        for name in ("songs.json", "last.safetensors", "best.safetensors", "frames/own-train-1-0.npz"):
            (folder / name).write_bytes(b"")
        (folder / workshop.DRAFT).write_bytes(b"the style")
        left = iter(range(last, -1, -1))

        def counted(function: Any, *args: Any, left: Iterator[int] = left, **how: Any) -> Any:
            if next(left, 1) == 0:
                raise Killed
            return function(*args, **how)

        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            patched.setattr(Path, "replace", functools.partialmethod(lambda *args, **how: counted(replaced, *args, **how)))
            patched.setattr(Path, "unlink", functools.partialmethod(lambda *args, **how: counted(unlink, *args, **how)))
            patched.setattr(shutil, "rmtree", functools.partial(counted, rmtree))
            workshop._finish(folder, trained)
        assert workshop.is_untidy(out) == (last < 8)
        if last < 8:
            assert workshop.train([tmp_path / "music"], out, **again) == trained
        assert out.read_bytes() == b"the style"
        assert {path.name for path in folder.iterdir()} <= {"plan.json"}
    assert said == []


def test_a_style_that_was_moved_away_before_its_training_had_tidied_up_is_trained_anew(tmp_path):
    folder, plan = tmp_path / "mine.safetensors.ckpt", make_plan(["music"], {}, base="none")[0]
    workshop._open_folder(folder, plan)
    (folder / workshop.DONE).write_text("[1, {}, {}]")
    (folder / "songs.json").write_text("of frames that are gone")
    workshop._open_folder(folder, plan)
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
    (folder.with_suffix("")).write_bytes(b"the style")
    (folder / workshop.DONE).write_text("[1, {}, {}]")
    with pytest.raises(ValueError, match="holds another training"):  # which must not replace it
        workshop._open_folder(folder, make_plan(["other"], {}, base="none")[0])


def fail() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("setting", [{"minutes": 0.0}, {"crop_frames": 0}, {"batch": -1}, {"threads": -1}, {"ema": 1.5}])
def test_a_setting_out_of_its_range_is_said_before_anything_is_done(setting):
    with pytest.raises(ValueError, match=rf"\[tune\]: {next(iter(setting))} is .*; it must be"):
        make_plan(["x"], {"tune": setting})


def test_silence_alone_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "music").mkdir()
    for i in range(2):
        soundfile.write(tmp_path / "music" / f"{i}.wav", np.zeros(5 * RATE + i), RATE)
    with pytest.raises(ValueError, match=r"no song can be used: .*: it is silent"):
        small_style(tmp_path, [tmp_path / "music"], steps=1)
    assert not (tmp_path / "mine.safetensors.ckpt").exists()


def test_of_an_only_song_that_ends_in_silence_the_start_is_held_out(tmp_path, tone):
    """And of one with music at neither end, one line says that it is too little: no song is rendered for ever."""
    quiet, music = np.zeros((2, 8 * RATE)), tone(20.0)
    for name, parts in (("late.wav", [music, quiet]), ("amid.wav", [quiet, music[:, : 4 * RATE], quiet])):
        soundfile.write(tmp_path / name, np.concatenate(parts, axis=1).T, RATE)
    prepared = corpus.prepare([tmp_path / "late.wav"], tmp_path / "late", BuildConfig(), jobs=1)
    lengths = {song["split"]: song["seconds"] for song in prepared.songs}
    assert lengths == {"train": pytest.approx(0.8 * 28, abs=0.1), "valid": pytest.approx(0.2 * 28, abs=0.1)}
    held_out, heard = (FrameStore(tmp_path / "late", ["own"], split=split).frames for split in ("valid", "train"))
    assert held_out[0, :400].float().mean() > heard[0, -400:].float().mean() + 10  # music, and the silence after it
    with pytest.raises(ValueError, match=r"amid.wav: too little of it is music to train on one part and score on another"):
        corpus.prepare([tmp_path / "amid.wav"], tmp_path / "amid", BuildConfig(), jobs=1)


def test_music_that_is_all_alike_is_said_so(tmp_path):
    row = np.full(324, 60)
    row[36:180:36] = 200  # one note in four octaves
    frames = np.broadcast_to(row, (1, 400, 324)).astype(np.uint8)
    for i in range(2):
        np.savez(tmp_path / f"own-train-{i}-0.npz", frames=frames, phase=np.zeros((400, 4), np.int8))
    lines = " ".join(workshop.sameness(FrameStore(tmp_path, ["own"])))
    assert "on three notes" in lines
    assert "equally loud from beginning to end" in lines
    assert "all songs sound the same" in lines
    rng = np.random.default_rng(0)
    for i in range(2):
        loud = rng.integers(0, 100, (1, 400, 324)) * rng.uniform(0.5, 2, (1, 400, 1))
        np.savez(tmp_path / f"own-train-{i}-0.npz", frames=loud.astype(np.uint8), phase=np.zeros((400, 4), np.int8))
    lines = " ".join(workshop.sameness(FrameStore(tmp_path, ["own"])))
    assert "three notes" not in lines
    assert "equally loud" not in lines


def test_music_that_the_base_has_heard_is_said_so():
    start = load_style_file(base_path())
    songs = dict(list(start.fingerprints.items())[:2])
    heard = workshop.known_already({**songs, "x": []}, start)
    assert heard.startswith("2 of 3 songs are in StyleStream base already")
    assert workshop.known_already({str(i): list(range(i, i + 24)) for i in range(3)}, start) == ""
    assert workshop.known_already(songs, None) == ""


def test_music_that_the_base_has_heard_is_said_so_before_it_is_rendered(recordings, tmp_path, monkeypatch):
    ids = [song.id for song in corpus.find_music([recordings], BuildConfig())]
    plan, start = make_plan([recordings], {}, steps=1)
    assert start is not None
    said: list[str] = []

    def rendering(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(corpus, "_render_parts", rendering)
    with pytest.raises(Killed):
        known = replace(start, fingerprints={song: [] for song in ids[:2]})
        workshop._prepare(plan, known, tmp_path, None, 1, lambda *_: None, said.append)
    assert said[-1].startswith("warning: 2 of 3 songs are in StyleStream base already")


def test_a_base_of_another_version_is_one_line(tmp_path, tiny_style):
    data = tiny_style.read_bytes()
    newer = tmp_path / "newer.safetensors"
    newer.write_bytes(data.replace(b'\\"format_version\\":1', b'\\"format_version\\":9', 1))
    assert newer.read_bytes() != data
    with pytest.raises(ValueError, match=r"in style format 9, this is .* and reads format 3; upgrade with"):
        make_plan(["x"], {}, base=str(newer))
    for before, after, message in (
        (rb"\"beta\"", rb"\"wing\"", r"unknown setting 'wing' in DrawConfig; upgrade with"),
        (
            rb"\"floor_db\":-90.0",
            rb"\"floor_db\":-80.0",
            r"its frames are not those of this StyleStream; get a style file of this version",
        ),
    ):
        assert before in data
        newer.write_bytes(data.replace(before, after, 1))
        with pytest.raises(ValueError, match=message):
            make_plan(["x"], {}, base=str(newer))


def test_of_music_that_the_memory_does_not_hold_a_part_is_taken_and_said_so(recordings, tmp_path):
    plan, said = make_plan([recordings], {}, base="none", steps=1)[0], list[str]()
    room = 1.5 * 5 * 27_909 / corpus.SPLIT_SHARES["train"]  # for one song of five seconds, and half of the next
    prepared = workshop._prepare(plan, None, tmp_path, None, 1, lambda *_: None, said.append, room)
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {song["name"] for song in prepared.songs}
    assert sorted(song["split"] for song in prepared.songs) == ["train", "valid"]
    assert any("2 of 3 songs and excerpts, drawn by hash, are used: more do not fit into the 0.0 GiB" in line for line in said)
    about = workshop.card("mine", prepared, "cpu")
    assert (about.sources[0].songs, prepared.found, prepared.failures) == (1, 3, {})  # the card does not boast of the others
    again = workshop._prepare(plan, None, tmp_path, None, 1, lambda *_: None, said.append, 1e12)
    assert again == prepared  # the same training, though there is more memory now


def test_the_processes_of_a_team_share_the_memory_for_songs(monkeypatch):
    monkeypatch.setattr(workshop.parallel, "free_memory_bytes", lambda: 8e9)
    assert workshop.room_for_songs(ALONE) == 8e9 * workshop.SONGS_SHARE
    assert workshop.room_for_songs(replace(ALONE, size=4)) == 2e9 * workshop.SONGS_SHARE


def test_a_built_dataset_is_trained_on(tmp_path, tone):
    pytest.importorskip("pyarrow", reason="datasets need pyarrow: pip install 'stylestream[train]'")
    from stylestream.builder import build

    (tmp_path / "music").mkdir()
    for i in range(6):
        soundfile.write(tmp_path / "music" / f"{i}.wav", tone(4.0, hz=110.0 * (i + 2)).T, RATE)
    build([tmp_path / "music"], tmp_path / "data", jobs=1)
    done, _ = small_style(tmp_path, [tmp_path / "data"], steps=2)
    data = load_style_file(done.path)
    assert data.card.training_steps == 2
    assert 2 <= data.card.sources[0].songs <= 6
    assert len(data.fingerprints) == data.card.sources[0].songs
    plan = make_plan([tmp_path / "data"], {}, base="none")[0]
    some = workshop._listed(plan, plan.sources).within(3.5 * 4 * 27_909 / corpus.SPLIT_SHARES["train"])  # room for three
    held = [song[0] for store in workshop._stores(plan, some, tmp_path, "cpu") for song in store.songs]
    assert sorted(held) == sorted(song["id"] for song in some.songs)
    assert 3 <= len(held) <= 4
    with pytest.raises(ValueError, match="a dataset is trained on alone"):
        workshop.train([tmp_path / "data", tmp_path / "music"], tmp_path / "b.safetensors", steps=1, base="none")


def test_a_line_tells_speed_losses_scores_and_the_time_left(tmp_path):
    said: list[str] = []
    config = TrainConfig(minutes=10, batch=4, crop_frames=128)
    network = workshop.construct(workshop.DrawConfig, {"steps": 2, "encoder_channels": 8, "decoder_channels": 8, "texture_channels": 0}, "")
    state = train.new_state(network, config)
    watch = workshop.Watch(config, state, None, tmp_path, None, lambda phase, done, text: said.append(text), lambda row: None)
    state.step, state.seconds, state.history = 20, 30.0, [{"score/way": 0.42}]
    watch.ceiling = 0.9
    watch.tick(state, 0.5, {"loss/l1_db": torch.tensor(3.2), "loss/kl": torch.tensor(1.5)})
    assert said == ["step 20 · 4 s of music a second · L1 3.20 dB · KL 1.50 · way 42 %, copying 0, ceiling 90 · 5:00 left"]


def test_where_minutes_count_the_faster_number_of_threads_is_found_by_a_trial(tmp_path, rng, monkeypatch):
    frames = rng.integers(0, 240, (1, 64, 324), dtype=np.uint8)
    np.savez(tmp_path / "own-train-0-0.npz", frames=frames, phase=np.zeros((64, 4), np.int8))
    store, tables = FrameStore(tmp_path, ["own"]), cli.read_config(str(_written(tmp_path)))
    tables["train"]["batch"] = 0  # as the machine likes
    plan = make_plan(["x"], tables, base="none", minutes=6000.0)[0]
    crops: list[int] = []
    step = train.train_step
    monkeypatch.setattr(workshop, "train_step", lambda *args: crops.append(args[2].batch) or step(*args))  # type: ignore[func-returns-value]
    torch.set_num_threads(2)
    with workshop._threads(plan, store, views.ViewConfig(), "cpu"):
        assert torch.get_num_threads() in (1, 2)
    assert torch.get_num_threads() == 2
    assert crops == [train.LEAST_BATCH] * 4
    with workshop._threads(replace(plan, config=replace(plan.config, steps=5)), store, views.ViewConfig(), "cpu"):
        assert torch.get_num_threads() == 2  # nothing is tried
    assert len(crops) == 4


@pytest.fixture
def trial(tmp_path, rng) -> tuple[workshop.Plan, FrameStore]:
    np.savez(tmp_path / "own-train-0-0.npz", frames=rng.integers(0, 240, (1, 64, 324), dtype=np.uint8), phase=np.zeros((64, 4), np.int8))
    return make_plan(["x"], cli.read_config(str(_written(tmp_path))), base="none", minutes=10.0)[0], FrameStore(tmp_path, ["own"])


def test_a_trial_that_takes_too_long_is_ended_and_nothing_changed(trial, monkeypatch):
    (plan, store), now = trial, [0.0]

    def slow(*_: Any) -> None:
        now[0] += 6.1  # of ten minutes, more than one in a hundred

    monkeypatch.setattr(workshop, "train_step", slow)
    monkeypatch.setattr(workshop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    torch.set_num_threads(2)
    with workshop._threads(plan, store, views.ViewConfig(), "cpu"):
        assert torch.get_num_threads() == 2
    assert now == [6.1]


def test_a_trial_that_runs_out_of_memory_is_ended_and_nothing_changed(trial, monkeypatch):
    def failing(message: str) -> Any:
        def step(*_: Any) -> None:
            raise RuntimeError(message)

        return step

    plan, store = trial
    torch.set_num_threads(2)
    monkeypatch.setattr(workshop, "train_step", failing("DefaultCPUAllocator: can't allocate memory"))
    with workshop._threads(plan, store, views.ViewConfig(), "cpu"):
        assert torch.get_num_threads() == 2
    monkeypatch.setattr(workshop, "train_step", failing("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"), workshop._threads(plan, store, views.ViewConfig(), "cpu"):
        pass
    assert torch.get_num_threads() == 2


class FullDisk:
    """A writer of logs where there is no space left."""

    told = 0

    def add_scalar(self, *_: Any) -> None:
        self.told += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_is_given_up(tmp_path):
    rows: list[dict[str, float]] = []
    writer, state = FullDisk(), SimpleNamespace(step=0, seconds=0.0)
    watch = workshop.Watch(TrainConfig(), state, None, tmp_path, writer, lambda *_: None, rows.append)
    watch.ceiling = 0.9
    for step in (1, 2):
        watch.report({"step": step, "seconds": 1.0, "progress": 0.1})
    assert ([row["step"] for row in rows], writer.told) == ([1, 2], 1)


def test_a_log_that_cannot_be_begun_or_ended_does_not_end_the_training(tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="logs need tensorboard: pip install 'stylestream[train]'")
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    with workshop._tensorboard(tmp_path, 0, ALONE) as writer:
        assert writer is None

    def close(self: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    whole = tensorboard.SummaryWriter.close
    monkeypatch.setattr(tensorboard.SummaryWriter, "close", close)
    with workshop._tensorboard(tmp_path / "else", 0, ALONE) as writer:
        assert writer is not None
    whole(writer)


# --- what is held out, and what cannot be read or written ------------------------------------------------------------------


def a_song(path: str, size: int = 1000) -> corpus.Song:
    return corpus.Song(Piece(path), recipes.song_id(path.encode()), path.encode().ljust(size))


def held_out(songs: list[corpus.Song]) -> set[str]:
    assert "valid" not in {song.piece.split for song in songs}  # or chance has nothing to decide
    parts = corpus.plan(songs, BuildConfig())
    assert parts == corpus.plan(songs[::-1], BuildConfig())
    return {part.song.piece.group for part in parts if part.split == "valid"}


def test_where_chance_decides_the_smallest_group_is_held_out():
    groups = [f"mutopia/{i}" for i in range(60) if recipes.split_of(f"mutopia/{i}") == "train"]
    first, second, *_, last = sorted(groups, key=recipes.text_hash)
    movements = [a_song(f"{first}__{number}.mid") for number in range(3)]
    assert {song.piece.group for song in movements} == {first}
    assert held_out([*movements, a_song(f"{last}.mid"), a_song(f"{second}__7.mid")]) == {second}
    assert held_out([*movements, a_song(f"{last}__7.mid")]) == {last}


@pytest.mark.parametrize("sizes", [(1000, 9000), (9000, 1000)])
def test_of_two_songs_the_shorter_is_held_out(tmp_path, sizes):
    songs = [a_song(f"{name}.mid", size) for name, size in zip("ab", sizes, strict=True)]
    assert held_out(songs) == {"a.mid" if sizes[0] < sizes[1] else "b.mid"}
    for song in songs:
        (tmp_path / song.piece.path).write_bytes(song.content)
    assert held_out([replace(song, content=tmp_path / song.piece.path) for song in songs]) == held_out(songs)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read by anyone")
def test_a_file_that_cannot_be_read_is_a_failure_by_its_name(tmp_path, tone, monkeypatch):
    (tmp_path / "music").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "music" / f"{i}.wav", tone(5.0, hz=220.0 * (i + 2) / 2).T, RATE)
    for name in ("locked.mid", "locked.flac"):
        (tmp_path / "music" / name).symlink_to("/proc/self/mem")
    (tmp_path / "music" / "endless.mid").write_bytes(b"MThd" * 100)
    monkeypatch.setattr(corpus, "MAX_MEMBER_BYTES", 200)
    done, said = small_style(tmp_path, [tmp_path / "music"], steps=1)
    assert done.failures == {
        "locked.mid": "it cannot be read (Input/output error)",
        "locked.flac": "it cannot be read (Input/output error)",
        "endless.mid": "larger than 0 MiB; no score is",
    }
    assert {f"{name}: {reason}" for name, reason in done.failures.items()} <= set(said)
    assert done.songs == 6


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of POSIX")
def test_a_disk_that_is_full_while_it_renders_is_no_fault_of_the_songs(recordings, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: the write fails, the process lives
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            corpus.prepare([recordings], tmp_path / "frames", BuildConfig(), jobs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    prepared = corpus.prepare([recordings], tmp_path / "frames", BuildConfig(), jobs=1)  # the same goes on
    assert prepared.failures == {}
    assert len(prepared.songs) == 3
