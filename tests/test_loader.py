"""Crops of a dataset: where they come from, that they are the same everywhere, that ranks and workers share them out without loss."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow", reason="datasets need pyarrow: pip install 'stylestream[train]'")

from stylestream.dataset import Dataset
from stylestream.loader import Crops, Shares, _uniform

BINS = 324


def levels(song: int, frames: int, views: int = 0) -> np.ndarray:
    """Frames that say what they are: song in row 0, frame in rows 1 and 2, view in row 3."""
    roles = np.zeros((1 + views, frames, BINS), np.uint8)
    roles[:, :, 0] = song
    roles[:, :, 1], roles[:, :, 2] = np.arange(frames) % 256, np.arange(frames) // 256
    roles[:, :, 3] = np.arange(1 + views)[:, None]
    return roles


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_dataset) -> Path:
    """Twelve songs of two styles, three quarters of them "a"; two views; and what a training must not meet: too short, failed, held out."""
    songs = [{"levels": levels(k, 200 + 37 * k, 2), "style": "ab"[k % 4 == 0], "split": "train"} for k in range(12)]
    songs[5] |= {"beats": [0.5 * k for k in range(20)], "downbeats": [2.0 * k for k in range(5)]}
    songs += [{"levels": levels(12, 63), "split": "train"}, {"levels": levels(13, 500), "split": "test"}, {"failure": "silent"}]
    return write_dataset(tmp_path_factory.mktemp("loader") / "data", songs)


def said(frames: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
    """Song, first frame and view that raw frames (B, F, T) say they are."""
    first = frames[:, 1, 0].int() + 256 * frames[:, 2, 0].int()
    return frames[:, 0, 0].tolist(), first.tolist(), frames[:, 3, 0].tolist()


def test_a_crop_is_the_passage_it_says_and_its_view_is_aligned(folder):
    crops = Crops(folder, crop_frames=64, other=0.5, raw=True)
    batch = crops[list(range(200))]
    assert batch["target"].shape == batch["view"].shape == (200, BINS, 64)
    songs, first, views = said(batch["target"])
    assert (songs, first, set(views)) == (batch["song"].tolist(), batch["first"].tolist(), {0})
    shown = said(batch["view"])
    assert shown[:2] == (songs, first)
    assert Counter(shown[2]) == Counter(crops.plan(range(200))["view"].tolist())
    assert 60 < sum(view > 0 for view in shown[2]) < 140
    assert batch["style"].tolist() == [int(song % 4 == 0) for song in songs]
    frame = torch.arange(64) + batch["first"][:, None]
    assert torch.equal(batch["view"][:, 1].int() + 256 * batch["view"][:, 2].int(), frame.int())


def test_frames_are_scaled_as_the_reader_scales_them(folder):
    crops = Crops(folder)
    item = crops[3]
    song, first = int(item["song"]), int(item["first"])
    expected = Dataset(folder).read(song, first, 64)
    np.testing.assert_allclose(item["target"].numpy(), expected, rtol=1e-6)
    assert torch.equal(Crops(folder, raw=True)[3]["target"].float() * crops.scale, item["target"])


def test_an_epoch_has_every_song_once_in_an_order_of_its_own(folder):
    crops = Crops(folder)
    assert len(crops) == 12
    orders = [crops.plan(np.arange(12) + 12 * epoch)["song"].tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_what_is_short_failed_or_held_out_never_comes(folder):
    assert set(Crops(folder, weights="seconds").plan(range(5000))["song"].tolist()) == set(range(12))
    assert Crops(folder, split="test").plan(range(3))["song"].tolist() == [13] * 3


def test_every_first_frame_is_drawn_and_none_beyond_the_end(folder):
    plan = Crops(folder, crop_frames=190, weights="seconds").plan(range(20_000))
    assert set(plan["first"][plan["song"] == 0].tolist()) == set(range(11))


def test_songs_can_be_named(folder):
    ids = Dataset(folder).songs["song_id"].to_pylist()
    assert set(Crops(folder, songs=[ids[3], ids[7], ids[13]], weights="seconds").plan(range(200))["song"].tolist()) == {3, 7}


@pytest.mark.parametrize(
    ("weights", "share_of_b"),
    [("styles", 0.5), ({"a": 1, "b": 3}, 0.75), ({"b": 1}, 1.0), ("seconds", None), ("songs", 0.25)],
)
def test_styles_come_as_often_as_their_weight_says(folder, weights, share_of_b):
    crops = Crops(folder, weights=weights)
    plan = crops.plan(range(12_000))
    if share_of_b is None:
        room = np.array([200 + 37 * k - 63 for k in range(12)])
        share_of_b = room[::4].sum() / room.sum()
    assert (plan["style"] == 1).mean() == pytest.approx(share_of_b, abs=0.02)


def test_equal_seeds_give_equal_crops_and_others_other(folder):
    one, same, other = (Crops(folder, other=0.5, weights="styles", seed=seed) for seed in (1, 1, 2))
    index = np.arange(500)
    assert all(np.array_equal(one.plan(index)[key], same.plan(index)[key]) for key in one.plan(index))
    assert not np.array_equal(one.plan(index)["first"], other.plan(index)["first"])


def test_a_crop_does_not_depend_on_the_batch_it_is_in(folder):
    crops = Crops(folder, other=0.5, phase=True)
    batch = crops[[40, 7, 99]]
    for place, index in enumerate((40, 7, 99)):
        for key, value in crops[index].items():
            assert torch.equal(batch[key][place], value), key


def test_phase_is_that_of_the_passage(folder):
    crops = Crops(folder, phase=True)
    index = crops.plan(range(12))["song"].tolist().index(5)
    item = crops[index]
    first = int(item["first"])
    assert item["phase"].abs().sum() > 1
    np.testing.assert_allclose(item["phase"].numpy(), Dataset(folder).phase(5)[:, first : first + 64], atol=1e-6)


def test_chance_is_even_and_unlike_for_every_purpose():
    index = np.arange(100_000)
    drawn = [_uniform(3, index, purpose) for purpose in range(4)]
    for numbers in drawn:
        assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(10_000, rel=0.05)
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(drawn[0][:-1], drawn[0][1:])[0, 1]) < 0.02
    assert _uniform(0, np.array([0, 1]), 0).tolist() == [_uniform(0, 0, 0), _uniform(0, 1, 0)]


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 4), (2, 3), (3, 2), (5, 1), (7, 64)])
def test_ranks_share_an_epoch_out_without_overlap_or_loss(ranks, batch_size):
    shares = [list(Shares(31, batch_size, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(31))
    assert max(len(batch) for share in shares for batch in share) <= batch_size


def test_where_the_rest_is_dropped_all_ranks_take_the_same_number_of_full_batches():
    for crops in range(20, 40):
        shares = [Shares(crops, 4, rank=rank, ranks=3, drop_last=True) for rank in range(3)]
        assert {len(share) for share in shares} == {crops // 12}
        assert all(len(batch) == 4 for share in shares for batch in share)


def test_a_training_goes_on_with_the_crop_it_had_come_to():
    whole = Shares(20, 4)
    epochs = [list(whole), list(whole)]
    assert [index for epoch in epochs for batch in epoch for index in batch] == list(range(40))
    resumed = Shares(20, 4, start=28)
    assert len(resumed) == 3
    assert list(resumed) == epochs[1][2:]
    assert next(iter(resumed)) == [40, 41, 42, 43]


def test_two_ranks_of_two_workers_read_each_crop_once_and_the_same_as_one_alone(folder):
    def read(**how):
        batches = [batch for _ in range(2) for batch in loader] if (loader := crops.loader(2, **how)) else []
        return [(int(song), int(first)) for batch in batches for song, first in zip(batch["song"], batch["first"], strict=True)]

    crops = Crops(f"file://{folder}", other=0.5)
    alone = read()
    ranks = [read(workers=2, rank=rank, ranks=2, drop_last=False) for rank in range(2)]
    assert [crop for pair in zip(*ranks, strict=True) for crop in pair] == alone
    assert len(set(alone)) == 24
    assert sorted(song for song, _ in alone[:12]) == list(range(12))


def rank_reads(rank: int, ranks: int, folder: str, place: str) -> None:
    """A process of a distributed training: its share of an epoch, written down."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks)
    loader = Crops(folder).loader(2)
    songs = [int(song) for batch in loader for song in batch["song"]]
    Path(place, f"{rank}.json").write_text(json.dumps([len(loader), songs]))
    torch.distributed.destroy_process_group()


