"""Where the training patches lie, decided from the memory there is before any work is done."""

from dataclasses import dataclass

from histoedge import memory
from histoedge.config import PatchesOn
from histoedge.data import PATCH_PX, Split
from histoedge.edge.errors import ConfigError
from histoedge.lab import backend
from histoedge.lab.architecture import Network
from histoedge.lab.backend import Devices

PATCH_BYTES = PATCH_PX * PATCH_PX * 3
FRAMEWORK_BYTES = 1_300_000_000  # Python, TensorFlow 2.21 or JAX 0.10, a compiled step: 1.1 to 1.3 GB were measured
PIXEL_COPIES = 4  # float32 copies of a batch's pixels that a step holds at once: measured, 3
OUTPUT_COPIES = 3  # of each layer's output: measured, 2.3 to 2.6
HOLDING = {("tensorflow", "cpu"), ("jax", "cpu"), ("jax", "gpu")}
"""Backends and devices where ``feed.held`` can fill an array in its place; TensorFlow scatters uint8 on CPUs alone."""
SPARE = 0.9  # of the memory that may be taken is


@dataclass(frozen=True)
class Placement:
    """``on`` the ``device`` or the ``disk``, and ``why`` in a line."""

    on: str
    why: str


def step_bytes(network: Network, batch: int) -> int:
    """An estimate of what one training step of ``batch`` patches holds besides the framework, in bytes."""
    floats = PIXEL_COPIES * PATCH_BYTES
    side, channels = PATCH_PX, 3
    for _, row in network.layers:
        side = (side - row.kernel) // row.stride + 1
        channels = row.channels or channels
        floats += OUTPUT_COPIES * side * side * channels
    return 4 * batch * floats


def refuse_too_little() -> None:
    """Pass where there is memory for Keras at all; to be asked before it is imported, which takes most of that.

    Raises:
        ConfigError: there is not; the line has the figures.
    """
    if _room() < FRAMEWORK_BYTES:
        raise ConfigError(
            f"training takes at least {_gb(FRAMEWORK_BYTES)} and {_gb(_room())} may be taken here "
            f"({memory.free().limited_by}); give it more memory"
        )


def choose(asked: PatchesOn, split: Split, network: Network, *, batch: int, devices: Devices) -> Placement:
    """Where the patches of the split go.

    Args:
        asked: ``device``, ``disk``, or ``auto``: on the device where they fit.
        split: the training patches.
        network: that is trained.
        batch: patches a step.
        devices: where Keras computes.

    Raises:
        ConfigError: what was asked for does not fit, or not even a single batch does; the line has the figures.
    """
    free, room = memory.free(), _room()
    patches, step = split.patches.shape[0] * PATCH_BYTES, step_bytes(network, batch)
    host = FRAMEWORK_BYTES + (0 if devices.kind == "gpu" else step)
    if host > room:
        raise ConfigError(
            f"training {network.name} takes about {_gb(host)} ({_gb(FRAMEWORK_BYTES)} for Keras, {_gb(step)} for a "
            f"batch of {batch}) and {_gb(room)} may be taken here ({free.limited_by}); "
            "set a smaller batch, train a smaller network, or give it more memory"
        )
    if (backend.name(), devices.kind) not in HOLDING:
        fits, figures = False, f"{backend.name()} on a {devices.kind.upper()} cannot hold patches in one copy"
    elif devices.kind == "gpu":
        free_gpu = backend.free_gpu_bytes()
        fits = patches + devices.count * step <= SPARE * free_gpu
        figures = f"{_gb(patches)} of patches, {_gb(free_gpu)} free on {devices.count} GPU"
    else:
        fits = host + patches // devices.processes <= room
        figures = f"{_gb(patches)} of patches and {_gb(host)} to train, {_gb(room)} of {free.limited_by}"
    if asked == "device" and not fits:
        raise ConfigError(f"--patches-on device does not fit: {figures}; leave it out, or give --patches-on disk")
    if asked == "disk":
        return Placement("disk", "patches are read from disk, as asked for")
    if fits:
        where = "on the GPU" if devices.kind == "gpu" else "in memory"
        return Placement("device", f"patches are held {where}: {figures}")
    return Placement("disk", f"patches are read from disk: {figures}")


def _room() -> int:
    """Bytes that this process may hold in all: of what is free, and of what it holds already."""
    return int(SPARE * (memory.free().free_bytes + memory.resident_bytes()))


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
