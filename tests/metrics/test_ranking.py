"""Metrics against answers known by hand, by a slow direct computation, and by simulation."""

import numpy as np
import pytest
from scipy import stats

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


@pytest.mark.parametrize(("positives", "negatives", "levels"), [(2, 90, 3), (90, 2, 3), (120, 120, 2), (40, 200, 7)])
def test_delong_agrees_with_every_pair_where_classes_differ_in_size_and_most_scores_tie(positives, negatives, levels):
    random = np.random.default_rng(positives)
    labels = np.repeat([1, 0], (positives, negatives))
    for _ in range(3):
        first, second = random.integers(0, levels, (2, len(labels))) + (random.random(len(labels)) < 0.3) * labels
        areas, covariance = slow_delong(labels, first, second)
        found = metrics.delong_difference(labels, first, second)
        assert found.value == pytest.approx(areas[0] - areas[1], abs=1e-9)
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        assert found.standard_error == pytest.approx(variance**0.5, abs=1e-9)
        alone = metrics.delong(labels, first)
        assert alone.value == pytest.approx(areas[0], abs=1e-9)
        assert alone.lo == pytest.approx(max(0, areas[0] - 1.959963984540054 * covariance[0, 0] ** 0.5), abs=1e-9)


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


@pytest.mark.parametrize(("digits", "area"), [(9, 0.7602499), (0, 0.7430335)])
def test_nineteen_in_twenty_intervals_hold_the_true_area(digits, area):
    """Two unit normals 1 apart: Phi(1 / sqrt 2); rounded to whole numbers, so that most tie, a sum over these."""
    whole = np.arange(-8, 10)
    cells = [np.diff(stats.norm.cdf(np.r_[whole - 0.5, whole[-1] + 0.5], mean)) for mean in (0, 1)]
    by_sum = cells[1] @ (np.cumsum(cells[0]) - cells[0] / 2)
    assert area == pytest.approx(by_sum if digits == 0 else stats.norm.cdf(0.5**0.5), abs=1e-7)
    random = np.random.default_rng(11)
    labels = np.repeat([0, 1], 100)
    found = [metrics.delong(labels, np.round(random.normal(labels, 1.0), digits)) for _ in range(2000)]
    assert 0.93 <= np.mean([one.lo <= area <= one.hi for one in found]) <= 0.97  # four standard errors are .02


def test_nineteen_in_twenty_intervals_hold_the_true_difference():
    """Normals 1 and 0.6 apart on the same patches, correlated: Phi(1 / sqrt 2) - Phi(0.6 / sqrt 2)."""
    random = np.random.default_rng(14)
    labels = np.repeat([0, 1], 100)
    expected = stats.norm.cdf(1 / 2**0.5) - stats.norm.cdf(0.6 / 2**0.5)

    def holds():
        shared = random.normal(0, 0.8, 200)
        curves = [shift * labels + shared + random.normal(0, 0.6, 200) for shift in (1.0, 0.6)]
        found = metrics.delong_difference(labels, *curves)
        return found.lo <= expected <= found.hi

    assert 0.93 <= np.mean([holds() for _ in range(2000)]) <= 0.97


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


def test_the_temperature_of_outcomes_drawn_from_the_logits_is_theirs():
    """Each logit appears with exactly the share of positives that sigmoid(logit / 2) asks for."""
    count = 10_000
    for expected in (0.5, 1.0, 2.0):
        logits, labels = [], []
        for share in (0.2, 0.5, 0.9):
            logits += count * [expected * np.log(share / (1 - share))]
            labels += round(share * count) * [1] + (count - round(share * count)) * [0]
        assert metrics.temperature(labels, logits) == pytest.approx(expected, rel=1e-6)


def test_no_other_temperature_is_likelier():
    for labels, logits, _ in cases(20):
        found = metrics.temperature(labels, logits)
        around = [0.1 * found, 0.9 * found, found, 1.1 * found, 10 * found]
        losses = [np.mean(np.logaddexp(0, logits / t) - labels * logits / t) for t in around]
        assert np.argmin(losses) == 2


