"""What changed between two results files, cell by cell, and which changes are more than noise."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy import stats

from histoedge.benchmark import noise, results
from histoedge.benchmark.results import Measurement, Results
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval

CELL = ("recipe", "format", "runtime", "threads", "batch", "field_px")
"""What tells a cell; where several share it, as files of two networks do, the model's name does too."""

NAMED = ("network", "runtime_version", "kernels", "cpus", "sha256", "size_bytes")
PASSING = {"load_average", "date"}  # of the minute or day, not of the machine

SpeedVerdict = Literal["faster", "slower", "within noise", "no spread", "other machine"]
AucVerdict = Literal["equal", "higher", "lower", "within noise"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that A and B tell differently; None where one does not tell it."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """One cell in A and B. Figures are None where it was not measured in both.

    ``differences``: of network, runtime version, kernels, CPUs, SHA-256 and size. ``auc_change`` is B's AUC less A's,
    ``p50_ratio`` B's p50 over A's (both milliseconds per call), each with its 99 % interval; the interval of the ratio
    is None where a single round shows no spread.
    """

    cell: str
    presence: Literal["both", "added", "removed"]
    status_a: str | None
    status_b: str | None
    differences: tuple[Difference, ...] = ()
    size_a_bytes: int | None = None
    size_b_bytes: int | None = None
    auc_a: float | None = None
    auc_b: float | None = None
    auc_change: float | None = None
    auc_change_lo: float | None = None
    auc_change_hi: float | None = None
    auc_verdict: AucVerdict | None = None
    p50_a_ms: float | None = None
    p50_b_ms: float | None = None
    p50_ratio: float | None = None
    p50_ratio_lo: float | None = None
    p50_ratio_hi: float | None = None
    p50_verdict: SpeedVerdict | None = None

    @property
    def file_changed(self) -> bool:
        """Whether it is another model file."""
        return any(one.name == "sha256" for one in self.differences)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """From A to B: ``environment`` and ``settings`` (test patches, plan) that differ, and every cell of either.

    ``other_machine`` says why times do not compare, and is empty where they do.
    """

    environment: tuple[Difference, ...]
    settings: tuple[Difference, ...]
    other_machine: tuple[str, ...]
    cells: tuple[Change, ...]

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON, with the level of its intervals."""
        return {"level": noise.LEVEL, **dataclasses.asdict(self)}


def read_comparable(path: Path) -> Results:
    """The results in a ``bench.json`` that something can be compared with.

    Raises:
        DataError: as ``results.read``, or it holds no measurement.
    """
    found = results.read_results(path)
    if not found.measurements:
        raise DataError(f"{path}: holds no measurement; nothing can be compared with it")
    return found


def compare(a: Results, b: Results) -> Comparison:
    """What changed from ``a`` to ``b``: cells of b in its order, then those that only a has."""
    elsewhere = noise.other_machine(a.environment, b.environment)
    return Comparison(
        environment=tuple(_differences(_flat(a.environment), _flat(b.environment))),
        settings=tuple(_differences(_settings(a), _settings(b))),
        other_machine=tuple(elsewhere),
        cells=tuple(change(a, one, b, other, elsewhere=bool(elsewhere)) for one, other in pairs(a, b)),
    )


def pairs(a: Results, b: Results) -> Iterator[tuple[Measurement | None, Measurement | None]]:
    """Every cell as (in a, in b), None where it is missing: cells of b in its order, then those that only a has.

    Cells are the same by ``CELL``. Where one side has several of these, those with equal model names are.
    """
    left = list(a.measurements)
    for row in b.measurements:
        same = [one for one in left if _key(one) == _key(row)]
        named = [one for one in same if one.model == row.model]
        alone = len(same) == 1 and sum(_key(one) == _key(row) for one in b.measurements) == 1
        found = named[0] if named else same[0] if alone else None
        if found is not None:
            left.remove(found)
        yield found, row
    for one in left:
        yield one, None


def cell_name(row: Measurement) -> str:
    """``int8.onnx @ onnxruntime``, and threads, batch and field where they are not 1, 1 and 96 px."""
    parts = [f"{row.model} @ {row.runtime}"]
    parts += [f"{row.threads} threads"] if row.threads != 1 else []
    parts += [f"batch {row.batch}"] if row.batch != 1 else []
    parts += [f"{row.field_px} px"] if row.field_px != 96 else []
    return ", ".join(parts)


def p50_ratio(a: Measurement, b: Measurement, *, level: float = noise.LEVEL) -> Interval | None:
    """B's p50 over A's, of two runs; None where either shows no spread. See ``noise.ratio_between_runs``."""
    new, old = _interval(b.p50_ms, b.p50_lo, b.p50_hi), _interval(a.p50_ms, a.p50_lo, a.p50_hi)
    return None if new is None or old is None else noise.ratio_between_runs(new, old, level=level)


def auc_change(
    a: Results, in_a: Measurement, b: Results, in_b: Measurement, *, level: float = noise.LEVEL
) -> Interval | None:
    """B's AUC less A's, with an interval as narrow as two results files allow; None where either has no AUC.

    The same file on the same test patches: no chance is left, so the interval has no width. The same patches and the
    same reference file: both ``d_auc`` are paired, and the interval is as wide as theirs together, because the
    standard error of a difference is at most the sum of both (Cauchy-Schwarz). Otherwise as for independent patches,
    which is too wide for the same patches: logits are in no results file. To tell smaller changes, measure
    both files in one run.
    """
    new, old = _interval(in_b.auc, in_b.auc_lo, in_b.auc_hi), _interval(in_a.auc, in_a.auc_lo, in_a.auc_hi)
    if new is None or old is None:
        return None
    change = new.value - old.value
    half = math.hypot(_half(new), _half(old))
    if same_patches(a, b):
        d_new = _interval(in_b.d_auc, in_b.d_auc_lo, in_b.d_auc_hi)
        d_old = _interval(in_a.d_auc, in_a.d_auc_lo, in_a.d_auc_hi)
        if in_a.sha256 is not None and in_a.sha256 == in_b.sha256:
            half = 0.0
        elif d_new is not None and d_old is not None and _reference(a, in_a) == _reference(b, in_b) is not None:
            change, half = d_new.value - d_old.value, _half(d_new) + _half(d_old)
    half *= float(stats.norm.ppf(0.5 + level / 2) / stats.norm.ppf(0.975))
    return Interval(change, change - half, change + half)


def same_patches(a: Results, b: Results) -> bool:
    """Whether both were measured on the same test patches."""
    return a.inputs.get("data") is not None and a.inputs.get("data") == b.inputs.get("data")


def change(a: Results, one: Measurement | None, b: Results, other: Measurement | None, *, elsewhere: bool) -> Change:
    """What changed from cell ``one`` of ``a`` to cell ``other`` of ``b``, one of them None where it is missing.

    ``elsewhere``: they were measured on different machines, whose times do not compare.
    """
    if one is None or other is None:
        row, presence = (other, "added") if one is None else (one, "removed")
        assert row is not None
        return Change(
            cell=cell_name(row),
            presence="added" if presence == "added" else "removed",
            status_a=None if one is None else one.status,
            status_b=None if other is None else other.status,
            size_a_bytes=None if one is None else one.size_bytes,
            size_b_bytes=None if other is None else other.size_bytes,
        )
    before, after = ({name: getattr(row, name) for name in NAMED} for row in (one, other))
    return Change(
        cell=cell_name(other),
        presence="both",
        status_a=one.status,
        status_b=other.status,
        differences=tuple(_differences(before, after)),
        size_a_bytes=one.size_bytes,
        size_b_bytes=other.size_bytes,
        **_auc_figures(a, one, b, other),
        **_p50_figures(one, other, elsewhere),
    )


def _auc_figures(a: Results, one: Measurement, b: Results, other: Measurement) -> dict[str, Any]:
    found = auc_change(a, one, b, other)
    figures = {"auc_a": one.auc, "auc_b": other.auc}
    if found is None:
        return figures
    verdict: AucVerdict = "within noise"
    if found.value == 0:
        verdict = "equal"
    elif found.lo > 0:
        verdict = "higher"
    elif found.hi < 0:
        verdict = "lower"
    bounds = {"auc_change": found.value, "auc_change_lo": found.lo, "auc_change_hi": found.hi}
    return {**figures, **bounds, "auc_verdict": verdict}


def _p50_figures(one: Measurement, other: Measurement, elsewhere: bool) -> dict[str, Any]:
    figures = {"p50_a_ms": one.p50_ms, "p50_b_ms": other.p50_ms}
    if not one.p50_ms or other.p50_ms is None:
        return figures
    found = p50_ratio(one, other)
    figures["p50_ratio"] = other.p50_ms / one.p50_ms
    if elsewhere:
        return {**figures, "p50_verdict": "other machine"}
    if found is None:
        return {**figures, "p50_verdict": "no spread"}
    bounds = {"p50_ratio_lo": found.lo, "p50_ratio_hi": found.hi}
    return {**figures, **bounds, "p50_verdict": noise.speed(found)}


def _key(row: Measurement) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in CELL)


def _reference(found: Results, row: Measurement) -> str | None:
    """SHA-256 of the file that ``d_auc`` compares with."""
    same = [one for one in found.measurements if f"{one.model} @ {one.runtime}" == row.reference]
    return same[0].sha256 if same else None


def _settings(found: Results) -> dict[str, Any]:
    plan = found.inputs.get("plan")
    return {"test patches": found.inputs.get("data"), **_flat({"plan": plan if isinstance(plan, dict) else {}})}


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nested names joined by a space, such as ``packages numpy``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name} {inner}": one for inner, one in _flat(value).items()}
        elif name not in PASSING:
            flat[name] = value
    return flat


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield Difference(name=name, a=a.get(name), b=b.get(name))


def _interval(value: float | None, lo: float | None, hi: float | None) -> Interval | None:
    return None if value is None or lo is None or hi is None else Interval(value, lo, hi)


def _half(found: Interval) -> float:
    """Half the width of a 95 % interval; where one end was clipped, the other tells."""
    return max(found.hi - found.value, found.value - found.lo)
