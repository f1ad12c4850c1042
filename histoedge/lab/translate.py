"""Translate the layers of a Keras model into a ``Network`` with the same logits, where its kinds of rows suffice."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import graph
from histoedge.lab.architecture import Network
from histoedge.lab.archive import Layer, Model
from histoedge.lab.graph import Row
from histoedge.lab.rebuild import TRAINING_ONLY
from histoedge.lab.row_writer import RowWriter, Value
from histoedge.lab.weights import Arrays

LARGEST_CONVOLVED_MEAN = 8  # px; XNNPACK is slow with depthwise kernels much larger than this


def translate(
    model: Model, *, name: str, patch_px: int, pixels: str, positive: int, where: str
) -> tuple[Network, Arrays]:
    """Return the network and its weights, with batch norm folded in.

    Args:
        model: the Keras model, of built-in layers.
        name: name of the network.
        patch_px: side of the model's input.
        pixels: values that the model's input expects, a key of ``PIXEL_RANGES``.
        positive: of two outputs, the one of the positive class; of one output, 0 to negate it.
        where: origin of the model, for error messages.

    Raises:
        Untranslatable: a layer that no row expresses.
        ModelError: a model with another number of outputs than one or two.
    """
    writer = _Translator(model, pixels=pixels, patch_px=patch_px, where=where)
    for layer in model.layers:
        writer.add(layer)
    return writer.network(name, positive)


class _Translator(RowWriter):
    """A method for each kind of layer: ``_`` and the class name in lower case."""

    def add(self, layer: Layer) -> None:
        if layer.kind == "InputLayer":
            self.values[layer.name] = self.pixels
            return
        read = [self.values[name] for name in layer.inputs]
        if layer.kind in TRAINING_ONLY:
            self.values[layer.name] = read[0]
            self.readers[layer.inputs[0]] += self.readers.get(layer.name, 0) - 1
            return
        handler: Callable[[Layer, list[Value]], Value] | None = getattr(self, f"_{layer.kind.lower()}", None)
        if handler is None:
            raise self.fault(layer, f"{layer.kind} has no counterpart among the rows of a network")
        if layer.settings.get("data_format") not in (None, "channels_last"):
            raise self.fault(layer, "channels first; expected channels last")
        self.values[layer.name] = handler(layer, read)

    # ---- convolutions and dense layers ---------------------------------------------------------------------------

    def _conv2d(self, layer: Layer, read: list[Value]) -> Value:
        if layer.settings.get("groups", 1) != 1:
            raise self.fault(layer, "grouped convolution; expected groups = 1")
        kernel, *bias = layer.weights
        row = Row(kind="conv", channels=kernel.shape[-1], **self._window(layer), activation="none", bias=True)
        return self._convolved(layer, row, read[0], kernel, *bias)

    def _depthwiseconv2d(self, layer: Layer, read: list[Value]) -> Value:
        kernel, *bias = layer.weights
        return self._convolved(layer, self._depthwise(layer, kernel), read[0], _dilated(layer, kernel), *bias)

    def _separableconv2d(self, layer: Layer, read: list[Value]) -> Value:
        kernel, pointwise, *bias = layer.weights
        row = self._depthwise(layer, kernel)
        row, value = self.padding(layer, read[0], row, padding=str(layer.settings.get("padding", "valid")))
        inner = dataclasses.replace(layer, name=f"{layer.name}.depthwise")
        value = self.row(inner, row, [value], _dilated(layer, kernel))
        row = Row(kind="conv", channels=pointwise.shape[-1], activation="none", bias=True)
        return self._activated(layer, self.row(layer, row, [value], pointwise, *bias))

    def _depthwise(self, layer: Layer, kernel: np.ndarray) -> Row:
        if kernel.shape[3] != 1:
            raise self.fault(layer, f"depth_multiplier is {kernel.shape[3]}; expected 1")
        window = self._window(layer)
        side = (window["kernel"] - 1) * window.pop("dilation") + 1
        return Row(kind="depthwise", **{**window, "kernel": side}, activation="none", bias=True)

    def _window(self, layer: Layer) -> dict[str, Any]:
        names = {"kernel": "kernel_size", "stride": "strides", "dilation": "dilation_rate"}
        return {key: self.single(layer, name) for key, name in names.items()}

    def _convolved(self, layer: Layer, row: Row, value: Value, kernel: Any, bias: Any = None) -> Value:
        row, value = self.padding(layer, value, row, padding=str(layer.settings.get("padding", "valid")))
        return self._activated(layer, self.row(layer, row, [value], kernel, bias))

    def _dense(self, layer: Layer, read: list[Value]) -> Value:
        kernel, *bias = layer.weights
        (value,) = read
        side = value.px if value.flat else 1
        if kernel.shape[0] != side * side * value.channels:
            raise self.fault(layer, f"reads {kernel.shape[0]} values, but {side * side * value.channels} are there")
        shaped = kernel.reshape(side, side, value.channels, -1)
        row = Row(kind="conv", channels=shaped.shape[-1], kernel=side, activation="none", bias=True)
        return self._activated(layer, self.row(layer, row, [dataclasses.replace(value, flat=False)], shaped, *bias))

    # ---- normalisation -------------------------------------------------------------------------------------------

    def _rescaling(self, layer: Layer, read: list[Value]) -> Value:
        return self.affine(layer, read[0], layer.settings["scale"], layer.settings.get("offset", 0.0))

    def _normalization(self, layer: Layer, read: list[Value]) -> Value:
        if layer.settings.get("invert") or layer.settings.get("axis", [-1]) not in (-1, [-1], 3, [3]):
            raise self.fault(layer, "expected normalisation over the channels, not inverted")
        if layer.weights:
            mean: Any = layer.weights[0]
            variance: Any = layer.weights[1]
        else:
            mean, variance = layer.settings.get("mean"), layer.settings.get("variance")
            if mean is None or variance is None:
                raise self.fault(layer, "neither adapted nor given mean and variance; call adapt before saving")
        deviation = np.maximum(np.sqrt(np.asarray(variance, np.float64).ravel()), 1e-7)
        return self.affine(layer, read[0], 1 / deviation, -np.asarray(mean, np.float64).ravel() / deviation)

    def _batchnormalization(self, layer: Layer, read: list[Value]) -> Value:
        if layer.settings.get("axis", -1) not in (-1, 3, [3]):
            raise self.fault(layer, "expected normalisation over the channels, axis = -1")
        weights = [np.asarray(weight, np.float64) for weight in layer.weights]
        gamma = weights.pop(0) if layer.settings.get("scale", True) else 1.0
        beta = weights.pop(0) if layer.settings.get("center", True) else 0.0
        mean, variance = weights
        gain = gamma / np.sqrt(variance + layer.settings.get("epsilon", 1e-3))
        return self.affine(layer, read[0], gain, beta - mean * gain)

    # ---- activations ---------------------------------------------------------------------------------------------

    def _activated(self, layer: Layer, value: Value) -> Value:
        """Return the value after the activation in the layer's settings."""
        return self._apply(layer, value, str(layer.settings.get("activation") or "linear"), fused=True)

    def _apply(self, layer: Layer, value: Value, kind: str, *, fused: bool) -> Value:
        kind = {"silu": "swish", "hard_silu": "hard_swish", "linear": "none"}.get(kind, kind)
        if layer.name == self.model.output and kind in ("sigmoid", "softmax", "none"):
            self.final = kind
            return value
        if kind == "none":
            return value
        if kind not in graph.ACTIVATIONS:
            raise self.fault(layer, f"activation {kind}; expected one of {', '.join(graph.ACTIVATIONS)}")
        row = self.rows.get(value.source, Row(kind="maxpool"))
        mergeable = row.kind in ("conv", "depthwise", "add") and row.activated_by == "none" and kind in graph.FUSED
        if mergeable and (fused or self.is_open(layer, value)):
            self.rows[value.source] = dataclasses.replace(row, activation=kind)
            self.owner[value.source] = layer.name
            return value
        named = dataclasses.replace(layer, name=f"{layer.name}.{kind}") if fused else layer
        return self.row(named, Row(kind="activation", activation=kind), [value])

    def _activation(self, layer: Layer, read: list[Value]) -> Value:
        return self._apply(layer, read[0], str(layer.settings["activation"]), fused=False)

    def _softmax(self, layer: Layer, read: list[Value]) -> Value:
        return self._apply(layer, read[0], "softmax", fused=False)

    def _relu(self, layer: Layer, read: list[Value]) -> Value:
        largest, slope = layer.settings.get("max_value"), layer.settings.get("negative_slope", 0.0)
        if layer.settings.get("threshold", 0.0) or largest not in (None, 6, 6.0) or (slope and largest is not None):
            raise self.fault(layer, "expected a ReLU without threshold, with a maximum of 6 or none")
        if slope:
            return self._leaky(layer, read[0], slope)
        return self._apply(layer, read[0], "relu" if largest is None else "relu6", fused=False)

    def _leakyrelu(self, layer: Layer, read: list[Value]) -> Value:
        return self._leaky(layer, read[0], layer.settings.get("negative_slope", layer.settings.get("alpha", 0.3)))

    def _leaky(self, layer: Layer, value: Value, slope: float) -> Value:
        """Return max(x, 0) (1 - slope) + slope x: runtimes round this sum alike, and LeakyRelu each in its own way."""
        ones = np.ones((1, 1, 1, value.channels))
        parts = []
        for name, factor, activation in (("positive", 1 - slope, "relu"), ("linear", slope, "none")):
            named = dataclasses.replace(layer, name=f"{layer.name}.{name}")
            row = Row(kind="depthwise", activation=activation, bias=True)
            parts.append(self.row(named, row, [value], ones * factor))
        return self.row(layer, Row(kind="add"), parts)

    # ---- pools, merges, shapes -----------------------------------------------------------------------------------

    def _maxpooling2d(self, layer: Layer, read: list[Value]) -> Value:
        return self._pool(layer, read[0], "maxpool")

    def _averagepooling2d(self, layer: Layer, read: list[Value]) -> Value:
        return self._pool(layer, read[0], "avgpool")

    def _pool(self, layer: Layer, value: Value, kind: Any) -> Value:
        side = self.single(layer, "pool_size")
        stride = side if layer.settings.get("strides") is None else self.single(layer, "strides")
        row, value = self.padding(
            layer, value, Row(kind=kind, kernel=side, stride=stride), padding=str(layer.settings.get("padding"))
        )
        if kind == "avgpool" and row.padding == "same":
            raise self.fault(layer, "an average pool with padding; expected padding = 'valid'")
        return self._mean(layer, row, value) if kind == "avgpool" else self.row(layer, row, [value])

    def _globalaveragepooling2d(self, layer: Layer, read: list[Value]) -> Value:
        return self._mean(layer, Row(kind="avgpool", kernel=read[0].px), read[0])

    def _mean(self, layer: Layer, row: Row, value: Value) -> Value:
        """Return the mean of windows: of small ones as a depthwise convolution.

        Runtimes round a half differently: LiteRT away from zero, ONNX Runtime to the even code. A mean of few values is
        often a half; the sum of a convolution is scaled before it is rounded, and rounded alike.
        """
        if row.kernel > LARGEST_CONVOLVED_MEAN:
            return self.row(layer, row, [value])
        equal = np.full((row.kernel, row.kernel, 1, value.channels), 1 / row.kernel**2)
        convolution = dataclasses.replace(row, kind="depthwise", activation="none", bias=True)
        return self.row(layer, convolution, [value], equal)

    def _globalmaxpooling2d(self, layer: Layer, read: list[Value]) -> Value:
        return self.row(layer, Row(kind="maxpool", kernel=read[0].px), read)

    def _add(self, layer: Layer, read: list[Value]) -> Value:
        return self.row(layer, Row(kind="add"), read)

    def _concatenate(self, layer: Layer, read: list[Value]) -> Value:
        if layer.settings.get("axis", -1) not in (-1, 3):
            raise self.fault(layer, "expected concatenation of channels, axis = -1")
        return self.row(layer, Row(kind="concat"), read)

    def _zeropadding2d(self, layer: Layer, read: list[Value]) -> Value:
        top, bottom = layer.settings["padding"][0]
        if [[top, bottom]] * 2 != layer.settings["padding"] or read[0].pad != (0, 0):
            raise self.fault(layer, f"padding is {layer.settings['padding']}; expected the same for both sides")
        return dataclasses.replace(read[0], pad=(top, bottom))

    def _flatten(self, layer: Layer, read: list[Value]) -> Value:
        return dataclasses.replace(read[0], flat=read[0].px > 1)

    # ---- the head ------------------------------------------------------------------------------------------------

    def network(self, name: str, positive: int) -> tuple[Network, Arrays]:
        value = self.values[self.model.output]
        if value.channels not in (1, 2) or (self.final == "softmax") != (value.channels == 2 and self.final != "none"):
            raise ModelError(
                f"{self.where}: the model has {value.channels} outputs with activation {self.final}; "
                "expected one logit or sigmoid, or two classes with softmax"
            )
        last = self.rows.get(value.source)
        if last is None or last.kind != "conv" or last.activated_by != "none" or value.scale is not None:
            layer = Layer("head", "Dense", {}, (), ())
            value = self.row(
                layer, Row(kind="conv", channels=value.channels), [value], np.eye(value.channels)[None, None]
            )
        weights = [self.arrays.pop(f"{value.source}/{kind}") for kind in ("kernel", "bias")]
        if value.channels == 2:
            weights = [part[..., [positive]] - part[..., [1 - positive]] for part in weights]
        elif positive == 0:
            weights = [-part for part in weights]
        row = self.rows.pop(value.source)
        self.rows["head"] = dataclasses.replace(row, kind="head", channels=1, name="head", activation="")
        self.arrays["head/kernel"], self.arrays["head/bias"] = weights
        arrays = {key: np.ascontiguousarray(array, np.float32) for key, array in self.arrays.items()}
        return Network(name, tuple(self.rows.values()), False, self.patch_px), arrays


def _dilated(layer: Layer, kernel: np.ndarray) -> np.ndarray:
    """Return a depthwise kernel (height, width, in, 1) as (height, width, 1, in), dilated with zeros."""
    rate = layer.settings.get("dilation_rate", 1)
    step = rate[0] if isinstance(rate, list) else rate
    swapped = kernel.swapaxes(2, 3)
    side = (kernel.shape[0] - 1) * step + 1
    dilated = np.zeros((side, side, *swapped.shape[2:]), kernel.dtype)
    dilated[::step, ::step] = swapped
    return dilated
