"""Emulation of int8 ONNX files on x86 CPUs without VNNI, whose kernels add two products in saturating int16.

On these CPUs, ONNX Runtime multiplies uint8 by int8 with ``vpmaddubsw``: it adds the products of two neighbours, in the
order kernel row, kernel column, channel, in 16 bits, and clips the sum to -32768..32767 (MLAS's
``QgemmU8X8KernelAvx2.asm`` and ``ConvSymKernelAvx2.asm``). All other operations are exact, and numpy can emulate them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError

INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class _Codes:
    """Codes of the values ``(codes - zero) * scale``; ``scale`` has one value, or one per output channel."""

    codes: np.ndarray
    scale: np.ndarray
    zero: int = 0


def simulated_logits(content: bytes, patches: np.ndarray, *, saturating: bool = True) -> np.ndarray:
    """Return the logits float32 (N,) of a file on a CPU without VNNI.

    Args:
        content: an int8 ``.onnx`` file that ``export`` wrote.
        patches: raw pixels, uint8 (N, 96, 96, 3).
        saturating: clip sums of two products; False emulates all other CPUs.

    Raises:
        ModelError: an operator that exported int8 files do not contain.
    """
    import onnx

    graph = onnx.load_from_string(content).graph
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    values: dict[str, Any] = {graph.input[0].name: patches, **constants}
    for node in graph.node:
        inputs = [values[name] for name in node.input]
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type == "Reshape":
            output: Any = _reshape(inputs[0], inputs[1])
        elif node.op_type == "Transpose":
            output = _transpose(inputs[0], attributes["perm"])
        elif node.op_type == "DequantizeLinear":
            output = _Codes(inputs[0], inputs[1], int(np.max(inputs[2])))  # all zero points of a kernel are 0
        elif node.op_type == "Conv":
            output = _convolve(*inputs, attributes=attributes, saturating=saturating)
        elif node.op_type == "QuantizeLinear":
            output = _requantise(*inputs)
        elif node.op_type == "Concat":  # of codes
            output = np.concatenate(inputs, axis=attributes["axis"])
        elif node.op_type == "MaxPool":
            output = _max_pool(inputs[0], attributes)
        elif node.op_type == "AveragePool":
            height, width = attributes["kernel_shape"]
            down, right = attributes["strides"]
            windows = np.lib.stride_tricks.sliding_window_view(_floats(inputs[0]), (height, width), axis=(2, 3))
            output = windows[:, :, ::down, ::right].mean(axis=(4, 5), dtype=np.float32)
        elif node.op_type in _IN_FLOATS:
            output = _IN_FLOATS[node.op_type]([_floats(value) for value in inputs], attributes)
        else:
            raise ModelError(
                f"int8: operator {node.op_type} of {node.name} is not emulated; expected a file that histoedge exported"
            )
        values[node.output[0]] = output
    return _floats(values[graph.output[0].name]).reshape(-1)


def _floats(value: Any) -> np.ndarray:
    if isinstance(value, _Codes):
        value = (value.codes.astype(np.int32) - value.zero) * value.scale
    return np.asarray(value, np.float32)


# Runtimes compute these operators in floats between two codes, or with a table of the same values.
_IN_FLOATS: dict[str, Callable[[list[np.ndarray], Mapping[str, Any]], np.ndarray]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Relu": lambda inputs, _: np.maximum(inputs[0], 0),
    "Clip": lambda inputs, _: np.clip(*inputs),
    "Sigmoid": lambda inputs, _: 1 / (1 + np.exp(-inputs[0])),
    "HardSwish": lambda inputs, _: inputs[0] * np.clip(inputs[0] + 3, 0, 6) / 6,
}


def pairwise_sums(rows: np.ndarray, columns: np.ndarray, *, saturating: bool) -> np.ndarray:
    """Return the product int32 (P, C) of uint8 (P, K) and int8 (K, C), with pairs of products added in int16."""
    if not saturating:
        return np.asarray(np.rint(rows.astype(np.float64) @ columns.astype(np.float64)), np.int32)
    total = np.zeros((len(rows), columns.shape[1]), np.int32)
    wide, weights = rows.astype(np.int32), columns.astype(np.int32)
    for first in range(0, len(weights), 2):
        pair = wide[:, first : first + 2] @ weights[first : first + 2]
        total += np.clip(pair, INT16.min, INT16.max, out=pair)
    return total


def _convolve(
    pixels: _Codes | np.ndarray,
    kernel: _Codes | np.ndarray,
    bias: _Codes | np.ndarray | None = None,
    *,
    attributes: Mapping[str, Any],
    saturating: bool,
) -> _Codes | np.ndarray:
    """Return the sums int32 (N, C, h, w) of a convolution with bias, and the scale per channel; float32 for a float."""
    if not (isinstance(pixels, _Codes) and isinstance(kernel, _Codes)):  # a layer in float
        sums = _slide(_floats(pixels), _floats(kernel), attributes, np.matmul)
        return sums if bias is None else np.asarray(sums + _floats(bias).reshape(-1, 1, 1), np.float32)
    zero, exact = pixels.zero, not saturating or attributes.get("group", 1) > 1  # depthwise kernels add in 32 bits

    def product(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        sums = pairwise_sums(rows, columns, saturating=not exact)
        sums -= zero * columns.sum(axis=0, dtype=np.int32)
        return sums

    total = _slide(pixels.codes, kernel.codes, attributes, product, border=zero)
    if isinstance(bias, _Codes):
        total += bias.codes.reshape(-1, 1, 1)
    return _Codes(total, pixels.scale * kernel.scale)


def _slide(
    pixels: np.ndarray,
    kernel: np.ndarray,
    attributes: Mapping[str, Any],
    product: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    border: int = 0,
) -> np.ndarray:
    """Return (N, C, h, w) of a convolution, where ``product`` multiplies (P, K) windows by a (K, C) kernel."""
    channels, inputs, height, width = kernel.shape
    group, (down, right) = attributes.get("group", 1), attributes["strides"]
    step_down, step_right = attributes.get("dilations", (1, 1))
    padded = _pad(pixels, attributes.get("pads"), border)
    reach = (height - 1) * step_down + 1, (width - 1) * step_right + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, ::down, ::right, ::step_down, ::step_right]  # (N, in, h, w, height, width)
    count, _, rows, columns = windows.shape[:4]
    totals = []
    for part in range(group):
        own = windows[:, part * inputs : (part + 1) * inputs]
        flat = own.transpose(0, 2, 3, 4, 5, 1).reshape(count * rows * columns, -1)
        own_kernel = kernel[part * channels // group : (part + 1) * channels // group]
        totals.append(product(flat, own_kernel.transpose(2, 3, 1, 0).reshape(flat.shape[1], -1)))
    total = np.concatenate(totals, axis=1)
    return total.reshape(count, rows, columns, channels).transpose(0, 3, 1, 2)


def _pad(codes: np.ndarray, pads: Sequence[int] | None, value: float) -> np.ndarray:
    """Pad (N, C, H, W) with a value; ``pads`` as in ONNX: top, left, bottom, right."""
    if not pads or not any(pads):
        return codes
    top, left, bottom, right = pads
    return np.pad(codes, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _requantise(total: _Codes | np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return the codes of sums or floats: scaled in float32, rounded to even, clipped to the range of the type."""
    if not isinstance(total, _Codes):
        total = _Codes(total, np.ones(1, np.float32))
    multiplier = np.reshape(total.scale / scale, (-1, 1, 1)).astype(np.float32)
    limits = np.iinfo(zero.dtype)
    codes = np.rint((total.codes.astype(np.float32) - total.zero) * multiplier) + int(zero)
    return np.asarray(np.clip(codes, limits.min, limits.max), zero.dtype)


def _max_pool(pixels: _Codes | np.ndarray, attributes: Mapping[str, Any]) -> _Codes | np.ndarray:
    values = pixels.codes if isinstance(pixels, _Codes) else pixels
    least = np.iinfo(values.dtype).min if isinstance(pixels, _Codes) else -np.inf
    padded = _pad(values, attributes.get("pads"), least)
    windows = np.lib.stride_tricks.sliding_window_view(padded, attributes["kernel_shape"], axis=(2, 3))
    down, right = attributes["strides"]
    largest: np.ndarray = windows[:, :, ::down, ::right].max(axis=(4, 5))
    return replace(pixels, codes=largest) if isinstance(pixels, _Codes) else largest


def _transpose(tensor: Any, order: Sequence[int]) -> Any:
    if isinstance(tensor, _Codes):
        return replace(tensor, codes=tensor.codes.transpose(order))
    return tensor.transpose(order)


def _reshape(tensor: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Reshape as in ONNX: 0 keeps the side of the input."""
    return tensor.reshape([side or tensor.shape[place] for place, side in enumerate(shape.tolist())])
