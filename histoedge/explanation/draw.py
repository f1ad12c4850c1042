"""Explanations as pictures: a patch beside its heat maps, and a contact sheet of a split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from histoedge import files
from histoedge.data import Split, picture
from histoedge.edge.patches import LABEL_PX, PATCH_PX
from histoedge.explanation.attribution import SHEET_PATCHES, Explanation

DPI = 110
CORNER = (PATCH_PX - LABEL_PX) / 2 - 0.5  # imshow puts the middle of a pixel at its number
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
HEAT = 0.6  # opacity: nuclei stay visible underneath
# method: colours, lower end as a multiple of the largest value, title, what the scale tells
STYLES: dict[str, tuple[str, int, str, str]] = {
    "occlusion": ("RdBu_r", -1, "occlusion", "drop of the logit when covered"),
    "gradcam": ("inferno", 0, "Grad-CAM", "sum of weighted channels"),
}


def explanation(made: Explanation, file: Path, *, model: str) -> None:
    """Draw one patch, enlarged, and its heat maps over it in grey, to a PNG file; the centre square in each.

    Occlusion is red where covering lowers the logit (evidence for tumour) and blue where it raises it.

    Raises:
        WriteError: the picture cannot be written.
    """
    figure = Figure(figsize=(4.6 * (1 + len(made.maps)), 5.0), layout="constrained")
    verdict = "tumour" if made.positive else "normal"
    title = f"{made.id}\nlogit {made.logit:.2f}, probability {made.probability:.3f}: {verdict} ({model})"
    figure.suptitle(title, fontsize=11, parse_math=False)
    first, *others = figure.subplots(1, 1 + len(made.maps))
    _patch(first, made.patch)
    first.set_title("the label speaks of the square", fontsize=10)
    for axes, (method, heat) in zip(others, made.maps.items(), strict=True):
        colours, lower, name, scale = STYLES[method]
        largest = float(np.abs(heat).max()) or 1.0  # a map of zeros needs a scale too
        _patch(axes, made.patch @ GREY)
        drawn = axes.imshow(heat, cmap=colours, vmin=lower * largest, vmax=largest, alpha=HEAT)
        figure.colorbar(drawn, ax=axes, shrink=0.75, label=scale)
        share = made.shares[method]
        held = "no evidence for tumour"
        if share is not None:
            held = f"{share:.0%} in the square (an even map: {made.uniform_shares[method]:.0%})"
        axes.set_title(f"{name}: {held}", fontsize=10)
    with files.replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def contact_sheet(
    split: Split, kinds: Mapping[str, np.ndarray], probabilities: np.ndarray, file: Path, *, model: str
) -> None:
    """Draw a row of patches for each kind to a PNG file: the centre square, and the probability below each.

    Args:
        split: where the patches come from.
        kinds: indices into it by kind, at most 8 each, as of ``most_confident``.
        probabilities: (N,) of the whole split.
        file: where the picture goes, replaced whole.
        model: the name in the title.

    Raises:
        WriteError: the picture cannot be written.
    """
    figure = Figure(figsize=(1.5 * SHEET_PATCHES, 1.9 * len(kinds) + 0.5), layout="constrained")
    figure.suptitle(f"{model} on {split.name}: the most confident patches", fontsize=11, parse_math=False)
    grid = figure.subplots(len(kinds), SHEET_PATCHES)
    for row, (kind, chosen) in zip(grid, kinds.items(), strict=True):
        for axes in row[len(chosen) :]:
            axes.axis("off")
        row[0].set_title(kind if len(chosen) else f"{kind}: none", fontsize=10, loc="left")
        for axes, index in zip(row, chosen, strict=False):
            _patch(axes, split.patches[int(index)])
            axes.set_xlabel(f"{probabilities[index]:.4f}", fontsize=9)
    with files.replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _patch(axes: Any, pixels: np.ndarray) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    picture.centre_square(axes, CORNER, CORNER)
