"""Every square of a map has the logit of its own patch, independent of fields, threads and processes."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data, edge, metrics
from histoedge.data import synthetic
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError
from histoedge.edge.patches import LABEL_PX
from histoedge.scanning import FIELD_PX, Scan, engine, plane, scan
from histoedge.scanning.engine import AHEAD, FieldsJob, Timings, Workers
from histoedge.scanning.grid import Grid, grid_of
from histoedge.scanning.plane import Plane
from histoedge.scanning.readers import open_slide
from histoedge.scanning.slidemap import SlideMap
from histoedge.scanning.unfinished import Unfinished

Texture = Callable[[int, int], np.ndarray]
WriteSlide = Callable[..., Path]

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "exported" / "edge" / "models"
REAL_SLIDE = os.environ.get("HISTOEDGE_SLIDE", "")
DATA = os.environ.get("HISTOEDGE_DATA", "")

ONE_EACH = Workers(readers=1, interpreters=1)


def scan_map(path: Path, model: Path, folder: Path, *, workers: Workers = ONE_EACH, **settings: object) -> SlideMap:
    slide_map, *_ = scan(path, model, folder, settings=Scan(**{"mask": False, **settings}), workers=workers)
    return slide_map


def logits_of_patches(path: Path, model: Path) -> np.ndarray:
    """Return the logits (rows, columns) of every patch, cut out and predicted alone."""
    runner = edge.load(model)
    slide_plane = plane.of_model(open_slide(path), runner.manifest.um_per_px, None)
    rows, columns = ((side - 96) // LABEL_PX + 1 for side in (slide_plane.height, slide_plane.width))
    corners = [(row * LABEL_PX, column * LABEL_PX) for row in range(rows) for column in range(columns)]
    logits = [runner.predict(slide_plane.read(left, top, 96, 96)[None]) for top, left in corners]
    return np.array(logits, np.float32).reshape(rows, columns)


def mosaic(patches: np.ndarray, across: int) -> np.ndarray:
    """Arrange patches row by row; the rest of the last row is black."""
    down = -(-len(patches) // across)
    padded = np.zeros((down * across, *patches.shape[1:]), np.uint8)
    padded[: len(patches)] = patches
    return padded.reshape(down, across, 96, 96, 3).swapaxes(1, 2).reshape(down * 96, across * 96, 3)


@pytest.mark.parametrize(
    ("um_per_px", "downsamples"),
    [(0.972, (1,)), (0.499, (1,)), (0.237, (1,)), (0.243, (1, 2, 4)), (0.249, (1, 2))],
    ids=["as scanned", "1.948", "4.1", "level 2", "1.952 of level 1"],
)
def test_a_map_equals_its_patches_one_by_one(
    write_slide: WriteSlide,
    texture: Texture,
    mean_red: Path,
    tmp_path: Path,
    um_per_px: float,
    downsamples: tuple[int, ...],
) -> None:
    side = round(700 * 0.972 / um_per_px)
    path = write_slide(texture(side, side + 300), um_per_px=um_per_px, downsamples=downsamples)
    slide_map = scan_map(path, mean_red, tmp_path / "out", field_px=256)
    assert slide_map.logits.shape[0] >= 18
    np.testing.assert_allclose(
        slide_map.logits, logits_of_patches(path, mean_red), atol=1e-6
    )  # float32 sums in a different order


@pytest.mark.parametrize("field_px", [96, 256, 512, 1024, 4096])
def test_field_size_and_workers_do_not_change_the_map(
    write_slide: WriteSlide, texture: Texture, mean_red_int8: Path, tmp_path: Path, field_px: int
) -> None:
    path = write_slide(texture(1200, 1500), um_per_px=0.6)
    expected = scan_map(path, mean_red_int8, tmp_path / "expected", field_px=FIELD_PX).logits
    for readers, interpreters in ((1, 1), (3, 1), (1, 3), (4, 4)):
        workers = Workers(readers=readers, interpreters=interpreters)
        folder = tmp_path / f"{readers}-{interpreters}"
        slide_map = scan_map(path, mean_red_int8, folder, field_px=field_px, workers=workers)
        assert slide_map.logits.tobytes() == expected.tobytes()


@pytest.mark.skipif(not RELEASED.is_dir(), reason="not a checkout")
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("int8.onnx", 0), ("int8.tflite", 0), ("fp32.onnx", 1e-4), ("fp32.tflite", 1e-4)],  # integer sums are exact
)
def test_a_released_model_has_the_same_logits_on_slide_and_patches(
    write_slide: WriteSlide, tmp_path: Path, name: str, tolerance: float
) -> None:
    patches = synthetic.generate("test", patches=64, seed=5).patches
    path = write_slide(mosaic(patches, 8))
    slide_map = scan_map(
        path, RELEASED / name, tmp_path / "out", field_px=512, workers=Workers(readers=2, interpreters=2)
    )
    np.testing.assert_allclose(slide_map.logits, logits_of_patches(path, RELEASED / name), rtol=0, atol=tolerance)
    alone = edge.load(RELEASED / name).predict(patches).reshape(8, 8)
    np.testing.assert_allclose(slide_map.logits[::3, ::3], alone, rtol=0, atol=tolerance)


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="HISTOEDGE_DATA names no folder with PatchCamelyon's files")
@pytest.mark.parametrize("name", ["int8.onnx", "fp32.tflite"])
def test_real_patches_have_the_same_auc_on_a_slide_and_alone(
    write_slide: WriteSlide, tmp_path: Path, name: str
) -> None:
    split = data.load(DATA, splits=("test",))["test"]
    patches, labels = split.patches[:], split.labels[:]
    path = write_slide(mosaic(patches, 40))
    slide_map = scan_map(path, RELEASED / name, tmp_path / "out")
    on_slide = slide_map.logits[::3, ::3].reshape(-1)[: len(labels)]
    alone = edge.load(RELEASED / name).predict(patches).reshape(-1)
    assert metrics.auc(labels, on_slide) == pytest.approx(metrics.auc(labels, alone), abs=1e-6)


@pytest.mark.real
@pytest.mark.skipif(not REAL_SLIDE, reason="HISTOEDGE_SLIDE names no slide: OpenSlide's CMU-1-Small-Region.svs")
def test_a_real_slide_equals_its_patches_one_by_one(tmp_path: Path) -> None:
    slide_map = scan_map(Path(REAL_SLIDE), RELEASED / "int8.onnx", tmp_path / "out", field_px=512)
    assert slide_map.slide_um_per_px == pytest.approx(0.499)
    np.testing.assert_array_equal(slide_map.logits, logits_of_patches(Path(REAL_SLIDE), RELEASED / "int8.onnx"))


@pytest.mark.parametrize("um_per_px", [0.972, 0.486, 0.243, 0.25, 0.499])
def test_a_marked_square_is_found_where_it_is(
    write_slide: WriteSlide, mean_red: Path, tmp_path: Path, um_per_px: float
) -> None:
    scale = 0.972 / um_per_px
    pixels = np.full((round(1000 * scale), round(1100 * scale), 3), (0, 120, 200), np.uint8)
    left, top, side = (round(px * scale) for px in (530, 345, 96))  # not aligned with the squares
    pixels[top : top + side, left : left + side] = (255, 120, 200)
    path = write_slide(pixels, um_per_px=um_per_px, downsamples=(1, 2, 4))
    slide_map = scan_map(path, mean_red, tmp_path / "out", field_px=256)
    row, column = np.unravel_index(slide_map.logits.argmax(), slide_map.logits.shape)
    x, y = slide_map.corner_level0_px(int(row), int(column))
    middle = side / 2 - slide_map.step_level0_px / 2
    assert abs(x - (left + middle)) <= slide_map.step_level0_px
    assert abs(y - (top + middle)) <= slide_map.step_level0_px


def test_a_white_slide_has_no_logits(write_slide: WriteSlide, mean_red: Path, tmp_path: Path) -> None:
    path = write_slide(np.full((500, 600, 3), 250, np.uint8))
    slide_map = scan_map(path, mean_red, tmp_path / "out", mask=True)
    assert slide_map.logits.shape == (13, 16)
    assert np.isnan(slide_map.logits).all()
    assert not slide_map.tissue.any()


@pytest.mark.parametrize(("height", "width", "shape"), [(96, 96, (1, 1)), (127, 128, (1, 2))])
def test_a_slide_barely_larger_than_a_patch(
    write_slide: WriteSlide,
    texture: Texture,
    mean_red: Path,
    tmp_path: Path,
    height: int,
    width: int,
    shape: tuple[int, int],
) -> None:
    slide_map = scan_map(write_slide(texture(height, width)), mean_red, tmp_path / "out")
    assert slide_map.logits.shape == shape
    assert not np.isnan(slide_map.logits).any()


def test_fields_with_tissue_are_numbered_strip_by_strip() -> None:
    grid = Grid(rows=20, columns=100, per_field=10, step_px=32, patch_px=96)
    squares = np.zeros((20, 100), bool)
    squares[[0, 19, 19, 0], [0, 9, 99, 80]] = True
    assert grid.fields(squares) == [0, 10, 8, 19]  # the second strip starts at field 8
    assert grid.window(19) == (slice(10, 20), slice(90, 100))


def test_a_field_smaller_than_a_patch_is_refused(write_slide: WriteSlide, texture: Texture, mean_red: Path) -> None:
    slide_plane = plane.of_model(open_slide(write_slide(texture(300, 300))), 0.972, None)
    with pytest.raises(ConfigError, match="a field of 95 px is smaller than a patch of 96 px"):
        grid_of(slide_plane, manifests.read(mean_red), 95)


KILLED = """
import sys
from pathlib import Path
from histoedge.scanning import Scan, Workers, scan
def show(what, done, total, note=""):
    print(done, total, flush=True)
