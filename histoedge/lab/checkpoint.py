"""A trained or compressed network on disk: weights as data, with the settings and inputs they came from."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.config import RECIPES, Recipe
from histoedge.data import hdf5
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import architecture, calibrate, weights
from histoedge.lab.architecture import Network
from histoedge.lab.calibrate import Calibration
from histoedge.lab.weights import Arrays

SUFFIX = ".weights.h5"
FORMAT = 2  # 2 carries the calibration


@dataclass(frozen=True)
class Checkpoint:
    """Weights by ``layer/weight`` name, their network, and what they were made from.

    ``inputs`` is a JSON object: the settings and the SHA-256 of everything that went in. Weights of the
    recipe ``fp32`` hold batch norm as trained; those of the other recipes are folded, and ``int8`` ones add
    ``layer/range`` (minimum, maximum of the activation) for the input and every layer that has one.
    ``valid_auc`` and ``calibration`` come from the logits on ``valid`` as deployed.
    """

    network: Network
    recipe: str
    arrays: Arrays
    inputs: Mapping[str, Any]
    valid_auc: float
    calibration: Calibration

    @property
    def folded(self) -> Arrays:
        """What is deployed: kernels and biases with batch norm folded in, and the ranges where there are any."""
        ranges = {name: value for name, value in self.arrays.items() if name.endswith("/range")}
        return weights.fold(self.network, self.arrays) | ranges


def path_of(run: Path, recipe: str) -> Path:
    """``RUN/<recipe>.weights.h5``."""
    return run / f"{recipe}{SUFFIX}"


def recipes_in(run: Path) -> tuple[Recipe, ...]:
    """The recipes whose weights lie in RUN: in the order of ``RECIPES``, then any others by name."""
    found = []
    for path in sorted(run.glob(f"*{SUFFIX}")):
        with suppress(ConfigError):  # weights that somebody else put there
            found.append(Recipe.parse(path.name.removesuffix(SUFFIX)))
    listed = dict(zip(RECIPES, range(len(RECIPES)), strict=True))
    return tuple(sorted(found, key=lambda recipe: listed.get(recipe.name, len(listed))))


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, whole or not at all; the same content gives the same bytes."""
    attributes = {
        "format": FORMAT,
        "network": json.dumps(checkpoint.network.as_json(), sort_keys=True),
        "recipe": checkpoint.recipe,
        "inputs": json.dumps(checkpoint.inputs, sort_keys=True),
        "valid_auc": checkpoint.valid_auc,
        "calibration": checkpoint.calibration.as_json(),
    }
    hdf5.write_arrays(path, checkpoint.arrays, attributes)


def read(path: Path) -> Checkpoint:
    """The checkpoint at ``path``.

    Raises:
        ModelError: missing, not a checkpoint of ours, of an older format, or not fitting its own network.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights; make them with histoedge train or histoedge compress")
    arrays, attributes = hdf5.read_arrays(path)
    if "format" in attributes and attributes["format"] != FORMAT:
        raise ModelError(
            f"{path}: weights of format {attributes['format']!r}, expected {FORMAT}, which carries the calibration on "
            "valid; make them again in another folder"
        )
    try:
        network = architecture.from_json(json.loads(attributes["network"]), where=path)
        inputs = json.loads(attributes["inputs"])
        recipe, valid_auc = str(attributes["recipe"]), float(attributes["valid_auc"])
        calibration = calibrate.from_json(attributes["calibration"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not weights of ours ({error!r} among the attributes)") from error
    for name, shape in network.kernel_shapes.items():
        found = arrays[f"{name}/kernel"].shape if f"{name}/kernel" in arrays else "nothing"
        if found != shape:
            raise ModelError(f"{path}: {name}/kernel has shape {found}, its network expects {shape}")
    return Checkpoint(network, recipe, arrays, inputs, valid_auc, calibration)


def is_current(path: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether ``path`` already holds weights made from exactly these inputs.

    Raises:
        ModelError: there is a file, and it cannot be read.
    """
    return path.is_file() and read(path).inputs == json.loads(json.dumps(inputs))
