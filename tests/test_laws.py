"""Modules that a new interpreter loads, and the requirements of the edge folder."""

import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

import histoedge

HEAVY = {"tensorflow", "keras", "tf_keras", "tf2onnx", "tensorflow_model_optimization", "jax", "torch"}
EDGE_MODULES = {"numpy", "histoedge"}


def loaded_after(code: str, *, cwd: Path | None = None) -> set[str]:
    """Return the top-level modules in a new interpreter after running ``code``."""
    program = f"import sys; {code}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=cwd)
    return set(done.stdout.split())


def test_the_edge_needs_only_numpy() -> None:
    modules = loaded_after("import histoedge.edge") - loaded_after("import numpy") - loaded_after("pass")
    modules -= set(sys.stdlib_module_names)
    assert {name for name in modules if not name.startswith("_")} <= EDGE_MODULES


@pytest.mark.parametrize(
    "code",
    [
        "import histoedge.edge",
        "import histoedge.cli",
        "import histoedge; [getattr(histoedge, name) for name in histoedge.__all__]",
        "import histoedge.verification, histoedge.benchmark, histoedge.reporting",
        "import histoedge.prediction, histoedge.explanation",
        "import histoedge.data.layouts.kaggle, histoedge.data.pcam, histoedge.metrics",
    ],
)
def test_nothing_outside_the_lab_loads_tensorflow(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_help_loads_no_library_for_training_data_or_plots() -> None:
    code = "from click.testing import CliRunner; from histoedge.cli import main; CliRunner().invoke(main, ['--help'])"
    assert not loaded_after(code) & (HEAVY | {"scipy", "h5py", "matplotlib", "onnx"})


def test_the_python_api_loads_nothing_before_it_is_called() -> None:
    code = "import histoedge; [getattr(histoedge, name) for name in histoedge.__all__]"
    assert loaded_after(code) - loaded_after("import pathlib, typing, contextlib") == {"histoedge"}


def test_the_edge_folder_works_under_another_name(mean_red: Path, tmp_path: Path) -> None:
    shutil.copytree(Path(histoedge.__file__).parent / "edge", tmp_path / "scanner")
    np.save(tmp_path / "patches.npy", np.full((2, 96, 96, 3), 51, np.uint8))
    code = (
        "import numpy, scanner; "
        f"logits = scanner.load({str(mean_red)!r}).predict(numpy.load('patches.npy')); "
        "assert logits.shape == (2, 1, 1, 1), logits.shape; assert abs(logits - 0.2).max() < 1e-6, logits"
    )
    assert "histoedge" not in loaded_after(code, cwd=tmp_path)


def test_every_file_of_the_package_is_installed_and_they_are_small() -> None:
    package = Path(histoedge.__file__).parent
    project = package.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("not a checkout")
    data = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
    paths = [
        path
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    ]
    for path in paths:
        patterns = ["*.py", *data.get(".".join(path.parent.relative_to(package.parent).parts), [])]
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path
    assert sum(path.stat().st_size for path in paths) < 2.5e6  # 5 MB installed, compiled modules included


def test_import_contracts_hold() -> None:
    pytest.importorskip("importlinter")
    root = Path(histoedge.__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_version_names_every_runtime() -> None:
    done = subprocess.run([sys.executable, "-m", "histoedge", "--version"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"histoedge {histoedge.__version__}"
    assert [line.split()[0] for line in lines[1:]] == ["litert", "onnxruntime", "openvino"]
