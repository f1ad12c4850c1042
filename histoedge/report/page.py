"""The HTML page: one file, no request to anywhere, the plot as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from histoedge.bench import Measurement, Results
from histoedge.report import tables

WIDTH, HEIGHT = 900, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 16, 54
LETTER_PX = 7.4  # about the width of a character of the labels, to keep them apart
CLUSTER_PX = 30
COLOURS = {"litert": "#0a6c74", "onnxruntime": "#b4501e", "openvino": "#5b4a9e", "keras": "#3d4450"}
OTHER_COLOUR = "#7a1f4d"


@dataclass(frozen=True)
class Point:
    """A measured cell in the plot, in pixels of the drawing."""

    x: float
    y: float
    x_lo: float
    x_hi: float
    y_lo: float
    y_hi: float
    colour: str
    filled: bool
    title: str


@dataclass(frozen=True)
class Label:
    """A name beside a point."""

    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True)
class Plot:
    """AUC against p50: what the template draws."""

    points: tuple[Point, ...]
    labels: tuple[Label, ...]
    front: str
    """The Pareto front as the points of a polyline."""
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    legend: tuple[tuple[str, str], ...]
    """Runtime and its colour."""


def html(results: Results) -> str:
    """One self-contained page that opens offline: the plot, the table, the environment, how to read it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("histoedge.report").joinpath("page.html.j2").read_text())
    rows = results.measurements
    measured = [row for row in rows if row.measured]
    return template.render(
        rows=[_table_row(row) for row in rows],
        operating=tables.has_operating_figures(results),
        threads_vary=len({row.threads for row in rows}) > 1,
        tiles=_tiles(measured, rows),
        plot=_plot(measured),
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        notes=tables.notes(results),
        environment=_environment(results.environment),
        plan=results.inputs.get("plan") if isinstance(results.inputs.get("plan"), dict) else {},
        data=str(results.inputs.get("data", "")),
    )


def _tiles(measured: Sequence[Measurement], rows: Sequence[Measurement]) -> list[tuple[str, str, str]]:
    """Label, figure, detail of what to see first."""
    others = len(rows) - len(measured)
    tiles = [("Cells measured", str(len(measured)), f"{others} failed or unavailable" if others else "all of them")]
    speeds = [(row.p50_ms, row) for row in measured if row.p50_ms is not None]
    if speeds:
        ms, fastest = min(speeds, key=lambda pair: pair[0])
        tiles.append(("Fastest p50", f"{tables.micros(ms)} µs", f"{fastest.model} @ {fastest.runtime}"))
    ratios = [(row.p50_ratio, row) for row in measured if row.p50_ratio is not None]
    if ratios:
        ratio, best = min(ratios, key=lambda pair: pair[0])
        tiles.append(("Shortest against fp32", f"{ratio:.2f} ×", f"{best.model} @ {best.runtime}"))
    areas = [(row.auc, row) for row in measured if row.auc is not None]
    if areas:
        area, best = max(areas, key=lambda pair: pair[0])
        tiles.append(("Highest AUC", f"{area:.4f}", f"{best.model}, {best.n_patches or 0:,} test patches"))
    return tiles


def _table_row(row: Measurement) -> dict[str, Any]:
    return {
        "model": row.model,
        "runtime": row.runtime,
        "path": ", ".join(text for text in (row.runtime_version, row.kernels) if text),
        "colour": _colour(row.runtime),
        "threads": row.threads,
        "status": row.status,
        "reason": row.reason or "",
        "measured": row.measured,
        "size": tables.kilobytes(row.size_bytes),
        "compressed": _compressed(row),
        "p50": tables.micros(row.p50_ms),
        "p50_interval": _between(tables.micros(row.p50_lo), tables.micros(row.p50_hi)),
        "p90": tables.micros(row.p90_ms),
        "p99": tables.micros(row.p99_ms),
        "ratio": "" if row.p50_ratio is None else f"{row.p50_ratio:.3f}",
        "ratio_interval": _between(_fixed(row.p50_ratio_lo, 3), _fixed(row.p50_ratio_hi, 3)),
        "rate": tables.per_second(row),
        "load": "" if row.load_ms is None else f"{row.load_ms:,.1f}",
        "first": "" if row.first_ms is None else f"{row.first_ms:,.2f}",
        "memory": "" if row.peak_rss_bytes is None else f"{row.peak_rss_bytes / 1e6:,.0f}",
        "auc": _fixed(row.auc, 4),
        "auc_interval": _between(_fixed(row.auc_lo, 4), _fixed(row.auc_hi, 4)),
        "ece": _fixed(row.ece, 4),
        "sensitivity": _fixed(row.sensitivity_at_95_specificity, 3),
        "sensitivity_interval": _between(
            _fixed(row.sensitivity_at_95_specificity_lo, 3), _fixed(row.sensitivity_at_95_specificity_hi, 3)
        ),
        "d_auc": _fixed(row.d_auc, 4, sign="+"),
        "d_auc_interval": _between(_fixed(row.d_auc_lo, 4, sign="+"), _fixed(row.d_auc_hi, 4, sign="+")),
    }


def _compressed(row: Measurement) -> str:
    zeros = "" if row.zeros is None else f", {row.zeros:.0%} zeros"
    return "" if row.compressed_bytes is None else f"{tables.kilobytes(row.compressed_bytes)} zlib{zeros}"


def _fixed(value: float | None, digits: int, *, sign: str = "") -> str:
    return "" if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no minus before a zero


def _between(lo: str, hi: str) -> str:
    return f"{lo} … {hi}" if lo and hi else ""


