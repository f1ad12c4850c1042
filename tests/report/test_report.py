"""The report in its four forms, from a results file with every kind of row."""

import csv
import dataclasses
import io
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from histoedge import report
from histoedge.bench import Measurement, Results

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "killed by SIGSEGV: <script>alert(1)</script> [bold]|x|"


def cell(model, runtime, p50_ms, auc, **changes):
    recipe, format_ = model.split(".")
    full = Measurement(
        model=model,
        recipe=recipe,
        format=format_,
        runtime=runtime,
        runtime_version="1.2.3",
        kernels="some kernels",
        threads=1,
        batch=1,
        field_px=96,
        status="ok",
        size_bytes=390_000,
        load_ms=3.25,
        first_ms=0.75,
        p50_ms=p50_ms,
        p50_lo=0.99 * p50_ms,
        p50_hi=1.01 * p50_ms,
        p90_ms=1.1 * p50_ms,
        p95_ms=1.2 * p50_ms,
        p99_ms=1.5 * p50_ms,
        patches_per_s=1000 / p50_ms,
        peak_rss_bytes=91_000_000,
        auc=auc,
        auc_lo=auc - 0.01,
        auc_hi=auc + 0.01,
        n_patches=2947,
        ece=0.0312,
        sensitivity_at_95_specificity=0.583,
        sensitivity_at_95_specificity_lo=0.521,
        sensitivity_at_95_specificity_hi=0.64,
        reference=f"fp32.{format_} @ {runtime}",
        d_auc=auc - 0.9157,
        d_auc_lo=auc - 0.9167,
        d_auc_hi=auc - 0.9147,
        p50_ratio=p50_ms / 0.228,
        p50_ratio_lo=p50_ms / 0.23,
        p50_ratio_hi=p50_ms / 0.226,
    )
    return dataclasses.replace(full, **changes)


def without_figures(row, status, reason):
    names = ("model", "recipe", "format", "runtime", "threads", "batch", "field_px")
    return Measurement(**{name: getattr(row, name) for name in names}, status=status, reason=reason)


@pytest.fixture
def results():
    rows = (
        cell("fp32.onnx", "onnxruntime", 0.228, 0.9157, p50_ratio=None, reference=None, d_auc=None),
        cell("int8.onnx", "onnxruntime", 0.0812, 0.9159),
        cell("prune50.tflite", "litert", 0.245, 0.9101, status="unsettled", reason="the interval is wide"),
        without_figures(cell("prune50_int8.tflite", "litert", 1, 0.9), "failed", HOSTILE),
        without_figures(cell("int8.onnx", "openvino", 1, 0.9), "unavailable", "not installed; pip install openvino"),
    )
    about = {"cpu": "A <fast> CPU", "cpu_flags": ["avx2"], "memory_bytes": 2**34, "packages": {"numpy": "2.4"}}
    return Results(about, {"plan": {"rounds": 10, "runtimes": []}, "data": "abc123"}, rows)


def printed(table):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_terminal_table_fits_a_hundred_columns(results):
    text = printed(report.terminal(results))
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(
        r"int8\.onnx +onnxruntime +390 +81\.2 +89\.3 +0\.36 \[0\.35 0\.36\].* \.916 \[\.906 \.926\] \+\.0002", text
    )
    assert re.search(r"prune50\.tflite +litert +390 +245~", text)
    assert "…" not in text


def test_rows_without_figures_say_why_everywhere(results):
    flat = " ".join(printed(report.terminal(results)).split())
    assert f"failed: prune50_int8.tflite @ litert: {HOSTILE}" in flat
    assert "unavailable: int8.onnx @ openvino: not installed; pip install openvino" in flat
    assert "not installed; pip install openvino" in report.markdown(results)
    assert "not installed; pip install openvino" in report.html(results)


def test_sparsity_is_never_shown_without_saying_that_it_buys_no_time(results):
    for text in (printed(report.terminal(results)), report.markdown(results), report.html(results)):
        assert "zeros and shared values buy no time" in " ".join(text.split())
    dense = Results({}, {}, results.measurements[:2])
    assert "unstructured zeros" not in printed(report.terminal(dense))


