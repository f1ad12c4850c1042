"""Every square of a map is what its own patch would get, whatever fields, threads and processes made it."""

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
from histoedge.scanning import FIELD_PX, Scan, engine, plane, scan, slide
from histoedge.scanning.engine import AHEAD, Grid, Timings, Unfinished, Workers
from histoedge.scanning.plane import Plane
from histoedge.scanning.slidemap import STEP_PX, SlideMap

Texture = Callable[[int, int], np.ndarray]
WriteSlide = Callable[..., Path]

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "exported" / "edge" / "models"
REAL_SLIDE = os.environ.get("HISTOEDGE_SLIDE", "")
DATA = os.environ.get("HISTOEDGE_DATA", "")

ONE = Workers(readers=1, interpreters=1)


def scanned(path: Path, model: Path, folder: Path, *, workers: Workers = ONE, **settings: object) -> SlideMap:
    found, *_ = scan(path, model, folder, settings=Scan(**{"mask": False, **settings}), workers=workers)
    return found


def by_patches(path: Path, model: Path) -> np.ndarray:
    """Logits (rows, columns) of every patch, cut out and predicted alone."""
    runner = edge.load(model)
    seen = plane.of_model(slide.open_slide(path), runner.manifest.um_per_px, None)
    rows, columns = ((side - 96) // STEP_PX + 1 for side in (seen.height, seen.width))
    corners = [(row * STEP_PX, column * STEP_PX) for row in range(rows) for column in range(columns)]
    logits = [runner.predict(seen.read(left, top, 96, 96)[None]) for top, left in corners]
    return np.array(logits, np.float32).reshape(rows, columns)


def mosaic(patches: np.ndarray, across: int) -> np.ndarray:
    """Patches side by side, row by row, black where there are none left."""
    down = -(-len(patches) // across)
    padded = np.zeros((down * across, *patches.shape[1:]), np.uint8)
    padded[: len(patches)] = patches
    return padded.reshape(down, across, 96, 96, 3).swapaxes(1, 2).reshape(down * 96, across * 96, 3)


@pytest.mark.parametrize(
    ("um_per_px", "downsamples"),
    [(0.972, (1,)), (0.499, (1,)), (0.237, (1,)), (0.243, (1, 2, 4)), (0.249, (1, 2))],
    ids=["as scanned", "1.948", "4.1", "level 2", "1.952 of level 1"],
)
def test_a_map_is_the_patches_one_by_one(
    write_slide: WriteSlide,
    texture: Texture,
    mean_red: Path,
    tmp_path: Path,
    um_per_px: float,
    downsamples: tuple[int, ...],
) -> None:
    side = round(700 * 0.972 / um_per_px)
    path = write_slide(texture(side, side + 300), um_per_px=um_per_px, downsamples=downsamples)
    found = scanned(path, mean_red, tmp_path / "out", field_px=256)
    assert found.logits.shape[0] >= 18
    np.testing.assert_allclose(found.logits, by_patches(path, mean_red), atol=1e-6)  # float32 sums in another order


@pytest.mark.parametrize("field_px", [96, 256, 512, 1024, 4096])
def test_fields_and_workers_change_nothing(
    write_slide: WriteSlide, texture: Texture, mean_red_int8: Path, tmp_path: Path, field_px: int
) -> None:
    path = write_slide(texture(1200, 1500), um_per_px=0.6)
    expected = scanned(path, mean_red_int8, tmp_path / "expected", field_px=FIELD_PX).logits
    for readers, interpreters in ((1, 1), (3, 1), (1, 3), (4, 4)):
        workers = Workers(readers=readers, interpreters=interpreters)
        folder = tmp_path / f"{readers}-{interpreters}"
        found = scanned(path, mean_red_int8, folder, field_px=field_px, workers=workers)
        assert found.logits.tobytes() == expected.tobytes()


@pytest.mark.skipif(not RELEASED.is_dir(), reason="not a checkout")
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("int8.onnx", 0), ("int8.tflite", 0), ("fp32.onnx", 1e-4), ("fp32.tflite", 1e-4)],  # integers have one sum
)
def test_a_released_model_answers_on_a_slide_as_on_patches(
    write_slide: WriteSlide, tmp_path: Path, name: str, tolerance: float
) -> None:
    patches = synthetic.generate("test", patches=64, seed=5).patches
    path = write_slide(mosaic(patches, 8))
    found = scanned(path, RELEASED / name, tmp_path / "out", field_px=512, workers=Workers(readers=2, interpreters=2))
    np.testing.assert_allclose(found.logits, by_patches(path, RELEASED / name), rtol=0, atol=tolerance)
    alone = edge.load(RELEASED / name).predict(patches).reshape(8, 8)
    np.testing.assert_allclose(found.logits[::3, ::3], alone, rtol=0, atol=tolerance)


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="HISTOEDGE_DATA names no folder with PatchCamelyon's files")
@pytest.mark.parametrize("name", ["int8.onnx", "fp32.tflite"])
def test_real_patches_on_a_slide_have_the_auc_they_have_alone(
    write_slide: WriteSlide, tmp_path: Path, name: str
) -> None:
    split = data.load(DATA, splits=("test",))["test"]
    patches, labels = split.patches[:], split.labels[:]
    path = write_slide(mosaic(patches, 40))
    found = scanned(path, RELEASED / name, tmp_path / "out")
    on_slide = found.logits[::3, ::3].reshape(-1)[: len(labels)]
    alone = edge.load(RELEASED / name).predict(patches).reshape(-1)
    assert metrics.auc(labels, on_slide) == pytest.approx(metrics.auc(labels, alone), abs=1e-6)


