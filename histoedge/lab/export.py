"""Exporting a run's recipes under the file contract: model, golden patches, manifest, in that order."""

import hashlib
import importlib.metadata
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoedge import files
from histoedge.config import FORMATS, Recipe
from histoedge.data import synthetic
from histoedge.edge import Manifest, litert
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.lab import appearance, checkpoint, promises, readback, saturate, to_onnx, to_tflite
from histoedge.lab.architecture import LABEL_PX, PATCH_PX
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.weights import Arrays
from histoedge.version import __version__

UM_PER_PX = 0.972  # PatchCamelyon: 10x, from slides scanned at 0.243
GOLDEN_PATCHES = 16
TOOLS = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "tf2onnx", "onnx", "ai-edge-litert")
FLOAT_TOLERANCE = {
    "fp32": (1e-4, "sums of float32 in another order"),
    "fp16": (2e-2, "weights rounded to float16, sums in another order"),
}

Statistics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Exported:
    """A model file and whether it was written now or was there already."""

    model: Path
    written: bool


def export(
    run: Path,
    recipe: Recipe,
    *,
    formats: Sequence[str] = FORMATS,
    target_ort: str = to_onnx.DEFAULT_TARGET,
) -> list[Exported]:
    """Write ``RUN/models/<recipe>.<format>`` with its sidecars from ``RUN/<recipe>.weights.h5``.

    A file whose manifest names the same parents and tools is left as it is.

    Raises:
        ModelError: the weights or the statistics of the training pixels are missing or unreadable.
        ConfigError: ``target_ort`` is no release that can be served.
        ModelError: also when a file does not hold what the recipe's name promises.
    """
    to_onnx.target(target_ort)
    packed = recipe.scheme not in ("2of4", "cluster16")  # whose promise is to be seen in every kernel of the file
    weights = checkpoint.path_of(run, recipe.name)
    saved = checkpoint.read(weights)
    parents = {
        "weights": files.sha256(weights),
        "source": files.sha256(checkpoint.path_of(run, "fp32")),
        **{f"data {name}": value for name, value in saved.inputs["data"].items()},
    }
    statistics = appearance.read_appearance(run, saved.inputs["data"]["train"])
    made: list[Exported] = []
    tflite: bytes | None = None
    for name in formats:
        model = run / "models" / f"{recipe.name}.{name}"
        tools = _tools(target_ort if name == "onnx" else None)
        if _is_current(model, parents, statistics, tools):
            made.append(Exported(model, written=False))
            continue
        if tflite is None:  # the golden logits of both formats come from it
            tflite = to_tflite.convert(saved.network, saved.folded, precision=recipe.precision, packed=packed)
            golden = _golden(tflite)
        content = tflite
        if name == "onnx":
            content = to_onnx.convert(
                saved.network, saved.folded, precision=recipe.precision, target_ort=target_ort, packed=packed
            )
        kernels = readback.kernels(content, name, saved.network)
        promises.refuse_broken(recipe, saved.network, kernels, where=model.name)
        may_saturate = readback.may_saturate(kernels) if recipe.precision == "int8" else []
        beside = _packed(_saturated(golden, content) if may_saturate and name == "onnx" else golden)
        described = _manifest(
            saved,
            recipe,
            name,
            content=content,
            kernels=kernels,
            may_saturate=may_saturate,
            golden=beside,
            parents=parents,
            statistics=statistics,
            tools=tools,
        )
        manifests.verdict_path(model).unlink(missing_ok=True)
        files.write_bytes(model, content)
        files.write_bytes(goldens.golden_path(model), beside)
        files.write_json(manifests.manifest_path(model), described.as_json())
        made.append(Exported(model, written=True))
    return made


def export_all(
    run: Path,
    recipes: Sequence[Recipe],
    *,
    formats: Sequence[str] = FORMATS,
    target_ort: str = to_onnx.DEFAULT_TARGET,
) -> list[Exported]:
    """``export`` of these recipes; without any, of all whose weights lie in RUN.

    Raises:
        ModelError, ConfigError: as ``export``; there are no weights in RUN.
    """
    wanted = recipes or checkpoint.recipes_in(run) or (Recipe.parse("fp32"),)  # of which export says that it is missing
    return [made for recipe in wanted for made in export(run, recipe, formats=formats, target_ort=target_ort)]


