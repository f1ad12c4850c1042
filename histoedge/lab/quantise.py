"""Quantisation-aware networks with the optimisation toolkit, with ranges from data.

The toolkit initialises all ranges to -6 .. 6 and updates activation ranges with a moving average of decay 0.999: after
some hundred steps half of the codes are still unused. Here all ranges are set before fine-tuning and stay fixed:
kernel ranges from the weights, activation ranges from a calibration pass, the minimum of a ReLU exactly 0, the input
exactly 0 .. 1 (its scale is then 1/255, and raw pixels are the quantised input).

On x86 CPUs without VNNI, kernels for uint8 x int8 add two products in 16 bits and can saturate. With kernel codes in
-63 .. 63 they cannot: 2 x 255 x 63 fits into 16 bits. These codes are a 7-bit grid; the alternative is -127 .. 127.
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

SMALLEST_RANGE = 1e-4  # share of the layer's largest range: a channel of zeros needs a scale, its bias must fit 32 bits
LARGEST_CODES = (63, 127)  # largest kernel code that cannot saturate, and that of the finer grid
KERNEL_CODES = "kernels/range"  # key in a checkpoint's arrays: smallest and largest kernel code


def wrap(folded: Any, network: Network, *, largest_code: int) -> Any:
    """Return a quantisation-aware copy of a folded ``tf_keras`` model with the same weights; ranges are not set yet."""
    quantization = backend.toolkit().quantization.keras
    with quantization.quantize_scope():
        model = quantization.quantize_apply(quantization.quantize_annotate_model(folded))
    for name in network.convolutions:
        # training derives the kernel ranges from the weights in each step; 7 bits (narrow) give the codes -63 .. 63
        model.get_layer(f"quant_{name}").quantize_config.weight_quantizer.num_bits = largest_code.bit_length() + 1
    return model


def calibrate(folded: Any, network: Network, pixels: Iterable[np.ndarray]) -> Arrays:
    """Return the activation ranges ``layer/range`` of the input and every convolution, float32 (minimum, maximum).

    Args:
        folded: a ``tf_keras`` model of the network with batch norm folded in.
        network: the architecture.
        pixels: batches float32 (n, 96, 96, 3) in 0..1.

    Raises:
        DataError: all pixels have the same colour.
        ModelError: a layer's outputs are all 0 (its range would have no width) or not finite.
    """
    keras = backend.tf_keras()
    names = network.convolutions
    probe = keras.Model(folded.input, [folded.get_layer(name).output for name in names])
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    colours = []
    for batch in pixels:
        colours += [batch.min(axis=(0, 1, 2)), batch.max(axis=(0, 1, 2))]
        activations = probe.predict_on_batch(batch)
        for number, activation in enumerate([activations] if len(names) == 1 else activations):
            lows[number] = np.minimum(lows[number], activation.min())  # unlike min(), keeps a NaN
            highs[number] = np.maximum(highs[number], activation.max())
    if np.ptp(colours, axis=0).max() == 0:
        colour = np.round(255 * colours[0]).astype(int).tolist()
        raise DataError(f"calibration: every pixel has the colour {colour}; expected patches of tissue")
    ranges = {"input/range": np.array([0.0, 1.0], np.float32)}
    for name, low, high in zip(names, lows, highs, strict=True):
        # the converter would shift a range without 0
        low, high = (min(low, 0.0) if name == "head" else 0.0), max(high, 0.0)
        if not low < high or not np.isfinite([low, high]).all():
            raise ModelError(
                f"{network.name}: outputs of layer {name} are in {low:g} .. {high:g} on the calibration patches, "
                "expected finite and not all 0; the layer is dead or diverged, train the network again"
            )
        ranges[f"{name}/range"] = np.array([low, high], np.float32)
    return ranges


def kernel_range(kernel: np.ndarray, *, largest_code: int) -> np.ndarray:
    """Return upper bounds (channels,) of symmetric 8-bit ranges; a channel's largest weight has ``largest_code``."""
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    bounds: np.ndarray = np.maximum(largest, SMALLEST_RANGE * (largest.max() or 1.0)) * np.float32(127 / largest_code)
    return bounds


def set_ranges(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the activation ranges of a quantisation-aware model, and the kernel ranges from its current weights."""
    restore_activation_ranges(model, network, arrays)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        bound = kernel_range(variables["kernel"].numpy(), largest_code=int(arrays[KERNEL_CODES][1]))
        variables["kernel_min"].assign(-bound)
        variables["kernel_max"].assign(bound)


def restore_activation_ranges(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> None:
    """Set the activation ranges again: each training step changes them slightly."""
    layers = {name: (model.get_layer(f"quant_{name}"), "post_activation") for name in network.convolutions}
    layers["input"] = (model.layers[1], "quantize_layer")  # the toolkit numbers the name of this layer
    for name, (layer, prefix) in layers.items():
        variables = _variables(layer)
        low, high = ranges[f"{name}/range"]
        variables[f"{prefix}_min"].assign(low)
        variables[f"{prefix}_max"].assign(high)


def project_kernels(model: Any, projections: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Apply ``constraints.projections`` to the kernels."""
    for name, project in projections.items():
        kernel = _variables(model.get_layer(f"quant_{name}"))["kernel"]
        kernel.assign(project(kernel.numpy()))


def quantised_weights(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return kernels and biases of a quantisation-aware model, and the ranges in ``arrays``, for a checkpoint."""
    saved: Arrays = {name: value for name, value in arrays.items() if name.endswith("/range")}
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        saved[f"{name}/kernel"] = variables["kernel"].numpy()
        saved[f"{name}/bias"] = variables["bias"].numpy()
    return saved


def rounded(kernel: np.ndarray, *, largest_code: int) -> Any:
    """Return the kernel rounded to its codes, a float32 tensor."""
    bounds = kernel_range(kernel, largest_code=largest_code)
    per_channel = backend.tensorflow().quantization.fake_quant_with_min_max_vars_per_channel
    return per_channel(kernel, -bounds, bounds, narrow_range=True)


def simulate(network: Network, arrays: Mapping[str, np.ndarray], pixels: Any, *, packed: bool = False) -> Any:
    """Return the logits of the integer network, simulated in floats with rounding.

    Args:
        network: the architecture.
        arrays: from ``quantised_weights``: ``layer/kernel``, ``layer/bias``, ``layer/range`` and ``KERNEL_CODES``.
        pixels: tensor float32 (N, H, W, 3) in 0..1.
        packed: compute the first convolution over blocks of pixels (see ``stem``).

    Returns:
        Logits, a float32 tensor (N, h, w, 1).
    """
    tf = backend.tensorflow()
    fake_quantise = tf.quantization.fake_quant_with_min_max_vars
    tensor = fake_quantise(pixels, *(float(bound) for bound in arrays["input/range"]))
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
        tensor = fake_quantise(tensor, *(float(bound) for bound in arrays[f"{name}/range"]))
    return tensor


def _variables(layer: Any) -> dict[str, Any]:
    variables = {os.path.basename(variable.name).split(":")[0]: variable for variable in layer.weights}
    return {re.sub(r"^quantize_layer_\d+", "quantize_layer", name): variable for name, variable in variables.items()}
