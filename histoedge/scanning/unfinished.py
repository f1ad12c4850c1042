"""The map on disk while it is computed, from which an interrupted scan resumes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.scanning.grid import Grid

STATE = "state"  # the folder of an unfinished map
LOGITS, DONE = "logits.npy", "done.npy"  # the logits of all squares, and which fields are finished


class Unfinished:
    """Logits and finished fields of a map, memory-mapped files.

    A field's logits are written before it is marked as done, so a killed process loses unfinished fields only.
    """

    def __init__(self, folder: Path, grid: Grid, inputs: dict[str, Any]) -> None:
        """Open the unfinished map of these inputs; create it if ``folder`` has none or one of other inputs."""
        self._folder = folder / STATE
        inputs_file = self._folder / "inputs.json"
        if not inputs_file.is_file() or json.loads(inputs_file.read_bytes()) != json.loads(json.dumps(inputs)):
            shutil.rmtree(self._folder, ignore_errors=True)
            files.make_folder(self._folder)
            logits = np.full((grid.rows, grid.columns), np.nan, np.float32)
            np.save(self._folder / LOGITS, logits)
            np.save(self._folder / DONE, np.zeros(grid.field_columns * -(-grid.rows // grid.per_field), bool))
            files.write_json(inputs_file, inputs)  # last: without it the other two files are ignored
        self.logits = self._open(LOGITS)
        self.done = self._open(DONE)
        self._grid = grid

    def _open(self, name: str) -> np.ndarray:
        path = self._folder / name
        opened: np.ndarray = np.load(path, mmap_mode="r+", allow_pickle=False)
        return opened

    def put(self, number: int, logits: np.ndarray) -> None:
        """Store a field's logits, float32; rows and columns beyond the map are dropped."""
        rows, columns = self._grid.window(number)
        self.logits[rows, columns] = logits[: rows.stop - rows.start, : columns.stop - columns.start]
        self.done[number] = True


def discard(folder: Path) -> None:
    """Remove the unfinished map in ``folder``, once the finished one is written."""
    shutil.rmtree(folder / STATE, ignore_errors=True)
