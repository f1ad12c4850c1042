"""A record as the columns of a results file, and back: an interval is a value column and two bound columns."""

import dataclasses
import functools
import typing
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, TypeVar

from histoedge.edge.errors import DataError
from histoedge.edge.json_types import has_type
from histoedge.metrics import Interval

Kinds = tuple[type, ...]
Record = TypeVar("Record")

VALUE_COLUMN = {"auc_slides": "auc", "d_auc_slides": "d_auc"}
"""Intervals that share the value column of another field and add only their two bounds."""


def bound_columns(kind: Any) -> Mapping[str, tuple[str, str]]:
    """Return the bound columns of each interval field: ``auc`` has ``auc_lo`` and ``auc_hi``, ``p50_ms`` ``p50_lo``."""
    stems = {name: name.removesuffix("_ms") for name, kinds in _field_types(kind).items() if Interval in kinds}
    return {name: (f"{stem}_lo", f"{stem}_hi") for name, stem in stems.items()}


def column_types(kind: Any) -> Mapping[str, Kinds]:
    """Return every column of a dataclass with the types of its values, in the order of the fields."""
    bounds, types = bound_columns(kind), dict[str, Kinds]()
    for name, kinds in _field_types(kind).items():
        if name not in bounds:
            types[name] = kinds
            continue
        own = () if name in VALUE_COLUMN else (name,)
        numbers = tuple(float if each is Interval else each for each in kinds)
        types.update(dict.fromkeys((*own, *bounds[name]), numbers))
    return types


def as_columns(record: Any) -> dict[str, Any]:
    """Return the columns of a dataclass with values that JSON can store; nested dataclasses become objects."""
    bounds, values = bound_columns(type(record)), {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name not in bounds:
            values[field.name] = _as_json(value)
            continue
        interval = (None, None, None) if value is None else dataclasses.astuple(value)
        if field.name not in VALUE_COLUMN:
            values[field.name] = interval[0]
        values.update(zip(bounds[field.name], interval[1:], strict=True))
    return values


def from_columns(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Build the record from its columns; a missing column leaves its field at the default.

    Raises:
        DataError: an interval is incomplete.
    """
    any_kind: Any = kind
    fields = {name: values[name] for name in _field_types(any_kind) if name in values}
    for name, (lo, hi) in bound_columns(kind).items():
        value = VALUE_COLUMN.get(name, name)
        fields[name] = _interval(value, lo, hi, values, shared=name in VALUE_COLUMN)
    return kind(**fields)


def check_types(kinds: Mapping[str, Kinds], values: Mapping[str, Any]) -> None:
    """Check the values of these columns; columns without an entry in ``kinds`` are not checked.

    Raises:
        DataError: a value has another type, or is not finite.
    """
    for name, value in values.items():
        if name in kinds and not any(has_type(value, kind) for kind in kinds[name]):
            raise DataError(f"{name} is {str(value)[:40]!r}, expected {_type_names(kinds[name])}")


@functools.cache
def _field_types(kind: Any) -> Mapping[str, Kinds]:
    """Return the types that each field accepts, such as ``p50_ms``: (Interval, NoneType)."""
    return {name: typing.get_args(hint) or (hint,) for name, hint in typing.get_type_hints(kind).items()}


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_columns(value)
    return [_as_json(each) for each in value] if isinstance(value, tuple) else value


def _interval(value: str, lo: str, hi: str, values: Mapping[str, Any], *, shared: bool) -> Interval | None:
    numbers: list[Any] = [values.get(column) for column in (value, lo, hi)]
    if all(number is None for number in (numbers[1:] if shared else numbers)):
        return None
    if None in numbers:
        raise DataError(f"{value}, {lo} and {hi}: expected three numbers or three nulls; measure again")
    return Interval(*numbers)


def _type_names(kinds: Iterable[type]) -> str:
    return " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
