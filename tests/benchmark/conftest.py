"""Tiny ONNX models with known answers, and patches whose red value depends on their label."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from histoedge import files
from histoedge.edge.golden import golden_path
from histoedge.edge.manifest import CONTRACT, Manifest, manifest_path


def _write_model(path: Path, content: bytes, *, source: str = "0" * 64, temperature: float = 1.0) -> Path:
    """Write ``content`` as a model file with a matching manifest; ``source`` is the SHA-256 of its source network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    golden = np.zeros((1, 96, 96, 3), np.uint8)
    np.savez(golden_path(path), patches=golden, labels=np.zeros(1, np.uint8), logits=np.zeros(1, np.float32))
    format_ = path.suffix.removeprefix(".")
    manifest = Manifest(
        contract=CONTRACT,
        format=format_,
        recipe=path.stem,
        network="mean_red",
        params=2,
        macs=9216,
        sha256=hashlib.sha256(content).hexdigest(),
        golden_sha256=files.sha256(golden_path(path)),
        parents={"source": source},
        fp32=f"fp32.{format_}",
        stride_px=96,
        receptive_field_px=96,
        centre_offset_px=47.5,
        label_px=32,
        patch_px=96,
        um_per_px=0.972,
        edge_mode="valid",
        temperature=temperature,
        threshold=0.5,
        operating_points=(),
        golden_runtime="onnxruntime",
        tolerance=1e-4,
        tolerance_reason="float32 sums in another order",
        output_quantum=None,
        zeros=0.0,
        may_saturate=[],
        input_statistics={},
        tools={},
    )
    files.write_json(manifest_path(path), manifest.as_json())
    return path


def _write_mean_red(path: Path, *, scale: float = 1.0, source: str = "0" * 64, temperature: float = 1.0) -> Path:
    """Write an ONNX file whose logit is ``scale`` x (mean red value - 100)."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["pixels", "zero", "one", "channel"], ["red"]),
        helper.make_node("ReduceMean", ["red"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["tumour_logit"]),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("channel", TensorProto.INT64, [1], [3]),
        helper.make_tensor("middle", TensorProto.FLOAT, [], [100.0]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    pixels = helper.make_tensor_value_info("patches", TensorProto.UINT8, ["n", "h", "w", 3])
    logits = helper.make_tensor_value_info("tumour_logit", TensorProto.FLOAT, ["n", 1, 1, 1])
    graph = helper.make_graph(nodes, "mean_red", [pixels], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _write_model(path, model.SerializeToString(), source=source, temperature=temperature)


@pytest.fixture
def write_mean_red():
    """``write_mean_red(path, scale=1.0, ...)``: an ONNX file whose logit is ``scale`` x (mean red value - 100)."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return _write_mean_red


@pytest.fixture
def write_model():
    """``write_model(path, content, source=..., temperature=1.0)``: that content under a manifest that fits it."""
    return _write_model


@pytest.fixture(scope="session")
def split():
    """600 patches, more than one chunk; tumour is slightly redder."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 600).astype(np.uint8)
    colour = random.normal(100, 4, (600, 1, 1, 3)) + 5 * labels[:, None, None, None]
    patches = np.broadcast_to(colour, (600, 96, 96, 3)).clip(0, 255).astype(np.uint8)
    return SimpleNamespace(name="test", patches=patches, labels=labels, slides=None, content_hash="c" * 64)


@pytest.fixture(scope="session")
def mean_reds(split):
    """The mean red value of each patch of the split, float64 (600,)."""
    return split.patches[..., 0].mean(axis=(1, 2))
