"""histoedge/CLI.md is what ``make reference`` writes, and leaves out no command, option or exit code."""

import re
from collections.abc import Iterator

import click
import pytest

from histoedge.cli import command_reference as reference
from histoedge.cli import main
from histoedge.cli.group import INTERRUPTED
from histoedge.edge import __main__ as edge_commands
from histoedge.edge.errors import HistoedgeError

pytestmark = pytest.mark.skipif(not reference.PAGE.is_file(), reason="not a checkout")


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


ALL = dict(commands(main, "histoedge"))


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^##+ (.*)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def error_codes(kind: type[HistoedgeError]) -> set[int]:
    return {kind.exit_code}.union(*(error_codes(inner) for inner in kind.__subclasses__()))


def test_the_committed_page_is_the_generated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # the page does not depend on the terminal
    assert reference.PAGE.read_text() == reference.reference(), "run `make reference`"


def test_every_command_has_a_section_and_no_section_lacks_a_command() -> None:
    titles = [title for title in sections(reference.PAGE.read_text()) if title.startswith("histoedge ")]
    assert sorted(titles) == sorted(ALL)
    assert len(ALL) >= 17


@pytest.mark.parametrize("path", ALL)
def test_every_option_is_listed_with_its_help_and_default(path: str) -> None:
    section = sections(reference.PAGE.read_text())[path]
    for option in (param for param in ALL[path].params if isinstance(param, click.Option)):
        names = [*option.opts, *option.secondary_opts]
        (line,) = [line for line in section.splitlines() if re.match(rf"- `{', '.join(names)}[ `]", line)]
        assert option.help, f"{path} {names}: no help"
        assert line.partition("`: ")[2], line
        assert not option.show_default or f"Default: {option.default}." in line
        assert not option.required or "Required." in line


@pytest.mark.parametrize("path", ALL)
def test_every_argument_is_in_the_usage_and_explained(path: str) -> None:
    page = sections(reference.PAGE.read_text())
    usage = page[path].strip().splitlines()[0]
    for argument in (param for param in ALL[path].params if isinstance(param, click.Argument)):
        name = argument.make_metavar(click.Context(ALL[path]))
        assert name in usage
        for word in [] if isinstance(argument.type, click.Choice) else re.findall(r"[A-Za-z.]*[A-Za-z]", name):
            assert f"| `{word}` |" in page["Arguments"]


def test_every_exit_code_is_listed() -> None:
    listed = {
        int(code) for code in re.findall(r"^\| (\d+) \|", sections(reference.PAGE.read_text())["Exit codes"], re.M)
    }
    assert listed == {0, click.UsageError.exit_code, INTERRUPTED} | error_codes(HistoedgeError)


def test_every_command_of_the_edge_is_listed_with_its_options() -> None:
    (inner,) = [action.choices for action in edge_commands._parser()._actions if isinstance(action.choices, dict)]
    assert sorted(inner) == sorted(reference.EDGE_COMMANDS)
    page = sections(reference.PAGE.read_text())
    for name, parser in inner.items():
        for action in parser._actions:
            shown = action.metavar if not action.option_strings else action.option_strings[-1]
            assert str(shown) in page[f"python -m histoedge.edge {name}"]
            assert action.help
