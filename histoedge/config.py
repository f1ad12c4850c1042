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


def meaning(what: str, *, unit: str = "") -> dict[str, str]:
    """The metadata of a field that a settings file may set: what it means and in which unit it counts."""
    return {"meaning": what, "unit": unit}


def setting(default: Any, what: str, *, unit: str = "") -> Any:
    """A field with this default and ``meaning``."""
    return dataclasses.field(default=default, metadata=meaning(what, unit=unit))


def described(kind: type, *, table: str) -> list[dict[str, Any]]:
    """A row per field of a dataclass of settings: table, key, default (None: there is none), unit, meaning."""
    return [
        {
            "table": table,
            "key": field.name,
            "default": _in_toml(field.default),
            "unit": field.metadata["unit"],
            "meaning": field.metadata["meaning"],
        }
        for field in dataclasses.fields(kind)
    ]


def _in_toml(default: Any) -> Any:
    if default is dataclasses.MISSING:
        return None
    return list(default) if isinstance(default, tuple) else default


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the source network is trained: the table ``[train]``."""

    network: str = setting("edge", "name of the network, see histoedge list networks; or that of [network]")
    epochs: int = setting(14, "passes over the training patches")
    batch: int = setting(128, "patches in a step", unit="patches")
    learning_rate: float = setting(2e-3, "peak of AdamW; falls to 0 along a cosine over all steps after the warmup")
    warmup: float = setting(0.05, "share of all steps over which the learning rate rises")
    weight_decay: float = setting(0.1, "weight decay of AdamW, on kernels alone")
    label_smoothing: float = setting(0.0, "share of each label that is moved towards 0.5")
    flips: bool = setting(True, "augmentation: the eight orientations; a symmetric network has them built in")
    shift_px: int = setting(6, "augmentation: largest shift, 0 turns it off", unit="px")
    focus: float = setting(1.0, "augmentation: how strongly to blur or sharpen, 0 turns it off")
    stain_jitter: float = setting(0.2, "augmentation: change of both stains in optical density, 0 turns it off")
    teacher_share: float = setting(0.7, "with a teacher: share of the target that is its probability, not the label")
    seed: int = setting(0, "seed of everything that is drawn")

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
    """How a trained network is fine-tuned while it is pruned, slimmed or quantised: the table ``[compress]``.

    Quantisation-aware training learns from the network it quantises alone.
    """

    prune_steps: int = setting(600, "pruning: how long", unit="steps")
    prune_learning_rate: float = setting(5e-4, "pruning: of Adam at the first step; falls to 0 along a cosine")
    slim_epochs: int = setting(24, "slimming: passes over the training patches")
    slim_learning_rate: float = setting(2e-3, "slimming: peak of AdamW")
    quantise_steps: int = setting(200, "quantisation-aware training: how long", unit="steps")
    quantise_learning_rate: float = setting(3e-5, "quantisation-aware training: of Adam at the first step")
    batch: int = setting(128, "patches in a step", unit="patches")
    teacher_share: float = setting(0.7, "pruning, slimming: share of the target that the source network tells")
    calibration_patches: int = setting(1024, "training patches that set activation ranges and rank channels")
    seed: int = setting(0, "seed of everything that is drawn")

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
    """What to measure, and how long: the table ``[bench]``.

    Every file is measured on every runtime, for each of ``threads``, on each ``batch`` of each ``field_px`` and on the
    shapes of the ``scenarios``. A drift of the machine hits all cells of a round alike. A cell stops when it has
    ``rounds`` and ``min_seconds`` and has settled.
    """

    runtimes: tuple[str, ...] = setting((), "what to measure on; empty: Keras and all that open a file unasked")
    threads: tuple[int, ...] = setting((1,), "threads of the runtime, each of these")
    batch: tuple[int, ...] = setting((1,), "fields in a call, each of these")
    field_px: tuple[int, ...] = setting((96,), "side of a field, each of these; 96 is one patch", unit="px")
    scenarios: tuple[str, ...] = setting((), "shapes to measure too: single-stream, multi-stream, offline, field")
    rounds: int = setting(10, "at least so many rounds, all cells in random order in each")
    runs_per_round: int = setting(50, "timed calls of a cell in a round", unit="calls")
    round_s: float = setting(2.0, "longest time of a cell in a round, with fewer calls", unit="s")
    warmup_runs: int = setting(20, "calls before the first that is timed", unit="calls")
    min_seconds: float = setting(0.0, "least time of all calls of a cell", unit="s")
    max_seconds: float = setting(10.0, "longest time of all calls of a cell, settled or not", unit="s")
    settled_width: float = setting(0.10, "a cell has settled when the 95 % interval of p50 is no wider", unit="share")
    timeout_s: float = setting(600.0, "longest time of one request to a cell", unit="s")
    integer_peak: bool = setting(True, "measure how fast the machine multiplies integers, to which peak_share refers")
    robustness: bool = setting(False, "let every file answer the test split again after each of ten perturbations")
    seed: int = setting(0, "seed of everything that is drawn")

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


KINDS: dict[str, type] = {"train": TrainConfig, "compress": CompressConfig, "bench": BenchPlan}
"""What each table of a settings file holds; ``[network]`` is the lab's."""

Settings = TypeVar("Settings", TrainConfig, CompressConfig, BenchPlan)


def resolve(kind: type[Settings], *, file: Path | None = None, options: Mapping[str, Any]) -> Settings:
    """Settings of this kind: defaults, overridden by the file's table, overridden by options that are not None.

    The TOML file holds one table per kind: ``[train]``, ``[compress]``, ``[bench]``. Where it also holds a
    ``[network]``, that is the network to train.

    Raises:
        ConfigError: the file cannot be read, names a setting that does not exist or has the wrong type, or holds
            another network than the one asked for.
    """
    table = next(name for name, its_kind in KINDS.items() if its_kind is kind)
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


TABLES = (*KINDS, "network")


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
