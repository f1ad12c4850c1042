"""How fast training is: ``python benchmarks/throughput.py --data DATA --out F [--cores N]``.

Trains the network of ``edge.toml`` for some rounds of steps in two ways, in turns: as ``histoedge train`` does, with
the patches on the device and the augmentation compiled; and as a plain Keras ``fit`` does, on a generator that reads
patches and runs the same augmentation, with Keras' own layers. Also times how long it takes to get a batch, alone.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import config, data, files, metrics
from histoedge.benchmark import environment
from histoedge.config import TrainConfig
from histoedge.data import Split
from histoedge.lab import augment, backend, batches, train
from histoedge.lab import network as networks

HERE = Path(__file__).parent
PATCHES = 8_192


def plain(keras: Any, network: networks.Network, settings: TrainConfig) -> Any:
    """The network from Keras' own layers, to be fitted."""
    rows = network.layers
    layers: list[Any] = [keras.Input((networks.PATCH_PX, networks.PATCH_PX, 3))]
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
        held = batches.dataset(keras, split, batch=settings.batch, seed=settings.seed, epoch=epoch)
        for number in range(len(held)):
            patches, labels = held[number]
            yield np.asarray(keras.ops.convert_to_numpy(layer(patches, training=True))), labels
        epoch += 1


def main() -> None:
    """Write patches per second of both, their ratio, and the share of getting a batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    machine = environment.describe()  # before this process keeps to some of its CPUs
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    device = backend.use_device("auto")
    keras = backend.keras()
    settings = config.resolve(TrainConfig, file=HERE / "edge.toml", options={})
    network = networks.named(settings.network, file=HERE / "edge.toml")
    split = batches.drawn(data.load(arguments.data, splits=("train",))["train"], PATCHES, seed=0)
    ours = train.Trainee(keras, network, settings, split, teacher=None)
    model, stream = plain(keras, network, settings), generator(keras, split, settings)
    steps = PATCHES // settings.batch
    seconds: dict[str, list[float]] = {"histoedge train": [], "plain fit": []}
    for number in range(arguments.rounds + 1):
        for name, run in (
            ("histoedge train", lambda: ours.epoch(number)),  # noqa: B023
            ("plain fit", lambda: model.fit(stream, steps_per_epoch=steps, epochs=1, verbose=0)),
        ):
            started = time.perf_counter()
            run()
            if number:  # the first round compiles
                seconds[name].append((time.perf_counter() - started) / steps)
                sys.stderr.write(f"{name}: {settings.batch / seconds[name][-1]:,.0f} patches/s\n")
    getting = _getting(keras, split, settings)
    ratio = metrics.ratio_of_medians(*(np.array(seconds[name])[:, None] for name in ("plain fit", "histoedge train")))
    step = float(np.median(seconds["histoedge train"]))
    files.write_json(
        arguments.out,
        {
            "format": 1,
            "kind": "throughput",
            "about": f"{device}, {arguments.cores} cores used; {arguments.rounds} rounds of {steps} steps each, in "
            f"turns. `histoedge train` is {ratio.value:.2f} [{ratio.lo:.2f}, {ratio.hi:.2f}] times as fast as a plain "
            f"`fit` on a generator with the same augmentation; getting a batch of {settings.batch} takes "
            f"{100 * getting / step:.1f} % of its step.",
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
            "ratio": ratio.value,
            "ratio_lo": ratio.lo,
            "ratio_hi": ratio.hi,
            "data_share": getting / step,
        },
    )


def _getting(keras: Any, split: Split, settings: TrainConfig) -> float:
    """Seconds to get one batch onto the device, median."""
    layer = train.on_device(keras, split)
    held = batches.numbered(keras, split.labels, batch=settings.batch, seed=0, epoch=0)
    times = []
    for number in range(len(held)):
        started = time.perf_counter()
        keras.ops.convert_to_numpy(layer(held[number][0]))
        times.append(time.perf_counter() - started)
    return float(np.median(times))


if __name__ == "__main__":
    main()
