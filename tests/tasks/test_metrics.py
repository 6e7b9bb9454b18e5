"""Metrics against scikit-learn and SciPy, at random and at the edges."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from bert_jax.tasks import metrics

rng = np.random.default_rng(0)
CLASSES = [
    *((rng.integers(0, classes, n), rng.integers(0, classes, n)) for classes in (2, 3, 7) for n in (1, 2, 5, 400)),
    (np.zeros(5, int), np.zeros(5, int)),
    (np.ones(5, int), np.ones(5, int)),
    (np.ones(5, int), np.zeros(5, int)),
    (np.array([0, 1, 2, 1]), np.ones(4, int)),
    (np.array([0, 0, 0, 0]), np.array([0, 1, 2, 3])),
    (np.array([2, 5, 5]), np.array([5, 9, 2])),
    (rng.permutation(np.repeat([0, 1], [1, 99_999])), np.repeat([0, 1], [2, 99_998])),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("gold", "predicted"), CLASSES)
def test_classes_as_scikit_learn(gold, predicted):
    close = lambda value: pytest.approx(value, rel=1e-12, abs=1e-12)  # noqa: E731
    assert metrics.accuracy(gold, predicted) == close(reference.accuracy_score(gold, predicted))
    assert metrics.macro_f1(gold, predicted) == close(reference.f1_score(gold, predicted, average="macro"))
    assert metrics.matthews(gold, predicted) == close(reference.matthews_corrcoef(gold, predicted))
    expected = reference.f1_score(gold == 1, predicted == 1)
    assert metrics.f1(gold, predicted) == close(expected)


NUMBERS = [
    *((rng.normal(size=n), rng.normal(size=n)) for n in (2, 3, 1000)),
    (rng.integers(0, 5, 200).astype(float), rng.normal(size=200)),  # Ties.
    (rng.integers(0, 3, 50), rng.integers(0, 3, 50)),
    (np.arange(9.0), np.arange(9.0) ** 3),
    (np.arange(9.0), -np.arange(9.0)),
    (np.full(6, 0.1), rng.normal(size=6)),
    (rng.normal(size=6), np.full(6, 1 / 3)),
    (np.arange(5.0) + 1e9, np.arange(5.0) * 1e-9),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("gold", "predicted"), NUMBERS)
def test_numbers_as_scipy(gold, predicted):
    close = lambda value: pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)  # noqa: E731
    assert metrics.pearson(gold, predicted) == close(stats.pearsonr(gold, predicted).statistic)
    assert metrics.spearman(gold, predicted) == close(stats.spearmanr(gold, predicted).statistic)
    assert metrics.mean_squared_error(gold, predicted) == close(reference.mean_squared_error(gold, predicted))


def test_a_correlation_needs_two():
    assert math.isnan(metrics.pearson(np.array([1.0]), np.array([2.0])))


def test_calibration_bins_and_their_error():
    confidence = np.array([0.05, 0.3, 0.5, 0.51, 0.75, 0.76, 1.0])
    right = np.array([False, True, False, True, True, False, True])
    bins = metrics.calibration(confidence, right, bins=4)
    assert [b.count for b in bins] == [1, 2, 2, 2]  # An edge belongs to the bin below it.
    assert [(b.low, b.high) for b in bins] == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    assert [b.accuracy for b in bins] == [0, 0.5, 1, 0.5]
    error = (1 * 0.05 + 2 * abs(0.5 - 0.4) + 2 * abs(1 - 0.63) + 2 * abs(0.5 - 0.88)) / 7
    assert metrics.expected_calibration_error(confidence, right, bins=4) == pytest.approx(error)
    assert math.isnan(metrics.calibration(confidence, right, bins=50)[10].accuracy)
    perfect = metrics.expected_calibration_error(np.array([1.0, 1.0]), np.array([True, True]))
    assert perfect == 0
