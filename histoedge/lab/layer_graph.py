"""A network as a graph of built-in Keras layers, for models with a layer that no row expresses.

It is data, as a ``Network`` is: kinds, settings and inputs of its layers as JSON, their weights as arrays. ``rebuild``
makes the Keras model of it; no loader of Keras reads it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.edge.json_types import has_type
from histoedge.edge.patches import LARGEST_PATCH_PX, SMALLEST_PATCH_PX
from histoedge.lab import backend, rebuild
from histoedge.lab.archive import LARGEST_WEIGHTS_BYTES, MOST_LAYERS, Layer, Model

RECIPES = ("fp32", "fp16", "int8ptq")
"""The recipes that need no rows: they change no layer and train nothing."""


@dataclasses.dataclass(frozen=True)
class LayerGraph:
    """A network of Keras layers: float32 (N, side, side, 3) pixels in 0..1 -> one logit per patch.

    Attributes:
        name: name of the network.
        layers: the layers without their weights, each after its inputs; the first is the input.
        output: name of the layer with the logit.
        shapes: shapes of the weights of each layer.
        macs_per_patch: multiply-accumulates of a patch in convolutions and dense layers.
        reason: the first layer that no row expresses, and why.
    """

    name: str
    layers: tuple[Layer, ...]
    output: str
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    macs_per_patch: int
    reason: str

    dense = False  # only single patches have a meaning

    @property
    def title(self) -> str:
        """What manifests call the network."""
        return f"{self.name} (Keras layers)"

    @property
    def patch_px(self) -> int:
        """Side of a patch in px."""
        return rebuild.input_px(Model(self.layers, self.output), where=self.name)

    @property
    def receptive_field_px(self) -> int:
        """Side of the receptive field in px: a patch."""
        return self.patch_px

    @property
    def params(self) -> int:
        """Number of parameters; batch norm with its statistics is not folded in."""
        return sum(math.prod(shape) for shape in self.array_shapes.values())

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by ``layer/weight``, the numbers of both."""
        return {f"{place}/{n}": shape for place, shapes in enumerate(self.shapes) for n, shape in enumerate(shapes)}

    def macs(self) -> int:
        """Return the number of multiply-accumulates of a patch."""
        return self.macs_per_patch

    def as_json(self) -> dict[str, Any]:
        """Return the network as a JSON document."""
        layers = [
            {
                "name": layer.name,
                "kind": layer.kind,
                "settings": dict(layer.settings),
                "inputs": list(layer.inputs),
                "weights": [list(shape) for shape in shapes],
            }
            for layer, shapes in zip(self.layers, self.shapes, strict=True)
        ]
        fields = {name: getattr(self, name) for name in ("name", "output", "macs_per_patch", "reason")}
        return {**fields, "layers": layers}


def of_model(model: Model, *, name: str, reason: str) -> tuple[LayerGraph, dict[str, np.ndarray]]:
    """Return the graph of a model with one logit, and its weights by ``layer/weight``.

    Raises:
        ModelError: settings or weights that do not fit a layer.
    """
    layers = tuple(dataclasses.replace(layer, weights=()) for layer in model.layers)
    shapes = tuple(tuple(weight.shape for weight in layer.weights) for layer in model.layers)
    built = rebuild.build(backend.keras(), model, where=name)
    graph = LayerGraph(name, layers, model.output, shapes, _macs(built), reason)
    weights = (weight for layer in model.layers for weight in layer.weights)
    return graph, dict(zip(graph.array_shapes, weights, strict=True))


def _macs(built: Any) -> int:
    total = 0
    for layer in built.layers:
        kind = type(layer).__name__
        if kind in rebuild.WITH_KERNEL:
            positions = (layer.input if kind == "Conv2DTranspose" else layer.output).shape[1:-1]
            kernels = [weight.shape for weight in layer.weights if len(weight.shape) in (2, 4)]
            total += math.prod(positions) * sum(math.prod(shape) for shape in kernels)
    return total


def graph_from_json(document: Mapping[str, Any], *, where: Path) -> LayerGraph:
    """Return the network from the document that ``LayerGraph.as_json`` returned.

    Raises:
        ModelError: not such a document, too large sizes, or a layer that is not built in.
    """
    try:
        entries = document["layers"]
        if type(entries) is not list or not 0 < len(entries) <= MOST_LAYERS:
            raise ValueError(f"layers, expected a list of at most {MOST_LAYERS}")
        layers: list[Layer] = []
        shapes: list[tuple[tuple[int, ...], ...]] = []
        for entry in entries:
            expected = {"name": str, "kind": str, "settings": dict[str, Any], "inputs": list[str]}
            known = {layer.name for layer in layers}
            if not all(type(entry[key]) is getattr(kind, "__origin__", kind) for key, kind in expected.items()):
                raise ValueError(f"layer {len(layers)}, wrong types")
            if entry["name"] in known or not known.issuperset(entry["inputs"]):
                raise ValueError(f"layer {entry['name']}, before its inputs or twice")
            if not has_type(entry["weights"], list[list[int]]):
                raise ValueError(f"layer {entry['name']}, weights")
            layers.append(Layer(entry["name"], entry["kind"], entry["settings"], tuple(entry["inputs"]), ()))
            shapes.append(tuple(tuple(shape) for shape in entry["weights"]))
        graph = LayerGraph(
            str(document["name"]),
            tuple(layers),
            str(document["output"]),
            tuple(shapes),
            int(document["macs_per_patch"]),
            str(document["reason"]),
        )
        if graph.output not in {layer.name for layer in layers}:
            raise ValueError(f"no layer {graph.output}, the output")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: not a network of Keras layers ({error})") from error
    rebuild.check_built_in(Model(graph.layers, graph.output), where=str(where))
    if graph.params * 4 > LARGEST_WEIGHTS_BYTES or not SMALLEST_PATCH_PX <= graph.patch_px <= LARGEST_PATCH_PX:
        raise ModelError(f"{where}: {graph.params} parameters, patches of {graph.patch_px} px; out of bounds")
    return graph


def build_graph(graph: LayerGraph, arrays: Mapping[str, np.ndarray], *, where: str) -> Any:
    """Return the Keras 3 model: float32 (N, side, side, 3) pixels in 0..1 -> one logit per patch, in any shape.

    Raises:
        ModelError: weights that are missing or do not fit.
    """
    if missing := sorted(set(graph.array_shapes) - set(arrays)):
        raise ModelError(f"{where}: weights {missing[0]} of network {graph.name} are missing")
    layers = [
        dataclasses.replace(layer, weights=tuple(arrays[f"{place}/{n}"] for n in range(len(shapes))))
        for place, (layer, shapes) in enumerate(zip(graph.layers, graph.shapes, strict=True))
    ]
    return rebuild.build(backend.keras(), Model(tuple(layers), graph.output), where=where)


def predictor(graph: LayerGraph, arrays: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from pixels in 0..1 to logits, float32 (N, 1, 1, 1)."""
    built = build_graph(graph, arrays, where=graph.name)
    return lambda pixels: np.asarray(built.predict_on_batch(pixels)).reshape(-1, 1, 1, 1)
