"""From a network to Keras and back: build the model, read and set its weights, fold batch norm."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import norm
from histoedge.lab.architecture import PATCH_PX, Network, Row


def build(
    keras: Any,
    network: Network,
    *,
    folded: bool = False,
    field_px: int | None = PATCH_PX,
    convolution: Callable[[Row, str], Any] | None = None,
    blocks: int = 1,
) -> Any:
    """A Keras model of the network: float32 (N, field, field, 3) pixels in 0..1 -> float32 (N, h, w, 1) logits.

    Args:
        keras: the module to build with, Keras 3 or ``tf_keras`` (this one only folded).
        network: the architecture.
        folded: with batch norm folded into the convolutions and no dropout: the form that is deployed.
        field_px: side of the input; None for any.
        convolution: makes the layer of a ``conv`` or ``head`` row that is not folded, in place of a plain one.
        blocks: of channels that share the weights of batch norm.
    """
    layers = keras.layers

    def plain(row: Row, name: str) -> Any:
        # a float32 head whatever the policy: bfloat16 logits would tie patches and cost AUC
        rest: dict[str, Any] = {"dtype": "float32"} if row.kind == "head" else {"use_bias": row.bias}
        return layers.Conv2D(row.channels, row.kernel, row.stride, name=name, **rest)

    made = convolution or plain
    tensor = inputs = keras.Input((field_px, field_px, 3), name="pixels")
    for name, row in network.layers:
        if row.kind == "maxpool":
            tensor = layers.MaxPooling2D(row.kernel, row.stride, name=name)(tensor)
        elif row.kind == "head":
            tensor = made(row, name)(tensor)
        elif folded:
            tensor = layers.Conv2D(row.channels, row.kernel, row.stride, activation="relu", name=name)(tensor)
        else:
            normed = norm.layer(keras, f"{name}_norm", blocks=blocks)(made(row, name)(tensor))
            tensor = layers.Activation("relu", name=f"{name}_relu")(normed)
        if row.dropout and not folded:
            tensor = layers.Dropout(row.dropout, name=f"{name}_dropout")(tensor)
    return keras.Model(inputs, tensor, name=network.name)


Arrays = dict[str, np.ndarray]


def weights_of(model: Any) -> Arrays:
    """All weights of a built model by ``layer/weight`` name (``stem/kernel``, ``stem_norm/gamma``), float32."""
    arrays: Arrays = {}
    for layer in model.layers:
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True):
            arrays[f"{layer.name}/{weight.name.split('/')[-1].split(':')[0]}"] = np.asarray(value)
    return arrays


def set_weights(model: Any, arrays: Mapping[str, np.ndarray], *, where: str) -> None:
    """Put arrays named as by ``weights_of`` into a built model.

    Raises:
        ModelError: a name or a shape that does not fit the network.
    """
    expected = {name: value.shape for name, value in weights_of(model).items()}
    found = {name: arrays[name].shape for name in arrays if name in expected}
    if found != expected:
        wrong = sorted(name for name in expected if found.get(name) != expected[name])
        raise ModelError(f"{where}: weights do not fit the network {model.name}: {', '.join(wrong[:4])}")
    for layer in model.layers:
        prefix = f"{layer.name}/"
        names = [name for name in expected if name.startswith(prefix)]
        if names:
            layer.set_weights([arrays[name] for name in names])


def fold(network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Kernels and biases of the deployed form: each batch norm folded into the convolution before it.

    With gain ``g = gamma / sqrt(variance + epsilon)`` the kernel becomes ``kernel * g`` and the bias
    ``(bias - mean) * g + beta`` (Jacob et al. 2018, section 3.2). Computed in float64.
    """
    folded: Arrays = {}
    for name in network.convolutions:
        kernel = arrays[f"{name}/kernel"].astype(np.float64)
        bias = np.asarray(arrays.get(f"{name}/bias", np.zeros(kernel.shape[-1])), np.float64)
        if f"{name}_norm/gamma" in arrays:
            found = {key: arrays[f"{name}_norm/{key}"].astype(np.float64) for key in _NORM}
            gain = found["gamma"] / np.sqrt(found["moving_variance"] + norm.EPSILON)
            kernel, bias = kernel * gain, (bias - found["moving_mean"]) * gain + found["beta"]
        folded[f"{name}/kernel"], folded[f"{name}/bias"] = kernel.astype(np.float32), bias.astype(np.float32)
    return folded


_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def zeros(network: Network, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of zeros in the kernel of every prunable layer."""
    return {name: float(np.mean(arrays[f"{name}/kernel"] == 0)) for name in network.prunable}
