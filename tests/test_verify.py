import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from histoedge import verify
from histoedge.cli import main
from histoedge.edge import manifest as manifests

QUANTUM = 0.25


def test_an_int8_file_passes_and_names_its_one_float(mean_red_int8: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(mean_red_int8)])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("onnxruntime:"))
    assert line.endswith("operators in integers; not: DequantizeLinear logit")
    check = json.loads(manifests.verdict_path(mean_red_int8).read_text())["golden"][0]
    assert check["integer_operators"] == check["operators"] - 1
    assert check["not_integer"] == ["DequantizeLinear logit"]


def test_floats_under_an_int8_manifest_fail_although_they_answer_well(mean_red_broken_promise: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(mean_red_broken_promise), "--json"])
    assert result.exit_code == 3
    checks = {check["runtime"]: check for check in json.loads(result.stdout)["golden"]}
    assert checks["onnxruntime"]["largest"] < 1e-6
    assert checks["onnxruntime"]["status"] == "failed"
    assert "1 of an int8 file's multiplications run in floats, Conv " in checks["onnxruntime"]["reason"]
    assert checks["openvino"]["status"] in ("ok", "unavailable")
    assert not manifests.verdict_path(mean_red_broken_promise).exists()


def test_a_float_file_may_compute_in_floats_and_says_nothing_of_it(mean_red: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(mean_red)])
    assert result.exit_code == 0, result.output
    assert "in integers" not in result.stdout


def test_a_verdict_of_an_older_format_is_not_current(mean_red: Path) -> None:
    assert verify.verify(mean_red).passed
    assert verify.is_current(mean_red)
    path = manifests.verdict_path(mean_red)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    assert not verify.is_current(mean_red)


@pytest.mark.parametrize(
    ("quanta", "theirs", "flips", "beyond", "passed"),
    [
        ([0, -1, 7], [0, -1, 7], 0, 0, True),
        ([0, -1, 7], [-1, 0, 8], 2, 0, True),  # 0 is the threshold and counts as positive
        ([0, -1, 7], [0, -1, 9], 0, 0, False),
        ([0, -1, 7], [-2, -1, 7], 1, 1, False),
        ([0, -1, np.nan], [0, -1, 7], 1, 0, False),
    ],
)
def test_twins_may_differ_by_one_quantum(
    quanta: list[float], theirs: list[float], flips: int, beyond: int, passed: bool
) -> None:
    logits = [QUANTUM * np.array(codes, np.float32) for codes in (quanta, theirs)]
    check = verify.compare_twins(
        *logits, model="int8.tflite", runtime="litert", output_quantum=QUANTUM, threshold_logit=0.0
    )
    assert (check.flips, check.flips_beyond_quantum, check.passed) == (flips, beyond, passed)
    assert check.n_patches == 3
