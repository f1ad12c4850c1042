"""The plots of the page, from measurements; None if the figures were not measured."""

from collections.abc import Callable, Sequence

import numpy as np

from histoedge import metrics
from histoedge.benchmark import FileLayers, Measurement, is_int8
from histoedge.metrics import Interval
from histoedge.reporting import groups, tables
from histoedge.reporting.drawing import (
    CURVE_COLOURS,
    Axes,
    Figure,
    Key,
    Mark,
    Scale,
    colour_of,
    curve_style,
    dot,
    line,
    path,
    placed,
    text,
)

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 428, 26, 284
CLUSTER_PX = 26
MAX_CURVES = 16
MILLISECONDS_FROM = 20.0  # ms; an axis that ends below is in µs
STRIP_PX, STRIP_TOP = 30, 6
SMALL = 220
BAR_PX = 7
CORNER_FPR = 0.2
"""Specificities of 80 % and more, the range of usable thresholds."""


def pareto_of_latency(group: groups.Group) -> Figure | None:
    """Plot AUC against p50 per call."""
    rows = [row for row in group.rows if row.p50_ms and row.p50_ms.lo > 0 and row.auc]
    if not rows:
        return None
    unit, factor = _unit(max(_p50(row).hi for row in rows))

    def in_unit(row: Measurement) -> Interval:
        p50 = _p50(row)
        return Interval(factor * p50.value, factor * p50.lo, factor * p50.hi)

    return _pareto(
        rows,
        title=group.title or "AUC against latency",
        x_title=f"p50 per call, {unit} (logarithmic); left is faster",
        x_of=in_unit,
        tooltip=lambda row: (
            f"{row.model} @ {row.runtime}: {tables.micros(_p50(row).value)} µs, AUC {_auc(row).value:.4f}"
        ),
        note="dashed: no other cell is both faster and better",
    )


def pareto_of_size(rows: Sequence[Measurement]) -> Figure | None:
    """Plot AUC against file size, each file once."""
    files: dict[str, Measurement] = {}
    for row in rows:
        if row.measured and row.size_bytes and row.auc is not None:
            files.setdefault(row.model, row)
    if not files:
        return None
    return _pareto(
        list(files.values()),
        title="AUC against size",
        x_title="file size, kB (logarithmic); left is smaller",
        x_of=lambda row: Interval(*((row.size_bytes or 0) / 1000,) * 3),
        tooltip=lambda row: (
            f"{row.model}: {tables.kilobytes(row.size_bytes)} kB, AUC {_auc(row).value:.4f} @ {row.runtime}"
        ),
        note="dashed: no other file is both smaller and better; each file on the first runtime that opened it",
    )


def latencies(group: groups.Group) -> Figure | None:
    """Plot the spread of the times of each cell: a strip from p1 to p99, the middle half thick, p50 marked."""
    rows = [row for row in group.rows if row.ms_quantiles]
    if not rows:
        return None
    quantiles = [row.ms_quantiles or () for row in rows]
    unit, factor = _unit(max(times[90] for times in quantiles))
    bottom = STRIP_TOP + STRIP_PX * len(rows)
    x = _log_scale([factor * times[percent] for times in quantiles for percent in (1, 99)], start_px=10)
    axes = Axes(x, Scale(0, 1, bottom, STRIP_TOP), f"time of a call, {unit} (logarithmic)", "", max_ticks=7)
    marks = axes.frame(horizontal=True)
    for number, (row, times) in enumerate(zip(rows, quantiles, strict=True)):
        y, colour = STRIP_TOP + STRIP_PX * number + 22, colour_of(row.runtime)
        px = {percent: x(factor * times[percent]) for percent in (1, 5, 25, 50, 75, 95, 99)}
        values = ", ".join(f"p{percent} {tables.micros(times[percent])}" for percent in (1, 25, 50, 75, 95, 99))
        for lo, hi, width, opacity in ((1, 99, 1.5, 0.7), (5, 95, 6, 0.35), (25, 75, 11, 0.85)):
            style = {"stroke-width": width, "stroke-opacity": opacity}
            marks.append(line(px[lo], y, max(px[hi], px[lo] + 1), y, colour, **style))
        median = line(px[50], y - 6.5, px[50], y + 6.5, "#fff", **{"stroke-width": 2.0})
        marks.append(Mark(median.tag, median.attributes, title=f"{row.model} @ {row.runtime}: {values} µs"))
        marks.append(text(10, y - 10, f"{row.model} @ {row.runtime}", strong=True))
    return Figure(
        title=group.title or "Spread of call times",
        label="quantiles of the call times of every cell",
        width=WIDTH,
        height=bottom + 46,
        marks=tuple(marks),
        note="thin: 98 % of the calls; pale: 90 %; dark: the middle 50 %; white: p50",
    )


