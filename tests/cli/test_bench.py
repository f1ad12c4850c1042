"""``histoedge bench`` with gates and comparisons, as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from histoedge.cli import main

pytest.importorskip("scipy")


def bench(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["bench", *(str(argument) for argument in arguments)])


def assert_one_line(result: Any, message: str, *, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.fixture
def measuring(mean_red: Path, tmp_path: Path) -> tuple[object, ...]:
    """Arguments of a bench of one or two seconds."""
    data, settings = tmp_path / "data", tmp_path / "quick.toml"
    result = CliRunner().invoke(main, ["data", "synth", str(data), "--patches", "64"])
    assert result.exit_code == 0, result.output
    settings.write_text(
        "[bench]\nrounds = 3\nruns_per_round = 3\nwarmup_runs = 1\nmax_seconds = 0\ninteger_peak = false\n"
    )
    return mean_red, "--data", data, "--config", settings, "--runtime", "onnxruntime", "--out", tmp_path / "r.json"


@pytest.fixture
def untouched(tmp_path: Path) -> tuple[object, ...]:
    """Arguments of a bench that must not start: the model is missing."""
    return tmp_path / "no.onnx", "--data", "synthetic", "--out", tmp_path / "r.json"


def test_gates_that_pass_are_printed_and_exit_with_0(measuring: tuple[object, ...], tmp_path: Path) -> None:
    result = bench(
        *measuring,
        "--gate",
        "size_bytes < 1e6",
        "--gate",
        "mean_red.onnx@onnxruntime: auc >= 0",
        "--junit",
        tmp_path / "j",
    )
    assert result.exit_code == 0, result.output
    assert "size_bytes < 1e6" in result.stdout
    assert result.stdout.count(" passes\n") == 2
    root = ElementTree.parse(tmp_path / "j").getroot()
    assert (root.get("tests"), root.get("failures")) == ("2", "0")


def test_a_gate_that_fails_exits_with_3_and_leaves_results_and_junit(
    measuring: tuple[object, ...], tmp_path: Path
) -> None:
    gates = ("--gate", "size_bytes < 1", "--gate", "size_bytes > 1")
    result = bench(*measuring, *gates, "--junit", tmp_path / "j.xml", "--json")
    assert result.exit_code == 3, result.output
    assert "1 of 2 gates do not pass: size_bytes < 1\n" in result.stderr
    document = json.loads(result.stdout)
    assert [gate["outcome"] for gate in document["gates"]] == ["failed", "passed"]
    assert document["measurements"] == json.loads((tmp_path / "r.json").read_text())["measurements"]
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("failures") == "1"


def test_a_baseline_from_another_machine_is_reported(measuring: tuple[object, ...], tmp_path: Path) -> None:
    assert bench(*measuring).exit_code == 0
    old = json.loads((tmp_path / "r.json").read_text())
    old["environment"]["cpu"] = "Abacus 1"
    (tmp_path / "old.json").write_text(json.dumps(old))
    gates = ("--gate", "auc_vs_baseline >= 0", "--gate", "p50_vs_baseline < 100", "--baseline", tmp_path / "old.json")
    result = bench(*measuring, *gates)
    assert result.exit_code == 3, result.output
    assert "the baseline is from another machine, times cannot be compared: cpu: Abacus 1 -> " in result.stderr
    assert "1 of 2 gates do not pass: p50_vs_baseline < 100" in result.stderr


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("p50_mss < 1", "did you mean p50_ms?"),
        ("p50_ms is small", "expected COLUMN OP NUMBER"),
        ("auc_vs_baseline > 0", "add --baseline OLD.json"),
    ],
)
def test_a_wrong_gate_is_one_line_before_any_work(untouched: tuple[object, ...], gate: str, message: str) -> None:
    assert_one_line(bench(*untouched, "--gate", gate), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 9, "measurements": []}', "results format 9, expected 1; measure again"),
        (
            '{"format": 1, "environment": {}, "inputs": {}, "measurements": []}',
            "contains no measurement to compare; measure again",
        ),
    ],
)
def test_older_results_that_cannot_be_used_are_one_line(
    untouched: tuple[object, ...], tmp_path: Path, content: str, message: str
) -> None:
    old = tmp_path / "old.json"
    old.write_text(content)
    assert_one_line(bench(*untouched, "--gate", "p50_vs_baseline < 1.1", "--baseline", old), message)
    assert_one_line(bench("--compare", old, old), message)


def test_options_without_what_they_are_for_are_wrong_usage(untouched: tuple[object, ...], tmp_path: Path) -> None:
    assert bench(*untouched, "--junit", tmp_path / "j.xml").exit_code == 2
    assert bench(*untouched, "--gate", "auc > 0", "--baseline", tmp_path / "old.json").exit_code == 2
    assert bench("--compare", "a.json", "b.json", "--threads", 2).exit_code == 2
    assert bench("--compare", "a.json").exit_code == 2
    assert bench("--data", "synthetic").exit_code == 2


def test_two_results_files_are_compared_without_measuring(make_measurement: Callable[..., Any], tmp_path: Path) -> None:
    from histoedge.benchmark import write_results

    for name, p50_ms in (("a.json", 1.0), ("b.json", 2.0)):
        write_results(tmp_path / name, [make_measurement(p50_ms=p50_ms)], inputs={})
    shown = bench("--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert shown.exit_code == 0, shown.output
    assert "slower" in shown.stdout
    document = json.loads(bench("--compare", tmp_path / "a.json", tmp_path / "b.json", "--json").stdout)
    (row,) = document["cells"]
    assert (row["p50_ratio"], row["p50_verdict"], document["level"]) == (2.0, "slower", 0.99)
    assert_one_line(bench("--compare", tmp_path / "a.json", tmp_path / "c.json"), "no such results file")


def test_robustness_and_flips_are_asked_for_by_options(measuring: tuple[object, ...], tmp_path: Path) -> None:
    result = bench(*measuring, "--robustness", "--flips", tmp_path / "flips")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "r.json").read_text())["measurements"]
    assert len(row["robustness"]) == 10
    assert "most harmful perturbation" in result.stdout
    assert (tmp_path / "flips").is_dir()
    shown = CliRunner().invoke(main, ["report", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")])
    assert shown.exit_code == 0, shown.output
    assert "Robustness" in (tmp_path / "r.html").read_text()


def test_a_sheet_needs_a_page_and_must_be_one(tmp_path: Path) -> None:
    results, page = tmp_path / "r.json", tmp_path / "r.html"
    results.write_text('{"format": 1, "environment": {}, "inputs": {}, "measurements": []}')
    alone = CliRunner().invoke(main, ["report", str(results), "--flips", str(results)])
    assert alone.exit_code == 2
    assert "--flips adds sheets to the page; also give --html F" in alone.stderr
    wrong = CliRunner().invoke(main, ["report", str(results), "--html", str(page), "--flips", str(results)])
    assert_one_line(wrong, "r: not a PNG file")
    assert not page.exists()
