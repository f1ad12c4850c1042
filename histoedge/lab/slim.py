"""Channel pruning that removes channels: a ``Network`` with smaller numbers, started from the channels that matter."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from histoedge.lab import weights
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

PER_CHANNEL = ("bias", "gamma", "beta", "moving_mean", "moving_variance")


WHOLE = 8  # channels remain in multiples of this: integer kernels are slow at what is left over


def smaller(network: Network, percent: int) -> Network:
    """The network without ``percent`` of each convolution's channels, rounded so that multiples of 8 remain."""
    rows = tuple(
        dataclasses.replace(row, channels=WHOLE * math.ceil(row.channels * (1 - percent / 100) / WHOLE))
        if row.kind == "conv"
        else row
        for row in network.rows
    )
    return dataclasses.replace(network, name=f"{network.name}-slim{percent}", rows=rows)


def importance(keras: Any, network: Network, folded: Arrays, pixels: Iterable[np.ndarray]) -> Arrays:
    """How much each channel adds to the next convolution: (channels,) float64 for every layer but the head.

    The root mean square of the channel's activation over the pixels, times the Euclidean norm of the weights that read
    it (a data-driven magnitude as in ThiNet, Luo et al. 2017, without its greedy search).

    Args:
        keras: the module to build with.
        network: the architecture.
        folded: its weights, batch norm folded in.
        pixels: batches float32 (n, 96, 96, 3) in 0..1.
    """
    model = weights.build(keras, network, folded=True)
    weights.set_weights(model, folded, where=network.name)
    names = network.convolutions
    watch = keras.Model(model.input, [model.get_layer(name).output for name in names[:-1]])
    squares, count = [np.zeros(1)] * (len(names) - 1), 0
    for batch in pixels:
        activations = watch.predict_on_batch(batch)
        activations = activations if isinstance(activations, list) else [activations]
        squares = [
            total + len(batch) * np.square(one, dtype=np.float64).mean(axis=(0, 1, 2))
            for total, one in zip(squares, activations, strict=True)
        ]
        count += len(batch)
    readers = [np.square(folded[f"{name}/kernel"], dtype=np.float64).sum(axis=(0, 1, 3)) for name in names[1:]]
    return {name: np.sqrt(total / count * read) for name, total, read in zip(names[:-1], squares, readers, strict=True)}


def sliced(network: Network, target: Network, arrays: Mapping[str, np.ndarray], ranking: Arrays) -> Arrays:
    """The weights of the ``target`` network: of each layer the most important channels, in their old order."""
    channels = {name: row.channels for name, row in target.layers}
    kept, inputs = {}, np.arange(3)
    for name in network.convolutions:
        kernel = arrays[f"{name}/kernel"][:, :, inputs]
        outputs = np.arange(kernel.shape[-1])
        if name in ranking:
            outputs = np.sort(np.argsort(-ranking[name], kind="stable")[: channels[name]])
        kept[f"{name}/kernel"] = kernel[..., outputs]
        for layer in (name, f"{name}_norm"):
            for weight in PER_CHANNEL:
                if f"{layer}/{weight}" in arrays:
                    kept[f"{layer}/{weight}"] = arrays[f"{layer}/{weight}"][outputs]
        inputs = outputs
    return kept
