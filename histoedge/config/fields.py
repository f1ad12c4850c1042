"""A settings class is its own documentation: bounds, meaning and unit stand beside each default."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from histoedge.edge.errors import ConfigError


def nearest(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: it names the nearest one and lists all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"no {kind} is called {name!r}; {hint}known: {', '.join(known)}")


def require(holds: bool, message: str) -> None:
    """Raise ``ConfigError(message)`` unless it holds."""
    if not holds:
        raise ConfigError(message)


def meaning(what: str, *, unit: str = "") -> dict[str, str]:
    """The metadata of a field that a settings file may set: what it means and in which unit it counts."""
    return {"meaning": what, "unit": unit}


def setting(default: Any, what: str, *, unit: str = "") -> Any:
    """A field with this default and ``meaning``."""
    return dataclasses.field(default=default, metadata=meaning(what, unit=unit))


def described(kind: type, *, table: str) -> list[dict[str, Any]]:
    """A row per field of a dataclass of settings: table, key, default (None: there is none), unit, meaning."""
    return [
        {
            "table": table,
            "key": field.name,
            "default": _in_toml(field.default),
            "unit": field.metadata["unit"],
            "meaning": field.metadata["meaning"],
        }
        for field in dataclasses.fields(kind)
    ]


def _in_toml(default: Any) -> Any:
    if default is dataclasses.MISSING:
        return None
    return list(default) if isinstance(default, tuple) else default
