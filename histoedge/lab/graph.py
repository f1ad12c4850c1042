"""The nodes of a network: what each row reads, and the shape and the receptive field of its output."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from histoedge.config import meaning, setting
from histoedge.edge.errors import ModelError

Kind = Literal["conv", "depthwise", "maxpool", "avgpool", "add", "concat", "activation", "head"]
KERNELS = ("conv", "depthwise", "head")  # kinds with weights
MERGES = ("add", "concat")
ACTIVATIONS = ("none", "relu", "relu6", "sigmoid", "swish", "hard_swish")
FUSED = ("none", "relu", "relu6")  # activations that integer kernels apply to their sums
PADDINGS = ("valid", "same")
PIXELS = "pixels"  # name of the network's input
_PREFIX = {"maxpool": "pool", "avgpool": "pool", "activation": "act"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer of a network. Without ``inputs`` it reads the row before."""

    kind: Kind = dataclasses.field(
        metadata=meaning(
            "conv, depthwise: convolution, batch norm, activation; maxpool, avgpool; add, concat: of the outputs of "
            "inputs; activation; head: last convolution, no batch norm or activation"
        )
    )
    channels: int = setting(0, "output channels of a conv, a multiple of 4; 1 for the head, 0 for other kinds")
    kernel: int = setting(1, "side of the kernel or of the pooling window", unit="px of its input")
    stride: int = setting(1, "stride; 32 must be a multiple of the product of all strides", unit="px of its input")
    bias: bool = setting(False, "add a bias to the convolution before batch norm")
    dropout: float = setting(0.0, "dropout rate after the layer, training only")
    name: str = setting("", "name of the layer; empty: the kind and the number of the row")
    inputs: tuple[str, ...] = setting((), "names of the layers that it reads; empty: the row before")
    activation: str = setting("", f"one of {', '.join(ACTIVATIONS)}; empty: relu for conv and depthwise, else none")
    norm: bool = setting(True, "batch norm after a conv or depthwise convolution")
    padding: str = setting("valid", "valid, or same: zeros around the input, after which only whole patches are exact")
    dilation: int = setting(1, "distance of neighbouring weights of the kernel", unit="px of its input")

    @property
    def activated_by(self) -> str:
        """The activation after the layer, an item of ``ACTIVATIONS``."""
        return self.activation or ("relu" if self.kind in ("conv", "depthwise") else "none")

    @property
    def reach(self) -> int:
        """Side of the window that one output reads, in px of the layer's input: the dilated kernel."""
        return (self.kernel - 1) * self.dilation + 1

    def output_px(self, side: int) -> int:
        """Return the side of the output for an input of this side; below 1 if the input is too small."""
        return -(-side // self.stride) if self.padding == "same" else (side - self.reach) // self.stride + 1

    def padding_px(self, side: int) -> tuple[int, int]:
        """Return the zeros before and after an input of this side: TensorFlow's SAME, more of them after."""
        if self.padding == "valid":
            return 0, 0
        total = max((self.output_px(side) - 1) * self.stride + self.reach - side, 0)
        return total // 2, total - total // 2

    def fault(self, *, largest: int) -> str | None:
        """Return what is wrong with the row by itself, or None; ``largest`` limits kernel and stride."""
        if self.kind not in get_args(Kind):
            return f"unknown kind {self.kind!r}; expected one of {', '.join(get_args(Kind))}"
        if self.padding not in PADDINGS or self.activated_by not in ACTIVATIONS:
            return f"padding must be valid or same, and activation one of {', '.join(ACTIVATIONS)}"
        if self.kind in ("conv", "head") and self.channels < 1:
            return "channels must be at least 1"
        if self.kind in ("conv", "depthwise", "add") and self.activated_by not in FUSED:
            return f"activation {self.activation} requires a row of its own, kind = 'activation'"
        if self.kind in ("maxpool", "avgpool", "concat", "head") and self.activated_by != "none":
            return f"a {self.kind} has no activation; add a row of kind 'activation'"
        if self.kind == "avgpool" and self.padding == "same":
            return "an avgpool has no padding: its border would be the mean of fewer pixels"
        if self.kind == "depthwise" and self.dilation > 1:
            return "a depthwise convolution has no dilation; use a larger kernel with zeros"
        if not 0 <= self.dropout < 1:
            return "dropout must be at least 0 and below 1"
        if min(self.kernel, self.stride, self.dilation) < 1 or max(self.kernel, self.stride) > largest:
            return f"kernels and strides must be in 1..{largest}, dilations at least 1"
        return None


@dataclass(frozen=True)
class Field:
    """The receptive field of the outputs: output i covers ``side`` px from ``first + i * step`` on."""

    first: int = 0
    side: int = 1
    step: int = 1


@dataclass(frozen=True)
class Node:
    """A row in its network.

    Attributes:
        name: name of the layer.
        row: the row.
        inputs: names of the layers that it reads; ``PIXELS`` is the patch.
        in_channels: channels of its input.
        channels: channels of its output.
        in_px: side of its input for one patch.
        out_px: side of its output for one patch.
        field: receptive field of its outputs, padding not subtracted.
    """

    name: str
    row: Row
    inputs: tuple[str, ...]
    in_channels: int
    channels: int
    in_px: int
    out_px: int
    field: Field

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """(height, width, in, out); a depthwise kernel has 1 input channel, as in a grouped convolution."""
        in_channels = 1 if self.row.kind == "depthwise" else self.in_channels
        return self.row.kernel, self.row.kernel, in_channels, self.channels


def nodes(rows: tuple[Row, ...], patch_px: int) -> tuple[Node, ...]:
    """Return the rows as nodes, in their order.

    Raises:
        ModelError: a row is faulty, reads an unknown or later row, or merges outputs of different sizes; the message
            names the row.
    """
    known: dict[str, Node] = {}
    for number, row in enumerate(rows, start=1):
        name = row.name or _default_name(row, number)
        if (fault := row.fault(largest=patch_px)) is not None:
            raise ModelError(f"layer {name}: {fault}")
        if (row.kind == "head") != (name == "head"):
            raise ModelError(f"layer {name}: the head, and no other layer, is named head")
        if name in known or name == PIXELS or "/" in name:
            raise ModelError(f"layer {name}: the name is taken or contains '/'; give the row another name")
        inputs = row.inputs or ((next(reversed(known)),) if known else (PIXELS,))
        unknown = [entry for entry in inputs if entry not in known and (entry != PIXELS or known)]
        if unknown:
            raise ModelError(
                f"layer {name}: reads {unknown[0]!r}, expected an earlier layer ({', '.join(known) or PIXELS}); "
                "only the first layer reads the pixels"
            )
        if (len(inputs) < 2) == (row.kind in MERGES):
            raise ModelError(f"layer {name}: {len(inputs)} inputs; an add or concat has at least two, other kinds one")
        known[name] = _node(name, row, inputs, [known[entry] for entry in inputs if entry != PIXELS], patch_px)
    return tuple(known.values())


def _default_name(row: Row, number: int) -> str:
    if number == 1 and row.kind == "conv":
        return "stem"
    return "head" if row.kind == "head" else f"{_PREFIX.get(row.kind, row.kind)}{number}"


def _node(name: str, row: Row, inputs: tuple[str, ...], read: list[Node], patch_px: int) -> Node:
    sides = [node.out_px for node in read] or [patch_px]
    channels = [node.channels for node in read] or [3]
    fields = [node.field for node in read] or [Field()]
    steps = {field.step for field in fields}
    if len(set(sides)) > 1 or len(steps) > 1 or (row.kind == "add" and len(set(channels)) > 1):
        outputs = zip(inputs, sides, channels, strict=True)
        shapes = ", ".join(f"{entry} {side} x {side} x {count}" for entry, side, count in outputs)
        raise ModelError(f"layer {name}: reads outputs of different shapes or strides: {shapes}")
    in_channels = sum(channels) if row.kind == "concat" else channels[0]
    out_px = row.output_px(sides[0])
    if out_px < 1:
        raise ModelError(f"layer {name}: kernel {row.reach} is larger than its input of {sides[0]} px")
    first = min(field.first for field in fields)
    last = max(field.first + field.side for field in fields)
    (step,) = steps
    field = Field(
        first=first - row.padding_px(sides[0])[0] * step,
        side=last - first + (row.reach - 1) * step,
        step=step * row.stride,
    )
    out_channels = row.channels if row.kind in ("conv", "head") else in_channels
    return Node(name, row, inputs, in_channels, out_channels, sides[0], out_px, field)


def from_output(inputs: Mapping[str, tuple[str, ...]], output: str) -> list[str]:
    """Return the names that ``output`` depends on, each after its inputs, visited from the output in input order.

    Exported files keep this order of their operators' inputs, so kernels can be matched with layers.

    Args:
        inputs: the inputs of each name; names without an entry are left out.
        output: the last name of the result.
    """
    order: dict[str, None] = {}
    pending = [(output, False)]
    while pending:
        name, visited = pending.pop()
        if name in order or name not in inputs:
            continue
        if visited:
            order[name] = None
            continue
        pending.append((name, True))
        pending += [(entry, False) for entry in reversed(inputs[name])]
    return list(order)
