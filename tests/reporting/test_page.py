"""The report in its four forms, from results with every kind of row."""

import csv
import dataclasses
import io
import re

import pytest
from PIL import Image
from rich.console import Console

from histoedge import reporting
from histoedge.benchmark import FileLayers, Layer, Measurement, Results, columns
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.quality import Robustness
from histoedge.edge.errors import DataError
from histoedge.metrics import Interval
from histoedge.reporting.page import LARGEST_PAGE_BYTES, Sheet
from histoedge.reporting.tables import CURVES

HOSTILE = "killed by SIGSEGV: <script>alert(1)</script> [bold]|x|"


def _exactly(value):
    """Return an interval without width."""
    return Interval(value, value, value)


def with_curves(row, shift=0.0):
    """Return the row with all figures that the first row of a file on a runtime can have."""
    robust = tuple(
        Robustness(perturbation=name, auc=Interval(0.9, 0.88, 0.92), d_auc=Interval(d, d - 0.01, d + 0.01), flips=7)
        for name, d in (("blur_1_px", -0.05), ("jpeg_quality_40", 0.001))
    )
    fpr = tuple(round(number / 199, 5) for number in range(200))
    points = {
        name: Interval(0.6, 0.5, 0.7)
        for percent in (90, 95, 99)
        for name in (f"sensitivity_at_{percent}_specificity", f"specificity_at_{percent}_sensitivity")
    }
    return dataclasses.replace(
        row,
        **points,
        brier=Interval(0.1, 0.09, 0.11),
        auc_slides=Interval(0.9159, 0.87, 0.97),
        d_auc_slides=Interval(0.0002, -0.002, 0.003),
        **{"flips": 3, "flips_to_positive": 2, "flips_to_negative": 1, "mcnemar_p": 1.0, "mpx_per_s": 12.5},
        **{"peak_share": 0.42, "energy_mj": 1.25, "rss_over_empty_bytes": 47_000_000},
        ms_quantiles=tuple(round(row.p50_ms.value * (0.9 + number / 500), 5) for number in range(101)),
        roc=Roc(fpr=fpr, tpr=tuple(round(min(1.0, rate**0.2 + shift), 5) for rate in fpr)),
        reliability=Reliability(probability=(0.1, 0.9), patches=(70, 30), positives=(10, 25)),
        robustness=robust,
    )


@pytest.fixture
def sheet():
    png = io.BytesIO()
    Image.new("RGB", (1408, 60), "white").save(png, "PNG")
    return Sheet("int8.onnx @ onnxruntime", png.getvalue())


@pytest.fixture
def whole(results, with_layers):
    """A file on a runtime in several shapes, with all figures."""
    first = with_curves(results.measurements[1])
    only_once = dict.fromkeys(("roc", "reliability", "robustness"))
    more = dataclasses.replace(first, batch=8, scenario="multi-stream", **only_once)
    field = dataclasses.replace(first, field_px=1024, scenario="field", **only_once)
    failed = [dataclasses.replace(results.measurements[3], batch=batch) for batch in (1, 8)]
    rows = (dataclasses.replace(first, scenario="single-stream"), more, field, *failed)
    return dataclasses.replace(with_layers, measurements=rows)


@pytest.fixture
def results(cell):
    def full(model, runtime, p50_ms, auc, **changes):
        fields = {"size_bytes": 390_000, "runtime_version": "1.2.3", "kernels": "some kernels", "n_patches": 2947}
        fields |= {"load_ms": 3.25, "first_ms": 0.75, "peak_rss_bytes": 91_000_000, "ece": 0.0312}
        for name, factor in (("p90_ms", 1.1), ("p95_ms", 1.2), ("p99_ms", 1.5)):
            fields[name] = Interval(factor * p50_ms, 0.99 * factor * p50_ms, 1.01 * factor * p50_ms)
        fields["patches_per_s"] = Interval(1000 / p50_ms, 990 / p50_ms, 1010 / p50_ms)
        fields["sensitivity_at_95_specificity"] = Interval(0.583, 0.521, 0.64)
        fields["reference"] = f"fp32.{model.partition('.')[2]} @ {runtime}"
        fields["d_auc"] = Interval(auc - 0.9157, auc - 0.9167, auc - 0.9147)
        fields["p50_ratio"] = Interval(p50_ms / 0.228, p50_ms / 0.23, p50_ms / 0.226)
        return cell(model, runtime, p50_ms=p50_ms, auc=auc, **{**fields, **changes})

    missing = {"p50_ms": None, "auc": None, "status": "unavailable", "reason": "not installed; pip install openvino"}
    rows = (
        full("fp32.onnx", "onnxruntime", 0.228, 0.9157, p50_ratio=None, reference=None, d_auc=None),
        full("int8.onnx", "onnxruntime", 0.0812, 0.9159),
        full("prune50.tflite", "litert", 0.245, 0.9101, status="unsettled", reason="the interval is wide"),
        cell("prune50_int8.tflite", "litert", **{**missing, "status": "failed", "reason": HOSTILE}),
        cell("int8.onnx", "openvino", **missing),
    )
    environment = {
        "cpu": "A <fast> CPU",
        "cpu_flags": ["avx2"],
        "cpu_flags_refused": ["amx_int8"],
        "memory_bytes": 2**34,
        "packages": {"numpy": "2.4"},
    }
    return Results(environment, {"plan": {"rounds": 10, "runtimes": []}, "data": "abc123"}, rows)


