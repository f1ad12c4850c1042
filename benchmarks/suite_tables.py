"""The suite's results as Markdown: a table of the files, then a table for each scenario, threads side by side."""

from collections import Counter
from collections.abc import Sequence

from markdown_table import markdown_table

from histoedge.benchmark import Measurement
from histoedge.config import SCENARIOS
from histoedge.edge.patches import PATCH_PX
from histoedge.reporting.notes import UNSETTLED_MARK
from histoedge.reporting.tables import kilobytes, micros_with_bounds, per_second, with_bounds

FIGURES = {"p90_ms": "p90 us", "p99_ms": "p99 us", "patches_per_s": "patches/s"}
NOTE = (
    "Each cell runs in a process of its own, in interleaved rounds. p50 and the scenario's figure (as in MLPerf: p90 "
    "of single-stream, p99 of multi-stream, throughput of offline) have 95 % bootstrap intervals. The ratio of p50 is "
    "to the network's own fp32 file of the same format on the same runtime. AUC has DeLong's interval; dAUC is paired, "
    "against the same fp32 file. Memory is the peak minus that of an empty process."
)

Cell = tuple[str, str]
"""Labels of a file and of the runtime with its kernels."""


def parts(measurements: Sequence[Measurement]) -> list[str]:
    """Return Markdown blocks: files, scenarios, notes."""
    measured = [row for row in measurements if row.measured]
    tables = []
    if measured:
        first = (measured[0].threads, measured[0].batch, measured[0].field_px)
        tables.append(_files([row for row in measured if (row.threads, row.batch, row.field_px) == first]))
    for shape in dict.fromkeys((row.batch, row.field_px) for row in measured):
        tables += _scenario([row for row in measured if (row.batch, row.field_px) == shape])
    return [*tables, _notes(measurements)]


def _files(rows: Sequence[Measurement]) -> str:
    head = ["file", "runtime", "size kB", "zlib kB", "MMAC", "load ms", "first ms", "memory MB", "integer peak"]
    head += ["AUC", "dAUC"]
    lines = []
    for row in rows:
        cells = [*_cell(row), kilobytes(row.size_bytes), kilobytes(row.compressed_bytes)]
        cells.append("" if row.macs is None else f"{row.macs / 1e6:.1f}")
        cells += ["" if value is None else f"{value:,.1f}" for value in (row.load_ms, row.first_ms)]
        cells.append("" if row.rss_over_empty_bytes is None else f"{row.rss_over_empty_bytes / 1e6:,.0f}")
        cells.append("" if row.peak_share is None else f"{row.peak_share:.0%}")
        cells += [with_bounds(row.auc), with_bounds(row.d_auc, sign="+")]
        lines.append(cells)
    return markdown_table(head, lines, text=head[:2])


def _scenario(rows: Sequence[Measurement]) -> list[str]:
    """Return a title and a table with a row for each file on a runtime, threads side by side."""
    name, batch, field_px = rows[0].scenario, rows[0].batch, rows[0].field_px
    figure = SCENARIOS[name].figure if name in SCENARIOS else "p90_ms"
    threads = sorted({row.threads for row in rows})
    head = ["file", "runtime"]
    for count in threads:
        of = f", {count} thread" + ("s" if count > 1 else "")
        head += [f"p50 us{of}", f"{FIGURES[figure]}{of}", f"p50 / fp32{of}"]
    at = {(_cell(row), row.threads): row for row in rows}
    lines = []
    for cell in dict.fromkeys(_cell(row) for row in rows):
        cells = [*cell]
        for count in threads:
            cells += _speed(at.get((cell, count)), figure)
        lines.append(cells)
    noun = "patch" if field_px == PATCH_PX else "field"
    plural = "" if batch == 1 else "es" if noun == "patch" else "s"
    title = f"### {name or 'unnamed'}: {batch} {noun}{plural} of {field_px} x {field_px} px per call\n"
    return [title, markdown_table(head, lines, text=head[:2])]


def _speed(row: Measurement | None, figure: str) -> list[str]:
    if row is None or row.p50_ms is None:
        return ["", "", ""]
    mark = UNSETTLED_MARK if row.status == "unsettled" else ""
    if figure == "patches_per_s":
        rate = row.patches_per_s
        shown = "" if rate is None else f"{per_second(row)} [{rate.lo:,.0f}, {rate.hi:,.0f}]"
    else:
        shown = micros_with_bounds(getattr(row, figure))
    ratio = with_bounds(row.p50_ratio, digits=3)
    return [micros_with_bounds(row.p50_ms) + mark, shown, ratio]


def _notes(rows: Sequence[Measurement]) -> str:
    missing = Counter((row.runtime, row.status, row.reason) for row in rows if not row.measured)
    notes = [f"{count} cells {status} on {runtime}: {reason}" for (runtime, status, reason), count in missing.items()]
    unsettled = sum(row.status == "unsettled" for row in rows)
    if unsettled:
        notes.append(f"{UNSETTLED_MARK} {unsettled} cells did not settle: read their p50 with its interval.")
    counts = sorted({row.n_patches for row in rows if row.measured and row.n_patches is not None})
    patches = "; ".join(f"{count:,} test patches" for count in counts)
    return "\n".join(f"- {note}" for note in [*notes, f"{patches}. {NOTE}" if patches else NOTE]) + "\n"


def _cell(row: Measurement) -> Cell:
    file = row.model.rpartition("/")[2]
    return f"{row.network or row.model} {file}".strip(), f"{row.runtime} {row.runtime_version or ''}".strip()