def test_the_temperature_grows_with_the_logits():
    for labels, logits, _ in cases(20):
        for factor in (1e-3, 50.0):
            assert metrics.temperature(labels, factor * logits) == pytest.approx(
                factor * metrics.temperature(labels, logits), rel=1e-6
            )


def test_logits_without_a_best_temperature_get_an_end_of_the_range():
    assert metrics.temperature([0, 0, 1, 1], [-2, -1, 1, 2]) == pytest.approx(1.5 / 20)
    assert metrics.temperature([1, 1, 0, 0], [-2, -1, 1, 2]) == pytest.approx(1.5 / 0.01)
    assert metrics.temperature([0, 1], [0, 0]) == 1
    with pytest.raises(DataError, match="both classes"):
        metrics.temperature([1, 1], [1, 2])


def test_the_calibration_error_of_two_bins_by_hand():
    probabilities = [0.1, 0.3, 0.6, 0.8, 1.0]
    labels = [0, 1, 1, 1, 0]
    # lower bin: mean .2 against 1/2, 2 patches; upper: mean .8 against 2/3, 3 patches
    assert metrics.calibration_error(labels, probabilities, bins=2) == pytest.approx((2 * 0.3 + 3 * (0.8 - 2 / 3)) / 5)
    assert metrics.calibration_error([0, 0, 1], [0, 0, 1]) == 0
    assert metrics.calibration_error([1, 1, 0], [0, 0, 1]) == 1


def test_opposite_errors_of_low_and_high_probabilities_do_not_cancel():
    """0.2 given where 0.4 is right, 0.8 where it is: confidence-binned, accuracy .7 against .8 would say .1."""
    labels = np.r_[np.repeat([1, 0], (4, 6)), np.repeat([1, 0], (8, 2))]
    assert metrics.calibration_error(labels, np.repeat([0.2, 0.8], 10)) == pytest.approx(0.1)
    labels = np.r_[np.repeat([1, 0], (4, 6)), np.repeat([1, 0], (10, 0))]
    # accuracy .8 equals confidence .8, yet both groups are off by .2
    assert metrics.calibration_error(labels, np.repeat([0.2, 0.8], 10)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("labels", "probabilities", "bins", "says"),
    [
        ([0, 1], [0.1, 1.1], 15, "from 0.1 to 1.1; expected 0 to 1"),
        ([0, 1], [-0.1, 1], 15, "expected 0 to 1"),
        ([], [], 15, "0 patches"),
        ([0, 1], [0.1, 0.2], 0, "in 0 bins"),
        ([0, 1], [0.1], 15, "2 labels for 1 scores"),
    ],
)
def test_what_has_no_calibration_error_says_why(labels, probabilities, bins, says):
    with pytest.raises(DataError, match=says):
        metrics.calibration_error(labels, probabilities, bins=bins)


def test_the_brier_score_of_three_patches_by_hand():
    found = metrics.brier([0, 1, 1], [0.1, 0.4, 1.0])
    assert found.value == pytest.approx((0.01 + 0.36 + 0) / 3)
    spread = 1.959964 * np.std([0.01, 0.36, 0], ddof=1) / 3**0.5
    assert (found.lo, found.hi) == pytest.approx((0.0, found.value + spread), abs=1e-6)


def test_the_brier_score_goes_from_certain_and_right_to_certain_and_wrong():
    assert metrics.brier([0, 1], [0, 1]).value == 0
    assert metrics.brier([0, 1, 1], [0.5, 0.5, 0.5]) == metrics.Interval(0.25, 0.25, 0.25)
    assert metrics.brier([0, 1], [1, 0]).value == 1
    with pytest.raises(DataError, match="0 patches"):
        metrics.brier([], [])
    with pytest.raises(DataError, match="expected 0 to 1"):
        metrics.brier([0, 1], [0.5, 2.0])


def test_nineteen_in_twenty_intervals_hold_the_true_brier_score():
    """Outcomes drawn with the probabilities told, these uniform: the mean of p (1 - p) is 1/6."""
    random = np.random.default_rng(15)

    def holds():
        shares = random.random(300)
        found = metrics.brier(random.random(300) < shares, shares)
        return found.lo <= 1 / 6 <= found.hi

    assert 0.93 <= np.mean([holds() for _ in range(2000)]) <= 0.97


