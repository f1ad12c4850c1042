"""Fields of settings classes: each has a default, a meaning and a unit, which ``histoedge list settings`` prints."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from histoedge.edge.errors import ConfigError


def unknown_name(kind: str, name: str, expected: Iterable[str]) -> ConfigError:
    """Return the error for an unknown name; the message suggests the closest valid name and lists all of them."""
    expected = list(expected)
    close = difflib.get_close_matches(name, expected, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"unknown {kind} {name!r}; {hint}expected one of: {', '.join(expected)}")


def require(condition: bool, message: str) -> None:
    """Raise ``ConfigError(message)`` if the condition is false."""
    if not condition:
        raise ConfigError(message)


def meaning(text: str, *, unit: str = "") -> dict[str, str]:
    """Return the metadata of a settings field: its meaning and its unit."""
    return {"meaning": text, "unit": unit}


def setting(default: Any, text: str, *, unit: str = "") -> Any:
    """Return a dataclass field with a default, a meaning and a unit."""
    return dataclasses.field(default=default, metadata=meaning(text, unit=unit))


def setting_rows(kind: type, *, table: str) -> list[dict[str, Any]]:
    """Return one row per field of a settings dataclass: table, key, default (None if required), unit, meaning."""
    return [
        {
            "table": table,
            "key": field.name,
            "default": _toml_value(field.default),
            "unit": field.metadata["unit"],
            "meaning": field.metadata["meaning"],
        }
        for field in dataclasses.fields(kind)
    ]


def _toml_value(default: Any) -> Any:
    if default is dataclasses.MISSING:
        return None
    return list(default) if isinstance(default, tuple) else default
