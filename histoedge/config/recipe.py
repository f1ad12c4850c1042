"""Recipes by name: pruning, slimming and quantisation, and what each builds on."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal, cast

from histoedge.config.fields import nearest

Precision = Literal["fp32", "fp16", "int8"]

DEFAULT_RECIPES = ("fp32", "fp16", "int8", "prune50", "prune50_int8")
FORMATS = ("tflite", "onnx")


Scheme = Literal["none", "prune", "2of4", "cluster16", "slim"]

_RECIPE = re.compile(
    r"fp32|fp16|int8(?:ptq)?|(?:(?P<scheme>prune|slim)(?P<percent>[1-9]0)|(?P<fixed>2of4|cluster16))(?P<int8>_int8)?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is made smaller; the name says it all and parses back.

    ``scheme`` is what happens to the kernels before any quantisation: ``prune`` zeroes the smallest ``percent`` of
    every convolution kernel but the stem and the one-channel head; ``2of4`` zeroes two of each four consecutive input
    channels wherever these are a multiple of 4; ``cluster16`` leaves 16 values per output channel; ``slim`` removes
    ``percent`` of each layer's channels. ``trained`` is False for post-training quantisation.
    """

    name: str
    precision: Precision
    scheme: Scheme = "none"
    percent: int = 0
    trained: bool = True

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """The recipe of that name: one of ``RECIPES``, other percentages (10 .. 90), or ``2of4`` and ``cluster16``.

        Raises:
            ConfigError: no such recipe; the nearest one is named.
        """
        match = _RECIPE.fullmatch(name)
        if match is None:
            raise nearest("recipe", name, RECIPES)
        scheme = cast(Scheme, match["scheme"] or match["fixed"] or "none")
        plain: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16"}
        precision = plain.get(name, "int8" if match["int8"] or scheme == "none" else "fp32")
        percent = int(match["percent"] or 0)
        return cls(name=name, precision=precision, scheme=scheme, percent=percent, trained=name != "int8ptq")

    @property
    def parent(self) -> str | None:
        """The recipe whose weights this one starts from; None for the trained network itself."""
        if self.name == "fp32":
            return None
        if self.scheme != "none" and self.precision == "int8":
            return self.name.removesuffix("_int8")
        return "fp32"

    @property
    def summary(self) -> str:
        """One line for a person."""
        number = {
            "fp32": "32-bit floats",
            "fp16": "weights stored as 16-bit floats, computed in 32",
            "int8": "8-bit integers throughout, "
            + ("quantisation-aware trained" if self.trained else "calibrated, not trained"),
        }[self.precision]
        kernels = {
            "none": "",
            "prune": f"; {self.percent} % zeros in the kernels (a smaller compressed file, not a faster one)",
            "2of4": "; two zeros in each four input channels (faster only where hardware knows 2:4 sparsity)",
            "cluster16": "; 16 values per output channel (a smaller compressed file, not a faster one)",
            "slim": f"; {self.percent} % of the channels removed (smaller and faster everywhere)",
        }[self.scheme]
        return number + kernels


RECIPES = (*DEFAULT_RECIPES, "int8ptq", "2of4_int8", "cluster16_int8", "slim50", "slim50_int8")


def recipes(names: Iterable[str]) -> tuple[Recipe, ...]:
    """The recipes of these names, each once and in order; no name means the default five, ``all`` means all.

    Raises:
        ConfigError: a name that is no recipe.
    """
    wanted = list(names) or list(DEFAULT_RECIPES)
    if "all" in wanted:
        wanted = list(RECIPES)
    return tuple(Recipe.parse(name) for name in dict.fromkeys(wanted))


def format_named(name: str) -> str:
    """The format of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FORMATS:
        raise nearest("format", name, FORMATS)
    return name


def ancestry(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipe and all it builds on, itself last."""
    chain = [recipe]
    while (parent := chain[0].parent) is not None:
        chain.insert(0, Recipe.parse(parent))
    return tuple(chain)
