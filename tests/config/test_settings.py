from pathlib import Path

import pytest

from histoedge import edge
from histoedge.config import (
    SCENARIOS,
    BenchPlan,
    Shape,
    resolve,
)
from histoedge.edge.errors import ConfigError


def test_a_list_of_runtimes_becomes_a_tuple(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[bench]\nruntimes = ["litert"]\n')
    assert resolve(BenchPlan, file=file, options={}).runtimes == ("litert",)


def test_a_plan_accepts_lists_or_a_single_value_and_options_replace_them(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[bench]\nthreads = [1, 2]\nbatch = 4\nscenarios = "field"\n')
    plan = resolve(BenchPlan, file=file, options={"threads": (8,), "batch": None})
    assert (plan.threads, plan.batch, plan.scenarios) == ((8,), (4,), ("field",))
    assert plan.shapes == (Shape(4, 96), Shape(1, 1024))
    assert BenchPlan(scenarios=tuple(SCENARIOS), batch=(1, 8)).shapes == tuple(
        scenario.shape for scenario in SCENARIOS.values()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threads = []", "threads must contain at least one number"),
        ("threads = [0]", "threads must be at least 1, got 0"),
        ('threads = ["two"]', "threads must contain values of type int, got 'two'"),
        ("field_px = 31", "field_px must be at least 32, got 31"),
        ('scenarios = ["singlestream"]', "did you mean single-stream"),
        ("min_seconds = 20", "min_seconds must be at most max_seconds, got 20.0 and 10.0"),
        ("settled_width = 0", "settled_width must be above 0"),
        ("runtimes = [1]", "runtimes must contain values of type str, got 1"),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"[bench]\n{text}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(BenchPlan, file=file, options={})
    assert "\n" not in str(caught.value)


def test_the_plan_of_the_whole_suite_can_be_read() -> None:
    plan = resolve(BenchPlan, file=Path(__file__).parents[2] / "benchmarks" / "suite.toml", options={})
    assert plan.robustness
    assert not BenchPlan().robustness
    assert set(plan.runtimes) == {"keras", *edge.all_runtimes()}
    assert set(plan.scenarios) == set(SCENARIOS)
