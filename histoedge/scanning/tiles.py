"""The map as a table with the columns of WSInfer (Kaczmarzyk et al. 2024), which QuPath and other tools read."""

import csv
from pathlib import Path

import numpy as np

from histoedge import files
from histoedge.scanning.slidemap import SlideMap

COLUMNS = ("minx", "miny", "width", "height", "prob_Other", "prob_Tumor")


def write_tiles(slide_map: SlideMap, path: Path) -> int:
    """Write one row per square with tissue, in whole pixels of level 0; return the number of rows.

    Raises:
        WriteError: the file cannot be written.
    """
    rows, columns = np.nonzero(slide_map.tissue)
    left, top = (np.rint((place + 1) * slide_map.step_level0_px).astype(int) for place in (columns, rows))
    right, bottom = (np.rint((place + 2) * slide_map.step_level0_px).astype(int) for place in (columns, rows))
    probability = slide_map.probability[rows, columns].astype(float)
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for x, y, x1, y1, tumour in zip(left, top, right, bottom, probability, strict=True):
            table.writerow((x, y, x1 - x, y1 - y, f"{1 - tumour:.6f}", f"{tumour:.6f}"))
    return len(rows)
