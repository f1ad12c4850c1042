"""The model that measures the machine's integer peak."""

import numpy as np
import pytest

from histoedge.benchmark import ceiling
from histoedge.edge import ort


def test_it_is_a_valid_onnx_file_with_the_stated_macs():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(ceiling.model())
    onnx.checker.check_model(model, full_check=True)
    kernels = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer if tensor.name.startswith("w")}
    side, macs = 96, 0
    for number, (kernel, stride, channels) in enumerate(ceiling.LAYERS):
        outputs, inputs, height, width = kernels[f"w{number}"]
        assert (outputs, height, width) == (channels, kernel, kernel)
        side = (side - kernel) // stride + 1
        macs += side * side * outputs * inputs * height * width
    assert (side, macs) == (1, ceiling.MACS)


def test_onnx_runtime_computes_all_of_it_in_integers():
    pytest.importorskip("onnxruntime")
    convolutions = [operator for operator in ort.ort_operators(ceiling.model()) if "Conv" in operator.kind]
    assert len(convolutions) == len(ceiling.LAYERS)
    assert all(convolution.integer for convolution in convolutions)
    runner = ort.open_ort(ceiling.model())
    assert runner.predict(np.zeros((2, 96, 96, 3), np.uint8)).reshape(-1).tolist() == [0, 0]
