"""The CNNs, as data, and the one function that builds them under any Keras.

Every network is fully convolutional with valid padding and takes float pixels in 0..1 (raw / 255), so a
larger field gives a map whose values equal patch-by-patch prediction.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from histoedge import config, files
from histoedge.config import TrainConfig, meaning, nearest, setting
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import norm

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


def _conv(channels: int, kernel: int = 3, stride: int = 1, **rest: Any) -> Row:
    return Row(kind="conv", channels=channels, kernel=kernel, stride=stride, **rest)


def _pool(dropout: float) -> Row:
    return Row(kind="maxpool", kernel=2, stride=2, dropout=dropout)


def _head(kernel: int) -> Row:
    return Row(kind="head", channels=1, kernel=kernel, bias=True)


NETWORKS = {
    network.name: network
    for network in (
        Network("nano", (_conv(24, 4, 4), _conv(24, 4, 2), _conv(24), _conv(24), _conv(32), _head(5)), True),
        Network("edge", (_conv(24, 8, 4), _conv(32), _conv(48, stride=2), _conv(64), _conv(80), _head(6)), True),
        Network(
            "accurate",
            (_conv(24, 4, 2), _conv(40, stride=2), _conv(64), _conv(96, stride=2), _conv(96), _conv(128), _head(6)),
            symmetric=True,
        ),
        Network(  # not for scanners: it teaches the others
            "teacher",
            (_conv(32, 4, 2), _conv(64, stride=2), _conv(96), _conv(128, stride=2), _conv(160), _conv(192), _head(6)),
            symmetric=True,
        ),
        # The plain Keras CNN every comparison starts from. Its "flatten, dense 256" is the 8 x 8 convolution.
        # 2,386,817 parameters with batch norm: only the first convolution and the head carry a bias.
        Network(
            "baseline",
            (
                *(_conv(32, bias=True), _conv(32), _pool(0.3)),
                *(_conv(64), _conv(64), _pool(0.3)),
                *(_conv(128), _conv(128), _pool(0.3)),
                _conv(256, 8, dropout=0.5),
                _head(1),
            ),
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a network of a family may cost: millions of multiply-accumulates a patch, and kB of its int8 file."""

    mmac: float
    kb: float


BUDGETS = {"nano": Budget(3, 40), "edge": Budget(11, 150), "accurate": Budget(36, 380)}


def over_budget(network: Network, family: str) -> str | None:
    """What the network costs and may cost, where it costs more than its family's budget; None within it."""
    mmac, kb, budget = network.macs() / 1e6, network.int8_kb, BUDGETS[family]
    if mmac <= budget.mmac and kb <= budget.kb:
        return None
    return f"{mmac:.1f} MMAC and {kb:.0f} kB are over the budget of {family}, {budget.mmac} MMAC and {budget.kb} kB"


def named(name: str, *, file: Path | None = None) -> Network:
    """The network of that name: the one in the settings file, else one of ``NETWORKS``.

    Raises:
        ConfigError: no such network, the nearest name is told; a network in the file that is none; one that has a
            family's name and is over its budget.
    """
    network = None if file is None else in_file(file)
    if network is None or network.name != name:
        if name not in NETWORKS:
            raise nearest("network", name, NETWORKS)
        network, file = NETWORKS[name], None
    if name in BUDGETS and (cost := over_budget(network, name)):
        raise ConfigError(f"{'' if file is None else f'{file}: '}network {name}: {cost}")
    return network


def to_train(
    file: Path | None, *, network: str | None, epochs: int | None, seed: int | None
) -> tuple[TrainConfig, Network]:
    """The settings of a training and the network they name, from the settings file and what is not None.

    Raises:
        ConfigError: as ``config.resolve`` and ``named``.
    """
    options = {"network": network, "epochs": epochs, "seed": seed}
    settings = config.resolve(TrainConfig, file=file, options=options)
    return settings, named(settings.network, file=file)


def in_file(file: Path) -> Network | None:
    """The network in the settings file's table ``[network]``: ``name`` and ``rows``; None where there is no such table.

    Raises:
        ConfigError: the file cannot be read, or its network breaks a rule of ``Row`` or ``Network``.
    """
    table = config.read_toml(file).get("network")
    if table is None:
        return None
    where = f"{file}: [network]"
    for key in table:
        if key not in ("name", "rows", "symmetric"):
            raise ConfigError(f"{where} {nearest('key', key, ('name', 'rows', 'symmetric'))}")
    name, rows, symmetric = table.get("name"), table.get("rows"), table.get("symmetric", False)
    if not isinstance(symmetric, bool):
        raise ConfigError(f"{where} symmetric must be true or false, got {symmetric!r}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"{where} name must be a word of letters, digits, '_', '.' and '-', got {name!r}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f'{where} rows must be a list like [{{kind="conv", channels=24}}], got {rows!r}')
    for number, row in enumerate(rows, start=1):
        config.typed(Row, row, where=f"{where} row {number}:")
        if row.get("kind") not in get_args(Kind):
            raise ConfigError(f"{where} row {number}: {nearest('kind of row', row.get('kind', ''), get_args(Kind))}")
    try:
        return Network(name, tuple(Row(**row) for row in rows), symmetric)
    except ModelError as error:
        raise ConfigError(f"{file}: {error}") from error


