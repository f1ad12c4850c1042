"""Results as Markdown and CSV, and the notation of figures."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from histoedge.benchmark import Measurement, Results, columns
from histoedge.benchmark.quality import PERCENTS
from histoedge.metrics import Interval
from histoedge.reporting import facts, groups
from histoedge.reporting.notes import CALIBRATION_NOTE, notes
from histoedge.reporting.short import signed

CURVES = ("ms_quantiles", "roc", "reliability", "robustness")
"""Columns of a measurement that are not single figures."""

TEXT_COLUMNS = ("model", "runtime", "kernels", "scenario", "status", "reference")
"""Left-aligned in Markdown; all other columns are right-aligned."""

Column = tuple[str, Callable[[Measurement], str]]
"""A heading, and the function that returns the cell of a row."""


def markdown(results: Results) -> str:
    """Return Markdown tables with all intervals: cost, quality, robustness, then the notes.

    Quality and robustness have one row for each file on a runtime, because they do not depend on the shape of a call.
    The columns of each table have a fixed order; columns without any value are omitted.
    """
    rows = results.measurements
    parts = [_table(_identity(rows) + _cost(rows), rows)]
    files = groups.files_on_runtimes(rows)
    with_quality = has_operating_figures(results)
    if with_quality:
        parts.append(_table(_quality(files), files))
    robust = [row for row in files if row.robustness]
    if robust:
        parts.append("dAUC after each perturbation of the test patches, against the same file on unchanged patches:\n")
        parts.append(_table(_robustness(robust), robust))
    lines = [f"warning: {line}" for line in facts.warnings(results)] + notes(results)
    lines += [CALIBRATION_NOTE] if with_quality else []
    return "\n".join([*parts, "\n".join(f"- {_escaped(line)}" for line in lines)]) + "\n"


def csv_text(results: Results) -> str:
    """Return all single figures of all measurements as CSV with a header; empty fields were not measured.

    The columns are those of a results file, in the order of ``Measurement``. Curves are only in the results file.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for name in columns.column_types(Measurement) if name not in CURVES]
    writer.writerow(names)
    for row in results.measurements:
        values = columns.as_columns(row)
        writer.writerow([values[name] for name in names])
    return out.getvalue()


def _identity(rows: Sequence[Measurement]) -> list[Column]:
    """Return the columns that identify a cell; scenario, threads, batch and field only if they vary."""
    identity: list[Column] = [
        ("model", lambda row: row.model),
        ("runtime", lambda row: f"{row.runtime} {row.runtime_version or ''}".strip()),
        ("kernels", lambda row: row.kernels or ""),
    ]
    shape: list[Column] = [
        ("scenario", lambda row: row.scenario or ""),
        ("threads", lambda row: str(row.threads)),
        ("batch", lambda row: str(row.batch)),
        ("field px", lambda row: str(row.field_px)),
    ]
    identity += [(name, cell) for name, cell in shape if len({cell(row) for row in rows}) > 1]
    return [*identity, ("status", lambda row: row.status)]


def _cost(rows: Sequence[Measurement]) -> list[Column]:
    cost: list[Column] = [
        ("size kB", lambda row: kilobytes(row.size_bytes)),
        ("zlib kB", lambda row: kilobytes(row.compressed_bytes)),
        ("zeros", lambda row: percent(row.zeros)),
        ("p50 us", lambda row: micros_with_bounds(row.p50_ms)),
        ("p90 us", lambda row: micros_with_bounds(row.p90_ms)),
        ("p99 us", lambda row: micros_with_bounds(row.p99_ms)),
        ("p50 / reference", lambda row: with_bounds(row.p50_ratio, digits=3)),
        ("patches/s", per_second),
        ("Mpx/s", lambda row: fixed(row.mpx_per_s, 1)),
        ("MB over empty", lambda row: megabytes(row.rss_over_empty_bytes)),
        ("of integer peak", lambda row: percent(row.peak_share)),
        ("mJ per call", lambda row: fixed(row.energy_mj, 2)),
        ("AUC", lambda row: with_bounds(row.auc)),
        ("dAUC", lambda row: with_bounds(row.d_auc, sign="+")),
        ("s.e.", lambda row: "" if row.d_auc is None else f"{row.d_auc.standard_error:.4f}"),
        ("reference", lambda row: row.reference or ""),
    ]
    optional = ("Mpx/s", "MB over empty", "of integer peak", "mJ per call")
    return [(name, cell) for name, cell in cost if name not in optional or any(cell(row) for row in rows)]


def _quality(rows: Sequence[Measurement]) -> list[Column]:
    quality: list[Column] = [
        ("model", lambda row: row.model),
        ("runtime", lambda row: row.runtime),
        ("AUC over slides", lambda row: bounds(row.auc_slides, fixed)),
        ("dAUC over slides", lambda row: bounds(row.d_auc_slides, signed)),
    ]
    for name, key in operating_points():
        quality.append((name, lambda row, key=key: with_bounds(getattr(row, key), digits=3)))  # type: ignore[misc]
    quality += [
        ("Brier", lambda row: with_bounds(row.brier)),
        ("ECE", lambda row: fixed(row.ece)),
        ("flips", flips_cell),
        ("p", lambda row: p_value(row.mcnemar_p)),
    ]
    return [(name, cell) for name, cell in quality if any(cell(row) for row in rows)]


