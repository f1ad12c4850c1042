"""Train the source network in Keras 3, on any backend; a killed training resumes after its last complete epoch."""

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
from histoedge.lab import (
    appearance,
    architecture,
    backend,
    calibrate,
    callbacks,
    catalogue,
    checkpoint,
    placement,
    symmetry,
)
from histoedge.lab.architecture import Network
from histoedge.lab.callbacks import EpochCallback
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.trainee import Teacher, Trainee, TrainingJob, TrainingState, log
from histoedge.progress import Progress, silent

STATE = ".train.state.h5"


def train(
    splits: Mapping[str, Split],
    config: TrainConfig,
    out: Path,
    *,
    network: Network | None = None,
    teacher: Path | None = None,
    device: Device = "auto",
    patches_on: PatchesOn = "auto",
    epoch_callbacks: Sequence[EpochCallback] = (),
    progress: Progress = silent,
) -> Checkpoint:
    """Train a network and write the weights of the best epoch by validation AUC to ``OUT/fp32.weights.h5``.

    After a kill, the next call resumes after the last complete epoch. Each epoch updates ``history.json`` and
    ``curves.png`` and adds a line to ``train.log``.

    Args:
        splits: ``train`` and ``valid``.
        config: training settings.
        out: folder of the run.
        network: network to train; default: the network that ``config`` names.
        teacher: another run, whose fp32 network is the teacher of a distillation.
        device: device of Keras.
        patches_on: where to store the training patches; no effect on the weights.
        epoch_callbacks: called after each epoch, see ``callbacks.make_callbacks``.
        progress: called after each step and epoch.

    Raises:
        ConfigError: ``out`` contains a run with other settings, the device is missing, the network cannot be trained
            in symmetric form, there is too little memory, or the teacher was trained on other data.
        ModelError: the teacher's weights are missing or unreadable.
    """
    network = network or catalogue.get_network(config.network)
    if splits["train"].patch_px != network.patch_px:
        raise ConfigError(
            f"network {network.name} is for patches of {network.patch_px} px, the data has {splits['train'].patch_px} "
            "px; write a network for them into [network] of a settings file, with patch_px"
        )
    if network.symmetric:
        symmetry.check_network(network)
    loaded_teacher = None if teacher is None else _load_teacher(teacher, splits, config)
    inputs = train_inputs(config, splits, network, teacher)
    check_same_settings(out, inputs)
    path = checkpoint.path_of(out, "fp32")
    if not checkpoint.is_current(path, inputs):
        placement.check_minimum_memory()
        devices = backend.use_device(device)
        where = placement.choose(patches_on, splits["train"], network, batch=config.batch, devices=devices)
        settings = {name: inputs[name] for name in ("train", "data", "teacher")}
        if devices.process == 0:
            catalogue.write_network(out, network, settings)
        with callbacks.log_to(out / callbacks.LOG, enabled=devices.process == 0):
            log.info("%s", devices.summary)
            callbacks.announce(where.why, progress)
            result = fit(
                TrainingJob(
                    network=network,
                    splits=splits,
                    config=config,
                    devices=devices,
                    patches_on=where.on,
                    teacher=loaded_teacher,
                ),
                state=out / STATE,
                inputs=inputs,
                epoch_callbacks=[callbacks.history_writer(out), *epoch_callbacks],
                progress=progress,
            )
        if devices.process == 0:
            write_source(out, network, result, inputs, splits)
            (out / STATE).unlink(missing_ok=True)
        devices.wait_for_all()
    return checkpoint.read(path)


def train_inputs(
    config: TrainConfig, splits: Mapping[str, Split], network: Network, teacher: Path | None = None
) -> dict[str, Any]:
    """Return everything that determines the weights: settings, architecture, and hashes of data and teacher."""
    return {
        "train": dataclasses.asdict(config),
        "network": network.as_json(),
        "data": {name: splits[name].content_hash for name in ("train", "valid")},
        "teacher": None if teacher is None else files.sha256(checkpoint.path_of(teacher, "fp32")),
        **checkpoint.geometry_inputs(splits["train"]),
    }


