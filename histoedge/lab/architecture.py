"""Network architectures as data: a list of layers, with the derived stride, receptive field, parameters and MACs."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from histoedge.config import meaning, setting
from histoedge.edge.errors import ModelError
from histoedge.edge.patches import LABEL_PX, PATCH_PX

Kind = Literal["conv", "maxpool", "head"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One layer of a network."""

    kind: Kind = dataclasses.field(
        metadata=meaning("conv: convolution, batch norm, ReLU; maxpool; head: last convolution, no batch norm or ReLU")
    )
    channels: int = setting(0, "output channels, a multiple of 4; 1 for the head, 0 for a maxpool")
    kernel: int = setting(1, "side of the kernel or of the pooling window", unit="px of its input")
    stride: int = setting(1, "stride; 32 must be a multiple of the product of all strides", unit="px of its input")
    bias: bool = setting(False, "add a bias to the convolution before batch norm")
    dropout: float = setting(0.0, "dropout rate after the layer, training only")


@dataclasses.dataclass(frozen=True)
class Network:
    """An architecture: the table ``[network]``. ``lab.symmetry`` lists the requirements of ``symmetric``."""

    name: str = dataclasses.field(metadata=meaning("name; nano, edge and accurate have a budget of MACs and file size"))
    rows: tuple[Row, ...] = dataclasses.field(metadata=meaning("layers, a list of tables; the last is the head"))
    symmetric: bool = setting(False, "equivariant training: the same output for all eight orientations of a patch")

    def __post_init__(self) -> None:
        if not self.rows or self.rows[-1].kind != "head" or self.rows[-1].channels != 1:
            raise ModelError(f"network {self.name}: the last row must be a head with 1 channel")
        if self.rows[0].kind != "conv" or any(row.kind == "head" for row in self.rows[:-1]):
            raise ModelError(f"network {self.name}: the first row must be a conv, and only the last row a head")
        if any(row.kind == "conv" and (row.channels < 4 or row.channels % 4) for row in self.rows):
            raise ModelError(f"network {self.name}: channel counts must be multiples of 4")
        if any(not 0 <= row.dropout < 1 for row in self.rows):
            raise ModelError(f"network {self.name}: dropout must be at least 0 and below 1")
        if any(min(row.kernel, row.stride) < 1 or max(row.kernel, row.stride) > PATCH_PX for row in self.rows):
            raise ModelError(f"network {self.name}: kernels and strides must be in 1..{PATCH_PX}")
        if LABEL_PX % self.stride_px:
            raise ModelError(f"network {self.name}: the total stride {self.stride_px} must divide {LABEL_PX}")
        if (side := self.output_px(PATCH_PX)) != 1:
            raise ModelError(f"network {self.name}: a {PATCH_PX} px patch gives {side} x {side} outputs, expected one")

    @property
    def layers(self) -> tuple[tuple[str, Row], ...]:
        """The rows with their layer names: ``stem``, ``conv2`` ..., ``pool3`` ..., ``head``."""
        names = []
        for number, row in enumerate(self.rows, start=1):
            names.append({"conv": f"conv{number}", "maxpool": f"pool{number}", "head": "head"}[row.kind])
        names[0] = "stem"
        return tuple(zip(names, self.rows, strict=True))

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the layers with a kernel, in order."""
        return tuple(name for name, row in self.layers if row.kind != "maxpool")

    @property
    def prunable(self) -> tuple[str, ...]:
        """Names of the layers that pruning changes: all convolutions except the stem and those with one channel."""
        channels = {name: row.channels for name, row in self.layers}
        return tuple(name for name in self.convolutions if name != "stem" and channels[name] > 1)

    @property
    def prunable_2of4(self) -> tuple[str, ...]:
        """Names of the layers with a multiple of 4 input channels, for 2:4 sparsity: all but the 3-channel stem."""
        return tuple(name for name, shape in self.kernel_shapes.items() if shape[2] % 4 == 0)

    @property
    def stride_px(self) -> int:
        """Distance of neighbouring outputs in px."""
        return math.prod(row.stride for row in self.rows)

    @property
    def receptive_field_px(self) -> int:
        """Side of the receptive field of one output in px."""
        return receptive_field(self.rows)[0]

    def output_px(self, field_px: int) -> int:
        """Return the side of the output for a square input of this side; 0 if the input is too small."""
        size = field_px
        for row in self.rows:
            size = (size - row.kernel) // row.stride + 1
        return max(size, 0)

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
        """Kernel shapes (height, width, in, out) by layer."""
        shapes, channels = {}, 3
        for name, row in self.layers:
            if row.kind != "maxpool":
                shapes[name] = (row.kernel, row.kernel, channels, row.channels)
                channels = row.channels
        return shapes

    def macs(self, field_px: int = PATCH_PX) -> int:
        """Return the number of multiply-accumulates for one square input of this side."""
        total, size = 0, field_px
        for name, row in self.layers:
            size = (size - row.kernel) // row.stride + 1
            if row.kind != "maxpool":
                total += size * size * math.prod(self.kernel_shapes[name])
        return total

    def as_json(self) -> dict[str, Any]:
        """Return the network as a JSON document."""
        return dataclasses.asdict(self)


def receptive_field(rows: Sequence[Row]) -> tuple[int, int]:
    """Return the side of one output's receptive field and the distance of neighbouring outputs, both in px."""
    side, step = 1, 1
    for row in rows:
        side += (row.kernel - 1) * step
        step *= row.stride
    return side, step


def from_json(document: Mapping[str, Any], *, where: Path) -> Network:
    """Return the network from the document that ``Network.as_json`` returned.

    Args:
        document: the JSON document.
        where: the file it comes from, for the error message.

    Raises:
        ModelError: not a network description.
    """
    try:
        rows = tuple(Row(**row) for row in document["rows"])
        return Network(document["name"], rows, bool(document.get("symmetric", False)))
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
