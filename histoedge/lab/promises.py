"""What a recipe promises of the kernels, kept while they are trained and counted where they are deployed."""

from collections.abc import Callable, Mapping

import numpy as np

from histoedge.config import Recipe
from histoedge.edge.errors import ModelError
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

CLUSTERS = 16
LLOYD_STEPS = 100


def clustered(kernel: np.ndarray) -> np.ndarray:
    """The kernel (height, width, in, out) with at most 16 values per output channel: one-dimensional k-means.

    Lloyd 1982, started from evenly spaced quantiles, so that the same kernel always gives the same clusters.
    """
    columns = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    for channel in range(columns.shape[1]):
        values = columns[:, channel]
        centres = np.unique(np.quantile(values, (np.arange(CLUSTERS) + 0.5) / CLUSTERS))
        for _ in range(LLOYD_STEPS):
            nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
            counts = np.bincount(nearest, minlength=len(centres))
            sums = np.bincount(nearest, values, minlength=len(centres))
            moved = np.sort(np.where(counts > 0, sums / np.maximum(counts, 1), centres))
            if np.array_equal(moved, centres):
                break
            centres = moved
        columns[:, channel] = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, values)]
    return columns.reshape(kernel.shape).astype(kernel.dtype)


def projections(
    recipe: Recipe, network: Network, arrays: Mapping[str, np.ndarray]
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """For each layer that the recipe's scheme touches: the nearest allowed kernel to any kernel.

    Zeros in ``arrays`` stay zero; weights of a channel that share a value there go on sharing one.
    """
    if recipe.scheme in ("prune", "2of4"):
        layers = network.prunable if recipe.scheme == "prune" else network.prunable_2of4
        return {name: _zeros_of(arrays[f"{name}/kernel"]) for name in layers}
    if recipe.scheme == "cluster16":
        return {name: _ties_of(arrays[f"{name}/kernel"]) for name in network.convolutions}
    return {}


def _zeros_of(kernel: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mask = (kernel != 0).astype(kernel.dtype)
    return lambda moved: moved * mask


def _ties_of(kernel: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    columns = kernel.reshape(-1, kernel.shape[-1])
    groups = [np.unique(column, return_inverse=True)[1] for column in columns.T]

    def project(moved: np.ndarray) -> np.ndarray:
        tied = np.empty_like(columns)
        for channel, group in enumerate(groups):
            values = moved.reshape(columns.shape)[:, channel]
            tied[:, channel] = (np.bincount(group, values) / np.bincount(group))[group]
        return tied.reshape(kernel.shape)

    return project


def refuse_broken(recipe: Recipe, network: Network, kernels: Arrays, *, where: str) -> None:
    """Pass kernels (height, width, in, out), floats or codes, that hold what the recipe's name promises.

    Raises:
        ModelError: too few zeros, or too many values in a channel; names the layer.
    """
    if recipe.scheme == "prune":
        for name in network.prunable:
            found, promised = float(np.mean(kernels[name] == 0)), recipe.percent / 100 - 0.01
            if found < promised:
                raise ModelError(f"{where}: {found:.1%} zeros in {name}, expected {promised:.0%}; raise prune_steps")
    if recipe.scheme == "2of4":
        for name in network.prunable_2of4:
            height, width, inputs, outputs = kernels[name].shape
            fours = kernels[name].reshape(height, width, inputs // 4, 4, outputs)
            if ((fours == 0).sum(axis=3) < 2).any():
                raise ModelError(f"{where}: {name} has fewer than two zeros in four channels; raise prune_steps")
    if recipe.scheme == "cluster16":
        for name, kernel in kernels.items():
            most = max(len(np.unique(column)) for column in kernel.reshape(-1, kernel.shape[-1]).T)
            if most > CLUSTERS:
                raise ModelError(f"{where}: {most} values in a channel of {name}, expected at most {CLUSTERS}")
