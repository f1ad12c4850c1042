"""Write the rows and weights of a network: each row reads values, whose scale, offset and padding it absorbs."""

import dataclasses
from typing import Any

import numpy as np

from histoedge.edge.errors import ModelError
from histoedge.lab import graph
from histoedge.lab.archive import Layer, Model
from histoedge.lab.graph import Row
from histoedge.lab.rebuild import TRAINING_ONLY
from histoedge.lab.weights import Arrays

PIXEL_RANGES = {"0..1": (1.0, 0.0), "0..255": (255.0, 0.0), "-1..1": (2.0, -1.0)}
"""Scale and offset from pixels in 0..1 to the values that a model expects."""


class Untranslatable(ModelError):
    """A layer that the rows of a network cannot express; the message names it."""


@dataclasses.dataclass(frozen=True)
class Value:
    """The output of a layer: the output of a row, times ``scale`` plus ``offset`` per channel, padded.

    ``flat``: flattened from ``px`` x ``px`` positions.
    """

    source: str
    channels: int
    px: int
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    pad: tuple[int, int] = (0, 0)
    flat: bool = False


class RowWriter:
    """Rows and weights of a network, written layer by layer."""

    def __init__(self, model: Model, *, pixels: str, patch_px: int, where: str) -> None:
        self.model, self.patch_px, self.where = model, patch_px, where
        self.rows: dict[str, Row] = {}
        self.arrays: Arrays = {}
        self.values: dict[str, Value] = {}
        self.readers: dict[str, int] = {}
        for layer in model.layers:
            for source in layer.inputs:
                self.readers[source] = self.readers.get(source, 0) + 1
        scale, offset = PIXEL_RANGES[pixels]
        self.pixels = Value(graph.PIXELS, 3, patch_px, np.full(3, scale), np.full(3, offset))
        self.means: set[str] = set()  # rows that are means of windows
        self.final: str | None = None  # activation of the output
        self.owner: dict[str, str] = {}  # row -> the layer whose output is the row's, if only one layer reads it

    def fault(self, layer: Layer, reason: str) -> Untranslatable:
        """Return the error for a layer that no row expresses."""
        return Untranslatable(f"{self.where}: layer {layer.name}: {reason}")

    # ---- rows ----------------------------------------------------------------------------------------------------

    def row(self, layer: Layer, row: Row, read: list[Value], kernel: Any = None, bias: Any = None) -> Value:
        """Add a row that reads these values, and return its output; absorb the scale and offset of its input."""
        name = self._unique(layer.name)
        if row.kind in graph.KERNELS:
            kernel = np.asarray(kernel, np.float64)
            bias = np.zeros(kernel.shape[-1]) if bias is None else np.asarray(bias, np.float64)
            value = read[0]
            if value.scale is not None and value.offset is not None:
                if row.padding == "same" and np.any(value.offset) and row.kernel > 1:
                    read = [self.scaled(layer, value)]  # a border of zeros is not a border of black pixels
                else:
                    by_input = (value.scale, value.offset)
                    scale, offset = by_input if row.kind == "depthwise" else (part[:, None] for part in by_input)
                    kernel, bias = kernel * scale, bias + (kernel * offset).sum(axis=(0, 1, 2))
            self.arrays[f"{name}/kernel"], self.arrays[f"{name}/bias"] = kernel, bias
        elif any(value.scale is not None for value in read):
            read = [self.scaled(layer, value) for value in read]
        if any(value.flat for value in read) and row.kind != "conv":
            raise self.fault(layer, "reads a flattened tensor; only Dense layers can")
        if any(value.pad != (0, 0) for value in read) and row.kind not in ("conv", "depthwise", "maxpool"):
            raise self.fault(layer, "reads a padded tensor; only convolutions and max-pools can")
        inputs = tuple(value.source for value in read)
        first = inputs == (graph.PIXELS,)
        if graph.PIXELS in inputs and (self.rows or not first):
            raise self.fault(layer, "the pixels are read by more than one layer")
        self.rows[name] = dataclasses.replace(row, name=name, inputs=() if first else inputs, norm=False)
        channels = kernel.shape[-1] if row.kind in graph.KERNELS else read[0].channels
        if row.kind == "concat":
            channels = sum(value.channels for value in read)
        self.owner[name] = layer.name
        return Value(name, channels, row.output_px(read[0].px))

    def _unique(self, name: str) -> str:
        plain = name.replace("/", ".")
        number = 1
        while plain in self.rows or plain in (graph.PIXELS, "head", "input", "kernels"):
            number += 1
            plain = f"{name.replace('/', '.')}_{number}"
        return plain

    def scaled(self, layer: Layer, value: Value) -> Value:
        """Add a row that applies the scale and offset of a value."""
        if value.scale is None or value.offset is None:
            return value
        row = Row(kind="depthwise", activation="none", bias=True)
        plain = dataclasses.replace(value, scale=None, offset=None, pad=(0, 0))
        named = dataclasses.replace(layer, name=f"{layer.name}.scale")
        scaled = self.row(named, row, [plain], value.scale[None, None, None], value.offset)
        return dataclasses.replace(scaled, pad=value.pad, flat=value.flat)

    def padding(self, layer: Layer, value: Value, row: Row, *, padding: str) -> tuple[Row, Value]:
        """Return the row with its padding, from its own setting or from a ZeroPadding2D before it."""
        same = dataclasses.replace(row, padding="same")
        if value.pad == (0, 0):
            needed = same.padding_px(value.px) != (0, 0)
            return (same if padding == "same" and needed else row), value
        if padding == "same" or same.padding_px(value.px) != value.pad:
            raise self.fault(layer, f"padding of {value.pad} px differs from Keras' 'same' for {value.px} px")
        return same, dataclasses.replace(value, pad=(0, 0))

    def single(self, layer: Layer, name: str) -> int:
        """Return a setting that must be the same for both sides."""
        value = layer.settings.get(name, 1)
        sides = value if isinstance(value, list) else [value, value]
        if sides[0] != sides[1] or type(sides[0]) is not int:
            raise self.fault(layer, f"{name} is {value}; expected the same for both sides")
        return sides[0]

    def affine(self, layer: Layer, value: Value, scale: Any, offset: Any) -> Value:
        """Return the value times scale plus offset: in the kernel before it, if nothing else reads that, else after."""
        scale, offset = (np.broadcast_to(np.asarray(part, np.float64), (value.channels,)) for part in (scale, offset))
        if value.flat or value.pad != (0, 0):
            raise self.fault(layer, "reads a flattened or padded tensor")
        if self.is_open(layer, value) and self.rows[value.source].kind in graph.KERNELS:
            self.arrays[f"{value.source}/kernel"] = self.arrays[f"{value.source}/kernel"] * scale
            self.arrays[f"{value.source}/bias"] = self.arrays[f"{value.source}/bias"] * scale + offset
            self.owner[value.source] = layer.name
            return value
        if value.scale is not None and value.offset is not None:
            scale, offset = value.scale * scale, value.offset * scale + offset
        affine = dataclasses.replace(value, scale=scale, offset=offset)
        if value.source == graph.PIXELS:
            return affine
        written = self.scaled(layer, affine)
        self.owner[written.source] = layer.name
        return written

    def is_open(self, layer: Layer, value: Value) -> bool:
        """Whether the value's row can still be changed: it has no activation and only this layer reads it."""
        row = self.rows.get(value.source)
        if row is None or value.scale is not None or row.activated_by != "none":
            return False
        owner = self.owner[value.source]
        return self._source(layer) == owner and self.readers.get(owner) == 1 and owner != self.model.output

    def _source(self, layer: Layer) -> str:
        """Return the layer that it reads, beyond layers for training only."""
        layers = {entry.name: entry for entry in self.model.layers}
        name = layer.inputs[0]
        while layers[name].kind in TRAINING_ONLY:
            name = layers[name].inputs[0]
        return name
