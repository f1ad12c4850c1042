"""Keep the layers of a Keras model as they are: from pixels in 0..1 to one logit, without layers for training only."""

import dataclasses
import math
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import backend, layer_graph, rebuild
from histoedge.lab.archive import Layer, Model
from histoedge.lab.layer_graph import LayerGraph
from histoedge.lab.row_writer import PIXEL_RANGES
from histoedge.lab.weights import Arrays

_ENDS = {1: ("linear", "sigmoid"), 2: ("linear", "softmax")}
"""Activations of the output, by the number of outputs."""


def keep(model: Model, *, name: str, pixels: str, positive: int, reason: str, where: str) -> tuple[LayerGraph, Arrays]:
    """Return the graph of a model's layers and its weights.

    Args:
        model: the Keras model, of built-in layers.
        name: name of the network.
        pixels: values that the model's input expects, a key of ``PIXEL_RANGES``.
        positive: of two outputs, the one of the positive class; of one output, 0 to negate it.
        reason: the first layer that no row expresses, and why.
        where: origin of the model, for error messages.

    Raises:
        ModelError: settings or weights that do not fit a layer, or outputs that are neither one logit or sigmoid nor
            two classes with softmax.
    """
    model = _without_training_layers(model, where)
    built = rebuild.build(backend.keras(), model, where=where)
    count, end = math.prod(built.output.shape[1:]), _last_activation(model)
    if end not in _ENDS.get(count, ()):
        raise ModelError(
            f"{where}: the model has {count} outputs with activation {end}; expected one logit or sigmoid, or two "
            "classes with softmax"
        )
    return layer_graph.of_model(_one_logit(_from_unit_pixels(model, pixels), count, positive), name=name, reason=reason)


def _without_training_layers(model: Model, where: str) -> Model:
    """Return the model with inputs past the layers for training only, and with checked settings."""
    passed: dict[str, str] = {}
    layers = []
    for layer in model.layers:
        inputs = tuple(passed.get(source, source) for source in layer.inputs)
        if layer.kind in rebuild.TRAINING_ONLY:
            (passed[layer.name],) = inputs
            continue
        side = rebuild.input_px(model, where=where)
        settings = {"batch_shape": [None, side, side, 3]} if not layer.inputs else rebuild.settings(layer, where=where)
        layers.append(dataclasses.replace(layer, settings=settings, inputs=inputs))
    return Model(tuple(layers), passed.get(model.output, model.output))


def _last_activation(model: Model) -> str:
    last = next(layer for layer in model.layers if layer.name == model.output)
    return "softmax" if last.kind == "Softmax" else str(last.settings.get("activation") or "linear")


def _from_unit_pixels(model: Model, pixels: str) -> Model:
    """Return the model of pixels in 0..1: a Rescaling reads the input, or the model's own is changed."""
    first, *others = model.layers
    scale, offset = PIXEL_RANGES[pixels]
    readers = [layer for layer in others if first.name in layer.inputs]
    if len(readers) == 1 and readers[0].kind == "Rescaling" and _is_number(readers[0].settings):
        own = readers[0].settings
        scale, offset = scale * own["scale"], offset * own["scale"] + own.get("offset", 0.0)
        others.remove(readers[0])
        passed = readers[0].name
    else:
        passed = first.name
    source = first.name
    if (scale, offset) != (1.0, 0.0):
        source = _unique("pixels", model)
        rescaling = Layer(source, "Rescaling", {"scale": scale, "offset": offset}, (first.name,), ())
        others.insert(0, rescaling)
    renamed = [
        layer
        if layer.name == source
        else dataclasses.replace(layer, inputs=tuple(source if name == passed else name for name in layer.inputs))
        for layer in others
    ]
    return Model((first, *renamed), source if model.output == passed else model.output)


def _is_number(settings: Any) -> bool:
    return all(type(settings.get(key, 0.0)) in (int, float) for key in ("scale", "offset"))


def _one_logit(model: Model, count: int, positive: int) -> Model:
    """Return the model without the activation of its output, and with the logit of the positive class alone.

    The weights of the last dense layer or convolution are changed; after any other layer follows a dense layer.
    """
    layers = {layer.name: layer for layer in model.layers}
    last = layers[model.output]
    ends: tuple[str | None, ...] = (None, *_ENDS[count])
    if last.kind in ("Activation", "Softmax"):
        del layers[last.name]
        last, ends = layers[last.inputs[0]], (None, "linear")
    size = {"Dense": "units", "Conv2D": "filters"}.get(last.kind)
    alone = all(last.name not in layer.inputs for layer in layers.values())
    linear = last.settings.get("activation") in ends
    if size is None or not alone or last.settings[size] != count or last.settings.get("groups", 1) != 1 or not linear:
        flat = Layer(_unique("flat", model), "Flatten", {}, (last.name,), ())
        kernel = np.eye(count, dtype=np.float32)
        last = Layer(_unique("logit", model), "Dense", {"units": count, "use_bias": False}, (flat.name,), (kernel,))
        layers |= {flat.name: flat, last.name: last}
        size = "units"
    if count == 2:
        weights = [weight[..., [positive]] - weight[..., [1 - positive]] for weight in last.weights]
    else:
        weights = [weight if positive else -weight for weight in last.weights]
    settings = {**last.settings, size: 1, "activation": "linear"}
    layers[last.name] = dataclasses.replace(last, settings=settings, weights=tuple(weights))
    return Model(tuple(layers.values()), last.name)


def _unique(name: str, model: Model) -> str:
    names = {layer.name for layer in model.layers}
    return next(f"{name}{number or ''}" for number in range(len(names) + 1) if f"{name}{number or ''}" not in names)
