"""Choose from the free memory whether training patches are stored on the device or read from disk."""

import math
from dataclasses import dataclass

from histoedge import memory
from histoedge.config import PatchesOn
from histoedge.data import Split
from histoedge.edge.errors import ConfigError
from histoedge.lab import backend
from histoedge.lab.architecture import Network
from histoedge.lab.backend import Devices

FRAMEWORK_BYTES = 1_300_000_000  # Python, TensorFlow 2.21 or JAX 0.10, a compiled step: 1.1 to 1.3 GB measured
PIXEL_COPIES = 4  # float32 copies of a batch's pixels during a step: 3 measured
OUTPUT_COPIES = 3  # copies of each layer's output: 2.3 to 2.6 measured
DEVICE_STORAGE = {("tensorflow", "cpu"), ("jax", "cpu"), ("jax", "gpu")}
"""Backends and devices where ``feed.on_device`` can fill an array in place; TensorFlow scatters uint8 only on CPUs."""
USABLE_SHARE = 0.9  # of the free memory


@dataclass(frozen=True)
class Placement:
    """The place of the training patches: ``on`` is ``device`` or ``disk``, ``why`` the reason in one line."""

    on: str
    why: str


def check_minimum_memory() -> None:
    """Check that there is enough memory for Keras. Call it before the import of Keras, which needs most of it.

    Raises:
        ConfigError: too little memory; the message contains the figures.
    """
    if _usable_bytes() < FRAMEWORK_BYTES:
        raise ConfigError(
            f"training needs at least {_gb(FRAMEWORK_BYTES)} of memory, {_gb(_usable_bytes())} is available "
            f"({memory.free().limited_by}); free memory or raise the limit"
        )


def choose(requested: PatchesOn, split: Split, network: Network, *, batch: int, devices: Devices) -> Placement:
    """Choose where to store the patches of the split.

    Args:
        requested: ``device``, ``disk``, or ``auto`` (the device if they fit).
        split: the training patches.
        network: the network to train.
        batch: batch size.
        devices: devices of Keras.

    Raises:
        ConfigError: the patches do not fit on the requested device, or the memory is too small for a single batch; the
            message contains the figures.
    """
    free, usable = memory.free(), _usable_bytes()
    patches, step = math.prod(split.patches.shape), step_bytes(network, batch)
    host = FRAMEWORK_BYTES + (0 if devices.kind == "gpu" else step)
    if host > usable:
        raise ConfigError(
            f"training {network.name} needs about {_gb(host)} of memory ({_gb(FRAMEWORK_BYTES)} for Keras, {_gb(step)} "
            f"for a batch of {batch}), {_gb(usable)} is available ({free.limited_by}); "
            "use a smaller batch or network, or raise the limit"
        )
    if (backend.name(), devices.kind) not in DEVICE_STORAGE:
        fits, figures = False, f"{backend.name()} on a {devices.kind.upper()} cannot store patches in one copy"
    elif devices.kind == "gpu":
        free_gpu = backend.free_gpu_bytes()
        fits = patches + devices.count * step <= USABLE_SHARE * free_gpu
        figures = f"{_gb(patches)} of patches, {_gb(free_gpu)} free on {devices.count} GPU"
    else:
        fits = host + patches // devices.processes <= usable
        figures = f"{_gb(patches)} of patches and {_gb(host)} for training, {_gb(usable)} available ({free.limited_by})"
    if requested == "device" and not fits:
        raise ConfigError(f"--patches-on device does not fit: {figures}; use --patches-on auto or disk")
    if requested == "disk":
        return Placement("disk", "training patches are read from disk (--patches-on disk)")
    if fits:
        where = "on the GPU" if devices.kind == "gpu" else "in memory"
        return Placement("device", f"training patches are stored {where}: {figures}")
    return Placement("disk", f"training patches are read from disk: {figures}")


def step_bytes(network: Network, batch: int) -> int:
    """Estimate the memory of one training step of ``batch`` patches, without the framework, in bytes."""
    outputs = sum(node.out_px**2 * node.channels for node in network.nodes)
    return 4 * batch * (PIXEL_COPIES * 3 * network.patch_px**2 + OUTPUT_COPIES * outputs)


def _usable_bytes() -> int:
    """Return the memory that this process may use in total: a share of the free memory and of its own."""
    return int(USABLE_SHARE * (memory.free().free_bytes + memory.resident_bytes()))


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
