"""Scores of single pieces → means with intervals, and what changed beyond noise.

The unit is the piece: excerpts of one piece, or arrangements of one tune, are not independent, so they are drawn together. Intervals
are 95 % percentile intervals of the bootstrap [1]_, expanded for few pieces as Student's t is [2]_: plain ones of ten pieces cover
90 %. Two evaluations are compared piece by piece, which takes the pieces' difficulty out of the difference. A value that is not a number
is counted and reported; it is never averaged away.

References
----------
.. [1] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, §8 and §13.
.. [2] T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69(4), 2015, §5.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
LEAST_GROUPS = 5  # with fewer, the samples are too alike for an interval that covers 95 %
Cell = dict[str, Any]  # mean, low, high (null where a value is NaN), n; then also nan


@dataclass(frozen=True, eq=False)
class Draws:
    """Bootstrap samples: which pieces are in each, and of how many groups they were drawn."""

    samples: list[NDArray[np.intp]]
    groups: int

    def __iter__(self) -> Iterator[NDArray[np.intp]]:
        return iter(self.samples)


def resample(groups: Sequence[str], resamples: int, *, seed: int = 0) -> Draws:
    """Bootstrap samples of the pieces, drawn by group: pieces that are the same music come together. None of one group alone."""
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.array(groups), return_inverse=True)
    if len(names) < 2:
        return Draws([], len(names))
    members = [np.flatnonzero(index == g) for g in range(len(names))]
    drawn = (rng.integers(len(names), size=len(names)) for _ in range(resamples))
    return Draws([np.concatenate([members[g] for g in sample]) for sample in drawn], len(names))


def interval(values: Array, draws: Draws, statistic: Callable[..., Any] = np.mean) -> Cell:
    """A statistic over pieces (last axis) with its 95 % interval, null where nothing could be drawn again; null, with the count of
    values that are not finite, where there are such. Of fewer than five groups the interval is as wide as what was drawn, and too narrow.
    """
    n = values.shape[-1]
    broken = ~np.isfinite(values).reshape(-1, n).all(0)
    if broken.any():
        return {"mean": None, "low": None, "high": None, "n": n, "nan": int(broken.sum())}
    drawn = [statistic(values[..., sample], axis=-1) for sample in draws]
    tail = 100 * _tail(draws.groups)
    low, high = np.percentile(drawn, [tail, 100 - tail]) if drawn else (math.nan, math.nan)
    return {"mean": _number(statistic(values, axis=-1)), "low": _number(low), "high": _number(high), "n": n}


@functools.lru_cache(maxsize=64)
def _tail(groups: int) -> float:
    """Share of the samples that lies beyond each end of the interval: 2.5 % of many groups, 0.9 % of ten."""
    from scipy.stats import norm

    return float(norm.cdf(-math.sqrt(groups / (groups - 1)) * student_t(groups - 1))) if groups > 1 else math.nan


def jackknife(
    statistic: Callable[[Sequence[int]], float],
    groups: Sequence[str],
    *,
    blocks: int = 5,
    least: float = -math.inf,
    most: float = math.inf,
) -> Cell:
    """A statistic of all pieces together, with its 95 % interval by leaving out one block of them after another.

    For what is no mean over pieces, and too dear for thousands of samples.

    Parameters
    ----------
    statistic : function of a sequence of piece numbers
    groups : sequence of str
        Pieces that are the same music are in the same block.
    least, most : float
        What the statistic can be at all: an interval ends there.

    References
    ----------
    .. [1] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, §11.

    Examples
    --------
    Of a mean the jackknife's error is the standard error: 1 / √3 here; of three blocks it is known with two degrees of freedom.

    >>> cell = jackknife(lambda pieces: sum(pieces) / len(pieces), ["a", "b", "c"])
    >>> cell["mean"], round((cell["high"] - cell["mean"]) / 4.303, 3)
    (1.0, 0.577)
    """
    n, names = len(groups), sorted(set(groups))
    block = [names.index(group) % blocks for group in groups]
    whole, count = statistic(range(n)), min(blocks, len(names))
    if not math.isfinite(whole):
        return {"mean": None, "low": None, "high": None, "n": n, "nan": n}
    without = [statistic([i for i in range(n) if block[i] != left_out]) for left_out in range(count)] if count > 1 else [math.nan]
    reach = student_t(count - 1) * math.sqrt((count - 1) * float(np.var(without)))
    return {"mean": whole, "low": _number(max(whole - reach, least)), "high": _number(min(whole + reach, most)), "n": n}


def student_t(freedom: int) -> float:
    """How many standard errors reach 95 % to both sides, where the error itself is known of so few values; NaN of none.

    >>> round(student_t(4), 2), student_t(0)
    (2.78, nan)
    """
    from scipy.stats import t

    return float(t.ppf(0.975, freedom)) if freedom > 0 else math.nan


def way(distances: Array, axis: int = -1) -> Array:
    """Part of the way from copy to ceiling, of mean distances (copy, row, ceiling) along the first axis; NaN where the copy is as near.

    >>> float(way(np.array([[9.0, 11.0], [5.0, 7.0], [1.0, 3.0]])))
    0.5
    """
    copied, row, best = distances.mean(axis)
    return np.divide(copied - row, copied - best, out=np.full_like(copied, math.nan), where=copied > best)


def columns_of(scored: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, Array]]:
    """Scores of one table by row and metric, (pieces,) each; what a piece has no value for is NaN."""
    rows = list(dict.fromkeys(row for piece in scored for row in piece[key]))
    keys = {row: dict.fromkeys(metric for piece in scored for metric in piece[key].get(row, {})) for row in rows}
    return {row: {m: np.array([_value(piece[key].get(row, {}).get(m)) for piece in scored]) for m in keys[row]} for row in rows}


def table(
    scored: Sequence[Mapping[str, Any]], key: str = "rows", *, best: str = "ceiling", resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """``rows`` (row → metric → cell) and ``way`` (row → cell) of one table.

    Parameters
    ----------
    scored : sequence of mappings
        Pieces: ``group``, and under ``key`` row → metric → value.
    best : str
        The row that the way leads to.
    """
    resampled = resample([piece["group"] for piece in scored], resamples, seed=seed)
    values = columns_of(scored, key)
    rows = {row: {metric: interval(v, resampled) for metric, v in columns.items()} for row, columns in values.items()}
    if best not in values or "log_mel_l1" not in values[best]:
        return {"rows": rows, "way": {}}
    ends = values["copy"]["log_mel_l1"], values[best]["log_mel_l1"]
    ways = {row: interval(np.stack([ends[0], columns["log_mel_l1"], ends[1]]), resampled, way) for row, columns in values.items()}
    return {"rows": rows, "way": ways}


def difference(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], rows: tuple[str, str], *, resamples: int = 2000
) -> dict[str, Cell]:
    """Metric → how much our row is above theirs on the pieces that both have, with ``ours``, our mean on them, and ``changed``: whether
    zero is outside the interval, null where there are too few groups of pieces to tell. The first is ``way``, where both have its ends.

    Parameters
    ----------
    ours, theirs : sequence of mappings
        Pieces of two reports.
    rows : (str, str)
        Which row of each.

    Raises
    ------
    ValueError
        If no passage of the same piece is in both.
    """
    pairs = _paired(ours, theirs)
    if not pairs:
        raise ValueError("the two reports have no passage in common; evaluate on the same songs, with the same --seconds")
    sides = [columns_of(side, "rows") for side in zip(*pairs, strict=True)]
    a, b = (columns[row] for columns, row in zip(sides, rows, strict=True))
    groups = [mine["group"] for mine, _ in pairs]
    resampled, enough = resample(groups, resamples), len(set(groups)) >= LEAST_GROUPS
    cells = {metric: interval(a[metric] - b[metric], resampled) | {"ours": _number(a[metric].mean())} for metric in a if metric in b}
    cells = _further(sides, rows, resampled) | cells
    return {metric: cell | {"changed": _changed(cell) if enough else None} for metric, cell in cells.items()}


def unpaired(ours: Cell, theirs: Cell, groups: Sequence[str]) -> Cell:
    """How much a value of all pieces together is above another, of which no more is known than their 95 % intervals; as of `difference`.

    The errors are taken for independent. Of the same pieces most of them are common to both, so the interval is rather too wide than
    too narrow. Where an interval ends because the values do (no AUC is above 1), its other side says how far the error reaches.

    Parameters
    ----------
    groups : sequence of str
        Of the pieces that both are of.

    Examples
    --------
    >>> a, b = ({"mean": m, "low": m - e, "high": m + e, "n": 5} for m, e in ((2.0, 3.0), (9.0, 4.0)))
    >>> unpaired(a, b, list("abcde"))
    {'mean': -7.0, 'low': -12.0, 'high': -2.0, 'n': 5, 'ours': 2.0, 'changed': True}
    """
    change = _value(ours["mean"]) - _value(theirs["mean"])
    reach = math.hypot(_reach(ours), _reach(theirs))
    ends = {"mean": _number(change), "low": _number(change - reach), "high": _number(change + reach)}
    enough = len(set(groups)) >= LEAST_GROUPS and ends["low"] is not None
    return ends | {"n": ours["n"], "ours": ours["mean"], "changed": _changed(ends) if enough else None}


def _reach(cell: Cell) -> float:
    """How far a value's interval reaches; NaN where it has none."""
    mean, low, high = (_value(cell[end]) for end in ("mean", "low", "high"))
    return max(high - mean, mean - low)