def test_a_distributed_training_needs_to_say_nothing(folder, tmp_path):
    torch.multiprocessing.spawn(rank_reads, (2, str(folder), str(tmp_path)), nprocs=2)
    (some_batches, some), (other_batches, other) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert some_batches == other_batches == 3
    assert sorted(some + other) == list(range(12))


def test_any_address_that_fsspec_knows_gives_the_same_crops(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            memory.pipe_file(f"/loader-test/{path.relative_to(folder).as_posix()}", path.read_bytes())
    try:
        far, near = Crops("memory://loader-test", other=1.0)[range(8)], Crops(folder, other=1.0)[range(8)]
    finally:
        memory.rm("/loader-test", recursive=True)
    assert all(torch.equal(far[key], near[key]) for key in near)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"styles": ["c"]}, "no train song of c with 64 frames"),
        ({"crop_frames": 10_000}, "no train song of a, b with 10000 frames"),
        ({"weights": {"c": 1.0}}, "no style 'c'; styles: a, b"),
        ({"weights": {"a": 0.0}}, "no song has a weight above 0"),
        ({"weights": {"a": -1.0}}, "numbers from 0 up"),
        ({"weights": "all"}, "songs, seconds, styles, or a mapping"),
        ({"other": 1.5}, "a share, 0 to 1"),
        ({"crop_frames": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_one_line(folder, wrong, words):
    with pytest.raises(ValueError, match=words):
        Crops(folder, **wrong)


def test_a_rank_that_is_none_is_refused(folder):
    with pytest.raises(ValueError, match="rank 2 of 2: ranks are counted from 0"):
        Crops(folder).loader(2, rank=2, ranks=2)
    with pytest.raises(IndexError, match="numbers begin at 0"):
        Crops(folder)[-1]
