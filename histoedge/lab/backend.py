"""Import Keras, TensorFlow and the optimisation toolkit without their log output, and choose the device."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from histoedge.config import Device
from histoedge.edge.errors import ConfigError, RuntimeUnavailable

INSTALL_COMMANDS = {
    "jax": "pip install 'histoedge[lab,jax]', with an NVIDIA GPU 'histoedge[lab,jax-cuda]'",
    "torch": "pip install torch",
}
"""Install commands for the Keras backends other than TensorFlow, which the extra ``lab`` includes."""


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what C++ code prints on file descriptor 2; print it if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            sink.seek(0)
            os.write(stderr, sink.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _import(name: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = import_module(name)
    except ImportError as error:
        requested = os.environ.get("KERAS_BACKEND", "tensorflow") if name == "keras" else "tensorflow"
        command = INSTALL_COMMANDS.get(requested, "pip install 'histoedge[lab]'")
        raise RuntimeUnavailable(
            f"{name} cannot be imported ({error}); required for training and export: {command}"
        ) from error
    except ValueError as error:  # raised by Keras for an unknown backend
        raise ConfigError(f"KERAS_BACKEND: {error}; use tensorflow, jax or torch") from error
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return module


def keras() -> Any:
    """Return Keras 3 with the backend in ``KERAS_BACKEND`` (default: TensorFlow)."""
    module = _import("keras")
    if module.backend.backend() == "tensorflow":
        tensorflow()
    return module


def set_random_seed(seed: int) -> None:
    """Set the seeds of Python, NumPy, TensorFlow and the Keras backend."""
    if find_spec("tensorflow") is not None:
        _import("tensorflow")  # Keras imports it here on every backend, with log output
    keras().utils.set_random_seed(seed)


def name() -> str:
    """Return the backend of Keras: ``tensorflow``, ``jax`` or ``torch``."""
    return str(keras().backend.backend())


def tensorflow() -> Any:
    """Return TensorFlow with deterministic kernels: the same seed gives the same weights."""
    module = _import("tensorflow")
    module.config.experimental.enable_op_determinism()
    return module


def tf_keras() -> Any:
    """Return Keras 2, which the optimisation toolkit wraps."""
    tensorflow()
    return _import("tf_keras")


def toolkit() -> Any:
    """Return the TensorFlow Model Optimization toolkit."""
    tf_keras()
    return _import("tensorflow_model_optimization")


@dataclass(frozen=True)
class Devices:
    """The devices of Keras; several devices divide every batch equally.

    Attributes:
        summary: description in one line.
        kind: ``cpu`` or ``gpu``.
        count: number of devices in all processes.
        process: number of this process.
        processes: number of processes.
        distribution: Keras' distribution over several devices; None for a single one.
    """

    summary: str
    kind: str
    count: int = 1
    process: int = 0
    processes: int = 1
    distribution: Any = None

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context in which Keras places what it builds on these devices."""
        return nullcontext() if self.distribution is None else self.distribution.scope()  # type: ignore[no-any-return]

    @property
    def part(self) -> slice:
        """The shares of a batch, of ``count``, for the devices of this process."""
        share = self.count // self.processes
        return slice(self.process * share, (self.process + 1) * share)

    def wait_for_all(self) -> None:
        """Block until every process has called this."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("histoedge")

    def split_layout(self, dimensions: int) -> Any:
        """Return Keras' layout of an array with rows divided among the devices; None for a single device."""
        if self.distribution is None:
            return None
        mesh = self.distribution.device_mesh
        return keras().distribution.TensorLayout([mesh.axis_names[0], *[None] * (dimensions - 1)], mesh)


def use_device(device: Device) -> Devices:
    """Select the devices of Keras and return them; GPUs use mixed precision.

    JAX uses all devices. With Keras' ``KERAS_DISTRIBUTION_JOB_ADDRESSES``, ``KERAS_DISTRIBUTION_NUM_PROCESSES`` and
    ``KERAS_DISTRIBUTION_PROCESS_ID``, it also uses several machines.

    Raises:
        ConfigError: ``gpu`` without a GPU.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    framework = keras()
    backend = framework.backend.backend()
    if backend == "jax":
        _join_machines(framework)
    gpus = [] if device == "cpu" else _gpus(backend)
    if device == "gpu" and not gpus:
        raise ConfigError(f"--device gpu: the {backend} backend has no GPU; use --device cpu or auto")
    framework.mixed_precision.set_global_policy("mixed_bfloat16" if gpus else "float32")
    names = framework.distribution.list_devices("gpu" if gpus else "cpu") if backend == "jax" else []
    where = f"{max(len(names), 1)} GPU ({gpus[0]}), mixed precision" if gpus else f"CPU, {os.cpu_count()} cores"
    if len(gpus) > 1 and backend != "jax":
        where += f"; {len(gpus) - 1} more unused, KERAS_BACKEND=jax trains on all"
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
        summary += f", process {jax.process_index() + 1} of {processes}"
    return Devices(summary, kind, len(names), jax.process_index(), processes, distribution)


def _join_machines(framework: Any) -> None:
    """Connect to the other machines if Keras' environment variables name them; once per process."""
    import jax

    if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ and not jax.distributed.is_initialized():
        framework.distribution.initialize()


def free_gpu_bytes() -> int:
    """Return the free memory of all GPUs together, as reported by JAX."""
    statistics = [device.memory_stats() or {} for device in _import("jax").devices() if device.platform == "gpu"]
    return sum(int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0)) for stats in statistics)


def _gpus(backend: str) -> list[str]:
    if backend == "tensorflow":
        return [gpu.name for gpu in tensorflow().config.list_physical_devices("GPU")]
    if backend == "jax":
        return [gpu.device_kind for gpu in _import("jax").devices() if gpu.platform == "gpu"]
    if backend == "torch":
        cuda = _import("torch").cuda
        return [cuda.get_device_name(index) for index in range(cuda.device_count())]
    return []
