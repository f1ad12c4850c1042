"""The HTML page: one file, no request to anywhere, the plots as inline SVG, the sheets of flips as data."""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.benchmark import Measurement, Results, is_int8
from histoedge.edge.errors import DataError
from histoedge.reporting import facts, groups, plots, subject, tables
from histoedge.reporting.drawing import Figure, colour_of
from histoedge.reporting.notes import notes
from histoedge.reporting.tables import between, fixed, kilobytes, megabytes, micros, percent
from histoedge.reporting.template import render

LARGEST_PAGE_BYTES = 3_000_000
PNG = b"\x89PNG\r\n\x1a\n"
LAYERS_MISSING = (
    "Not measured: it takes the weights that an int8 file was made from, which exported files do not carry, and a "
    "valid split; bench the folder of the run itself, where the lab is installed (pip install 'histoedge[lab]')."
)
BREAKS = re.compile(r"(?<=[/_-])|(?=\.)")
FEW_ROWS = 40
"""Groups of more cells than this are folded, all but the first."""


@dataclass(frozen=True)
class Sheet:
    """A picture to be shown whole: ``bench.sheet.flips`` as a PNG file, and what to call it."""

    name: str
    png: bytes

    def __post_init__(self) -> None:
        if not self.png.startswith(PNG) or len(self.png) < 24:
            raise DataError(f"{self.name}: not a PNG file; histoedge bench --flips DIR draws such sheets")

    @property
    def width_px(self) -> int:
        """Of the picture, from its header (PNG specification, 11.2.2)."""
        width: int = struct.unpack(">I", self.png[16:20])[0]
        return width

    @property
    def source(self) -> str:
        """The picture as a ``data:`` address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def read_sheet(path: Path) -> Sheet:
    """A sheet that ``histoedge bench --flips`` drew, called after its file.

    Raises:
        DataError: missing, unreadable, or no PNG file.
    """
    try:
        return Sheet(path.stem.replace("@", " @ "), path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); histoedge bench --flips DIR draws it") from error


def html(results: Results, *, sheets: Sequence[Sheet] = (), name: str | None = None) -> str:
    """One self-contained page that opens offline: plots, tables, sheets of flips, the environment, how to read it.

    Args:
        results: what was measured.
        sheets: pictures of flips to be shown with it. They are given, not found: results that are passed on hold no
            patches, and how many pictures a page can carry is for whoever makes it to say.
        name: of the run, for its head, where the results do not tell it.

    Raises:
        DataError: with these sheets the page is larger than ``LARGEST_PAGE_BYTES``.
    """
    rows = results.measurements
    found = groups.groups(rows)
    judged = groups.files_on_runtimes(rows)
    several = len(found) > 1
    operating = tables.has_operating_figures(results) or (several and any(row.auc is not None for row in judged))
    plan = results.inputs.get("plan")
    page = render(
        "histoedge.reporting",
        title=subject.title(results, name),
        head=subject.head(results, name),
        warnings=facts.warnings(results),
        tiles=_tiles(results),
        groups=[_group(group, folded=number > 0 and len(rows) > FEW_ROWS) for number, group in enumerate(found)],
        paretos=_drawn([plots.pareto_of_latency(group) for group in found]),
        size=plots.pareto_of_size(rows),
        latencies=_drawn([plots.latencies(group) for group in found]),
        rocs=_drawn([plots.roc(judged), plots.roc(judged, corner=True)]),
        reliabilities=plots.reliabilities(judged),
        robustness=plots.robustness(judged),
        perturbed=_perturbed([row for row in judged if row.robustness]),
        operating=_operating(judged, with_auc=several) if operating else None,
        with_auc=not several,
        layers=plots.layer_errors(results.layers),
        without_layers=_without_layers(results),
        sheets=sheets,
        notes=notes(results),
        environment=_environment(results.environment),
        plan=plan if isinstance(plan, dict) else {},
        data=str(results.inputs.get("data", "")),
    )
    size = len(page.encode())
    if sheets and size > LARGEST_PAGE_BYTES:
        raise DataError(
            f"the page has {size / 1e6:.1f} MB with {len(sheets)} sheets of flips, at most "
            f"{LARGEST_PAGE_BYTES / 1e6:.0f} MB are wanted; give fewer of them"
        )
    return page


def _drawn(figures: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def _tiles(results: Results) -> list[tuple[str, str, str, str]]:
    """Label, figure, its 95 % interval and detail of what to see first."""
    rows = results.measurements
    measured = [row for row in rows if row.measured]
    others = len(rows) - len(measured)
    of_all = f"{others} failed or unavailable" if others else "all of them"
    tiles = [("Cells measured", str(len(measured)), "", of_all)]
    patches = "synthetic patches" if facts.is_synthetic(results) else "test patches"
    for one in facts.headlines(results):
        told, threads = one.row, {row.threads for row in measured}
        place = f"{told.model} @ {told.runtime}" + (f", {told.threads} threads" if len(threads) > 1 else "")
        if one.name == "fastest":
            tiles.append(("Fastest p50", f"{micros(one.value)} µs", between(micros(one.lo), micros(one.hi)), place))
        elif one.name == "shortest":
            bounds = between(fixed(one.lo, 2), fixed(one.hi, 2))
            tiles.append(("Shortest against fp32", f"{one.value:.2f} ×", bounds, place))
        else:
            bounds = between(fixed(one.lo), fixed(one.hi))
            label = "Highest AUC" + (", of synthetic patches" if facts.is_synthetic(results) else "")
            tiles.append((label, f"{one.value:.4f}", bounds, f"{_best(one)}; {told.n_patches or 0:,} {patches}"))
    return tiles


def _best(one: facts.Headline) -> str:
    """Of which file the highest AUC is, or that it is not known to be the best."""
    if one.clearly_best:
        return one.row.model
    overlapping = "the other's interval overlaps" if one.others == 1 else f"{one.rivals} of {one.others} others overlap"
    return f"no file is clearly best: {one.row.model} is highest, {overlapping}"


def _group(group: groups.Group, *, folded: bool) -> dict[str, Any]:
    """The table of one shape."""
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
    patches = tables.per_second(row), between(_count(row.patches_per_s_lo), _count(row.patches_per_s_hi))
    return {
        **_name(row),
        "path": ", ".join(text for text in (row.runtime_version, row.kernels) if text),
        "status": row.status,
        "reason": row.reason or "",
        "measured": row.measured,
        "size": (kilobytes(row.size_bytes), _compressed(row)),
        "p50": (micros(row.p50_ms), between(micros(row.p50_lo), micros(row.p50_hi))),
        "p90": (micros(row.p90_ms), between(micros(row.p90_lo), micros(row.p90_hi))),
        "p99": (micros(row.p99_ms), between(micros(row.p99_lo), micros(row.p99_hi))),
        "ratio": (fixed(row.p50_ratio, 3), between(fixed(row.p50_ratio_lo, 3), fixed(row.p50_ratio_hi, 3))),
        "rate": (fixed(row.mpx_per_s, 1), "") if of_fields else patches,
        "load": (fixed(row.load_ms, 1), "" if row.first_ms is None else f"first {fixed(row.first_ms, 2)}"),
        "memory": (megabytes(row.peak_rss_bytes), _over_empty(row)),
        "share": (percent(row.peak_share), ""),
        "energy": (fixed(row.energy_mj, 2), ""),
        "auc": _auc(row),
        "d_auc": _d_auc(row),
    }


def _auc(row: Measurement) -> tuple[str, str]:
    return fixed(row.auc), between(fixed(row.auc_lo), fixed(row.auc_hi))


def _d_auc(row: Measurement) -> tuple[str, str]:
    return fixed(row.d_auc, sign="+"), between(fixed(row.d_auc_lo, sign="+"), fixed(row.d_auc_hi, sign="+"))


def _operating(rows: Sequence[Measurement], *, with_auc: bool) -> dict[str, Any]:
    """The table of what a decision is worth, once for each file on a runtime, without columns that nobody fills."""
    headings = tables.operating_points()
    body = []
    for row in rows:
        points = []
        for _, key in headings:
            value, lo, hi = (fixed(getattr(row, f"{key}{bound}"), 3) for bound in ("", "_lo", "_hi"))
            points.append((value, between(lo, hi)))
        rest = [(fixed(row.brier), between(fixed(row.brier_lo), fixed(row.brier_hi))), (fixed(row.ece), "")]
        turned = f"{row.flips_to_positive} up, {row.flips_to_negative} down" if row.flips else ""
        rest += [("" if row.flips is None else str(row.flips), turned), (tables.p_value(row.mcnemar_p), "")]
        slides = between(fixed(row.auc_slides_lo), fixed(row.auc_slides_hi))
        change = between(fixed(row.d_auc_slides_lo, sign="+"), fixed(row.d_auc_slides_hi, sign="+"))
        told = [_auc(row), _d_auc(row)] if with_auc else []
        body.append({**_name(row), "cells": [*told, *points, *rest, (slides, ""), (change, "")]})
    names = [*(("AUC", "dAUC") if with_auc else ()), *(name for name, _ in headings)]
    names += ["Brier", "ECE", "Flips", "p", "AUC over slides", "dAUC over slides"]
    used = [place for place in range(len(names)) if any(any(one["cells"][place]) for one in body)]
    for one in body:
        one["cells"] = [one["cells"][place] for place in used]
    return {"headings": [_two_lines(names[place]) for place in used], "rows": body}


def _perturbed(rows: Sequence[Measurement]) -> dict[str, Any] | None:
    """The table of what each perturbation costs: change of AUC, its interval, and how dark to paint the cell."""
    if not rows:
        return None
    names = tables.perturbations(rows)
    body = []
    for row in rows:
        found = {one.perturbation: one for one in row.robustness or ()}
        cells = []
        for name in names:
            one = found.get(name)
            if one is None:
                cells.append(("", "", 0.0))
                continue
            bounds = between(fixed(one.d_auc_lo, 3, sign="+"), fixed(one.d_auc_hi, 3, sign="+"))
            lost = one.d_auc_hi < 0  # more than noise
            cells.append(
                (fixed(one.d_auc, 3, sign="+"), bounds, round(min(0.55, 0.04 - 10 * one.d_auc), 2) if lost else 0.0)
            )
        body.append({**_name(row), "cells": cells})
    return {"headings": [name.replace("_", " ") for name in names], "rows": body}


def _without_layers(results: Results) -> list[str]:
    """Why the errors of single layers are not told, a sentence for all files of one reason."""
    if not results.layers:
        return [LAYERS_MISSING] if any(is_int8(row) for row in results.measurements) else []
    without: dict[str, list[str]] = {}
    for file in results.layers:
        if not file.layers:
            without.setdefault(file.reason or "no reason given", []).append(file.model)
    return [f"Not measured: {', '.join(models)}: {reason}" for reason, models in without.items()]


def _name(row: Measurement) -> dict[str, Any]:
    """``pieces`` of the names: where a line may end."""
    pieces = {key: BREAKS.split(getattr(row, key)) for key in ("model", "runtime")}
    return {"pieces": pieces, "colour": colour_of(row.runtime)}


def _two_lines(heading: str) -> tuple[str, str]:
    first, _, rest = heading.partition(" ")
    return first, rest


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _compressed(row: Measurement) -> str:
    zeros = "" if row.zeros is None else f", {row.zeros:.0%} zeros"
    return "" if row.compressed_bytes is None else f"{kilobytes(row.compressed_bytes)} zlib{zeros}"


def _over_empty(row: Measurement) -> str:
    return "" if row.rss_over_empty_bytes is None else f"{megabytes(row.rss_over_empty_bytes)} over empty"


WORDS = {
    "cpu": "CPU",
    "cpu_flags": "CPU flags",
    "cpu_flags_refused": "CPU flags that the system refuses",
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
    "date": "Day, UTC",
    "packages": "Packages",
    "integer_peak_gmacs": "Integer peak, GMAC/s by threads",
    "empty_rss_bytes": "Memory of an empty process",
    "decode": "Decoding a patch",
    "load_average_at_start": "Load average (1, 5, 15 min, at start)",
    "load_average": "Load average (1, 5, 15 min, when written)",
}


def _environment(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(word, _spoken(key, found[key])) for key, word in WORDS.items() if found.get(key) not in (None, [], {})]


def _spoken(key: str, value: Any) -> str:
    if key == "empty_rss_bytes" and isinstance(value, int):
        return f"{megabytes(value)} MB"
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if key == "decode" and isinstance(value, dict):
        times = {name: one.get("p50_ms") for name, one in value.items() if isinstance(one, dict)}
        return ", ".join(f"{name} {micros(ms)} µs" for name, ms in times.items() if isinstance(ms, float | int))
    if isinstance(value, dict):
        return ", ".join(
            f"{name}{':' if isinstance(one, dict) else ''} {_spoken('', one)}" for name, one in value.items()
        )
    if isinstance(value, list):
        return ", ".join(_spoken("", one) for one in value)
    return str(value)
