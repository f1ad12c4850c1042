"""Stopped benchmarks resume; partial results of other inputs are measured again."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from histoedge.benchmark import (
    BenchJob,
    bench_to,
    read_results,
)
from histoedge.config import BenchPlan
from histoedge.data import perturb
from histoedge.files import WriteError
from histoedge.progress import silent

SHORT = {"max_seconds": 0.0, "integer_peak": False}
PLAN = BenchPlan(runtimes=("onnxruntime",), rounds=3, runs_per_round=5, warmup_runs=1, timeout_s=60, **SHORT)


def measure_to(out, models, *, progress=silent, **fields):
    """``bench_to`` with these fields of ``BenchJob``."""
    bench_to(out, BenchJob(models=models, **fields), progress=progress)


def test_a_benchmark_stopped_during_a_perturbation_resumes_there(write_mean_red, tmp_path, split):
    some = np.arange(0, 600, 20)
    few = SimpleNamespace(**{**vars(split), "patches": split.patches[some], "labels": split.labels[some]})
    plan = dataclasses.replace(PLAN, robustness=True)
    model, out = write_mean_red(tmp_path / "fp32.onnx"), tmp_path / "r.json"

    def stop_at_the_fourth(stage, done, total, note=""):
        if (stage, done) == ("bench, perturbed patches", 4 * 30):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_to(out, [model], plan=plan, split=few, progress=stop_at_the_fourth)
    stored = {path.name for path in (tmp_path / "r.json.partial").glob("answers.0.?*")}
    assert stored == {"answers.0.npy", *(f"answers.0.{name}.npy" for name in list(perturb.PERTURBATIONS)[:3])}
    reports = []
    measure_to(out, [model], plan=plan, split=few, progress=lambda *report: reports.append(report))
    assert not (tmp_path / "r.json.partial").exists()
    assert [report[1] for report in reports] == [30 * number for number in range(4, 11)]
    assert len(read_results(out).measurements[0].robustness) == 10
    assert read_results(out).environment["patches"] == 30


def test_a_stopped_benchmark_resumes(write_mean_red, tmp_path, split):
    models = [write_mean_red(tmp_path / name) for name in ("fp32.onnx", "int8.onnx")]
    out = tmp_path / "results" / "r.json"
    partial = tmp_path / "results" / "r.json.partial"

    def stop_within_the_second_answers(stage, done, total, note=""):
        if (stage, done) == ("bench, test patches", 600 + 512):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_to(out, models, plan=PLAN, split=split, progress=stop_within_the_second_answers)
    assert psutil.Process().children() == []
    assert not out.exists()
    assert {path.name for path in partial.iterdir()} == {"inputs.json", "times.0.npz", "answers.0.npy"}
    times = np.load(partial / "times.0.npz")["0.0"]
    reports = []
    measure_to(out, models, plan=PLAN, split=split, progress=lambda *report: reports.append(report))
    assert not partial.exists()
    assert not any("rounds" in report[0] or "loaded" in report[0] for report in reports)
    assert [report[1:3] for report in reports] == [(512, 600), (600, 600)]
    fp32, int8 = read_results(out).measurements
    assert (fp32.auc, fp32.n_calls) == (int8.auc, 15)
    assert min(times) <= fp32.p99_ms.value
    assert int8.p50_ratio is not None


@pytest.mark.parametrize("change", ["plan", "model", "damage"])
def test_stored_cells_of_other_inputs_and_damaged_ones_are_measured_again(write_mean_red, tmp_path, split, change):
    model, plan, out = write_mean_red(tmp_path / "fp32.onnx"), PLAN, tmp_path / "r.json"

    def stop(stage, done, total, note=""):
        if stage == "bench, test patches":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_to(out, [model], plan=plan, split=split, progress=stop)
    if change == "plan":
        plan = dataclasses.replace(plan, seed=1)
    elif change == "model":
        model = write_mean_red(model, scale=-1)
    else:
        (tmp_path / "r.json.partial" / "times.0.npz").write_bytes(b"PK\x03\x04 and no more")
    reports = []
    measure_to(out, [model], plan=plan, split=split, progress=lambda *report: reports.append(report[0]))
    assert "bench, rounds" in reports
    assert not (tmp_path / "r.json.partial").exists()


def test_results_that_cannot_be_written_are_refused_before_anything_runs(write_mean_red, tmp_path, split):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        measure_to(tmp_path / "file" / "r.json", [write_mean_red(tmp_path / "fp32.onnx")], plan=PLAN, split=split)
