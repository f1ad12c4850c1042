"""How often an interval contains the truth."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from histoedge.metrics import Interval

FOLDER = Path(__file__).parents[2] / "benchmarks"

Script = Callable[[str], ModuleType]


def test_coverage_counts_intervals_that_contain_the_truth_and_the_misses_by_side(script: Script) -> None:
    coverage = script("coverage")
    intervals = iter([(0.4, 0.6), (0.5, 0.7), (0.6, 0.7), (0.1, 0.2)])

    def draw(random: np.random.Generator) -> Interval:
        lo, hi = next(intervals)
        return Interval((lo + hi) / 2, lo, hi)

    case = coverage.Truth(interval="by hand", of="four", n_patches=1, true=0.5, draw=draw, draws=4)
    row = coverage.coverage_row(case, seed=0)
    assert [row[key] for key in ("coverage", "too_low", "too_high")] == [0.5, 0.25, 0.25]
    assert row["mean_width"] == pytest.approx(0.15)


def test_the_committed_coverage_of_delong_is_93_to_97_percent() -> None:
    for results in FOLDER.glob("results/*/coverage.json"):
        rows = [row for row in json.loads(results.read_text())["rows"] if "slides" not in row["of"]]
        delong = [row["coverage"] for row in rows if row["interval"].endswith("DeLong")]
        assert len(delong) >= 8
        assert all(0.93 <= share <= 0.97 for share in delong)
