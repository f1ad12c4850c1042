"""Quantisation-aware networks with the optimisation toolkit, with ranges from data.

The toolkit initialises all ranges to -6 .. 6 and updates activation ranges with a moving average of decay 0.999: after
some hundred steps half of the codes are still unused. Here all ranges are set before fine-tuning and stay fixed:
kernel ranges from the weights, activation ranges from a calibration pass, the minimum of a ReLU exactly 0, the input
exactly 0 .. 1 (its scale is then 1/255, and raw pixels are the quantised input).

On x86 CPUs without VNNI, kernels for uint8 x int8 add two products in 16 bits and can saturate. With kernel codes in
-63 .. 63 they cannot: 2 x 255 x 63 fits into 16 bits. These codes are a 7-bit grid; the alternative is -127 .. 127.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from histoedge.edge.errors import DataError, ModelError
from histoedge.lab import backend, graph, stem, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Node
from histoedge.lab.weights import Arrays

SMALLEST_RANGE = 1e-4  # share of the layer's largest range: a channel of zeros needs a scale, its bias must fit 32 bits
LARGEST_MOVE = 0.05  # share of a range by which a bound may move when the calibration patches are doubled
SIGMOID_RANGE = (0.0, 255 / 256)  # the codes of a sigmoid are fixed in TFLite: scale 1/256
LARGEST_CODES = (63, 127)  # largest kernel code that cannot saturate, and that of the finer grid
KERNEL_CODES = "kernels/range"  # key in a checkpoint's arrays: smallest and largest kernel code

Mark = Callable[[Any], Any]


def wrap(folded: Any, network: Network, *, largest_code: int) -> Any:
    """Return a quantisation-aware copy of a folded ``tf_keras`` model with the same weights; ranges are not set yet."""
    quantization = backend.toolkit().quantization.keras
    with quantization.quantize_scope():
        model = quantization.quantize_apply(quantization.quantize_annotate_model(folded))
    for name in network.convolutions:
        # training derives the kernel ranges from the weights in each step; 7 bits (narrow) give the codes -63 .. 63
        model.get_layer(f"quant_{name}").quantize_config.weight_quantizer.num_bits = largest_code.bit_length() + 1
    return model


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


def kernel_range(kernel: np.ndarray, *, largest_code: int) -> np.ndarray:
    """Return upper bounds (channels,) of symmetric 8-bit ranges; a channel's largest weight has ``largest_code``."""
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    bounds: np.ndarray = np.maximum(largest, SMALLEST_RANGE * (largest.max() or 1.0)) * np.float32(127 / largest_code)
    return bounds