def roc(rows: Sequence[Measurement], *, corner: bool = False) -> Figure | None:
    """Plot ROC curves, one for each network; ``corner``: only specificities of at least 80 %."""
    chosen = _curves(rows, "roc")
    if not chosen:
        return None
    max_fpr = CORNER_FPR if corner else 1.0
    top, bottom = 26, 384
    curves = []
    for row in chosen:
        assert row.roc is not None
        fpr, tpr = np.array(row.roc.fpr), np.array(row.roc.tpr)
        inside = fpr < max_fpr
        last = max_fpr, float(np.interp(max_fpr, fpr, tpr))
        curves.append([*zip(fpr[inside], tpr[inside], strict=True), last])
    min_tpr = 0.0
    if corner:
        starts = [tpr for points in curves for fpr, tpr in points if fpr >= 0.01]
        min_tpr = max(0.0, np.floor(10 * min(starts)) / 10) if starts else 0.0
        min_tpr = min(min_tpr, 0.9)
    x = Scale(0, max_fpr, LEFT, RIGHT - 8)
    axes = Axes(
        x, Scale(min_tpr, 1, bottom, top), "1 - specificity", "sensitivity", y_text=lambda value: f"{value:.2g}"
    )
    marks = axes.frame()
    if not corner:
        marks.append(path([(x(0), axes.y(0)), (x(1), axes.y(1))], "#9aa4b2", width=1, dash="3 4"))
    keys = []
    for number, (row, name, points) in enumerate(zip(chosen, groups.network_names(chosen), curves, strict=True)):
        colour, dash = curve_style(number)
        visible = [(x(fpr), axes.y(tpr)) for fpr, tpr in points if tpr >= min_tpr]
        marks.append(path(visible, colour, dash=dash))
        keys.append(Key(f"{name}: AUC {_auc(row).value:.4f}", colour, dash=dash))
    return Figure(
        title="Detail: specificity of 80 % and more" if corner else "ROC curves",
        label="ROC curves on the test patches",
        width=WIDTH,
        height=bottom + 46,
        marks=tuple(marks),
        legend=() if corner else tuple(keys),
    )


def reliabilities(rows: Sequence[Measurement]) -> list[Figure]:
    """Plot, for each network, the share of positives against the probability, with Wilson's 95 % intervals."""
    chosen = _curves(rows, "reliability")
    return [_reliability(row, name) for row, name in zip(chosen, groups.network_names(chosen), strict=True)]


def robustness(rows: Sequence[Measurement]) -> Figure | None:
    """Plot the AUC after each perturbation with DeLong's intervals, one colour for each network."""
    chosen = _curves(rows, "robustness")[: len(CURVE_COLOURS)]
    if not chosen:
        return None
    names = tables.perturbations(chosen)
    step = max(26, 9 * len(chosen) + 18)
    bottom = STRIP_TOP + step * len(names)
    areas = [area for row in chosen for after in row.robustness or () for area in (after.auc.lo, after.auc.hi)]
    areas += [_auc(row).value for row in chosen]
    margin = max(0.03 * (max(areas) - min(areas)), 0.002)
    x = Scale(max(0.0, min(areas) - margin), min(1.0, max(areas) + margin), 10, RIGHT)
    axes = Axes(x, Scale(0, 1, bottom, STRIP_TOP), "AUC; vertical lines: unchanged patches", "", max_ticks=7)
    marks = axes.frame(horizontal=True)
    keys = []
    for place, (row, network) in enumerate(zip(chosen, groups.network_names(chosen), strict=True)):
        colour, _ = curve_style(place)
        keys.append(Key(network, colour))
        unchanged_px = x(_auc(row).value)
        marks.append(line(unchanged_px, STRIP_TOP, unchanged_px, bottom, colour, **{"stroke-opacity": 0.55}))
        for after in row.robustness or ():
            y, auc = STRIP_TOP + step * names.index(after.perturbation) + 22 + 9 * place, after.auc
            marks.append(line(x(auc.lo), y, x(auc.hi), y, colour, **{"stroke-opacity": 0.6}))
            name = _with_spaces(after.perturbation)
            tooltip = f"{network}, {name}: AUC {auc.value:.4f}, {after.flips} decisions change"
            marks.append(dot(x(auc.value), y, colour, radius=3.2, title=tooltip))
    for number, name in enumerate(names):
        marks.append(text(10, STRIP_TOP + step * number + 13, _with_spaces(name), strong=True))
    label = "AUC of each network after every perturbation of the test patches"
    return Figure("AUC after a perturbation", label, WIDTH, bottom + 46, tuple(marks), tuple(keys))


