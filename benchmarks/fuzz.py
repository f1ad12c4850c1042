"""Damaged and forged files: ``python benchmarks/fuzz.py MODEL... --out F [--count N] [--seed S]``.

Each case changes one of an exported file's three parts at random (model, manifest, golden patches), opens it with
``edge.load``, reads its golden patches and predicts them. A changed part must be refused with a deliberate error of one
line. In ``signed`` cases the hashes are recomputed after the change, as anyone with the files can do; such a file must
be refused or must answer. Cases run in a forked child that may use ``MORE_BYTES`` more memory and ``LIMIT_S`` seconds
of CPU time per case: a crash ends the child and is counted, and the script continues. Linux only.
"""

import argparse
import hashlib
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from fuzz_changes import BYTES, Change, changed_json, repacked
from record import Row, run_script, write_record

from histoedge import edge
from histoedge.benchmark import environment
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import HistoedgeError
from histoedge.progress import Progress, on_terminal

COUNT = 100_000
CASES_PER_TASK = 500
LIMIT_S = 1.0  # of CPU time, which a busy machine does not use up
STUCK_S = 60.0  # without an outcome and without using up its CPU time
MORE_BYTES = 500 << 20
OUTCOMES = ("refused", "same", "answered", "undeliberate", "crashed", "hung")


@dataclass(frozen=True)
class Target:
    """A part of an exported file, its changes, whether hashes are recomputed, and the target's share of the cases."""

    part: str
    changes: tuple[Change, ...]
    signed: bool
    share: float

    @property
    def name(self) -> str:
        """The name of the row."""
        what = "bytes" if self.changes is BYTES else "contents"
        return f"{self.part}, {what}{', signed' if self.signed else ''}"


TARGETS = (
    Target("model", BYTES, False, 0.15),
    Target("manifest", BYTES, False, 0.2),
    Target("manifest", (changed_json,), False, 0.2),
    Target("golden", BYTES, False, 0.15),
    Target("golden", (repacked,), False, 0.1),
    Target("manifest", (changed_json,), True, 0.1),
    Target("golden", (*BYTES, repacked, repacked, repacked), True, 0.08),
    Target("model", BYTES, True, 0.02),
)
FORGED_MODEL = TARGETS[-1].name


def target_of(seed: int, number: int) -> Target:
    """Return the target of case ``number``."""
    shares = [target.share for target in TARGETS]
    return TARGETS[np.random.default_rng([seed, number, 0]).choice(len(TARGETS), p=shares)]


@dataclass(frozen=True)
class FuzzedModel:
    """The three parts of an exported file in memory."""

    name: str
    parts: dict[str, bytes]

    @classmethod
    def read(cls, model: Path) -> "FuzzedModel":
        """Read a file that passes the checks of ``edge.load``."""
        edge.operators(model)
        paths = model, manifests.manifest_path(model), goldens.golden_path(model)
        contents = (path.read_bytes() for path in paths)
        return cls(model.name, dict(zip(("model", "manifest", "golden"), contents, strict=True)))

    def case(self, seed: int, number: int) -> tuple[Target, dict[str, bytes]]:
        """Return the target of case ``number`` and the three parts, one of them changed."""
        target = target_of(seed, number)
        random = np.random.default_rng([seed, number, 1])
        content = self.parts[target.part]
        changed = content
        while changed == content:
            changed = target.changes[random.integers(len(target.changes))](content, random)
        parts = {**self.parts, target.part: changed}
        return target, signed(parts) if target.signed else parts


def signed(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Return the parts with the manifest's hashes recomputed; unchanged where the manifest is no JSON object."""
    try:
        body = json.loads(parts["manifest"])
        for key, part in (("sha256", "model"), ("golden_sha256", "golden")):
            if key in body:
                body[key] = hashlib.sha256(parts[part]).hexdigest()
        return {**parts, "manifest": json.dumps(body | {"digest": manifests.digest(body)}).encode()}
    except (ValueError, TypeError, RecursionError):
        return parts


def outcome(folder: Path, exported: FuzzedModel, parts: dict[str, bytes], written: dict[str, bytes]) -> str:
    """Return the first four of ``OUTCOMES``; ``undeliberate`` with a detail.

    ``written`` is what the folder contains; only parts that differ from it are written.
    """
    model = folder / exported.name
    paths = {"model": model, "manifest": manifests.manifest_path(model), "golden": goldens.golden_path(model)}
    for part, path in paths.items():
        if written.get(part) is not parts[part]:
            path.write_bytes(parts[part])
            written[part] = parts[part]
    try:
        runner = edge.load(model)
        golden = goldens.read_golden(model, runner.manifest)
        probabilities = runner.probability(golden.patches)
        runner.decide(golden.patches[:1])
        if not (np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1).all()):
            return "undeliberate: no probabilities"
    except HistoedgeError as error:
        return "refused" if "\n" not in str(error) else f"undeliberate: more than one line: {str(error)[:200]!r}"
    except Exception as error:  # any other exception is a bug, which this script looks for
        return f"undeliberate: {type(error).__name__}: {str(error)[:200]!r}"
    return "same" if parts["model"] == exported.parts["model"] and has_same_contents(parts, exported) else "answered"


def has_same_contents(parts: dict[str, bytes], exported: FuzzedModel) -> bool:
    """Whether the change affects only the manifest's spelling, such as its white space."""
    return parts["golden"] == exported.parts["golden"] and json.loads(parts["manifest"]) == json.loads(
        exported.parts["manifest"]
    )


Case = tuple[str, str, str]
"""Target, outcome, detail."""


