"""Check installs and runtime releases: ``python benchmarks/runtime_versions.py --out F``.

Each check runs in a fresh virtual environment that pip fills. The light installs must predict, start fast and be small.
Each released file, embedded in a folder without an installed histoedge, must pass its self-test on the oldest and the
newest release of its interpreter. Needs pip's package index, and ``strace`` for one check.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import Row, run_script, write_record

from histoedge.benchmark import environment
from histoedge.edge.errors import RuntimeUnavailable
from histoedge.kit import embed
from histoedge.progress import Progress, on_terminal

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = ("histoedge", "pyproject.toml", "README.md", "LICENSE")

LARGEST_INSTALL_MB = 5.0
LONGEST_IMPORT_S = 0.05  # more than importing numpy
LONGEST_START_S = 0.6
STARTS = 31

LIGHT = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
"""Extra of pip install, which is also the format, and the interpreter that it installs."""

RUNTIMES = {
    "onnx": (("onnxruntime==1.15.0", "numpy<2"), ("onnxruntime", "numpy")),
    "tflite": (("ai-edge-litert==1.0.1", "numpy<2"), ("ai-edge-litert", "numpy")),
}
"""Oldest and newest release of each interpreter. The oldest need NumPy 1 but do not declare it to pip."""

FIRST_LOGIT = """
import sys, numpy
from histoedge import edge
print(edge.load(sys.argv[1]).predict(numpy.zeros((1, 96, 96, 3), numpy.uint8)).item(), flush=True)
"""

WRITES = re.compile(r"(?:O_WRONLY|O_RDWR|O_CREAT)|^(?:\d+ +)?(?:mkdir|rename|unlink|symlink|link|creat|truncate)")


@dataclass(frozen=True)
class Environment:
    """A virtual environment. ``name`` lists its Python and the packages measured, with versions."""

    folder: Path
    name: str

    @property
    def python(self) -> Path:
        """The path of its interpreter."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, *arguments: object, cwd: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run its interpreter without the environment variables that affect Python here."""
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=_bare_environment(), **settings)


def create_environment(folder: Path, requirements: Sequence[str], *, cwd: Path) -> Environment:
    """Create a virtual environment and install the requirements.

    Raises:
        RuntimeUnavailable: pip failed.
    """
    venv.create(folder, with_pip=True)
    fresh = Environment(folder, "")
    done = fresh.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements, cwd=cwd)
    if done.returncode:
        raise RuntimeUnavailable(f"pip install {' '.join(requirements)}: {done.stderr.strip().splitlines()[-1]}")
    listed = fresh.run("-m", "pip", "list", "--format", "json", "--disable-pip-version-check", cwd=cwd, check=True)
    versions = {row["name"].lower(): row["version"] for row in json.loads(listed.stdout)}
    names = ("histoedge", "onnxruntime", "ai-edge-litert", "numpy")
    listed_versions = [f"{name} {versions[name]}" for name in names if name in versions]
    return Environment(folder, ", ".join([f"Python {platform.python_version()}", *listed_versions]))


