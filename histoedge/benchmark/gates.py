"""Gates: conditions on the cells of a benchmark, judged with the interval of each figure.

A gate is ``COLUMN OP NUMBER``, such as ``p50_ratio < 0.55``; OP is <, <=, > or >=. ``WHICH: COLUMN OP NUMBER`` judges
only some cells. WHICH is ``MODEL``, ``MODEL@RUNTIME`` or ``@RUNTIME``; MODEL is a file name or a recipe, and ``*``
matches anything: ``int8*@onnxruntime: p50_ratio < 0.55``.

A column with a 95 % interval passes if the whole interval satisfies the condition, fails if no part of it does, and is
undecided otherwise; undecided does not pass. A bound (``d_auc_lo``) or a figure without an interval is a plain number.
Cells with null in the column are skipped. A gate that judged no cell fails.
"""

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from histoedge import config
from histoedge.benchmark import columns, compare, noise
from histoedge.benchmark.result_row import Measurement
from histoedge.benchmark.results import Results
from histoedge.edge.errors import ConfigError
from histoedge.metrics import Interval

Outcome = Literal["passed", "failed", "undecided", "skipped"]

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMERIC = tuple(name for name, kinds in columns.column_types(Measurement).items() if {int, float} & {*kinds})
BASELINE = ("p50_vs_baseline", "auc_vs_baseline")
"""Ratio of p50, and difference of AUC, to the same cell in an older results file; see ``compare``."""

LEVEL = 0.95  # as the intervals in a measurement

_EXPRESSION = re.compile(
    r"(?:(?P<which>[^<>=]+):)?\s*(?P<column>\w+)\s*(?P<operator><=|>=|<|>)\s*(?P<number>[^\s<>=]+)"
)
_TIME = re.compile(r"p\d\d_|patches_per_s")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition for the cells that match the patterns ``model`` and ``runtime``; ``text`` is the gate as written."""

    text: str
    column: str
    operator: str
    limit: float
    model: str = "*"
    runtime: str = "*"

    def satisfied_by(self, value: float) -> bool:
        """Whether ``value`` satisfies the condition."""
        return OPERATORS[self.operator](value, self.limit)

    def judges(self, row: Measurement) -> bool:
        """Whether the gate is for this cell."""
        names = (row.model, row.model.rpartition("/")[2], row.recipe)
        return any(fnmatch.fnmatchcase(name, self.model) for name in names) and fnmatch.fnmatchcase(
            row.runtime, self.runtime
        )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The outcome of a gate for a cell, with the interval of the value. ``cell`` is empty if no cell was judged."""

    gate: str
    cell: str
    outcome: Outcome
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    reason: str | None = None

    @property
    def passes(self) -> bool:
        """Whether the outcome is passed or skipped."""
        return self.outcome in ("passed", "skipped")


def parse(texts: Iterable[str], *, baseline: bool = False) -> tuple[Gate, ...]:
    """Return the gates in these texts.

    Args:
        texts: each ``[WHICH:] COLUMN OP NUMBER``.
        baseline: whether there are older results to compare with.

    Raises:
        ConfigError: a text is not such a condition, its column is not numeric, or it requires missing older results.
    """
    return tuple(_parsed(text, baseline) for text in texts)


def judge_gates(gates: Sequence[Gate], results: Results, *, baseline: Results | None = None) -> tuple[Judgement, ...]:
    """Judge every gate for every matching cell.

    Args:
        gates: the conditions.
        results: the measurements.
        baseline: older results, for gates on ``BASELINE``.
    """
    older = {} if baseline is None else {id(new): old for old, new in compare.pairs(baseline, results) if old and new}
    judgements: list[Judgement] = []
    for gate in gates:
        of_gate = []
        for row in results.measurements:
            if not gate.judges(row):
                continue
            if gate.column in BASELINE and baseline is not None:
                of_gate.append(_against_baseline(gate, row, results, older.get(id(row)), baseline))
            else:
                of_gate.append(_judged(gate, row))
        judgements += of_gate
        if all(judgement.outcome == "skipped" for judgement in of_gate):
            reason = _no_cell(gate, results, of_gate)
            judgements.append(Judgement(gate=gate.text, cell="", outcome="failed", reason=reason))
    return tuple(judgements)


