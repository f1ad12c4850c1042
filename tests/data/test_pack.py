"""One file for many images: made once, kept up to date, never believed blindly."""

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

from histoedge.data import cache_folder, decoder, digests, hdf5, image, pack
from histoedge.edge.errors import DataError
from histoedge.files import WriteError

MANY = 3 * decoder.BLOCK  # enough for processes

PACKING = """
import sys
from pathlib import Path
from histoedge.data import pack
from histoedge.edge.errors import HistoedgeError
def show(what, done, total, note=""):
    print(what, done, total, note, sep="; ", flush=True)
if __name__ == "__main__":
    try:
        pack.open_pack(pack.listed(Path(sys.argv[1]), suffix=".tif"), [Path(sys.argv[2])], progress=show)
    except HistoedgeError as error:
        sys.exit(str(error))
"""


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """Patches of one colour each, every one another."""
    random = np.random.default_rng(seed)
    return np.broadcast_to(
        random.permutation(1 << 24)[:count, None].view(np.uint8).reshape(count, 1, 1, 8)[..., :3], (count, 96, 96, 3)
    ).copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """200 images."""
    return written(tmp_path / "images", pixels(200))


def written(folder: Path, patches: np.ndarray) -> Path:
    folder.mkdir()
    for number, patch in enumerate(patches):
        Image.fromarray(patch).save(folder / f"{number:04d}.tif")
    return folder


