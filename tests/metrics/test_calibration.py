"""Temperature, logit offset, calibration error and Brier score against known answers and simulation."""

import numpy as np
import pytest

from histoedge import metrics
from histoedge.edge.errors import DataError


def test_the_temperature_that_generated_the_labels_is_recovered():
    """The share of positives of each logit is exactly sigmoid(logit / temperature)."""
    count = 10_000
    for expected in (0.5, 1.0, 2.0):
        logits, labels = [], []
        for share in (0.2, 0.5, 0.9):
            logits += count * [expected * np.log(share / (1 - share))]
            labels += round(share * count) * [1] + (count - round(share * count)) * [0]
        assert metrics.temperature(labels, logits) == pytest.approx(expected, rel=1e-6)


def test_no_other_temperature_has_a_higher_likelihood(cases):
    for labels, logits, _ in cases(20):
        best = metrics.temperature(labels, logits)
        candidates = [0.1 * best, 0.9 * best, best, 1.1 * best, 10 * best]
        losses = [np.mean(np.logaddexp(0, logits / t) - labels * logits / t) for t in candidates]
        assert np.argmin(losses) == 2


def test_the_temperature_scales_with_the_logits(cases):
    for labels, logits, _ in cases(20):
        for factor in (1e-3, 50.0):
            assert metrics.temperature(labels, factor * logits) == pytest.approx(
                factor * metrics.temperature(labels, logits), rel=1e-6
            )


def test_logits_without_a_best_temperature_get_a_limit_of_the_range():
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
    """A probability of 0.2 with a share of 0.4, and 0.8 with 0.8. The confidence-binned error is .8 - .7 = .1."""
    labels = np.r_[np.repeat([1, 0], (4, 6)), np.repeat([1, 0], (8, 2))]
    assert metrics.calibration_error(labels, np.repeat([0.2, 0.8], 10)) == pytest.approx(0.1)
    labels = np.r_[np.repeat([1, 0], (4, 6)), np.repeat([1, 0], (10, 0))]
    # accuracy .8 equals confidence .8, but both groups are wrong by .2
    assert metrics.calibration_error(labels, np.repeat([0.2, 0.8], 10)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("labels", "probabilities", "bins", "message"),
    [
        ([0, 1], [0.1, 1.1], 15, "from 0.1 to 1.1; expected 0 to 1"),
        ([0, 1], [-0.1, 1], 15, "expected 0 to 1"),
        ([], [], 15, "0 patches"),
        ([0, 1], [0.1, 0.2], 0, "with 0 bins"),
        ([0, 1], [0.1], 15, "2 labels for 1 scores"),
    ],
)
def test_wrong_probabilities_labels_and_bins_are_refused(labels, probabilities, bins, message):
    with pytest.raises(DataError, match=message):
        metrics.calibration_error(labels, probabilities, bins=bins)


def test_the_brier_score_of_three_patches_by_hand():
    score = metrics.brier([0, 1, 1], [0.1, 0.4, 1.0])
    assert score.value == pytest.approx((0.01 + 0.36 + 0) / 3)
    spread = 1.959964 * np.std([0.01, 0.36, 0], ddof=1) / 3**0.5
    assert (score.lo, score.hi) == pytest.approx((0.0, score.value + spread), abs=1e-6)


def test_the_brier_score_is_0_if_certain_and_right_and_1_if_certain_and_wrong():
    assert metrics.brier([0, 1], [0, 1]).value == 0
    assert metrics.brier([0, 1, 1], [0.5, 0.5, 0.5]) == metrics.Interval(0.25, 0.25, 0.25)
    assert metrics.brier([0, 1], [1, 0]).value == 1
    with pytest.raises(DataError, match="0 patches"):
        metrics.brier([], [])
    with pytest.raises(DataError, match="expected 0 to 1"):
        metrics.brier([0, 1], [0.5, 2.0])


def test_nineteen_in_twenty_intervals_contain_the_true_brier_score():
    """Labels drawn with uniform probabilities p: the expected score is the mean of p (1 - p), 1/6."""
    random = np.random.default_rng(15)

    def contains_it():
        shares = random.random(300)
        score = metrics.brier(random.random(300) < shares, shares)
        return score.lo <= 1 / 6 <= score.hi

    assert 0.93 <= np.mean([contains_it() for _ in range(2000)]) <= 0.97


def test_an_offset_subtracted_from_the_logits_is_recovered() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, 40_000)
    labels = (random.random(len(logits)) < 1 / (1 + np.exp(-logits / 2))).astype(int)
    assert metrics.logit_offset(labels, logits - 1.5) == pytest.approx(1.5, abs=0.1)
    assert metrics.logit_offset(labels, logits) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, 1.0, 2.0], [-3.0, 1.0, -1.0, 2.0]])
def test_the_offset_of_few_patches_is_finite_and_small(logits: list[float]) -> None:
    assert abs(metrics.logit_offset([0, 0, 1, 1], logits)) <= 3