path, model, folder = map(Path, sys.argv[1:])
settings, workers = Scan(mask=False, field_px=256), Workers(readers=2, interpreters=2)
scan(path, model, folder, settings=settings, workers=workers, progress=show)
"""


def test_a_scan_killed_several_times_ends_with_the_same_map(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path
) -> None:
    path = write_slide(texture(1500, 1700), um_per_px=0.6)
    expected = scan_map(path, mean_red, tmp_path / "expected", field_px=256).logits
    draw, left = random.Random(0), []
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(path), str(mean_red), str(tmp_path / "out")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(draw.randint(1, 4))]
            child.send_signal(signal.SIGKILL)
            child.stdout.read()
        left.append(int(lines[0].split()[1]))
    assert left == sorted(set(left), reverse=True)  # each run resumed from the previous one
    resumed = scan_map(path, mean_red, tmp_path / "out", field_px=256)
    assert resumed.logits.tobytes() == expected.tobytes()


@pytest.mark.parametrize("change", ["slide", "model", "settings"])
def test_an_unfinished_map_of_other_inputs_is_discarded(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, mean_red_int8: Path, tmp_path: Path, change: str
) -> None:
    path = write_slide(texture(400, 500))
    scan_map(path, mean_red, tmp_path / "out")
    if change == "slide":
        path = write_slide(texture(400, 500)[::-1].copy())
        os.utime(path, (1, 1))
    model = mean_red_int8 if change == "model" else mean_red
    field_px = 128 if change == "settings" else FIELD_PX
    slide_map = scan_map(path, model, tmp_path / "out", field_px=field_px)
    np.testing.assert_allclose(slide_map.logits, logits_of_patches(path, model), atol=1e-6)


class Watched(Plane):
    """A plane that records at every read how many fields are read and not stored yet."""

    def watch(self, unfinished: Unfinished) -> list[int]:
        self.unfinished, self.pending, self.read_so_far = unfinished, [0], 0
        return self.pending

    def read(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        self.read_so_far += 1
        self.pending.append(self.read_so_far - int(self.unfinished.done.sum()))
        return super().read(left, top, width, height)


@pytest.mark.parametrize("interpreters", [1, 2])
def test_few_fields_are_in_memory_at_once(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path, interpreters: int
) -> None:
    watched = Watched(open_slide(write_slide(texture(1000, 1000))), um_per_px=0.972, slide_um_per_px=0.972)
    grid = grid_of(watched, manifests.read(mean_red), 160)
    unfinished = Unfinished(tmp_path / "out", grid, {})
    pending = watched.watch(unfinished)
    numbers = range(len(unfinished.done))
    engine.compute(
        FieldsJob(
            plane=watched,
            model=mean_red,
            grid=grid,
            numbers=numbers,
            unfinished=unfinished,
            workers=Workers(readers=1, interpreters=interpreters),
            timings=Timings(),
        )
    )
    assert len(pending) == len(numbers) + 1 > 100
    assert max(pending) <= AHEAD * interpreters


def test_the_first_error_stops_all_threads_and_is_raised(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path
) -> None:
    path = write_slide(texture(2000, 2000), compression="deflate")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5000] = b"\x00" * 5000
    path.write_bytes(content)
    before = threading.active_count()
    with pytest.raises(DataError, match=r"slide.tif: damaged near \(\d+, \d+\), level 0"):
        scan_map(path, mean_red, tmp_path / "out", field_px=256, workers=Workers(readers=3, interpreters=2))
    assert threading.active_count() == before


def test_all_cores_read_and_half_of_them_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, (1, 1)), (4, (4, 2))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        workers = Workers.of_machine()
        assert (workers.readers, workers.interpreters, workers.threads) == (*expected, 1)


def test_timings_are_by_stage(write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path) -> None:
    _, timings, _ = scan(write_slide(texture(400, 400)), mean_red, tmp_path / "out", settings=Scan(), workers=ONE_EACH)
    assert set(timings.seconds) == {"mask", "read", "infer"}
    assert all(seconds > 0 for seconds in timings.seconds.values())
