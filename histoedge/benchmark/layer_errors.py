"""Error of each layer of an int8 file against the same weights in float, measured by a child process of the lab."""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoedge.benchmark.environment import without_folder
from histoedge.cell import Cell, CellFailed
from histoedge.progress import Progress

COMMAND = (sys.executable, "-m", "histoedge.lab.layers")
"""The child process that answers the request ``layers`` {model, patches_npy}."""

SAMPLE_PATCHES = 256


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution of an int8 file: its name, output channels, and the error of its activation.

    ``relative_rms`` is the rms of that error over the rms of the activation in float. It includes the errors of
    earlier layers. None if the layer is 0 on all patches.
    """

    layer: str
    channels: int
    relative_rms: float | None


@dataclass(frozen=True, kw_only=True)
class FileLayers:
    """The layers of one int8 file in the network's order, on ``n_patches`` of the valid split.

    ``runtime`` computed the activations of the file, TensorFlow those of the weights in float. Without ``layers``,
    ``reason`` is the cause.
    """

    model: str
    runtime: str | None
    n_patches: int
    reason: str | None
    layers: tuple[Layer, ...]


def measure_layers(
    files: Mapping[str, Path], patches: np.ndarray, *, timeout_s: float, progress: Progress
) -> tuple[FileLayers, ...]:
    """Measure the layers of every file; a file that cannot be measured gets a reason instead.

    Args:
        files: int8 files by name, in the ``models`` folder of their run, which contains the weights.
        patches: uint8 (N, S, S, 3), not of the test split: the errors decide which layers stay in float.
        timeout_s: limit for one file, in seconds.
        progress: called after each file.
    """
    measured = []
    lab: Cell | None = None
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        pixels = Path(folder) / "patches.npy"
        np.save(pixels, patches)
        try:
            for done, (name, path) in enumerate(files.items(), start=1):
                runtime, reason = None, None
                layers: tuple[Layer, ...] = ()
                lab = lab or Cell(COMMAND, timeout_s=timeout_s)
                try:
                    answer = lab.ask("layers", model=str(path.absolute()), patches_npy=str(pixels))
                    runtime = answer["runtime"]
                    layers = tuple(
                        Layer(**{key: row[key] for key in Layer.__annotations__}) for row in answer["layers"]
                    )
                except CellFailed as failure:
                    reason = without_folder(failure.reason, path.absolute().parent.parent)
                    lab = lab if failure.kind else None  # without a kind the child process is dead
                count = len(patches)
                measured.append(FileLayers(model=name, runtime=runtime, n_patches=count, reason=reason, layers=layers))
                progress("bench, layers", done, len(files), name)
        finally:
            if lab is not None:
                lab.kill()
    return tuple(measured)