def set_ranges(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the activation ranges of a quantisation-aware model, and the kernel ranges from its current weights."""
    restore_activation_ranges(model, network, arrays)
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        bound = kernel_range(variables["kernel"].numpy(), largest_code=int(arrays[KERNEL_CODES][1]))
        variables["kernel_min"].assign(-bound)
        variables["kernel_max"].assign(bound)


def restore_activation_ranges(model: Any, network: Network, ranges: Mapping[str, np.ndarray]) -> None:
    """Set the activation ranges again: each training step changes them slightly."""
    layers = {name: (model.get_layer(f"quant_{name}"), "post_activation") for name in network.convolutions}
    layers["input"] = (model.layers[1], "quantize_layer")  # the toolkit numbers the name of this layer
    for name, (layer, prefix) in layers.items():
        variables = _variables(layer)
        low, high = ranges[f"{name}/range"]
        variables[f"{prefix}_min"].assign(low)
        variables[f"{prefix}_max"].assign(high)


def project_kernels(model: Any, projections: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Apply ``constraints.projections`` to the kernels."""
    for name, project in projections.items():
        kernel = _variables(model.get_layer(f"quant_{name}"))["kernel"]
        kernel.assign(project(kernel.numpy()))


def quantised_weights(model: Any, network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return kernels and biases of a quantisation-aware model, and the ranges in ``arrays``, for a checkpoint."""
    saved: Arrays = {name: value for name, value in arrays.items() if name.endswith("/range")}
    for name in network.convolutions:
        variables = _variables(model.get_layer(f"quant_{name}"))
        saved[f"{name}/kernel"] = variables["kernel"].numpy()
        saved[f"{name}/bias"] = variables["bias"].numpy()
    return saved


def rounded(kernel: Any, *, largest_code: int, bounds: Any = None) -> Any:
    """Return the kernel rounded to its codes, a float32 tensor; ``bounds`` are those of ``kernel_range`` if known."""
    if bounds is None:
        bounds = kernel_range(kernel, largest_code=largest_code)
    per_channel = backend.tensorflow().quantization.fake_quant_with_min_max_vars_per_channel
    return per_channel(kernel, -bounds, bounds, narrow_range=True)


def keep_in_float(network: Network, ranges: Mapping[str, np.ndarray], layers: Iterable[str]) -> Arrays:
    """Return ``layer/float/range`` for these layers and for the max-pools that pass their outputs on.

    A layer with this key computes in float32, with its kernel as it is. Its output stays float until a layer without
    the key reads it, which first rounds it to the codes of this range.

    Args:
        network: the architecture.
        ranges: ``layer/range`` from ``calibrate``.
        layers: names of layers with kernels.
    """
    kept = set(layers)
    marks: Arrays = {}
    for node in network.nodes:
        if node.name in kept:
            marks[float_key(node.name)] = ranges[f"{node.name}/range"]
        elif node.row.kind == "maxpool" and float_key(node.inputs[0]) in marks:
            marks[float_key(node.name)] = marks[float_key(node.inputs[0])]
    return marks


def float_key(layer: str) -> str:
    """Return the key in a checkpoint's arrays that a layer in float has, see ``keep_in_float``."""
    return f"{layer}/float/range"


def float_layers(network: Network, arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the layers with kernels that compute in float, in order."""
    return tuple(name for name in network.convolutions if float_key(name) in arrays)


def simulate(
    network: Network, arrays: Mapping[str, Any], pixels: Any, *, packed: bool = False, mark: Mark | None = None
) -> Any:
    """Return the logits of the integer network, simulated in floats with rounding.

    Args:
        network: the architecture.
        arrays: from ``quantised_weights``: ``layer/kernel``, ``layer/bias``, ``layer/range`` and ``KERNEL_CODES``, and
            ``keep_in_float`` for layers in float. In training, kernels and biases are variables, and ``layer/bounds``
            are their current ``kernel_range``.
        pixels: tensor float32 (N, H, W, 3) in 0..1.
        packed: compute the first convolution over blocks of pixels (see ``stem``).
        mark: applied to each tensor that passes from integer layers to one in float or back.

    Returns:
        Logits, a float32 tensor (N, h, w, 1).
    """
    if float_key(network.nodes[0].name) not in arrays:
        pixels = _to_codes(pixels, arrays["input/range"])
    tensors = {graph.PIXELS: pixels}
    for node in network.nodes:
        tensors[node.name] = simulate_node(node, arrays, tensors, packed=packed, mark=mark)
    return tensors[network.nodes[-1].name]


def simulate_node(
    node: Node,
    arrays: Mapping[str, Any],
    tensors: Mapping[str, Any],
    *,
    packed: bool = False,
    mark: Mark | None = None,
) -> Any:
    """Return the output of one layer of the integer network; ``tensors`` are the outputs that it reads, by name."""
    tf = backend.tensorflow()
    largest_code = int(arrays[KERNEL_CODES][1])
    name, row = node.name, node.row
    in_float = float_key(name) in arrays
    read = []
    for entry in node.inputs:
        tensor, bounds = tensors[entry], arrays.get(float_key(entry))
        if mark is not None and in_float != (bounds is not None):
            tensor = mark(tensor)
        read.append(tensor if in_float or bounds is None else _to_codes(tensor, bounds))
    if in_float:
        return compute_in_float(node, arrays, read)
    if row.kind in graph.KERNELS:
        kernel, bounds = arrays[f"{name}/kernel"], arrays.get(f"{name}/bounds")
        if packed and name == "stem":
            packed_kernel = rounded(stem.pack(kernel, row.stride, rows=True), largest_code=largest_code)
            sums = tf.nn.conv2d(tf.nn.space_to_depth(read[0], row.stride), packed_kernel, 1, "VALID")
        else:
            sums = convolve(tf, node, read[0], rounded(kernel, largest_code=largest_code, bounds=bounds))
        tensor = sums + arrays[f"{name}/bias"]
    else:
        tensor = combine(tf, node, read)
    if row.kind == "maxpool":  # passes the codes of its input on
        return tensor
    if row.activated_by == "swish":
        tensor = tensor * _to_codes(tf.nn.sigmoid(tensor), SIGMOID_RANGE)
    else:
        tensor = weights.activate(tf.nn, row, tensor)
    return _to_codes(tensor, arrays[f"{name}/range"])


def compute_in_float(node: Node, arrays: Mapping[str, Any], read: Sequence[Any]) -> Any:
    """Return the output of one layer without any rounding; ``read`` are the outputs that it reads."""
    tf = backend.tensorflow()
    if node.row.kind in graph.KERNELS:
        tensor = convolve(tf, node, read[0], arrays[f"{node.name}/kernel"]) + arrays[f"{node.name}/bias"]
    else:
        tensor = combine(tf, node, read)
    return weights.activate(tf.nn, node.row, tensor)


def _to_codes(tensor: Any, bounds: Iterable[float]) -> Any:
    """Return the tensor rounded to the 256 codes of a range."""
    return backend.tensorflow().quantization.fake_quant_with_min_max_vars(tensor, *(float(bound) for bound in bounds))


def convolve(tf: Any, node: Node, tensor: Any, kernel: Any) -> Any:
    """Return the convolution of a conv, depthwise or head row without bias; kernel (height, width, in, out)."""
    row, padding = node.row, node.row.padding.upper()
    if row.kind != "depthwise":
        return tf.nn.conv2d(tensor, kernel, row.stride, padding, dilations=row.dilation)
    shaped = tf.reshape(kernel, (row.kernel, row.kernel, node.channels, 1))
    return tf.nn.depthwise_conv2d(tensor, shaped, (1, row.stride, row.stride, 1), padding)


def combine(tf: Any, node: Node, read: Sequence[Any]) -> Any:
    """Return the output of a row without weights, before its activation."""
    row = node.row
    if row.kind == "add":
        return tf.add_n(list(read)) if len(read) > 2 else read[0] + read[1]
    if row.kind == "concat":
        return tf.concat(list(read), axis=-1)
    if row.kind == "maxpool":
        return tf.nn.max_pool2d(read[0], row.kernel, row.stride, row.padding.upper())
    return tf.nn.avg_pool2d(read[0], row.kernel, row.stride, "VALID") if row.kind == "avgpool" else read[0]


def _variables(layer: Any) -> dict[str, Any]:
    variables = {os.path.basename(variable.name).split(":")[0]: variable for variable in layer.weights}
    return {re.sub(r"^quantize_layer_\d+", "quantize_layer", name): variable for name, variable in variables.items()}
