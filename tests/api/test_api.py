"""The Python API: the commands as functions, alike in names and defaults, and light to import."""

import inspect
from pathlib import Path
from typing import Any

import click
import pytest

import histoedge
from histoedge.cli import main
from histoedge.edge.errors import ConfigError, DataError, HistoedgeError

COMMANDS = [name for name in histoedge.__all__ if not name.startswith("_")]
OF_PYTHON = {"progress", "tell"}
"""What a function takes and a command shows."""

OF_THE_COMMAND = {"json", "compare", "verbose"}
"""What is of the terminal alone, and the one option that makes another command."""


def name_of(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return str(parameter.name).removesuffix("_folder")
    return max(parameter.opts, key=len).removeprefix("--").replace("-", "_")


def default_of(parameter: click.Parameter) -> Any:
    """What the command takes where nothing is given."""
    if parameter.required:
        return inspect.Parameter.empty
    if isinstance(parameter.default, str | int | float | Path):
        return parameter.default
    several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    return () if several else False if getattr(parameter, "is_flag", False) else None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_function_takes_what_its_command_takes(command: str) -> None:
    parameters = {name_of(one): one for one in main.commands[command].params if name_of(one) not in OF_THE_COMMAND}
    signature = inspect.signature(getattr(histoedge, command)).parameters
    assert set(signature) - OF_PYTHON == set(parameters)
    for name, parameter in parameters.items():
        if isinstance(parameter, click.Argument):
            assert signature[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        elif (command, name) not in [("run", "data"), ("train", "data"), ("tune", "data")]:  # their subject
            assert signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        # what bench --compare does without; one thread, which only the help of predict tells
        if (command, name) not in [*(("bench", name) for name in ("places", "data", "out")), ("predict", "threads")]:
            assert str(signature[name].default) == str(default_of(parameter))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_function_is_documented(command: str) -> None:
    assert inspect.getdoc(getattr(histoedge, command))
    assert inspect.signature(getattr(histoedge, command)).return_annotation is not inspect.Signature.empty


@pytest.mark.lab
def test_what_cannot_be_done_is_a_deliberate_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(DataError, match="no such folder"):
        histoedge.train(tmp_path / "nowhere", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean onnx"):
        histoedge.export(tmp_path / "run", format="onx")
    with pytest.raises(HistoedgeError, match="no such weights"):
        histoedge.compress(tmp_path / "run", data="synthetic")
    assert not (tmp_path / "run").exists()