@pytest.mark.real
@pytest.mark.skipif(not REAL_SLIDE, reason="HISTOEDGE_SLIDE names no slide: OpenSlide's CMU-1-Small-Region.svs")
def test_a_real_slide_is_its_patches_one_by_one(tmp_path: Path) -> None:
    found = scanned(Path(REAL_SLIDE), RELEASED / "int8.onnx", tmp_path / "out", field_px=512)
    assert found.slide_um_per_px == pytest.approx(0.499)
    np.testing.assert_array_equal(found.logits, by_patches(Path(REAL_SLIDE), RELEASED / "int8.onnx"))


@pytest.mark.parametrize("um_per_px", [0.972, 0.486, 0.243, 0.25, 0.499])
def test_a_marked_square_is_found_where_it_is(
    write_slide: WriteSlide, mean_red: Path, tmp_path: Path, um_per_px: float
) -> None:
    scale = 0.972 / um_per_px
    pixels = np.full((round(1000 * scale), round(1100 * scale), 3), (0, 120, 200), np.uint8)
    left, top, side = (round(at * scale) for at in (530, 345, 96))  # on no square's corner
    pixels[top : top + side, left : left + side] = (255, 120, 200)
    path = write_slide(pixels, um_per_px=um_per_px, downsamples=(1, 2, 4))
    found = scanned(path, mean_red, tmp_path / "out", field_px=256)
    row, column = np.unravel_index(found.logits.argmax(), found.logits.shape)
    x, y = found.corner_level0_px(int(row), int(column))
    middle = side / 2 - found.step_level0_px / 2
    assert abs(x - (left + middle)) <= found.step_level0_px
    assert abs(y - (top + middle)) <= found.step_level0_px


def test_a_white_slide_has_no_verdict(write_slide: WriteSlide, mean_red: Path, tmp_path: Path) -> None:
    path = write_slide(np.full((500, 600, 3), 250, np.uint8))
    found = scanned(path, mean_red, tmp_path / "out", mask=True)
    assert found.logits.shape == (13, 16)
    assert np.isnan(found.logits).all()
    assert not found.tissue.any()


@pytest.mark.parametrize(("height", "width", "shape"), [(96, 96, (1, 1)), (127, 128, (1, 2))])
def test_a_slide_hardly_larger_than_a_patch(
    write_slide: WriteSlide,
    texture: Texture,
    mean_red: Path,
    tmp_path: Path,
    height: int,
    width: int,
    shape: tuple[int, int],
) -> None:
    found = scanned(write_slide(texture(height, width)), mean_red, tmp_path / "out")
    assert found.logits.shape == shape
    assert not np.isnan(found.logits).any()


def test_only_fields_with_tissue_are_computed_strip_by_strip() -> None:
    grid = Grid(rows=20, columns=100, per_field=10)
    wanted = np.zeros((20, 100), bool)
    wanted[[0, 19, 19, 0], [0, 9, 99, 80]] = True
    assert grid.fields(wanted) == [0, 10, 8, 19]  # the second strip begins at the eighth field
    assert grid.window(19) == (slice(10, 20), slice(90, 100))


