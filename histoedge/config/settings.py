"""Settings, frozen: what to train, how to make it smaller, what to measure.

``resolve`` builds them in one order: defaults, then a TOML file, then options given by hand.
"""

import dataclasses
from typing import Literal

from histoedge.config.fields import nearest, require, setting

Device = Literal["auto", "gpu", "cpu"]
PatchesOn = Literal["auto", "device", "disk"]


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
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch >= 1, f"batch must be at least 1, got {self.batch}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.warmup < 1, f"warmup is a share of all steps from 0 to below 1, got {self.warmup}")
        require(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        require(0 <= self.label_smoothing < 1, f"label_smoothing must be in 0..1, got {self.label_smoothing}")
        for name in ("focus", "stain_jitter"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        require(0 <= self.shift_px <= 32, f"shift_px must be in 0..32, got {self.shift_px}")
        require(0 <= self.teacher_share <= 1, f"teacher_share must be in 0..1, got {self.teacher_share}")
        require(0 <= self.seed < 2**31, f"seed must be from 0 to {2**31 - 1}, got {self.seed}")


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
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("batch", "calibration_patches", "slim_epochs"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("prune_learning_rate", "slim_learning_rate", "quantise_learning_rate"):
            require(getattr(self, name) > 0, f"{name} must be above 0, got {getattr(self, name)}")
        require(0 <= self.teacher_share <= 1, f"teacher_share must be in 0..1, got {self.teacher_share}")


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
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name, least in (("threads", 1), ("batch", 1), ("field_px", 96)):
            values = getattr(self, name)
            require(bool(values), f"{name} must hold at least one number")
            for value in values:
                require(value >= least, f"{name} must be at least {least}, got {value}")
        for name in self.scenarios:
            if name not in SCENARIOS:
                raise nearest("scenario", name, SCENARIOS)
        for name in ("warmup_runs", "min_seconds", "max_seconds"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        require(
            self.min_seconds <= self.max_seconds,
            f"min_seconds must be at most max_seconds, got {self.min_seconds} and {self.max_seconds}",
        )
        for name in ("round_s", "settled_width", "timeout_s"):
            require(getattr(self, name) > 0, f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Each once: batches by field sizes, then those of the scenarios."""
        grid = [Shape(batch, field_px) for field_px in self.field_px for batch in self.batch]
        return tuple(dict.fromkeys(grid + [SCENARIOS[name].shape for name in self.scenarios]))
