"""Build a Keras model from its layers as data, with built-in classes only; the reference for an imported network."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab.archive import Layer, Model


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


TRAINING_ONLY = _names(
    """
    Dropout SpatialDropout2D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization Identity RandomFlip
    RandomRotation RandomZoom RandomTranslation RandomContrast RandomCrop RandomBrightness RandomSaturation
    RandomHue RandomColorJitter RandomShear RandomSharpness RandomErasing RandomGaussianBlur RandomColorDegeneration
    RandomGrayscale RandomPosterization
    """
)
"""Layers that pass their input on when the model predicts."""

BUILT_IN = _names(
    """
    Conv2D DepthwiseConv2D SeparableConv2D Conv2DTranspose Dense BatchNormalization LayerNormalization
    GroupNormalization Normalization Rescaling Activation ReLU LeakyReLU PReLU ELU Softmax MaxPooling2D
    AveragePooling2D GlobalAveragePooling2D GlobalMaxPooling2D Flatten Reshape Permute Add Subtract Multiply Average
    Maximum Minimum Concatenate ZeroPadding2D Cropping2D UpSampling2D
    """
)
"""Layers that are built from their settings; their constructors execute nothing from the settings."""

ACTIVATIONS = _names(
    """
    linear relu relu6 sigmoid softmax tanh elu selu gelu softplus softsign swish silu hard_swish hard_silu
    hard_sigmoid leaky_relu mish exponential
    """
)
WITH_KERNEL = {"Conv2D": 2, "DepthwiseConv2D": 2, "SeparableConv2D": 2, "Conv2DTranspose": 3, "Dense": 0}
"""Layers with a kernel, and the axis of its input channels."""

LARGEST_VALUES = 1 << 26  # outputs of one layer for one patch: 256 MB of float32
_DROPPED = ("name", "trainable", "dtype", "seed", "batch_shape", "batch_input_shape", "registered_name")
_OBJECTS = ("_initializer", "_regularizer", "_constraint")


def check_built_in(model: Model, *, where: str) -> None:
    """Check that all layers are built-in ones.

    Raises:
        ModelError: a Lambda, custom or other layer; the message names it.
    """
    for layer in model.layers:
        if layer.kind == "Lambda" or "Lambda" in layer.kind:
            raise ModelError(
                f"{where}: layer {layer.name} is a {layer.kind}, which contains code and is never executed; replace it "
                "by built-in layers"
            )
        if layer.kind not in BUILT_IN | TRAINING_ONLY | {"InputLayer"}:
            raise ModelError(
                f"{where}: layer {layer.name} is a {layer.kind}, which is not a built-in layer that can be imported; "
                "replace it by built-in layers"
            )
        if (activation := layer.settings.get("activation")) not in (None, *ACTIVATIONS):
            name = activation.get("class_name", "object") if isinstance(activation, Mapping) else activation
            raise ModelError(f"{where}: layer {layer.name} has the activation {name}, which is not a built-in function")


def input_px(model: Model, *, where: str) -> int:
    """Return the side of the model's input.

    Raises:
        ModelError: the input is not a square RGB image of a fixed size.
    """
    first = model.layers[0]
    shape = first.settings.get("batch_shape", first.settings.get("batch_input_shape"))
    if first.kind != "InputLayer" or not isinstance(shape, list) or len(shape) != 4:
        raise ModelError(f"{where}: the input is {shape}, expected an Input layer of shape (None, side, side, 3)")
    height, width, channels = shape[1:]
    if channels != 3 or type(height) is not int or height != width:
        raise ModelError(f"{where}: the input is {shape}, expected (None, side, side, 3): square RGB patches")
    return height


def build(keras: Any, model: Model, *, where: str, drop_last_activation: bool = False) -> Any:
    """Return the Keras 3 model with its weights.

    Args:
        keras: Keras 3.
        model: the layers; check them first with ``check_built_in``.
        where: origin of the model, for error messages.
        drop_last_activation: replace the activation of the last layer, a sigmoid or softmax, by none.

    Raises:
        ModelError: settings or weights that do not fit a layer; the message names it.
    """
    tensors: dict[str, Any] = {}
    for layer in model.layers:
        if layer.kind == "InputLayer":
            side = input_px(model, where=where)
            inputs = tensors[layer.name] = keras.Input((side, side, 3))
            continue
        read = [tensors[name] for name in layer.inputs]
        if layer.kind in TRAINING_ONLY:
            (tensors[layer.name],) = read
            continue
        linear = drop_last_activation and layer.name == model.output
        if linear and layer.kind in ("Activation", "Softmax"):
            (tensors[layer.name],) = read
            continue
        _check_weights(layer, read[0].shape[-1], where)
        chosen = settings(layer, where=where)
        if linear and "activation" in chosen:
            chosen["activation"] = "linear"
        try:
            built = getattr(keras.layers, layer.kind)(**chosen, dtype="float32")
            output = built(read if len(read) > 1 else read[0])
            values = math.prod(side or 1 for side in output.shape[1:])
            if values > LARGEST_VALUES:
                raise ModelError(f"{where}: layer {layer.name} has {values} outputs per patch, limit {LARGEST_VALUES}")
            _set_weights(built, layer)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{where}: layer {layer.name}, {layer.kind}: {reason}") from error
        tensors[layer.name] = output
    return keras.Model(inputs, tensors[model.output])


def _check_weights(layer: Layer, read_channels: Any, where: str) -> None:
    """Compare the claimed sizes with those of the stored weights, before anything of that size is allocated."""
    if layer.kind not in WITH_KERNEL:
        return
    rank = 2 if layer.kind == "Dense" else 4
    kernels = [weight.shape for weight in layer.weights if weight.ndim == rank]
    expected: list[list[Any]] = [list(shape) for shape in kernels or [(0,) * rank]]
    first, last = expected[0], expected[-1]
    if rank == 4:
        size = layer.settings.get("kernel_size")
        first[:2] = size if isinstance(size, list) else [size, size]
    groups = layer.settings.get("groups", 1)
    first[WITH_KERNEL[layer.kind]] = read_channels // groups if type(groups) is int and groups > 0 else None
    if layer.kind in ("DepthwiseConv2D", "SeparableConv2D"):
        first[3] = layer.settings.get("depth_multiplier", 1)
    if layer.kind != "DepthwiseConv2D":
        last[-2 if layer.kind == "Conv2DTranspose" else -1] = layer.settings.get("units", layer.settings.get("filters"))
    if expected != [list(shape) for shape in kernels]:
        shapes = ", ".join(str(weight.shape) for weight in layer.weights) or "none"
        raise ModelError(
            f"{where}: layer {layer.name} has weights of shapes {shapes}, its settings require "
            f"{', '.join(str(tuple(shape)) for shape in expected)}"
        )


def settings(layer: Layer, *, where: str) -> dict[str, Any]:
    """Return the settings that a layer is built from.

    Raises:
        ModelError: a setting that is neither a number, a text nor a list of these.
    """
    chosen = {key: value for key, value in layer.settings.items() if key not in _DROPPED and not key.endswith(_OBJECTS)}
    for key, value in chosen.items():
        items = value if isinstance(value, list) else [value]
        flat = [entry for item in items for entry in (item if isinstance(item, list) else [item])]
        if not all(entry is None or isinstance(entry, str | int | float | bool) for entry in flat):
            raise ModelError(
                f"{where}: layer {layer.name}, {layer.kind}: setting {key} is {type(value).__name__}, expected a "
                "number, a text or a list of these"
            )
    return chosen


def _set_weights(built: Any, layer: Layer) -> None:
    weights = [np.asarray(weight, np.float32) for weight in layer.weights]
    if layer.kind == "Normalization" and weights:  # adapted: mean, variance, count
        built.load_own_variables({str(number): weight for number, weight in enumerate(layer.weights)})
        return
    expected = [tuple(variable.shape) for variable in built.weights]
    if [weight.shape for weight in weights] != expected:
        raise ValueError(f"weights of shapes {[weight.shape for weight in weights]}, expected {expected}")
    built.set_weights(weights)
