"""Quality figures against the metrics that they name, and robustness with models whose answer is known."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from histoedge import metrics
from histoedge.benchmark import quality
from histoedge.data import PATCH_PX, Split, perturb, synthetic
from histoedge.edge.errors import DataError
from histoedge.metrics import by_slide

RANDOM = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 60)
REFERENCE = RANDOM.normal(2 * LABELS - 1, 1.0).astype(np.float32)
LOGITS = (REFERENCE + RANDOM.normal(0, 0.3, 120)).astype(np.float32)
SLIDES = [f"slide-{number % 12}" for number in range(120)]


def mean_green(patches: np.ndarray) -> np.ndarray:
    """A model whose logit falls with the mean green value, as under stain: (n, 1, 1, 1)."""
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
    """The judgement of what ``predict`` says of the perturbed split, chunk by chunk."""
    after = {
        name: np.concatenate(
            [
                predict(perturb.perturbed(split.patches[at : at + chunk], name)).reshape(-1)
                for at in range(0, len(split.labels), chunk)
            ]
        )
        for name in names
    }
    return quality.judged(split.labels, logits, after)


def test_figures_are_the_metrics_that_they_name() -> None:
    found = quality.figures(LABELS, LOGITS, temperature=2.0, slides=SLIDES, seed=3)
    area = by_slide.auc(LABELS, LOGITS, SLIDES, seed=3)
    assert (found["auc_slides_lo"], found["auc_slides_hi"]) == (area.lo, area.hi)
    brier = metrics.brier(LABELS, 1 / (1 + np.exp(-LOGITS.astype(float) / 2)))
    assert [found[key] for key in ("brier", "brier_lo", "brier_hi")] == pytest.approx([brier.value, brier.lo, brier.hi])
    for percent in (90, 95, 99):
        one = metrics.sensitivity_at_specificity(LABELS, LOGITS, percent / 100, seed=3)
        name = f"sensitivity_at_{percent}_specificity"
        assert (found[name], found[f"{name}_lo"], found[f"{name}_hi"]) == (one.value, one.lo, one.hi)
    for percent in (90, 95, 99):
        one = metrics.specificity_at_sensitivity(LABELS, LOGITS, percent / 100, seed=3)
        name = f"specificity_at_{percent}_sensitivity"
        assert (found[name], found[f"{name}_lo"], found[f"{name}_hi"]) == (one.value, one.lo, one.hi)


def test_no_key_is_told_twice() -> None:
    figures = quality.figures(LABELS, LOGITS, temperature=1.0, slides=None, seed=0)
    difference = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=None, seed=0)
    assert not figures.keys() & difference.keys()


def test_the_area_and_the_difference_have_delongs_intervals() -> None:
    figures = quality.figures(LABELS, LOGITS, temperature=1.0, slides=None, seed=0)
    difference = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=None, seed=0)
    area, change = metrics.delong(LABELS, LOGITS), metrics.delong_difference(LABELS, LOGITS, REFERENCE)
    assert [figures[key] for key in ("auc", "auc_lo", "auc_hi")] == [area.value, area.lo, area.hi]
    assert [difference[key] for key in ("d_auc", "d_auc_lo", "d_auc_hi")] == [change.value, change.lo, change.hi]


def test_what_is_not_known_is_none() -> None:
    found = quality.figures(LABELS, LOGITS, temperature=None, slides=None, seed=0)
    assert {key for key, value in found.items() if value is None} == {
        *("ece", "brier", "brier_lo", "brier_hi", "auc_slides_lo", "auc_slides_hi")
    }
    one_slide = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=["only"] * 120, seed=0)
    assert one_slide["d_auc_slides_lo"] is None
    with pytest.raises(DataError, match="120 labels for 119 slide ids"):
        quality.figures(LABELS, LOGITS, temperature=1.0, slides=SLIDES[1:], seed=0)


def test_flips_are_counted_at_the_threshold_of_the_file() -> None:
    logits = np.array([0.9, 1.1, 3.0, -1.0])
    reference = np.array([1.1, 0.9, 2.0, -2.0])
    found = quality.difference(np.array([0, 1, 1, 0]), logits, reference, threshold_logit=1.0, slides=None, seed=0)
    assert [found[key] for key in ("flips", "flips_to_positive", "flips_to_negative", "mcnemar_p")] == [2, 1, 1, 1.0]


def test_the_interval_of_the_difference_over_slides_is_paired() -> None:
    found = quality.difference(LABELS, LOGITS, REFERENCE, threshold_logit=0.0, slides=SLIDES, seed=5)
    expected = by_slide.auc_difference(LABELS, LOGITS, REFERENCE, SLIDES, seed=5)
    assert (found["d_auc_slides_lo"], found["d_auc_slides_hi"]) == (expected.lo, expected.hi)


def test_a_threshold_is_the_logit_that_has_its_probability() -> None:
    assert quality.threshold_logit(0.5, 3.0) == 0
    for threshold in (0.1, 0.9):
        found = quality.threshold_logit(threshold, 2.5)
        assert 1 / (1 + np.exp(-found / 2.5)) == pytest.approx(threshold)
    assert quality.threshold_logit(0.0, 2.0) == -np.inf
    assert quality.threshold_logit(1.0, 2.0) == np.inf


def test_robustness_does_not_depend_on_the_chunks(tissue: Split) -> None:
    logits = mean_green(tissue.patches).reshape(-1)
    names = ("stain_towards_eosin", "jpeg_quality_40", "scale_minus_10_percent")
    small, large = (robustness(mean_green, tissue, logits=logits, names=names, chunk=chunk) for chunk in (5, 100))
    assert small == large
    assert [row.perturbation for row in small] == list(names)


def test_a_model_that_sees_no_change_loses_nothing(tissue: Split) -> None:
    """A ramp of plain grey patches: less light keeps their order, and a blur changes nothing at all."""
    grey = np.arange(0, 240, 10, dtype=np.uint8)
    patches = np.broadcast_to(grey[:, None, None, None], (24, PATCH_PX, PATCH_PX, 3))
    split = Split("test", patches, tissue.labels, tissue.ids)
    logits = mean_green(patches).reshape(-1)
    darker, blurred = robustness(mean_green, split, logits=logits, names=("brightness_minus_15_percent", "blur_1_px"))
    area = metrics.delong(tissue.labels, logits)
    for row in (darker, blurred):
        assert (row.auc, row.auc_lo, row.auc_hi) == (area.value, area.lo, area.hi)
        assert (row.d_auc, row.d_auc_lo, row.d_auc_hi) == (0, 0, 0)
    assert blurred.flips == 0
    assert darker.flips == np.count_nonzero((grey > 128) & (np.rint(grey * 0.85) <= 128))


def test_a_model_that_counts_on_the_stain_loses_by_it(tissue: Split) -> None:
    labels = (mean_green(tissue.patches).reshape(-1) > 0).astype(np.uint8)  # right on every patch as it is
    labels[:2] = 0, 1
    split = Split("test", tissue.patches, labels, tissue.ids)
    logits = mean_green(tissue.patches).reshape(-1)
    rows = robustness(mean_green, split, logits=logits)
    assert [row.perturbation for row in rows] == list(perturb.PERTURBATIONS)
    for row in rows:
        assert row.auc_lo <= row.auc <= row.auc_hi
        assert row.d_auc == pytest.approx(row.auc - metrics.auc(labels, logits))
    assert max(row.flips for row in rows) > 0


def test_robustness_refuses_what_it_cannot_judge(tissue: Split) -> None:
    logits = mean_green(tissue.patches).reshape(-1)
    with pytest.raises(DataError, match="24 labels for 1 scores"):
        robustness(lambda patches: np.zeros(1), tissue, logits=logits, names=("blur_1_px",))
    with pytest.raises(DataError, match="24 of 24 scores are not finite"):
        robustness(lambda patches: np.full(len(patches), np.nan), tissue, logits=logits, names=("blur_1_px",))
    with pytest.raises(DataError, match="no perturbation is called 'sepia'"):
        robustness(mean_green, tissue, logits=logits, names=("sepia",))
    with pytest.raises(DataError, match="24 labels for 3 scores"):
        robustness(mean_green, tissue, logits=logits[:3], names=("blur_1_px",))
