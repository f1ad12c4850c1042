"""Installation, oldest and newest runtimes, tried: ``python benchmarks/runtime_versions.py --out F``.

Every row comes from a virtual environment made for it, with what pip finds. The light installs predict, start and stay
as small as they should; every released file, embedded in a folder with nothing of histoedge installed, passes its
self-test on the oldest and the newest release of its interpreter. Needs pip's package index; ``strace`` for one check.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from histoedge import files
from histoedge.benchmark import environment
from histoedge.edge.errors import HistoedgeError, RuntimeUnavailable
from histoedge.kit import embed
from histoedge.progress import Progress, on_terminal

KIND = "runtimes"
CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = ("histoedge", "pyproject.toml", "README.md", "LICENSE")

LARGEST_INSTALL_MB = 5.0
LONGEST_IMPORT_S = 0.05  # over numpy's
LONGEST_START_S = 0.6
STARTS = 31

LIGHT = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
"""The extra that opens a format, and the interpreter that it installs."""

RUNTIMES = {
    "onnx": (("onnxruntime==1.15.0", "numpy<2"), ("onnxruntime", "numpy")),
    "tflite": (("ai-edge-litert==1.0.1", "numpy<2"), ("ai-edge-litert", "numpy")),
}
"""The oldest and the newest release of each interpreter. The oldest import NumPy 1 only, and do not tell pip."""

FIRST_LOGIT = """
import sys, numpy
from histoedge import edge
print(edge.load(sys.argv[1]).predict(numpy.zeros((1, 96, 96, 3), numpy.uint8)).item(), flush=True)
"""

WRITES = re.compile(r"(?:O_WRONLY|O_RDWR|O_CREAT)|^(?:\d+ +)?(?:mkdir|rename|unlink|symlink|link|creat|truncate)")


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own. ``name`` tells its Python and the packages that matter with their versions."""

    folder: Path
    name: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, *arguments: object, cwd: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run its interpreter, deaf to this one's environment."""
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=_bare_environment(), **settings)


def make(folder: Path, wanted: Sequence[str], *, cwd: Path) -> Environment:
    """A fresh environment with what ``pip install`` makes of ``wanted``.

    Raises:
        RuntimeUnavailable: pip did not install it.
    """
    venv.create(folder, with_pip=True)
    fresh = Environment(folder, "")
    done = fresh.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted, cwd=cwd)
    if done.returncode:
        raise RuntimeUnavailable(f"pip install {' '.join(wanted)}: {done.stderr.strip().splitlines()[-1]}")
    listed = fresh.run("-m", "pip", "list", "--format", "json", "--disable-pip-version-check", cwd=cwd, check=True)
    versions = {row["name"].lower(): row["version"] for row in json.loads(listed.stdout)}
    known = ("histoedge", "onnxruntime", "ai-edge-litert", "numpy")
    told = [f"{name} {versions[name]}" for name in known if name in versions]
    return Environment(folder, ", ".join([f"Python {environment.platform.python_version()}", *told]))


def light(place: Path, format_: str) -> Iterator[dict[str, Any]]:
    """Rows on ``pip install .[onnx]`` or ``.[tflite]``: what works, size, times, and what is written."""
    source, work = place / "source", place / "work"
    work.mkdir()
    for name in SOURCES:
        from_, to = CHECKOUT / name, source / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(from_, to, ignore=ignore) if from_.is_dir() else shutil.copy(from_, to)
    installed = make(place / "venv", [f"{source}[{format_}]"], cwd=work)
    model = CHECKOUT / "exported" / "edge" / "models" / f"int8.{format_}"
    Image.fromarray(np.full((96, 96, 3), 128, np.uint8)).save(work / "patch.png")

    def command(check: str, *arguments: object) -> dict[str, Any]:
        done = installed.run("-m", *arguments, cwd=work)
        return _row(installed, check, done.returncode, "exit code", "0", not done.returncode)

    yield command("self-test of edge int8", "histoedge.edge", "selftest", model)
    yield command("histoedge predict MODEL patch.png", "histoedge", "predict", model, "patch.png")
    yield command("histoedge embed MODEL --into DIR", "histoedge", "embed", model, "--into", "kit")
    size_mb = _installed_bytes(installed, work) / 1e6
    yield _row(
        installed, "histoedge's own files", size_mb, "MB", f"< {LARGEST_INSTALL_MB:g}", size_mb < LARGEST_INSTALL_MB
    )
    over = import_s(installed, cwd=work)
    asked = f"<= {LONGEST_IMPORT_S:g}"
    yield _row(installed, "import histoedge.edge over import numpy", over, "CPU s", asked, over <= LONGEST_IMPORT_S)
    first = first_logit_s(installed, model, cwd=work)
    yield _row(installed, "process start to first logit", first, "s", f"< {LONGEST_START_S:g}", first < LONGEST_START_S)
    if shutil.which("strace") is not None:
        for what, found in traced(installed, model, work).items():
            yield _row(installed, f"predict --csv: {what}", len(found), "found", "0", not found)


def _installed_bytes(installed: Environment, cwd: Path) -> int:
    """What pip wrote for histoedge, compiled modules included."""
    code = (
        "from importlib.metadata import files; "
        "print(sum(f.locate().stat().st_size for f in files('histoedge') if f.locate().is_file()))"
    )
    return int(installed.run("-c", code, cwd=cwd, check=True).stdout)


