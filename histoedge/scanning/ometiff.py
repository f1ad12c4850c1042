"""The map as a picture for viewers and programs: a float32 pyramidal OME-TIFF with its resolution and place."""

import hashlib
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np

from histoedge import files
from histoedge.scanning.slidemap import SlideMap

TILE_PX = 256
SMALLEST_PX = 64  # no further level where both sides are at most this


def write_ometiff(found: SlideMap, path: Path) -> None:
    """Write two images: ``tumour probability`` and ``tumour logit``; a pixel is a square, NaN where there is no tissue.

    Coarser levels are means of the squares with tissue. The same map gives the same bytes.

    Raises:
        WriteError: the file cannot be written.
    """
    import tifffile

    content = hashlib.sha256(found.logits.tobytes()).hexdigest()
    name = uuid5(NAMESPACE_OID, f"{found.slide} {found.manifest.sha256} {content}")
    told: dict[str, Any] = {"UUID": f"urn:uuid:{name}", "Creator": "histoedge", "axes": "YX"}
    for axis in "XY":
        told |= {f"PhysicalSize{axis}": found.step_um, f"PhysicalSize{axis}Unit": "µm"}
    # the first square begins a square from the slide's corner
    plane = {f"Position{axis}": [found.step_um] for axis in "XY"} | {f"Position{axis}Unit": ["µm"] for axis in "XY"}
    with files.replacing(path) as temporary, tifffile.TiffWriter(temporary, ome=True) as file:
        for title, values in (("tumour probability", found.probability), ("tumour logit", found.logits)):
            levels = pyramid(values)
            for number, level in enumerate(levels):
                file.write(
                    level,
                    tile=(TILE_PX, TILE_PX),
                    photometric="minisblack",
                    compression="zlib",
                    resolution=(1e4 / (found.step_um * 2**number),) * 2,
                    resolutionunit="CENTIMETER",
                    metadata=None if number else {**told, "Name": title, "Plane": plane},
                    subfiletype=1 if number else None,
                    subifds=None if number else len(levels) - 1,
                )


def pyramid(values: np.ndarray) -> list[np.ndarray]:
    """The values, float32 (rows, columns), and their means over squares of 2, 4, ...; at least one level of means."""
    levels = [values]
    while len(levels) == 1 or max(levels[-1].shape) > SMALLEST_PX:
        levels.append(_halved(levels[-1]))
    return levels


def _halved(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape
    padded = np.full((rows + rows % 2, columns + columns % 2), np.nan, np.float32)
    padded[:rows, :columns] = values
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    held = ~np.isnan(blocks)
    count = held.sum(axis=(1, 3))
    total = np.where(held, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
