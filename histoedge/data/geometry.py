"""What the pixels and labels of a data set mean: size of a patch, labelled square, resolution and classes."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from histoedge.edge.errors import DataError
from histoedge.edge.manifest import CLASSES, is_class_name
from histoedge.edge.patches import LABEL_PX, LARGEST_PATCH_PX, PATCH_PX, SMALLEST_PATCH_PX, UM_PER_PX


@dataclass(frozen=True)
class Geometry:
    """Sides in px of a patch and of the labelled square in its middle, um per px, and the two classes.

    ``classes[1]`` is the positive class, label 1.

    Raises:
        DataError: a value outside its range, or classes that are not two different names.
    """

    patch_px: int = PATCH_PX
    label_px: int = LABEL_PX
    um_per_px: float = UM_PER_PX
    classes: tuple[str, str] = CLASSES

    def __post_init__(self) -> None:
        patch, label, scale, classes = self.patch_px, self.label_px, self.um_per_px, self.classes
        if type(patch) is not int or not SMALLEST_PATCH_PX <= patch <= LARGEST_PATCH_PX:
            raise DataError(f"patch_px is {patch!r}, expected {SMALLEST_PATCH_PX} to {LARGEST_PATCH_PX}")
        if type(label) is not int or not 1 <= label <= patch:
            raise DataError(f"label_px is {label!r}, expected 1 to {patch}, the side of a patch")
        if type(scale) not in (int, float) or not math.isfinite(scale) or scale <= 0:
            raise DataError(f"um_per_px is {scale!r}, expected a finite number above 0")
        named = type(classes) is tuple and all(type(name) is str and is_class_name(name) for name in classes)
        if not named or len(classes) != 2 or len(set(classes)) != 2:
            raise DataError(
                f"classes are {classes!r}, expected two different names, the positive class second, each of at most 64 "
                "printable characters"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the geometry as a JSON object."""
        return {**dataclasses.asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Geometry":
        """Return the geometry of ``as_json``; missing keys have PatchCamelyon's values.

        Raises:
            DataError: not an object, a key that is not a field, or a value outside its range.
        """
        if not isinstance(values, Mapping):
            raise DataError(f"the geometry is {type(values).__name__}, expected an object")
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in values if name not in names]:
            raise DataError(f"the geometry has no {unknown[0]!r}; its keys: {', '.join(names)}")
        given = dict(values)
        if isinstance(given.get("classes"), list):
            given["classes"] = tuple(given["classes"])
        return cls(**given)


PATCHCAMELYON = Geometry()
