"""Exported files of a run: what each format contains, computes and states in its manifest."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from histoedge import data, edge, metrics
from histoedge.data import hdf5
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests

pytestmark = pytest.mark.lab

RECIPES = ("fp32", "fp16", "int8", "prune50", "prune50_int8")
FILES = [f"{recipe}.{format_}" for recipe in RECIPES for format_ in ("tflite", "onnx")]


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
        mapped, expected = answers[0, *zip(*corners, strict=True), 0], runner.predict(patches).reshape(-1)
        np.testing.assert_allclose(mapped, expected, atol=0 if recipe == "int8" else 1e-4)


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


def test_int8_files_contain_int8_kernels_and_no_relu(finished_run: Path) -> None:
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


def test_old_weights_without_a_calibration_are_one_line(
    finished_run: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    arrays, attributes = hdf5.read_arrays(finished_run / "fp32.weights.h5")
    attributes = {name: value for name, value in attributes.items() if name != "calibration"} | {"format": 1}
    hdf5.write_arrays(tmp_path / "fp32.weights.h5", arrays, attributes)
    result = invoke("export", tmp_path, "--recipe", "fp32")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "fp32.weights.h5: weights of format 1, expected 2" in result.stderr


def test_exporting_again_gives_the_same_bytes(finished_run: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
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


def test_litert_lists_the_operators_that_xnnpack_does_not_compute(finished_run: Path) -> None:
    int8, fp32 = (edge.operators(finished_run / "models" / f"{recipe}.tflite") for recipe in ("int8", "fp32"))
    assert str(int8[-1]) == "DEQUANTIZE tumour_logit"
    assert all(operator.delegated for operator in int8)
    assert [operator.kind for operator in fp32 if not operator.delegated] == ["CAST"]
    assert not [operator for operator in fp32 if operator.integer]
    assert all(operator.delegated for operator in fp32 if operator.kind == "CONV_2D")
