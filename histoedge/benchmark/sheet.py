"""A picture of the decisions that differ from the reference's, for the review of a model before its use."""

import io
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.data import Split, picture
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError
from histoedge.edge.patches import LABEL_PX

MAX_FLIPS = 50
COLUMNS = 10
MIN_COLUMNS = 7  # room for the title
ENLARGED = 2  # screen pixels per pixel of a patch; a whole number avoids blur
DPI = 100
SMALLEST_PITCH_PX = 96
GAP_PX, CAPTION_PX, TITLE_PX = 4, 20, 26  # in pixels of a patch
COLOURS = {True: "#1b7837", False: "#b2182b"}  # of captions, by whether the file is right
PALETTE = 256  # colours; enough for stained tissue, and the file is a third as large


def worst_flips(
    logits: np.ndarray, reference: np.ndarray, *, threshold_logit: float, count: int = MAX_FLIPS
) -> np.ndarray:
    """Return the indices of patches with another decision than the reference's, the largest change of logit first.

    Args:
        logits: (n,), of the file.
        reference: (n,), of its reference on the same patches.
        threshold_logit: the decision threshold as a logit; a logit at the threshold is positive.
        count: maximum number of indices.

    Raises:
        DataError: the shapes differ.
    """
    if logits.shape != reference.shape:
        raise DataError(f"logits of shape {logits.shape} cannot be compared with logits of shape {reference.shape}")
    flipped = np.flatnonzero((logits >= threshold_logit) != (reference >= threshold_logit))
    change = np.abs(logits[flipped].astype(np.float64) - reference[flipped])
    return flipped[np.argsort(-change, kind="stable")][:count]


def draw_flips(
    split: Split,
    logits: np.ndarray,
    reference: np.ndarray,
    *,
    threshold_logit: float,
    temperature: float,
    model: str,
    reference_model: str,
    label_px: int = LABEL_PX,
    classes: tuple[str, str] = manifests.CLASSES,
) -> bytes:
    """Draw the flips with the largest change as a PNG file: patch, centre square, label, both probabilities.

    Args:
        split: the patches and labels.
        logits: (N,) of the whole split, of the file.
        reference: (N,) of its reference.
        threshold_logit: the file's decision threshold as a logit.
        temperature: the file's; it calibrates both probabilities, and one threshold applies to both.
        model: the file's name in the title.
        reference_model: the reference's name in the title.
        label_px: side of the labelled square in the middle of each patch.
        classes: names of the negative and the positive class.

    Returns:
        PNG bytes, the same for the same arguments; only a title if no decision differs.

    Raises:
        DataError: lengths differ.
    """
    from matplotlib.figure import Figure

    if not len(split.labels) == len(logits) == len(reference):
        raise DataError(f"{len(logits)} and {len(reference)} logits for {len(split.labels)} patches of {split.name}")
    chosen = worst_flips(logits, reference, threshold_logit=threshold_logit)
    columns = min(COLUMNS, max(MIN_COLUMNS, len(chosen)))
    rows = -(-len(chosen) // columns)
    patch_px = split.patches.shape[1]
    pitch = max(patch_px, SMALLEST_PITCH_PX) + GAP_PX  # room for the caption
    width = columns * pitch + GAP_PX
    height = TITLE_PX + rows * (patch_px + CAPTION_PX + GAP_PX)
    figure = Figure(figsize=(ENLARGED * width / DPI, ENLARGED * height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], frame_on=False)
    count = metrics.flips(logits, reference, threshold_logit=threshold_logit)
    title = f"{model} against {reference_model} on {split.name}: {count} of {len(logits):,} decisions differ"
    title += f", the {len(chosen)} with the largest change" if count > len(chosen) else ""
    title += " (reference \N{RIGHTWARDS ARROW} file, right or wrong)" if count else ""
    axes.text(GAP_PX, TITLE_PX / 2, title, fontsize=12, va="center", parse_math=False)
    before, after = (manifests.probability(values, temperature) for values in (reference, logits))
    for number, index in enumerate(chosen.tolist()):
        left = GAP_PX + (number % columns) * pitch
        top = TITLE_PX + (number // columns) * (patch_px + CAPTION_PX + GAP_PX)
        label = classes[split.labels[index]]
        right = bool((logits[index] >= threshold_logit) == split.labels[index])
        caption = (
            f"{label}: {before[index]:.3f} \N{RIGHTWARDS ARROW} {after[index]:.3f} {'right' if right else 'wrong'}"
        )
        _patch(axes, split.patches[index], left, top, label_px)
        place = top + patch_px + CAPTION_PX / 2
        axes.text(left, place, caption, fontsize=8.5, va="center", color=COLOURS[right], parse_math=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    return _with_few_colours(image)


def _patch(axes: Any, patch: np.ndarray, left: float, top: float, label_px: int) -> None:
    """Draw one enlarged patch and its centre square."""
    patch_px = len(patch)
    extent = (left, left + patch_px, top + patch_px, top)
    axes.imshow(patch, extent=extent, interpolation="nearest", aspect="auto")
    corner = (patch_px - label_px) / 2
    picture.centre_square(axes, left + corner, top + corner, label_px=label_px)


def _with_few_colours(image: io.BytesIO) -> bytes:
    """Return the picture with a palette that includes the colours of the captions."""
    from PIL import Image, ImageColor

    whole = Image.open(image).convert("RGB")
    fixed = [ImageColor.getrgb(name) for name in ("black", "white", *COLOURS.values())]
    chosen = whole.quantize(PALETTE - len(fixed)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*chosen[: 3 * (PALETTE - len(fixed))], *(level for colour in fixed for level in colour)])
    packed = io.BytesIO()
    whole.quantize(palette=palette, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()
