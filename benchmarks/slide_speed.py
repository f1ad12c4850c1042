"""Speed on a whole slide: ``python benchmarks/slide_speed.py --model MODEL... --out F [--slide SLIDE]``.

For each exported file MODEL on each installed runtime that opens it: dense fields against separate patches; reading,
inference and both at once; sizes of fields and numbers of workers. With the first MODEL also: the time of the whole
slide by stage, and a scan that is killed ten times at random moments. Without SLIDE, the script uses the slide of
``slidemaker.py``.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import slidemaker
from record import Row, run_script, write_record
from slide_work import SlideTask, read_fields, seconds_of
from targets import files_on_runtimes, labelled

from histoedge import edge, metrics
from histoedge.benchmark import environment
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.edge.patches import LABEL_PX
from histoedge.lab import architecture
from histoedge.scanning import FIELD_PX, Scan, engine, plane, unfinished
from histoedge.scanning import batch as slides
from histoedge.scanning.engine import Timings, Workers
from histoedge.scanning.grid import Grid, pixels_of

DENSE_ROUNDS, ROUNDS = 28, 7  # a dense round takes a third of a second
BATCH = 64
TIMED_FIELDS = 96  # with tissue, for reading, inference and both
FIELDS_PX = (384, 512, 1024, 2048)
WORKERS = ((1, 1), (2, 2), (1, 3), (3, 1), (4, 2), (4, 4))  # readers, interpreters
KILLS = 10
RESAMPLED_UM = 0.499  # assumed um per px; no level matches it, so all pixels are resampled
LEAST_RATIO, LEAST_OF_MACS, LARGEST_OVERLAP = 3.0, 0.85, 1.25

CHILD = """
import sys
from histoedge.cell import peak_rss_bytes
from histoedge.cli import main
slide, model, out = sys.argv[1:]
main(["scan", slide, "--model", model, "--out", out], standalone_mode=False)
print(peak_rss_bytes())
"""


def dense_row(task: SlideTask) -> Row:
    """Time fields against their separate patches on one thread, alternating; both return a verdict for each square."""
    opened, grid, numbers = task.tissue_fields()
    chosen = numbers[:: max(1, len(numbers) // DENSE_ROUNDS)][:DENSE_ROUNDS]
    fields = [pixels_of(opened, grid, number) for number in chosen]
    runner = engine.open_interpreter(task.model, runtime=task.runtime)
    patch_runner = edge.load(task.model, runtime=task.runtime)
    dense, patchwise = [], []
    side = grid.per_field
    for number, field in enumerate([fields[0], *fields]):
        corners = [(row * LABEL_PX, column * LABEL_PX) for row in range(side) for column in range(side)]
        patches = np.stack([field[y : y + 96, x : x + 96] for y, x in corners])
        whole_batches = range(0, len(patches) - BATCH + 1, BATCH)
        batches = [patches[start : start + BATCH] for start in whole_batches]
        if number == 0:  # untimed: both runners prepare for their shapes
            runner.map(field)
            patch_runner.predict(batches[0])
            continue
        field_s = [seconds_of(lambda: runner.map(field)) for _ in range(3)]  # noqa: B023
        patches_s = seconds_of(lambda: [patch_runner.predict(batch) for batch in batches])  # noqa: B023
        field_s += [seconds_of(lambda: runner.map(field)) for _ in range(3)]  # noqa: B023
        patchwise.append([1e6 * patches_s / (BATCH * len(batches))])
        dense.append([1e6 * seconds / side**2 for seconds in field_s])
    ratio = metrics.ratio_of_medians(np.array(patchwise), np.array(dense))
    macs = macs_ratio(task.model, grid)
    return {
        **_named(task),
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


def macs_ratio(model: Path, grid: Grid) -> float:
    """Return the multiply-accumulates of all patches of a field over those of the field computed at once."""
    path = model.parent.parent / "network.json"
    network = architecture.from_json(architecture.read_json(path)["network"], where=path)
    if not isinstance(network, architecture.Network):
        raise ModelError(f"{path}: keeps Keras layers, expected a network of rows")
    head = replace(network.rows[-1], stride=LABEL_PX // network.stride_px)
    dense = replace(network, rows=(*network.rows[:-1], head))
    return network.macs() * grid.per_field**2 / dense.macs(grid.field_px)


def overlap_row(task: SlideTask) -> Row:
    """Time reading, inference and both with the same workers, alternating; each reading starts with an empty cache."""
    half = max(1, Workers.of_machine().readers // 2)  # with more threads than cores, reading and inference both wait
    workers = Workers(readers=half, interpreters=half)
    _, grid, numbers = task.tissue_fields()
    numbers = numbers[:TIMED_FIELDS]
    in_memory = [pixels_of(task.fresh_plane(), grid, number) for number in numbers[:8]]
    fields = [in_memory[at % len(in_memory)] for at in range(len(numbers))]
    times: dict[str, list[list[float]]] = {"read": [], "infer": [], "both": []}
    for _ in range(ROUNDS):
        opened = task.fresh_plane()
        times["read"].append([seconds_of(lambda: read_fields(opened, grid, numbers, workers.readers))])  # noqa: B023
        times["infer"].append([seconds_of(lambda: task.infer(fields, workers.interpreters))])
        opened = task.fresh_plane()
        times["both"].append([seconds_of(lambda: task.read_and_infer(opened, grid, numbers, workers))])  # noqa: B023
    read, infer, both = (float(np.median(times[key])) for key in ("read", "infer", "both"))
    over_larger = metrics.ratio_of_medians(
        np.array(times["both"]), np.array(times["read" if read > infer else "infer"])
    )
    return {
        **_named(task),
        "pixels": _pixels(task),
        "readers": workers.readers,
        "interpreters": workers.interpreters,
        "fields": len(numbers),
        "read_s": read,
        "infer_s": infer,
        "both_s": both,
        "over_larger": over_larger.value,
        "over_larger_lo": over_larger.lo,
        "over_larger_hi": over_larger.hi,
        "holds": "yes" if over_larger.value <= LARGEST_OVERLAP else "no",
    }


def choice_rows(task: SlideTask) -> list[Row]:
    """Return squares per second for sizes of fields with the default workers, and for workers with the default size."""
    default = Workers.of_machine()
    options = [(field_px, default) for field_px in (FIELDS_PX if task.um_per_px is None else [FIELD_PX])]
    others = [Workers(readers=readers, interpreters=interpreters) for readers, interpreters in WORKERS]
    options += [(FIELD_PX, workers) for workers in others if workers != default]
    rows = []
    for field_px, workers in options:
        _, grid, numbers = task.tissue_fields(field_px)
        numbers = numbers[: max(8, int(TIMED_FIELDS * (FIELD_PX / field_px) ** 2))]
        seconds = []
        for _ in range(3):
            opened = task.fresh_plane()
            seconds.append(seconds_of(lambda: task.read_and_infer(opened, grid, numbers, workers)))  # noqa: B023
        name = f"{workers.readers} + {workers.interpreters} threads"
        rows.append(_choice_row(task, name, grid, numbers, seconds))
    _, grid, numbers = task.tissue_fields()
    numbers = numbers[:TIMED_FIELDS]
    seconds = task.seconds_in_processes(numbers, default.readers)
    return [*rows, _choice_row(task, f"{default.readers} processes", grid, numbers, seconds)]


def _choice_row(task: SlideTask, workers: str, grid: Grid, numbers: Sequence[int], seconds: list[float]) -> Row:
    windows = [grid.window(number) for number in numbers]
    squares = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in windows)
    return {
        **_named(task),
        "pixels": _pixels(task),
        "field_px": grid.field_px,
        "workers": workers,
        "squares_per_s": squares / float(np.median(seconds)),
    }


def stage_rows(task: SlideTask, folder: Path) -> list[Row]:
    """Return the seconds of a whole scan by stage, summed over threads, and its wall-clock time."""
    job = slides.BatchJob(model=task.model, settings=Scan(), workers=Workers.of_machine())
    (outcome,) = slides.scan_all([task.path], folder, job)
    assert outcome.summary is not None, outcome.reason
    seconds, slide = outcome.summary["seconds"], outcome.summary["slide"]
    whole_mm2 = slide["width_px"] * slide["height_px"] * slide["um_per_px"] ** 2 / 1e6
    opened, grid, numbers = task.tissue_fields()
    decoding = Timings()
    timed = replace(opened.slide, read=_timed(opened.slide.read, decoding))
    read_fields(plane.of_model(timed, manifests.read(task.model).um_per_px, None), grid, numbers, 1)
    stages = {
        "mask": seconds["mask"],
        "read": seconds["read"],
        "of it decode, on one thread alone": decoding.seconds["decode"],
        **{stage: seconds[stage] for stage in ("infer", "write", "by the clock")},
    }
    return [
        {
            "stage": stage,
            "s": stage_s,
            "ms_per_mm2": 1e3 * stage_s / whole_mm2,
            "ms_per_mm2_of_tissue": 1e3 * stage_s / outcome.summary["tissue_mm2"],
        }
        for stage, stage_s in stages.items()
    ]


def _timed(read: Callable[..., np.ndarray], timings: Timings) -> Callable[..., np.ndarray]:
    def timed(*window: int) -> np.ndarray:
        with timings.of("decode"):
            return read(*window)

    return timed


def killed_rows(task: SlideTask, folder: Path) -> list[Row]:
    """Run ``histoedge scan`` once to its end, and once killed repeatedly at random moments and resumed."""
    command = [sys.executable, "-c", CHILD, str(task.path), str(task.model)]
    started = time.perf_counter()
    whole = subprocess.run([*command, str(folder / "whole")], check=True, capture_output=True, text=True)
    whole_s = time.perf_counter() - started
    _, _, numbers = task.tissue_fields()
    draw, started = random.Random(0), time.perf_counter()
    for _ in range(KILLS):
        until = _fields_done(folder / "killed", task.path) + draw.randint(1, max(1, len(numbers) // (KILLS + 2)))
        with subprocess.Popen([*command, str(folder / "killed")], stdout=subprocess.DEVNULL) as child:
            while _fields_done(folder / "killed", task.path) < until:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.02))
            assert child.poll() is None, "the scan ended before it was killed"
            child.kill()
    subprocess.run([*command, str(folder / "killed")], check=True, capture_output=True)
    maps = [(folder / name / task.path.stem / slides.MAP).read_bytes() for name in ("whole", "killed")]
    return [
        {
            "slide": f"{task.path.stat().st_size / 1e6:,.0f} MB",
            "fields": len(numbers),
            "peak_rss_mb": int(whole.stdout.splitlines()[-1]) / 1e6,
            "s": whole_s,
            "kills": KILLS,
            "s_with_kills": time.perf_counter() - started,
            "same_bytes": "yes" if maps[0] == maps[1] else "no",
        }
    ]


def _fields_done(out: Path, slide: Path) -> int:
    """Return the number of computed fields of an unfinished scan; 0 where there is none."""
    done = out / slide.stem / unfinished.STATE / unfinished.DONE
    return int(np.load(done).sum()) if done.is_file() else 0


def _named(task: SlideTask) -> dict[str, str]:
    version = edge.RUNTIMES[task.runtime].installed_version()
    return {"model": labelled(task.model), "runtime": f"{task.runtime} {version}"}


def _pixels(task: SlideTask) -> str:
    return "as scanned" if task.um_per_px is None else "resampled"


def slide_tables(path: Path, models: Sequence[Path], folder: Path) -> list[Row]:
    """Return all tables, each with a description; print each when it is complete."""
    pairs = files_on_runtimes(models)
    tasks = [SlideTask(path, model, runtime) for model, runtime in pairs]
    at_both = [replace(task, um_per_px=um) for um in (None, RESAMPLED_UM) for task in tasks]
    tables: list[Row] = []

    def add(about: str, rows: list[Row]) -> None:
        tables.append({"about": about, "columns": list(rows[0]), "rows": rows})
        sys.stderr.write(f"{about}\n" + "".join(f"{row}\n" for row in rows))

    add(
        f"Dense against patch-wise on one thread: fields of {FIELD_PX} px, and their patches every {LABEL_PX} px, in "
        f"memory, batch {BATCH}. Both return a verdict for each square; {DENSE_ROUNDS} alternating rounds, 95 % "
        "interval. `ratio_of_macs` is the ratio of the multiply-accumulates, with those of the head counted once every "
        f"{LABEL_PX} px. `holds`: the interval is at least {LEAST_RATIO:g}, and the ratio at least {LEAST_OF_MACS:g} "
        "of `ratio_of_macs`.",
        [dense_row(task) for task in tasks],
    )
    add(
        "Reading only, inference only (of fields in memory) and both, each including the opening of slide or model; "
        f"medians of {ROUNDS} alternating rounds. `holds`: both take at most {LARGEST_OVERLAP:g} times the larger of "
        f"the two. Resampled: {RESAMPLED_UM} um per px is assumed for the slide, which matches no level.",
        [overlap_row(task) for task in at_both],
    )
    add(
        "Fields and workers: squares per second with reading and inference at once, median of 3. Threads are readers + "
        "interpreters. A process alternates between reading and computing and has opened everything before.",
        [row for task in at_both for row in choice_rows(task)],
    )
    add(
        f"The whole slide with {models[0].name}: seconds by stage, summed over threads, which overlap; and wall-clock "
        "time. Per square millimetre of the slide and of its tissue.",
        stage_rows(tasks[0], folder / "budget"),
    )
    add(
        f"`histoedge scan` with {models[0].name} in a process of its own, and again, killed at random moments and "
        "resumed: peak memory, seconds including the start of Python, and whether the file of the map has the same "
        "bytes.",
        killed_rows(tasks[0], folder),
    )
    return tables


def slide_speed_command() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, nargs="+", metavar="MODEL", help="exported files")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--slide", type=Path, help="default: the slide of slidemaker.py")
    arguments = parser.parse_args()
    machine = environment.this_machine()
    with tempfile.TemporaryDirectory(prefix="histoedge-") as name:
        folder = Path(name)
        path = arguments.slide
        if path is None:
            path = folder / "slide.tif"
            slidemaker.write_slide(path)
        tables = slide_tables(path, arguments.model, folder)
    write_record(
        arguments.out,
        kind="slides",
        command="python benchmarks/slide_speed.py --model MODEL... --out F"
        + (" --slide SLIDE" if arguments.slide else ""),
        about=_about(arguments.slide),
        machine=machine,
        tables=tables,
    )


def _about(slide: Path | None) -> str:
    if slide is not None:
        return f"The slide is {slide.name}."
    side, um = slidemaker.SIDE_PX, slidemaker.UM_PER_PX
    return (
        f"The slide is that of `slidemaker.py`: {side:,} x {side:,} px of {um} um, a pyramid of JPEG tiles; "
        f"{slidemaker.TISSUE:.0%} of it is synthetic tissue, the rest glass."
    )


if __name__ == "__main__":
    run_script(slide_speed_command)
