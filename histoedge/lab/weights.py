"""Build the Keras model of a network, read and set its weights, fold batch norm."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import backend, graph, norm
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Node, Row

Arrays = dict[str, np.ndarray]

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def build(
    keras: Any,
    network: Network,
    *,
    folded: bool = False,
    field_px: int | None = 0,
    convolution: Callable[[Row, str], Any] | None = None,
    blocks: int = 1,
) -> Any:
    """Return a Keras model of the network: float32 (N, field, field, 3) pixels in 0..1 -> float32 (N, h, w, 1) logits.

    Args:
        keras: Keras 3 or ``tf_keras``; ``tf_keras`` only with ``folded``.
        network: the architecture.
        folded: build the deployed form, without batch norm and dropout.
        field_px: side of the input; None for any, 0 for the network's patch.
        convolution: factory for the layers of ``conv`` and ``head`` rows that are not folded; default: ``Conv2D``.
        blocks: number of channel blocks that share the batch norm weights.
    """
    layers = keras.layers
    side = network.patch_px if field_px == 0 else field_px
    inputs = keras.Input((side, side, 3), name=graph.PIXELS)
    tensors = {graph.PIXELS: inputs}
    for node in network.nodes:
        name, row = node.name, node.row
        read = [tensors[entry] for entry in node.inputs]
        if row.kind in ("add", "concat"):
            merge = layers.Add if row.kind == "add" else layers.Concatenate
            tensor = merge(name=name)(read)
        elif row.kind == "maxpool":
            tensor = layers.MaxPooling2D(row.kernel, row.stride, row.padding, name=name)(*read)
        elif row.kind == "avgpool":
            tensor = layers.AveragePooling2D(row.kernel, row.stride, name=name)(*read)
        elif row.kind == "activation":
            tensor = _activation(keras, row, name)(*read)
        elif convolution is not None and not folded:
            tensor = convolution(row, name)(*read)
        else:
            tensor = _convolution(layers, row, name, folded=folded)(*read)
        if row.kind in ("conv", "depthwise") and row.norm and not folded:
            tensor = norm.layer(keras, f"{name}_norm", blocks=blocks)(tensor)
        fused = folded and row.kind == "conv" and row.activated_by == "relu"
        if row.kind in ("conv", "depthwise", "add") and row.activated_by != "none" and not fused:
            tensor = _activation(keras, row, f"{name}_{row.activated_by}")(tensor)
        if row.dropout and not folded:
            tensor = layers.Dropout(row.dropout, name=f"{name}_dropout")(tensor)
        tensors[name] = tensor
    return keras.Model(inputs, tensor, name=network.name)


def _convolution(layers: Any, row: Row, name: str, *, folded: bool) -> Any:
    """Return the layer of a conv, depthwise or head row; a folded conv includes its ReLU."""
    options: dict[str, Any] = {"name": name, "padding": row.padding, "dilation_rate": row.dilation}
    if row.kind == "head":  # float32 under every policy: bfloat16 logits would tie patches and reduce the AUC
        options["dtype"] = "float32"
    elif not folded:
        options["use_bias"] = row.bias or not row.norm
    if row.kind == "depthwise":
        return layers.DepthwiseConv2D(row.kernel, row.stride, **options)
    if folded and row.kind == "conv" and row.activated_by == "relu":
        options["activation"] = "relu"
    return layers.Conv2D(row.channels, row.kernel, row.stride, **options)


def _activation(keras: Any, row: Row, name: str) -> Any:
    """Return the layer of a row's activation."""
    if row.activated_by == "relu":
        return keras.layers.Activation("relu", name=name)

    class Activation(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, tensor: Any) -> Any:
            nn = keras.ops if hasattr(keras, "ops") else backend.tensorflow().nn
            return activate(nn, row, tensor)

    return Activation(name=name)


def output_layer(model: Any, node: Node) -> str:
    """Return the name of the layer of a built model whose output is that of the node: its activation, if separate."""
    activation = f"{node.name}_{node.row.activated_by}"
    return activation if any(layer.name == activation for layer in model.layers) else node.name


def activate(nn: Any, row: Row, tensor: Any) -> Any:
    """Return the tensor after the row's activation; ``nn`` is ``keras.ops`` or ``tensorflow.nn``."""
    kind = row.activated_by
    if kind == "swish":  # Ramachandran et al. 2017
        return tensor * nn.sigmoid(tensor)
    if kind == "hard_swish":  # Howard et al. 2019
        return tensor * nn.relu6(tensor + 3) / 6
    return tensor if kind == "none" else getattr(nn, kind)(tensor)


def get_weights(model: Any) -> Arrays:
    """Return all weights of a built model by ``layer/weight`` name (``stem/kernel``, ``stem_norm/gamma``), float32."""
    arrays: Arrays = {}
    for layer in model.layers:
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True):
            kind = weight.name.split("/")[-1].split(":")[0].removeprefix("depthwise_")
            value = np.asarray(value)
            arrays[f"{layer.name}/{kind}"] = _depthwise(value) if _is_depthwise(layer) and kind == "kernel" else value
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
            values = [arrays[name] for name in names]
            if _is_depthwise(layer):
                values[0] = _depthwise(values[0])
            layer.set_weights(values)


def _is_depthwise(layer: Any) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"


def _depthwise(kernel: np.ndarray) -> np.ndarray:
    """Swap the last two axes: Keras stores depthwise kernels as (height, width, in, 1), a network as (.., 1, in)."""
    return np.ascontiguousarray(kernel.swapaxes(2, 3))


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
