"""The processes of the cells of one group."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

from histoedge.benchmark.matrix import Contender
from histoedge.cell import Cell, CellFailed
from histoedge.cell.parent import Times


class RunningGroup:
    """Cells of one group and their processes. A context manager: on exit it ends all processes.

    ``contenders`` are the cells in their order, replaced as figures are added.
    """

    def __init__(self, contenders: Sequence[Contender], *, timeout_s: float) -> None:
        """Start no process yet.

        Args:
            contenders: the cells.
            timeout_s: limit for one request to a process, in seconds.
        """
        self.contenders = list(contenders)
        self._timeout_s = timeout_s
        self._cells: dict[int, Cell] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for place in list(self._cells):
            self.close(place)

    def running(self, place: int) -> bool:
        """Whether the cell at this place has a process."""
        return place in self._cells

    def load(self, place: int) -> dict[str, Any]:
        """Start the process of a cell, load its file, and return what ``Cell.load`` returns.

        Raises:
            CellFailed: the process does not start or the file cannot be loaded.
        """
        contender = self.contenders[place]
        row = contender.row
        cell = self._cells[place] = Cell(contender.command, threads=row.threads, timeout_s=self._timeout_s)
        return cell.load(contender.path, runtime=row.runtime, batch=row.batch, field_px=row.field_px)

    def cell(self, place: int) -> Cell:
        """Return the process of a cell; start it and load the file if necessary.

        Raises:
            CellFailed: as ``load``.
        """
        if place not in self._cells:
            self.load(place)
        return self._cells[place]

    def add_figures(self, place: int, **figures: Any) -> None:
        """Set fields of the row of a cell."""
        self.contenders[place] = self.contenders[place].with_figures(**figures)

    def add_round(self, place: int, times: Times) -> None:
        """Append the times of a round, and set the peak memory."""
        cell = self.contenders[place].with_figures(peak_rss_bytes=times.peak_rss_bytes)
        rounds, joules = (*cell.rounds_ms, times.ms), (*cell.joules, times.joules)
        self.contenders[place] = dataclasses.replace(cell, rounds_ms=rounds, joules=joules)

    def fail(self, place: int, failure: CellFailed) -> None:
        """Record why a cell has no figures, and end its process."""
        self.contenders[place] = self.contenders[place].failed(failure)
        self.close(place)

    def close(self, place: int) -> None:
        """End the process of a cell, if there is one."""
        cell = self._cells.pop(place, None)
        if cell is not None:
            cell.kill()
