"""The report in its four forms, from a results file with every kind of row."""

import csv
import dataclasses
import io
import re

import pytest
from PIL import Image
from rich.console import Console

from histoedge import reporting
from histoedge.benchmark import FileLayers, Layer, Measurement, Results
from histoedge.benchmark.curves import Reliability, Roc
from histoedge.benchmark.quality import Robustness
from histoedge.edge.errors import DataError
from histoedge.reporting.page import LARGEST_PAGE_BYTES, Sheet
from histoedge.reporting.tables import CURVES

HOSTILE = "killed by SIGSEGV: <script>alert(1)</script> [bold]|x|"


def with_curves(row, shift=0.0):
    """All that a measured row can tell, the first of a file on a runtime."""
    robust = tuple(
        Robustness(
            perturbation=name, auc=0.9, auc_lo=0.88, auc_hi=0.92, d_auc=d, d_auc_lo=d - 0.01, d_auc_hi=d + 0.01, flips=7
        )
        for name, d in (("blur_1_px", -0.05), ("jpeg_quality_40", 0.001))
    )
    fpr = tuple(round(number / 199, 5) for number in range(200))
    points = {
        f"{name}{bound}": value
        for percent in (90, 95, 99)
        for name in (f"sensitivity_at_{percent}_specificity", f"specificity_at_{percent}_sensitivity")
        for bound, value in (("", 0.6), ("_lo", 0.5), ("_hi", 0.7))
    }
    return dataclasses.replace(
        row,
        **points,
        **{"brier": 0.1, "brier_lo": 0.09, "brier_hi": 0.11, "auc_slides_lo": 0.87, "auc_slides_hi": 0.97},
        **{"d_auc_slides_lo": -0.002, "d_auc_slides_hi": 0.003},
        **{"flips": 3, "flips_to_positive": 2, "flips_to_negative": 1, "mcnemar_p": 1.0, "mpx_per_s": 12.5},
        **{"peak_share": 0.42, "energy_mj": 1.25, "rss_over_empty_bytes": 47_000_000},
        ms_quantiles=tuple(round(row.p50_ms * (0.9 + number / 500), 5) for number in range(101)),
        roc=Roc(fpr=fpr, tpr=tuple(round(min(1.0, one**0.2 + shift), 5) for one in fpr)),
        reliability=Reliability(probability=(0.1, 0.9), patches=(70, 30), positives=(10, 25)),
        robustness=robust,
    )


@pytest.fixture
def sheet():
    made = io.BytesIO()
    Image.new("RGB", (1408, 60), "white").save(made, "PNG")
    return Sheet("int8.onnx @ onnxruntime", made.getvalue())


@pytest.fixture
def whole(results, with_layers):
    """A file on a runtime in two shapes, with everything that can be measured."""
    first = with_curves(results.measurements[1])
    told_once = dict.fromkeys(("roc", "reliability", "robustness"))
    more = dataclasses.replace(first, batch=8, scenario="multi-stream", **told_once)
    field = dataclasses.replace(first, field_px=1024, scenario="field", **told_once)
    failed = [dataclasses.replace(results.measurements[3], batch=batch) for batch in (1, 8)]
    rows = (dataclasses.replace(first, scenario="single-stream"), more, field, *failed)
    return dataclasses.replace(with_layers, measurements=rows)


