"""The share of the evidence in the labelled square of a patch."""

import numpy as np

from histoedge.edge.patches import LABEL_PX, PATCH_PX


def centre_share(maps: np.ndarray, *, patch_px: int = PATCH_PX, label_px: int = LABEL_PX) -> np.ndarray:
    """Return the share of the positive evidence in the labelled square.

    With m+ = max(m, 0), the share is the sum of m+ over the central ``label_px``, divided by the sum of m+ over the
    whole map. A value that belongs to the centre in part counts in part. Negative values (covering the square raises
    the logit: evidence against the positive class) are ignored. With PatchCamelyon's sizes no value of occlusion
    ``tiles`` and Grad-CAM maps belongs to the centre only in part. A model that sees only the centre then has an
    occlusion share of exactly 1; a constant map has 1/9.

    Args:
        maps: float (N, side, side) covering the patches evenly.
        patch_px: side of the patches.
        label_px: side of the labelled square.

    Returns:
        float64 (N,), nan for a map without positive values.
    """
    positive = np.maximum(maps.astype(np.float64), 0)
    side = maps.shape[1]
    edges = np.arange(side + 1)
    start, stop = ((patch_px + sign * label_px) * side / (2 * patch_px) for sign in (-1, 1))
    inside = np.diff(np.clip(edges, start, stop))  # share of each row, and of each column, in the centre
    centre = (positive * np.outer(inside, inside)).sum(axis=(1, 2))
    total = positive.sum(axis=(1, 2))
    shares = np.full(len(maps), np.nan)
    np.divide(centre, total, out=shares, where=total > 0)
    return shares
