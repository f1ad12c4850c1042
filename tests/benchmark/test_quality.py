"""Quality figures against the metrics, and robustness with models of known answers."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from histoedge import metrics
from histoedge.benchmark import quality
from histoedge.data import Split, perturb, synthetic
from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX
from histoedge.metrics import by_slide

RANDOM = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 60)
REFERENCE = RANDOM.normal(2 * LABELS - 1, 1.0).astype(np.float32)
LOGITS = (REFERENCE + RANDOM.normal(0, 0.3, 120)).astype(np.float32)
SLIDES = [f"slide-{number % 12}" for number in range(120)]


def mean_green(patches: np.ndarray) -> np.ndarray:
    """Return logits (n, 1, 1, 1) that fall with the mean green value, as stain lowers it."""
    return (4 - patches[..., 1].mean(axis=(1, 2)) / 32)[:, None, None, None]


@pytest.fixture(scope="module")
def tissue() -> Split:
    patches, labels = synthetic.golden(24)
    return Split("test", patches, labels, [str(number) for number in range(24)])


def robustness(
    predict: Callable[[np.ndarray], np.ndarray],
    split: Split,
    *,
    logits: np.ndarray,
    names: Sequence[str] = tuple(perturb.PERTURBATIONS),
    chunk: int = 24,
) -> list[quality.Robustness]:
    """Return the robustness of ``predict`` on the perturbed split, chunk by chunk."""
    after = {
        name: np.concatenate(
            [
                predict(perturb.perturbed(split.patches[at : at + chunk], name)).reshape(-1)
                for at in range(0, len(split.labels), chunk)
            ]
        )
        for name in names
    }
    return quality.robustness(split.labels, logits, after)


def test_figures_are_those_of_the_metrics() -> None:
    fields = quality.figures(LABELS, LOGITS, temperature=2.0, slides=SLIDES, seed=3)
    assert fields["auc_slides"] == by_slide.auc(LABELS, LOGITS, SLIDES, seed=3)
    brier = metrics.brier(LABELS, 1 / (1 + np.exp(-LOGITS.astype(float) / 2)))
    assert dataclasses.astuple(fields["brier"]) == pytest.approx(dataclasses.astuple(brier))
    for percent in (90, 95, 99):
        sensitivity = metrics.sensitivity_at_specificity(LABELS, LOGITS, percent / 100, seed=3)
        specificity = metrics.specificity_at_sensitivity(LABELS, LOGITS, percent / 100, seed=3)
        assert fields[f"sensitivity_at_{percent}_specificity"] == sensitivity
        assert fields[f"specificity_at_{percent}_sensitivity"] == specificity


def test_figures_and_difference_have_no_key_in_common() -> None:
    figures = quality.figures(LABELS, LOGITS, temperature=1.0, slides=None, seed=0)
    difference = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=None, seed=0)
    assert not figures.keys() & difference.keys()


def test_the_area_and_the_difference_have_delongs_intervals() -> None:
    figures = quality.figures(LABELS, LOGITS, temperature=1.0, slides=None, seed=0)
    difference = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=None, seed=0)
    assert figures["auc"] == metrics.delong(LABELS, LOGITS)
    assert difference["d_auc"] == metrics.delong_difference(LABELS, LOGITS, REFERENCE)


def test_figures_without_temperature_or_slides_are_none() -> None:
    fields = quality.figures(LABELS, LOGITS, temperature=None, slides=None, seed=0)
    assert {key for key, value in fields.items() if value is None} == {"ece", "brier", "auc_slides"}
    one_slide = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=["only"] * 120, seed=0)
    assert one_slide["d_auc_slides"] is None
    with pytest.raises(DataError, match="120 labels for 119 slide ids"):
        quality.figures(LABELS, LOGITS, temperature=1.0, slides=SLIDES[1:], seed=0)


def test_flips_are_counted_at_the_threshold_of_the_file() -> None:
    logits = np.array([0.9, 1.1, 3.0, -1.0])
    reference = np.array([1.1, 0.9, 2.0, -2.0])
    fields = quality.difference(np.array([0, 1, 1, 0]), logits, reference, threshold_logit=1.0, slides=None, seed=0)
    assert [fields[key] for key in ("flips", "flips_to_positive", "flips_to_negative", "mcnemar_p")] == [2, 1, 1, 1.0]


def test_the_interval_of_the_difference_over_slides_is_paired() -> None:
    fields = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=SLIDES, seed=5)
    assert fields["d_auc_slides"] == by_slide.auc_difference(LABELS, LOGITS, REFERENCE, SLIDES, seed=5)


def test_robustness_does_not_depend_on_the_chunks(tissue: Split) -> None:
    logits = mean_green(tissue.patches).reshape(-1)
    names = ("stain_towards_eosin", "jpeg_quality_40", "scale_minus_10_percent")
    small, large = (robustness(mean_green, tissue, logits=logits, names=names, chunk=chunk) for chunk in (5, 100))
    assert small == large
    assert [row.perturbation for row in small] == list(names)


def test_a_model_that_ignores_the_change_loses_nothing(tissue: Split) -> None:
    """Uniform grey patches: less light keeps their order, and a blur changes nothing."""
    grey = np.arange(0, 240, 10, dtype=np.uint8)
    patches = np.broadcast_to(grey[:, None, None, None], (24, PATCH_PX, PATCH_PX, 3))
    split = Split("test", patches, tissue.labels, tissue.ids)
    logits = mean_green(patches).reshape(-1)
    darker, blurred = robustness(mean_green, split, logits=logits, names=("brightness_minus_15_percent", "blur_1_px"))
    area = metrics.delong(tissue.labels, logits)
    for row in (darker, blurred):
        assert row.auc == area
        assert row.d_auc == metrics.Interval(0, 0, 0)
    assert blurred.flips == 0
    assert darker.flips == np.count_nonzero((grey > 128) & (np.rint(grey * 0.85) <= 128))


def test_a_model_that_depends_on_the_stain_loses_when_it_changes(tissue: Split) -> None:
    labels = (mean_green(tissue.patches).reshape(-1) > 0).astype(np.uint8)  # right on every unchanged patch
    labels[:2] = 0, 1
    split = Split("test", tissue.patches, labels, tissue.ids)
    logits = mean_green(tissue.patches).reshape(-1)
    rows = robustness(mean_green, split, logits=logits)
    assert [row.perturbation for row in rows] == list(perturb.PERTURBATIONS)
    for row in rows:
        assert row.auc.lo <= row.auc.value <= row.auc.hi
        assert row.d_auc.value == pytest.approx(row.auc.value - metrics.auc(labels, logits))
    assert max(row.flips for row in rows) > 0


def test_robustness_refuses_wrong_logits_and_unknown_perturbations(tissue: Split) -> None:
    logits = mean_green(tissue.patches).reshape(-1)
    with pytest.raises(DataError, match="24 labels for 1 scores"):
        robustness(lambda patches: np.zeros(1), tissue, logits=logits, names=("blur_1_px",))
    with pytest.raises(DataError, match="24 of 24 scores are not finite"):
        robustness(lambda patches: np.full(len(patches), np.nan), tissue, logits=logits, names=("blur_1_px",))
    with pytest.raises(DataError, match="no perturbation 'sepia'; choose from"):
        robustness(mean_green, tissue, logits=logits, names=("sepia",))
    with pytest.raises(DataError, match="24 labels for 3 scores"):
        robustness(mean_green, tissue, logits=logits[:3], names=("blur_1_px",))