def test_a_field_smaller_than_a_patch_is_refused(write_slide: WriteSlide, texture: Texture, mean_red: Path) -> None:
    seen = plane.of_model(slide.open_slide(write_slide(texture(300, 300))), 0.972, None)
    with pytest.raises(ConfigError, match="a field of 95 px is smaller than a patch of 96 px"):
        engine.grid_of(seen, manifests.read(mean_red), 95)


KILLED = """
import sys
from pathlib import Path
from histoedge.scanning import Scan, Workers, scan
def tell(what, done, total, note=""):
    print(done, total, flush=True)
path, model, folder = map(Path, sys.argv[1:])
settings, workers = Scan(mask=False, field_px=256), Workers(readers=2, interpreters=2)
scan(path, model, folder, settings=settings, workers=workers, progress=tell)
"""


def test_a_scan_that_is_killed_again_and_again_gives_the_same_map(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path
) -> None:
    path = write_slide(texture(1500, 1700), um_per_px=0.6)
    expected = scanned(path, mean_red, tmp_path / "expected", field_px=256).logits
    draw, left = random.Random(0), []
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(path), str(mean_red), str(tmp_path / "out")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            told = [child.stdout.readline() for _ in range(draw.randint(1, 4))]
            child.send_signal(signal.SIGKILL)
            child.stdout.read()
        left.append(int(told[0].split()[1]))
    assert left == sorted(set(left), reverse=True)  # each began where the one before had got to
    ended = scanned(path, mean_red, tmp_path / "out", field_px=256)
    assert ended.logits.tobytes() == expected.tobytes()


@pytest.mark.parametrize("change", ["slide", "model", "settings"])
def test_what_other_inputs_gave_is_not_gone_on_with(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, mean_red_int8: Path, tmp_path: Path, change: str
) -> None:
    path = write_slide(texture(400, 500))
    scanned(path, mean_red, tmp_path / "out")
    if change == "slide":
        path = write_slide(texture(400, 500)[::-1].copy())
        os.utime(path, (1, 1))
    model = mean_red_int8 if change == "model" else mean_red
    field_px = 128 if change == "settings" else FIELD_PX
    found = scanned(path, model, tmp_path / "out", field_px=field_px)
    np.testing.assert_allclose(found.logits, by_patches(path, model), atol=1e-6)


class Watched(Plane):
    """A plane that notes, at every read, how many fields are read and not kept yet."""

    def watch(self, unfinished: Unfinished) -> list[int]:
        self.unfinished, self.held, self.read_so_far = unfinished, [0], 0
        return self.held

    def read(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        self.read_so_far += 1
        self.held.append(self.read_so_far - int(self.unfinished.done.sum()))
        return super().read(left, top, width, height)


@pytest.mark.parametrize("interpreters", [1, 2])
def test_few_fields_are_in_memory_at_once(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path, interpreters: int
) -> None:
    seen = Watched(slide.open_slide(write_slide(texture(1000, 1000))), um_per_px=0.972, slide_um_per_px=0.972)
    grid = engine.grid_of(seen, manifests.read(mean_red), 160)
    unfinished = Unfinished(tmp_path / "out", grid, {})
    held = seen.watch(unfinished)
    workers = Workers(readers=1, interpreters=interpreters)
    numbers = range(len(unfinished.done))
    engine.compute(seen, mean_red, unfinished, grid, numbers, runtime=None, workers=workers, timings=Timings())
    assert len(held) == len(numbers) + 1 > 100
    assert max(held) <= AHEAD * interpreters


def test_the_first_error_ends_all_threads_and_is_told(
    write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path
) -> None:
    path = write_slide(texture(2000, 2000), compression="deflate")
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 5000] = b"\x00" * 5000
    path.write_bytes(whole)
    before = threading.active_count()
    with pytest.raises(DataError, match=r"slide.tif: damaged near \(\d+, \d+\), level 0"):
        scanned(path, mean_red, tmp_path / "out", field_px=256, workers=Workers(readers=3, interpreters=2))
    assert threading.active_count() == before


def test_every_core_reads_and_half_of_them_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, found in ((1, (1, 1)), (4, (4, 2))):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        workers = Workers.of_machine()
        assert (workers.readers, workers.interpreters, workers.threads) == (*found, 1)


def test_seconds_are_told_by_stage(write_slide: WriteSlide, texture: Texture, mean_red: Path, tmp_path: Path) -> None:
    _, timings, _ = scan(write_slide(texture(400, 400)), mean_red, tmp_path / "out", settings=Scan(), workers=ONE)
    assert set(timings.seconds) == {"mask", "read", "infer"}
    assert all(seconds > 0 for seconds in timings.seconds.values())