def import_s(installed: Environment, *, cwd: Path) -> float:
    """Median processor seconds of a process that imports ``histoedge.edge``, less those of one that imports numpy.

    Interleaved; processor time, because the rest of a busy machine is no matter of an import.
    """
    random = np.random.default_rng(0)
    codes = ("import numpy", "import histoedge.edge")
    seconds: dict[str, list[float]] = {code: [] for code in codes}
    for start in range(STARTS + 1):
        for code in random.permutation(codes):
            done = installed.run("-c", f"{code}, time; print(time.process_time())", cwd=cwd, check=True)
            if start:  # the first reads the files from disk
                seconds[str(code)].append(float(done.stdout))
    return statistics.median(seconds[codes[1]]) - statistics.median(seconds[codes[0]])


def first_logit_s(installed: Environment, model: Path, *, cwd: Path) -> float:
    """Median seconds from the start of a process to the first logit that it prints."""
    seconds = []
    command = [str(installed.python), "-c", FIRST_LOGIT, str(model)]
    for start in range(STARTS + 1):
        before = time.perf_counter()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, cwd=cwd, env=_bare_environment(), **pipes) as process:  # type: ignore[call-overload]
            float(process.stdout.readline())
            if start:
                seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


def traced(installed: Environment, model: Path, work: Path) -> dict[str, list[str]]:
    """What ``predict --csv`` writes outside the folder it is given, and the sockets that it opens to other machines."""
    trace, out = work / "trace", work / "out"
    out.mkdir()
    arguments = ["-m", "histoedge", "predict", str(model), "patch.png", "--csv", str(out / "answers.csv")]
    watch = ["strace", "-f", "-qq", "-e", "trace=%file,%network", "-o", str(trace), str(installed.python), *arguments]
    subprocess.run(watch, check=True, capture_output=True, cwd=work, env=_bare_environment())
    calls = trace.read_text(errors="replace")
    sockets = [line for line in calls.splitlines() if "AF_INET" in line]
    return {"files written elsewhere than asked": writes(calls, out), "sockets to other machines": sockets}


def writes(trace: str, out: Path) -> list[str]:
    """The paths that the calls in a trace of strace write to and that do not lie in ``out`` or ``/dev``."""
    calls = [line for line in trace.splitlines() if WRITES.search(line) and "= -1 " not in line]
    paths = (re.search(r'"([^"]+)"', line) for line in calls)
    named = [found[1] for found in paths if found is not None]
    return [path for path in named if not path.startswith((f"{out}/", "/dev/"))]


def released(place: Path, format_: str, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows on every released file of a format, embedded, in an environment with ``wanted`` and no histoedge."""
    work = place / "work"
    work.mkdir()
    fresh = make(place / "venv", wanted, cwd=work)
    for model in sorted(CHECKOUT.glob(f"exported/*/models/*.{format_}")):
        kit = place / "kits" / f"{model.parents[1].name}-{model.stem}"
        embed(model, kit)
        done = fresh.run("-m", "edge", "selftest", ".", "--json", cwd=kit)
        checks = json.loads(done.stdout)["checks"] if done.stdout else []
        worst = max((one["largest"] / one["tolerance"] for one in checks if one["largest"] is not None), default=None)
        check = f"golden patches of {model.parents[1].name} {model.name}, embedded"
        yield _row(fresh, check, worst, "of its tolerance", "<= 1", not done.returncode and worst is not None)
    done = fresh.run(kit / "example.py", cwd=work)
    alone = fresh.run("-c", "import histoedge", cwd=work).returncode != 0
    lines = len(done.stdout.splitlines())
    yield _row(fresh, "example.py from another folder", lines, "verdicts", "16", alone and lines == 16)


def measure_environments(progress: Progress) -> list[dict[str, Any]]:
    """All rows, an environment after the other.

    Raises:
        RuntimeUnavailable: pip could not install one of them.
    """
    jobs = [(light, (format_,)) for format_ in LIGHT]
    jobs += [(released, (format_, wanted)) for format_, both in RUNTIMES.items() for wanted in both]
    rows: list[dict[str, Any]] = []
    for done, (job, arguments) in enumerate(jobs, start=1):
        with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
            rows += job(Path(folder), *arguments)
        progress("runtimes, environments", done, len(jobs), rows[-1]["environment"])
    return rows


def _row(where: Environment, check: str, found: float | None, unit: str, asked: str, holds: bool) -> dict[str, Any]:
    said = "yes" if holds else "no"
    return {"environment": where.name, "check": check, "found": found, "unit": unit, "asked": asked, "holds": said}


def _bare_environment() -> dict[str, str]:
    """This process's environment without what tells Python where to look and ONNX Runtime to be quiet."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ORT_")) and name != "CI"
    }


def runtimes_command() -> None:
    """Write a row for every check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    machine = environment.this_machine()
    with on_terminal() as show:
        rows = measure_environments(show)
    document = {
        "format": 1,
        "kind": KIND,
        "command": "python benchmarks/runtime_versions.py --out F",
        "about": f"Each environment is fresh, made by venv and pip. Times are medians of {STARTS} process starts, "
        "those of imports interleaved. Golden patches: the largest difference in logits over what the manifest allows, "
        "in the folder that `histoedge embed` writes, with nothing of histoedge installed.",
        "environment": machine,
        "columns": list(rows[0]),
        "rows": rows,
    }
    files.write_json(arguments.out, document)
    sys.stdout.write(f"{arguments.out}\n")


if __name__ == "__main__":
    try:
        runtimes_command()
    except HistoedgeError as error:
        sys.exit(str(error))
