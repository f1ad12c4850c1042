"""Occlusion maps (Zeiler and Fergus 2014): cover a square, see how far the logit falls. Needs no gradients."""

from collections.abc import Callable

import numpy as np

from histoedge.edge.patches import PATCH_PX

SQUARE_PX = 16  # two or three tumour nuclei wide at 0.97 um per px; four tile the 32 px label square, none straddles it
STRIDE_PX = 8  # half a square: a finer picture, at four times the cost of tiles


def drops(
    predict: Callable[[np.ndarray], np.ndarray], patches: np.ndarray, *, stride_px: int = SQUARE_PX
) -> np.ndarray:
    """How much each square holds the logit up: the logit of the patch less that with the square covered.

    The cover is the patch's own mean colour, rounded to 8 bits. Any fixed colour would be evidence itself: black looks
    like dense nuclei, white like background, and grey does not occur in stained tissue.

    Args:
        predict: logits float32 (N, 1, 1, 1) of uint8 (N, 96, 96, 3) pixels; called once for each patch.
        patches: uint8 (N, 96, 96, 3).
        stride_px: between squares, a divisor of 16; 16 gives tiles, each pixel in one of them.

    Returns:
        float32 (N, n, n) in logits, n = 80 // stride_px + 1. Square (i, j) has its corner at (i, j) x stride_px.
    """
    corners = range(0, PATCH_PX - SQUARE_PX + 1, stride_px)
    found = np.empty((len(patches), len(corners), len(corners)), np.float32)
    for patch, fallen in zip(patches, found, strict=True):
        variants = np.repeat(patch[None], 1 + fallen.size, axis=0)
        colour = np.rint(patch.mean(axis=(0, 1))).astype(np.uint8)
        places = [(top, left) for top in corners for left in corners]
        for variant, (top, left) in zip(variants[1:], places, strict=True):
            variant[top : top + SQUARE_PX, left : left + SQUARE_PX] = colour
        logits = predict(variants).reshape(-1)
        fallen[:] = (logits[0] - logits[1:]).reshape(fallen.shape)
    return found


def tiles(fine: np.ndarray) -> np.ndarray:
    """The drops (N, 6, 6) of the squares that tile a patch, out of those (N, 11, 11) at ``STRIDE_PX``."""
    step = SQUARE_PX // STRIDE_PX
    return fine[:, ::step, ::step]


def spread(fine: np.ndarray) -> np.ndarray:
    """The picture of drops (11, 11) at ``STRIDE_PX``: float64 (96, 96), at each pixel the mean of its squares."""
    total, count = np.zeros((2, PATCH_PX, PATCH_PX))
    for (row, column), drop in np.ndenumerate(fine):
        square = np.s_[row * STRIDE_PX :, column * STRIDE_PX :]
        total[square][:SQUARE_PX, :SQUARE_PX] += drop
        count[square][:SQUARE_PX, :SQUARE_PX] += 1
    return np.asarray(total / count)
