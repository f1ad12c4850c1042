"""Training throughput: ``python benchmarks/throughput.py --data DATA --out F [--cores N]``.

Trains the network of ``edge.toml`` for some rounds of steps in three ways, alternating: as ``histoedge train`` with the
patches in the memory of the computing device, as ``histoedge train`` with the patches read ahead from DATA, and as a
plain Keras ``fit`` with Keras' own layers, on a generator that reads patches and applies the same augmentation.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from record import Row, run_script, write_record
from targets import pin_to_cores

from histoedge import config, data, metrics
from histoedge.benchmark import environment
from histoedge.config import TrainConfig
from histoedge.data import Split
from histoedge.edge.patches import PATCH_PX
from histoedge.lab import architecture, augment, backend, batches, catalogue
from histoedge.lab.trainee import Trainee, TrainingJob

HERE = Path(__file__).parent
PATCHES = 8_192


def plain(keras: Any, network: architecture.Network, settings: TrainConfig) -> Any:
    """Return the network built from Keras' own layers, compiled."""
    rows = network.layers
    layers: list[Any] = [keras.Input((PATCH_PX, PATCH_PX, 3))]
    for name, row in rows[:-1]:
        layers.append(keras.layers.Conv2D(row.channels, row.kernel, row.stride, use_bias=False, name=name))
        layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers += [keras.layers.Conv2D(1, rows[-1][1].kernel), keras.layers.Flatten()]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def generator(keras: Any, split: Split, settings: TrainConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield augmented batches without end; with flips, which plain kernels need."""
    layer = augment.layer(keras, settings)
    epoch = 0
    while True:
        dataset = batches.dataset(
            keras,
            lambda rows: split.patches[rows],
            split.labels,
            batch=settings.batch,
            seed=settings.seed,
            epoch=epoch,
        )
        for number in range(len(dataset)):
            patches, labels = dataset[number]
            yield np.asarray(keras.ops.convert_to_numpy(layer(patches, training=True))), labels
        epoch += 1


def time_steps(trainings: Mapping[str, Callable[[int], object]], *, rounds: int, steps: int) -> dict[str, np.ndarray]:
    """Return the seconds per step (rounds,) of each training; the first, untimed round compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(rounds + 1):
        for name in sorted(trainings, reverse=number % 2 == 0):
            started = time.perf_counter()
            trainings[name](number)
            if number:
                seconds[name].append((time.perf_counter() - started) / steps)
                sys.stderr.write(f"{name}: {1e3 * seconds[name][-1]:,.1f} ms per step\n")
    return {name: np.array(times) for name, times in seconds.items()}


def throughput_row(name: str, step_s: np.ndarray, *, batch: int) -> Row:
    """Return the row of a training, from the seconds per step of its rounds."""
    median_s = float(np.median(step_s))
    return {"training": name, "patches_per_s": batch / median_s, "step_ms": 1e3 * median_s}


def throughput_command() -> None:
    """Write the patches per second of each way of training, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set; its train split is used")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--cores", type=int, default=2, help="CPUs that this process may use")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    machine = environment.this_machine()  # before this process is pinned
    pin_to_cores(arguments.cores)
    devices = backend.use_device("auto")
    keras = backend.keras()
    settings = config.resolve(TrainConfig, file=HERE / "edge.toml", options={})
    network = catalogue.get_network(settings.network, file=HERE / "edge.toml")
    split = batches.draw_subset(data.load(arguments.data, splits=("train",))["train"], PATCHES, seed=0)
    in_memory, streamed = (
        Trainee(
            keras,
            TrainingJob(network=network, splits={"train": split}, config=settings, devices=devices, patches_on=on),
        )
        for on in ("device", "disk")
    )
    model, stream = plain(keras, network, settings), generator(keras, split, settings)
    steps = PATCHES // settings.batch
    step_s = time_steps(
        {
            "held": in_memory.epoch,
            "read from disk": streamed.epoch,
            "plain fit": lambda _: model.fit(stream, steps_per_epoch=steps, epochs=1, verbose=0),
        },
        rounds=arguments.rounds,
        steps=steps,
    )
    rounds = {name: seconds[:, None] for name, seconds in step_s.items()}
    speedup = metrics.ratio_of_medians(rounds["plain fit"], rounds["held"])
    disk = metrics.ratio_of_medians(rounds["read from disk"], rounds["held"])
    write_record(
        arguments.out,
        kind="throughput",
        command="python benchmarks/throughput.py --data DATA --out F",
        about=f"{devices.summary}, {arguments.cores} cores used; {arguments.rounds} rounds of {steps} steps each, "
        f"alternating. With the patches in device memory, `histoedge train` is {speedup.value:.2f} [{speedup.lo:.2f}, "
        f"{speedup.hi:.2f}] times as fast as a plain `fit` on a generator with the same augmentation. Reading the "
        f"patches from disk takes {disk.value:.3f} [{disk.lo:.3f}, {disk.hi:.3f}] of the time with the patches in "
        "device memory.",
        machine=machine,
        rows=[throughput_row(name, seconds, batch=settings.batch) for name, seconds in step_s.items()],
        ratio=speedup.value,
        ratio_lo=speedup.lo,
        ratio_hi=speedup.hi,
        disk_ratio=disk.value,
        disk_ratio_lo=disk.lo,
        disk_ratio_hi=disk.hi,
    )


if __name__ == "__main__":
    run_script(throughput_command)