def _colour(runtime: str) -> str:
    return COLOURS.get(runtime, OTHER_COLOUR)


def _environment(found: dict[str, Any]) -> list[tuple[str, str]]:
    words = {
        "cpu": "CPU",
        "cpu_flags": "CPU flags",
        "cpus_in_machine": "CPUs in the machine",
        "cpus_allowed": "CPUs allowed",
        "cpu_quota": "CPU quota",
        "cpu_governor": "CPU governor",
        "memory_bytes": "Memory",
        "memory_limit_bytes": "Memory limit",
        "machine": "Architecture",
        "system": "System",
        "python": "Python",
        "histoedge": "histoedge",
        "packages": "Packages",
        "load_average": "Load average (1, 5, 15 min, when written)",
    }
    return [(word, _spoken(key, found[key])) for key, word in words.items() if found.get(key) not in (None, [], {})]


def _spoken(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return str(value)


def _plot(measured: Sequence[Measurement]) -> Plot | None:
    """The plot of all cells that have both figures; None where there is none."""
    rows = [row for row in measured if row.p50_ms and row.auc is not None]
    if not rows:
        return None
    times = [ms for row in rows for ms in (row.p50_lo, row.p50_ms, row.p50_hi) if ms]
    areas = [area for row in rows for area in (row.auc_lo, row.auc, row.auc_hi) if area is not None]
    x_lo, x_hi = math.log10(min(times)) - 0.06, math.log10(max(times)) + 0.06
    margin = max(0.04 * (max(areas) - min(areas)), 1e-4)
    y_lo, y_hi = min(areas) - margin, max(areas) + margin

    def x(ms: float) -> float:
        return round(LEFT + (math.log10(ms) - x_lo) / (x_hi - x_lo) * (WIDTH - LEFT - RIGHT), 1)

    def y(area: float) -> float:
        return round(HEIGHT - BOTTOM - (area - y_lo) / (y_hi - y_lo) * (HEIGHT - TOP - BOTTOM), 1)

    def point(row: Measurement) -> Point:
        ms, area = row.p50_ms or 0.0, row.auc or 0.0
        return Point(
            x=x(ms),
            y=y(area),
            x_lo=x(row.p50_lo or ms),
            x_hi=x(row.p50_hi or ms),
            y_lo=y(area if row.auc_lo is None else row.auc_lo),
            y_hi=y(area if row.auc_hi is None else row.auc_hi),
            colour=_colour(row.runtime),
            filled="int8" in row.recipe,
            title=f"{row.model} @ {row.runtime}: {tables.micros(ms)} µs, AUC {area:.4f}",
        )

    points = [point(row) for row in rows]
    front = _front(rows)
    placed = _labels([(points[rows.index(row)], row) for row in front], points)
    runtimes = dict.fromkeys(row.runtime for row in rows)
    return Plot(
        points=tuple(points),
        labels=tuple(placed),
        front=" ".join(f"{points[rows.index(row)].x},{points[rows.index(row)].y}" for row in front),
        x_ticks=tuple((x(ms), f"{1e3 * ms:,g}") for ms in _log_ticks(10**x_lo, 10**x_hi)),
        y_ticks=tuple((y(area), f"{area:.{digits}f}") for area, digits in _ticks(y_lo, y_hi)),
        legend=tuple((runtime, _colour(runtime)) for runtime in runtimes),
    )


def _front(rows: Sequence[Measurement]) -> list[Measurement]:
    """The cells that no other beats in both AUC and p50, fastest first."""
    best, front = -1.0, []
    for row in sorted(rows, key=lambda row: (row.p50_ms or 0.0, -(row.auc or 0.0))):
        if (row.auc or 0.0) > best:
            best = row.auc or 0.0
            front.append(row)
    return front


def _labels(named: Sequence[tuple[Point, Measurement]], points: Sequence[Point]) -> list[Label]:
    """Labels beside these points that cover nothing else: one for each cluster, none where none fits."""
    taken = [(one.x - 5, one.y - 5, one.x + 5, one.y + 5) for one in points]
    placed: list[Label] = []
    spoken_for: list[Point] = []
    for one, row in named:
        if any(abs(one.x - other.x) < CLUSTER_PX and abs(one.y - other.y) < CLUSTER_PX for other in spoken_for):
            continue
        text = f"{row.model} @ {row.runtime}"
        length = LETTER_PX * len(text)
        for side, drop in ((1, -8), (-1, -8), (1, 16), (-1, 16), (1, -24), (-1, -24), (1, 32), (-1, 32)):
            left = one.x + 8 if side > 0 else one.x - 8 - length
            box = (left, one.y + drop - 11, left + length, one.y + drop + 3)
            inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > 2 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                spoken_for.append(one)
                placed.append(Label(one.x + 8 * side, one.y + drop, "start" if side > 0 else "end", text))
                break
    return placed


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _log_ticks(lo: float, hi: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range; only powers of ten where these are many."""
    decades = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    fine = [step * 10.0**decade for decade in decades for step in (1, 2, 5) if lo <= step * 10.0**decade <= hi]
    coarse = [tick for tick in fine if math.log10(tick) == round(math.log10(tick))]
    return coarse if len(fine) > 10 else fine


def _ticks(lo: float, hi: float) -> list[tuple[float, int]]:
    """Three to eight round values within the range, with the digits that they need."""
    raw = (hi - lo) / 8
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    digits = max(2, -math.floor(math.log10(step)))
    first = math.ceil(lo / step)
    return [(number * step, digits) for number in range(first, math.floor(hi / step) + 1) if number * step <= 1]
