"""The operators that each runtime reports; LiteRT is tested in ``tests/lab/test_pipeline.py``, which exports files."""

from pathlib import Path

import pytest

from histoedge import edge
from histoedge.edge.errors import ModelError, RuntimeUnavailable


def test_onnx_runtime_distinguishes_integers_from_floats(mean_red_int8: Path) -> None:
    operators = edge.operators(mean_red_int8, runtime="onnxruntime")
    convolution = next(operator for operator in operators if operator.kind == "QLinearConv")
    assert convolution.integer  # although its scales are floats
    assert [str(operator) for operator in operators if not operator.integer] == ["DequantizeLinear logit"]


def test_a_float_network_has_no_integer_operator_in_onnx_runtime(mean_red: Path) -> None:
    operators = edge.operators(mean_red, runtime="onnxruntime")
    assert "Conv" in [operator.kind for operator in operators]
    assert not [operator for operator in operators if operator.integer]


def test_openvino_lists_the_operators_that_process_pixels(mean_red: Path) -> None:
    pytest.importorskip("openvino")
    operators = edge.operators(mean_red, runtime="openvino")
    assert [operator.integer for operator in operators if operator.kind == "Convolution"] == [False]
    assert not {"Const", "Input", "Output", "ShapeOf"} & {operator.kind for operator in operators}


def test_openvino_names_operators_the_same_every_time(mean_red_int8: Path) -> None:
    pytest.importorskip("openvino")
    first, second = (edge.operators(mean_red_int8, runtime="openvino") for _ in range(2))
    assert first == second
    assert len({operator.name for operator in first}) == len(first)


def test_operators_are_listed_for_checked_bytes_only(mean_red: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="litert does not open onnx files"):
        edge.operators(mean_red, runtime="litert")
    mean_red.write_bytes(mean_red.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed after its manifest was written"):
        edge.operators(mean_red)
