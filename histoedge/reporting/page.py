"""The HTML page: one file without network requests; plots are inline SVG, sheets of flips are embedded."""

import base64
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.benchmark import Measurement, Results, is_int8, noise
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval
from histoedge.reporting import facts, groups, plots, subject, tables
from histoedge.reporting.drawing import Figure, colour_of
from histoedge.reporting.notes import SPARSITY_NOTE, notes
from histoedge.reporting.tables import bounds, fixed, kilobytes, megabytes, micros, percent
from histoedge.reporting.template import render

LARGEST_PAGE_BYTES = 3_000_000
PNG = b"\x89PNG\r\n\x1a\n"
LAYERS_MISSING = (
    "Not measured. This requires the weights of the int8 file, which exported files do not contain, and a valid split. "
    "Bench the folder of the run on a machine with the lab (pip install 'histoedge[lab]')."
)
BREAKS = re.compile(r"(?<=[/_-])|(?=\.)")
FEW_ROWS = 40
"""In results with more cells than this, all groups but the first are folded."""


@dataclass(frozen=True)
class Sheet:
    """A picture of flips (``benchmark.sheet``) as a PNG file, with its title."""

    name: str
    png: bytes

    def __post_init__(self) -> None:
        if not self.png.startswith(PNG) or len(self.png) < 24:
            raise DataError(f"{self.name}: not a PNG file; expected a sheet of histoedge bench --flips DIR")

    @property
    def width_px(self) -> int:
        """Width of the picture, from its header (PNG specification, 11.2.2)."""
        width: int = struct.unpack(">I", self.png[16:20])[0]
        return width

    @property
    def source(self) -> str:
        """The picture as a ``data:`` URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def read_sheet(path: Path) -> Sheet:
    """Return a sheet of ``histoedge bench --flips``; its title is the file name.

    Raises:
        DataError: the file is missing, unreadable, or not a PNG file.
    """
    try:
        return Sheet(path.stem.replace("@", " @ "), path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); histoedge bench --flips DIR draws it") from error


def html(results: Results, *, sheets: Sequence[Sheet] = (), name: str | None = None) -> str:
    """Return one self-contained page that opens offline: plots, tables, sheets of flips, environment, explanations.

    Args:
        results: the measurements.
        sheets: pictures of flips to embed. The caller selects them, because published results contain no patches and
            the size of a page is limited.
        name: of the run, used if the results do not record it.

    Raises:
        DataError: the page is larger than ``LARGEST_PAGE_BYTES`` with these sheets.
    """
    rows = results.measurements
    by_shape = groups.groups(rows)
    files = groups.files_on_runtimes(rows)
    several = len(by_shape) > 1
    operating = tables.has_operating_figures(results) or (several and any(row.auc is not None for row in files))
    plan = results.inputs.get("plan")
    page = render(
        "histoedge.reporting",
        title=subject.title(results, name),
        head=subject.head(results, name),
        warnings=facts.warnings(results),
        tiles=_tiles(results),
        groups=[_group(group, folded=number > 0 and len(rows) > FEW_ROWS) for number, group in enumerate(by_shape)],
        paretos=_drawn([plots.pareto_of_latency(group) for group in by_shape]),
        size=plots.pareto_of_size(rows),
        latencies=_drawn([plots.latencies(group) for group in by_shape]),
        rocs=_drawn([plots.roc(files), plots.roc(files, corner=True)]),
        reliabilities=plots.reliabilities(files),
        robustness=plots.robustness(files),
        perturbed=_perturbed([row for row in files if row.robustness]),
        operating=_operating(files, with_auc=several) if operating else None,
        with_auc=not several,
        layers=plots.layer_errors(results.layers),
        without_layers=_without_layers(results),
        sheets=sheets,
        notes=notes(results),
        sparsity_note=SPARSITY_NOTE,
        starts=noise.STARTS,
        environment=_environment(results.environment),
        plan=plan if isinstance(plan, dict) else {},
        data=str(results.inputs.get("data", "")),
    )
    size = len(page.encode())
    if sheets and size > LARGEST_PAGE_BYTES:
        raise DataError(
            f"the page with {len(sheets)} sheets of flips has {size / 1e6:.1f} MB, expected at most "
            f"{LARGEST_PAGE_BYTES / 1e6:.0f} MB; pass fewer sheets"
        )
    return page


def _drawn(figures: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def _tiles(results: Results) -> list[tuple[str, str, str, str]]:
    """Return label, figure, 95 % interval and detail of each headline."""
    rows = results.measurements
    measured = [row for row in rows if row.measured]
    missing = len(rows) - len(measured)
    tiles = [("Cells measured", str(len(measured)), "", f"{missing} failed or unavailable" if missing else "all")]
    synthetic = facts.is_synthetic(results)
    several_threads = len({row.threads for row in measured}) > 1
    for headline in facts.headlines(results):
        row, figure = headline.row, headline.figure
        place = f"{row.model} @ {row.runtime}" + (f", {_threads(row)}" if several_threads else "")
        if headline.name == "fastest":
            tiles.append(("Fastest p50", f"{micros(figure.value)} µs", bounds(figure, micros), place))
        elif headline.name == "shortest":
            tiles.append(("Lowest p50 relative to fp32", f"{_two(figure.value)} ×", bounds(figure, _two), place))
        else:
            label = "Highest AUC" + (", synthetic patches" if synthetic else "")
            patches = f"{row.n_patches or 0:,} {'synthetic' if synthetic else 'test'} patches"
            tiles.append((label, f"{figure.value:.4f}", bounds(figure, fixed), f"{_best(headline)}; {patches}"))
    return tiles


def _threads(row: Measurement) -> str:
    return "1 thread" if row.threads == 1 else f"{row.threads} threads"


def _best(headline: facts.Headline) -> str:
    """Return the file with the highest AUC, or the statement that none is clearly the best."""
    if headline.clearly_best:
        return headline.row.model
    rivals = f"{headline.rivals} of {headline.others} other intervals overlap"
    if headline.others == 1:
        rivals = "the other interval overlaps"
    return f"no file is clearly best: {headline.row.model} is highest, {rivals}"


def _group(group: groups.Group, *, folded: bool) -> dict[str, Any]:
    """Return the table of one shape."""
    measured = [row for row in group.rows if row.measured]
    columns = ["share"] if any(row.peak_share is not None for row in measured) else []
    columns += ["energy"] if any(row.energy_mj is not None for row in measured) else []
    return {
        "title": group.title,
        "folded": folded,
        "of_fields": group.of_fields,
        "columns": columns,
        "rows": [_cells(row, of_fields=group.of_fields) for row in group.rows],
    }


def _cells(row: Measurement, *, of_fields: bool) -> dict[str, Any]:
    return {
        **_name(row),
        "version": ", ".join(text for text in (row.runtime_version, row.kernels) if text),
        "status": row.status,
        "reason": row.reason or "",
        "measured": row.measured,
        "size": (kilobytes(row.size_bytes), _compressed(row)),
        "p50": _cell(row.p50_ms, micros),
        "p90": _cell(row.p90_ms, micros),
        "p99": _cell(row.p99_ms, micros),
        "ratio": _cell(row.p50_ratio, _three),
        "rate": (fixed(row.mpx_per_s, 1), "") if of_fields else _cell(row.patches_per_s, _whole),
        "load": (fixed(row.load_ms, 1), "" if row.first_ms is None else f"first {fixed(row.first_ms, 2)}"),
        "memory": (megabytes(row.peak_rss_bytes), _over_empty(row)),
        "share": (percent(row.peak_share), ""),
        "energy": (fixed(row.energy_mj, 2), ""),
        "auc": _cell(row.auc, fixed),
        "d_auc": _cell(row.d_auc, _change),
    }


def _cell(interval: Interval | None, number: Callable[[float], str]) -> tuple[str, str]:
    """Return a value and its bounds; two empty strings if not measured."""
    return ("", "") if interval is None else (number(interval.value), bounds(interval, number))


def _two(value: float) -> str:
    return fixed(value, 2)


def _three(value: float) -> str:
    return fixed(value, 3)


def _whole(value: float) -> str:
    return fixed(value, 0)


def _change(value: float) -> str:
    return fixed(value, sign="+")


def _operating(rows: Sequence[Measurement], *, with_auc: bool) -> dict[str, Any]:
    """Return the table of decision quality, one row for each file on a runtime, without empty columns."""
    headings = tables.operating_points()
    body = []
    for row in rows:
        cells = [_cell(row.auc, fixed), _cell(row.d_auc, _change)] if with_auc else []
        cells += [_cell(getattr(row, key), _three) for _, key in headings]
        directions = f"{row.flips_to_positive} up, {row.flips_to_negative} down" if row.flips else ""
        cells += [
            _cell(row.brier, fixed),
            (fixed(row.ece), ""),
            ("" if row.flips is None else str(row.flips), directions),
            (tables.p_value(row.mcnemar_p), ""),
            (bounds(row.auc_slides, fixed), ""),
            (bounds(row.d_auc_slides, _change), ""),
        ]
        body.append({**_name(row), "cells": cells})
    names = [*(("AUC", "dAUC") if with_auc else ()), *(name for name, _ in headings)]
    names += ["Brier", "ECE", "Flips", "p", "AUC over slides", "dAUC over slides"]
    used = [place for place in range(len(names)) if any(any(row["cells"][place]) for row in body)]
    for row_cells in body:
        row_cells["cells"] = [row_cells["cells"][place] for place in used]
    return {"headings": [_two_lines(names[place]) for place in used], "rows": body}


def _perturbed(rows: Sequence[Measurement]) -> dict[str, Any] | None:
    """Return the table of the change of AUC by perturbation, with its interval and the opacity of the cell's colour."""
    if not rows:
        return None
    names = tables.perturbations(rows)
    body = []
    for row in rows:
        changes = {robustness.perturbation: robustness.d_auc for robustness in row.robustness or ()}
        cells = []
        for name in names:
            change = changes.get(name)
            certain_loss = change is not None and change.hi < 0
            opacity = round(min(0.55, 0.04 - 10 * change.value), 2) if change and certain_loss else 0.0
            cells.append((*_cell(change, lambda value: fixed(value, 3, sign="+")), opacity))
        body.append({**_name(row), "cells": cells})
    return {"headings": [name.replace("_", " ") for name in names], "rows": body}


