"""Quantisation-aware networks with the optimisation toolkit, with ranges from data.

The toolkit initialises all ranges to -6 .. 6 and updates activation ranges with a moving average of decay 0.999: after
some hundred steps half of the codes are still unused. Here all ranges are set before fine-tuning and stay fixed:
kernel ranges from the weights, activation ranges from a calibration pass, the minimum of a ReLU exactly 0, the input
exactly 0 .. 1 (its scale is then 1/255, and raw pixels are the quantised input).

On x86 CPUs without VNNI, kernels for uint8 x int8 add two products in 16 bits and can saturate. With kernel codes in
-63 .. 63 they cannot: 2 x 255 x 63 fits into 16 bits. These codes are a 7-bit grid; the alternative is -127 .. 127.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from histoedge.lab import activation_ranges, backend, graph, stem, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Node
from histoedge.lab.weights import Arrays

SMALLEST_RANGE = 1e-4  # share of the layer's largest range: a channel of zeros needs a scale, its bias must fit 32 bits
LARGEST_CODES = (63, 127)  # largest kernel code that cannot saturate, and that of the finer grid
KERNEL_CODES = "kernels/range"  # key in a checkpoint's arrays: smallest and largest kernel code

Mark = Callable[[Any], Any]


def wrap(folded: Any, network: Network, *, largest_code: int) -> Any:
    """Return a quantisation-aware copy of a folded ``tf_keras`` model with the same weights; ranges are not set yet."""
    quantization = backend.toolkit().quantization.keras
    with quantization.quantize_scope():
        model = quantization.quantize_apply(quantization.quantize_annotate_model(folded))
    for name in network.convolutions:
        # training derives the kernel ranges from the weights in each step; 7 bits (narrow) give the codes -63 .. 63
        model.get_layer(f"quant_{name}").quantize_config.weight_quantizer.num_bits = largest_code.bit_length() + 1
    return model


def kernel_range(kernel: np.ndarray, *, largest_code: int) -> np.ndarray:
    """Return upper bounds (channels,) of symmetric 8-bit ranges; a channel's largest weight has ``largest_code``."""
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    bounds: np.ndarray = np.maximum(largest, SMALLEST_RANGE * (largest.max() or 1.0)) * np.float32(127 / largest_code)
    return bounds


