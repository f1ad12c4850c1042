"""Results as Markdown and CSV, and how figures are written. Every figure comes from the results."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence

from histoedge.benchmark import Measurement, Results
from histoedge.benchmark.quality import PERCENTS
from histoedge.metrics import Interval
from histoedge.reporting import facts, groups
from histoedge.reporting.notes import CALIBRATION_NOTE, notes
from histoedge.reporting.short import signed

CURVES = ("ms_quantiles", "roc", "reliability", "robustness")
"""Keys of a measurement that are no single figure."""

Column = tuple[str, Callable[[Measurement], str]]
"""A heading, and what a row says below it."""


def markdown(results: Results) -> str:
    """Markdown tables with all intervals: cost, then quality once for each file on a runtime, then the notes."""
    rows = results.measurements
    parts = [_table(_where(rows) + _cost(rows), rows)]
    judged = groups.files_on_runtimes(rows)
    further = has_operating_figures(results)
    if further:
        parts.append(_table(_quality(judged), judged))
    robust = [row for row in judged if row.robustness]
    if robust:
        parts.append("dAUC after each perturbation of the test patches, against the same file on them as they are:\n")
        parts.append(_table(_robustness(robust), robust))
    warned = [f"warning: {line}" for line in facts.warnings(results)]
    said = warned + notes(results) + ([CALIBRATION_NOTE] if further else [])
    return "\n".join([*parts, "\n".join(f"- {_escaped(note)}" for note in said)]) + "\n"


def csv_text(results: Results) -> str:
    """Every figure of every measurement as CSV, a header first; empty where not measured. Curves are in the JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Measurement) if field.name not in CURVES]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in results.measurements)
    return out.getvalue()


def _where(rows: Sequence[Measurement]) -> list[Column]:
    """Which cell it is; of scenario, threads, batch and field those that vary."""
    found: list[Column] = [
        ("model", lambda row: row.model),
        ("runtime", lambda row: f"{row.runtime} {row.runtime_version or ''}".strip()),
        ("kernels", lambda row: row.kernels or ""),
    ]
    vary: list[tuple[str, Callable[[Measurement], object]]] = [
        ("scenario", lambda row: row.scenario or ""),
        ("threads", lambda row: row.threads),
        ("batch", lambda row: row.batch),
        ("field px", lambda row: row.field_px),
    ]
    for name, value in vary:
        if len({value(row) for row in rows}) > 1:
            found.append((name, lambda row, value=value: str(value(row))))  # type: ignore[misc]
    return [*found, ("status", lambda row: row.status)]


def _cost(rows: Sequence[Measurement]) -> list[Column]:
    found: list[Column] = [
        ("size kB", lambda row: kilobytes(row.size_bytes)),
        ("zlib kB", lambda row: kilobytes(row.compressed_bytes)),
        ("zeros", lambda row: percent(row.zeros)),
        ("p50 us", lambda row: micros_between(row.p50_ms, row.p50_lo, row.p50_hi)),
        ("p90 us", lambda row: micros_between(row.p90_ms, row.p90_lo, row.p90_hi)),
        ("p99 us", lambda row: micros_between(row.p99_ms, row.p99_lo, row.p99_hi)),
        ("p50 / reference", lambda row: interval(row.p50_ratio, row.p50_ratio_lo, row.p50_ratio_hi, digits=3)),
        ("patches/s", per_second),
        ("Mpx/s", lambda row: fixed(row.mpx_per_s, 1)),
        ("MB over empty", lambda row: megabytes(row.rss_over_empty_bytes)),
        ("of integer peak", lambda row: percent(row.peak_share)),
        ("mJ per call", lambda row: fixed(row.energy_mj, 2)),
        ("AUC", lambda row: interval(row.auc, row.auc_lo, row.auc_hi)),
        ("dAUC", lambda row: interval(row.d_auc, row.d_auc_lo, row.d_auc_hi, sign="+")),
        ("s.e.", _standard_error),
        ("reference", lambda row: row.reference or ""),
    ]
    optional = ("Mpx/s", "MB over empty", "of integer peak", "mJ per call")
    return [column for column in found if column[0] not in optional or any(column[1](row) for row in rows)]


def _quality(rows: Sequence[Measurement]) -> list[Column]:
    found: list[Column] = [
        ("model", lambda row: row.model),
        ("runtime", lambda row: row.runtime),
        ("AUC over slides", lambda row: between(fixed(row.auc_slides_lo), fixed(row.auc_slides_hi))),
        ("dAUC over slides", lambda row: between(signed(row.d_auc_slides_lo), signed(row.d_auc_slides_hi))),
    ]
    for name, key in operating_points():
        found.append((name, lambda row, key=key: bounded(row, key)))  # type: ignore[misc]
    found += [
        ("Brier", lambda row: interval(row.brier, row.brier_lo, row.brier_hi)),
        ("ECE", lambda row: fixed(row.ece)),
        ("flips", flips_cell),
        ("p", lambda row: p_value(row.mcnemar_p)),
    ]
    return [(name, say) for name, say in found if any(say(row) for row in rows)]


