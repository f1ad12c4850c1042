"""What a person looks at first: label balance, patches of each class, brightness and stain per split."""

from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.data import LABEL_PX, PATCH_PX, Split, load, synthetic

GRID = (3, 8)  # rows and columns of patches per class
SAMPLE = 1000  # patches per split that brightness and stain are measured on
_COLOURS = {"train": "#3b6fb6", "valid": "#e08a2e", "test": "#4c9a5f"}


def picture(source: str, file: Path, *, seed: int = 0) -> None:
    """Draw DATA to a PNG file.

    Raises:
        DataError: as ``load``.
    """
    from matplotlib.figure import Figure

    splits = load(source, seed=seed)
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.7))
    balance, brightness, stain_h, stain_e = left.subplots(4, 1)
    _balance(balance, splits)
    drawn = {name: _sample(split, seed) for name, split in splits.items()}
    panels = (
        (brightness, "mean brightness", lambda pixels: pixels.mean(axis=(1, 2, 3))),
        (stain_h, "haematoxylin, mean density", lambda pixels: stains(pixels)[:, 0]),
        (stain_e, "eosin, mean density", lambda pixels: stains(pixels)[:, 1]),
    )
    for axes, title, measure in panels:
        values = {name: measure(pixels) for name, pixels in drawn.items()}
        edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=40)
        for name, found in values.items():
            axes.hist(found, edges, density=True, histtype="step", linewidth=1.6, color=_COLOURS[name], label=name)
        axes.set(title=title, yticks=[])
        axes.legend(frameon=False, fontsize=8)
    _patches(right, next(iter(splits.values())), seed)
    with files.replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def stains(pixels: np.ndarray) -> np.ndarray:
    """Mean haematoxylin and eosin density, float (N, 2), of uint8 (N, H, W, 3) pixels.

    Colour deconvolution of Ruifrok and Johnston 2001, their third vector the cross product of the two stains.
    """
    two = np.stack([synthetic.HAEMATOXYLIN, synthetic.EOSIN])
    two = two / np.linalg.norm(two, axis=1, keepdims=True)
    third = np.cross(two[0], two[1])
    unmix = np.linalg.inv(np.vstack([two, third / np.linalg.norm(third)]))
    density = -np.log((pixels.astype(np.float32) + 1) / 256).mean(axis=(1, 2))
    return np.asarray((density @ unmix)[:, :2])


def _sample(split: Split, seed: int) -> np.ndarray:
    count = len(split.labels)
    chosen = np.random.default_rng(seed).permutation(count)[:SAMPLE]
    return split.patches[np.sort(chosen)]


def _balance(axes: Any, splits: dict[str, Split]) -> None:
    names = list(splits)
    positives = [int(split.labels.sum()) for split in splits.values()]
    negatives = [len(split.labels) - found for split, found in zip(splits.values(), positives, strict=True)]
    axes.barh(names, negatives, color="#b9c6d6", label="normal")
    axes.barh(names, positives, left=negatives, color="#b3446c", label="tumour")
    for row, (negative, positive) in enumerate(zip(negatives, positives, strict=True)):
        share = positive / (negative + positive)
        axes.text((negative + positive) * 1.01, row, f"{negative + positive:,}, {share:.0%} tumour", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set(title="patches per split", xlim=(0, 1.35 * max(n + p for n, p in zip(negatives, positives, strict=True))))
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _patches(figure: Any, split: Split, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = GRID
    halves = figure.subplots(2, 1)
    for axes, label, title in zip(halves, (0, 1), ("normal", "tumour in the centre square"), strict=True):
        chosen = np.sort(random.permutation(np.flatnonzero(split.labels == label))[: rows * columns])
        sheet = np.full((rows * PATCH_PX, columns * PATCH_PX, 3), 255, np.uint8)
        for number, patch in enumerate(split.patches[chosen]):
            top, left = PATCH_PX * (number // columns), PATCH_PX * (number % columns)
            sheet[top : top + PATCH_PX, left : left + PATCH_PX] = patch
        axes.imshow(sheet)
        for number in range(len(chosen)):
            corner = (PATCH_PX - LABEL_PX) / 2
            top, left = PATCH_PX * (number // columns) + corner, PATCH_PX * (number % columns) + corner
            _square(axes, left, top)
        axes.set(title=f"{split.name}: {title}")
        axes.axis("off")


def _square(axes: Any, left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), LABEL_PX, LABEL_PX, fill=False, edgecolor="black", linewidth=0.8))
