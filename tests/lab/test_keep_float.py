"""Layers of an int8 file that compute in float."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from histoedge.edge.litert import open_litert
from histoedge.edge.ort import open_ort
from histoedge.lab import backend, quantise, readback, saturate, to_onnx, to_tflite, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row
from histoedge.lab.weights import Arrays

pytestmark = pytest.mark.lab


def conv(name: str, channels: int = 8, kernel: int = 1, **rest: Any) -> Row:
    return Row(kind="conv", name=name, channels=channels, kernel=kernel, **rest)


def head(kernel: int) -> Row:
    return Row(kind="head", channels=1, kernel=kernel)


PLAIN = Network(
    "plain",
    (conv("stem", kernel=4, stride=4), Row(kind="maxpool", kernel=2, stride=2), conv("b", 12, kernel=3), head(10)),
)
RESIDUAL = Network(
    "residual",
    (
        conv("stem", kernel=3, stride=4, padding="same", activation="relu6"),
        conv("a", 16, activation="none"),
        Row(kind="activation", activation="hard_swish", name="bent"),
        Row(kind="depthwise", kernel=3, padding="same", name="deep", activation="relu6"),
        conv("b", 8, activation="none"),
        Row(kind="add", inputs=("stem", "b"), name="sum", activation="relu"),
        Row(kind="maxpool", kernel=2, stride=2, name="pool"),
        conv("c", 8, activation="none"),
        conv("d", 8, inputs=("pool",), activation="none"),
        Row(kind="concat", inputs=("c", "d"), name="both"),
        Row(kind="avgpool", kernel=12),
        head(1),
    ),
)
CASES = [
    (PLAIN, ("stem",)),
    (PLAIN, ("b",)),
    (PLAIN, ("head",)),
    (PLAIN, ("stem", "b")),
    (PLAIN, ("stem", "b", "head")),
    (RESIDUAL, ("stem",)),
    (RESIDUAL, ("deep",)),
    (RESIDUAL, ("a", "b")),
    (RESIDUAL, ("c",)),
    (RESIDUAL, ("stem", "a", "deep", "b", "c", "d", "head")),
]


def patches_of(network: Network) -> np.ndarray:
    side = network.patch_px
    return np.random.default_rng(1).integers(0, 256, (6, side, side, 3), dtype=np.uint8)


def quantised(network: Network, kept: Sequence[str] = (), largest_code: int = 127) -> Arrays:
    random = np.random.default_rng(0)
    arrays: Arrays = {}
    for name, shape in network.kernel_shapes.items():
        arrays[f"{name}/kernel"] = random.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape).astype(np.float32)
        arrays[f"{name}/bias"] = random.normal(0, 0.1, shape[-1:]).astype(np.float32)
    folded = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(folded, arrays, where=network.name)
    arrays |= quantise.calibrate(folded, network, [patches_of(network).astype(np.float32) / 255])
    arrays[quantise.KERNEL_CODES] = np.array([-largest_code, largest_code])
    return arrays | quantise.keep_in_float(network, arrays, kept)


@pytest.mark.parametrize(("network", "kept"), CASES, ids=lambda value: getattr(value, "name", None) or "+".join(value))
def test_both_files_keep_these_layers_in_float_and_agree(network: Network, kept: tuple[str, ...]) -> None:
    arrays, patches = quantised(network, kept), patches_of(network)
    tflite = to_tflite.convert(network, arrays, precision="int8")
    onnx = to_onnx.convert(network, arrays, precision="int8")
    for content, format_ in ((tflite, "tflite"), (onnx, "onnx")):
        kernels = readback.read_kernels(content, format_, network)
        assert tuple(name for name, kernel in kernels.items() if kernel.dtype == np.float32) == kept
        for name in kept:
            np.testing.assert_array_equal(kernels[name], arrays[f"{name}/kernel"])
        assert {kernel.dtype for name, kernel in kernels.items() if name not in kept} <= {np.dtype(np.int8)}
        assert not set(readback.may_saturate(kernels)) & set(kept)
    low, high = arrays["head/range"]
    quantum = (high - low) / 255
    first = open_litert(tflite).predict(patches).ravel()
    second = open_ort(onnx, may_saturate=True).predict(patches).ravel()
    emulated = saturate.simulated_logits(onnx, patches, saturating=False)
    simulated = np.asarray(quantise.simulate(network, arrays, patches.astype(np.float32) / 255)).ravel()
    print(
        np.abs(first - second).max() / quantum,
        np.abs(emulated - second).max() / quantum,
        np.abs(simulated - first).max() / quantum,
    )
    assert np.abs(first - second).max() <= 1.01 * quantum
    assert np.abs(emulated - second).max() <= 1.01 * quantum
    assert np.abs(simulated - first).max() <= 1.5 * quantum
