"""Importing the frameworks once, quietly, on the device that was asked for."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from histoedge.config import Device
from histoedge.edge.errors import ConfigError, RuntimeUnavailable


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
        raise RuntimeUnavailable(
            f"{name} is not usable here ({error}); training and exporting need: pip install 'histoedge[lab]'"
        ) from error
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return module


def keras() -> Any:
    """Keras 3, with the backend that ``KERAS_BACKEND`` names (TensorFlow without it)."""
    module = _import("keras")
    if module.backend.backend() == "tensorflow":
        tensorflow()
    return module


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


def use_device(device: Device) -> str:
    """Choose where Keras computes and say what was found; mixed precision where it is a GPU.

    Raises:
        ConfigError: ``gpu`` was asked for and there is none.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    framework = keras()
    backend = framework.backend.backend()
    gpus = [] if device == "cpu" else _gpus(backend)
    if device == "gpu" and not gpus:
        raise ConfigError(f"--device gpu: the {backend} backend finds no GPU here; use --device cpu or auto")
    framework.mixed_precision.set_global_policy("mixed_bfloat16" if gpus else "float32")
    where = f"{len(gpus)} GPU ({gpus[0]}), mixed precision" if gpus else f"CPU, {os.cpu_count()} cores"
    return f"Keras {framework.__version__} on {backend}: {where}"


def _gpus(backend: str) -> list[str]:
    if backend == "tensorflow":
        return [gpu.name for gpu in tensorflow().config.list_physical_devices("GPU")]
    if backend == "jax":
        return [gpu.device_kind for gpu in _import("jax").devices() if gpu.platform == "gpu"]
    if backend == "torch":
        cuda = _import("torch").cuda
        return [cuda.get_device_name(index) for index in range(cuda.device_count())]
    return []
