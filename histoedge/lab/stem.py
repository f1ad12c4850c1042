"""Packing of the first convolution over blocks of pixels: the same integer sums in a faster layout.

Integer kernels process the channels of one tap at a time, padded to 4, 8 or 64 codes; three colours waste most of
this. A block of ``stride`` pixels has more channels and needs fewer taps. Weights of a block outside the kernel are
0, which keeps every sum the same integer. Float kernels gain no speed. The sides of the field must be multiples of
the stride.
"""

import math

import numpy as np

from histoedge.lab.architecture import Network


def packs(network: Network) -> bool:
    """Return whether the network's first convolution can be packed: it has a stride above 1 and pads nothing."""
    name, row = network.layers[0]
    return name == "stem" and row.stride > 1 and row.padding == "valid" and row.dilation == 1


def pack(kernel: np.ndarray, stride: int, *, rows: bool) -> np.ndarray:
    """Return the packed kernel for blocks of ``stride`` columns or, with ``rows``, of ``stride`` rows and columns.

    Args:
        kernel: (height, width, in, out).
        stride: stride of the convolution.
        rows: pack rows as well as columns.

    Returns:
        (height, width / stride, stride x in, out); with ``rows`` (height / stride, width / stride, stride x stride x
        in, out). Sides are rounded up. Channel order as in SPACE_TO_DEPTH: row of the block, column, colour.
    """
    height, width, inputs, outputs = kernel.shape
    down = stride if rows else 1
    blocks = math.ceil(height / down), math.ceil(width / stride)
    padded = np.zeros((blocks[0] * down, blocks[1] * stride, inputs, outputs), kernel.dtype)
    padded[:height, :width] = kernel
    split = padded.reshape(blocks[0], down, blocks[1], stride, inputs, outputs).transpose(0, 2, 1, 3, 4, 5)
    return split.reshape(*blocks, down * stride * inputs, outputs)


def unpack(packed: np.ndarray, shape: tuple[int, int, int, int], stride: int, *, rows: bool) -> np.ndarray:
    """Return the kernel of this shape (height, width, in, out) from its packed form: inverse of ``pack``."""
    height, width, inputs, outputs = shape
    down = stride if rows else 1
    blocks = packed.shape[:2]
    split = packed.reshape(*blocks, down, stride, inputs, outputs).transpose(0, 2, 1, 3, 4, 5)
    return split.reshape(blocks[0] * down, blocks[1] * stride, inputs, outputs)[:height, :width]
