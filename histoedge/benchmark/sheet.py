"""The decisions that a file turned round, as a picture: whoever chooses a model should have seen them."""

import io
from typing import Any

import numpy as np

from histoedge import metrics
from histoedge.data import LABEL_PX, PATCH_PX, Split, picture
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError

MOST_FLIPS = 50
COLUMNS = 10
FEWEST_COLUMNS = 7  # room for the title
ENLARGED = 2  # screen pixels per pixel of a patch: whole ones, so that none is smeared
DPI = 100
GAP_PX, CAPTION_PX, TITLE_PX = 4, 20, 26  # in pixels of a patch
CORNER = (PATCH_PX - LABEL_PX) / 2
COLOURS = {True: "#1b7837", False: "#b2182b"}  # of captions: whether the file is right
PALETTE = 256  # colours: stained tissue has few, and the file is a third as large


def worst_flips(
    logits: np.ndarray, reference: np.ndarray, *, threshold_logit: float, most: int = MOST_FLIPS
) -> np.ndarray:
    """Indices, at most ``most``, of patches decided otherwise than by the reference, the largest change of logit first.

    Args:
        logits: (n,), of the file.
        reference: (n,), of its reference on the same patches.
        threshold_logit: the decision threshold, as a logit; at the threshold counts as positive.
        most: how many are wanted.

    Raises:
        DataError: the shapes differ.
    """
    if logits.shape != reference.shape:
        raise DataError(f"logits of shape {logits.shape} cannot be compared with logits of shape {reference.shape}")
    flipped = np.flatnonzero((logits >= threshold_logit) != (reference >= threshold_logit))
    change = np.abs(logits[flipped].astype(np.float64) - reference[flipped])
    return flipped[np.argsort(-change, kind="stable")][:most]


def draw_flips(
    split: Split,
    logits: np.ndarray,
    reference: np.ndarray,
    *,
    threshold_logit: float,
    temperature: float,
    model: str,
    reference_model: str,
) -> bytes:
    """The worst flips as a PNG file: each patch enlarged, its centre square, its label, both probabilities.

    Args:
        split: where the patches come from.
        logits: (N,) of the whole split, of the file.
        reference: (N,) of its reference.
        threshold_logit: the file's decision threshold, as a logit.
        temperature: the file's; both probabilities are calibrated with it, so that the threshold is the same.
        model: the file's name in the title.
        reference_model: its reference's.

    Returns:
        The same bytes for the same arguments; where no decision differs, the title alone.

    Raises:
        DataError: lengths differ.
    """
    from matplotlib.figure import Figure

    if not len(split.labels) == len(logits) == len(reference):
        raise DataError(f"{len(logits)} and {len(reference)} logits for {len(split.labels)} patches of {split.name}")
    chosen = worst_flips(logits, reference, threshold_logit=threshold_logit)
    columns = min(COLUMNS, max(FEWEST_COLUMNS, len(chosen)))
    rows = -(-len(chosen) // columns)
    width = columns * (PATCH_PX + GAP_PX) + GAP_PX
    height = TITLE_PX + rows * (PATCH_PX + CAPTION_PX + GAP_PX)
    figure = Figure(figsize=(ENLARGED * width / DPI, ENLARGED * height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], frame_on=False)
    count = metrics.flips(logits, reference, threshold_logit=threshold_logit)
    title = f"{model} against {reference_model} on {split.name}: {count} of {len(logits):,} decisions differ"
    title += f", the {len(chosen)} with the largest change" if count > len(chosen) else ""
    title += " (reference \N{RIGHTWARDS ARROW} file, right or wrong)" if count else ""
    axes.text(GAP_PX, TITLE_PX / 2, title, fontsize=12, va="center", parse_math=False)
    before, after = (manifests.probability(one, temperature) for one in (reference, logits))
    for number, index in enumerate(chosen.tolist()):
        left = GAP_PX + (number % columns) * (PATCH_PX + GAP_PX)
        top = TITLE_PX + (number // columns) * (PATCH_PX + CAPTION_PX + GAP_PX)
        label = "tumour" if split.labels[index] else "normal"
        right = bool((logits[index] >= threshold_logit) == split.labels[index])
        said = f"{label}: {before[index]:.3f} \N{RIGHTWARDS ARROW} {after[index]:.3f} {'right' if right else 'wrong'}"
        _patch(axes, split.patches[index], left, top, said, COLOURS[right])
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    return _small(drawn)


def _patch(axes: Any, patch: np.ndarray, left: float, top: float, said: str, colour: str) -> None:
    """One patch, enlarged, its centre square, and a caption below."""
    extent = (left, left + PATCH_PX, top + PATCH_PX, top)
    axes.imshow(patch, extent=extent, interpolation="nearest", aspect="auto")
    picture.centre_square(axes, left + CORNER, top + CORNER)
    axes.text(left, top + PATCH_PX + CAPTION_PX / 2, said, fontsize=8.5, va="center", color=colour)


def _small(drawn: io.BytesIO) -> bytes:
    """The picture with few colours, those of the captions among them."""
    from PIL import Image, ImageColor

    whole = Image.open(drawn).convert("RGB")
    kept = [ImageColor.getrgb(name) for name in ("black", "white", *COLOURS.values())]
    found = whole.quantize(PALETTE - len(kept)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*found[: 3 * (PALETTE - len(kept))], *(level for colour in kept for level in colour)])
    packed = io.BytesIO()
    whole.quantize(palette=palette, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()
