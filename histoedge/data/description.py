"""``DATA/data.toml``: what the files of a data set do not say themselves."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.data import image
from histoedge.data.geometry import PATCHCAMELYON, Geometry
from histoedge.edge.errors import DataError
from histoedge.edge.patches import LARGEST_PATCH_PX, SMALLEST_PATCH_PX

FILE = "data.toml"
LARGEST_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Description:
    """The content of ``DATA/data.toml``; what is None or empty is found from the data.

    ``layout`` names the layout. ``columns`` maps ``path``, ``label``, ``split`` and ``slide`` of a CSV file, or
    ``image``, ``label`` and ``slide`` of a parquet file, to the names of its columns. ``positive`` names the labels
    that are positive, ``classes`` the negative and the positive class. ``resample`` allows images of another size than
    ``patch_px``.
    """

    file: Path
    layout: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    patch_px: int | None = None
    label_px: int | None = None
    um_per_px: float | None = None
    resample: bool = False

    def form(self, side_px: int) -> image.Form:
        """Return the form of the patches; ``side_px`` is the side of the first image.

        Raises:
            DataError: the side is outside the range of ``Geometry``.
        """
        if self.patch_px is None and not SMALLEST_PATCH_PX <= side_px <= LARGEST_PATCH_PX:
            raise DataError(
                f"{self.file.parent}: the first image is {side_px} px, expected {SMALLEST_PATCH_PX} to "
                f"{LARGEST_PATCH_PX}; {self.file} with patch_px = 96 and resample = true resamples it"
            )
        form = image.Form(side_px if self.patch_px is None else self.patch_px, self.resample)
        self.geometry(form.patch_px, PATCHCAMELYON.classes, centred=False)
        return form

    def geometry(self, patch_px: int, classes: tuple[str, str], *, centred: bool) -> Geometry:
        """Return the geometry of patches of this side.

        Args:
            patch_px: the side of the patches.
            classes: the names of the negative and the positive class.
            centred: whether labels describe the centre of 96 px patches, as in PatchCamelyon.

        Raises:
            DataError: a value outside its range; the message names ``data.toml`` if there is one.
        """
        known = PATCHCAMELYON.label_px if centred and patch_px == PATCHCAMELYON.patch_px else patch_px
        label_px = known if self.label_px is None else self.label_px
        um_per_px = PATCHCAMELYON.um_per_px if self.um_per_px is None else self.um_per_px
        try:
            return Geometry(patch_px, label_px, um_per_px, classes)
        except DataError as cause:
            raise DataError(f"{self.file}: {cause}") from cause

    def refuse(self, layout: str, keys: tuple[str, ...]) -> None:
        """Refuse keys of ``data.toml`` that have no meaning in a layout.

        Raises:
            DataError: one of these keys is set.
        """
        for key in keys:
            if getattr(self, key):
                raise DataError(f"{self.file}: {key} has no meaning in the layout {layout}; remove it")


def read_description(folder: Path) -> Description:
    """Return the description of the data set in ``folder``; an empty one without the file.

    Raises:
        DataError: not a readable TOML file, an unknown key, or a value of another type.
    """
    file = folder / FILE
    if not file.exists():
        return Description(file)
    try:
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise DataError(f"{file}: {file.stat().st_size} bytes, expected at most {LARGEST_FILE_BYTES}")
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise DataError(f"{file}: not a readable TOML file ({' '.join(str(cause).split())[:120]})") from cause
    if unknown := sorted(values.keys() - _KINDS.keys()):
        raise DataError(f"{file}: unknown key {unknown[0]}; the keys: {', '.join(_KINDS)}")
    return Description(file, **{key: _checked(file, key, value) for key, value in values.items()})


def _text(value: Any) -> Any:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    good = isinstance(texts, list) and texts and all(isinstance(text, str) and text for text in texts)
    return tuple(texts) if good and len(set(texts)) == len(texts) else None


def _columns(value: Any) -> Any:
    return value if isinstance(value, dict) and all(map(_text, value.values())) else None


def _whole(value: Any) -> Any:
    return value if type(value) is int else None


def _number(value: Any) -> Any:
    return value if type(value) in (int, float) else None


def _truth(value: Any) -> Any:
    return value if isinstance(value, bool) else None


_KINDS = {
    "layout": (_text, "a word"),
    "columns": (_columns, 'a table of column names, such as [columns] path = "file"'),
    "classes": (_texts, 'a list of different names, such as ["normal", "tumour"]'),
    "positive": (_texts, 'a list of different labels, such as ["tumour"]'),
    "patch_px": (_whole, "a whole number"),
    "label_px": (_whole, "a whole number"),
    "um_per_px": (_number, "a number"),
    "resample": (_truth, "true or false"),
}


def _checked(file: Path, key: str, value: Any) -> Any:
    read, kind = _KINDS[key]
    checked = read(value)
    if checked is None:
        raise DataError(f"{file}: {key} is {value!r}, expected {kind}")
    return checked
