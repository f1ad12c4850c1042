"""Results on the terminal, in 100 columns."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from histoedge.benchmark import Measurement, Results
from histoedge.reporting import groups
from histoedge.reporting.notes import UNSETTLED_MARK, notes
from histoedge.reporting.tables import fixed, kilobytes, micros, p_value, per_second, signed

WIDTH = 100


def terminal(results: Results) -> Group:
    """A table of times for each shape, one of quality, one of robustness; below, why what failed did, and notes."""
    found = groups.groups(results.measurements)
    parts: list[RenderableType] = []
    for group in found:
        parts += [_cost(group, with_auc=len(found) == 1), Text()]
    judged = [row for row in groups.files_on_runtimes(results.measurements) if row.auc is not None]
    if (len(found) > 1 and judged) or any(row.sensitivity_at_95_specificity is not None for row in judged):
        parts += [_quality(judged, with_auc=len(found) > 1), Text()]
    robust = [row for row in judged if row.robustness]
    if robust:
        parts += [_robustness(robust), Text()]
    return Group(*parts, *(Text(note) for note in notes(results)))


def print_table(results: Results) -> None:
    """Print the tables on stdout."""
    console = Console()
    wide_enough = console if console.is_terminal else Console(width=max(console.width, WIDTH))
    wide_enough.print(terminal(results))


def _cost(group: groups.Group, *, with_auc: bool) -> Table:
    tail = "p99" if group.figure == "p99_ms" else "p90"
    rate = "Mpx/s" if group.of_fields else "patch/s"
    auc = ("AUC 95 %", "dAUC") if with_auc else ()
    table = _table(group.title, "kB", "p50 us", f"{tail} us", "p50 / fp32", rate, *auc)
    for row in group.rows:
        cells = [row.model, row.runtime, kilobytes(row.size_bytes)]
        if row.measured:
            mark = UNSETTLED_MARK if row.status == "unsettled" else ""
            cells += [micros(row.p50_ms) + mark, micros(getattr(row, f"{tail}_ms")), _short_ratio(row)]
            cells.append(fixed(row.mpx_per_s, 1) if group.of_fields else per_second(row))
            cells += [_short_auc(row), signed(row.d_auc)] if with_auc else []
        else:
            cells += ["", "", row.status, *[""] * (3 if with_auc else 1)]
        style = "" if row.status == "ok" else "yellow" if row.measured else "red"
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _quality(rows: Sequence[Measurement], *, with_auc: bool) -> Table:
    auc = ("AUC 95 %", "dAUC") if with_auc else ()
    table = _table("", *auc, "sens@95%", "spec@95%", "Brier", "ECE", "flips", "p")
    for row in rows:
        cells = [row.model, row.runtime, *([_short_auc(row), signed(row.d_auc)] if with_auc else [])]
        cells += [fixed(row.sensitivity_at_95_specificity, 3), fixed(row.specificity_at_95_sensitivity, 3)]
        cells += [fixed(row.brier), fixed(row.ece), "" if row.flips is None else str(row.flips)]
        table.add_row(*(Text(cell) for cell in (*cells, p_value(row.mcnemar_p))))
    return table


def _robustness(rows: Sequence[Measurement]) -> Table:
    """The perturbation that costs each file most."""
    table = _table("", "AUC", "dAUC 95 %", "flips", name="most harmful perturbation")
    for row in rows:
        worst = min(row.robustness or (), key=lambda one: one.d_auc)
        change = f"{signed(worst.d_auc)} [{signed(worst.d_auc_lo)} {signed(worst.d_auc_hi)}]"
        cells = (row.model, row.runtime, worst.perturbation, _three(worst.auc), change, str(worst.flips))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _table(title: str, *figures: str, name: str = "") -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    if title:
        table.title, table.title_justify, table.title_style = Text(title, style="bold"), "left", "not italic"
    table.add_column("model", overflow="fold")
    table.add_column("runtime", no_wrap=True)
    if name:
        table.add_column(name, no_wrap=True)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


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
