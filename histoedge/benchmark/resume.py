"""What a benchmark has finished, on disk, so that a killed one goes on where it was."""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.benchmark.matrix import Contender
from histoedge.benchmark.results import Measurement

INPUTS = "inputs.json"


class FinishedCells:
    """A folder with the times of finished groups and the answers of finished cells, all from the same inputs.

    Each file is written under another name and renamed; one that cannot be read is measured anew. A group is kept
    whole, because rounds of two starts of the benchmark were not interleaved.
    """

    def __init__(self, folder: Path | None, inputs: dict[str, Any]) -> None:
        """Start or go on; without a folder nothing is kept.

        Args:
            folder: made where it is missing, emptied where it holds what came from other inputs.
            inputs: whatever the figures depend on, as JSON.

        Raises:
            WriteError: the place cannot be written.
        """
        self._folder = folder
        if folder is None:
            return
        found: Any = None
        with suppress(OSError, ValueError):
            found = json.loads((folder / INPUTS).read_text())
        if found != inputs:
            self.discard()
            files.write_json(folder / INPUTS, inputs)

    def discard(self) -> None:
        """Remove what was kept: it has become a results file, or belongs to other inputs."""
        if self._folder is None or not self._folder.is_dir():
            return
        files.sweep(self._folder)
        for pattern in (INPUTS, "times.*.npz", "answers.*.npy"):
            for file in self._folder.glob(pattern):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # something of somebody else's lies there too
            self._folder.rmdir()

    def keep_group(self, number: int, group: Sequence[Contender]) -> None:
        """Rows and times of one group, those that failed too."""
        if self._folder is None:
            return
        rows = [dataclasses.asdict(one.row) for one in group]
        arrays: dict[str, Any] = {
            f"{at}.{k}": times for at, one in enumerate(group) for k, times in enumerate(one.rounds_ms)
        }
        joules = [one.joules for one in group]
        with files.replacing(self._folder / f"times.{number}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, told=np.array(json.dumps({"rows": rows, "joules": joules})), **arrays)

    def restore_group(self, number: int, group: Sequence[Contender]) -> bool:
        """Give the cells of a group what was kept of it; whether there was anything."""
        if self._folder is None:
            return False
        try:
            place = self._folder / f"times.{number}.npz"
            with open(place, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                told = json.loads(str(arrays["told"]))
                rows = [Measurement(**row) for row in told["rows"]]
                times: list[list[np.ndarray]] = [[] for _ in rows]
                for name in arrays.files:
                    if name != "told":
                        times[int(name.partition(".")[0])].append(arrays[name])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return False
        if len(rows) != len(group):
            return False
        for one, row, rounds, joules in zip(group, rows, times, told["joules"], strict=True):
            one.row, one.rounds_ms, one.joules = row, rounds, joules
        return True

    def keep_answers(self, number: int, logits: np.ndarray, perturbation: str | None = None) -> None:
        """The logits (n,) of the cell of this number, of the patches as they are or after a perturbation."""
        if self._folder is not None:
            place = self._folder / _answers_name(number, perturbation)
            with files.replacing(place) as temporary, open(temporary, "wb") as file:
                np.save(file, logits)

    def answers(self, number: int, perturbation: str | None = None) -> np.ndarray | None:
        """What ``keep_answers`` kept."""
        if self._folder is None:
            return None
        try:
            return np.asarray(np.load(self._folder / _answers_name(number, perturbation), allow_pickle=False))
        except (OSError, ValueError, EOFError):
            return None


def _answers_name(number: int, perturbation: str | None) -> str:
    return f"answers.{number}.npy" if perturbation is None else f"answers.{number}.{perturbation}.npy"