def _parsed(text: str, baseline: bool) -> Gate:
    match = _EXPRESSION.fullmatch(text.strip())
    limit = math.nan
    if match is not None:
        try:
            limit = float(match["number"])
        except ValueError:
            match = None
    if match is None or not math.isfinite(limit):
        example = "'p50_ratio < 0.55' or 'int8.onnx@onnxruntime: p50_ratio < 0.55'"
        raise ConfigError(f"--gate {text!r}: expected COLUMN OP NUMBER with OP one of < <= > >=, such as {example}")
    column = match["column"]
    if column not in (*NUMERIC, *BASELINE):
        raise ConfigError(f"--gate {text!r}: {config.unknown_name('numeric column', column, (*NUMERIC, *BASELINE))}")
    if column in BASELINE and not baseline:
        raise ConfigError(f"--gate {text!r}: no results to compare with; add --baseline OLD.json")
    model, _, runtime = (part.strip() for part in (match["which"] or "").partition("@"))
    return Gate(
        text=" ".join(text.split()),
        column=column,
        operator=match["operator"],
        limit=limit,
        model=model or "*",
        runtime=runtime or "*",
    )


def _judged(gate: Gate, row: Measurement) -> Judgement:
    value = columns.as_columns(row)[gate.column]
    cell = compare.cell_name(row)
    if value is None:
        reason = (
            f"{gate.column} is not measured" if row.measured else f"{row.status}: {row.reason or 'no reason given'}"
        )
        return Judgement(gate=gate.text, cell=cell, outcome="skipped", reason=reason)
    if gate.column not in columns.bound_columns(Measurement):
        outcome: Outcome = "passed" if gate.satisfied_by(value) else "failed"
        return Judgement(gate=gate.text, cell=cell, outcome=outcome, value=value)
    interval: Interval = getattr(row, gate.column)
    if _TIME.match(gate.column) and interval.lo == interval.hi:
        bounds = {"value": value, "lo": interval.lo, "hi": interval.hi}
        reason = "one round shows no spread; measure several"
        return Judgement(gate=gate.text, cell=cell, outcome="undecided", reason=reason, **bounds)
    return _judged_interval(gate, cell, interval)


def _against_baseline(
    gate: Gate, row: Measurement, new: Results, old: Measurement | None, baseline: Results
) -> Judgement:
    """Judge a gate on one of the columns ``BASELINE``."""
    cell = compare.cell_name(row)

    def without_value(outcome: Outcome, reason: str) -> Judgement:
        return Judgement(gate=gate.text, cell=cell, outcome=outcome, reason=reason)

    if not row.measured:
        return without_value("skipped", f"{row.status}: {row.reason}")
    if old is None or not old.measured:
        return without_value("skipped", "the baseline has no such cell" if old is None else f"baseline: {old.status}")
    if gate.column == "auc_vs_baseline":
        change = compare.auc_change(baseline, old, new, row, level=LEVEL)
        return without_value("skipped", "no AUC to compare") if change is None else _judged_interval(gate, cell, change)
    ratio = compare.p50_ratio(old, row, level=LEVEL)
    other_machine = noise.other_machine(baseline.environment, new.environment)
    if other_machine:
        return without_value("undecided", f"measured on another machine ({other_machine[0]})")
    if ratio is None:
        return without_value("undecided", "one round shows no spread")
    return _judged_interval(gate, cell, ratio)


def _judged_interval(gate: Gate, cell: str, interval: Interval) -> Judgement:
    """Judge by both bounds: a one-sided condition that holds at both bounds holds between them too."""
    bounds = [gate.satisfied_by(interval.lo), gate.satisfied_by(interval.hi)]
    outcome: Outcome = "passed" if all(bounds) else "undecided" if any(bounds) else "failed"
    reason = None
    if outcome == "undecided":
        reason = f"the interval contains {gate.limit:g}; {_advice(gate)}"
    return Judgement(
        gate=gate.text,
        cell=cell,
        outcome=outcome,
        value=interval.value,
        lo=interval.lo,
        hi=interval.hi,
        reason=reason,
    )


def _advice(gate: Gate) -> str:
    if gate.column == "p50_vs_baseline":
        return "two runs of the same file differ by several per cent: bench both files in one run"
    if _TIME.match(gate.column):
        return "measure more rounds ([bench] rounds in --config), or on a quieter machine"
    return "measure more test patches"


def _no_cell(gate: Gate, results: Results, skipped: Sequence[Judgement]) -> str:
    if not results.measurements:
        return "judged no cell: the results are empty"
    if skipped:
        return f"judged no cell: all {len(skipped)} are skipped, the first because: {skipped[0].reason}"
    cells = ", ".join(dict.fromkeys(f"{row.model}@{row.runtime}" for row in results.measurements))
    return f"judged no cell: none matches {gate.model}@{gate.runtime}; the cells are {cells}"
