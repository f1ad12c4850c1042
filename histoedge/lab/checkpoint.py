"""Checkpoints: the weights of a trained or compressed network on disk, with settings and input hashes."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.config import RECIPES, Recipe
from histoedge.data import Split, hdf5
from histoedge.data.geometry import PATCHCAMELYON, Geometry
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import architecture, calibrate, weights
from histoedge.lab.architecture import Network
from histoedge.lab.calibrate import Calibration
from histoedge.lab.layer_graph import LayerGraph
from histoedge.lab.weights import Arrays

SUFFIX = ".weights.h5"
FORMAT = 2  # since 2 with the calibration


@dataclass(frozen=True)
class Checkpoint:
    """Weights with their network and their inputs.

    Attributes:
        architecture: the network: rows, or the layers of an imported model as they are.
        recipe: name of the recipe.
        arrays: weights by ``layer/weight`` name. ``fp32`` contains batch norm as trained; other recipes have it folded
            in. ``int8`` recipes add ``layer/range``, the minimum and maximum of the activation of the input and of
            each convolution.
        inputs: JSON object with the settings and the SHA-256 of all inputs.
        valid_auc: AUC on ``valid``, from the logits of the deployed form.
        calibration: calibration on ``valid``, from the same logits.
    """

    architecture: Network | LayerGraph
    recipe: str
    arrays: Arrays
    inputs: Mapping[str, Any]
    valid_auc: float
    calibration: Calibration

    @property
    def network(self) -> Network:
        """The network, for all that reads its rows.

        Raises:
            ConfigError: it keeps the layers of a Keras model.
        """
        if isinstance(self.architecture, LayerGraph):
            raise ConfigError(
                f"network {self.architecture.name} keeps its Keras layers ({self.architecture.reason}): Grad-CAM, "
                "errors by layer, teachers and recipes that train need rows; replace that layer and import again"
            )
        return self.architecture

    @property
    def geometry(self) -> Geometry:
        """What the pixels and labels of the training data mean."""
        return Geometry.from_json(self.inputs.get("geometry", {}))

    @property
    def folded(self) -> Arrays:
        """The deployed form: kernels and biases with batch norm folded in, and the activation ranges of int8."""
        if isinstance(self.architecture, LayerGraph):  # its converter folds what it can
            return self.arrays
        ranges = {name: value for name, value in self.arrays.items() if name.endswith("/range")}
        return weights.fold(self.network, self.arrays) | ranges


def geometry_inputs(split: Split) -> dict[str, Any]:
    """Return the geometry of a split for ``Checkpoint.inputs``; none for PatchCamelyon's, as before geometries."""
    return {} if split.geometry == PATCHCAMELYON else {"geometry": split.geometry.as_json()}


def path_of(run: Path, recipe: str) -> Path:
    """Return the path ``RUN/<recipe>.weights.h5``."""
    return run / f"{recipe}{SUFFIX}"


def recipes_in(run: Path) -> tuple[Recipe, ...]:
    """Return the recipes with weights in RUN: first those of ``RECIPES`` in this order, then others by name."""
    recipes = []
    for path in sorted(run.glob(f"*{SUFFIX}")):
        with suppress(ConfigError):  # weights of another program
            recipes.append(Recipe.parse(path.name.removesuffix(SUFFIX)))
    rank = dict(zip(RECIPES, range(len(RECIPES)), strict=True))
    return tuple(sorted(recipes, key=lambda recipe: rank.get(recipe.name, len(rank))))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically; the same content gives the same bytes."""
    attributes = {
        "format": FORMAT,
        "network": json.dumps(checkpoint.architecture.as_json(), sort_keys=True),
        "recipe": checkpoint.recipe,
        "inputs": json.dumps(checkpoint.inputs, sort_keys=True),
        "valid_auc": checkpoint.valid_auc,
        "calibration": checkpoint.calibration.as_json(),
    }
    hdf5.write_arrays(path, checkpoint.arrays, attributes)


def read(path: Path) -> Checkpoint:
    """Return the checkpoint at ``path``.

    Raises:
        ModelError: missing file, not a checkpoint, older format, or kernels that do not fit the network.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights; create them with histoedge train or histoedge compress")
    arrays, attributes = hdf5.read_arrays(path)
    if "format" in attributes and attributes["format"] != FORMAT:
        raise ModelError(
            f"{path}: weights of format {attributes['format']!r}, expected {FORMAT}, which includes the calibration; "
            "train again in another folder"
        )
    try:
        network = architecture.from_json(json.loads(attributes["network"]), where=path)
        inputs = json.loads(attributes["inputs"])
        recipe, valid_auc = str(attributes["recipe"]), float(attributes["valid_auc"])
        calibration = calibrate.from_json(attributes["calibration"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a histoedge weights file ({error!r} among the attributes)") from error
    for name, expected in network.array_shapes.items():
        if name not in arrays:
            raise ModelError(f"{path}: {name} is missing")
        if (shape := arrays[name].shape) != expected:
            raise ModelError(f"{path}: {name} has shape {shape}, expected {expected}")
    return Checkpoint(network, recipe, arrays, inputs, valid_auc, calibration)


def is_current(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Return whether ``path`` contains weights with exactly these inputs.

    Raises:
        ModelError: the file exists and cannot be read.
    """
    return path.is_file() and read(path).inputs == json.loads(json.dumps(inputs))
