"""Does the ratio test tell the truth? ``python benchmarks/aa.py MODEL --data DATA --out F [--repetitions N]``.

In every repetition MODEL, an exported file, is timed three times in one interleaved bench, as if they were three files:
as it is, as it is again, and slowed by 5 %: a program of this script, which waits after each call until it has taken
1.05 times as long. ``noise.ratio_in_one_run`` then says at the 1 % level whether the second and the slowed differ from
the first. Real test patches, one thread, batch 1. Each turn runs in a fresh child process, because the same file
differs a little from process to process; ``--processes kept`` keeps them for a repetition, as ``histoedge bench`` does,
whose intervals allow for that difference (``noise.STARTS``).
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

from histoedge import data, edge, files
from histoedge.benchmark import environment, noise
from histoedge.cell import EDGE_COMMAND, Cell, Request, serve
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import HistoedgeError, RuntimeUnavailable
from histoedge.metrics import Interval
from histoedge.progress import Progress, on_terminal

SHARE = 0.05
SLOWED_COMMAND = (sys.executable, __file__, "--serve-slowed")
COMMANDS: Mapping[str, Sequence[str]] = {"first": EDGE_COMMAND, "second": EDGE_COMMAND, "slowed": SLOWED_COMMAND}
TIMED_PATCHES = 256
CALIBRATION_CALLS = 400

MOST_ALIKE_DIFFERING = 0.06  # 3 of 50: at the 1 % level more come by chance once in 600 such scripts
FEWEST_SLOWED_FOUND = 0.90  # 45 of 50


class Slowed:
    """A runner whose every call takes ``1 + share`` times as long: it waits busily, as a slower kernel would work.

    ``cost_ns`` is what the wrapping itself takes, and is waited less.
    """

    def __init__(self, runner: edge.Runner, *, share: float, cost_ns: float) -> None:
        self.runtime, self.version, self.kernels = runner.runtime, runner.version, runner.kernels
        self._runner = runner
        self._share, self._cost_ns = share, cost_ns

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """The runner's logits, later."""
        before = time.perf_counter_ns()
        logits = self._runner.predict(patches)
        until = before + (1 + self._share) * (time.perf_counter_ns() - before) - self._cost_ns
        while time.perf_counter_ns() < until:
            pass
        return logits


def wrapping_ns(runner: edge.Runner) -> float:
    """What the wrapping of ``Slowed`` adds to a call of this runner, in nanoseconds: a median of paired calls."""
    patch, wrapped = np.zeros((1, 96, 96, 3), np.uint8), Slowed(runner, share=0, cost_ns=0)
    added = []
    for call in range(CALIBRATION_CALLS):
        took = []
        for one in (runner, wrapped) if call % 2 else (wrapped, runner):
            before = time.perf_counter_ns()
            one.predict(patch)
            took.append(time.perf_counter_ns() - before)
        added.append(took[1] - took[0] if call % 2 else took[0] - took[1])
    return max(0.0, float(np.median(added)))


def open_slowed(request: Request) -> edge.Runner:
    """The slowed runner of an exported file."""
    runner = edge.load(request["model"], runtime=request["runtime"], threads=request["threads"])
    return Slowed(runner, share=SHARE, cost_ns=wrapping_ns(runner))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How long each of the short benches measures, and in which processes."""

    rounds: int
    runs_per_round: int
    warmup_runs: int = 20
    fresh: bool = True


def ratios(model: Path, runtime: str, patches_npy: Path, bench: Bench, *, seed: int) -> dict[str, Interval]:
    """Time of the second over that of the first, and of the slowed over the first, of one interleaved bench.

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
    told = partial(noise.ratio_in_one_run, seed=seed, starts=0 if bench.fresh else noise.STARTS)
    return {name: told(np.stack(rounds_ms[name]), first) for name in ("second", "slowed")}


@contextlib.contextmanager
def _opened(model: Path, runtime: str, name: str) -> Iterator[Cell]:
    with Cell(COMMANDS[name], threads=1) as cell:
        cell.load(model, runtime=runtime)
        yield cell


