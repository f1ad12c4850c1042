"""Build the Keras model of a network, read and set its weights, fold batch norm."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.edge.patches import PATCH_PX
from histoedge.lab import norm
from histoedge.lab.architecture import Network, Row

Arrays = dict[str, np.ndarray]

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def build(
    keras: Any,
    network: Network,
    *,
    folded: bool = False,
    field_px: int | None = PATCH_PX,
    convolution: Callable[[Row, str], Any] | None = None,
    blocks: int = 1,
) -> Any:
    """Return a Keras model of the network: float32 (N, field, field, 3) pixels in 0..1 -> float32 (N, h, w, 1) logits.

    Args:
        keras: Keras 3 or ``tf_keras``; ``tf_keras`` only with ``folded``.
        network: the architecture.
        folded: build the deployed form, without batch norm and dropout.
        field_px: side of the input; None for any.
        convolution: factory for the layers of ``conv`` and ``head`` rows that are not folded; default: ``Conv2D``.
        blocks: number of channel blocks that share the batch norm weights.
    """
    layers = keras.layers

    def plain(row: Row, name: str) -> Any:
        # the head is float32 under every policy: bfloat16 logits would tie patches and reduce the AUC
        rest: dict[str, Any] = {"dtype": "float32"} if row.kind == "head" else {"use_bias": row.bias}
        return layers.Conv2D(row.channels, row.kernel, row.stride, name=name, **rest)

    make_layer = convolution or plain
    tensor = inputs = keras.Input((field_px, field_px, 3), name="pixels")
    for name, row in network.layers:
        if row.kind == "maxpool":
            tensor = layers.MaxPooling2D(row.kernel, row.stride, name=name)(tensor)
        elif row.kind == "head":
            tensor = make_layer(row, name)(tensor)
        elif folded:
            tensor = layers.Conv2D(row.channels, row.kernel, row.stride, activation="relu", name=name)(tensor)
        else:
            normed = norm.layer(keras, f"{name}_norm", blocks=blocks)(make_layer(row, name)(tensor))
            tensor = layers.Activation("relu", name=f"{name}_relu")(normed)
        if row.dropout and not folded:
            tensor = layers.Dropout(row.dropout, name=f"{name}_dropout")(tensor)
    return keras.Model(inputs, tensor, name=network.name)


def get_weights(model: Any) -> Arrays:
    """Return all weights of a built model by ``layer/weight`` name (``stem/kernel``, ``stem_norm/gamma``), float32."""
    arrays: Arrays = {}
    for layer in model.layers:
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True):
            arrays[f"{layer.name}/{weight.name.split('/')[-1].split(':')[0]}"] = np.asarray(value)
    return arrays


def set_weights(model: Any, arrays: Mapping[str, np.ndarray], *, where: str) -> None:
    """Set the weights of a built model.

    Args:
        model: a built Keras model.
        arrays: weights by ``layer/weight`` name, see ``get_weights``.
        where: origin of the weights, for the error message.

    Raises:
        ModelError: a weight is missing or has another shape.
    """
    expected = {name: value.shape for name, value in get_weights(model).items()}
    shapes = {name: arrays[name].shape for name in arrays if name in expected}
    if shapes != expected:
        wrong = sorted(name for name in expected if shapes.get(name) != expected[name])
        raise ModelError(
            f"{where}: weights missing or of another shape than in network {model.name}: {', '.join(wrong[:4])}"
        )
    for layer in model.layers:
        prefix = f"{layer.name}/"
        names = [name for name in expected if name.startswith(prefix)]
        if names:
            layer.set_weights([arrays[name] for name in names])


def fold(network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return kernels and biases of the deployed form: each batch norm folded into the convolution before it.

    With gain ``g = gamma / sqrt(variance + epsilon)`` the kernel becomes ``kernel * g`` and the bias
    ``(bias - mean) * g + beta`` (Jacob et al. 2018, section 3.2). Computed in float64.
    """
    folded: Arrays = {}
    for name in network.convolutions:
        kernel = arrays[f"{name}/kernel"].astype(np.float64)
        bias = np.asarray(arrays.get(f"{name}/bias", np.zeros(kernel.shape[-1])), np.float64)
        if f"{name}_norm/gamma" in arrays:
            batch_norm = {key: arrays[f"{name}_norm/{key}"].astype(np.float64) for key in _NORM}
            gain = batch_norm["gamma"] / np.sqrt(batch_norm["moving_variance"] + norm.EPSILON)
            kernel, bias = kernel * gain, (bias - batch_norm["moving_mean"]) * gain + batch_norm["beta"]
        folded[f"{name}/kernel"], folded[f"{name}/bias"] = kernel.astype(np.float32), bias.astype(np.float32)
    return folded