def set_ranges(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the activation ranges of a quantisation-aware model, and the kernel ranges from its current weights."""
    restore_activation_ranges(model, network, arrays)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        bound = kernel_range(variables["kernel"].numpy(), largest_code=int(arrays[KERNEL_CODES][1]))
        variables["kernel_min"].assign(-bound)
        variables["kernel_max"].assign(bound)


def restore_activation_ranges(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> None:
    """Set the activation ranges again: each training step changes them slightly."""
    layers = {name: (model.get_layer(f"quant_{name}"), "post_activation") for name in network.convolutions}
    layers["input"] = (model.layers[1], "quantize_layer")  # the toolkit numbers the name of this layer
    for name, (layer, prefix) in layers.items():
        variables = _variables(layer)
        low, high = ranges[f"{name}/range"]
        variables[f"{prefix}_min"].assign(low)
        variables[f"{prefix}_max"].assign(high)


def project_kernels(model: Any, projections: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Apply ``constraints.projections`` to the kernels."""
    for name, project in projections.items():
        kernel = _variables(model.get_layer(f"quant_{name}"))["kernel"]
        kernel.assign(project(kernel.numpy()))


def quantised_weights(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return kernels and biases of a quantisation-aware model, and the ranges in ``arrays``, for a checkpoint."""
    saved: Arrays = {name: value for name, value in arrays.items() if name.endswith("/range")}
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        saved[f"{name}/kernel"] = variables["kernel"].numpy()
        saved[f"{name}/bias"] = variables["bias"].numpy()
    return saved


def rounded(kernel: Any, *, largest_code: int, bounds: Any = None) -> Any:
    """Return the kernel rounded to its codes, a float32 tensor; ``bounds`` are those of ``kernel_range`` if known."""
    if bounds is None:
        bounds = kernel_range(kernel, largest_code=largest_code)
    per_channel = backend.tensorflow().quantization.fake_quant_with_min_max_vars_per_channel
    return per_channel(kernel, -bounds, bounds, narrow_range=True)


def keep_in_float(network: Network, ranges: Mapping[str, np.ndarray], layers: Iterable[str]) -> Arrays:
    """Return ``layer/float/range`` for these layers and for the max-pools that pass their outputs on.

    A layer with this key computes in float32, with its kernel as it is. Its output stays float until a layer without
    the key reads it, which first rounds it to the codes of this range.

    Args:
        network: the architecture.
        ranges: ``layer/range`` from ``calibrate``.
        layers: names of layers with kernels.
    """
    kept = set(layers)
    marks: Arrays = {}
    for node in network.nodes:
        if node.name in kept:
            marks[float_key(node.name)] = ranges[f"{node.name}/range"]
        elif node.row.kind == "maxpool" and float_key(node.inputs[0]) in marks:
            marks[float_key(node.name)] = marks[float_key(node.inputs[0])]
    return marks


def float_key(layer: str) -> str:
    """Return the key in a checkpoint's arrays that a layer in float has, see ``keep_in_float``."""
    return f"{layer}/float/range"


def float_layers(network: Network, arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the layers with kernels that compute in float, in order."""
    return tuple(name for name in network.convolutions if float_key(name) in arrays)


def simulate(
    network: Network, arrays: Mapping[str, Any], pixels: Any, *, packed: bool = False, mark: Mark | None = None
) -> Any:
    """Return the logits of the integer network, simulated in floats with rounding.

    Args:
        network: the architecture.
        arrays: from ``quantised_weights``: ``layer/kernel``, ``layer/bias``, ``layer/range`` and ``KERNEL_CODES``, and
            ``keep_in_float`` for layers in float. In training, kernels and biases are variables, and ``layer/bounds``
            are their current ``kernel_range``.
        pixels: tensor float32 (N, H, W, 3) in 0..1.
        packed: compute the first convolution over blocks of pixels (see ``stem``).
        mark: applied to each tensor that passes from integer layers to one in float or back.

    Returns:
        Logits, a float32 tensor (N, h, w, 1).
    """
    if float_key(network.nodes[0].name) not in arrays:
        pixels = _to_codes(pixels, arrays["input/range"])
    tensors = {graph.PIXELS: pixels}
    for node in network.nodes:
        tensors[node.name] = simulate_node(node, arrays, tensors, packed=packed, mark=mark)
    return tensors[network.nodes[-1].name]


def simulate_node(
    node: Node,
    arrays: Mapping[str, Any],
    tensors: Mapping[str, Any],
    *,
    packed: bool = False,
    mark: Mark | None = None,
) -> Any:
    """Return the output of one layer of the integer network; ``tensors`` are the outputs that it reads, by name."""
    tf = backend.tensorflow()
    largest_code = int(arrays[KERNEL_CODES][1])
    name, row = node.name, node.row
    in_float = float_key(name) in arrays
    read = []
    for entry in node.inputs:
        tensor, bounds = tensors[entry], arrays.get(float_key(entry))
        if mark is not None and in_float != (bounds is not None):
            tensor = mark(tensor)
        read.append(tensor if in_float or bounds is None else _to_codes(tensor, bounds))
    if in_float:
        return compute_in_float(node, arrays, read)
    if row.kind in graph.KERNELS:
        kernel, bounds = arrays[f"{name}/kernel"], arrays.get(f"{name}/bounds")
        if packed and name == "stem":
            packed_kernel = rounded(stem.pack(kernel, row.stride, rows=True), largest_code=largest_code)
            sums = tf.nn.conv2d(tf.nn.space_to_depth(read[0], row.stride), packed_kernel, 1, "VALID")
        else:
            sums = convolve(tf, node, read[0], rounded(kernel, largest_code=largest_code, bounds=bounds))
        tensor = sums + arrays[f"{name}/bias"]
    else:
        tensor = combine(tf, node, read)
    if row.kind == "maxpool":  # passes the codes of its input on
        return tensor
    if row.activated_by == "swish":
        tensor = tensor * _to_codes(tf.nn.sigmoid(tensor), activation_ranges.SIGMOID_RANGE)
    else:
        tensor = weights.activate(tf.nn, row, tensor)
    return _to_codes(tensor, arrays[f"{name}/range"])


def compute_in_float(node: Node, arrays: Mapping[str, Any], read: Sequence[Any]) -> Any:
    """Return the output of one layer without any rounding; ``read`` are the outputs that it reads."""
    tf = backend.tensorflow()
    if node.row.kind in graph.KERNELS:
        tensor = convolve(tf, node, read[0], arrays[f"{node.name}/kernel"]) + arrays[f"{node.name}/bias"]
    else:
        tensor = combine(tf, node, read)
    return weights.activate(tf.nn, node.row, tensor)


def _to_codes(tensor: Any, bounds: Iterable[float]) -> Any:
    """Return the tensor rounded to the 256 codes of a range."""
    return backend.tensorflow().quantization.fake_quant_with_min_max_vars(tensor, *(float(bound) for bound in bounds))


def convolve(tf: Any, node: Node, tensor: Any, kernel: Any) -> Any:
    """Return the convolution of a conv, depthwise or head row without bias; kernel (height, width, in, out)."""
    row, padding = node.row, node.row.padding.upper()
    if row.kind != "depthwise":
        return tf.nn.conv2d(tensor, kernel, row.stride, padding, dilations=row.dilation)
    shaped = tf.reshape(kernel, (row.kernel, row.kernel, node.channels, 1))
    return tf.nn.depthwise_conv2d(tensor, shaped, (1, row.stride, row.stride, 1), padding)


def combine(tf: Any, node: Node, read: Sequence[Any]) -> Any:
    """Return the output of a row without weights, before its activation."""
    row = node.row
    if row.kind == "add":
        return tf.add_n(list(read)) if len(read) > 2 else read[0] + read[1]
    if row.kind == "concat":
        return tf.concat(list(read), axis=-1)
    if row.kind == "maxpool":
        return tf.nn.max_pool2d(read[0], row.kernel, row.stride, row.padding.upper())
    return tf.nn.avg_pool2d(read[0], row.kernel, row.stride, "VALID") if row.kind == "avgpool" else read[0]


def _variables(layer: Any) -> dict[str, Any]:
    variables = {os.path.basename(variable.name).split(":")[0]: variable for variable in layer.weights}
    return {re.sub(r"^quantize_layer_\d+", "quantize_layer", name): variable for name, variable in variables.items()}
