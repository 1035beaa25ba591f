"""Two sets of songs: what is said of sets whose distance is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the judge needs the extra [eval]")
pytest.importorskip("librosa", reason="spectra need the extra [eval]")

from stylestream import metrics
from stylestream.sound import Sound, prepare

RATE = 44100


def song(seed: int, *, ripple_db: float = 0.0, seconds: float = 3.0) -> Sound:
    """Some notes of one instrument, with or without a ripple at 21.5 Hz, the rate of a patch grid."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    y = 0.003 * rng.normal(size=t.size)
    for onset in np.arange(0, seconds, 0.25):
        hz = 220 * 2 ** (rng.integers(0, 24) / 12)
        y += (t >= onset) * np.exp(-4 * np.maximum(t - onset, 0)) * sum(np.sin(2 * np.pi * hz * h * t) / h for h in range(1, 6))
    return prepare(0.1 * y * 10 ** (ripple_db / 20 * np.sin(2 * np.pi * 21.5 * t)))


@pytest.fixture(scope="module")
def truths() -> list[Sound]:
    return [song(seed) for seed in range(6)]


def test_a_set_cannot_be_told_from_itself(truths: list[Sound]) -> None:
    assert metrics.judge_auc(truths, truths) == 0.5


def test_other_songs_of_the_same_making_are_hard_to_tell_and_a_ripple_gives_away(truths: list[Sound]) -> None:
    same = metrics.judge_auc(truths, [song(seed) for seed in range(10, 16)])
    rippled = metrics.judge_auc(truths, [song(seed, ripple_db=3.0) for seed in range(10, 16)])
    assert 0.2 < same < 0.8
    assert rippled > 0.95


def test_the_judge_is_the_same_judge_twice(truths: list[Sound]) -> None:
    others = [song(seed, ripple_db=0.3) for seed in range(20, 26)]
    assert metrics.judge_auc(truths, others) == metrics.judge_auc(truths, others)


def test_the_judge_is_never_asked_about_a_song_of_a_group_it_heard(truths: list[Sound]) -> None:
    # Every piece lies there twice, and its result is marked in a place of its own: who has heard the piece knows the mark.
    rng = np.random.default_rng(0)
    pieces = [0.1 * rng.normal(size=(40, 12)) for _ in range(6)] * 2
    marked = [patches + 3 * np.eye(12)[number % 6] for number, patches in enumerate(pieces)]
    by_piece, by_file = [str(number % 6) for number in range(12)], [str(number) for number in range(12)]
    assert metrics.patches_auc(pieces, marked, groups=by_file) > 0.95
    assert metrics.patches_auc(pieces, marked, groups=by_piece) < 0.75


def test_the_judge_s_auc_is_scikit_learn_s() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truths, results = [cloud(8, seed=i) for i in range(6)], [cloud(8, shift=0.5, seed=10 + i) for i in range(6)]
    groups = np.repeat([str(i % 6) for i in range(12)], 8)
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000))
    X, false = np.concatenate([*truths, *results]), np.repeat([0, 1], 48)
    folds = cross_val_score(judge, X, false, groups=groups, cv=GroupKFold(5), scoring="roc_auc")
    assert metrics.patches_auc(truths, results, groups=[str(i) for i in range(6)]) == pytest.approx(folds.mean(), abs=1e-6)


def test_one_song_is_too_few_for_a_judge(truths: list[Sound]) -> None:
    with pytest.warns(UserWarning, match="two songs at least; it is NaN"):
        assert math.isnan(metrics.judge_auc(truths[:1], truths[:1]))
    with pytest.raises(ValueError, match="2 truths and 1 results"):
        metrics.judge_auc(truths[:2], truths[:1])


def test_a_silent_and_a_very_short_song_can_be_judged(truths: list[Sound]) -> None:
    odd = [Sound(np.zeros(RATE)), Sound(truths[0].y[:300])]
    assert 0 <= metrics.judge_auc(truths[:2], odd) <= 1


def cloud(n: int, *, shift: float = 0.0, scale: float = 1.0, seed: int = 0, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(n, d)) + shift


def test_the_frechet_distance_of_gaussians_is_the_formula_s_and_scipy_s() -> None:
    from scipy.linalg import sqrtm

    a, b = cloud(500), cloud(400, shift=1.0, scale=2.0, seed=1)
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A + B - 2 * sqrtm(A @ B).real)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(a, b) == pytest.approx(4 * (1 + 1), rel=0.15)  # of each dimension: shift² + (2 − 1)²


def test_a_cloud_is_at_no_distance_from_itself() -> None:
    a = cloud(50)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.kernel_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_scikit_learn_s_kernel_by_the_formula() -> None:
    from sklearn.metrics import pairwise_distances
    from sklearn.metrics.pairwise import rbf_kernel

    a, b = cloud(40), cloud(30, shift=0.5, seed=1)
    gamma = 1 / (2 * np.median(pairwise_distances(a)[np.triu_indices(40, 1)]) ** 2)
    aa, bb, ab = rbf_kernel(a, gamma=gamma), rbf_kernel(b, gamma=gamma), rbf_kernel(a, b, gamma=gamma)
    expected = 100 * ((aa.sum() - 40) / (40 * 39) + (bb.sum() - 30) / (30 * 29) - 2 * ab.mean())
    assert metrics.kernel_distance(a, b) == pytest.approx(expected)


def test_the_kernel_distance_of_two_draws_of_one_cloud_is_about_zero_and_grows_with_the_shift() -> None:
    draws = [metrics.kernel_distance(cloud(60), cloud(60, seed=seed)) for seed in range(1, 21)]
    assert np.mean(draws) == pytest.approx(0, abs=0.5)
    near, far = (metrics.kernel_distance(cloud(60), cloud(60, shift=shift, seed=1)) for shift in (0.3, 1.0))
    assert 0 < near < 0.1 * far


@pytest.mark.parametrize("distance", [metrics.frechet_distance, metrics.kernel_distance])
def test_an_empty_set_is_at_no_known_distance(distance) -> None:
    with pytest.warns(UserWarning, match="fewer than two embeddings; it is NaN"):
        assert math.isnan(distance(cloud(5), cloud(0)))
