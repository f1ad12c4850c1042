"""Settings from a TOML file and from options, checked by name and type."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from histoedge.config.fields import nearest
from histoedge.config.settings import BenchPlan, CompressConfig, TrainConfig
from histoedge.edge.errors import ConfigError

KINDS: dict[str, type] = {"train": TrainConfig, "compress": CompressConfig, "bench": BenchPlan}
"""What each table of a settings file holds; ``[network]`` is the lab's."""

Settings = TypeVar("Settings", TrainConfig, CompressConfig, BenchPlan)


def resolve(kind: type[Settings], *, file: Path | None = None, options: Mapping[str, Any]) -> Settings:
    """Settings of this kind: defaults, overridden by the file's table, overridden by options that are not None.

    The TOML file holds one table per kind: ``[train]``, ``[compress]``, ``[bench]``. Where it also holds a
    ``[network]``, that is the network to train.

    Raises:
        ConfigError: the file cannot be read, names a setting that does not exist or has the wrong type, or holds
            another network than the one asked for.
    """
    table = next(name for name, its_kind in KINDS.items() if its_kind is kind)
    tables = {} if file is None else read_toml(file)
    chosen = typed(kind, tables.get(table, {}), where=f"{file}: [{table}]")
    chosen.update({name: value for name, value in options.items() if value is not None})
    own = tables.get("network", {}).get("name")
    if kind is TrainConfig and own is not None and chosen.setdefault("network", own) != own:
        raise ConfigError(
            f"{file}: holds the network {own!r}, but {chosen['network']!r} is asked for; give one of them"
        )
    return kind(**chosen)


def typed(kind: type, given: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The values of a TOML table, each checked to be a field of this dataclass and of its default's type.

    A field without a default is a string. A list may be given as its one value; where its default is empty it holds
    strings.

    Raises:
        ConfigError: an unknown name, or a value of another type; ``where`` begins the line.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    chosen = dict(given)
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(f"{where} {nearest('setting', name, fields)}")
        default = "" if fields[name].default is dataclasses.MISSING else fields[name].default
        if isinstance(default, tuple):
            chosen[name] = value = tuple(value) if isinstance(value, list) else (value,)
            item = type(default[0]) if default else str
            if odd := [one for one in value if type(one) is not item]:
                raise ConfigError(f"{where} {name} must hold values of type {item.__name__}, got {odd[0]!r}")
        if isinstance(default, float) and type(value) is int:
            chosen[name] = value = float(value)
        if type(value) is not type(default):
            raise ConfigError(f"{where} {name} must be of type {type(default).__name__}, got {value!r}")
    return chosen


TABLES = (*KINDS, "network")


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a settings file.

    Raises:
        ConfigError: missing, not TOML, or with a table that is none of ``TABLES``.
    """
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such settings file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: not a readable TOML file ({error})") from error
    for name, value in tables.items():
        if name not in TABLES:
            raise ConfigError(f"{file}: {nearest('table', name, TABLES)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{file}: {name} must be a table like [{name}], got {value!r}")
    return tables
