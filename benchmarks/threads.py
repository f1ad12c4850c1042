"""Many threads, one model: ``python benchmarks/threads.py MODEL... --out F [--seconds S] [--threads N]``.

Threads share one ``edge.load`` and predict patches, batches and fields of different sizes in random order, for a while.
Every answer must be that of a thread alone, and memory must stay flat. Every MODEL, an exported file, on every runtime
installed that opens it.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from histoedge import edge, files
from histoedge.benchmark import environment
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import HistoedgeError, RuntimeUnavailable
from histoedge.progress import Progress, on_terminal

KIND = "threads"
SHAPES = ((1, 96, 96), (1, 96, 96), (1, 96, 96), (4, 96, 96), (1, 192, 96), (1, 256, 256))
PER_SHAPE = 4
SETTLING = 0.25  # of the time: threads start, and each shape's buffers are allocated
SAMPLE_S = 0.05
LARGEST_GROWTH_MB = 16.0


def inputs(seed: int) -> list[np.ndarray]:
    """Random patches, batches and fields, uint8 (N, H, W, 3)."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES for _ in range(PER_SHAPE)]


def hammer(
    runner: edge.Runner, patches: Sequence[np.ndarray], *, threads: int, seconds: float, seed: int
) -> tuple[int, int, np.ndarray]:
    """How many calls the threads made, how many answered differently from one thread alone, and memory (2, samples).

    Memory is seconds since the start and resident bytes of this process.

    Raises:
        Exception: the first that a thread met.
    """
    alone = [runner.predict(one) for one in patches]
    calls, wrong = [0] * threads, [0] * threads
    failures: list[Exception] = []
    ends = time.monotonic() + seconds

    def work(thread: int) -> None:
        random = np.random.default_rng([seed, thread])
        try:
            while time.monotonic() < ends:
                at = int(random.integers(len(patches)))
                wrong[thread] += not np.array_equal(runner.predict(patches[at]), alone[at])
                calls[thread] += 1
        except Exception as error:  # a thread's exception would be lost
            failures.append(error)

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    process, memory = psutil.Process(), []
    started = time.monotonic()
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        memory.append((time.monotonic() - started, process.memory_info().rss))
        time.sleep(SAMPLE_S)
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return sum(calls), sum(wrong), np.array(memory, np.float64).T


def threads_row(
    model: Path, runner: edge.ExportedRunner, threads: int, calls: int, wrong: int, memory: np.ndarray
) -> dict[str, Any]:
    """The figures of one file on one runtime."""
    seconds, resident = memory
    settled = seconds >= SETTLING * seconds[-1]
    megabytes = resident[settled] / 1e6
    growth = float(megabytes.max() - megabytes[0])
    return {
        "model": f"{runner.manifest.network} {model.name}",
        "runtime": f"{runner.runtime} {runner.version}",
        "threads": threads,
        "seconds": float(seconds[-1]),
        "calls": calls,
        "different_answers": wrong,
        "resident_mb": float(megabytes[0]),
        "largest_growth_mb": growth,
        "slope_mb_per_minute": 60 * float(np.polyfit(seconds[settled], megabytes, 1)[0]),
        "holds": "yes" if not wrong and growth <= LARGEST_GROWTH_MB else "no",
    }


def measure_threads(
    models: Sequence[Path], *, threads: int, seconds: float, progress: Progress
) -> list[dict[str, Any]]:
    """A row for every file on every runtime installed that opens it.

    Raises:
        ModelError: a file is missing, altered or unreadable.
        RuntimeUnavailable: no runtime installed opens any of them.
    """
    places = [
        (model, runtime.name)
        for model in models
        for runtime in edge.RUNTIMES.values()
        if manifests.read(model).format in runtime.formats and runtime.installed()
    ]
    if not places:
        raise RuntimeUnavailable("no runtime installed opens any of these files; pip install 'histoedge[onnx]'")
    rows = []
    for done, (model, runtime) in enumerate(places, start=1):
        runner = edge.load(model, runtime=runtime)
        found = hammer(runner, inputs(done), threads=threads, seconds=seconds, seed=done)
        rows.append(threads_row(model, runner, threads, *found))
        progress("threads, files on runtimes", done, len(places), f"{model.name} @ {runtime}")
    return rows


def threads_command() -> None:
    """Write a row for every file on every runtime; exit 3 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.threads < 1:
        parser.error("expected more than 0 seconds and at least 1 thread")
    machine = environment.this_machine()
    with on_terminal() as show:
        rows = measure_threads(arguments.models, threads=arguments.threads, seconds=arguments.seconds, progress=show)
    fields = ", ".join(f"{count} x {height} x {width}" for count, height, width in dict.fromkeys(SHAPES))
    document = {
        "format": 1,
        "kind": KIND,
        "command": "python benchmarks/threads.py MODEL... --out F",
        "about": f"Threads that share a model loaded for one thread, and predict {fields} px in random order. "
        f"`different_answers` are those that are not bit for bit what a thread alone gets. Resident memory of the "
        f"process after the first {SETTLING:.0%} of the time: its largest growth and slope. It holds where no answer "
        f"differs and memory grows by at most {LARGEST_GROWTH_MB:g} MB.",
        "environment": machine,
        "columns": list(rows[0]),
        "rows": rows,
    }
    files.write_json(arguments.out, document)
    sys.stdout.write(f"{arguments.out}\n")
    sys.exit(0 if all(one["holds"] == "yes" for one in rows) else 3)


if __name__ == "__main__":
    try:
        threads_command()
    except HistoedgeError as error:
        sys.exit(str(error))
