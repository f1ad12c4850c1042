"""The plots of the page, from measurements; None where nothing of the kind was measured."""

from collections.abc import Callable, Sequence

import numpy as np

from histoedge import metrics
from histoedge.benchmark import FileLayers, Measurement
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
MOST_CURVES = 16
MILLISECONDS_FROM = 20.0  # ms: from there on an axis is in ms, below in µs
STRIP_PX, STRIP_TOP = 30, 6
SMALL = 220
BAR_PX = 7
CORNER_FPR = 0.2
"""Specificities from 80 % on, where a threshold lies."""


def pareto_of_latency(group: groups.Group) -> Figure | None:
    """AUC against p50 per call."""
    rows = [row for row in group.rows if row.measured and row.p50_ms and row.auc is not None]
    if not rows:
        return None
    spread = [ms for row in rows for ms in (row.p50_lo, row.p50_ms, row.p50_hi) if ms]
    unit, factor = _unit(max(spread))
    x = _log_scale([factor * ms for ms in spread])
    return _pareto(
        rows,
        x,
        title=group.title or "AUC against latency",
        x_title=f"p50 per call, {unit} (logarithmic); left is faster",
        at=lambda row: factor * (row.p50_ms or 0.0),
        bounds=lambda row: (factor * (row.p50_lo or row.p50_ms or 0.0), factor * (row.p50_hi or row.p50_ms or 0.0)),
        said=lambda row: f"{row.model} @ {row.runtime}: {tables.micros(row.p50_ms)} µs, AUC {row.auc:.4f}",
        note="dashed: nothing is both faster and better",
    )


def pareto_of_size(rows: Sequence[Measurement]) -> Figure | None:
    """AUC against the size of the file, each file once."""
    files: dict[str, Measurement] = {}
    for row in rows:
        if row.measured and row.size_bytes and row.auc is not None:
            files.setdefault(row.model, row)
    if not files:
        return None
    return _pareto(
        list(files.values()),
        _log_scale([(row.size_bytes or 0) / 1000 for row in files.values()]),
        title="AUC against size",
        x_title="file, kB (logarithmic); left is smaller",
        at=lambda row: (row.size_bytes or 0) / 1000,
        bounds=lambda row: ((row.size_bytes or 0) / 1000,) * 2,
        said=lambda row: f"{row.model}: {tables.kilobytes(row.size_bytes)} kB, AUC {row.auc:.4f} @ {row.runtime}",
        note="dashed: nothing is both smaller and better; each file on the first runtime that opened it",
    )


def latencies(group: groups.Group) -> Figure | None:
    """Of each cell how its times are spread: a strip from p1 to p99, the middle half thick, p50 marked."""
    rows = [row for row in group.rows if row.ms_quantiles]
    if not rows:
        return None
    quantiles = [row.ms_quantiles or () for row in rows]
    unit, factor = _unit(max(one[90] for one in quantiles))
    bottom = STRIP_TOP + STRIP_PX * len(rows)
    x = _log_scale([factor * one[at] for one in quantiles for at in (1, 99)], start_px=10)
    axes = Axes(x, Scale(0, 1, bottom, STRIP_TOP), f"time of a call, {unit} (logarithmic)", "", most_ticks=7)
    marks = axes.frame(horizontal=True)
    for number, (row, one) in enumerate(zip(rows, quantiles, strict=True)):
        y, colour = STRIP_TOP + STRIP_PX * number + 22, colour_of(row.runtime)
        ends = {share: x(factor * one[share]) for share in (1, 5, 25, 50, 75, 95, 99)}
        told = ", ".join(f"p{share} {tables.micros(one[share])}" for share in (1, 25, 50, 75, 95, 99))
        for lo, hi, thick, opacity in ((1, 99, 1.5, 0.7), (5, 95, 6, 0.35), (25, 75, 11, 0.85)):
            looks = {"stroke-width": thick, "stroke-opacity": opacity}
            marks.append(line(ends[lo], y, max(ends[hi], ends[lo] + 1), y, colour, **looks))
        middle = line(ends[50], y - 6.5, ends[50], y + 6.5, "#fff", **{"stroke-width": 2.0})
        marks.append(Mark(middle.tag, middle.attributes, title=f"{row.model} @ {row.runtime}: {told} µs"))
        marks.append(text(10, y - 10, f"{row.model} @ {row.runtime}", strong=True))
    return Figure(
        title=group.title or "Spread of times",
        label="quantiles of the times of every cell",
        width=WIDTH,
        height=bottom + 46,
        marks=tuple(marks),
        note="thin: 98 % of the calls, pale: 90 %, dark: the middle half, white: p50",
    )


