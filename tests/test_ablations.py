"""benchmarks/ablations.py: runs are what they are named after, are trained once, and the page claims no more than it knows."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylestream import views

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "ablations.py"
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ablations():
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ablations"]


@pytest.fixture
def frames(tmp_path, rng) -> Path:
    """Two songs to train on and one to score on, of noise: target and one other orchestration."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for split, song in (("train", "a"), ("train", "b"), ("valid", "c")):
        arrays = {"frames": rng.integers(0, 240, (2, 96, 324), dtype=np.uint8), "phase": np.zeros((96, 4), dtype=np.int8)}
        np.savez(folder / f"strings-{split}-{song * 16}-0.npz", **arrays)
    return folder


def training(frames: Path, out: Path, **changes) -> Namespace:
    given = {"frames": frames, "out": out, "work": None, "style": "strings", "minutes": 0.02, "jobs": 1, "only": ["autoencoder-none-k1-s0"]}
    return Namespace(**given | changes)


def test_a_list_of_runs_cut_short_has_every_headline_row_equally_often(ablations):
    first = ablations.RUNS[: len(ablations.HEADLINE)]
    assert len({run.row for run in first}) == len(ablations.HEADLINE)
    assert len({run.seed for run in first}) == 1
    names = [run.name for run in [*ablations.RUNS, *ablations.LSTM]]
    assert len(set(names)) == len(names)
    pages = {row for rows in ablations.SECTIONS.values() for row in rows} | {ablations.Run(*cell, 0).row for cell in ablations.CROSS}
    assert pages == {run.row for run in [*ablations.RUNS, *ablations.LSTM]}  # nothing is trained for no table


@pytest.mark.parametrize(("seen", "disturbed"), [("none", False), ("orchestration", False), ("signal", True), ("both", True)])
def test_only_the_signal_views_disturb_the_frames(ablations, seen, disturbed):
    x = torch.rand(2, 324, 32) * 0.5 + 0.4
    view = views.perturb(x, ablations.VIEWS[seen], torch.Generator().manual_seed(0))
    assert ((view - x).abs().mean() > 0.01) == disturbed
    assert (ablations.VIEWS[seen].other > 0) == (seen in ("orchestration", "both"))


def test_a_finished_run_is_a_style_that_plays_and_is_not_trained_again(ablations, frames, tmp_path, tone):
    from stylestream.transfer import load_style

    out = tmp_path / "runs"
    ablations.train_all(training(frames, out))
    about = json.loads((out / "autoencoder-none-k1-s0.json").read_text())
    assert about["steps"] > 0
    assert about["minutes"] >= 0.02
    style = out / "autoencoder-none-k1-s0.safetensors"
    song = tone(1.0)
    assert load_style(style).transfer(song, 44100).shape == song.shape
    assert not any((out / "unfinished").iterdir())
    before = style.stat().st_mtime_ns
    ablations.train_all(training(frames, out))
    assert style.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="minutes was 0.02"):
        ablations.train_all(training(frames, out, minutes=0.03))


@pytest.mark.parametrize(("before", "value", "same"), [(None, 0.0, True), (None, 0.5, False), (0.5, 0.5, True), (0.5, 0.0, False)])
def test_a_setting_that_came_later_was_at_its_default(ablations, before, value, same):
    then = {"model": {"steps": 8} | ({} if before is None else {"partial_lift": before})}
    now = {"model": {"steps": 8, "partial_lift": value}}
    with contextlib.nullcontext() if same else pytest.raises(ValueError, match="is of other settings"):
        ablations._same(then, now, Path("run.json"))


def test_a_folder_without_the_style_is_named(ablations, frames, tmp_path):
    with pytest.raises(ValueError, match="rock-train"):
        ablations.train_all(training(frames, tmp_path / "runs", style="rock"))


def results(ablations, distances: dict[str, list[list[float]]]):
    """Results of runs with these log-mel distances: row → seeds → pieces. The copy is 10 dB off, the ceiling 2."""
    pieces = [f"piece {i}" for i in range(4)]

    def scores(values):
        rest = dict.fromkeys(ablations.METRICS, 0.5)
        return {piece: rest | {"log_mel_l1": value} for piece, value in zip(pieces, values, strict=True)}

    found, of = [], {}
    for run in ablations.RUNS:
        if run.row in distances:
            about = {
                "steps": 100,
                "weights": 2e5,
                "command": "train",
                "machine": "a machine",
                "settings": {"style": "strings", "minutes": 8},
            }
            found.append(ablations.Trained(run, about, Path(run.name)))
            of[run.name] = {"scores": scores(distances[run.row][run.seed])}
    ends = {"copy": 10.0, "equalise": 7.0, "mean spectrum": 6.0, "ceiling": 2.0, "truth": 0.0}
    references = {row: scores([value] * 4) for row, value in ends.items()}
    return found, of | {"references": {"scores": references, "groups": {piece: piece for piece in pieces}}}


def seeds(*means: float) -> list[list[float]]:
    return [[mean - 0.5, mean, mean, mean + 0.5] for mean in means]


def test_half_of_the_distance_is_half_of_the_way(ablations):
    found = ablations.Results(*results(ablations, {"conv-both-k8": seeds(6, 6, 4), "conv-none-k8": seeds(8, 8, 8)}))
    assert found.seeds("conv-both-k8", "way") == pytest.approx([50, 50, 75])
    assert found.behind("conv-both-k8", "conv-none-k8")[0] == pytest.approx(100 * (8 - 16 / 3) / 8)