def _robustness(rows: Sequence[Measurement]) -> list[Column]:
    found: list[Column] = [("model", lambda row: row.model), ("runtime", lambda row: row.runtime)]
    for name in perturbations(rows):
        found.append((name.replace("_", " "), lambda row, name=name: _after(row, name)))  # type: ignore[misc]
    return found


def _after(row: Measurement, perturbation: str) -> str:
    for one in row.robustness or ():
        if one.perturbation == perturbation:
            return interval(one.d_auc, one.d_auc_lo, one.d_auc_hi, digits=3, sign="+")
    return ""


def _table(columns: Sequence[Column], rows: Sequence[Measurement]) -> str:
    words = ("model", "runtime", "kernels", "scenario", "status", "reference")
    rule = "|".join("---" if name in words else "---:" for name, _ in columns)
    lines = ["| " + " | ".join(name for name, _ in columns) + " |", f"|{rule}|"]
    lines += ["| " + " | ".join(_escaped(say(row)) for _, say in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def perturbations(rows: Iterable[Measurement]) -> list[str]:
    """Their names, in the order in which they were told."""
    return list(dict.fromkeys(one.perturbation for row in rows for one in row.robustness or ()))


def operating_points() -> list[tuple[str, str]]:
    """Heading and key of every operating point of a measurement."""
    found = [(f"sens. at {percent} % spec.", f"sensitivity_at_{percent}_specificity") for percent in PERCENTS]
    return found + [(f"spec. at {percent} % sens.", f"specificity_at_{percent}_sensitivity") for percent in PERCENTS]


def has_operating_figures(results: Results) -> bool:
    """Whether any cell tells its sensitivity at 95 % specificity; results of older releases do not."""
    return any(row.sensitivity_at_95_specificity is not None for row in results.measurements)


def bounded(row: Measurement, key: str) -> str:
    """The share of that key with its interval; empty where not measured."""
    return interval(getattr(row, key), getattr(row, f"{key}_lo"), getattr(row, f"{key}_hi"), digits=3)


def flips_cell(row: Measurement) -> str:
    """``3 (2 up, 1 down)``: decisions that differ, to positive and to negative; empty where not measured."""
    if row.flips is None:
        return ""
    return f"{row.flips} ({row.flips_to_positive} up, {row.flips_to_negative} down)" if row.flips else "0"


def p_value(p: float | None) -> str:
    """With three digits; ``<.001`` below that."""
    if p is None:
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}"


def micros(ms: float | None) -> str:
    """Milliseconds as microseconds, with as many digits as mean something."""
    if ms is None:
        return ""
    return f"{1e3 * ms:,.0f}" if ms >= 0.1 else f"{1e3 * ms:.1f}"


def micros_between(ms: float | None, lo: float | None, hi: float | None) -> str:
    """``228 [226, 231]`` microseconds; without bounds the value alone."""
    return micros(ms) if lo is None or hi is None else f"{micros(ms)} [{micros(lo)}, {micros(hi)}]"


def per_second(row: Measurement) -> str:
    """Patches per second, without decimals."""
    return "" if row.patches_per_s is None else f"{row.patches_per_s:,.0f}"


def interval(value: float | None, lo: float | None, hi: float | None, *, digits: int = 4, sign: str = "") -> str:
    """``0.9157 [0.9050, 0.9263]``; empty where not measured."""
    if value is None or lo is None or hi is None:
        return ""
    return f"{value:{sign}.{digits}f} [{lo:{sign}.{digits}f}, {hi:{sign}.{digits}f}]"


def between(lo: str, hi: str) -> str:
    """``lo … hi``; empty where one is."""
    return f"{lo} … {hi}" if lo and hi else ""


def fixed(value: float | None, digits: int = 4, *, sign: str = "") -> str:
    """That many digits, and no minus before a zero; empty where not measured."""
    return "" if value is None else f"{round(value, digits) + 0.0:{sign},.{digits}f}"


def percent(share: float | None) -> str:
    """``42%``; empty where not measured."""
    return "" if share is None else f"{share:.0%}"


def kilobytes(size: int | None) -> str:
    """Bytes as thousands of them, with as many digits as mean something."""
    return "" if size is None else f"{size / 1000:,.{0 if size >= 1e5 else 1}f}"


def megabytes(size: int | None) -> str:
    """Bytes as millions of them."""
    return "" if size is None else f"{size / 1e6:,.0f}"


def _standard_error(row: Measurement) -> str:
    if row.d_auc is None or row.d_auc_lo is None or row.d_auc_hi is None:
        return ""
    return f"{Interval(row.d_auc, row.d_auc_lo, row.d_auc_hi).standard_error:.4f}"


def _escaped(text: str) -> str:
    """Text that is neither a new cell nor markup in Markdown."""
    flat = " ".join(text.split())
    for special in ("\\", "|", "<", "`", "*", "_"):
        flat = flat.replace(special, "&lt;" if special == "<" else f"\\{special}")
    return flat