def outdated(run: Path) -> tuple[Path, ...]:
    """The files in ``RUN/models`` that were made from other weights of their recipe than lie in RUN now, by name."""
    found = []
    for weights in (checkpoint.path_of(run, recipe.name) for recipe in checkpoint.recipes_in(run)):
        sha256 = files.sha256(weights)
        for format_ in FORMATS:
            model = run / "models" / f"{weights.name.removesuffix(checkpoint.SUFFIX)}.{format_}"
            with suppress(ModelError):  # verify tells what is wrong with it
                if model.is_file() and manifests.read(model).parents.get("weights") != sha256:
                    found.append(model)
    return tuple(sorted(found))


def renew(run: Path) -> list[Exported]:
    """Write every file that is ``outdated`` again.

    Raises:
        ModelError: as ``export``.
    """
    made = []
    for model in outdated(run):
        made += export(run, Recipe.parse(model.stem), formats=(model.suffix.removeprefix("."),))
    return made


def _is_current(model: Path, parents: dict[str, str], statistics: Statistics, tools: dict[str, str]) -> bool:
    try:
        held = manifests.read(model)
        manifests.checked_bytes(model, held)
        goldens.read_golden(model, held)
    except ModelError:
        return False
    return (held.parents, held.input_statistics, held.tools) == (parents, statistics, tools)


def _tools(target_ort: str | None) -> dict[str, str]:
    versions = {"histoedge": __version__, **{name: importlib.metadata.version(name) for name in TOOLS}}
    return versions if target_ort is None else {**versions, "target onnxruntime": target_ort}


def _golden(tflite: bytes) -> Arrays:
    """What the golden file holds: synthetic patches, and what LiteRT answers to them."""
    patches, labels = synthetic.golden(GOLDEN_PATCHES)
    logits = litert.open_litert(tflite).predict(patches).reshape(len(patches))
    return {"patches": patches, "labels": labels, "logits": logits}


def _saturated(golden: Arrays, onnx: bytes) -> Arrays:
    """With what ONNX Runtime answers on x86 CPUs without VNNI, LiteRT's sums being exact everywhere."""
    return {**golden, "saturated": saturate.simulated_logits(onnx, golden["patches"])}


def _packed(golden: Arrays) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **golden)  # type: ignore[arg-type]  # of its other keyword
    return content.getvalue()


def _manifest(
    saved: Checkpoint,
    recipe: Recipe,
    format_: str,
    *,
    content: bytes,
    kernels: Arrays,
    may_saturate: list[str],
    golden: bytes,
    parents: dict[str, str],
    statistics: Statistics,
    tools: dict[str, str],
) -> Manifest:
    network = saved.network
    quantum = None
    tolerance, reason = FLOAT_TOLERANCE.get(recipe.precision, (0.0, ""))
    if recipe.precision == "int8":
        low, high = (float(bound) for bound in saved.arrays["head/range"])
        quantum = (high - low) / 255
        tolerance, reason = 1.01 * quantum, "one output quantum is rounding, two are a wrong scale"
    return Manifest(
        contract=manifests.CONTRACT,
        format=format_,
        recipe=recipe.name,
        network=network.name,
        params=network.params,
        macs=network.macs(),
        sha256=hashlib.sha256(content).hexdigest(),
        golden_sha256=hashlib.sha256(golden).hexdigest(),
        parents=parents,
        fp32=f"fp32.{format_}",
        stride_px=network.stride_px,
        receptive_field_px=network.receptive_field_px,
        centre_offset_px=PATCH_PX / 2,
        label_px=LABEL_PX,
        patch_px=PATCH_PX,
        um_per_px=UM_PER_PX,
        edge_mode="valid",
        temperature=saved.calibration.temperature,
        threshold=0.5,
        operating_points=saved.calibration.operating_points,
        golden_runtime="litert",
        tolerance=tolerance,
        tolerance_reason=reason,
        output_quantum=quantum,
        zeros=readback.zeros(kernels),
        may_saturate=may_saturate,
        input_statistics=statistics,
        tools=tools,
    )