def light(place: Path, format_: str) -> Iterator[Row]:
    """Yield rows on ``pip install .[onnx]`` or ``.[tflite]``: commands, size, times, and files written."""
    source, work = place / "source", place / "work"
    work.mkdir()
    for name in SOURCES:
        original, copy = CHECKOUT / name, source / name
        if original.is_dir():
            shutil.copytree(original, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(original, copy)
    installed = create_environment(place / "venv", [f"{source}[{format_}]"], cwd=work)
    model = CHECKOUT / "exported" / "edge" / "models" / f"int8.{format_}"
    Image.fromarray(np.full((96, 96, 3), 128, np.uint8)).save(work / "patch.png")

    def command_row(check: str, *arguments: object) -> Row:
        done = installed.run("-m", *arguments, cwd=work)
        return _row(installed, check, done.returncode, "exit code", "0", not done.returncode)

    yield command_row("self-test of edge int8", "histoedge.edge", "selftest", model)
    yield command_row("histoedge predict MODEL patch.png", "histoedge", "predict", model, "patch.png")
    yield command_row("histoedge embed MODEL --into DIR", "histoedge", "embed", model, "--into", "kit")
    size_mb = _installed_bytes(installed, work) / 1e6
    yield _row(
        installed, "histoedge's own files", size_mb, "MB", f"< {LARGEST_INSTALL_MB:g}", size_mb < LARGEST_INSTALL_MB
    )
    extra_s = import_s(installed, cwd=work)
    limit = f"<= {LONGEST_IMPORT_S:g}"
    yield _row(
        installed, "import histoedge.edge over import numpy", extra_s, "CPU s", limit, extra_s <= LONGEST_IMPORT_S
    )
    first = first_logit_s(installed, model, cwd=work)
    yield _row(installed, "process start to first logit", first, "s", f"< {LONGEST_START_S:g}", first < LONGEST_START_S)
    if shutil.which("strace") is not None:
        for what, paths in traced(installed, model, work).items():
            yield _row(installed, f"predict --csv: {what}", len(paths), "entries", "0", not paths)


def _installed_bytes(installed: Environment, cwd: Path) -> int:
    """Return the bytes that pip installed for histoedge, compiled modules included."""
    code = (
        "from importlib.metadata import files; "
        "print(sum(f.locate().stat().st_size for f in files('histoedge') if f.locate().is_file()))"
    )
    return int(installed.run("-c", code, cwd=cwd, check=True).stdout)


def import_s(installed: Environment, *, cwd: Path) -> float:
    """Return the median CPU seconds of a process that imports ``histoedge.edge``, minus those for importing numpy.

    The two are interleaved. CPU time excludes the load of a busy machine.
    """
    random = np.random.default_rng(0)
    codes = ("import numpy", "import histoedge.edge")
    seconds: dict[str, list[float]] = {code: [] for code in codes}
    for start in range(STARTS + 1):
        for code in random.permutation(codes):
            done = installed.run("-c", f"{code}, time; print(time.process_time())", cwd=cwd, check=True)
            if start:  # the first start reads the files from disk
                seconds[str(code)].append(float(done.stdout))
    return statistics.median(seconds[codes[1]]) - statistics.median(seconds[codes[0]])


def first_logit_s(installed: Environment, model: Path, *, cwd: Path) -> float:
    """Return the median seconds from the start of a process to its first printed logit."""
    seconds = []
    command = [str(installed.python), "-c", FIRST_LOGIT, str(model)]
    for start in range(STARTS + 1):
        before = time.perf_counter()
        with subprocess.Popen(
            command, cwd=cwd, env=_bare_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            float(process.stdout.readline())
            if start:
                seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


def traced(installed: Environment, model: Path, work: Path) -> dict[str, list[str]]:
    """Return the paths that ``predict --csv`` writes outside its output folder, and its sockets to other machines."""
    trace, out = work / "trace", work / "out"
    out.mkdir()
    arguments = ["-m", "histoedge", "predict", str(model), "patch.png", "--csv", str(out / "answers.csv")]
    watch = ["strace", "-f", "-qq", "-e", "trace=%file,%network", "-o", str(trace), str(installed.python), *arguments]
    subprocess.run(watch, check=True, capture_output=True, cwd=work, env=_bare_environment())
    calls = trace.read_text(errors="replace")
    sockets = [line for line in calls.splitlines() if "AF_INET" in line]
    return {"files written elsewhere than asked": writes(calls, out), "sockets to other machines": sockets}


def writes(trace: str, out: Path) -> list[str]:
    """Return the paths written in a trace of strace, without those in ``out`` and ``/dev``."""
    calls = [line for line in trace.splitlines() if WRITES.search(line) and "= -1 " not in line]
    paths = (re.search(r'"([^"]+)"', line) for line in calls)
    written = [match[1] for match in paths if match is not None]
    return [path for path in written if not path.startswith((f"{out}/", "/dev/"))]


def released(place: Path, format_: str, requirements: Sequence[str]) -> Iterator[Row]:
    """Yield rows on each released file of a format, embedded, in an environment without histoedge."""
    work = place / "work"
    work.mkdir()
    fresh = create_environment(place / "venv", requirements, cwd=work)
    for model in sorted(CHECKOUT.glob(f"exported/*/models/*.{format_}")):
        kit = place / "kits" / f"{model.parents[1].name}-{model.stem}"
        embed(model, kit)
        done = fresh.run("-m", "edge", "selftest", ".", "--json", cwd=kit)
        checks = json.loads(done.stdout)["checks"] if done.stdout else []
        worst = max((row["largest"] / row["tolerance"] for row in checks if row["largest"] is not None), default=None)
        check = f"golden patches of {model.parents[1].name} {model.name}, embedded"
        yield _row(fresh, check, worst, "of its tolerance", "<= 1", not done.returncode and worst is not None)
    done = fresh.run(kit / "example.py", cwd=work)
    alone = fresh.run("-c", "import histoedge", cwd=work).returncode != 0
    lines = len(done.stdout.splitlines())
    yield _row(fresh, "example.py from another folder", lines, "verdicts", "16", alone and lines == 16)


def measure_environments(progress: Progress) -> list[Row]:
    """Return all rows, one environment after the other.

    Raises:
        RuntimeUnavailable: pip failed in one of the environments.
    """
    jobs: list[Callable[[Path], Iterator[Row]]] = [partial(light, format_=format_) for format_ in LIGHT]
    jobs += [
        partial(released, format_=format_, requirements=requirements)
        for format_, both in RUNTIMES.items()
        for requirements in both
    ]
    rows: list[Row] = []
    for done, job in enumerate(jobs, start=1):
        with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
            rows += job(Path(folder))
        progress("runtimes, environments", done, len(jobs), rows[-1]["environment"])
    return rows


def _row(where: Environment, check: str, value: float | None, unit: str, limit: str, holds: bool) -> Row:
    row = {"environment": where.name, "check": check, "found": value, "unit": unit, "asked": limit}
    return {**row, "holds": "yes" if holds else "no"}


def _bare_environment() -> dict[str, str]:
    """Return this process's environment without the variables of Python, ONNX Runtime and CI."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ORT_")) and name != "CI"
    }


def runtimes_command() -> None:
    """Write a row for each check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    arguments = parser.parse_args()
    machine = environment.this_machine()
    with on_terminal() as show:
        rows = measure_environments(show)
    write_record(
        arguments.out,
        kind="runtimes",
        command="python benchmarks/runtime_versions.py --out F",
        about=f"Each environment is fresh, from venv and pip. Times are medians of {STARTS} process starts; those of "
        "imports are interleaved. Golden patches: the largest difference in logits as a share of the manifest's "
        "tolerance, in the folder that `histoedge embed` writes, without an installed histoedge.",
        machine=machine,
        rows=rows,
    )


if __name__ == "__main__":
    run_script(runtimes_command)
