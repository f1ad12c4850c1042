"""Two results files by hand, and what a comparison must say of them."""

import dataclasses
import math

import pytest

from histoedge.benchmark import Results, compare, write_results
from histoedge.edge.errors import DataError

HERE = {"cpu": "Xeon", "cpu_flags": ["avx"], "packages": {"numpy": "2.4.6"}, "load_average": [0.1]}


def results(*rows, data="d" * 64, **environment):
    return Results({**HERE, **environment}, {"data": data, "plan": {"rounds": 10}}, rows)


def only(a, b):
    (change,) = compare.compare(a, b).cells
    return change


@pytest.mark.parametrize(
    ("p50_ms", "says"), [(1.0, "within noise"), (1.06, "within noise"), (1.2, "slower"), (0.8, "faster")]
)
def test_times_of_two_runs_differ_only_beyond_drift(p50_ms, says, cell):
    change = only(results(cell()), results(cell(p50_ms=p50_ms)))
    assert change.p50_ratio == p50_ms
    assert change.p50_ratio_lo < p50_ms < change.p50_ratio_hi
    assert change.p50_verdict == says


def test_times_of_another_machine_get_no_verdict(cell):
    found = compare.compare(results(cell()), results(cell(p50_ms=9.0), cpu="Ryzen"))
    assert found.other_machine == ("cpu: Xeon -> Ryzen",)
    assert (found.cells[0].p50_ratio, found.cells[0].p50_ratio_lo) == (9.0, None)
    assert found.cells[0].p50_verdict == "other machine"


def test_a_single_round_gets_no_verdict(cell):
    one_round = cell(p50_ms=2.0, p50_lo=2.0, p50_hi=2.0, status="unsettled")
    assert only(results(cell()), results(one_round)).p50_verdict == "no spread"


def test_the_same_file_on_the_same_patches_has_the_same_auc_or_another_for_certain(cell):
    assert only(results(cell()), results(cell())).auc_verdict == "equal"
    change = only(results(cell()), results(cell(auc=0.9399)))
    assert change.auc_change_lo == change.auc_change == change.auc_change_hi == pytest.approx(-0.0001)
    assert change.auc_verdict == "lower"


def test_other_files_with_one_reference_are_compared_through_it(cell):
    fp32 = cell("fp32.onnx", sha256="f" * 64)
    paired = {"reference": "fp32.onnx @ onnxruntime", "d_auc_lo": -0.0012, "d_auc": -0.001, "d_auc_hi": -0.0008}
    worse = {**paired, "sha256": "b" * 64, "d_auc_lo": -0.0042, "d_auc": -0.004, "d_auc_hi": -0.0038}
    a, b = results(fp32, cell(**paired)), results(fp32, cell(**worse, auc=0.937))
    change = compare.compare(a, b).cells[1]
    assert change.auc_change == pytest.approx(-0.003)
    # two half-widths of 0.0002, from 95 to 99 %
    assert change.auc_change_hi - change.auc_change == pytest.approx(0.0004 * 2.5758293 / 1.9599640)
    assert change.auc_verdict == "lower"
    other_reference = results(dataclasses.replace(fp32, sha256="e" * 64), b.measurements[1])
    assert compare.compare(a, other_reference).cells[1].auc_verdict == "within noise"


def test_aucs_of_other_patches_are_independent(cell):
    change = only(results(cell()), results(cell(auc=0.91), data="e" * 64))
    assert change.auc_change_hi - change.auc_change == pytest.approx(0.01 * math.sqrt(2) * 2.5758293 / 1.9599640)
    assert change.auc_verdict == "lower"


def test_cells_and_their_files_are_told_apart(cell):
    a = results(cell(), cell("fp16.onnx"), cell("fp32.onnx"))
    crashed = cell("fp32.onnx", status="failed", reason="killed", p50_ms=1.0)
    crashed = dataclasses.replace(crashed, p50_ms=None, auc=None)
    b = results(cell(sha256="b" * 64, runtime_version="2", size_bytes=900), crashed, cell(threads=4))
    changed, failed, added, removed = compare.compare(a, b).cells
    assert [one.name for one in changed.differences] == ["runtime_version", "sha256", "size_bytes"]
    assert changed.file_changed
    assert (changed.size_a_bytes, changed.size_b_bytes) == (1000, 900)
    assert (failed.status_a, failed.status_b, failed.p50_verdict, failed.auc_verdict) == ("ok", "failed", None, None)
    assert (added.presence, added.cell) == ("added", "int8.onnx @ onnxruntime, 4 threads")
    assert (removed.presence, removed.cell, removed.status_a) == ("removed", "fp16.onnx @ onnxruntime", "ok")


def test_files_of_two_networks_are_paired_by_name_and_a_lone_one_by_recipe(cell):
    two = results(cell("edge/int8.onnx", auc=0.94), cell("nano/int8.onnx", auc=0.92))
    turned = results(*reversed(two.measurements))
    assert [one.auc_verdict for one in compare.compare(two, turned).cells] == ["equal", "equal"]
    assert only(results(cell("edge/int8.onnx")), results(cell())).presence == "both"
    presences = [one.presence for one in compare.compare(results(cell()), two).cells]
    assert presences == ["added", "added", "removed"]


def test_versions_and_settings_that_differ_are_named(cell):
    a, b = results(cell()), results(cell(), packages={"numpy": "2.5"}, load_average=[9.0], data="e")
    found = compare.compare(a, b)
    assert [(one.name, one.a, one.b) for one in found.environment] == [("packages numpy", "2.4.6", "2.5")]
    assert [one.name for one in found.settings] == ["test patches"]
    assert found.other_machine == ()


def test_results_without_a_measurement_compare_with_nothing(tmp_path):
    write_results(tmp_path / "bench.json", [], inputs={})
    with pytest.raises(DataError, match="holds no measurement"):
        compare.read_comparable(tmp_path / "bench.json")
