"""The map as a table with WSInfer's columns (Kaczmarzyk et al. 2024), which QuPath's and other tools read."""

import csv
from pathlib import Path

import numpy as np

from histoedge import files
from histoedge.scanning.slidemap import SlideMap

COLUMNS = ("minx", "miny", "width", "height", "prob_Other", "prob_Tumor")


def write_tiles(found: SlideMap, path: Path) -> int:
    """Write a row for each square with tissue, in whole pixels of level 0; returns the number of rows.

    Raises:
        WriteError: the file cannot be written.
    """
    rows, columns = np.nonzero(found.tissue)
    left, top = (np.rint((at + 1) * found.step_level0_px).astype(int) for at in (columns, rows))
    right, bottom = (np.rint((at + 2) * found.step_level0_px).astype(int) for at in (columns, rows))
    probability = found.probability[rows, columns].astype(float)
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for x, y, x1, y1, tumour in zip(left, top, right, bottom, probability, strict=True):
            table.writerow((x, y, x1 - x, y1 - y, f"{1 - tumour:.6f}", f"{tumour:.6f}"))
    return len(rows)
