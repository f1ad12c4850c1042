"""benchmarks/overhead.py: predict against the bare call of its runtime."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from histoedge import edge

FOLDER = Path(__file__).parents[2] / "benchmarks"

Script = Callable[[str], ModuleType]
Section = Callable[[dict[str, Any]], str]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_bare_call_returns_the_logits_of_predict_and_both_are_timed(
    script: Script, mean_red: Path, runtime: str
) -> None:
    pytest.importorskip(runtime)
    overhead = script("overhead")
    runner = edge.load(mean_red, runtime=runtime)
    patch = np.full((1, 96, 96, 3), 51, np.uint8)
    bare = overhead.bare(runner)
    assert bare(patch).item() == runner.predict(patch).item() == pytest.approx(0.2)
    times = overhead.time_both((runner.predict, bare), [patch], rounds=2, calls_per_round=3, seed=0)
    assert [ms.shape for ms in times] == [(2, 3), (2, 3)]


def test_the_bare_call_of_litert_returns_the_logits_of_predict(script: Script) -> None:
    pytest.importorskip("ai_edge_litert")
    model = FOLDER.parent / "exported" / "nano" / "models" / "int8.tflite"
    runner = edge.load(model, runtime="litert")
    patch = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    assert script("overhead").bare(runner)(patch).item() == runner.predict(patch).item()


@pytest.mark.parametrize(
    ("bare_us", "predict_us", "holds"),
    [(50, 52, "yes"), (50, 54, "no"), (1000, 1020, "yes"), (1000, 1040, "no")],  # 3 us; 3 %
)
def test_overhead_holds_up_to_the_larger_of_3_percent_and_3_us(
    script: Script, section: Section, mean_red: Path, bare_us: float, predict_us: float, holds: str
) -> None:
    overhead = script("overhead")
    runner = edge.load(mean_red, runtime="onnxruntime")
    row = overhead.overhead_row(mean_red, runner, np.full((4, 5), predict_us / 1e3), np.full((4, 5), bare_us / 1e3))
    assert row["holds"] == holds
    assert row["more_us"] == pytest.approx(predict_us - bare_us)
    text = section({"kind": "overhead", "command": "F", "about": "", "columns": list(row), "rows": [row]})
    assert "| model | runtime |" in text
