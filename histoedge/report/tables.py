"""Results as a table: for the terminal, as Markdown, as CSV. Every figure comes from the results."""

import csv
import dataclasses
import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from histoedge.bench import Measurement, Results
from histoedge.metrics import Interval

SPARSITY_NOTE = (
    "prune, 2of4, cluster16: zeros and shared values buy no time in stock runtimes, only a smaller compressed file "
    "(zlib kB); slim removes channels, which does."
)
CALIBRATION_NOTE = (
    "ECE: calibration error of the probability of tumour on test, 15 bins, at the temperature fitted on valid; "
    "sensitivity at 95 % specificity with a bootstrap 95 % interval, the threshold chosen on test anew in each draw."
)
UNSETTLED_MARK = "~"


def terminal(results: Results) -> Table:
    """The results in 100 columns; what failed or is unavailable says why below the table."""
    rows = results.measurements
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", caption_justify="left")
    threads_vary = len({row.threads for row in rows}) > 1
    table.add_column("model", overflow="fold")
    table.add_column("runtime", no_wrap=True)
    if threads_vary:
        table.add_column("thr", justify="right", no_wrap=True)
    for name in ("kB", "p50 us", "p90 us", "p50 / fp32", "patch/s", "AUC 95 %", "dAUC"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [row.model, row.runtime, *([str(row.threads)] if threads_vary else []), kilobytes(row.size_bytes)]
        if row.measured:
            mark = UNSETTLED_MARK if row.status == "unsettled" else ""
            cells += [micros(row.p50_ms) + mark, micros(row.p90_ms), _short_ratio(row), per_second(row)]
            cells += [_short_auc(row), signed(row.d_auc)]
        else:
            cells += ["", "", row.status, "", "", ""]
        style = "" if row.status == "ok" else "yellow" if row.measured else "red"
        table.add_row(*(Text(cell) for cell in cells), style=style)
    table.caption = Text("\n".join(["", *notes(results)]), style="not italic")
    return table


def print_table(results: Results) -> None:
    """Print the terminal table on stdout."""
    console = Console()
    wide_enough = console if console.is_terminal else Console(width=max(console.width, 100))
    wide_enough.print(terminal(results))


def markdown(results: Results) -> str:
    """A Markdown table with all intervals, and the notes below it."""
    further = has_operating_figures(results)
    head = (
        *("model", "runtime", "kernels", "threads", "status", "size kB", "zlib kB", "zeros", "p50 us", "p90 us"),
        *("p99 us", "p50 / reference", "patches/s", "AUC", "dAUC", "s.e."),
        *(("ECE", "sens. at 95 % spec.") if further else ()),
        "reference",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] * 5 + ["---:"] * (len(head) - 6) + ["---"]) + "|"]
    for row in results.measurements:
        version = f"{row.runtime} {row.runtime_version or ''}".strip()
        cells = [row.model, version, row.kernels or "", str(row.threads), row.status, kilobytes(row.size_bytes)]
        cells += [kilobytes(row.compressed_bytes), "" if row.zeros is None else f"{row.zeros:.0%}"]
        cells += [micros(row.p50_ms), micros(row.p90_ms), micros(row.p99_ms)]
        cells += [interval(row.p50_ratio, row.p50_ratio_lo, row.p50_ratio_hi, digits=3), per_second(row)]
        cells += [interval(row.auc, row.auc_lo, row.auc_hi), interval(row.d_auc, row.d_auc_lo, row.d_auc_hi, sign="+")]
        cells += [_standard_error(row), *([_fixed(row.ece), sensitivity(row)] if further else []), row.reference or ""]
        lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
    said = notes(results) + ([CALIBRATION_NOTE] if further else [])
    return "\n".join([*lines, "", *(f"- {_escaped(note)}" for note in said)]) + "\n"


