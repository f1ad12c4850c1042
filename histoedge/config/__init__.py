"""Frozen settings for training, compression and benchmarks, and the recipes.

``resolve`` builds settings from the defaults, a TOML file and command-line options, in this order.
"""

from histoedge.config.fields import meaning, setting, setting_rows, unknown_name
from histoedge.config.file import KINDS, TABLES, compress_settings, read_toml, resolve, typed_values
from histoedge.config.recipe import (
    DEFAULT_RECIPES,
    RECIPES,
    Precision,
    Recipe,
    ancestry,
    check_format,
    recipes,
)
from histoedge.config.settings import SCENARIOS, BenchPlan, CompressConfig, Device, PatchesOn, Shape, TrainConfig

__all__ = [
    "DEFAULT_RECIPES",
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
    "check_format",
    "compress_settings",
    "meaning",
    "read_toml",
    "recipes",
    "resolve",
    "setting",
    "setting_rows",
    "typed_values",
    "unknown_name",
]
