import pytest

from histoedge.config import (
    RECIPES,
    Recipe,
    ancestry,
    recipes,
)
from histoedge.edge.errors import ConfigError


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
