"""Comparisons of two handmade results files."""

import dataclasses
import math

import pytest

from histoedge.benchmark import Results, compare, write_results
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval

HERE = {"cpu": "Xeon", "cpu_flags": ["avx"], "packages": {"numpy": "2.4.6"}, "load_average": [0.1]}


def results(*rows, data="d" * 64, **environment):
    return Results({**HERE, **environment}, {"data": data, "plan": {"rounds": 10}}, rows)


def only(a, b):
    (change,) = compare.compare(a, b).cells
    return change


@pytest.mark.parametrize(
    ("p50_ms", "verdict"), [(1.0, "within noise"), (1.06, "within noise"), (1.2, "slower"), (0.8, "faster")]
)
def test_times_of_two_runs_differ_only_if_the_change_exceeds_drift(p50_ms, verdict, make_measurement):
    change = only(results(make_measurement()), results(make_measurement(p50_ms=p50_ms)))
    assert change.p50_ratio == p50_ms
    assert change.p50_ratio_lo < p50_ms < change.p50_ratio_hi
    assert change.p50_verdict == verdict


def test_times_of_another_machine_get_no_verdict(make_measurement):
    compared = compare.compare(results(make_measurement()), results(make_measurement(p50_ms=9.0), cpu="Ryzen"))
    assert compared.other_machine == ("cpu: Xeon -> Ryzen",)
    assert (compared.cells[0].p50_ratio, compared.cells[0].p50_ratio_lo) == (9.0, None)
    assert compared.cells[0].p50_verdict == "other machine"


def test_a_single_round_gets_no_verdict(make_measurement):
    one_round = make_measurement(p50_ms=Interval(2.0, 2.0, 2.0), status="unsettled")
    assert only(results(make_measurement()), results(one_round)).p50_verdict == "no spread"


def test_any_change_of_auc_of_the_same_file_on_the_same_patches_is_certain(make_measurement):
    assert only(results(make_measurement()), results(make_measurement())).auc_verdict == "equal"
    change = only(results(make_measurement()), results(make_measurement(auc=0.9399)))
    assert change.auc_change_lo == change.auc_change == change.auc_change_hi == pytest.approx(-0.0001)
    assert change.auc_verdict == "lower"


def test_files_with_the_same_reference_are_compared_through_it(make_measurement):
    fp32 = make_measurement("fp32.onnx", sha256="f" * 64)
    paired = {"reference": "fp32.onnx @ onnxruntime", "d_auc": Interval(-0.001, -0.0012, -0.0008)}
    worse = {**paired, "sha256": "b" * 64, "d_auc": Interval(-0.004, -0.0042, -0.0038)}
    a, b = results(fp32, make_measurement(**paired)), results(fp32, make_measurement(**worse, auc=0.937))
    change = compare.compare(a, b).cells[1]
    assert change.auc_change == pytest.approx(-0.003)
    # two half-widths of 0.0002, from 95 to 99 %
    assert change.auc_change_hi - change.auc_change == pytest.approx(0.0004 * 2.5758293 / 1.9599640)
    assert change.auc_verdict == "lower"
    other_reference = results(dataclasses.replace(fp32, sha256="e" * 64), b.measurements[1])
    assert compare.compare(a, other_reference).cells[1].auc_verdict == "within noise"


def test_aucs_on_different_patches_are_independent(make_measurement):
    change = only(results(make_measurement()), results(make_measurement(auc=0.91), data="e" * 64))
    assert change.auc_change_hi - change.auc_change == pytest.approx(0.01 * math.sqrt(2) * 2.5758293 / 1.9599640)
    assert change.auc_verdict == "lower"


def test_changed_failed_added_and_removed_cells_are_distinguished(make_measurement):
    a = results(make_measurement(), make_measurement("fp16.onnx"), make_measurement("fp32.onnx"))
    crashed = make_measurement("fp32.onnx", status="failed", reason="killed", p50_ms=1.0)
    crashed = dataclasses.replace(crashed, p50_ms=None, auc=None)
    b = results(
        make_measurement(sha256="b" * 64, runtime_version="2", size_bytes=900), crashed, make_measurement(threads=4)
    )
    changed, failed, added, removed = compare.compare(a, b).cells
    assert [difference.name for difference in changed.differences] == ["runtime_version", "sha256", "size_bytes"]
    assert changed.file_changed
    assert (changed.size_a_bytes, changed.size_b_bytes) == (1000, 900)
    assert (failed.status_a, failed.status_b, failed.p50_verdict, failed.auc_verdict) == ("ok", "failed", None, None)
    assert (added.presence, added.cell) == ("added", "int8.onnx @ onnxruntime, 4 threads")
    assert (removed.presence, removed.cell, removed.status_a) == ("removed", "fp16.onnx @ onnxruntime", "ok")


def test_files_of_two_networks_are_paired_by_name_and_a_single_one_by_recipe(make_measurement):
    two = results(make_measurement("edge/int8.onnx", auc=0.94), make_measurement("nano/int8.onnx", auc=0.92))
    reverse = results(*reversed(two.measurements))
    assert [row.auc_verdict for row in compare.compare(two, reverse).cells] == ["equal", "equal"]
    assert only(results(make_measurement("edge/int8.onnx")), results(make_measurement())).presence == "both"
    presences = [row.presence for row in compare.compare(results(make_measurement()), two).cells]
    assert presences == ["added", "added", "removed"]


def test_different_versions_and_settings_are_listed(make_measurement):
    a, b = (
        results(make_measurement()),
        results(make_measurement(), packages={"numpy": "2.5"}, load_average=[9.0], data="e"),
    )
    compared = compare.compare(a, b)
    assert [(entry.name, entry.a, entry.b) for entry in compared.environment] == [("packages numpy", "2.4.6", "2.5")]
    assert [entry.name for entry in compared.settings] == ["test patches"]
    assert compared.other_machine == ()


def test_results_without_a_measurement_cannot_be_compared(tmp_path):
    write_results(tmp_path / "bench.json", [], inputs={})
    with pytest.raises(DataError, match="contains no measurement to compare"):
        compare.read_comparable(tmp_path / "bench.json")
