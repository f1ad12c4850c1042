"""Results on the terminal, in as many columns as it has, or 100 where it is none."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from histoedge.benchmark import Measurement, Results
from histoedge.reporting import facts, groups
from histoedge.reporting.fitted import FOLDERS, Column, FittedTable
from histoedge.reporting.notes import UNSETTLED_MARK, notes
from histoedge.reporting.short import brackets, signed, three
from histoedge.reporting.tables import fixed, kilobytes, micros, p_value, per_second

WIDTH = 100


def terminal(results: Results) -> Group:
    """A table of times for each shape, one of quality, one of robustness; below, warnings, why what failed did, notes.

    Model, runtime, p50, ratio and AUC are always there; the rest where the width that it is printed in has room.
    """
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
    warned = [Text(f"warning: {line}", style="bold red") for line in facts.warnings(results)]
    return Group(*parts, *warned, *(Text(note) for note in notes(results)))


def print_table(results: Results) -> None:
    """Print the tables on stdout."""
    console = Console()
    wide_enough = console if console.is_terminal else Console(width=max(console.width, WIDTH))
    wide_enough.print(terminal(results))


def _cost(group: groups.Group, *, with_auc: bool) -> FittedTable:
    tail = "p99" if group.figure == "p99_ms" else "p90"
    rows = group.rows
    columns = [
        *_names(rows),
        _figure("kB", [kilobytes(row.size_bytes) for row in rows], spare=4),
        _figure("p50 us", [micros(row.p50_ms) + _mark(row) for row in rows]),
        _figure(f"{tail} us", [micros(getattr(row, f"{tail}_ms")) for row in rows], spare=2),
        _figure(
            "p50 / fp32",
            [_ratio(row) if row.measured else row.status for row in rows],
            short=[_value(row.p50_ratio) if row.measured else row.status for row in rows],
            short_name="ratio",
        ),
        _figure(
            "Mpx/s" if group.of_fields else "patch/s",
            [fixed(row.mpx_per_s, 1) if group.of_fields else per_second(row) for row in rows],
            spare=1,
        ),
        *(_auc(rows) if with_auc else []),
    ]
    return FittedTable(group.title, columns, [_style(row) for row in rows])


def _quality(rows: Sequence[Measurement], *, with_auc: bool) -> FittedTable:
    columns = [
        *_names(rows),
        *(_auc(rows) if with_auc else []),
        _figure("sens@95%", [fixed(row.sensitivity_at_95_specificity, 3) for row in rows], spare=6),
        _figure("spec@95%", [fixed(row.specificity_at_95_sensitivity, 3) for row in rows], spare=2),
        _figure("Brier", [fixed(row.brier) for row in rows], spare=1),
        _figure("ECE", [fixed(row.ece) for row in rows], spare=4),
        _figure("flips", ["" if row.flips is None else str(row.flips) for row in rows], spare=5),
        _figure("p", [p_value(row.mcnemar_p) for row in rows], spare=3),
    ]
    return FittedTable("", columns)


def _robustness(rows: Sequence[Measurement]) -> FittedTable:
    """The perturbation that costs each file most."""
    worst = [min(row.robustness or (), key=lambda one: one.d_auc) for row in rows]
    columns = [
        *_names(rows),
        Column(
            "most harmful perturbation",
            tuple(one.perturbation.replace("_", " ") for one in worst),
            fold_after=FOLDERS,
            left=True,
        ),
        _figure("AUC", [three(one.auc) for one in worst], spare=2),
        _figure(
            "dAUC 95 %",
            [brackets(signed(one.d_auc), signed(one.d_auc_lo), signed(one.d_auc_hi)) for one in worst],
            short=[signed(one.d_auc) for one in worst],
            short_name="dAUC",
        ),
        _figure("flips", [str(one.flips) for one in worst], spare=1),
    ]
    return FittedTable("", columns)


def _names(rows: Sequence[Measurement]) -> list[Column]:
    names: dict[str, Any] = {"fold_after": FOLDERS, "left": True}
    models, runtimes = (tuple(getattr(row, key) for row in rows) for key in ("model", "runtime"))
    return [Column("model", models, **names), Column("runtime", runtimes, **names)]


def _auc(rows: Sequence[Measurement]) -> list[Column]:
    whole = [brackets(three(row.auc), three(row.auc_lo), three(row.auc_hi)) for row in rows]
    values = [three(row.auc) for row in rows]
    return [
        _figure("AUC 95 %", whole, short=values, short_name="AUC"),
        _figure("dAUC", [signed(row.d_auc) for row in rows], spare=3),
    ]


def _figure(
    name: str,
    cells: Sequence[str],
    *,
    short: Sequence[str] | None = None,
    short_name: str = "",
    spare: int | None = None,
) -> Column:
    return Column(name, tuple(cells), None if short is None else tuple(short), short_name, spare=spare)


def _style(row: Measurement) -> str:
    return "" if row.status == "ok" else "yellow" if row.measured else "red"


def _mark(row: Measurement) -> str:
    return UNSETTLED_MARK if row.status == "unsettled" else ""


def _ratio(row: Measurement) -> str:
    return brackets(_value(row.p50_ratio), _value(row.p50_ratio_lo), _value(row.p50_ratio_hi))


def _value(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