def _without_layers(results: Results) -> list[str]:
    """Return why layers were not measured, a sentence for all files with the same reason."""
    if not results.layers:
        return [LAYERS_MISSING] if any(is_int8(row) for row in results.measurements) else []
    models_by_reason: dict[str, list[str]] = {}
    for file in results.layers:
        if not file.layers:
            models_by_reason.setdefault(file.reason or "no reason given", []).append(file.model)
    return [f"Not measured: {', '.join(models)}: {reason}" for reason, models in models_by_reason.items()]


def _name(row: Measurement) -> dict[str, Any]:
    """Return the ``pieces`` of the names, between which a line may break, and the colour of the runtime."""
    pieces = {key: BREAKS.split(getattr(row, key)) for key in ("model", "runtime")}
    return {"pieces": pieces, "colour": colour_of(row.runtime)}


def _two_lines(heading: str) -> tuple[str, str]:
    first, _, rest = heading.partition(" ")
    return first, rest


def _compressed(row: Measurement) -> str:
    zeros = "" if row.zeros is None else f", {row.zeros:.0%} zeros"
    return "" if row.compressed_bytes is None else f"{kilobytes(row.compressed_bytes)} zlib{zeros}"


def _over_empty(row: Measurement) -> str:
    return "" if row.rss_over_empty_bytes is None else f"{megabytes(row.rss_over_empty_bytes)} over empty"


