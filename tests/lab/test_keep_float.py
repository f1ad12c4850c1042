"""Layers of an int8 file that compute in float."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import branched_networks
import numpy as np
import onnx
import pytest
from branched_networks import conv, head, random_weights

from histoedge.config import CompressConfig, Recipe
from histoedge.data import Split
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.edge.litert import litert_operators, open_litert
from histoedge.edge.ort import open_ort, ort_operators
from histoedge.lab import (
    activation_ranges,
    backend,
    export,
    finetune,
    keep_float,
    layer_codes,
    onnx_passes,
    quantise,
    readback,
    saturate,
    to_onnx,
    to_tflite,
    weights,
)
from histoedge.lab.architecture import Network
from histoedge.lab.calibrate import Calibration
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.finetune import CompressJob
from histoedge.lab.graph import Row
from histoedge.lab.weights import Arrays
from histoedge.progress import silent
from histoedge.verification.verifier import MULTIPLICATIONS

pytestmark = pytest.mark.lab


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

SHORT_CASES = (CASES[1], CASES[4], CASES[7])


def patches_of(network: Network) -> np.ndarray:
    side = network.patch_px
    return np.random.default_rng(1).integers(0, 256, (6, side, side, 3), dtype=np.uint8)


def quantised(network: Network, kept: Sequence[str] = (), largest_code: int = 127) -> Arrays:
    pixels = patches_of(network).astype(np.float32) / 255
    arrays = branched_networks.quantised(network, random_weights(network), pixels, largest_code)
    return arrays | quantise.keep_in_float(network, arrays, kept)


@pytest.mark.parametrize(
    ("network", "kept"),
    [case if case in SHORT_CASES else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
    ids=lambda value: getattr(value, "name", None) or "+".join(value),
)
def test_both_files_keep_these_layers_in_float_and_agree(network: Network, kept: tuple[str, ...]) -> None:
    arrays, patches = quantised(network, kept), patches_of(network)
    tflite = to_tflite.convert(network, arrays, precision="int8")
    converted = to_onnx.convert(network, arrays, precision="int8")
    for content, format_ in ((tflite, "tflite"), (converted, "onnx")):
        kernels = readback.read_kernels(content, format_, network)
        assert tuple(name for name, kernel in kernels.items() if kernel.dtype == np.float32) == kept
        for name in kept:
            np.testing.assert_array_equal(kernels[name], arrays[f"{name}/kernel"])
        assert {kernel.dtype for name, kernel in kernels.items() if name not in kept} <= {np.dtype(np.int8)}
        assert not set(readback.may_saturate(kernels)) & set(kept)
    low, high = arrays["head/range"]
    quantum = (high - low) / 255
    first = open_litert(tflite).predict(patches).ravel()
    second = open_ort(converted, may_saturate=True).predict(patches).ravel()
    emulated = saturate.simulated_logits(converted, patches, saturating=False)
    simulated = np.asarray(quantise.simulate(network, arrays, patches.astype(np.float32) / 255)).ravel()
    allowed = export.INT8_TOLERANCE[network.plain][0] * quantum
    for other in (second, simulated):
        assert np.abs(other - first).max() <= allowed
    assert np.abs(emulated - second).max() <= allowed
    for operators in (litert_operators(tflite), ort_operators(converted)):
        floats = [operator for operator in operators if operator.kind in MULTIPLICATIONS and not operator.integer]
        assert len(floats) == len(kept)


@pytest.mark.parametrize("kept", ["stem", "b"])
def test_the_output_of_a_layer_in_float_is_not_rounded(kept: str) -> None:
    arrays, patches = quantised(PLAIN, (kept,)), patches_of(PLAIN)
    tensors = {"pixels": backend.tensorflow().constant(patches.astype(np.float32) / 255)}
    for node in PLAIN.nodes:
        tensors[node.name] = quantise.simulate_node(node, arrays, tensors)
    node = next(node for node in PLAIN.nodes if node.name == kept)
    expected = quantise.compute_in_float(node, arrays, [tensors[name] for name in node.inputs])
    for format_, convert in (("tflite", to_tflite.convert), ("onnx", to_onnx.convert)):
        opened = layer_codes.open_codes(convert(PLAIN, arrays, precision="int8"), format_, PLAIN)
        assert set(opened.quanta) == set(PLAIN.convolutions) - {kept}
        np.testing.assert_allclose(opened.codes(patches)[kept], expected, atol=1e-5 if kept == "stem" else 1e-2)


def test_an_operator_in_float_that_is_not_kept_is_named() -> None:
    graph = onnx.load_from_string(to_onnx.convert(PLAIN, quantised(PLAIN, ("b",)), precision="int8")).graph
    onnx_passes.check_integer_only(graph, PLAIN.convolutions, ("b",))
    with pytest.raises(ModelError, match=r"operator Conv \(layer b\) must have a kernel of int8 codes"):
        onnx_passes.check_integer_only(graph, PLAIN.convolutions)
    with pytest.raises(ModelError, match=r"operator Conv \(layer head\) must have a float kernel"):
        onnx_passes.check_integer_only(graph, PLAIN.convolutions, ("b", "head"))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("sten",), r"\[compress\] keep_float: unknown layer 'sten'; did you mean stem\?"),
        (("maxpool2",), "expected one of: stem, b, head"),
    ],
)
def test_an_unknown_layer_is_refused(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        keep_float.check_names(CompressConfig(keep_float=names), PLAIN)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"keep_float": ("auto", "stem")}, "auto and other names"), ({"keep_float": ("b", "b")}, "a name twice")],
)
def test_contradictory_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        CompressConfig(**settings)


@pytest.fixture
def spoilt() -> CompressJob:
    """A job whose layer b has huge weights on a channel that is always 0: its other weights are rounded to 0."""
    arrays = {name: value for name, value in quantised(PLAIN).items() if not name.endswith("/range")}
    arrays["stem/kernel"][..., 0], arrays["stem/bias"][0] = 0, 0
    arrays["b/kernel"][:, :, 0, :] = 1000
    patches = np.random.default_rng(2).integers(0, 256, (96, 96, 96, 3), dtype=np.uint8)
    patches[::3] //= 2
    folded = weights.build(backend.tf_keras(), PLAIN, folded=True)
    weights.set_weights(folded, arrays, where="test")
    logits = folded.predict_on_batch(patches.astype(np.float32) / 255).ravel()
    split = Split("valid", patches, (logits > np.median(logits)).astype(np.uint8), [str(n) for n in range(96)])
    parent = Checkpoint(PLAIN, "fp32", arrays, {"train": {}}, 1.0, Calibration(1.0, ()))
    return CompressJob(
        recipe=Recipe.parse("int8ptq"),
        source=parent,
        parent=parent,
        splits={"train": split, "valid": split},
        config=CompressConfig(keep_float=("auto",), keep_float_loss=0.02, calibration_patches=96),
        devices=backend.use_device("cpu"),
        patches_on="disk",
        progress=silent,
    )


def test_auto_keeps_the_layer_that_was_spoilt_and_no_other(spoilt: CompressJob) -> None:
    result = finetune.compressed_checkpoint(spoilt, state=Path("unused"), inputs={})
    assert result.valid_auc < 0.9
    chosen, steps = keep_float.choose(spoilt, result)
    assert [step.layer for step in steps] == [None, "b"]
    assert quantise.float_layers(PLAIN, chosen.arrays) == ("b",)
    assert chosen.valid_auc == steps[1].valid_auc >= 0.98


def test_auto_stops_with_a_line_when_all_layers_are_in_float(spoilt: CompressJob) -> None:
    lines: list[str] = []
    job = dataclasses.replace(
        spoilt,
        parent=dataclasses.replace(spoilt.parent, valid_auc=1.5),  # out of reach
        progress=lambda what, done, total, note="": lines.append(what) if not total else None,
    )
    result, steps = keep_float.choose(job, finetune.compressed_checkpoint(spoilt, state=Path("unused"), inputs={}))
    assert {step.layer for step in steps} == {None, *PLAIN.convolutions}
    assert quantise.float_layers(PLAIN, result.arrays) == PLAIN.convolutions
    assert len(lines) == 1
    assert "all layers are in float" in lines[0]


@pytest.mark.parametrize("bright", [False, True])
def test_a_range_that_still_moves_is_reported(bright: bool) -> None:
    arrays = {name: value for name, value in quantised(PLAIN).items() if not name.endswith("/range")}
    folded = weights.build(backend.tf_keras(), PLAIN, folded=True)
    weights.set_weights(folded, arrays, where="test")
    pixels = np.repeat(patches_of(PLAIN)[:2].astype(np.float32) / 512, 4, axis=0)  # pairs: both halves are the same
    pixels = pixels[[0, 0, 0, 0, 4, 4, 4, 4]]
    if bright:
        pixels[5] *= 2
    lines: list[str] = []
    activation_ranges.calibrate(folded, PLAIN, [pixels[:3], pixels[3:]], note=lines.append)
    assert len(lines) == (1 if bright else 0)
    if bright:
        assert "on 4 calibration patches and" in lines[0]
        assert lines[0].endswith("of 3 layers; raise calibration_patches or give more images")
