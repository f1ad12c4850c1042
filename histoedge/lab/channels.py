"""Channels that can only be removed together, because layers add, join or pass them on.

A depthwise layer, a pool and an activation have the channels of their input, a concat those of all its inputs, and an
add makes channels of different layers one (the dependency graph of Fang et al. 2023, for channels).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from histoedge.lab import graph
from histoedge.lab.architecture import Network


@dataclass(frozen=True)
class Channels:
    """The groups of channels of a network.

    Attributes:
        network: the architecture.
        groups: for each layer and ``graph.PIXELS`` the group of each output channel, int64 (channels,) below ``count``.
        count: an upper limit of the groups.
    """

    network: Network
    groups: dict[str, np.ndarray]
    count: int

    @cached_property
    def blocks(self) -> tuple[np.ndarray, ...]:
        """The groups that may be removed, each block an int64 (n,): those with channels of the same convolutions.

        The channels of the pixels and of the head, and those added to them, are in no block.
        """
        members: dict[int, list[str]] = {}
        for node in self.network.nodes:
            if node.row.kind == "conv":
                for group in self.groups[node.name].tolist():
                    members.setdefault(group, []).append(node.name)
        fixed = {*self.groups[graph.PIXELS].tolist(), *self.groups[self.network.nodes[-1].name].tolist()}
        blocks: dict[tuple[str, ...], list[int]] = {}
        for group, layers in members.items():
            if group not in fixed:
                blocks.setdefault(tuple(layers), []).append(group)
        return tuple(np.array(block) for block in blocks.values())

    def places(self, name: str, removed: np.ndarray) -> np.ndarray:
        """Return the output channels of a layer that are in none of these groups, int64 (n,), in their order."""
        return np.flatnonzero(~np.isin(self.groups[name], removed))


def channels_of(network: Network) -> Channels:
    """Return the groups of channels of a network."""
    same: list[int] = []  # of each channel, an earlier one of its group, or itself

    def fresh(count: int) -> np.ndarray:
        same.extend(range(len(same), len(same) + count))
        return np.arange(len(same) - count, len(same))

    def first(channel: int) -> int:
        while same[channel] != channel:
            channel = same[channel]
        return channel

    outputs = {graph.PIXELS: fresh(3)}
    for node in network.nodes:
        read = [outputs[name] for name in node.inputs]
        if node.row.kind in ("conv", "head"):
            outputs[node.name] = fresh(node.channels)
            continue
        outputs[node.name] = np.concatenate(read) if node.row.kind == "concat" else read[0]
        if node.row.kind == "add":
            for together in zip(*(channels.tolist() for channels in read), strict=True):
                firsts = [first(channel) for channel in together]
                for channel in firsts:
                    same[channel] = min(firsts)
    groups = {name: np.array([first(channel) for channel in entry]) for name, entry in outputs.items()}
    return Channels(network, groups, len(same))
