"""Geometric mistakes: a shifted window, a window cut too small, a resized patch.

All functions accept and return uint8 (N, S, S, 3), S even.
"""

import numpy as np

FILLS = {
    "black": 0,
    "white": 255,
}  # of a border; "edge" repeats the outermost pixels, "wrap" continues on the opposite side


def shifted(patches: np.ndarray, down: int, right: int, fill: str) -> np.ndarray:
    """Return the patches moved by ``down`` and ``right`` pixels, with the border filled."""
    return _placed(patches, down, right, patches.shape[1], fill)


def cut(patches: np.ndarray, side: int, place: str, fill: str) -> np.ndarray:
    """Return the central square of ``side`` px at ``place`` (``centre`` or top-left ``corner``), the rest filled."""
    patch_px = patches.shape[1]
    start = (patch_px - side) // 2
    square = patches[:, start : start + side, start : start + side]
    offset = start if place == "centre" else 0
    return _placed(square, offset, offset, patch_px, fill)


def resized(patches: np.ndarray, side: int, *, kernel: str, fill: str = "black") -> np.ndarray:
    """Return the patches resized to ``side`` px: a larger result is cropped to its centre, a smaller one is padded.

    ``kernel`` is ``linear``, ``cubic`` or ``area``, which average when they shrink, or ``nearest`` or ``plain linear``,
    which do not.
    """
    patch_px = patches.shape[1]
    weights = _weights(patch_px, side, kernel)
    start = (patch_px - side) // 2
    if side > patch_px:
        weights = weights[-start : patch_px - start]
    pixels = patches
    for _ in range(2):  # rows first, then columns: Pillow's order
        pixels = _combined(weights, pixels.transpose(0, 2, 1, 3))
    return pixels if side > patch_px else _placed(pixels, start, start, patch_px, fill)


def _combined(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return weighted sums over the second axis of uint8 (N, in, M, 3), rounded to uint8 (N, out, M, 3).

    ``weights`` are float32 (out, in).
    """
    sums = weights @ pixels.reshape(*pixels.shape[:2], -1).astype(np.float32)
    return np.asarray(np.clip(np.rint(sums), 0, 255), np.uint8).reshape(len(pixels), len(weights), -1, 3)


def _placed(pixels: np.ndarray, down: int, right: int, side: int, fill: str) -> np.ndarray:
    """Return a square of ``side`` px with the pixels at offset ``down``, ``right``; the rest is filled."""
    rows, columns = (np.arange(side) - start for start in (down, right))
    height, width = pixels.shape[1:3]
    if fill == "wrap":
        return pixels[:, rows % height][:, :, columns % width]
    square = pixels[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]
    if fill in FILLS:
        square[:, (rows < 0) | (rows >= height)] = FILLS[fill]
        square[:, :, (columns < 0) | (columns >= width)] = FILLS[fill]
    return square


def _weights(before: int, after: int, kernel: str) -> np.ndarray:
    """Return the weight of each pixel of a row in each pixel of the resized row, float32 (after, before)."""
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale
    if kernel == "nearest":
        return np.asarray(np.floor(centres) == np.arange(before), np.float32)
    widened = 1.0 if kernel == "plain linear" else max(scale, 1.0)
    if kernel == "plain linear":  # the border pixel also replaces its missing neighbours
        centres = np.clip(centres, 0.5, before - 0.5)
    distance = (np.arange(before) + 0.5 - centres) / widened
    weights = _KERNELS[kernel](distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - np.abs(distance), 0.0))


def _area(distance: np.ndarray) -> np.ndarray:
    return np.asarray((distance > -0.5) & (distance <= 0.5), np.float64)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return Keys's kernel (1981) with a = -0.5, as in Pillow."""
    distance = np.abs(distance)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


_KERNELS = {"linear": _linear, "plain linear": _linear, "area": _area, "cubic": _cubic}