def roc(rows: Sequence[Measurement], *, corner: bool = False) -> Figure | None:
    """ROC curves, one for each network; ``corner``: only where the specificity is at least 80 %."""
    chosen = _curves(rows, "roc")
    if not chosen:
        return None
    most = CORNER_FPR if corner else 1.0
    top, bottom = 26, 384
    curves = []
    for row in chosen:
        assert row.roc is not None
        fpr, tpr = np.array(row.roc.fpr), np.array(row.roc.tpr)
        within = fpr < most
        ends = [*zip(fpr[within], tpr[within], strict=True), (most, float(np.interp(most, fpr, tpr)))]
        curves.append(ends)
    least = 0.0
    if corner:
        starts = [y for ends in curves for x, y in ends if x >= 0.01]
        least = max(0.0, np.floor(10 * min(starts)) / 10) if starts else 0.0
        least = min(least, 0.9)
    x = Scale(0, most, LEFT, RIGHT - 8)
    axes = Axes(x, Scale(least, 1, bottom, top), "1 - specificity", "sensitivity", y_text=lambda value: f"{value:.2g}")
    marks = axes.frame()
    if not corner:
        marks.append(path([(x(0), axes.y(0)), (x(1), axes.y(1))], "#9aa4b2", width=1, dash="3 4"))
    keys = []
    for number, (row, name, ends) in enumerate(zip(chosen, groups.network_names(chosen), curves, strict=True)):
        colour, dash = curve_style(number)
        seen = [(x(fpr), axes.y(tpr)) for fpr, tpr in ends if tpr >= least]
        marks.append(path(seen, colour, dash=dash))
        keys.append(Key(f"{name}: AUC {row.auc or 0:.4f}", colour, dash=dash))
    return Figure(
        title="Where thresholds lie: specificity from 80 %" if corner else "ROC curves",
        label="ROC curves on the test patches",
        width=WIDTH,
        height=bottom + 46,
        marks=tuple(marks),
        legend=() if corner else tuple(keys),
    )


def reliabilities(rows: Sequence[Measurement]) -> list[Figure]:
    """For each network the share of tumour against the calibrated probability, with Wilson's 95 % intervals."""
    chosen = _curves(rows, "reliability")
    return [_reliability(row, name) for row, name in zip(chosen, groups.network_names(chosen), strict=True)]


def robustness(rows: Sequence[Measurement]) -> Figure | None:
    """AUC after each perturbation, with DeLong's intervals, one colour for each network."""
    chosen = _curves(rows, "robustness")[: len(CURVE_COLOURS)]
    if not chosen:
        return None
    names = tables.perturbations(chosen)
    step = max(26, 9 * len(chosen) + 18)
    bottom = STRIP_TOP + step * len(names)
    bounds = [value for row in chosen for one in row.robustness or () for value in (one.auc_lo, one.auc_hi)]
    bounds += [row.auc or 0.0 for row in chosen]
    margin = max(0.03 * (max(bounds) - min(bounds)), 0.002)
    x = Scale(max(0.0, min(bounds) - margin), min(1.0, max(bounds) + margin), 10, RIGHT)
    axes = Axes(
        x, Scale(0, 1, bottom, STRIP_TOP), "AUC; the vertical lines: on the patches as they are", "", most_ticks=7
    )
    marks = axes.frame(horizontal=True)
    keys = []
    for place, (row, network) in enumerate(zip(chosen, groups.network_names(chosen), strict=True)):
        colour, _ = curve_style(place)
        keys.append(Key(network, colour))
        marks.append(line(x(row.auc or 0.0), STRIP_TOP, x(row.auc or 0.0), bottom, colour, **{"stroke-opacity": 0.55}))
        for one in row.robustness or ():
            y = STRIP_TOP + step * names.index(one.perturbation) + 22 + 9 * place
            marks.append(line(x(one.auc_lo), y, x(one.auc_hi), y, colour, **{"stroke-opacity": 0.6}))
            told = f"{network}, {_spoken(one.perturbation)}: AUC {one.auc:.4f}, {one.flips} decisions change"
            marks.append(dot(x(one.auc), y, colour, radius=3.2, title=told))
    for number, name in enumerate(names):
        marks.append(text(10, STRIP_TOP + step * number + 13, _spoken(name), strong=True))
    label = "AUC of each network after every perturbation of the test patches"
    return Figure("AUC after a perturbation", label, WIDTH, bottom + 46, tuple(marks), tuple(keys))


