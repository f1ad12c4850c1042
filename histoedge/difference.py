"""What changed from one exported file to another, for change control: and does it ask for a new validation?"""

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
    from histoedge.benchmark.compare import Change
    from histoedge.benchmark.results import Measurement, Results

FORMAT = 1  # of the JSON document
HASH_SHOWN = 12

GROUPS = {
    "file": ("format", "sha256"),
    "contract": ("contract",),
    "geometry": (
        *("patch_px", "label_px", "um_per_px", "stride_px", "receptive_field_px", "centre_offset_px", "edge_mode"),
    ),
    "weights": ("network", "recipe", "params", "macs", "zeros", "parents"),
    "decision": ("temperature", "threshold", "operating_points"),
    "arithmetic": ("output_quantum", "tolerance", "may_saturate"),
    "input statistics": ("input_statistics",),
    "tools": ("golden_runtime", "tools"),
}
"""The manifest's keys by what they speak of."""

ANSWERS = {
    *("contract", "network", "recipe", "source", "weights", "may_saturate"),
    *GROUPS["geometry"],
    *GROUPS["decision"],
}
"""What cannot change without other answers or verdicts: keys of the manifest and of its ``parents``."""

FIGURES = ("status", "auc", "auc_lo", "auc_hi", "n_patches", "p50_ms", "p50_lo", "p50_hi")
SHAPE = ("runtime", "threads", "batch", "field_px", "scenario")

Need = Literal["nothing", "self-test", "validation"]


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One thing that both manifests tell, or one of them (the other is None). ``key`` is the manifest's or its own."""

    group: str
    key: str
    name: str
    a: Any
    b: Any

    @property
    def changed(self) -> bool:
        """Whether they tell it differently."""
        return bool(self.a != self.b)


@dataclass(frozen=True, kw_only=True)
class GoldenChange:
    """B's golden logits less A's, of the same patches.

    ``flips`` counts verdicts that differ, each at its own threshold; ``allowed`` is what rounding may explain.
    """

    n_patches: int
    largest: float
    rms: float
    flips: int
    allowed: float


@dataclass(frozen=True)
class Measured:
    """One shape on one runtime in the results of A and of B, None where it is not there; ``change`` if in both."""

    a: "Measurement | None"
    b: "Measurement | None"
    change: "Change | None"

    @property
    def cell(self) -> str:
        """Such as ``onnxruntime, 2 threads``."""
        from histoedge.benchmark import compare

        row = self.b or self.a
        assert row is not None
        return compare.cell_name(row).partition(" @ ")[2]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """All that two files and their results tell.

    ``golden`` is None where the golden patches are not the same. ``need``: ``nothing``, when no byte of the model and
    nothing of its manifest changed; ``self-test`` on each device, when what made the file or its format changed and
    the answers stay; ``validation``, when other answers or verdicts must be expected, for the ``reasons``.
    """

    rows: tuple[FieldChange, ...]
    golden: GoldenChange | None
    measured: tuple[Measured, ...]
    need: Need
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The JSON document; unchanged rows too."""
        measured = [
            {
                "cell": one.cell,
                "a": _figures(one.a),
                "b": _figures(one.b),
                "change": None if one.change is None else dataclasses.asdict(one.change),
            }
            for one in self.measured
        ]
        rows = [{**dataclasses.asdict(row), "changed": row.changed} for row in self.rows]
        golden = None if self.golden is None else dataclasses.asdict(self.golden)
        told = {"golden": golden, "measured": measured, "need": self.need, "reasons": self.reasons}
        return {"format": FORMAT, "rows": rows, **told}

    def table(self) -> list[dict[str, Any]]:
        """What changed, for people: a row each."""
        return [
            {"of": row.group, "what": row.name, "A": shown(row.a), "B": shown(row.b)}
            for row in self.rows
            if row.changed
        ]

    def measured_table(self) -> list[dict[str, Any]]:
        """What was measured, for people: a row per shape and runtime."""
        return [
            {
                "measured on": one.cell,
                "AUC A": _interval(one.a, "auc", 1, 4),
                "AUC B": _interval(one.b, "auc", 1, 4),
                "AUC": None if one.change is None else one.change.auc_verdict,
                "p50 us A": _interval(one.a, "p50", 1e3, 1),
                "p50 us B": _interval(one.b, "p50", 1e3, 1),
                "p50": None if one.change is None else one.change.p50_verdict,
            }
            for one in self.measured
        ]

    def lines(self) -> Iterator[str]:
        """What to say below the tables; the last line tells what is needed."""
        changed = list(dict.fromkeys(row.group for row in self.rows if row.changed))
        same = [group for group in GROUPS if group not in changed]
        if same:
            yield f"unchanged: {', '.join(same)}"
        if self.golden is None:
            yield "golden logits: of other patches, they do not compare"
        else:
            yield (
                f"golden logits: largest difference {self.golden.largest:.4g} ({self.golden.allowed:.4g} is rounding), "
                f"rms {self.golden.rms:.4g}, verdicts that differ {self.golden.flips} of {self.golden.n_patches}"
            )
        if self.measured:
            yield "measured: 95 % intervals; verdicts from A to B at the 1 % level"
        words = {
            "nothing": "no: nothing changed",
            "self-test": f"no, but the self-test on each device: {', '.join(changed)} changed, the answers did not",
            "validation": f"yes: {'; '.join(self.reasons)}",
        }
        yield f"new validation needed? {words[self.need]}"


def diff(a: Path, b: Path, *, results: tuple[Path, Path] | None = None) -> Diff:
    """Compare what two exported files, checked against their hashes, and their results files say.

    ``results`` are those of A and of B, of ``histoedge bench``; they may be one file. Their rows are found by SHA-256.

    Raises:
        ModelError: a file or sidecar is missing, unreadable or altered.
        DataError: results that cannot be read, or that hold no measured row of their model.
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
    """A value on one line."""
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
            one, other = (_parts(getattr(manifest, key)) for manifest in (a, b))
            for part in dict.fromkeys((*one, *other)):
                name = key if part is None else f"{part}" if key in ("parents", "tools") else f"{_SHORT[key]} {part}"
                of_parents = part if key == "parents" else None
                yield FieldChange(group=group, key=of_parents or key, name=name, a=one.get(part), b=other.get(part))


