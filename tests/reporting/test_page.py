"""The page: its content, its requests, and how a browser renders it."""

import dataclasses
import re

import pytest

from histoedge import reporting
from histoedge.benchmark import Results
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval
from histoedge.reporting.page import LARGEST_PAGE_BYTES


def _exactly(value):
    """Return an interval without width."""
    return Interval(value, value, value)


def test_the_page_draws_the_error_of_each_layer_from_the_first_to_the_last(with_layers):
    page = reporting.html(with_layers)
    titles = re.findall("<title>([^<]*channels[^<]*)</title>", page)
    assert titles == [
        "int8.onnx @ onnxruntime, stem, 24 channels: 3.2 %",
        "int8.tflite @ litert, stem, 24 channels: 3.2 %",
        "int8.onnx @ onnxruntime, head, 24 channels: 12.0 %",
        "int8.tflite @ litert, head, 24 channels: always 0",
    ]
    (section,) = re.findall("<section>\n<h2>Quantisation error by layer.*?</section>", page, re.DOTALL)
    assert re.findall('text-anchor="end">([^<]*)<', section) == ["3.2 %", "12.0 % / always 0"]
    stem, same_stem, head, dead_head = map(float, re.findall('<line x1="10" y1="[^"]*" x2="([^"]*)"', section))
    assert dead_head < stem == same_stem < head  # a longer bar is a larger error
    assert "Not measured: prune50_int8.tflite: killed by SIGSEGV: &lt;script&gt;" in section
    assert "<b>Quantisation error by layer</b>" in page


def test_a_page_without_errors_of_layers_has_the_reason_and_the_remedy(results):
    page = reporting.html(results)
    assert page.count("Bench the folder of the run on a machine with the lab") == 1
    assert "<b>Quantisation error by layer</b>" not in page
    only_fp32 = dataclasses.replace(results, measurements=results.measurements[:1])
    assert "Quantisation error" not in reporting.html(only_fp32)


def test_the_page_contains_the_figures_and_escapes_markup(results):
    page = reporting.html(results)
    for shown in ("81.2", "0.9159", "+0.0002", "0.356", "unsettled", "A &lt;fast&gt; CPU", "16.0 GiB", "abc123"):
        assert shown in page
    assert "<dt>CPU flags refused by the system</dt><dd>amx_int8</dd>" in page
    assert "Restarting a process shifts its times by about 0.5 % (one SD); the interval includes this." in page
    assert "<script" not in page
    assert page.count("<circle") == 3 + 3  # each cell by its latency, each file by its size


def test_the_page_makes_no_network_requests(results):
    page = reporting.html(results)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|https?://""", page)


def test_results_without_measured_cells_have_a_report(results, printed):
    for empty in (Results({}, {}, results.measurements[3:]), Results({}, {}, ())):
        assert "No cell was measured" in reporting.html(empty)
        assert reporting.markdown(empty)
        printed(reporting.terminal(empty))


def test_cells_with_the_same_time_and_auc_can_be_drawn(results):
    row = dataclasses.replace(results.measurements[1], p50_ms=_exactly(0.0812), auc=_exactly(1.0))
    assert reporting.html(Results({}, {}, (row, row))).count("<circle") == 2 + 1


@pytest.mark.parametrize("width", [1280, 500, 390])
def test_a_browser_shows_the_whole_page_without_requests(whole, sheet, browse, tmp_path, width):
    (tmp_path / "page.html").write_text(reporting.html(whole, sheets=[sheet]))
    seen = browse(tmp_path / "page.html", width)
    assert seen.console == seen.requests == []
    assert seen.screenshot_bytes > 20_000  # a blank window is some 5 kB
    assert seen.scroll_width <= width


FIVE_COLUMNS = """[...document.querySelectorAll("table.cells tr")].map(row =>
    [...row.cells].slice(0, 5).map(cell => [cell.innerText.split("\\n")[0], cell.getBoundingClientRect().right]))"""


