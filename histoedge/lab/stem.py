"""The first convolution over blocks of pixels: the same sums in a layout that integer kernels are fast at.

Integer kernels take the channels of one tap at a time, padded to 4, 8 or 64 codes, so three colours waste most of
each step. Blocks of ``stride`` pixels have more channels and need fewer taps; the weights that a block has beyond
the kernel are 0, so every sum is the same integer. Float kernels gain nothing by it. The field's sides must be
multiples of the stride.
"""

import math

import numpy as np

from histoedge.lab.architecture import Network


def packs(network: Network) -> bool:
    """Whether the network's first convolution has a stride to make blocks of."""
    return network.rows[0].stride > 1


def pack(kernel: np.ndarray, stride: int, *, rows: bool) -> np.ndarray:
    """A kernel (height, width, in, out) for blocks of ``stride`` columns, and of ``stride`` rows if asked.

    Returns:
        (height, width / stride, stride x in, out), with ``rows`` (height / stride, width / stride, stride x stride x
        in, out); the channel counts rows of a block slowest, then columns, then colours, as SPACE_TO_DEPTH does.
    """
    height, width, inputs, outputs = kernel.shape
    down = stride if rows else 1
    blocks = math.ceil(height / down), math.ceil(width / stride)
    padded = np.zeros((blocks[0] * down, blocks[1] * stride, inputs, outputs), kernel.dtype)
    padded[:height, :width] = kernel
    parted = padded.reshape(blocks[0], down, blocks[1], stride, inputs, outputs).transpose(0, 2, 1, 3, 4, 5)
    return parted.reshape(*blocks, down * stride * inputs, outputs)


def unpack(packed: np.ndarray, shape: tuple[int, int, int, int], stride: int, *, rows: bool) -> np.ndarray:
    """The kernel of that shape (height, width, in, out) which ``pack`` packed."""
    height, width, inputs, outputs = shape
    down = stride if rows else 1
    blocks = packed.shape[:2]
    parted = packed.reshape(*blocks, down, stride, inputs, outputs).transpose(0, 2, 1, 3, 4, 5)
    return parted.reshape(blocks[0] * down, blocks[1] * stride, inputs, outputs)[:height, :width]
