"""Does an int8 file answer alike on a CPU without VNNI? ``python benchmarks/saturation.py RUN --data DATA --out F``.

Runs ``int8.onnx`` of RUN on ONNX Runtime here and under QEMU as an Intel Haswell (``apt install qemu-user``), on real
test patches, and beside it the same weights on the finer grid of codes that may saturate: with the session option
that the runner sets for such a file, and without it.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from histoedge import data, files, metrics
from histoedge.benchmark import environment
from histoedge.cell import EDGE_COMMAND, Cell
from histoedge.config import Recipe
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.lab import appearance, checkpoint, export, quantise
from histoedge.progress import on_terminal

EMULATOR = ("qemu-x86_64", "-cpu", "Haswell")


def finer(run: Path, folder: Path) -> Path:
    """The int8 weights of a run exported with codes up to 127, which may saturate."""
    shutil.copy(checkpoint.path_of(run, "fp32"), folder)
    shutil.copy(run / appearance.NAME, folder)
    saved = checkpoint.read(checkpoint.path_of(run, "int8"))
    arrays = {**saved.arrays, quantise.KERNEL_CODES: np.array([-127, 127])}
    checkpoint.write(checkpoint.path_of(folder, "int8"), dataclasses.replace(saved, arrays=arrays))
    return export.export(folder, Recipe.parse("int8"), formats=["onnx"])[0].model


def unguarded(model: Path, folder: Path) -> Path:
    """A copy whose manifest hides that it may saturate, so that the runner does not mend it."""
    copied = folder / "unguarded.onnx"
    shutil.copy(model, copied)
    shutil.copy(goldens.golden_path(model), goldens.golden_path(copied))
    body = json.loads(manifests.manifest_path(model).read_text()) | {"may_saturate": []}
    manifests.manifest_path(copied).write_text(json.dumps(body | {"digest": manifests.digest(body)}))
    return copied


def logits_on(model: Path, patches: np.ndarray, emulator: tuple[str, ...] = ()) -> np.ndarray:
    """Logits (N,) of one file in a process of its own."""
    with Cell((*emulator, *EDGE_COMMAND), threads=1, timeout_s=3600) as cell:
        cell.load(model, runtime="onnxruntime")
        return cell.predict(patches, batch=1).reshape(-1)


def saturation_command() -> None:
    """Write one row per file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if shutil.which(EMULATOR[0]) is None:
        sys.exit(f"error: {EMULATOR[0]} is not installed; apt install qemu-user")
    split = data.load(arguments.data, splits=("test",))["test"]
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, arguments.patches).astype(int))
    patches = split.patches[chosen]
    rows = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as name, on_terminal() as show:
        folder = Path(name)
        fine = finer(arguments.run, folder)
        models = {
            "int8.onnx": arguments.run / "models" / "int8.onnx",
            "finer codes, option set": fine,
            "finer codes, option not set": unguarded(fine, folder),
        }
        for done, (what, model) in enumerate(models.items(), start=1):
            here, there = logits_on(model, patches), logits_on(model, patches, EMULATOR)
            rows.append(
                {
                    "file": what,
                    "may_saturate": manifests.read(model).may_saturate,
                    "n_patches": len(patches),
                    "patches_that_differ": int(np.count_nonzero(here != there)),
                    "largest_logit_difference": float(np.abs(here - there).max()),
                    "flips": metrics.flips(here, there),
                }
            )
            show("saturation, files", done, len(models), f"{rows[-1]}")
    document = {
        "format": 1,
        "kind": "saturation",
        "command": "python benchmarks/saturation.py RUN --data DATA --out F",
        "about": f"ONNX Runtime under `{' '.join(EMULATOR)}` against ONNX Runtime here, on real patches of `test`.",
        "environment": environment.this_machine(),
        "rows": rows,
    }
    files.write_json(arguments.out, document)


if __name__ == "__main__":
    saturation_command()
