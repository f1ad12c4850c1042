"""Differences between two models, and whether they require a new validation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from histoedge.cli import main
from histoedge.difference import Diff, diff
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, ModelError


def copy_of(sign: Callable[..., Path], model: Path, *, lower_logits_by: float = 0.0, **fields: Any) -> Path:
    """Copy the model to another folder, with other fields in its manifest and lower golden logits."""
    folder = model.parent / "other"
    folder.mkdir()
    copy = folder / model.name
    for path in (model, goldens.golden_path(model), manifests.manifest_path(model)):
        shutil.copy(path, folder)
    if lower_logits_by:
        golden = dict(np.load(goldens.golden_path(model)))
        golden["logits"] -= np.float32(lower_logits_by)
        np.savez(goldens.golden_path(copy), **golden)
    return sign(copy, **fields)


def changes(compared: Diff) -> list[tuple[str, str]]:
    return [(row.group, row.name) for row in compared.rows if row.changed]


def test_the_same_model_needs_nothing(mean_red_calibrated: Path) -> None:
    compared = diff(mean_red_calibrated, mean_red_calibrated)
    assert changes(compared) == []
    assert compared.golden is not None
    assert (compared.golden.largest, compared.golden.flips, compared.golden.n_patches) == (0, 0, 3)
    assert compared.need == "nothing"
    assert list(compared.lines())[-1] == "new validation needed? no: nothing changed"


@pytest.mark.parametrize(
    ("fields", "group", "name"),
    [
        ({"temperature": 0.6}, "decision", "temperature"),
        ({"threshold": 0.7}, "decision", "threshold"),
        ({"operating_points": []}, "decision", "at specificity 0.95"),
        ({"um_per_px": 0.5}, "geometry", "um_per_px"),
        ({"stride_px": 16}, "geometry", "stride_px"),
        ({"parents": {"weights": "a" * 64}}, "weights", "weights"),
        ({"parents": {"data train": "b" * 64}}, "weights", "data train"),
        ({"recipe": "int8"}, "weights", "recipe"),
        ({"may_saturate": ["the first"]}, "arithmetic", "may_saturate"),
    ],
)
def test_a_change_of_answers_or_verdicts_requires_a_validation(
    mean_red_calibrated: Path, fields: dict[str, Any], group: str, name: str, sign: Callable[..., Path]
) -> None:
    compared = diff(mean_red_calibrated, copy_of(sign, mean_red_calibrated, **fields))
    assert changes(compared) == [(group, name)]
    assert compared.need == "validation"
    assert compared.reasons[0].startswith(f"{group} changed ({name}")


@pytest.mark.parametrize(
    ("fields", "group"),
    [
        ({"tools": {"tf2onnx": "1.17.0"}}, "tools"),
        ({"tolerance": 2e-4}, "arithmetic"),
        ({"input_statistics": {"red": {"p01": 1.0, "p50": 2.0, "p99": 3.0}}}, "input statistics"),
    ],
)
def test_a_change_without_other_answers_requires_the_self_test(
    mean_red: Path, fields: dict[str, Any], group: str, sign: Callable[..., Path]
) -> None:
    compared = diff(mean_red, copy_of(sign, mean_red, **fields))
    assert [changed for changed, _ in changes(compared)] == [group]
    assert (compared.need, compared.reasons) == ("self-test", ())
    assert list(compared.lines())[-1].endswith(
        f"no, but run the self-test on each device: {group} changed, the answers did not"
    )


def test_other_golden_logits_require_a_validation(mean_red: Path, sign: Callable[..., Path]) -> None:
    compared = diff(mean_red, copy_of(sign, mean_red, lower_logits_by=0.5))
    assert compared.golden is not None
    assert compared.golden.largest == pytest.approx(0.5)
    assert compared.golden.rms == pytest.approx(0.5)
    assert compared.golden.flips == 2  # logits 0, 0.2 and 1 are at or above 0; -0.5, -0.3 are not
    assert compared.reasons == ("golden logits changed (by up to 0.5, verdicts 2)",)


def test_golden_logits_of_other_patches_are_not_compared(mean_red: Path, sign: Callable[..., Path]) -> None:
    copy = copy_of(sign, mean_red)
    golden = dict(np.load(goldens.golden_path(copy)))
    np.savez(goldens.golden_path(copy), **golden | {"patches": golden["patches"] + np.uint8(1)})
    sign(copy)
    compared = diff(mean_red, copy)
    assert compared.golden is None
    assert "golden logits: not compared, because the golden patches differ" in compared.lines()


def test_a_changed_file_is_refused(mean_red: Path, sign: Callable[..., Path]) -> None:
    copy = copy_of(sign, mean_red)
    copy.write_bytes(copy.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed after its manifest was written"):
        diff(mean_red, copy)


def results(path: Path, sha256: str, auc: float, p50_ms: float) -> Path:
    """Write a results file with one row of this model."""
    from histoedge.benchmark import Measurement, write_results
    from histoedge.metrics import Interval

    row = Measurement(
        **{"model": path.stem, "recipe": "fp32", "format": "onnx", "runtime": "onnxruntime", "threads": 1, "batch": 1},
        **{"field_px": 96, "status": "ok", "sha256": sha256, "n_patches": 1000},
        auc=Interval(auc, auc - 0.01, auc + 0.01),
        p50_ms=Interval(p50_ms, p50_ms * 0.99, p50_ms * 1.01),
    )
    write_results(path, [row], inputs={"data": "d" * 64})
    return path


def test_measured_rows_are_selected_by_hash_and_a_lower_auc_requires_a_validation(
    mean_red: Path, mean_red_int8: Path, tmp_path: Path
) -> None:
    pytest.importorskip("scipy")
    hashes = [manifests.read(model).sha256 for model in (mean_red, mean_red_int8)]
    old = results(tmp_path / "old.json", hashes[0], auc=0.95, p50_ms=0.1)
    new = results(tmp_path / "new.json", hashes[1], auc=0.90, p50_ms=0.05)
    compared = diff(mean_red, mean_red_int8, results=(old, new))
    (row,) = compared.measured_table()
    assert row["AUC A"] == "0.9500 [0.9400, 0.9600]"
    assert row["p50 us B"] == "50.0 [49.5, 50.5]"
    assert (row["measured on"], row["AUC"], row["p50"]) == ("onnxruntime", "lower", "faster")
    assert "AUC is lower by more than noise on onnxruntime" in compared.reasons
    with pytest.raises(DataError, match=r"old\.json: no measured row of test test\.onnx, SHA-256 .*histoedge bench"):
        diff(mean_red_int8, mean_red_int8, results=(old, new))


def test_the_command_prints_the_changes_and_exits_with_0(mean_red_calibrated: Path, sign: Callable[..., Path]) -> None:
    copy = copy_of(sign, mean_red_calibrated, threshold=0.7, tools={"tf2onnx": "1.17.0"})
    result = CliRunner().invoke(main, ["diff", str(mean_red_calibrated), str(copy)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["of", "what", "A", "B"],
        ["decision", "threshold", "0.6", "0.7"],
        ["tools", "tf2onnx", "-", "1.17.0"],
    ]
    assert lines[-1] == "new validation needed? yes: decision changed (threshold)"
    document = json.loads(CliRunner().invoke(main, ["diff", str(mean_red_calibrated), str(copy), "--json"]).stdout)
    assert document["need"] == "validation"
    assert {row["name"]: (row["a"], row["b"]) for row in document["rows"] if row["changed"]} == {
        "threshold": (0.6, 0.7),
        "tf2onnx": (None, "1.17.0"),
    }