def settings() -> list[dict[str, Any]]:
    """A row per key of a settings file's table ``[network]`` and of its ``rows``, see ``config.described``."""
    return config.described(Network, table="network") + config.described(Row, table="network.rows")


def build(
    keras: Any,
    network: Network,
    *,
    folded: bool = False,
    field_px: int | None = PATCH_PX,
    convolution: Callable[[Row, str], Any] | None = None,
    blocks: int = 1,
) -> Any:
    """A Keras model of the network: float32 (N, field, field, 3) pixels in 0..1 -> float32 (N, h, w, 1) logits.

    Args:
        keras: the module to build with, Keras 3 or ``tf_keras`` (this one only folded).
        network: the architecture.
        folded: with batch norm folded into the convolutions and no dropout: the form that is deployed.
        field_px: side of the input; None for any.
        convolution: makes the layer of a ``conv`` or ``head`` row that is not folded, in place of a plain one.
        blocks: of channels that share the weights of batch norm.
    """
    layers = keras.layers

    def plain(row: Row, name: str) -> Any:
        # a float32 head whatever the policy: bfloat16 logits would tie patches and cost AUC
        rest: dict[str, Any] = {"dtype": "float32"} if row.kind == "head" else {"use_bias": row.bias}
        return layers.Conv2D(row.channels, row.kernel, row.stride, name=name, **rest)

    made = convolution or plain
    tensor = inputs = keras.Input((field_px, field_px, 3), name="pixels")
    for name, row in network.layers:
        if row.kind == "maxpool":
            tensor = layers.MaxPooling2D(row.kernel, row.stride, name=name)(tensor)
        elif row.kind == "head":
            tensor = made(row, name)(tensor)
        elif folded:
            tensor = layers.Conv2D(row.channels, row.kernel, row.stride, activation="relu", name=name)(tensor)
        else:
            normed = norm.layer(keras, f"{name}_norm", blocks=blocks)(made(row, name)(tensor))
            tensor = layers.Activation("relu", name=f"{name}_relu")(normed)
        if row.dropout and not folded:
            tensor = layers.Dropout(row.dropout, name=f"{name}_dropout")(tensor)
    return keras.Model(inputs, tensor, name=network.name)


Arrays = dict[str, np.ndarray]


def weights_of(model: Any) -> Arrays:
    """All weights of a built model by ``layer/weight`` name (``stem/kernel``, ``stem_norm/gamma``), float32."""
    arrays: Arrays = {}
    for layer in model.layers:
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True):
            arrays[f"{layer.name}/{weight.name.split('/')[-1].split(':')[0]}"] = np.asarray(value)
    return arrays


def set_weights(model: Any, arrays: Mapping[str, np.ndarray], *, where: str) -> None:
    """Put arrays named as by ``weights_of`` into a built model.

    Raises:
        ModelError: a name or a shape that does not fit the network.
    """
    expected = {name: value.shape for name, value in weights_of(model).items()}
    found = {name: arrays[name].shape for name in arrays if name in expected}
    if found != expected:
        wrong = sorted(name for name in expected if found.get(name) != expected[name])
        raise ModelError(f"{where}: weights do not fit the network {model.name}: {', '.join(wrong[:4])}")
    for layer in model.layers:
        prefix = f"{layer.name}/"
        names = [name for name in expected if name.startswith(prefix)]
        if names:
            layer.set_weights([arrays[name] for name in names])


def fold(network: Network, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Kernels and biases of the deployed form: each batch norm folded into the convolution before it.

    With gain ``g = gamma / sqrt(variance + epsilon)`` the kernel becomes ``kernel * g`` and the bias
    ``(bias - mean) * g + beta`` (Jacob et al. 2018, section 3.2). Computed in float64.
    """
    folded: Arrays = {}
    for name in network.convolutions:
        kernel = arrays[f"{name}/kernel"].astype(np.float64)
        bias = np.asarray(arrays.get(f"{name}/bias", np.zeros(kernel.shape[-1])), np.float64)
        if f"{name}_norm/gamma" in arrays:
            found = {key: arrays[f"{name}_norm/{key}"].astype(np.float64) for key in _NORM}
            gain = found["gamma"] / np.sqrt(found["moving_variance"] + norm.EPSILON)
            kernel, bias = kernel * gain, (bias - found["moving_mean"]) * gain + found["beta"]
        folded[f"{name}/kernel"], folded[f"{name}/bias"] = kernel.astype(np.float32), bias.astype(np.float32)
    return folded


_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def zeros(network: Network, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of zeros in the kernel of every prunable layer."""
    return {name: float(np.mean(arrays[f"{name}/kernel"] == 0)) for name in network.prunable}


def write(run: Path, network: Network, settings: Mapping[str, Any]) -> None:
    """Write ``RUN/network.json``: the architecture and the settings that the run holds for."""
    files.write_json(run / "network.json", {"format": 1, "network": network.as_json(), **settings})


def describe(networks: Sequence[Network] = tuple(NETWORKS.values())) -> list[dict[str, Any]]:
    """A row per network: name, params, MACs, stride and receptive field."""
    return [
        {
            "network": network.name,
            "params": network.params,
            "mmac": round(network.macs() / 1e6, 1),
            "int8_kb": round(network.int8_kb, 1),
            "stride_px": network.stride_px,
            "receptive_field_px": network.receptive_field_px,
        }
        for network in networks
    ]
