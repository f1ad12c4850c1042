"""The section of a results document on its page."""

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
