import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from histoedge.benchmark import environment
from histoedge.cli import main

pytest.importorskip("tensorflow", reason="the lab is not installed")


@pytest.fixture(autouse=True)
def _frameworks_may_warn() -> Iterator[None]:
    """TensorFlow's and tf2onnx's own deprecation warnings are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def without_vnni() -> tuple[str, ...]:
    """What to put before a command so that it runs on an x86 CPU without VNNI: nothing where this is one."""
    here = environment.this_machine()
    if "avx2" in here["cpu_flags"] and not {"avx_vnni", "avx512_vnni"} & set(here["cpu_flags"]):
        return ()
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs an x86 CPU without VNNI, or qemu-x86_64 (Debian: qemu-user), which emulates one")
    return (emulator, "-cpu", "Haswell")


SETTINGS = """
[train]
epochs = 6
batch = 16
learning_rate = 5e-3
focus = 0.0
shift_px = 0
[compress]
prune_steps = 12
slim_epochs = 1
quantise_steps = 4
batch = 32
calibration_patches = 192
[bench]
rounds = 2
runs_per_round = 3
warmup_runs = 1
max_seconds = 0.5
"""


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set in PatchCamelyon's layout, 192 training patches."""
    from histoedge.data import synthetic

    folder = tmp_path_factory.mktemp("data") / "pcam"
    synthetic.synth(folder, patches=192, seed=1)
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings that make every stage short."""
    path = tmp_path_factory.mktemp("settings") / "tiny.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """``make_run(data, out, settings, *options)`` makes a run with the command itself."""

    def made(data: Path | str, out: Path, settings: Path, *options: str) -> Path:
        arguments = ["run", "--data", str(data), "--out", str(out), "--config", str(settings), "--json", *options]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["run"] == str(out)
        return out

    return made


@pytest.fixture(scope="session")
def finished_run(
    make_run: Callable[..., Path], tiny_data: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with all default recipes."""
    return make_run(tiny_data, tmp_path_factory.mktemp("run") / "run", settings)


@pytest.fixture(scope="session")
def every_run(
    make_run: Callable[..., Path],
    finished_run: Path,
    tiny_data: Path,
    settings: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A copy of that run, gone on with to every recipe there is."""
    copy = shutil.copytree(finished_run, tmp_path_factory.mktemp("every") / "run")
    return make_run(tiny_data, copy, settings, "--recipe", "all")
