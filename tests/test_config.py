from pathlib import Path

import pytest

from histoedge.config import BenchPlan, Recipe, TrainConfig, ancestry, recipes, resolve
from histoedge.edge.errors import ConfigError


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
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


def test_a_list_of_runtimes_becomes_a_tuple(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[bench]\nruntimes = ["litert"]\n')
    assert resolve(BenchPlan, file=file, options={}).runtimes == ("litert",)


@pytest.mark.parametrize(
    ("name", "precision", "sparsity", "parents"),
    [
        ("fp32", "fp32", 0.0, []),
        ("fp16", "fp16", 0.0, ["fp32"]),
        ("int8", "int8", 0.0, ["fp32"]),
        ("prune50", "fp32", 0.5, ["fp32"]),
        ("prune70_int8", "int8", 0.7, ["fp32", "prune70"]),
    ],
)
def test_a_recipes_name_says_it_all(name: str, precision: str, sparsity: float, parents: list[str]) -> None:
    recipe = Recipe.parse(name)
    assert (recipe.precision, recipe.sparsity) == (precision, sparsity)
    assert [step.name for step in ancestry(recipe)] == [*parents, name]


@pytest.mark.parametrize(("wrong", "nearest"), [("int9", "int8"), ("prune50-int8", "prune50_int8"), ("fp23", "fp32")])
def test_an_unknown_recipe_names_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {nearest}"):
        Recipe.parse(wrong)


def test_no_recipe_means_the_five_of_the_first_line() -> None:
    five = {"fp32", "fp16", "int8", "prune50", "prune50_int8"}
    assert {recipe.name for recipe in recipes([])} == {recipe.name for recipe in recipes(["all"])} == five
    assert [recipe.name for recipe in recipes(["int8", "int8"])] == ["int8"]
