"""Which files, runtimes and reference a benchmark measures, in real child processes."""

import dataclasses
import hashlib
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from histoedge import edge, metrics
from histoedge.benchmark import (
    BenchJob,
    bench,
    bench_inputs,
    find_models,
    matrix,
)
from histoedge.config import BenchPlan
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, ModelError
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


def inputs_of(models, **fields):
    """``bench_inputs`` with these fields of ``BenchJob``."""
    return bench_inputs(BenchJob(models=models, **fields))


def by_name(rows):
    return {f"{row.model} @ {row.runtime}": row for row in rows}


def test_a_runtime_that_is_not_installed_is_a_row(write_mean_red, tmp_path, split, monkeypatch):
    absent = dataclasses.replace(
        edge.RUNTIMES["onnxruntime"], name="absent", module="no_such_module", install="pip install absent"
    )
    monkeypatch.setitem(edge.RUNTIMES, "absent", absent)
    plan = BenchPlan(runtimes=("absent", "onnxruntime"), rounds=2, runs_per_round=2, **SHORT)
    rows = by_name(measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    row = rows["fp32.onnx @ absent"]
    assert (row.status, row.reason) == ("unavailable", "not installed; pip install absent")
    assert rows["fp32.onnx @ onnxruntime"].auc is not None


def test_the_source_network_is_the_reference_of_fp32_files(write_mean_red, tmp_path, split, mean_reds, monkeypatch):
    monkeypatch.setattr(matrix, "KERAS_COMMAND", (sys.executable, "-c", KERAS_STAND_IN))
    (tmp_path / "site" / "keras").mkdir(parents=True)
    (tmp_path / "site" / "keras" / "__init__.py").write_text("")  # installed, and never imported in this process
    monkeypatch.syspath_prepend(tmp_path / "site")
    weights = tmp_path / "fp32.weights.h5"
    weights.write_bytes(b"weights")
    source = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "models").mkdir()
    exported = write_mean_red(tmp_path / "models" / "fp32.onnx", source=source, temperature=50.0)
    write_mean_red(tmp_path / "models" / "int8.onnx", source=source)
    stranger = write_mean_red(tmp_path / "elsewhere" / "fp32.onnx", source="1" * 64)
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
    assert fp32.d_auc.value == pytest.approx(metrics.auc(split.labels, mean_reds) - keras_auc, abs=1e-6)
    assert fp32.p50_ratio is None
    assert int8.reference == "models/fp32.onnx @ onnxruntime"
    assert int8.d_auc == Interval(0, 0, 0)
    assert (other.model, other.reference) == ("elsewhere/fp32.onnx", None)


def test_keras_that_is_not_installed_is_a_row(write_mean_red, tmp_path, split, monkeypatch):
    for module in ("keras", *(runtime.module for runtime in edge.RUNTIMES.values())):
        monkeypatch.setitem(sys.modules, module, None)  # this interpreter finds no such module
    weights = tmp_path / "fp32.weights.h5"
    weights.write_bytes(b"weights")
    rows = measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=BenchPlan(), split=split, reference=weights)
    assert {row.status for row in rows} == {"unavailable"}
    assert {row.ece for row in rows} == {None}
    assert "histoedge[lab]" in rows[0].reason


def test_the_same_file_twice_is_two_rows(write_mean_red, tmp_path, split):
    model = write_mean_red(tmp_path / "fp32.onnx")
    rows = measure_models([model, model], plan=PLAN, split=split)
    assert len(rows) == 2
    assert rows[0].auc == rows[1].auc


def test_wrong_jobs_are_refused_before_anything_runs(write_mean_red, tmp_path, split):
    model = write_mean_red(tmp_path / "fp32.onnx")
    with pytest.raises(ConfigError, match="did you mean onnxruntime"):
        measure_models([model], plan=BenchPlan(runtimes=("onnxrunime",)), split=split)
    with pytest.raises(ConfigError, match="none of 1 files can be opened by litert"):
        measure_models([model], plan=BenchPlan(runtimes=("litert",)), split=split)
    with pytest.raises(ModelError, match="no such model file"):
        measure_models([tmp_path / "gone.onnx"], plan=PLAN, split=split)
    one_class = SimpleNamespace(patches=split.patches, labels=np.zeros(600, np.uint8), content_hash="c")
    with pytest.raises(DataError, match="both classes"):
        measure_models([model], plan=PLAN, split=one_class)


def test_models_are_found_in_runs_and_as_files(write_mean_red, tmp_path):
    inside = write_mean_red(tmp_path / "run" / "models" / "int8.onnx")
    (tmp_path / "run" / "fp32.weights.h5").write_bytes(b"")
    assert find_models([tmp_path / "run", inside]) == ([inside], tmp_path / "run" / "fp32.weights.h5")
    assert find_models([inside]) == ([inside], None)
    write_mean_red(tmp_path / "other" / "models" / "int8.onnx")
    (tmp_path / "other" / "fp32.weights.h5").write_bytes(b"")
    with pytest.raises(ConfigError, match="one run at a time"):
        find_models([tmp_path / "run", tmp_path / "other"])
    with pytest.raises(ModelError, match="no such run or model"):
        find_models([tmp_path / "nothing"])
    with pytest.raises(ModelError, match="a folder without models"):
        find_models([tmp_path])


def test_inputs_change_with_plan_data_and_model(write_mean_red, tmp_path, split):
    model = write_mean_red(tmp_path / "fp32.onnx")
    first = inputs_of([model], plan=PLAN, split=split, reference=None)
    assert first == inputs_of([model], plan=PLAN, split=split, reference=None)
    assert first != inputs_of([model], plan=BenchPlan(), split=split, reference=None)
    other = SimpleNamespace(**{**vars(split), "content_hash": "d" * 64})
    assert first != inputs_of([model], plan=PLAN, split=other, reference=None)
    model.write_bytes(b"other")
    assert first != inputs_of([model], plan=PLAN, split=split, reference=None)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_more_threads_than_cpus_are_a_row(write_mean_red, tmp_path, split):
    plan = dataclasses.replace(PLAN, threads=(1, 4096))
    single, many = measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split)
    assert (single.cpus, single.auc is None) == (1, False)
    assert (many.status, many.threads) == ("unavailable", 4096)
    assert "4096 threads requested, but this process may use only" in many.reason


def test_a_missing_gpu_is_a_row(write_mean_red, tmp_path, split):
    import onnxruntime

    plan = dataclasses.replace(PLAN, runtimes=("onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime"))
    rows = by_name(measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    assert rows["fp32.onnx @ onnxruntime"].auc is not None
    for name, provider in (("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")):
        row = rows[f"fp32.onnx @ onnxruntime-{name}"]
        if row.auc is None:
            available = provider in onnxruntime.get_available_providers()
            assert row.status == "unavailable"
            assert f"{provider} did not start" in row.reason if available else f"has no {provider}" in row.reason
