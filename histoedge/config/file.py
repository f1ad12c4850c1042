"""Read settings from a TOML file and from options; check names and types."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from histoedge.config.fields import unknown_name
from histoedge.config.settings import BenchPlan, CompressConfig, TrainConfig
from histoedge.edge.errors import ConfigError

KINDS: dict[str, type] = {"train": TrainConfig, "compress": CompressConfig, "bench": BenchPlan}
"""The settings class of each table of a settings file; ``lab.catalogue`` reads the table ``[network]``."""

TABLES = (*KINDS, "network")

Settings = TypeVar("Settings", TrainConfig, CompressConfig, BenchPlan)


def compress_settings(file: Path | None, *, train_seed: int) -> CompressConfig:
    """Return the settings of the table ``[compress]``; without ``[compress] seed``, the seed is the training's.

    Raises:
        ConfigError: see ``resolve``.
    """
    settings = resolve(CompressConfig, file=file, options={})
    has_seed = file is not None and "seed" in read_toml(file).get("compress", {})
    return settings if has_seed else dataclasses.replace(settings, seed=train_seed)


def resolve(kind: type[Settings], *, file: Path | None = None, options: Mapping[str, Any]) -> Settings:
    """Return settings of this class. Options that are not None override the file; the file overrides the defaults.

    The TOML file contains one table per settings class: ``[train]``, ``[compress]``, ``[bench]``. A table
    ``[network]`` defines the network to train.

    Raises:
        ConfigError: unreadable file, unknown setting, value of the wrong type, or a network in the file that differs
            from the requested one.
    """
    table = next(name for name, settings_class in KINDS.items() if settings_class is kind)
    tables = {} if file is None else read_toml(file)
    values = typed_values(kind, tables.get(table, {}), where=f"{file}: [{table}]")
    values.update({name: value for name, value in options.items() if value is not None})
    file_network = tables.get("network", {}).get("name")
    if kind is TrainConfig and file_network is not None and values.setdefault("network", file_network) != file_network:
        raise ConfigError(
            f"{file}: [network] defines {file_network!r}, but {values['network']!r} is requested; remove one of them"
        )
    return kind(**values)


def typed_values(kind: type, table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the values of a TOML table after a check of each name and type against the fields of a dataclass.

    The type is that of the field's default; a field without a default is a string. A list setting also accepts a
    single value; if its default is an empty list, its values are strings.

    Args:
        kind: the settings dataclass.
        table: the TOML table.
        where: start of each error message, for example the file and the table.

    Raises:
        ConfigError: unknown name, or value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = dict(table)
    for name, value in table.items():
        if name not in fields:
            raise ConfigError(f"{where} {unknown_name('setting', name, fields)}")
        default = "" if fields[name].default is dataclasses.MISSING else fields[name].default
        if isinstance(default, tuple):
            values[name] = value = tuple(value) if isinstance(value, list) else (value,)
            item_type = type(default[0]) if default else str
            if wrong := [item for item in value if type(item) is not item_type]:
                raise ConfigError(f"{where} {name} must contain values of type {item_type.__name__}, got {wrong[0]!r}")
        if isinstance(default, float) and type(value) is int:
            values[name] = value = float(value)
        if type(value) is not type(default):
            raise ConfigError(f"{where} {name} must be of type {type(default).__name__}, got {value!r}")
    return values


def read_toml(file: Path) -> dict[str, Any]:
    """Return the tables of a settings file.

    Raises:
        ConfigError: the file is missing, is not TOML, or contains a table that is not in ``TABLES``.
    """
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such settings file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: not a readable TOML file ({error})") from error
    for name, value in tables.items():
        if name not in TABLES:
            raise ConfigError(f"{file}: {unknown_name('table', name, TABLES)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{file}: {name} must be a table like [{name}], got {value!r}")
    return tables