LABELS = {
    "cpu": "CPU",
    "cpu_flags": "CPU flags",
    "cpu_flags_refused": "CPU flags refused by the system",
    "cpus_in_machine": "CPUs in the machine",
    "cpus_allowed": "CPUs allowed",
    "cpu_quota": "CPU quota",
    "cpu_governor": "CPU governor",
    "cpu_turbo": "CPU turbo",
    "cpu_mhz": "CPU MHz",
    "threads_per_core": "Threads per core",
    "numa_nodes": "NUMA nodes",
    "virtual_machine": "Virtual machine",
    "gpus": "GPUs",
    "memory_bytes": "Memory",
    "memory_limit_bytes": "Memory limit",
    "machine": "Architecture",
    "system": "System",
    "python": "Python",
    "histoedge": "histoedge",
    "commit": "Commit of the checkout",
    "date": "Date, UTC",
    "packages": "Packages",
    "integer_peak_gmacs": "Integer peak, GMAC/s by threads",
    "empty_rss_bytes": "Memory of an empty process",
    "decode": "Decoding a patch",
    "load_average_at_start": "Load average (1, 5, 15 min, at start)",
    "load_average": "Load average (1, 5, 15 min, when written)",
}


def _environment(environment: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (label, _entry_text(key, environment[key]))
        for key, label in LABELS.items()
        if environment.get(key) not in (None, [], {})
    ]


def _entry_text(key: str, value: Any) -> str:
    if key == "empty_rss_bytes" and isinstance(value, int):
        return f"{megabytes(value)} MB"
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if key == "decode" and isinstance(value, dict):
        times = {name: figures.get("p50_ms") for name, figures in value.items() if isinstance(figures, dict)}
        return ", ".join(f"{name} {micros(ms)} µs" for name, ms in times.items() if isinstance(ms, float | int))
    if isinstance(value, dict):
        return ", ".join(
            f"{name}{':' if isinstance(entry, dict) else ''} {_entry_text('', entry)}" for name, entry in value.items()
        )
    if isinstance(value, list):
        return ", ".join(_entry_text("", entry) for entry in value)
    return str(value)
