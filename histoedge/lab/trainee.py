"""A network in training: with augmentation, loss and optimiser, and their state on disk."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.config import TrainConfig
from histoedge.data import Split, hdf5
from histoedge.edge.errors import ConfigError
from histoedge.lab import augment, backend, batches, feed, symmetry, weights
from histoedge.lab.architecture import Network
from histoedge.lab.backend import Devices
from histoedge.lab.weights import Arrays
from histoedge.progress import Progress, silent

log = logging.getLogger("histoedge.train")
log.setLevel(logging.INFO)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The teacher of a distillation (Hinton et al. 2015, temperature 1); ``arrays`` are folded weights.

    The training target is ``share`` times the teacher's probability plus ``1 - share`` times the label.
    """

    network: Network
    arrays: Arrays
    share: float


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The state after an epoch: one history row per epoch, and the best weights by validation AUC."""

    history: tuple[dict[str, float], ...]
    best: Arrays
    best_auc: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training: network, data, settings and devices.

    Attributes:
        network: the network to train; ``config.network`` is ignored.
        splits: ``train`` for training, ``valid`` to select the best epoch.
        config: epochs, batch size, learning rate, augmentation, seed.
        devices: devices of Keras.
        patches_on: ``device`` or ``disk``, see ``placement.choose``.
        start: initial weights as from ``weights.get_weights``, batch norm included; None for random weights.
        teacher: teacher of the distillation, which sees the same augmented pixels; None to learn from labels only.
    """

    network: Network
    splits: Mapping[str, Split]
    config: TrainConfig
    devices: Devices
    patches_on: str = "device"
    start: Arrays | None = None
    teacher: Teacher | None = None


class Trainee:
    """A network in training with augmentation, loss and optimiser, and their state on disk."""

    def __init__(self, keras: Any, job: TrainingJob, *, progress: Progress = silent) -> None:
        """Build the model and, with ``patches_on="device"``, copy the patches to the device.

        Raises:
            ConfigError: the batch size is not a multiple of the number of devices, or the network cannot be trained in
                symmetric form.
            ModelError: the initial weights do not fit the network.
        """
        network, config, devices, split = job.network, job.config, job.devices, job.splits["train"]
        if config.batch % devices.count:
            raise ConfigError(
                f"batch {config.batch} cannot be divided among {devices.count} devices; "
                f"set [train] batch to a multiple of {devices.count}"
            )
        self.config = config
        self.keras = keras
        self.architecture = network
        self.labels = split.labels
        self.devices = devices
        self.feed = (
            feed.on_device(keras, split, devices=devices, progress=progress)
            if job.patches_on == "device"
            else feed.from_disk(keras, split)
        )
        self.network = symmetry.build(keras, network) if network.symmetric else weights.build(keras, network)
        # flips have no effect on the training of a symmetric network
        self.augment = augment.layer(keras, dataclasses.replace(config, flips=config.flips and not network.symmetric))
        pixels = self.augment(self.feed.pixels)
        logits = keras.layers.Flatten(dtype="float32")(self.network(pixels))
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
        if job.teacher is not None:
            teacher_logits = keras.layers.Flatten(dtype="float32")(_teacher_model(keras, job.teacher)(pixels))
            logits = keras.layers.Concatenate()([logits, teacher_logits])
            loss = _distillation_loss(keras, loss, job.teacher.share)
        self.model = keras.Model(self.feed.inputs, logits)
        total = self.steps * config.epochs
        warmup = int(config.warmup * total)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else config.learning_rate,
            max(total - warmup, 1),
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
        self.optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.optimizer.build(self.model.trainable_variables)  # before the state is loaded, else Keras resets it
        self.model.compile(self.optimizer, loss, jit_compile=False if _on_tensorflow_cpu(keras) else "auto")
        if job.start is not None:
            self.set_weights(job.start, where=network.name)

    @property
    def steps(self) -> int:
        """Number of steps per epoch."""
        return math.ceil(len(self.labels) // self.devices.count * self.devices.count / self.config.batch)

    def weights(self) -> Arrays:
        """Return the weights of the plain network, also if the symmetric form is trained."""
        arrays = weights.get_weights(self.network)
        return symmetry.expand(self.architecture, arrays) if self.architecture.symmetric else arrays

    def set_weights(self, arrays: Arrays, *, where: str) -> None:
        """Set weights in the form that ``weights`` returns; ``where`` is their origin for the error message."""
        trained_form = symmetry.first_block(self.architecture, arrays) if self.architecture.symmetric else arrays
        weights.set_weights(self.network, trained_form, where=where)

    def epoch(self, epoch: int, *, progress: Progress = silent) -> float:
        """Train for one epoch and return the mean loss; all random numbers depend only on (seed, epoch).

        Raises:
            DataError: a patch cannot be read.
        """
        self.augment.reseed(epoch)
        for number, layer in enumerate(self.network.layers):
            if hasattr(layer, "seed_generator"):
                state = layer.seed_generator.state
                seeds = [self.config.seed + 1000 * (number + 1), epoch]
                state.assign(self.keras.ops.convert_to_tensor(seeds, dtype=state.dtype))
        data = batches.dataset(
            self.keras,
            self.feed.rows,
            self.labels,
            batch=self.config.batch,
            seed=self.config.seed,
            epoch=epoch,
            readers=self.feed.readers,
            multiple=self.devices.count,
            part=self.devices.part,
        )
        callbacks = [
            _step_progress(self.keras, self.architecture.name, epoch, self.steps, self.config.epochs, progress)
        ]
        try:
            result = self.model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
        except Exception:
            if data.fault is not None:  # Keras wraps it in an error of its own
                raise data.fault from None
            raise
        finally:
            data.close()
        return float(result.history["loss"][0])

    def logits(self, split: Split, *, progress: Progress = silent) -> np.ndarray:
        """Return the network's logits for a split, float32 (N,)."""
        model = self.network
        if self.devices.count > 1:  # predict on one device: several cannot divide a batch of arbitrary size
            model = weights.build(self.keras, self.architecture)
            weights.set_weights(model, self.weights(), where=self.architecture.name)
        return batches.logits_in_batches(
            model.predict_on_batch, split, progress=progress, label=f"train {self.architecture.name}, valid patches"
        )

    def after_epoch(self, state: TrainingState, row: Mapping[str, float], auc: float) -> TrainingState:
        """Return the state with another history row, and with the current weights if their AUC on valid is the best."""
        if auc > state.best_auc:
            state = dataclasses.replace(state, best=self.weights(), best_auc=auc)
        return dataclasses.replace(state, history=(*state.history, {"epoch": len(state.history) + 1, **row}))

    def save(self, path: Path, state: TrainingState, inputs: Mapping[str, Any]) -> None:
        """Write last weights, best weights, optimiser and history to one file, which keeps them consistent."""
        arrays = {f"last/{name}": value for name, value in self.weights().items()}
        arrays |= {f"best/{name}": value for name, value in state.best.items()}
        for number, variable in enumerate(self.optimizer.variables):
            arrays[f"optimizer/{number:04d}"] = np.asarray(self.keras.ops.convert_to_numpy(variable.value))
        history = json.dumps(state.history)
        attributes = {"inputs": json.dumps(inputs, sort_keys=True), "history": history, "best_auc": state.best_auc}
        hdf5.write_arrays(path, arrays, attributes)

    def restore(self, path: Path, inputs: Mapping[str, Any]) -> TrainingState:
        """Load the state that ``save`` wrote into network and optimiser and return it; without a file, an empty state.

        Raises:
            ConfigError: the file has other inputs.
        """
        if not path.is_file():
            return TrainingState((), {}, -1.0)
        arrays, attributes = hdf5.read_arrays(path)
        if json.loads(attributes["inputs"]) != json.loads(json.dumps(inputs)):
            raise ConfigError(f"{path}: an unfinished training with other settings; remove it or use another --out")
        self.set_weights(_in_folder("last", arrays), where=str(path))
        for number, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"optimizer/{number:04d}"])
        history = tuple(json.loads(attributes["history"]))
        return TrainingState(history, _in_folder("best", arrays), float(attributes["best_auc"]))


