"""A whole run on a data set in each layout, with a network of its own: 64 px patches for a folder of classes."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from histoedge import data
from histoedge.edge import manifest as manifests

pytestmark = pytest.mark.lab

NETWORK = """
[train]
epochs = 1
[compress]
quantise_steps = 2
calibration_patches = 32
[bench]
rounds = 1
runs_per_round = 2
max_seconds = 0.1
integer_peak = false
runtimes = ["onnxruntime"]
[network]
name = "mine"
patch_px = 64
rows = [
  {kind = "conv", channels = 8, kernel = 4, stride = 4},
  {kind = "depthwise", kernel = 3, name = "spread"},
  {kind = "conv", channels = 8, kernel = 1, name = "mixed", inputs = ["spread"]},
  {kind = "add", inputs = ["spread", "mixed"], activation = "relu"},
  {kind = "head", channels = 1, kernel = 14},
]
"""
SIDE = 64
COUNTS = {"train": 48, "valid": 24, "test": 24}

Patches = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def patches(tiny_data: Path) -> Patches:
    """The centres of patches, uint8 (N, 64, 64, 3), and their labels, by split."""
    splits = data.load(str(tiny_data))
    first = (96 - SIDE) // 2
    parts = {}
    for name, split in splits.items():
        rows = np.concatenate([np.flatnonzero(split.labels == label)[: COUNTS[name] // 2] for label in (0, 1)])
        parts[name] = (split.patches[rows][:, first : first + SIDE, first : first + SIDE], split.labels[rows])
    return parts


def png(patch: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(patch).save(content, "PNG")
    return content.getvalue()


def class_folders(folder: Path, patches: Patches) -> None:
    for split, (pixels, labels) in patches.items():
        for number, (patch, label) in enumerate(zip(pixels, labels, strict=True)):
            path = folder / split / ("benign", "malignant")[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(patch))


def label_table(folder: Path, patches: Patches) -> None:
    (folder / "images").mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for split, (pixels, labels) in patches.items():
            for number, (patch, label) in enumerate(zip(pixels, labels, strict=True)):
                (folder / "images" / f"{split}{number}.png").write_bytes(png(patch))
                table.writerow([f"images/{split}{number}.png", ("benign", "malignant")[label], split])


def wilds(folder: Path, patches: Patches) -> None:
    centres = {"train": 0, "valid": 1, "test": 2}
    (folder / "patches").mkdir(parents=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"])
        row = 0
        for split, (pixels, labels) in patches.items():
            centre = centres[split]
            place = folder / "patches" / f"patient_{centre:03}_node_0"
            place.mkdir()
            for number, (patch, label) in enumerate(zip(pixels, labels, strict=True)):
                name = f"patch_patient_{centre:03}_node_0_x_{number}_y_0.png"
                (place / name).write_bytes(png(patch))
                table.writerow([row, f"{centre:03}", 0, number, 0, label, centre, centre, 0])
                row += 1


def parquet(folder: Path, patches: Patches) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    folder.mkdir()
    for split, (pixels, labels) in patches.items():
        images = [{"bytes": png(patch), "path": None} for patch in pixels]
        table = arrow.table({"image": images, "label": arrow.array(labels.astype(np.int64))})
        files.write_table(table, folder / f"{split}-00000-of-00001.parquet")


LAYOUTS = (class_folders, label_table, wilds, parquet)


@pytest.mark.parametrize(
    "write", [pytest.param(write, marks=() if write is class_folders else pytest.mark.slow) for write in LAYOUTS]
)
def test_a_run_on_64_px_patches_ends_with_its_table(
    write: Callable[[Path, Patches], None], patches: Patches, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    folder, settings, run = tmp_path / "data", tmp_path / "settings.toml", tmp_path / "run"
    write(folder, patches)
    settings.write_text(NETWORK)
    (folder / "data.toml").write_text("um_per_px = 0.5\n")
    options = ("--network", "mine", "--config", settings, "--recipe", "fp32", "--recipe", "int8")
    result = invoke("run", "--data", folder, "--out", run, *options)
    assert result.exit_code == 0, result.output
    assert "int8.onnx" in result.output
    manifest = manifests.read(run / "models" / "int8.onnx")
    assert (manifest.patch_px, manifest.um_per_px, manifest.edge_mode) == (SIDE, 0.5, "valid")
    assert (run / "report.html").is_file()
