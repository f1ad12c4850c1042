"""Occlusion maps (Zeiler and Fergus 2014): the drop of the logit when a square is covered. Needs no gradients."""

from collections.abc import Callable

import numpy as np

from histoedge.edge.patches import PATCH_PX

SQUARE_PX = 16  # two or three tumour nuclei at 0.97 um per px; four squares tile the 32 px label square
STRIDE_PX = 8  # half a square: a finer map at four times the cost of tiles


def drops(
    predict: Callable[[np.ndarray], np.ndarray], patches: np.ndarray, *, stride_px: int = SQUARE_PX
) -> np.ndarray:
    """Return the logit drop of each square: the logit of the patch minus the logit with the square covered.

    The cover is the mean colour of the patch, rounded to 8 bits. A fixed colour would be evidence: black resembles
    dense nuclei, white resembles background, and grey does not occur in stained tissue.

    Args:
        predict: returns logits float32 (N, 1, 1, 1) of uint8 (N, 96, 96, 3) pixels; called once per patch.
        patches: uint8 (N, 96, 96, 3).
        stride_px: distance between squares, a divisor of 16; with 16 the squares tile the patch.

    Returns:
        float32 (N, n, n) in logits, n = 80 // stride_px + 1. Square (i, j) has its corner at (i, j) x stride_px.
    """
    corners = range(0, PATCH_PX - SQUARE_PX + 1, stride_px)
    drops_of_patches = np.empty((len(patches), len(corners), len(corners)), np.float32)
    for patch, patch_drops in zip(patches, drops_of_patches, strict=True):
        variants = np.repeat(patch[None], 1 + patch_drops.size, axis=0)
        colour = np.rint(patch.mean(axis=(0, 1))).astype(np.uint8)
        places = [(top, left) for top in corners for left in corners]
        for variant, (top, left) in zip(variants[1:], places, strict=True):
            variant[top : top + SQUARE_PX, left : left + SQUARE_PX] = colour
        logits = predict(variants).reshape(-1)
        patch_drops[:] = (logits[0] - logits[1:]).reshape(patch_drops.shape)
    return drops_of_patches


def tiles(fine: np.ndarray) -> np.ndarray:
    """Select the drops of the squares that tile a patch, (N, 6, 6), from those at ``STRIDE_PX``, (N, 11, 11)."""
    step = SQUARE_PX // STRIDE_PX
    return fine[:, ::step, ::step]


def spread(fine: np.ndarray) -> np.ndarray:
    """Spread drops (11, 11) at ``STRIDE_PX`` to pixels, float64 (96, 96): the mean over the squares of each pixel."""
    total, count = np.zeros((2, PATCH_PX, PATCH_PX))
    for (row, column), drop in np.ndenumerate(fine):
        square = np.s_[row * STRIDE_PX :, column * STRIDE_PX :]
        total[square][:SQUARE_PX, :SQUARE_PX] += drop
        count[square][:SQUARE_PX, :SQUARE_PX] += 1
    return np.asarray(total / count)
