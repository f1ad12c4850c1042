"""Export the recipes of a run: write model, golden patches and manifest, in this order."""

import hashlib
import importlib.metadata
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoedge import files
from histoedge.config import Recipe
from histoedge.data import synthetic
from histoedge.edge import Manifest, litert
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.edge.manifest import FORMATS
from histoedge.lab import (
    appearance,
    checkpoint,
    constraints,
    layer_files,
    quantise,
    readback,
    saturate,
    to_onnx,
    to_tflite,
)
from histoedge.lab.architecture import Network
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.layer_graph import LayerGraph
from histoedge.lab.weights import Arrays
from histoedge.version import __version__

GOLDEN_PATCHES = 16
TOOLS = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "tf2onnx", "onnx", "ai-edge-litert")
FLOAT_TOLERANCE = {
    "fp32": (1e-4, "sums of float32 in another order"),
    "fp16": (2e-2, "weights rounded to float16, sums in another order"),
}
INT8_TOLERANCE = {
    True: (1.01, "one output quantum is rounding, two are a wrong scale"),
    False: (8.01, "OpenVINO adds branches before it rounds them: some output quanta, a wrong scale is many more"),
}
"""Output quanta and the reason, for chains of convolutions and for others; the 8 is our choice."""

COMPARED_PATCHES = 256  # synthetic ones, for networks that keep their Keras layers


@dataclass(frozen=True)
class _Tolerance:
    """Largest difference to the golden logits, its reason, and the output quantum of integer-only files."""

    logits: float
    reason: str
    output_quantum: float | None


Statistics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Exported:
    """A model file; ``written`` is False if it was current already."""

    model: Path
    written: bool


def export(
    run: Path,
    recipe: Recipe,
    *,
    formats: Sequence[str] = FORMATS,
    target_ort: str = to_onnx.DEFAULT_TARGET,
) -> list[Exported]:
    """Write ``RUN/models/<recipe>.<format>`` with manifest and golden patches from ``RUN/<recipe>.weights.h5``.

    Files whose manifest has the same parents, statistics and tools are not written again.

    Raises:
        ModelError: the weights or the pixel statistics are missing or unreadable, or the kernels in a file violate the
            recipe's constraint.
        ConfigError: ``target_ort`` is not a supported release.
    """
    to_onnx.opset_and_ir_version(target_ort)
    packed = recipe.scheme not in ("2of4", "cluster16")  # a packed stem would hide the constraint of its kernel
    weights = checkpoint.path_of(run, recipe.name)
    saved = checkpoint.read(weights)
    parents = {
        "weights": files.sha256(weights),
        "source": files.sha256(checkpoint.path_of(run, "fp32")),
        **{f"data {name}": value for name, value in saved.inputs["data"].items()},
    }
    statistics = appearance.read_appearance(run, saved.inputs["data"]["train"])
    exported: list[Exported] = []
    tflite: bytes | None = None
    for name in formats:
        model = run / "models" / f"{recipe.name}.{name}"
        tools = _tools(target_ort if name == "onnx" else None)
        if _is_current(model, parents, statistics, tools):
            exported.append(Exported(model, written=False))
            continue
        if tflite is None:  # also for ONNX: the golden logits come from LiteRT
            tflite = _tflite(saved, recipe, packed=packed)
            golden = _golden(tflite, saved.architecture.patch_px)
            tolerance = _tolerance(saved, recipe, tflite, target_ort)
        content = tflite
        if name == "onnx":
            content = _onnx(saved, recipe, tflite, target_ort=target_ort, packed=packed)
        kernels, may_saturate = _checked_kernels(saved, recipe, content, tflite, model)
        emulated = may_saturate and name == "onnx" and not isinstance(saved.architecture, LayerGraph)
        golden_bytes = _npz(_with_saturated_logits(golden, content) if emulated else golden)
        manifest = _manifest(
            saved,
            recipe,
            _Content(name, content, golden_bytes, kernels, may_saturate, tolerance),
            parents=parents,
            statistics=statistics,
            tools=tools,
        )
        manifests.verdict_path(model).unlink(missing_ok=True)
        files.write_bytes(model, content)
        files.write_bytes(goldens.golden_path(model), golden_bytes)
        files.write_json(manifests.manifest_path(model), manifest.as_json())
        exported.append(Exported(model, written=True))
    return exported


