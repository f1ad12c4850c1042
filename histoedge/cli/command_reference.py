"""The reference of the command line: ``python -m histoedge.cli.command_reference`` writes ``histoedge/CLI.md``."""

import contextlib
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from histoedge import files
from histoedge.cli import main
from histoedge.cli.group import INTERRUPTED
from histoedge.edge import __main__ as edge_commands
from histoedge.edge.errors import ComparisonFailed, HistoedgeError

PAGE = Path(__file__).parents[1] / "CLI.md"

EXIT_CODES = {
    0: "done",
    HistoedgeError.exit_code: "an error with a one-line message on stderr: a file is missing, altered or unsuitable, a "
    "setting is wrong, a package is not installed; also `scan` when a slide failed",
    click.UsageError.exit_code: "wrong usage: an unknown command or option, or a missing argument",
    ComparisonFailed.exit_code: "a comparison failed: `verify`, `run` (a file fails verification), `bench` (a gate "
    "does not pass), `doctor` (the logits are wrong), `selftest`",
    INTERRUPTED: "stopped with Ctrl-C; the same command resumes",
}
"""Exit code of the process, and its meaning."""

PLACEHOLDERS = {
    "DATA": "a folder with patches and labels in one of the layouts of `list layouts`, or the word `synthetic`",
    "RUN": "the folder of a run",
    "MODEL": "an exported `.onnx` or `.tflite` file, with its manifest and golden patches next to it; `explain` also "
    "accepts a `.weights.h5` file",
    "A": "the older model",
    "B": "the newer model",
    "IMAGE": "an image file of the model's patch size, 96 x 96 px for PatchCamelyon",
    "SLIDE": "a slide file, or a folder of DICOM files of one slide",
    "FOLDER": "a folder with many images or slides",
    "DIR": "a folder; for `doctor`, `selftest` and `golden` a folder with one model, such as one written by `embed`",
    "OUT": "the folder to write",
    "RESULTS.json": "a results file written by `bench`",
    "LOGITS.csv": "a text file with one logit for each golden patch, one per line and in their order",
}
"""Arguments in capitals, and what to write in their place."""

EDGE_COMMANDS = ("selftest", "golden", "doctor")
WIDTH = 100

HEAD = """# Command line

Generated from the commands by `make reference`; a test compares it with them. Do not edit.

`histoedge COMMAND --help` (or `-h`) prints the same for one command, `histoedge --version` the installed version of
histoedge and of every runtime. With `--json` a command writes one JSON document to stdout and nothing else. The word
"repeatable" means: give the option once for each value. What to do with the commands: [GUIDE.md](GUIDE.md).
"""

EDGE_HEAD = """## python -m histoedge.edge

For the machine that embeds a model: these commands need NumPy and one interpreter. In a folder written by
`histoedge embed` they are `python -m edge COMMAND`. Their exit codes are those above.
"""


def reference() -> str:
    """Return the whole page, Markdown."""
    parts = [HEAD, "## Exit codes\n", *_table(("code", "meaning"), {str(k): v for k, v in EXIT_CODES.items()})]
    parts += ["## Arguments\n", *_table(("argument", "meaning"), {f"`{k}`": v for k, v in PLACEHOLDERS.items()})]
    with click.Context(main, info_name="histoedge") as context:
        for inner in _commands(context):
            parts += _section(inner)
    parts.append(EDGE_HEAD)
    for name in EDGE_COMMANDS:
        parts += [f"### python -m histoedge.edge {name}\n", f"```text\n{_edge_help(name)}```\n"]
    return "\n".join(parts)


def _table(head: tuple[str, str], rows: dict[str, str]) -> list[str]:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {meaning} |" for name, meaning in rows.items())]
    return ["\n".join(lines) + "\n"]


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command, with those of its groups in place of the groups."""
    assert isinstance(context.command, click.Group)
    for name, command in sorted(context.command.commands.items()):
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands(inner)
        else:
            yield inner


def _section(context: click.Context) -> list[str]:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    lines = [_option(option, context) for option in options if "--help" not in option.opts]
    return [f"## {context.command_path}\n", f"`{usage}`\n", f"{inspect.cleandoc(command.help or '')}\n", *lines, ""]


def _option(option: click.Option, context: click.Context) -> str:
    """Return one list item: names with placeholder, meaning, and what click adds in brackets (default, bounds)."""
    names, meaning = option.get_help_record(context) or ("", "")
    words, *brackets = re.split(r"\s*\[(?=default|required|x[<>]|[\d.]+<=x)", meaning)
    facts = [fact for bracket in brackets for fact in bracket.rstrip("] ").split("; ")]
    sentences = [words, *(f"{_fact(fact)}." for fact in facts)]
    return f"- `{names.replace(' RANGE', '')}`: {' '.join(filter(None, sentences))}"


def _fact(fact: str) -> str:
    """Return ``x>=1`` as ``At least 1``, ``1<=x<=9`` as ``From 1 to 9``; other facts with a capital letter."""
    for pattern, words in ((r"x>=(.+)", r"At least \1"), (r"(.+)<=x<=(.+)", r"From \1 to \2")):
        if re.fullmatch(pattern, fact):
            return re.sub(pattern, words, fact)
    return fact[0].upper() + fact[1:]


def _edge_help(name: str) -> str:
    """Return what ``python -m histoedge.edge NAME --help`` prints."""
    text = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            edge_commands.main([name, "--help"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return text.getvalue()


if __name__ == "__main__":
    files.write_text(PAGE, reference())
    sys.stdout.write(f"{PAGE}\n")
