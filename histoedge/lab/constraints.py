"""Kernel constraints of a recipe (zeros, shared values): kept in fine-tuning, and checked in the exported file."""

from collections.abc import Callable, Mapping

import numpy as np

from histoedge.config import Recipe
from histoedge.edge.errors import ModelError
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

CLUSTERS = 16
LLOYD_STEPS = 100


def cluster_kernel(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel (height, width, in, out) with at most 16 values per output channel.

    One-dimensional k-means (Lloyd 1982), deterministic because it starts from evenly spaced quantiles.
    """
    columns = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    for channel in range(columns.shape[1]):
        values = columns[:, channel]
        centres = np.unique(np.quantile(values, (np.arange(CLUSTERS) + 0.5) / CLUSTERS))
        for _ in range(LLOYD_STEPS):
            nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
            counts = np.bincount(nearest, minlength=len(centres))
            sums = np.bincount(nearest, values, minlength=len(centres))
            means = np.sort(np.where(counts > 0, sums / np.maximum(counts, 1), centres))
            if np.array_equal(means, centres):
                break
            centres = means
        columns[:, channel] = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, values)]
    return columns.reshape(kernel.shape).astype(kernel.dtype)


def projections(
    recipe: Recipe, network: Network, arrays: Mapping[str, np.ndarray]
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return a function per constrained layer that maps a kernel to the nearest kernel with the constraint.

    Zeros in ``arrays`` stay zero; weights of a channel with a common value in ``arrays`` keep a common value.
    """
    if recipe.scheme in ("prune", "2of4"):
        layers = network.prunable if recipe.scheme == "prune" else network.prunable_2of4
        return {name: _keep_zeros(arrays[f"{name}/kernel"]) for name in layers}
    if recipe.scheme == "cluster16":
        return {name: _keep_groups(arrays[f"{name}/kernel"]) for name in network.convolutions}
    return {}


def _keep_zeros(kernel: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mask = (kernel != 0).astype(kernel.dtype)
    return lambda updated: updated * mask


def _keep_groups(kernel: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    columns = kernel.reshape(-1, kernel.shape[-1])
    groups = [np.unique(column, return_inverse=True)[1] for column in columns.T]

    def project(updated: np.ndarray) -> np.ndarray:
        result = np.empty_like(columns)
        for channel, group in enumerate(groups):
            values = updated.reshape(columns.shape)[:, channel]
            result[:, channel] = (np.bincount(group, values) / np.bincount(group))[group]
        return result.reshape(kernel.shape)

    return project


def check_kernels(recipe: Recipe, network: Network, kernels: Arrays, *, where: str) -> None:
    """Check that kernels satisfy the recipe's constraint.

    Args:
        recipe: the recipe.
        network: the architecture.
        kernels: floats or codes (height, width, in, out) by layer.
        where: origin of the kernels, for the error message.

    Raises:
        ModelError: too few zeros, or too many values in a channel; the message states the layer.
    """
    if recipe.scheme == "prune":
        for name in network.prunable:
            share, expected = float(np.mean(kernels[name] == 0)), recipe.percent / 100 - 0.01
            if share < expected:
                raise ModelError(
                    f"{where}: {share:.1%} zeros in {name}, expected at least {expected:.0%}; raise prune_steps"
                )
    if recipe.scheme == "2of4":
        for name in network.prunable_2of4:
            height, width, inputs, outputs = kernels[name].shape
            fours = kernels[name].reshape(height, width, inputs // 4, 4, outputs)
            if ((fours == 0).sum(axis=3) < 2).any():
                raise ModelError(
                    f"{where}: {name} has fewer than two zeros in a group of four input channels; raise prune_steps"
                )
    if recipe.scheme == "cluster16":
        for name, kernel in kernels.items():
            most = max(len(np.unique(column)) for column in kernel.reshape(-1, kernel.shape[-1]).T)
            if most > CLUSTERS:
                raise ModelError(f"{where}: {most} values in a channel of {name}, expected at most {CLUSTERS}")
