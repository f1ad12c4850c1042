"""AUC and DeLong's intervals against known answers, a slow direct computation, and simulation."""

import numpy as np
import pytest
from scipy import stats

from histoedge import metrics
from histoedge.edge.errors import DataError


def slow_delong(labels, *curves):
    """Return AUCs and covariance by equations 3 to 8 of DeLong 1988, over all pairs, O(n^2)."""
    labels = np.asarray(labels)
    tens, ones, areas = [], [], []
    for scores in curves:
        x, y = np.asarray(scores)[labels == 1], np.asarray(scores)[labels == 0]
        pairs = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x]
        tens.append([sum(row) / len(y) for row in pairs])
        ones.append([sum(column) / len(x) for column in zip(*pairs, strict=True)])
        areas.append(sum(map(sum, pairs)) / (len(x) * len(y)))

    def covariance(parts):
        k = len(parts[0])
        return np.array(
            [
                [np.dot(np.subtract(p, a), np.subtract(q, b)) / (k - 1) / k for q, b in zip(parts, areas, strict=True)]
                for p, a in zip(parts, areas, strict=True)
            ]
        )

    return np.array(areas), covariance(tens) + covariance(ones)


def test_auc_of_four_patches_is_three_quarters():
    assert metrics.auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75


def test_ties_count_half():
    assert metrics.auc([0, 1], [5, 5]) == 0.5
    assert metrics.auc([0, 0, 1, 1], [1, 2, 2, 3]) == 0.875


def test_auc_does_not_change_under_an_increasing_function(cases):
    for labels, scores, _ in cases(20):
        assert metrics.auc(labels, scores) == metrics.auc(labels, np.arctan(scores) * 7 - 2)


