"""Axes, ticks and names of plots."""

import pytest

from histoedge.reporting import drawing
from histoedge.reporting.drawing import Axes, Scale


def test_a_logarithmic_scale_is_linear_in_the_logarithm() -> None:
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(value) for value in (0.1, 1, 10, 100, 1000)] == [0, 0, 100, 200, 200]
    assert Scale(0, 4, 100, 0)(1) == 75


@pytest.mark.parametrize(
    ("lo", "hi", "ticks"),
    [
        (0.03, 0.8, [0.05, 0.1, 0.2, 0.5]),
        (0.6, 8000, [1, 3, 10, 30, 100, 300, 1000, 3000]),
        (1, 1e9, [10.0**power for power in range(10)]),
        (0.0021, 0.0044, [0.0025, 0.003, 0.0035, 0.004]),
        (1.1, 1.3, [1.1, 1.15, 1.2, 1.25, 1.3]),
    ],
)
def test_logarithmic_ticks_are_round_and_few(lo: float, hi: float, ticks: list[float]) -> None:
    assert drawing.log_ticks(lo, hi) == pytest.approx(ticks)


def test_linear_ticks_are_round() -> None:
    assert drawing.linear_ticks(0, 1, 2) == [0, 0.5, 1]
    assert drawing.linear_ticks(0.9042, 0.9361, 8) == [0.905, 0.91, 0.915, 0.92, 0.925, 0.93, 0.935]
    assert len(drawing.linear_ticks(0.91230001, 0.91230009, 5)) >= 3


def test_names_overlap_neither_points_nor_each_other() -> None:
    axes = Axes(Scale(0, 1, 50, 430), Scale(0, 1, 280, 20), "", "")
    points = [(100.0, 100.0), (110.0, 104.0), (200.0, 100.0), (425.0, 270.0)]
    names = [(x, y, f"name {number}") for number, (x, y) in enumerate(points)]
    marks = drawing.placed(names, points, axes, cluster_px=26)
    assert [mark.text for mark in marks] == ["name 0", "name 2", "name 3"]
    assert marks[-1].attributes["text-anchor"] == "end"
    assert drawing.placed([(240, 150, "x" * 200)], points, axes, cluster_px=26) == []


def test_sixteen_curves_look_different() -> None:
    assert len({drawing.curve_style(number) for number in range(16)}) == 16
