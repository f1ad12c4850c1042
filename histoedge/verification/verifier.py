"""Verify an exported file: golden patches on every installed runtime; with data, the source network and the twin."""

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge, files
from histoedge.cell import KERAS_COMMAND, SOURCE, Cell, CellFailed
from histoedge.data import Split
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, ModelError, RuntimeUnavailable
from histoedge.edge.manifest import Manifest
from histoedge.progress import Progress, silent
from histoedge.verification.map_check import check_map
from histoedge.verification.verdict import (
    GoldenCheck,
    SourceComparison,
    TwinCheck,
    Verdict,
    outdated_reason,
    write_verdict,
)

INTEGER_RUNTIMES = ("litert", "onnxruntime")
"""The runtimes on which the multiplications of an int8 file must run in integers; OpenVINO is only reported."""

MULTIPLICATIONS = (
    *("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
    *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"),
)
"""Operators that multiply by weights, by the names in ONNX Runtime (those in floats) and LiteRT."""
LayerErrors = tuple[Sequence[Any], str]
"""The errors by layer, worst first, and the advice from them; see ``lab.layers``."""
QUANTUM_LIMIT = 1.01  # one output quantum is rounding, two are a wrong scale


def verify(
    model: Path,
    *,
    split: Split | None = None,
    layers: Callable[[], LayerErrors] | None = None,
    progress: Progress = silent,
) -> Verdict:
    """Check hashes and recompute the golden patches on every runtime, on which an int8 file must run in integers.

    On every runtime the map of a field must equal its patches, and the receptive field must be the manifest's.

    If the run contains weights of the recipe, the file must have been exported from them.

    A passing verdict is written next to the model as ``<model>.verdict.json``; a failing one removes that file. If that
    is not possible, for example on a read-only disk, ``not_kept`` of the verdict contains the reason.

    Args:
        model: an exported file.
        split: compares the file with its source network, and an int8 file with its twin in the other format.
        layers: returns the errors by layer of the file and the advice from them, for the verdict in memory.
        progress: called after each runtime.

    Raises:
        DataError: the split has patches of another size than the file.
        ModelError: file, manifest or golden patches are missing, unreadable or altered; with ``split``: no reference to
            compare with, or a twin from other weights.
    """
    manifest = manifests.read(model)
    manifests.checked_bytes(model, manifest)
    golden = goldens.read_golden(model, manifest)
    layer_errors, advice = ((), None) if layers is None else layers()
    runtimes = [runtime for runtime in edge.RUNTIMES.values() if manifest.format in runtime.formats]
    checks = []
    for done, runtime in enumerate(runtimes, start=1):
        checks.append(_golden_check(model, manifest, golden, runtime))
        progress(f"verify {model.name}, runtimes", done, len(runtimes), runtime.name)
    comparison, twin = (None, None) if split is None else _on_split(model, manifest, split)
    verdict = Verdict(
        model=model.name,
        sha256=manifest.sha256,
        digest=manifest.as_json()["digest"],
        edge_mode=manifest.edge_mode,
        recipe=manifest.recipe,
        tolerance=manifest.tolerance,
        tolerance_reason=manifest.tolerance_reason,
        output_quantum=manifest.output_quantum,
        may_saturate=tuple(manifest.may_saturate),
        golden=tuple(checks),
        comparison=comparison,
        twin=twin,
        outdated=outdated_reason(model, manifest),
    )
    not_kept = write_verdict(verdict, manifests.verdict_path(model))
    return dataclasses.replace(verdict, not_kept=not_kept, layers=tuple(layer_errors), advice=advice)


def _golden_check(model: Path, manifest: Manifest, golden: goldens.Golden, runtime: edge.Runtime) -> GoldenCheck:
    def not_run(status: str, reason: str) -> GoldenCheck:
        empty: dict[str, Any] = dict.fromkeys(("version", "kernels", "largest", "operators", "integer_operators"))
        empty |= dict.fromkeys(("field_px", "field_largest"))
        return GoldenCheck(runtime=runtime.name, status=status, reason=reason, not_integer=(), undelegated=(), **empty)

    if not runtime.installed():
        return not_run("unavailable", f"not installed: {runtime.install}")
    try:
        runner = edge.load(model, runtime=runtime.name)
        operators = edge.operators(model, runtime=runtime.name)
        logits = runner.predict(golden.patches).reshape(-1)
    except (ModelError, RuntimeUnavailable) as error:
        return not_run("failed", str(error))
    if logits.shape != golden.logits.shape:
        side = f"{manifest.patch_px} x {manifest.patch_px} px"
        return not_run(
            "failed", f"{logits.size} logits of {golden.logits.size} patches of {side}; expected one of each"
        )
    largest = float(np.abs(logits - golden.logits).max())
    mapped = check_map(runner, golden)
    reasons = []
    if not largest <= manifest.tolerance:  # a NaN fails too
        reasons.append(
            f"logits differ by {largest:.6g}, expected at most {manifest.tolerance:.6g} ({manifest.tolerance_reason})"
        )
    floats = [operator for operator in operators if operator.kind in MULTIPLICATIONS and not operator.integer]
    kept = len(manifest.float_layers)
    if len(floats) > kept and manifest.output_quantum is not None and runtime.name in INTEGER_RUNTIMES:
        expected = f"{kept}: {', '.join(manifest.float_layers)}" if kept else "0 in an int8 file"
        reasons.append(f"{len(floats)} multiplications in floats ({floats[0]} is the first), expected {expected}")
    reasons += mapped.reasons
    return GoldenCheck(
        runtime=runtime.name,
        version=runner.version,
        kernels=runner.kernels,
        status="failed" if reasons else "ok",
        reason="; ".join(reasons) or None,
        largest=largest if np.isfinite(largest) else None,
        operators=len(operators),
        integer_operators=sum(operator.integer for operator in operators),
        not_integer=tuple(str(operator) for operator in operators if not operator.integer),
        undelegated=tuple(str(operator) for operator in operators if not operator.delegated),
        field_px=mapped.field_px,
        field_largest=mapped.largest,
    )


def _on_split(model: Path, manifest: Manifest, split: Split) -> tuple[SourceComparison, TwinCheck | None]:
    if split.patches.shape[1] != manifest.patch_px:
        raise DataError(
            f"{split.name}: patches of {split.patches.shape[1]} px, {model.name} expects {manifest.patch_px} px; "
            "use the data that the model was trained on"
        )
    runner = edge.load(model)
    twin = _twin(model, manifest)  # its errors are raised before the long computation
    logits = _logits(runner, split)
    comparison = _compare(model, manifest, split, runner.runtime, logits)
    if twin is None or manifest.output_quantum is None:
        return comparison, None
    name, other = twin
    check = compare_twins(
        logits,
        _logits(other, split),
        model=name,
        runtime=other.runtime,
        output_quantum=manifest.output_quantum,
        threshold_logit=manifest.threshold_logit,
    )
    return comparison, check


def _twin(model: Path, manifest: Manifest) -> tuple[str, edge.Runner] | None:
    """Return name and runner of an int8 file's twin; None without such a file or without a runtime for it."""
    twin = model.with_suffix(".onnx" if manifest.format == "tflite" else ".tflite")
    if manifest.output_quantum is None or not twin.is_file():
        return None
    if manifests.read(twin).parents["weights"] != manifest.parents["weights"]:
        raise ModelError(f"{twin}: exported from other weights than {model.name}; export both from the same run")
    try:
        return twin.name, edge.load(twin)
    except RuntimeUnavailable:
        return None


def _compare(model: Path, manifest: Manifest, split: Split, runtime: str, logits: np.ndarray) -> SourceComparison:
    """Compare the file's logits of the whole split with those of its source network."""
    from histoedge import metrics  # imports scipy, which verifying golden patches does not need

    name, reference = _reference_logits(model, manifest, split)
    difference = logits.astype(np.float64) - reference
    largest = float(np.abs(difference).max())
    d_auc = metrics.delong_difference(split.labels, logits, reference)
    same_logits = manifest.recipe in ("fp32", "fp16")  # the other recipes keep the quality, not the logits
    return SourceComparison(
        reference=name,
        runtime=runtime,
        n_patches=len(split.labels),
        largest=largest,
        rms=float(np.sqrt(np.mean(difference**2))),
        flips=metrics.flips(logits, reference, threshold_logit=manifest.threshold_logit),
        auc=metrics.auc(split.labels, logits),
        d_auc=d_auc.value,
        d_auc_lo=d_auc.lo,
        d_auc_hi=d_auc.hi,
        passed=largest <= manifest.tolerance if same_logits else bool(np.isfinite(largest)),
    )


def _reference_logits(model: Path, manifest: Manifest, split: Split) -> tuple[str, np.ndarray]:
    source = model.parent.parent / SOURCE
    if source.is_file() and files.sha256(source) == manifest.parents["source"] and _lab_is_installed():
        with Cell(KERAS_COMMAND) as cell:
            try:
                cell.load(source, runtime="keras", field_px=manifest.patch_px)
                return f"{SOURCE} @ keras", cell.predict(split.patches, batch=256).reshape(-1)
            except CellFailed as error:
                raise ModelError(f"{source}: the source network cannot be computed: {error}") from error
    fp32 = model.with_name(manifest.fp32)
    if not fp32.is_file():
        raise ModelError(f"{model}: no reference to compare with: neither {SOURCE} (with Keras) nor {fp32.name} exists")
    if manifests.read(fp32).parents["source"] != manifest.parents["source"]:
        raise ModelError(f"{fp32}: exported from another network than {model.name}; export both from the same run")
    runner = edge.load(fp32)
    return f"{fp32.name} @ {runner.runtime}", _logits(runner, split)


def _lab_is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("keras", "tensorflow"))


