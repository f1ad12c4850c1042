"""Figures in a few characters."""

from collections.abc import Callable

from histoedge.metrics import Interval


def signed(value: float | None) -> str:
    """Return a difference of AUCs with its sign, four digits and no leading zero: ``-.0003``."""
    return "" if value is None else f"{round(value, 4) + 0.0:+.4f}".replace("0.", ".", 1)


def three(share: float | None) -> str:
    """Return a share with three digits and no leading zero: ``.916``; empty for None."""
    text = "" if share is None else f"{share:.3f}"
    return text[1:] if text.startswith("0.") else text


def brackets(interval: Interval | None, number: Callable[[float], str]) -> str:
    """Return an interval with its numbers written by ``number``: ``.916 [.906 .926]``; empty for None."""
    if interval is None:
        return ""
    return f"{number(interval.value)} [{number(interval.lo)} {number(interval.hi)}]"
