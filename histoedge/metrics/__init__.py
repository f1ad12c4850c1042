"""Metrics with intervals: AUC, calibration, operating points, decision flips, ratios of median times.

Labels are 0 or 1. Scores and logits are finite numbers; larger means more tumour. Intervals over patches assume
independent patches, but patches of the same slide are correlated: ``by_slide`` resamples whole slides.
"""

from histoedge.metrics.calibration import brier, calibration_error, cross_entropy, logit_offset, temperature
from histoedge.metrics.decisions import (
    Flips,
    flips,
    flips_from,
    proportion,
    sensitivity,
    sensitivity_at_specificity,
    specificity,
    specificity_at_sensitivity,
    threshold_of_sensitivity,
    threshold_of_specificity,
)
from histoedge.metrics.interval import BOOTSTRAP_RESAMPLES, Interval, value_of
from histoedge.metrics.medians import median, ratio_of_medians
from histoedge.metrics.ranking import auc, delong, delong_difference

__all__ = [
    "BOOTSTRAP_RESAMPLES",
    "Flips",
    "Interval",
    "auc",
    "brier",
    "calibration_error",
    "cross_entropy",
    "delong",
    "delong_difference",
    "flips",
    "flips_from",
    "logit_offset",
    "median",
    "proportion",
    "ratio_of_medians",
    "sensitivity",
    "sensitivity_at_specificity",
    "specificity",
    "specificity_at_sensitivity",
    "temperature",
    "threshold_of_sensitivity",
    "threshold_of_specificity",
    "value_of",
]
