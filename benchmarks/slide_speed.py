"""What a whole slide costs: ``python benchmarks/slide_speed.py --model MODEL... --out F [--slide SLIDE]``.

Every MODEL, an exported file, on every runtime installed that opens it: dense fields against patches one by one;
reading, inference and both at once; fields and workers to choose from. Then, with the first MODEL, the budget of the
whole slide, and the same scan killed ten times at random moments. Without SLIDE it is the one of ``slidemaker.py``.
"""

import argparse
import queue
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import slidemaker

from histoedge import edge, files, metrics
from histoedge.benchmark import environment
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import HistoedgeError
from histoedge.lab import architecture
from histoedge.scanning import FIELD_PX, Scan, engine, plane, tissue
from histoedge.scanning import batch as slides
from histoedge.scanning.engine import Grid, Timings, Unfinished, Workers, pixels_of
from histoedge.scanning.plane import Plane
from histoedge.scanning.slide import open_slide
from histoedge.scanning.slidemap import STEP_PX

KIND = "slides"
DENSE_ROUNDS, ROUNDS = 28, 7  # a round of the first takes a third of a second
BATCH = 64
TIMED_FIELDS = 96  # with tissue, for reading and inference alone and both
FIELDS_PX = (384, 512, 1024, 2048)
WORKERS = ((1, 1), (2, 2), (1, 3), (3, 1), (4, 2), (4, 4))  # readers, interpreters
KILLS = 10
RESAMPLED_UM = 0.499  # what the slide is said to have, so that no level fits and all is resampled
LEAST_RATIO, LEAST_OF_MACS, LARGEST_OVERLAP = 3.0, 0.85, 1.25

CHILD = """
import sys
from histoedge.cell import peak_rss_bytes
from histoedge.cli import main
slide, model, out = sys.argv[1:]
main(["scan", slide, "--model", model, "--out", out], standalone_mode=False)
print(peak_rss_bytes())
"""


