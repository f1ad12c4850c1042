import fcntl
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

pytest_plugins = (
    "model_fixtures",
    "padded_fixtures",
    "split_fixtures",
    "run_fixtures",
    "browser_fixtures",
)  # in tests/fixtures

# On a busy machine, threads that wait for each other in a spin loop cost ten times the work. Before numpy is imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARALLEL = "PYTEST_XDIST_WORKER" in os.environ


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``build_once(name, build)``: a folder that ``build(folder)`` fills once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if PARALLEL else base

    def build_or_wait(name: str, build: Callable[[Path], object]) -> Path:
        folder, finished = shared / name, shared / f"{name}.finished"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                build(folder)
                finished.touch()
        return folder

    return build_or_wait


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """``script(name)``: a module of the folder ``benchmarks``, imported as its scripts import each other."""
    if not BENCHMARKS.is_dir():
        pytest.skip("not a checkout")
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return import_module


@pytest.fixture(scope="session")
def make_measurement() -> Callable[..., Any]:
    """``make_measurement(model, runtime, **fields)``: a row of results; recipe and format are those of the file name.

    A number ``p50_ms`` gets bounds 1 % away, a number ``auc`` bounds 0.01 away; an ``Interval`` is used as it is.
    """
    from histoedge.benchmark import Measurement  # requires scipy, which edge-only machines lack
    from histoedge.metrics import Interval

    def measurement(
        model: str = "int8.onnx",
        runtime: str = "onnxruntime",
        *,
        p50_ms: "float | Interval | None" = 1.0,
        auc: "float | Interval | None" = 0.94,
        **fields: Any,
    ) -> Measurement:
        recipe, _, format_ = model.rpartition("/")[2].partition(".")
        defaults: dict[str, Any] = {"model": model, "recipe": recipe, "format": format_, "runtime": runtime}
        defaults |= {"threads": 1, "batch": 1, "field_px": 96, "status": "ok", "size_bytes": 1000, "sha256": "a" * 64}
        if isinstance(p50_ms, float):
            p50_ms = Interval(p50_ms, 0.99 * p50_ms, 1.01 * p50_ms)
        if isinstance(auc, float):
            auc = Interval(auc, auc - 0.01, auc + 0.01)
        defaults |= {"p50_ms": p50_ms, "auc": auc}
        return Measurement(**{**defaults, **fields})

    return measurement


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Any]:
    """``invoke("verify", model, "--json")``: the result of that command, run in this process."""
    from histoedge.cli import main

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture(autouse=True)
def _frameworks_may_warn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Deprecation warnings inside TensorFlow and tf2onnx fail no test."""
    with warnings.catch_warnings():
        if request.node.get_closest_marker("lab"):
            warnings.simplefilter("ignore")
        yield