def repaint(path: Path, colour: int) -> None:
    """Other pixels under the same size and time of change."""
    before = path.stat()
    Image.new("RGB", (96, 96), (colour, colour, colour)).save(path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class Told:
    """What progress was told."""

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


def packed(folder: Path, place: Path) -> tuple[pack.Pack, Told]:
    told = Told()
    found = pack.open_pack(pack.listed(folder, suffix=".tif"), [place], progress=told)
    assert found is not None
    return found, told


def plain(folder: Path) -> np.ndarray:
    return np.stack([image.read_patch(path) for path in sorted(folder.glob("*.tif"))])


def assert_equal(found: pack.Pack, folder: Path) -> None:
    expected = plain(folder)
    np.testing.assert_array_equal(found.patches[:], expected)
    assert found.digests == tuple(map(digests.one, expected))


def test_images_are_packed_once_and_not_opened_after_that(folder: Path, tmp_path: Path) -> None:
    first, told = packed(folder, tmp_path / "cache")
    assert told.calls[0] == ("pack images, images", 0, 200, f"once, into {tmp_path / 'cache'}")
    assert told.packed[-1] == 200
    assert_equal(first, folder)
    before = plain(folder)
    assert 1 not in digests.sample(200)
    repaint(folder / "0001.tif", 77)  # nobody can tell, so the packed pixels are seen
    second, told = packed(folder, tmp_path / "cache")
    assert told.calls == []
    np.testing.assert_array_equal(second.patches[:], before)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["index.h5", "lock", "pack.h5"]


def test_a_pack_is_an_hdf5_file_that_anybody_reads(folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "cache")
    with h5py.File(tmp_path / "cache" / "pack.h5") as file:
        assert file["x"].chunks is None
        np.testing.assert_array_equal(file["x"][:], plain(folder))


def test_images_decoded_by_several_processes_are_packed_in_order(tmp_path: Path) -> None:
    folder = written(tmp_path / "images", pixels(MANY + 5))
    found, _ = packed(folder, tmp_path / "cache")
    assert_equal(found, folder)


def test_changed_added_and_removed_images_cost_themselves_alone(folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "cache")
    kept = (tmp_path / "cache" / "pack.h5").stat().st_ino
    Image.new("RGB", (96, 96), (1, 2, 3)).save(folder / "0003.tif")
    os.utime(folder / "0003.tif", ns=(1, 1))
    Image.new("RGB", (96, 96), (3, 2, 1)).save(folder / "new.tif")
    (folder / "0007.tif").unlink()
    found, told = packed(folder, tmp_path / "cache")
    assert told.packed == [198, 200]
    assert_equal(found, folder)
    assert (tmp_path / "cache" / "pack.h5").stat().st_ino == kept
    (folder / "0008.tif").unlink()
    found, told = packed(folder, tmp_path / "cache")
    assert told.packed == []
    assert_equal(found, folder)


def test_who_reads_a_pack_is_not_disturbed_where_it_grows_or_is_made_anew(folder: Path, tmp_path: Path) -> None:
    first, _ = packed(folder, tmp_path / "cache")
    before = plain(folder)
    for number in (3, 50):
        Image.new("RGB", (96, 96), (1, 2, number)).save(folder / f"{number:04d}.tif")
        os.utime(folder / f"{number:04d}.tif", ns=(number, number))
    packed(folder, tmp_path / "cache")
    np.testing.assert_array_equal(first.patches[:], before)
    for path in folder.iterdir():
        os.utime(path, ns=(9, 9))  # all are taken for changed: a new pack
    found, told = packed(folder, tmp_path / "cache")
    assert told.packed[0] == 0
    assert (tmp_path / "cache" / "pack.h5").stat().st_size == hdf5.ROWS_AT + 200 * decoder.PATCH_BYTES
    np.testing.assert_array_equal(first.patches[:], before)
    assert_equal(found, folder)


def test_a_killed_packing_goes_on_and_its_processes_end(tmp_path: Path) -> None:
    folder, place = written(tmp_path / "images", pixels(2 * MANY)), tmp_path / "cache"
    command = [sys.executable, "-c", PACKING, str(folder), str(place)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    while (done := int(running.stdout.readline().split("; ")[1])) < 2 * decoder.BLOCK:
        pass
    running.kill()
    running.wait()
    running.stdout.close()
    deadline = time.monotonic() + 60
    while still_there(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not still_there(running.pid)
    assert not (place / "index.h5").exists()
    spoilt = json.loads((place / "journal").read_text().splitlines()[1])[0][3]
    with open(place / "pack.h5", "r+b") as file:  # as after a crash of the machine, which lost a page
        file.seek(hdf5.ROWS_AT + spoilt * decoder.PATCH_BYTES + 4096)
        file.write(bytes(4096))
    with open(place / "journal", "ab") as file:
        file.write(b'[["half a line", 1')
    found, told = packed(folder, place)
    assert told.calls[0][0] == "check what was packed before, images"
    assert done - 1 <= told.packed[0] < 2 * MANY
    assert_equal(found, folder)


def still_there(session: int) -> bool:
    """Whether a process of that session runs; one that ended and waits for its parent's notice does not."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def test_two_commands_at_once_pack_once(tmp_path: Path) -> None:
    folder, place = written(tmp_path / "images", pixels(MANY)), tmp_path / "cache"
    with cache_folder.writable([place], progress=Told()) as held:
        assert held == place
        command = [sys.executable, "-c", PACKING, str(folder), str(place)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        first = [process.stdout.readline() for process in both if process.stdout is not None]
    assert first == [f"wait for another command; 0; 1; it writes {place}\n"] * 2
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(text.count("pack images") for text in said) == [0, 1 + MANY // decoder.BLOCK]
    found, told = packed(folder, place)
    assert told.calls == []
    assert_equal(found, folder)


def test_a_place_that_cannot_be_written_is_passed_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    images = pack.listed(folder, suffix=".tif")
    found = pack.open_pack(images, [tmp_path / "a file", tmp_path / "second"])
    assert found is not None
    assert (tmp_path / "second" / "pack.h5").is_file()
    assert pack.open_pack(images, [tmp_path / "a file"]) is None
    told = Told()
    assert pack.unpacked(images, progress=told) == found.digests
    assert told.calls[0][:3] == ("decode images, images", 0, 200)


def version(place: Path) -> None:
    arrays, attributes = hdf5.read_arrays(place / "index.h5")
    hdf5.write_arrays(place / "index.h5", arrays, {**attributes, "format": 99})


def cut(place: Path) -> None:
    os.truncate(place / "pack.h5", 100_000)


def text(place: Path) -> None:
    (place / "index.h5").write_text("index\n")


def lost(place: Path) -> None:
    (place / "pack.h5").unlink()


def swapped(place: Path) -> None:
    with h5py.File(place / "pack.h5", "r+") as file:
        file["x"][0] = 0


def beyond(place: Path) -> None:
    arrays, attributes = hdf5.read_arrays(place / "index.h5")
    arrays["rows"][1] = 999
    hdf5.write_arrays(place / "index.h5", arrays, attributes)


def missing(place: Path) -> None:
    arrays, attributes = hdf5.read_arrays(place / "index.h5")
    hdf5.write_arrays(place / "index.h5", {name: arrays[name] for name in arrays if name != "rows"}, attributes)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (version, "the pack is of version 99, not 1"),
        (cut, "the pack is damaged"),
        (text, "the pack is damaged"),
        (lost, "no such file"),
        (missing, "the pack is damaged"),
        (beyond, "an image has row 999 of 200"),
        (swapped, "the pack holds other pixels than images/0000.tif"),
    ],
)
def test_a_pack_that_cannot_be_used_is_made_anew_and_says_why(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    packed(folder, tmp_path / "cache")
    spoil(tmp_path / "cache")
    found, told = packed(folder, tmp_path / "cache")
    assert told.packed[-1] == 200
    assert "anew: " in told.notes
    assert reason in told.notes
    assert_equal(found, folder)
    assert packed(folder, tmp_path / "cache")[1].calls == []


def test_the_pack_of_another_folder_is_not_believed(folder: Path, tmp_path: Path) -> None:
    packed(folder, tmp_path / "cache")
    for path in folder.iterdir():
        repaint(path, int(path.stem) % 256)
    found, told = packed(folder, tmp_path / "cache")
    assert "anew: the pack holds other pixels than images/0000.tif" in told.notes
    assert_equal(found, folder)


def test_an_image_that_is_no_patch_is_named_and_the_others_stay_packed(tmp_path: Path) -> None:
    folder = written(tmp_path / "images", pixels(MANY))
    whole = (folder / f"{MANY - 2:04d}.tif").read_bytes()
    (folder / f"{MANY - 2:04d}.tif").write_bytes(whole[:5000])
    with pytest.raises(DataError, match=f"{MANY - 2:04d}.tif: cannot be decoded"):
        packed(folder, tmp_path / "cache")
    (folder / f"{MANY - 2:04d}.tif").write_bytes(whole)
    found, told = packed(folder, tmp_path / "cache")
    assert told.packed[0] >= decoder.BLOCK
    assert_equal(found, folder)


def test_a_full_disk_keeps_what_is_packed(tmp_path: Path) -> None:
    folder, place = written(tmp_path / "images", pixels(2 * MANY)), tmp_path / "cache"
    limit = MANY * decoder.PATCH_BYTES

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", PACKING, str(folder), str(place)]
    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=bounded)
    assert ran.returncode == 1
    assert "pack.h5: cannot be written (File too large); what is packed is kept: free some space" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    found, told = packed(folder, place)
    assert MANY - 2 * decoder.BLOCK <= told.packed[0] < MANY
    assert_equal(found, folder)


def test_too_little_room_is_told_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "INDEX_BYTES", 1 << 50)
    with pytest.raises(
        WriteError, match=r"cache: [\d,]+ MB are needed to pack 200 images and [\d,]+ MB are free; free"
    ):
        packed(folder, tmp_path / "cache")
    assert not (tmp_path / "cache" / "pack.h5").exists()


def test_threads_and_forked_processes_may_share_a_pack(folder: Path, tmp_path: Path) -> None:
    found, _ = packed(folder, tmp_path / "cache")
    expected = found.patches[5]
    child = multiprocessing.get_context("fork").Process(target=_same, args=(found, expected))
    child.start()
    child.join()
    assert child.exitcode == 0


def _same(found: pack.Pack, expected: np.ndarray) -> None:
    sys.exit(0 if (found.patches[5] == expected).all() else 1)
