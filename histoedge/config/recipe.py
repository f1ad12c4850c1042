"""Compression recipes by name: pruning, slimming, quantisation, and the parent recipe of each."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal, cast

from histoedge.config.fields import unknown_name
from histoedge.edge.manifest import FORMATS

Precision = Literal["fp32", "fp16", "int8"]

DEFAULT_RECIPES = ("fp32", "fp16", "int8", "prune50", "prune50_int8")

Scheme = Literal["none", "prune", "2of4", "cluster16", "slim"]

_RECIPE = re.compile(
    r"fp32|fp16|int8(?:ptq)?|(?:(?P<scheme>prune|slim)(?P<percent>[1-9]0)|(?P<fixed>2of4|cluster16))(?P<int8>_int8)?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A compression recipe. Its name contains all settings; ``parse`` reads them back.

    Attributes:
        name: for example ``prune50_int8``.
        precision: number format of the exported file.
        scheme: change of the kernels before quantisation. ``prune`` zeroes the smallest ``percent`` of every
            convolution kernel except the stem and the one-channel head. ``2of4`` zeroes two of every four consecutive
            input channels in layers whose input channels are a multiple of 4. ``cluster16`` leaves 16 values per
            output channel. ``slim`` removes ``percent`` of each layer's channels.
        percent: share for ``prune`` and ``slim``, else 0.
        trained: False for post-training quantisation.
    """

    name: str
    precision: Precision
    scheme: Scheme = "none"
    percent: int = 0
    trained: bool = True

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """Return the recipe with this name: one of ``RECIPES``, another percentage (10 to 90), or a parent of these.

        Raises:
            ConfigError: unknown recipe; the message suggests the closest name.
        """
        match = _RECIPE.fullmatch(name)
        if match is None:
            raise unknown_name("recipe", name, RECIPES)
        scheme = cast(Scheme, match["scheme"] or match["fixed"] or "none")
        plain: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16"}
        precision = plain.get(name, "int8" if match["int8"] or scheme == "none" else "fp32")
        percent = int(match["percent"] or 0)
        return cls(name=name, precision=precision, scheme=scheme, percent=percent, trained=name != "int8ptq")

    @property
    def parent(self) -> str | None:
        """Name of the recipe whose weights this one starts from; None for ``fp32``."""
        if self.name == "fp32":
            return None
        if self.scheme != "none" and self.precision == "int8":
            return self.name.removesuffix("_int8")
        return "fp32"

    @property
    def summary(self) -> str:
        """Describe the recipe in one line."""
        precision = {
            "fp32": "32-bit floats",
            "fp16": "weights stored as 16-bit floats, arithmetic in 32-bit floats",
            "int8": "8-bit integers throughout, "
            + ("quantisation-aware training" if self.trained else "post-training quantisation"),
        }[self.precision]
        scheme = {
            "none": "",
            "prune": f"; {self.percent} % zeros in the kernels (smaller after compression, not faster)",
            "2of4": "; two zeros in every four input channels (faster only on hardware with 2:4 sparsity)",
            "cluster16": "; 16 values per output channel (smaller after compression, not faster)",
            "slim": f"; {self.percent} % of the channels removed (smaller and faster on all hardware)",
        }[self.scheme]
        return precision + scheme


RECIPES = (*DEFAULT_RECIPES, "int8ptq", "2of4_int8", "cluster16_int8", "slim50", "slim50_int8")


def recipes(names: Iterable[str]) -> tuple[Recipe, ...]:
    """Return the recipes with these names, in order, without duplicates.

    Args:
        names: recipe names; empty for ``DEFAULT_RECIPES``; ``all`` for ``RECIPES``.

    Raises:
        ConfigError: unknown recipe.
    """
    requested = list(names) or list(DEFAULT_RECIPES)
    if "all" in requested:
        requested = list(RECIPES)
    return tuple(Recipe.parse(name) for name in dict.fromkeys(requested))


def check_format(name: str) -> str:
    """Return the name if it is one of ``FORMATS``.

    Raises:
        ConfigError: unknown format.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return name


def ancestry(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the recipe after all recipes it builds on, the first parent first."""
    chain = [recipe]
    while (parent := chain[0].parent) is not None:
        chain.insert(0, Recipe.parse(parent))
    return tuple(chain)
