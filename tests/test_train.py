"""Training: it learns, it resumes bit for bit, and the verb makes style files of folders of music."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from stylestream import cli, dataset, train, views
from stylestream.baselines import load_lstm2017
from stylestream.dataset import BuildConfig, FrameStore
from stylestream.draw import Draw, DrawConfig
from stylestream.evaluate import Contenders
from stylestream.style import load_style_file
from stylestream.train import State, TrainConfig, construct, learning_rate, make_plan
from stylestream.transfer import load_style

RATE = 44100
TINY = DrawConfig(steps=2, view_channels=8, view_blocks=1, canvas_channels=4, encoder_channels=8, decoder_channels=16, texture_channels=8)
SHORT = TrainConfig(steps=12, batch=2, crop_frames=32, critic_from=0.5, texture_from=0.3, score_frames=64)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_songs(folder: Path) -> Path:
    """Frames that can be learnt: drifting partials an octave wide, bright in the target, dull in the views."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    row, t = np.arange(324)[:, None], np.arange(200)[None]
    for index, split in enumerate(("train", "train", "valid")):
        base = rng.integers(30, 120) + np.cumsum(rng.integers(-1, 2, 25)).repeat(8)[None, :200]
        partials = 0.5 + 0.5 * np.cos(2 * np.pi * (row - base) / 36)
        loud = 0.6 + 0.2 * np.cos(2 * np.pi * t / 40)
        roles = [loud * partials * (1 - dull * row / 324) + 0.05 for dull in (0.1, 0.9, 0.7)]
        frames = dataset.to_bytes(np.stack(roles).transpose(0, 2, 1))
        angle = 2 * np.pi * t[0] / 40
        phase = np.stack([np.sin(angle), np.cos(angle), np.sin(angle / 4), np.cos(angle / 4)], 1)
        np.savez(folder / f"own-{split}-{index}-0.npz", frames=frames, phase=np.rint(127 * phase).astype(np.int8))
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    return write_songs(tmp_path_factory.mktemp("frames"))


def stores(frames: Path) -> tuple[FrameStore, FrameStore]:
    return FrameStore(frames, ["own"], split="train"), FrameStore(frames, ["own"], split="valid")


def fit(folder: Path, frames: Path, config: TrainConfig = SHORT) -> State:
    """Begin, or go on."""
    state = train.new_state(TINY, config)
    train.load_checkpoint(state, folder)
    return train.fit(state, *stores(frames), config, views.ViewConfig(), folder)


# --- it learns -------------------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_as_a_cosine_of_the_progress_alone():
    config = TrainConfig(learning_rate=1.0, warmup=0.1, final_rate=0.2)
    assert learning_rate(0.0, config) == pytest.approx(0.01)
    assert learning_rate(0.05, config) == pytest.approx(0.5)
    assert learning_rate(0.1, config) == pytest.approx(1.0)
    assert learning_rate(0.55, config) == pytest.approx(0.6)  # half way down
    assert learning_rate(1.0, config) == learning_rate(1.5, config) == pytest.approx(0.2)
    assert learning_rate(0.1 + 0.9 / 4, config) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_it_overfits_one_patch(frames):
    store = stores(frames)[0]
    store.songs = [(store.songs[0][0], 0, 0, 32)]  # one crop is all there is
    config = replace(SHORT, steps=150, learning_rate=5e-3, critic_from=1.0, texture_from=1.0, kl_warmup=1e3, final_rate=0.1)
    state = train.new_state(TINY, config)
    train.set_mean_frames(state, store)
    errors = [
        float(train.train_step(state, store, config, views.NEUTRAL, step / config.steps)["loss/l1_db"]) for step in range(config.steps)
    ]
    assert errors[0] > 5
    assert np.mean(errors[-10:]) < 0.7


