"""An overview picture of a data set: label balance, patches of each class, brightness and stain per split."""

from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.data.sources import load
from histoedge.data.split import Split
from histoedge.edge import drift
from histoedge.edge.patches import LABEL_PX, PATCH_PX
from histoedge.progress import Progress, silent

GRID = (4, 8)  # rows and columns of patches per class
GAP_PX = 4
SAMPLE = 1000  # patches per split for brightness and stain
_COLOURS = {"train": "#3b6fb6", "valid": "#e08a2e", "test": "#4c9a5f"}


def picture(source: str, file: Path, *, seed: int = 0, cache: bool = True, progress: Progress = silent) -> None:
    """Write a PNG file: labels, brightness and stain per split (of up to 1,000 patches), and patches of each class.

    Args:
        source: a folder in PatchCamelyon's or the Kaggle layout, or the word ``synthetic``.
        file: the picture to write.
        seed: selects the patches to draw; also the seed of ``load``.
        cache: see ``load``.
        progress: see ``load``.

    Raises:
        DataError: see ``load``; also for a patch that cannot be read.
        WriteError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    splits = load(source, seed=seed, cache=cache, progress=progress)
    figure = Figure(figsize=(14, 8.8), layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 1.75)))
    balance, brightness, stain_h, stain_e = left.subplots(4, 1)
    _balance(balance, splits)
    samples = {name: _sample(split, seed) for name, split in splits.items()}
    panels = (
        (brightness, "mean brightness, 0 to 255", lambda pixels: pixels.mean(axis=(1, 2, 3))),
        (stain_h, "haematoxylin, mean optical density", lambda pixels: drift.stains(pixels)[:, 0]),
        (stain_e, "eosin, mean optical density", lambda pixels: drift.stains(pixels)[:, 1]),
    )
    for axes, title, measure in panels:
        values = {name: measure(pixels) for name, pixels in samples.items()}
        inner = np.percentile(
            np.concatenate(list(values.values())), (0.1, 99.9)
        )  # without outliers, which would compress the histogram
        edges = np.linspace(inner[0], inner[1], 41)
        for name, measured in values.items():
            axes.hist(measured, edges, density=True, histtype="step", linewidth=1.6, color=_COLOURS[name], label=name)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set(yticks=[])
        axes.spines[["top", "left", "right"]].set_visible(False)
    brightness.legend(frameon=False, fontsize=9, handlelength=1.2)
    _patches(right, next(iter(splits.values())), seed)
    with files.replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _sample(split: Split, seed: int) -> np.ndarray:
    count = len(split.labels)
    chosen = np.random.default_rng(seed).permutation(count)[:SAMPLE]
    return split.patches[np.sort(chosen)]


def _balance(axes: Any, splits: dict[str, Split]) -> None:
    names = list(splits)
    positives = [int(split.labels.sum()) for split in splits.values()]
    negatives = [len(split.labels) - positive for split, positive in zip(splits.values(), positives, strict=True)]
    axes.barh(names, negatives, color="#b9c6d6", label="normal")
    axes.barh(names, positives, left=negatives, color="#b3446c", label="tumour")
    for row, (negative, positive) in enumerate(zip(negatives, positives, strict=True)):
        share = positive / (negative + positive)
        text = f"  {negative + positive:,} ({share:.0%} tumour)"
        axes.text(negative + positive, row, text, va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_title("patches per split", fontsize=10, loc="left")
    axes.set(xticks=[], xlim=(0, 1.5 * max(n + p for n, p in zip(negatives, positives, strict=True))))
    axes.spines[["top", "bottom", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right", handlelength=1.2)


def _patches(figure: Any, split: Split, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = GRID
    halves = figure.subplots(2, 1)
    pitch = PATCH_PX + GAP_PX
    for axes, label, title in zip(
        halves, (0, 1), ("no tumour in the centre square", "tumour in the centre square"), strict=True
    ):
        chosen = np.sort(random.permutation(np.flatnonzero(split.labels == label))[: rows * columns])
        sheet = np.full((rows * pitch - GAP_PX, columns * pitch - GAP_PX, 3), 255, np.uint8)
        for number, patch in enumerate(split.patches[chosen]):
            top, left = pitch * (number // columns), pitch * (number % columns)
            sheet[top : top + PATCH_PX, left : left + PATCH_PX] = patch
            corner = (PATCH_PX - LABEL_PX) // 2 - 0.5  # imshow centres a pixel at its index
            centre_square(axes, left + corner, top + corner)
        axes.imshow(sheet, interpolation="antialiased")
        axes.set_title(f"{split.name}: {title}", fontsize=10, loc="left")
        axes.axis("off")


def centre_square(axes: Any, left: float, top: float, *, label_px: int = LABEL_PX) -> None:
    """Outline the labelled square with that corner in white and black, visible on any tissue."""
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 1.8), ("black", 0.7)):
        axes.add_patch(Rectangle((left, top), label_px, label_px, fill=False, edgecolor=colour, linewidth=width))
