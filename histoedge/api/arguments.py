"""What the functions of the API take."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    pass


Place = str | Path
Places = Place | Sequence[Place]
Names = str | Sequence[str]
Numbers = int | Sequence[int]
Value = TypeVar("Value", str, int, str | Path)


def as_path(place: Place | None) -> Path | None:
    """A path, where there is a place."""
    return None if place is None else Path(place)


def as_tuple(given: Value | Sequence[Value]) -> tuple[Value, ...]:
    """One value, or several, as a tuple."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)  # type: ignore[arg-type]
