"""The whole main job, small, on real files: what lies there afterwards, and that nothing is done twice."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner
from onnx import numpy_helper
from PIL import Image

from histoedge import data, edge, metrics
from histoedge.cli import main
from histoedge.data import hdf5
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests

pytestmark = pytest.mark.lab

RECIPES = ("fp32", "fp16", "int8", "prune50", "prune50_int8")
FILES = [f"{recipe}.{format_}" for recipe in RECIPES for format_ in ("tflite", "onnx")]


def invoke(*arguments: object) -> "CliRunner.invoke":  # type: ignore[name-defined]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def snapshot(run: Path) -> dict[str, bytes]:
    """All files but those that hold times, and the page and picture made from them."""
    skip = {"bench.json", "report.html", "history.json", "curves.png", "train.log"}
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in skip
    }


def test_a_run_leaves_every_file_of_the_design(finished_run: Path) -> None:
    assert (finished_run / "network.json").is_file()
    for recipe in RECIPES:
        assert (finished_run / f"{recipe}.weights.h5").is_file()
    for name in FILES:
        model = finished_run / "models" / name
        assert model.is_file()
        for sidecar in (manifests.manifest_path, goldens.golden_path, manifests.verdict_path):
            assert sidecar(model).is_file()
    assert (finished_run / "bench.json").is_file()
    assert (finished_run / "report.html").is_file()
    assert not [path for path in finished_run.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("name", FILES)
def test_every_file_keeps_the_contract(finished_run: Path, name: str) -> None:
    model = finished_run / "models" / name
    runner = edge.load(model)
    golden = goldens.read_golden(model, manifests.read(model))
    logits = runner.predict(golden.patches)
    assert logits.shape == (16, 1, 1, 1)
    assert logits.dtype == np.float32
    field = np.concatenate([golden.patches[0], golden.patches[1]], axis=1)[None]
    answers = runner.predict(field)
    stride = manifests.read(model).stride_px
    assert answers.shape == (1, 1, 96 // stride + 1, 1)
    ends = answers[0, 0, [0, -1], 0]
    # int8 is the same integers in the same order; floats may be summed in another
    np.testing.assert_allclose(ends, logits[:2, 0, 0, 0], atol=0 if "int8" in name else 1e-4)


@pytest.mark.parametrize("shape", [(384, 384), (200, 232), (111, 130)])
@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_a_field_answers_like_its_patches_on_every_runtime(
    finished_run: Path, recipe: str, shape: tuple[int, int]
) -> None:
    golden = goldens.read_golden(model := finished_run / "models" / "int8.onnx", manifests.read(model)).patches
    tiled = np.concatenate([np.concatenate(list(golden[at : at + 4]), axis=1) for at in range(0, 16, 4)])
    field, stride = tiled[: shape[0], : shape[1]], manifests.read(model).stride_px
    rows, columns = ((side - 96) // stride + 1 for side in shape)
    corners = [(0, 0), (rows - 1, columns - 1), (rows - 1, 0), (0, columns - 1), (rows // 2, columns // 3)]
    patches = np.stack([field[r * stride : r * stride + 96, c * stride : c * stride + 96] for r, c in corners])
    for format_, runtime in (("tflite", "litert"), ("onnx", "onnxruntime"), ("onnx", "openvino")):
        runner = edge.load(finished_run / "models" / f"{recipe}.{format_}", runtime=runtime)
        answers = runner.predict(field[None])
        assert answers.shape == (1, rows, columns, 1)
        found, expected = answers[0, *zip(*corners, strict=True), 0], runner.predict(patches).reshape(-1)
        np.testing.assert_allclose(found, expected, atol=0 if recipe == "int8" else 1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_onnx_inputs_and_outputs_are_named_and_free(finished_run: Path, recipe: str) -> None:
    graph = onnx.load(finished_run / "models" / f"{recipe}.onnx").graph
    (patches,), (logit,) = graph.input, graph.output
    shape = [dimension.dim_value or dimension.dim_param for dimension in patches.type.tensor_type.shape.dim]
    assert (patches.name, patches.type.tensor_type.elem_type) == ("patches", onnx.TensorProto.UINT8)
    assert shape == ["batch", "height", "width", 3]
    assert logit.name == "tumour_logit"
    interpreter = Interpreter(str(finished_run / "models" / f"{recipe}.tflite"))
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature == {"inputs": ["patches"], "outputs": ["tumour_logit"]}
    assert list(interpreter.get_input_details()[0]["shape"]) == [1, 96, 96, 3]


def test_both_formats_of_int8_answer_equally(finished_run: Path) -> None:
    for recipe in ("int8", "prune50_int8"):
        models = [finished_run / "models" / f"{recipe}.{format_}" for format_ in ("tflite", "onnx")]
        patches = goldens.read_golden(models[0], manifests.read(models[0])).patches
        tflite, onnx_ = (edge.load(model).predict(patches) for model in models)
        np.testing.assert_array_equal(tflite, onnx_)


def test_int8_files_hold_int8_kernels_and_no_relu(finished_run: Path) -> None:
    graph = onnx.load(finished_run / "models" / "int8.onnx").graph
    operators = {node.op_type for node in graph.node}
    assert operators == {"Reshape", "Transpose", "DequantizeLinear", "Conv", "QuantizeLinear"}
    kernels = [numpy_helper.to_array(value) for value in graph.initializer if len(value.dims) == 4]
    assert len(kernels) == 6
    assert all(kernel.dtype == np.int8 for kernel in kernels)


def tflite_kernels(path: Path) -> list[np.ndarray]:
    interpreter = Interpreter(str(path), experimental_op_resolver_type=_no_delegate())
    interpreter.allocate_tensors()
    kernels = []
    for operator in interpreter._get_ops_details():
        if operator["op_name"] == "CONV_2D":
            kernels.append(interpreter.get_tensor(operator["inputs"][1]))
    return kernels


def _no_delegate() -> object:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@pytest.mark.parametrize("recipe", ["prune50", "prune50_int8"])
def test_pruned_kernels_are_half_zero_in_both_files(finished_run: Path, recipe: str) -> None:
    graph = onnx.load(finished_run / "models" / f"{recipe}.onnx").graph
    in_onnx = [numpy_helper.to_array(value) for value in graph.initializer if len(value.dims) == 4]
    in_tflite = tflite_kernels(finished_run / "models" / f"{recipe}.tflite")
    assert len(in_onnx) == len(in_tflite) == 6
    for kernels in (in_onnx, in_tflite):
        for kernel in kernels[1:-1]:  # all but the stem and the head
            assert np.mean(kernel == 0) >= 0.49


def test_the_results_hold_a_row_per_file_and_runtime(finished_run: Path) -> None:
    results = json.loads((finished_run / "bench.json").read_text())
    assert results["format"] == 1
    rows = results["measurements"]
    for name in FILES:
        runtimes = {row["runtime"] for row in rows if row["model"] == name and row["status"] in ("ok", "unsettled")}
        assert runtimes == ({"litert"} if name.endswith("tflite") else {"onnxruntime", "openvino"})
    assert any(row["runtime"] == "keras" for row in rows)
    for row in rows:
        assert 0 <= row["auc_lo"] <= row["auc"] <= row["auc_hi"] <= 1
        assert 0 <= row["ece"] <= 1
        assert 0 <= row["sensitivity_at_95_specificity_lo"] <= row["sensitivity_at_95_specificity_hi"] <= 1
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]


def test_a_second_run_does_nothing_again(finished_run: Path, tiny_data: Path, settings: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != "report.html"}
    result = invoke("run", "--data", tiny_data, "--out", finished_run, "--config", settings)
    assert result.exit_code == 0, result.output
    folders = {path for path in before if path.is_dir()}
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= folders


def test_a_run_with_other_settings_is_refused(finished_run: Path, tiny_data: Path, settings: Path) -> None:
    result = invoke("run", "--data", tiny_data, "--out", finished_run, "--config", settings, "--seed", 3)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "train.seed is 0 there and 3 now" in result.stderr


@pytest.mark.parametrize("epochs", [3, 9])
def test_another_number_of_epochs_is_another_training(
    finished_run: Path, tiny_data: Path, settings: Path, epochs: int
) -> None:
    result = invoke("train", "--data", tiny_data, "--out", finished_run, "--config", settings, "--epochs", epochs)
    assert result.exit_code == 1
    assert result.stderr == (
        f"histoedge: {finished_run}: contains a training of 6 epochs, {epochs} are requested; the cosine schedule of "
        "the learning rate covers all 6 epochs and cannot be extended; use --epochs 6 or another --out; "
        f"--teacher {finished_run} uses the existing network as teacher\n"
    )


def test_compressing_on_other_data_is_refused(finished_run: Path) -> None:
    result = invoke("compress", finished_run, "--data", "synthetic", "--recipe", "fp16")
    assert result.exit_code == 1
    assert "trained on another train split" in result.stderr


def test_a_killed_run_ends_with_the_same_bytes(
    finished_run: Path, tiny_data: Path, settings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "histoedge", "run", "--data", tiny_data, "--out", out, "--config", settings]
    command += ["--recipe", "fp32", "--recipe", "int8", "--patches-on", "disk"]  # held in memory in the other run
    moments = random.Random(5)
    for _ in range(3):
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(4, 14))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    made, expected = snapshot(out), snapshot(finished_run)
    wanted = {name for name in expected if "prune" not in name and "fp16" not in name}
    assert made.keys() == wanted
    assert [name for name in sorted(made) if made[name] != expected[name]] == []


def test_verify_compares_with_the_source_network(finished_run: Path, tiny_data: Path) -> None:
    model = finished_run / "models" / "fp32.onnx"
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 0, result.output
    comparison = json.loads(result.stdout)["comparison"]
    assert comparison["reference"] == "fp32.weights.h5 @ keras"
    assert comparison["largest"] <= 1e-4
    assert comparison["flips"] == 0
    assert abs(comparison["d_auc"]) < 1e-6


def copied(finished_run: Path, to: Path, name: str) -> Path:
    shutil.copytree(finished_run / "models", to / "models")
    return to / "models" / name


def forged(model: Path, content: bytes) -> Path:
    """``model`` with other content and a manifest forged to fit."""
    model.write_bytes(content)
    body = json.loads(manifests.manifest_path(model).read_text())
    body["sha256"] = edge.manifest.hashlib.sha256(content).hexdigest()
    body["digest"] = manifests.digest(body)
    manifests.manifest_path(model).write_text(json.dumps(body))
    return model


def test_a_changed_kernel_fails_verification(finished_run: Path, tmp_path: Path) -> None:
    model = copied(finished_run, tmp_path, "int8.onnx")
    changed = onnx.load(model)
    head = next(value for value in changed.graph.initializer if len(value.dims) == 4 and value.dims[0] == 1)
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), head.name))
    model.write_bytes(changed.SerializeToString())
    refused = invoke("verify", model)
    assert refused.exit_code == 1
    assert "changed after its manifest was written" in refused.stderr
    failed = invoke("verify", forged(model, changed.SerializeToString()))
    assert failed.exit_code == 3
    assert "FAILED" in failed.stdout
    assert not manifests.verdict_path(model).exists()


def test_predict_writes_the_submission_columns(finished_run: Path, tmp_path: Path) -> None:
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


def test_predict_leaves_no_table_when_an_image_is_wrong(finished_run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (95, 96)).save(tmp_path / "a.png")
    table = tmp_path / "submission.csv"
    result = invoke("predict", finished_run / "models" / "int8.onnx", tmp_path / "a.png", "--csv", table)
    assert result.exit_code == 1
    assert "a.png" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("name", FILES)
def test_every_manifest_is_calibrated_on_valid_as_its_file_answers(
    finished_run: Path, tiny_data: Path, name: str
) -> None:
    valid = data.load(str(tiny_data), splits=("valid",))["valid"]
    manifest = manifests.read(model := finished_run / "models" / name)
    logits = edge.load(model).predict(valid.patches[:]).reshape(-1)
    assert manifest.threshold == 0.5
    assert manifest.temperature == pytest.approx(metrics.temperature(valid.labels, logits), rel=3e-2)
    assert [point.name for point in manifest.operating_points] == [
        *("sensitivity 0.95", "sensitivity 0.90", "specificity 0.95", "specificity 0.90")
    ]
    for point in manifest.operating_points:
        called = manifest.probability(logits) >= point.threshold
        positive = valid.labels == 1
        assert (point.n_positive, point.n_negative) == (positive.sum(), (~positive).sum())
        # an int8 file may answer a quantum beside its simulation, which moves a patch or two across a threshold
        room = 2 if "int8" in name else 0
        assert abs(point.sensitivity * positive.sum() - called[positive].sum()) <= room + 1e-6
        assert abs(point.specificity * (~positive).sum() - (~called)[~positive].sum()) <= room + 1e-6
        assert getattr(point, point.name.split()[0]) >= float(point.name.split()[1])


def test_old_weights_without_a_calibration_are_one_line(finished_run: Path, tmp_path: Path) -> None:
    arrays, attributes = hdf5.read_arrays(finished_run / "fp32.weights.h5")
    attributes = {name: value for name, value in attributes.items() if name != "calibration"} | {"format": 1}
    hdf5.write_arrays(tmp_path / "fp32.weights.h5", arrays, attributes)
    result = invoke("export", tmp_path, "--recipe", "fp32")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "fp32.weights.h5: weights of format 1, expected 2" in result.stderr


def test_info_tells_the_manifest_and_the_verdict(finished_run: Path) -> None:
    result = invoke("info", finished_run / "models" / "int8.onnx", "--json")
    document = json.loads(result.stdout)
    assert document["verified"] is True
    assert document["um_per_px"] == 0.972
    assert document["recipe"] == "int8"
    assert document["operating_points"][0]["name"] == "sensitivity 0.95"
    text = invoke("info", finished_run / "models" / "int8.onnx").stdout
    assert text.count("operating_points ") == 4


def test_exporting_again_gives_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    for name in ("network.json", "appearance.json", "fp32.weights.h5", "int8.weights.h5"):
        shutil.copy(finished_run / name, tmp_path / name)
    result = invoke("export", tmp_path, "--recipe", "int8")
    assert result.exit_code == 0, result.output
    for name in ("int8.tflite", "int8.onnx", "int8.onnx.json", "int8.onnx.golden.npz"):
        assert (tmp_path / "models" / name).read_bytes() == (finished_run / "models" / name).read_bytes()


@pytest.mark.parametrize("recipe", ["int8", "prune50_int8"])
def test_int8_runs_in_integers_from_the_pixels_codes_to_the_last_operator(finished_run: Path, recipe: str) -> None:
    not_integer = {}
    for format_, runtime in (("onnx", "onnxruntime"), ("tflite", "litert")):
        operators = edge.operators(finished_run / "models" / f"{recipe}.{format_}", runtime=runtime)
        not_integer[runtime] = [operator.kind for operator in operators if not operator.integer]
        assert operators[-1].kind in not_integer[runtime]
    pixels_to_codes = ["DEQUANTIZE", "QUANTIZE"]  # uint8 to int8, which XNNPACK does by way of floats
    assert not_integer == {"onnxruntime": ["DequantizeLinear"], "litert": [*pixels_to_codes, "DEQUANTIZE"]}
    openvino = edge.operators(finished_run / "models" / f"{recipe}.onnx", runtime="openvino")
    convolutions = [operator.integer for operator in openvino if operator.kind == "Convolution"]
    assert convolutions[:-1] == [True] * 5  # the last one may give the float logit itself
    assert len(convolutions) == 6


def test_litert_tells_what_it_kept_from_xnnpack(finished_run: Path) -> None:
    int8, fp32 = (edge.operators(finished_run / "models" / f"{recipe}.tflite") for recipe in ("int8", "fp32"))
    assert str(int8[-1]) == "DEQUANTIZE tumour_logit"
    assert all(operator.delegated for operator in int8)
    assert [operator.kind for operator in fp32 if not operator.delegated] == ["CAST"]
    assert not [operator for operator in fp32 if operator.integer]
    assert all(operator.delegated for operator in fp32 if operator.kind == "CONV_2D")


@pytest.mark.parametrize(("format_", "kind"), [("onnx", "Conv"), ("tflite", "CONV_2D")])
def test_float_convolutions_under_an_int8_manifest_fail(
    finished_run: Path, tmp_path: Path, format_: str, kind: str
) -> None:
    model = copied(finished_run, tmp_path, f"int8.{format_}")
    forged(model, model.with_name(f"fp32.{format_}").read_bytes())
    result = invoke("verify", model, "--json")
    assert result.exit_code == 3
    assert f"6 multiplications in floats ({kind} " in result.stdout


@pytest.mark.parametrize(("format_", "twin"), [("onnx", "int8.tflite"), ("tflite", "int8.onnx")])
def test_verify_compares_an_int8_file_with_its_twin(
    finished_run: Path, tiny_data: Path, tmp_path: Path, format_: str, twin: str
) -> None:
    model = copied(finished_run, tmp_path, f"int8.{format_}")
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["twin"]["model"] == twin
    assert document["twin"]["n_patches"] == document["comparison"]["n_patches"]
    assert document["twin"]["flips"] == 0
    assert document["twin"]["largest_quanta"] == 0
    table = invoke("verify", model, "--data", tiny_data)
    assert "largest_quanta" in table.stdout


def test_a_twin_that_answers_otherwise_fails_verification(finished_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    model = copied(finished_run, tmp_path, "int8.tflite")
    changed = onnx.load(model.with_suffix(".onnx"))
    head = next(value for value in changed.graph.initializer if len(value.dims) == 4 and value.dims[0] == 1)
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), head.name))
    forged(model.with_suffix(".onnx"), changed.SerializeToString())
    result = invoke("verify", model, "--data", tiny_data, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["golden"][0]["status"] == "ok"
    assert document["comparison"]["passed"] is True
    assert document["twin"]["passed"] is False
    assert document["twin"]["largest_quanta"] > 1.01


def test_a_twin_of_other_weights_is_refused_and_a_missing_one_is_none(
    finished_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    model = copied(finished_run, tmp_path, "int8.onnx")
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
