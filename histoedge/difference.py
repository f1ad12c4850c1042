"""Differences between two exported files, for change control, and whether they require a new validation."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError
from histoedge.edge.golden import Golden
from histoedge.edge.manifest import Manifest, OperatingPoint

if TYPE_CHECKING:
    from histoedge.benchmark import Measurement, Results
    from histoedge.benchmark.compare import Change
    from histoedge.metrics import Interval

FORMAT = 1  # of the JSON document
HASH_SHOWN = 12

GROUPS = {
    "file": ("format", "sha256"),
    "contract": ("contract",),
    "geometry": (
        *("patch_px", "label_px", "um_per_px", "stride_px", "receptive_field_px", "centre_offset_px", "edge_mode"),
    ),
    "weights": ("network", "recipe", "params", "macs", "zeros", "parents"),
    "decision": ("classes", "temperature", "threshold", "operating_points"),
    "arithmetic": ("output_quantum", "tolerance", "may_saturate", "float_layers"),
    "input statistics": ("input_statistics",),
    "tools": ("golden_runtime", "tools"),
}
"""The manifest's keys by group."""

ANSWERS = {
    *("contract", "network", "recipe", "source", "weights", "may_saturate", "float_layers"),
    *GROUPS["geometry"],
    *GROUPS["decision"],
}
"""Keys of the manifest and of its ``parents`` whose change can change answers or verdicts."""

FIGURES = ("status", "auc", "auc_lo", "auc_hi", "n_patches", "p50_ms", "p50_lo", "p50_hi")
SHAPE = ("runtime", "threads", "batch", "field_px", "scenario")

Need = Literal["nothing", "self-test", "validation"]


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """An entry of both manifests; None if one lacks it. ``key`` is the key in the manifest or in ``parents``."""

    group: str
    key: str
    name: str
    a: Any
    b: Any

    @property
    def changed(self) -> bool:
        """Whether the values differ."""
        return bool(self.a != self.b)


@dataclass(frozen=True, kw_only=True)
class GoldenChange:
    """B's golden logits minus A's, on the same patches.

    ``flips`` counts verdicts that differ, each at its own threshold. ``allowed`` is the largest
    difference that rounding can explain.
    """

    n_patches: int
    largest: float
    rms: float
    flips: int
    allowed: float


