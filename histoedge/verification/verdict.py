"""The verdict on an exported file: its data classes, and the verdict file next to the model."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge import edge, files
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.edge.manifest import DENSE, Manifest

FORMAT = 3  # of the verdict's JSON; format 3 contains the map of a field and the digest of the manifest

NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """The golden patches on one runtime; ``largest`` is the largest difference of a logit from its golden value.

    ``operators`` counts the operators of the runtime's optimised graph, ``integer_operators`` those that run in
    integers; ``not_integer`` names the others. ``undelegated`` names those that ``kernels`` left to the runtime's own
    kernels. ``field_px`` is the side of the field whose map was compared with its patches, ``field_largest`` the
    largest difference of a logit.
    """

    runtime: str
    version: str | None
    kernels: str | None
    status: str
    reason: str | None
    largest: float | None
    operators: int | None
    integer_operators: int | None
    not_integer: tuple[str, ...]
    undelegated: tuple[str, ...]
    field_px: int | None
    field_largest: float | None

    def operators_line(self) -> str:
        """Return one line: how many operators run in integers, and the first of those that do not."""
        line = f"{self.runtime}: {self.integer_operators} of {self.operators} operators in integers"
        for label, names in (("not", self.not_integer), (f"not by {self.kernels}", self.undelegated)):
            if names:
                more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
                line += f"; {label}: {', '.join(names[:NAMES_SHOWN])}{more}"
        return line


@dataclass(frozen=True, kw_only=True)
class SourceComparison:
    """The file against its source network on a whole split.

    ``largest`` and ``rms`` are differences in logits; ``flips`` counts decisions that differ at the manifest's
    threshold; ``d_auc`` is the file's AUC minus the reference's, with its paired DeLong 95 % interval.
    """

    reference: str
    runtime: str
    n_patches: int
    largest: float
    rms: float
    flips: int
    auc: float
    d_auc: float
    d_auc_lo: float
    d_auc_hi: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class TwinCheck:
    """An int8 file against the same recipe's file in the other format, on a whole split.

    ``largest_quanta`` is the largest difference in logits, in quanta of the output; ``flips`` counts decisions that
    differ at the manifest's threshold, ``flips_beyond_quantum`` those with a logit more than one quantum away from it.
    """

    model: str
    runtime: str
    n_patches: int
    largest_quanta: float
    flips: int
    flips_beyond_quantum: int
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of ``verify``: a golden check per runtime; with data, also a comparison and a check of the twin.

    ``digest`` is the manifest's: the verdict is on its geometry too. ``output_quantum`` is None for a file that
    computes in floats; ``may_saturate`` is copied from the manifest. ``twin`` is None without a twin or without a
    runtime for it. ``outdated`` is a message if the run's weights changed after the file was exported. ``layers`` are
    the errors by layer (``lab.layers.LayerError``, worst first) and ``advice`` the conclusion from them, if requested.
    ``not_kept`` is the reason why the verdict could not be written next to the model; it is not part of the JSON
    document.
    """

    model: str
    sha256: str
    digest: str
    edge_mode: str
    recipe: str
    tolerance: float
    tolerance_reason: str
    output_quantum: float | None
    may_saturate: tuple[str, ...]
    golden: tuple[GoldenCheck, ...]
    comparison: SourceComparison | None
    twin: TwinCheck | None
    outdated: str | None = None
    not_kept: str | None = None
    layers: tuple[Any, ...] = ()
    advice: str | None = None

    @property
    def passed(self) -> bool:
        """Whether a runtime ran, none failed, comparison and twin (if any) passed, and the file is not outdated."""
        ran = [check for check in self.golden if check.status != "unavailable"]
        golden = bool(ran) and all(check.status == "ok" for check in ran) and self.outdated is None
        return golden and all(check is None or check.passed for check in (self.comparison, self.twin))

    def geometry_line(self) -> str | None:
        """Return one line: how the map of a field compares with its patches; None if no runtime computed one."""
        measured = [(check.field_largest, check.field_px) for check in self.golden if check.field_largest is not None]
        if not measured:
            return None
        largest, field_px = max(measured)
        how = "in one call" if self.edge_mode == DENSE else "as patches, in batches (edge_mode patch)"
        return f"geometry: a map of {field_px} x {field_px} px {how} differs from single patches by {largest:.4g}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        omitted = {"not_kept"} | ({"layers", "advice"} if self.advice is None else set())
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in omitted}
        return {"format": FORMAT, "passed": self.passed, **fields}


def write_verdict(verdict: Verdict, path: Path) -> str | None:
    """Write a passing verdict, or remove the file of an earlier verdict; return the reason if that is not possible."""
    try:
        if verdict.passed:
            files.write_json(path, verdict.as_json())
        else:
            path.unlink(missing_ok=True)
    except files.WriteError as error:
        return str(error)
    except OSError as error:  # from unlink
        return f"{path}: the earlier verdict cannot be removed ({error.strerror}); it is no longer valid"
    return None


def is_current(model: Path) -> bool:
    """Return whether a passing verdict on this file, manifest and the installed runtimes is next to the model."""
    try:
        versions = passed_on(model)
        format_ = manifests.read(model).format
    except ModelError:
        return False
    return versions == {
        runtime.name: runtime.installed_version() for runtime in edge.RUNTIMES.values() if format_ in runtime.formats
    }


def passed_on(model: Path) -> dict[str, str | None]:
    """Return the runtimes and versions (None: not installed) of the verdict next to the model, on any machine.

    Raises:
        ModelError: model or manifest missing, unreadable or altered; no passing verdict of both next to them;
            the run's weights changed after the export.
    """
    manifest = manifests.read(model)
    manifests.checked_bytes(model, manifest)
    if (outdated := outdated_reason(model, manifest)) is not None:
        raise ModelError(f"{model}: {outdated}")
    path = manifests.verdict_path(model)
    try:
        if path.stat().st_size > files.LARGEST_JSON_BYTES:
            raise ModelError(
                f"{path}: {path.stat().st_size} bytes, too large for a verdict; run histoedge verify {model}"
            )
        verdict = json.loads(path.read_text())
        passed = (verdict["format"], verdict["sha256"], verdict["passed"]) == (FORMAT, manifest.sha256, True)
        passed = passed and verdict["digest"] == manifest.as_json()["digest"]
        versions = {str(check["runtime"]): check["version"] for check in verdict["golden"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        passed = False
    if not passed:
        raise ModelError(f"{model}: no passing verdict of this file next to it; run histoedge verify {model}")
    return versions


def outdated_reason(model: Path, manifest: Manifest) -> str | None:
    """Return a message if the run's weights are not those of the file; None if they are, and outside a run."""
    run = (model if len(model.parts) > 1 else model.absolute()).parent.parent
    weights = run / f"{manifest.recipe}.weights.h5"
    exported_from = manifest.parents.get("weights")
    if exported_from is None or not weights.is_file() or files.sha256(weights) == exported_from:
        return None
    return (
        f"{weights.name} changed after this file was exported; "
        f"export it again: histoedge export {run} --recipe {manifest.recipe}"
    )
