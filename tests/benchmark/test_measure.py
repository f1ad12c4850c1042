"""Benchmarks of tiny models in real child processes. No test asserts a duration."""

import dataclasses
import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from histoedge import edge, metrics
from histoedge.benchmark import (
    BenchJob,
    bench,
    bench_inputs,
    bench_to,
    find_models,
    matrix,
    measure,
    quality,
    read_results,
)
from histoedge.config import BenchPlan
from histoedge.data import perturb
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, ModelError
from histoedge.edge.manifest import manifest_path
from histoedge.files import WriteError
from histoedge.metrics import Interval
from histoedge.progress import silent

SHORT = {"max_seconds": 0.0, "integer_peak": False}
PLAN = BenchPlan(runtimes=("onnxruntime",), rounds=3, runs_per_round=5, warmup_runs=1, timeout_s=60, **SHORT)

KERAS_STAND_IN = """
import numpy as np
from histoedge import cell

class Runner:
    runtime, version, kernels = "keras", "0", "numpy"
    def predict(self, patches):
        return patches.mean(axis=(1, 2, 3), dtype=np.float32).reshape(-1, 1, 1, 1)

cell.serve(lambda request: Runner())
"""


def measure_models(models, *, progress=silent, **fields):
    """``bench`` with these fields of ``BenchJob``."""
    return bench(BenchJob(models=models, **fields), progress=progress)


def measure_to(out, models, *, progress=silent, **fields):
    """``bench_to`` with these fields of ``BenchJob``."""
    bench_to(out, BenchJob(models=models, **fields), progress=progress)


def inputs_of(models, **fields):
    """``bench_inputs`` with these fields of ``BenchJob``."""
    return bench_inputs(BenchJob(models=models, **fields))


def by_name(rows):
    return {f"{row.model} @ {row.runtime}": row for row in rows}


def test_every_file_is_measured_and_compared_with_its_fp32(mean_red, tmp_path, split, red):
    models = [mean_red(tmp_path / name, scale=scale) for name, scale in (("fp32.onnx", 1), ("fp16.onnx", -2))]
    reports = []
    rows = measure_models(models, plan=PLAN, split=split, progress=lambda *report: reports.append(report))
    fp32, fp16 = rows
    auc = metrics.delong(split.labels, red)
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


def test_calibration_and_sensitivity_are_measured_on_test_at_the_manifests_temperature(mean_red, tmp_path, split, red):
    (row,) = measure_models([mean_red(tmp_path / "fp32.onnx", temperature=5.0)], plan=PLAN, split=split)
    probabilities = 1 / (1 + np.exp(-(red - 100) / 5))
    assert row.ece == pytest.approx(metrics.calibration_error(split.labels, probabilities), abs=1e-4)
    sensitivity = metrics.sensitivity_at_specificity(split.labels, red - 100, 0.95, seed=PLAN.seed)
    assert row.sensitivity_at_95_specificity == sensitivity


def test_all_quality_figures_are_in_the_row(mean_red, tmp_path, split, red):
    models = [
        mean_red(tmp_path / name, scale=scale, temperature=4.0) for name, scale in (("fp32.onnx", 1), ("q.onnx", -1))
    ]
    slides = [f"slide-{number % 20}" for number in range(600)]
    with_slides = SimpleNamespace(**{**vars(split), "slides": slides})
    fp32, other = measure_models(models, plan=PLAN, split=with_slides)
    expected = quality.figures(split.labels, (red - 100).astype(np.float32), temperature=4.0, slides=slides, seed=0)
    for name, value in expected.items():
        measured = getattr(fp32, name)
        if isinstance(value, Interval):
            measured, value = dataclasses.astuple(measured), dataclasses.astuple(value)
        assert measured == pytest.approx(value, abs=1e-6), name
    logits = red - 100
    flips = metrics.flips_from(logits, -logits)
    assert (other.flips, other.flips_to_positive, other.mcnemar_p) == (flips.count, flips.to_positive, flips.p)
    assert other.d_auc_slides.lo < other.d_auc.value < other.d_auc_slides.hi
    assert (fp32.flips, fp32.d_auc_slides, fp32.robustness) == (None, None, None)
    assert fp32.ms_quantiles[0] <= fp32.ms_quantiles[50] == pytest.approx(fp32.p50_ms.value, rel=1e-4)
    assert sum(fp32.reliability.patches) == 600
    assert np.trapezoid(fp32.roc.tpr, fp32.roc.fpr) == pytest.approx(fp32.auc.value, abs=1e-3)