_SHORT = {"operating_points": "at", "input_statistics": "p01 p50 p99 of"}


def _parts(value: Any) -> Mapping[str | None, Any]:
    """A value of several parts by their names; any other under None."""
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple):
        return {point.name: point for point in value}
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
    """Why other answers or verdicts must be expected; nothing where they need not be."""
    for group in GROUPS:
        names = [row.name for row in rows if row.group == group and row.changed and _tells_answers(row)]
        if names:
            yield f"{group} changed ({', '.join(names)})"
    if golden is not None and (golden.largest > golden.allowed or golden.flips):
        yield f"golden logits changed (by up to {golden.largest:.4g}, verdicts {golden.flips})"
    lower = [one.cell for one in measured if one.change is not None and one.change.auc_verdict == "lower"]
    if lower:
        yield f"AUC is lower by more than noise on {', '.join(lower)}"


def _tells_answers(row: FieldChange) -> bool:
    return row.key in ANSWERS or row.key.startswith("data ")


def _measured(a: Manifest, b: Manifest, results_a: Path, results_b: Path) -> Iterator[Measured]:
    from histoedge.benchmark import compare, noise  # scipy, which a comparison without results does not need

    old, new = compare.read_comparable(results_a), compare.read_comparable(results_b)
    elsewhere = bool(noise.other_machine(old.environment, new.environment))
    ones, others = _of_model(old, results_a, a), _of_model(new, results_b, b)
    for shape in dict.fromkeys((*ones, *others)):
        one, other = ones.get(shape), others.get(shape)
        both = one is not None and other is not None
        yield Measured(one, other, compare.change(old, one, new, other, elsewhere=elsewhere) if both else None)


def _of_model(results: "Results", path: Path, manifest: Manifest) -> dict[tuple[Any, ...], "Measurement"]:
    """The measured rows of exactly this file by their shape."""
    found = [row for row in results.measurements if row.sha256 == manifest.sha256 and row.measured]
    if not found:
        wanted = f"{manifest.network} {manifest.recipe}.{manifest.format}, SHA-256 {manifest.sha256[:HASH_SHOWN]}"
        raise DataError(f"{path}: no measured row of {wanted}; measure it with histoedge bench")
    return {tuple(getattr(row, name) for name in SHAPE): row for row in found}


def _figures(row: "Measurement | None") -> dict[str, Any] | None:
    return None if row is None else {name: getattr(row, name) for name in FIGURES}


def _interval(row: "Measurement | None", name: str, scale: float, digits: int) -> str | None:
    """Such as ``0.9351 [0.9340, 0.9362]``; None where it was not measured."""
    if row is None:
        return None
    value, lo, hi = (getattr(row, key) for key in ({"p50": "p50_ms"}.get(name, name), f"{name}_lo", f"{name}_hi"))
    if value is None or lo is None or hi is None:
        return None
    return f"{value * scale:.{digits}f} [{lo * scale:.{digits}f}, {hi * scale:.{digits}f}]"
