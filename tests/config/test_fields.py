import dataclasses

import pytest

from histoedge.config import (
    BenchPlan,
    CompressConfig,
    TrainConfig,
    setting_rows,
    typed_values,
)
from histoedge.lab import architecture, graph


@pytest.mark.parametrize("kind", [TrainConfig, CompressConfig, BenchPlan, architecture.Network, graph.Row])
def test_every_setting_has_a_meaning(kind: type) -> None:
    rows = setting_rows(kind, table="table")
    assert [row["key"] for row in rows] == [field.name for field in dataclasses.fields(kind)]
    assert all(row["meaning"] for row in rows)
    assert {row["unit"] for row in rows} <= {"", "px", "px of its input", "s", "steps", "patches", "calls", "share"}


@pytest.mark.parametrize("kind", [TrainConfig, CompressConfig, BenchPlan])
def test_listed_defaults_are_valid_settings(kind: type) -> None:
    defaults = {row["key"]: row["default"] for row in setting_rows(kind, table="table")}
    assert kind(**typed_values(kind, defaults, where="[table]")) == kind()
