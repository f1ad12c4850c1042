import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import histoedge
from histoedge import edge, pipeline
from histoedge.config import (
    RECIPES,
    SCENARIOS,
    BenchPlan,
    CompressConfig,
    Recipe,
    Shape,
    TrainConfig,
    ancestry,
    compress_settings,
    recipes,
    resolve,
    setting_rows,
    typed_values,
)
from histoedge.edge.errors import ConfigError
from histoedge.lab import architecture, checkpoint, compress


def test_options_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[train]\nepochs = 3\nbatch = 64\nlearning_rate = 1\n")
    settings = resolve(TrainConfig, file=file, options={"epochs": 5, "seed": None})
    assert (settings.epochs, settings.batch, settings.seed, settings.learning_rate) == (5, 64, 0, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3\n", "did you mean epochs"),
        ("[trian]\n", "did you mean train"),
        ("[train]\nepochs = 'x'\n", "epochs must be of type int"),
        ("[train]\nepochs = true\n", "epochs must be of type int"),
        ("[train]\nepochs = 0\n", "epochs must be at least 1, got 0"),
        ("train = 1\n", "must be a table"),
        ("[train\n", "not a readable TOML file"),
    ],
)
def test_a_wrong_settings_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(TrainConfig, file=file, options={})
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("kind", [TrainConfig, CompressConfig, BenchPlan, architecture.Network, architecture.Row])
def test_every_setting_has_a_meaning(kind: type) -> None:
    rows = setting_rows(kind, table="table")
    assert [row["key"] for row in rows] == [field.name for field in dataclasses.fields(kind)]
    assert all(row["meaning"] for row in rows)
    assert {row["unit"] for row in rows} <= {"", "px", "px of its input", "s", "steps", "patches", "calls", "share"}


@pytest.mark.parametrize("kind", [TrainConfig, CompressConfig, BenchPlan])
def test_listed_defaults_are_valid_settings(kind: type) -> None:
    defaults = {row["key"]: row["default"] for row in setting_rows(kind, table="table")}
    assert kind(**typed_values(kind, defaults, where="[table]")) == kind()


def test_the_network_in_the_file_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[network]\nname = "mine"\nrows = []\n')
    assert resolve(TrainConfig, file=file, options={"network": None}).network == "mine"
    assert resolve(TrainConfig, file=file, options={"network": "mine"}).network == "mine"
    with pytest.raises(ConfigError, match="defines 'mine', but 'edge' is requested"):
        resolve(TrainConfig, file=file, options={"network": "edge"})
    file.write_text('[train]\nnetwork = "edge"\n[network]\nname = "mine"\nrows = []\n')
    with pytest.raises(ConfigError, match="defines 'mine', but 'edge' is requested"):
        resolve(TrainConfig, file=file, options={})
    assert resolve(BenchPlan, file=file, options={}) == BenchPlan()


SEEDS = [
    ("", None, (0, 0)),
    ("[train]\nseed = 3\n", None, (3, 3)),
    ("[compress]\nseed = 7\n", None, (0, 7)),
    ("[train]\nseed = 3\n[compress]\nseed = 0\n", None, (3, 0)),
    ("[train]\nseed = 3\n", 5, (5, 5)),
    ("[train]\nseed = 3\n[compress]\nseed = 7\n", 5, (5, 7)),
]
"""Settings file, option ``--seed``, and the resulting seeds of the training and of the compression."""


@pytest.mark.parametrize(("text", "option", "seeds"), SEEDS)
def test_run_and_compress_use_the_same_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, option: int | None, seeds: tuple[int, int]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    calls: list[CompressConfig] = []

    def run(*_: Any, train_config: TrainConfig, compress_config: CompressConfig, **__: Any) -> None:
        assert train_config.seed == seeds[0]
        calls.append(compress_config)

    monkeypatch.setattr(pipeline, "run", run)
    histoedge.run("synthetic", out=tmp_path / "run", seed=option, config=file)
    source = SimpleNamespace(inputs={"train": {"seed": seeds[0]}})  # the run, trained with its seed
    monkeypatch.setattr(checkpoint, "read", lambda _: source)
    monkeypatch.setattr(histoedge.data, "load", lambda *_, **__: {})
    monkeypatch.setattr(compress, "compress_all", lambda *positional, **_: calls.append(positional[3]))
    histoedge.compress(tmp_path / "run", data="synthetic", config=file)
    assert [call.seed for call in calls] == [seeds[1], seeds[1]]
    assert calls[0] == calls[1]


def test_without_a_settings_file_compression_uses_the_seed_of_the_training() -> None:
    assert compress_settings(None, train_seed=4) == CompressConfig(seed=4)


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
        ("field_px = 64", "field_px must be at least 96, got 64"),
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


@pytest.mark.parametrize(
    ("name", "precision", "scheme", "percent", "parents"),
    [
        ("fp32", "fp32", "none", 0, []),
        ("fp16", "fp16", "none", 0, ["fp32"]),
        ("int8", "int8", "none", 0, ["fp32"]),
        ("int8ptq", "int8", "none", 0, ["fp32"]),
        ("prune50", "fp32", "prune", 50, ["fp32"]),
        ("prune70_int8", "int8", "prune", 70, ["fp32", "prune70"]),
        ("2of4_int8", "int8", "2of4", 0, ["fp32", "2of4"]),
        ("cluster16_int8", "int8", "cluster16", 0, ["fp32", "cluster16"]),
        ("slim50", "fp32", "slim", 50, ["fp32"]),
        ("slim50_int8", "int8", "slim", 50, ["fp32", "slim50"]),
    ],
)
def test_a_recipe_name_contains_all_settings(
    name: str, precision: str, scheme: str, percent: int, parents: list[str]
) -> None:
    recipe = Recipe.parse(name)
    assert (recipe.precision, recipe.scheme, recipe.percent) == (precision, scheme, percent)
    assert recipe.trained == (name != "int8ptq")
    assert [step.name for step in ancestry(recipe)] == [*parents, name]


@pytest.mark.parametrize(
    ("wrong", "closest"),
    [
        ("int9", "int8"),
        ("prune50-int8", "prune50_int8"),
        ("fp23", "fp32"),
        ("slim5", "slim50"),
        ("prune50ptq", "prune50"),
    ],
)
def test_an_unknown_recipe_is_answered_with_the_closest_name(wrong: str, closest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {closest}"):
        Recipe.parse(wrong)


def test_without_a_recipe_the_five_defaults_are_used() -> None:
    five = {"fp32", "fp16", "int8", "prune50", "prune50_int8"}
    assert {recipe.name for recipe in recipes([])} == five
    assert [recipe.name for recipe in recipes(["int8", "int8"])] == ["int8"]


def test_all_selects_every_listed_recipe() -> None:
    assert tuple(recipe.name for recipe in recipes(["int8", "all"])) == RECIPES
    assert len(RECIPES) == 10