def export_all(
    run: Path,
    recipes: Sequence[Recipe],
    *,
    formats: Sequence[str] = FORMATS,
    target_ort: str = to_onnx.DEFAULT_TARGET,
) -> list[Exported]:
    """Export these recipes or, without any, all recipes with weights in RUN.

    Raises:
        ModelError, ConfigError: see ``export``; also if RUN contains no weights.
    """
    selected = recipes or checkpoint.recipes_in(run) or (Recipe.parse("fp32"),)  # without weights, export raises
    return [item for recipe in selected for item in export(run, recipe, formats=formats, target_ort=target_ort)]


def outdated(run: Path) -> tuple[Path, ...]:
    """Return the files in ``RUN/models`` that were exported from earlier weights of their recipe, by name."""
    models = []
    for weights in (checkpoint.path_of(run, recipe.name) for recipe in checkpoint.recipes_in(run)):
        sha256 = files.sha256(weights)
        for format_ in FORMATS:
            model = run / "models" / f"{weights.name.removesuffix(checkpoint.SUFFIX)}.{format_}"
            with suppress(ModelError):  # verify reports unreadable manifests
                if model.is_file() and manifests.read(model).parents.get("weights") != sha256:
                    models.append(model)
    return tuple(sorted(models))


def export_outdated(run: Path) -> list[Exported]:
    """Export all ``outdated`` files again.

    Raises:
        ModelError: see ``export``.
    """
    exported = []
    for model in outdated(run):
        exported += export(run, Recipe.parse(model.stem), formats=(model.suffix.removeprefix("."),))
    return exported


def _is_current(model: Path, parents: dict[str, str], statistics: Statistics, tools: dict[str, str]) -> bool:
    try:
        manifest = manifests.read(model)
        manifests.checked_bytes(model, manifest)
        goldens.read_golden(model, manifest)
    except ModelError:
        return False
    return (manifest.parents, manifest.input_statistics, manifest.tools) == (parents, statistics, tools)


def _tools(target_ort: str | None) -> dict[str, str]:
    versions = {"histoedge": __version__, **{name: importlib.metadata.version(name) for name in TOOLS}}
    return versions if target_ort is None else {**versions, "target onnxruntime": target_ort}


def _tflite(saved: Checkpoint, recipe: Recipe, *, packed: bool) -> bytes:
    if isinstance(saved.architecture, LayerGraph):
        return layer_files.tflite_of(saved.architecture, saved.arrays, precision=recipe.precision)
    return to_tflite.convert(saved.network, saved.folded, precision=recipe.precision, packed=packed)


def _onnx(saved: Checkpoint, recipe: Recipe, tflite: bytes, *, target_ort: str, packed: bool) -> bytes:
    precision = recipe.precision
    if isinstance(saved.architecture, LayerGraph):
        return layer_files.to_onnx_file(tflite, saved.architecture, precision=precision, target_ort=target_ort)
    return to_onnx.convert(saved.network, saved.folded, precision=precision, target_ort=target_ort, packed=packed)


def _checked_kernels(
    saved: Checkpoint, recipe: Recipe, content: bytes, tflite: bytes, model: Path
) -> tuple[Arrays, list[str]]:
    """Return the kernels of a file, which satisfy the recipe's constraint, and the layers whose sums may overflow."""
    format_ = model.suffix.removeprefix(".")
    if isinstance(saved.architecture, LayerGraph):
        kernels = layer_files.read_kernels(tflite)
        if recipe.precision == "fp32":
            layer_files.check_fp32(content, format_, saved.architecture, saved.arrays, _compared(saved.architecture))
    else:
        kernels = readback.read_kernels(content, format_, saved.network)
        constraints.check_kernels(recipe, saved.network, kernels, where=model.name)
    if recipe.precision != "int8":
        return kernels, []
    if isinstance(saved.architecture, LayerGraph):
        return kernels, readback.may_saturate({n: kernel for n, kernel in kernels.items() if kernel.dtype == np.int8})
    return kernels, _may_saturate(saved.network, kernels)


