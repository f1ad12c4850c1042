"""Emulation of int8 ONNX files on x86 CPUs without VNNI, whose kernels add two products in saturating int16.

On these CPUs, ONNX Runtime multiplies uint8 by int8 with ``vpmaddubsw``: it adds the products of two neighbours, in the
order kernel row, kernel column, channel, in 16 bits, and clips the sum to -32768..32767 (MLAS's
``QgemmU8X8KernelAvx2.asm`` and ``ConvSymKernelAvx2.asm``). All other operations are exact, and numpy can emulate them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
        attributes = {entry.name: list(entry.ints) for entry in node.attribute}
        if node.op_type == "Reshape":
            output: Any = _reshape(inputs[0], inputs[1])
        elif node.op_type == "Transpose":
            output = inputs[0].transpose(attributes["perm"])
        elif node.op_type == "DequantizeLinear":
            output = _Codes(inputs[0], inputs[1], int(np.max(inputs[2])))  # all zero points of a kernel are 0
        elif node.op_type == "Conv":
            output = _convolve(*inputs, strides=attributes["strides"], saturating=saturating)
        elif node.op_type == "QuantizeLinear":
            output = _requantise(*inputs)
        elif node.op_type == "MaxPool":
            output = _max_pool(inputs[0], attributes)
        else:
            raise ModelError(
                f"int8: operator {node.op_type} of {node.name} is not emulated; expected a file that histoedge exported"
            )
        values[node.output[0]] = output
    last = values[graph.output[0].name]
    return np.asarray((last.codes.astype(np.int32) - last.zero) * last.scale, np.float32).reshape(-1)


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
    pixels: _Codes, kernel: _Codes, bias: _Codes | None = None, *, strides: list[int], saturating: bool
) -> _Codes:
    """Return the sums int32 (N, C, h, w) of a valid convolution with bias, and the scale per channel."""
    channels, _, height, width = kernel.codes.shape
    windows = np.lib.stride_tricks.sliding_window_view(pixels.codes, (height, width), axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]  # (N, in, h, w, height, width)
    count, _, rows, columns = windows.shape[:4]
    flat = windows.transpose(0, 2, 3, 4, 5, 1).reshape(count * rows * columns, -1)
    weights = kernel.codes.transpose(2, 3, 1, 0).reshape(-1, channels)
    total = pairwise_sums(flat, weights, saturating=saturating) - pixels.zero * weights.sum(axis=0, dtype=np.int32)
    if bias is not None:
        total += bias.codes
    return _Codes(total.reshape(count, rows, columns, channels).transpose(0, 3, 1, 2), pixels.scale * kernel.scale)


def _requantise(total: _Codes, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return the codes of sums: scaled in float32, rounded to even, clipped to the range of the type."""
    multiplier = np.reshape(total.scale / scale, (-1, 1, 1)).astype(np.float32)
    limits = np.iinfo(zero.dtype)
    codes = np.rint((total.codes.astype(np.float32) - total.zero) * multiplier) + int(zero)
    return np.asarray(np.clip(codes, limits.min, limits.max), zero.dtype)


def _max_pool(pixels: _Codes, attributes: Mapping[str, list[int]]) -> _Codes:
    windows = np.lib.stride_tricks.sliding_window_view(pixels.codes, attributes["kernel_shape"], axis=(2, 3))
    down, right = attributes["strides"]
    return _Codes(windows[:, :, ::down, ::right].max(axis=(4, 5)), pixels.scale, pixels.zero)


def _reshape(tensor: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Reshape as in ONNX: 0 keeps the side of the input."""
    return tensor.reshape([side or tensor.shape[place] for place, side in enumerate(shape.tolist())])