def test_robustness_is_measured_once_for_a_file_on_a_runtime(mean_red, tmp_path, split):
    some = np.arange(0, 600, 20)
    few = SimpleNamespace(**{**vars(split), "patches": split.patches[some], "labels": split.labels[some]})
    plan = dataclasses.replace(PLAN, robustness=True, rounds=2, runs_per_round=2, batch=(1, 2))
    reports = []
    models = [mean_red(tmp_path / name, scale=scale) for name, scale in (("fp32.onnx", 1), ("int8.onnx", -1))]
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


def test_a_benchmark_stopped_during_a_perturbation_resumes_there(mean_red, tmp_path, split):
    some = np.arange(0, 600, 20)
    few = SimpleNamespace(**{**vars(split), "patches": split.patches[some], "labels": split.labels[some]})
    plan = dataclasses.replace(PLAN, robustness=True)
    model, out = mean_red(tmp_path / "fp32.onnx"), tmp_path / "r.json"

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


def test_flips_are_drawn_for_every_file_with_flips(mean_red, tmp_path, split):
    some = np.arange(0, 600, 20)
    few = SimpleNamespace(**{**vars(split), "patches": split.patches[some], "labels": split.labels[some]})
    names = (("fp32.onnx", 1), ("int8.onnx", -1), ("fp16.onnx", 2))
    models = [mean_red(tmp_path / name, scale=scale) for name, scale in names]
    measure_to(tmp_path / "r.json", models, plan=PLAN, split=few, flips=tmp_path / "new" / "flips")
    (sheet,) = (tmp_path / "new" / "flips").iterdir()
    assert sheet.name == "int8.onnx@onnxruntime.png"
    assert sheet.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(WriteError, match="cannot create this folder"):
        measure_to(tmp_path / "r.json", models, plan=PLAN, split=few, flips=sheet / "below")


