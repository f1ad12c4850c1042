"""Slimming: a smaller network that starts from the most important channels of a trained one."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from histoedge.lab import weights
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

PER_CHANNEL = ("bias", "gamma", "beta", "moving_mean", "moving_variance")
CHANNEL_MULTIPLE = 8  # integer kernels process 8 channels at a time and are slow on a remainder


def slim_network(network: Network, percent: int) -> Network:
    """Return the network with ``percent`` fewer channels in each convolution, rounded up to a multiple of 8."""
    rows = tuple(
        dataclasses.replace(
            row, channels=CHANNEL_MULTIPLE * math.ceil(row.channels * (1 - percent / 100) / CHANNEL_MULTIPLE)
        )
        if row.kind == "conv"
        else row
        for row in network.rows
    )
    return dataclasses.replace(network, name=f"{network.name}-slim{percent}", rows=rows)


def channel_importance(keras: Any, network: Network, folded: Arrays, pixels: Iterable[np.ndarray]) -> Arrays:
    """Return each channel's contribution to the next convolution: float64 (channels,) for every layer but the head.

    The contribution is the root mean square of the channel's activation over the pixels, times the Euclidean norm of
    the weights that read it (a data-driven magnitude as in ThiNet, Luo et al. 2017, without its greedy search).

    Args:
        keras: Keras 3.
        network: the architecture.
        folded: its weights with batch norm folded in.
        pixels: batches float32 (n, 96, 96, 3) in 0..1.
    """
    model = weights.build(keras, network, folded=True)
    weights.set_weights(model, folded, where=network.name)
    names = network.convolutions
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names[:-1]])
    squares, count = [np.zeros(1)] * (len(names) - 1), 0
    for batch in pixels:
        activations = probe.predict_on_batch(batch)
        activations = activations if isinstance(activations, list) else [activations]
        squares = [
            total + len(batch) * np.square(activation, dtype=np.float64).mean(axis=(0, 1, 2))
            for total, activation in zip(squares, activations, strict=True)
        ]
        count += len(batch)
    readers = [np.square(folded[f"{name}/kernel"], dtype=np.float64).sum(axis=(0, 1, 3)) for name in names[1:]]
    return {name: np.sqrt(total / count * read) for name, total, read in zip(names[:-1], squares, readers, strict=True)}


def slice_weights(network: Network, target: Network, arrays: Mapping[str, np.ndarray], ranking: Arrays) -> Arrays:
    """Return weights for the ``target`` network: each layer's most important channels, in their original order."""
    channels = {name: row.channels for name, row in target.layers}
    slices, inputs = {}, np.arange(3)
    for name in network.convolutions:
        kernel = arrays[f"{name}/kernel"][:, :, inputs]
        outputs = np.arange(kernel.shape[-1])
        if name in ranking:
            outputs = np.sort(np.argsort(-ranking[name], kind="stable")[: channels[name]])
        slices[f"{name}/kernel"] = kernel[..., outputs]
        for layer in (name, f"{name}_norm"):
            for weight in PER_CHANNEL:
                if f"{layer}/{weight}" in arrays:
                    slices[f"{layer}/{weight}"] = arrays[f"{layer}/{weight}"][outputs]
        inputs = outputs
    return slices