def check_same_settings(run: Path, inputs: Mapping[str, Any]) -> None:
    """Check that the folder is missing, is empty, or contains a run with these inputs.

    Raises:
        ConfigError: the folder contains a run with other inputs, or other files.
    """
    path = run / "network.json"
    if path.is_file():
        existing = architecture.read_json(path)
        for table in ("train", "data"):
            old, new = existing.get(table, {}), json.loads(json.dumps(inputs[table]))
            for key in sorted(old.keys() | new.keys()):
                if (table, key) == ("train", "epochs") and old.get(key) != new.get(key):
                    raise ConfigError(_epochs_message(run, old.get(key), new[key]))
                if old.get(key) != new.get(key):
                    raise ConfigError(
                        f"{run}: contains a run with other settings: {table}.{key} is {old.get(key)!r} there and "
                        f"{new.get(key)!r} now; use the same settings or another --out"
                    )
        if existing.get("teacher") != inputs["teacher"]:
            raise ConfigError(
                f"{run}: contains a run with another teacher or none; use the same --teacher or another --out"
            )
        if existing.get("network") != json.loads(json.dumps(inputs["network"])):
            raise ConfigError(f"{run}: contains a run of another network with the same name; use another --out")
        return
    if run.is_dir() and any(not entry.name.startswith(".") for entry in run.iterdir()):
        raise ConfigError(f"{run}: not empty and not a run of histoedge; use another --out")


def _epochs_message(run: Path, old: Any, new: int) -> str:
    has_weights = checkpoint.path_of(run, "fp32").is_file()
    hint = f"; --teacher {run} uses the existing network as teacher" if has_weights else ""
    return (
        f"{run}: contains a training of {old} epochs, {new} are requested; the cosine schedule of the learning rate "
        f"covers all {old} epochs and cannot be extended; use --epochs {old} or another --out{hint}"
    )


def _load_teacher(run: Path, splits: Mapping[str, Split], config: TrainConfig) -> Teacher:
    saved = checkpoint.read(checkpoint.path_of(run, "fp32"))
    for name in ("train", "valid"):  # a teacher trained on this valid split would make its AUC too high
        if saved.inputs["data"][name] != splits[name].content_hash:
            raise ConfigError(f"{run}: this teacher was trained on another {name} split; train it on this --data")
    return Teacher(saved.network, saved.folded, config.teacher_share)


def fit(
    job: TrainingJob,
    *,
    state: Path,
    inputs: Mapping[str, Any],
    epoch_callbacks: Sequence[EpochCallback] = (),
    progress: Progress = silent,
) -> TrainingState:
    """Train a network; after a kill, the next call resumes from ``state``.

    Args:
        job: network, data, settings and devices.
        state: file for the state after each epoch; the caller removes it when the result is on disk.
        inputs: everything that determines the result; a state with other inputs is an error.
        epoch_callbacks: called after each epoch; may raise to end the training.
        progress: called after each step and each epoch.

    Raises:
        ConfigError: ``state`` contains an unfinished training with other inputs.
        DataError: a patch cannot be read.
    """
    keras, config, devices = backend.keras(), job.config, job.devices
    backend.set_random_seed(config.seed)
    with devices.scope():
        trainee = Trainee(keras, job, progress=progress)
    result = trainee.restore(state, inputs)
    seconds: list[float] = []
    for epoch in range(len(result.history), config.epochs):
        started = time.monotonic()
        with devices.scope():
            loss = trainee.epoch(epoch, progress=progress)
        trained_s = time.monotonic() - started
        result = trainee.after_epoch(result, *_evaluate(trainee, job.splits["valid"], loss, trained_s, progress))
        if devices.process == 0:
            trainee.save(state, result, inputs)
        seconds.append(time.monotonic() - started)
        left = (config.epochs - epoch - 1) * float(np.median(seconds))
        note = f"{callbacks.summary(result.history[-1])} (best {result.best_auc:.4f}), about {left:.0f} s left"
        log.info("epoch %d of %d: %s", epoch + 1, config.epochs, note)
        progress(f"train {job.network.name}, epochs", epoch + 1, config.epochs, note)
        if devices.process == 0:
            for callback in epoch_callbacks:
                callback(result)
    return result


def _evaluate(
    trainee: Trainee, valid: Split, loss: float, seconds: float, progress: Progress
) -> tuple[dict[str, float], float]:
    """Return the history row of an epoch, and the AUC on valid without rounding."""
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
    out: Path, network: Network, result: TrainingState, inputs: Mapping[str, Any], splits: Mapping[str, Split]
) -> None:
    """Write ``OUT/appearance.json`` and the best weights as ``OUT/fp32.weights.h5``.

    The offset of the head's bias and the calibration are fitted on the split valid.
    """
    appearance.write_appearance(out, splits["train"])
    arrays, calibration = calibrate.centre_logits(network, result.best, splits["valid"])
    best = Checkpoint(network, "fp32", arrays, inputs, result.best_auc, calibration)
    checkpoint.write(checkpoint.path_of(out, "fp32"), best)
