"""From the labels of a data set to 0 and 1."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histoedge.data.description import Description
from histoedge.data.geometry import PATCHCAMELYON
from histoedge.edge.errors import DataError

POSITIVE = frozenset({"1", "true", "yes", "pos", "positive", "tumour", "tumor", "cancer", "malignant", "metastasis"})
NEGATIVE = frozenset({"0", "false", "no", "neg", "negative", "normal", "benign", "healthy"})
"""Labels whose meaning is clear, in lower case."""
MOST_SHOWN = 12


def binary(labels: Sequence[str], description: Description, *, where: Path) -> tuple[np.ndarray, tuple[str, str]]:
    """Return labels as uint8 (N,) of 0 and 1, and the names of the two classes.

    ``positive`` of the description says which labels are positive. Without it there must be two labels, and either one
    of them has a clear meaning, or ``classes`` of the description are these two labels.

    Args:
        labels: the label of each patch.
        description: of the data set.
        where: the file or folder with the labels, for errors.

    Raises:
        DataError: one label only, or it is not known which labels are positive.
    """
    found = sorted(set(labels))
    shown = ", ".join(found[:MOST_SHOWN]) + (", ..." if len(found) > MOST_SHOWN else "")
    if len(found) == 1:
        raise DataError(f"{where}: {len(labels)} patches with the label {found[0]} only; a data set needs both classes")
    positive = description.positive or _positive(found, description.classes)
    if unknown := [label for label in description.positive if label not in found]:
        raise DataError(f"{description.file}: positive names {unknown[0]!r}; the labels of {where}: {shown}")
    if not positive:
        example = f'positive = ["{found[-1]}"]' if found else "positive"
        raise DataError(
            f"{where}: the labels are {shown or 'none'}; say in {description.file} which are positive, "
            f"such as {example}; the others are then negative"
        )
    negative = [label for label in found if label not in positive]
    if not negative:
        raise DataError(f"{where}: only positive labels ({shown}); a data set needs both classes")
    one = frozenset(positive)
    truth = np.fromiter((label in one for label in labels), np.uint8, len(labels))
    return truth, names(negative, list(positive), description)


def _positive(found: list[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the positive of two labels, if it is clear; else nothing."""
    if len(found) != 2:
        return ()
    if set(classes) == set(found):
        return classes[1:]
    yes = [label for label in found if label.lower() in POSITIVE]
    no = [label for label in found if label.lower() in NEGATIVE]
    if len(yes) == 1:
        return tuple(yes)
    return tuple(label for label in found if label not in no) if len(no) == 1 and not yes else ()


def names(negative: list[str], positive: list[str], description: Description) -> tuple[str, str]:
    """Return the names of the classes: from the description, PatchCamelyon's for 0 and 1, else the labels.

    Raises:
        DataError: ``classes`` of the description are not two names, or in the other order.
    """
    if description.classes:
        if len(description.classes) != 2:
            raise DataError(f"{description.file}: classes names {len(description.classes)}, expected two")
        first, second = description.classes
        if (first, second) == (positive[0], negative[0]):
            raise DataError(f"{description.file}: classes has {second!r} second, positive says {first!r}; reorder")
        return first, second
    if (negative, positive) == (["0"], ["1"]):
        return PATCHCAMELYON.classes
    name = " or ".join(positive)
    return (negative[0] if len(negative) == 1 else f"not {name}"), name
