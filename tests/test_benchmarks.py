"""benchmarks/README.md says what the committed results say."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(not (FOLDER / "tables.py").is_file(), reason="not a checkout")
def test_the_tables_are_made_from_the_results() -> None:
    spec = importlib.util.spec_from_file_location("tables", FOLDER / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert (FOLDER / "README.md").read_text() == tables.page()
