"""Training the source network in Keras 3, on any backend, so that it can be killed at any moment."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files, metrics
from histoedge.cell import peak_rss_bytes
from histoedge.config import Device, PatchesOn, TrainConfig
from histoedge.data import Split
from histoedge.edge.errors import ConfigError
from histoedge.lab import appearance, architecture, backend, calibrate, catalogue, checkpoint, placement, watching
from histoedge.lab.architecture import Network
from histoedge.lab.backend import Devices
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.trainee import Teacher, Trained, Trainee, log
from histoedge.lab.watching import Watch
from histoedge.lab.weights import Arrays
from histoedge.progress import Progress, silent

STATE = ".train.state.h5"


def train_inputs(
    config: TrainConfig, splits: Mapping[str, Split], network: Network, teacher: Path | None = None
) -> dict[str, Any]:
    """Everything that decides the weights: settings, architecture, data, the teacher's bytes."""
    return {
        "train": dataclasses.asdict(config),
        "network": network.as_json(),
        "data": {name: splits[name].content_hash for name in ("train", "valid")},
        "teacher": None if teacher is None else files.sha256(checkpoint.path_of(teacher, "fp32")),
    }


def refuse_other_settings(run: Path, inputs: Mapping[str, Any]) -> None:
    """Pass a folder that is empty, not there, or a run with these settings.

    Raises:
        ConfigError: the folder holds other settings, or files that are no run of ours.
    """
    path = run / "network.json"
    if path.is_file():
        held = architecture.read_json(path)
        for table in ("train", "data"):
            was, asked = held.get(table, {}), json.loads(json.dumps(inputs[table]))
            for key in sorted(was.keys() | asked.keys()):
                if (table, key) == ("train", "epochs") and was.get(key) != asked.get(key):
                    raise ConfigError(_another_length(run, was.get(key), asked[key]))
                if was.get(key) != asked.get(key):
                    raise ConfigError(
                        f"{run} holds a run with other settings: {table}.{key} is {was.get(key)!r} there and "
                        f"{asked.get(key)!r} now; give the same settings or another --out"
                    )
        if held.get("teacher") != inputs["teacher"]:
            raise ConfigError(
                f"{run} holds a run with another teacher or none; give the same --teacher or another --out"
            )
        if held.get("network") != json.loads(json.dumps(inputs["network"])):
            raise ConfigError(f"{run} holds a run of another network of that name; give another --out")
        return
    if run.is_dir() and any(not entry.name.startswith(".") for entry in run.iterdir()):
        raise ConfigError(f"{run} is not empty and holds no run of histoedge; give another --out")


def _another_length(run: Path, was: Any, asked: int) -> str:
    taught = f"; with --teacher {run} it learns from this one" if checkpoint.path_of(run, "fp32").is_file() else ""
    return (
        f"{run} holds a training of {was} epochs, and {asked} are asked for: its learning rate falls to 0 along one "
        f"cosine over all {was}, so more or fewer are another training; give --epochs {was}, or another --out{taught}"
    )


def train(
    splits: Mapping[str, Split],
    config: TrainConfig,
    out: Path,
    *,
    network: Network | None = None,
    teacher: Path | None = None,
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    watches: Sequence[Watch] = (),
    progress: Progress = silent,
) -> Checkpoint:
    """Train a network on the training split and write ``OUT/fp32.weights.h5``, best epoch by validation AUC.

    Killed and called again it goes on after the last whole epoch. After each epoch it writes ``history.json`` and
    ``curves.png``, and a line to ``train.log``.

    Args:
        splits: ``train`` and ``valid``.
        config: how to train.
        out: the folder of the run.
        network: what is trained; without it, the one that ``config`` names.
        teacher: another run, whose fp32 network this one learns from beside the labels.
        device: where Keras computes.
        patches_on: where the training patches lie; the weights are the same.
        watches: called with the history after each epoch, such as ``watching.to_tensorboard`` makes.
        progress: told of every step and epoch.

    Raises:
        ConfigError: ``out`` holds a run with other settings, ``device`` is not there, the network cannot be trained
            so, memory does not suffice, or the teacher learnt from other data.
        ModelError: the teacher's weights are missing or unreadable.
    """
    network = network or catalogue.get_network(config.network)
    master = None if teacher is None else _teacher(teacher, splits, config)
    inputs = train_inputs(config, splits, network, teacher)
    refuse_other_settings(out, inputs)
    path = checkpoint.path_of(out, "fp32")
    if not checkpoint.is_current(path, inputs):
        placement.refuse_too_little()
        devices = backend.use_device(device)
        where = placement.choose(patches_on, splits["train"], network, batch=config.batch, devices=devices)
        settings = {name: inputs[name] for name in ("train", "data", "teacher")}
        if devices.process == 0:
            catalogue.write_network(out, network, settings)
        with watching.logged(out / watching.LOG, enabled=devices.process == 0):
            log.info("%s", devices.summary)
            watching.say(where.why, progress)
            trained = fit(
                network,
                splits,
                config,
                state=out / STATE,
                inputs=inputs,
                teacher=master,
                devices=devices,
                patches_on=where.on,
                watches=[watching.history(out), *watches],
                progress=progress,
            )
        if devices.process == 0:
            write_source(out, network, trained, inputs, splits)
            (out / STATE).unlink(missing_ok=True)
        devices.wait_for_all()
    return checkpoint.read(path)


