"""The search space of ``tune``: training settings, and networks of three stages of blocks."""

import dataclasses
from pathlib import Path
from typing import Any

from histoedge import config
from histoedge.config import TrainConfig
from histoedge.edge.errors import ConfigError
from histoedge.edge.patches import PATCH_PX
from histoedge.lab.architecture import Network
from histoedge.lab.catalogue import BUDGETS
from histoedge.lab.graph import Row

SPACE: dict[str, Any] = {
    "learning_rate": (3e-4, 1e-2),
    "weight_decay": (1e-3, 1.0),
    "batch": (32, 64, 128, 256),
    "stain_jitter": (0.0, 0.4),
    "focus": (0.0, 1.5),
    "shift_px": (0, 12),
    "symmetric": (False, True),
    "stem_kernel": (3, 5, 7),
    "stem_stride": (2, 4),
    "rows": ((0, 2), (1, 3), (0, 3)),  # blocks per stage; the second and third stage start with stride 2
    "blocks": ("plain", "separable", "residual"),  # of a stage, see ``_block``; symmetric networks are plain
    "widest": {"nano": 64, "edge": 96, "accurate": 160, "tuned": 160},  # largest channel count by network name
}


def base_settings(file: Path | None, *, family: str | None, epochs: int | None, seed: int | None) -> TrainConfig:
    """Return the settings common to all trials, from the file's ``[train]`` and the options.

    ``network`` is the name of the family, or ``tuned`` without one.

    Raises:
        ConfigError: unknown family, or a table ``[network]`` in the file.
    """
    if family is not None and family not in BUDGETS:
        raise config.unknown_name("network family", family, BUDGETS)
    if file is not None and "network" in config.read_toml(file):
        raise ConfigError(f"{file}: tune searches the network; remove [network], or use histoedge train")
    options = {"network": family or "tuned", "epochs": epochs, "seed": seed}
    return config.resolve(TrainConfig, file=file, options=options)


def suggest(trial: Any, base: TrainConfig) -> tuple[TrainConfig, Network]:
    """Return the settings and the network of a trial. The network is valid, but may exceed its budget.

    Blocks are skipped when the output of the previous row is too small; the head covers the remaining output. In a
    symmetric network, kernels are enlarged until their windows reach both edges.
    """
    rate = trial.suggest_float("learning_rate", *SPACE["learning_rate"], log=True)
    decay = trial.suggest_float("weight_decay", *SPACE["weight_decay"], log=True)
    settings = dataclasses.replace(
        base,
        learning_rate=float(f"{rate:.3g}"),  # rounded as in best.toml, which then repeats the trial's training
        weight_decay=float(f"{decay:.3g}"),
        batch=trial.suggest_categorical("batch", SPACE["batch"]),
        stain_jitter=round(trial.suggest_float("stain_jitter", *SPACE["stain_jitter"], step=0.05), 2),
        focus=round(trial.suggest_float("focus", *SPACE["focus"], step=0.25), 2),
        shift_px=trial.suggest_int("shift_px", *SPACE["shift_px"], step=3),
    )
    widest = SPACE["widest"][base.network]
    symmetric = trial.suggest_categorical("symmetric", SPACE["symmetric"])
    rows: list[Row] = []
    size = PATCH_PX

    def add(block: str, channels: int, kernel: int, stride: int) -> None:
        nonlocal size
        if symmetric:
            kernel += (size - kernel) % stride
        rows.extend(_block(block, channels, kernel, stride, number=len(rows) + 1))
        size = (size - kernel) // stride + 1

    add(
        "plain",
        trial.suggest_int("stem_channels", 8, widest // 2, step=8),
        trial.suggest_categorical("stem_kernel", SPACE["stem_kernel"]),
        trial.suggest_categorical("stem_stride", SPACE["stem_stride"]),
    )
    for stage, (minimum, maximum) in enumerate(SPACE["rows"], start=1):
        count = trial.suggest_int(f"rows_{stage}", minimum, maximum)
        channels = trial.suggest_int(f"channels_{stage}", 8, widest, step=8)
        block = "plain" if symmetric else trial.suggest_categorical(f"block_{stage}", SPACE["blocks"])
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            if size >= 4:
                add(block, channels, 3, stride)
    rows.append(Row(kind="head", channels=1, kernel=size, bias=True))
    return settings, Network(base.network, tuple(rows), symmetric)


def _block(kind: str, channels: int, kernel: int, stride: int, *, number: int) -> list[Row]:
    """Return the rows of a block, the first of which is row ``number``. No block has padding: networks stay dense.

    ``plain``: a convolution. ``separable``: a depthwise convolution, then one with kernel 1 (MobileNet, Howard et al.
    2017). ``residual``: a convolution, and two with kernel 1 that are added to its output (He et al. 2016).
    """
    wide = Row(kind="conv", channels=channels, kernel=kernel, stride=stride)
    narrow = Row(kind="conv", channels=channels)
    if kind == "separable":
        return [Row(kind="depthwise", kernel=kernel, stride=stride), narrow]
    if kind == "residual":
        branch = [narrow, dataclasses.replace(narrow, activation="none")]
        inputs = (f"conv{number}", f"conv{number + 2}")
        return [wide, *branch, Row(kind="add", inputs=inputs, activation="relu")]
    return [wide]
