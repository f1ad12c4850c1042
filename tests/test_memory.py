"""Available memory, from the files of control groups."""

from pathlib import Path

import psutil
import pytest

from histoedge import memory


def test_without_a_limit_the_machines_memory_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    available = memory.free()
    assert available.limited_by == "this machine"
    assert available.free_bytes <= psutil.virtual_memory().total
    assert memory.limit_bytes() is None


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (
            {"memory.max": "4000000", "memory.current": "3000000", "memory.stat": "inactive_file 500000\nanon 1\n"},
            1500000,
        ),
        ({"memory.max": "max", "memory.current": "3000000"}, None),
        ({"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "5"}, None),
        (
            {
                "memory.limit_in_bytes": "4000000",
                "memory.usage_in_bytes": "1000000",
                "memory.stat": "inactive_file 1\ntotal_inactive_file 100000\ntotal_active_file 200000\n",
            },
            3300000,
        ),
        ({"memory.max": "1000", "memory.current": "5000"}, 0),
    ],
)
def test_a_control_groups_file_pages_count_as_free(tmp_path: Path, files: dict[str, str], free: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert memory._left(tmp_path) == free


def test_the_lowest_limit_of_a_group_and_its_parents_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("900\n")
    (inner.parent / "memory.max").write_text("700\n")
    memberships = tmp_path / "cgroup"
    memberships.write_text("0::/outer/inner\n5:devices:/elsewhere\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "MEMBERSHIPS", memberships)
    assert memory.limit_bytes() == 700
    assert memory.free() == memory.Memory(700, "the control group")
