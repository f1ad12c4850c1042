"""The generated pages equal the committed ones, and each figure has its command."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"

Script = Callable[[str], ModuleType]


def test_the_committed_pages_are_generated_from_the_committed_results(script: Script) -> None:
    pages = dict(script("pages").all_pages())
    machines = {path.parent for path in FOLDER.glob("results/*/*.json")}
    assert {machine / "README.md" for machine in machines} < set(pages)
    assert {FOLDER / "README.md", FOLDER.parent / "README.md"} < set(pages)
    assert {path.parent / "README.md" for path in FOLDER.parent.glob("exported/*/models")} < set(pages)
    for path, text in pages.items():
        assert path.read_text() == text, f"{path}: make tables"
    readme = (FOLDER.parent / "README.md").read_text()
    assert script("pages").released() in readme


def test_each_question_has_figures_with_command_and_machine(script: Script) -> None:
    index = (FOLDER / "README.md").read_text()
    results = script("committed").committed_results()
    for question in script("questions").QUESTIONS:
        parts = script("questions").question_parts(question, results)
        commands = [part for part in parts if re.fullmatch(r"`.+`:\n", part)]
        tables = [part for part in parts if part.startswith("| figure | [")]
        assert len(commands) == len(tables) > 0
        assert "\n".join(parts) in index
        assert all("](results/" in table.splitlines()[0] for table in tables)


def test_each_link_of_the_index_leads_to_a_section(script: Script) -> None:
    links = re.findall(r"\]\((results/[^)#]+)#([^)]+)\)", (FOLDER / "README.md").read_text())
    assert len(links) > 20
    for path, anchor in links:
        assert f"\n## {anchor}\n" in (FOLDER / path).read_text()
    titles = re.findall(r"^## (.+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    anchors = re.findall(r"\]\(#([^)]+)\)", (FOLDER / "README.md").read_text())
    assert [script("pages")._anchor(title) for title in titles] == anchors


def test_each_results_file_has_a_section_with_its_command() -> None:
    for path in FOLDER.glob("results/*/*.json"):
        page = (path.parent / "README.md").read_text()
        section = page.partition(f"\n## {path.stem}\n")[2].partition("\n## ")[0]
        assert f"[`{path.name}`]({path.name})" in section
        assert json.loads(path.read_text()).get("command", "histoedge") in section or path.stem == "suite"


def test_a_table_has_text_on_the_left_numbers_on_the_right_and_the_stated_order(script: Script) -> None:
    rows = [{"size": 12_345, "name": "a|b", "share": 0.5, "note": None}, {"size": 1, "name": "c", "share": 2e-5}]
    table = script("markdown_table").records_table(["name", "share", "size"], rows)
    assert table.splitlines() == [
        "| name | share | size |",
        "|---|---:|---:|",
        "| a\\|b | 0.5 | 12,345 |",
        "| c | 2e-05 | 1 |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ([], "none"), (["a", "b"], "a, b"), (True, "True"), (68_700.4, "68,700"), (0.12345, "0.1235")],
)
def test_values_are_written_short(script: Script, value: object, text: str) -> None:
    assert script("markdown_table").cell_text(value) == text


def test_documents_without_columns_have_an_order_of_their_kind(script: Script) -> None:
    for path in FOLDER.glob("results/*/*.json"):
        document = json.loads(path.read_text())
        if "rows" in document and "columns" not in document and document["kind"] not in ("peers", "ablations"):
            columns = script("sections").COLUMNS[document["kind"]]
            assert sorted(columns) == sorted(document["rows"][0])
