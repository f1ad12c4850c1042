"""The functions that need the lab do what the commands do, and so does the example in the user guide."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import histoedge
from histoedge.lab import checkpoint

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.lab

GUIDE = Path(histoedge.__file__).parent / "GUIDE.md"


def test_the_stages_reuse_the_files_of_the_command(run_copy: Path, tiny_data: Path, settings: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.is_file()}
    trained = histoedge.train(tiny_data, out=run_copy, config=settings)
    stored = checkpoint.read(checkpoint.path_of(run_copy, "fp32"))
    np.testing.assert_array_equal(trained.arrays["stem/kernel"], stored.arrays["stem/kernel"])
    checkpoints = histoedge.compress(run_copy, data=str(tiny_data), recipe=["prune50_int8"], config=str(settings))
    assert [row.recipe for row in checkpoints] == ["fp32", "prune50", "prune50_int8"]
    exported = histoedge.export(str(run_copy))
    assert [file.written for file in exported] == [False] * 10
    assert {path: path.stat().st_mtime_ns for path in before} == before
    outcome = histoedge.run(tiny_data, out=run_copy, config=settings)
    assert set(outcome.models) == {file.model for file in exported}
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed == {"report.html"}


def test_verify_reports_layers_and_explain_accepts_weights(run_copy: Path, tiny_data: Path, tmp_path: Path) -> None:
    verdict = histoedge.verify(run_copy / "models" / "int8.tflite", data=tiny_data, layers=True)
    assert verdict.passed
    assert verdict.advice is not None
    assert {error.layer for error in verdict.layers} >= {"stem", "head"}
    explained = histoedge.explain(run_copy / "fp32.weights.h5", data=tiny_data, out=tmp_path / "out")
    assert {row.method for row in explained.evidence} == {"occlusion", "gradcam"}


@pytest.mark.skipif(not GUIDE.is_file(), reason="not a checkout")
def test_the_example_of_the_guide_runs(
    run_copy: Path, tiny_data: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = GUIDE.read_text().partition("## From Python\n")[2].partition("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert example is not None
    run_copy.rename(tmp_path / "RUN")
    (tmp_path / "DATA").symlink_to(tiny_data)
    shutil.copy(settings, tmp_path / "F.toml")
    monkeypatch.chdir(tmp_path)
    exec(compile(example[1], "GUIDE.md", "exec"), {})
    assert (tmp_path / "RESULTS.json").is_file()
