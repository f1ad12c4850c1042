"""Networks whose rows read earlier rows: shapes, training form, both file formats, all precisions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from branched_networks import NETWORKS, STEM, conv, head, quantised, random_weights

from histoedge.edge.litert import open_litert
from histoedge.edge.ort import open_ort
from histoedge.lab import (
    activation_ranges,
    architecture,
    backend,
    quantise,
    readback,
    saturate,
    to_onnx,
    to_tflite,
    weights,
)
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row

pytestmark = pytest.mark.lab


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]


@pytest.fixture
def patches(network: Network) -> np.ndarray:
    side = network.patch_px
    return np.random.default_rng(1).integers(0, 256, (6, side, side, 3), dtype=np.uint8)


def test_a_network_is_the_same_after_json(network: Network) -> None:
    assert architecture.from_json(network.as_json(), where=Path("network.json")) == network


def test_the_folded_models_of_both_versions_of_keras_agree(network: Network, patches: np.ndarray) -> None:
    arrays = random_weights(network)
    answers = []
    for keras in (backend.keras(), backend.tf_keras()):
        model = weights.build(keras, network, folded=True)
        weights.set_weights(model, arrays, where=network.name)
        assert all(np.array_equal(value, arrays[name]) for name, value in weights.get_weights(model).items())
        answers.append(np.asarray(model(patches.astype(np.float32) / 255)))
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_files_have_the_logits_of_the_network(network: Network, patches: np.ndarray, precision: Any) -> None:
    arrays = random_weights(network)
    if precision == "fp16":
        arrays = {name: value.astype(np.float16).astype(np.float32) for name, value in arrays.items()}
    model = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(model, arrays, where=network.name)
    expected = np.asarray(model(patches.astype(np.float32) / 255))
    tflite = to_tflite.convert(network, arrays, precision=precision)
    onnx = to_onnx.convert(network, arrays, precision=precision)
    tolerance = 1e-4 if precision == "fp32" else 2e-3
    np.testing.assert_allclose(
        open_litert(tflite, patch_px=network.patch_px).predict(patches), expected, atol=tolerance
    )
    np.testing.assert_allclose(open_ort(onnx, patch_px=network.patch_px).predict(patches), expected, atol=tolerance)


@pytest.mark.parametrize("largest_code", quantise.LARGEST_CODES)
def test_integer_files_agree_within_a_quantum(network: Network, patches: np.ndarray, largest_code: int) -> None:
    arrays = quantised(network, random_weights(network), patches.astype(np.float32) / 255, largest_code)
    tflite = to_tflite.convert(network, arrays, precision="int8")
    onnx = to_onnx.convert(network, arrays, precision="int8")
    low, high = arrays["head/range"]
    quantum = (high - low) / 255
    first = open_litert(tflite).predict(patches)
    second = open_ort(onnx, may_saturate=largest_code > 63).predict(patches)
    assert np.abs(first - second).max() <= 1.01 * quantum
    emulated = saturate.simulated_logits(onnx, patches, saturating=False)
    assert np.abs(emulated - second.ravel()).max() <= 1.01 * quantum
    simulated = np.asarray(quantise.simulate(network, arrays, patches.astype(np.float32) / 255)).ravel()
    assert np.abs(simulated - first.ravel()).max() <= 3.01 * quantum
    for content, format_ in ((tflite, "tflite"), (onnx, "onnx")):
        kernels = readback.read_kernels(content, format_, network)
        assert {name: kernel.shape for name, kernel in kernels.items()} == network.kernel_shapes
        assert max(np.abs(kernel).max() for kernel in kernels.values()) <= largest_code
        largest = {name: np.abs(kernel.astype(int)).max() for name, kernel in kernels.items()}
        assert set(largest.values()) == {largest_code}


@pytest.mark.parametrize("activation", ["swish", "hard_swish", "none"])
def test_a_relu_keeps_its_range_in_a_concat_with_a_layer_below_zero(activation: str) -> None:
    rows = (
        STEM,
        conv("clipped", activation="relu6"),
        conv("other", activation="none"),
        Row(kind="activation", activation=activation, name="bent"),
        Row(kind="concat", inputs=("bent", "clipped")),
        head(48),
    )
    groups = activation_ranges.ranges_of(Network("both", rows))
    assert groups["clipped"] == "clipped"
    assert groups["bent"] == groups["concat5"]