@pytest.fixture
def results(cell):
    def full(model, runtime, p50_ms, auc, **changes):
        told = {"size_bytes": 390_000, "runtime_version": "1.2.3", "kernels": "some kernels", "n_patches": 2947}
        told |= {"load_ms": 3.25, "first_ms": 0.75, "peak_rss_bytes": 91_000_000, "patches_per_s": 1000 / p50_ms}
        told |= {"p90_ms": 1.1 * p50_ms, "p95_ms": 1.2 * p50_ms, "p99_ms": 1.5 * p50_ms, "ece": 0.0312}
        points = {"": 0.583, "_lo": 0.521, "_hi": 0.64}
        told |= {f"sensitivity_at_95_specificity{bound}": value for bound, value in points.items()}
        told |= {"reference": f"fp32.{model.partition('.')[2]} @ {runtime}", "d_auc": auc - 0.9157}
        told |= {"d_auc_lo": auc - 0.9167, "d_auc_hi": auc - 0.9147, "p50_ratio": p50_ms / 0.228}
        told |= {"p50_ratio_lo": p50_ms / 0.23, "p50_ratio_hi": p50_ms / 0.226}
        return cell(model, runtime, p50_ms=p50_ms, auc=auc, **{**told, **changes})

    missing = {"p50_ms": None, "auc": None, "status": "unavailable", "reason": "not installed; pip install openvino"}
    rows = (
        full("fp32.onnx", "onnxruntime", 0.228, 0.9157, p50_ratio=None, reference=None, d_auc=None),
        full("int8.onnx", "onnxruntime", 0.0812, 0.9159),
        full("prune50.tflite", "litert", 0.245, 0.9101, status="unsettled", reason="the interval is wide"),
        cell("prune50_int8.tflite", "litert", **{**missing, "status": "failed", "reason": HOSTILE}),
        cell("int8.onnx", "openvino", **missing),
    )
    about = {
        "cpu": "A <fast> CPU",
        "cpu_flags": ["avx2"],
        "cpu_flags_refused": ["amx_int8"],
        "memory_bytes": 2**34,
        "packages": {"numpy": "2.4"},
    }
    return Results(about, {"plan": {"rounds": 10, "runtimes": []}, "data": "abc123"}, rows)


