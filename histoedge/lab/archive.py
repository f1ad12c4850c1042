"""Read a Keras model from its file as data: layers with their settings, inputs and weights.

Neither Keras nor pickle opens the file: its JSON and its arrays are read, and nothing in them is executed. The loaders
of Keras have executed code from files more than once (CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-9905,
CVE-2025-9906).
"""

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.data import hdf5
from histoedge.edge.errors import ModelError

LARGEST_WEIGHTS_BYTES = 2 << 30
MOST_LAYERS = 2_000
DEEPEST_NESTING = 8
MODELS = ("Sequential", "Functional", "Model")
_INPUT = "InputLayer"


@dataclass(frozen=True)
class Layer:
    """A layer of a Keras model.

    Attributes:
        name: its name, preceded by the names of the models that contain it and ``.``.
        kind: class name, for example ``Conv2D``.
        settings: constructor arguments.
        inputs: names of the layers that it reads, in order; empty for the input.
        weights: arrays in the order of Keras' ``layer.weights``.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]
    weights: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Model:
    """A Keras model: its layers, each after its inputs, and the name of the last one."""

    layers: tuple[Layer, ...]
    output: str


def read_model(path: Path) -> Model:
    """Return the model in a ``.keras`` or whole-model ``.h5`` file.

    Raises:
        ModelError: another kind of file, a corrupt one, one that claims too large sizes, weights that are missing or
            left over, or a model that is not a graph of layers with one input and one output.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a Keras model, .keras or .h5")
    if zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory() as folder:
            config, weights = _from_zip(path, Path(folder))
            with hdf5.opened(weights, error=ModelError) as file:
                arrays = hdf5.read_group(file, "layers", where=path, limit_bytes=LARGEST_WEIGHTS_BYTES)
                if not arrays:  # Keras 2.12 to 2.15
                    arrays = hdf5.read_group(
                        file, "_layer_checkpoint_dependencies", where=path, limit_bytes=LARGEST_WEIGHTS_BYTES
                    )
        return _Reader(path, arrays, by_class=True).model(config)
    with hdf5.opened(path, error=ModelError) as file:
        text = hdf5.read_attribute(file, "model_config", where=path)
        if text is None:
            raise ModelError(
                f"{path}: weights without a model; save the whole model with model.save, or give the network in "
                "[network] of a settings file"
            )
        arrays = hdf5.read_group(file, "model_weights", where=path, limit_bytes=LARGEST_WEIGHTS_BYTES)
    return _Reader(path, arrays, by_class=False).model(_parse(text, path))


def _from_zip(path: Path, folder: Path) -> tuple[Mapping[str, Any], Path]:
    """Return the configuration, and the path of the weights, extracted into the folder."""
    limits = {"config.json": files.LARGEST_JSON_BYTES, "model.weights.h5": LARGEST_WEIGHTS_BYTES}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, limit in limits.items():
                if name not in archive.namelist():
                    raise ModelError(f"{path}: no {name} in this archive; expected a model saved by Keras as .keras")
                if archive.getinfo(name).file_size > limit:
                    raise ModelError(f"{path}: {name} claims {archive.getinfo(name).file_size} bytes, limit {limit}")
                with archive.open(name) as source, open(folder / name, "wb") as target:
                    left = limit
                    while block := source.read(min(1 << 20, left + 1)):  # the claimed size may be wrong
                        left -= len(block)
                        if left < 0:
                            raise ModelError(f"{path}: {name} unpacks to more than {limit} bytes")
                        target.write(block)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ModelError(f"{path}: not a complete archive ({error}); save the model again") from error
    return _parse((folder / "config.json").read_text(errors="replace"), path), folder / "model.weights.h5"