def run_task(exported: FuzzedModel, seed: int, numbers: range) -> list[Case]:
    """Run cases in forked children; a child ends at a crash, and the next one continues."""
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        while len(cases) < len(numbers):
            left = numbers[len(cases) :]
            lines, end = in_child(exported, seed, left, Path(folder))
            for number, line in zip(left, lines, strict=False):
                kind, _, detail = line.partition(": ")
                cases.append((target_of(seed, number).name, kind, detail))
            if end is not None and len(cases) < len(numbers):
                number = left[len(lines)]
                cases.append((target_of(seed, number).name, end[0], f"case {number}, {end[1]}"))
    return cases


def in_child(
    exported: FuzzedModel, seed: int, numbers: range, folder: Path
) -> tuple[list[str], tuple[str, str] | None]:
    """Return the outcomes that a forked child reports, and how it ended: None for a normal end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        run_child(exported, seed, numbers, folder, writing)
    os.close(writing)
    content, stuck = b"", False
    with selectors.DefaultSelector() as ready, os.fdopen(reading, "rb", buffering=0) as pipe:
        ready.register(pipe, selectors.EVENT_READ)
        while True:
            if not ready.select(STUCK_S):
                stuck = True
                os.kill(child, signal.SIGKILL)
            piece = pipe.read(1 << 16)
            if not piece:
                break
            content += piece
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = content.decode().split("\n")[:-1]
    if status == 0:
        return lines, None
    if stuck or status == -signal.SIGPROF:
        return lines, ("hung", f"more than {LIMIT_S:g} s")
    return lines, ("crashed", signal.Signals(-status).name if status < 0 else f"exit code {status}")


def run_child(exported: FuzzedModel, seed: int, numbers: range, folder: Path, writing: int) -> None:
    """Run cases and write their outcomes to a pipe; never return.

    A forged model may corrupt the process that loads it: the child ends after such a case.
    """
    warnings.simplefilter("error")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MORE_BYTES, size + MORE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (1, 2):  # interpreters print messages about such files
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    written: dict[str, bytes] = {}
    for number in numbers:
        target, parts = exported.case(seed, number)
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        line = outcome(folder, exported, parts, written)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(writing, f"{line}\n".encode(errors="replace"))
        if target.part == "model" and target.signed:
            break
    os._exit(0)


def run_cases(exported: FuzzedModel, *, count: int, seed: int, progress: Progress) -> list[Case]:
    """Run ``count`` cases on all CPUs that this process may use."""
    cases: list[Case] = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
        tasks = [
            pool.submit(run_task, exported, seed, range(start, min(start + CASES_PER_TASK, count)))
            for start in range(0, count, CASES_PER_TASK)
        ]
        for done, task in enumerate(tasks, start=1):
            cases += task.result()
            progress(f"fuzz {exported.name}, tasks", done, len(tasks))
    return cases


def fuzz_rows(name: str, cases: list[Case]) -> list[Row]:
    """Return a row for each target: the number of cases by outcome."""
    counts = Counter((target, kind) for target, kind, _ in cases)
    return [
        {
            "file": name,
            "changed": target.name,
            "cases": sum(counts[target.name, kind] for kind in OUTCOMES),
            **{kind: counts[target.name, kind] for kind in OUTCOMES},
        }
        for target in TARGETS
    ]


def is_fault(target: str, kind: str) -> bool:
    """Whether the outcome is a fault of histoedge: a forged model may end the interpreter's own parser."""
    if target == FORGED_MODEL and kind != "undeliberate":
        return False
    return kind in ("undeliberate", "crashed", "hung") or (kind == "answered" and not target.endswith("signed"))


def fuzz_command() -> None:
    """Write a row for each file and target; exit with 3 if any outcome is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="exported files")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--count", type=int, default=COUNT, help="cases per file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    machine = environment.this_machine()
    rows: list[Row] = []
    faults: list[str] = []
    ends = Counter[str]()
    for runtime in edge.RUNTIMES.values():
        if runtime.installed() and runtime.name in ("litert", "onnxruntime"):
            import_module(runtime.module)  # once here, not in each child
    with on_terminal() as show:
        for model in arguments.models:
            exported = FuzzedModel.read(model)
            cases = run_cases(exported, count=arguments.count, seed=arguments.seed, progress=show)
            rows += fuzz_rows(exported.name, cases)
            faults += [
                f"{model.name}: {target}: {kind}: {detail}" for target, kind, detail in cases if is_fault(target, kind)
            ]
            ends.update(
                f"{model.name}: {kind}, {detail.partition(', ')[2]}"
                for target, kind, detail in cases
                if target == FORGED_MODEL and kind in ("crashed", "hung")
            )
    by_parser = "; ".join(f"{end} {count} times" for end, count in sorted(ends.items())) or "none"
    write_record(
        arguments.out,
        kind="fuzz",
        command=f"python benchmarks/fuzz.py MODEL... --out F --count {arguments.count} --seed {arguments.seed}",
        about="Exported files with one part changed at random are opened, their golden patches read and predicted. "
        "`refused`: a deliberate error of one line. `same`: only the manifest's spelling changed. `answered`: "
        f"probabilities were returned. `undeliberate`: any other exception, also for more than {MORE_BYTES >> 20} MB "
        f"of memory. `crashed`: ended by a signal. `hung`: more than {LIMIT_S:g} s of CPU time. In `signed` rows the "
        "hashes are recomputed after the change. Anyone can do that: hashes detect damage and mix-ups and do not prove "
        f"origin. A forged model reaches the interpreter's own parser (processes that it ended: {by_parser}): load "
        "models from sources you trust.",
        machine=machine,
        rows=rows,
        not_deliberate=faults,
    )
    for line in faults[:20]:
        sys.stderr.write(f"{line}\n")
    sys.exit(3 if faults else 0)


if __name__ == "__main__":
    run_script(fuzz_command)
