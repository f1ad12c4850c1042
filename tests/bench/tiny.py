"""Tiny ONNX models with a known answer, with manifests, for the tests of bench and of its cells."""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from histoedge import files
from histoedge.edge.manifest import CONTRACT, Manifest, manifest_path


def mean_red(folder: Path, recipe: str, *, scale: float = 1.0, offset: float = 100.0, format_: str = "onnx") -> Path:
    """``<recipe>.onnx`` whose logit is ``scale`` x (mean red value - ``offset``)."""
    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["pixels", "zero", "one", "channel"], ["red"]),
        helper.make_node("ReduceMean", ["red"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Sub", ["mean", "offset"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["tumour_logit"]),
    ]
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("channel", TensorProto.INT64, [1], [3]),
        helper.make_tensor("offset", TensorProto.FLOAT, [], [offset]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_red",
        [helper.make_tensor_value_info("patches", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("tumour_logit", TensorProto.FLOAT, ["n", 1, 1, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return with_manifest(folder / f"{recipe}.{format_}", model.SerializeToString(), recipe)


def serialised(model: Path) -> onnx.ModelProto:
    """The graph of a file made here."""
    return onnx.load_model_from_string(model.read_bytes())


def with_manifest(path: Path, content: bytes, recipe: str) -> Path:
    """Write ``content`` as a model file with a manifest that fits it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    format_ = path.suffix.removeprefix(".")
    manifest = Manifest(
        contract=CONTRACT,
        format=format_,
        recipe=recipe,
        network="mean_red",
        params=2,
        macs=9216,
        sha256=hashlib.sha256(content).hexdigest(),
        golden_sha256="0" * 64,
        parents={},
        fp32=f"fp32.{format_}",
        stride_px=96,
        receptive_field_px=96,
        centre_offset_px=47.5,
        label_px=32,
        patch_px=96,
        um_per_px=0.972,
        edge_mode="valid",
        temperature=1.0,
        threshold=0.5,
        golden_runtime="onnxruntime",
        tolerance=1e-4,
        tolerance_reason="float32 sums in another order",
        output_quantum=None,
        tools={},
    )
    files.write_json(manifest_path(path), manifest.as_json())
    return path
