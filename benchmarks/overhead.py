"""Overhead of the runner: ``python benchmarks/overhead.py MODEL... --data DATA --out F [--rounds N] [--calls N]``.

Times ``Runner.predict`` and the bare call of the interpreter inside the runner, written as in the interpreter's manual.
Both run in one process on the same test patches in the same buffers: batch 1, one thread, in a random order for each
patch. Each exported file MODEL is measured on each installed runtime that opens it.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import Row, changed_options, run_script, write_record
from targets import evenly_spaced, files_on_runtimes, labelled, pin_to_cores

from histoedge import data, edge, metrics
from histoedge.benchmark import environment
from histoedge.edge.errors import RuntimeUnavailable
from histoedge.edge.litert import LiteRTRunner
from histoedge.edge.openvino import OpenVINORunner
from histoedge.edge.ort import OnnxRuntimeRunner
from histoedge.progress import Progress, on_terminal

WARMUP_CALLS = 200
LARGEST_SHARE, LARGEST_US = 0.03, 3.0

Call = Callable[[np.ndarray], Any]


def bare(loaded: edge.ExportedRunner) -> Call:
    """Return the call of the interpreter inside a loaded model, without checks; it returns logits in a new array.

    Raises:
        RuntimeUnavailable: not one of the three runtimes that histoedge uses by default.
    """
    runner = loaded.interpreter
    if isinstance(runner, LiteRTRunner):
        interpreter, input_index, output_index = runner._interpreter, runner._input, runner._output

        def litert(patch: np.ndarray) -> Any:
            interpreter.set_tensor(input_index, patch)
            interpreter.invoke()
            return interpreter.get_tensor(output_index)

        return litert
    if isinstance(runner, OnnxRuntimeRunner):
        session, name, outputs = runner._session, runner._input, [runner._output]
        return lambda patch: session.run(outputs, {name: patch})[0]
    if isinstance(runner, OpenVINORunner):
        (request,) = runner._requests.values()
        return lambda patch: request.infer([patch], share_inputs=True)[0]
    raise RuntimeUnavailable(
        f"{runner.runtime}: this script has no bare call for it; use litert, onnxruntime or openvino"
    )


def time_both(
    calls: Sequence[Call], patches: Sequence[np.ndarray], *, rounds: int, calls_per_round: int, seed: int
) -> list[np.ndarray]:
    """Return milliseconds (rounds, calls_per_round) for each call; the order of the calls is drawn for each patch."""
    random = np.random.default_rng(seed)
    for call in calls:
        for number in range(WARMUP_CALLS):
            call(patches[number % len(patches)])
    nanoseconds = np.zeros((len(calls), rounds, calls_per_round), np.int64)
    for of_round in range(rounds):
        orders = [random.permutation(len(calls)).tolist() for _ in range(calls_per_round)]
        gc.collect()
        gc.disable()  # a collection inside a call would count as its time
        for number, order in enumerate(orders):
            patch = patches[(of_round * calls_per_round + number) % len(patches)]
            for index in order:
                call = calls[index]
                before = time.perf_counter_ns()
                call(patch)
                nanoseconds[index, of_round, number] = time.perf_counter_ns() - before
        gc.enable()
    return list(nanoseconds / 1e6)


def overhead_row(model: Path, runner: edge.Runner, predict_ms: np.ndarray, bare_ms: np.ndarray) -> Row:
    """Return the figures of a file on a runtime: median microseconds, and the extra time of ``predict``."""
    ratio = metrics.ratio_of_medians(predict_ms, bare_ms)
    bare_us = 1e3 * float(np.median(bare_ms))
    allowed_us = max(LARGEST_SHARE * bare_us, LARGEST_US)
    return {
        "model": labelled(model),
        "runtime": f"{runner.runtime} {runner.version}",
        "bare_p50_us": bare_us,
        "predict_p50_us": 1e3 * float(np.median(predict_ms)),
        "more_us": (ratio.value - 1) * bare_us,
        "more_us_lo": (ratio.lo - 1) * bare_us,
        "more_us_hi": (ratio.hi - 1) * bare_us,
        "more_percent": 100 * (ratio.value - 1),
        "allowed_us": allowed_us,
        "holds": "yes" if (ratio.hi - 1) * bare_us <= allowed_us else "no",
    }


def measure_overhead(
    models: Sequence[Path], patches: np.ndarray, *, rounds: int, calls_per_round: int, progress: Progress
) -> list[Row]:
    """Return a row for each file on each installed runtime that opens it.

    Raises:
        ModelError: a file is missing, changed or unreadable.
        RuntimeUnavailable: no installed runtime opens any of the files.
    """
    buffers = [np.ascontiguousarray(patch[None]) for patch in patches]
    pairs = files_on_runtimes(models)
    rows = []
    for done, (model, runtime) in enumerate(pairs, start=1):
        runner = edge.load(model, runtime=runtime)
        both: tuple[Call, Call] = runner.predict, bare(runner)
        times = time_both(both, buffers, rounds=rounds, calls_per_round=calls_per_round, seed=done)
        rows.append(overhead_row(model, runner, *times))
        progress("overhead, files on runtimes", done, len(pairs), f"{model.name} @ {runtime}")
    return rows


def overhead_command() -> None:
    """Write a row for each file on each runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="exported files")
    parser.add_argument("--data", required=True, help="data set; its test split is timed")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=500, help="per round")
    arguments = parser.parse_args()
    if arguments.rounds < 2 or arguments.calls < 1:
        parser.error("expected at least 2 rounds of 1 call")
    machine = environment.this_machine()  # before this process is pinned to one CPU
    pin_to_cores(1)
    patches = evenly_spaced(data.load(arguments.data, splits=("test",))["test"])
    with on_terminal() as show:
        rows = measure_overhead(
            arguments.models, patches, rounds=arguments.rounds, calls_per_round=arguments.calls, progress=show
        )
    write_record(
        arguments.out,
        kind="overhead",
        command="python benchmarks/overhead.py MODEL... --data DATA --out F"
        + changed_options(parser, arguments, "rounds", "calls"),
        about=f"`Runner.predict` against the bare call of the same interpreter, both on the same {len(patches)} test "
        f"patches, batch 1, 1 thread, in random order; {arguments.rounds} rounds of {arguments.calls} calls. `more_us` "
        "is the extra time of `predict` at the median, with its 95 % interval. `holds`: the whole interval is at most "
        f"{LARGEST_SHARE:.0%} or {LARGEST_US:g} us, the larger of the two.",
        machine=machine,
        rows=rows,
    )


if __name__ == "__main__":
    run_script(overhead_command)