def _tolerance(saved: Checkpoint, recipe: Recipe, tflite: bytes, target_ort: str) -> _Tolerance:
    if recipe.precision != "int8":
        return _Tolerance(*FLOAT_TOLERANCE[recipe.precision], None)
    if isinstance(saved.architecture, LayerGraph):
        patches = _compared(saved.architecture)
        measured = layer_files.int8_tolerance(tflite, saved.architecture, patches, target_ort=target_ort)
        return _Tolerance(*measured, None)
    low, high = (float(bound) for bound in saved.arrays["head/range"])
    quantum = (high - low) / 255
    quanta, reason = INT8_TOLERANCE[saved.network.plain]
    return _Tolerance(quanta * quantum, reason, quantum)


def _compared(network: LayerGraph) -> np.ndarray:
    return _sized(synthetic.golden(COMPARED_PATCHES)[0], network.patch_px)


def _golden(tflite: bytes, patch_px: int) -> Arrays:
    """Return the arrays of the golden file: synthetic patches, their labels and LiteRT's logits."""
    patches, labels = synthetic.golden(GOLDEN_PATCHES)
    patches = _sized(patches, patch_px)
    logits = litert.open_litert(tflite, patch_px=patch_px).predict(patches).reshape(len(patches))
    return {"patches": patches, "labels": labels, "logits": logits}


def _may_saturate(network: Network, kernels: Arrays) -> list[str]:
    depthwise = {node.name for node in network.nodes if node.row.kind == "depthwise"}
    return readback.may_saturate({name: kernel for name, kernel in kernels.items() if name not in depthwise})


def _sized(patches: np.ndarray, patch_px: int) -> np.ndarray:
    """Return the centres of patches, or patches continued by reflection, with sides of ``patch_px``."""
    side = patches.shape[1]
    if patch_px <= side:
        first = (side - patch_px) // 2
        return patches[:, first : first + patch_px, first : first + patch_px]
    before = (patch_px - side) // 2
    around = (before, patch_px - side - before)
    return np.pad(patches, ((0, 0), around, around, (0, 0)), mode="symmetric")


def _with_saturated_logits(golden: Arrays, onnx: bytes) -> Arrays:
    """Add the logits of ONNX Runtime on x86 CPUs without VNNI; LiteRT's sums are exact on all CPUs."""
    return {**golden, "saturated": saturate.simulated_logits(onnx, golden["patches"])}


def _npz(golden: Arrays) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **golden)  # type: ignore[arg-type]  # mypy matches arrays with allow_pickle
    return content.getvalue()


@dataclass(frozen=True)
class _Content:
    """A model file to describe: its format, its bytes and those of its golden file, and its kernels."""

    format: str
    model: bytes
    golden: bytes
    kernels: Arrays
    may_saturate: list[str]
    tolerance: _Tolerance


def _manifest(
    saved: Checkpoint,
    recipe: Recipe,
    content: _Content,
    *,
    parents: dict[str, str],
    statistics: Statistics,
    tools: dict[str, str],
) -> Manifest:
    network, geometry = saved.architecture, saved.geometry
    return Manifest(
        contract=manifests.CONTRACT,
        format=content.format,
        recipe=recipe.name,
        network=network.title,
        params=network.params,
        macs=network.macs(),
        sha256=hashlib.sha256(content.model).hexdigest(),
        golden_sha256=hashlib.sha256(content.golden).hexdigest(),
        parents=parents,
        fp32=f"fp32.{content.format}",
        stride_px=network.stride_px if isinstance(network, Network) and network.dense else geometry.label_px,
        receptive_field_px=network.receptive_field_px,
        centre_offset_px=network.patch_px / 2,
        label_px=geometry.label_px,
        patch_px=network.patch_px,
        um_per_px=geometry.um_per_px,
        edge_mode=manifests.DENSE if network.dense else manifests.SINGLE,
        classes=geometry.classes,
        temperature=saved.calibration.temperature,
        threshold=0.5,
        operating_points=saved.calibration.operating_points,
        golden_runtime="litert",
        tolerance=content.tolerance.logits,
        tolerance_reason=content.tolerance.reason,
        output_quantum=content.tolerance.output_quantum,
        zeros=readback.zero_share(content.kernels),
        may_saturate=content.may_saturate,
        input_statistics=statistics,
        tools=tools,
        float_layers=list(quantise.float_layers(network, saved.arrays)) if isinstance(network, Network) else [],
    )
