"""The pack: written once, kept up to date, and verified before use."""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from PIL import Image

from histoedge.data import cache_folder, decoder, digests, hdf5, image, image_files, pack
from histoedge.edge.errors import DataError
from histoedge.files import WriteError

PATCH_BYTES = image.FORM.patch_bytes
MANY = 3 * decoder.BLOCK  # enough blocks for several processes

PACKING = """
import sys
from pathlib import Path
from histoedge.data import image_files, pack
from histoedge.edge.errors import HistoedgeError
def show(what, done, total, note=""):
    print(what, done, total, note, sep="; ", flush=True)
if __name__ == "__main__":
    try:
        pack.open_pack(image_files.listed(Path(sys.argv[1]), suffix=".tif"), [Path(sys.argv[2])], progress=show)
    except HistoedgeError as error:
        sys.exit(str(error))
"""


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """Patches of one colour each, all different."""
    random = np.random.default_rng(seed)
    return np.broadcast_to(
        random.permutation(1 << 24)[:count, None].view(np.uint8).reshape(count, 1, 1, 8)[..., :3], (count, 96, 96, 3)
    ).copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 200 images."""
    return write_images(tmp_path / "images", pixels(200))


def write_images(folder: Path, patches: np.ndarray) -> Path:
    folder.mkdir()
    for number, patch in enumerate(patches):
        Image.fromarray(patch).save(folder / f"{number:04d}.tif")
    return folder


def repaint(path: Path, colour: int) -> None:
    """Change the pixels but not the size and modification time."""
    before = path.stat()
    Image.new("RGB", (96, 96), (colour, colour, colour)).save(path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class Calls:
    """Records the calls of progress."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int, str]] = []

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self.calls.append((what, done, total, note))

    @property
    def packed(self) -> list[int]:
        return [done for what, done, _, _ in self.calls if what.startswith("pack")]

    @property
    def notes(self) -> str:
        return "; ".join(note for *_, note in self.calls)


def pack_images(folder: Path, place: Path) -> tuple[pack.Pack, Calls]:
    progress = Calls()
    opened = pack.open_pack(image_files.listed(folder, suffix=".tif"), [place], progress=progress)
    assert opened is not None
    return opened, progress


def decode_images(folder: Path) -> np.ndarray:
    return np.stack([image.read_patch(path) for path in sorted(folder.glob("*.tif"))])


def assert_equal(opened: pack.Pack, folder: Path) -> None:
    expected = decode_images(folder)
    np.testing.assert_array_equal(opened.patches[:], expected)
    assert opened.digests == tuple(map(digests.digest_of, expected))


def test_images_are_packed_once_and_not_decoded_again(folder: Path, tmp_path: Path) -> None:
    first, progress = pack_images(folder, tmp_path / "cache")
    assert progress.calls[0] == ("pack images, images", 0, 200, f"once, into {tmp_path / 'cache'}")
    assert progress.packed[-1] == 200
    assert_equal(first, folder)
    before = decode_images(folder)
    assert 1 not in digests.sample_rows(200)
    repaint(folder / "0001.tif", 77)  # not detected: the image is not in the sample, so the packed pixels are returned
    second, progress = pack_images(folder, tmp_path / "cache")
    assert progress.calls == []
    np.testing.assert_array_equal(second.patches[:], before)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["index.h5", "lock", "pack.h5"]


def test_a_pack_is_a_plain_hdf5_file(folder: Path, tmp_path: Path) -> None:
    pack_images(folder, tmp_path / "cache")
    with h5py.File(tmp_path / "cache" / "pack.h5") as file:
        assert file["x"].chunks is None
        np.testing.assert_array_equal(file["x"][:], decode_images(folder))


