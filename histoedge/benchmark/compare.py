"""Comparison of two results files, cell by cell: changes, and whether they are more than noise."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy import stats

from histoedge.benchmark import noise, results
from histoedge.benchmark.result_row import Measurement
from histoedge.benchmark.results import Results
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval, value_of

CELL = ("recipe", "format", "runtime", "threads", "batch", "field_px")
"""The columns that identify a cell; the model name decides between cells with equal columns, as of two networks."""

COMPARED = ("network", "runtime_version", "kernels", "cpus", "sha256", "size_bytes")
NOT_COMPARED = {"load_average", "date"}  # properties of the moment, not of the machine

SpeedVerdict = Literal["faster", "slower", "within noise", "no spread", "other machine"]
AucVerdict = Literal["equal", "higher", "lower", "within noise"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An entry with different values in A and B; None if it is missing."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """One cell in A and B. Figures are None if the cell was not measured in both.

    ``differences``: of network, runtime version, kernels, CPUs, SHA-256 and size. ``auc_change`` is B's AUC minus A's,
    ``p50_ratio`` B's p50 over A's (both milliseconds per call), each with its 99 % interval. The ratio has no interval
    if one side has a single round, which shows no spread, or if the machines differ.
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
        """Whether the model files differ."""
        return any(difference.name == "sha256" for difference in self.differences)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Changes from A to B: ``environment`` and ``settings`` (test patches, plan) that differ, and all cells of both.

    ``other_machine`` lists the reasons why times do not compare; it is empty if they do.
    """

    environment: tuple[Difference, ...]
    settings: tuple[Difference, ...]
    other_machine: tuple[str, ...]
    cells: tuple[Change, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON, with the level of its intervals."""
        return {"level": noise.LEVEL, **dataclasses.asdict(self)}


def read_comparable(path: Path) -> Results:
    """Return the results in a ``bench.json`` for a comparison.

    Raises:
        DataError: as ``results.read_results``, or the file contains no measurement.
    """
    content = results.read_results(path)
    if not content.measurements:
        raise DataError(f"{path}: contains no measurement to compare; measure again")
    return content


def compare(a: Results, b: Results) -> Comparison:
    """Compare ``a`` with ``b``: cells of b in their order, then cells that are only in a."""
    other_machine = noise.other_machine(a.environment, b.environment)
    return Comparison(
        environment=tuple(_differences(_flat(a.environment), _flat(b.environment))),
        settings=tuple(_differences(_settings(a), _settings(b))),
        other_machine=tuple(other_machine),
        cells=tuple(change(a, in_a, b, in_b, other_machine=bool(other_machine)) for in_a, in_b in pairs(a, b)),
    )


def pairs(a: Results, b: Results) -> Iterator[tuple[Measurement | None, Measurement | None]]:
    """Yield every cell as (in a, in b), None if missing: cells of b in their order, then cells that are only in a.

    Cells with equal ``CELL`` columns are the same. If one side has several of them, the model names must be equal too.
    """
    unpaired = list(a.measurements)
    for row in b.measurements:
        same_key = [other for other in unpaired if _key(other) == _key(row)]
        same_model = [other for other in same_key if other.model == row.model]
        unique = len(same_key) == 1 and sum(_key(other) == _key(row) for other in b.measurements) == 1
        partner = same_model[0] if same_model else same_key[0] if unique else None
        if partner is not None:
            unpaired.remove(partner)
        yield partner, row
    for row in unpaired:
        yield row, None


def cell_name(row: Measurement) -> str:
    """Return ``int8.onnx @ onnxruntime``, with threads, batch and field if these are not 1, 1 and a patch."""
    parts = [f"{row.model} @ {row.runtime}"]
    parts += [f"{row.threads} threads"] if row.threads != 1 else []
    parts += [f"batch {row.batch}"] if row.batch != 1 else []
    parts += [] if row.of_patches else [f"{row.field_px} px"]
    return ", ".join(parts)


def p50_ratio(a: Measurement, b: Measurement, *, level: float = noise.LEVEL) -> Interval | None:
    """Return B's p50 over A's for two runs; None if either shows no spread. See ``noise.ratio_between_runs``."""
    if a.p50_ms is None or b.p50_ms is None:
        return None
    return noise.ratio_between_runs(b.p50_ms, a.p50_ms, level=level)


