"""Plots as data: axes in pixels and the marks that a template writes as inline SVG."""

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
"""After Okabe and Ito 2008, darker: at least 4 to 1 on white."""
DASHES = ("", "7 4")
GRID = "#e6eaef"
LETTER_PX = 6.9  # about the width of a character of 12.5 px, to keep texts apart


@dataclass(frozen=True)
class Mark:
    """One SVG element; ``title`` is what a pointer over it shows."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a dot, filled or not, or a line where ``dash`` is not None."""

    text: str
    colour: str
    filled: bool = True
    dash: str | None = None


@dataclass(frozen=True)
class Figure:
    """A plot of ``width`` x ``height`` pixels, which a page scales; ``label`` is for who cannot see it."""

    title: str
    label: str
    width: float
    height: float
    marks: tuple[Mark, ...]
    legend: tuple[Key, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Scale:
    """From a value, ``lo`` to ``hi``, to pixels, ``start_px`` to ``end_px``."""

    lo: float
    hi: float
    start_px: float
    end_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, that of the nearest end where it lies beyond."""
        lo, hi, at = self.lo, self.hi, min(max(value, self.lo), self.hi)
        share = math.log(at / lo) / math.log(hi / lo) if self.log else (at - lo) / (hi - lo)
        return round(self.start_px + share * (self.end_px - self.start_px), 1)

    def ticks(self, most: int = 8) -> list[float]:
        """Round values within the scale, at most about ``most``."""
        return log_ticks(self.lo, self.hi, most) if self.log else linear_ticks(self.lo, self.hi, most)


@dataclass(frozen=True)
class Axes:
    """Two scales with what is written beside them. The vertical one runs upwards: its ``start_px`` is below."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    x_text: Callable[[float], str] = field(default=lambda value: f"{value:,g}")
    y_text: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    most_ticks: int = 8

    def frame(self, *, horizontal: bool = False) -> list[Mark]:
        """Grid lines, numbers and titles; with ``horizontal`` of the horizontal axis alone."""
        left, right, top, bottom = self.x.start_px, self.x.end_px, self.y.end_px, self.y.start_px
        marks = []
        for value in [] if horizontal else self.y.ticks(self.most_ticks):
            marks.append(line(left, self.y(value), right, self.y(value), GRID))
            marks.append(text(left - 6, self.y(value) + 4, self.y_text(value), "end"))
        for value in self.x.ticks(self.most_ticks):
            marks.append(line(self.x(value), top, self.x(value), bottom, GRID))
            marks.append(text(self.x(value), bottom + 17, self.x_text(value), "middle"))
        if self.x_title:
            marks.append(text((left + right) / 2, bottom + 37, self.x_title, "middle"))
        if self.y_title:
            marks.append(text(2, top - 13, self.y_title))
        return marks


def colour_of(runtime: str) -> str:
    """Of everything that was measured on the runtime."""
    return COLOURS.get(runtime, OTHER_COLOUR)


def curve_style(number: int) -> tuple[str, str]:
    """Colour and dashes of the n-th curve of a plot, all different for 16."""
    return CURVE_COLOURS[number % len(CURVE_COLOURS)], DASHES[number // len(CURVE_COLOURS) % len(DASHES)]


def line(x1: float, y1: float, x2: float, y2: float, colour: str, **more: str | float) -> Mark:
    """A straight line."""
    return Mark("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": colour, **more})


def path(points: Sequence[tuple[float, float]], colour: str, *, width: float = 1.6, dash: str = "") -> Mark:
    """A line through points."""
    through = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashes: dict[str, str | float] = {"stroke-dasharray": dash} if dash else {}
    return Mark("polyline", {"points": through, "fill": "none", "stroke": colour, "stroke-width": width, **dashes})


def dot(x: float, y: float, colour: str, *, filled: bool = True, radius: float = 4.5, title: str = "") -> Mark:
    """A circle, white inside where it is not filled."""
    look: dict[str, str | float] = {"stroke": colour, "stroke-width": 1.8, "fill": colour if filled else "#fff"}
    return Mark("circle", {"cx": x, "cy": y, "r": radius, **look}, title=title)


def text(x: float, y: float, words: str, anchor: str = "start", *, strong: bool = False) -> Mark:
    """Words; ``anchor`` is ``start``, ``middle`` or ``end``, ``strong`` those that name something measured."""
    look: dict[str, str | float] = {"class": "name"} if strong else {}
    if anchor != "start":
        look["text-anchor"] = anchor
    return Mark("text", {"x": x, "y": y, **look}, text=words)


def log_ticks(lo: float, hi: float, most: int = 10) -> list[float]:
    """1, 2 and 5 times powers of ten within the range, fewer where these are many; even steps in a narrow range."""
    decades = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps if lo <= step * 10.0**decade <= hi]
        if len(found) <= most:
            break
    return found if len(found) > 1 else linear_ticks(lo, hi, 5)


def linear_ticks(lo: float, hi: float, most: int = 8) -> list[float]:
    """Round values within the range."""
    raw = (hi - lo) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(lo / step - 1e-9)
    return [round(number * step, digits) for number in range(first, math.floor(hi / step + 1e-9) + 1)]


def placed(
    names: Sequence[tuple[float, float, str]], taken: Sequence[tuple[float, float]], axes: Axes, *, cluster_px: float
) -> list[Mark]:
    """Names beside their points that cover nothing else: one for each cluster, none where none fits.

    Args:
        names: x, y and name of the points to be named, the most important first.
        taken: x, y of all points.
        axes: within which the names must stay.
        cluster_px: points nearer than this in both directions share a name.
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
