"""What checking costs: ``python benchmarks/overhead.py MODEL... --data DATA --out F [--rounds N] [--calls N]``.

Times ``Runner.predict`` and the bare call of the very interpreter under it, written as its manual shows: in one
process, on the same test patches in the same buffers, batch 1, one thread, the two in a new random order in every
round. Every MODEL, an exported file, on every runtime installed that opens it.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import data, edge, files, metrics
from histoedge.benchmark import environment
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import HistoedgeError, RuntimeUnavailable
from histoedge.edge.litert import LiteRTRunner
from histoedge.edge.openvino import OpenVINORunner
from histoedge.edge.ort import OnnxRuntimeRunner
from histoedge.progress import Progress, on_terminal

KIND = "overhead"
TIMED_PATCHES = 256  # as histoedge bench
WARMUP_CALLS = 200
LARGEST_SHARE, LARGEST_US = 0.03, 3.0

Call = Callable[[np.ndarray], Any]


def bare(loaded: edge.ExportedRunner) -> Call:
    """The call of the interpreter under a loaded model, without a check, returning logits that are the caller's own.

    Raises:
        RuntimeUnavailable: of another runtime than the three that open files unasked.
    """
    runner = loaded.interpreter
    if isinstance(runner, LiteRTRunner):
        interpreter, taken, given = runner._interpreter, runner._input, runner._output

        def litert(patch: np.ndarray) -> Any:
            interpreter.set_tensor(taken, patch)
            interpreter.invoke()
            return interpreter.get_tensor(given)

        return litert
    if isinstance(runner, OnnxRuntimeRunner):
        session, name, outputs = runner._session, runner._input, [runner._output]
        return lambda patch: session.run(outputs, {name: patch})[0]
    if isinstance(runner, OpenVINORunner):
        (request,) = runner._requests.values()
        return lambda patch: request.infer([patch], share_inputs=True)[0]
    raise RuntimeUnavailable(f"{runner.runtime}: no bare call is known; one of {', '.join(edge.RUNTIMES)} expected")


def time_both(
    calls: Sequence[Call], patches: Sequence[np.ndarray], *, rounds: int, calls_per_round: int, seed: int
) -> list[np.ndarray]:
    """Milliseconds (rounds, calls_per_round) of each call on the same patches, in an order drawn for each patch."""
    random = np.random.default_rng(seed)
    for call in calls:
        for number in range(WARMUP_CALLS):
            call(patches[number % len(patches)])
    nanoseconds = np.zeros((len(calls), rounds, calls_per_round), np.int64)
    for of_round in range(rounds):
        orders = [random.permutation(len(calls)).tolist() for _ in range(calls_per_round)]
        gc.collect()
        gc.disable()  # a collection inside a call would be charged to it
        for number, order in enumerate(orders):
            patch = patches[(of_round * calls_per_round + number) % len(patches)]
            for index in order:
                call = calls[index]
                before = time.perf_counter_ns()
                call(patch)
                nanoseconds[index, of_round, number] = time.perf_counter_ns() - before
        gc.enable()
    return list(nanoseconds / 1e6)


def overhead_row(model: Path, runner: edge.Runner, predict_ms: np.ndarray, bare_ms: np.ndarray) -> dict[str, Any]:
    """The figures of one file on one runtime: microseconds at p50, and what ``predict`` takes more."""
    ratio = metrics.ratio_of_medians(predict_ms, bare_ms)
    bare_us = 1e3 * float(np.median(bare_ms))
    allowed_us = max(LARGEST_SHARE * bare_us, LARGEST_US)
    return {
        "model": f"{manifests.read(model).network} {model.name}",
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
) -> list[dict[str, Any]]:
    """A row for every file on every runtime installed that opens it.

    Raises:
        ModelError: a file is missing, altered or unreadable.
        RuntimeUnavailable: no runtime installed opens any of them.
    """
    buffers = [np.ascontiguousarray(patch[None]) for patch in patches]
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
        both: tuple[Call, Call] = runner.predict, bare(runner)
        times = time_both(both, buffers, rounds=rounds, calls_per_round=calls_per_round, seed=done)
        rows.append(overhead_row(model, runner, *times))
        progress("overhead, files on runtimes", done, len(places), f"{model.name} @ {runtime}")
    return rows


def overhead_command() -> None:
    """Write a row for every file on every runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=500)
    arguments = parser.parse_args()
    if arguments.rounds < 2 or arguments.calls < 1:
        parser.error("expected at least 2 rounds of 1 call")
    machine = environment.this_machine()  # before this process keeps to some of its CPUs
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    split = data.load(arguments.data, splits=("test",))["test"]
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, TIMED_PATCHES).astype(int))
    with on_terminal() as show:
        rows = measure_overhead(
            arguments.models,
            split.patches[chosen],
            rounds=arguments.rounds,
            calls_per_round=arguments.calls,
            progress=show,
        )
    document = {
        "format": 1,
        "kind": KIND,
        "command": "python benchmarks/overhead.py MODEL... --data DATA --out F"
        + "".join(
            f" --{name} {vars(arguments)[name]}"
            for name in ("rounds", "calls")
            if vars(arguments)[name] != parser.get_default(name)
        ),
        "about": f"`Runner.predict` over the bare call of the same interpreter, both on the same {len(chosen)} test "
        f"patches, batch 1, 1 thread, in random order; {arguments.rounds} rounds of {arguments.calls} calls, 95 % "
        f"interval of what `predict` takes more at p50. It holds where the whole interval is at most "
        f"{LARGEST_SHARE:.0%} or {LARGEST_US:g} us, whichever is larger.",
        "environment": machine,
        "columns": list(rows[0]),
        "rows": rows,
    }
    files.write_json(arguments.out, document)
    sys.stdout.write(f"{arguments.out}\n")


if __name__ == "__main__":
    try:
        overhead_command()
    except HistoedgeError as error:
        sys.exit(str(error))