def auc_change(
    a: Results, in_a: Measurement, b: Results, in_b: Measurement, *, level: float = noise.LEVEL
) -> Interval | None:
    """Return B's AUC minus A's, with the narrowest valid interval; None if either has no AUC.

    The same file on the same test patches: nothing is random, and the interval has no width. The same patches and the
    same reference file: both ``d_auc`` are paired, and the half-widths of their intervals are added, because the
    standard error of a difference is at most the sum of both (Cauchy-Schwarz). Otherwise as for independent patches;
    this is too wide for the same patches, but results files do not contain logits. To detect smaller changes, measure
    both files in one run.
    """
    new, old = in_b.auc, in_a.auc
    if new is None or old is None:
        return None
    change = new.value - old.value
    half = math.hypot(_half(new), _half(old))
    if same_patches(a, b):
        d_new, d_old = in_b.d_auc, in_a.d_auc
        if in_a.sha256 is not None and in_a.sha256 == in_b.sha256:
            half = 0.0
        elif d_new is not None and d_old is not None and _reference(a, in_a) == _reference(b, in_b) is not None:
            change, half = d_new.value - d_old.value, _half(d_new) + _half(d_old)
    half *= float(stats.norm.ppf(0.5 + level / 2) / stats.norm.ppf(0.975))
    return Interval(change, change - half, change + half)


def same_patches(a: Results, b: Results) -> bool:
    """Whether both were measured on the same test patches."""
    return a.inputs.get("data") is not None and a.inputs.get("data") == b.inputs.get("data")


def change(
    a: Results, in_a: Measurement | None, b: Results, in_b: Measurement | None, *, other_machine: bool
) -> Change:
    """Compare a cell of ``a`` with the same cell of ``b``; one of them is None if it is missing.

    ``other_machine``: they were measured on different machines, and their times do not compare.
    """
    if in_a is None or in_b is None:
        row = in_b or in_a
        assert row is not None
        return Change(
            cell=cell_name(row),
            presence="added" if in_a is None else "removed",
            status_a=None if in_a is None else in_a.status,
            status_b=None if in_b is None else in_b.status,
            size_a_bytes=None if in_a is None else in_a.size_bytes,
            size_b_bytes=None if in_b is None else in_b.size_bytes,
        )
    before, after = ({name: getattr(row, name) for name in COMPARED} for row in (in_a, in_b))
    return Change(
        cell=cell_name(in_b),
        presence="both",
        status_a=in_a.status,
        status_b=in_b.status,
        differences=tuple(_differences(before, after)),
        size_a_bytes=in_a.size_bytes,
        size_b_bytes=in_b.size_bytes,
        **_auc_figures(a, in_a, b, in_b),
        **_p50_figures(in_a, in_b, other_machine),
    )


def _auc_figures(a: Results, in_a: Measurement, b: Results, in_b: Measurement) -> dict[str, Any]:
    figures: dict[str, Any] = {"auc_a": value_of(in_a.auc), "auc_b": value_of(in_b.auc)}
    interval = auc_change(a, in_a, b, in_b)
    if interval is None:
        return figures
    verdict: AucVerdict = "within noise"
    if interval.value == 0:
        verdict = "equal"
    elif interval.lo > 0:
        verdict = "higher"
    elif interval.hi < 0:
        verdict = "lower"
    bounds = {"auc_change": interval.value, "auc_change_lo": interval.lo, "auc_change_hi": interval.hi}
    return {**figures, **bounds, "auc_verdict": verdict}


def _p50_figures(in_a: Measurement, in_b: Measurement, other_machine: bool) -> dict[str, Any]:
    p50_a, p50_b = value_of(in_a.p50_ms), value_of(in_b.p50_ms)
    figures: dict[str, Any] = {"p50_a_ms": p50_a, "p50_b_ms": p50_b}
    if not p50_a or p50_b is None:
        return figures
    figures["p50_ratio"] = p50_b / p50_a
    interval = p50_ratio(in_a, in_b)
    if other_machine:
        return {**figures, "p50_verdict": "other machine"}
    if interval is None:
        return {**figures, "p50_verdict": "no spread"}
    bounds = {"p50_ratio_lo": interval.lo, "p50_ratio_hi": interval.hi}
    return {**figures, **bounds, "p50_verdict": noise.speed(interval)}


def _key(row: Measurement) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in CELL)


def _reference(results: Results, row: Measurement) -> str | None:
    """Return the SHA-256 of the file that ``d_auc`` compares with."""
    references = [other for other in results.measurements if f"{other.model} @ {other.runtime}" == row.reference]
    return references[0].sha256 if references else None


def _settings(results: Results) -> dict[str, Any]:
    plan = results.inputs.get("plan")
    return {"test patches": results.inputs.get("data"), **_flat({"plan": plan if isinstance(plan, dict) else {}})}


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested entries with their names joined by a space, such as ``packages numpy``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name} {inner}": entry for inner, entry in _flat(value).items()}
        elif name not in NOT_COMPARED:
            flat[name] = value
    return flat


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield Difference(name=name, a=a.get(name), b=b.get(name))


def _half(interval: Interval) -> float:
    """Return half the width of a 95 % interval, from the side that is not clipped."""
    return max(interval.hi - interval.value, interval.value - interval.lo)