def test_wilson_intervals_are_those_of_scipy_and_of_the_books():
    found = metrics.proportion(8, 10)
    assert (found.value, found.lo, found.hi) == pytest.approx((0.8, 0.4902, 0.9433), abs=5e-5)
    for successes, trials in ((0, 7), (7, 7), (1, 3), (950, 1000)):
        found, expected = metrics.proportion(successes, trials), stats.binomtest(successes, trials)
        low, high = expected.proportion_ci(method="wilson")
        assert (found.lo, found.hi) == pytest.approx((low, high), abs=1e-12)
    with pytest.raises(DataError, match="no share"):
        metrics.proportion(0, 0)


def test_sensitivity_and_specificity_at_a_threshold_count_ties_as_positive():
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
    assert metrics.threshold_of_specificity(labels, scores, 0.9) == 9  # 0 .. 8 lie below
    assert metrics.threshold_of_specificity(labels, scores, 0.91) == 10
    assert metrics.threshold_of_specificity(labels, scores, 0.01) == 1
    assert metrics.threshold_of_specificity([0, 1, 0], [1, 2, 3], 1.0) == np.inf
    with pytest.raises(DataError, match="a share of 0"):
        metrics.threshold_of_sensitivity(labels, scores, 0.0)
    with pytest.raises(DataError, match=r"a share of 1\.5"):
        metrics.threshold_of_specificity(labels, scores, 1.5)


def test_a_share_that_is_a_whole_number_of_patches_is_not_one_more():
    labels, scores = np.repeat([0, 1], 100), np.r_[np.arange(100), np.arange(100)]
    for percent in range(1, 101):  # 0.07 * 100 is above 7 in floating point
        assert metrics.threshold_of_sensitivity(labels, scores, percent / 100) == 100 - percent
        expected = percent if percent < 100 else np.inf
        assert metrics.threshold_of_specificity(labels, scores, percent / 100) == expected


def test_thresholds_are_the_best_of_all_also_with_ties():
    for number, (labels, scores, _) in enumerate(cases(60)):
        share = (0.5, 0.9, 0.95, 1.0)[number % 4]
        every = [*np.unique(scores), np.inf]
        kept = [t for t in every if metrics.sensitivity(labels, scores, t).value >= share]
        assert metrics.threshold_of_sensitivity(labels, scores, share) == max(kept)
        kept = [t for t in every if metrics.specificity(labels, scores, t).value >= share]
        assert metrics.threshold_of_specificity(labels, scores, share) == min(kept)


def test_sensitivity_at_a_specificity_is_the_one_at_its_threshold():
    for labels, scores, _ in cases(60):
        threshold = metrics.threshold_of_specificity(labels, scores, 0.9)
        found = metrics.sensitivity_at_specificity(labels, scores, 0.9)
        assert found.value == metrics.sensitivity(labels, scores, threshold).value
        assert 0 <= found.lo <= found.hi <= 1


def test_specificity_at_a_sensitivity_is_the_one_at_its_threshold():
    for labels, scores, _ in cases(60):
        threshold = metrics.threshold_of_sensitivity(labels, scores, 0.9)
        found = metrics.specificity_at_sensitivity(labels, scores, 0.9)
        assert found.value == metrics.specificity(labels, scores, threshold).value
        assert 0 <= found.lo <= found.hi <= 1


def test_the_short_way_of_drawing_is_the_bootstrap():
    """Quantiles of the sensitivity over resampled patches, drawn the long way."""
    random = np.random.default_rng(8)
    labels = np.repeat([0, 1], (80, 50))
    scores = np.round(random.normal(1.5 * labels, 1.0), 1)
    drawn = []
    for _ in range(4000):
        negatives, positives = (random.choice(scores[labels == label], sum(labels == label)) for label in (0, 1))
        drawn.append(np.mean(positives > np.sort(negatives)[75]))  # the 76th of 80 is 95 %
    low, high = np.quantile(drawn, (0.025, 0.975))
    found = metrics.sensitivity_at_specificity(labels, scores)
    assert (found.lo, found.hi) == pytest.approx((low, high), abs=0.04)  # steps of 1/50
    assert found == metrics.sensitivity_at_specificity(labels, scores)


