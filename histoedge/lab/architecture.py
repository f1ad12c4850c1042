"""Network architectures as data: layers that read earlier layers, and the derived stride, parameters and MACs."""

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from histoedge.config import meaning, setting
from histoedge.edge.errors import ModelError
from histoedge.edge.patches import LABEL_PX, LARGEST_PATCH_PX, PATCH_PX, SMALLEST_PATCH_PX
from histoedge.lab import graph, layer_graph
from histoedge.lab.graph import KERNELS, Node, Row
from histoedge.lab.layer_graph import LayerGraph

_FIRST_FIELDS = ("kind", "channels", "kernel", "stride", "bias", "dropout")  # of the first version: always in as_json


@dataclasses.dataclass(frozen=True)
class Network:
    """An architecture: the table ``[network]``. ``lab.symmetry`` lists the requirements of ``symmetric``."""

    name: str = dataclasses.field(metadata=meaning("name; nano, edge and accurate have a budget of MACs and file size"))
    rows: tuple[Row, ...] = dataclasses.field(metadata=meaning("layers, a list of tables; the last is the head"))
    symmetric: bool = setting(False, "equivariant training: the same output for all eight orientations of a patch")
    patch_px: int = setting(PATCH_PX, "side of a patch, for which the network has one output", unit="px")

    def __post_init__(self) -> None:
        where = f"network {self.name}:"
        if not self.rows or self.rows[-1].kind != "head" or self.rows[-1].channels != 1:
            raise ModelError(f"{where} the last row must be a head with 1 channel")
        if self.rows[0].kind not in ("conv", "depthwise") or any(row.kind == "head" for row in self.rows[:-1]):
            raise ModelError(f"{where} the first row must be a conv or depthwise, and only the last row a head")
        if not SMALLEST_PATCH_PX <= self.patch_px <= LARGEST_PATCH_PX:
            raise ModelError(f"{where} patch_px is {self.patch_px}, expected {SMALLEST_PATCH_PX} to {LARGEST_PATCH_PX}")
        try:
            nodes = self.nodes
        except ModelError as error:
            raise ModelError(f"{where} {error}") from None
        read = {name for node in nodes for name in node.inputs}
        if unread := [node.name for node in nodes[:-1] if node.name not in read]:
            raise ModelError(f"{where} no layer reads {unread[0]}")
        if self.dense and LABEL_PX % self.stride_px:
            raise ModelError(f"{where} the total stride {self.stride_px} must divide {LABEL_PX}")
        if (side := nodes[-1].out_px) != 1:
            raise ModelError(
                f"{where} a {self.patch_px} px patch gives {side} x {side} outputs, expected one; "
                f"change the kernel of the head to cover its input of {nodes[-1].in_px} px"
            )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The rows with names, inputs, shapes and receptive fields, see ``graph.nodes``."""
        return graph.nodes(self.rows, self.patch_px)

    @property
    def title(self) -> str:
        """What manifests call the network."""
        return self.name

    def from_output(self) -> list[Node]:
        """Return the nodes in the order of ``graph.from_output``."""
        nodes = {node.name: node for node in self.nodes}
        order = graph.from_output({name: node.inputs for name, node in nodes.items()}, self.nodes[-1].name)
        return [nodes[name] for name in order]

    @property
    def layers(self) -> tuple[tuple[str, Row], ...]:
        """The rows with their layer names: ``stem``, ``conv2`` ..., ``pool3`` ..., ``head``."""
        return tuple((node.name, node.row) for node in self.nodes)

    @property
    def dense(self) -> bool:
        """Whether a field has the same values as its patches: no layer pads its input."""
        return all(row.padding == "valid" for row in self.rows)

    @property
    def plain(self) -> bool:
        """Whether it is a chain of valid convolutions, ReLU and max-pools, which the optimisation toolkit quantises."""
        return self.dense and all(
            row.kind in ("conv", "maxpool", "head")
            and row.dilation == 1
            and row.activated_by == ("relu" if row.kind == "conv" else "none")
            and node.inputs == (previous,)
            for node, row, previous in zip(
                self.nodes, self.rows, [graph.PIXELS, *(node.name for node in self.nodes)], strict=False
            )
        )

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the layers with a kernel, in order."""
        return tuple(node.name for node in self.nodes if node.row.kind in KERNELS)

    @property
    def prunable(self) -> tuple[str, ...]:
        """Names of the layers that pruning changes: not the first conv, depthwise ones, those of one channel."""
        others = [node for node in self.nodes if node.row.kind in ("conv", "head")][1:]
        return tuple(node.name for node in others if node.channels > 1)

    @property
    def prunable_2of4(self) -> tuple[str, ...]:
        """Names of the layers with a multiple of 4 input channels, for 2:4 sparsity; depthwise ones have one."""
        return tuple(name for name, shape in self.kernel_shapes.items() if shape[2] % 4 == 0)

    @property
    def stride_px(self) -> int:
        """Distance of neighbouring outputs in px."""
        return self.nodes[-1].field.step

    @property
    def receptive_field_px(self) -> int:
        """Side of the receptive field of one output in px, at most a patch."""
        return min(self.nodes[-1].field.side, self.patch_px)

    def output_px(self, field_px: int) -> int:
        """Return the side of the output for a square input of this side; 0 if the input is too small."""
        return max(self._sides(field_px)[self.nodes[-1].name], 0)

    def _sides(self, field_px: int) -> dict[str, int]:
        """Return the side of each layer's output for a square input of this side."""
        sides = {graph.PIXELS: field_px}
        for node in self.nodes:
            sides[node.name] = node.row.output_px(sides[node.inputs[0]])
        return sides

    @property
    def params(self) -> int:
        """Number of parameters of the deployed network: kernels and biases, batch norm folded in."""
        return sum(math.prod(shape) + shape[-1] for shape in self.kernel_shapes.values())

    @property
    def int8_kb(self) -> float:
        """Estimated size of the int8 TFLite file in kB (1000 bytes).

        One byte per weight; 28 per output channel (bias 4; scale 4 and zero point 8, for kernel and for bias); 1000
        per row. For files of 37 and 113 kB the estimate was within 1 %.
        """
        shapes = self.kernel_shapes.values()
        return (sum(math.prod(shape) + 28 * shape[-1] for shape in shapes) + 1000 * len(self.rows)) / 1000

    @property
    def kernel_shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Kernel shapes (height, width, in, out) by layer; ``in`` is 1 for depthwise kernels."""
        return {node.name: node.kernel_shape for node in self.nodes if node.row.kind in KERNELS}

    @property
    def array_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays that each checkpoint of the network contains, by ``layer/weight``."""
        return {f"{name}/kernel": shape for name, shape in self.kernel_shapes.items()}

    def macs(self, field_px: int | None = None) -> int:
        """Return the number of multiply-accumulates for one square input of this side; default: a patch."""
        sides = self._sides(field_px or self.patch_px)
        return sum(sides[name] ** 2 * math.prod(shape) for name, shape in self.kernel_shapes.items())

    def as_json(self) -> dict[str, Any]:
        """Return the network as a JSON document; fields that a later version added are left out at their defaults."""
        document = dataclasses.asdict(self)
        defaults = {field.name: field.default for field in dataclasses.fields(Row)}
        document["rows"] = tuple(
            {key: value for key, value in row.items() if key in _FIRST_FIELDS or value != defaults[key]}
            for row in document["rows"]
        )
        if self.patch_px == PATCH_PX:
            del document["patch_px"]
        return document


def from_json(document: Mapping[str, Any], *, where: Path) -> Network | LayerGraph:
    """Return the network from the document that ``as_json`` returned: of rows, or of Keras layers.

    Args:
        document: the JSON document.
        where: the file it comes from, for the error message.

    Raises:
        ModelError: not a network description.
    """
    if "layers" in document:
        return layer_graph.graph_from_json(document, where=where)
    try:
        rows = tuple(Row(**{**row, "inputs": tuple(row.get("inputs", ()))}) for row in document["rows"])
        return Network(
            document["name"], rows, bool(document.get("symmetric", False)), int(document.get("patch_px", PATCH_PX))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: not a network description ({error!r})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run.

    Raises:
        ModelError: the file is missing or is not a JSON object.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; expected a run, create one with histoedge train") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document