def _logits(runner: edge.Runner, split: Split) -> np.ndarray:
    parts = [runner.predict(split.patches[start : start + 64]).reshape(-1) for start in range(0, len(split.labels), 64)]
    return np.concatenate(parts)


def compare_twins(
    logits: np.ndarray,
    twin_logits: np.ndarray,
    *,
    model: str,
    runtime: str,
    output_quantum: float,
    threshold_logit: float,
) -> TwinCheck:
    """Compare both files' logits (N,) of the same patches; ``model`` and ``runtime`` name the twin."""
    a, b = (np.asarray(values, np.float64) for values in (logits, twin_logits))
    largest = float(np.abs(a - b).max()) / output_quantum
    # in the precision of the logits, as metrics.flips
    flipped = (logits >= threshold_logit) != (twin_logits >= threshold_logit)
    distance = np.maximum(np.abs(a - threshold_logit), np.abs(b - threshold_logit)) / output_quantum
    beyond = int(np.count_nonzero(flipped & (distance > QUANTUM_LIMIT)))
    return TwinCheck(
        model=model,
        runtime=runtime,
        n_patches=len(a),
        largest_quanta=largest,
        flips=int(np.count_nonzero(flipped)),
        flips_beyond_quantum=beyond,
        passed=largest <= QUANTUM_LIMIT and beyond == 0,
    )