def test_nineteen_in_twenty_intervals_hold_the_true_sensitivity():
    """Unit normals 1.5 apart: 1 - Phi(1.6449 - 1.5) = 0.4424 at 95 % specificity."""
    random = np.random.default_rng(13)
    labels = np.repeat([0, 1], 400)
    found = [metrics.sensitivity_at_specificity(labels, random.normal(1.5 * labels, 1.0)) for _ in range(300)]
    assert 0.90 <= np.mean([one.lo <= 0.4424 <= one.hi for one in found]) <= 0.99  # three standard errors are .038


def test_a_flip_is_a_decision_on_the_other_side():
    assert metrics.flips([-1, 1, 2, -3], [1, 1, -2, -3]) == 2
    assert metrics.flips([0.0], [-0.1]) == 1
    assert metrics.flips([-1, 1], [0.5, 1], threshold_logit=0.7) == 0
    with pytest.raises(DataError, match="cannot be compared"):
        metrics.flips([1, 2], [1])


def test_flips_are_counted_by_their_direction():
    found = metrics.flips_from([-1, -1, -1, 1, 1], [1, 2, -3, -1, 2])
    assert found == metrics.Flips(to_positive=2, to_negative=1)
    assert found.count == 3
    assert metrics.flips_from([1], [0.5], threshold_logit=0.7) == metrics.Flips(0, 1)
    with pytest.raises(DataError, match="cannot be compared"):
        metrics.flips_from([1, 2], [1])


@pytest.mark.parametrize(
    ("to_positive", "to_negative", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64), (8, 2, 2 * (1 + 10 + 45) / 1024)],
)
def test_the_p_value_of_flips_is_that_of_a_fair_coin(to_positive, to_negative, p):
    assert metrics.Flips(to_positive, to_negative).p == pytest.approx(p)


def test_a_ratio_of_times_that_never_vary_has_no_width():
    assert metrics.ratio_of_medians(np.full((5, 8), 3.0), np.full((5, 6), 4.0)) == metrics.Interval(0.75, 0.75, 0.75)


def test_a_drift_that_hits_both_alike_cancels_in_the_ratio():
    drift = np.linspace(1, 3, 12)[:, None]
    runs = 1 + 0.01 * np.random.default_rng(0).random((12, 40))
    ratio = metrics.ratio_of_medians(2 * drift * runs, drift * runs[:, ::-1])
    alone = metrics.median(2 * drift * runs)
    assert (ratio.lo, ratio.hi) == pytest.approx((2, 2), rel=0.02)
    assert alone.relative_width > 0.2


def test_slow_rounds_that_hit_both_alike_cancel_in_the_ratio():
    """As many slow rounds as others: the medians of all times lie now among these, now among those."""
    random = np.random.default_rng(0)
    slow = np.where(np.arange(32) % 2, 1.6, 1.0)[:, None]
    a, b = (slow * (1 + 0.01 * random.random((32, 40))) for _ in range(2))
    ratio = metrics.ratio_of_medians(1.05 * a, b)
    assert ratio.value == pytest.approx(1.05, rel=0.002)
    assert (ratio.lo, ratio.hi) == pytest.approx((1.05, 1.05), rel=0.005)


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


def test_the_offset_that_was_taken_from_the_logits_is_found() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, 40_000)
    labels = (random.random(len(logits)) < 1 / (1 + np.exp(-logits / 2))).astype(int)
    assert metrics.logit_offset(labels, logits - 1.5) == pytest.approx(1.5, abs=0.1)
    assert metrics.logit_offset(labels, logits) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, 1.0, 2.0], [-3.0, 1.0, -1.0, 2.0]])
def test_the_offset_of_few_patches_is_finite_and_small(logits: list[float]) -> None:
    assert abs(metrics.logit_offset([0, 0, 1, 1], logits)) <= 3
