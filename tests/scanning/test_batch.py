"""The command ``histoedge scan``: its files, kept slides, resuming after a kill, and error messages."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError
from histoedge.scanning import batch, outcome

pytest.importorskip("skimage")  # the extra `slides`
tifffile = pytest.importorskip("tifffile")

Texture = Callable[[int, int], np.ndarray]
WriteSlide = Callable[..., Path]

PINK = (200, 120, 160)  # the colour of tissue
FILES = {batch.MAP, batch.HEATMAP, batch.REGIONS, batch.TILES, batch.SUMMARY, outcome.PAGE}


def summary(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / batch.SUMMARY).read_text())
    return document


@pytest.fixture
def tissue(write_slide: WriteSlide) -> Callable[..., Path]:
    """``tissue(name)``: a slide of 1000 x 800 px, glass with a piece of tissue from (200, 160) to (800, 640)."""

    def write(name: str = "slide.tif", **options: object) -> Path:
        pixels = np.full((800, 1000, 3), 245, np.uint8)
        pixels[160:640, 200:800] = PINK
        return write_slide(pixels, name=name, **options)

    return write


def test_a_slide_gets_all_its_files_and_a_changed_slide_is_refused(
    tissue: Callable[..., Path],
    mean_red: Path,
    tmp_path: Path,
    scan: Callable[..., Any],
    logits: Callable[[Path], np.ndarray],
) -> None:
    out = tmp_path / "out"
    first = scan(tissue(), "--model", mean_red, "--out", out)
    assert first.exit_code == 0, first.output
    assert {path.name for path in (out / "slide").iterdir()} == FILES
    assert first.stdout.startswith("slide.tif: 0.3 mm² of tissue, ")
    assert str(out / "slide" / "page.html") in first.stdout
    has_logit = np.isfinite(logits(out / "slide"))
    rows, columns = np.nonzero(has_logit)  # the first square starts at 32 px
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 18, 5, 23)
    document = summary(out / "slide")
    assert document["model"]["sha256"] == manifests.read(mean_red).sha256
    assert set(document["seconds"]) == {"mask", "read", "infer", "write", "by the clock"}
    assert {"histoedge", "onnxruntime", "openslide-bin", "tifffile"} <= set(document["versions"])
    written = {path: path.stat().st_mtime_ns for path in (out / "slide").iterdir()}
    again = scan(tissue(), "--model", mean_red, "--out", out)
    assert again.exit_code == 1  # the slide was written again and has another modification time
    assert "contains the map of another slide" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (out / "slide").iterdir()} == written


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_fits_the_browser_window_and_needs_no_network(
    tissue: Callable[..., Path],
    mean_red: Path,
    browse: Callable[[Path, int], Any],
    tmp_path: Path,
    width: int,
    scan: Callable[..., Any],
) -> None:
    name = "<b>&amp; a-slide-of-a-very-long-name-that-a-laboratory-gave-it-with-no-space-to-break-at.tif"
    assert scan(tissue(name), "--model", mean_red, "--out", tmp_path / "out").exit_code == 0
    page = tmp_path / "page.html"
    page.write_bytes(next((tmp_path / "out").glob(f"*/{outcome.PAGE}")).read_bytes())
    view = browse(page, width)
    assert view.console == view.requests == []
    assert view.screenshot_bytes > 20_000
    assert view.scroll_width <= width
    assert "<b>&amp; a" not in page.read_text()


def test_scanning_a_folder_resumes_and_reports_the_damaged_slide(
    tissue: Callable[..., Path], mean_red: Path, tmp_path: Path, scan: Callable[..., Any]
) -> None:
    folder, out = tmp_path / "slides", tmp_path / "out"
    folder.mkdir()
    for name in ("a.tif", "b.tif", "c.tif"):
        shutil.move(tissue(name), folder / name)
    good = (folder / "b.tif").read_bytes()
    (folder / "b.tif").write_bytes(good[: len(good) // 2])
    (folder / "notes.txt").write_text("not a slide")
    first = scan(folder, "--model", mean_red, "--out", out)
    assert first.exit_code == 1
    message = first.stderr.splitlines()[-1]  # after the progress lines
    assert message.startswith("histoedge: 1 of 3 slides failed, the others are done: ")
    assert "b.tif: truncated: the pixels end at byte" in first.stderr
    with open(out / batch.ALL, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["slide"], row["status"]) for row in rows] == [
        ("a.tif", "done"),
        ("b.tif", "failed"),
        ("c.tif", "done"),
    ]
    assert "truncated" in rows[1]["reason"]
    assert not (out / "b").exists()
    written = (out / "a" / batch.MAP).stat().st_mtime_ns
    (folder / "b.tif").write_bytes(good)
    second = scan(folder, "--model", mean_red, "--out", out, "--json")
    assert second.exit_code == 0
    assert [row["status"] for row in json.loads(second.stdout)] == ["kept", "done", "kept"]
    assert (out / "a" / batch.MAP).stat().st_mtime_ns == written


def test_field_size_and_workers_change_no_byte_of_the_map(
    write_slide: WriteSlide, texture: Texture, mean_red_int8: Path, tmp_path: Path, scan: Callable[..., Any]
) -> None:
    path = write_slide(texture(900, 1100), um_per_px=0.6)
    maps = set()
    for field_px, workers in ((96, 1), (256, 3), (1024, 2), (8192, 1)):
        out = tmp_path / f"{field_px}"
        options = ("--field", field_px, "--workers", workers, "--everywhere")
        result = scan(path, "--model", mean_red_int8, "--out", out, *options)
        assert result.exit_code == 0, result.output
        maps.add((out / "slide" / batch.MAP).read_bytes())
    assert len(maps) == 1


def test_a_killed_command_resumes_to_the_same_bytes(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path
) -> None:
    path = write_slide(texture(2000, 2200), um_per_px=0.6)
    command = [sys.executable, "-m", "histoedge", "scan", str(path), "--model", str(mean_red), "--everywhere"]
    command += ["--field", "128", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    draw, out, kills = random.Random(1), tmp_path / "killed", 0
    for _ in range(3):
        with subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            before = fields_done(out)
            while child.poll() is None and fields_done(out) <= before:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            kills += child.wait() == -signal.SIGKILL
    assert kills >= 1
    ended = subprocess.run([*command, str(out)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for name in (batch.MAP, batch.REGIONS, batch.TILES, batch.HEATMAP):
        assert (out / "slide" / name).read_bytes() == (tmp_path / "whole" / "slide" / name).read_bytes(), name
    assert {path.name for path in (out / "slide").iterdir()} == FILES


def fields_done(out: Path) -> int:
    """Return the number of finished fields of an unfinished scan, 0 without one."""
    try:
        return (out / "slide" / "state" / "done.npy").read_bytes().count(
            b"\x01"
        ) - 1  # the header contains one such byte
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("um_per_px", [0.972, 0.486, 0.243, 0.25, 0.499])
def test_a_marked_square_is_at_its_place_in_geojson_and_heatmap(
    write_slide: WriteSlide,
    mean_red: Path,
    tmp_path: Path,
    um_per_px: float,
    sign: Callable[..., Path],
    scan: Callable[..., Any],
) -> None:
    from PIL import Image

    scale = 0.972 / um_per_px
    pixels = np.full((round(1000 * scale), round(1100 * scale), 3), (120, 120, 200), np.uint8)
    left, top, side = (round(px * scale) for px in (530, 345, 96))  # not aligned with the squares
    pixels[top : top + side, left : left + side] = (255, 120, 200)
    path = write_slide(pixels, um_per_px=um_per_px, downsamples=(1, 2, 4))
    # the logit is the mean red / 255: 0.47 outside; 0.75 needs over half of the patch in the marked square
    model = sign(mean_red, threshold=0.68)  # the sigmoid of 0.75
    result = scan(path, "--model", model, "--out", tmp_path / "out", "--everywhere")
    assert result.exit_code == 0, result.output
    stride = 32 * scale
    collection = json.loads((tmp_path / "out" / "slide" / batch.REGIONS).read_text())
    (feature,) = collection["features"]
    corners = np.concatenate([np.reshape(ring, (-1, 2)) for ring in feature["geometry"]["coordinates"]])
    middle = (corners.min(0) + corners.max(0)) / 2
    np.testing.assert_allclose(middle, (left + side / 2, top + side / 2), atol=stride)
    document = summary(tmp_path / "out" / "slide")
    first = document["top_fields"][0]
    np.testing.assert_allclose((first["x"], first["y"]), np.array((left, top)) + side / 3, atol=stride)
    picture = np.asarray(Image.open(tmp_path / "out" / "slide" / batch.HEATMAP).convert("L")).astype(int)
    scale_px = document["heatmap"]["level0_px_per_px"]
    slide_part = picture[: int(pixels.shape[0] / scale_px), : int(pixels.shape[1] / scale_px)]
    rows, columns = np.nonzero(slide_part < 40)  # the outline is black
    outlined = np.array([(columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2]) * scale_px
    np.testing.assert_allclose(outlined, (left + side / 2, top + side / 2), atol=stride)


def test_the_operating_point_sets_the_threshold_of_foci(
    tissue: Callable[..., Path], mean_red_calibrated: Path, tmp_path: Path, scan: Callable[..., Any]
) -> None:
    for at, threshold in ((None, 0.6), ("specificity 0.95", 0.7)):
        out = tmp_path / str(threshold)
        options = () if at is None else ("--at", at)
        assert scan(tissue(), "--model", mean_red_calibrated, "--out", out, *options).exit_code == 0
        assert summary(out / "slide")["threshold"] == threshold


def test_a_slide_without_tissue_has_an_empty_map(
    write_slide: WriteSlide,
    mean_red: Path,
    tmp_path: Path,
    scan: Callable[..., Any],
    logits: Callable[[Path], np.ndarray],
) -> None:
    path = write_slide(np.full((500, 600, 3), 250, np.uint8))
    result = scan(path, "--model", mean_red, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stdout.startswith("slide.tif: no tissue: the map is empty; ")
    assert np.isnan(logits(tmp_path / "out" / "slide")).all()
    assert {path.name for path in (tmp_path / "out" / "slide").iterdir()} == FILES
    assert json.loads((tmp_path / "out" / "slide" / batch.REGIONS).read_text())["features"] == []


def test_the_output_of_another_model_or_other_settings_is_not_overwritten(
    tissue: Callable[..., Path], mean_red: Path, mean_red_int8: Path, tmp_path: Path, scan: Callable[..., Any]
) -> None:
    path, out = tissue(), tmp_path / "out"
    assert scan(path, "--model", mean_red, "--out", out).exit_code == 0
    before = (out / "slide" / batch.MAP).read_bytes()
    for options, message in (
        (("--model", mean_red_int8), "contains the map of another model (SHA-256 "),
        (("--model", mean_red, "--um-per-px", "0.9"), "contains a map with other settings"),
    ):
        result = scan(path, *options, "--out", out)
        assert result.exit_code == 1
        assert message in result.stderr
        assert "choose another --out" in result.stderr
    assert (out / "slide" / batch.MAP).read_bytes() == before
    (out / "slide" / batch.SUMMARY).write_text("{")
    damaged = scan(path, "--model", mean_red, "--out", out)
    assert damaged.exit_code == 1
    assert "not the summary of a scan" in damaged.stderr


def test_an_unwritable_output_is_an_error(
    tissue: Callable[..., Path], mean_red: Path, tmp_path: Path, scan: Callable[..., Any]
) -> None:
    (tmp_path / "out").write_text("a file")
    result = scan(tissue(), "--model", mean_red, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "cannot create this folder" in result.stderr


def test_dicom_files_of_one_folder_are_one_slide(tmp_path: Path) -> None:
    for place in ("series-1/a.dcm", "series-1/b.dcm", "series-2/c.dcm", "one.svs", "two.TIF", "notes.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    slides = batch.find_slides([tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in slides] == [
        "one.svs",
        "two.TIF",
        "series-1/a.dcm",
        "series-2/c.dcm",
    ]


def test_places_that_cannot_be_scanned_are_refused_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such slide or folder"):
        batch.find_slides([tmp_path / "missing"])
    with pytest.raises(DataError, match="no slides in this folder"):
        batch.find_slides([tmp_path])
    for name in ("a.svs", "a.tif"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="two slides would be written to a folder named a"):
        batch.find_slides([tmp_path])


def test_a_missing_model_is_an_error_before_anything_is_written(
    tissue: Callable[..., Path], tmp_path: Path, scan: Callable[..., Any]
) -> None:
    result = scan(tissue(), "--model", tmp_path / "no.onnx", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.environ.get("HISTOEDGE_DATA", "") == "", reason="HISTOEDGE_DATA names no folder")
@pytest.mark.real
def test_a_slide_of_real_patches_has_the_auc_of_the_patches(
    write_slide: WriteSlide, tmp_path: Path, scan: Callable[..., Any], logits: Callable[[Path], np.ndarray]
) -> None:
    from histoedge import data, edge, metrics

    model = Path(__file__).parents[2] / "exported" / "edge" / "models" / "int8.onnx"
    split = data.load(os.environ["HISTOEDGE_DATA"], splits=("test",))["test"]
    patches, labels = split.patches[:], split.labels[:]
    across = 30
    down = -(-len(patches) // across)
    padded = np.zeros((down * across, 96, 96, 3), np.uint8)
    padded[: len(patches)] = patches
    path = write_slide(padded.reshape(down, across, 96, 96, 3).swapaxes(1, 2).reshape(down * 96, across * 96, 3))
    result = scan(path, "--model", model, "--out", tmp_path / "out", "--everywhere")
    assert result.exit_code == 0, result.output
    on_slide = logits(tmp_path / "out" / "slide")[::3, ::3].reshape(-1)[: len(labels)]
    alone = edge.load(model).predict(patches).reshape(-1)
    np.testing.assert_array_equal(on_slide, alone)
    assert metrics.auc(labels, on_slide) == pytest.approx(metrics.auc(labels, alone), abs=1e-6)
