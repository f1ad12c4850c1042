"""Benchmarks of tiny models in real child processes. No test asserts a duration."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from histoedge import metrics
from histoedge.benchmark import (
    BenchJob,
    bench,
    bench_to,
    measure,
    read_results,
)
from histoedge.config import BenchPlan
from histoedge.edge.manifest import manifest_path
from histoedge.progress import silent

SHORT = {"max_seconds": 0.0, "integer_peak": False}
PLAN = BenchPlan(runtimes=("onnxruntime",), rounds=3, runs_per_round=5, warmup_runs=1, timeout_s=60, **SHORT)


def measure_models(models, *, progress=silent, **fields):
    """``bench`` with these fields of ``BenchJob``."""
    return bench(BenchJob(models=models, **fields), progress=progress)


def measure_to(out, models, *, progress=silent, **fields):
    """``bench_to`` with these fields of ``BenchJob``."""
    bench_to(out, BenchJob(models=models, **fields), progress=progress)


def by_name(rows):
    return {f"{row.model} @ {row.runtime}": row for row in rows}


def test_every_file_is_measured_and_compared_with_its_fp32(write_mean_red, tmp_path, split, mean_reds):
    models = [write_mean_red(tmp_path / name, scale=scale) for name, scale in (("fp32.onnx", 1), ("fp16.onnx", -2))]
    reports = []
    rows = measure_models(models, plan=PLAN, split=split, progress=lambda *report: reports.append(report))
    fp32, fp16 = rows
    auc = metrics.delong(split.labels, mean_reds)
    assert (fp32.status, fp16.status) in {(a, b) for a in ("ok", "unsettled") for b in ("ok", "unsettled")}
    assert dataclasses.astuple(fp32.auc) == pytest.approx(dataclasses.astuple(auc))
    assert fp16.auc.value == pytest.approx(1 - auc.value)
    assert (fp32.reference, fp32.d_auc, fp32.p50_ratio) == (None, None, None)
    assert fp16.reference == "fp32.onnx @ onnxruntime"
    assert fp16.d_auc.value == pytest.approx(1 - 2 * auc.value)
    assert fp16.d_auc.lo < fp16.d_auc.value < fp16.d_auc.hi < 0
    assert 0 < fp16.p50_ratio.lo <= fp16.p50_ratio.value <= fp16.p50_ratio.hi
    for row in rows:
        quantiles = [row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms]
        assert all(0 < quantile.lo <= quantile.value <= quantile.hi for quantile in quantiles)
        assert [quantile.value for quantile in quantiles] == sorted(quantile.value for quantile in quantiles)
        assert (row.n_calls, row.n_patches, row.threads, row.batch, row.field_px) == (15, 600, 1, 1, 96)
        assert (row.kernels, row.recipe, row.format, row.params, row.macs) == ("mlas", row.recipe, "onnx", 2, 9216)
        assert row.load_ms > 0
        assert row.first_ms > 0
        assert 0 < row.patches_per_s.lo <= row.patches_per_s.value <= row.patches_per_s.hi
        assert row.size_bytes == Path(tmp_path / row.model).stat().st_size
    assert ("bench, rounds", 3, 3, "") in reports
    assert [report[1:3] for report in reports if report[0] == "bench, test patches"][-1] == (1200, 1200)


def test_an_unusable_file_is_a_row_and_the_others_are_measured(write_mean_red, write_model, tmp_path, split):
    good = write_mean_red(tmp_path / "fp32.onnx")
    altered = write_mean_red(tmp_path / "int8.onnx")
    altered.write_bytes(altered.read_bytes() + b"\0")
    orphan = write_mean_red(tmp_path / "fp16.onnx")
    manifest_path(orphan).unlink()
    endless = write_mean_red(tmp_path / "prune50.onnx", scale=float("inf"))
    nonsense = write_model(tmp_path / "prune90.onnx", b"nonsense")
    rows = by_name(measure_models([altered, orphan, endless, nonsense, good], plan=PLAN, split=split))
    reasons = {
        "int8.onnx": "changed after its manifest was written",
        "fp16.onnx": "manifest is missing",
        "prune50.onnx": "logits are not finite",
        "prune90.onnx": "ONNX Runtime cannot open this file",
    }
    for name, reason in reasons.items():
        row = rows[f"{name} @ onnxruntime"]
        assert row.status == "failed"
        assert reason in row.reason
        assert (row.p50_ms, row.auc, row.reference) == (None, None, None)
    assert rows["fp32.onnx @ onnxruntime"].auc is not None


def test_a_killed_child_is_a_row_and_the_others_are_measured(write_mean_red, tmp_path, split):
    models = [write_mean_red(tmp_path / name) for name in ("fp32.onnx", "fp16.onnx")]

    def kill_the_second_after_a_round(stage, done, total, note=""):
        if (stage, done) == ("bench, rounds", 1):
            max(psutil.Process().children(), key=lambda child: child.create_time()).kill()

    fp32, fp16 = measure_models(models, plan=PLAN, split=split, progress=kill_the_second_after_a_round)
    assert fp32.auc is not None
    assert fp16.status == "failed"
    assert "killed by SIGKILL" in fp16.reason
    assert (fp16.p50_ms, fp16.load_ms, fp16.peak_rss_bytes) == (None, None, None)


def test_an_interrupt_leaves_no_process_behind(write_mean_red, tmp_path, split):
    def interrupt(stage, done, total, note=""):
        if stage == "bench, rounds":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=PLAN, split=split, progress=interrupt)
    assert psutil.Process().children() == []


def test_one_round_is_never_settled(write_mean_red, tmp_path, split):
    plan = BenchPlan(runtimes=("onnxruntime",), rounds=1, runs_per_round=5, **SHORT)
    (row,) = measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    assert row.status == "unsettled"
    assert "one round" in row.reason


def test_quality_is_measured_once_and_the_same_for_every_shape(write_mean_red, tmp_path, split, mean_reds):
    plan = BenchPlan(runtimes=("onnxruntime",), scenarios=("multi-stream",), rounds=2, runs_per_round=2, **SHORT)
    reports = []
    models = [write_mean_red(tmp_path / name, scale=scale) for name, scale in (("fp32.onnx", 1), ("int8.onnx", -1))]
    rows = measure_models(models, plan=plan, split=split, progress=lambda *report: reports.append(report))
    cells = [(row.model, row.scenario, row.batch, row.field_px, row.n_outputs) for row in rows]
    assert cells == [
        ("fp32.onnx", "single-stream", 1, 96, 1),
        ("int8.onnx", "single-stream", 1, 96, 1),
        ("fp32.onnx", "multi-stream", 8, 96, 8),
        ("int8.onnx", "multi-stream", 8, 96, 8),
    ]
    assert rows[0].auc == rows[2].auc
    assert rows[0].auc.value == pytest.approx(metrics.auc(split.labels, mean_reds))
    assert rows[1].d_auc == rows[3].d_auc
    assert None not in (rows[1].p50_ratio, rows[3].p50_ratio)
    assert {report[0] for report in reports if "patches" in report[0]} == {"bench, test patches, group 1 of 2"}
    for row in rows:
        assert row.mpx_per_s == pytest.approx(row.patches_per_s.value * 96 * 96 / 1e6)
        assert row.patches_per_s.lo <= row.patches_per_s.value <= row.patches_per_s.hi
        for quantile in (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms):
            assert quantile.lo <= quantile.value <= quantile.hi


def test_a_field_is_made_of_the_patches(split):
    patches = split.patches[:5]
    fields = measure._fields(patches, 200, seed=0)
    assert fields.shape[1:] == (200, 200, 3)
    assert fields.dtype == np.uint8
    known = {patch.tobytes() for patch in patches}
    tiles = [fields[k, y : y + 96, x : x + 96] for k in range(len(fields)) for y in (0, 96) for x in (0, 96)]
    assert {tile.tobytes() for tile in tiles} == known
    assert (measure._fields(patches, 200, seed=0) == fields).all()
    assert measure._fields(patches, 96, seed=0) is patches


def test_a_library_that_cannot_be_imported_is_a_row(write_mean_red, tmp_path, split, monkeypatch):
    broken = tmp_path / "site" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    paths = [str(broken.parent), str(Path(measure.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (row,) = measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=PLAN, split=split)
    assert row.status == "failed"
    assert row.reason == "ImportError: numpy.core.multiarray failed to import"


def test_a_runtime_that_ends_with_a_signal_is_a_row(write_mean_red, tmp_path, split, monkeypatch):
    crashing = tmp_path / "site" / "onnxruntime"
    crashing.mkdir(parents=True)
    (crashing / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    paths = [str(crashing.parent), str(Path(measure.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    plan = dataclasses.replace(PLAN, runtimes=("onnxruntime", "openvino"))
    rows = by_name(measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    row = rows["fp32.onnx @ onnxruntime"]
    assert (row.status, row.reason) == ("failed", "killed by SIGSEGV")
    other = rows["fp32.onnx @ openvino"]
    assert other.status == "unavailable" or other.auc is not None


def test_the_integer_peak_is_measured_and_rows_have_their_share_of_it(write_mean_red, tmp_path, split):
    plan = dataclasses.replace(PLAN, rounds=2, runs_per_round=2, integer_peak=True)
    measure_to(tmp_path / "r.json", [write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    content = read_results(tmp_path / "r.json")
    (row,) = content.measurements
    peaks = content.environment["integer_peak_gmacs"]["1"]
    assert "onnxruntime" in peaks
    assert row.peak_share == pytest.approx(row.macs / (1e6 * row.p50_ms.value) / max(peaks.values()))
    assert row.rss_over_empty_bytes == row.peak_rss_bytes - content.environment["empty_rss_bytes"] > 1 << 20
    assert content.environment["decode"].keys() == {"png", "tiff", "jpeg"}
    assert content.environment["decode"]["png"]["p50_ms"] > 0
