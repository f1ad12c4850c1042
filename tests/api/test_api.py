"""The Python API: functions with the names and defaults of the commands, and a fast import."""

import inspect
from pathlib import Path
from typing import Any

import click
import pytest

import histoedge
from histoedge.cli import main
from histoedge.edge.errors import ConfigError, DataError, HistoedgeError

COMMANDS = [name for name in histoedge.__all__ if not name.startswith("_")]
COMMAND_OF = {"import_model": "import"}
"""Names of commands that Python does not allow as names of functions."""
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
    options = main.commands[COMMAND_OF.get(command, command)].params
    parameters = {name_of(each): each for each in options if name_of(each) not in COMMAND_ONLY}
    signature = inspect.signature(getattr(histoedge, command)).parameters
    assert set(signature) - PYTHON_ONLY == set(parameters)
    for name, parameter in parameters.items():
        if isinstance(parameter, click.Argument):
            assert signature[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        elif (command, name) not in [("run", "data"), ("train", "data"), ("tune", "data")]:  # their subject
            assert signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        # optional for bench --compare; the default of one thread is only in the help of predict
        if (command, name) not in [*(("bench", name) for name in ("places", "data", "out")), ("predict", "threads")]:
            assert str(signature[name].default) == str(default_of(parameter))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_function_is_documented(command: str) -> None:
    assert inspect.getdoc(getattr(histoedge, command))
    assert inspect.signature(getattr(histoedge, command)).return_annotation is not inspect.Signature.empty


@pytest.mark.lab
def test_expected_errors_are_histoedge_errors(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(DataError, match="no such folder"):
        histoedge.train(tmp_path / "nowhere", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean onnx"):
        histoedge.export(tmp_path / "run", format="onx")
    with pytest.raises(HistoedgeError, match="no such weights"):
        histoedge.compress(tmp_path / "run", data="synthetic")
    assert not (tmp_path / "run").exists()