def test_all_installed_runtimes_have_the_same_auc(mean_red, tmp_path, split, red):
    plan = BenchPlan(rounds=2, runs_per_round=2, warmup_runs=0, batch=(4,), **SHORT)
    rows = measure_models([mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    assert [row.runtime for row in rows] == ["onnxruntime", "openvino"]
    for row in rows:
        assert row.status == "unavailable" or row.auc.value == pytest.approx(metrics.auc(split.labels, red), abs=1e-6)


def test_an_unusable_file_is_a_row_and_the_others_are_measured(mean_red, other_model, tmp_path, split):
    good = mean_red(tmp_path / "fp32.onnx")
    altered = mean_red(tmp_path / "int8.onnx")
    altered.write_bytes(altered.read_bytes() + b"\0")
    orphan = mean_red(tmp_path / "fp16.onnx")
    manifest_path(orphan).unlink()
    endless = mean_red(tmp_path / "prune50.onnx", scale=float("inf"))
    nonsense = other_model(tmp_path / "prune90.onnx", b"nonsense")
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


def test_a_killed_child_is_a_row_and_the_others_are_measured(mean_red, tmp_path, split):
    models = [mean_red(tmp_path / name) for name in ("fp32.onnx", "fp16.onnx")]

    def kill_the_second_after_a_round(stage, done, total, note=""):
        if (stage, done) == ("bench, rounds", 1):
            max(psutil.Process().children(), key=lambda child: child.create_time()).kill()

    fp32, fp16 = measure_models(models, plan=PLAN, split=split, progress=kill_the_second_after_a_round)
    assert fp32.auc is not None
    assert fp16.status == "failed"
    assert "killed by SIGKILL" in fp16.reason
    assert (fp16.p50_ms, fp16.load_ms, fp16.peak_rss_bytes) == (None, None, None)


def test_an_interrupt_leaves_no_process_behind(mean_red, tmp_path, split):
    def interrupt(stage, done, total, note=""):
        if stage == "bench, rounds":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_models([mean_red(tmp_path / "fp32.onnx")], plan=PLAN, split=split, progress=interrupt)
    assert psutil.Process().children() == []


def test_a_runtime_that_is_not_installed_is_a_row(mean_red, tmp_path, split, monkeypatch):
    absent = dataclasses.replace(
        edge.RUNTIMES["onnxruntime"], name="absent", module="no_such_module", install="pip install absent"
    )
    monkeypatch.setitem(edge.RUNTIMES, "absent", absent)
    plan = BenchPlan(runtimes=("absent", "onnxruntime"), rounds=2, runs_per_round=2, **SHORT)
    rows = by_name(measure_models([mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    row = rows["fp32.onnx @ absent"]
    assert (row.status, row.reason) == ("unavailable", "not installed; pip install absent")
    assert rows["fp32.onnx @ onnxruntime"].auc is not None


def test_the_source_network_is_the_reference_of_fp32_files(mean_red, tmp_path, split, red, monkeypatch):
    monkeypatch.setattr(matrix, "KERAS_COMMAND", (sys.executable, "-c", KERAS_STAND_IN))
    monkeypatch.setattr(matrix.importlib.util, "find_spec", lambda name: object())
    weights = tmp_path / "fp32.weights.h5"
    weights.write_bytes(b"weights")
    source = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "models").mkdir()
    exported = mean_red(tmp_path / "models" / "fp32.onnx", source=source, temperature=50.0)
    mean_red(tmp_path / "models" / "int8.onnx", source=source)
    stranger = mean_red(tmp_path / "elsewhere" / "fp32.onnx", source="1" * 64)
    models, reference = find_models([tmp_path, stranger])
    assert (models[0], reference) == (exported, weights)
    plan = BenchPlan(runtimes=("keras", "onnxruntime"), rounds=2, runs_per_round=2, **SHORT)
    keras, fp32, int8, other = measure_models(models, plan=plan, split=split, reference=reference)
    answers = split.patches.mean(axis=(1, 2, 3))
    keras_auc = metrics.auc(split.labels, answers)
    calibrated = manifests.probability(answers, 50.0)  # at the temperature of the fp32 file exported from it
    assert keras.ece == pytest.approx(metrics.calibration_error(split.labels, calibrated), abs=1e-4)
    assert keras.auc.value == pytest.approx(keras_auc, abs=1e-6)
    assert (keras.model, keras.format, keras.kernels, keras.params) == ("fp32.weights.h5", "keras", "numpy", 2)
    assert fp32.reference == "fp32.weights.h5 @ keras"
    assert fp32.d_auc.value == pytest.approx(metrics.auc(split.labels, red) - keras_auc, abs=1e-6)
    assert fp32.p50_ratio is None
    assert int8.reference == "models/fp32.onnx @ onnxruntime"
    assert int8.d_auc == Interval(0, 0, 0)
    assert (other.model, other.reference) == ("elsewhere/fp32.onnx", None)


def test_keras_that_is_not_installed_is_a_row(mean_red, tmp_path, split, monkeypatch):
    monkeypatch.setattr(matrix.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(edge.runtimes, "find_spec", lambda name: None)
    weights = tmp_path / "fp32.weights.h5"
    weights.write_bytes(b"weights")
    rows = measure_models([mean_red(tmp_path / "fp32.onnx")], plan=BenchPlan(), split=split, reference=weights)
    assert {row.status for row in rows} == {"unavailable"}
    assert {row.ece for row in rows} == {None}
    assert "histoedge[lab]" in rows[0].reason


def test_the_same_file_twice_is_two_rows(mean_red, tmp_path, split):
    model = mean_red(tmp_path / "fp32.onnx")
    rows = measure_models([model, model], plan=PLAN, split=split)
    assert len(rows) == 2
    assert rows[0].auc == rows[1].auc


def test_one_round_is_never_settled(mean_red, tmp_path, split):
    plan = BenchPlan(runtimes=("onnxruntime",), rounds=1, runs_per_round=5, **SHORT)
    (row,) = measure_models([mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    assert row.status == "unsettled"
    assert "one round" in row.reason


def test_wrong_jobs_are_refused_before_anything_runs(mean_red, tmp_path, split):
    model = mean_red(tmp_path / "fp32.onnx")
    with pytest.raises(ConfigError, match="did you mean onnxruntime"):
        measure_models([model], plan=BenchPlan(runtimes=("onnxrunime",)), split=split)
    with pytest.raises(ConfigError, match="none of 1 files can be opened by litert"):
        measure_models([model], plan=BenchPlan(runtimes=("litert",)), split=split)
    with pytest.raises(ModelError, match="no such model file"):
        measure_models([tmp_path / "gone.onnx"], plan=PLAN, split=split)
    one_class = SimpleNamespace(patches=split.patches, labels=np.zeros(600, np.uint8), content_hash="c")
    with pytest.raises(DataError, match="both classes"):
        measure_models([model], plan=PLAN, split=one_class)


def test_models_are_found_in_runs_and_as_files(mean_red, tmp_path):
    inside = mean_red(tmp_path / "run" / "models" / "int8.onnx")
    (tmp_path / "run" / "fp32.weights.h5").write_bytes(b"")
    assert find_models([tmp_path / "run", inside]) == ([inside], tmp_path / "run" / "fp32.weights.h5")
    assert find_models([inside]) == ([inside], None)
    mean_red(tmp_path / "other" / "models" / "int8.onnx")
    (tmp_path / "other" / "fp32.weights.h5").write_bytes(b"")
    with pytest.raises(ConfigError, match="one run at a time"):
        find_models([tmp_path / "run", tmp_path / "other"])
    with pytest.raises(ModelError, match="no such run or model"):
        find_models([tmp_path / "nothing"])
    with pytest.raises(ModelError, match="a folder without models"):
        find_models([tmp_path])


def test_inputs_change_with_plan_data_and_model(mean_red, tmp_path, split):
    model = mean_red(tmp_path / "fp32.onnx")
    first = inputs_of([model], plan=PLAN, split=split, reference=None)
    assert first == inputs_of([model], plan=PLAN, split=split, reference=None)
    assert first != inputs_of([model], plan=BenchPlan(), split=split, reference=None)
    other = SimpleNamespace(**{**vars(split), "content_hash": "d" * 64})
    assert first != inputs_of([model], plan=PLAN, split=other, reference=None)
    model.write_bytes(b"other")
    assert first != inputs_of([model], plan=PLAN, split=split, reference=None)


def test_quality_is_measured_once_and_the_same_for_every_shape(mean_red, tmp_path, split, red):
    plan = BenchPlan(runtimes=("onnxruntime",), scenarios=("multi-stream",), rounds=2, runs_per_round=2, **SHORT)
    reports = []
    models = [mean_red(tmp_path / name, scale=scale) for name, scale in (("fp32.onnx", 1), ("int8.onnx", -1))]
    rows = measure_models(models, plan=plan, split=split, progress=lambda *report: reports.append(report))
    cells = [(row.model, row.scenario, row.batch, row.field_px, row.n_outputs) for row in rows]
    assert cells == [
        ("fp32.onnx", "single-stream", 1, 96, 1),
        ("int8.onnx", "single-stream", 1, 96, 1),
        ("fp32.onnx", "multi-stream", 8, 96, 8),
        ("int8.onnx", "multi-stream", 8, 96, 8),
    ]
    assert rows[0].auc == rows[2].auc
    assert rows[0].auc.value == pytest.approx(metrics.auc(split.labels, red))
    assert rows[1].d_auc == rows[3].d_auc
    assert None not in (rows[1].p50_ratio, rows[3].p50_ratio)
    assert {report[0] for report in reports if "patches" in report[0]} == {"bench, test patches, group 1 of 2"}
    for row in rows:
        assert row.mpx_per_s == pytest.approx(row.patches_per_s.value * 96 * 96 / 1e6)
        assert row.patches_per_s.lo <= row.patches_per_s.value <= row.patches_per_s.hi
        for name in ("p50", "p90", "p95", "p99"):
            assert getattr(row, f"{name}_lo") <= getattr(row, f"{name}_ms") <= getattr(row, f"{name}_hi")


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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_more_threads_than_cpus_are_a_row(mean_red, tmp_path, split):
    plan = dataclasses.replace(PLAN, threads=(1, 4096))
    single, many = measure_models([mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    assert (single.cpus, single.auc is None) == (1, False)
    assert (many.status, many.threads) == ("unavailable", 4096)
    assert "4096 threads requested, but this process may use only" in many.reason


def test_a_missing_gpu_is_a_row(mean_red, tmp_path, split):
    import onnxruntime

    plan = dataclasses.replace(PLAN, runtimes=("onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime"))
    rows = by_name(measure_models([mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    assert rows["fp32.onnx @ onnxruntime"].auc is not None
    for name, provider in (("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")):
        row = rows[f"fp32.onnx @ onnxruntime-{name}"]
        if row.auc is None:
            available = provider in onnxruntime.get_available_providers()
            assert row.status == "unavailable"
            assert f"{provider} did not open" in row.reason if available else f"has no {provider}" in row.reason


def test_a_library_that_cannot_be_imported_is_a_row(mean_red, tmp_path, split, monkeypatch):
    broken = tmp_path / "site" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    paths = [str(broken.parent), str(Path(measure.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (row,) = measure_models([mean_red(tmp_path / "fp32.onnx")], plan=PLAN, split=split)
    assert row.status == "failed"
    assert row.reason == "ImportError: numpy.core.multiarray failed to import"


def test_a_runtime_that_ends_with_a_signal_is_a_row(mean_red, tmp_path, split, monkeypatch):
    crashing = tmp_path / "site" / "onnxruntime"
    crashing.mkdir(parents=True)
    (crashing / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    paths = [str(crashing.parent), str(Path(measure.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    plan = dataclasses.replace(PLAN, runtimes=("onnxruntime", "openvino"))
    rows = by_name(measure_models([mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    row = rows["fp32.onnx @ onnxruntime"]
    assert (row.status, row.reason) == ("failed", "killed by SIGSEGV")
    other = rows["fp32.onnx @ openvino"]
    assert other.status == "unavailable" or other.auc is not None


def test_the_integer_peak_is_measured_and_rows_have_their_share_of_it(mean_red, tmp_path, split):
    plan = dataclasses.replace(PLAN, rounds=2, runs_per_round=2, integer_peak=True)
    measure_to(tmp_path / "r.json", [mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    content = read_results(tmp_path / "r.json")
    (row,) = content.measurements
    peaks = content.environment["integer_peak_gmacs"]["1"]
    assert "onnxruntime" in peaks
    assert row.peak_share == pytest.approx(row.macs / (1e6 * row.p50_ms.value) / max(peaks.values()))
    assert row.rss_over_empty_bytes == row.peak_rss_bytes - content.environment["empty_rss_bytes"] > 1 << 20
    assert content.environment["decode"].keys() == {"png", "tiff", "jpeg"}
    assert content.environment["decode"]["png"]["p50_ms"] > 0


def test_a_stopped_benchmark_resumes(mean_red, tmp_path, split):
    models = [mean_red(tmp_path / name) for name in ("fp32.onnx", "int8.onnx")]
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
def test_stored_cells_of_other_inputs_and_damaged_ones_are_measured_again(mean_red, tmp_path, split, change):
    model, plan, out = mean_red(tmp_path / "fp32.onnx"), PLAN, tmp_path / "r.json"

    def stop(stage, done, total, note=""):
        if stage == "bench, test patches":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_to(out, [model], plan=plan, split=split, progress=stop)
    if change == "plan":
        plan = dataclasses.replace(plan, seed=1)
    elif change == "model":
        model = mean_red(model, scale=-1)
    else:
        (tmp_path / "r.json.partial" / "times.0.npz").write_bytes(b"PK\x03\x04 and no more")
    reports = []
    measure_to(out, [model], plan=plan, split=split, progress=lambda *report: reports.append(report[0]))
    assert "bench, rounds" in reports
    assert not (tmp_path / "r.json.partial").exists()


def test_results_that_cannot_be_written_are_refused_before_anything_runs(mean_red, tmp_path, split):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        measure_to(tmp_path / "file" / "r.json", [mean_red(tmp_path / "fp32.onnx")], plan=PLAN, split=split)
