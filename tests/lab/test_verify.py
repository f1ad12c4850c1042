"""The commands verify, predict and info on the files of a run."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests

pytestmark = pytest.mark.lab


def test_verify_compares_with_the_source_network(run_copy: Path, tiny_data: Path, invoke: Callable[..., Any]) -> None:
    model = run_copy / "models" / "fp32.onnx"
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 0, result.output
    comparison = json.loads(result.stdout)["comparison"]
    assert comparison["reference"] == "fp32.weights.h5 @ keras"
    assert comparison["largest"] <= 1e-4
    assert comparison["flips"] == 0
    assert abs(comparison["d_auc"]) < 1e-6


def test_a_changed_kernel_fails_verification(
    models_copy: Path, tmp_path: Path, sign: Callable[..., Path], invoke: Callable[..., Any]
) -> None:
    model = models_copy / "int8.onnx"
    changed = onnx.load(model)
    head = next(value for value in changed.graph.initializer if len(value.dims) == 4 and value.dims[0] == 1)
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), head.name))
    model.write_bytes(changed.SerializeToString())
    refused = invoke("verify", model)
    assert refused.exit_code == 1
    assert "changed after its manifest was written" in refused.stderr
    failed = invoke("verify", sign(model))
    assert failed.exit_code == 3
    assert "FAILED" in failed.stdout
    assert not manifests.verdict_path(model).exists()


def test_predict_writes_the_submission_columns(finished_run: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    model = finished_run / "models" / "int8.onnx"
    golden = goldens.read_golden(model, manifests.read(model))
    folder = tmp_path / "images"
    folder.mkdir()
    for number, patch in enumerate(golden.patches):
        Image.fromarray(patch).save(folder / f"{number:02d}.tif")
    table = tmp_path / "submission.csv"
    result = invoke("predict", model, folder, "--csv", table)
    assert result.exit_code == 0, result.output
    rows = list(csv.reader(table.open()))
    assert rows[0] == ["id", "label"]
    assert [row[0] for row in rows[1:]] == [f"{number:02d}" for number in range(16)]
    expected = 1 / (1 + np.exp(-golden.logits.astype(np.float64) / manifests.read(model).temperature))
    np.testing.assert_allclose([float(row[1]) for row in rows[1:]], expected, rtol=1e-6)


def test_predict_leaves_no_table_when_an_image_is_wrong(
    finished_run: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    Image.new("RGB", (95, 96)).save(tmp_path / "a.png")
    table = tmp_path / "submission.csv"
    result = invoke("predict", finished_run / "models" / "int8.onnx", tmp_path / "a.png", "--csv", table)
    assert result.exit_code == 1
    assert "a.png" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_info_prints_the_manifest_and_the_verdict(finished_run: Path, invoke: Callable[..., Any]) -> None:
    result = invoke("info", finished_run / "models" / "int8.onnx", "--json")
    document = json.loads(result.stdout)
    assert document["verified"] is True
    assert document["um_per_px"] == 0.972
    assert document["recipe"] == "int8"
    assert document["operating_points"][0]["name"] == "sensitivity 0.95"
    text = invoke("info", finished_run / "models" / "int8.onnx").stdout
    assert text.count("operating_points ") == 4


@pytest.mark.parametrize(("format_", "kind"), [("onnx", "Conv"), ("tflite", "CONV_2D")])
def test_float_convolutions_under_an_int8_manifest_fail(
    models_copy: Path, tmp_path: Path, format_: str, kind: str, sign: Callable[..., Path], invoke: Callable[..., Any]
) -> None:
    model = models_copy / f"int8.{format_}"
    model.write_bytes(model.with_name(f"fp32.{format_}").read_bytes())
    sign(model)
    result = invoke("verify", model, "--json")
    assert result.exit_code == 3
    assert f"6 multiplications in floats ({kind} " in result.stdout


@pytest.mark.parametrize(("format_", "twin"), [("onnx", "int8.tflite"), ("tflite", "int8.onnx")])
def test_verify_compares_an_int8_file_with_its_twin(
    models_copy: Path, tiny_data: Path, tmp_path: Path, format_: str, twin: str, invoke: Callable[..., Any]
) -> None:
    model = models_copy / f"int8.{format_}"
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["twin"]["model"] == twin
    assert document["twin"]["n_patches"] == document["comparison"]["n_patches"]
    assert document["twin"]["flips"] == 0
    assert document["twin"]["largest_quanta"] == 0
    table = invoke("verify", model, "--data", tiny_data)
    assert "largest_quanta" in table.stdout


def test_a_twin_that_answers_otherwise_fails_verification(
    models_copy: Path, tiny_data: Path, tmp_path: Path, sign: Callable[..., Path], invoke: Callable[..., Any]
) -> None:
    model = models_copy / "int8.tflite"
    changed = onnx.load(model.with_suffix(".onnx"))
    head = next(value for value in changed.graph.initializer if len(value.dims) == 4 and value.dims[0] == 1)
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), head.name))
    model.with_suffix(".onnx").write_bytes(changed.SerializeToString())
    sign(model.with_suffix(".onnx"))
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["golden"][0]["status"] == "ok"
    assert document["comparison"]["passed"] is True
    assert document["twin"]["passed"] is False
    assert document["twin"]["largest_quanta"] > 1.01


def test_a_twin_of_other_weights_is_refused_and_a_missing_one_is_none(
    models_copy: Path, tiny_data: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    model = models_copy / "int8.onnx"
    for place in (Path, manifests.manifest_path, goldens.golden_path):
        shutil.copy(place(model.with_name("prune50_int8.tflite")), place(model.with_suffix(".tflite")))
    result = invoke("verify", model, "--data", tiny_data)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "int8.tflite: exported from other weights than int8.onnx" in result.stderr
    model.with_suffix(".tflite").unlink()
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["twin"] is None
