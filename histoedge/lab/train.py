"""Training the source network in Keras 3, on any backend, so that it can be killed at any moment."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files, metrics
from histoedge.config import Device, TrainConfig
from histoedge.data import Split, hdf5
from histoedge.edge.errors import ConfigError
from histoedge.lab import appearance, augment, backend, batches, calibrate, checkpoint, symmetry
from histoedge.lab import network as networks
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.network import Arrays, Network
from histoedge.progress import Progress, silent

STATE = ".train.state.h5"


def inputs_of(
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
        held = networks.read_json(path)
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
    progress: Progress = silent,
) -> Checkpoint:
    """Train a network on the training split and write ``OUT/fp32.weights.h5``, best epoch by validation AUC.

    Killed and called again it goes on after the last whole epoch. Also writes ``history.json`` and ``curves.png``.
    ``network`` is what is trained; without it, the one that ``config`` names. ``teacher`` is another run, whose fp32
    network this one learns from beside the labels.

    Raises:
        ConfigError: ``out`` holds a run with other settings, ``device`` is not there, the network cannot be trained
            so, or the teacher learnt from other data.
        ModelError: the teacher's weights are missing or unreadable.
    """
    network = network or networks.named(config.network)
    master = None if teacher is None else _teacher(teacher, splits, config)
    inputs = inputs_of(config, splits, network, teacher)
    refuse_other_settings(out, inputs)
    path = checkpoint.path_of(out, "fp32")
    if not checkpoint.is_current(path, inputs):
        progress("device", 1, 1, backend.use_device(device))
        settings = {name: inputs[name] for name in ("train", "data", "teacher")}
        networks.write(out, network, settings)
        _train(network, splits, config, out, inputs=inputs, teacher=master, progress=progress)
    return checkpoint.read(path)


def _train(
    network: Network,
    splits: Mapping[str, Split],
    config: TrainConfig,
    out: Path,
    *,
    inputs: Mapping[str, Any],
    teacher: "Teacher | None",
    progress: Progress,
) -> None:
    trained = fit(network, splits, config, state=out / STATE, inputs=inputs, teacher=teacher, progress=progress)
    files.write_json(out / "history.json", list(trained.history))
    _draw(out / "curves.png", trained.history)
    write(out, network, trained, inputs, splits)
    (out / STATE).unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network whose probabilities make up ``share`` of the training target; the rest is the label.

    Hinton et al. 2015, at temperature 1. ``arrays`` are folded weights.
    """

    network: Network
    arrays: Arrays
    share: float


def _teacher(run: Path, splits: Mapping[str, Split], config: TrainConfig) -> Teacher:
    held = checkpoint.read(checkpoint.path_of(run, "fp32"))
    for name in ("train", "valid"):  # what is valid here may be training data there, and would flatter this network
        if held.inputs["data"][name] != splits[name].content_hash:
            raise ConfigError(f"{run}: this teacher learnt from another {name} split; train it on this --data")
    return Teacher(held.network, held.folded, config.teacher_share)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is known after an epoch: a row of history per epoch, and the best weights so far by validation AUC."""

    history: tuple[dict[str, float], ...]
    best: Arrays
    best_auc: float


def fit(
    network: Network,
    splits: Mapping[str, Split],
    config: TrainConfig,
    *,
    state: Path,
    inputs: Mapping[str, Any],
    start: Arrays | None = None,
    teacher: Teacher | None = None,
    watch: Callable[["Trained"], None] | None = None,
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
        watch: called after each epoch with what is known; may raise to end the training.
        progress: called after each epoch.

    Raises:
        ConfigError: ``state`` holds an unfinished training with other inputs.
    """
    keras = backend.keras()
    keras.utils.set_random_seed(config.seed)
    trainee = Trainee(keras, network, config, splits["train"], teacher=teacher)
    if start is not None:
        trainee.set_weights(start, where=network.name)
    trained = trainee.restored(state, inputs)
    seconds: list[float] = []
    for epoch in range(len(trained.history), config.epochs):
        started = time.monotonic()
        loss = trainee.epoch(epoch)
        auc = metrics.auc(splits["valid"].labels, batches.logits(trainee.network.predict_on_batch, splits["valid"]))
        trained = trainee.after_epoch(trained, loss=loss, auc=auc)
        trainee.save(state, trained, inputs)
        seconds.append(time.monotonic() - started)
        left = (config.epochs - epoch - 1) * float(np.median(seconds))
        note = f"loss {loss:.4f}, valid AUC {auc:.4f} (best {trained.best_auc:.4f}), about {left:.0f} s left"
        progress(f"train {network.name}, epochs", epoch + 1, config.epochs, note)
        if watch is not None:
            watch(trained)
    return trained


