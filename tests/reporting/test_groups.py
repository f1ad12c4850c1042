"""Groups of rows and their titles."""

from collections.abc import Callable
from typing import Any

from histoedge.reporting import groups


def test_the_title_of_a_group_contains_what_distinguishes_it(make_measurement: Callable[..., Any]) -> None:
    assert [group.title for group in groups.groups([make_measurement(), make_measurement(runtime="openvino")])] == [""]
    threads = groups.groups(
        [make_measurement(threads=2), make_measurement(), make_measurement(threads=2, runtime="openvino")]
    )
    assert [(group.title, len(group.rows)) for group in threads] == [("2 threads", 2), ("1 thread", 1)]
    shapes = groups.groups(
        [
            make_measurement(scenario="single-stream"),
            make_measurement(batch=3),
            make_measurement(field_px=1024, scenario="field", threads=4),
        ]
    )
    assert [group.title for group in shapes] == [
        "single-stream (batch 1), 1 thread",
        "batch 3, 1 thread",
        "field (1024 px), 4 threads",
    ]
    assert [group.of_fields for group in shapes] == [False, False, True]
    assert groups.groups([]) == []


def test_a_group_is_about_the_figure_of_its_scenario(make_measurement: Callable[..., Any]) -> None:
    rows = [
        make_measurement(batch=8, scenario="multi-stream"),
        make_measurement(batch=64, scenario="offline"),
        make_measurement(batch=5),
    ]
    assert [group.figure for group in groups.groups(rows)] == ["p99_ms", "patches_per_s", "p90_ms"]


def test_a_file_on_a_runtime_is_its_first_measured_row(make_measurement: Callable[..., Any]) -> None:
    rows = [
        make_measurement(status="failed"),
        make_measurement(threads=2, status="unsettled"),
        make_measurement(threads=3),
        make_measurement(runtime="openvino"),
    ]
    assert groups.files_on_runtimes(rows) == [rows[1], rows[3]]


def test_networks_are_named_by_recipe_and_by_folder_only_if_necessary(make_measurement: Callable[..., Any]) -> None:
    rows = [
        make_measurement(model="a/int8.onnx"),
        make_measurement(model="a/int8.tflite"),
        make_measurement(model="b/int8.onnx"),
    ]
    assert groups.network_names(groups.networks(rows)) == ["a/int8", "b/int8"]
    assert groups.network_names(groups.networks([make_measurement(), make_measurement(model="fp32.onnx")])) == [
        "int8",
        "fp32",
    ]
