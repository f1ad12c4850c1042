import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import histoedge.edge
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.__main__ import main
from histoedge.edge.errors import ModelError
from histoedge.edge.selftest import model, selftest


def with_golden(sign: Callable[..., Path], path: Path, **changed: np.ndarray) -> None:
    """Replace arrays of the golden file, and update its hash in the manifest."""
    golden = goldens.golden_path(path)
    with np.load(golden) as arrays:
        original = dict(arrays)
    np.savez(golden, **{**original, **changed})  # type: ignore[arg-type]
    sign(path)


def test_a_correct_file_passes_on_every_installed_runtime(mean_red: Path) -> None:
    report = selftest(mean_red)
    assert report.passed
    rows = [row for row in histoedge.edge.RUNTIMES.values() if "onnx" in row.formats]
    assert [(check.runtime, check.status) for check in report.checks] == [
        (row.name, "ok" if row.installed() else "unavailable") for row in rows
    ]
    assert all(check.largest is None or check.largest <= 1e-6 for check in report.checks)


def test_a_folder_stands_for_all_its_models(mean_red: Path, mean_red_int8: Path) -> None:
    assert {check.model for check in selftest(mean_red.parent).checks} == {mean_red.name, mean_red_int8.name}
    with pytest.raises(ModelError, match="several models, mean_red.onnx, mean_red_int8.onnx; name one of these files"):
        model(mean_red.parent)
    assert model(mean_red) == mean_red


def test_a_wrong_logit_fails_with_patch_and_remedy(
    mean_red: Path, capsys: pytest.CaptureFixture, sign: Callable[..., Path]
) -> None:
    with_golden(sign, mean_red, logits=np.array([0, 0.2, 1.5], np.float32))
    assert main(["selftest", str(mean_red)]) == 3
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "onnxruntime" in first
    assert "FAILED, the largest difference in logits is 0.5, on golden patch 02; 0.0001 is allowed" in first
    assert "to do: install another release of onnxruntime" in first
    assert "doctor mean_red.onnx LOGITS.csv" in first
    assert last == "FAILED"


def test_json_is_one_document(mean_red: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["selftest", str(mean_red.parent), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["passed"]) == (1, True)
    assert document["checks"][0]["status"] == "ok"


def damaged(path: Path, how: str) -> str:
    if how == "altered model":
        path.write_bytes(path.read_bytes() + b"\0")
        return "changed after its manifest was written"
    if how == "altered golden":
        golden = goldens.golden_path(path)
        golden.write_bytes(golden.read_bytes() + b"\0")
        return "changed after the manifest was written"
    if how == "no manifest":
        manifests.manifest_path(path).unlink()
        return "the manifest is missing"
    if how == "no golden":
        goldens.golden_path(path).unlink()
        return "the golden patches are missing"
    if how == "no model":
        path.unlink()
        return "no such model file"
    for file in path.parent.iterdir():
        file.unlink()
    return "a folder without models"


@pytest.mark.parametrize(
    "how", ["altered model", "altered golden", "no manifest", "no golden", "no model", "nothing left"]
)
def test_a_missing_or_altered_file_is_one_line(mean_red: Path, capsys: pytest.CaptureFixture, how: str) -> None:
    message = damaged(mean_red, how)
    assert main(["selftest", str(mean_red.parent)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_saturated_logits_are_read_if_present(mean_red: Path, sign: Callable[..., Path]) -> None:
    assert goldens.read_golden(mean_red, manifests.read(mean_red)).saturated is None
    with_golden(sign, mean_red, saturated=np.array([0, 0.1, 0.2], np.float32))
    saturated = goldens.read_golden(mean_red, manifests.read(mean_red)).saturated
    assert saturated is not None
    np.testing.assert_allclose(saturated, [0, 0.1, 0.2], atol=1e-7)
    with_golden(sign, mean_red, saturated=np.zeros(2, np.float32))
    with pytest.raises(ModelError, match="saturated logits of shape"):
        goldens.read_golden(mean_red, manifests.read(mean_red))


@pytest.mark.parametrize("arguments", [[], ["selftest"], ["cure", "x"], ["golden", "x"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def run(folder: Path, *arguments: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scanner", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_copied_folder_runs_selftest_and_golden(mean_red: Path, tmp_path: Path) -> None:
    shutil.copytree(Path(histoedge.edge.__file__).parent, tmp_path / "scanner")
    done = run(tmp_path, "selftest", mean_red)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "pass"), done.stderr
    done = run(tmp_path, "golden", mean_red, "--into", "patches")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "patches" / "02.ppm").read_bytes() == b"P6\n96 96\n255\n" + b"\xff\0\0" * 96 * 96
    assert (tmp_path / "patches" / "expected.csv").read_text().splitlines()[:2] == ["patch,logit", "00.ppm,0"]
    done = run(tmp_path, "selftest", tmp_path / "nothing.onnx")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("scanner: ")