def test_images_decoded_by_several_processes_are_packed_in_order(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", pixels(MANY + 5))
    opened, _ = pack_images(folder, tmp_path / "cache")
    assert_equal(opened, folder)


def test_only_changed_and_added_images_are_decoded(folder: Path, tmp_path: Path) -> None:
    pack_images(folder, tmp_path / "cache")
    inode = (tmp_path / "cache" / "pack.h5").stat().st_ino
    Image.new("RGB", (96, 96), (1, 2, 3)).save(folder / "0003.tif")
    os.utime(folder / "0003.tif", ns=(1, 1))
    Image.new("RGB", (96, 96), (3, 2, 1)).save(folder / "new.tif")
    (folder / "0007.tif").unlink()
    opened, progress = pack_images(folder, tmp_path / "cache")
    assert progress.packed == [198, 200]
    assert_equal(opened, folder)
    assert (tmp_path / "cache" / "pack.h5").stat().st_ino == inode
    (folder / "0008.tif").unlink()
    opened, progress = pack_images(folder, tmp_path / "cache")
    assert progress.packed == []
    assert_equal(opened, folder)


def test_readers_are_not_disturbed_when_a_pack_grows_or_is_rebuilt(folder: Path, tmp_path: Path) -> None:
    first, _ = pack_images(folder, tmp_path / "cache")
    before = decode_images(folder)
    for number in (3, 50):
        Image.new("RGB", (96, 96), (1, 2, number)).save(folder / f"{number:04d}.tif")
        os.utime(folder / f"{number:04d}.tif", ns=(number, number))
    pack_images(folder, tmp_path / "cache")
    np.testing.assert_array_equal(first.patches[:], before)
    for path in folder.iterdir():
        os.utime(path, ns=(9, 9))  # all images count as changed: the pack is rebuilt
    opened, progress = pack_images(folder, tmp_path / "cache")
    assert progress.packed[0] == 0
    assert (tmp_path / "cache" / "pack.h5").stat().st_size == hdf5.ROWS_AT + 200 * PATCH_BYTES
    np.testing.assert_array_equal(first.patches[:], before)
    assert_equal(opened, folder)


def test_a_killed_packing_resumes_and_its_processes_end(tmp_path: Path) -> None:
    folder, place = write_images(tmp_path / "images", pixels(2 * MANY)), tmp_path / "cache"
    command = [sys.executable, "-c", PACKING, str(folder), str(place)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    while (done := int(running.stdout.readline().split("; ")[1])) < 2 * decoder.BLOCK:
        pass
    running.kill()
    running.wait()
    running.stdout.close()
    deadline = time.monotonic() + 60
    while is_running(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(running.pid)
    assert not (place / "index.h5").exists()
    damaged = json.loads((place / "journal").read_text().splitlines()[2])[0][3]
    with open(place / "pack.h5", "r+b") as file:  # like a machine crash that lost a page
        file.seek(hdf5.ROWS_AT + damaged * PATCH_BYTES + 4096)
        file.write(bytes(4096))
    with open(place / "journal", "ab") as file:
        file.write(b'[["half a line", 1')
    opened, progress = pack_images(folder, place)
    assert progress.calls[0][0] == "check interrupted pack, images"
    assert done - 1 <= progress.packed[0] < 2 * MANY
    assert_equal(opened, folder)


def is_running(session: int) -> bool:
    """Return whether a process of that session runs; zombies do not count."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def test_two_concurrent_commands_pack_once(tmp_path: Path) -> None:
    folder, place = write_images(tmp_path / "images", pixels(MANY)), tmp_path / "cache"
    with cache_folder.writable([place], progress=Calls()) as locked:
        assert locked == place
        command = [sys.executable, "-c", PACKING, str(folder), str(place)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        first = [process.stdout.readline() for process in both if process.stdout is not None]
    assert first == [f"wait for another command; 0; 1; which writes {place}\n"] * 2
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(text.count("pack images") for text in outputs) == [0, 1 + MANY // decoder.BLOCK]
    opened, progress = pack_images(folder, place)
    assert progress.calls == []
    assert_equal(opened, folder)


def test_a_place_that_cannot_be_written_is_skipped(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    images = image_files.listed(folder, suffix=".tif")
    opened = pack.open_pack(images, [tmp_path / "a file", tmp_path / "second"])
    assert opened is not None
    assert (tmp_path / "second" / "pack.h5").is_file()
    assert pack.open_pack(images, [tmp_path / "a file"]) is None
    progress = Calls()
    assert pack.hash_images(images, progress=progress) == opened.digests
    assert progress.calls[0][:3] == ("decode images, images", 0, 200)


def change_format(place: Path) -> None:
    arrays, attributes = hdf5.read_arrays(place / "index.h5")
    hdf5.write_arrays(place / "index.h5", arrays, {**attributes, "format": 99})


def truncate(place: Path) -> None:
    os.truncate(place / "pack.h5", 100_000)


def overwrite_index(place: Path) -> None:
    (place / "index.h5").write_text("index\n")


def remove_pack(place: Path) -> None:
    (place / "pack.h5").unlink()


def change_pixels(place: Path) -> None:
    with h5py.File(place / "pack.h5", "r+") as file:
        file["x"][0] = 0


def exceed_rows(place: Path) -> None:
    arrays, attributes = hdf5.read_arrays(place / "index.h5")
    arrays["rows"][1] = 999
    hdf5.write_arrays(place / "index.h5", arrays, attributes)


def remove_rows(place: Path) -> None:
    arrays, attributes = hdf5.read_arrays(place / "index.h5")
    hdf5.write_arrays(place / "index.h5", {name: arrays[name] for name in arrays if name != "rows"}, attributes)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change_format, "the pack has format 99, expected 1"),
        (truncate, "the pack is damaged"),
        (overwrite_index, "the pack is damaged"),
        (remove_pack, "no such file"),
        (remove_rows, "the pack is damaged"),
        (exceed_rows, "row 999 of 200 rows"),
        (change_pixels, "the pixels of images/0000.tif differ from the pack"),
    ],
)
def test_an_unusable_pack_is_rebuilt_and_the_reason_shown(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    pack_images(folder, tmp_path / "cache")
    damage(tmp_path / "cache")
    opened, progress = pack_images(folder, tmp_path / "cache")
    assert progress.packed[-1] == 200
    assert "rebuilt: " in progress.notes
    assert reason in progress.notes
    assert_equal(opened, folder)
    assert pack_images(folder, tmp_path / "cache")[1].calls == []


def test_a_pack_with_other_pixels_is_rebuilt(folder: Path, tmp_path: Path) -> None:
    pack_images(folder, tmp_path / "cache")
    for path in folder.iterdir():
        repaint(path, int(path.stem) % 256)
    opened, progress = pack_images(folder, tmp_path / "cache")
    assert "rebuilt: the pixels of images/0000.tif differ from the pack" in progress.notes
    assert_equal(opened, folder)


def test_after_an_error_in_one_image_the_others_stay_packed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", pixels(MANY))
    content = (folder / f"{MANY - 2:04d}.tif").read_bytes()
    (folder / f"{MANY - 2:04d}.tif").write_bytes(content[:5000])
    with pytest.raises(DataError, match=f"{MANY - 2:04d}.tif: cannot be decoded"):
        pack_images(folder, tmp_path / "cache")
    (folder / f"{MANY - 2:04d}.tif").write_bytes(content)
    opened, progress = pack_images(folder, tmp_path / "cache")
    assert progress.packed[0] >= decoder.BLOCK
    assert_equal(opened, folder)


def test_packing_resumes_after_a_full_disk(tmp_path: Path) -> None:
    folder, place = write_images(tmp_path / "images", pixels(2 * MANY)), tmp_path / "cache"
    limit = MANY * PATCH_BYTES

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", PACKING, str(folder), str(place)]
    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_file_size)
    assert ran.returncode == 1
    assert "pack.h5: cannot be written (File too large); free disk space and run the same command again" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    opened, progress = pack_images(folder, place)
    assert MANY - 2 * decoder.BLOCK <= progress.packed[0] < MANY
    assert_equal(opened, folder)


def test_too_little_disk_space_is_an_error_before_packing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "INDEX_BYTES", 1 << 50)
    with pytest.raises(WriteError, match=r"cache: packing 200 images needs [\d,]+ MB, [\d,]+ MB are free; free"):
        pack_images(folder, tmp_path / "cache")
    assert not (tmp_path / "cache" / "pack.h5").exists()


def test_a_forked_process_may_read_the_same_pack(folder: Path, tmp_path: Path) -> None:
    opened, _ = pack_images(folder, tmp_path / "cache")
    expected = opened.patches[5]
    child = multiprocessing.get_context("fork").Process(target=_same, args=(opened, expected))
    child.start()
    child.join()
    assert child.exitcode == 0


def _same(opened: pack.Pack, expected: np.ndarray) -> None:
    sys.exit(0 if (opened.patches[5] == expected).all() else 1)
