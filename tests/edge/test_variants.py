"""Runtimes that are used only when requested by name."""

from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import RuntimeUnavailable

MODELS = Path(__file__).parents[2] / "exported" / "edge" / "models"


def test_litert_returns_the_same_logits_with_its_own_kernels() -> None:
    pytest.importorskip("ai_edge_litert")
    model = MODELS / "int8.tflite"
    manifest = manifests.read(model)
    golden = goldens.read_golden(model, manifest)
    runner = edge.load(model, runtime="litert-builtin")
    assert (runner.runtime, runner.kernels) == ("litert", "builtin")
    difference = np.abs(runner.predict(golden.patches).reshape(-1) - golden.logits).max()
    assert difference <= manifest.tolerance * (1 + 1e-6)  # one output quantum: the sums are the same, rounding is not
    assert edge.load(model).kernels == "xnnpack"


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_gpu_that_is_missing_is_named(name: str) -> None:
    pytest.importorskip("onnxruntime")
    model = MODELS / "fp32.onnx"
    if Path("/proc/driver/nvidia/gpus").is_dir():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeUnavailable, match="did not start: no NVIDIA GPU|pip install onnxruntime-gpu"):
        edge.load(model, runtime=f"onnxruntime-{name}")


def test_a_variant_opens_only_its_formats_and_is_never_the_default() -> None:
    with pytest.raises(RuntimeUnavailable, match="does not open onnx files; use onnxruntime or openvino"):
        edge.load(MODELS / "fp32.onnx", runtime="litert-builtin")
    with pytest.raises(RuntimeUnavailable, match="litert-builtin cannot list its operators"):
        edge.operators(MODELS / "fp32.tflite", runtime="litert-builtin")
    assert not edge.RUNTIMES.keys() & edge.VARIANTS.keys()
