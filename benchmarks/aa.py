"""How often is the ratio test right? ``python benchmarks/aa.py MODEL --data DATA --out F [--repetitions N]``.

Each repetition times the exported file MODEL three times in one interleaved bench, as if it were three files: twice
unchanged, and once slowed by 5 % (a child process of this script waits after each call until 1.05 times its duration
have passed). ``noise.ratio_in_one_run`` then tests at the 1 % level whether the second and the slowed file differ from
the first. Real test patches, one thread, batch 1. By default each turn runs in a fresh child process, because the same
file differs a little from process to process. ``--processes kept`` keeps the processes for a whole repetition, as
``histoedge bench`` does; the intervals then include the difference between process starts (``noise.STARTS``).
"""

import argparse
import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from record import changed_options, run_script, write_record
from targets import evenly_spaced, files_on_runtimes

from histoedge import data, edge
from histoedge.benchmark import noise
from histoedge.cell import EDGE_COMMAND, Cell, Request, serve
from histoedge.metrics import Interval
from histoedge.progress import Progress, on_terminal

SHARE = 0.05
SLOWED_COMMAND = (sys.executable, __file__, "--serve-slowed")
COMMANDS: Mapping[str, Sequence[str]] = {"first": EDGE_COMMAND, "second": EDGE_COMMAND, "slowed": SLOWED_COMMAND}
CALIBRATION_CALLS = 400

LARGEST_SHARE_OF_FALSE_ALARMS = 0.06  # 3 of 50: at the 1 % level more happen by chance in one of 600 such scripts
SMALLEST_SHARE_OF_SLOWED = 0.90  # 45 of 50


class Slowed:
    """A runner whose calls take ``1 + share`` times as long.

    It waits busily, as a slower kernel would compute. ``cost_ns`` is the duration of the wrapping itself and is
    subtracted from the wait.
    """

    def __init__(self, runner: edge.Runner, *, share: float, cost_ns: float) -> None:
        self.runtime, self.version, self.kernels = runner.runtime, runner.version, runner.kernels
        self._runner = runner
        self._share, self._cost_ns = share, cost_ns

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return the runner's logits after the wait."""
        start = time.perf_counter_ns()
        logits = self._runner.predict(patches)
        end = start + (1 + self._share) * (time.perf_counter_ns() - start) - self._cost_ns
        while time.perf_counter_ns() < end:
            pass
        return logits


def wrapping_ns(runner: edge.Runner) -> float:
    """Return the nanoseconds that ``Slowed`` itself adds to a call: the median over paired calls."""
    patch, wrapped = np.zeros((1, 96, 96, 3), np.uint8), Slowed(runner, share=0, cost_ns=0)
    added = []
    for call in range(CALIBRATION_CALLS):
        durations = {}
        for name, called in (("plain", runner), ("wrapped", wrapped))[:: 1 if call % 2 else -1]:
            start = time.perf_counter_ns()
            called.predict(patch)
            durations[name] = time.perf_counter_ns() - start
        added.append(durations["wrapped"] - durations["plain"])
    return max(0.0, float(np.median(added)))