@pytest.fixture
def with_layers(results):
    """Two files of the same network, one with a head that is always 0, and a file that was not measured."""
    errors = [Layer(layer=name, channels=24, relative_rms=error) for name, error in (("stem", 0.0325), ("head", 0.12))]
    dead = (errors[0], dataclasses.replace(errors[1], relative_rms=None))
    fields = {"n_patches": 256, "reason": None}
    files = (
        FileLayers(model="int8.onnx", runtime="onnxruntime", layers=tuple(errors), **fields),
        FileLayers(model="int8.tflite", runtime="litert", layers=dead, **fields),
        FileLayers(model="prune50_int8.tflite", runtime=None, layers=(), **{**fields, "reason": HOSTILE}),
    )
    return dataclasses.replace(results, layers=files)


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
    ends = re.findall('<line x1="10" y1="[^"]*" x2="([^"]*)"', section)
    assert ends == ["64.2", "64.2", "210.0", "11"]  # 200 px are 12 %
    assert "Not measured: prune50_int8.tflite: killed by SIGSEGV: &lt;script&gt;" in section
    assert "<b>Quantisation error by layer</b>" in page


def test_a_page_without_errors_of_layers_has_the_reason_and_the_remedy(results):
    page = reporting.html(results)
    assert page.count("Bench the folder of the run on a machine with the lab") == 1
    assert "<b>Quantisation error by layer</b>" not in page
    only_fp32 = dataclasses.replace(results, measurements=results.measurements[:1])
    assert "Quantisation error" not in reporting.html(only_fp32)


def printed(table):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_terminal_table_fits_a_hundred_columns(results):
    text = printed(reporting.terminal(results))
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(
        r"int8\.onnx +onnxruntime +390 +81\.2 +89\.3 +0\.36 \[0\.35 0\.36\].* \.916 \[\.906 \.926\] \+\.0002", text
    )
    assert re.search(r"prune50\.tflite +litert +390 +245~", text)
    assert "…" not in text


def test_rows_without_figures_have_their_reason_in_all_forms(results):
    flat = " ".join(printed(reporting.terminal(results)).split())
    assert f"failed: prune50_int8.tflite @ litert: {HOSTILE}" in flat
    assert "unavailable: int8.onnx @ openvino: not installed; pip install openvino" in flat
    assert "not installed; pip install openvino" in reporting.markdown(results)
    assert "not installed; pip install openvino" in reporting.html(results)


def test_sparsity_is_always_shown_with_its_effect_on_latency(results):
    for text in (printed(reporting.terminal(results)), reporting.markdown(results), reporting.html(results)):
        assert "zeros and shared values do not reduce latency" in " ".join(text.split())
    dense = Results({}, {}, results.measurements[:2])
    assert "zeros and shared values" not in printed(reporting.terminal(dense))


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_names_and_the_main_figures_are_whole_at_every_width(results, width):
    name = "accurate/models/prune50_int8.tflite"
    row = dataclasses.replace(results.measurements[1], model=name, runtime="onnxruntime-tensorrt")
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(reporting.terminal(Results({}, {}, (*results.measurements, row))))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    assert {"int8.onnx", "prune50.tflite", "onnxruntime", "prune50_int8.tflite", "81.2", ".916", "0.36"} <= words
    assert name in words or {"accurate/models/", "prune50_int8.tflite"} <= words
    assert "onnxruntime-tensorrt" in words or {"onnxruntime-", "tensorrt"} <= words
    assert ("[0.35" in words) == (width >= 80)
    assert (f"not shown in {width} columns:" in text) == (width <= 120)