def write(
    out: Path, network: Network, trained: Trained, inputs: Mapping[str, Any], splits: Mapping[str, Split]
) -> None:
    """Write the best weights as ``OUT/fp32.weights.h5``, the head's bias and the calibration set by the split valid.

    What the training patches look like is written before them.
    """
    appearance.keep(out, splits["train"])
    arrays, calibration = calibrate.centred(network, trained.best, splits["valid"])
    best = Checkpoint(network, "fp32", arrays, inputs, trained.best_auc, calibration)
    checkpoint.write(checkpoint.path_of(out, "fp32"), best)


class Trainee:
    """The network, its training wrapper (augmentation, loss, optimiser), and their state on disk."""

    def __init__(
        self, keras: Any, network: Network, config: TrainConfig, split: Split, *, teacher: Teacher | None
    ) -> None:
        self.config = config
        self.keras = keras
        self.plan = network
        self.labels = split.labels
        self.network = symmetry.build(keras, network) if network.symmetric else networks.build(keras, network)
        # what has the orientations built in learns nothing from turned patches
        self.augment = augment.layer(keras, dataclasses.replace(config, flips=config.flips and not network.symmetric))
        numbers = keras.Input((), dtype="int32")
        pixels = self.augment(on_device(keras, split)(numbers))
        logits = keras.layers.Flatten(dtype="float32")(self.network(pixels))
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
        if teacher is not None:
            taught = keras.layers.Flatten(dtype="float32")(_frozen(keras, teacher)(pixels))
            logits = keras.layers.Concatenate()([logits, taught])
            loss = _taught(keras, loss, teacher.share)
        self.model = keras.Model(numbers, logits)
        total = math.ceil(len(split.labels) / config.batch) * config.epochs
        rising = int(config.warmup * total)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0 if rising else config.learning_rate,
            max(total - rising, 1),
            warmup_target=config.learning_rate if rising else None,
            warmup_steps=rising,
        )
        self.optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.optimizer.build(self.model.trainable_variables)  # before any state is loaded, else Keras restarts it
        self.model.compile(self.optimizer, loss, jit_compile=False if _on_tensorflow_cpu(keras) else "auto")

    def weights(self) -> Arrays:
        """Those of the plain network, whatever form is trained."""
        arrays = networks.weights_of(self.network)
        return symmetry.expanded(self.plan, arrays) if self.plan.symmetric else arrays

    def set_weights(self, arrays: Arrays, *, where: str) -> None:
        """Take what ``weights`` gave; ``where`` is named when they do not fit."""
        held = symmetry.shared(self.plan, arrays) if self.plan.symmetric else arrays
        networks.set_weights(self.network, held, where=where)

    def epoch(self, epoch: int) -> float:
        """One pass over the training patches; every draw of it is decided by (seed, epoch). Returns the mean loss."""
        self.augment.reseed(epoch)
        for number, layer in enumerate(self.network.layers):
            if hasattr(layer, "seed_generator"):
                state = layer.seed_generator.state
                fresh = [self.config.seed + 1000 * (number + 1), epoch]
                state.assign(self.keras.ops.convert_to_tensor(fresh, dtype=state.dtype))
        data = batches.numbered(self.keras, self.labels, batch=self.config.batch, seed=self.config.seed, epoch=epoch)
        return float(self.model.fit(data, epochs=1, verbose=0, shuffle=False).history["loss"][0])

    def after_epoch(self, state: Trained, *, loss: float, auc: float) -> Trained:
        """The state with one more row of history, and these weights if they are the best so far."""
        row = {"epoch": len(state.history) + 1, "loss": round(loss, 6), "valid_auc": round(auc, 6)}
        if auc > state.best_auc:
            state = dataclasses.replace(state, best=self.weights(), best_auc=auc)
        return dataclasses.replace(state, history=(*state.history, row))

    def save(self, path: Path, state: Trained, inputs: Mapping[str, Any]) -> None:
        """Last weights, best weights, optimiser and history in one file, so that they can never disagree."""
        arrays = {f"last/{name}": value for name, value in self.weights().items()}
        arrays |= {f"best/{name}": value for name, value in state.best.items()}
        for number, variable in enumerate(self.optimizer.variables):
            arrays[f"optimizer/{number:04d}"] = np.asarray(self.keras.ops.convert_to_numpy(variable.value))
        history = json.dumps(state.history)
        described = {"inputs": json.dumps(inputs, sort_keys=True), "history": history, "best_auc": state.best_auc}
        hdf5.write_arrays(path, arrays, described)

    def restored(self, path: Path, inputs: Mapping[str, Any]) -> Trained:
        """The state that ``save`` wrote for these inputs, put back into network and optimiser; else a fresh one."""
        if not path.is_file():
            return Trained((), {}, -1.0)
        arrays, described = hdf5.read_arrays(path)
        if json.loads(described["inputs"]) != json.loads(json.dumps(inputs)):
            raise ConfigError(f"{path}: an unfinished training with other settings; remove it or give another --out")
        self.set_weights(_below("last", arrays), where=str(path))
        for number, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"optimizer/{number:04d}"])
        history = tuple(json.loads(described["history"]))
        return Trained(history, _below("best", arrays), float(described["best_auc"]))