@dataclass(frozen=True)
class Measured:
    """One shape on one runtime in the results of A and of B, None if missing; ``change`` only if both have it."""

    a: "Measurement | None"
    b: "Measurement | None"
    change: "Change | None"

    @property
    def cell(self) -> str:
        """A name such as ``onnxruntime, 2 threads``."""
        from histoedge.benchmark import compare

        row = self.b or self.a
        assert row is not None
        return compare.cell_name(row).partition(" @ ")[2]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """The comparison of two files and of their results.

    ``golden`` is None if the golden patches differ. ``need``: ``nothing`` if neither the model nor its manifest
    changed; ``self-test`` (on each device) if only tools or the format of the file changed and the answers stay the
    same; ``validation`` if other answers or verdicts must be expected, for the ``reasons``.
    """

    rows: tuple[FieldChange, ...]
    golden: GoldenChange | None
    measured: tuple[Measured, ...]
    need: Need
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document, with unchanged rows."""
        measured = [
            {
                "cell": pair.cell,
                "a": _figures(pair.a),
                "b": _figures(pair.b),
                "change": None if pair.change is None else dataclasses.asdict(pair.change),
            }
            for pair in self.measured
        ]
        rows = [{**dataclasses.asdict(row), "changed": row.changed} for row in self.rows]
        golden = None if self.golden is None else dataclasses.asdict(self.golden)
        return {
            "format": FORMAT,
            "rows": rows,
            "golden": golden,
            "measured": measured,
            "need": self.need,
            "reasons": self.reasons,
        }

    def table(self) -> list[dict[str, Any]]:
        """Return the changed entries as a table: group, name, values."""
        return [
            {"of": row.group, "what": row.name, "A": shown(row.a), "B": shown(row.b)}
            for row in self.rows
            if row.changed
        ]

    def measured_table(self) -> list[dict[str, Any]]:
        """Return the measured figures as a table: a row for each shape and runtime."""
        return [
            {
                "measured on": pair.cell,
                "AUC A": _auc(pair.a),
                "AUC B": _auc(pair.b),
                "AUC": None if pair.change is None else pair.change.auc_verdict,
                "p50 us A": _p50(pair.a),
                "p50 us B": _p50(pair.b),
                "p50": None if pair.change is None else pair.change.p50_verdict,
            }
            for pair in self.measured
        ]

    def lines(self) -> Iterator[str]:
        """Yield the lines below the tables; the last line states what is needed."""
        changed = list(dict.fromkeys(row.group for row in self.rows if row.changed))
        same = [group for group in GROUPS if group not in changed]
        if same:
            yield f"unchanged: {', '.join(same)}"
        if self.golden is None:
            yield "golden logits: not compared, because the golden patches differ"
        else:
            golden = self.golden
            yield (
                f"golden logits: largest difference {golden.largest:.4g} (rounding: up to {golden.allowed:.4g}), "
                f"rms {golden.rms:.4g}, different verdicts {golden.flips} of {golden.n_patches}"
            )
        if self.measured:
            yield "measured: 95 % intervals; changes from A to B at the 1 % level"
        conclusions = {
            "nothing": "no: nothing changed",
            "self-test": f"no, but run the self-test on each device: {', '.join(changed)} changed, the answers did not",
            "validation": f"yes: {'; '.join(self.reasons)}",
        }
        yield f"new validation needed? {conclusions[self.need]}"


def diff(a: Path, b: Path, *, results: tuple[Path, Path] | None = None) -> Diff:
    """Compare two exported files, after a check of their hashes, and optionally their results.

    Args:
        a: the old model file.
        b: the new model file.
        results: results files of ``histoedge bench`` for A and for B, which may be the same file. The rows of a model
            are selected by its SHA-256.

    Raises:
        ModelError: a file or sidecar is missing, unreadable or altered.
        DataError: a results file cannot be read, or contains no measured row of its model.
    """
    manifest_a, golden_a = _read(a)
    manifest_b, golden_b = _read(b)
    rows = tuple(_rows(manifest_a, manifest_b))
    golden = _golden_change(manifest_a, golden_a, manifest_b, golden_b)
    measured = () if results is None else tuple(_measured(manifest_a, manifest_b, *results))
    reasons = tuple(_reasons(rows, golden, measured))
    need: Need = "validation" if reasons else "self-test" if any(row.changed for row in rows) else "nothing"
    return Diff(rows=rows, golden=golden, measured=measured, need=need, reasons=reasons)


def shown(value: Any) -> str:
    """Return a value on one line."""
    if value is None:
        return "-"
    if isinstance(value, OperatingPoint):
        return f"{value.threshold:.4f} (sensitivity {value.sensitivity:.3f}, specificity {value.specificity:.3f})"
    if isinstance(value, dict):
        return " ".join(f"{value[name]:.4g}" for name in ("p01", "p50", "p99") if name in value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, str) and len(value) == 64:
        return value[:HASH_SHOWN]
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _read(model: Path) -> tuple[Manifest, Golden]:
    manifest = manifests.read(model)
    manifests.checked_bytes(model, manifest)
    return manifest, goldens.read_golden(model, manifest)


def _rows(a: Manifest, b: Manifest) -> Iterator[FieldChange]:
    for group, keys in GROUPS.items():
        for key in keys:
            in_a, in_b = (_parts(getattr(manifest, key)) for manifest in (a, b))
            for part in dict.fromkeys((*in_a, *in_b)):
                name = key if part is None else f"{part}" if key in ("parents", "tools") else f"{_SHORT[key]} {part}"
                of_parents = part if key == "parents" else None
                yield FieldChange(group=group, key=of_parents or key, name=name, a=in_a.get(part), b=in_b.get(part))


_SHORT = {"operating_points": "at", "input_statistics": "p01 p50 p99 of"}


def _parts(value: Any) -> Mapping[str | None, Any]:
    """Return the parts of a value by their names; a single value under None."""
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple):
        points: dict[str | None, Any] = {point.name: point for point in value if isinstance(point, OperatingPoint)}
        return points if len(points) == len(value) else {None: list(value)}
    return {None: value}


def _golden_change(a: Manifest, golden_a: Golden, b: Manifest, golden_b: Golden) -> GoldenChange | None:
    if not np.array_equal(golden_a.patches, golden_b.patches):
        return None
    difference = golden_b.logits.astype(np.float64) - golden_a.logits
    verdicts = [
        manifest.probability(golden.logits) >= manifest.threshold for manifest, golden in ((a, golden_a), (b, golden_b))
    ]
    return GoldenChange(
        n_patches=len(difference),
        largest=float(np.abs(difference).max()),
        rms=float(np.sqrt(np.mean(difference**2))),
        flips=int(np.count_nonzero(verdicts[0] != verdicts[1])),
        allowed=max(a.tolerance, b.tolerance),
    )


def _reasons(rows: Sequence[FieldChange], golden: GoldenChange | None, measured: Sequence[Measured]) -> Iterator[str]:
    """Yield why other answers or verdicts must be expected."""
    for group in GROUPS:
        names = [row.name for row in rows if row.group == group and row.changed and _can_change_answers(row)]
        if names:
            yield f"{group} changed ({', '.join(names)})"
    if golden is not None and (golden.largest > golden.allowed or golden.flips):
        yield f"golden logits changed (by up to {golden.largest:.4g}, verdicts {golden.flips})"
    lower = [pair.cell for pair in measured if pair.change is not None and pair.change.auc_verdict == "lower"]
    if lower:
        yield f"AUC is lower by more than noise on {', '.join(lower)}"


def _can_change_answers(row: FieldChange) -> bool:
    return row.key in ANSWERS or row.key.startswith("data ")


def _measured(a: Manifest, b: Manifest, results_a: Path, results_b: Path) -> Iterator[Measured]:
    from histoedge.benchmark import compare, noise  # scipy, which a comparison without results does not need

    old, new = compare.read_comparable(results_a), compare.read_comparable(results_b)
    other_machine = bool(noise.other_machine(old.environment, new.environment))
    rows_a, rows_b = _rows_of_model(old, results_a, a), _rows_of_model(new, results_b, b)
    for shape in dict.fromkeys((*rows_a, *rows_b)):
        row_a, row_b = rows_a.get(shape), rows_b.get(shape)
        change = None
        if row_a is not None and row_b is not None:
            change = compare.change(old, row_a, new, row_b, other_machine=other_machine)
        yield Measured(row_a, row_b, change)


def _rows_of_model(results: "Results", path: Path, manifest: Manifest) -> dict[tuple[Any, ...], "Measurement"]:
    """Return the measured rows of this file by their shape."""
    rows = [row for row in results.measurements if row.sha256 == manifest.sha256 and row.measured]
    if not rows:
        wanted = f"{manifest.network} {manifest.recipe}.{manifest.format}, SHA-256 {manifest.sha256[:HASH_SHOWN]}"
        raise DataError(f"{path}: no measured row of {wanted}; measure it with histoedge bench")
    return {tuple(getattr(row, name) for name in SHAPE): row for row in rows}


def _figures(row: "Measurement | None") -> dict[str, Any] | None:
    from histoedge.benchmark import columns

    if row is None:
        return None
    values = columns.as_columns(row)
    return {name: values[name] for name in FIGURES}


def _auc(row: "Measurement | None") -> str | None:
    return None if row is None else _interval_text(row.auc, scale=1, digits=4)


def _p50(row: "Measurement | None") -> str | None:
    return None if row is None else _interval_text(row.p50_ms, scale=1e3, digits=1)


def _interval_text(interval: "Interval | None", *, scale: float, digits: int) -> str | None:
    """Return text such as ``0.9351 [0.9340, 0.9362]``; None if not measured."""
    if interval is None:
        return None
    value, lo, hi = (f"{scale * number:.{digits}f}" for number in (interval.value, interval.lo, interval.hi))
    return f"{value} [{lo}, {hi}]"
