import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from histoedge import edge, verification
from histoedge.cli import main
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.verification import verifier

QUANTUM = 0.25


def test_an_int8_file_passes_and_lists_its_float_operator(mean_red_int8: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(mean_red_int8)])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("onnxruntime:"))
    assert line.endswith("operators in integers; not: DequantizeLinear logit")
    check = json.loads(manifests.verdict_path(mean_red_int8).read_text())["golden"][0]
    assert check["integer_operators"] == check["operators"] - 1
    assert check["not_integer"] == ["DequantizeLinear logit"]


def test_float_operators_of_an_int8_file_fail_despite_correct_logits(mean_red_broken_promise: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(mean_red_broken_promise), "--json"])
    assert result.exit_code == 3
    checks = {check["runtime"]: check for check in json.loads(result.stdout)["golden"]}
    assert checks["onnxruntime"]["largest"] < 1e-6
    assert checks["onnxruntime"]["status"] == "failed"
    assert "1 multiplications in floats (Conv " in checks["onnxruntime"]["reason"]
    assert checks["openvino"]["status"] in ("ok", "unavailable")
    assert not manifests.verdict_path(mean_red_broken_promise).exists()


def test_a_float_file_has_no_line_about_integers(mean_red: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(mean_red)])
    assert result.exit_code == 0, result.output
    assert "in integers" not in result.stdout


def test_a_verdict_of_an_older_format_is_not_current(mean_red: Path) -> None:
    assert verification.verify(mean_red).passed
    assert verification.is_current(mean_red)
    path = manifests.verdict_path(mean_red)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    assert not verification.is_current(mean_red)


def test_a_verdict_that_cannot_be_written_is_still_printed(mean_red: Path, mean_red_broken_promise: Path) -> None:
    for model, code, reason in ((mean_red, 0, "cannot be written"), (mean_red_broken_promise, 3, "cannot be removed")):
        manifests.verdict_path(model).mkdir()  # a folder: no file can be written there, not even by root
        result = CliRunner().invoke(main, ["verify", str(model)])
        assert result.exit_code == code, result.output
        assert f"{model.name}: {'FAILED' if code else 'passed'} " in result.stdout
        assert result.stderr.startswith(f"histoedge: the verdict was not saved: {manifests.verdict_path(model)}: ")
        assert reason in result.stderr
        assert result.stderr.count("\n") == (2 if code else 1)
        verdict = verification.verify(model)
        assert (verdict.passed, verdict.not_kept is not None) == (not code, True)
        assert "not_kept" not in verdict.as_json()


BOUND_BY_PERMISSIONS = """
import ctypes, os, sys
if os.geteuid() == 0:
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; 24 is PR_CAPBSET_DROP
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python without root's right to write into read-only folders."""


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities of Linux")
def test_a_model_in_a_read_only_folder_is_verified(mean_red: Path) -> None:
    folder = mean_red.parent
    folder.chmod(0o555)
    try:
        bound = [sys.executable, "-c", BOUND_BY_PERMISSIONS]
        probe = subprocess.run([*bound, "-c", f"open({str(folder / 'probe')!r}, 'w')"], capture_output=True)
        if probe.returncode == 0:
            pytest.skip("this user may write into read-only folders")
        done = subprocess.run([*bound, "-m", "histoedge", "verify", mean_red], capture_output=True, text=True)
    finally:
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "mean_red.onnx: passed" in done.stdout
    assert "the verdict was not saved" in done.stderr
    assert done.stderr.count("\n") == 1


def test_flips_are_counted_at_the_calibrated_threshold(mean_red_calibrated: Path, sign: Callable[..., Path]) -> None:
    """Threshold 0.6 at temperature 0.5 is logit 0.5 ln 1.5 = 0.2027, a mean red value of 51.7."""
    fp32 = mean_red_calibrated.with_name("fp32.onnx")
    for path_of in (Path, manifests.manifest_path, goldens.golden_path):
        shutil.copy(path_of(mean_red_calibrated), path_of(fp32))
    for model in (fp32, mean_red_calibrated):
        sign(model, parents={"source": "0"}, fp32="fp32.onnx", recipe="prune50")
    reds = np.array([30, 49, 51, 52, 60, 255], np.uint8)
    patches = np.zeros((6, 96, 96, 3), np.uint8)
    patches[..., 0] = reds[:, None, None]
    split = SimpleNamespace(patches=patches, labels=np.array([0, 0, 0, 1, 1, 1]))

    class Shifted:
        """The file's runner with 2 added to the red value; the reference is the file itself."""

        runtime = "onnxruntime"

        def predict(self, patches: np.ndarray) -> np.ndarray:
            return edge.load(fp32).predict(patches) + np.float32(2 / 255)

    manifest = manifests.read(mean_red_calibrated)
    ours = verifier._logits(Shifted(), split)
    comparison = verifier._compare(mean_red_calibrated, manifest, split, "onnxruntime", ours)
    assert comparison.flips == 1  # 51 becomes 53; at logit 0, or at 0.405 (0.6 at temperature 1), there is no flip


@pytest.mark.parametrize(
    ("quanta", "theirs", "flips", "beyond", "passed"),
    [
        ([0, -1, 7], [0, -1, 7], 0, 0, True),
        ([0, -1, 7], [-1, 0, 8], 2, 0, True),  # a logit at the threshold 0 is positive
        ([0, -1, 7], [0, -1, 9], 0, 0, False),
        ([0, -1, 7], [-2, -1, 7], 1, 1, False),
        ([0, -1, np.nan], [0, -1, 7], 1, 0, False),
    ],
)
def test_twins_may_differ_by_one_quantum(
    quanta: list[float], theirs: list[float], flips: int, beyond: int, passed: bool
) -> None:
    logits = [QUANTUM * np.array(codes, np.float32) for codes in (quanta, theirs)]
    check = verification.compare_twins(
        *logits, model="int8.tflite", runtime="litert", output_quantum=QUANTUM, threshold_logit=0.0
    )
    assert (check.flips, check.flips_beyond_quantum, check.passed) == (flips, beyond, passed)
    assert check.n_patches == 3


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_of_zero_or_one_flips_no_decision(mean_red: Path, threshold: float) -> None:
    """At 0 every patch is positive, at 1 every patch is negative."""
    body = json.loads(manifests.manifest_path(mean_red).read_text())
    body |= {"threshold": threshold, "fp32": mean_red.name, "parents": {"source": "0"}}
    manifests.manifest_path(mean_red).write_text(json.dumps(body | {"digest": manifests.digest(body)}))
    split = SimpleNamespace(patches=np.zeros((4, 96, 96, 3), np.uint8), labels=np.array([0, 1, 0, 1]))
    split.patches[..., 0] = np.array([0, 80, 160, 255])[:, None, None]
    verdict = verification.verify(mean_red, split=split)
    assert verdict.comparison is not None
    assert (verdict.comparison.flips, verdict.comparison.passed) == (0, True)
    logits = np.array([-3.0, 0.0, 40.0], np.float32)
    check = verification.compare_twins(
        logits,
        logits[::-1],
        model="int8.tflite",
        runtime="litert",
        output_quantum=100.0,
        threshold_logit=manifests.read(mean_red).threshold_logit,
    )
    assert (check.flips, check.flips_beyond_quantum, check.passed) == (0, 0, True)
