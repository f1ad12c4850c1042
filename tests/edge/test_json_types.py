import math
from types import NoneType
from typing import Any

import pytest

from histoedge.edge.json_types import has_type


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, int),
        (1, float),
        (10**400, float),
        (0.5, float | None),
        (None, float | None),
        (None, NoneType),
        (True, bool),
        ([1, 2.5], list[float]),
        ({"a": {"b": 1}}, dict[str, dict[str, float]]),
        ((1, 2), tuple[int, ...]),
        ([], list[str]),
    ],
)
def test_a_value_of_the_type_is_accepted(value: Any, annotation: Any) -> None:
    assert has_type(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1.0, int),
        (True, int),
        (True, float),
        (math.nan, float),
        (-math.inf, float | None),
        ("1", float),
        (None, str),
        ([1, "2"], list[float]),
        ((1,), list[int]),
        ({"a": {"b": "c"}}, dict[str, dict[str, float]]),
        ({"a": 1}, list[int]),
    ],
)
def test_a_value_of_another_type_is_refused(value: Any, annotation: Any) -> None:
    assert not has_type(value, annotation)


def test_the_limit_applies_to_nested_numbers() -> None:
    assert has_type({"a": [9]}, dict[str, list[float]], limit=10)
    assert not has_type({"a": [-10]}, dict[str, list[float]], limit=10)
