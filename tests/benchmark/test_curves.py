"""Curves against direct computations on small examples."""

import numpy as np
import pytest

from histoedge import metrics
from histoedge.benchmark import curves
from histoedge.benchmark.curves import N_QUANTILES, Reliability, Roc
from histoedge.edge.errors import DataError


def test_a_small_roc_curve_has_the_known_corners() -> None:
    curve = curves.roc(np.array([0, 1, 0, 1]), np.array([1.0, 3.0, 2.0, 2.0]))
    assert curve == Roc(fpr=(0, 0, 0.5, 1), tpr=(0, 0.5, 1, 1))  # the tie at 2 is one step


@pytest.mark.parametrize("digits", [1, 8])
def test_a_reduced_curve_consists_of_points_of_the_whole_one(digits: int) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 5000)
    scores = np.round(random.normal(labels, 1.0), digits)
    whole = curves.roc(labels, scores, max_points=10**6)
    assert np.trapezoid(whole.tpr, whole.fpr) == pytest.approx(metrics.auc(labels, scores), abs=1e-4)
    reduced = curves.roc(labels, scores)
    assert len(reduced.fpr) <= curves.MAX_ROC_POINTS
    assert set(zip(reduced.fpr, reduced.tpr, strict=True)) <= set(zip(whole.fpr, whole.tpr, strict=True))
    assert (reduced.fpr[0], reduced.tpr[0], reduced.fpr[-1], reduced.tpr[-1]) == (0, 0, 1, 1)
    steps = np.diff(np.add(reduced.fpr, reduced.tpr))
    assert digits == 1 or steps.max() < 0.03


def test_reliability_counts_every_patch_in_its_bin() -> None:
    probabilities = np.array([0.0, 0.05, 0.1, 0.95, 1.0, 1.0])
    curve = curves.reliability(np.array([0, 1, 0, 1, 1, 0]), probabilities)
    assert curve == Reliability(probability=(0.025, 0.1, 0.98333), patches=(2, 1, 3), positives=(1, 0, 2))


def test_quantiles_run_from_the_fastest_call_to_the_slowest() -> None:
    quantiles = curves.ms_quantiles([np.arange(1, 52.0), np.arange(52, 102.0)])
    assert quantiles == tuple(np.arange(1, 102.0))
    assert len(quantiles) == N_QUANTILES


def test_one_class_and_wrong_probabilities_are_refused() -> None:
    with pytest.raises(DataError, match="both classes"):
        curves.roc(np.zeros(3), np.arange(3))
    with pytest.raises(DataError, match="expected 0 to 1"):
        curves.reliability(np.array([0, 1]), np.array([0.5, 1.5]))
