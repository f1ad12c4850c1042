"""The Markdown pages: their commands parse, their links lead somewhere, what they name exists."""

import contextlib
import dataclasses
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from histoedge import __version__, files
from histoedge.benchmark import results
from histoedge.cli import main
from histoedge.config import RECIPES
from histoedge.data import description, hdf5, image, pcam, table
from histoedge.edge import Manifest, golden, manifest
from histoedge.edge import __main__ as edge_commands
from histoedge.edge.doctor import handover
from histoedge.scanning import readers

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="not a checkout")

PATTERNS = ("*.md", "benchmarks/*.md", "exported/**/*.md", "histoedge/*.md", "histoedge/**/*.md.template", "tests/*.md")
PAGES = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})

PLACEHOLDER = re.compile(r"[*<{$]|/[A-Z]+\b(?!\.)")
"""A word of a path that is not the name of a file."""

GENERATED = "CLI.md"
"""Written from the commands themselves; its lines of usage are not commands to type."""

NUMBER = re.compile(r"[NS]")
"""A placeholder in place of a number."""

Place = tuple[str, str, bool]
"""Page, command, and whether it is a line of a code block, which must be complete."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[str]:
    return re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


def shell_lines(text: str) -> list[str]:
    """The lines of all code blocks, with continued lines joined."""
    return [line.strip() for block in blocks(text) for line in re.sub(r"\\\n\s*", "", block).splitlines()]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without comments, redirections, quotes and variables set before it."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
    except ValueError:  # a quote is left open: prose
        return
    for separator, group in itertools.groupby(words, key=lambda word: bool(re.fullmatch(r"[|&;()]+", word))):
        command = list(group)
        if separator:
            continue
        while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
            command.pop(0)
        if any(word in ("<", ">", ">>") for word in command):
            command = command[: next(i for i, word in enumerate(command) if word in ("<", ">", ">>"))]
        yield command


def split_of_alternatives(line: str) -> list[str]:
    """The line once for each of ``a|b``, without the brackets of what may be left out and without ``...``."""
    line = re.sub(r"\[([^\]]*)\]", r"\1", line).replace("...", " ")
    words = [word.split("|") if re.fullmatch(r"[\w.-]+(\|[\w.-]+)+", word) else [word] for word in line.split(" ")]
    longest = max(len(word) for word in words)
    return [" ".join(word[min(number, len(word) - 1)] for word in words) for number in range(longest)]


def histoedge_commands() -> Iterator[Place]:
    for page in (page for page in PAGES if page.name != GENERATED):
        text = page.read_text()
        for lines, complete in ((shell_lines(text), True), (code_spans(text), False)):
            for line in lines:
                if re.search(r"(?:^|[\s/(])(?:histoedge|edge)\s|-m (?:histoedge\.)?edge", line):
                    yield name_of(page), line, complete


COMMANDS = list(dict.fromkeys(histoedge_commands()))


def parse(words: list[str]) -> bool:
    """Parse one command as it would be parsed when it is run; False for other programs.

    Raises:
        click.UsageError: it would be refused.
        ValueError: the same of a command of the edge.
    """
    if Path(words[0]).name == "histoedge":
        parse_histoedge(words[1:])
        return True
    if Path(words[0]).name.startswith("python") and words[1:3] in (["-m", "histoedge.edge"], ["-m", "edge"]):
        parse_edge(words[3:])
        return True
    if Path(words[0]).name.startswith("python") and words[1:3] == ["-m", "histoedge"]:
        parse_histoedge(words[3:])
        return True
    return False


def parse_histoedge(words: list[str]) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="histoedge")
    words = ["1" if NUMBER.fullmatch(word) else word for word in words]
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            command.make_context("histoedge", words or ["--help"])
            return
        name = words.pop(0)
        if name == "COMMAND":
            return
        if name not in command.commands:
            raise click.UsageError(f"no such command: {name}")
        command = command.commands[name]
        if not words:  # the command's name alone, in prose
            return
    command.make_context(command.name, words, parent=context)


def parse_edge(words: list[str]) -> None:
    if words in ([], ["COMMAND"]):
        return
    try:
        edge_commands._parser().parse_args(words)
    except SystemExit as stopped:
        if stopped.code:
            raise ValueError(f"wrong usage of the edge: {words}") from stopped


@pytest.mark.parametrize(("page", "line", "complete"), COMMANDS, ids=[f"{page}: {line}" for page, line, _ in COMMANDS])
def test_every_command_shown_parses(page: str, line: str, complete: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("histoedge.progress.show_log", lambda: None)
    for single in split_of_alternatives(line):
        for words in simple_commands(single):
            missing = contextlib.nullcontext() if complete else contextlib.suppress(click.MissingParameter)
            with missing, contextlib.suppress(click.exceptions.Exit):
                if words:
                    parse(words)


def test_the_check_of_commands_sees_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {name for name in main.commands if any(f"histoedge {name}" in line for _, line, _ in COMMANDS)}
    assert len(shown) >= 15
    for wrong in ("histoedge predikt A B", "histoedge predict --at", "histoedge scan A --model B --out C --nope"):
        with pytest.raises(click.UsageError):
            parse(wrong.split())
    with pytest.raises(click.UsageError):
        parse(["histoedge", "bench", "RUN", "--threads", "none"])
    with pytest.raises(ValueError, match="wrong usage"):
        parse(["python", "-m", "histoedge.edge", "doctor", "DIR"])
    assert split_of_alternatives("a b|c [--d N]...") == ["a b --d N ", "a c --d N "]
    assert list(simple_commands("X=1 a 'b c' | d > e # f")) == [["a", "b c"], ["d"]]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(place), f"{name_of(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_script_and_extra_exists(page: Path) -> None:
    text = page.read_text()
    code = [*shell_lines(text), *code_spans(text)]
    for line in code:
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert target in makefile_targets(), line
        for script in re.findall(r"^(?:[A-Z_]+=\S+ )*(?:\S*/)?python (benchmarks/\S+)", line):
            assert (ROOT / script).exists(), line
        for names in re.findall(r"pip install (?:-e )?'?(?:\.|histoedge)\[([\w,-]+)\]", line):
            assert set(names.split(",")) <= extras(), line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_of_the_repository_exists(page: Path) -> None:
    for span in code_spans(page.read_text()):
        for word in span.split():
            if re.match(r"(?:benchmarks|exported|histoedge|tests)/", word) and not PLACEHOLDER.search(word):
                assert (ROOT / word).exists(), f"{name_of(page)}: {word}"


def test_the_rooms_and_layers_of_the_architecture_page_are_those_of_the_package() -> None:
    page = (ROOT / "histoedge" / "README.md").read_text()
    section = page.partition("## The rooms\n")[2].partition("\n## ")[0]
    rooms = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    paths = [*(ROOT / "histoedge").glob("*/__init__.py"), *(ROOT / "histoedge").glob("[a-z]*.py")]
    assert sorted(rooms) == sorted(path.parent.name if path.name == "__init__.py" else path.stem for path in paths)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["histoedge"]]
    assert blocks(section)[0].split("\n")[:-1] == layers


def test_every_module_that_the_architecture_page_names_exists() -> None:
    package = ROOT / "histoedge"
    rooms = [path.name for path in package.iterdir() if (path / "__init__.py").is_file()]
    spans = code_spans((package / "README.md").read_text())
    words = [word for span in spans for word in re.findall(rf"^(?:{'|'.join(rooms)})[./]\w+", span)]
    assert len(words) >= 15
    for room, name in (re.split(r"[./]", word) for word in words):
        code = (package / room / "__init__.py").read_text()
        assert (package / room / f"{name}.py").is_file() or re.search(rf"\b{name}\b", code), f"{room}.{name}"


def test_the_architecture_page_lists_every_key_of_a_manifest() -> None:
    page = (ROOT / "histoedge" / "README.md").read_text()
    table = re.findall(r"^\| (`.*?`) \|", page.partition("the manifest (`edge/manifest.py`)")[2], re.MULTILINE)
    keys = re.findall(r"`(\w+)`", " ".join(table))
    assert sorted(keys) == sorted([*(field.name for field in dataclasses.fields(Manifest)), "digest"])


def test_the_guide_lists_every_recipe_and_extra() -> None:
    guide = (ROOT / "histoedge" / "GUIDE.md").read_text()
    for title, names in (("Recipes", RECIPES), ("Install", extras() - {"dev"})):
        section = guide.partition(f"## {title}\n")[2].partition("\n## ")[0]
        listed = re.findall(r"`(\w[\w-]*)`", " ".join(re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)))
        assert sorted(listed) == sorted(names)


def test_the_citation_has_what_the_format_requires_and_the_version_of_the_package() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_the_hooks_before_a_commit_run_what_make_check_runs() -> None:
    yaml = pytest.importorskip("yaml")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    lines = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert [hook["entry"] for hook in hooks] == lines


def test_every_file_of_the_package_is_in_the_wheel() -> None:
    """Files that are no code and no page are listed in ``package-data``, by the package they are in."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "histoedge").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md") and not path.name.startswith("."):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in patterns.get(package, [])), path


