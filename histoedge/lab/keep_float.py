"""Choose the layers of an int8 recipe that stay in float: the fewest, in the order of their effect on the logit."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from histoedge.config import CompressConfig
from histoedge.config.fields import unknown_name
from histoedge.edge.errors import ConfigError
from histoedge.lab import layers, quantise
from histoedge.lab.architecture import Network
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.finetune import CompressJob


def check_names(config: CompressConfig, network: Network) -> None:
    """Check that the layers that are to stay in float exist and have kernels.

    Raises:
        ConfigError: an unknown layer; the message suggests the closest one.
    """
    for name in () if config.chooses_float else config.keep_float:
        if name not in network.convolutions:
            raise ConfigError(f"[compress] keep_float: {unknown_name('layer', name, network.convolutions)}")


@dataclasses.dataclass(frozen=True)
class Step:
    """The AUC on valid with one more ``layer`` in float; None: before the first."""

    layer: str | None
    valid_auc: float


def choose(job: CompressJob, quantised: Checkpoint) -> tuple[Checkpoint, tuple[Step, ...]]:
    """Keep layers in float one by one until the AUC on valid is within ``keep_float_loss`` of the float network's.

    The next layer is the one that ``verify --layers`` would name: whose computation in float reduces the rms error of
    the logit most, on a sample of valid.

    Args:
        job: the compression; its parent is the float network.
        quantised: its result with integer layers only.

    Returns:
        The weights with the chosen layers in float, and the steps.
    """
    network, least = quantised.network, job.parent.valid_auc - job.config.keep_float_loss
    patches = layers.sample(job.splits["valid"])
    current, steps = quantised, [Step(None, quantised.valid_auc)]
    while current.valid_auc < least and len(steps) <= len(network.convolutions):
        kept = quantise.float_layers(network, current.arrays)
        errors = layers.logit_errors(current, patches)
        chosen = min((name for name in network.convolutions if name not in kept), key=errors.__getitem__)
        marks = quantise.keep_in_float(network, quantised.arrays, (*kept, chosen))
        current = job.checkpoint({**quantised.arrays, **marks})
        steps.append(Step(chosen, current.valid_auc))
        note = f"{chosen}: valid AUC {current.valid_auc:.4f}, float network {job.parent.valid_auc:.4f}"
        job.progress(f"{job.recipe.name}, layers in float", len(steps) - 1, len(network.convolutions), note)
    if current.valid_auc < least:
        job.progress(
            f"{job.recipe.name}: all layers are in float, and the valid AUC is {current.valid_auc:.4f}, expected at "
            f"least {least:.4f}; raise keep_float_loss, or use the float recipe {job.recipe.parent}",
            0,
            0,
        )
    return current, tuple(steps)


def table(job: CompressJob, steps: Sequence[Step]) -> dict[str, Any]:
    """Return the JSON document of ``RUN/<recipe>.keep_float.json``."""
    return {
        "recipe": job.recipe.name,
        "float_recipe": job.recipe.parent,
        "float_valid_auc": job.parent.valid_auc,
        "keep_float_loss": job.config.keep_float_loss,
        "steps": [dataclasses.asdict(step) for step in steps],
    }
