"""Judged gates and comparisons on the terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from histoedge.benchmark import junit, noise
from histoedge.benchmark.compare import Change, Comparison, Difference
from histoedge.benchmark.gates import Judgement, Outcome
from histoedge.reporting.fitted import FOLDERS, Column, FittedTable
from histoedge.reporting.short import signed
from histoedge.reporting.tables import kilobytes, micros

STYLES = {"failed": "red", "undecided": "yellow", "slower": "red", "lower": "red", "faster": "green", "higher": "green"}
OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "undecided", "skipped")
WIDTH = 100
BEYOND_NOISE_MARK = "*"


def gates(judgements: Sequence[Judgement]) -> Group:
    """Return a line per gate with the number of cells by outcome; below it the cells that did not pass and why."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("gate", overflow="fold")
    for name in OUTCOMES:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for gate in dict.fromkeys(judgement.gate for judgement in judgements):
        outcomes = [judgement.outcome for judgement in judgements if judgement.gate == gate]
        counts = [str(outcomes.count(name)) for name in OUTCOMES]
        worst = next((name for name in ("failed", "undecided") if name in outcomes), "")
        cells = [Text(cell) for cell in (gate, *counts, f"does not pass: {worst}" if worst else "passes")]
        table.add_row(*cells, style=STYLES.get(worst, ""))
    lines = [
        _judgement_line(judgement)
        for judgement in sorted(judgements, key=lambda judgement: OUTCOMES.index(judgement.outcome))
        if judgement.outcome != "passed"
    ]
    return _with_notes(table, lines)


def comparison(compared: Comparison) -> Group:
    """Return a line per cell that was measured in both files; below it all other differences."""
    rows = [row for row in compared.cells if row.presence == "both" and None not in (row.p50_a_ms, row.p50_b_ms)]
    auc_styles = tuple(STYLES.get(row.auc_verdict or "", "") for row in rows)
    p50_styles = tuple(STYLES.get(row.p50_verdict or "", "") for row in rows)
    marks = [BEYOND_NOISE_MARK if style else " " for style in auc_styles]
    columns = [
        Column("cell", tuple(row.cell for row in rows), fold_after=FOLDERS, left=True),
        Column("file", tuple("changed" if row.file_changed else "same" for row in rows), left=True, spare=2),
        Column("kB", tuple(_from_to(*_sizes(row)) for row in rows), spare=1),
        Column(
            "AUC",
            tuple(signed(row.auc_change) + mark for row, mark in zip(rows, marks, strict=True)),
            styles=auc_styles,
        ),
        Column("p50 us", tuple(_from_to(micros(row.p50_a_ms), micros(row.p50_b_ms)) for row in rows), spare=3),
        Column("ratio 99 %", tuple(map(_ratio, rows)), tuple(map(_short_ratio, rows)), "ratio"),
        Column("p50", tuple(row.p50_verdict or "" for row in rows), left=True, styles=p50_styles),
    ]
    return _with_notes(FittedTable("", columns), _notes(compared))


def print_gates(judgements: Sequence[Judgement]) -> None:
    """Print an empty line and the gates on stdout."""
    _print(Group(Text(), gates(judgements)))


def print_comparison(compared: Comparison) -> None:
    """Print the comparison on stdout."""
    _print(comparison(compared))


def _judgement_line(judgement: Judgement) -> str:
    parts = (judgement.outcome, judgement.gate, judgement.cell, junit.value_and_reason(judgement))
    return ": ".join(part for part in parts if part)


def _notes(compared: Comparison) -> list[str]:
    rows = compared.cells
    lines = [f"{row.presence}: {row.cell} ({row.status_b or row.status_a})" for row in rows if row.presence != "both"]
    for row in rows:
        if row.presence == "both" and row.status_a != row.status_b:
            lines.append(f"status: {row.cell}: {row.status_a} -> {row.status_b}")
        shown = [entry for entry in row.differences if entry.name not in ("sha256", "size_bytes")]
        lines += [f"{row.cell}: {_difference(entry)}" for entry in shown]
    lines += [f"environment: {_difference(entry)}" for entry in compared.environment]
    lines += [f"settings: {_difference(entry)}" for entry in compared.settings]
    if compared.other_machine:
        lines.append(f"times do not compare: another machine ({'; '.join(compared.other_machine)})")
    lines.append(
        f"Changes from A to B, verdicts at the 1 % level. AUC: B minus A, {BEYOND_NOISE_MARK} means more than noise. "
        "Ratio: p50 of B over p50 of A. Two runs are not interleaved; the interval of the ratio includes a drift of "
        f"{noise.DRIFT:.1%} (one SD) between runs."
    )
    return lines


def _difference(entry: Difference) -> str:
    return f"{entry.name}: {noise.change_text(entry.a, entry.b)}"


def _sizes(row: Change) -> tuple[str, str]:
    return kilobytes(row.size_a_bytes), kilobytes(row.size_b_bytes)


def _from_to(a: str, b: str) -> str:
    return b if a == b else f"{a or '-'} -> {b or '-'}"


def _ratio(row: Change) -> str:
    if row.p50_ratio is None:
        return ""
    if row.p50_ratio_lo is None or row.p50_ratio_hi is None:
        return f"{row.p50_ratio:.2f}"
    return f"{row.p50_ratio:.2f} [{row.p50_ratio_lo:.2f} {row.p50_ratio_hi:.2f}]"


def _short_ratio(row: Change) -> str:
    return "" if row.p50_ratio is None else f"{row.p50_ratio:.2f}"


def _with_notes(table: RenderableType, lines: Sequence[str]) -> Group:
    return Group(table, *(Text(line) for line in (["", *lines] if lines else [])))


def _print(content: RenderableType) -> None:
    console = Console()
    wide_enough = console if console.is_terminal else Console(width=max(console.width, WIDTH))
    wide_enough.print(content)
