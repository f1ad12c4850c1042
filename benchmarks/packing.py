"""Cost and gain of packing a Kaggle folder: ``python benchmarks/packing.py --data DATA --out F [--limit N]``.

Alternates between decoding N images, with one process per allowed CPU, and packing the same images; the files are in
the page cache. Then it packs the whole folder once and times ``data.load`` in fresh processes, with and without the
pack. Nothing is written to DATA: packs are in a temporary folder (inside ``--scratch`` where given).
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from record import Row, run_script, write_record
from targets import resident_bytes

from histoedge import cpus, metrics
from histoedge.benchmark import environment
from histoedge.data import decoder, image, image_files, pack

LOADING = """
import sys, time
from pathlib import Path
started = time.perf_counter()
from histoedge import data
from histoedge.data import cache_folder
scratch = Path(sys.argv[2])
cache_folder.cache_folders = lambda folder: (scratch,)
data.load(sys.argv[1], cache=sys.argv[3] == "cache")
print(time.perf_counter() - started)
"""


class PeakMemory:
    """Peak resident memory of this process and its descendants, in bytes, sampled 10 times a second."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.peak_bytes = max(self.peak_bytes, resident_bytes(psutil.Process()))


def decode_images(block: tuple[str, list[str]]) -> int:
    """Decode images; return the sum of their heights."""
    folder, names = block
    return sum(len(image.read_patch(Path(folder) / name)) for name in names)


def decoding_s(pool: ProcessPoolExecutor, images: image_files.Images) -> float:
    """Return the seconds that running processes take to decode the images."""
    blocks = [(str(block.folder), list(block.names)) for block in decoder.blocks(images.folder, images.names)]
    started = time.perf_counter()
    list(pool.map(decode_images, blocks))
    return time.perf_counter() - started


def packing_s(images: image_files.Images, place: Path) -> float:
    """Return the seconds to pack the images into a new folder, from starting the processes to the file on disk."""
    started = time.perf_counter()
    pack.open_pack(images, [place])
    return time.perf_counter() - started


def loading_s(data: Path, place: Path, *, cached: bool) -> float:
    """Return the seconds that a fresh process takes to import histoedge and load the folder."""
    command = [sys.executable, "-c", LOADING, str(data), str(place), "cache" if cached else "no"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def packing_row(what: str, images: image_files.Images, seconds: float | np.ndarray) -> Row:
    """Return the row of one time, or of the median of several."""
    median_s = float(np.median(seconds))
    return {"what": what, "images": len(images), "seconds": median_s, "images_per_s": len(images) / median_s}


def packing_command() -> None:
    """Write the times, the ratio of packing to decoding, and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Kaggle folder with train/*.tif")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--limit", type=int, default=20_000, help="images per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path, help="folder for the packs")
    arguments = parser.parse_args()
    machine = environment.this_machine()
    everything = image_files.listed(arguments.data / "train", suffix=".tif")
    some = everything.take(range(min(arguments.limit, len(everything))))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        with ProcessPoolExecutor(cpus.usable(), multiprocessing.get_context("spawn")) as pool:
            decoding_s(pool, some)  # starts the processes and fills the page cache
            pairs = []
            for number in range(arguments.rounds):
                place = scratch / str(number)
                pairs.append({"decode": decoding_s(pool, some), "pack": packing_s(some, place)})
                (place / pack.PACK).unlink()
                sys.stderr.write(f"{pairs[-1]}\n")
        times = {name: np.array([pair[name] for pair in pairs]) for name in ("decode", "pack")}
        ratio = metrics.ratio_of_medians(times["pack"][:, None], times["decode"][:, None])
        rows = [
            packing_row("decode alone", some, times["decode"]),
            packing_row("pack", some, times["pack"]),
        ]
        place = scratch / "all"
        with PeakMemory() as memory:
            rows.append(packing_row("pack all, once", everything, packing_s(everything, place)))
        for name, cached in (("load, packed", True), ("load, no cache", False)):
            rows.append(packing_row(name, everything, loading_s(arguments.data, place, cached=cached)))
    write_record(
        arguments.out,
        kind="packing",
        command="python benchmarks/packing.py --data DATA --out F",
        about=f"{cpus.usable()} CPUs; {arguments.rounds} rounds of {len(some)} images, alternating, files in the page "
        f"cache. Packing takes {ratio.value:.2f} [{ratio.lo:.2f}, {ratio.hi:.2f}] times as long as decoding alone. All "
        f"processes together, the benchmark's own included, use up to {memory.peak_bytes / 1e6:.0f} MB while the whole "
        "folder is packed. Loading is `data.load` in a fresh process, imports included. The load average at the start "
        f"was {machine['load_average'][0]}.",
        machine=machine,
        rows=rows,
        ratio=ratio.value,
        ratio_lo=ratio.lo,
        ratio_hi=ratio.hi,
        peak_rss_bytes=memory.peak_bytes,
    )


if __name__ == "__main__":
    run_script(packing_command)
