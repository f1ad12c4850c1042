"""CPUs of the process, with and without an affinity mask."""

import os

import pytest

from histoedge import cpus


def test_the_affinity_mask_limits_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert (cpus.allowed(), cpus.usable()) == (3, 3)


@pytest.mark.parametrize(("count", "usable"), [(8, 8), (None, 1)])
def test_without_an_affinity_mask_the_machine_counts(
    monkeypatch: pytest.MonkeyPatch, count: int | None, usable: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert (cpus.allowed(), cpus.usable()) == (None, usable)
