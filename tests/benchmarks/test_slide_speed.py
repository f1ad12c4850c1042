"""benchmarks/slide_speed.py"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

Script = Callable[[str], ModuleType]
Section = Callable[[dict[str, Any]], str]


def test_the_tables_of_slides_follow_each_other(section: Section) -> None:
    tables = [{"about": f"About {name}.", "columns": [name], "rows": [{name: 1.5}]} for name in ("one", "two")]
    text = section({"kind": "slides", "command": "F", "about": "", "tables": tables})
    assert "About one.\n\n| one |\n|---:|\n| 1.5 |\n" in text
    assert "About two.\n\n| two |" in text