def test_delong_agrees_with_the_sum_over_all_pairs(cases):
    half = 1.959963984540054  # 97.5 % point of the normal distribution
    for labels, first, second in cases(60):
        areas, covariance = slow_delong(labels, first, second)
        interval = metrics.delong(labels, first)
        spread = half * covariance[0, 0] ** 0.5
        expected = (areas[0], max(0, areas[0] - spread), min(1, areas[0] + spread))
        assert (interval.value, interval.lo, interval.hi) == pytest.approx(expected, abs=1e-12)
        difference = metrics.delong_difference(labels, first, second)
        spread = half * max(0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
        middle = areas[0] - areas[1]
        assert (difference.value, difference.lo, difference.hi) == pytest.approx(
            (middle, middle - spread, middle + spread), abs=1e-9
        )


@pytest.mark.parametrize(("positives", "negatives", "levels"), [(2, 90, 3), (90, 2, 3), (120, 120, 2), (40, 200, 7)])
def test_delong_agrees_with_the_sum_over_all_pairs_for_unequal_classes_and_many_ties(positives, negatives, levels):
    random = np.random.default_rng(positives)
    labels = np.repeat([1, 0], (positives, negatives))
    for _ in range(3):
        first, second = random.integers(0, levels, (2, len(labels))) + (random.random(len(labels)) < 0.3) * labels
        areas, covariance = slow_delong(labels, first, second)
        difference = metrics.delong_difference(labels, first, second)
        assert difference.value == pytest.approx(areas[0] - areas[1], abs=1e-9)
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        assert difference.standard_error == pytest.approx(variance**0.5, abs=1e-9)
        single = metrics.delong(labels, first)
        assert single.value == pytest.approx(areas[0], abs=1e-9)
        assert single.lo == pytest.approx(max(0, areas[0] - 1.959963984540054 * covariance[0, 0] ** 0.5), abs=1e-9)


def test_perfect_separation_has_an_auc_of_one_without_width():
    assert metrics.delong([0, 0, 1, 1], [1, 2, 3, 4]) == metrics.Interval(1.0, 1.0, 1.0)
    assert metrics.delong([0, 1], [1, 2]) == metrics.Interval(1.0, 1.0, 1.0)


def test_the_interval_stays_within_zero_and_one():
    auc = metrics.delong([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
    assert auc.hi == 1.0
    assert 0 < auc.lo < auc.value < 1


def test_scores_of_the_same_order_do_not_differ(cases):
    labels, scores, _ = next(cases(1))
    assert metrics.delong_difference(labels, scores, 3 * scores + 1) == metrics.Interval(0.0, 0.0, 0.0)


def test_the_difference_changes_sign_if_the_sides_are_exchanged(cases):
    labels, first, second = next(cases(1))
    forward = metrics.delong_difference(labels, first, second)
    backward = metrics.delong_difference(labels, second, first)
    assert (forward.value, forward.lo, forward.hi) == pytest.approx((-backward.value, -backward.hi, -backward.lo))


@pytest.mark.parametrize(("digits", "area"), [(9, 0.7602499), (0, 0.7430335)])
def test_nineteen_in_twenty_intervals_contain_the_true_area(digits, area):
    """Two unit normals 1 apart: Phi(1 / sqrt 2); for scores rounded to whole numbers, mostly ties, a sum over these."""
    whole = np.arange(-8, 10)
    cells = [np.diff(stats.norm.cdf(np.r_[whole - 0.5, whole[-1] + 0.5], mean)) for mean in (0, 1)]
    by_sum = cells[1] @ (np.cumsum(cells[0]) - cells[0] / 2)
    assert area == pytest.approx(by_sum if digits == 0 else stats.norm.cdf(0.5**0.5), abs=1e-7)
    random = np.random.default_rng(11)
    labels = np.repeat([0, 1], 100)
    intervals = [metrics.delong(labels, np.round(random.normal(labels, 1.0), digits)) for _ in range(2000)]
    assert (
        0.93 <= np.mean([interval.lo <= area <= interval.hi for interval in intervals]) <= 0.97
    )  # four standard errors are .02


def test_nineteen_in_twenty_intervals_contain_the_true_difference():
    """Normals 1 and 0.6 apart on the same patches, correlated: Phi(1 / sqrt 2) - Phi(0.6 / sqrt 2)."""
    random = np.random.default_rng(14)
    labels = np.repeat([0, 1], 100)
    expected = stats.norm.cdf(1 / 2**0.5) - stats.norm.cdf(0.6 / 2**0.5)

    def contains_it():
        shared = random.normal(0, 0.8, 200)
        curves = [shift * labels + shared + random.normal(0, 0.6, 200) for shift in (1.0, 0.6)]
        difference = metrics.delong_difference(labels, *curves)
        return difference.lo <= expected <= difference.hi

    assert 0.93 <= np.mean([contains_it() for _ in range(2000)]) <= 0.97


def test_two_equal_models_rarely_differ():
    random = np.random.default_rng(12)
    labels = np.r_[np.zeros(60), np.ones(60)]

    def contains_zero():
        shared = random.normal(labels, 1.0)
        noisy = [shared + random.normal(0, 0.5, 120) for _ in range(2)]
        difference = metrics.delong_difference(labels, *noisy)
        return difference.lo <= 0 <= difference.hi

    assert 0.92 <= np.mean([contains_zero() for _ in range(600)]) <= 0.98


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1, 2], "both classes"),
        ([1, 1], [1, 2], "both classes"),
        ([], [], "both classes"),
        ([0, 2], [1, 2], r"labels \[2\]; expected 0 or 1"),
        ([0, 1, 1], [1, 2], "3 labels for 2 scores"),
        ([0, 1], [1, float("nan")], "1 of 2 scores are not finite"),
    ],
)
def test_labels_and_scores_without_an_auc_are_refused(labels, scores, message):
    with pytest.raises(DataError, match=message):
        metrics.auc(labels, scores)
    with pytest.raises(DataError, match=message):
        metrics.delong(labels, scores)


def test_the_standard_error_is_that_of_the_interval() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    scores = labels + random.normal(0, 1, 300)
    auc = metrics.delong(labels, scores)
    assert auc.hi == pytest.approx(auc.value + 1.959964 * auc.standard_error, abs=1e-6)
