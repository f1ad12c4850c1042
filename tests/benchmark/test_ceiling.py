"""The model that measures the machine's integer peak."""

import numpy as np
import pytest

from histoedge.benchmark import ceiling
from histoedge.edge import ort


def test_it_is_a_valid_onnx_file_of_the_macs_that_it_tells():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(ceiling.model())
    onnx.checker.check_model(model, full_check=True)
    kernels = {one.name: list(one.dims) for one in model.graph.initializer if one.name.startswith("w")}
    side, macs = 96, 0
    for at, (kernel, stride, channels) in enumerate(ceiling.LAYERS):
        outputs, inputs, height, width = kernels[f"w{at}"]
        assert (outputs, height, width) == (channels, kernel, kernel)
        side = (side - kernel) // stride + 1
        macs += side * side * outputs * inputs * height * width
    assert (side, macs) == (1, ceiling.MACS)


def test_onnx_runtime_computes_all_of_it_in_integers():
    pytest.importorskip("onnxruntime")
    convolutions = [one for one in ort.ort_operators(ceiling.model()) if "Conv" in one.kind]
    assert len(convolutions) == len(ceiling.LAYERS)
    assert all(one.integer for one in convolutions)
    runner = ort.open_ort(ceiling.model())
    assert runner.predict(np.zeros((2, 96, 96, 3), np.uint8)).reshape(-1).tolist() == [0, 0]
