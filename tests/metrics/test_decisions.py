"""Operating points, proportions and flips against known answers, exhaustive search, and simulation."""

import numpy as np
import pytest
from scipy import stats

from histoedge import metrics
from histoedge.edge.errors import DataError


def test_wilson_intervals_agree_with_scipy_and_textbooks():
    share = metrics.proportion(8, 10)
    assert (share.value, share.lo, share.hi) == pytest.approx((0.8, 0.4902, 0.9433), abs=5e-5)
    for successes, trials in ((0, 7), (7, 7), (1, 3), (950, 1000)):
        share, expected = metrics.proportion(successes, trials), stats.binomtest(successes, trials)
        low, high = expected.proportion_ci(method="wilson")
        assert (share.lo, share.hi) == pytest.approx((low, high), abs=1e-12)
    with pytest.raises(DataError, match="0 of 0 is not a share"):
        metrics.proportion(0, 0)


def test_scores_at_the_threshold_are_positive():
    labels, scores = [0, 0, 0, 1, 1], [1, 2, 3, 2, 3]
    assert metrics.sensitivity(labels, scores, 2).value == 1
    assert metrics.specificity(labels, scores, 2).value == pytest.approx(1 / 3)
    assert metrics.sensitivity(labels, scores, 2.5).value == 0.5
    assert metrics.specificity(labels, scores, 2.5).value == pytest.approx(2 / 3)


def test_thresholds_of_twenty_patches_by_hand():
    labels, scores = np.repeat([0, 1], 10), np.r_[np.arange(10), np.arange(5, 15)]
    assert metrics.threshold_of_sensitivity(labels, scores, 0.9) == 6  # 6 .. 14 are nine of ten
    assert metrics.threshold_of_sensitivity(labels, scores, 0.91) == 5
    assert metrics.threshold_of_sensitivity(labels, scores, 1.0) == 5
    assert metrics.threshold_of_specificity(labels, scores, 0.9) == 9  # 0 .. 8 are below
    assert metrics.threshold_of_specificity(labels, scores, 0.91) == 10
    assert metrics.threshold_of_specificity(labels, scores, 0.01) == 1
    assert metrics.threshold_of_specificity([0, 1, 0], [1, 2, 3], 1.0) == np.inf
    with pytest.raises(DataError, match="a share of 0"):
        metrics.threshold_of_sensitivity(labels, scores, 0.0)
    with pytest.raises(DataError, match=r"a share of 1\.5"):
        metrics.threshold_of_specificity(labels, scores, 1.5)


def test_a_share_of_a_whole_number_of_patches_is_not_rounded_up():
    labels, scores = np.repeat([0, 1], 100), np.r_[np.arange(100), np.arange(100)]
    for percent in range(1, 101):  # 0.07 * 100 is above 7 in floating point
        assert metrics.threshold_of_sensitivity(labels, scores, percent / 100) == 100 - percent
        expected = percent if percent < 100 else np.inf
        assert metrics.threshold_of_specificity(labels, scores, percent / 100) == expected


def test_thresholds_are_optimal_with_ties(cases):
    for number, (labels, scores, _) in enumerate(cases(60)):
        share = (0.5, 0.9, 0.95, 1.0)[number % 4]
        candidates = [*np.unique(scores), np.inf]
        valid = [t for t in candidates if metrics.sensitivity(labels, scores, t).value >= share]
        assert metrics.threshold_of_sensitivity(labels, scores, share) == max(valid)
        valid = [t for t in candidates if metrics.specificity(labels, scores, t).value >= share]
        assert metrics.threshold_of_specificity(labels, scores, share) == min(valid)


def test_sensitivity_at_a_specificity_is_the_sensitivity_at_its_threshold(cases):
    for labels, scores, _ in cases(60):
        threshold = metrics.threshold_of_specificity(labels, scores, 0.9)
        sensitivity = metrics.sensitivity_at_specificity(labels, scores, 0.9)
        assert sensitivity.value == metrics.sensitivity(labels, scores, threshold).value
        assert 0 <= sensitivity.lo <= sensitivity.hi <= 1


def test_specificity_at_a_sensitivity_is_the_specificity_at_its_threshold(cases):
    for labels, scores, _ in cases(60):
        threshold = metrics.threshold_of_sensitivity(labels, scores, 0.9)
        specificity = metrics.specificity_at_sensitivity(labels, scores, 0.9)
        assert specificity.value == metrics.specificity(labels, scores, threshold).value
        assert 0 <= specificity.lo <= specificity.hi <= 1


def test_the_interval_agrees_with_a_bootstrap_that_sorts_each_resample():
    """Quantiles of the sensitivity over resampled patches."""
    random = np.random.default_rng(8)
    labels = np.repeat([0, 1], (80, 50))
    scores = np.round(random.normal(1.5 * labels, 1.0), 1)
    drawn = []
    for _ in range(4000):
        negatives, positives = (random.choice(scores[labels == label], sum(labels == label)) for label in (0, 1))
        drawn.append(np.mean(positives > np.sort(negatives)[75]))  # the 76th of 80 is 95 %
    low, high = np.quantile(drawn, (0.025, 0.975))
    sensitivity = metrics.sensitivity_at_specificity(labels, scores)
    assert (sensitivity.lo, sensitivity.hi) == pytest.approx((low, high), abs=0.04)  # steps of 1/50
    assert sensitivity == metrics.sensitivity_at_specificity(labels, scores)


def test_nineteen_in_twenty_intervals_contain_the_true_sensitivity():
    """Unit normals 1.5 apart: 1 - Phi(1.6449 - 1.5) = 0.4424 at 95 % specificity."""
    random = np.random.default_rng(13)
    labels = np.repeat([0, 1], 400)
    intervals = [metrics.sensitivity_at_specificity(labels, random.normal(1.5 * labels, 1.0)) for _ in range(300)]
    assert (
        0.90 <= np.mean([interval.lo <= 0.4424 <= interval.hi for interval in intervals]) <= 0.99
    )  # three standard errors are .038


def test_a_flip_is_a_different_decision():
    assert metrics.flips([-1, 1, 2, -3], [1, 1, -2, -3]) == 2
    assert metrics.flips([0.0], [-0.1]) == 1
    assert metrics.flips([-1, 1], [0.5, 1], threshold_logit=0.7) == 0
    with pytest.raises(DataError, match="cannot be compared"):
        metrics.flips([1, 2], [1])


def test_flips_are_counted_by_their_direction():
    flips = metrics.flips_from([-1, -1, -1, 1, 1], [1, 2, -3, -1, 2])
    assert flips == metrics.Flips(to_positive=2, to_negative=1)
    assert flips.count == 3
    assert metrics.flips_from([1], [0.5], threshold_logit=0.7) == metrics.Flips(0, 1)
    with pytest.raises(DataError, match="cannot be compared"):
        metrics.flips_from([1, 2], [1])


@pytest.mark.parametrize(
    ("to_positive", "to_negative", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64), (8, 2, 2 * (1 + 10 + 45) / 1024)],
)
def test_the_p_value_of_flips_is_that_of_a_fair_coin(to_positive, to_negative, p):
    assert metrics.Flips(to_positive, to_negative).p == pytest.approx(p)