def test_a_phone_shows_model_runtime_p50_ratio_and_auc_without_scrolling(results, browse, tmp_path):
    names = {"model": "exported/accurate/models/prune50_int8.onnx", "runtime": "onnxruntime-tensorrt"}
    long = dataclasses.replace(results.measurements[1], **names, p50_ms=Interval(12.3456, 12.2, 12.4))
    (tmp_path / "page.html").write_text(reporting.html(Results({}, {}, (*results.measurements, long))))
    head, *rows = browse(tmp_path / "page.html", 390, FIVE_COLUMNS).result
    assert [text for text, _ in head] == ["Model", "Runtime", "p50", "p50", "AUC"]
    whole = [row for row in rows if len(row) == 5]
    assert len(whole) == 4  # the measured rows
    assert max(right for row in (head, *whole) for _, right in row) <= 390
    assert "12,346" in [text for text, _ in whole[-1]]


def test_the_browser_check_detects_errors_and_requests(browse, tmp_path):
    (tmp_path / "bad.html").write_text("<script>throw 1</script><img src='http://example.invalid/x.png'>")
    seen = browse(tmp_path / "bad.html", 1280)
    assert seen.console
    assert seen.requests == ["http://example.invalid/x.png"]


def test_all_measured_figures_are_on_the_page(whole, sheet, hostile):
    page = reporting.html(whole, sheets=[sheet])
    for heading in (
        *(
            "AUC against latency and size",
            "Latency per call",
            "Decision quality",
            "ROC curves",
            "Robustness",
        ),
        *(
            "Calibration",
            "Quantisation error by layer",
            "Decisions that differ",
            "Explanation of the figures",
            "Environment and settings",
        ),
        *(
            "multi-stream (batch 8)",
            "field (1024 px)",
            "over slides",
            "42%",
            "mJ per call",
        ),
    ):
        assert heading in page, heading
    assert "<td>3<small>2 up, 1 down</small></td>" in page
    assert re.search('<td class="loss"[^>]*>-0.050<small>-0.060\u00a0… -0.040</small></td>', page)
    assert "<td>+0.001<small>-0.009\u00a0… +0.011</small></td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert page.count("int8: AUC 0.9159") == 1
    assert page.count(hostile.split(":")[0]) >= 2
    assert "<script" not in page


def test_markup_in_names_is_escaped(whole, sheet):
    odd = "<b onclick='x'>&amp;\"int8\".onnx"
    rows = tuple(dataclasses.replace(row, model=odd, runtime="<i>", recipe="</svg>") for row in whole.measurements)
    page = reporting.html(dataclasses.replace(whole, measurements=rows), sheets=[dataclasses.replace(sheet, name=odd)])
    assert "<b onclick" not in page
    assert "<i>" not in page
    assert page.count("</svg>") == page.count("<svg")


def test_the_page_of_a_whole_suite_is_small(whole, with_curves):
    first = with_curves(whole.measurements[0])
    rows = []
    scenarios = (("single-stream", 1, 96), ("multi-stream", 8, 96), ("offline", 64, 96), ("field", 1, 1024))
    for number in range(20):
        for runtime in ("keras", "litert", "litert-builtin", "onnxruntime", "openvino", "onnxruntime-cuda"):
            for place, (scenario, batch, field_px) in enumerate(scenarios):
                row = dataclasses.replace(
                    with_curves(first, shift=number / 1000) if place == 0 else first,
                    **{"model": f"prune{number}0_int8.onnx", "recipe": f"prune{number}0_int8", "runtime": runtime},
                    **{
                        "scenario": scenario,
                        "batch": batch,
                        "field_px": field_px,
                        "p50_ms": _exactly(0.1 + number / 7),
                    },
                )
                rows.append(row)
    page = reporting.html(dataclasses.replace(whole, measurements=tuple(rows)))
    assert len(rows) == 480
    assert len(page.encode()) < LARGEST_PAGE_BYTES


def test_files_that_are_not_sheets_and_too_many_sheets_are_refused(whole, tmp_path, sheet):
    with pytest.raises(DataError, match="cannot be read"):
        reporting.read_sheet(tmp_path / "no.png")
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match="a: not a PNG file"):
        reporting.read_sheet(tmp_path / "a.png")
    (tmp_path / "int8.onnx@litert.png").write_bytes(sheet.png)
    assert reporting.read_sheet(tmp_path / "int8.onnx@litert.png").name == "int8.onnx @ litert"
    large = dataclasses.replace(sheet, png=sheet.png + bytes(LARGEST_PAGE_BYTES))
    with pytest.raises(DataError, match="with 1 sheets of flips has .* MB, expected at most 3 MB"):
        reporting.html(whole, sheets=[large])
