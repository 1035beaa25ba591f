"""Training: it learns, it resumes bit for bit, and the verb makes style files of folders of music."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stylestream import corpus, train, views
from stylestream.corpus import FrameStore
from stylestream.draw import Draw, DrawConfig
from stylestream.train import State, TrainConfig, construct, learning_rate

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
        frames = corpus.to_bytes(np.stack(roles).transpose(0, 2, 1))
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


def test_songs_of_a_style_with_a_hyphen_are_found(frames, tmp_path):
    for path in frames.glob("own-*"):
        (tmp_path / path.name.replace("own", "bossa-latin")).write_bytes(path.read_bytes())
    (tmp_path / "bossa-train-0-0.npz").write_bytes(b"of another style")
    assert len(FrameStore(tmp_path, ["bossa-latin"], split="train").songs) == 2


# --- it learns -------------------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls_as_a_cosine_of_the_progress_alone():
    config = TrainConfig(learning_rate=1.0, warmup=0.1, final_rate=0.2)
    assert learning_rate(0.0, config) == pytest.approx(0.01)
    assert learning_rate(0.05, config) == pytest.approx(0.5)
    assert learning_rate(0.1, config) == pytest.approx(1.0)
    assert learning_rate(0.55, config) == pytest.approx(0.6)  # half way down
    assert learning_rate(1.0, config) == learning_rate(1.5, config) == pytest.approx(0.2)
    assert learning_rate(0.1 + 0.9 / 4, config) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_a_postnet_sharpens_smeared_canvases_of_songs_it_has_not_seen(frames):
    torch.manual_seed(0)
    model = Draw(replace(TINY, postnet_channels=8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = train.PostNetConfig(crops=24, crop_frames=48, steps=150, batch=4)
    learnt, unseen = (train.paint_crops(model, store, config, views.ViewConfig())[1] for store in stores(frames))
    train.fit_postnet(model, views.envelope(learnt.float(), rows=12), learnt, config)
    smeared = views.envelope(unseen.float(), rows=12)
    assert model.postnet is not None
    with torch.no_grad():
        after = smeared + model.postnet(smeared)
    assert (after - unseen).abs().mean() < 0.7 * (smeared - unseen).abs().mean()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"postnet"}


def test_crops_for_a_postnet_are_painted_without_one(frames):
    torch.manual_seed(0)
    model = Draw(replace(TINY, postnet_channels=8))
    config = train.PostNetConfig(crops=4, crop_frames=48)
    fresh = train.paint_crops(model, stores(frames)[0], config, views.ViewConfig())[0]
    torch.nn.init.normal_(model.postnet.last.weight)
    again = train.paint_crops(model, stores(frames)[0], config, views.ViewConfig())[0]
    torch.testing.assert_close(again, fresh, atol=0, rtol=0)
    assert not torch.equal(model.transfer(fresh.float(), grain=0.0), Draw.transfer(without_postnet(model), fresh.float(), grain=0.0))


def without_postnet(model: Draw) -> Draw:
    plain = Draw(replace(model.config, postnet_channels=0))
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("postnet.")})
    return plain


def test_a_style_from_the_base_keeps_its_postnet():
    base = Draw(replace(TINY, styles=2, postnet_channels=4))
    torch.nn.init.normal_(base.postnet.last.weight)
    weights = train.start_weights(base.state_dict(), torch.full((324,), 0.3))
    state = train.new_state(replace(TINY, postnet_channels=4), SHORT, base=weights)
    torch.testing.assert_close(state.average.postnet.last.weight, base.postnet.last.weight)


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
    target = held_out.frames[0].T[None] / corpus.LEVELS
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
    fit(tmp_path, frames, replace(SHORT, seed=2**63 - 1))  # as large as the command line takes
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
    with pytest.raises(FloatingPointError, match=r"the loss is not finite at step 0 \(loss/total\); lower the learning rate"):
        fit(tmp_path / "again", frames)


def test_a_gradient_that_is_not_finite_never_comes_into_a_checkpoint(frames, tmp_path, monkeypatch):
    """The loss of that step is of the weights before it, and looks well."""
    pull, bad = train.critic_gradient, [8]
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)

    def failing(state: State, *rest: Any) -> Any:
        gradient, loss = pull(state, *rest)
        if state.step in bad:
            bad.clear()
            gradient = gradient * math.nan
        return gradient, loss

    monkeypatch.setattr(train, "critic_gradient", failing)
    said: list[str] = []
    state = train.new_state(TINY, SHORT)
    train.fit(state, *stores(frames), SHORT, views.ViewConfig(), tmp_path, say=said.append)
    assert said[0].startswith("the loss is not finite at step 9 (gradient/norm; weights: ")
    assert (state.step, state.retries) == (SHORT.steps, 1)
    assert all(value.isfinite().all() for value in load_file(tmp_path / "last.safetensors").values())


def test_a_score_that_was_interrupted_is_made_when_it_goes_on(frames, tmp_path, monkeypatch, uninterrupted):
    score, row = train.transfer_score, json.loads((uninterrupted / "history.json").read_text())[-1]

    def dying(*_: Any, **__: Any) -> Any:
        raise Killed

    monkeypatch.setattr(train, "transfer_score", dying)
    with pytest.raises(Killed):
        fit(tmp_path, frames)
    monkeypatch.setattr(train, "transfer_score", score)
    state = fit(tmp_path, frames)
    assert same(tmp_path, uninterrupted)
    assert len(state.history) == 1
    assert {**state.history[0], "seconds": 0} == {**row, "seconds": 0}  # with the losses of the step


def test_a_preview_does_not_wait_for_the_first_score(frames, tmp_path, monkeypatch):
    now, shown, step = [0.0], list[tuple[float, int]](), train.train_step
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(*args: Any) -> Any:
        now[0] += 10.0
        return step(*args)

    monkeypatch.setattr(train, "train_step", slow)

    def show(state: State) -> None:
        shown.append((now[0], len(state.history)))

    arguments = (*stores(frames), SHORT, views.ViewConfig(), tmp_path)
    train.fit(train.new_state(TINY, SHORT), *arguments, show=show, show_seconds=50.0)
    assert shown == [(50.0, 0), (100.0, 0), (120.0, 1)]


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


# --- configs and weights --------------------------------------------------------------------------------------------------


def test_a_table_is_a_constructor_call_and_an_unknown_key_names_the_nearest():
    assert construct(TrainConfig, {"steps": 3, "minutes": 2}, "[train]") == TrainConfig(steps=3, minutes=2)
    with pytest.raises(ValueError, match=r"\[train\]: unknown key 'learning_rat'; did you mean 'learning_rate'\?"):
        construct(TrainConfig, {"learning_rat": 1.0}, "[train]")
    with pytest.raises(ValueError, match=r"\[model\]: steps is 'eight', not a int such as 8"):
        construct(DrawConfig, {"steps": "eight"}, "[model]")
    with pytest.raises(ValueError, match="steps is True"):
        construct(DrawConfig, {"steps": True}, "[model]")


def test_a_new_style_begins_half_way_between_the_nearest_and_the_mean_of_all():
    weights = {"style": torch.tensor([[0.0, 0.0], [4.0, 8.0], [8.0, 1.0]]), "mean_frames": torch.tensor([[0.1] * 3, [0.5] * 3, [0.9] * 3])}
    made = train.start_weights(weights | {"rest": torch.ones(2)}, torch.tensor([0.5, 0.6, 0.4]))
    assert made["style"].tolist() == [[4.0, 5.5]]
    assert made["mean_frames"].numpy() == pytest.approx(np.array([[0.5, 0.6, 0.4]]))
    assert made["rest"].tolist() == [1, 1]


# --- it goes on ------------------------------------------------------------------------------------------------------------


class Heavy(Draw):
    """A network for which a step of more than two crops takes more memory than there is."""

    def forward(self, view: torch.Tensor, *rest: Any, **options: Any) -> dict[str, torch.Tensor]:
        if view.shape[0] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(view, *rest, **options)


def test_out_of_memory_halves_the_batch_and_goes_on(frames, tmp_path):
    said: list[str] = []
    config = replace(SHORT, batch=8, steps=3)
    state = train.new_state(TINY, config, model=Heavy(TINY))
    train.fit(state, *stores(frames), config, views.ViewConfig(), tmp_path, say=said.append)
    assert (state.step, state.batch) == (3, 2)
    assert said == [
        f"out of memory at step 0: going on from step 0 with {half} crops in a step instead of {2 * half}" for half in (4, 2)
    ]  # fmt: skip
    again = train.new_state(TINY, config, model=Heavy(TINY))
    train.load_checkpoint(again, tmp_path)
    assert again.batch == 2  # and does not run out again


def test_a_crop_that_does_not_fit_and_another_error_end_the_training(frames, tmp_path, monkeypatch):
    def failing(message: str) -> Any:
        def step(*_: Any) -> None:
            raise RuntimeError(message)

        return step

    monkeypatch.setattr(train, "train_step", failing("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(ValueError, match=r"out of memory at step 0; lower crop_frames in \[train\]"):
        fit(tmp_path, frames)
    monkeypatch.setattr(train, "train_step", failing("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(tmp_path, frames)


def rows(*ways: float, start: float = 0.0) -> list[dict[str, float]]:
    return [{"score/way": way, "progress": start + 0.01 * (i + 1)} for i, way in enumerate(ways)]


def test_on_a_plateau_the_next_stage_begins_and_after_the_last_the_training_ends():
    config = TrainConfig(minutes=10, patience=3, critic_from=0.5)
    state = train.new_state(TINY, config)
    state.history, state.seconds = rows(0.1, 0.2, 0.3, 0.31, 0.32), 30.0
    assert train.pass_plateau(state, config) == ""  # still better
    state.history, state.best_score = rows(0.1, 0.3, 0.3, 0.2, 0.301), 0.301
    assert train.pass_plateau(state, config) == "step 0: no better for 3 scores (best 30.1 %): going on to sharpening"
    assert train.spent_share(state, config) == pytest.approx(0.5)
    state.history += rows(0.2, 0.2, start=0.5)
    assert train.pass_plateau(state, config) == ""  # a stage has its own scores
    state.history += rows(0.2, 0.2, start=0.53)
    assert train.pass_plateau(state, config).endswith("going on to the last, small steps")
    state.history += rows(0.2, 0.2, 0.2, 0.2, start=0.86)
    state.seconds, state.skipped = 60.0, 0.8  # the last row's progress
    assert train.pass_plateau(state, config).endswith("more would not help; stopping here")
    assert train.spent_share(state, config) == pytest.approx(1.0)
    steps = train.new_state(TINY, SHORT)
    steps.history = rows(0.2, 0.2, 0.2, 0.2, 0.2)
    assert train.pass_plateau(steps, replace(config, steps=100)) == ""  # so many steps were asked for


def test_a_training_that_gets_no_better_stops_before_its_time(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "transfer_score", lambda *_, **__: {"score/way": 0.25})
    said: list[str] = []
    config = replace(SHORT, steps=0, minutes=60.0, patience=2, score_seconds=0.0, critic_from=0.5)
    state = train.new_state(TINY, config)
    train.fit(state, *stores(frames), config, views.ViewConfig(), tmp_path, say=said.append)
    assert state.seconds < 600
    assert [line.partition("): ")[2] for line in said] == [
        "going on to sharpening", "going on to the last, small steps", "more would not help; stopping here",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of POSIX")
def test_a_disk_that_is_full_leaves_the_checkpoint_before(frames, tmp_path):
    import resource

    state = fit(tmp_path, frames, replace(SHORT, steps=2))
    before = (tmp_path / "last.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: the write fails, the process lives
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            train.save_checkpoint(state, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))
    assert train.load_checkpoint(train.new_state(TINY, SHORT), tmp_path)


def test_a_loss_that_is_not_finite_says_where(frames, tmp_path):
    state = fit(tmp_path, frames, replace(SHORT, steps=2))
    with torch.no_grad():
        state.model.decoder.weight.fill_(math.inf)
    said: list[str] = []
    losses = {"loss/l1_db": torch.tensor(1.0), "loss/kl": torch.tensor(math.nan), "loss/total": torch.tensor(math.nan)}
    state.step = 7
    train.go_back(state, tmp_path, losses, said.append)
    where = "the loss is not finite at step 7 (loss/kl, loss/total; weights: decoder.weight)"
    assert said == [f"{where}: back to step 2, with other random numbers (1 of 3)"]
    assert state.model.decoder.weight.isfinite().all()


def test_a_damaged_checkpoint_is_one_line_with_a_remedy(frames, tmp_path):
    state = fit(tmp_path, frames, replace(SHORT, steps=1))
    whole = (tmp_path / "last.safetensors").read_bytes()
    train.save_checkpoint(train.new_state(replace(TINY, decoder_channels=8), SHORT), tmp_path)
    other = (tmp_path / "last.safetensors").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a checkpoint", other):
        (tmp_path / "last.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"the checkpoint is damaged \(.*\); remove .* to begin anew") as error:
            train.load_checkpoint(state, tmp_path)
        assert "\n" not in str(error.value)


def slow_machine(monkeypatch: pytest.MonkeyPatch, *, step_seconds: float, score_seconds: float) -> tuple[list[float], list[float], Any]:
    """A clock that only steps and scores move; when checkpoints were saved; what makes another function last."""
    now, saves, save = [0.0], [0.0], train.save_checkpoint
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def lasting(function: Any, seconds: float) -> Any:
        def slow(*args: Any, **options: Any) -> Any:
            now[0] += seconds
            return function(*args, **options)

        return slow

    monkeypatch.setattr(train, "train_step", lasting(train.train_step, step_seconds))
    monkeypatch.setattr(train, "transfer_score", lasting(train.transfer_score, score_seconds))
    monkeypatch.setattr(train, "save_checkpoint", lambda *args: saves.append(now[0]) or save(*args))  # type: ignore[func-returns-value]
    return now, saves, lasting


@pytest.mark.parametrize(("step_seconds", "score_seconds"), [(14.0, 6.0), (2.0, 20.0), (9.0, 24.0)])
def test_checkpoints_stay_young_on_a_slow_machine(frames, tmp_path, monkeypatch, step_seconds, score_seconds):
    _, saves, _ = slow_machine(monkeypatch, step_seconds=step_seconds, score_seconds=score_seconds)
    config = replace(SHORT, steps=0, minutes=3.0, score_seconds=40.0, critic_from=1.0)
    train.fit(train.new_state(TINY, config), *stores(frames), config, views.ViewConfig(), tmp_path)
    assert max(b - a for a, b in itertools.pairwise(saves)) <= train.CHECKPOINT_SECONDS


def test_checkpoints_stay_young_through_scores_and_previews(frames, tmp_path, monkeypatch):
    now, saves, lasting = slow_machine(monkeypatch, step_seconds=2.0, score_seconds=6.0)
    config = replace(SHORT, steps=0, minutes=5.0, score_seconds=40.0, critic_from=1.0)
    shown = lasting(lambda state: None, 12.0)
    train.fit(train.new_state(TINY, config), *stores(frames), config, views.ViewConfig(), tmp_path, show=shown, show_seconds=60.0)
    assert max(b - a for a, b in itertools.pairwise(saves)) <= 30
    assert 300 <= now[0] <= 330  # and the minutes are kept
