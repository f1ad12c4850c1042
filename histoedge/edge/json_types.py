"""Type checks of values that were read from JSON."""

import math
from typing import Any, get_args, get_origin


def has_type(value: Any, annotation: Any, *, limit: float = math.inf) -> bool:
    """Whether a value matches an annotation: a plain type, a list, dict or tuple of one type, or a union.

    An int also matches float. A number matches float only if it is finite and its absolute value is below ``limit``.
    A bool matches bool only.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is float:
        return type(value) in (int, float) and abs(value) < limit
    if origin in (list, tuple):
        return type(value) is origin and all(has_type(item, arguments[0], limit=limit) for item in value)
    if origin is dict:
        return type(value) is dict and all(has_type(item, arguments[1], limit=limit) for item in value.values())
    if arguments:  # a union such as float | None
        return any(has_type(value, member, limit=limit) for member in arguments)
    return type(value) is annotation