def test_markdown_has_a_row_of_equal_width_for_every_cell(results):
    lines = [line for line in report.markdown(results).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(results.measurements)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "0.9159 [0.9059, 0.9259]" in lines[3]
    assert "<script" not in report.markdown(results)


def test_calibration_is_shown_where_it_was_measured(results):
    assert "| ECE | sens. at 95 % spec. |" in report.markdown(results)
    assert "| 0.0312 | 0.583 [0.521, 0.640] |" in report.markdown(results)
    assert "<td>0.583<small>0.521 … 0.640</small></td>" in report.html(results)
    assert "ECE" not in printed(report.terminal(results))
    names = ("ece", *(f"sensitivity_at_95_specificity{bound}" for bound in ("", "_lo", "_hi")))
    old = [dataclasses.replace(row, **dict.fromkeys(names)) for row in results.measurements]
    for text in (report.markdown(Results({}, {}, tuple(old))), report.html(Results({}, {}, tuple(old)))):
        assert "ECE" not in text


def test_csv_holds_every_key_of_every_cell(results):
    rows = list(csv.DictReader(io.StringIO(report.csv_text(results))))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(Measurement)]
    assert float(rows[1]["p50_ms"]) == results.measurements[1].p50_ms
    assert (rows[3]["status"], rows[3]["reason"], rows[3]["auc"]) == ("failed", HOSTILE, "")


def test_the_page_holds_the_figures_and_no_foreign_markup(results):
    page = report.html(results)
    for shown in ("81.2", "0.9159", "+0.0002", "0.356", "unsettled", "A &lt;fast&gt; CPU", "16.0 GiB", "abc123"):
        assert shown in page
    assert "<script" not in page
    assert page.count("<circle") == 3


def test_the_page_asks_the_network_for_nothing(results):
    page = report.html(results)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|https?://""", page)


def test_nothing_measured_still_makes_a_report(results):
    for empty in (Results({}, {}, results.measurements[3:]), Results({}, {}, ())):
        assert "No cell was measured" in report.html(empty)
        assert report.markdown(empty)
        printed(report.terminal(empty))


def test_cells_of_one_time_and_one_area_can_be_drawn(results):
    row = dataclasses.replace(results.measurements[1], p50_lo=0.0812, p50_hi=0.0812, auc=1.0, auc_lo=1.0, auc_hi=1.0)
    assert report.html(Results({}, {}, (row, row))).count("<circle") == 2


@pytest.mark.skipif(BROWSER is None, reason="needs a chromium")
@pytest.mark.parametrize("width", [1280, 500])  # a headless window is no narrower than 500
def test_a_browser_shows_the_page_without_complaint_or_sideways_scrolling(results, tmp_path, width):
    page = report.html(results)
    (tmp_path / "page.html").write_text(page)
    policy = re.search("<meta http-equiv[^>]*>", page)[0]
    probe = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    (tmp_path / "probe.html").write_text(page.replace(policy, "").replace("</body>", probe))

    def browse(name, *options):
        quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
        profile = (f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--hide-scrollbars")
        command = [BROWSER, *quiet, *profile, *options, (tmp_path / name).as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    picture = tmp_path / "page.png"
    said = browse("page.html", "--enable-logging=stderr", f"--screenshot={picture}").stderr
    assert "CONSOLE" not in said
    assert picture.stat().st_size > 20_000  # a blank window is some 5 kB
    assert int(re.search("<title>([0-9]+)</title>", browse("probe.html", "--dump-dom").stdout)[1]) <= width


@pytest.mark.parametrize(
    ("trained", "words"), [(0.9101, "training beats post-training"), (0.9, "training does not beat")]
)
def test_the_table_says_whether_training_beat_calibration(results, trained, words):
    first = results.measurements[0]
    untrained = dataclasses.replace(first, status="ok", recipe="int8ptq", model="int8ptq.onnx", auc=0.91)
    rows = (dataclasses.replace(untrained, recipe="int8", model="int8.onnx", auc=trained), untrained)
    assert f"quantisation-aware {words}" in report.markdown(dataclasses.replace(results, measurements=rows))
    alone = report.markdown(dataclasses.replace(results, measurements=(untrained,)))
    assert "no int8 beside it" in alone


def test_the_table_says_what_slimming_bought(results):
    first = dataclasses.replace(results.measurements[0], status="ok", recipe="int8", model="int8.onnx", p50_ms=0.08)
    slim = dataclasses.replace(first, recipe="slim50_int8", model="slim50_int8.onnx", p50_ms=0.04)
    text = report.markdown(dataclasses.replace(results, measurements=(first, slim)))
    assert "is 2.00 times as fast as int8" in text
    assert "no int8 beside it" in report.markdown(dataclasses.replace(results, measurements=(slim,)))
