"""Which rows belong together, and how groups are called."""

from histoedge.bench import Measurement
from histoedge.report import groups

ROW = Measurement(
    model="int8.onnx", recipe="int8", format="onnx", runtime="onnxruntime", threads=1, batch=1, field_px=96, status="ok"
)


def row(**changes: object) -> Measurement:
    return Measurement(**{**{key: getattr(ROW, key) for key in ROW.__dataclass_fields__}, **changes})


def test_a_group_is_called_after_what_sets_it_apart() -> None:
    assert [group.title for group in groups.groups([row(), row(runtime="openvino")])] == [""]
    threads = groups.groups([row(threads=2), row(), row(threads=2, runtime="openvino")])
    assert [(group.title, len(group.rows)) for group in threads] == [("2 threads", 2), ("1 thread", 1)]
    shapes = groups.groups(
        [row(scenario="single-stream"), row(batch=3), row(field_px=1024, scenario="field", threads=4)]
    )
    assert [group.title for group in shapes] == [
        "single-stream (batch 1), 1 thread",
        "batch 3, 1 thread",
        "field (1024 px), 4 threads",
    ]
    assert [group.of_fields for group in shapes] == [False, False, True]
    assert groups.groups([]) == []


def test_a_group_is_about_the_figure_of_its_scenario() -> None:
    rows = [row(batch=8, scenario="multi-stream"), row(batch=64, scenario="offline"), row(batch=5)]
    assert [group.figure for group in groups.groups(rows)] == ["p99_ms", "patches_per_s", "p90_ms"]


def test_a_file_on_a_runtime_is_its_first_measured_row() -> None:
    rows = [row(status="failed"), row(threads=2, status="unsettled"), row(threads=3), row(runtime="openvino")]
    assert groups.files_on_runtimes(rows) == [rows[1], rows[3]]


def test_networks_are_called_by_as_much_as_tells_them_apart() -> None:
    rows = [row(model="a/int8.onnx"), row(model="a/int8.tflite"), row(model="b/int8.onnx")]
    assert groups.network_names(groups.networks(rows)) == ["a/int8", "b/int8"]
    assert groups.network_names(groups.networks([row(), row(model="fp32.onnx", recipe="fp32")])) == ["int8", "fp32"]
