"""Groups of rows of a results file: rows of the same shape, and rows of the same file on the same runtime."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from histoedge.benchmark import Measurement
from histoedge.config import SCENARIOS


@dataclass(frozen=True)
class Group:
    """Cells that were timed together: with the same threads and shape.

    ``title`` contains what distinguishes it from the other groups of the results; empty for the only group.
    """

    title: str
    rows: tuple[Measurement, ...]

    @property
    def figure(self) -> str:
        """The field that the scenario is about; ``p90_ms`` without a scenario."""
        scenario = self.rows[0].scenario
        return SCENARIOS[scenario].figure if scenario in SCENARIOS else "p90_ms"

    @property
    def of_fields(self) -> bool:
        """Whether calls process fields larger than a patch; their MACs and outputs per call differ from a patch's."""
        return not _typical(self.rows).of_patches


def groups(rows: Iterable[Measurement]) -> list[Group]:
    """Return the groups, in the order of their first rows."""
    members: dict[tuple[int, int, int], list[Measurement]] = {}
    for row in rows:
        members.setdefault((row.threads, row.batch, row.field_px), []).append(row)
    vary = [len({key[part] for key in members}) > 1 for part in range(3)]
    return [Group(_title(_typical(of_group), vary), tuple(of_group)) for of_group in members.values()]


def _typical(rows: Sequence[Measurement]) -> Measurement:
    """Return the first measured row of a group, or the first."""
    return next((row for row in rows if row.measured), rows[0])


def files_on_runtimes(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return the first measured row of every file on a runtime; answers depend only on these two."""
    first: dict[tuple[str, str], Measurement] = {}
    for row in rows:
        if row.measured:
            first.setdefault((row.model, row.runtime), row)
    return list(first.values())


def networks(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return the first row of each folder and recipe; other formats and runtimes have nearly the same answers."""
    first: dict[tuple[str, str], Measurement] = {}
    for row in rows:
        first.setdefault((folder(row), row.recipe), row)
    return list(first.values())


def folder(row: Measurement) -> str:
    """Return the folders in front of the file name; empty if file names alone distinguish the files."""
    return row.model.rpartition("/")[0]


def network_names(rows: Sequence[Measurement]) -> list[str]:
    """Return the recipe of each row, with its folder if the recipes alone are not unique."""
    if len({row.recipe for row in rows}) == len(rows):
        return [row.recipe for row in rows]
    return [f"{folder(row)}/{row.recipe}".lstrip("/") for row in rows]


def _title(row: Measurement, vary: Sequence[bool]) -> str:
    threads_vary, batch_varies, field_varies = vary
    parts = []
    if batch_varies or field_varies:
        shape = f"batch {row.batch}" if row.of_patches else f"{row.field_px} px"
        shape += f", batch {row.batch}" if not row.of_patches and row.batch > 1 else ""
        parts.append(f"{row.scenario} ({shape})" if row.scenario else shape)
    if threads_vary:
        parts.append(f"{row.threads} thread{'s' if row.threads > 1 else ''}")
    return ", ".join(parts)