def csv_text(results: Results) -> str:
    """Every key of every measurement as CSV, a header first; empty where not measured."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Measurement)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in results.measurements)
    return out.getvalue()


def notes(results: Results) -> list[str]:
    """What a reader must know beside the table: settings, reasons, and what sparsity does not do."""
    rows = results.measurements
    found = []
    for row in rows:
        if not row.measured:
            found.append(f"{row.status}: {row.model} @ {row.runtime}: {row.reason or 'no reason given'}")
    if any(row.status == "unsettled" for row in rows):
        found.append(
            f"{UNSETTLED_MARK} unsettled: the 95 % interval of p50 is wider than a tenth of it, or of one round; "
            "measure longer or on a quieter machine."
        )
    measured = [row for row in rows if row.measured]
    if measured:
        patches = max(row.n_patches or 0 for row in measured)
        settings = f"{_each(row.threads for row in measured)} thread(s), batch {_each(row.batch for row in measured)}"
        found.append(
            f"{settings}; AUC on {patches:,} patches with DeLong's 95 % interval; "
            "ratio and dAUC against the fp32 file of the same format and runtime, of fp32 files against the source."
        )
    if any(row.recipe.startswith(("prune", "2of4", "cluster16")) for row in rows):
        found.append(SPARSITY_NOTE)
    found += [_what_training_bought(row, measured) for row in measured if row.recipe == "int8ptq"]
    return found + [_what_slimming_bought(row, measured) for row in measured if row.recipe.startswith("slim")]


def _what_training_bought(untrained: Measurement, rows: Iterable[Measurement]) -> str:
    """``int8`` against ``int8ptq`` on one runtime, in words."""
    cell = (untrained.format, untrained.runtime)
    trained = next((row for row in rows if row.recipe == "int8" and (row.format, row.runtime) == cell), None)
    if trained is None or trained.auc is None or untrained.auc is None:
        return f"int8ptq @ {untrained.runtime}: no int8 beside it to compare with"
    verdict = "beats" if trained.auc > untrained.auc else "does not beat"
    return (
        f"quantisation-aware training {verdict} post-training quantisation here in AUC: int8 {trained.auc:.4f}, "
        f"int8ptq {untrained.auc:.4f} ({untrained.format} @ {untrained.runtime})"
    )


def _what_slimming_bought(slim: Measurement, rows: Iterable[Measurement]) -> str:
    """A slimmed file against the whole network's file of the same precision on one runtime, in words."""
    recipe = "int8" if slim.recipe.endswith("_int8") else "fp32"
    whole = next(
        (row for row in rows if (row.recipe, row.format, row.runtime) == (recipe, slim.format, slim.runtime)), None
    )
    if whole is None or whole.p50_ms is None or slim.p50_ms is None:
        return f"{slim.recipe} @ {slim.runtime}: no {recipe} beside it to compare with"
    return (
        f"{slim.recipe} is {whole.p50_ms / slim.p50_ms:.2f} times as fast as {recipe} ({slim.format} @ {slim.runtime})"
    )


def has_operating_figures(results: Results) -> bool:
    """Whether any cell tells its sensitivity at 95 % specificity; results of older releases do not."""
    return any(row.sensitivity_at_95_specificity is not None for row in results.measurements)


def sensitivity(row: Measurement) -> str:
    """The sensitivity at 95 % specificity with its interval; empty where not measured."""
    bounds = row.sensitivity_at_95_specificity_lo, row.sensitivity_at_95_specificity_hi
    return interval(row.sensitivity_at_95_specificity, *bounds, digits=3)


def micros(ms: float | None) -> str:
    """Milliseconds as microseconds, with as many digits as mean something."""
    if ms is None:
        return ""
    return f"{1e3 * ms:,.0f}" if ms >= 0.1 else f"{1e3 * ms:.1f}"


def per_second(row: Measurement) -> str:
    """Patches per second, without decimals."""
    return "" if row.patches_per_s is None else f"{row.patches_per_s:,.0f}"


def interval(value: float | None, lo: float | None, hi: float | None, *, digits: int = 4, sign: str = "") -> str:
    """``0.9157 [0.9050, 0.9263]``; empty where not measured."""
    if value is None or lo is None or hi is None:
        return ""
    return f"{value:{sign}.{digits}f} [{lo:{sign}.{digits}f}, {hi:{sign}.{digits}f}]"


def signed(value: float | None) -> str:
    """A difference of AUCs with its sign, four digits, no leading zero: ``-.0003``."""
    return "" if value is None else f"{round(value, 4) + 0.0:+.4f}".replace("0.", ".", 1)


def _short_auc(row: Measurement) -> str:
    if row.auc is None or row.auc_lo is None or row.auc_hi is None:
        return ""
    return f"{_three(row.auc)} [{_three(row.auc_lo)} {_three(row.auc_hi)}]"


def _three(share: float) -> str:
    text = f"{share:.3f}"
    return text[1:] if text.startswith("0.") else text


def _short_ratio(row: Measurement) -> str:
    if row.p50_ratio is None or row.p50_ratio_lo is None or row.p50_ratio_hi is None:
        return ""
    return f"{row.p50_ratio:.2f} [{row.p50_ratio_lo:.2f} {row.p50_ratio_hi:.2f}]"


def _standard_error(row: Measurement) -> str:
    if row.d_auc is None or row.d_auc_lo is None or row.d_auc_hi is None:
        return ""
    return f"{Interval(row.d_auc, row.d_auc_lo, row.d_auc_hi).standard_error:.4f}"


def kilobytes(size: int | None) -> str:
    """Bytes as thousands of them, with as many digits as mean something."""
    return "" if size is None else f"{size / 1000:,.{0 if size >= 1e5 else 1}f}"


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _each(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in sorted(set(values)))


def _escaped(text: str) -> str:
    """Text that is neither a new cell nor markup in Markdown."""
    flat = " ".join(text.split())
    for special in ("\\", "|", "<", "`", "*", "_"):
        flat = flat.replace(special, "&lt;" if special == "<" else f"\\{special}")
    return flat
