"""The map as a table with the columns of WSInfer (Kaczmarzyk et al. 2024), which QuPath and other tools read."""

import csv
from pathlib import Path

import numpy as np

from histoedge import files
from histoedge.edge.manifest import CLASSES
from histoedge.scanning.slidemap import SlideMap

COLUMNS = ("minx", "miny", "width", "height")
TUMOUR = ("Other", "Tumor")  # the classes of WSInfer's tumour models


def write_tiles(slide_map: SlideMap, path: Path) -> int:
    """Write one row per square with tissue, in whole pixels of level 0; return the number of rows.

    Raises:
        WriteError: the file cannot be written.
    """
    rows, columns = np.nonzero(slide_map.tissue)
    starts = [place + slide_map.margin_squares for place in (columns, rows)]
    left, top = (np.rint(start * slide_map.step_level0_px).astype(int) for start in starts)
    right, bottom = (np.rint((start + 1) * slide_map.step_level0_px).astype(int) for start in starts)
    classes = TUMOUR if slide_map.manifest.classes == CLASSES else slide_map.manifest.classes
    probability = slide_map.probability[rows, columns].astype(float)
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow((*COLUMNS, *(f"prob_{name}" for name in classes)))
        for x, y, x1, y1, positive in zip(left, top, right, bottom, probability, strict=True):
            table.writerow((x, y, x1 - x, y1 - y, f"{1 - positive:.6f}", f"{positive:.6f}"))
    return len(rows)
