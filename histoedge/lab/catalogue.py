"""Networks by name: the built-in networks with their budgets, and the network that a settings file defines."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from histoedge import config, files
from histoedge.config import TrainConfig, unknown_name
from histoedge.edge.errors import ConfigError, ModelError
from histoedge.edge.patches import PATCH_PX
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Kind, Row
from histoedge.lab.layer_graph import LayerGraph


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
        Network(  # too large for edge devices: teacher of the other networks
            "teacher",
            (_conv(32, 4, 2), _conv(64, stride=2), _conv(96), _conv(128, stride=2), _conv(160), _conv(192), _head(6)),
            symmetric=True,
        ),
        # The plain Keras CNN, reference of all comparisons. The 8 x 8 convolution is its "flatten, dense 256".
        # 2,386,817 parameters with batch norm: only the first convolution and the head have a bias.
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
    """Upper limits of a network family: million multiply-accumulates per patch, and kB of the int8 file."""

    mmac: float
    kb: float


BUDGETS = {"nano": Budget(3, 40), "edge": Budget(11, 150), "accurate": Budget(36, 380)}


def training_settings(
    file: Path | None, *, network: str | None, epochs: int | None, seed: int | None
) -> tuple[TrainConfig, Network]:
    """Return the training settings and the network they name; options that are not None override the file.

    Raises:
        ConfigError: see ``config.resolve`` and ``get_network``.
    """
    options = {"network": network, "epochs": epochs, "seed": seed}
    settings = config.resolve(TrainConfig, file=file, options=options)
    return settings, get_network(settings.network, file=file)


def get_network(name: str, *, file: Path | None = None) -> Network:
    """Return the network with this name, from the settings file or else from ``NETWORKS``.

    Raises:
        ConfigError: unknown name (the message suggests the closest one), invalid network in the file, or a network
            with a family's name that exceeds the family's budget.
    """
    network = None if file is None else read_network(file)
    if network is None or network.name != name:
        if name not in NETWORKS:
            raise unknown_name("network", name, NETWORKS)
        network, file = NETWORKS[name], None
    if name in BUDGETS and (message := over_budget(network, name)):
        raise ConfigError(f"{'' if file is None else f'{file}: '}network {name}: {message}")
    return network


def read_network(file: Path) -> Network | None:
    """Return the network in the table ``[network]`` of a settings file, or None without this table.

    Raises:
        ConfigError: the file cannot be read, or its network breaks a rule of ``Row`` or ``Network``.
    """
    table = config.read_toml(file).get("network")
    if table is None:
        return None
    where = f"{file}: [network]"
    keys = tuple(field.name for field in dataclasses.fields(Network))
    for key in table:
        if key not in keys:
            raise ConfigError(f"{where} {unknown_name('key', key, keys)}")
    name, rows, symmetric = table.get("name"), table.get("rows"), table.get("symmetric", False)
    patch_px = table.get("patch_px", PATCH_PX)
    if not isinstance(symmetric, bool):
        raise ConfigError(f"{where} symmetric must be true or false, got {symmetric!r}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"{where} name must consist of letters, digits, '_', '.' and '-', got {name!r}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f'{where} rows must be a list like [{{kind="conv", channels=24}}], got {rows!r}')
    typed = []
    for number, row in enumerate(rows, start=1):
        typed.append(config.typed_values(Row, row, where=f"{where} row {number}:"))
        if row.get("kind") not in get_args(Kind):
            raise ConfigError(f"{where} row {number}: {unknown_name('kind', row.get('kind', ''), get_args(Kind))}")
    if type(patch_px) is not int:
        raise ConfigError(f"{where} patch_px must be a number of pixels, got {patch_px!r}")
    if any(row.get("kind") == "conv" and row.get("channels", 0) % 4 for row in typed):
        raise ConfigError(f"{file}: network {name}: channel counts must be multiples of 4")
    try:
        return Network(name, tuple(Row(**row) for row in typed), symmetric, patch_px)
    except ModelError as error:
        raise ConfigError(f"{file}: {error}") from error


def over_budget(network: Network, family: str) -> str | None:
    """Return an error message if the network exceeds the budget of the family, else None."""
    mmac, kb, budget = network.macs() / 1e6, network.int8_kb, BUDGETS[family]
    if mmac <= budget.mmac and kb <= budget.kb:
        return None
    return f"{mmac:.1f} MMAC and {kb:.0f} kB exceed the budget of {family}, {budget.mmac} MMAC and {budget.kb} kB"


def network_setting_rows() -> list[dict[str, Any]]:
    """Return ``config.setting_rows`` of the table ``[network]`` and of its ``rows``."""
    return config.setting_rows(Network, table="network") + config.setting_rows(Row, table="network.rows")


def write_network(run: Path, network: Network | LayerGraph, settings: Mapping[str, Any]) -> None:
    """Write ``RUN/network.json``: the architecture and the settings of the run."""
    files.write_json(run / "network.json", {"format": 1, "network": network.as_json(), **settings})


def overview(networks: Sequence[Network] = tuple(NETWORKS.values())) -> list[dict[str, Any]]:
    """Return one row per network: name, parameters, MACs, size, stride and receptive field."""
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
