"""Quantisation-aware networks with the optimisation toolkit, their ranges set from data instead of -6 .. 6.

The toolkit starts every range at -6 .. 6 and moves activation ranges by an average with decay 0.999, so after
some hundred steps half of the codes are still wasted. Here every range is set before fine-tuning and held
through it: kernels from their weights, activations from a calibration pass, a ReLU's minimum exactly 0, the
input exactly 0 .. 1 (so that its scale is 1/255 and raw pixels are the quantised input).

On x86 CPUs without VNNI the kernels that multiply uint8 by int8 add two products in 16 bits, and saturate. Kernel
codes within -63 .. 63 cannot: 2 x 255 x 63 fits. They are the same grid as 7 bits; -127 .. 127 is the other choice.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import DataError, ModelError
from histoedge.lab import backend, stem
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

SMALLEST_RANGE = 1e-4  # of the layer's largest: a channel of zeros needs a scale, and its bias must fit 32 bits
LARGEST_CODES = (63, 127)  # of a kernel: what can never saturate, and what has the finer grid
KERNEL_CODES = "kernels/range"  # of a checkpoint's arrays: smallest and largest code


def wrap(folded: Any, network: Network, *, largest_code: int) -> Any:
    """The quantisation-aware copy of a folded ``tf_keras`` model, weights kept, ranges not yet set."""
    quantization = backend.toolkit().quantization.keras
    with quantization.quantize_scope():
        model = quantization.quantize_apply(quantization.quantize_annotate_model(folded))
    for name in network.convolutions:
        # training takes each step's ranges from the weights; 7 narrow bits over them are the codes -63 .. 63
        model.get_layer(f"quant_{name}").quantize_config.weight_quantizer.num_bits = largest_code.bit_length() + 1
    return model


def calibrate(folded: Any, network: Network, pixels: Iterable[np.ndarray]) -> Arrays:
    """``layer/range``, float32 (minimum, maximum), of the input and every convolution, over batches of pixels.

    Args:
        folded: a ``tf_keras`` model of the network, batch norm folded in.
        network: the architecture.
        pixels: batches float32 (n, 96, 96, 3) in 0..1.

    Raises:
        DataError: all pixels are of one colour.
        ModelError: a layer whose outputs are all 0 (its range would have no width), or not finite.
    """
    keras = backend.tf_keras()
    names = network.convolutions
    watch = keras.Model(folded.input, [folded.get_layer(name).output for name in names])
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    colours = []
    for batch in pixels:
        colours += [batch.min(axis=(0, 1, 2)), batch.max(axis=(0, 1, 2))]
        activations = watch.predict_on_batch(batch)
        for number, activation in enumerate([activations] if len(names) == 1 else activations):
            lows[number] = np.minimum(lows[number], activation.min())  # unlike min(), keeps a NaN
            highs[number] = np.maximum(highs[number], activation.max())
    if np.ptp(colours, axis=0).max() == 0:
        found = np.round(255 * colours[0]).astype(int).tolist()
        raise DataError(f"calibration: every pixel has the colour {found}; expected patches of tissue")
    ranges = {"input/range": np.array([0.0, 1.0], np.float32)}
    for name, low, high in zip(names, lows, highs, strict=True):
        # every range holds 0, or the converter moves it
        low, high = (min(low, 0.0) if name == "head" else 0.0), max(high, 0.0)
        if not low < high or not np.isfinite([low, high]).all():
            raise ModelError(
                f"{network.name}: the outputs of layer {name} lie in {low:g} .. {high:g} on the calibration patches; "
                "expected a range above zero width: a dead or diverged layer, train the network again"
            )
        ranges[f"{name}/range"] = np.array([low, high], np.float32)
    return ranges


def kernel_range(kernel: np.ndarray, *, largest_code: int) -> np.ndarray:
    """Upper bounds (channels,) of symmetric 8-bit ranges in which a channel's largest weight gets ``largest_code``."""
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    bounds: np.ndarray = np.maximum(largest, SMALLEST_RANGE * (largest.max() or 1.0)) * np.float32(127 / largest_code)
    return bounds


