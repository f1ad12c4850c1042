"""Importing the frameworks once, quietly, on the device that was asked for."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from histoedge.config import Device
from histoedge.edge.errors import ConfigError, RuntimeUnavailable

NEEDED_BY = {
    "jax": "pip install 'histoedge[lab,jax]', on an NVIDIA machine 'histoedge[lab,jax-cuda]'",
    "torch": "pip install torch",
}
"""What to install for a backend of Keras other than TensorFlow, which the lab brings along."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what C++ start-up code prints on file descriptor 2; show it if the import fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            sink.seek(0)
            os.write(kept, sink.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _import(name: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = import_module(name)
    except ImportError as error:
        asked = os.environ.get("KERAS_BACKEND", "tensorflow") if name == "keras" else "tensorflow"
        needs = NEEDED_BY.get(asked, "pip install 'histoedge[lab]'")
        raise RuntimeUnavailable(
            f"{name} is not usable here ({error}); training and exporting need: {needs}"
        ) from error
    except ValueError as error:  # of Keras, for a backend that it does not know
        raise ConfigError(f"KERAS_BACKEND: {error}; use tensorflow, jax or torch") from error
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return module


def keras() -> Any:
    """Keras 3, with the backend that ``KERAS_BACKEND`` names (TensorFlow without it)."""
    module = _import("keras")
    if module.backend.backend() == "tensorflow":
        tensorflow()
    return module


def name() -> str:
    """Which backend Keras computes with: ``tensorflow``, ``jax`` or ``torch``."""
    return str(keras().backend.backend())


def tensorflow() -> Any:
    """TensorFlow, with deterministic kernels so that the same seed gives the same weights."""
    module = _import("tensorflow")
    module.config.experimental.enable_op_determinism()
    return module


def tf_keras() -> Any:
    """The Keras 2 that the optimisation toolkit wraps."""
    tensorflow()
    return _import("tf_keras")


def toolkit() -> Any:
    """The TensorFlow Model Optimization toolkit."""
    tf_keras()
    return _import("tensorflow_model_optimization")


@dataclass(frozen=True)
class Devices:
    """Where Keras computes: ``count`` devices, in ``processes`` processes of which this is number ``process``.

    Where there are several, each takes an equal share of every batch (``distribution``); ``summary`` tells it.
    """

    summary: str
    kind: str
    count: int = 1
    process: int = 0
    processes: int = 1
    distribution: Any = None

    def scope(self) -> AbstractContextManager[Any]:
        """Within it, what Keras builds lies on these devices."""
        return nullcontext() if self.distribution is None else self.distribution.scope()  # type: ignore[no-any-return]

    @property
    def part(self) -> slice:
        """The shares of a batch that this process' devices take, of ``count``."""
        share = self.count // self.processes
        return slice(self.process * share, (self.process + 1) * share)

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("histoedge")

    def split_layout(self, dimensions: int) -> Any:
        """Keras' layout of an array whose rows are divided among the devices; None for a single one."""
        if self.distribution is None:
            return None
        mesh = self.distribution.device_mesh
        return keras().distribution.TensorLayout([mesh.axis_names[0], *[None] * (dimensions - 1)], mesh)


def use_device(device: Device) -> Devices:
    """Choose where Keras computes and say what was found; mixed precision where it is a GPU.

    On JAX all devices share the work; several machines do where Keras' own ``KERAS_DISTRIBUTION_JOB_ADDRESSES``,
    ``KERAS_DISTRIBUTION_NUM_PROCESSES`` and ``KERAS_DISTRIBUTION_PROCESS_ID`` are set.

    Raises:
        ConfigError: ``gpu`` was asked for and there is none.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    framework = keras()
    backend = framework.backend.backend()
    if backend == "jax":
        _join(framework)
    gpus = [] if device == "cpu" else _gpus(backend)
    if device == "gpu" and not gpus:
        raise ConfigError(f"--device gpu: the {backend} backend finds no GPU here; use --device cpu or auto")
    framework.mixed_precision.set_global_policy("mixed_bfloat16" if gpus else "float32")
    names = framework.distribution.list_devices("gpu" if gpus else "cpu") if backend == "jax" else []
    where = f"{max(len(names), 1)} GPU ({gpus[0]}), mixed precision" if gpus else f"CPU, {os.cpu_count()} cores"
    if len(gpus) > 1 and backend != "jax":
        where += f"; {len(gpus) - 1} more are not used: KERAS_BACKEND=jax trains on all"
    if len(names) > 1 and not gpus:
        where += f" as {len(names)} devices"
    summary = f"Keras {framework.__version__} on {backend}: {where}"
    kind = "gpu" if gpus else "cpu"
    if len(names) < 2:
        return Devices(summary, kind)
    import jax

    distribution = framework.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    processes = jax.process_count()
    if processes > 1:
        summary += f", in {processes} processes, this is number {jax.process_index()}"
    return Devices(summary, kind, len(names), jax.process_index(), processes, distribution)


def _join(framework: Any) -> None:
    """Join the other machines, where Keras' settings name them; once in a process."""
    import jax

    if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ and not jax.distributed.is_initialized():
        framework.distribution.initialize()


def free_gpu_bytes() -> int:
    """Memory that the GPUs still have for arrays, all together, as JAX tells."""
    told = [device.memory_stats() or {} for device in _import("jax").devices() if device.platform == "gpu"]
    return sum(int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0)) for stats in told)


def _gpus(backend: str) -> list[str]:
    if backend == "tensorflow":
        return [gpu.name for gpu in tensorflow().config.list_physical_devices("GPU")]
    if backend == "jax":
        return [gpu.device_kind for gpu in _import("jax").devices() if gpu.platform == "gpu"]
    if backend == "torch":
        cuda = _import("torch").cuda
        return [cuda.get_device_name(index) for index in range(cuda.device_count())]
    return []
