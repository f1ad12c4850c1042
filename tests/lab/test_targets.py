"""Exported files where they will run: on the oldest ONNX Runtime they are made for, and on a CPU without VNNI."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import histoedge.edge
from histoedge import edge
from histoedge.cell import EDGE_COMMAND, Cell
from histoedge.cli import main
from histoedge.config import Recipe
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.lab import checkpoint, export, quantise, saturate, to_onnx

pytestmark = pytest.mark.lab

ANSWER = """
import sys
import numpy as np
from edge import golden, load, manifest
from pathlib import Path
for name in sys.argv[1:]:
    model = Path(name)
    fields = manifest.read(model)
    expected = golden.read_golden(model, fields)
    runner = load(model)
    larger = runner.predict(np.tile(expected.patches[:2], (1, 2, 2, 1)))
    difference = float(np.abs(runner.predict(expected.patches).reshape(-1) - expected.logits).max())
    print(model.name, runner.version, np.__version__, larger.shape[1:3] > (1, 1), difference <= fields.tolerance)
"""


@pytest.mark.slow  # downloads packages
def test_the_oldest_runtime_that_is_served_answers_equal(finished_run: Path, tmp_path: Path) -> None:
    """Really installed: its wheel was built for numpy 1, which pip does not say."""
    release = f"{to_onnx.DEFAULT_TARGET}.0"
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    packages = [f"onnxruntime=={release}", "numpy<2"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    shutil.copytree(Path(histoedge.edge.__file__).parent, tmp_path / "edge")
    models = [str(finished_run / "models" / f"{name}.onnx") for name in ("fp32", "fp16", "int8", "prune50_int8")]
    done = subprocess.run([python, "-c", ANSWER, *models], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [Path(model).name for model in models]
    assert {line[1] for line in lines} == {release}
    assert {line[2][:2] for line in lines} == {"1."}
    assert {tuple(line[3:]) for line in lines} == {("True", "True")}


def exported(run: Path, folder: Path, largest_code: int) -> Path:
    shutil.copy(run / "appearance.json", folder)
    for name in ("fp32", "int8"):
        saved = checkpoint.read(checkpoint.path_of(run, name))
        codes = {} if name == "fp32" else {quantise.KERNEL_CODES: np.array([-largest_code, largest_code])}
        checkpoint.write(checkpoint.path_of(folder, name), dataclasses.replace(saved, arrays={**saved.arrays, **codes}))
    return export.export(folder, Recipe.parse("int8"), formats=["onnx"])[0].model


@pytest.mark.parametrize(("largest_code", "words"), [(63, "sums: proved to fit"), (127, "sums: may overflow 16 bits")])
def test_verify_states_whether_every_cpu_returns_the_same_logits(
    finished_run: Path, tmp_path: Path, largest_code: int, words: str
) -> None:
    model = exported(finished_run, tmp_path, largest_code)
    output = CliRunner().invoke(main, ["verify", str(model)]).stdout
    assert words in output
    assert ("session.x64quantprecision" in output) == (largest_code == 127)


@pytest.mark.parametrize(("largest_code", "safe"), [(63, True), (127, False)])
def test_a_cpu_without_vnni_answers_equal(
    finished_run: Path, tmp_path: Path, without_vnni: tuple[str, ...], largest_code: int, safe: bool
) -> None:
    model = exported(finished_run, tmp_path, largest_code)
    manifest = manifests.read(model)
    assert bool(manifest.may_saturate) != safe
    golden = goldens.read_golden(model, manifest)
    with Cell((*without_vnni, *EDGE_COMMAND)) as cell:
        cell.load(model, runtime="onnxruntime")
        logits = cell.predict(golden.patches).reshape(-1)
    exact = saturate.simulated_logits(model.read_bytes(), golden.patches, saturating=False)
    np.testing.assert_array_equal(logits, exact)
    np.testing.assert_array_equal(logits, golden.logits)


@pytest.mark.parametrize("largest_code", [63, 127])
def test_openvino_answers_equal_on_a_cpu_without_vnni(
    finished_run: Path, tmp_path: Path, without_vnni: tuple[str, ...], largest_code: int
) -> None:
    pytest.importorskip("openvino")
    if without_vnni:
        pytest.skip("needs an x86 CPU without VNNI")
    model = exported(finished_run, tmp_path, largest_code)
    manifest = manifests.read(model)
    golden = goldens.read_golden(model, manifest)
    runner = edge.load(model, runtime="openvino")
    assert runner.kernels == ("cpu plug-in" if largest_code == 63 else "cpu plug-in, in floats")
    difference = np.abs(runner.predict(golden.patches).reshape(-1) - golden.logits)
    assert difference.max() <= manifest.tolerance
    assert np.count_nonzero(difference > manifest.tolerance / 2) <= 4  # of 16: floats add up in another order
    operators = edge.operators(model, runtime="openvino")
    assert any(operator.integer for operator in operators if operator.kind == "Convolution") == (largest_code == 63)
