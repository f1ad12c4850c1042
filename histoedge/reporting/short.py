"""Figures in little room."""


def signed(value: float | None) -> str:
    """A difference of AUCs with its sign, four digits, no leading zero: ``-.0003``."""
    return "" if value is None else f"{round(value, 4) + 0.0:+.4f}".replace("0.", ".", 1)


def brackets(value: str, lo: str, hi: str) -> str:
    """``.916 [.906 .926]``: an interval in little room; without bounds the value alone."""
    return f"{value} [{lo} {hi}]" if lo and hi else value


def three(share: float | None) -> str:
    """A share with three digits and no leading zero: ``.916``; empty where not measured."""
    text = "" if share is None else f"{share:.3f}"
    return text[1:] if text.startswith("0.") else text
