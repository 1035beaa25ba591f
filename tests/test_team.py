"""Several processes are one: two of them, started as a user starts them, reckon what one does."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stylestream import corpus
from stylestream.team import ALONE, Team, assemble

# What every process runs: three steps with critic and texture, then a training with scores and checkpoints in a folder of its own.
TRAINING = """
import contextlib, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from stylestream import train, views
from stylestream.corpus import FrameStore
from stylestream.draw import DrawConfig
from stylestream.team import Team, assemble

torch.set_num_threads(1)
train.autocast = lambda device: contextlib.nullcontext()  # bfloat16 rounds by the shape of a batch
frames, out = map(Path, sys.argv[1:])
tiny = DrawConfig(steps=2, view_channels=8, view_blocks=1, canvas_channels=4, encoder_channels=8, decoder_channels=16, texture_channels=8)
config = train.TrainConfig(steps=8, batch=4, crop_frames=32, critic_from=0.0, critic_batch=2, texture_from=0.0, score_frames=64)
store, held_out = (FrameStore(frames, ["own"], split=split) for split in ("train", "valid"))
team = assemble()
print(f"{team.rank} of {team.size}")
kept = {}

def steps(prefix, count):
    state = train.new_state(tiny, config, team=team)
    train.set_mean_frames(state, store)
    for optimizer in (state.optimizer, state.critic_optimizer):
        optimizer.param_groups[0]["eps"] = 1e-3  # or Adam's first step is the sign of a gradient: of rounding, where that is zero
    for step in range(count):
        train.train_step(state, store, config, views.ViewConfig(), 0.5)
        for name in ("model", "critic"):
            grads = {key: p.grad for key, p in getattr(state, name).named_parameters() if p.grad is not None}
            kept.update({f"{prefix}/gradient {step}/{name}/{key}": grad.clone() for key, grad in grads.items()})
    for name in ("model", "average", "critic"):
        kept.update({f"{prefix}/weights/{name}/{key}": value.clone() for key, value in getattr(state, name).state_dict().items()})

steps("whole", 3)
for part, idle in (("mean_", lambda self, tensors: None), ("total", lambda self, x: x), ("noise", property(lambda self: torch.randn_like))):
    whole = getattr(Team, part)
    setattr(Team, part, idle)
    steps("without " + part, 1)
    setattr(Team, part, whole)
if team.leads:
    save_file({key: value.contiguous() for key, value in kept.items()}, out / "kept.safetensors")
train.CHECKPOINT_SECONDS = -1.0
said = []
state = train.new_state(tiny, config, team=team)
train.fit(state, store, held_out, config, views.ViewConfig(), out / f"rank{team.rank}", report=said.append)
assert state.step == 8 and len(said) == 1 and state.history == said, (state.step, said)
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for index, split in enumerate(("train", "train", "valid")):
        smooth = rng.random((3, 200, 27)).repeat(12, 2)  # three roles of a song
        phase = rng.integers(-127, 127, (200, 4), dtype=np.int8)
        np.savez(folder / f"own-{split}-{index}-0.npz", frames=corpus.to_bytes(smooth * 0.8), phase=phase)
    return folder


def run(launcher: list[str], frames: Path, out: Path) -> set[str]:
    """Which processes there were."""
    out.mkdir()
    (out / "training.py").write_text(TRAINING)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(out / "training.py"), str(frames), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"\d of \d", done.stdout))  # two processes may write on one line


def test_two_processes_have_the_gradients_of_one_and_only_the_first_writes(frames, tmp_path):
    pytest.importorskip("accelerate", reason="several processes need accelerate: pip install 'stylestream[scale]'")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    assert run([sys.executable], frames, tmp_path / "one") == {"0 of 1"}
    assert run([*launch, "--mixed_precision", "no", "--dynamo_backend", "no"], frames, tmp_path / "two") == {"0 of 2", "1 of 2"}
    one, two = (load_file(tmp_path / name / "kept.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    off = {key: float((two[key] - value).norm() / value.norm().clamp(min=1e-6)) for key, value in one.items()}
    whole = {key: share for key, share in off.items() if key.startswith("whole/")}
    assert {tuple(key.split("/")[1:3]) for key in whole} == {
        *((f"gradient {step}", name) for step in range(3) for name in ("model", "critic")),
        *(("weights", name) for name in ("model", "average", "critic")),
    }
    assert max(whole.values()) < 1e-4  # float32, whose sums over a batch are rounded in another order
    for part in ("mean_", "total", "noise"):  # and a team that lacks any part of its agreement is found out
        assert max(share for key, share in off.items() if key.startswith(f"without {part}/gradient 0/model")) > 0.01
    assert max(share for key, share in off.items() if key.startswith("without mean_/gradient 0/critic")) > 0.01
    assert (tmp_path / "two" / "rank0" / "best.safetensors").exists()
    assert not (tmp_path / "two" / "rank1").exists()


def test_rows_of_a_team_are_the_batch():
    batch = torch.arange(12).reshape(6, 2)
    shares = [Team(rank, 3).rows((batch, batch[:, 0])) for rank in range(3)]
    assert torch.equal(torch.stack([share[0] for share in shares], 1).reshape(6, 2), batch)
    assert [share[1].tolist() for share in shares] == [[0, 6], [2, 8], [4, 10]]
    assert ALONE.rows(batch) is batch


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_noise_of_a_team_is_the_noise_of_one(memory_format):
    like = torch.zeros(4, 3, 5, 2).to(memory_format=memory_format)
    torch.manual_seed(7)
    alone = ALONE.noise(like)
    for rank in (0, 1):
        torch.manual_seed(7)
        assert torch.equal(Team(rank, 2).noise(like[rank::2]), alone[rank::2])


def test_alone_nothing_is_waited_for():
    assert ALONE.agree(2.5, True, False) == (2.5, 1.0, 0.0)
    assert ALONE.share("x") == "x"
    assert ALONE.first(lambda: 3) == 3
    assert float(ALONE.total(torch.tensor(2.0))) == 2.0
    x = torch.tensor([1.0])
    ALONE.mean_([x])
    assert x.tolist() == [1.0]


def test_the_others_wait_for_days_while_the_first_renders(monkeypatch):
    accelerate = pytest.importorskip("accelerate", reason="several processes need accelerate: pip install 'stylestream[scale]'")
    made: list[dict[str, Any]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "PartialState", lambda **_: SimpleNamespace(local_process_index=1, process_index=1, num_processes=2))
    monkeypatch.setattr(torch.distributed, "new_group", lambda **given: made.append(given))
    assert assemble().rank == 1
    assert made[0]["backend"] == "gloo"
    assert made[0]["timeout"] > datetime.timedelta(days=1)