def test_rows_are_told_apart_only_if_all_seeds_agree(ablations):
    rows = {"conv-both-k8": seeds(4, 5, 4), "conv-none-k8": seeds(8, 8, 7), "conv-signal-k8": seeds(4.5, 7, 7)}
    found = ablations.Results(*results(ablations, rows))
    assert found.apart("conv-both-k8", "conv-none-k8")
    assert not found.apart("conv-both-k8", "conv-signal-k8")  # one seed of it is better than one of the other


def test_rows_are_told_apart_only_if_the_pieces_agree(ablations):
    rows = {"conv-both-k8": [[1.0, 5.0, 5.0, 5.0]] * 3, "conv-none-k8": [[8.0, 4.9, 4.9, 4.9]] * 3}  # one piece makes the difference
    found = ablations.Results(*results(ablations, rows))
    assert min(found.seeds("conv-both-k8", "way")) > max(found.seeds("conv-none-k8", "way"))
    assert not found.apart("conv-both-k8", "conv-none-k8")


def test_a_row_of_one_seed_is_said_to_be_one(ablations):
    found, scores = results(ablations, {"conv-both-k8": seeds(4, 4, 5), "conv-none-k8": seeds(8, 8, 8)})
    found = [one for one in found if one.run.row == "conv-both-k8" or one.run.seed == 0]
    said = ablations.reading(ablations.Results(found, scores), ["conv-none-k8", "conv-both-k8"])
    assert "Of one seed only, behind it over the pieces: *ConvDRAW, K = 8, no views* 45.8" in said
    assert "told apart" not in said
    assert "every seed" not in said


def test_a_best_row_of_one_seed_is_said_to_be_one(ablations):
    found, scores = results(ablations, {"conv-both-k8": seeds(6, 6, 6), "conv-none-k8": seeds(4, 4, 4)})
    found = [one for one in found if one.run.row == "conv-both-k8" or one.run.seed == 0]
    said = ablations.reading(ablations.Results(found, scores), ["conv-none-k8", "conv-both-k8"])
    assert "It is of one seed; behind it over the pieces: *ConvDRAW, K = 8, views: both* 25.0" in said
    assert "told apart" not in said


def test_the_interval_over_seeds_is_students(ablations):
    assert ablations.over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - 4.3027 / 3**0.5, 2.0 + 4.3027 / 3**0.5), abs=1e-3)
    assert np.isnan(ablations.over_seeds([1.0])[1])  # one seed knows nothing of the others


def test_the_page_has_every_row_that_was_trained_and_no_other(ablations):
    found, scores = results(ablations, {"conv-both-k8": seeds(4, 4, 5), "conv-none-k8": seeds(8, 8, 7)})
    text = ablations.page(found, scores, Namespace(pieces=4, seconds=20.0))
    views_part, kinds_part = text.split("\n## ")[1:3]
    assert "Furthest is *ConvDRAW, K = 8, views: both*, with 70.8 % of the way. Behind it" in views_part
    assert "| ConvDRAW, K = 8, no views | 100 | 0.20 M | 29.2 [" in kinds_part
    assert "signal |" not in text
    assert "nan" not in text


def test_the_page_has_the_whole_cross_or_none_of_it(ablations):
    rows = {run.row: [seeds(4)[0]] if run.views == "both" else [seeds(8)[0]] for run in ablations.RUNS}
    rows = {row: values * 3 for row, values in rows.items()} | {"conv-both-k8": seeds(3, 4, 5), "attention-none-k2": [seeds(9)[0]]}
    text = ablations.page(*results(ablations, rows), Namespace(pieces=4, seconds=20.0))
    part = text.split("## Views × kind × K")[1].split("\n## ")[0]
    assert "| ConvDRAW, K = 8 | 25.0 [25.0, 25.0] | 25.0 [25.0, 25.0] | 25.0 [25.0, 25.0] | 75.0 [43.9, 106.1] |" in part
    assert "| Gaussian attention, K = 2 | 12.5 | 25.0 | 25.0 | 75.0 |" in part  # one seed
    assert "- Gaussian attention, by views: none 21.9, signal 25.0, orchestration 25.0, both 75.0" in part
    assert "- Gaussian attention, by steps: K = 1 37.5, K = 2 34.4," in part
    assert "least far *Gaussian attention, K = 2, no views* with 12.5." in part
    assert part.count("\n| ") == 2 * (2 + 9)
    del rows["attention-none-k2"]
    assert "Views × kind" not in ablations.page(*results(ablations, rows), Namespace(pieces=4, seconds=20.0))


def test_a_score_is_kept_until_the_run_is_another(ablations, tmp_path):
    path, options, asked = tmp_path / "run.safetensors", Namespace(runs=tmp_path, pieces=4, seconds=20.0), []

    def make():
        asked.append(1)
        return {"scores": len(asked)}

    path.write_bytes(b"weights")
    assert [ablations.kept(options, "run", path, make) for _ in range(2)] == [{"scores": 1}] * 2
    path.write_bytes(b"other weights")
    assert ablations.kept(options, "run", path, make) == {"scores": 2}
    assert ablations.kept(Namespace(runs=tmp_path, pieces=5, seconds=20.0), "run", path, make) == {"scores": 3}
