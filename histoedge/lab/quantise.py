"""Quantisation-aware networks with the optimisation toolkit, their ranges set from data instead of -6 .. 6.

The toolkit starts every range at -6 .. 6 and moves activation ranges by an average with decay 0.999, so after
some hundred steps half of the codes are still wasted. Here every range is set before fine-tuning and held
through it: kernels from their weights, activations from a calibration pass, a ReLU's minimum exactly 0, the
input exactly 0 .. 1 (so that its scale is 1/255 and raw pixels are the quantised input).
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from histoedge.lab import backend
from histoedge.lab import network as networks
from histoedge.lab.network import Arrays, Network

SMALLEST_RANGE = 1e-6  # a channel of zeros still needs a scale above 0


def model_of(network: Network, *, preserve_zeros: bool = False, field_px: int | None = networks.PATCH_PX) -> Any:
    """The quantisation-aware ``tf_keras`` twin of the folded network, its ranges not yet set.

    ``preserve_zeros`` keeps the zeros that the weights hold when training starts.
    """
    keras = backend.tf_keras()
    folded = networks.build(keras, network, folded=True, field_px=field_px)
    return wrap(folded, preserve_zeros=preserve_zeros)


def wrap(folded: Any, *, preserve_zeros: bool) -> Any:
    """The quantisation-aware copy of a folded ``tf_keras`` model, weights kept."""
    toolkit = backend.toolkit()
    quantization = toolkit.quantization.keras
    with quantization.quantize_scope():
        annotated = quantization.quantize_annotate_model(folded)
        if preserve_zeros:
            scheme = toolkit.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
            return quantization.quantize_apply(annotated, scheme)
        return quantization.quantize_apply(annotated)


def calibrate(folded: Any, network: Network, pixels: Iterable[np.ndarray]) -> Arrays:
    """``layer/range``, float32 (minimum, maximum), of the input and every convolution, over batches of pixels."""
    keras = backend.tf_keras()
    names = network.convolutions
    watch = keras.Model(folded.input, [folded.get_layer(name).output for name in names])
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for batch in pixels:
        for number, activation in enumerate(watch.predict_on_batch(batch)):
            lows[number] = min(lows[number], activation.min())
            highs[number] = max(highs[number], activation.max())
    ranges = {"input/range": np.array([0.0, 1.0], np.float32)}
    for name, low, high in zip(names, lows, highs, strict=True):
        low = 0.0 if name != "head" else min(low, 0.0)  # every range holds 0, or the converter moves it
        ranges[f"{name}/range"] = np.array([low, max(high, 0.0, low + SMALLEST_RANGE)], np.float32)
    return ranges


def set_ranges(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> None:
    """Put the activation ranges into a quantisation-aware model, and the kernel ranges that its weights have now."""
    hold_ranges(model, network, ranges)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        end = kernel_range(variables["kernel"].numpy())
        variables["kernel_min"].assign(-end)
        variables["kernel_max"].assign(end)


def kernel_range(kernel: np.ndarray) -> np.ndarray:
    """The upper end of every output channel's range, float32 (out,), of a kernel (height, width, in, out).

    The lower end is its negative.
    """
    largest: np.ndarray = np.abs(kernel).max(axis=(0, 1, 2))
    return np.asarray(np.maximum(largest, SMALLEST_RANGE), np.float32)


def hold_ranges(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> None:
    """Put back the activation ranges, which every training step moves a little."""
    places = {name: (model.get_layer(f"quant_{name}"), "post_activation") for name in network.convolutions}
    places["input"] = (model.layers[1], "quantize_layer")  # the toolkit counts this layer's name up
    for name, (layer, prefix) in places.items():
        variables = _variables(layer)
        low, high = ranges[f"{name}/range"]
        variables[f"{prefix}_min"].assign(low)
        variables[f"{prefix}_max"].assign(high)


def weights_of(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> Arrays:
    """Kernels, biases and ranges of a quantisation-aware model, as a checkpoint holds them."""
    arrays: Arrays = dict(ranges)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        arrays[f"{name}/kernel"] = variables["kernel"].numpy()
        arrays[f"{name}/bias"] = variables["bias"].numpy()
    return arrays


def rebuild(network: Network, arrays: Mapping[str, np.ndarray], *, field_px: int | None = networks.PATCH_PX) -> Any:
    """The quantisation-aware model that ``weights_of`` described, for fields of another size if asked."""
    model = model_of(network, field_px=field_px)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        variables["kernel"].assign(arrays[f"{name}/kernel"])
        variables["bias"].assign(arrays[f"{name}/bias"])
    set_ranges(model, network, arrays)
    return model


def _variables(layer: Any) -> dict[str, Any]:
    found = {os.path.basename(variable.name).split(":")[0]: variable for variable in layer.weights}
    return {re.sub(r"^quantize_layer_\d+", "quantize_layer", name): variable for name, variable in found.items()}