def on_device(keras: Any, split: Split) -> Any:
    """A layer that holds all patches of the split as uint8 where Keras computes: numbers (n,) -> (n, 96, 96, 3)."""
    patches = np.ascontiguousarray(split.patches)

    class OnDevice(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="patches", trainable=False)
            self.patches = self.add_weight(
                shape=patches.shape,
                dtype="uint8",
                initializer=lambda shape, dtype: keras.ops.convert_to_tensor(patches, dtype=dtype),
                trainable=False,
                name="patches",
            )

        def call(self, numbers: Any) -> Any:
            return keras.ops.take(self.patches, numbers, axis=0)

    return OnDevice()


def _frozen(keras: Any, teacher: Teacher) -> Any:
    network = dataclasses.replace(teacher.network, name=f"teacher-{teacher.network.name}")  # Keras wants names apart
    model = networks.build(keras, network, folded=True)
    networks.set_weights(model, teacher.arrays, where="teacher")
    model.trainable = False
    return model


def _taught(keras: Any, loss: Any, share: float) -> Callable[[Any, Any], Any]:
    """The loss of (student, teacher) logits side by side, (n, 2), against a mixture of label and teacher."""

    def mixed(labels: Any, logits: Any) -> Any:
        taught = keras.ops.stop_gradient(keras.ops.sigmoid(logits[:, 1:]))
        return loss(share * taught + (1 - share) * labels, logits[:, :1])

    return mixed


def _below(folder: str, arrays: Arrays) -> Arrays:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _on_tensorflow_cpu(keras: Any) -> bool:
    """XLA makes convolutions slower on the CPU under TensorFlow; elsewhere Keras' own choice is right."""
    return keras.backend.backend() == "tensorflow" and not backend.tensorflow().config.list_physical_devices("GPU")


def _draw(path: Path, history: tuple[dict[str, float], ...]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, key, label in ((left, "loss", "training loss"), (right, "valid_auc", "validation AUC")):
        axes.plot(epochs, [row[key] for row in history], marker="o", markersize=3)
        axes.set(xlabel="epoch", title=label)
        axes.grid(alpha=0.3)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
