"""Convert a network to an ONNX file by way of its TFLite file: both contain the same numbers.

``tf2onnx.convert.from_keras`` would fold quantised weights back to floats; ``from_tflite`` keeps int8 weights and all
scales. Small passes over the graph then clean up its result.
"""

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from histoedge.config import Precision
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import backend, stem, to_tflite
from histoedge.lab.architecture import Network

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
    # not the TFLite file that is exported: with a fixed field, its Reshapes would fail on other sizes
    model = _from_tflite(to_tflite.convert(network, arrays, precision=precision, field_px=None), opset)
    for clean in PASSES:
        clean(model.graph)
    if packed and precision == "int8":
        pack_stem(model.graph)
    if precision == "fp16":
        store_half_precision(model.graph)
    if precision == "int8":
        check_integer_only(model.graph)
    model = canonicalise(model, ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _from_tflite(content: bytes, opset: int) -> onnx.ModelProto:
    backend.tensorflow()
    with tempfile.TemporaryDirectory() as folder, backend.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf2onnx

        tf2onnx.utils.INTERNAL_NAME = 1  # a counter over all models, on which the result depends
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        model: onnx.ModelProto
        model, _ = tf2onnx.convert.from_tflite(str(path), opset=opset)
    return model


# ---- passes: each changes the graph in place and skips patterns that it does not recognise -----------------------


def absorb_clipping(graph: onnx.GraphProto) -> None:
    """Remove a Relu or Clip if its only consumer quantises to a range within its bounds: the quantisation also clips.

    Others stay; ``check_integer_only`` then fails.
    """
    for clip in [node for node in graph.node if node.op_type in ("Relu", "Clip")]:
        consumers = _consumers(graph, clip.output[0])
        if len(consumers) != 1 or consumers[0].op_type != "QuantizeLinear":
            continue
        scale, zero_point = (_constant(graph, name) for name in consumers[0].input[1:3])
        if scale is None or zero_point is None or scale.size != 1:
            continue
        codes = np.iinfo(zero_point.dtype)
        lowest, highest = (float(scale) * (code - int(zero_point)) for code in (codes.min, codes.max))
        low, high = _bounds(graph, clip)
        if low <= lowest and highest <= high:
            consumers[0].input[0] = clip.input[0]
            graph.node.remove(clip)


def _bounds(graph: onnx.GraphProto, clip: onnx.NodeProto) -> tuple[float, float]:
    """Return the output range of a Relu or Clip; the empty range (inf, -inf) if a bound is not constant."""
    if clip.op_type == "Relu":
        return 0.0, np.inf
    bounds = []
    for position, missing, unknown in ((1, -np.inf, np.inf), (2, np.inf, -np.inf)):
        if len(clip.input) <= position or not clip.input[position]:
            bounds.append(missing)
        else:
            value = _constant(graph, clip.input[position])
            bounds.append(unknown if value is None else float(value))
    return bounds[0], bounds[1]


def activations_to_uint8(graph: onnx.GraphProto) -> None:
    """Convert int8 activations to uint8: add 128 to codes and zero points; weights stay int8.

    ONNX Runtime's x86 kernels are uint8 x int8; it does not fuse int8 activations.
    """
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero_point = _constant(graph, node.input[2])
        if _constant(graph, node.input[0]) is None and zero_point is not None and zero_point.dtype == np.int8:
            shifted = (zero_point.astype(np.int16) + 128).astype(np.uint8)
            node.input[2] = _add_constant(graph, f"{node.output[0]}_zero_point", shifted)


def drop_requantisation(graph: onnx.GraphProto) -> None:
    """Drop DequantizeLinear followed by QuantizeLinear with the same scale and zero point."""
    producers = {output: node for node in graph.node for output in node.output}
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        dequantize = producers.get(quantize.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        pairs = zip(dequantize.input[1:3], quantize.input[1:3], strict=True)
        constants = [(_constant(graph, first), _constant(graph, second)) for first, second in pairs]
        if all(a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b) for a, b in constants):
            for consumer in _consumers(graph, quantize.output[0]):
                consumer.input[:] = [
                    dequantize.input[0] if name == quantize.output[0] else name for name in consumer.input
                ]
            graph.node.remove(quantize)
            if not _consumers(graph, dequantize.output[0]):
                graph.node.remove(dequantize)


def transpose_at_the_end(graph: onnx.GraphProto) -> None:
    """Move the channel of the logit last with a Transpose, which supports any batch, instead of Reshape and Squeeze.

    tf2onnx uses a Reshape for batch 1 and a Squeeze, with the dequantisation before, between or after them. For some
    values of its name counter it drops the Squeeze, and the output has the wrong rank. All of this is replaced by the
    Transpose followed by the dequantisation.
    """
    producers = {output: node for node in graph.node for output in node.output}
    result = source = graph.output[0].name
    tail: list[onnx.NodeProto] = []
    while producers[source].op_type in ("Reshape", "Squeeze", "DequantizeLinear"):
        tail.append(producers[source])
        source = tail[-1].input[0]
    if all(node.op_type == "DequantizeLinear" for node in tail):
        return
    for node in tail:
        graph.node.remove(node)
    dequantise = [node for node in tail if node.op_type == "DequantizeLinear"]
    transposed = f"{result}_channel_last" if dequantise else result
    graph.node.append(helper.make_node("Transpose", [source], [transposed], perm=[0, 2, 3, 1]))
    for node in dequantise:  # at most one, for the logit
        graph.node.append(helper.make_node("DequantizeLinear", [transposed, *node.input[1:]], [result]))


PASSES: tuple[Callable[[onnx.GraphProto], None], ...] = (
    absorb_clipping,
    activations_to_uint8,
    drop_requantisation,
    transpose_at_the_end,
)


def pack_stem(graph: onnx.GraphProto) -> None:
    """Change a first convolution with a stride to read blocks of columns (see ``stem``): a free Reshape of the pixels.

    The convolution must read the transposed and dequantised input and have int8 weights; others stay.
    """
    producers = {output: node for node in graph.node for output in node.output}
    convolution = next((node for node in graph.node if node.op_type == "Conv"), None)
    if convolution is None or any(name not in producers for name in convolution.input[:2]):
        return
    transpose = producers.get(producers[convolution.input[0]].input[0])
    weights = producers[convolution.input[1]]
    kernel = _constant(graph, weights.input[0])
    strides = next((list(entry.ints) for entry in convolution.attribute if entry.name == "strides"), [1, 1])
    source = graph.input[0].name
    if transpose is None or transpose.op_type != "Transpose" or transpose.input[0] != source:
        return
    if kernel is None or kernel.dtype != np.int8 or min(strides) != max(strides) or strides[0] == 1:
        return
    stride = strides[0]
    packed = stem.pack(kernel.transpose(2, 3, 1, 0), stride, rows=False).transpose(3, 2, 0, 1)
    weights.input[0] = _add_constant(graph, f"{weights.output[0]}_packed", np.ascontiguousarray(packed))
    for entry in convolution.attribute:
        if entry.name == "strides":
            entry.ints[:] = [stride, 1]
        if entry.name == "kernel_shape":
            entry.ints[:] = packed.shape[2:]
    shape = _add_constant(graph, f"{source}_in_columns", np.array([0, 0, -1, stride * kernel.shape[1]], np.int64))
    transpose.input[0] = f"{source}_columns"
    graph.node.insert(0, helper.make_node("Reshape", [source, shape], [transpose.input[0]]))


MOVES = ("Transpose", "Reshape")
IN_INTEGERS = ("Conv", "MaxPool", *MOVES)  # between DequantizeLinear and QuantizeLinear


def check_integer_only(graph: onnx.GraphProto) -> None:
    """Check that all operators have quantised inputs and outputs: runtimes then compute in integers.

    Raises:
        ModelError: an operator without integer support, or with a float input or output; the message states it.
    """
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if node.op_type not in IN_INTEGERS:
            raise ModelError(
                f"int8: operator {node.op_type} (layer {node.name or node.output[0]}) has no integer support; "
                "use only convolutions with ReLU and max-pools, or export as fp32"
            )
        quantised = [producers[name].op_type == "DequantizeLinear" for name in node.input if name in producers]
        read = [consumer.op_type == "QuantizeLinear" for consumer in _consumers(graph, node.output[0])]
        if node.op_type not in MOVES and not (quantised and all(quantised) and read and all(read)):
            raise ModelError(
                f"int8: operator {node.op_type} (layer {node.name or node.output[0]}) has a float input or output; "
                "its activation requires a range of its own from calibration"
            )


def store_half_precision(graph: onnx.GraphProto) -> None:
    """Store float32 kernels and biases as float16 with a Cast, which runtimes compute once when they load the file."""
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        for position in range(1, len(node.input)):
            value = _constant(graph, node.input[position])
            if value is None or value.dtype != np.float32:
                raise ModelError(f"float16: {node.name or node.op_type} has no float32 constant at input {position}")
            half = _add_constant(graph, f"{node.output[0]}_half{position}", value.astype(np.float16))
            cast = helper.make_node("Cast", [half], [f"{half}_cast"], to=TensorProto.FLOAT)
            graph.node.insert(list(graph.node).index(node), cast)
            node.input[position] = cast.output[0]


def canonicalise(model: onnx.ModelProto, *, ir_version: int) -> onnx.ModelProto:
    """Return the same model with nodes in topological order from the output, and names derived from that order.

    tf2onnx numbers names with counters and its node order varies; this form depends only on the content.
    """
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    constants = {initializer.name: initializer for initializer in graph.initializer}
    names = {graph.input[0].name: to_tflite.INPUT}
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def visit(value: str) -> None:
        if value in names or value in constants:
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
                inputs.append(names[name])
        renamed = helper.make_node(node.op_type, inputs, [label], name=label)
        renamed.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
        nodes.append(renamed)
        names[value] = label

    output = graph.output[0].name
    visit(output)
    nodes[-1].output[0] = to_tflite.OUTPUT
    patches = helper.make_tensor_value_info(to_tflite.INPUT, TensorProto.UINT8, ["batch", "height", "width", 3])
    logit = helper.make_tensor_value_info(to_tflite.OUTPUT, TensorProto.FLOAT, ["batch", "rows", "columns", 1])
    rebuilt = helper.make_graph(nodes, "histoedge", [patches], [logit], initializers)
    opset = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return helper.make_model(rebuilt, opset_imports=[opset], ir_version=ir_version, producer_name="histoedge")


def _consumers(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if value in node.input]


def _constant(graph: onnx.GraphProto, name: str) -> Any:
    for initializer in graph.initializer:
        if initializer.name == name:
            return numpy_helper.to_array(initializer)
    return None


def _add_constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name
