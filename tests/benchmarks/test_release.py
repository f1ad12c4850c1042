"""A released folder contains the measured files and a card with their figures, and its models run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from histoedge import benchmark
from histoedge.cli import main
from histoedge.data import synthetic
from histoedge.edge import drift
from histoedge.edge import manifest as manifests

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "release.py"
pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not SCRIPT.is_file(), reason="not a checkout")]


def release(run: Path, results: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(run)]
    return subprocess.run(
        [*command, "--results", str(results), "--into", str(into)], capture_output=True, text=True, timeout=120
    )


def test_a_release_predicts_benches_and_has_a_card_with_its_figures(finished_run: Path, tmp_path: Path) -> None:
    into = tmp_path / "exported" / "edge"
    made = release(finished_run, finished_run / "bench.json", into)
    assert made.returncode == 0, made.stderr
    assert {path.name for path in into.iterdir()} == {"README.md", "models", "network.json"}
    card = (into / "README.md").read_text()
    rows = benchmark.read_results(finished_run / "bench.json").measurements
    released = [row for row in rows if row.recipe in ("fp32", "int8") and row.format != "keras"]
    for row in released:
        assert f"| {row.model} | {row.runtime} " in card
        assert f"{row.auc.value:.4f} [{row.auc.lo:.4f}, {row.auc.hi:.4f}]" in card
    assert "prune50" not in card
    assert "Not a medical device" in card
    statistics = manifests.read(into / "models" / "int8.onnx").input_statistics
    assert set(statistics) == set(drift.NAMES)
    assert all(row["p01"] <= row["p50"] <= row["p99"] for row in statistics.values())
    assert all(f"| {name} | " in card for name in statistics)
    image = tmp_path / "image.png"
    Image.fromarray(synthetic.golden(16)[0][0]).save(image)
    answer = CliRunner().invoke(main, ["predict", str(into / "models" / "int8.onnx"), str(image)])
    assert answer.exit_code == 0, answer.output


def test_figures_of_other_files_are_refused(finished_run: Path, tmp_path: Path) -> None:
    results = shutil.copy(finished_run / "bench.json", tmp_path / "other.json")
    document = json.loads(Path(results).read_text())
    for row in document["measurements"]:
        row["sha256"] = "0" * 64
    Path(results).write_text(json.dumps(document))
    made = release(finished_run, Path(results), tmp_path / "into")
    assert made.returncode != 0
    assert "bench the run again" in made.stderr
    assert not (tmp_path / "into").exists()
