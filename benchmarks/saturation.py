"""Do int8 files answer the same on a CPU without VNNI? ``python benchmarks/saturation.py RUN --data DATA --out F``.

Runs ``int8.onnx`` of RUN with ONNX Runtime on this CPU and under QEMU as an Intel Haswell (``apt install qemu-user``),
on real test patches. For comparison it runs the same weights with finer codes, whose sums may saturate: with the
session option that the runner sets for such a file, and without it.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import run_script, write_record
from targets import evenly_spaced

from histoedge import data, metrics
from histoedge.cell import EDGE_COMMAND, Cell
from histoedge.config import Recipe
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.lab import appearance, checkpoint, export, quantise
from histoedge.progress import on_terminal

EMULATOR = ("qemu-x86_64", "-cpu", "Haswell")


def finer(run: Path, folder: Path) -> Path:
    """Export the int8 weights of a run with codes up to 127, whose sums may saturate."""
    shutil.copy(checkpoint.path_of(run, "fp32"), folder)
    shutil.copy(run / appearance.NAME, folder)
    saved = checkpoint.read(checkpoint.path_of(run, "int8"))
    arrays = {**saved.arrays, quantise.KERNEL_CODES: np.array([-127, 127])}
    checkpoint.write(checkpoint.path_of(folder, "int8"), dataclasses.replace(saved, arrays=arrays))
    return export.export(folder, Recipe.parse("int8"), formats=["onnx"])[0].model


def unguarded(model: Path, folder: Path) -> Path:
    """Copy the file with a manifest that does not state `may_saturate`: the runner then sets no session option."""
    copied = folder / "unguarded.onnx"
    shutil.copy(model, copied)
    shutil.copy(goldens.golden_path(model), goldens.golden_path(copied))
    body = json.loads(manifests.manifest_path(model).read_text()) | {"may_saturate": []}
    manifests.manifest_path(copied).write_text(json.dumps(body | {"digest": manifests.digest(body)}))
    return copied


def logits_on(model: Path, patches: np.ndarray, emulator: tuple[str, ...] = ()) -> np.ndarray:
    """Return the logits (N,) of a file, computed in a child process."""
    with Cell((*emulator, *EDGE_COMMAND), threads=1, timeout_s=3600) as cell:
        cell.load(model, runtime="onnxruntime")
        return cell.predict(patches, batch=1).reshape(-1)


def saturation_command() -> None:
    """Write a row for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="finished run")
    parser.add_argument("--data", required=True, help="data set; its test split is used")
    parser.add_argument("--patches", type=int, default=256, help="test patches, evenly spaced")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    arguments = parser.parse_args()
    if shutil.which(EMULATOR[0]) is None:
        sys.exit(f"{EMULATOR[0]} is not installed; apt install qemu-user")
    patches = evenly_spaced(data.load(arguments.data, splits=("test",))["test"], arguments.patches)
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
            native, emulated = logits_on(model, patches), logits_on(model, patches, EMULATOR)
            rows.append(
                {
                    "file": what,
                    "may_saturate": manifests.read(model).may_saturate,
                    "n_patches": len(patches),
                    "patches_that_differ": int(np.count_nonzero(native != emulated)),
                    "largest_logit_difference": float(np.abs(native - emulated).max()),
                    "flips": metrics.flips(native, emulated),
                }
            )
            show("saturation, files", done, len(models), f"{rows[-1]}")
    write_record(
        arguments.out,
        kind="saturation",
        command="python benchmarks/saturation.py RUN --data DATA --out F",
        about=f"ONNX Runtime under `{' '.join(EMULATOR)}` against ONNX Runtime on this CPU, on real patches of `test`.",
        rows=rows,
    )


if __name__ == "__main__":
    run_script(saturation_command)
