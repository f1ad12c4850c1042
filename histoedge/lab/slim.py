"""Slimming: a smaller network that starts from the most important channels of a trained one.

Channels that belong together, see ``channels``, are ranked by all layers that read them, and kept or removed together.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import graph, weights
from histoedge.lab.architecture import Network
from histoedge.lab.channels import Channels, channels_of
from histoedge.lab.weights import Arrays

PER_CHANNEL = ("bias", "gamma", "beta", "moving_mean", "moving_variance")
CHANNEL_MULTIPLE = 8  # integer kernels process 8 channels at a time and are slow on a remainder


def slim_network(network: Network, percent: int) -> Network:
    """Return the network with ``percent`` fewer channels in each convolution, rounded up to a multiple of 8.

    Convolutions whose outputs are added keep equal numbers of channels. Channels that are added to the pixels stay.

    Raises:
        ModelError: no channel can be removed; the message names the widest layer.
    """
    channels = channels_of(network)
    if all(_kept(len(block), percent) == len(block) for block in channels.blocks):
        widest = max(network.nodes[:-1], key=lambda node: node.channels, default=network.nodes[-1])
        raise ModelError(
            f"network {network.name}, layer {widest.name}: slim{percent} removes none of {widest.channels} channels, "
            f"the most of a layer: it keeps multiples of {CHANNEL_MULTIPLE}, and all that are added to the pixels; use "
            "a wider network or another recipe"
        )
    removed = _removed(channels, percent, np.zeros(channels.count))  # their number does not depend on the importance
    rows = tuple(
        dataclasses.replace(node.row, channels=len(channels.places(node.name, removed)))
        if node.row.kind == "conv"
        else node.row
        for node in network.nodes
    )
    return dataclasses.replace(network, name=f"{network.name}-slim{percent}", rows=rows)


def channel_importance(keras: Any, network: Network, folded: Arrays, pixels: Iterable[np.ndarray]) -> Arrays:
    """Return each channel's contribution to the layers that read it: float64 (channels,) for every ``conv``.

    The contribution is the root mean square of the channel's activation over the pixels, times the Euclidean norm of
    the weights that read it (a data-driven magnitude as in ThiNet, Luo et al. 2017, without its greedy search). The
    squares of all readers of a group of channels are added. Activations are those before max-pools.

    Args:
        keras: Keras 3.
        network: the architecture.
        folded: its weights with batch norm folded in.
        pixels: batches float32 (n, side, side, 3) in 0..1.
    """
    model = weights.build(keras, network, folded=True)
    weights.set_weights(model, folded, where=network.name)
    nodes = {node.name: node for node in network.nodes}
    readers = {node.name: node.inputs[0] for node in network.nodes if node.row.kind in ("conv", "head")}
    for name, read in readers.items():
        while read != graph.PIXELS and nodes[read].row.kind == "maxpool":
            read = nodes[read].inputs[0]
        readers[name] = read
    sources = [node for node in network.nodes if node.name in readers.values()]
    probe = keras.Model(model.input, [model.get_layer(weights.output_layer(model, node)).output for node in sources])
    squares, count = [np.zeros(1)] * len(sources), 0
    for batch in pixels:
        activations = probe.predict_on_batch(batch)
        activations = activations if isinstance(activations, list) else [activations]
        squares = [
            total + len(batch) * np.square(activation, dtype=np.float64).mean(axis=(0, 1, 2))
            for total, activation in zip(squares, activations, strict=True)
        ]
        count += len(batch)
    means = {node.name: total / count for node, total in zip(sources, squares, strict=True)}
    channels = channels_of(network)
    sums = np.zeros(channels.count)
    for name, read in readers.items():
        if read != graph.PIXELS:
            norms = np.square(folded[f"{name}/kernel"], dtype=np.float64).sum(axis=(0, 1, 3))
            np.add.at(sums, channels.groups[read], means[read] * norms)
    return {node.name: np.sqrt(sums[channels.groups[node.name]]) for node in network.nodes if node.row.kind == "conv"}


def slice_weights(network: Network, percent: int, arrays: Mapping[str, np.ndarray], ranking: Arrays) -> Arrays:
    """Return weights for ``slim_network(network, percent)``: the most important channels, in their original order.

    Args:
        network: the architecture.
        percent: share of the channels to remove.
        arrays: its weights, with or without batch norm.
        ranking: importance of the channels by layer, as from ``channel_importance``.
    """
    channels = channels_of(network)
    importance = np.zeros(channels.count)
    for name, values in ranking.items():
        importance[channels.groups[name]] = values
    removed = _removed(channels, percent, importance)
    slices: Arrays = {}
    for node in network.nodes:
        if node.row.kind not in graph.KERNELS:
            continue
        outputs, kernel = channels.places(node.name, removed), arrays[f"{node.name}/kernel"]
        if node.row.kind != "depthwise":
            kernel = kernel[:, :, channels.places(node.inputs[0], removed)]
        slices[f"{node.name}/kernel"] = kernel[..., outputs]
        for layer in (node.name, f"{node.name}_norm"):
            for weight in PER_CHANNEL:
                if f"{layer}/{weight}" in arrays:
                    slices[f"{layer}/{weight}"] = arrays[f"{layer}/{weight}"][outputs]
    return slices


def _kept(count: int, percent: int) -> int:
    """Return how many of the groups of a block are kept."""
    return min(CHANNEL_MULTIPLE * math.ceil(count * (1 - percent / 100) / CHANNEL_MULTIPLE), count)


def _removed(channels: Channels, percent: int, importance: np.ndarray) -> np.ndarray:
    """Return the groups of each block with the least ``importance``, by group."""
    removed = [
        block[np.argsort(-importance[block], kind="stable")[_kept(len(block), percent) :]] for block in channels.blocks
    ]
    return np.concatenate([np.zeros(0, np.int64), *removed])