def _step_progress(keras: Any, name: str, epoch: int, steps: int, epochs: int, progress: Progress) -> Any:
    """Return a Keras callback that reports each step of an epoch."""

    class StepProgress(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, step: int, logs: Any = None) -> None:
            done = epoch * steps + step + 1
            if step == 0:
                log.info("epoch %d of %d: first step done", epoch + 1, epochs)
            progress(f"train {name}, steps", done, epochs * steps, f"epoch {epoch + 1} of {epochs}")

    return StepProgress()


def _teacher_model(keras: Any, teacher: Teacher) -> Any:
    # Keras requires different names
    network = dataclasses.replace(teacher.network, name=f"teacher-{teacher.network.name}")
    model = weights.build(keras, network, folded=True)
    weights.set_weights(model, teacher.arrays, where="teacher")
    model.trainable = False
    return model


def _distillation_loss(keras: Any, loss: Any, share: float) -> Callable[[Any, Any], Any]:
    """Return a loss of (student, teacher) logits (n, 2); its target mixes label and teacher probability."""

    def mixed_loss(labels: Any, logits: Any) -> Any:
        probability = keras.ops.stop_gradient(keras.ops.sigmoid(logits[:, 1:]))
        return loss(share * probability + (1 - share) * labels, logits[:, :1])

    return mixed_loss


def _in_folder(folder: str, arrays: Arrays) -> Arrays:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _on_tensorflow_cpu(keras: Any) -> bool:
    """Return whether to turn XLA off: it slows convolutions of TensorFlow on the CPU; else Keras' choice is right."""
    return keras.backend.backend() == "tensorflow" and not backend.tensorflow().config.list_physical_devices("GPU")
