"""Argument types of the API, and their conversion."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

Place = str | Path
Places = Place | Sequence[Place]
Names = str | Sequence[str]
Numbers = int | Sequence[int]
Value = TypeVar("Value", str, int, str | Path)


def as_path(place: Place | None) -> Path | None:
    """Return a path; None for None."""
    return None if place is None else Path(place)


def as_tuple(values: Value | Sequence[Value]) -> tuple[Value, ...]:
    """Return one value or a sequence of values as a tuple."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,)  # type: ignore[arg-type]