def set_ranges(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> None:
    """Put activation ranges into a quantisation-aware model, and the kernel ranges that its weights have now."""
    hold_ranges(model, network, arrays)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        bound = kernel_range(variables["kernel"].numpy(), largest_code=int(arrays[KERNEL_CODES][1]))
        variables["kernel_min"].assign(-bound)
        variables["kernel_max"].assign(bound)


def hold_ranges(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> None:
    """Put back the activation ranges, which every training step moves a little."""
    places = {name: (model.get_layer(f"quant_{name}"), "post_activation") for name in network.convolutions}
    places["input"] = (model.layers[1], "quantize_layer")  # the toolkit counts this layer's name up
    for name, (layer, prefix) in places.items():
        variables = _variables(layer)
        low, high = ranges[f"{name}/range"]
        variables[f"{prefix}_min"].assign(low)
        variables[f"{prefix}_max"].assign(high)


def project_kernels(model: Any, projections: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Put each named layer's kernel back among those its recipe allows."""
    for name, project in projections.items():
        kernel = _variables(model.get_layer(f"quant_{name}"))["kernel"]
        kernel.assign(project(kernel.numpy()))


def weights_of(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Kernels and biases of a quantisation-aware model with the ranges in ``arrays``, as a checkpoint holds them."""
    found: Arrays = {name: value for name, value in arrays.items() if name.endswith("/range")}
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        found[f"{name}/kernel"] = variables["kernel"].numpy()
        found[f"{name}/bias"] = variables["bias"].numpy()
    return found


def rounded(kernel: np.ndarray, *, largest_code: int) -> Any:
    """The kernel as its codes give it back, a float32 tensor."""
    bounds = kernel_range(kernel, largest_code=largest_code)
    per_channel = backend.tensorflow().quantization.fake_quant_with_min_max_vars_per_channel
    return per_channel(kernel, -bounds, bounds, narrow_range=True)


def simulate(network: Network, arrays: Mapping[str, np.ndarray], pixels: Any, *, packed: bool = False) -> Any:
    """What the integer network that ``weights_of`` described answers, computed in floats, rounding included.

    Args:
        network: the architecture.
        arrays: ``layer/kernel``, ``layer/bias``, ``layer/range`` and the kernels' range.
        pixels: float32 (N, H, W, 3) in 0..1, a tensor.
        packed: with the first convolution over blocks of pixels (see ``stem``), for a network that packs.

    Returns:
        Logits, a float32 tensor (N, h, w, 1).
    """
    tf = backend.tensorflow()
    rounding = tf.quantization.fake_quant_with_min_max_vars
    tensor = rounding(pixels, *(float(bound) for bound in arrays["input/range"]))
    for name, row in network.layers:
        if row.kind == "maxpool":
            tensor = tf.nn.max_pool2d(tensor, row.kernel, row.stride, "VALID")
            continue
        kernel, stride = arrays[f"{name}/kernel"], row.stride
        if packed and name == "stem":
            tensor, kernel, stride = tf.nn.space_to_depth(tensor, stride), stem.pack(kernel, stride, rows=True), 1
        kernel = rounded(kernel, largest_code=int(arrays[KERNEL_CODES][1]))
        tensor = tf.nn.conv2d(tensor, kernel, stride, "VALID") + arrays[f"{name}/bias"]
        if row.kind == "conv":
            tensor = tf.nn.relu(tensor)
        tensor = rounding(tensor, *(float(bound) for bound in arrays[f"{name}/range"]))
    return tensor


def _variables(layer: Any) -> dict[str, Any]:
    found = {os.path.basename(variable.name).split(":")[0]: variable for variable in layer.weights}
    return {re.sub(r"^quantize_layer_\d+", "quantize_layer", name): variable for name, variable in found.items()}
