"""benchmarks/rivals_trained.py: results are aligned with their song, minutes are counted fairly, and the page says what was measured."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rivals_trained():
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("rivals_trained", FOLDER / "rivals_trained.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rivals_trained"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before
    for name in ("rivals_trained", "own_style"):
        sys.modules.pop(name, None)


def piece(path: str, **scores: float) -> dict:
    return {"id": path, "path": path, "group": path, "start_seconds": 0.0, "seconds": 12.0, "scores": scores}


def rows_of(rave_mfcc: float) -> dict:
    def one(value: float, mfcc: float, auc: float) -> list[dict]:
        scores = {
            "log_mel_l1": value,
            "mfcc": mfcc,
            "mfcc_16k": mfcc,
            "lsd": 1.0,
            "lsd_16k": 1.0,
            "chroma": 0.5,
            "note_auc": auc,
            "flux": 0.5,
        }
        return [piece(name, **{key: x + 0.01 * i for key, x in scores.items()}) for i, name in enumerate("abcd")]

    return {
        "ceiling": one(1.0, 1.0, 0.9),
        "copy": one(11.0, 80.0, 0.9),
        "equalise": one(9.0, 40.0, 0.9),
        "rave-000010": one(8.0, rave_mfcc, 0.6),
        "scratch-000020": one(6.0, 10.0, 0.9),
    }


def test_a_result_of_another_length_starts_with_its_song_and_ends_with_it(rivals_trained) -> None:
    song = np.zeros((2, 6), dtype=np.float32)
    assert rivals_trained.fitted(np.arange(1.0, 10.0), song).tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    assert rivals_trained.fitted(np.arange(1.0, 4.0), song).tolist() == [[1, 2, 3, 0, 0, 0]] * 2


def test_waiting_for_other_programs_and_keeping_weights_cost_a_rival_no_minutes(rivals_trained) -> None:
    clock = rivals_trained.CoreClock("cpu")
    time.sleep(0.3)
    assert clock.minutes() * 60 < 0.1
    with clock.stopped():
        while clock.minutes() * 60 < 0.2:  # work
            pass
    assert clock.minutes() * 60 < 0.1


def test_a_keepsake_is_due_once_at_each_mark_however_long_a_step_takes(rivals_trained, tmp_path: Path) -> None:
    keeper = rivals_trained.Keeper(tmp_path, rivals_trained.CoreClock("cpu"))
    due = []
    for minutes in (0.5, 1.1, 1.2, 3.5, 4.0, 4.9, 5.0):
        if keeper.is_due(minutes):
            keeper.keep(torch.nn.Linear(1, 1), minutes, step=round(minutes * 10))
            due.append(minutes)
    assert due == [1.1, 3.5, 5.0]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_content_and_style_clips_come_of_the_same_song(rivals_trained) -> None:
    frames = [np.full((3, 40), float(i), dtype=np.float32) for i in range(5)]
    content, style = rivals_trained.pairs(np.random.default_rng(0), frames, 40, 16)
    assert content.shape == style.shape == (16, 3, 40)
    assert torch.equal(content, style)
    assert len(content.unique()) > 2


def test_an_adopted_run_costs_what_one_thread_takes_for_its_frames_its_steps_and_its_scores(rivals_trained) -> None:
    one_thread = {"content": 1.0, "critic": 2.0}
    pace = {"render": 30.0, "scratch": {"from": {"content": 0.0, "critic": 0.6}, "score": 5.0, "all": {"1": one_thread}}}
    history = [{"step": 10, "progress": 0.5}, {"step": 20, "progress": 0.7}, {"step": 99, "progress": 1.0}]
    assert rivals_trained.core_minutes(pace, "scratch", history, 20) * 60 == pytest.approx(30 + 10 + 5 + 2 * 10 + 5)
    assert rivals_trained.core_minutes(pace, "scratch", [], 0) == 0


def test_rows_that_were_scored_on_other_passages_are_refused(rivals_trained) -> None:
    with pytest.raises(ValueError, match="rave was scored on other passages"):
        rivals_trained.merged({"copy": [piece("a", mfcc=1.0)], "rave": [piece("b", mfcc=1.0)]})


@pytest.mark.parametrize(("rave_mfcc", "word"), [(50.0, "better"), (5.0, "worse")])
def test_the_page_says_who_is_better_as_it_was_measured(rivals_trained, tmp_path: Path, rave_mfcc: float, word: str) -> None:
    (tmp_path / "scores").mkdir()
    for row, found in rows_of(rave_mfcc).items():
        (tmp_path / "scores" / f"{row}.json").write_text(json.dumps({"pieces": found}))
    for run, name, value in (("rave", "000010", 1.0), ("scratch", "000020", 2.0)):
        kept = tmp_path / run / "kept"
        keeper = rivals_trained.Keeper(kept, rivals_trained.CoreClock("cpu"))
        model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(1000, 500), "discriminator": torch.nn.Linear(1000, 500)})
        torch.nn.init.constant_(model["encoder"].weight, value)
        keeper.keep(model, 12.0, step=int(name), heard_seconds=99.0, phase=2)
    options = Namespace(work=tmp_path, sound="strings", device="cpu", out=None)
    text = rivals_trained.page(options)
    assert "| RAVE | 12.0 | 10 | 99 s | 30 % [30, 30] |" in text
    assert "| StyleStream, from nothing | 12.0 | 20 | 99 s | 50 % [50, 50] |" in text
    assert f"MFCC distance {'−40.00' if word == 'better' else '+5.00'}" in text
    line = next(line for line in text.splitlines() if line.startswith("- StyleStream, from nothing, less RAVE"))
    assert f"], {word}; MFCC, to 8 kHz" in line
    assert "note AUC +0.30 [+0.30, +0.30], better" in line
    assert "0.5 million" in text  # without the discriminator


def test_what_cannot_be_imported_gets_a_stand_in_and_what_can_does_not(rivals_trained, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "no_such_library", None)  # put back afterwards
    rivals_trained.stand_in(["json", "no_such_library"], Spectrogram=rivals_trained.Spectrogram)
    assert sys.modules["json"] is json
    assert sys.modules["no_such_library"].Spectrogram is rivals_trained.Spectrogram


def test_the_stand_in_of_a_spectrogram_is_the_transform_itself(rivals_trained) -> None:
    y = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    S = rivals_trained.Spectrogram(512, 512, 128, normalized=True, power=None)(y)
    window = torch.hann_window(512)
    frame = torch.fft.rfft(y[:, 128 * 10 - 256 : 128 * 10 + 256] * window) / window.square().sum().sqrt()
    assert torch.allclose(S[:, :, 10], frame, atol=1e-4)
