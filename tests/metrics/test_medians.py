"""Medians and ratios of medians over rounds against known answers and simulation."""

import numpy as np
import pytest

from histoedge import metrics
from histoedge.edge.errors import DataError


def test_a_ratio_of_constant_times_has_no_width():
    assert metrics.ratio_of_medians(np.full((5, 8), 3.0), np.full((5, 6), 4.0)) == metrics.Interval(0.75, 0.75, 0.75)


def test_a_common_drift_cancels_in_the_ratio():
    drift = np.linspace(1, 3, 12)[:, None]
    runs = 1 + 0.01 * np.random.default_rng(0).random((12, 40))
    ratio = metrics.ratio_of_medians(2 * drift * runs, drift * runs[:, ::-1])
    single = metrics.median(2 * drift * runs)
    assert (ratio.lo, ratio.hi) == pytest.approx((2, 2), rel=0.02)
    assert single.relative_width > 0.2


def test_common_slow_rounds_cancel_in_the_ratio():
    """Half of the rounds are slow: the median of all times may be among the slow or the fast ones."""
    random = np.random.default_rng(0)
    slow = np.where(np.arange(32) % 2, 1.6, 1.0)[:, None]
    a, b = (slow * (1 + 0.01 * random.random((32, 40))) for _ in range(2))
    ratio = metrics.ratio_of_medians(1.05 * a, b)
    assert ratio.value == pytest.approx(1.05, rel=0.002)
    assert (ratio.lo, ratio.hi) == pytest.approx((1.05, 1.05), rel=0.005)


def test_the_same_seed_has_the_same_interval():
    times = np.random.default_rng(5).random((10, 20))
    assert metrics.median(times, seed=7) == metrics.median(times, seed=7)
    assert metrics.median(times).value == np.median(times)


def test_the_interval_of_a_median_contains_the_true_median():
    """Each round has an offset; a bootstrap of single runs would be several times too narrow."""
    random = np.random.default_rng(6)
    covered = 0
    for _ in range(60):
        offsets = random.normal(10, 1, (12, 1))
        median = metrics.median(offsets + random.normal(0, 0.1, (12, 20)), seed=1)
        covered += median.lo <= 10 <= median.hi
    assert covered >= 48  # about 55 expected for a percentile interval from 12 rounds, about 15 for single runs


@pytest.mark.parametrize("times", [np.zeros((0, 3)), np.zeros(3), [[1.0, float("inf")]]])
def test_wrong_times_are_refused(times):
    with pytest.raises(DataError):
        metrics.median(times)


def test_unpaired_rounds_are_refused():
    with pytest.raises(DataError, match="paired"):
        metrics.ratio_of_medians(np.ones((3, 2)), np.ones((4, 2)))
