"""Gates: what every cell of a benchmark must hold, judged with its noise.

A gate is ``COLUMN OP NUMBER``, such as ``p50_ratio < 0.55``; OP is <, <=, > or >=. ``WHICH: COLUMN OP NUMBER`` judges
some cells alone. WHICH is ``MODEL``, ``MODEL@RUNTIME`` or ``@RUNTIME``; MODEL is a file's name or its recipe, and ``*``
stands for anything: ``int8*@onnxruntime: p50_ratio < 0.55``.

A column with an interval passes when all of its 95 % interval holds the condition, fails when none of it does, and is
undecided otherwise, which does not pass. A bound (``d_auc_lo``) or a figure without an interval is a plain number.
Cells where the column is null are skipped, and a gate that judged none fails.
"""

import fnmatch
import math
import operator
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from histoedge import config
from histoedge.benchmark import compare, noise
from histoedge.benchmark.results import Measurement, Results
from histoedge.edge.errors import ConfigError
from histoedge.metrics import Interval

Outcome = Literal["passed", "failed", "undecided", "skipped"]

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMERIC = tuple(
    name for name, hint in typing.get_type_hints(Measurement).items() if {int, float} & {hint, *typing.get_args(hint)}
)
BASELINE = ("p50_vs_baseline", "auc_vs_baseline")
"""This p50 over, and this AUC less, that of the same cell in an older results file; see ``compare``."""

LEVEL = 0.95  # that of the intervals in a measurement

_EXPRESSION = re.compile(
    r"(?:(?P<which>[^<>=]+):)?\s*(?P<column>\w+)\s*(?P<operator><=|>=|<|>)\s*(?P<number>[^\s<>=]+)"
)
_TIME = re.compile(r"p\d\d_|patches_per_s")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition. ``model`` and ``runtime`` are patterns of the cells it judges; ``text`` is how it was written."""

    text: str
    column: str
    operator: str
    limit: float
    model: str = "*"
    runtime: str = "*"

    def holds(self, value: float) -> bool:
        """Whether ``value`` satisfies the condition."""
        return OPERATORS[self.operator](value, self.limit)

    def judges(self, row: Measurement) -> bool:
        """Whether the cell is one of those that the gate is for."""
        names = (row.model, row.model.rpartition("/")[2], row.recipe)
        return any(fnmatch.fnmatchcase(name, self.model) for name in names) and fnmatch.fnmatchcase(
            row.runtime, self.runtime
        )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A gate on a cell; ``cell`` is empty where it judged none. ``lo`` and ``hi`` bound a value with an interval."""

    gate: str
    cell: str
    outcome: Outcome
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    reason: str | None = None

    @property
    def holds_up(self) -> bool:
        """Whether it stops nobody: passed, or skipped."""
        return self.outcome in ("passed", "skipped")


def parse(texts: Iterable[str], *, baseline: bool = False) -> tuple[Gate, ...]:
    """The gates that these texts say.

    Args:
        texts: ``[WHICH:] COLUMN OP NUMBER`` each.
        baseline: whether there are older results to compare with.

    Raises:
        ConfigError: one is no such condition, names no numeric column, or asks for older results that are not there.
    """
    return tuple(_parsed(text, baseline) for text in texts)


def judge_gates(gates: Sequence[Gate], results: Results, *, baseline: Results | None = None) -> tuple[Judgement, ...]:
    """Every gate on every cell it is for.

    Args:
        gates: what must hold.
        results: what was measured.
        baseline: older results, for gates on ``BASELINE``.
    """
    older = {} if baseline is None else {id(new): old for old, new in compare.pairs(baseline, results) if old and new}
    found: list[Judgement] = []
    for gate in gates:
        rows = [row for row in results.measurements if gate.judges(row)]
        mine = []
        for row in rows:
            if gate.column in BASELINE and baseline is not None:
                mine.append(_against(gate, row, results, older.get(id(row)), baseline))
            else:
                mine.append(_judged(gate, row))
        found += mine
        if all(one.outcome == "skipped" for one in mine):
            found.append(Judgement(gate=gate.text, cell="", outcome="failed", reason=_nothing(gate, results, mine)))
    return tuple(found)


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
        raise ConfigError(f"--gate {text!r}: there is nothing to compare with; give --baseline OLD.json")
    model, _, runtime = (part.strip() for part in (match["which"] or "").partition("@"))
    shown = " ".join(text.split())
    return Gate(
        text=shown,
        column=column,
        operator=match["operator"],
        limit=limit,
        model=model or "*",
        runtime=runtime or "*",
    )


