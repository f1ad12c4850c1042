"""benchmarks/aa.py: a file against itself, and against itself slowed."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Script = Callable[[str], ModuleType]
Section = Callable[[dict[str, Any]], str]


def test_the_ratio_test_is_judged_by_how_often_it_is_right(script: Script, section: Section) -> None:
    aa = script("aa")
    noisy, slow = aa.Interval(1.0, 0.98, 1.02), aa.Interval(1.05, 1.03, 1.07)
    alike, slowed = aa.judge_ratios([{"second": noisy, "slowed": slow}] * 45 + [{"second": slow, "slowed": noisy}] * 5)
    assert (alike["slower"], alike["asked"], alike["holds"]) == (5, "at most 3 differ", "no")
    assert (slowed["slower"], slowed["asked"], slowed["holds"]) == (45, "at least 45 slower", "yes")
    text = section({"kind": "aa", "command": "python benchmarks/aa.py", "about": "", "rows": [alike, slowed]})
    assert "| slowed by 5% | 50 | 45 |" in text


@pytest.mark.parametrize("fresh", [True, False])
def test_a_slowed_file_answers_in_the_same_rounds_as_the_file_itself(
    script: Script, mean_red: Path, tmp_path: Path, fresh: bool
) -> None:
    aa = script("aa")
    np.save(tmp_path / "timed.npy", np.zeros((2, 96, 96, 3), np.uint8))
    bench = aa.Bench(rounds=2, runs_per_round=3, warmup_runs=0, fresh=fresh)
    ratios = aa.ratios(mean_red, "onnxruntime", tmp_path / "timed.npy", bench, seed=0)
    assert all(0 < ratio.lo <= ratio.value <= ratio.hi for ratio in ratios.values())
    assert list(ratios) == ["second", "slowed"]


def test_a_slowed_runner_returns_the_logits_of_the_runner(script: Script, mean_red: Path) -> None:
    slowed = script("aa").open_slowed({"model": str(mean_red), "runtime": "onnxruntime", "threads": 1})
    assert slowed.predict(np.full((1, 96, 96, 3), 51, np.uint8)).item() == pytest.approx(0.2)
    assert slowed.runtime == "onnxruntime"
