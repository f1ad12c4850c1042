"""Ranges of activations for integer networks, from calibration patches."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from histoedge.edge.errors import DataError, ModelError
from histoedge.lab import backend, graph, weights
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

LARGEST_MOVE = 0.05  # share of a range by which a bound may move when the calibration patches are doubled
SIGMOID_RANGE = (0.0, 255 / 256)  # the codes of a sigmoid are fixed in TFLite: scale 1/256


def calibrate(
    folded: Any, network: Network, pixels: Iterable[np.ndarray], *, note: Callable[[str], None] | None = None
) -> Arrays:
    """Return the ranges ``layer/range`` of the input and the layers of ``ranges_of``, float32 (minimum, maximum).

    Args:
        folded: a ``tf_keras`` model of the network with batch norm folded in.
        network: the architecture.
        pixels: batches float32 (n, side, side, 3) in 0..1.
        note: called with one line if every other patch alone gives clearly different ranges.

    Raises:
        DataError: all pixels have the same colour.
        ModelError: a layer's outputs are all 0 (its range would have no width) or not finite.
    """
    keras = backend.tf_keras()
    groups = ranges_of(network)
    nodes = [node for node in network.nodes if node.name in groups]
    names = [node.name for node in nodes]
    probe = keras.Model(folded.input, [folded.get_layer(weights.output_layer(folded, node)).output for node in nodes])
    lows: list[np.ndarray] = []  # of each batch (n, layers)
    highs: list[np.ndarray] = []
    colours = []
    for batch in pixels:
        colours += [batch.min(axis=(0, 1, 2)), batch.max(axis=(0, 1, 2))]
        activations = probe.predict_on_batch(batch)
        activations = [activations] if len(names) == 1 else activations
        lows.append(np.stack([activation.min(axis=(1, 2, 3)) for activation in activations], axis=1))
        highs.append(np.stack([activation.max(axis=(1, 2, 3)) for activation in activations], axis=1))
    if np.ptp(colours, axis=0).max() == 0:
        colour = np.round(255 * colours[0]).astype(int).tolist()
        raise DataError(f"calibration: every pixel has the colour {colour}; expected patches of tissue")
    ranges = {"input/range": np.array([0.0, 1.0], np.float32)}
    low_by_patch, high_by_patch = np.concatenate(lows), np.concatenate(highs)
    moves: dict[str, _Move] = {}
    for node in nodes:
        name = node.name
        group = [number for number, other in enumerate(names) if groups[other] == groups[name]]
        low, high = _range(low_by_patch[:, group], high_by_patch[:, group])
        if node.row.activated_by == "sigmoid":
            low, high = SIGMOID_RANGE
        else:
            half = _range(low_by_patch[::2, group], high_by_patch[::2, group])
            moves[name] = _Move((low, high), half)
        if not low < high or not np.isfinite([low, high]).all():
            raise ModelError(
                f"{network.name}: outputs of layer {name} are in {low:g} .. {high:g} on the calibration patches, "
                "expected finite and not all 0; the layer is dead or diverged, train the network again"
            )
        ranges[f"{name}/range"] = np.array([low, high], np.float32)
    _share_steps(network, ranges)
    if note is not None and (line := _unsettled(moves, len(low_by_patch))) is not None:
        note(f"{network.name}: {line}")
    return ranges


def _range(lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """Return the range of all patches and layers, with 0: the converter would shift a range without it."""
    return np.min(lows, initial=0.0), np.max(highs, initial=0.0)  # unlike min() and max(), keep a NaN


@dataclasses.dataclass(frozen=True)
class _Move:
    """The range of a layer on all patches, and on every other patch."""

    whole: tuple[float, float]
    half: tuple[float, float]

    @property
    def share(self) -> float:
        """The larger move of a bound, as a share of the whole range."""
        moved = max(abs(a - b) for a, b in zip(self.whole, self.half, strict=True))
        return moved / (self.whole[1] - self.whole[0])


def _unsettled(moves: Mapping[str, _Move], n_patches: int) -> str | None:
    """Return a line about the layer whose range moves most if that is above ``LARGEST_MOVE``, else None."""
    moving = {name: move for name, move in moves.items() if move.share > LARGEST_MOVE}
    if not moving:
        return None
    name, worst = max(moving.items(), key=lambda item: item[1].share)
    half, whole = (f"{low:.4g} .. {high:.4g}" for low, high in (worst.half, worst.whole))
    return (
        f"the range of layer {name} is {half} on {-(-n_patches // 2)} calibration patches and {whole} on {n_patches}: "
        f"{worst.share:.0%} of it, and above {LARGEST_MOVE:.0%} in {len(moving)} of {len(moves)} layers; "
        "raise calibration_patches or give more images"
    )


def ranges_of(network: Network) -> dict[str, str]:
    """Return the layers with a range of their own, each with the name of its group: layers of a group share a range."""
    groups = _groups(network)
    return {node.name: groups[node.name] for node in network.nodes if node.row.kind != "maxpool"}


def _groups(network: Network) -> dict[str, str]:
    """Return the group of each layer, see ``ranges_of``.

    A max-pool passes the codes of its input on, an average pool rounds to them, and a concat passes those of its inputs
    on, which therefore share its range. The exception are inputs that end with a ReLU, next to others: a range that
    starts below 0 would not apply it.
    """
    groups: dict[str, str] = {}
    positive: dict[str, bool] = {}
    for node in network.nodes:
        name, read = node.name, [entry for entry in node.inputs if entry != graph.PIXELS]
        groups[name] = groups[read[0]] if node.row.kind in ("maxpool", "avgpool") else name
        passes = node.row.kind in ("maxpool", "avgpool", "concat")
        clipped = node.row.activated_by in ("relu", "relu6", "sigmoid")
        positive[name] = all(positive[entry] for entry in read) if passes else clipped
        if node.row.kind == "concat":
            joined = {groups[entry] for entry in read if positive[entry] == positive[name]}
            groups = {entry: name if group in joined else group for entry, group in groups.items()}
    return groups


def _share_steps(network: Network, ranges: Arrays) -> None:
    """Widen the ranges of layers that are added or concatenated, and of the result, to steps of one size between codes.

    The sum of codes is then exact, and a concat shifts codes; with different steps, runtimes round at different places
    and disagree by a code, which grows to several quanta of the logit over ten additions.
    """
    groups = _groups(network)
    sets = {group: group for group in groups.values()}
    for node in network.nodes:
        if node.row.kind in graph.MERGES:
            joined = {sets[groups[name]] for name in (node.name, *node.inputs)}
            sets = {group: node.name if found in joined else found for group, found in sets.items()}
    merged = {sets[groups[node.name]] for node in network.nodes if node.row.kind in graph.MERGES}
    fixed = {node.name for node in network.nodes if node.row.activated_by == "sigmoid"}
    for shared in merged:
        names = [name for name in ranges_of(network) if sets[groups[name]] == shared and name not in fixed]
        step = max(float(np.ptp(ranges[f"{name}/range"])) for name in names) / 255
        for name in names:
            below = np.ceil(-float(ranges[f"{name}/range"][0]) / step - 1e-6) * step
            ranges[f"{name}/range"] = np.array([-below, 255 * step - below], np.float32)
