"""The network while it is trained: its wrapper of augmentation, loss and optimiser, and their state on disk."""

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
    """A network whose probabilities make up ``share`` of the training target; the rest is the label.

    Hinton et al. 2015, at temperature 1. ``arrays`` are folded weights.
    """

    network: Network
    arrays: Arrays
    share: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is known after an epoch: a row of history per epoch, and the best weights so far by validation AUC."""

    history: tuple[dict[str, float], ...]
    best: Arrays
    best_auc: float


class Trainee:
    """The network, its training wrapper (augmentation, loss, optimiser), and their state on disk."""

    def __init__(
        self,
        keras: Any,
        network: Network,
        config: TrainConfig,
        split: Split,
        *,
        teacher: Teacher | None = None,
        devices: Devices,
        patches_on: str = "device",
        progress: Progress = silent,
    ) -> None:
        """Build everything, and hold the patches where ``patches_on`` is ``device``.

        Raises:
            ConfigError: several devices cannot share a batch of this size, or cannot hold the patches.
        """
        if config.batch % devices.count:
            raise ConfigError(
                f"batch {config.batch} cannot be shared by {devices.count} devices; "
                f"set [train] batch to a multiple of {devices.count}"
            )
        self.config = config
        self.keras = keras
        self.plan = network
        self.labels = split.labels
        self.devices = devices
        self.fed = (
            feed.held(keras, split, devices=devices, progress=progress)
            if patches_on == "device"
            else feed.streamed(keras, split)
        )
        self.network = symmetry.build(keras, network) if network.symmetric else weights.build(keras, network)
        # what has the orientations built in learns nothing from turned patches
        self.augment = augment.layer(keras, dataclasses.replace(config, flips=config.flips and not network.symmetric))
        pixels = self.augment(self.fed.pixels)
        logits = keras.layers.Flatten(dtype="float32")(self.network(pixels))
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
        if teacher is not None:
            taught = keras.layers.Flatten(dtype="float32")(_frozen(keras, teacher)(pixels))
            logits = keras.layers.Concatenate()([logits, taught])
            loss = _taught(keras, loss, teacher.share)
        self.model = keras.Model(self.fed.inputs, logits)
        total = self.steps * config.epochs
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

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(len(self.labels) // self.devices.count * self.devices.count / self.config.batch)

    def weights(self) -> Arrays:
        """Those of the plain network, whatever form is trained."""
        arrays = weights.weights_of(self.network)
        return symmetry.expanded(self.plan, arrays) if self.plan.symmetric else arrays

    def set_weights(self, arrays: Arrays, *, where: str) -> None:
        """Take what ``weights`` gave; ``where`` is named when they do not fit."""
        held = symmetry.shared(self.plan, arrays) if self.plan.symmetric else arrays
        weights.set_weights(self.network, held, where=where)

    def epoch(self, epoch: int, *, progress: Progress = silent) -> float:
        """One pass over the training patches; every draw of it is decided by (seed, epoch). Returns the mean loss.

        Raises:
            DataError: patches cannot be read any more.
        """
        self.augment.reseed(epoch)
        for number, layer in enumerate(self.network.layers):
            if hasattr(layer, "seed_generator"):
                state = layer.seed_generator.state
                fresh = [self.config.seed + 1000 * (number + 1), epoch]
                state.assign(self.keras.ops.convert_to_tensor(fresh, dtype=state.dtype))
        data = batches.dataset(
            self.keras,
            self.fed.rows,
            self.labels,
            batch=self.config.batch,
            seed=self.config.seed,
            epoch=epoch,
            readers=self.fed.readers,
            multiple=self.devices.count,
            part=self.devices.part,
        )
        watched = [_steps(self.keras, self.plan.name, epoch, self.steps, self.config.epochs, progress)]
        try:
            fitted = self.model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=watched)
        except Exception:
            if data.fault is not None:  # which Keras hides in an error of its own
                raise data.fault from None
            raise
        finally:
            data.close()
        return float(fitted.history["loss"][0])

    def logits(self, split: Split, *, progress: Progress = silent) -> np.ndarray:
        """What the network answers to a split: logits float32 (N,)."""
        model = self.network
        if self.devices.count > 1:  # on one device: a batch of any size cannot be shared
            model = weights.build(self.keras, self.plan)
            weights.set_weights(model, self.weights(), where=self.plan.name)
        return batches.logits_in_batches(
            model.predict_on_batch, split, progress=progress, what=f"train {self.plan.name}, valid patches"
        )

    def after_epoch(self, state: Trained, row: Mapping[str, float], auc: float) -> Trained:
        """The state with one more row of history, and these weights if their AUC on valid is the best so far."""
        if auc > state.best_auc:
            state = dataclasses.replace(state, best=self.weights(), best_auc=auc)
        return dataclasses.replace(state, history=(*state.history, {"epoch": len(state.history) + 1, **row}))

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


def _steps(keras: Any, name: str, epoch: int, steps: int, epochs: int, progress: Progress) -> Any:
    """A callback that tells each step of an epoch."""

    class Steps(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, step: int, logs: Any = None) -> None:
            done = epoch * steps + step + 1
            if step == 0:
                log.info("epoch %d of %d: first step done", epoch + 1, epochs)
            progress(f"train {name}, steps", done, epochs * steps, f"epoch {epoch + 1} of {epochs}")

    return Steps()


def _frozen(keras: Any, teacher: Teacher) -> Any:
    network = dataclasses.replace(teacher.network, name=f"teacher-{teacher.network.name}")  # Keras wants names apart
    model = weights.build(keras, network, folded=True)
    weights.set_weights(model, teacher.arrays, where="teacher")
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
