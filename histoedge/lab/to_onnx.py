"""Convert a network to an ONNX file by way of its TFLite file: both contain the same numbers.

``tf2onnx.convert.from_keras`` would fold quantised weights back to floats; ``from_tflite`` keeps int8 weights and all
scales. Small passes over the graph then clean up its result.
"""

import tempfile
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from histoedge.config import Precision
from histoedge.edge.errors import ConfigError
from histoedge.lab import backend, onnx_passes, quantise, stem, to_tflite
from histoedge.lab.architecture import Network
from histoedge.lab.graph import KERNELS

OPSET, IR_VERSION = 17, 8
DEFAULT_TARGET = "1.15"  # the oldest ONNX Runtime wheel for Python 3.11
# Newest opset and IR version that each release of ONNX Runtime reads (its "versioning" page), up to those used here.
_READS = {(1, 7): (13, 7), (1, 8): (14, 7), (1, 9): (15, 8), (1, 10): (15, 8), (1, 11): (16, 8), (1, 12): (17, 8)}


def opset_and_ir_version(ort_version: str) -> tuple[int, int]:
    """Return the opset and IR version for an ONNX Runtime release ``X.Y``.

    Raises:
        ConfigError: not a release number, or a release before 1.7, which does not support per-channel quantisation.
    """
    try:
        major, minor = (int(part) for part in ort_version.split(".")[:2])
    except ValueError:
        raise ConfigError(f"--target-ort expects a release like {DEFAULT_TARGET}, got {ort_version!r}") from None
    if (major, minor) < min(_READS):
        raise ConfigError(
            f"--target-ort {ort_version}: releases before 1.7 do not support per-channel int8; use 1.7 or newer"
        )
    return _READS.get((major, minor), (OPSET, IR_VERSION))


def convert(
    network: Network,
    arrays: Mapping[str, np.ndarray],
    *,
    precision: Precision,
    target_ort: str = DEFAULT_TARGET,
    packed: bool = True,
) -> bytes:
    """Return the bytes of the ONNX file, with variable batch, height and width; the same input gives the same bytes.

    Args:
        network: the architecture.
        arrays: folded weights, see ``to_tflite.convert``.
        precision: see ``to_tflite.convert``.
        target_ort: oldest ONNX Runtime release that must read the file.
        packed: see ``to_tflite.convert``.
    """
    opset, ir_version = opset_and_ir_version(target_ort)
    # not the TFLite file that is exported: with a fixed shape, its Reshapes would fail on other batches or sizes
    model = from_tflite(to_tflite.convert(network, arrays, precision=precision, for_onnx=True), opset)
    for clean in onnx_passes.PASSES:
        clean(model.graph)
    if packed and precision == "int8" and stem.packs(network):
        onnx_passes.pack_stem(model.graph)
    if precision == "fp16":
        onnx_passes.store_half_precision(model.graph)
    if precision == "int8":
        onnx_passes.shield_floats(model.graph)
    model = canonicalise(model, ir_version=ir_version, patch_px=None if network.dense else network.patch_px)
    if precision == "int8":
        convolutions = [node.name for node in network.from_output() if node.row.kind in KERNELS]
        onnx_passes.check_integer_only(model.graph, convolutions, quantise.float_layers(network, arrays))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def from_tflite(content: bytes, opset: int) -> onnx.ModelProto:
    """Return what tf2onnx makes of a TFLite file."""
    backend.tensorflow()
    with tempfile.TemporaryDirectory() as folder, backend.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf2onnx

        tf2onnx.utils.INTERNAL_NAME = 1  # a counter over all models, on which the result depends
        _in_order_of_names(tf2onnx.graph)
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        model: onnx.ModelProto
        model, _ = tf2onnx.convert.from_tflite(str(path), opset=opset)
    return model


def _in_order_of_names(module: Any) -> None:
    """Let tf2onnx visit nodes in the order of their names, not of their addresses or of a hash with a random seed.

    On this order depends through which operators its optimiser moves a Transpose.
    """
    found = module.Graph.find_output_consumers
    if found.__name__ != "in_order":

        def in_order(graph: Any, output: str) -> list[Any]:
            return sorted(found(graph, output), key=lambda node: str(node.name))

        module.Graph.find_output_consumers = in_order
        module.Node.__hash__ = lambda node: zlib.crc32(node.name.encode())


def canonicalise(model: onnx.ModelProto, *, ir_version: int, patch_px: int | None = None) -> onnx.ModelProto:
    """Return the same model with nodes in topological order from the output, and names derived from that order.

    tf2onnx numbers names with counters and its node order varies; this form depends only on the content. With
    ``patch_px``, height and width are fixed.
    """
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    constants = {initializer.name: initializer for initializer in graph.initializer}
    names = {graph.input[0].name: to_tflite.INPUT}
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def visit(value: str) -> None:
        if not value or value in names or value in constants:  # without a name: an optional input that is left out
            return
        node = producers[value]
        for name in node.input:
            visit(name)
        label = f"{node.op_type}_{len(nodes)}"
        inputs = []
        for position, name in enumerate(node.input):
            if name in constants:  # a copy per use: which constants tf2onnx shares varies
                tensor = onnx.TensorProto()
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constants[name]), f"{label}_{position}"))
                initializers.append(tensor)
                inputs.append(tensor.name)
            else:
                inputs.append(names[name] if name else "")
        outputs = [label, *(f"{label}_{number}_out" for number in range(1, len(node.output)))]
        renamed = helper.make_node(node.op_type, inputs, outputs, name=label)
        renamed.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
        nodes.append(renamed)
        names.update(zip(node.output, outputs, strict=True))

    output = graph.output[0].name
    visit(output)
    nodes[-1].output[0] = to_tflite.OUTPUT
    sides: list[Any] = ["height", "width"] if patch_px is None else [patch_px, patch_px]
    positions: list[Any] = ["rows", "columns"] if patch_px is None else [1, 1]
    patches = helper.make_tensor_value_info(to_tflite.INPUT, TensorProto.UINT8, ["batch", *sides, 3])
    logit = helper.make_tensor_value_info(to_tflite.OUTPUT, TensorProto.FLOAT, ["batch", *positions, 1])
    rebuilt = helper.make_graph(nodes, "histoedge", [patches], [logit], initializers)
    opset = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return helper.make_model(rebuilt, opset_imports=[opset], ir_version=ir_version, producer_name="histoedge")