def layer_errors(files: Sequence[FileLayers]) -> list[Figure]:
    """Plot, for each int8 network, the error of its layers from first to last, with a bar for each file."""
    networks: dict[str, list[FileLayers]] = {}
    for file in files:
        if file.layers:
            networks.setdefault(file.model.rpartition(".")[0], []).append(file)
    errors = [layer.relative_rms or 0.0 for file in files for layer in file.layers]
    x = Scale(0, 100 * max(errors, default=0.0) or 1.0, 10, SMALL - 10)
    return [_layer_errors(name, of_network, x) for name, of_network in networks.items()]


def _pareto(
    rows: Sequence[Measurement],
    *,
    title: str,
    x_title: str,
    x_of: Callable[[Measurement], Interval],
    tooltip: Callable[[Measurement], str],
    note: str,
) -> Figure:
    """Plot the AUC of rows with an AUC against another figure, and the line through the best rows."""
    x = _log_scale([value for row in rows for value in (x_of(row).lo, x_of(row).hi)])
    areas = [area for row in rows for area in (_auc(row).lo, _auc(row).hi)]
    margin = max(0.04 * (max(areas) - min(areas)), 1e-4)
    y = Scale(min(areas) - margin, max(areas) + margin, BOTTOM, TOP)
    digits = 2 if y.hi - y.lo > 0.1 else 3 if y.hi - y.lo > 0.01 else 4
    axes = Axes(x, y, x_title, "AUC", y_text=lambda area: f"{area:.{digits}f}" if area <= 1 else "")
    marks = axes.frame()
    points = {id(row): (x(x_of(row).value), y(_auc(row).value)) for row in rows}
    front, best = [], -1.0
    for row in sorted(rows, key=lambda row: (x_of(row).value, -_auc(row).value)):
        if _auc(row).value > best:
            best = _auc(row).value
            front.append(row)
    marks.append(path([points[id(row)] for row in front], "#9aa4b2", width=1.4, dash="5 4"))
    for row in rows:
        (x_px, y_px), colour, auc, figure = points[id(row)], colour_of(row.runtime), _auc(row), x_of(row)
        marks.append(line(x_px, y(auc.lo), x_px, y(auc.hi), colour, **{"stroke-opacity": 0.3}))
        marks.append(line(x(figure.lo), y_px, x(figure.hi), y_px, colour, **{"stroke-opacity": 0.6}))
    marks += [dot(*points[id(row)], colour_of(row.runtime), filled=is_int8(row), title=tooltip(row)) for row in rows]
    several = len({groups.folder(row) for row in rows}) > 1
    recipes_on_front = {row.recipe for row in front}
    named = []
    for row in (*front, *groups.networks(row for row in rows if row.recipe not in recipes_on_front)):
        name = f"{groups.folder(row)}/{row.recipe}" if several else row.recipe
        named.append((*points[id(row)], name))
    marks += placed(named, list(points.values()), axes, cluster_px=CLUSTER_PX)
    keys = [Key(runtime, colour_of(runtime)) for runtime in dict.fromkeys(row.runtime for row in rows)]
    keys += [Key("int8", "#5a6575"), Key("float", "#5a6575", filled=False)]
    return Figure(title, f"{title}: one dot per cell", WIDTH, HEIGHT, tuple(marks), tuple(keys), note)


