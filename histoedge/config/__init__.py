"""Settings, frozen: what to train, how to make it smaller, what to measure.

``resolve`` builds them in one order: defaults, then a TOML file, then options given by hand.
"""

from histoedge.config.fields import described, meaning, nearest, setting
from histoedge.config.file import KINDS, TABLES, read_toml, resolve, typed
from histoedge.config.recipe import (
    DEFAULT_RECIPES,
    FORMATS,
    RECIPES,
    Precision,
    Recipe,
    ancestry,
    format_named,
    recipes,
)
from histoedge.config.settings import SCENARIOS, BenchPlan, CompressConfig, Device, PatchesOn, Shape, TrainConfig

__all__ = [
    "DEFAULT_RECIPES",
    "FORMATS",
    "KINDS",
    "RECIPES",
    "SCENARIOS",
    "TABLES",
    "BenchPlan",
    "CompressConfig",
    "Device",
    "PatchesOn",
    "Precision",
    "Recipe",
    "Shape",
    "TrainConfig",
    "ancestry",
    "described",
    "format_named",
    "meaning",
    "nearest",
    "read_toml",
    "recipes",
    "resolve",
    "setting",
    "typed",
]
