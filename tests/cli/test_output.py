"""Tables of commands in a terminal of a given width: no word is cut, and wrapped cells stay in their column."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from histoedge import benchmark
from histoedge.benchmark import Measurement
from histoedge.cli import group
from histoedge.cli.output import print_rows
from histoedge.metrics import Interval

pty = pytest.importorskip("pty")


def in_terminal(columns: int, *arguments: object) -> list[str]:
    """Return the lines that the command writes to a terminal of this width, without colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "histoedge", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    text = b""
    while chunk := _read(ours):
        text += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # on Linux: the other end is closed
        return b""


def test_list_fits_the_terminal_and_wraps_within_columns() -> None:
    lines = in_terminal(80, "list", "recipes")
    assert max(map(len, lines)) <= 80
    start = lines[0].index("what")
    assert all(line[start - 2 : start] == "  " for line in lines)
    piped = CliRunner().invoke(group.main, ["list", "recipes"]).stdout
    assert " ".join(" ".join(lines).split()) == " ".join(piped.split())
    assert len(piped.splitlines()) == 1 + len(
        json.loads(CliRunner().invoke(group.main, ["list", "recipes", "--json"]).stdout)
    )


def test_report_does_not_cut_names_in_eighty_columns_and_its_json_has_the_facts(
    make_measurement: Callable[..., Measurement], tmp_path: Path
) -> None:
    rows = [
        make_measurement(
            "accurate/models/prune50_int8.tflite", "litert", n_patches=9, p50_ratio=Interval(0.25, 0.24, 0.26)
        ),
        make_measurement("edge/models/int8.onnx"),
    ]
    file = tmp_path / "first.json"
    benchmark.write_results(file, rows, inputs={})
    lines = in_terminal(80, "report", file)
    assert max(map(len, lines)) <= 80
    assert re.search(r"accurate/models/ +litert +1,000 +0\.25 \[0\.24 0\.26\] +\.940 \[\.930 \.950\]", lines[1])
    assert lines[2].strip() == "prune50_int8.tflite"
    done = CliRunner().invoke(group.main, ["report", str(file), "--json", "--csv", str(tmp_path / "a.csv")])
    document = json.loads(done.stdout)
    assert document["written"] == [str(tmp_path / "a.csv")]
    assert document["run"] == "accurate, edge"
    assert document["rows"][0]["p50_ratio"] == 0.25
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", document["environment"]["date"])


def test_text_is_left_aligned_and_numbers_are_right_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "a", "count": 7, "share": 0.5, "seen": True, "note": None},
        {"name": "longer", "count": 1200, "share": None, "seen": False, "note": None},
    ]
    print_rows(rows)
    assert capsys.readouterr().out.splitlines() == [
        "name    count  share  seen   note",
        "a           7    0.5  True   -",
        "longer   1200      -  False  -",
    ]