def _parse(text: str, path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the model's configuration is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: the model's configuration is not a JSON object")
    return document


class _Reader:
    """Layers of nested models in one list, with their weights.

    ``by_class``: weights are stored by class name and number (``.keras``), else by layer name (``.h5``).
    """

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray], *, by_class: bool) -> None:
        self.path, self.arrays, self.by_class = path, arrays, by_class
        self.unused = set(arrays)
        self.layers: dict[str, Layer] = {}

    def model(self, document: Mapping[str, Any]) -> Model:
        """Return the model of a configuration."""
        try:
            output = self._add_model(document, prefix="", place="", inputs=None)
        except ModelError as error:
            text = str(error)
            raise ModelError(text if text.startswith(str(self.path)) else f"{self.path}: {text}") from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
            raise ModelError(f"{self.path}: not a configuration of a Keras model ({error!r})") from error
        if self.unused:
            raise ModelError(f"{self.path}: weights without a layer: {', '.join(sorted(self.unused)[:3])}")
        return Model(_sorted(self.layers, output, self.path), output)

    def _add_model(self, document: Mapping[str, Any], *, prefix: str, place: str, inputs: list[str] | None) -> str:
        """Add the layers of a model and return the name of its output."""
        kind = str(document["class_name"])
        if kind not in MODELS:
            raise ModelError(
                f"{self.path}: the model is a {kind}; expected Sequential or Functional: a subclass of Model has its "
                "layers in code, rebuild it with keras.Model(inputs, outputs)"
            )
        if prefix.count(".") > DEEPEST_NESTING:
            raise ModelError(f"{self.path}: models nested more than {DEEPEST_NESTING} deep")
        config = document["config"]
        entries = {str(entry["config"]["name"]): entry for entry in config["layers"]}
        read = {name: self._output_of(entry, prefix, inputs) for name, entry in entries.items()}
        numbers: dict[str, int] = {}
        previous = None if inputs is None else inputs[0]
        for name, entry in entries.items():
            class_name = str(entry["class_name"])
            stored = _numbered(class_name, numbers)
            if class_name == _INPUT and inputs is not None:
                continue
            sources = [read[source] for source in _sources(entry)]
            if kind == "Sequential":
                sources = [] if previous is None else [previous]
            inner = f"{place}{stored if self.by_class else name}"
            if class_name in MODELS:
                deeper = f"{inner}/layers/" if self.by_class else f"{inner}/"
                self._add_model(entry, prefix=f"{prefix}{name}.", place=deeper, inputs=sources)
            else:
                self._add_layer(f"{prefix}{name}", _kind(entry), entry["config"], sources, inner)
            previous = read[name]
        if kind == "Sequential":
            return str(previous)
        (last,) = _references(config["output_layers"])
        _references(config["input_layers"])
        return read[last]

    def _output_of(self, entry: Mapping[str, Any], prefix: str, inputs: list[str] | None) -> str:
        """Return the name of the layer with the output of an entry: itself, or the last layer of a nested model."""
        name = str(entry["config"]["name"])
        if prefix.count(".") > DEEPEST_NESTING:
            raise ModelError(f"{self.path}: models nested more than {DEEPEST_NESTING} deep")
        if entry["class_name"] == _INPUT and inputs is not None:
            return inputs[0]
        if entry["class_name"] not in MODELS:
            return f"{prefix}{name}"
        inner = entry["config"]["layers"]
        last = inner[-1] if entry["class_name"] == "Sequential" else None
        if last is None:
            (output,) = _references(entry["config"]["output_layers"])
            last = next(layer for layer in inner if layer["config"]["name"] == output)
        return self._output_of(last, f"{prefix}{name}.", None)

    def _add_layer(self, name: str, kind: str, settings: Mapping[str, Any], sources: list[str], place: str) -> str:
        if name in self.layers or len(self.layers) >= MOST_LAYERS:
            raise ModelError(f"{self.path}: layer {name} occurs twice, or more than {MOST_LAYERS} layers")
        self.layers[name] = Layer(name, kind, settings, tuple(sources), tuple(self._weights(place)))
        return name

    def _weights(self, place: str) -> Iterator[np.ndarray]:
        if self.by_class:
            keys = [key for key in self.arrays if re.fullmatch(rf"{re.escape(place)}/vars/\d+", key)]
            keys.sort(key=lambda key: int(key.rsplit("/", 1)[1]))
        else:  # model_weights/<outermost>/.../<layer>/<weight>:0
            outer, own = place.split("/")[0], place.rsplit("/", 1)[-1]
            keys = [key for key in self.arrays if key.split("/")[0] == outer and key.split("/")[-2] == own]
            keys.sort(key=lambda key: _ORDER.get(key.rsplit("/", 1)[1].split(":")[0], len(_ORDER)))
        for key in keys:
            self.unused.discard(key)
            yield self.arrays[key]