def places(models: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with every runtime installed that opens it."""
    return [
        (model, row.name)
        for model in models
        for row in edge.RUNTIMES.values()
        if manifests.read(model).format in row.formats and row.installed()
    ]


def seen_fields(
    path: Path, model: Path, *, field_px: int, um_per_px: float | None = None
) -> tuple[Plane, Grid, list[int]]:
    """A fresh plane of the slide with the fields of its tissue."""
    manifest = manifests.read(model)
    seen = plane.of_model(open_slide(path), manifest.um_per_px, um_per_px)
    grid = engine.grid_of(seen, manifest, field_px)
    found = tissue.mask(tissue.overview(seen), seen.um_per_px * STEP_PX / tissue.PER_SQUARE)
    return seen, grid, grid.fields(tissue.squares(found, grid.rows, grid.columns))


def seconds_of(work: Callable[[], Any]) -> float:
    """How long the work takes."""
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def dense_row(path: Path, model: Path, runtime: str) -> dict[str, Any]:
    """Fields at once against their patches one by one, in turns, on one thread; both count a verdict per square."""
    seen, grid, numbers = seen_fields(path, model, field_px=FIELD_PX)
    fields = [
        pixels_of(seen, grid, number) for number in numbers[:: max(1, len(numbers) // DENSE_ROUNDS)][:DENSE_ROUNDS]
    ]
    runner = engine.open_interpreter(model, runtime=runtime)
    alone = edge.load(model, runtime=runtime)
    dense, patchwise = [], []
    side = grid.per_field
    for number, field in enumerate([fields[0], *fields]):
        corners = [(row * STEP_PX, column * STEP_PX) for row in range(side) for column in range(side)]
        patches = np.stack([field[y : y + 96, x : x + 96] for y, x in corners])
        batches = [patches[start : start + BATCH] for start in range(0, len(patches) - BATCH + 1, BATCH)]  # whole ones
        if number == 0:  # for both to prepare for their shapes
            runner.map(field)
            alone.predict(batches[0])
            continue
        turns = [seconds_of(lambda: runner.map(field)) for _ in range(3)]  # noqa: B023
        took = seconds_of(lambda: [alone.predict(batch) for batch in batches])  # noqa: B023
        turns += [seconds_of(lambda: runner.map(field)) for _ in range(3)]  # noqa: B023
        patchwise.append([1e6 * took / (BATCH * len(batches))])
        dense.append([1e6 * took / side**2 for took in turns])
    ratio = metrics.ratio_of_medians(np.array(patchwise), np.array(dense))
    described = model.parent.parent / "network.json"
    network = architecture.from_json(architecture.read_json(described)["network"], where=described)
    head = replace(network.rows[-1], stride=STEP_PX // network.stride_px)
    needed = replace(network, rows=(*network.rows[:-1], head))
    macs = network.macs() * side**2 / needed.macs(grid.field_px)
    return {
        **_named(model, runtime),
        "field_px": grid.field_px,
        "dense_us_per_verdict": float(np.median(dense)),
        "patchwise_us_per_verdict": float(np.median(patchwise)),
        "ratio": ratio.value,
        "ratio_lo": ratio.lo,
        "ratio_hi": ratio.hi,
        "ratio_of_macs": macs,
        "share_of_macs_ratio": ratio.value / macs,
        "holds": "yes" if ratio.lo >= LEAST_RATIO and ratio.value >= LEAST_OF_MACS * macs else "no",
    }


def reading_alone(seen: Plane, grid: Grid, numbers: Iterable[int], readers: int) -> None:
    """Read fields and forget them."""
    with ThreadPoolExecutor(readers) as threads:
        for _ in threads.map(lambda number: pixels_of(seen, grid, number).shape, numbers):
            pass


def inference_alone(model: Path, runtime: str, fields: Iterable[np.ndarray], interpreters: int) -> None:
    """Open the model and compute fields that are in memory."""
    runners: queue.SimpleQueue[edge.ExportedRunner] = queue.SimpleQueue()
    for _ in range(interpreters):
        runners.put(engine.open_interpreter(model, runtime=runtime))

    def compute(pixels: np.ndarray) -> None:
        runner = runners.get()
        runner.map(pixels)
        runners.put(runner)

    with ThreadPoolExecutor(interpreters) as threads:
        for _ in threads.map(compute, fields):
            pass


def together(seen: Plane, grid: Grid, numbers: Sequence[int], model: Path, runtime: str, workers: Workers) -> None:
    """Read and compute fields, into a map that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        unfinished = Unfinished(Path(folder), grid, {})
        engine.compute(seen, model, unfinished, grid, numbers, runtime=runtime, workers=workers, timings=Timings())


def overlap_row(path: Path, model: Path, runtime: str, um_per_px: float | None) -> dict[str, Any]:
    """Reading alone, inference alone and both, in turns, with the same workers; each reads with nothing kept."""
    half = max(1, Workers.of_machine().readers // 2)  # no more threads than cores, or both wait for them
    workers = Workers(readers=half, interpreters=half)
    _, grid, numbers = seen_fields(path, model, field_px=FIELD_PX, um_per_px=um_per_px)
    numbers = numbers[:TIMED_FIELDS]

    def fresh() -> Plane:
        return plane.of_model(open_slide(path), manifests.read(model).um_per_px, um_per_px)

    held = [pixels_of(fresh(), grid, number) for number in numbers[:8]]
    some = [held[at % len(held)] for at in range(len(numbers))]
    times: dict[str, list[list[float]]] = {"read": [], "infer": [], "both": []}
    for _ in range(ROUNDS):
        before = fresh()
        times["read"].append([seconds_of(lambda: reading_alone(before, grid, numbers, workers.readers))])  # noqa: B023
        times["infer"].append([seconds_of(lambda: inference_alone(model, runtime, some, workers.interpreters))])
        before = fresh()
        times["both"].append([seconds_of(lambda: together(before, grid, numbers, model, runtime, workers))])  # noqa: B023
    read, infer, both = (float(np.median(times[key])) for key in ("read", "infer", "both"))
    larger = metrics.ratio_of_medians(np.array(times["both"]), np.array(times["read" if read > infer else "infer"]))
    return {
        **_named(model, runtime),
        "pixels": "as scanned" if um_per_px is None else "resampled",
        "readers": workers.readers,
        "interpreters": workers.interpreters,
        "fields": len(numbers),
        "read_s": read,
        "infer_s": infer,
        "both_s": both,
        "over_larger": larger.value,
        "over_larger_lo": larger.lo,
        "over_larger_hi": larger.hi,
        "holds": "yes" if larger.value <= LARGEST_OVERLAP else "no",
    }


def choice_rows(path: Path, model: Path, runtime: str, um_per_px: float | None) -> list[dict[str, Any]]:
    """Verdicts per second of both at once: sizes of fields with the default workers, workers with the default field."""
    default = Workers.of_machine()
    options = [(field_px, default) for field_px in (FIELDS_PX if um_per_px is None else [FIELD_PX])]
    others = [Workers(readers=readers, interpreters=interpreters) for readers, interpreters in WORKERS]
    options += [(FIELD_PX, workers) for workers in others if workers != default]
    rows = []
    for field_px, workers in options:
        _, grid, numbers = seen_fields(path, model, field_px=field_px, um_per_px=um_per_px)
        numbers = numbers[: max(8, int(TIMED_FIELDS * (FIELD_PX / field_px) ** 2))]
        took = []
        for _ in range(3):
            fresh = plane.of_model(open_slide(path), manifests.read(model).um_per_px, um_per_px)
            took.append(seconds_of(lambda: together(fresh, grid, numbers, model, runtime, workers)))  # noqa: B023
        told = f"{workers.readers} + {workers.interpreters} threads"
        rows.append(_choice(model, runtime, um_per_px, field_px, told, grid, numbers, took))
    _, grid, numbers = seen_fields(path, model, field_px=FIELD_PX, um_per_px=um_per_px)
    numbers = numbers[:TIMED_FIELDS]
    chunks = [numbers[start : start + engine.STRIP] for start in range(0, len(numbers), engine.STRIP)]
    count = default.readers
    with ProcessPoolExecutor(count, get_context("spawn"), _prepare, (path, model, runtime, um_per_px)) as processes:
        list(processes.map(_by_turns, [numbers[:1]] * 4 * count))  # all have started
        took = [seconds_of(lambda: list(processes.map(_by_turns, chunks))) for _ in range(3)]
    rows.append(_choice(model, runtime, um_per_px, FIELD_PX, f"{count} processes", grid, numbers, took))
    return rows


def _choice(
    model: Path,
    runtime: str,
    um_per_px: float | None,
    field_px: int,
    workers: str,
    grid: Grid,
    numbers: Sequence[int],
    took: list[float],
) -> dict[str, Any]:
    squares = sum(_size(grid, number) for number in numbers)
    return {
        **_named(model, runtime),
        "pixels": "as scanned" if um_per_px is None else "resampled",
        "field_px": field_px,
        "workers": workers,
        "squares_per_s": squares / float(np.median(took)),
    }


def _size(grid: Grid, number: int) -> int:
    rows, columns = grid.window(number)
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def _prepare(path: Path, model: Path, runtime: str, um_per_px: float | None) -> None:
    """In a process: open slide and model, which ``_by_turns`` uses."""
    global _HELD
    seen = plane.of_model(open_slide(path), manifests.read(model).um_per_px, um_per_px)
    _HELD = seen, engine.grid_of(seen, manifests.read(model), FIELD_PX), engine.open_interpreter(model, runtime=runtime)


_HELD: tuple[Plane, Grid, edge.ExportedRunner]


def _by_turns(numbers: Sequence[int]) -> int:
    seen, grid, runner = _HELD
    return len([runner.map(pixels_of(seen, grid, number)) for number in numbers])


def budget_rows(path: Path, model: Path, folder: Path) -> list[dict[str, Any]]:
    """The whole slide with all its files: seconds by stage, summed over threads, and by the clock."""
    (outcome,) = slides.scan_all([path], model, folder, settings=Scan(), workers=Workers.of_machine())
    assert outcome.summary is not None, outcome.reason
    seconds, told = outcome.summary["seconds"], outcome.summary["slide"]
    whole_mm2 = told["width_px"] * told["height_px"] * told["um_per_px"] ** 2 / 1e6
    tissue_mm2 = outcome.summary["tissue_mm2"]
    seen, grid, numbers = seen_fields(path, model, field_px=FIELD_PX)
    decoding = Timings()
    timed = replace(seen.slide, read=_timed(seen.slide.read, decoding))
    reader = Plane(timed, um_per_px=seen.told[0], slide_um_per_px=seen.told[1])
    reading_alone(reader, grid, numbers, 1)
    stages = {
        "mask": seconds["mask"],
        "read": seconds["read"],
        "of it decode, on one thread alone": decoding.seconds["decode"],
        **{stage: seconds[stage] for stage in ("infer", "write", "by the clock")},
    }
    return [
        {
            "stage": stage,
            "s": seconds,
            "ms_per_mm2": 1e3 * seconds / whole_mm2,
            "ms_per_mm2_of_tissue": 1e3 * seconds / tissue_mm2,
        }
        for stage, seconds in stages.items()
    ]


def _timed(read: Callable[..., np.ndarray], timings: Timings) -> Callable[..., np.ndarray]:
    def timed(*window: int) -> np.ndarray:
        with timings.of("decode"):
            return read(*window)

    return timed


def killed_rows(path: Path, model: Path, folder: Path) -> list[dict[str, Any]]:
    """One ``histoedge scan`` to its end, and one that is killed again and again at random moments and goes on."""
    command = [sys.executable, "-c", CHILD, str(path), str(model)]
    started = time.perf_counter()
    told = subprocess.run([*command, str(folder / "whole")], check=True, capture_output=True, text=True).stdout
    whole_s = time.perf_counter() - started
    _, _, numbers = seen_fields(path, model, field_px=FIELD_PX)
    draw, started = random.Random(0), time.perf_counter()
    for _ in range(KILLS):
        wanted = _fields_done(folder / "killed", path) + draw.randint(1, max(1, len(numbers) // (KILLS + 2)))
        with subprocess.Popen([*command, str(folder / "killed")], stdout=subprocess.DEVNULL) as child:
            while _fields_done(folder / "killed", path) < wanted:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.02))
            assert child.poll() is None, "ended before it was killed"
            child.kill()
    subprocess.run([*command, str(folder / "killed")], check=True, capture_output=True)
    maps = [(folder / name / path.stem / slides.MAP).read_bytes() for name in ("whole", "killed")]
    return [
        {
            "slide": f"{path.stat().st_size / 1e6:,.0f} MB",
            "fields": len(numbers),
            "peak_rss_mb": int(told.splitlines()[-1]) / 1e6,
            "s": whole_s,
            "kills": KILLS,
            "s_with_kills": time.perf_counter() - started,
            "same_bytes": "yes" if maps[0] == maps[1] else "no",
        }
    ]


def _fields_done(out: Path, slide: Path) -> int:
    """Of an unfinished scan; 0 where there is none."""
    done = out / slide.stem / engine.STATE / engine.DONE
    return int(np.load(done).sum()) if done.is_file() else 0


def _named(model: Path, runtime: str) -> dict[str, str]:
    return {
        "model": f"{manifests.read(model).network} {model.name}",
        "runtime": f"{runtime} {edge.RUNTIMES[runtime].installed_version()}",
    }


def slide_speed_command() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, nargs="+", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slide", type=Path)
    arguments = parser.parse_args()
    machine = environment.this_machine()
    with tempfile.TemporaryDirectory(prefix="histoedge-") as name:
        folder = Path(name)
        path = arguments.slide
        if path is None:
            path = folder / "slide.tif"
            slidemaker.write(path)
        tables = measured(path, arguments.model, folder)
    document = {
        "format": 1,
        "kind": KIND,
        "command": "python benchmarks/slide_speed.py --model MODEL... --out F"
        + (" --slide SLIDE" if arguments.slide else ""),
        "about": _about(arguments.slide),
        "environment": machine,
        "tables": tables,
    }
    files.write_json(arguments.out, document)
    sys.stdout.write(f"{arguments.out}\n")


def _about(slide: Path | None) -> str:
    if slide is not None:
        return f"The slide is {slide.name}."
    side, um = slidemaker.SIDE_PX, slidemaker.UM_PER_PX
    return (
        f"The slide is that of `slidemaker.py`: {side:,} x {side:,} px of {um} um, a pyramid of JPEG tiles, "
        f"{slidemaker.TISSUE:.0%} of it synthetic tissue, the rest glass."
    )


def measured(path: Path, models: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """All tables, each with what it shows."""

    def told(what: str) -> None:
        sys.stderr.write(f"{what}\n")

    on = places(models)
    tables = []

    def add(about: str, rows: list[dict[str, Any]]) -> None:
        tables.append({"about": about, "columns": list(rows[0]), "rows": rows})
        told(f"{about}\n" + "\n".join(map(str, rows)))

    add(
        f"Dense against patch-wise on one thread: fields of {FIELD_PX} px, and their patches every {STEP_PX} px, in "
        f"memory, batch {BATCH}; a verdict per square in both, {DENSE_ROUNDS} rounds in turns, 95 % interval. "
        "`ratio_of_macs` is what the multiply-accumulates promise that a square's values need: the head's are of each "
        f"{STEP_PX} px. It holds where the interval is at least {LEAST_RATIO:g} and the ratio at least "
        f"{LEAST_OF_MACS:g} of that.",
        [dense_row(path, model, runtime) for model, runtime in on],
    )
    add(
        "Reading alone, inference alone (of fields in memory) and both, all with opening what they need; "
        f"{ROUNDS} rounds in turns, medians. It holds where both take at most {LARGEST_OVERLAP:g} times the larger. "
        f"Resampled: the slide is said to have {RESAMPLED_UM} um per px, so that no level fits.",
        [overlap_row(path, model, runtime, um) for um in (None, RESAMPLED_UM) for model, runtime in on],
    )
    add(
        "Fields and workers: squares per second, reading and inference at once, median of 3. Threads are readers + "
        "interpreters; a process reads and computes by turns, and has opened all before.",
        [row for um in (None, RESAMPLED_UM) for model, runtime in on for row in choice_rows(path, model, runtime, um)],
    )
    add(
        f"The whole slide with {models[0].name}: seconds summed over threads, which overlap, and by the clock; for "
        "each square millimetre of the slide and of its tissue.",
        budget_rows(path, models[0], folder / "budget"),
    )
    add(
        f"`histoedge scan` with {models[0].name} in a process of its own, and once more killed at random moments and "
        "continued: peak memory, seconds with starting Python, and whether the map's file has the same bytes.",
        killed_rows(path, models[0], folder),
    )
    return tables


if __name__ == "__main__":
    try:
        slide_speed_command()
    except HistoedgeError as error:
        sys.exit(str(error))