def judge_ratios(found: Sequence[Mapping[str, Interval]]) -> list[dict[str, Any]]:
    """A row for the same file twice and one for the slowed file, from the ratios of all repetitions."""
    count = len(found)
    most = math.floor(MOST_ALIKE_DIFFERING * count + 1e-9)
    least = math.ceil(FEWEST_SLOWED_FOUND * count - 1e-9)
    alike, slowed = (_row([one[name] for one in found]) for name in ("second", "slowed"))
    return [
        {
            "compared": "the same file twice",
            **alike,
            "asked": f"at most {most} differ",
            "holds": "yes" if alike["slower"] + alike["faster"] <= most else "no",
        },
        {
            "compared": f"slowed by {SHARE:.0%}",
            **slowed,
            "asked": f"at least {least} slower",
            "holds": "yes" if slowed["slower"] >= least else "no",
        },
    ]


def _row(found: Sequence[Interval]) -> dict[str, Any]:
    says, values = [noise.speed(ratio) for ratio in found], [ratio.value for ratio in found]
    return {
        "repetitions": len(found),
        "slower": says.count("slower"),
        "faster": says.count("faster"),
        "ratio_median": float(np.median(values)),
        "ratio_min": min(values),
        "ratio_max": max(values),
        "width_median": float(np.median([ratio.hi - ratio.lo for ratio in found])),
    }


def measure_repetitions(
    model: Path, runtime: str, patches: np.ndarray, bench: Bench, *, repetitions: int, progress: Progress
) -> list[dict[str, Interval]]:
    """The ratios of every repetition."""
    found = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        patches_npy = Path(folder) / "timed.npy"
        np.save(patches_npy, patches)
        for number in range(repetitions):
            found.append(ratios(model, runtime, patches_npy, bench, seed=number))
            said = ", ".join(f"{name} {one.value:.3f} [{one.lo:.3f}, {one.hi:.3f}]" for name, one in found[-1].items())
            progress("a/a, repetitions", number + 1, repetitions, said)
    return found


def aa_command() -> None:
    """Write a row for the same file twice and one for the slowed file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runtime", choices=list(edge.RUNTIMES))
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=32)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--processes", choices=("fresh", "kept"), default="fresh")
    arguments = parser.parse_args()
    if arguments.repetitions < 1 or arguments.rounds < 2 or arguments.runs < 1:
        parser.error("expected at least 1 repetition of 2 rounds of 1 run")
    bench = Bench(rounds=arguments.rounds, runs_per_round=arguments.runs, fresh=arguments.processes == "fresh")
    manifests.read(arguments.model)
    opens = [
        one.name for one in edge.RUNTIMES.values() if arguments.model.suffix[1:] in one.formats and one.installed()
    ]
    if not opens:
        raise RuntimeUnavailable(f"{arguments.model}: no runtime installed opens it; pip install 'histoedge[onnx]'")
    runtime = arguments.runtime or opens[0]
    split = data.load(arguments.data, splits=("test",))["test"]
    chosen = np.unique(np.linspace(0, len(split.labels) - 1, TIMED_PATCHES).astype(int))
    with on_terminal() as show:
        found = measure_repetitions(
            arguments.model,
            runtime,
            split.patches[chosen],
            bench,
            repetitions=arguments.repetitions,
            progress=show,
        )
    document = {
        "format": 1,
        "kind": "aa",
        "command": "python benchmarks/aa.py MODEL --data DATA --out F"
        + "".join(
            f" --{name} {vars(arguments)[name]}"
            for name in ("repetitions", "rounds", "runs")
            if vars(arguments)[name] != parser.get_default(name)
        )
        + ("" if bench.fresh else " --processes kept")
        + (f" --runtime {arguments.runtime}" if arguments.runtime else ""),
        "about": f"MODEL is {arguments.model.name} on {runtime}, 1 thread, batch 1; each repetition is an interleaved "
        f"bench of {bench.rounds} rounds of {bench.runs_per_round} calls, "
        + ("each turn in a fresh process" if bench.fresh else "each file in one process")
        + "; the test is at the 1 % level, `width` is that of the ratio's 99 % interval. The slowed file waits after "
        "every call.",
        "environment": environment.this_machine(),
        "rows": judge_ratios(found),
        "ratios": [{name: [one.value, one.lo, one.hi] for name, one in each.items()} for each in found],
    }
    files.write_json(arguments.out, document)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve-slowed"]:  # the child's side
        serve(open_slowed)
        sys.exit()
    try:
        aa_command()
    except HistoedgeError as error:
        sys.exit(str(error))