def test_the_limits_in_the_security_page_are_those_of_the_code() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    limits = {
        "model file": manifest.LARGEST_MODEL_BYTES,
        "manifest": manifest.LARGEST_MANIFEST_BYTES,
        "golden file": golden.LARGEST_GOLDEN_BYTES,
        "results JSON": results.LARGEST_RESULTS_BYTES,
        "verdict, scan summary": files.LARGEST_JSON_BYTES,
        "LOGITS.csv": handover.LARGEST_CSV_BYTES,
        "patch image": image.LARGEST_FILE_BYTES,
        "label table": table.LARGEST_FILE_BYTES,
        "`.npz` and parquet data": pcam.SMALL_UNPACKED_BYTES,
        "`data.toml`": description.LARGEST_FILE_BYTES,
        "HDF5 patches": hdf5.LARGEST_CHUNK_BYTES,
        "weights": hdf5.LARGEST_ARRAYS_BYTES,
        "`.h5.gz`": pcam.LARGEST_UNPACKED_BYTES,
        "slide": readers.LARGEST_DECODED_BYTES,
    }
    section = page.partition("| input | limit |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (.*?) \| (.*) \|$", section, re.MULTILINE))
    assert rows.keys() == limits.keys()
    for name, limit in limits.items():
        number, unit = re.findall(r"(\d+) ([KMG]iB)", rows[name])[0]
        assert int(number) << {"KiB": 10, "MiB": 20, "GiB": 30}[unit] == limit, name
    assert f"{golden.LARGEST_GOLDEN_ARRAY_BYTES >> 20} MiB unpacked" in rows["golden file"]
    small, ratio = f"{pcam.SMALL_UNPACKED_BYTES >> 20} MiB", f"{pcam.LARGEST_RATIO} times the packed size"
    assert f"the larger of {small} and {ratio}" in rows["`.h5.gz`"]


def test_the_changelog_has_the_version_and_the_groups_of_its_format() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}] - " in changes
    groups = re.findall(r"^### (\w+)$", changes, re.MULTILINE)
    assert groups
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_readme_stays_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    cards = {name_of(path) for path in ROOT.glob("exported/*/README.md")}
    pages = {name_of(path) for path in PAGES if path.suffix == ".md"} - cards - {"README.md"}
    assert pages <= links
