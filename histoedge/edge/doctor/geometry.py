"""What goes wrong with where pixels lie: a window shifted or cut too small, a patch enlarged or made smaller.

All take and give uint8 (N, S, S, 3), S even.
"""

import numpy as np

FILLS = {"black": 0, "white": 255}  # what a border is filled with; "edge" repeats the last pixels, "wrap" goes round


def shifted(patches: np.ndarray, down: int, right: int, fill: str) -> np.ndarray:
    """The content moved by that many pixels, the border that it leaves filled."""
    return _placed(patches, down, right, patches.shape[1], fill)


def cut(patches: np.ndarray, side: int, place: str, fill: str) -> np.ndarray:
    """The centre square of ``side`` px with nothing around it; ``place`` is ``centre`` or (moved there) ``corner``."""
    whole = patches.shape[1]
    start = (whole - side) // 2
    kept = patches[:, start : start + side, start : start + side]
    place_px = start if place == "centre" else 0
    return _placed(kept, place_px, place_px, whole, fill)


def resized(patches: np.ndarray, side: int, *, kernel: str, fill: str = "black") -> np.ndarray:
    """Resized to ``side`` px; of a larger result the centre is kept, around a smaller one the border is filled.

    ``kernel`` is ``linear``, ``cubic`` or ``area``, all three wide enough to average what they shrink, or
    ``nearest`` or ``plain linear``, which are not.
    """
    whole = patches.shape[1]
    weights = _weights(whole, side, kernel)
    start = (whole - side) // 2
    if side > whole:
        weights = weights[-start : whole - start]
    made = patches
    for _ in range(2):  # along the rows, then along the columns: Pillow's order
        made = _combined(weights, made.transpose(0, 2, 1, 3))
    return made if side > whole else _placed(made, start, start, whole, fill)


def _combined(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Weighted sums (out, in) over the second axis of uint8 (N, in, M, 3), rounded to uint8 (N, out, M, 3)."""
    sums = weights @ pixels.reshape(*pixels.shape[:2], -1).astype(np.float32)
    return np.asarray(np.clip(np.rint(sums), 0, 255), np.uint8).reshape(len(pixels), len(weights), -1, 3)


def _placed(pixels: np.ndarray, down: int, right: int, side: int, fill: str) -> np.ndarray:
    """A square of ``side`` px in which the pixels lie that far down and to the right; the rest is filled."""
    rows, columns = (np.arange(side) - start for start in (down, right))
    height, width = pixels.shape[1:3]
    if fill == "wrap":
        return pixels[:, rows % height][:, :, columns % width]
    found = pixels[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]
    if fill in FILLS:
        found[:, (rows < 0) | (rows >= height)] = FILLS[fill]
        found[:, :, (columns < 0) | (columns >= width)] = FILLS[fill]
    return found


def _weights(before: int, after: int, kernel: str) -> np.ndarray:
    """How much each pixel of a row adds to each pixel of the resized row, float32 (after, before)."""
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale
    if kernel == "nearest":
        return np.asarray(np.floor(centres) == np.arange(before), np.float32)
    widened = 1.0 if kernel == "plain linear" else max(scale, 1.0)
    if kernel == "plain linear":  # beyond the border its pixel counts for what is missing
        centres = np.clip(centres, 0.5, before - 0.5)
    away = (np.arange(before) + 0.5 - centres) / widened
    weights = _KERNELS[kernel](away)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _linear(away: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - np.abs(away), 0.0))


def _area(away: np.ndarray) -> np.ndarray:
    return np.asarray((away > -0.5) & (away <= 0.5), np.float64)


def _cubic(away: np.ndarray) -> np.ndarray:
    """Keys's (1981) with a = -0.5, as Pillow's."""
    away = np.abs(away)
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return np.where(away < 1, near, np.where(away < 2, far, 0.0))


_KERNELS = {"linear": _linear, "plain linear": _linear, "area": _area, "cubic": _cubic}
