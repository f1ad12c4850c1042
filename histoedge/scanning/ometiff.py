"""The map as a float32 pyramidal OME-TIFF with resolution and position, for viewers and programs."""

import hashlib
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np

from histoedge import files
from histoedge.scanning.slidemap import SlideMap

TILE_PX = 256
SMALLEST_PX = 64  # the last level has no side above this


def write_ometiff(slide_map: SlideMap, path: Path) -> None:
    """Write two images, the positive class' probability and logit, one pixel per square, NaN without tissue.

    Coarser levels are means of the squares with tissue. The bytes depend on the map alone.

    Raises:
        WriteError: the file cannot be written.
    """
    import tifffile

    content = hashlib.sha256(slide_map.logits.tobytes()).hexdigest()
    name = uuid5(NAMESPACE_OID, f"{slide_map.slide} {slide_map.manifest.sha256} {content}")
    description: dict[str, Any] = {"UUID": f"urn:uuid:{name}", "Creator": "histoedge", "axes": "YX"}
    for axis in "XY":
        description |= {f"PhysicalSize{axis}": slide_map.step_um, f"PhysicalSize{axis}Unit": "µm"}
    # the first square is the patches' margin away from the slide's corner
    margin_um = slide_map.margin_px * slide_map.um_per_px
    positive = slide_map.manifest.classes[1]
    plane = {f"Position{axis}": [margin_um] for axis in "XY"} | {f"Position{axis}Unit": ["µm"] for axis in "XY"}
    with files.replacing(path) as temporary, tifffile.TiffWriter(temporary, ome=True) as file:
        for title, values in (
            (f"{positive} probability", slide_map.probability),
            (f"{positive} logit", slide_map.logits),
        ):
            levels = pyramid(values)
            for number, level in enumerate(levels):
                file.write(
                    level,
                    tile=(TILE_PX, TILE_PX),
                    photometric="minisblack",
                    compression="zlib",
                    resolution=(1e4 / (slide_map.step_um * 2**number),) * 2,
                    resolutionunit="CENTIMETER",
                    metadata=None if number else {**description, "Name": title, "Plane": plane},
                    subfiletype=1 if number else None,
                    subifds=None if number else len(levels) - 1,
                )


def pyramid(values: np.ndarray) -> list[np.ndarray]:
    """Return the values, float32 (rows, columns), then means of 2 x 2, 4 x 4, ... of them; at least two levels."""
    levels = [values]
    while len(levels) == 1 or max(levels[-1].shape) > SMALLEST_PX:
        levels.append(_halved(levels[-1]))
    return levels


def _halved(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape
    padded = np.full((rows + rows % 2, columns + columns % 2), np.nan, np.float32)
    padded[:rows, :columns] = values
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    valid = ~np.isnan(blocks)
    count = valid.sum(axis=(1, 3))
    total = np.where(valid, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
