"""How fast training is: ``python benchmarks/throughput.py --data DATA --out F [--cores N]``.

Trains the network of ``edge.toml`` for some rounds of steps in three ways, in turns: as ``histoedge train`` does with
the patches held where Keras computes, as it does with the patches read ahead from DATA, and as a plain Keras ``fit``
does, on a generator that reads patches and runs the same augmentation, with Keras' own layers.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import config, data, files, metrics
from histoedge.benchmark import environment
from histoedge.config import TrainConfig
from histoedge.data import Split
from histoedge.lab import architecture, augment, backend, batches, catalogue
from histoedge.lab.trainee import Trainee

HERE = Path(__file__).parent
PATCHES = 8_192


def plain(keras: Any, network: architecture.Network, settings: TrainConfig) -> Any:
    """The network from Keras' own layers, to be fitted."""
    rows = network.layers
    layers: list[Any] = [keras.Input((architecture.PATCH_PX, architecture.PATCH_PX, 3))]
    for name, row in rows[:-1]:
        layers.append(keras.layers.Conv2D(row.channels, row.kernel, row.stride, use_bias=False, name=name))
        layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers += [keras.layers.Conv2D(1, rows[-1][1].kernel), keras.layers.Flatten()]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def generator(keras: Any, split: Split, settings: TrainConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Augmented batches without end; flips too, which plain kernels need."""
    layer = augment.layer(keras, settings)
    epoch = 0
    while True:
        held = batches.dataset(
            keras,
            lambda rows: split.patches[rows],
            split.labels,
            batch=settings.batch,
            seed=settings.seed,
            epoch=epoch,
        )
        for number in range(len(held)):
            patches, labels = held[number]
            yield np.asarray(keras.ops.convert_to_numpy(layer(patches, training=True))), labels
        epoch += 1


def throughput_command() -> None:
    """Write patches per second of both, their ratio, and the share of getting a batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    machine = environment.this_machine()  # before this process keeps to some of its CPUs
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    devices = backend.use_device("auto")
    keras = backend.keras()
    settings = config.resolve(TrainConfig, file=HERE / "edge.toml", options={})
    network = catalogue.named(settings.network, file=HERE / "edge.toml")
    split = batches.drawn(data.load(arguments.data, splits=("train",))["train"], PATCHES, seed=0)
    held, streamed = (
        Trainee(keras, network, settings, split, devices=devices, patches_on=on) for on in ("device", "disk")
    )
    model, stream = plain(keras, network, settings), generator(keras, split, settings)
    steps = PATCHES // settings.batch
    trainings: dict[str, Callable[[int], object]] = {
        "held": held.epoch,
        "read from disk": streamed.epoch,
        "plain fit": lambda _: model.fit(stream, steps_per_epoch=steps, epochs=1, verbose=0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(arguments.rounds + 1):
        for name in sorted(trainings, reverse=number % 2 == 0):
            started = time.perf_counter()
            trainings[name](number)
            if number:  # the first round compiles
                seconds[name].append((time.perf_counter() - started) / steps)
                sys.stderr.write(f"{name}: {settings.batch / seconds[name][-1]:,.0f} patches/s\n")
    rounds = {name: np.array(found)[:, None] for name, found in seconds.items()}
    against_plain = metrics.ratio_of_medians(rounds["plain fit"], rounds["held"])
    of_streaming = metrics.ratio_of_medians(rounds["read from disk"], rounds["held"])
    files.write_json(
        arguments.out,
        {
            "format": 1,
            "kind": "throughput",
            "about": f"{devices.summary}, {arguments.cores} cores used; {arguments.rounds} rounds of {steps} steps "
            f"each, in turns. With patches held, `histoedge train` is {against_plain.value:.2f} "
            f"[{against_plain.lo:.2f}, {against_plain.hi:.2f}] times as fast as a plain `fit` on a generator with the "
            f"same augmentation. Reading them from disk takes {of_streaming.value:.3f} [{of_streaming.lo:.3f}, "
            f"{of_streaming.hi:.3f}] of the time of held ones.",
            "command": "python benchmarks/throughput.py --data DATA --out F",
            "environment": machine,
            "rows": [
                {
                    "training": name,
                    "patches_per_s": settings.batch / float(np.median(found)),
                    "step_ms": 1e3 * float(np.median(found)),
                }
                for name, found in seconds.items()
            ],
            "ratio": against_plain.value,
            "ratio_lo": against_plain.lo,
            "ratio_hi": against_plain.hi,
            "disk_ratio": of_streaming.value,
            "disk_ratio_lo": of_streaming.lo,
            "disk_ratio_hi": of_streaming.hi,
        },
    )


if __name__ == "__main__":
    throughput_command()
