"""Plots as data: axes in pixels, and marks that the template writes as inline SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

COLOURS = {
    "litert": "#0a6c74",
    "litert-builtin": "#4d9aa0",
    "onnxruntime": "#b4501e",
    "onnxruntime-cuda": "#a87800",
    "onnxruntime-tensorrt": "#7a5c2e",
    "openvino": "#5b4a9e",
    "keras": "#3d4450",
}
OTHER_COLOUR = "#7a1f4d"
CURVE_COLOURS = ("#1d6fb8", "#c2500f", "#0a8060", "#a8408a", "#8a6a00", "#5b4a9e", "#3d4450", "#b02a37")
"""After Okabe and Ito 2008, darker: a contrast of at least 4 to 1 on white."""
DASHES = ("", "7 4")
GRID = "#e6eaef"
LETTER_PX = 6.9  # approximate width of a character of 12.5 px, to avoid overlapping texts


@dataclass(frozen=True)
class Mark:
    """One SVG element; ``title`` is its tooltip."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a dot, filled or not, or a line if ``dash`` is not None."""

    text: str
    colour: str
    filled: bool = True
    dash: str | None = None


@dataclass(frozen=True)
class Figure:
    """A plot of ``width`` x ``height`` pixels, scaled by the page; ``label`` is for screen readers."""

    title: str
    label: str
    width: float
    height: float
    marks: tuple[Mark, ...]
    legend: tuple[Key, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Scale:
    """Mapping of values from ``lo`` to ``hi`` to pixels from ``start_px`` to ``end_px``."""

    lo: float
    hi: float
    start_px: float
    end_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside the scale are moved to its nearest end."""
        lo, hi, inside = self.lo, self.hi, min(max(value, self.lo), self.hi)
        share = math.log(inside / lo) / math.log(hi / lo) if self.log else (inside - lo) / (hi - lo)
        return round(self.start_px + share * (self.end_px - self.start_px), 1)

    def ticks(self, max_ticks: int = 8) -> list[float]:
        """Return round values within the scale, about ``max_ticks`` at most."""
        return log_ticks(self.lo, self.hi, max_ticks) if self.log else linear_ticks(self.lo, self.hi, max_ticks)


@dataclass(frozen=True)
class Axes:
    """Two scales with titles and tick labels. The vertical scale runs upwards: its ``start_px`` is at the bottom."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    x_text: Callable[[float], str] = field(default=lambda value: f"{value:,g}")
    y_text: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    max_ticks: int = 8

    def frame(self, *, horizontal: bool = False) -> list[Mark]:
        """Return grid lines, numbers and titles; with ``horizontal`` only those of the horizontal axis."""
        left, right, top, bottom = self.x.start_px, self.x.end_px, self.y.end_px, self.y.start_px
        marks = []
        for value in [] if horizontal else self.y.ticks(self.max_ticks):
            marks.append(line(left, self.y(value), right, self.y(value), GRID))
            marks.append(text(left - 6, self.y(value) + 4, self.y_text(value), "end"))
        for value in self.x.ticks(self.max_ticks):
            marks.append(line(self.x(value), top, self.x(value), bottom, GRID))
            marks.append(text(self.x(value), bottom + 17, self.x_text(value), "middle"))
        if self.x_title:
            marks.append(text((left + right) / 2, bottom + 37, self.x_title, "middle"))
        if self.y_title:
            marks.append(text(2, top - 13, self.y_title))
        return marks


def colour_of(runtime: str) -> str:
    """Return the colour of a runtime."""
    return COLOURS.get(runtime, OTHER_COLOUR)


def curve_style(number: int) -> tuple[str, str]:
    """Return colour and dashes of the n-th curve of a plot; the first 16 are distinct."""
    return CURVE_COLOURS[number % len(CURVE_COLOURS)], DASHES[number // len(CURVE_COLOURS) % len(DASHES)]


def line(x1: float, y1: float, x2: float, y2: float, colour: str, **more: str | float) -> Mark:
    """Return a straight line."""
    return Mark("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": colour, **more})


def path(points: Sequence[tuple[float, float]], colour: str, *, width: float = 1.6, dash: str = "") -> Mark:
    """Return a line through points."""
    through = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashes: dict[str, str | float] = {"stroke-dasharray": dash} if dash else {}
    return Mark("polyline", {"points": through, "fill": "none", "stroke": colour, "stroke-width": width, **dashes})


def dot(x: float, y: float, colour: str, *, filled: bool = True, radius: float = 4.5, title: str = "") -> Mark:
    """Return a circle; white inside if not filled."""
    look: dict[str, str | float] = {"stroke": colour, "stroke-width": 1.8, "fill": colour if filled else "#fff"}
    return Mark("circle", {"cx": x, "cy": y, "r": radius, **look}, title=title)


def text(x: float, y: float, content: str, anchor: str = "start", *, strong: bool = False) -> Mark:
    """Return text; ``anchor`` is ``start``, ``middle`` or ``end``; ``strong`` for names of files and layers."""
    look: dict[str, str | float] = {"class": "name"} if strong else {}
    if anchor != "start":
        look["text-anchor"] = anchor
    return Mark("text", {"x": x, "y": y, **look}, text=content)


def log_ticks(lo: float, hi: float, max_ticks: int = 10) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within the range, or fewer; even steps in a narrow range."""
    decades = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if lo <= step * 10.0**decade <= hi]
        if len(ticks) <= max_ticks:
            break
    return ticks if len(ticks) > 1 else linear_ticks(lo, hi, 5)


def linear_ticks(lo: float, hi: float, max_ticks: int = 8) -> list[float]:
    """Return round values within the range."""
    raw = (hi - lo) / max_ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(lo / step - 1e-9)
    return [round(number * step, digits) for number in range(first, math.floor(hi / step + 1e-9) + 1)]


def placed(
    names: Sequence[tuple[float, float, str]], taken: Sequence[tuple[float, float]], axes: Axes, *, cluster_px: float
) -> list[Mark]:
    """Return names next to their points without overlaps: at most one for each cluster of points.

    Args:
        names: x, y and name of points, the most important first.
        taken: x, y of all points.
        axes: the area for the names.
        cluster_px: points closer than this in both directions share a name.
    """
    boxes = [(x - 5, y - 5, x + 5, y + 5) for x, y in taken]
    marks: list[Mark] = []
    named: list[tuple[float, float]] = []
    for x, y, name in names:
        if any(abs(x - other_x) < cluster_px and abs(y - other_y) < cluster_px for other_x, other_y in named):
            continue
        length = LETTER_PX * len(name)
        for side, drop in ((1, -7), (-1, -7), (1, 15), (-1, 15), (1, -21), (-1, -21), (1, 29), (-1, 29)):
            left = x + 7 if side > 0 else x - 7 - length
            box = (left, y + drop - 10, left + length, y + drop + 3)
            inside = box[0] > axes.x.start_px and box[2] < axes.x.end_px + 6
            inside = inside and box[1] > axes.y.end_px - 8 and box[3] < axes.y.start_px
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                named.append((x, y))
                marks.append(text(round(x + 7 * side, 1), y + drop, name, "start" if side > 0 else "end", strong=True))
                break
    return marks


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
