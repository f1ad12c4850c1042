"""What goes wrong with where pixels lie: a window shifted or cut too small, a patch enlarged or made smaller.

All take and give uint8 (N, S, S, 3), S even.
"""

import numpy as np

FILLS = {"black": 0, "white": 255}  # what a border is filled with; "edge" repeats the last pixels, "wrap" goes round


def shifted(patches: np.ndarray, down: int, right: int, fill: str) -> np.ndarray:
    """The content moved by that many pixels, the border that it leaves filled."""
    reach = max(abs(down), abs(right))
    padded = _padded(patches, reach, fill)
    side = patches.shape[1]
    return padded[:, reach - down : reach - down + side, reach - right : reach - right + side]


def cut(patches: np.ndarray, side: int, place: str, fill: str) -> np.ndarray:
    """The centre square of ``side`` px with nothing around it, ``place`` is ``centre`` or (moved there) ``corner``."""
    margin = (patches.shape[1] - side) // 2
    kept = patches[:, margin : margin + side, margin : margin + side]
    start = margin if place == "centre" else 0
    whole = np.full_like(patches, FILLS[fill])
    whole[:, start : start + side, start : start + side] = kept
    return whole


def resized(patches: np.ndarray, side: int, *, kernel: str, fill: str = "black") -> np.ndarray:
    """Resized to ``side`` px; of a larger result the centre is kept, around a smaller one the border is filled.

    ``kernel`` is ``linear``, ``cubic`` or ``area``, all three wide enough to average what they shrink, or
    ``nearest`` or ``plain linear``, which are not.
    """
    whole = patches.shape[1]
    weights = _weights(whole, side, kernel)
    if side > whole:
        start = (side - whole) // 2
        weights = weights[start : start + whole]
    rows = np.einsum("ij,njkc->nikc", weights, patches.astype(np.float32), optimize=True)
    both = _whole(np.matmul(weights, _whole(rows).astype(np.float32)))
    if side >= whole:
        return both
    before = (whole - side) // 2
    padded = _padded(both, whole, fill)
    return padded[:, whole - before : 2 * whole - before, whole - before : 2 * whole - before]


def _whole(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _padded(patches: np.ndarray, reach: int, fill: str) -> np.ndarray:
    widths = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    if fill in FILLS:
        return np.pad(patches, widths, constant_values=FILLS[fill])
    return np.pad(patches, widths, mode="edge" if fill == "edge" else "wrap")


def _weights(before: int, after: int, kernel: str) -> np.ndarray:
    """How much each pixel of a row adds to each pixel of the resized row, float32 (after, before)."""
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale
    if kernel == "nearest":
        return np.asarray(np.floor(centres) == np.arange(before), np.float32)
    widened = 1.0 if kernel == "plain linear" else max(scale, 1.0)
    away = np.abs(np.arange(before) + 0.5 - centres) / widened
    if kernel == "plain linear":  # beyond the border its pixel counts for what is missing
        away = np.abs(np.arange(before) + 0.5 - np.clip(centres, 0.5, before - 0.5))
    weights = _KERNELS[kernel](away)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _linear(away: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - away, 0.0))


def _area(away: np.ndarray) -> np.ndarray:
    return np.asarray(away <= 0.5, np.float64)


def _cubic(away: np.ndarray) -> np.ndarray:
    """Keys's (1981) with a = -0.5, as Pillow's."""
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return np.where(away < 1, near, np.where(away < 2, far, 0.0))


_KERNELS = {"linear": _linear, "plain linear": _linear, "area": _area, "cubic": _cubic}