_WEIGHTS = "depthwise_kernel pointwise_kernel kernel bias gamma beta moving_mean moving_variance mean variance count"
_ORDER = {name: place for place, name in enumerate(_WEIGHTS.split())}


def _kind(entry: Mapping[str, Any]) -> str:
    """Return the class name of a built-in layer, else the name with its package: a custom layer, an operation."""
    class_name, module = str(entry["class_name"]), str(entry.get("module") or "keras.layers")
    registered = str(entry.get("registered_name") or class_name)
    if registered != class_name:
        return registered
    return class_name if module in ("keras", "keras.layers") else f"{module}.{class_name}"


def _numbered(class_name: str, numbers: dict[str, int]) -> str:
    """Return the name of a layer in a ``.keras`` file: its class in snake case, numbered from the second one on."""
    words = re.sub(r"\W+", "", class_name)
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", words)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    numbers[snake] = numbers.get(snake, -1) + 1
    return snake if numbers[snake] == 0 else f"{snake}_{numbers[snake]}"


def _sources(entry: Mapping[str, Any]) -> list[str]:
    """Return the names of the layers that an entry of a Functional configuration reads."""
    nodes = entry.get("inbound_nodes", [])
    if len(nodes) > 1:
        raise ModelError(f"layer {entry['config']['name']} is used {len(nodes)} times; expected once: copy the layer")
    return [] if not nodes else list(_tensors(nodes[0]))


def _tensors(node: Any) -> Iterator[str]:
    """Yield layer names in a node of Keras 3 (``keras_history``) or Keras 2 (``[name, 0, 0, {}]``)."""
    if isinstance(node, Mapping):
        if node.get("class_name") == "__keras_tensor__":
            yield str(node["config"]["keras_history"][0])
        else:
            for key in ("args", "kwargs"):
                yield from _tensors(node.get(key, []) if key == "args" else list(dict(node.get(key, {})).values()))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            yield str(node[0])
        else:
            for item in node:
                yield from _tensors(item)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        raise ModelError(f"a layer reads the constant {node}; put it into a Rescaling layer")


def _references(entry: Any) -> list[str]:
    """Return the layer names of ``input_layers`` or ``output_layers``, which must be exactly one."""
    names = list(_tensors([entry] if entry and isinstance(entry[0], str) else entry))
    if len(names) != 1:
        raise ModelError(f"the model has {len(names)} inputs or outputs ({', '.join(names)}); expected one of each")
    return names


def _sorted(layers: Mapping[str, Layer], output: str, path: Path) -> tuple[Layer, ...]:
    """Return the layers that the output depends on, each after its inputs; a file may list them in another order."""
    needed, pending = {output}, [output]
    while pending:
        new = [source for source in layers[pending.pop()].inputs if source not in needed]
        needed.update(new)
        pending += new
    order: dict[str, Layer] = {}
    while len(order) < len(needed):
        ready = [name for name in layers if name in needed and name not in order]
        ready = [name for name in ready if all(source in order for source in layers[name].inputs)]
        if not ready:
            left = ", ".join(sorted(needed - set(order))[:3])
            raise ModelError(f"{path}: layers that depend on their own output: {left}; the configuration has a cycle")
        order.update((name, layers[name]) for name in ready)
    return tuple(order.values())