def layer_errors(files: Sequence[FileLayers]) -> list[Figure]:
    """For each int8 network the error of its layers from the first to the last, a bar for each of its files."""
    networks: dict[str, list[FileLayers]] = {}
    for file in files:
        if file.layers:
            networks.setdefault(file.model.rpartition(".")[0], []).append(file)
    found = [layer.relative_rms or 0.0 for file in files for layer in file.layers]
    x = Scale(0, 100 * max(found, default=0.0) or 1.0, 10, SMALL - 10)
    return [_layer_errors(name, several, x) for name, several in networks.items()]


def _pareto(
    rows: Sequence[Measurement],
    x: Scale,
    *,
    title: str,
    x_title: str,
    at: Callable[[Measurement], float],
    bounds: Callable[[Measurement], tuple[float, float]],
    said: Callable[[Measurement], str],
    note: str,
) -> Figure:
    areas = [area for row in rows for area in (row.auc_lo, row.auc, row.auc_hi) if area is not None]
    margin = max(0.04 * (max(areas) - min(areas)), 1e-4)
    y = Scale(min(areas) - margin, max(areas) + margin, BOTTOM, TOP)
    digits = 2 if y.hi - y.lo > 0.1 else 3 if y.hi - y.lo > 0.01 else 4
    axes = Axes(x, y, x_title, "AUC", y_text=lambda area: f"{area:.{digits}f}" if area <= 1 else "")
    marks = axes.frame()
    front, best = [], -1.0
    for row in sorted(rows, key=lambda row: (at(row), -(row.auc or 0.0))):
        if (row.auc or 0.0) > best:
            best = row.auc or 0.0
            front.append(row)
    marks.append(path([(x(at(row)), y(row.auc or 0.0)) for row in front], "#9aa4b2", width=1.4, dash="5 4"))
    for row in rows:
        area, colour, (lo, hi) = row.auc or 0.0, colour_of(row.runtime), bounds(row)
        ends = (area if row.auc_lo is None else row.auc_lo, area if row.auc_hi is None else row.auc_hi)
        marks.append(line(x(at(row)), y(ends[0]), x(at(row)), y(ends[1]), colour, **{"stroke-opacity": 0.3}))
        marks.append(line(x(lo), y(area), x(hi), y(area), colour, **{"stroke-opacity": 0.6}))
    marks += [
        dot(x(at(row)), y(row.auc or 0.0), colour_of(row.runtime), filled="int8" in row.recipe, title=said(row))
        for row in rows
    ]
    several = len({groups.folder(row) for row in rows}) > 1
    named = []
    for row in (*front, *groups.networks(row for row in rows if row.recipe not in {one.recipe for one in front})):
        name = f"{groups.folder(row)}/{row.recipe}" if several else row.recipe
        named.append((x(at(row)), y(row.auc or 0.0), name))
    marks += placed(named, [(x(at(row)), y(row.auc or 0.0)) for row in rows], axes, cluster_px=CLUSTER_PX)
    keys = [Key(runtime, colour_of(runtime)) for runtime in dict.fromkeys(row.runtime for row in rows)]
    keys += [Key("int8", "#5a6575"), Key("float", "#5a6575", filled=False)]
    return Figure(title, f"{title}: a dot for every file", WIDTH, HEIGHT, tuple(marks), tuple(keys), note)


