"""The Python API: functions with the names and defaults of the commands, and a fast import."""

import inspect
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import histoedge
from histoedge.cli import main
from histoedge.edge.errors import ConfigError, DataError, HistoedgeError, ModelError

COMMANDS = [name for name in histoedge.__all__ if not name.startswith("_")]
PYTHON_ONLY = {"progress", "on_outcome"}
"""Callbacks, which a command prints instead."""

COMMAND_ONLY = {"json", "compare", "verbose"}
"""Options for the terminal, and ``bench --compare``, which is another function."""


def name_of(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return str(parameter.name).removesuffix("_folder")
    return max(parameter.opts, key=len).removeprefix("--").replace("-", "_")


def default_of(parameter: click.Parameter) -> Any:
    """Return the default of a command's parameter."""
    if parameter.required:
        return inspect.Parameter.empty
    if isinstance(parameter.default, str | int | float | Path):
        return parameter.default
    several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    return () if several else False if getattr(parameter, "is_flag", False) else None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_function_has_the_parameters_of_its_command(command: str) -> None:
    parameters = {
        name_of(parameter): parameter
        for parameter in main.commands[command].params
        if name_of(parameter) not in COMMAND_ONLY
    }
    signature = inspect.signature(getattr(histoedge, command)).parameters
    assert set(signature) - PYTHON_ONLY == set(parameters)
    for name, parameter in parameters.items():
        if isinstance(parameter, click.Argument):
            assert signature[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        elif (command, name) not in [("run", "data"), ("train", "data"), ("tune", "data")]:  # positional
            assert signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        # optional for bench --compare; the default of one thread is only in the help of predict
        if (command, name) not in [*(("bench", name) for name in ("places", "data", "out")), ("predict", "threads")]:
            assert str(signature[name].default) == str(default_of(parameter))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_function_is_documented(command: str) -> None:
    assert inspect.getdoc(getattr(histoedge, command))
    assert inspect.signature(getattr(histoedge, command)).return_annotation is not inspect.Signature.empty


def command(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, red in (("b", 255), ("a", 0)):
        Image.fromarray(np.full((96, 96, 3), (red, 0, 0), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_predict_is_the_command(mean_red: Path, images: Path, tmp_path: Path) -> None:
    calls: list[Any] = []
    predictions = histoedge.predict(
        str(mean_red), images, csv=tmp_path / "a.csv", progress=lambda *arguments: calls.append(arguments)
    )
    assert [(row.id, row.positive) for row in predictions] == [("a", True), ("b", True)]
    assert calls == [("predict, images", 1, 2), ("predict, images", 2, 2)]
    command("predict", mean_red, images, "--csv", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert histoedge.predict(mean_red, [images / "b.png"])[0] == predictions[1]


def test_verify_embed_and_diff_are_the_commands(mean_red: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no passing verdict"):
        histoedge.embed(mean_red, into=tmp_path / "into")
    assert histoedge.verify(str(mean_red)).passed
    written = histoedge.embed(str(mean_red), into=str(tmp_path / "into"))
    command("embed", mean_red, "--into", tmp_path / "again")
    again = sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file())
    assert list(written) == again
    assert histoedge.diff(mean_red, str(mean_red)).need == "nothing"
    assert "new validation needed? no" in command("diff", mean_red, mean_red)


def test_explain_is_the_command(mean_red: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    explained = histoedge.explain(mean_red, images / "b.png", out=tmp_path / "out")
    assert [row["id"] for row in explained.images] == ["b"]
    assert explained.contact_sheet is None
    shown = command("explain", mean_red, images / "b.png", "--out", tmp_path / "out")
    assert explained.images[0]["picture"] in shown
    with pytest.raises(ConfigError, match="explain needs patches"):
        histoedge.explain(mean_red)


def test_bench_and_report_are_the_commands(mean_red: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    data, settings, out = tmp_path / "data", tmp_path / "quick.toml", tmp_path / "r.json"
    command("data", "synth", data, "--patches", 64)
    settings.write_text("[bench]\nrounds = 2\nruns_per_round = 3\nwarmup_runs = 1\n")
    arguments = {"data": data, "out": out, "config": settings, "runtime": "onnxruntime"}
    benched = histoedge.bench(mean_red, **arguments, gate=["auc >= 0", "size_bytes < 1"], junit=tmp_path / "j.xml")
    assert [row.runtime for row in benched.results.measurements] == ["onnxruntime"]
    assert [gate.outcome for gate in benched.gates] == ["passed", "failed"]
    assert benched.open_gates == ("size_bytes < 1",)
    assert (tmp_path / "j.xml").is_file()
    with pytest.raises(ConfigError, match="add --gate EXPR"):
        histoedge.bench(mean_red, **arguments, junit=tmp_path / "j.xml")
    assert histoedge.report(out, html=tmp_path / "a.html", md=str(tmp_path / "a.md")) == benched.results
    command("report", out, "--html", tmp_path / "b.html", "--md", tmp_path / "b.md")
    for kind in ("html", "md"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(ConfigError, match="also give --html"):
        histoedge.report(out, flips=tmp_path / "f.png")


def test_scan_is_the_command(mean_red: Path, tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    Image.new("RGB", (256, 256)).save(tmp_path / "s.png")
    (done,) = histoedge.scan(tmp_path / "s.png", model=mean_red, out=tmp_path / "maps", um_per_px=0.972, workers=1)
    assert done.status == "done"
    shown = command(
        *("scan", tmp_path / "s.png", "--model", mean_red, "--out", tmp_path / "maps"),
        *("--um-per-px", 0.972, "--workers", 1, "--json"),
    )
    assert '"status": "kept"' in shown


def test_expected_errors_are_histoedge_errors(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(DataError, match="no such folder"):
        histoedge.train(tmp_path / "nowhere", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean onnx"):
        histoedge.export(tmp_path / "run", format="onx")
    with pytest.raises(HistoedgeError, match="no such weights"):
        histoedge.compress(tmp_path / "run", data="synthetic")
    assert not (tmp_path / "run").exists()
