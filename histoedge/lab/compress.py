"""Compress a trained network: write the weights of recipes into its run.

``finetune`` computes the weights. This module decides which recipes need new weights and checks the result. Fine-tuning
uses training data only; the calibration is fitted on ``valid``.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histoedge import files
from histoedge.config import CompressConfig, Device, PatchesOn, Recipe, ancestry
from histoedge.data import Split
from histoedge.data.unlabelled import Unlabelled
from histoedge.edge.errors import ConfigError
from histoedge.lab import (
    appearance,
    backend,
    checkpoint,
    constraints,
    finetune,
    keep_float,
    layer_recipes,
    placement,
    slim,
)
from histoedge.lab.architecture import Network
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.layer_graph import LayerGraph
from histoedge.progress import Progress, silent

STAGES = ("prune", "slim", "quantise")


def compress_all(
    run: Path,
    recipes: Sequence[Recipe],
    splits: Mapping[str, Split],
    config: CompressConfig,
    *,
    calibration: Unlabelled | None = None,
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    progress: Progress = silent,
) -> tuple[Checkpoint, ...]:
    """Compute the weights of these recipes and their parents, then update all outdated weights in RUN.

    Weights in RUN are outdated if a parent's weights have changed; the update uses the settings of this call. After a
    kill, the next call continues.

    Raises:
        ModelError, ConfigError, DataError: see ``compress``; ConfigError also before any training: a recipe that a
            network of Keras layers cannot take.
    """
    network = checkpoint.read(checkpoint.path_of(run, "fp32")).architecture
    if isinstance(network, LayerGraph):
        layer_recipes.check_recipes(network, recipes)
    else:
        check_recipes(network, recipes)
        keep_float.check_names(config, network)
    pending = list({step.name: step for recipe in recipes for step in ancestry(recipe)}.values())
    checkpoints: list[Checkpoint] = []
    while pending:
        total = len(checkpoints) + len(pending)
        for recipe in pending:
            saved = compress(
                run,
                recipe,
                splits,
                config,
                calibration=calibration,
                device=device,
                patches_on=patches_on,
                progress=progress,
            )
            checkpoints.append(saved)
            progress("compress, recipes", len(checkpoints), total, f"{recipe.name}: valid AUC {saved.valid_auc:.4f}")
        done = {saved.recipe for saved in checkpoints}
        others = [recipe for recipe in checkpoint.recipes_in(run) if recipe.name not in done]
        pending = [recipe for recipe in others if _is_outdated(run, recipe)]
    return tuple(checkpoints)


def check_recipes(network: Network, recipes: Sequence[Recipe]) -> None:
    """Check before any training that the recipes can be applied to the network.

    Raises:
        ModelError: no channel can be removed, see ``slim.slim_network``.
    """
    for recipe in recipes:
        if recipe.scheme == "slim":
            slim.slim_network(network, recipe.percent)


def compress(
    run: Path,
    recipe: Recipe,
    splits: Mapping[str, Split],
    config: CompressConfig,
    *,
    calibration: Unlabelled | None = None,
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    progress: Progress = silent,
) -> Checkpoint:
    """Compute ``RUN/<recipe>.weights.h5`` from the weights of the parent recipe, unless the file is current.

    If the layers in float are chosen by their errors, ``RUN/<recipe>.keep_float.json`` lists them.

    Raises:
        ModelError: the parent's weights are missing, the recipe cannot be applied to the network, or the kernels
            violate a constraint of the recipe after training.
        ConfigError: other data than in the training, an unknown layer in ``keep_float``, or too little memory.
        DataError: all pixels of the calibration patches have the same colour.
    """
    path = checkpoint.path_of(run, recipe.name)
    source = checkpoint.read(checkpoint.path_of(run, "fp32"))
    for name, content_hash in source.inputs["data"].items():
        if splits[name].content_hash != content_hash:  # the test split of one data set may be training data of another
            raise ConfigError(f"{run}: trained on another {name} split; use the --data of its training")
    appearance.write_appearance(run, splits["train"])
    if recipe.parent is None:
        return source
    if config.keep_float or not isinstance(source.architecture, LayerGraph):
        keep_float.check_names(config, source.network)
    inputs = compress_inputs(run, recipe, config, splits, calibration)
    if checkpoint.is_current(path, inputs):
        return checkpoint.read(path)
    placement.check_minimum_memory()
    devices = backend.use_device(device)
    if devices.processes > 1:
        raise ConfigError("compress runs on a single machine; unset KERAS_DISTRIBUTION_* (only train supports several)")
    network, place = source.architecture, "disk"
    if not isinstance(network, LayerGraph):
        place = placement.choose(patches_on, splits["train"], network, batch=config.batch, devices=devices).on
    job = finetune.CompressJob(
        recipe=recipe,
        source=source,
        parent=checkpoint.read(checkpoint.path_of(run, recipe.parent)),
        splits=splits,
        config=config,
        devices=devices,
        patches_on=place,
        progress=progress,
        calibration=None if calibration is None else calibration.patches,
    )
    state = run / f".{recipe.name}.state.h5"
    if isinstance(network, LayerGraph):
        layer_recipes.check_recipes(network, [recipe])
        result = layer_recipes.compressed_layers(job, network)
    else:
        result = finetune.compressed_checkpoint(job, state=state, inputs=inputs)
        table = run / f"{recipe.name}.keep_float.json"
        table.unlink(missing_ok=True)
        if recipe.precision == "int8" and config.chooses_float:
            result, steps = keep_float.choose(job, result)
            files.write_json(table, keep_float.table(job, steps))
        kernels = {name: result.folded[f"{name}/kernel"] for name in result.network.convolutions}
        constraints.check_kernels(recipe, result.network, kernels, where=recipe.name)
    checkpoint.write(path, dataclasses.replace(result, inputs=inputs))
    state.unlink(missing_ok=True)
    return checkpoint.read(path)


def compress_inputs(
    run: Path,
    recipe: Recipe,
    config: CompressConfig,
    splits: Mapping[str, Split],
    calibration: Unlabelled | None = None,
) -> dict[str, Any]:
    """Return everything that determines the recipe's weights: hashes of parents and data, settings of its stage."""
    stage = "quantise" if recipe.precision == "int8" else "slim" if recipe.scheme == "slim" else "prune"
    other_stages = tuple(f"{other}_" for other in STAGES if other != stage)
    settings = {name: value for name, value in settings_json(config).items() if not name.startswith(other_stages)}
    data = {name: splits[name].content_hash for name in ("train", "valid")}
    if stage == "quantise":
        if calibration is not None:
            data["calibration"] = calibration.content_hash
        if config.keep_float:
            settings["keep_float"] = config.keep_float
        if config.chooses_float:
            settings["keep_float_loss"] = config.keep_float_loss
    return {
        "recipe": recipe.name,
        "compress": settings,
        "parents": _parent_hashes(run, recipe),
        "data": data,
        **checkpoint.geometry_inputs(splits["train"]),
    }


def settings_json(config: CompressConfig) -> dict[str, Any]:
    """Return the settings as a JSON object, without those of layers in float, which came later."""
    return {name: value for name, value in dataclasses.asdict(config).items() if not name.startswith("keep_float")}


def _is_outdated(run: Path, recipe: Recipe) -> bool:
    """Return whether the recipe's weights derive from other weights than its parents now have; False without these."""
    if recipe.parent is None or not checkpoint.path_of(run, recipe.parent).is_file():
        return False
    return bool(checkpoint.read(checkpoint.path_of(run, recipe.name)).inputs["parents"] != _parent_hashes(run, recipe))


def _parent_hashes(run: Path, recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of the weights files that the recipe derives from, by recipe."""
    names = sorted({"fp32", str(recipe.parent)})
    return {name: files.sha256(checkpoint.path_of(run, name)) for name in names}