def open_slowed(request: Request) -> edge.Runner:
    """Open the slowed runner of an exported file."""
    runner = edge.load(request["model"], runtime=request["runtime"], threads=request["threads"])
    return Slowed(runner, share=SHARE, cost_ns=wrapping_ns(runner))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Length of each short bench, and whether each turn runs in a fresh process."""

    rounds: int
    runs_per_round: int
    warmup_runs: int = 20
    fresh: bool = True


def ratios(model: Path, runtime: str, patches_npy: Path, bench: Bench, *, seed: int) -> dict[str, Interval]:
    """Return the time ratios second / first and slowed / first of one interleaved bench.

    Raises:
        CellFailed: a child process failed.
    """
    random = np.random.default_rng(seed)
    rounds_ms: dict[str, list[np.ndarray]] = {name: [] for name in COMMANDS}
    with contextlib.ExitStack() as stack:
        kept = {} if bench.fresh else {name: stack.enter_context(_opened(model, runtime, name)) for name in COMMANDS}
        for number in range(bench.rounds):
            for index in random.permutation(len(COMMANDS)):
                name = list(COMMANDS)[index]
                with contextlib.nullcontext(kept[name]) if kept else _opened(model, runtime, name) as cell:
                    start = number * bench.runs_per_round
                    times = cell.time(patches_npy, n=bench.runs_per_round, start=start, warmup=bench.warmup_runs)
                rounds_ms[name].append(times.ms)
    first = np.stack(rounds_ms["first"])
    ratio_to_first = partial(noise.ratio_in_one_run, seed=seed, starts=0 if bench.fresh else noise.STARTS)
    return {name: ratio_to_first(np.stack(rounds_ms[name]), first) for name in ("second", "slowed")}


@contextlib.contextmanager
def _opened(model: Path, runtime: str, name: str) -> Iterator[Cell]:
    with Cell(COMMANDS[name], threads=1) as cell:
        cell.load(model, runtime=runtime)
        yield cell


def judge_ratios(repetitions: Sequence[Mapping[str, Interval]]) -> list[dict[str, Any]]:
    """Return a row for the same file twice and a row for the slowed file."""
    count = len(repetitions)
    most = math.floor(LARGEST_SHARE_OF_FALSE_ALARMS * count + 1e-9)
    least = math.ceil(SMALLEST_SHARE_OF_SLOWED * count - 1e-9)
    same, slowed = (_figures([ratios[name] for ratios in repetitions]) for name in ("second", "slowed"))
    return [
        {
            "compared": "the same file twice",
            **same,
            "asked": f"at most {most} differ",
            "holds": "yes" if same["slower"] + same["faster"] <= most else "no",
        },
        {
            "compared": f"slowed by {SHARE:.0%}",
            **slowed,
            "asked": f"at least {least} slower",
            "holds": "yes" if slowed["slower"] >= least else "no",
        },
    ]


def _figures(intervals: Sequence[Interval]) -> dict[str, Any]:
    verdicts, values = [noise.speed(ratio) for ratio in intervals], [ratio.value for ratio in intervals]
    return {
        "repetitions": len(intervals),
        "slower": verdicts.count("slower"),
        "faster": verdicts.count("faster"),
        "ratio_median": float(np.median(values)),
        "ratio_min": min(values),
        "ratio_max": max(values),
        "width_median": float(np.median([ratio.hi - ratio.lo for ratio in intervals])),
    }


def measure_repetitions(
    model: Path, runtime: str, patches: np.ndarray, bench: Bench, *, repetitions: int, progress: Progress
) -> list[dict[str, Interval]]:
    """Return the ratios of each repetition."""
    measured = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        patches_npy = Path(folder) / "timed.npy"
        np.save(patches_npy, patches)
        for number in range(repetitions):
            measured.append(ratios(model, runtime, patches_npy, bench, seed=number))
            shown = (
                f"{name} {ratio.value:.3f} [{ratio.lo:.3f}, {ratio.hi:.3f}]" for name, ratio in measured[-1].items()
            )
            progress("a/a, repetitions", number + 1, repetitions, ", ".join(shown))
    return measured


def aa_command() -> None:
    """Write a row for the same file twice and a row for the slowed file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="exported file")
    parser.add_argument("--data", required=True, help="data set; its test split is timed")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--runtime", choices=list(edge.RUNTIMES), help="default: the first that opens MODEL")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=32, help="per repetition")
    parser.add_argument("--runs", type=int, default=100, help="calls per round")
    parser.add_argument("--processes", choices=("fresh", "kept"), default="fresh", help="per turn or per repetition")
    arguments = parser.parse_args()
    if arguments.repetitions < 1 or arguments.rounds < 2 or arguments.runs < 1:
        parser.error("expected at least 1 repetition of 2 rounds of 1 run")
    bench = Bench(rounds=arguments.rounds, runs_per_round=arguments.runs, fresh=arguments.processes == "fresh")
    runtime = arguments.runtime or files_on_runtimes([arguments.model])[0][1]
    patches = evenly_spaced(data.load(arguments.data, splits=("test",))["test"])
    with on_terminal() as show:
        measured = measure_repetitions(
            arguments.model, runtime, patches, bench, repetitions=arguments.repetitions, progress=show
        )
    options = changed_options(parser, arguments, "repetitions", "rounds", "runs", "processes", "runtime")
    write_record(
        arguments.out,
        kind="aa",
        command=f"python benchmarks/aa.py MODEL --data DATA --out F{options}",
        about=f"MODEL is {arguments.model.name} on {runtime}, 1 thread, batch 1. Each repetition is an interleaved "
        f"bench of {bench.rounds} rounds of {bench.runs_per_round} calls, "
        + ("each turn in a fresh process. " if bench.fresh else "each file in one process. ")
        + "The test is at the 1 % level; `width` is the width of the ratio's 99 % interval. The slowed file waits "
        "after each call.",
        rows=judge_ratios(measured),
        ratios=[{name: [ratio.value, ratio.lo, ratio.hi] for name, ratio in each.items()} for each in measured],
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve-slowed"]:  # the child process
        serve(open_slowed)
    else:
        run_script(aa_command)
