"""Finished cells of a benchmark on disk: a killed benchmark resumes from them."""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.benchmark import columns
from histoedge.benchmark.matrix import Contender
from histoedge.benchmark.result_row import Measurement
from histoedge.edge.errors import DataError

INPUTS = "inputs.json"
CELLS = "cells"  # the array of a times file that contains rows and energy as JSON


class FinishedCells:
    """A folder with the times of finished groups and the answers of finished cells, all from the same inputs.

    Each file is written under a temporary name and renamed. A file that cannot be read is measured again. A group is
    stored as a whole, because the rounds of two starts of the benchmark were not interleaved.
    """

    def __init__(self, folder: Path | None, inputs: dict[str, Any]) -> None:
        """Open the folder, and empty it if its content belongs to other inputs.

        Args:
            folder: created if missing. None: nothing is stored.
            inputs: everything that the figures depend on, as JSON.

        Raises:
            WriteError: the folder cannot be written.
        """
        self._folder = folder
        if folder is None:
            return
        stored: Any = None
        with suppress(OSError, ValueError):
            stored = json.loads((folder / INPUTS).read_text())
        if stored != inputs:
            self.discard()
            files.write_json(folder / INPUTS, inputs)

    def discard(self) -> None:
        """Remove all stored files: after the results are written, or because the inputs changed."""
        if self._folder is None or not self._folder.is_dir():
            return
        files.sweep(self._folder)
        for pattern in (INPUTS, "times.*.npz", "answers.*.npy"):
            for file in self._folder.glob(pattern):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # the folder may contain other files
            self._folder.rmdir()

    def store_group(self, number: int, group: Sequence[Contender]) -> None:
        """Store rows and times of a group, including failed cells."""
        if self._folder is None:
            return
        cells = {
            "rows": [columns.as_columns(contender.row) for contender in group],
            "joules": [contender.joules for contender in group],
        }
        arrays: dict[str, Any] = {CELLS: np.array(json.dumps(cells))}
        arrays |= {
            f"{place}.{round_}": times
            for place, contender in enumerate(group)
            for round_, times in enumerate(contender.rounds_ms)
        }
        with files.replacing(self._folder / f"times.{number}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    def restore_group(self, number: int, group: Sequence[Contender]) -> list[Contender] | None:
        """Return the cells of a group with their stored rows and times; None if there are none."""
        if self._folder is None:
            return None
        try:
            path = self._folder / f"times.{number}.npz"
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                cells = json.loads(str(arrays[CELLS]))
                rows = [columns.from_columns(Measurement, row) for row in cells["rows"]]
                times: list[list[np.ndarray]] = [[] for _ in rows]
                for name in arrays.files:
                    if name != CELLS:
                        times[int(name.partition(".")[0])].append(arrays[name])
        except (OSError, ValueError, KeyError, TypeError, EOFError, DataError, zipfile.BadZipFile):
            return None
        if len(rows) != len(group):
            return None
        return [
            dataclasses.replace(contender, row=row, rounds_ms=tuple(rounds), joules=tuple(joules))
            for contender, row, rounds, joules in zip(group, rows, times, cells["joules"], strict=True)
        ]

    def store_answers(self, number: int, logits: np.ndarray, perturbation: str | None = None) -> None:
        """Store the logits (n,) of the cell of this number, on unchanged patches or after a perturbation."""
        if self._folder is not None:
            path = self._folder / _answers_name(number, perturbation)
            with files.replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, logits)

    def answers(self, number: int, perturbation: str | None = None) -> np.ndarray | None:
        """Return the logits that ``store_answers`` stored; None if there are none."""
        if self._folder is None:
            return None
        try:
            return np.asarray(np.load(self._folder / _answers_name(number, perturbation), allow_pickle=False))
        except (OSError, ValueError, EOFError):
            return None


def _answers_name(number: int, perturbation: str | None) -> str:
    return f"answers.{number}.npy" if perturbation is None else f"answers.{number}.{perturbation}.npy"
