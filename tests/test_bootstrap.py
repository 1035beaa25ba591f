"""Intervals that are as wide as they say, and differences that are no noise."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stylestream import bootstrap


def piece(path: str, rows: dict[str, float], metric: str = "log_mel_l1", **tables: Any) -> dict[str, Any]:
    return {
        "path": path,
        "id": path,
        "group": path,
        "start_seconds": 0.0,
        "seconds": 3.0,
        "rows": {name: {metric: value} for name, value in rows.items()},
        **tables,
    }


def test_the_way_is_none_for_copy_and_whole_for_the_ceiling() -> None:
    scored = [piece(str(i), {"copy": 8.0 + i, "rock": 4.5 + i, "ceiling": 1.0 + i}) for i in range(6)]
    part = bootstrap.table(scored)
    assert [part["way"][row]["mean"] for row in ("copy", "rock", "ceiling")] == pytest.approx([0, 0.5, 1])
    assert part["rows"]["rock"]["log_mel_l1"]["mean"] == pytest.approx(7)
    assert part["way"]["rock"]["low"] == pytest.approx(part["way"]["rock"]["high"])  # paired: the pieces' difficulty cancels


@pytest.mark.parametrize(("songs", "least"), [(5, 0.88), (10, 0.92), (40, 0.92)])  # plain percentiles cover 84 % of five, 90 % of ten
def test_the_interval_covers_the_mean_95_times_in_100(rng: np.random.Generator, songs: int, least: float) -> None:
    hits, draws = 0, bootstrap.resample([str(i) for i in range(songs)], 2000)
    for _ in range(400):
        cell: dict[str, Any] = bootstrap.interval(rng.normal(size=songs), draws)
        hits += cell["low"] < 0 < cell["high"]
    assert least < hits / 400 < 0.985


def test_pieces_of_one_group_are_drawn_together() -> None:
    drawn = bootstrap.resample(["a", "a", "b"], 50)
    assert {tuple(sorted(sample.tolist())) for sample in drawn} == {(0, 0, 1, 1), (0, 1, 2), (2, 2)}


def test_nan_is_reported_and_never_averaged_away() -> None:
    scored = [piece("a", {"copy": 8.0, "rock": math.nan, "ceiling": 1.0}), piece("b", {"copy": 8.0, "rock": 4.0, "ceiling": 1.0})]
    part = bootstrap.table(scored, resamples=50)
    assert part["rows"]["rock"]["log_mel_l1"] == {"mean": None, "low": None, "high": None, "n": 2, "nan": 1}
    assert part["way"]["rock"]["mean"] is None


# --- differences


def test_nothing_has_changed_in_the_same_report() -> None:
    scored = [piece(str(i), {"rock": 4.0 + i % 3}) for i in range(8)]
    cell = bootstrap.difference(scored, scored, ("rock", "rock"))["log_mel_l1"]
    assert (cell["mean"], cell["low"], cell["high"], cell["n"], cell["changed"]) == (0, 0, 0, 8, False)


def test_a_small_change_of_every_piece_is_seen_through_their_difficulty(rng: np.random.Generator) -> None:
    difficulty = rng.normal(scale=3.0, size=12)
    old = [piece(str(i), {"rock": 8.0 + difficulty[i]}) for i in range(12)]
    new = [piece(str(i), {"mine": 7.8 + difficulty[i] + 0.1 * rng.normal()}) for i in range(12)]
    cell = bootstrap.difference(new, old, ("mine", "rock"))["log_mel_l1"]
    assert cell["changed"]
    assert cell["low"] < -0.2 < cell["high"] < 0


def test_noise_is_called_change_one_time_in_twenty(rng: np.random.Generator) -> None:
    called = 0
    for _ in range(300):
        old, new = ([piece(str(i), {"rock": value}) for i, value in enumerate(rng.normal(size=10))] for _ in "ab")
        called += bootstrap.difference(new, old, ("rock", "rock"), resamples=300)["log_mel_l1"]["changed"]
    assert 4 <= called <= 27  # 15 expected; plain percentiles would call 31


def test_only_the_same_passages_are_compared() -> None:
    old = [piece("a", {"rock": 1.0}), piece("b", {"rock": 1.0}), piece("c", {"rock": 1.0}) | {"seconds": 8.0}]
    new = [piece("b", {"rock": 3.0}), piece("c", {"rock": 9.0}), piece("d", {"rock": 9.0})]
    cell = bootstrap.difference(new, old, ("rock", "rock"))["log_mel_l1"]
    assert (cell["mean"], cell["n"]) == (2.0, 1)
    with pytest.raises(ValueError, match="no passage in common"):
        bootstrap.difference(new[2:], old, ("rock", "rock"))


def test_a_difference_says_our_mean_on_the_same_passages() -> None:
    old = [piece(str(i), {"rock": 0.0}) for i in range(6)]
    new = [piece(str(i), {"rock": 1.0 if i < 6 else -9.0}) for i in range(10)]
    assert bootstrap.difference(new, old, ("rock", "rock"))["log_mel_l1"]["ours"] == 1.0


def test_the_way_is_compared_by_the_means_and_not_piece_by_piece() -> None:
    old = [piece(str(i), {"copy": 9.0 + i, "rock": 5.0 + i, "ceiling": 1.0}) for i in range(6)]
    new = [piece(str(i), {"copy": 9.0 + i, "mine": 4.0 + i, "ceiling": 1.0}) for i in range(6)]
    cells = bootstrap.difference(new, old, ("mine", "rock"))
    assert next(iter(cells)) == "way"
    assert cells["way"]["mean"] == pytest.approx(1 / (11.5 - 1))  # 1 dB of the mean distance from copy to ceiling
    assert cells["way"]["ours"] == pytest.approx((11.5 - 6.5) / (11.5 - 1))
    assert cells["way"]["changed"]
    assert cells["way"]["low"] < cells["way"]["mean"] < cells["way"]["high"]
    assert "way" not in bootstrap.difference([piece(str(i), {"mine": 4.0}) for i in range(6)], old, ("mine", "rock"))


def test_what_is_infinite_is_counted_as_what_is_no_number() -> None:
    cell = bootstrap.interval(np.array([1.0, math.inf, 2.0]), bootstrap.resample(["a", "b", "c"], 50))
    assert cell == {"mean": None, "low": None, "high": None, "n": 3, "nan": 1}


def test_an_interval_ends_where_the_statistic_does() -> None:
    values = np.array([0.2, 1.0, 1.0, 1.0, 1.0])
    cell = bootstrap.jackknife(functools.partial(mean_of, values), list("abcde"), least=0.0, most=1.0)
    assert (cell["high"], cell["low"] > 0) == (1.0, True)


def test_a_nan_on_one_side_is_no_difference() -> None:
    old = [piece(str(i), {"rock": math.nan if i == 3 else 1.0}) for i in range(6)]
    cell = bootstrap.difference([piece(str(i), {"rock": 2.0}) for i in range(6)], old, ("rock", "rock"))["log_mel_l1"]
    assert (cell["mean"], cell["nan"], cell["changed"]) == (None, 1, False)


@pytest.mark.parametrize(("songs", "changed"), [(4, None), (5, True)])
def test_of_fewer_than_five_songs_nothing_is_said_to_have_changed(songs: int, changed: bool | None) -> None:
    old, new = ([piece(str(i), {"rock": value + 0.1 * i}) for i in range(songs)] for value in (4.0, 3.0))
    assert bootstrap.difference(new, old, ("rock", "rock"))["log_mel_l1"]["changed"] is changed


def test_passages_of_one_song_have_no_interval() -> None:
    scored = [piece(str(i), {"copy": 8.0 + i, "rock": 4.5, "ceiling": 1.0}) | {"group": "tune"} for i in range(6)]
    cell = bootstrap.table(scored)["rows"]["copy"]["log_mel_l1"]
    assert cell == {"mean": 10.5, "low": None, "high": None, "n": 6}


def test_there_is_no_way_where_the_copy_is_as_near_as_it_gets() -> None:
    scored = [piece(str(i), {"copy": 0.0, "rock": 11.0, "same_score": 8.3}) for i in range(6)]
    assert bootstrap.table(scored, best="same_score")["way"]["rock"]["mean"] is None


def mean_of(values: np.ndarray, pieces: Sequence[int]) -> float:
    return float(values[list(pieces)].mean())


def test_the_jackknife_of_five_blocks_covers_the_mean_95_times_in_100(rng: np.random.Generator) -> None:
    hits, names = 0, [str(i) for i in range(10)]
    for _ in range(400):
        values = rng.normal(size=10)
        cell = bootstrap.jackknife(functools.partial(mean_of, values), names)
        hits += cell["low"] < 0 < cell["high"]
    assert 366 <= hits <= 394  # 380 expected


# --- differences of what is asked of all pieces together


def of_all(values: np.ndarray) -> bootstrap.Cell:
    return bootstrap.jackknife(functools.partial(mean_of, values), [str(i) for i in range(len(values))])


def test_two_intervals_call_noise_a_change_less_than_one_time_in_twenty_and_what_is_large_a_change(rng: np.random.Generator) -> None:
    groups = [str(i) for i in range(10)]
    drawn = [rng.normal(size=(2, 10)) for _ in range(300)]
    called = [sum(bootstrap.unpaired(of_all(a + shift), of_all(b), groups)["changed"] for a, b in drawn) for shift in (0.0, 3.0)]
    assert called[0] <= 15
    assert called[1] > 280


def test_where_there_is_no_interval_nothing_is_said_to_have_changed() -> None:
    known, groups = {"mean": 1.0, "low": 0.9, "high": 1.1, "n": 5}, list("abcde")
    for unknown in ({"low": None, "high": None}, {"mean": None, "low": None, "high": None}, {"mean": math.nan}):
        cell = bootstrap.unpaired({**known, "mean": 9.0}, {**known, **unknown}, groups)
        assert (cell["low"], cell["high"], cell["changed"]) == (None, None, None)
    assert bootstrap.unpaired({**known, "mean": 9.0, "low": 8.9, "high": 9.1}, known, groups)["changed"]
    assert bootstrap.unpaired({**known, "mean": 9.0, "low": 8.9, "high": 9.1}, known, list("abcda"))["changed"] is None


def test_an_interval_that_was_cut_off_reaches_as_far_as_its_other_side() -> None:
    sure, cut = {"mean": 0.6, "low": 0.55, "high": 0.65, "n": 5}, {"mean": 0.95, "low": 0.55, "high": 1.0, "n": 5}
    cell = bootstrap.unpaired(cut, sure, list("abcde"))
    assert cell["high"] - cell["mean"] == pytest.approx(math.hypot(0.4, 0.05))
    assert not cell["changed"]
