"""Passes over the graph of an ONNX file: each changes it in place and skips patterns that it does not recognise."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from histoedge.edge.errors import ModelError
from histoedge.lab import stem

WITH_KERNEL = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operators that multiply by a kernel."""
CLIP_TOLERANCE = 1e-6  # a range of 0..6 ends at 6.0000003 after rounding of its scale to float32


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
        if low <= lowest + CLIP_TOLERANCE * abs(lowest) and highest <= high + CLIP_TOLERANCE * abs(high):
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


def constants_to_uint8(graph: onnx.GraphProto) -> None:
    """Convert int8 constants that are added or multiplied, such as gains, to uint8; kernels stay int8.

    ONNX Runtime 1.31 cannot open a file with such int8 constants when exact sums are requested.
    """
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear" and len(node.input) == 3]:
        codes, zero_point = _constant(graph, node.input[0]), _constant(graph, node.input[2])
        kinds = {consumer.op_type for consumer in _consumers(graph, node.output[0])}
        if codes is None or zero_point is None or codes.dtype != np.int8 or kinds & {*WITH_KERNEL}:
            continue
        for position, value in ((0, codes), (2, zero_point)):
            shifted = (value.astype(np.int16) + 128).astype(np.uint8)
            node.input[position] = _add_constant(graph, f"{node.output[0]}_uint8_{position}", shifted)


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


_KEEP_CHANNELS = ("QuantizeLinear", "DequantizeLinear", "Add", "AveragePool", "MaxPool", "Relu", "Clip")


def drop_reshapes(graph: onnx.GraphProto) -> None:
    """Drop Reshapes of one position, (N, C, 1, 1), to the same shape: left from pairs of transpositions."""
    producers = {output: node for node in graph.node for output in node.output}
    for reshape in [node for node in graph.node if node.op_type == "Reshape"]:
        shape, source = _constant(graph, reshape.input[1]), reshape.input[0]
        while source in producers and producers[source].op_type in _KEEP_CHANNELS:
            source = producers[source].input[0]
        consumers = _consumers(graph, reshape.output[0])
        if shape is None or not consumers or source not in producers or producers[source].op_type != "Conv":
            continue
        kernel = producers[source].input[1]
        while kernel in producers:
            kernel = producers[kernel].input[0]
        value = _constant(graph, kernel)
        if value is not None and shape.tolist()[1:] == [len(value), 1, 1]:
            for consumer in consumers:
                kept = [reshape.input[0] if name == reshape.output[0] else name for name in consumer.input]
                consumer.input[:] = kept
            graph.node.remove(reshape)


PASSES: tuple[Callable[[onnx.GraphProto], None], ...] = (
    absorb_clipping,
    activations_to_uint8,
    drop_requantisation,
    drop_reshapes,
    transpose_at_the_end,
)


