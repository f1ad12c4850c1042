"""Settings, frozen: what to train, how to make it smaller, what to measure.

``resolve`` builds them in one order: defaults, then a TOML file, then options given by hand.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from histoedge.edge.errors import ConfigError

Device = Literal["auto", "gpu", "cpu"]
PatchesOn = Literal["auto", "device", "disk"]
Precision = Literal["fp32", "fp16", "int8"]

DEFAULT_RECIPES = ("fp32", "fp16", "int8", "prune50", "prune50_int8")
FORMATS = ("tflite", "onnx")


def nearest(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: it names the nearest one and lists all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"no {kind} is called {name!r}; {hint}known: {', '.join(known)}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the source network is trained.

    ``learning_rate`` is AdamW's peak; it rises over the first ``warmup`` share of all steps and then
    falls to zero along a cosine. ``flips``, ``shift_px``, ``focus`` and ``stain_jitter`` are the augmentations of
    ``lab.augment``; 0 turns one off. ``teacher_share`` is the part of the training target that a teacher's probability
    makes up, where there is one.
    """

    network: str = "edge"
    epochs: int = 14
    batch: int = 128
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    label_smoothing: float = 0.0
    flips: bool = True
    shift_px: int = 6
    focus: float = 1.0
    stain_jitter: float = 0.2
    teacher_share: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(self.batch >= 1, f"batch must be at least 1, got {self.batch}")
        _require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        _require(0 <= self.warmup < 1, f"warmup is a share of all steps from 0 to below 1, got {self.warmup}")
        _require(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        _require(0 <= self.label_smoothing < 1, f"label_smoothing must be in 0..1, got {self.label_smoothing}")
        for name in ("focus", "stain_jitter"):
            _require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        _require(0 <= self.shift_px <= 32, f"shift_px must be in 0..32, got {self.shift_px}")
        _require(0 <= self.teacher_share <= 1, f"teacher_share must be in 0..1, got {self.teacher_share}")
        _require(0 <= self.seed < 2**31, f"seed must be from 0 to {2**31 - 1}, got {self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """How a trained network is fine-tuned while it is pruned, slimmed or quantised.

    Lengths are optimiser steps, ``slim_epochs`` passes over the training patches. ``teacher_share`` is the part of
    the training target that comes from the source network's probability; the rest is the label; quantisation-aware
    training learns from the network it quantises alone. ``calibration_patches`` training patches set the activation
    ranges and rank the channels.
    """

    prune_steps: int = 600
    prune_learning_rate: float = 5e-4
    slim_epochs: int = 24
    slim_learning_rate: float = 2e-3
    quantise_steps: int = 200
    quantise_learning_rate: float = 3e-5
    batch: int = 128
    teacher_share: float = 0.7
    calibration_patches: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prune_steps", "quantise_steps"):
            _require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("batch", "calibration_patches", "slim_epochs"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("prune_learning_rate", "slim_learning_rate", "quantise_learning_rate"):
            _require(getattr(self, name) > 0, f"{name} must be above 0, got {getattr(self, name)}")
        _require(0 <= self.teacher_share <= 1, f"teacher_share must be in 0..1, got {self.teacher_share}")


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """What one call gets: ``batch`` square fields of ``field_px``; 96 is one patch."""

    batch: int
    field_px: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A shape with a name, and the key of a measurement that it is about."""

    shape: Shape
    figure: str


SCENARIOS = {
    "single-stream": Scenario(Shape(1, 96), "p90_ms"),
    "multi-stream": Scenario(Shape(8, 96), "p99_ms"),
    "offline": Scenario(Shape(64, 96), "patches_per_s"),
    "field": Scenario(Shape(1, 1024), "p90_ms"),
}
"""Names, queries and figures of MLPerf Inference (Reddi et al. 2020, table 2): one sample at a time and the 90th
percentile, 8 samples per query and the 99th, all at once and the throughput. ``field`` is ours: a region to a map."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What to measure: every file on every runtime named, for each of ``threads``, on fields of several shapes.

    The shapes are each ``batch`` with each ``field_px``, and those of the ``scenarios`` named. Without ``runtimes``
    a file is measured on all of ``edge.RUNTIMES`` that open it, and the source network in Keras.

    Timing runs in rounds: in each, every cell makes ``runs_per_round`` timed calls (fewer where these would take
    longer than ``round_s``), cells in random order, so that a drift of the machine hits all alike. A cell stops after
    ``rounds`` rounds or more, when its calls add up to ``min_seconds`` and the 95 % interval of its p50 is at most
    ``settled_width`` of p50 wide; one that has not settled after ``max_seconds`` of calls stops ``unsettled``.
    ``timeout_s`` bounds one request to one cell. ``integer_peak`` also measures how fast the machine multiplies
    integers at all, to which ``peak_share`` refers. ``robustness`` also lets every file answer the test split after
    each of ``data.perturb.PERTURBATIONS``, which costs as many times what the split alone costs.
    """

    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    batch: tuple[int, ...] = (1,)
    field_px: tuple[int, ...] = (96,)
    scenarios: tuple[str, ...] = ()
    rounds: int = 10
    runs_per_round: int = 50
    round_s: float = 2.0
    warmup_runs: int = 20
    min_seconds: float = 0.0
    max_seconds: float = 10.0
    settled_width: float = 0.10
    timeout_s: float = 600.0
    integer_peak: bool = True
    robustness: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "runs_per_round"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name, least in (("threads", 1), ("batch", 1), ("field_px", 96)):
            values = getattr(self, name)
            _require(bool(values), f"{name} must hold at least one number")
            for value in values:
                _require(value >= least, f"{name} must be at least {least}, got {value}")
        for name in self.scenarios:
            if name not in SCENARIOS:
                raise nearest("scenario", name, SCENARIOS)
        for name in ("warmup_runs", "min_seconds", "max_seconds"):
            _require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        _require(
            self.min_seconds <= self.max_seconds,
            f"min_seconds must be at most max_seconds, got {self.min_seconds} and {self.max_seconds}",
        )
        for name in ("round_s", "settled_width", "timeout_s"):
            _require(getattr(self, name) > 0, f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Each once: batches by field sizes, then those of the scenarios."""
        grid = [Shape(batch, field_px) for field_px in self.field_px for batch in self.batch]
        return tuple(dict.fromkeys(grid + [SCENARIOS[name].shape for name in self.scenarios]))


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


Settings = TypeVar("Settings", TrainConfig, CompressConfig, BenchPlan)


def resolve(kind: type[Settings], *, file: Path | None = None, options: Mapping[str, Any]) -> Settings:
    """Settings of this kind: defaults, overridden by the file's table, overridden by options that are not None.

    The TOML file holds one table per kind: ``[train]``, ``[compress]``, ``[bench]``. Where it also holds a
    ``[network]``, that is the network to train.

    Raises:
        ConfigError: the file cannot be read, names a setting that does not exist or has the wrong type, or holds
            another network than the one asked for.
    """
    table = {TrainConfig: "train", CompressConfig: "compress", BenchPlan: "bench"}[kind]
    tables = {} if file is None else read_toml(file)
    chosen = typed(kind, tables.get(table, {}), where=f"{file}: [{table}]")
    chosen.update({name: value for name, value in options.items() if value is not None})
    own = tables.get("network", {}).get("name")
    if kind is TrainConfig and own is not None and chosen.setdefault("network", own) != own:
        raise ConfigError(
            f"{file}: holds the network {own!r}, but {chosen['network']!r} is asked for; give one of them"
        )
    return kind(**chosen)


def typed(kind: type, given: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The values of a TOML table, each checked to be a field of this dataclass and of its default's type.

    A field without a default is a string. A list may be given as its one value; where its default is empty it holds
    strings.

    Raises:
        ConfigError: an unknown name, or a value of another type; ``where`` begins the line.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    chosen = dict(given)
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(f"{where} {nearest('setting', name, fields)}")
        default = "" if fields[name].default is dataclasses.MISSING else fields[name].default
        if isinstance(default, tuple):
            chosen[name] = value = tuple(value) if isinstance(value, list) else (value,)
            item = type(default[0]) if default else str
            if odd := [one for one in value if type(one) is not item]:
                raise ConfigError(f"{where} {name} must hold values of type {item.__name__}, got {odd[0]!r}")
        if isinstance(default, float) and type(value) is int:
            chosen[name] = value = float(value)
        if type(value) is not type(default):
            raise ConfigError(f"{where} {name} must be of type {type(default).__name__}, got {value!r}")
    return chosen


TABLES = ("train", "compress", "bench", "network")


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a settings file.

    Raises:
        ConfigError: missing, not TOML, or with a table that is none of ``TABLES``.
    """
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such settings file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: not a readable TOML file ({error})") from error
    for name, value in tables.items():
        if name not in TABLES:
            raise ConfigError(f"{file}: {nearest('table', name, TABLES)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{file}: {name} must be a table like [{name}], got {value!r}")
    return tables
