"""Metrics against answers known by hand, by a slow direct computation, and by simulation."""

import numpy as np
import pytest

from histoedge import metrics
from histoedge.edge.errors import DataError


def slow_delong(labels, *curves):
    """AUCs and covariance straight from DeLong 1988, equations 3 to 8: every pair looked at, O(n^2)."""
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


def cases(count, seed=3):
    random = np.random.default_rng(seed)
    for case in range(count):
        n = int(random.integers(8, 60))
        labels = np.r_[0, 0, 1, 1, random.integers(0, 2, n)]
        first = random.normal(labels, 1.0)
        second = first + random.normal(0, 0.7, len(labels))
        digits = case % 3  # 0 and 1 decimals: many ties
        yield labels, np.round(first, digits), np.round(second, digits)


def test_auc_of_four_patches_is_three_quarters():
    assert metrics.auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75


def test_ties_count_half():
    assert metrics.auc([0, 1], [5, 5]) == 0.5
    assert metrics.auc([0, 0, 1, 1], [1, 2, 2, 3]) == 0.875


def test_auc_does_not_change_under_a_rising_function():
    for labels, scores, _ in cases(20):
        assert metrics.auc(labels, scores) == metrics.auc(labels, np.arctan(scores) * 7 - 2)


def test_delong_agrees_with_every_pair_looked_at():
    half = 1.959963984540054  # 97.5 % point of the normal distribution
    for labels, first, second in cases(60):
        areas, covariance = slow_delong(labels, first, second)
        found = metrics.delong(labels, first)
        spread = half * covariance[0, 0] ** 0.5
        expected = (areas[0], max(0, areas[0] - spread), min(1, areas[0] + spread))
        assert (found.value, found.lo, found.hi) == pytest.approx(expected, abs=1e-12)
        difference = metrics.delong_difference(labels, first, second)
        spread = half * max(0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
        middle = areas[0] - areas[1]
        assert (difference.value, difference.lo, difference.hi) == pytest.approx(
            (middle, middle - spread, middle + spread), abs=1e-9
        )


def test_perfect_separation_gives_one_without_a_width():
    assert metrics.delong([0, 0, 1, 1], [1, 2, 3, 4]) == metrics.Interval(1.0, 1.0, 1.0)
    assert metrics.delong([0, 1], [1, 2]) == metrics.Interval(1.0, 1.0, 1.0)


def test_the_interval_stays_within_zero_and_one():
    found = metrics.delong([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
    assert found.hi == 1.0
    assert 0 < found.lo < found.value < 1


def test_scores_that_rank_alike_do_not_differ():
    labels, scores, _ = next(cases(1))
    assert metrics.delong_difference(labels, scores, 3 * scores + 1) == metrics.Interval(0.0, 0.0, 0.0)


def test_the_difference_changes_sign_with_its_sides():
    labels, first, second = next(cases(1))
    there = metrics.delong_difference(labels, first, second)
    back = metrics.delong_difference(labels, second, first)
    assert (there.value, there.lo, there.hi) == pytest.approx((-back.value, -back.hi, -back.lo))


def test_nineteen_in_twenty_intervals_hold_the_true_area():
    """True AUC of two unit normals 1 apart: Phi(1 / sqrt 2) = 0.76025."""
    random = np.random.default_rng(11)
    labels = np.r_[np.zeros(60), np.ones(60)]
    found = [metrics.delong(labels, random.normal(labels, 1.0)) for _ in range(600)]
    held = np.mean([one.lo <= 0.7602499 <= one.hi for one in found])
    assert 0.92 <= held <= 0.98  # 600 draws of .95: three standard errors are .027


def test_two_equal_models_seldom_differ():
    random = np.random.default_rng(12)
    labels = np.r_[np.zeros(60), np.ones(60)]

    def holds_zero():
        shared = random.normal(labels, 1.0)
        noisy = [shared + random.normal(0, 0.5, 120) for _ in range(2)]
        found = metrics.delong_difference(labels, *noisy)
        return found.lo <= 0 <= found.hi

    assert 0.92 <= np.mean([holds_zero() for _ in range(600)]) <= 0.98


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 0], [1, 2], "both classes"),
        ([1, 1], [1, 2], "both classes"),
        ([], [], "both classes"),
        ([0, 2], [1, 2], "0 or 1, found"),
        ([0, 1, 1], [1, 2], "3 labels for 2 scores"),
        ([0, 1], [1, float("nan")], "1 of 2 scores are not finite"),
    ],
)
def test_what_has_no_auc_says_why(labels, scores, says):
    with pytest.raises(DataError, match=says):
        metrics.auc(labels, scores)
    with pytest.raises(DataError, match=says):
        metrics.delong(labels, scores)


def test_a_flip_is_a_decision_on_the_other_side():
    assert metrics.flips([-1, 1, 2, -3], [1, 1, -2, -3]) == 2
    assert metrics.flips([0.0], [-0.1]) == 1
    assert metrics.flips([-1, 1], [0.5, 1], threshold_logit=0.7) == 0
    with pytest.raises(DataError, match="cannot be compared"):
        metrics.flips([1, 2], [1])


def test_a_ratio_of_times_that_never_vary_has_no_width():
    assert metrics.ratio_of_medians(np.full((5, 8), 3.0), np.full((5, 6), 4.0)) == metrics.Interval(0.75, 0.75, 0.75)


def test_a_drift_that_hits_both_alike_cancels_in_the_ratio():
    drift = np.linspace(1, 3, 12)[:, None]
    runs = 1 + 0.01 * np.random.default_rng(0).random((12, 40))
    ratio = metrics.ratio_of_medians(2 * drift * runs, drift * runs[:, ::-1])
    alone = metrics.median(2 * drift * runs)
    assert (ratio.lo, ratio.hi) == pytest.approx((2, 2), rel=0.02)
    assert alone.relative_width > 0.2


def test_the_same_seed_gives_the_same_interval():
    times = np.random.default_rng(5).random((10, 20))
    assert metrics.median(times, seed=7) == metrics.median(times, seed=7)
    assert metrics.median(times).value == np.median(times)


def test_the_interval_of_a_median_holds_the_true_one():
    """Rounds with an offset of their own: a bootstrap of single runs would be several times too narrow."""
    random = np.random.default_rng(6)
    held = 0
    for _ in range(60):
        offsets = random.normal(10, 1, (12, 1))
        found = metrics.median(offsets + random.normal(0, 0.1, (12, 20)), seed=1)
        held += found.lo <= 10 <= found.hi
    assert held >= 48  # about 55 expected of a percentile interval from 12 rounds; single runs would hold about 15


@pytest.mark.parametrize("times", [np.zeros((0, 3)), np.zeros(3), [[1.0, float("inf")]]])
def test_times_that_cannot_be_used_are_refused(times):
    with pytest.raises(DataError):
        metrics.median(times)


def test_unpaired_rounds_are_refused():
    with pytest.raises(DataError, match="paired"):
        metrics.ratio_of_medians(np.ones((3, 2)), np.ones((4, 2)))


def test_the_standard_error_is_that_of_the_interval() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    scores = labels + random.normal(0, 1, 300)
    found = metrics.delong(labels, scores)
    assert found.hi == pytest.approx(found.value + 1.959964 * found.standard_error, abs=1e-6)
