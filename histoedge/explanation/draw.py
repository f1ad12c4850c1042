"""Pictures of explanations: a patch with its heat maps, and a contact sheet of a split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from histoedge import files
from histoedge.data import Split, picture
from histoedge.explanation.attribution import SHEET_PATCHES, Explanation, Model

DPI = 110
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
HEAT = 0.6  # opacity: nuclei stay visible
# method: colour map, lower end as a multiple of the largest value, title, label of the colour bar
STYLES: dict[str, tuple[str, int, str, str]] = {
    "occlusion": ("RdBu_r", -1, "occlusion", "logit drop when covered"),
    "gradcam": ("inferno", 0, "Grad-CAM", "sum of weighted channels"),
}


def explanation(explained: Explanation, file: Path, *, model: str) -> None:
    """Write a PNG file: the patch, then each heat map over the patch in grey, the centre square outlined in each.

    Occlusion is red if covering lowers the logit (evidence for the positive class) and blue if it raises the logit.

    Raises:
        WriteError: the picture cannot be written.
    """
    figure = Figure(figsize=(4.6 * (1 + len(explained.maps)), 5.0), layout="constrained")
    title = f"{explained.id}\nlogit {explained.logit:.2f}, probability {explained.probability:.3f}: "
    title += f"{explained.verdict} ({model})"
    figure.suptitle(title, fontsize=11, parse_math=False)
    first, *others = figure.subplots(1, 1 + len(explained.maps))
    _patch(first, explained.patch, explained.label_px)
    first.set_title("the label applies to the square", fontsize=10)
    for axes, (method, heat) in zip(others, explained.maps.items(), strict=True):
        colours, lower, name, bar_label = STYLES[method]
        largest = float(np.abs(heat).max()) or 1.0  # a map of zeros needs a colour scale too
        _patch(axes, explained.patch @ GREY, explained.label_px)
        heat_image = axes.imshow(heat, cmap=colours, vmin=lower * largest, vmax=largest, alpha=HEAT)
        figure.colorbar(heat_image, ax=axes, shrink=0.75, label=bar_label)
        share = explained.shares[method]
        evidence = "no evidence"
        if share is not None:
            evidence = f"{share:.0%} in the square (constant map: {explained.uniform_shares[method]:.0%})"
        axes.set_title(f"{name}: {evidence}", fontsize=10)
    with files.replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def contact_sheet(
    split: Split, kinds: Mapping[str, np.ndarray], probabilities: np.ndarray, file: Path, *, model: Model
) -> None:
    """Write a PNG file with one row of patches per kind, the centre square outlined, the probability below each patch.

    Args:
        split: the split of the patches.
        kinds: indices into the split by kind, at most 8 each, see ``most_confident``.
        probabilities: of the whole split, (N,).
        file: the picture to write.
        model: its name is in the title.

    Raises:
        WriteError: the picture cannot be written.
    """
    figure = Figure(figsize=(1.5 * SHEET_PATCHES, 1.9 * len(kinds) + 0.5), layout="constrained")
    figure.suptitle(f"{model.name} on {split.name}: the most confident patches", fontsize=11, parse_math=False)
    grid = figure.subplots(len(kinds), SHEET_PATCHES)
    for row, (kind, chosen) in zip(grid, kinds.items(), strict=True):
        for axes in row[len(chosen) :]:
            axes.axis("off")
        row[0].set_title(kind if len(chosen) else f"{kind}: none", fontsize=10, loc="left")
        for axes, index in zip(row, chosen, strict=False):
            _patch(axes, split.patches[int(index)], model.label_px)
            axes.set_xlabel(f"{probabilities[index]:.4f}", fontsize=9)
    with files.replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _patch(axes: Any, pixels: np.ndarray, label_px: int) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    corner = (len(pixels) - label_px) / 2 - 0.5  # imshow centres a pixel at its index
    picture.centre_square(axes, corner, corner, label_px=label_px)
