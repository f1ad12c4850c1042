"""Effect of each training choice: ``python benchmarks/ablations.py --data DATA --out F [--seed S]...``.

Trains the network of ``ablations.toml`` for a few epochs on a part of the training patches, with one choice changed at
a time, and reports the AUC on the valid split; the test split is not used. Each row is written when its training ends;
an unfinished results file is continued.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import Row, recorded_rows, run_script, write_record

from histoedge import config, data
from histoedge.config import TrainConfig
from histoedge.data import Split
from histoedge.lab import backend, batches, catalogue, train
from histoedge.lab.trainee import TrainingJob

HERE = Path(__file__).parent
PATCHES = 10_000

OFF = {"shift_px": 0, "focus": 0.0, "stain_jitter": 0.0}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {"ablations.toml": {}},
    "augmentation": {
        "none": OFF,
        "no shift": {"shift_px": 0},
        "no focus": {"focus": 0.0},
        "no stain jitter": {"stain_jitter": 0.0},
        "twice the stain jitter": {"stain_jitter": 0.4},
        "plain kernels, random flips": {"symmetric": False},
        "plain kernels, no flips": {"symmetric": False, "flips": False},
        "label smoothing 0.1": {"label_smoothing": 0.1},
    },
    "hyperparameters": {
        "learning rate / 3": {"learning_rate": 7e-4},
        "learning rate x 3": {"learning_rate": 6e-3},
        "no weight decay": {"weight_decay": 0.0},
        "5 times the weight decay": {"weight_decay": 0.5},
        "batch 32": {"batch": 32},
        "batch 256": {"batch": 256},
    },
    "preprocessing": {
        "grey": {"pixels": "grey"},
        "mean and spread of each patch": {"pixels": "standardised"},
        "optical density": {"pixels": "density"},
    },
    "training patches": {
        "1,000": {"patches": 1_000, "epochs": 100},
        "3,000": {"patches": 3_000, "epochs": 33},
        "all": {"patches": 10**9, "epochs": 3},
    },
}


def grey(patches: np.ndarray) -> np.ndarray:
    """Return the luma (ITU-R BT.601) in all three channels."""
    return np.repeat((patches @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None], 3, axis=-1)


def standardised(patches: np.ndarray) -> np.ndarray:
    """Shift and scale each channel of each patch to mean 160 and standard deviation 40."""
    floats = patches.astype(np.float32)
    mean, spread = floats.mean((1, 2), keepdims=True), floats.std((1, 2), keepdims=True)
    return np.asarray(((floats - mean) / np.maximum(spread, 1) * 40 + 160).round().clip(0, 255), np.uint8)


def density(patches: np.ndarray) -> np.ndarray:
    """Return the optical density, with 0 to log(255) mapped to 255 to 0."""
    densities = np.log(255 / np.maximum(patches, 1, dtype=np.float32)) / np.log(255)
    return np.asarray((255 - densities * 255).round(), np.uint8)


PIXELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "grey": grey,
    "standardised": standardised,
    "density": density,
}


def with_pixels(split: Split, pixels: str | None) -> Split:
    """Return the split with each patch preprocessed by a function of ``PIXELS``; unchanged for None."""
    if pixels is None:
        return split
    patches = np.concatenate([PIXELS[pixels](split.patches[n : n + 1000]) for n in range(0, len(split.labels), 1000)])
    return Split(split.name, patches, split.labels, split.ids)


def training_figures(splits: dict[str, Split], base: TrainConfig, changes: dict[str, Any], seed: int) -> Row:
    """Train once with the changed choice; return its figures."""
    rest = dict(changes)
    count, pixels = rest.pop("patches", PATCHES), rest.pop("pixels", None)
    network = catalogue.get_network(base.network)
    network = dataclasses.replace(network, symmetric=rest.pop("symmetric", network.symmetric))
    settings = dataclasses.replace(base, **{"seed": seed, **rest})
    part = {"train": batches.draw_subset(splits["train"], count, seed=seed), "valid": splits["valid"]}
    part = {name: with_pixels(split, pixels) for name, split in part.items()}
    backend.keras().backend.clear_session()
    devices = backend.use_device("auto")
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        state = Path(folder) / "state.h5"
        job = TrainingJob(network=network, splits=part, config=settings, devices=devices)
        trained = train.fit(job, state=state, inputs={})
    return {
        "patches": len(part["train"].labels),
        "epochs": settings.epochs,
        "best_valid_auc": trained.best_auc,
        "last_valid_auc": trained.history[-1]["valid_auc"],
        "last_loss": trained.history[-1]["loss"],
    }


def ablations_command() -> None:
    """Write a row for each choice and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set; train and valid are used")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON); an unfinished one is continued")
    parser.add_argument("--seed", type=int, action="append", help="repeatable; default: 0")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="repeatable; default: all questions")
    arguments = parser.parse_args()
    splits = data.load(arguments.data, splits=("train", "valid"))
    base = config.resolve(TrainConfig, file=HERE / "ablations.toml", options={})
    rows = recorded_rows(arguments.out)
    for seed in arguments.seed or [0]:
        for question in arguments.only or VARIANTS:
            for name, changes in VARIANTS[question].items():
                key = {"question": question, "choice": name, "seed": seed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append(key | training_figures(splits, base, changes, seed))
                sys.stderr.write(f"{rows[-1]}\n")
                _write(arguments.out, rows)


def _write(out: Path, rows: list[Row]) -> None:
    write_record(
        out,
        kind="ablations",
        command="python benchmarks/ablations.py --data DATA --out F",
        about=f"One choice of `ablations.toml` is changed at a time. Without a teacher; {PATCHES:,} training patches "
        "and 10 epochs where the row does not list other values. AUC on `valid` only, of the best epoch.",
        rows=rows,
    )


if __name__ == "__main__":
    run_script(ablations_command)
