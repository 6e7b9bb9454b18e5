"""Scores of classification and regression, as scikit-learn and SciPy define them.

Arrays are [examples]; classes are whole numbers. Scores are fractions or correlations, not percent.
"""

import math
from dataclasses import dataclass

import numpy as np


def accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(np.equal(gold, predicted)))


def f1(gold: np.ndarray, predicted: np.ndarray, positive: int = 1) -> float:
    """The harmonic mean of precision and recall of one class; 0 where the class is neither gold nor predicted."""
    both = np.sum(np.equal(gold, positive) & np.equal(predicted, positive))
    either = np.sum(np.equal(gold, positive)) + np.sum(np.equal(predicted, positive))
    return float(2 * both / either) if either else 0.0


def macro_f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 of the classes that occur, either as gold or as predicted."""
    return float(np.mean([f1(gold, predicted, c) for c in np.union1d(gold, predicted)]))


def matthews(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews' correlation of two or more classes (Gorodkin 2004); 0 where one side has only one class."""
    classes = np.union1d(gold, predicted)
    # Python's integers of any size, so that the case of one class gives exactly 0.
    g, p = ([int(np.sum(np.equal(x, c))) for c in classes] for x in (gold, predicted))
    n, hits = len(gold), int(np.sum(np.equal(gold, predicted)))
    covariance = n * hits - sum(a * b for a, b in zip(g, p, strict=True))
    spread = (n * n - sum(a * a for a in g)) * (n * n - sum(b * b for b in p))
    return covariance / math.sqrt(spread) if spread else 0.0


def pearson(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation; NaN where one side is constant."""
    g, p = (np.asarray(x, np.float64) for x in (gold, predicted))
    if len(g) < 2 or np.all(g == g[0]) or np.all(p == p[0]):
        return float("nan")
    g, p = g - g.mean(), p - p.mean()
    return float(np.clip(np.dot(g / np.linalg.norm(g), p / np.linalg.norm(p)), -1, 1))


def spearman(gold: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's correlation: Pearson's of the ranks, where equal values have the mean of their ranks."""
    return pearson(_ranks(gold), _ranks(predicted))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size - 1) / 2)[group]


def mean_squared_error(gold: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(np.subtract(gold, predicted, dtype=np.float64) ** 2))


# Where any number of labels is right, arrays are [examples, labels]. `f1` of these is micro-averaged.


def macro_f1_of_labels(gold: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 of all labels, including labels that don't occur."""
    return float(np.mean([f1(*columns) for columns in zip(gold.T, predicted.T, strict=True)]))


def subset_accuracy(gold: np.ndarray, predicted: np.ndarray) -> float:
    """The share of the examples all of whose labels are as predicted."""
    return float(np.mean(np.all(np.equal(gold, predicted), axis=1)))


def label_ranking_average_precision(gold: np.ndarray, scores: np.ndarray) -> float:
    """For each right label, the share of right labels among those with at least its score; averaged over an example's
    right labels, then over examples. 1 where all labels are right, or none. `gold` is bool."""
    return float(np.mean([_ranking_precision(*row) for row in zip(gold, scores, strict=True)]))


def _ranking_precision(gold: np.ndarray, scores: np.ndarray) -> float:
    right = np.sort(scores[gold])
    if len(right) in (0, len(scores)):
        return 1.0
    as_high = [len(x) - np.searchsorted(x, right, side="left") for x in (right, np.sort(scores))]
    return float(np.mean(as_high[0] / as_high[1]))


@dataclass(frozen=True)
class ConfidenceBin:
    """The predictions whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    count: int
    confidence: float
    """The mean confidence; NaN in an empty bin, like `accuracy`."""
    accuracy: float


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[ConfidenceBin]:
    """The bins of a reliability diagram, equally wide: the share of right predictions by confidence."""
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    which = np.searchsorted(edges[1:-1], confidence, side="left")
    groups = [which == i for i in range(bins)]
    return [
        ConfidenceBin(
            low, high, int(g.sum()), *((x[g].mean() if g.any() else float("nan")) for x in (confidence, right))
        )
        for low, high, g in zip(edges[:-1].tolist(), edges[1:].tolist(), groups, strict=True)
    ]


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """The mean difference of confidence and accuracy, computed in bins (arXiv 1706.04599, equation 3)."""
    parts = [b for b in calibration(confidence, right, bins) if b.count]
    return float(sum(b.count * abs(b.accuracy - b.confidence) for b in parts) / len(confidence))
