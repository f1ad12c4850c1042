"""Results documents: what scripts write, and what they read again."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from histoedge.benchmark import environment
from histoedge.edge.errors import ModelError

Script = Callable[[str], ModuleType]


def test_a_document_has_its_keys_and_the_order_of_its_columns(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, out = script("record"), tmp_path / "machine" / "rows.json"
    rows = [{"b": 1, "a": 2.0}, {"b": 3, "a": 4.0}]
    record.write_record(out, kind="aa", command="python x.py", about="Text.", rows=rows, ratio=0.5)
    document = json.loads(out.read_text())
    assert set(document) == {"format", "kind", "command", "about", "environment", "columns", "rows", "ratio"}
    assert (document["format"], document["kind"], document["ratio"]) == (1, "aa", 0.5)
    assert document["columns"] == ["b", "a"]
    assert document["environment"]["cpu"] == environment.this_machine()["cpu"]
    assert capsys.readouterr().out == f"{out}\n"
    assert record.recorded_rows(out) == rows


def test_a_given_machine_is_written_and_tables_need_no_rows(script: Script, tmp_path: Path) -> None:
    out = tmp_path / "tables.json"
    script("record").write_record(
        out, kind="slides", command="c", about="a", machine={"cpu": "earlier"}, tables=[{"rows": []}]
    )
    document = json.loads(out.read_text())
    assert document["environment"] == {"cpu": "earlier"}
    assert "rows" not in document
    assert "columns" not in document


def test_a_missing_file_has_no_rows(script: Script, tmp_path: Path) -> None:
    assert script("record").recorded_rows(tmp_path / "missing.json") == []


def test_options_that_differ_from_their_defaults_are_shown_as_typed(script: Script) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs-per-round", type=int, default=100)
    parser.add_argument("--runtime")
    arguments = parser.parse_args(["--runs-per-round", "5", "--rounds", "20"])
    shown = script("record").changed_options(parser, arguments, "rounds", "runs-per-round", "runtime")
    assert shown == " --runs-per-round 5"


def test_an_error_of_histoedge_ends_a_script_with_one_line(script: Script) -> None:
    def fail() -> None:
        raise ModelError("a.onnx: missing")

    with pytest.raises(SystemExit, match=r"^a\.onnx: missing$"):
        script("record").run_script(fail)