def test_the_gradient_reaches_every_parameter(frames):
    store = stores(frames)[0]
    state = train.new_state(TINY, SHORT)
    train.set_mean_frames(state, store)
    for step in range(2):  # in the first, what is multiplied by a zero that will be learnt has none
        state.step = step
        train.train_step(state, store, SHORT, views.ViewConfig(), 0.9)
    silent = [name for name, p in state.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    silent = [name for name, p in state.critic.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert all(name.endswith(".4.bias") for name in silent)  # of a score: the hinge pulls it up and down alike at first


def test_a_frozen_encoder_keeps_its_weights_and_the_rest_does_not(frames):
    store, config = stores(frames)[0], replace(SHORT, freeze_encoder=True)
    state = train.new_state(TINY, config)
    before = {name: p.clone() for name, p in state.model.named_parameters()}
    train.train_step(state, store, config, views.ViewConfig(), 0.9)
    moved = {name.split(".")[0] for name, p in state.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved >= {"decoder", "write", "p", "style", "start", "texture"}
    assert not moved & {"read", "encoder", "q"}


def test_the_critics_pull_on_the_canvas_has_the_norm_that_is_asked_for(frames):
    state = train.new_state(TINY, SHORT)
    canvas, target = torch.rand(2, 2, 324, 32, generator=torch.Generator().manual_seed(0))
    before = [p.clone() for p in state.critic.parameters()]
    pull, hinge = train.critic_gradient(state, canvas, target, torch.zeros(2, dtype=torch.long), 0.01)
    assert float(pull.norm()) == pytest.approx(0.01 * TINY.range_db / TINY.scale_db, rel=1e-3)
    assert float(hinge) == pytest.approx(4.0, abs=1.5)  # a critic that knows nothing: 2 at each of two scales
    assert any(not torch.equal(p, old) for p, old in zip(state.critic.parameters(), before, strict=True))


def test_the_average_moves_a_share_towards_the_weights():
    state = train.new_state(TINY, SHORT)
    with torch.no_grad():
        for p in state.model.parameters():
            p.fill_(1.0)
        for p in state.average.parameters():
            p.zero_()
    train.update_average(state, 0.9)
    assert all(torch.allclose(p, torch.full_like(p, 0.1)) for p in state.average.parameters())


# --- the held-out score ----------------------------------------------------------------------------------------------------


class Painter(Draw):
    """Paints what it is told: the song, or the target."""

    def __init__(self, answer: torch.Tensor | None = None) -> None:
        super().__init__(TINY)
        self.answer = answer

    def transfer(self, view: torch.Tensor, **_: Any) -> torch.Tensor:
        return view if self.answer is None else self.answer[..., : view.shape[-1]] + 0.1  # another level is no error


def test_copying_is_none_of_the_way_and_the_target_is_all_of_it(frames):
    held_out = stores(frames)[1]
    assert train.transfer_score(Painter(), held_out)["score/way"] == 0
    target = held_out.frames[0].T[None] / dataset.LEVELS
    perfect = train.transfer_score(Painter(target), held_out)
    assert perfect["score/way"] == pytest.approx(1.0, abs=0.01)
    assert perfect["score/copy_db"] > 2


def test_what_stands_for_the_song_is_never_the_target_itself(frames):
    held_out = stores(frames)[1]
    usual = train.transfer_score(Painter(), held_out)["score/copy_db"]
    held_out.frames = held_out.frames.clone()
    held_out.frames[1] = held_out.frames[0]  # a piano's piano
    other = train.transfer_score(Painter(), held_out)["score/copy_db"]
    held_out.frames = held_out.frames[:1]  # a recording
    disturbed = train.transfer_score(Painter(), held_out)["score/copy_db"]
    assert min(usual, other, disturbed) > 2
    assert train.transfer_score(Painter(), held_out)["score/copy_db"] == disturbed


# --- it resumes ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What no code catches."""


@pytest.fixture(scope="module")
def uninterrupted(frames, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    fit(folder, frames)
    return folder


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same best weights and the same last state, bit for bit."""
    for name in ("best.safetensors", "last.safetensors"):
        one, two = load_file(a / name), load_file(b / name)
        assert one.keys() == two.keys()
        if not all(torch.equal(one[key], two[key]) for key in one):
            return False
    return True


@pytest.mark.parametrize("saved_every", [1, 4])
def test_killed_and_resumed_is_the_same_run_bit_for_bit(frames, tmp_path, monkeypatch, uninterrupted, saved_every):
    step = train.train_step

    def dying(state: State, *rest: Any) -> Any:
        if state.step in deaths:
            deaths.remove(state.step)
            raise Killed
        monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0 if (state.step + 1) % saved_every == 0 else 1e9)
        return step(state, *rest)

    monkeypatch.setattr(train, "train_step", dying)
    deaths = {3, 7, 10}  # before the critic, after it; between checkpoints if they are every four steps
    while deaths:
        with pytest.raises(Killed):
            fit(tmp_path, frames)
    assert fit(tmp_path, frames).step == SHORT.steps
    assert same(tmp_path, uninterrupted)


def test_another_seed_is_another_run(frames, tmp_path, uninterrupted):
    fit(tmp_path, frames, replace(SHORT, seed=1))
    assert not same(tmp_path, uninterrupted)


def test_a_process_that_is_killed_resumes_bit_for_bit(frames, tmp_path, uninterrupted):
    code = (
        "import sys, dataclasses, torch; torch.set_num_threads(1)\n"
        "from stylestream import train, views; from stylestream.dataset import FrameStore; from stylestream.draw import DrawConfig\n"
        "from pathlib import Path; train.CHECKPOINT_SECONDS = 0.3\n"
        f"model, config = DrawConfig(**{asdict(TINY)!r}), train.TrainConfig(**{asdict(SHORT)!r})\n"
        f"stores = [FrameStore({str(frames)!r}, ['own'], split=split) for split in ('train', 'valid')]\n"
        f"tick = lambda state, spent, losses: (print(state.step, flush=True), state.step == 9 and sys.stdin.read())\n"
        f"train.fit(train.new_state(model, config), *stores, config, views.ViewConfig(), Path({str(tmp_path)!r}), tick=tick)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    steps = [int(next(child.stdout)) for _ in range(9)]
    child.kill()
    child.communicate()
    assert steps[-1] == 9
    assert not (tmp_path / "best.safetensors").exists()
    state = fit(tmp_path, frames)
    assert state.step == SHORT.steps
    assert same(tmp_path, uninterrupted)


def test_a_loss_that_is_not_finite_goes_back_to_the_last_good_state(frames, tmp_path, monkeypatch):
    step, bad = train.train_step, [5]
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)

    def failing(state: State, *rest: Any) -> Any:
        losses = step(state, *rest)
        if state.step in bad:
            bad.clear()
            with torch.no_grad():
                next(state.model.parameters()).fill_(math.nan)
            return losses | {"loss/total": torch.tensor(math.nan)}
        return losses

    monkeypatch.setattr(train, "train_step", failing)
    state = fit(tmp_path, frames)
    assert (state.step, state.retries) == (SHORT.steps, 1)
    assert all(p.isfinite().all() for p in state.average.parameters())
    monkeypatch.setattr(train, "train_step", lambda state, *rest: {"loss/total": torch.tensor(math.nan)})
    with pytest.raises(FloatingPointError, match=r"the loss is not finite at step 0; lower the learning rate"):
        fit(tmp_path / "again", frames)


def test_a_sharpened_canvas_competes_only_with_sharpened_ones(frames, tmp_path, monkeypatch):
    ways = iter([0.9, 0.2, 0.3, 0.1])
    monkeypatch.setattr(train, "transfer_score", lambda *_, **__: {"score/way": next(ways)})
    state = train.new_state(TINY, SHORT)
    kept = []
    for progress in (0.2, 0.6, 0.8, 1.0):  # the critic comes at 0.5
        train.score(state, stores(frames)[1], SHORT, {}, progress, tmp_path)
        kept.append(state.best_score)
    assert kept == [0.9, 0.2, 0.3, 0.3]
    assert [row["score/way"] for row in json.loads((tmp_path / "history.json").read_text())] == [0.9, 0.2, 0.3, 0.1]


# --- what is asked for -----------------------------------------------------------------------------------------------------


def test_a_table_is_a_constructor_call_and_an_unknown_key_names_the_nearest():
    assert construct(TrainConfig, {"steps": 3, "minutes": 2}, "[train]") == TrainConfig(steps=3, minutes=2)
    with pytest.raises(ValueError, match=r"\[train\]: unknown key 'learning_rat'; did you mean 'learning_rate'\?"):
        construct(TrainConfig, {"learning_rat": 1.0}, "[train]")
    with pytest.raises(ValueError, match=r"\[model\]: steps is 'eight', not a int such as 8"):
        construct(DrawConfig, {"steps": "eight"}, "[model]")
    with pytest.raises(ValueError, match="steps is True"):
        construct(DrawConfig, {"steps": True}, "[model]")
    with pytest.raises(ValueError, match=r"unknown table \[trian\]; did you mean 'train'\?"):
        make_plan(["x"], {"trian": {}})


@pytest.mark.parametrize("path", sorted(cli.CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_bundled_config_is_a_training_that_can_be(path):
    tables = cli.read_config(path.stem)
    plan, start = make_plan(["music"], tables)
    assert (plan.start == "none") == (start is None) == (path.stem == "tiny")
    Draw(plan.model)
    if path.stem != "tiny":
        assert plan.model == DrawConfig(phase_iterations=plan.model.phase_iterations, grain_power=plan.model.grain_power)
        for table in ("model", "train", "tune", "data"):  # whole files: nothing is hidden
            assert set(tables[table]) == {f.name for f in fields(train.TABLES[table])}
    if path.stem not in ("tiny", "default"):
        assert plan.data.recipe == path.stem
        assert set(tables["views"]) == {f.name for f in fields(views.ViewConfig)}


def test_there_is_a_config_for_every_bundled_style():
    from stylestream.style import list_styles

    assert {entry.name for entry in list_styles() if entry.bundled} <= {path.stem for path in cli.CONFIGS.glob("*.toml")}


def test_what_cannot_be_is_said_before_anything_is_done():
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


def test_a_start_from_weights_takes_tune_and_one_from_nothing_train():
    tables = {"train": {"learning_rate": 0.5, "minutes": 1.0}, "tune": {"learning_rate": 0.25}}
    assert make_plan(["x"], tables, base="none")[0].config == TrainConfig(learning_rate=0.5, minutes=1.0)
    assert make_plan(["x"], tables)[0].config == replace(train.TUNE, learning_rate=0.25)
    assert make_plan(["x"], {"train": {"batch": 3}})[0].config == replace(train.TUNE, batch=3)  # not ignored
    assert make_plan(["x"], tables, steps=7, seed=3)[0].config == replace(train.TUNE, learning_rate=0.25, steps=7, seed=3)
    assert make_plan(["x"], {"model": {"beta": 2.0}})[0].model == DrawConfig(beta=2.0)  # a loss may change


def test_a_new_style_begins_half_way_between_the_nearest_and_the_mean_of_all():
    weights = {"style": torch.tensor([[0.0, 0.0], [4.0, 8.0], [8.0, 1.0]]), "mean_frames": torch.tensor([[0.1] * 3, [0.5] * 3, [0.9] * 3])}
    made = train.start_weights(weights | {"rest": torch.ones(2)}, torch.tensor([0.5, 0.6, 0.4]))
    assert made["style"].tolist() == [[4.0, 5.5]]
    assert made["mean_frames"].numpy() == pytest.approx(np.array([[0.5, 0.6, 0.4]]))
    assert made["rest"].tolist() == [1, 1]


def test_views_follow_the_sources(frames, tmp_path):
    store = stores(frames)[0]
    plan = make_plan(["x"], {"views": {"gain_db": 1.0}}, base="none")[0]
    assert train.view_config(plan, store) == views.ViewConfig(gain_db=1.0)
    store.frames = store.frames[:1]
    assert train.view_config(plan, store) == replace(views.RECORDINGS, gain_db=1.0)
    assert train.view_config(replace(plan, kind="plain"), store) == views.NEUTRAL


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
            score.tracks[part].notes.extend([symusic.Note(240 * j, 230, 48 + 24 * part + (3 * i + 5 * j) % 17, 90) for j in range(24)])
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
    assert {path.name for path in (tmp_path / "mine.safetensors.ckpt").iterdir()} <= {"history.json", "tensorboard"}


def test_a_style_is_made_from_recordings_and_the_base(recordings, tmp_path):
    said: list[str] = []
    phases: list[str] = []
    config = {"tune": {"batch": 1, "crop_frames": 32, "critic_from": 1.0, "score_frames": 32}}
    done = train.train(
        [recordings],
        tmp_path / "bells.safetensors",
        config=config,
        steps=2,
        jobs=1,
        say=said.append,
        progress=lambda p, *_: phases.append(p),
    )
    assert "only 10 s of music to train on" in said[0]
    assert {"rendering", "training"} == set(phases)
    assert done.failures == {}
    data, base = load_style_file(done.path), load_style_file(train.base_file())
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
        train.train([recordings], folder / f"bells-{model}.safetensors", config=tables, steps=2, jobs=1, model=model)
    shutil.copy(folder / "bells-plain.safetensors", tmp_path / "bells.safetensors")
    found = Contenders.find(tmp_path / "bells.safetensors")
    assert found.missing() == []
    assert load_style(folder / "bells-plain.safetensors").draw.config.steps == 2
    lstm = load_style_file(folder / "bells-lstm2017.safetensors")
    load_lstm2017(lstm)
    assert (lstm.card.training_steps, lstm.card.sources[0].songs) == (2, 2)
    with pytest.raises(ValueError, match="not a network that can be trained on"):
        make_plan(["x"], {}, base=folder / "bells-lstm2017.safetensors")


def _written(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text(CONFIG)
    return path


def test_a_folder_of_another_training_is_not_gone_on_with(tmp_path):
    folder = tmp_path / "a.safetensors.ckpt"
    plan = make_plan(["music"], {}, base="none", steps=10)[0]
    train._open_folder(folder, make_plan(["typo"], {}, base="none", steps=10)[0])
    train._open_folder(folder, plan)  # nothing had been done
    (folder / "last.safetensors").write_bytes(b"")
    train._open_folder(folder, make_plan(["music"], {}, base="none", steps=10)[0])
    with pytest.raises(ValueError, match=r"holds another training \(\[train\] steps was 10, now 11\); give the same command to go on"):
        train._open_folder(folder, make_plan(["music"], {}, base="none", steps=11)[0])
    with pytest.raises(ValueError, match=r"sources was \['.*music'\], now \['.*other'\]"):
        train._open_folder(folder, make_plan(["other"], {}, base="none", steps=10)[0])


def test_where_there_is_no_music_nothing_is_left(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, error in (("empty", ValueError), ("missing", FileNotFoundError)):
        with pytest.raises(error, match=r"no music in|no such file or folder"):
            train.train([tmp_path / source], tmp_path / "a.safetensors", steps=1, base="none")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_minutes_count_rendering_and_leave_some_for_training(recordings, tmp_path, monkeypatch):
    seen: list[TrainConfig] = []

    def fit_folder(plan: train.Plan, *_: Any) -> Any:
        seen.append(plan.config)
        raise Killed

    monkeypatch.setattr(train, "_fit_folder", fit_folder)
    prepared = dataset.Prepared([], {}, {}, 30.0)
    monkeypatch.setattr(dataset, "prepare", lambda *_, seconds, **__: replace(prepared, seconds=min(seconds, prepared.seconds)))
    for minutes, left in ((4.0, 3.5), (0.5, 0.375)):
        with pytest.raises(Killed):
            train.train([recordings], tmp_path / f"{minutes}.safetensors", minutes=minutes)
        assert seen[-1].minutes == pytest.approx(left)
        assert seen[-1].score_seconds == pytest.approx(60 * left / 8)  # eight scores at least


def test_a_recipe_is_named_by_the_output_only_for_a_collection(tmp_path, monkeypatch):
    asked: list[BuildConfig] = []

    def prepare(sources: Any, folder: Any, config: BuildConfig, **_: Any) -> Any:
        asked.append(config)
        raise Killed

    monkeypatch.setattr(dataset, "prepare", prepare)
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection" / "midi.csv").write_text("path\n")
    for source in ("collection", "folder"):
        with pytest.raises(Killed):
            train.train([tmp_path / source], tmp_path / source / "rock.safetensors", steps=1)
    assert [config.recipe for config in asked] == ["rock", ""]
