"""Results on the terminal, in its width, or in 100 columns if stdout is not a terminal."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from histoedge.benchmark import Measurement, Results
from histoedge.metrics import Interval, value_of
from histoedge.reporting import facts, groups
from histoedge.reporting.fitted import FOLDERS, Column, FittedTable
from histoedge.reporting.notes import UNSETTLED_MARK, notes
from histoedge.reporting.short import brackets, signed, three
from histoedge.reporting.tables import fixed, kilobytes, micros, p_value, per_second

WIDTH = 100


def terminal(results: Results) -> Group:
    """Return a table of times for each shape, one of quality and one of robustness; below them warnings and notes.

    The columns have a fixed order, names on the left. Model, runtime, p50, ratio and AUC are always shown, the others
    if the width permits.
    """
    by_shape = groups.groups(results.measurements)
    parts: list[RenderableType] = []
    for group in by_shape:
        parts += [_cost(group, with_auc=len(by_shape) == 1), Text()]
    files = [row for row in groups.files_on_runtimes(results.measurements) if row.auc is not None]
    if (len(by_shape) > 1 and files) or any(row.sensitivity_at_95_specificity is not None for row in files):
        parts += [_quality(files, with_auc=len(by_shape) > 1), Text()]
    robust = [row for row in files if row.robustness]
    if robust:
        parts += [_robustness(robust), Text()]
    warnings = [Text(f"warning: {line}", style="bold red") for line in facts.warnings(results)]
    return Group(*parts, *warnings, *(Text(note) for note in notes(results)))


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
        _numbers("kB", [kilobytes(row.size_bytes) for row in rows], spare=4),
        _numbers("p50 us", [micros(value_of(row.p50_ms)) + _mark(row) for row in rows]),
        _numbers(f"{tail} us", [micros(value_of(getattr(row, f"{tail}_ms"))) for row in rows], spare=2),
        _numbers(
            "p50 / fp32",
            [brackets(row.p50_ratio, _ratio) if row.measured else row.status for row in rows],
            short=[_ratio(value_of(row.p50_ratio)) if row.measured else row.status for row in rows],
            short_name="ratio",
        ),
        _numbers(
            "Mpx/s" if group.of_fields else "patch/s",
            [fixed(row.mpx_per_s, 1) if group.of_fields else per_second(row) for row in rows],
            spare=1,
        ),
        *(_auc(rows) if with_auc else []),
    ]
    return FittedTable(group.title, columns, [_style(row) for row in rows])


def _quality(rows: Sequence[Measurement], *, with_auc: bool) -> FittedTable:
    sensitivities = [fixed(value_of(row.sensitivity_at_95_specificity), 3) for row in rows]
    specificities = [fixed(value_of(row.specificity_at_95_sensitivity), 3) for row in rows]
    columns = [
        *_names(rows),
        *(_auc(rows) if with_auc else []),
        _numbers("sens@95%", sensitivities, spare=6),
        _numbers("spec@95%", specificities, spare=2),
        _numbers("Brier", [fixed(value_of(row.brier)) for row in rows], spare=1),
        _numbers("ECE", [fixed(row.ece) for row in rows], spare=4),
        _numbers("flips", ["" if row.flips is None else str(row.flips) for row in rows], spare=5),
        _numbers("p", [p_value(row.mcnemar_p) for row in rows], spare=3),
    ]
    return FittedTable("", columns)


def _robustness(rows: Sequence[Measurement]) -> FittedTable:
    """Return the perturbation with the largest loss of AUC for each file."""
    worst = [min(row.robustness or (), key=lambda robustness: robustness.d_auc.value) for row in rows]
    columns = [
        *_names(rows),
        Column(
            "most harmful perturbation",
            tuple(robustness.perturbation.replace("_", " ") for robustness in worst),
            fold_after=FOLDERS,
            left=True,
        ),
        _numbers("AUC", [three(robustness.auc.value) for robustness in worst], spare=2),
        _intervals("dAUC 95 %", [robustness.d_auc for robustness in worst], signed, short_name="dAUC"),
        _numbers("flips", [str(robustness.flips) for robustness in worst], spare=1),
    ]
    return FittedTable("", columns)


def _names(rows: Sequence[Measurement]) -> list[Column]:
    layout: dict[str, Any] = {"fold_after": FOLDERS, "left": True}
    models, runtimes = (tuple(getattr(row, key) for row in rows) for key in ("model", "runtime"))
    return [Column("model", models, **layout), Column("runtime", runtimes, **layout)]


def _auc(rows: Sequence[Measurement]) -> list[Column]:
    return [
        _intervals("AUC 95 %", [row.auc for row in rows], three, short_name="AUC"),
        _numbers("dAUC", [signed(value_of(row.d_auc)) for row in rows], spare=3),
    ]


def _intervals(
    name: str, intervals: Sequence[Interval | None], number: Callable[[float | None], str], *, short_name: str
) -> Column:
    """Return a column of intervals; its short form contains only the values."""
    cells = [brackets(interval, number) for interval in intervals]
    return _numbers(name, cells, short=[number(value_of(interval)) for interval in intervals], short_name=short_name)


def _numbers(
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


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
