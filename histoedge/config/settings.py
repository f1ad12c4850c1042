"""Settings classes for training, compression and benchmarks, with their bounds."""

import dataclasses
from typing import Literal

from histoedge.config.fields import require, setting, unknown_name

Device = Literal["auto", "gpu", "cpu"]
PatchesOn = Literal["auto", "device", "disk"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training settings of the source network: the table ``[train]``."""

    network: str = setting("edge", "network name from histoedge list networks, or the name in [network]")
    epochs: int = setting(14, "passes over the training patches")
    batch: int = setting(128, "batch size", unit="patches")
    learning_rate: float = setting(2e-3, "peak learning rate of AdamW; cosine decay to 0 after the warmup")
    warmup: float = setting(0.05, "share of all steps with linear warmup of the learning rate")
    weight_decay: float = setting(0.1, "weight decay of AdamW, kernels only")
    label_smoothing: float = setting(0.0, "label smoothing: share of each label moved towards 0.5")
    flips: bool = setting(True, "augmentation: random flips and 90 degree turns; unused by symmetric networks")
    shift_px: int = setting(6, "augmentation: largest shift; 0 turns it off", unit="px")
    focus: float = setting(1.0, "augmentation: strength of blur and sharpening; 0 turns it off")
    stain_jitter: float = setting(0.2, "augmentation: stain variation in optical density; 0 turns it off")
    teacher_share: float = setting(0.7, "distillation: weight of the teacher's probability in the target, 0..1")
    seed: int = setting(0, "random seed")

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch >= 1, f"batch must be at least 1, got {self.batch}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.warmup < 1, f"warmup must be at least 0 and below 1, got {self.warmup}")
        require(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        require(
            0 <= self.label_smoothing < 1, f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}"
        )
        for name in ("focus", "stain_jitter"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        require(0 <= self.shift_px <= 32, f"shift_px must be in 0..32, got {self.shift_px}")
        require(0 <= self.teacher_share <= 1, f"teacher_share must be in 0..1, got {self.teacher_share}")
        require(0 <= self.seed < 2**31, f"seed must be from 0 to {2**31 - 1}, got {self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Fine-tuning settings for pruning, slimming and quantisation: the table ``[compress]``.

    The target of quantisation-aware training is the output of the parent network; it uses no labels.
    """

    prune_steps: int = setting(600, "pruning: number of training steps", unit="steps")
    prune_learning_rate: float = setting(5e-4, "pruning: first learning rate of Adam; cosine decay to 0")
    slim_epochs: int = setting(24, "slimming: passes over the training patches")
    slim_learning_rate: float = setting(2e-3, "slimming: peak learning rate of AdamW")
    quantise_steps: int = setting(200, "quantisation-aware training: number of steps", unit="steps")
    quantise_learning_rate: float = setting(3e-5, "quantisation-aware training: first learning rate of Adam")
    batch: int = setting(128, "batch size", unit="patches")
    teacher_share: float = setting(0.7, "pruning, slimming: weight of the source network's output in the target, 0..1")
    calibration_patches: int = setting(1024, "training patches that set activation ranges and rank channels")
    seed: int = setting(0, "random seed; if not set, the seed of the training")
    keep_float: tuple[str, ...] = setting(
        (), "int8: names of the layers that stay in float32; auto: the fewest that reach keep_float_loss"
    )
    keep_float_loss: float = setting(0.001, "keep_float = auto: largest loss of AUC on valid against the float network")

    def __post_init__(self) -> None:
        for name in ("prune_steps", "quantise_steps"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("batch", "calibration_patches", "slim_epochs"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("prune_learning_rate", "slim_learning_rate", "quantise_learning_rate"):
            require(getattr(self, name) > 0, f"{name} must be above 0, got {getattr(self, name)}")
        require(0 <= self.teacher_share <= 1, f"teacher_share must be in 0..1, got {self.teacher_share}")
        names = self.keep_float
        require(len(set(names)) == len(names), f"keep_float contains a name twice: {', '.join(names)}")
        require(
            "auto" not in names or len(names) == 1, "keep_float contains auto and other names; use only one of both"
        )
        require(0 <= self.keep_float_loss <= 1, f"keep_float_loss must be in 0..1, got {self.keep_float_loss}")

    @property
    def chooses_float(self) -> bool:
        """Whether the layers that stay in float are chosen by their errors."""
        return self.keep_float == ("auto",)


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """Input shape of one call: ``batch`` square fields of ``field_px`` px; 96 is one patch of any size."""

    batch: int
    field_px: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A named input shape and its main figure, a key of a measurement."""

    shape: Shape
    figure: str


SCENARIOS = {
    "single-stream": Scenario(Shape(1, 96), "p90_ms"),
    "multi-stream": Scenario(Shape(8, 96), "p99_ms"),
    "offline": Scenario(Shape(64, 96), "patches_per_s"),
    "field": Scenario(Shape(1, 1024), "p90_ms"),
}
"""Names, queries and figures of MLPerf Inference (Reddi et al. 2020, table 2): one sample at a time with the 90th
percentile, 8 samples per query with the 99th percentile, all samples at once with the throughput. ``field`` is an
addition of histoedge: one region of a slide to one map."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What to measure and for how long: the table ``[bench]``.

    Every file is measured on every runtime with each value of ``threads``, for each combination of ``batch`` and
    ``field_px`` and for the shapes of the ``scenarios``. Each such combination is a cell. The cells alternate in
    rounds: a drift of the machine affects all cells of a round. A cell stops after ``rounds`` rounds and
    ``min_seconds`` once the interval of its median is narrow enough (``settled_width``).
    """

    runtimes: tuple[str, ...] = setting((), "runtimes; empty: Keras and the default runtimes of each file")
    threads: tuple[int, ...] = setting((1,), "list of thread counts of the runtime")
    batch: tuple[int, ...] = setting((1,), "list of batch sizes, in fields per call")
    field_px: tuple[int, ...] = setting((96,), "list of field sides; 96 is one patch of any size", unit="px")
    scenarios: tuple[str, ...] = setting((), "additional shapes: single-stream, multi-stream, offline, field")
    rounds: int = setting(10, "minimum number of rounds; each round runs all cells in random order")
    runs_per_round: int = setting(50, "timed calls per cell and round", unit="calls")
    round_s: float = setting(2.0, "time limit per cell and round; slow cells get fewer calls", unit="s")
    warmup_runs: int = setting(20, "untimed calls before the first timed call", unit="calls")
    min_seconds: float = setting(0.0, "minimum total time of a cell's calls", unit="s")
    max_seconds: float = setting(10.0, "maximum total time of a cell's calls", unit="s")
    settled_width: float = setting(0.10, "a cell stops when the 95 % interval of p50 is this narrow", unit="share")
    timeout_s: float = setting(600.0, "time limit of one request to a cell", unit="s")
    integer_peak: bool = setting(True, "measure the peak integer throughput of the machine, reference of peak_share")
    robustness: bool = setting(False, "evaluate every file on the test split under each of ten perturbations")
    seed: int = setting(0, "random seed")

    def __post_init__(self) -> None:
        for name in ("rounds", "runs_per_round"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name, minimum in (("threads", 1), ("batch", 1), ("field_px", 32)):
            values = getattr(self, name)
            require(bool(values), f"{name} must contain at least one number")
            for value in values:
                require(value >= minimum, f"{name} must be at least {minimum}, got {value}")
        for name in self.scenarios:
            if name not in SCENARIOS:
                raise unknown_name("scenario", name, SCENARIOS)
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
        """All input shapes without duplicates: each batch size with each field side, then the scenarios."""
        grid = [Shape(batch, field_px) for field_px in self.field_px for batch in self.batch]
        return tuple(dict.fromkeys(grid + [SCENARIOS[name].shape for name in self.scenarios]))
