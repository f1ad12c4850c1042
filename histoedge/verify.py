"""Does an exported file answer as it should, on every runtime there is?"""

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge, files
from histoedge.cell import KERAS_COMMAND, SOURCE, Cell, CellFailed
from histoedge.data import Split
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError, RuntimeUnavailable
from histoedge.edge.manifest import Manifest
from histoedge.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """The golden patches on one runtime. ``largest`` is the largest difference in logits to the golden ones."""

    runtime: str
    version: str | None
    kernels: str | None
    status: str
    reason: str | None
    largest: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The file against the network it came from, on a whole split.

    ``largest`` and ``rms`` are differences in logits; ``flips`` counts decisions that differ at the manifest's
    threshold; ``d_auc`` is the file's AUC less the reference's, with its paired DeLong 95 % interval.
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
class Verdict:
    """What ``verify`` found: a golden check per runtime, and a comparison where data was given."""

    model: str
    sha256: str
    recipe: str
    tolerance: float
    tolerance_reason: str
    golden: tuple[GoldenCheck, ...]
    comparison: Comparison | None

    @property
    def passed(self) -> bool:
        """At least one runtime answered, none answered wrongly, and the comparison (if any) passed."""
        ran = [check for check in self.golden if check.status != "unavailable"]
        golden = bool(ran) and all(check.status == "ok" for check in ran)
        return golden and (self.comparison is None or self.comparison.passed)

    def as_json(self) -> dict[str, Any]:
        """The JSON document."""
        return {"format": 1, "passed": self.passed, **dataclasses.asdict(self)}


def verify(model: Path, *, split: Split | None = None, progress: Progress = silent) -> Verdict:
    """Check hashes and recompute the golden patches on every runtime; with ``split`` compare with the source network.

    A passing verdict is written beside the model as ``<model>.verdict.json``; a failing one removes what lies there.

    Raises:
        ModelError: file, manifest or golden patches are missing, unreadable or altered; with ``split``: nothing
            to compare with.
    """
    manifest = manifests.read(model)
    manifests.checked_bytes(model, manifest)
    golden = manifests.read_golden(model, manifest)
    opening = [row for row in edge.RUNTIMES.values() if manifest.format in row.formats]
    checks = []
    for done, row in enumerate(opening, start=1):
        checks.append(_golden_check(model, manifest, golden, row))
        progress(f"verify {model.name}, runtimes", done, len(opening), row.name)
    verdict = Verdict(
        model=model.name,
        sha256=manifest.sha256,
        recipe=manifest.recipe,
        tolerance=manifest.tolerance,
        tolerance_reason=manifest.tolerance_reason,
        golden=tuple(checks),
        comparison=None if split is None else _compare(model, manifest, split),
    )
    place = manifests.verdict_path(model)
    if verdict.passed:
        files.write_json(place, verdict.as_json())
    else:
        place.unlink(missing_ok=True)
    return verdict


def is_current(model: Path) -> bool:
    """Whether a passing verdict on exactly these bytes and the runtimes installed now lies beside the model."""
    try:
        manifest = manifests.read(model)
        manifests.checked_bytes(model, manifest)
        verdict = json.loads(manifests.verdict_path(model).read_text())
        seen = {check["runtime"]: check["version"] for check in verdict["golden"]}
        rows = [row for row in edge.RUNTIMES.values() if manifest.format in row.formats]
        now = {row.name: row.installed_version() for row in rows}
        return bool(verdict["passed"]) and verdict["sha256"] == manifest.sha256 and seen == now
    except (OSError, ValueError, KeyError, TypeError, ModelError):
        return False


def _golden_check(model: Path, manifest: Manifest, golden: manifests.Golden, row: edge.Runtime) -> GoldenCheck:
    def found(status: str, reason: str | None, runner: edge.Runner | None, largest: float | None) -> GoldenCheck:
        version, kernels = (runner.version, runner.kernels) if runner else (None, None)
        return GoldenCheck(
            runtime=row.name, version=version, kernels=kernels, status=status, reason=reason, largest=largest
        )

    if not row.installed():
        return found("unavailable", f"not installed: {row.install}", None, None)
    try:
        runner = edge.load(model, runtime=row.name)
    except (ModelError, RuntimeUnavailable) as error:
        return found("failed", str(error), None, None)
    logits = runner.predict(golden.patches).reshape(-1)
    largest = float(np.abs(logits - golden.logits).max())
    if not largest <= manifest.tolerance:  # a NaN fails too
        reason = (
            f"logits differ by {largest:.6g}, at most {manifest.tolerance:.6g} allowed ({manifest.tolerance_reason})"
        )
        return found("failed", reason, runner, largest if np.isfinite(largest) else None)
    return found("ok", None, runner, largest)


def _compare(model: Path, manifest: Manifest, split: Split) -> Comparison:
    """The file on its first installed runtime against its source on the whole split."""
    from histoedge import metrics  # needs scipy, which a machine that only verifies golden patches may lack

    runner = edge.load(model)
    ours = _logits(runner, split)
    name, theirs = _reference_logits(model, manifest, split)
    difference = ours.astype(np.float64) - theirs
    largest = float(np.abs(difference).max())
    cut = manifest.temperature * float(np.log(manifest.threshold / (1 - manifest.threshold)))
    d_auc = metrics.delong_difference(split.labels, ours, theirs)
    same_numbers = manifest.recipe in ("fp32", "fp16")  # these promise the source's logits, the others its quality
    return Comparison(
        reference=name,
        runtime=runner.runtime,
        n_patches=len(split.labels),
        largest=largest,
        rms=float(np.sqrt(np.mean(difference**2))),
        flips=metrics.flips(ours, theirs, threshold_logit=cut),
        auc=metrics.auc(split.labels, ours),
        d_auc=d_auc.value,
        d_auc_lo=d_auc.lo,
        d_auc_hi=d_auc.hi,
        passed=largest <= manifest.tolerance if same_numbers else bool(np.isfinite(largest)),
    )


def _reference_logits(model: Path, manifest: Manifest, split: Split) -> tuple[str, np.ndarray]:
    source = model.parent.parent / SOURCE
    if source.is_file() and files.sha256(source) == manifest.parents["source"] and _lab_is_installed():
        with Cell(KERAS_COMMAND) as cell:
            try:
                cell.load(source, runtime="keras")
                return f"{SOURCE} @ keras", cell.predict(split.patches, batch=256).reshape(-1)
            except CellFailed as error:
                raise ModelError(f"{source}: the source network did not answer: {error}") from error
    fp32 = model.with_name(manifest.fp32)
    if not fp32.is_file():
        raise ModelError(f"{model}: nothing to compare with: neither {SOURCE} with Keras nor {fp32.name} is here")
    if manifests.read(fp32).parents["source"] != manifest.parents["source"]:
        raise ModelError(f"{fp32}: comes from another network than {model.name}; export both from one run")
    runner = edge.load(fp32)
    return f"{fp32.name} @ {runner.runtime}", _logits(runner, split)


def _lab_is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("keras", "tensorflow"))


def _logits(runner: edge.Runner, split: Split) -> np.ndarray:
    parts = [runner.predict(split.patches[at : at + 64]).reshape(-1) for at in range(0, len(split.labels), 64)]
    return np.concatenate(parts)