def test_markdown_has_a_row_of_equal_width_for_every_cell(results):
    cost, quality = reporting.markdown(results).split("\n\n")[:2]
    assert len([line for line in quality.splitlines() if line]) == 2 + 3
    lines = cost.splitlines()
    assert len(lines) == 2 + len(results.measurements)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "0.9159 [0.9059, 0.9259]" in lines[3]
    assert "<script" not in reporting.markdown(results)


def test_calibration_is_shown_if_it_was_measured(results):
    assert "| sens. at 95 % spec. | ECE |" in reporting.markdown(results)
    assert "| 0.583 [0.521, 0.640] | 0.0312 |" in reporting.markdown(results)
    assert "<td>0.583<small>0.521\u00a0… 0.640</small></td>" in reporting.html(results)
    assert "0.0312" in printed(reporting.terminal(results))
    names = ("ece", "sensitivity_at_95_specificity")
    old = [dataclasses.replace(row, **dict.fromkeys(names)) for row in results.measurements]
    for text in (reporting.markdown(Results({}, {}, tuple(old))), reporting.html(Results({}, {}, tuple(old)))):
        assert "ECE" not in text


def test_csv_contains_every_figure_of_every_cell(results):
    rows = list(csv.DictReader(io.StringIO(reporting.csv_text(results))))
    assert list(rows[0]) == [name for name in columns.column_types(Measurement) if name not in CURVES]
    assert [float(rows[1][name]) for name in ("p50_ms", "p50_lo", "p50_hi")] == list(
        dataclasses.astuple(results.measurements[1].p50_ms)
    )
    assert (rows[3]["status"], rows[3]["reason"], rows[3]["auc"]) == ("failed", HOSTILE, "")


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


def test_results_without_measured_cells_have_a_report(results):
    for empty in (Results({}, {}, results.measurements[3:]), Results({}, {}, ())):
        assert "No cell was measured" in reporting.html(empty)
        assert reporting.markdown(empty)
        printed(reporting.terminal(empty))


def test_cells_with_the_same_time_and_auc_can_be_drawn(results):
    row = dataclasses.replace(results.measurements[1], p50_ms=_exactly(0.0812), auc=_exactly(1.0))
    assert reporting.html(Results({}, {}, (row, row))).count("<circle") == 2 + 1


@pytest.mark.parametrize("width", [1280, 500, 390])
def test_a_browser_shows_the_whole_page_without_requests(whole, sheet, look, tmp_path, width):
    (tmp_path / "page.html").write_text(reporting.html(whole, sheets=[sheet]))
    seen = look(tmp_path / "page.html", width)
    assert seen.complaints == seen.asked == []
    assert seen.picture_bytes > 20_000  # a blank window is some 5 kB
    assert seen.scroll_width <= width


FIVE_COLUMNS = """[...document.querySelectorAll("table.cells tr")].map(row =>
    [...row.cells].slice(0, 5).map(cell => [cell.innerText.split("\\n")[0], cell.getBoundingClientRect().right]))"""


def test_a_phone_shows_model_runtime_p50_ratio_and_auc_without_scrolling(results, look, tmp_path):
    names = {"model": "exported/accurate/models/prune50_int8.onnx", "runtime": "onnxruntime-tensorrt"}
    long = dataclasses.replace(results.measurements[1], **names, p50_ms=Interval(12.3456, 12.2, 12.4))
    (tmp_path / "page.html").write_text(reporting.html(Results({}, {}, (*results.measurements, long))))
    head, *rows = look(tmp_path / "page.html", 390, FIVE_COLUMNS).found
    assert [text for text, _ in head] == ["Model", "Runtime", "p50", "p50", "AUC"]
    whole = [row for row in rows if len(row) == 5]
    assert len(whole) == 4  # the measured rows
    assert max(right for row in (head, *whole) for _, right in row) <= 390
    assert "12,346" in [text for text, _ in whole[-1]]


def test_the_browser_check_detects_errors_and_requests(look, tmp_path):
    (tmp_path / "bad.html").write_text("<script>throw 1</script><img src='http://example.invalid/x.png'>")
    seen = look(tmp_path / "bad.html", 1280)
    assert seen.complaints
    assert seen.asked == ["http://example.invalid/x.png"]


