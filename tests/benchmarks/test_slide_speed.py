"""benchmarks/slide_speed.py"""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]
Section = Callable[[dict[str, Any]], str]


@pytest.fixture
def section(script: Script, tmp_path: Path) -> Section:
    """``section(document)``: the section of a results document on the page of its machine."""

    def text(document: dict[str, Any]) -> str:
        path = tmp_path / "machine" / "results.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, sort_keys=True))  # as files.write_json
        return "\n".join(script("sections").section(script("committed").ResultsFile(path)))

    return text


def test_the_tables_of_slides_follow_each_other(section: Section) -> None:
    tables = [{"about": f"About {name}.", "columns": [name], "rows": [{name: 1.5}]} for name in ("one", "two")]
    text = section({"kind": "slides", "command": "F", "about": "", "tables": tables})
    assert "About one.\n\n| one |\n|---:|\n| 1.5 |\n" in text
    assert "About two.\n\n| two |" in text