def _judged(gate: Gate, row: Measurement) -> Judgement:
    value = getattr(row, gate.column)
    cell = compare.cell_name(row)
    if value is None:
        reason = row.reason if not row.measured else None
        said = f"{row.status}: {reason or 'no reason given'}" if not row.measured else f"{gate.column} is not measured"
        return Judgement(gate=gate.text, cell=cell, outcome="skipped", reason=said)
    bounds = _bounds(gate.column)
    if bounds is None:
        outcome: Outcome = "passed" if gate.holds(value) else "failed"
        return Judgement(gate=gate.text, cell=cell, outcome=outcome, value=value)
    lo, hi = (getattr(row, name) for name in bounds)
    if lo is None or hi is None or (_TIME.match(gate.column) and lo == hi):
        reason = "it has no interval" if lo is None or hi is None else "one round shows no spread; measure several"
        return Judgement(gate=gate.text, cell=cell, outcome="undecided", value=value, lo=lo, hi=hi, reason=reason)
    return _weighed(gate, cell, Interval(value, lo, hi))


def _against(gate: Gate, row: Measurement, new: Results, old: Measurement | None, baseline: Results) -> Judgement:
    """A gate on one of ``BASELINE``."""
    cell = compare.cell_name(row)
    skipped = Judgement(gate=gate.text, cell=cell, outcome="skipped", reason=f"{row.status}: {row.reason}")
    if not row.measured:
        return skipped
    if old is None or not old.measured:
        return _with(skipped, "the baseline has no such cell" if old is None else f"in the baseline {old.status}")
    if gate.column == "auc_vs_baseline":
        found = compare.auc_change(baseline, old, new, row, level=LEVEL)
        return _with(skipped, "no AUC to compare") if found is None else _weighed(gate, cell, found)
    found = compare.p50_ratio(old, row, level=LEVEL)
    elsewhere = noise.other_machine(baseline.environment, new.environment)
    if elsewhere or found is None:
        reason = f"measured on another machine ({elsewhere[0]})" if elsewhere else "one round shows no spread"
        return Judgement(gate=gate.text, cell=cell, outcome="undecided", reason=reason)
    return _weighed(gate, cell, found)


def _weighed(gate: Gate, cell: str, found: Interval) -> Judgement:
    """By the whole interval. A condition on one side of a number holds for all of it when it does at both ends."""
    ends = [gate.holds(found.lo), gate.holds(found.hi)]
    outcome: Outcome = "passed" if all(ends) else "undecided" if any(ends) else "failed"
    reason = None
    if outcome == "undecided":
        reason = f"the interval reaches both sides of {gate.limit:g}; {_more(gate)}"
    return Judgement(
        gate=gate.text, cell=cell, outcome=outcome, value=found.value, lo=found.lo, hi=found.hi, reason=reason
    )


def _more(gate: Gate) -> str:
    if gate.column == "p50_vs_baseline":
        return "two runs differ by some per cent whatever they measure: bench both files in one run"
    if _TIME.match(gate.column):
        return "measure more rounds ([bench] rounds in --config), or on a quieter machine"
    return "measure more test patches"


def _nothing(gate: Gate, results: Results, skipped: Sequence[Judgement]) -> str:
    if not results.measurements:
        return "judged no cell: the results are empty"
    if skipped:
        return f"judged no cell: all {len(skipped)} are skipped, the first because: {skipped[0].reason}"
    cells = ", ".join(dict.fromkeys(f"{row.model}@{row.runtime}" for row in results.measurements))
    return f"judged no cell: none is {gate.model}@{gate.runtime}; there are {cells}"


def _with(judgement: Judgement, reason: str) -> Judgement:
    return Judgement(gate=judgement.gate, cell=judgement.cell, outcome=judgement.outcome, reason=reason)


def _bounds(column: str) -> tuple[str, str] | None:
    """The columns of its interval: ``auc_lo`` and ``auc_hi`` of ``auc``, ``p50_lo`` and ``p50_hi`` of ``p50_ms``."""
    for stem in (column, column.removesuffix("_ms")):
        if f"{stem}_lo" in NUMERIC and f"{stem}_hi" in NUMERIC:
            return f"{stem}_lo", f"{stem}_hi"
    return None