def _reliability(row: Measurement, name: str) -> Figure:
    curve = row.reliability
    assert curve is not None
    x, y = Scale(0, 1, 34, SMALL - 10), Scale(0, 1, SMALL - 40, 22)
    axes = Axes(x, y, "probability", "share of positives", max_ticks=2)
    marks = axes.frame()
    marks.append(path([(x(0), y(0)), (x(1), y(1))], "#9aa4b2", width=1, dash="3 4"))
    colour = "#1d6fb8"
    points = []
    largest = max(curve.patches)
    for probability, patches, positives in zip(curve.probability, curve.patches, curve.positives, strict=True):
        share = metrics.proportion(positives, patches)
        marks.append(line(x(probability), y(share.lo), x(probability), y(share.hi), colour, **{"stroke-opacity": 0.5}))
        tooltip = f"{patches:,} patches, mean probability {probability:.2f}: share of positives {share.value:.2f}"
        radius = 2 + 3 * (patches / largest) ** 0.5
        points.append(dot(x(probability), y(share.value), colour, radius=radius, title=tooltip))
    centres = [(float(point.attributes["cx"]), float(point.attributes["cy"])) for point in points]
    marks.append(path(centres, colour, width=1))
    ece = "" if row.ece is None else f"ECE {row.ece:.4f}"
    return Figure(name, f"{name}: reliability", SMALL, SMALL, (*marks, *points), note=ece)


def _layer_errors(name: str, files: Sequence[FileLayers], x: Scale) -> Figure:
    layers = list(dict.fromkeys(layer.layer for file in files for layer in file.layers))
    step = 22 + BAR_PX * len(files)
    bottom = STRIP_TOP + step * len(layers)
    axes = Axes(x, Scale(0, 1, bottom, STRIP_TOP), "error of the layer, %", "", max_ticks=5)
    marks = axes.frame(horizontal=True)
    for row, layer in enumerate(layers):
        top, errors = STRIP_TOP + step * row, []
        for place, file in enumerate(files):
            measured = next((measured for measured in file.layers if measured.layer == layer), None)
            if measured is None:
                continue
            error = "always 0" if measured.relative_rms is None else f"{100 * measured.relative_rms:.1f} %"
            errors.append(error)
            y, end = top + 20 + BAR_PX * place, x(100 * (measured.relative_rms or 0.0))
            bar = line(x.start_px, y, max(end, x.start_px + 1), y, colour_of(file.runtime or ""), **{"stroke-width": 5})
            tooltip = f"{file.model} @ {file.runtime}, {layer}, {measured.channels} channels: {error}"
            marks.append(Mark(bar.tag, bar.attributes, title=tooltip))
            channels = measured.channels
        marks.append(text(10, top + 13, f"{layer}, {channels} ch.", strong=True))
        marks.append(text(SMALL - 10, top + 13, " / ".join(dict.fromkeys(errors)), "end", strong=True))
    keys = tuple(Key(file.runtime or "", colour_of(file.runtime or "")) for file in files)
    return Figure(name, f"{name}: error of each layer", SMALL, bottom + 46, tuple(marks), keys)


def _curves(rows: Sequence[Measurement], key: str) -> list[Measurement]:
    """Return the rows with this curve and an AUC, one for each network, at most as many as there are line styles."""
    return groups.networks([row for row in rows if getattr(row, key) and row.auc is not None])[:MAX_CURVES]


def _auc(row: Measurement) -> Interval:
    assert row.auc is not None
    return row.auc


def _p50(row: Measurement) -> Interval:
    assert row.p50_ms is not None
    return row.p50_ms


def _log_scale(values: Sequence[float], *, start_px: float = LEFT) -> Scale:
    return Scale(min(values) / 1.15, max(values) * 1.15, start_px, RIGHT, log=True)


def _unit(ms: float) -> tuple[str, float]:
    """Return the unit of an axis that ends at this time, and the factor from milliseconds to it."""
    return ("ms", 1.0) if ms >= MILLISECONDS_FROM else ("µs", 1e3)


def _with_spaces(perturbation: str) -> str:
    return perturbation.replace("_", " ")
