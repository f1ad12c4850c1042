"""Networks whose rows read earlier rows: shapes, training form, both file formats, all precisions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoedge.edge.litert import open_litert
from histoedge.edge.ort import open_ort
from histoedge.lab import architecture, backend, quantise, readback, saturate, to_onnx, to_tflite, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row
from histoedge.lab.weights import Arrays

pytestmark = pytest.mark.lab

STEM = Row(kind="conv", channels=8, kernel=3, stride=2, padding="same", name="stem")


def conv(name: str, channels: int = 8, kernel: int = 1, **rest: Any) -> Row:
    return Row(kind="conv", name=name, channels=channels, kernel=kernel, **rest)


def head(kernel: int = 1) -> Row:
    return Row(kind="head", channels=1, kernel=kernel)


NETWORKS = {
    "residual": Network(
        "residual",
        (
            STEM,
            conv("a", kernel=3, padding="same"),
            conv("b", kernel=3, padding="same", activation="none"),
            Row(kind="add", inputs=("stem", "b"), activation="relu"),
            Row(kind="avgpool", kernel=48),
            head(),
        ),
    ),
    "mobile": Network(
        "mobile",
        (
            Row(kind="depthwise", activation="none", norm=False, bias=True, name="normalise"),
            conv("stem", kernel=3, stride=2, padding="same", activation="relu6"),
            conv("wide", 24, activation="relu6"),
            Row(kind="depthwise", kernel=3, stride=2, padding="same", activation="relu6"),
            conv("narrow", activation="none"),
            Row(kind="activation", activation="hard_swish"),
            Row(kind="depthwise", kernel=3, padding="same", activation="none"),
            Row(kind="activation", activation="swish"),
            Row(kind="avgpool", kernel=24),
            head(),
        ),
    ),
    "joined": Network(
        "joined",
        (
            conv("stem", kernel=4, stride=4),
            conv("a", kernel=3, activation="none"),
            Row(kind="activation", activation="hard_swish", name="bent"),
            conv("b", 4, kernel=3, inputs=("stem",), activation="none"),
            Row(kind="activation", activation="sigmoid", name="gate"),
            Row(kind="concat", inputs=("bent", "gate"), name="both"),
            Row(kind="maxpool", kernel=2, stride=2),
            Row(kind="concat", inputs=("pool7", "pool7"), name="twice"),
            head(11),
        ),
    ),
}


def random_weights(network: Network, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, shape in network.kernel_shapes.items():
        fan_in = int(np.prod(shape[:3]))
        arrays[f"{name}/kernel"] = random.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        arrays[f"{name}/bias"] = random.normal(0, 0.1, shape[-1:]).astype(np.float32)
    return arrays


def quantised(network: Network, arrays: Arrays, pixels: np.ndarray, largest_code: int = 63) -> Arrays:
    folded = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(folded, arrays, where=network.name)
    ranges = quantise.calibrate(folded, network, [pixels])
    return {**arrays, **ranges, quantise.KERNEL_CODES: np.array([-largest_code, largest_code])}


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
