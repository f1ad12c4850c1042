"""Many threads, one model: ``python benchmarks/threads.py MODEL... --out F [--seconds S] [--threads N]``.

Threads share one ``edge.load`` and predict patches, batches and fields of different sizes in random order for S
seconds. Each answer must equal that of a single thread, and memory must not grow. Each exported file MODEL is tested on
each installed runtime that opens it.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from record import Row, run_script, write_record
from targets import files_on_runtimes

from histoedge import edge
from histoedge.benchmark import environment
from histoedge.progress import Progress, on_terminal

SHAPES = ((1, 96, 96), (1, 96, 96), (1, 96, 96), (4, 96, 96), (1, 192, 96), (1, 256, 256))
PER_SHAPE = 4
SETTLING = 0.25  # share of the time in which threads start and buffers for each shape are allocated
SAMPLE_S = 0.05
LARGEST_GROWTH_MB = 16.0


def inputs(seed: int) -> list[np.ndarray]:
    """Return random patches, batches and fields, uint8 (N, H, W, 3)."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES for _ in range(PER_SHAPE)]


def hammer(
    runner: edge.Runner, patches: Sequence[np.ndarray], *, threads: int, seconds: float, seed: int
) -> tuple[int, int, np.ndarray]:
    """Call the runner from several threads.

    Returns:
        Number of calls; number of answers that differ from those of a single thread; memory (2, samples): seconds
        since the start, and resident bytes of this process.

    Raises:
        Exception: the first exception in a thread.
    """
    expected = [runner.predict(batch) for batch in patches]
    calls, wrong = [0] * threads, [0] * threads
    failures: list[Exception] = []
    ends = time.monotonic() + seconds

    def work(thread: int) -> None:
        random = np.random.default_rng([seed, thread])
        try:
            while time.monotonic() < ends:
                at = int(random.integers(len(patches)))
                wrong[thread] += not np.array_equal(runner.predict(patches[at]), expected[at])
                calls[thread] += 1
        except Exception as error:  # an exception in a thread would be lost
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
) -> Row:
    """Return the figures of a file on a runtime."""
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


def measure_threads(models: Sequence[Path], *, threads: int, seconds: float, progress: Progress) -> list[Row]:
    """Return a row for each file on each installed runtime that opens it.

    Raises:
        ModelError: a file is missing, changed or unreadable.
        RuntimeUnavailable: no installed runtime opens any of the files.
    """
    pairs = files_on_runtimes(models)
    rows = []
    for done, (model, runtime) in enumerate(pairs, start=1):
        runner = edge.load(model, runtime=runtime)
        calls, wrong, memory = hammer(runner, inputs(done), threads=threads, seconds=seconds, seed=done)
        rows.append(threads_row(model, runner, threads, calls, wrong, memory))
        progress("threads, files on runtimes", done, len(pairs), f"{model.name} @ {runtime}")
    return rows


def threads_command() -> None:
    """Write a row for each file on each runtime; exit with 3 if a row does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="exported files")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--seconds", type=float, default=60.0, help="per file and runtime")
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.threads < 1:
        parser.error("expected more than 0 seconds and at least 1 thread")
    machine = environment.this_machine()
    with on_terminal() as show:
        rows = measure_threads(arguments.models, threads=arguments.threads, seconds=arguments.seconds, progress=show)
    shapes = ", ".join(f"{count} x {height} x {width}" for count, height, width in dict.fromkeys(SHAPES))
    write_record(
        arguments.out,
        kind="threads",
        command="python benchmarks/threads.py MODEL... --out F",
        about=f"Threads share a model that was loaded for one thread and predict inputs of {shapes} px in random "
        "order. `different_answers` counts answers that are not bit for bit those of a single thread. Memory is the "
        f"resident memory of the process after the first {SETTLING:.0%} of the time: its largest growth, and its "
        f"slope. `holds`: no answer differs and memory grows by at most {LARGEST_GROWTH_MB:g} MB.",
        machine=machine,
        rows=rows,
    )
    sys.exit(0 if all(row["holds"] == "yes" for row in rows) else 3)


if __name__ == "__main__":
    run_script(threads_command)
