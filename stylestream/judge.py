"""Two sets of songs → numbers: can they be told apart, and how far apart do they lie.

What single pairs cannot show: a result may be near its truth and still have something that gives every result away. `judge_auc` trains
a classifier afresh on just that question. `frechet_distance` and `kernel_distance` compare the two sets as clouds of embeddings
(``timbre.embeddings``), and need no truth: the second set may be any songs of the style.

Conventions: sets come as sequences, truths first; embeddings as rows (n, d). scikit-learn comes with the extra ``[eval]``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream.sound import FLOOR_DB, Array, Sound

PATCH_FRAMES = 43  # half a second: long enough for a texture, short enough for many of them


def _nan(metric: str, reason: str) -> float:
    warnings.warn(f"{metric}: {reason}; it is NaN", stacklevel=3)
    return math.nan


# --- a judge -----------------------------------------------------------------------------------------------------------------------


def judge_auc(truths: Sequence[Sound], results: Sequence[Sound], *, folds: int = 5, groups: Sequence[str] | None = None) -> float:
    """How well a freshly trained judge tells results from truths, 0 to 1: 0.5 is not at all, which is perfect; 1 is always.

    The judge hears half a second at a time: level, spread, steps and modulation of 32 bands. It is a regularised logistic regression on
    these numbers, trained on some songs and asked about others, so that it cannot know a song, only what all results have in common.
    The value is the mean over the folds of the area under the ROC curve over patches. No chance is involved: equal sets, equal value.

    Parameters
    ----------
    truths, results : sequence of Sound
        ``results[i]`` belongs to ``truths[i]``.
    folds : int ≥ 2
        At most; never more than there are groups.
    groups : sequence of str, optional
        Songs of a group (the same music) are always in the same fold; every song for itself when not given.

    Returns
    -------
    float
        NaN, with a warning, for fewer than two groups.

    Raises
    ------
    ValueError
        If there are not as many results as truths.

    References
    ----------
    .. [1] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017.
    """
    if len(truths) != len(results):
        raise ValueError(f"{len(truths)} truths and {len(results)} results; every result needs its truth")
    names = list(groups) if groups is not None else [str(i) for i in range(len(truths))]
    return patches_auc([patch_numbers(sound) for sound in truths], [patch_numbers(sound) for sound in results], groups=names, folds=folds)


def patches_auc(truths: Sequence[Array], results: Sequence[Array], *, groups: Sequence[str], folds: int = 5) -> float:
    """`judge_auc` of songs of which only `patch_numbers` are at hand."""
    names = list(groups)
    if len(set(names)) < 2:
        return _nan("judge_auc", "a judge needs two songs at least")
    patches = [*truths, *results]
    X = np.concatenate(patches)
    false = np.repeat([0] * len(truths) + [1] * len(results), [len(p) for p in patches])
    return _cross_validated_auc(X, false, np.repeat(names * 2, [len(p) for p in patches]), min(folds, len(set(names))))


def _cross_validated_auc(X: Array, y: NDArray[np.int64], groups: NDArray[Any], folds: int) -> float:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise ValueError("the judge needs scikit-learn: pip install 'stylestream[eval]'") from error
    values = []
    for fit, ask in GroupKFold(folds).split(X, y, groups):
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000)).fit(X[fit], y[fit])
        values.append(float(roc_auc_score(y[ask], judge.decision_function(X[ask]).round(9))))
    return float(np.mean(values))


def patch_numbers(sound: Sound) -> Array:
    """What the judge hears: (patches, 224), of every half second that sounds (of silence, one patch).

    Of each of 32 bands of four mels: level re the patch's mean, spread over time, steps from frame to frame and from mel to mel, and
    power of the modulation in three bands, all in dB.
    """
    level = sound.log_mel
    count = max(1, level.shape[1] // PATCH_FRAMES)
    filled = np.pad(level, ((0, 0), (0, max(0, PATCH_FRAMES - level.shape[1]))), mode="edge")[:, : count * PATCH_FRAMES]
    patches = filled.reshape(128, count, PATCH_FRAMES).transpose(1, 0, 2)  # (patches, mels, frames)
    heard = patches[patches.max(axis=(1, 2)) > FLOOR_DB + 20]
    return _numbers(heard if len(heard) else patches[:1])


def _numbers(patches: Array) -> Array:
    spectrum = np.abs(np.fft.rfft(patches - patches.mean(2, keepdims=True), axis=2)) ** 2 / PATCH_FRAMES  # 2 Hz a line
    kinds = [
        patches.mean(2) - patches.mean(axis=(1, 2))[:, None],
        patches.std(2),
        np.abs(np.diff(patches, axis=2)).mean(2),
        np.abs(np.diff(patches, axis=1, append=patches[:, -1:])).mean(2),
        *(10 * np.log10(spectrum[:, :, band].mean(2) + 1e-2) for band in (slice(1, 5), slice(5, 11), slice(11, 22))),
    ]
    return np.concatenate([kind.reshape(len(patches), 32, 4).mean(2) for kind in kinds], axis=1)


# --- clouds of embeddings ----------------------------------------------------------------------------------------------------------


def frechet_distance(reference: Array, estimate: Array) -> float:
    """Fréchet distance between two clouds of embeddings, each taken for a Gaussian, ≥ 0: |Δμ|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½).

    Parameters
    ----------
    reference, estimate : array [shape=(n, d) and (m, d)]
        Rows of `timbre.embeddings` of all songs of a set. Biased upwards where rows are few: read it against that of two sets of truths.

    Returns
    -------
    float
        NaN, with a warning, where a set has fewer than two rows.

    References
    ----------
    .. [1] K. Kilgour et al., "Fréchet audio distance: A reference-free metric for evaluating music enhancement algorithms",
       Interspeech 2019.
    """
    if min(len(reference), len(estimate)) < 2:
        return _nan("frechet_distance", "a set has fewer than two embeddings")
    a, b = np.cov(reference, rowvar=False), np.cov(estimate, rowvar=False)
    shift = float(np.square(reference.mean(0) - estimate.mean(0)).sum())
    root = _root(a)
    common = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()  # tr (Σ₁ Σ₂)^½, by a symmetric twin of the product
    return max(0.0, shift + float(np.trace(a) + np.trace(b) - 2 * common))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def kernel_distance(reference: Array, estimate: Array) -> float:
    """Kernel audio distance between two clouds of embeddings: 100 × the squared maximum mean discrepancy; about 0 if they are one.

    The kernel is a Gaussian as wide as the median distance within the reference. No shape is assumed, and few rows do not bias it; it
    can come out a little below 0. Equally many rows count as pairs, whose own distances are left out: a set is at exactly 0 from itself.

    Parameters
    ----------
    reference, estimate : array [shape=(n, d) and (m, d)]

    Returns
    -------
    float
        NaN, with a warning, where a set has fewer than two rows.

    References
    ----------
    .. [1] Y. Chung et al., "KAD: No more FAD! An effective and efficient evaluation metric for audio generation", 2025.
    .. [2] A. Gretton et al., "A kernel two-sample test", J. Machine Learning Research 13, 2012 (lemma 6).
    """
    from scipy.spatial.distance import cdist, pdist

    if min(len(reference), len(estimate)) < 2:
        return _nan("kernel_distance", "a set has fewer than two embeddings")
    width = float(np.median(pdist(reference))) or 1.0
    aa, bb, ab = (
        np.exp(-cdist(x, y, "sqeuclidean") / (2 * width**2)) for x, y in ((reference,) * 2, (estimate,) * 2, (reference, estimate))
    )
    between = _mean_off_diagonal(ab) if len(reference) == len(estimate) else float(ab.mean())
    return 100 * (_mean_off_diagonal(aa) + _mean_off_diagonal(bb) - 2 * between)


def _mean_off_diagonal(K: Array) -> float:
    n = len(K)
    return float((K.sum() - np.trace(K)) / (n * (n - 1)))
