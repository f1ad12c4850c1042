"""Calibration against answers known by hand."""

import json

import numpy as np
import pytest

from histoedge.edge.errors import DataError
from histoedge.edge.manifest import probability
from histoedge.lab import calibrate

pytestmark = pytest.mark.lab

LABELS = np.repeat([0, 1], 20)
LOGITS = np.r_[np.arange(20), np.arange(10, 30)].astype(np.float32)  # positives 10 .. 29, negatives 0 .. 19


def test_the_four_points_of_forty_patches_by_hand() -> None:
    calibration = calibrate.fit_calibration(LABELS, LOGITS)
    rows = {point.name: point for point in calibration.operating_points}
    assert list(rows) == ["sensitivity 0.95", "sensitivity 0.90", "specificity 0.95", "specificity 0.90"]
    between = {
        "sensitivity 0.95": (10, 11, 0.95, 0.55),
        "sensitivity 0.90": (11, 12, 0.90, 0.60),
        "specificity 0.95": (18, 19, 0.55, 0.95),
        "specificity 0.90": (17, 18, 0.60, 0.90),
    }
    for name, (below, at, sensitivity, specificity) in between.items():
        point = rows[name]
        logit = calibration.temperature * np.log(point.threshold / (1 - point.threshold))
        assert logit == pytest.approx((below + at) / 2)  # halfway: no rounding can decide over all patches of a code
        assert (point.sensitivity, point.specificity) == pytest.approx((sensitivity, specificity))
        assert point.sensitivity_lo < point.sensitivity < point.sensitivity_hi
        assert point.specificity_lo < point.specificity < point.specificity_hi
        assert (point.n_positive, point.n_negative) == (20, 20)


def test_the_probability_at_the_threshold_decides_as_was_measured() -> None:
    random = np.random.default_rng(4)
    for quantum in (1e-6, 0.25, 2.0):
        labels = random.integers(0, 2, 300)
        logits = (np.round(random.normal(2.0 * labels - 1, 1.0) / quantum) * quantum).astype(np.float32)
        calibration = calibrate.fit_calibration(labels, logits)
        for point in calibration.operating_points:
            called = probability(logits, calibration.temperature) >= point.threshold
            assert called[labels == 1].mean() == point.sensitivity
            assert (~called)[labels == 0].mean() == point.specificity


def test_separated_classes_have_thresholds_that_separate_them() -> None:
    labels = np.repeat([0, 1], 50)
    logits = np.r_[np.linspace(-9, -4, 50), np.linspace(4, 9, 50)].astype(np.float32)
    calibration = calibrate.fit_calibration(labels, logits)
    for point, positives in zip(calibration.operating_points, (48, 45, 52, 55), strict=True):
        assert 0 < point.threshold < 1
        assert np.count_nonzero(probability(logits, calibration.temperature) >= point.threshold) == positives


def test_where_no_score_is_high_enough_nothing_is_positive() -> None:
    point = calibrate.fit_calibration([1, 0, 0], [0.0, 1.0, 2.0]).operating_points[2]
    assert (point.threshold, point.sensitivity, point.specificity) == (1.0, 0.0, 1.0)


def test_a_written_calibration_can_be_read() -> None:
    calibration = calibrate.fit_calibration(LABELS, LOGITS)
    assert calibrate.from_json(json.loads(json.dumps(calibration.as_json()))) == calibration
    with pytest.raises(TypeError):
        calibrate.from_json({"temperature": 1.0, "operating_points": [{"name": "sensitivity 0.95"}]})


def test_one_class_cannot_be_calibrated() -> None:
    with pytest.raises(DataError, match="both classes"):
        calibrate.fit_calibration([1, 1], [0.0, 1.0])