def _reliability(row: Measurement, name: str) -> Figure:
    found = row.reliability
    assert found is not None
    x, y = Scale(0, 1, 34, SMALL - 10), Scale(0, 1, SMALL - 40, 22)
    axes = Axes(x, y, "probability", "share of tumour", most_ticks=2)
    marks = axes.frame()
    marks.append(path([(x(0), y(0)), (x(1), y(1))], "#9aa4b2", width=1, dash="3 4"))
    colour = "#1d6fb8"
    points = []
    largest = max(found.patches)
    for probability, patches, positives in zip(found.probability, found.patches, found.positives, strict=True):
        share = metrics.proportion(positives, patches)
        marks.append(line(x(probability), y(share.lo), x(probability), y(share.hi), colour, **{"stroke-opacity": 0.5}))
        told = f"{patches:,} patches given {probability:.2f} on average: {share.value:.2f} are tumour"
        points.append(
            dot(x(probability), y(share.value), colour, radius=2 + 3 * (patches / largest) ** 0.5, title=told)
        )
    marks.append(path([(float(one.attributes["cx"]), float(one.attributes["cy"])) for one in points], colour, width=1))
    ece = "" if row.ece is None else f"ECE {row.ece:.4f}"
    return Figure(name, f"{name}: reliability", SMALL, SMALL, (*marks, *points), note=ece)


def _layer_errors(name: str, files: Sequence[FileLayers], x: Scale) -> Figure:
    layers = list(dict.fromkeys(layer.layer for file in files for layer in file.layers))
    step = 22 + BAR_PX * len(files)
    bottom = STRIP_TOP + step * len(layers)
    axes = Axes(x, Scale(0, 1, bottom, STRIP_TOP), "error of the layer, %", "", most_ticks=5)
    marks = axes.frame(horizontal=True)
    for row, layer in enumerate(layers):
        top, said = STRIP_TOP + step * row, []
        for place, file in enumerate(files):
            one = next((one for one in file.layers if one.layer == layer), None)
            if one is None:
                continue
            error = "always 0" if one.relative_rms is None else f"{100 * one.relative_rms:.1f} %"
            said.append(error)
            y, end = top + 20 + BAR_PX * place, x(100 * (one.relative_rms or 0.0))
            bar = line(x.start_px, y, max(end, x.start_px + 1), y, colour_of(file.runtime or ""), **{"stroke-width": 5})
            told = f"{file.model} @ {file.runtime}, {layer}, {one.channels} channels: {error}"
            marks.append(Mark(bar.tag, bar.attributes, title=told))
            channels = one.channels
        marks.append(text(10, top + 13, f"{layer}, {channels} ch.", strong=True))
        marks.append(text(SMALL - 10, top + 13, " / ".join(dict.fromkeys(said)), "end", strong=True))
    keys = tuple(Key(one.runtime or "", colour_of(one.runtime or "")) for one in files)
    return Figure(name, f"{name}: error of each layer", SMALL, bottom + 46, tuple(marks), keys)


def _curves(rows: Sequence[Measurement], key: str) -> list[Measurement]:
    """The rows that have this key, one for each network, as many as can be told apart."""
    return groups.networks([row for row in rows if getattr(row, key)])[:MOST_CURVES]


def _log_scale(values: Sequence[float], *, start_px: float = LEFT) -> Scale:
    return Scale(min(values) / 1.15, max(values) * 1.15, start_px, RIGHT, log=True)


def _unit(ms: float) -> tuple[str, float]:
    """The unit of an axis that reaches this far, and what makes milliseconds that unit."""
    return ("ms", 1.0) if ms >= MILLISECONDS_FROM else ("µs", 1e3)


def _spoken(perturbation: str) -> str:
    return perturbation.replace("_", " ")
