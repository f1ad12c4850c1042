"""Quality figures of measured rows: AUC, calibration, robustness, flips."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from histoedge import edge, metrics
from histoedge.benchmark import (
    BenchJob,
    bench,
    bench_to,
    quality,
)
from histoedge.config import BenchPlan
from histoedge.data import perturb
from histoedge.files import WriteError
from histoedge.metrics import Interval
from histoedge.progress import silent

SHORT = {"max_seconds": 0.0, "integer_peak": False}
PLAN = BenchPlan(runtimes=("onnxruntime",), rounds=3, runs_per_round=5, warmup_runs=1, timeout_s=60, **SHORT)


def measure_models(models, *, progress=silent, **fields):
    """``bench`` with these fields of ``BenchJob``."""
    return bench(BenchJob(models=models, **fields), progress=progress)


def measure_to(out, models, *, progress=silent, **fields):
    """``bench_to`` with these fields of ``BenchJob``."""
    bench_to(out, BenchJob(models=models, **fields), progress=progress)


def test_calibration_and_sensitivity_are_measured_on_test_at_the_manifests_temperature(
    write_mean_red, tmp_path, split, mean_reds
):
    (row,) = measure_models([write_mean_red(tmp_path / "fp32.onnx", temperature=5.0)], plan=PLAN, split=split)
    probabilities = 1 / (1 + np.exp(-(mean_reds - 100) / 5))
    assert row.ece == pytest.approx(metrics.calibration_error(split.labels, probabilities), abs=1e-4)
    sensitivity = metrics.sensitivity_at_specificity(split.labels, mean_reds - 100, 0.95, seed=PLAN.seed)
    assert row.sensitivity_at_95_specificity == sensitivity


def test_all_quality_figures_are_in_the_row(write_mean_red, tmp_path, split, mean_reds):
    models = [
        write_mean_red(tmp_path / name, scale=scale, temperature=4.0)
        for name, scale in (("fp32.onnx", 1), ("q.onnx", -1))
    ]
    slides = [f"slide-{number % 20}" for number in range(600)]
    with_slides = SimpleNamespace(**{**vars(split), "slides": slides})
    fp32, other = measure_models(models, plan=PLAN, split=with_slides)
    expected = quality.figures(
        split.labels, (mean_reds - 100).astype(np.float32), temperature=4.0, slides=slides, seed=0
    )
    for name, value in expected.items():
        measured = getattr(fp32, name)
        if isinstance(value, Interval):
            measured, value = dataclasses.astuple(measured), dataclasses.astuple(value)
        assert measured == pytest.approx(value, abs=1e-6), name
    logits = mean_reds - 100
    flips = metrics.flips_from(logits, -logits)
    assert (other.flips, other.flips_to_positive, other.mcnemar_p) == (flips.count, flips.to_positive, flips.p)
    assert other.d_auc_slides.lo < other.d_auc.value < other.d_auc_slides.hi
    assert (fp32.flips, fp32.d_auc_slides, fp32.robustness) == (None, None, None)
    assert fp32.ms_quantiles[0] <= fp32.ms_quantiles[50] == pytest.approx(fp32.p50_ms.value, rel=1e-4)
    assert sum(fp32.reliability.patches) == 600
    assert np.trapezoid(fp32.roc.tpr, fp32.roc.fpr) == pytest.approx(fp32.auc.value, abs=1e-3)


def test_robustness_is_measured_once_for_a_file_on_a_runtime(write_mean_red, tmp_path, split):
    some = np.arange(0, 600, 20)
    few = SimpleNamespace(**{**vars(split), "patches": split.patches[some], "labels": split.labels[some]})
    plan = dataclasses.replace(PLAN, robustness=True, rounds=2, runs_per_round=2, batch=(1, 2))
    reports = []
    models = [write_mean_red(tmp_path / name, scale=scale) for name, scale in (("fp32.onnx", 1), ("int8.onnx", -1))]
    rows = measure_models(models, plan=plan, split=few, progress=lambda *report: reports.append(report))
    assert [row.robustness is None for row in rows] == [False, False, True, True]
    assert [row.roc is None for row in rows] == [False, False, True, True]

    def mean_red_logits(patches):
        return patches[..., 0].mean(axis=(1, 2), dtype=np.float64) - 100

    after = {name: mean_red_logits(perturb.perturbed(few.patches, name)) for name in perturb.PERTURBATIONS}
    expected = quality.robustness(few.labels, mean_red_logits(few.patches), after)
    assert [row.perturbation for row in rows[0].robustness] == list(perturb.PERTURBATIONS)
    for measured, known in zip(rows[0].robustness, expected, strict=True):
        assert measured.auc.value == pytest.approx(known.auc.value, abs=1e-2)  # float32 sums break ties of float64 sums
    assert rows[1].robustness[0].auc.value == pytest.approx(1 - rows[0].robustness[0].auc.value)
    steps = [report[1:3] for report in reports if report[0].startswith("bench, perturbed")]
    assert steps == [(30 * number, 300) for number in range(1, 11)]


def test_flips_are_drawn_for_every_file_with_flips(write_mean_red, tmp_path, split):
    some = np.arange(0, 600, 20)
    few = SimpleNamespace(**{**vars(split), "patches": split.patches[some], "labels": split.labels[some]})
    names = (("fp32.onnx", 1), ("int8.onnx", -1), ("fp16.onnx", 2))
    models = [write_mean_red(tmp_path / name, scale=scale) for name, scale in names]
    measure_to(tmp_path / "r.json", models, plan=PLAN, split=few, flips=tmp_path / "new" / "flips")
    (sheet,) = (tmp_path / "new" / "flips").iterdir()
    assert sheet.name == "int8.onnx@onnxruntime.png"
    assert sheet.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(WriteError, match="cannot create this folder"):
        measure_to(tmp_path / "r.json", models, plan=PLAN, split=few, flips=sheet / "below")


def test_all_installed_runtimes_have_the_same_auc(write_mean_red, tmp_path, split, mean_reds):
    plan = BenchPlan(rounds=2, runs_per_round=2, warmup_runs=0, batch=(4,), **SHORT)
    rows = measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    assert [row.runtime for row in rows] == ["onnxruntime", "openvino"]
    for row in rows:
        if edge.RUNTIMES[row.runtime].installed():
            assert row.auc.value == pytest.approx(metrics.auc(split.labels, mean_reds), abs=1e-6)
        else:
            assert row.status == "unavailable"
