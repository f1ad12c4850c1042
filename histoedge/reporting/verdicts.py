"""Gates and comparisons on the terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from histoedge.benchmark import junit, noise
from histoedge.benchmark.compare import Change, Comparison, Difference
from histoedge.benchmark.gates import Judgement
from histoedge.reporting.fitted import FOLDERS, Column, FittedTable
from histoedge.reporting.short import signed
from histoedge.reporting.tables import kilobytes, micros

STYLES = {"failed": "red", "undecided": "yellow", "slower": "red", "lower": "red", "faster": "green", "higher": "green"}
COUNTED = ("passed", "failed", "undecided", "skipped")
WIDTH = 100
BEYOND_MARK = "*"


def gates(judgements: Sequence[Judgement]) -> Group:
    """A line per gate with how many cells passed; below, what was found where one did not, and what was skipped."""
    table = _table(("gate", "left"), *((name, "right") for name in COUNTED), ("", "left"))
    table.columns[0].overflow = "fold"
    for gate in dict.fromkeys(one.gate for one in judgements):
        of_gate = [one for one in judgements if one.gate == gate]
        counts = [str(sum(one.outcome == name for one in of_gate)) for name in COUNTED]
        worst = next((name for name in ("failed", "undecided") if any(one.outcome == name for one in of_gate)), "")
        cells = [Text(cell) for cell in (gate, *counts, f"does not pass: {worst}" if worst else "passes")]
        table.add_row(*cells, style=STYLES.get(worst, ""))
    lines = [
        f"{one.outcome}: {one.gate}: " + ": ".join(part for part in (one.cell, junit.said(one)) if part)
        for one in sorted(judgements, key=lambda one: COUNTED.index(one.outcome))
        if one.outcome != "passed"
    ]
    return _with_notes(table, lines)


def comparison(found: Comparison) -> Group:
    """A line per cell that is in both files; below, the differences of everything else."""
    told = [one for one in found.cells if one.presence == "both" and None not in (one.p50_a_ms, one.p50_b_ms)]
    auc_styles, p50_styles = (
        tuple(STYLES.get(verdict or "", "") for verdict in verdicts)
        for verdicts in ([one.auc_verdict for one in told], [one.p50_verdict for one in told])
    )
    changes = [
        signed(one.auc_change) + (BEYOND_MARK if style else " ") for one, style in zip(told, auc_styles, strict=True)
    ]
    columns = [
        Column("cell", tuple(one.cell for one in told), fold_after=FOLDERS, left=True),
        Column("file", tuple("changed" if one.file_changed else "same" for one in told), left=True, spare=2),
        Column("kB", tuple(_from_to(*_sizes(one)) for one in told), spare=1),
        Column("AUC", tuple(changes), styles=auc_styles),
        Column("p50 us", tuple(_from_to(micros(one.p50_a_ms), micros(one.p50_b_ms)) for one in told), spare=3),
        Column("ratio 99 %", tuple(map(_ratio, told)), tuple(_short_ratio(one) for one in told), "ratio"),
        Column("p50", tuple(one.p50_verdict or "" for one in told), left=True, styles=p50_styles),
    ]
    return _with_notes(FittedTable("", columns), _notes(found))


def print_gates(judgements: Sequence[Judgement]) -> None:
    """Print the gates on stdout, an empty line before them."""
    _print(Group(Text(), gates(judgements)))


def print_comparison(found: Comparison) -> None:
    """Print the comparison on stdout."""
    _print(comparison(found))


def _notes(found: Comparison) -> list[str]:
    lines = [f"{one.presence}: {one.cell} ({one.status_b or one.status_a})" for one in found.cells if _alone(one)]
    for one in found.cells:
        if one.presence == "both" and one.status_a != one.status_b:
            lines.append(f"status: {one.cell}: {one.status_a} -> {one.status_b}")
        of_file = [item for item in one.differences if item.name not in ("sha256", "size_bytes")]
        lines += [f"{one.cell}: {_difference(item)}" for item in of_file]
    lines += [f"environment: {_difference(one)}" for one in found.environment]
    lines += [f"settings: {_difference(one)}" for one in found.settings]
    if found.other_machine:
        lines.append(f"times do not compare: another machine ({'; '.join(found.other_machine)})")
    lines.append(
        f"from A to B, verdicts at the 1 % level. AUC is B's less A's, {BEYOND_MARK} where that is more than noise. "
        "The ratio is p50 of B over A: two runs are not interleaved, so besides both intervals it allows for "
        f"{noise.DRIFT:.1%} of drift (standard deviation) between runs."
    )
    return lines


def _alone(one: Change) -> bool:
    return one.presence != "both"


def _difference(one: Difference) -> str:
    return f"{one.name}: {noise.said(one.a, one.b)}"


def _sizes(one: Change) -> tuple[str, str]:
    return kilobytes(one.size_a_bytes), kilobytes(one.size_b_bytes)


def _from_to(a: str, b: str) -> str:
    return b if a == b else f"{a or '-'} -> {b or '-'}"


def _ratio(one: Change) -> str:
    if one.p50_ratio is None:
        return ""
    if one.p50_ratio_lo is None or one.p50_ratio_hi is None:
        return f"{one.p50_ratio:.2f}"
    return f"{one.p50_ratio:.2f} [{one.p50_ratio_lo:.2f} {one.p50_ratio_hi:.2f}]"


def _short_ratio(one: Change) -> str:
    return "" if one.p50_ratio is None else f"{one.p50_ratio:.2f}"


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for number, (name, side) in enumerate(columns):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=number > 0)
    return table


def _with_notes(table: RenderableType, lines: Sequence[str]) -> Group:
    return Group(table, *(Text(line) for line in (["", *lines] if lines else [])))


def _print(what: RenderableType) -> None:
    console = Console()
    wide_enough = console if console.is_terminal else Console(width=max(console.width, WIDTH))
    wide_enough.print(what)
