"""What the pack of a Kaggle folder costs and saves: ``python benchmarks/packing.py --data DATA --out F [--limit N]``.

In turns, with the files in the page cache: N images decoded alone, by a process for each CPU that is allowed, and the
same images packed. Then the whole folder packed once, and `data.load` in fresh processes after it. Nothing is written
to DATA: packs lie in a temporary folder (``--scratch`` says where), and nothing of DATA is copied anywhere else.
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
from typing import Any

import numpy as np
import psutil

from histoedge import files, metrics
from histoedge.benchmark import environment
from histoedge.data import decoder, digests, image, pack

LOADING = """
import sys, time
from pathlib import Path
started = time.perf_counter()
from histoedge import data
from histoedge.data import cache
scratch = Path(sys.argv[2])
cache.places = lambda folder: (scratch,)
data.load(sys.argv[1], cache=sys.argv[3] == "cache")
print(time.perf_counter() - started)
"""


class PeakMemory:
    """The most memory that this process and all below it held at once, in bytes, sampled 10 times a second."""

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
            held = 0
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                try:
                    held += process.memory_info().rss
                except psutil.Error:  # it has ended
                    continue
            self.peak_bytes = max(self.peak_bytes, held)


def decode_images(block: tuple[str, list[str]]) -> int:
    """Decode some images and do nothing with them."""
    folder, names = block
    return sum(len(image.read_patch(Path(folder) / name)) for name in names)


def alone(pool: ProcessPoolExecutor, images: pack.Images) -> float:
    """Seconds to decode_images the images in processes that have started already."""
    blocks = [(str(block.folder), list(block.names)) for block in decoder.blocks(images.folder, images.names)]
    started = time.perf_counter()
    list(pool.map(decode_images, blocks))
    return time.perf_counter() - started


def packing(images: pack.Images, place: Path) -> float:
    """Seconds to pack the images into a new folder, from the start of the processes to the file on the disk."""
    started = time.perf_counter()
    pack.open_pack(images, [place])
    return time.perf_counter() - started


def loading(data: Path, place: Path, *, cached: bool) -> float:
    """Seconds that a fresh process takes to import histoedge and load the folder."""
    command = [sys.executable, "-c", LOADING, str(data), str(place), "cache" if cached else "no"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def packing_row(what: str, images: pack.Images, seconds: Any) -> dict[str, Any]:
    """A row of the results, of one time or the median of several."""
    took = float(np.median(seconds))
    return {"what": what, "images": len(images), "seconds": took, "images_per_s": len(images) / took}


def packing_command() -> None:
    """Write the seconds of each, the ratio of packing to decoding alone, and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=20_000, help="images of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path, help="folder for the packs")
    arguments = parser.parse_args()
    machine = environment.this_machine()
    everything = pack.listed(arguments.data / "train", suffix=".tif")
    some = everything.take(range(min(arguments.limit, len(everything))))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        with ProcessPoolExecutor(digests.cpus(), multiprocessing.get_context("spawn")) as pool:
            alone(pool, some)  # now the processes run and the files are in the page cache
            pairs = []
            for number in range(arguments.rounds):
                place = scratch / str(number)
                took = {"decode": alone(pool, some), "pack": packing(some, place)}
                (place / pack.PACK).unlink()
                pairs.append(took)
                sys.stderr.write(f"{took}\n")
        times = {one: np.array([pair[one] for pair in pairs]) for one in ("decode", "pack")}
        ratio = metrics.ratio_of_medians(times["pack"][:, None], times["decode"][:, None])
        rows = [
            packing_row("decode alone", some, times["decode"]),
            packing_row("pack", some, times["pack"]),
        ]
        place = scratch / "all"
        with PeakMemory() as memory:
            rows.append(packing_row("pack all, once", everything, packing(everything, place)))
        for name, cached in (("load, packed", True), ("load, no cache", False)):
            rows.append(packing_row(name, everything, loading(arguments.data, place, cached=cached)))
    files.write_json(
        arguments.out,
        {
            "format": 1,
            "kind": "packing",
            "about": f"{digests.cpus()} CPUs; {arguments.rounds} rounds of {len(some)} images, in turns, files in the "
            f"page cache. Packing takes {ratio.value:.2f} [{ratio.lo:.2f}, {ratio.hi:.2f}] times the time of decoding "
            f"alone; {memory.peak_bytes / 1e6:.0f} MB in all processes together while everything is packed, the "
            "benchmark's own among them. Loading is `data.load` in a fresh process, with the imports. "
            f"{machine['load_average'][0]} processes wanted a CPU when it began.",
            "command": "python benchmarks/packing.py --data DATA --out F",
            "environment": machine,
            "columns": list(rows[0]),
            "rows": rows,
            "ratio": ratio.value,
            "ratio_lo": ratio.lo,
            "ratio_hi": ratio.hi,
            "peak_rss_bytes": memory.peak_bytes,
        },
    )


if __name__ == "__main__":
    packing_command()
