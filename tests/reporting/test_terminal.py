"""Tables in a terminal."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from histoedge import reporting
from histoedge.benchmark import Results


def test_the_terminal_table_fits_a_hundred_columns(results, printed):
    text = printed(reporting.terminal(results))
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(
        r"int8\.onnx +onnxruntime +390 +81\.2 +89\.3 +0\.36 \[0\.35 0\.36\].* \.916 \[\.906 \.926\] \+\.0002", text
    )
    assert re.search(r"prune50\.tflite +litert +390 +245~", text)
    assert "…" not in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_names_and_the_main_figures_are_whole_at_every_width(results, width):
    name = "accurate/models/prune50_int8.tflite"
    row = dataclasses.replace(results.measurements[1], model=name, runtime="onnxruntime-tensorrt")
    output = io.StringIO()
    Console(width=width, file=output, color_system=None).print(
        reporting.terminal(Results({}, {}, (*results.measurements, row)))
    )
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    assert {"int8.onnx", "prune50.tflite", "onnxruntime", "prune50_int8.tflite", "81.2", ".916", "0.36"} <= words
    assert name in words or {"accurate/models/", "prune50_int8.tflite"} <= words
    assert "onnxruntime-tensorrt" in words or {"onnxruntime-", "tensorrt"} <= words
    assert ("[0.35" in words) == (width >= 80)
    assert (f"not shown in {width} columns:" in text) == (width <= 120)


def test_shapes_have_tables_of_their_own_and_quality_is_only_once(whole, printed):
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