def _teacher(run: Path, splits: Mapping[str, Split], config: TrainConfig) -> Teacher:
    held = checkpoint.read(checkpoint.path_of(run, "fp32"))
    for name in ("train", "valid"):  # what is valid here may be training data there, and would flatter this network
        if held.inputs["data"][name] != splits[name].content_hash:
            raise ConfigError(f"{run}: this teacher learnt from another {name} split; train it on this --data")
    return Teacher(held.network, held.folded, config.teacher_share)


def fit(
    network: Network,
    splits: Mapping[str, Split],
    config: TrainConfig,
    *,
    state: Path,
    inputs: Mapping[str, Any],
    start: Arrays | None = None,
    teacher: Teacher | None = None,
    devices: Devices,
    patches_on: str = "device",
    watches: Sequence[Watch] = (),
    progress: Progress = silent,
) -> Trained:
    """Train a network, from ``start`` or from random weights; killed and called again it goes on from ``state``.

    Args:
        network: what to train; ``config.network`` is not looked at.
        splits: ``train`` to learn from, ``valid`` to choose the epoch by.
        config: length, learning rate, augmentation, seed.
        state: where the state after each epoch is kept; the caller removes it once the result is safe.
        inputs: what decides the result; a state of other inputs is refused.
        start: weights as of ``network.weights_of``, batch norm included.
        teacher: sees the same augmented pixels.
        devices: where Keras computes.
        patches_on: ``device`` or ``disk``, as ``placement.choose`` says.
        watches: called after each epoch with what is known; may raise to end the training.
        progress: called after each step and each epoch.

    Raises:
        ConfigError: ``state`` holds an unfinished training with other inputs.
        DataError: patches cannot be read any more.
    """
    keras = backend.keras()
    keras.utils.set_random_seed(config.seed)
    told: dict[str, Any] = {"devices": devices, "patches_on": patches_on, "progress": progress}
    with devices.scope():
        trainee = Trainee(keras, network, config, splits["train"], teacher=teacher, **told)
    if start is not None:
        trainee.set_weights(start, where=network.name)
    trained = trainee.restored(state, inputs)
    seconds: list[float] = []
    for epoch in range(len(trained.history), config.epochs):
        started = time.monotonic()
        with devices.scope():
            loss = trainee.epoch(epoch, progress=progress)
        stepped = time.monotonic()
        trained = trainee.after_epoch(trained, *_judged(trainee, splits["valid"], loss, stepped - started, progress))
        if devices.process == 0:
            trainee.save(state, trained, inputs)
        seconds.append(time.monotonic() - started)
        left = (config.epochs - epoch - 1) * float(np.median(seconds))
        note = f"{watching.summary(trained.history[-1])} (best {trained.best_auc:.4f}), about {left:.0f} s left"
        log.info("epoch %d of %d: %s", epoch + 1, config.epochs, note)
        progress(f"train {network.name}, epochs", epoch + 1, config.epochs, note)
        if devices.process == 0:
            for watch in watches:
                watch(trained)
    return trained


def _judged(
    trainee: Trainee, valid: Split, loss: float, seconds: float, progress: Progress
) -> tuple[dict[str, float], float]:
    """The row of history of an epoch, and the AUC on valid unrounded."""
    logits = trainee.logits(valid, progress=progress)
    auc = metrics.auc(valid.labels, logits)
    row = {
        "loss": round(loss, 6),
        "valid_loss": round(metrics.cross_entropy(valid.labels, logits), 6),
        "valid_auc": round(auc, 6),
        "patches_per_s": round(len(trainee.labels) / seconds, 1),
        "peak_rss_bytes": peak_rss_bytes() or 0,
    }
    return row, auc


def write_source(
    out: Path, network: Network, trained: Trained, inputs: Mapping[str, Any], splits: Mapping[str, Split]
) -> None:
    """Write the best weights as ``OUT/fp32.weights.h5``, the head's bias and the calibration set by the split valid.

    What the training patches look like is written before them.
    """
    appearance.keep_appearance(out, splits["train"])
    arrays, calibration = calibrate.centred(network, trained.best, splits["valid"])
    best = Checkpoint(network, "fp32", arrays, inputs, trained.best_auc, calibration)
    checkpoint.write(checkpoint.path_of(out, "fp32"), best)
