"""The outcome of each slide of a scan, and the table ``slides.csv`` of all outcomes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge import files
from histoedge.edge.errors import HistoedgeError
from histoedge.scanning import summary
from histoedge.scanning.slide import name_of

PAGE = "page.html"
COLUMNS = ("slide", "status", "tissue_mm2", "positive_mm2", "foci", "largest_focus_mm", "seconds", "reason")


class SlidesFailed(HistoedgeError):
    """Some slides could not be scanned; the others are done."""


@dataclass(frozen=True, kw_only=True)
class SlideOutcome:
    """One slide: ``status`` is ``done``, ``kept`` (scanned by an earlier command) or ``failed``, with a reason."""

    slide: Path
    folder: Path
    status: str
    summary: dict[str, Any] | None = None
    reason: str = ""

    def line(self) -> str:
        """Return one line: the summary sentence and the path of the page, or the reason of a failure."""
        if self.summary is None:
            return f"{name_of(self.slide)}: {self.reason}"
        line = f"{name_of(self.slide)}: {summary.sentence(self.summary)}; {self.folder / PAGE}"
        slower = self.summary["map"].get("computed") == "patches"  # maps of earlier versions do not record it
        return f"{line}; computed {summary.computed(self.summary)}" if slower else line

    def as_json(self) -> dict[str, Any]:
        """Return the outcome and its summary as a JSON object."""
        return {
            "slide": str(self.slide),
            "folder": str(self.folder),
            "status": self.status,
            "reason": self.reason,
            "summary": self.summary,
        }

    def row(self) -> dict[str, Any]:
        """Return the slide's row of ``slides.csv``."""
        figures: dict[str, Any] = self.summary or {}
        return {
            "slide": name_of(self.slide),
            "status": self.status,
            **{key: figures.get(key) for key in ("tissue_mm2", "positive_mm2", "foci", "largest_focus_mm")},
            "seconds": figures.get("seconds", {}).get("by the clock"),
            "reason": self.reason,
        }


def raise_for_failed(outcomes: Sequence[SlideOutcome]) -> None:
    """Raise ``SlidesFailed`` if a slide failed; its message lists the reason of each failed slide."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if not failed:
        return
    message = "; ".join(outcome.reason for outcome in failed)
    if len(outcomes) > 1:
        message = f"{len(failed)} of {len(outcomes)} slides failed, the others are done: {message}"
    raise SlidesFailed(message)


def write_outcomes(path: Path, outcomes: Sequence[SlideOutcome]) -> None:
    """Write ``slides.csv``, one row per slide.

    Raises:
        WriteError: the file cannot be written.
    """
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(outcome.row() for outcome in outcomes)