def test_all_measured_figures_are_on_the_page(whole, sheet):
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
    assert '<td class="loss" style="--opacity: 0.54">-0.050<small>-0.060\u00a0… -0.040</small></td>' in page
    assert "<td>+0.001<small>-0.009\u00a0… +0.011</small></td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert page.count("int8: AUC 0.9159") == 1
    assert page.count(HOSTILE.split(":")[0]) >= 2
    assert "<script" not in page


def test_markup_in_names_is_escaped(whole, sheet):
    odd = "<b onclick='x'>&amp;\"int8\".onnx"
    rows = tuple(dataclasses.replace(row, model=odd, runtime="<i>", recipe="</svg>") for row in whole.measurements)
    page = reporting.html(dataclasses.replace(whole, measurements=rows), sheets=[dataclasses.replace(sheet, name=odd)])
    assert "<b onclick" not in page
    assert "<i>" not in page
    assert page.count("</svg>") == page.count("<svg")


def test_the_page_of_a_whole_suite_is_small(whole):
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


def test_shapes_have_tables_of_their_own_and_quality_is_only_once(whole):
    text = printed(reporting.terminal(whole))
    assert max(map(len, text.splitlines())) <= 100
    for title in ("single-stream (batch 1)", "multi-stream (batch 8)", "field (1024 px)"):
        assert title in text
    assert "p99 us" in text
    assert "Mpx/s" in text
    assert text.count(".916 [.906 .926]") == 1
    assert re.search(r"int8\.onnx +onnxruntime +blur 1 px +\.900 +-\.0500 \[-\.0600 -\.0400\] +7", text)
    assert "(2 cells)" in " ".join(text.split())
    head = reporting.markdown(whole).splitlines()[0]
    assert "| scenario | batch | field px | status |" in head
    assert "threads" not in head
    assert "| blur 1 px | jpeg quality 40 |" in reporting.markdown(whole)
    assert "3 (2 up, 1 down)" in reporting.markdown(whole)


def test_notes_state_the_width_of_the_plan_and_compare_equal_shapes(whole):
    unsettled = dataclasses.replace(whole.measurements[0], status="unsettled", reason="wide")
    plan = {"plan": {"settled_width": 0.05}}
    assert "wider than 5% of p50" in reporting.markdown(Results({}, plan, (unsettled,)))
    assert "wider than the limit of the plan" in reporting.markdown(Results({}, {}, (unsettled,)))
    int8 = [dataclasses.replace(row, p50_ms=_exactly(0.08 * row.batch)) for row in whole.measurements[:2]]
    slim = [
        dataclasses.replace(row, model="slim50_int8.onnx", recipe="slim50_int8", p50_ms=_exactly(0.02 * row.batch))
        for row in int8
    ]
    text = reporting.markdown(Results({}, {}, (*int8[::-1], *slim)))
    assert text.count("p50 of int8 over that of slim50\\_int8: 4.00 (onnx @ onnxruntime)") == 1


@pytest.mark.parametrize(
    ("trained", "words"), [(0.9101, "training beats post-training"), (0.9, "training does not beat")]
)
def test_the_notes_state_whether_training_beats_post_training_quantisation(results, trained, words):
    first = results.measurements[0]
    untrained = dataclasses.replace(first, status="ok", recipe="int8ptq", model="int8ptq.onnx", auc=_exactly(0.91))
    rows = (dataclasses.replace(untrained, recipe="int8", model="int8.onnx", auc=_exactly(trained)), untrained)
    assert f"quantisation-aware {words}" in reporting.markdown(dataclasses.replace(results, measurements=rows))
    alone = reporting.markdown(dataclasses.replace(results, measurements=(untrained,)))
    assert "no int8 file to compare with" in alone


def test_the_notes_state_the_effect_of_slimming(results):
    first = dataclasses.replace(
        results.measurements[0], status="ok", recipe="int8", model="int8.onnx", p50_ms=_exactly(0.08)
    )
    slim = dataclasses.replace(first, recipe="slim50_int8", model="slim50_int8.onnx", p50_ms=_exactly(0.04))
    text = reporting.markdown(dataclasses.replace(results, measurements=(first, slim)))
    assert "p50 of int8 over that of slim50\\_int8: 2.00 (onnx @ onnxruntime)" in text
    assert "no int8 file to compare with" in reporting.markdown(dataclasses.replace(results, measurements=(slim,)))