def spell_gelu(graph: onnx.GraphProto) -> None:
    """Write the GELU of a TFLite file, which tf2onnx keeps as ``TFL_GELU``, in operators of ONNX.

    GELU (Hendrycks and Gimpel 2016) is x (1 + erf(x / sqrt(2))) / 2, approximately
    x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    for gelu in [node for node in graph.node if node.op_type == "TFL_GELU"]:
        x, y = gelu.input[0], gelu.output[0]
        values = {"root": 2**0.5, "one": 1.0, "half": 0.5, "cube": 0.044715, "slope": (2 / np.pi) ** 0.5}
        c = {name: _add_constant(graph, f"{y}_{name}", np.array(value, np.float32)) for name, value in values.items()}
        steps: list[tuple[str, list[str], str]] = [("Div", [x, c["root"]], "scaled"), ("Erf", [f"{y}_scaled"], "bent")]
        if any(entry.name == "approximate" and entry.i for entry in gelu.attribute):
            steps = [("Mul", [x, x], "square"), ("Mul", [f"{y}_square", x], "third")]
            steps += [("Mul", [f"{y}_third", c["cube"]], "small"), ("Add", [x, f"{y}_small"], "sum")]
            steps += [("Mul", [f"{y}_sum", c["slope"]], "scaled"), ("Tanh", [f"{y}_scaled"], "bent")]
        steps += [("Add", [f"{y}_bent", c["one"]], "gate"), ("Mul", [x, f"{y}_gate"], "double")]
        place = list(graph.node).index(gelu)
        graph.node.remove(gelu)
        nodes = [helper.make_node(kind, inputs, [f"{y}_{name}"]) for kind, inputs, name in steps]
        for node in [helper.make_node("Mul", [f"{y}_double", c["half"]], [y]), *reversed(nodes)]:
            graph.node.insert(place, node)


def free_batch(model: onnx.ModelProto) -> None:
    """Let each Reshape of a file for one patch keep the batch: its first side becomes what the others leave.

    Correct where the batch stays the slowest axis, which a comparison of batches with single patches shows.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output)}
    reached = {model.graph.input[0].name}
    for node in model.graph.node:
        if not reached.intersection(node.input):
            continue
        reached.update(node.output)
        if node.op_type == "Reshape" and _constant(model.graph, node.input[1]) is not None:
            sides = [side.dim_value for side in shapes.get(node.output[0], ())]
            if sides and all(sides):
                node.input[1] = _add_constant(
                    model.graph, f"{node.output[0]}_any_batch", np.array([-1, *sides[1:]], np.int64)
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


MOVES = ("Transpose", "Reshape", "Concat")  # of codes
IN_INTEGERS = ("Conv", "MaxPool", "AveragePool", "Add", "Mul", "Sigmoid", "HardSwish", "Relu", "Clip", *MOVES)
"""Operators that stand between DequantizeLinear and QuantizeLinear; a runtime may compute some of them in floats."""
AFTER_FLOATS = ("Relu", "Clip", "MaxPool", "Transpose", "Reshape")  # may follow a layer in float


def check_integer_only(
    graph: onnx.GraphProto, convolutions: Sequence[str] = (), in_float: Collection[str] = ()
) -> None:
    """Check that all operators have quantised inputs and outputs: runtimes then compute in integers.

    Args:
        graph: the graph.
        convolutions: names of the layers of its Conv operators, in their order.
        in_float: those that must have a float kernel; clipping and max-pools may follow them in float.

    Raises:
        ModelError: an operator without integer support, or with a float input or output; the message states it.
    """
    producers = {output: node for node in graph.node for output in node.output}
    found = [node for node in graph.node if node.op_type == "Conv"]
    kept: set[str] = set()  # outputs of layers in float
    for layer, node in zip(convolutions, found, strict=False):
        if (_constant(graph, node.input[1]) is not None) != (layer in in_float):
            expected = "a float kernel" if layer in in_float else "a kernel of int8 codes"
            raise ModelError(f"int8: operator Conv (layer {layer}) must have {expected}; report this as a bug")
        kept.update(node.output if layer in in_float else ())
    floats: set[str] = set()  # values that are computed in float
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        output, readers = node.output[0], _consumers(graph, node.output[0])
        label = node.name or output
        scales = node.op_type == "Mul" and all(reader.output[0] in kept for reader in readers)
        if output in kept or scales or (node.op_type in AFTER_FLOATS and node.input[0] in floats):
            floats.add(output)
            continue
        if node.op_type not in IN_INTEGERS:
            raise ModelError(
                f"int8: operator {node.op_type} (layer {label}) has no integer support; "
                "replace the layer, or export as fp32"
            )
        quantised = [producers[name].op_type == "DequantizeLinear" for name in node.input if name in producers]
        read = [consumer.op_type == "QuantizeLinear" for consumer in readers]
        if node.op_type not in MOVES and not (quantised and all(quantised) and read and all(read)):
            raise ModelError(
                f"int8: operator {node.op_type} (layer {label}) has a float input or output; "
                "its activation requires a range of its own from calibration"
            )


def shield_floats(graph: onnx.GraphProto) -> None:
    """Double the input of each Conv with a float kernel and halve the scale of the DequantizeLinear before it.

    Both are exact. ONNX Runtime (``WeightBiasQuantization``) would round a float kernel between a DequantizeLinear and
    a QuantizeLinear; it does not after a Mul.
    """
    producers = {output: node for node in graph.node for output in node.output}
    for convolution in [node for node in graph.node if node.op_type == "Conv"]:
        path = [convolution.input[0]]
        while path[-1] in producers and producers[path[-1]].op_type in ("Transpose", "Reshape"):
            path.append(producers[path[-1]].input[0])
        dequantise, before = producers.get(path[-1]), f"{convolution.output[0]}_halved"
        if dequantise is None or dequantise.op_type != "DequantizeLinear":
            continue
        if _constant(graph, convolution.input[1]) is None:
            continue
        scale = _add_constant(graph, f"{before}_scale", _constant(graph, dequantise.input[1]) / np.float32(2))
        inputs = [dequantise.input[0], scale, *dequantise.input[2:]]
        added = [helper.make_node("DequantizeLinear", inputs, [before])]
        for place, value in enumerate(reversed(path[:-1])):  # a copy: others may read the same value
            moved = onnx.NodeProto()
            moved.CopyFrom(producers[value])
            moved.input[0], moved.output[0] = before, (before := f"{before}_{place}")
            added.append(moved)
        two = _add_constant(graph, f"{before}_two", np.array(2, np.float32))
        added.append(helper.make_node("Mul", [before, two], [f"{before}_doubled"]))
        convolution.input[0] = added[-1].output[0]
        place = list(graph.node).index(convolution)
        for node in reversed(added):
            graph.node.insert(place, node)


def store_half_precision(graph: onnx.GraphProto) -> None:
    """Store float32 kernels and biases as float16 with a Cast, which runtimes compute once when they load the file."""
    for node in [node for node in graph.node if node.op_type in WITH_KERNEL]:
        for position in range(1, len(node.input)):
            value = _constant(graph, node.input[position])
            if value is None and node.op_type != "Conv":  # a product of two activations
                continue
            if value is None or value.dtype != np.float32:
                raise ModelError(f"float16: {node.name or node.op_type} has no float32 constant at input {position}")
            half = _add_constant(graph, f"{node.output[0]}_half{position}", value.astype(np.float16))
            cast = helper.make_node("Cast", [half], [f"{half}_cast"], to=TensorProto.FLOAT)
            graph.node.insert(list(graph.node).index(node), cast)
            node.input[position] = cast.output[0]


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