@pytest.fixture
def with_layers(results):
    """Two files of one network, one whose head is 0 on all patches, and one that could not be compared."""
    errors = [Layer(layer=name, channels=24, relative_rms=error) for name, error in (("stem", 0.0325), ("head", 0.12))]
    dead = (errors[0], dataclasses.replace(errors[1], relative_rms=None))
    told = {"n_patches": 256, "reason": None}
    files = (
        FileLayers(model="int8.onnx", runtime="onnxruntime", layers=tuple(errors), **told),
        FileLayers(model="int8.tflite", runtime="litert", layers=dead, **told),
        FileLayers(model="prune50_int8.tflite", runtime=None, layers=(), **{**told, "reason": HOSTILE}),
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
    (section,) = re.findall("<section>\n<h2>Error of each layer.*?</section>", page, re.DOTALL)
    assert re.findall('text-anchor="end">([^<]*)<', section) == ["3.2 %", "12.0 % / always 0"]
    ends = re.findall('<line x1="10" y1="[^"]*" x2="([^"]*)"', section)
    assert ends == ["64.2", "64.2", "210.0", "11"]  # 200 px are 12 %
    assert "Not measured: prune50_int8.tflite: killed by SIGSEGV: &lt;script&gt;" in section
    assert "<b>Error of each layer</b>" in page


def test_a_page_without_errors_of_layers_says_why_and_what_to_do(results):
    page = reporting.html(results)
    assert page.count("bench the folder of the run itself, where the lab is installed") == 1
    assert "<b>Error of each layer</b>" not in page
    in_floats = dataclasses.replace(results, measurements=results.measurements[:1])
    assert "Error of each layer" not in reporting.html(in_floats)


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


def test_rows_without_figures_say_why_everywhere(results):
    flat = " ".join(printed(reporting.terminal(results)).split())
    assert f"failed: prune50_int8.tflite @ litert: {HOSTILE}" in flat
    assert "unavailable: int8.onnx @ openvino: not installed; pip install openvino" in flat
    assert "not installed; pip install openvino" in reporting.markdown(results)
    assert "not installed; pip install openvino" in reporting.html(results)


def test_sparsity_is_never_shown_without_saying_that_it_buys_no_time(results):
    for text in (printed(reporting.terminal(results)), reporting.markdown(results), reporting.html(results)):
        assert "zeros and shared values buy no time" in " ".join(text.split())
    dense = Results({}, {}, results.measurements[:2])
    assert "unstructured zeros" not in printed(reporting.terminal(dense))


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_names_and_the_figures_that_matter_are_whole_at_every_width(results, width):
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


def test_calibration_is_shown_where_it_was_measured(results):
    assert "| sens. at 95 % spec. | ECE |" in reporting.markdown(results)
    assert "| 0.583 [0.521, 0.640] | 0.0312 |" in reporting.markdown(results)
    assert "<td>0.583<small>0.521\u00a0… 0.640</small></td>" in reporting.html(results)
    assert "0.0312" in printed(reporting.terminal(results))
    names = ("ece", *(f"sensitivity_at_95_specificity{bound}" for bound in ("", "_lo", "_hi")))
    old = [dataclasses.replace(row, **dict.fromkeys(names)) for row in results.measurements]
    for text in (reporting.markdown(Results({}, {}, tuple(old))), reporting.html(Results({}, {}, tuple(old)))):
        assert "ECE" not in text


def test_csv_holds_every_figure_of_every_cell(results):
    rows = list(csv.DictReader(io.StringIO(reporting.csv_text(results))))
    assert list(rows[0]) == [one.name for one in dataclasses.fields(Measurement) if one.name not in CURVES]
    assert float(rows[1]["p50_ms"]) == results.measurements[1].p50_ms
    assert (rows[3]["status"], rows[3]["reason"], rows[3]["auc"]) == ("failed", HOSTILE, "")


def test_the_page_holds_the_figures_and_no_foreign_markup(results):
    page = reporting.html(results)
    for shown in ("81.2", "0.9159", "+0.0002", "0.356", "unsettled", "A &lt;fast&gt; CPU", "16.0 GiB", "abc123"):
        assert shown in page
    assert "<dt>CPU flags that the system refuses</dt><dd>amx_int8</dd>" in page
    assert "the interval allows for what another start of it changes" in page
    assert "<script" not in page
    assert page.count("<circle") == 3 + 3  # each cell by its latency, each file by its size


def test_the_page_asks_the_network_for_nothing(results):
    page = reporting.html(results)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|https?://""", page)


def test_nothing_measured_still_makes_a_report(results):
    for empty in (Results({}, {}, results.measurements[3:]), Results({}, {}, ())):
        assert "No cell was measured" in reporting.html(empty)
        assert reporting.markdown(empty)
        printed(reporting.terminal(empty))


def test_cells_of_one_time_and_one_area_can_be_drawn(results):
    row = dataclasses.replace(results.measurements[1], p50_lo=0.0812, p50_hi=0.0812, auc=1.0, auc_lo=1.0, auc_hi=1.0)
    assert reporting.html(Results({}, {}, (row, row))).count("<circle") == 2 + 1


@pytest.mark.parametrize("width", [1280, 500, 390])
def test_a_browser_shows_the_page_whole_and_asks_no_server(whole, sheet, look, tmp_path, width):
    (tmp_path / "page.html").write_text(reporting.html(whole, sheets=[sheet]))
    seen = look(tmp_path / "page.html", width)
    assert seen.complaints == seen.asked == []
    assert seen.picture_bytes > 20_000  # a blank window is some 5 kB
    assert seen.scroll_width <= width


FIVE_COLUMNS = """[...document.querySelectorAll("table.cells tr")].map(row =>
    [...row.cells].slice(0, 5).map(cell => [cell.innerText.split("\\n")[0], cell.getBoundingClientRect().right]))"""


def test_a_telephone_shows_model_runtime_p50_ratio_and_auc_without_scrolling(results, look, tmp_path):
    names = {"model": "exported/accurate/models/prune50_int8.onnx", "runtime": "onnxruntime-tensorrt"}
    long = dataclasses.replace(results.measurements[1], **names, p50_ms=12.3456, p50_lo=12.2, p50_hi=12.4)
    (tmp_path / "page.html").write_text(reporting.html(Results({}, {}, (*results.measurements, long))))
    head, *rows = look(tmp_path / "page.html", 390, FIVE_COLUMNS).found
    assert [text for text, _ in head] == ["Model", "Runtime", "p50", "p50", "AUC"]
    whole = [row for row in rows if len(row) == 5]
    assert len(whole) == 4  # those that were measured
    assert max(right for row in (head, *whole) for _, right in row) <= 390
    assert "12,346" in [text for text, _ in whole[-1]]


def test_a_browser_tells_of_a_page_that_errs_and_asks(look, tmp_path):
    (tmp_path / "bad.html").write_text("<script>throw 1</script><img src='http://example.invalid/x.png'>")
    seen = look(tmp_path / "bad.html", 1280)
    assert seen.complaints
    assert seen.asked == ["http://example.invalid/x.png"]


def test_everything_that_was_measured_is_on_the_page(whole, sheet):
    page = reporting.html(whole, sheets=[sheet])
    for heading in (
        *(
            "AUC against latency and size",
            "How long calls take",
            "What decisions are worth",
            "ROC curves",
            "Robustness",
        ),
        *(
            "Can the probability be believed?",
            "Error of each layer in integers",
            "Decisions that differ",
            "How to read this",
            "Measured on",
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
    assert '<td class="lost" style="--much: 0.54">-0.050<small>-0.060\u00a0… -0.040</small></td>' in page
    assert "<td>+0.001<small>-0.009\u00a0… +0.011</small></td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert page.count("int8: AUC 0.9159") == 1
    assert page.count(HOSTILE.split(":")[0]) >= 2
    assert "<script" not in page


def test_names_that_are_markup_stay_text(whole, sheet):
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
                    **{"scenario": scenario, "batch": batch, "field_px": field_px, "p50_ms": 0.1 + number / 7},
                )
                rows.append(row)
    page = reporting.html(dataclasses.replace(whole, measurements=tuple(rows)))
    assert len(rows) == 480
    assert len(page.encode()) < LARGEST_PAGE_BYTES


def test_a_sheet_that_is_none_is_refused(whole, tmp_path, sheet):
    with pytest.raises(DataError, match="cannot be read"):
        reporting.read_sheet(tmp_path / "no.png")
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match="a: not a PNG file"):
        reporting.read_sheet(tmp_path / "a.png")
    (tmp_path / "int8.onnx@litert.png").write_bytes(sheet.png)
    assert reporting.read_sheet(tmp_path / "int8.onnx@litert.png").name == "int8.onnx @ litert"
    large = dataclasses.replace(sheet, png=sheet.png + bytes(LARGEST_PAGE_BYTES))
    with pytest.raises(DataError, match="with 1 sheets of flips, at most 3 MB"):
        reporting.html(whole, sheets=[large])


def test_shapes_have_tables_of_their_own_and_quality_is_told_once(whole):
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


def test_notes_name_the_width_that_the_plan_asked_for_and_compare_equal_shapes(whole):
    unsettled = dataclasses.replace(whole.measurements[0], status="unsettled", reason="wide")
    plan = {"plan": {"settled_width": 0.05}}
    assert "wider than 5% of it" in reporting.markdown(Results({}, plan, (unsettled,)))
    assert "wider than the plan's share of it" in reporting.markdown(Results({}, {}, (unsettled,)))
    int8 = [dataclasses.replace(row, p50_ms=0.08 * row.batch) for row in whole.measurements[:2]]
    slim = [
        dataclasses.replace(row, model="slim50_int8.onnx", recipe="slim50_int8", p50_ms=0.02 * row.batch)
        for row in int8
    ]
    text = reporting.markdown(Results({}, {}, (*int8[::-1], *slim)))
    assert text.count("p50 of int8 over that of slim50\\_int8: 4.00 (onnx @ onnxruntime)") == 1


@pytest.mark.parametrize(
    ("trained", "words"), [(0.9101, "training beats post-training"), (0.9, "training does not beat")]
)
def test_the_table_says_whether_training_beat_calibration(results, trained, words):
    first = results.measurements[0]
    untrained = dataclasses.replace(first, status="ok", recipe="int8ptq", model="int8ptq.onnx", auc=0.91)
    rows = (dataclasses.replace(untrained, recipe="int8", model="int8.onnx", auc=trained), untrained)
    assert f"quantisation-aware {words}" in reporting.markdown(dataclasses.replace(results, measurements=rows))
    alone = reporting.markdown(dataclasses.replace(results, measurements=(untrained,)))
    assert "no int8 beside it" in alone


def test_the_table_says_what_slimming_bought(results):
    first = dataclasses.replace(results.measurements[0], status="ok", recipe="int8", model="int8.onnx", p50_ms=0.08)
    slim = dataclasses.replace(first, recipe="slim50_int8", model="slim50_int8.onnx", p50_ms=0.04)
    text = reporting.markdown(dataclasses.replace(results, measurements=(first, slim)))
    assert "p50 of int8 over that of slim50\\_int8: 2.00 (onnx @ onnxruntime)" in text
    assert "no int8 beside it" in reporting.markdown(dataclasses.replace(results, measurements=(slim,)))
