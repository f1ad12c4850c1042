"""Runtimes and files of other versions become rows with a reason; several released runs are measured at once."""

import dataclasses
import os
from pathlib import Path

import psutil
import pytest

from histoedge import edge
from histoedge.benchmark import BenchJob, bench, bench_to, find_models, measure, read_results
from histoedge.config import BenchPlan
from histoedge.edge import manifest as manifests
from histoedge.progress import silent

PLAN = BenchPlan(
    runtimes=("onnxruntime",), rounds=2, runs_per_round=2, warmup_runs=0, max_seconds=0.0, integer_peak=False
)


def measure_models(models, *, progress=silent, **fields):
    """``bench`` with these fields of ``BenchJob``."""
    return bench(BenchJob(models=models, **fields), progress=progress)


def measure_to(out, models, *, progress=silent, **fields):
    """``bench_to`` with these fields of ``BenchJob``."""
    bench_to(out, BenchJob(models=models, **fields), progress=progress)


def by_name(rows):
    return {f"{row.model} @ {row.runtime}": row for row in rows}


@pytest.mark.parametrize(("newer_part", "message"), [("ir_version", "IR version: 99"), ("opset", "Opset 99")])
def test_a_file_that_is_newer_than_the_runtime_is_a_row(
    write_mean_red, write_model, tmp_path, split, newer_part, message
):
    import onnx

    good = write_mean_red(tmp_path / "fp32.onnx")
    model = onnx.load(good)
    if newer_part == "opset":
        model.opset_import[0].version = 99
    else:
        model.ir_version = 99
    newer = write_model(tmp_path / "int8.onnx", model.SerializeToString())
    rows = by_name(measure_models([newer, good], plan=PLAN, split=split))
    refused = rows["int8.onnx @ onnxruntime"]
    assert refused.status == "failed"
    assert refused.reason.startswith("ONNX Runtime cannot open this file:")
    assert message in refused.reason
    assert "onnxruntime_src" not in refused.reason
    assert rows["fp32.onnx @ onnxruntime"].auc is not None


def test_a_tflite_file_of_another_schema_is_a_row(write_mean_red, write_model, tmp_path, split):
    pytest.importorskip("ai_edge_litert")
    import flatbuffers

    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    empty = schema.ModelT()
    empty.version = 4  # TFLite's is 3 since 2017
    builder = flatbuffers.Builder(64)
    builder.Finish(empty.Pack(builder), b"TFL3")
    newer = write_model(tmp_path / "int8.tflite", bytes(builder.Output()))
    plan = dataclasses.replace(PLAN, runtimes=("litert", "onnxruntime"))
    rows = by_name(measure_models([newer, write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    assert rows["int8.tflite @ litert"].status == "failed"
    assert rows["int8.tflite @ litert"].reason.startswith("LiteRT cannot open this file:")
    assert rows["fp32.onnx @ onnxruntime"].auc is not None


def test_a_runtime_without_a_required_function_is_a_row(write_mean_red, tmp_path, split, monkeypatch):
    old_release = tmp_path / "site" / "onnxruntime"
    old_release.mkdir(parents=True)
    (old_release / "__init__.py").write_text("__version__ = '0.1.0'")
    paths = [str(old_release.parent), str(Path(measure.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    plan = dataclasses.replace(PLAN, runtimes=("onnxruntime", "openvino"))
    rows = by_name(measure_models([write_mean_red(tmp_path / "fp32.onnx")], plan=plan, split=split))
    row = rows["fp32.onnx @ onnxruntime"]
    assert row.status == "failed"
    assert row.reason.startswith("AttributeError: module 'onnxruntime' has no attribute")
    if edge.RUNTIMES["openvino"].installed():
        assert rows["fp32.onnx @ openvino"].auc is not None


def test_several_runs_are_distinguished_by_their_folders_and_resume(write_mean_red, tmp_path, split):
    runs = [tmp_path / "exported" / name for name in ("edge", "nano")]
    for run in runs:
        for recipe in ("fp32", "int8"):
            write_mean_red(run / "models" / f"{recipe}.onnx", source=run.name[0] * 64)
    models, reference = find_models(runs)
    assert reference is None
    out = tmp_path / "results" / "suite.json"

    def stop_within_the_rounds(stage, done, total, note=""):
        if stage == "bench, rounds, group 2 of 2":
            raise KeyboardInterrupt

    plan = dataclasses.replace(PLAN, scenarios=("single-stream", "multi-stream"))
    with pytest.raises(KeyboardInterrupt):
        measure_to(out, models, plan=plan, split=split, progress=stop_within_the_rounds)
    assert psutil.Process().children() == []
    stages = []
    measure_to(out, models, plan=plan, split=split, progress=lambda *report: stages.append(report[0]))
    assert "bench, rounds, group 2 of 2" in stages
    assert "bench, rounds, group 1 of 2" not in stages
    rows = by_name(read_results(out).measurements)
    names = [f"{run.name}/models/{recipe}.onnx @ onnxruntime" for run in runs for recipe in ("fp32", "int8")]
    assert list(rows) == names
    for name, row in rows.items():
        assert row.reference == (name.replace("int8", "fp32") if "int8" in name else None)
    assert {manifests.read(path).sha256 for path in models} == {row.sha256 for row in rows.values()}


def test_a_reason_contains_no_folder_of_this_machine(write_mean_red, tmp_path, split):
    """Results are published; a path can reveal a user or a customer."""
    good = write_mean_red(tmp_path / "fp32.onnx")
    orphan, nonsense = tmp_path / "int8.onnx", write_mean_red(tmp_path / "fp16.onnx")
    orphan.write_bytes(good.read_bytes())
    nonsense.write_bytes(b"no model")
    rows = by_name(measure_models([orphan, nonsense, good], plan=PLAN, split=split))
    for name in ("int8.onnx", "fp16.onnx"):
        reason = rows[f"{name} @ onnxruntime"].reason
        assert reason.startswith(name)
        assert str(tmp_path) not in reason
