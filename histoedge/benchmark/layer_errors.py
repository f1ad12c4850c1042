"""How far each layer of an int8 file is from the same weights in float, as a child process of the lab tells it."""

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
"""The child that answers ``layers`` {model, patches_npy}."""

SAMPLE_PATCHES = 256


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution of an int8 file: its name, output channels, and the error of its activation.

    ``relative_rms`` is the rms of that error over the rms of the activation in float, what the layers before it pass
    on included; None where the layer is 0 on all patches.
    """

    layer: str
    channels: int
    relative_rms: float | None


@dataclass(frozen=True, kw_only=True)
class FileLayers:
    """The layers of one int8 file in the network's order, on ``n_patches`` of the valid split.

    ``runtime`` computed the file's activations, those of the weights in float TensorFlow. Where there are no
    ``layers``, ``reason`` says why.
    """

    model: str
    runtime: str | None
    n_patches: int
    reason: str | None
    layers: tuple[Layer, ...]


def measure_layers(
    files: Mapping[str, Path], patches: np.ndarray, *, timeout_s: float, progress: Progress
) -> tuple[FileLayers, ...]:
    """Ask for the layers of every file; one that cannot be told has a reason instead.

    Args:
        files: int8 files within their run, beside whose ``models`` lie the weights, by name.
        patches: uint8 (N, 96, 96, 3), never of the test split: what is seen here decides what is kept in float.
        timeout_s: how long a file may take.
        progress: called as each file is done.
    """
    found = []
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
                    told = lab.ask("layers", model=str(path.absolute()), patches_npy=str(pixels))
                    runtime = told["runtime"]
                    layers = tuple(Layer(**{key: row[key] for key in Layer.__annotations__}) for row in told["layers"])
                except CellFailed as failure:
                    reason = without_folder(failure.reason, path.absolute().parent.parent)
                    lab = lab if failure.kind else None  # what is no refusal has ended it
                count = len(patches)
                found.append(FileLayers(model=name, runtime=runtime, n_patches=count, reason=reason, layers=layers))
                progress("bench, layers", done, len(files), name)
        finally:
            if lab is not None:
                lab.kill()
    return tuple(found)
