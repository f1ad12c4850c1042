"""Occlusion maps (Zeiler and Fergus 2014): the drop of the logit when a square is covered. Needs no gradients."""

from collections.abc import Callable

import numpy as np

PER_SIDE = 6  # squares of 16 px in a patch of 96 px: two or three tumour nuclei at 0.97 um/px
FEWEST, MOST = 4, 16  # squares along a side


def squares_per_side(patch_px: int, label_px: int) -> int:
    """Return how many squares tile a side: close to ``PER_SIDE``, and none crosses the edge of the labelled square.

    If no number allows that, ``PER_SIDE``: some squares then belong to the centre in part.
    """
    fitting = [
        count
        for count in range(FEWEST, MOST + 1)
        if (patch_px - label_px) * count % (2 * patch_px) == 0 and label_px * count % patch_px == 0
    ]
    return min(fitting, key=lambda count: (abs(count - PER_SIDE), -count), default=PER_SIDE)


def drops(predict: Callable[[np.ndarray], np.ndarray], patches: np.ndarray, *, per_side: int, fine: bool) -> np.ndarray:
    """Return the logit drop of each square: the logit of the patch minus the logit with the square covered.

    The cover is the mean colour of the patch, rounded to 8 bits. A fixed colour would be evidence: black resembles
    dense nuclei, white resembles background, and grey does not occur in stained tissue.

    Args:
        predict: returns logits float32 (N, 1, 1, 1) of uint8 (N, S, S, 3) pixels; called once per patch.
        patches: uint8 (N, S, S, 3).
        per_side: squares that tile a side.
        fine: also cover the squares halfway between: a finer map at four times the cost of tiles.

    Returns:
        float32 (N, n, n) in logits, n = ``per_side``, or 2 x ``per_side`` - 1 of a fine map.
    """
    spans = _spans(patches.shape[1], per_side, fine=fine)
    drops_of_patches = np.empty((len(patches), len(spans), len(spans)), np.float32)
    for patch, patch_drops in zip(patches, drops_of_patches, strict=True):
        variants = np.repeat(patch[None], 1 + patch_drops.size, axis=0)
        colour = np.rint(patch.mean(axis=(0, 1))).astype(np.uint8)
        places = [(rows, columns) for rows in spans for columns in spans]
        for variant, place in zip(variants[1:], places, strict=True):
            variant[place] = colour
        logits = predict(variants).reshape(-1)
        patch_drops[:] = (logits[0] - logits[1:]).reshape(patch_drops.shape)
    return drops_of_patches


def tiles(fine: np.ndarray) -> np.ndarray:
    """Select the drops of the squares that tile a patch, (N, n, n), from those of a fine map, (N, 2n - 1, 2n - 1)."""
    return fine[:, ::2, ::2]


def spread(fine: np.ndarray, patch_px: int) -> np.ndarray:
    """Spread the drops of a fine map, (2n - 1, 2n - 1), to pixels, float64 (S, S): the mean of each pixel's squares."""
    spans = _spans(patch_px, (len(fine) + 1) // 2, fine=True)
    total, count = np.zeros((2, patch_px, patch_px))
    for (row, column), drop in np.ndenumerate(fine):
        total[spans[row], spans[column]] += drop
        count[spans[row], spans[column]] += 1
    return np.asarray(total / count)


def _spans(patch_px: int, per_side: int, *, fine: bool) -> list[slice]:
    """Return the pixels of the squares along a side, whole pixels where ``per_side`` does not divide the patch."""
    edges = [round(half * patch_px / (2 * per_side)) for half in range(2 * per_side + 1)]
    return [slice(edges[at], edges[at + 2]) for at in range(0, 2 * per_side - 1, 1 if fine else 2)]