def same_passages(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two reports are of the same passages, all of them."""
    return {_passage(piece) for piece in ours} == {_passage(piece) for piece in theirs}


def _further(sides: Sequence[Mapping[str, Any]], rows: tuple[str, str], resampled: Draws) -> dict[str, Cell]:
    """How much further on the way from copy to ceiling our row is than theirs."""
    names = [("copy", row, "ceiling") for row in rows]
    if not all("log_mel_l1" in side.get(name, {}) for side, three in zip(sides, names, strict=True) for name in three):
        return {}
    distances = np.array([[side[name]["log_mel_l1"] for name in three] for side, three in zip(sides, names, strict=True)])
    cell = interval(distances, resampled, lambda drawn, axis: way(drawn[0], axis) - way(drawn[1], axis))
    return {"way": cell | {"ours": _number(way(distances[0]))}}


def _paired(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    passages = {_passage(piece): piece for piece in theirs}
    return [(piece, passages[_passage(piece)]) for piece in ours if _passage(piece) in passages]


def _passage(piece: Mapping[str, Any]) -> tuple[str, float, float]:
    return piece["id"], round(piece["start_seconds"], 2), round(piece["seconds"], 2)


def _changed(cell: Cell) -> bool:
    return cell["mean"] is not None and not cell["low"] <= 0 <= cell["high"]


def _value(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