def _robustness(rows: Sequence[Measurement]) -> list[Column]:
    robustness: list[Column] = [("model", lambda row: row.model), ("runtime", lambda row: row.runtime)]
    for name in perturbations(rows):
        heading = name.replace("_", " ")
        robustness.append((heading, lambda row, name=name: _change_after(row, name)))  # type: ignore[misc]
    return robustness


def _change_after(row: Measurement, perturbation: str) -> str:
    for robustness in row.robustness or ():
        if robustness.perturbation == perturbation:
            return with_bounds(robustness.d_auc, digits=3, sign="+")
    return ""


def _table(table: Sequence[Column], rows: Sequence[Measurement]) -> str:
    rule = "|".join("---" if name in TEXT_COLUMNS else "---:" for name, _ in table)
    lines = ["| " + " | ".join(name for name, _ in table) + " |", f"|{rule}|"]
    lines += ["| " + " | ".join(_escaped(cell(row)) for _, cell in table) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def perturbations(rows: Iterable[Measurement]) -> list[str]:
    """Return the names of the perturbations, in the order of the rows."""
    return list(dict.fromkeys(robustness.perturbation for row in rows for robustness in row.robustness or ()))


def operating_points() -> list[tuple[str, str]]:
    """Return heading and field of every operating point of a measurement."""
    points = [(f"sens. at {percent} % spec.", f"sensitivity_at_{percent}_specificity") for percent in PERCENTS]
    return points + [(f"spec. at {percent} % sens.", f"specificity_at_{percent}_sensitivity") for percent in PERCENTS]


def has_operating_figures(results: Results) -> bool:
    """Whether any cell has a sensitivity at 95 % specificity; results of earlier versions do not."""
    return any(row.sensitivity_at_95_specificity is not None for row in results.measurements)


def flips_cell(row: Measurement) -> str:
    """Return the decisions that differ, to positive and to negative: ``3 (2 up, 1 down)``; empty if not measured."""
    if row.flips is None:
        return ""
    return f"{row.flips} ({row.flips_to_positive} up, {row.flips_to_negative} down)" if row.flips else "0"


def p_value(p: float | None) -> str:
    """Return a p value with three digits; ``<.001`` below that."""
    if p is None:
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}"


def micros(ms: float | None) -> str:
    """Return milliseconds as microseconds, with one decimal below 100."""
    if ms is None:
        return ""
    return f"{1e3 * ms:,.0f}" if ms >= 0.1 else f"{1e3 * ms:.1f}"


def micros_with_bounds(ms: Interval | None) -> str:
    """Return an interval of milliseconds in microseconds: ``228 [226, 231]``; empty if not measured."""
    return "" if ms is None else f"{micros(ms.value)} [{micros(ms.lo)}, {micros(ms.hi)}]"


def per_second(row: Measurement) -> str:
    """Return patches per second without decimals."""
    return "" if row.patches_per_s is None else f"{row.patches_per_s.value:,.0f}"


def with_bounds(interval: Interval | None, *, digits: int = 4, sign: str = "") -> str:
    """Return ``0.9157 [0.9050, 0.9263]``; empty if not measured."""
    if interval is None:
        return ""
    value, lo, hi = (f"{number:{sign}.{digits}f}" for number in (interval.value, interval.lo, interval.hi))
    return f"{value} [{lo}, {hi}]"


def interval(value: float | None, lo: float | None, hi: float | None, *, digits: int = 4, sign: str = "") -> str:
    """Return ``0.9157 [0.9050, 0.9263]`` for three columns of a results file; empty if one is missing."""
    if value is None or lo is None or hi is None:
        return ""
    return with_bounds(Interval(value, lo, hi), digits=digits, sign=sign)


def bounds(interval: Interval | None, number: Callable[[float], str]) -> str:
    """Return ``lo … hi`` with the numbers written by ``number``; empty if not measured."""
    return "" if interval is None else f"{number(interval.lo)} … {number(interval.hi)}"


def fixed(value: float | None, digits: int = 4, *, sign: str = "") -> str:
    """Return a number with this many digits, without a minus before zero; empty if not measured."""
    return "" if value is None else f"{round(value, digits) + 0.0:{sign},.{digits}f}"


def percent(share: float | None) -> str:
    """Return ``42%``; empty if not measured."""
    return "" if share is None else f"{share:.0%}"


def kilobytes(size: int | None) -> str:
    """Return bytes in units of 1000, with one decimal below 100."""
    return "" if size is None else f"{size / 1000:,.{0 if size >= 1e5 else 1}f}"


def megabytes(size: int | None) -> str:
    """Return bytes in millions."""
    return "" if size is None else f"{size / 1e6:,.0f}"


def _escaped(text: str) -> str:
    """Return text without line breaks, cell borders and markup of Markdown."""
    flat = " ".join(text.split())
    for special in ("\\", "|", "<", "`", "*", "_"):
        flat = flat.replace(special, "&lt;" if special == "<" else f"\\{special}")
    return flat
