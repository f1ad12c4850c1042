"""The network as data: rows of layers, and what follows from them (stride, window, cost)."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from histoedge.config import meaning, setting
from histoedge.edge.errors import ModelError

PATCH_PX = 96
LABEL_PX = 32


Kind = Literal["conv", "maxpool", "head"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One layer of a network."""

    kind: Kind = dataclasses.field(
        metadata=meaning("conv: convolution, batch norm, ReLU; maxpool; head: the plain last convolution")
    )
    channels: int = setting(0, "output channels, a multiple of 4; 1 of the head, 0 of a maxpool")
    kernel: int = setting(1, "side of the kernel or of the pooled square", unit="px of its input")
    stride: int = setting(1, "step of the kernel; the product of all strides divides 32", unit="px of its input")
    bias: bool = setting(False, "whether the convolution has one, before its batch norm")
    dropout: float = setting(0.0, "share dropped after the row while training")


@dataclasses.dataclass(frozen=True)
class Network:
    """An architecture: the table ``[network]``. See ``lab.symmetry`` for what ``symmetric`` asks for."""

    name: str = dataclasses.field(metadata=meaning("what to call it; named like a family it must keep its budget"))
    rows: tuple[Row, ...] = dataclasses.field(metadata=meaning("its layers, a list of tables; the head is the last"))
    symmetric: bool = setting(False, "trained with the eight orientations of the square built in")

    @property
    def layers(self) -> tuple[tuple[str, Row], ...]:
        """Each row with its layer name: ``stem``, ``conv2`` ..., ``pool3`` ..., ``head``."""
        names = []
        for number, row in enumerate(self.rows, start=1):
            names.append({"conv": f"conv{number}", "maxpool": f"pool{number}", "head": "head"}[row.kind])
        names[0] = "stem"
        return tuple(zip(names, self.rows, strict=True))

    @property
    def convolutions(self) -> tuple[str, ...]:
        """The names of the layers that have a kernel, in order."""
        return tuple(name for name, row in self.layers if row.kind != "maxpool")

    @property
    def prunable(self) -> tuple[str, ...]:
        """The layers that are pruned: every convolution but the stem and those with one output channel."""
        channels = {name: row.channels for name, row in self.layers}
        return tuple(name for name in self.convolutions if name != "stem" and channels[name] > 1)

    @property
    def fours(self) -> tuple[str, ...]:
        """The layers that can hold two zeros in each four consecutive input channels: all but the 3-channel stem."""
        return tuple(name for name, shape in self.kernel_shapes.items() if shape[2] % 4 == 0)

    @property
    def stride_px(self) -> int:
        """Pixels between neighbouring outputs."""
        return math.prod(row.stride for row in self.rows)

    @property
    def receptive_field_px(self) -> int:
        """Side of the square of pixels that one output sees."""
        return reach(self.rows)[0]

    def output_px(self, field_px: int) -> int:
        """How many outputs a field of this side gives along one side (0 when it is too small)."""
        size = field_px
        for row in self.rows:
            size = (size - row.kernel) // row.stride + 1
        return max(size, 0)

    @property
    def params(self) -> int:
        """Parameters of the deployed network: kernels and biases, batch norm folded in."""
        return sum(math.prod(shape) + shape[-1] for shape in self.kernel_shapes.values())

    @property
    def int8_kb(self) -> float:
        """About the size of its int8 TFLite file in kB (1000 bytes), before it is made.

        A byte a weight; 28 an output channel (a bias of 4, and a scale of 4 with a zero point of 8 for kernel and bias
        each); 1000 a row. Files of 37 and 113 kB were within 1 % of it.
        """
        shapes = self.kernel_shapes.values()
        return (sum(math.prod(shape) + 28 * shape[-1] for shape in shapes) + 1000 * len(self.rows)) / 1000

    @property
    def kernel_shapes(self) -> dict[str, tuple[int, int, int, int]]:
        """Kernel shape (height, width, in, out) of every convolution."""
        shapes, channels = {}, 3
        for name, row in self.layers:
            if row.kind != "maxpool":
                shapes[name] = (row.kernel, row.kernel, channels, row.channels)
                channels = row.channels
        return shapes

    def macs(self, field_px: int = PATCH_PX) -> int:
        """Multiply-accumulates for one square field of this side."""
        total, size = 0, field_px
        for name, row in self.layers:
            size = (size - row.kernel) // row.stride + 1
            if row.kind != "maxpool":
                total += size * size * math.prod(self.kernel_shapes[name])
        return total

    def __post_init__(self) -> None:
        if not self.rows or self.rows[-1].kind != "head" or self.rows[-1].channels != 1:
            raise ModelError(f"network {self.name}: the last row must be a head with 1 channel")
        if self.rows[0].kind != "conv" or any(row.kind == "head" for row in self.rows[:-1]):
            raise ModelError(f"network {self.name}: the first row must be a conv, and no row but the last a head")
        if any(row.kind == "conv" and (row.channels < 4 or row.channels % 4) for row in self.rows):
            raise ModelError(f"network {self.name}: channel counts must be multiples of 4")
        if any(not 0 <= row.dropout < 1 for row in self.rows):
            raise ModelError(f"network {self.name}: dropout is a share from 0 to below 1")
        if any(min(row.kernel, row.stride) < 1 or max(row.kernel, row.stride) > PATCH_PX for row in self.rows):
            raise ModelError(f"network {self.name}: kernels and strides must lie in 1..{PATCH_PX}")
        if LABEL_PX % self.stride_px:
            raise ModelError(f"network {self.name}: the total stride {self.stride_px} must divide {LABEL_PX}")
        if self.output_px(PATCH_PX) != 1:
            found = self.output_px(PATCH_PX)
            raise ModelError(f"network {self.name}: a {PATCH_PX} px patch must give one output, not {found} x {found}")

    def as_json(self) -> dict[str, Any]:
        """The network as a JSON document."""
        return dataclasses.asdict(self)


def reach(rows: Sequence[Row]) -> tuple[int, int]:
    """Side in px of the square that one output of these rows sees, and px between neighbouring outputs."""
    field, step = 1, 1
    for row in rows:
        field += (row.kernel - 1) * step
        step *= row.stride
    return field, step


def from_json(document: Mapping[str, Any], *, where: Path) -> Network:
    """The network that ``Network.as_json`` wrote.

    Raises:
        ModelError: not such a document.
    """
    try:
        rows = tuple(Row(**row) for row in document["rows"])
        return Network(document["name"], rows, bool(document.get("symmetric", False)))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: not a network description ({error!r})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a run's small file.

    Raises:
        ModelError: missing or not a JSON object.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; is {path.parent} a run? make one with histoedge train") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document
