"""Which rows of a results file belong together: those of one shape, and those of one file on one runtime."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from histoedge.benchmark import Measurement
from histoedge.config import SCENARIOS
from histoedge.data import PATCH_PX


@dataclass(frozen=True)
class Group:
    """Cells that were timed together: of the same threads and shape.

    ``title`` tells what sets it apart from the other groups of the results; empty where it is the only one.
    """

    title: str
    rows: tuple[Measurement, ...]

    @property
    def figure(self) -> str:
        """The key of a measurement that its scenario is about; ``p90_ms`` where it has no scenario."""
        scenario = self.rows[0].scenario
        return SCENARIOS[scenario].figure if scenario in SCENARIOS else "p90_ms"

    @property
    def of_fields(self) -> bool:
        """Whether calls are given more than patches: their MACs and outputs per call are not those of a patch."""
        return self.rows[0].field_px != PATCH_PX


def groups(rows: Iterable[Measurement]) -> list[Group]:
    """The groups, in the order of their first rows."""
    found: dict[tuple[int, int, int], list[Measurement]] = {}
    for row in rows:
        found.setdefault((row.threads, row.batch, row.field_px), []).append(row)
    vary = [len({key[part] for key in found}) > 1 for part in range(3)]
    return [Group(_title(members[0], vary), tuple(members)) for members in found.values()]


def files_on_runtimes(rows: Iterable[Measurement]) -> list[Measurement]:
    """The first measured row of every file on a runtime: on that alone its answers depend."""
    found: dict[tuple[str, str], Measurement] = {}
    for row in rows:
        if row.measured:
            found.setdefault((row.model, row.runtime), row)
    return list(found.values())


def networks(rows: Iterable[Measurement]) -> list[Measurement]:
    """Of each folder and recipe the first row: files of other formats, and other runtimes, answer nearly alike."""
    found: dict[tuple[str, str], Measurement] = {}
    for row in rows:
        found.setdefault((folder(row), row.recipe), row)
    return list(found.values())


def folder(row: Measurement) -> str:
    """What precedes the file's own name; empty where the results need no more than that to tell files apart."""
    return row.model.rpartition("/")[0]


def network_names(rows: Sequence[Measurement]) -> list[str]:
    """The recipe of each, with its folder where the recipes alone do not tell them apart."""
    if len({row.recipe for row in rows}) == len(rows):
        return [row.recipe for row in rows]
    return [f"{folder(row)}/{row.recipe}".lstrip("/") for row in rows]


def _title(row: Measurement, vary: Sequence[bool]) -> str:
    threads_vary, batch_varies, field_varies = vary
    parts = []
    if batch_varies or field_varies:
        shape = f"{row.field_px} px" if row.field_px != PATCH_PX else f"batch {row.batch}"
        shape += f", batch {row.batch}" if row.field_px != PATCH_PX and row.batch > 1 else ""
        parts.append(f"{row.scenario} ({shape})" if row.scenario else shape)
    if threads_vary:
        parts.append(f"{row.threads} thread{'s' if row.threads > 1 else ''}")
    return ", ".join(parts)
