"""Where the training patches are stored, by the available memory."""

import numpy as np
import pytest

from histoedge import memory
from histoedge.data import Split
from histoedge.edge.errors import ConfigError
from histoedge.lab import catalogue, placement
from histoedge.lab.backend import Devices

pytestmark = pytest.mark.lab

CPU = Devices("a CPU", "cpu")
NANO = catalogue.get_network("nano")


class Huge:
    """So many patches, of which none is ever read."""

    def __init__(self, count: int) -> None:
        self.shape = (count, 96, 96, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: object) -> np.ndarray:
        raise AssertionError("no patch is needed to decide where patches go")


def split(count: int) -> Split:
    return Split("train", Huge(count), np.arange(count) % 2, [""] * count)


@pytest.fixture
def with_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda: 0)

    def of(gigabytes: float) -> None:
        monkeypatch.setattr(memory, "free", lambda: memory.Memory(int(1e9 * gigabytes), "the control group"))

    return of


def test_patches_that_fit_are_stored_and_others_are_read_from_disk(with_memory) -> None:
    with_memory(24)
    held = placement.choose("auto", split(262_144), NANO, batch=128, devices=CPU)
    assert held.on == "device"
    assert "7.2 GB of patches" in held.why
    with_memory(4)
    streamed = placement.choose("auto", split(262_144), NANO, batch=128, devices=CPU)
    assert streamed.on == "disk"
    assert "3.6 GB available (the control group)" in streamed.why
    assert placement.choose("auto", split(1_000), NANO, batch=128, devices=CPU).on == "device"


def test_a_requested_place_is_used_or_refused_with_the_figures(with_memory) -> None:
    with_memory(24)
    assert placement.choose("disk", split(100), NANO, batch=128, devices=CPU).on == "disk"
    with_memory(4)
    with pytest.raises(
        ConfigError,
        match=r"--patches-on device does not fit: 7.2 GB of patches and 1.\d GB for training, 3.6 GB available",
    ):
        placement.choose("device", split(262_144), NANO, batch=128, devices=CPU)


def test_patches_that_the_backend_cannot_store_are_read_from_disk(with_memory) -> None:
    with_memory(24)
    gpu = Devices("a GPU", "gpu")
    assert (
        "tensorflow on a GPU cannot store patches"
        in placement.choose("auto", split(100), NANO, batch=128, devices=gpu).why
    )
    with pytest.raises(ConfigError, match="--patches-on device does not fit: tensorflow on a GPU cannot store patches"):
        placement.choose("device", split(100), NANO, batch=128, devices=gpu)


@pytest.mark.parametrize("asked", ["auto", "device", "disk"])
def test_memory_below_that_of_one_batch_is_refused(with_memory, asked) -> None:
    with_memory(0.9)
    with pytest.raises(ConfigError, match=r"training nano needs about 1.\d GB .* 0.8 GB is available .* smaller"):
        placement.choose(asked, split(100), NANO, batch=128, devices=CPU)
    with pytest.raises(ConfigError, match=r"training needs at least 1.3 GB of memory, 0.8 GB is available"):
        placement.check_minimum_memory()
    with_memory(24)
    placement.check_minimum_memory()
    with pytest.raises(ConfigError, match="for a batch of 65536"):
        placement.choose(asked, split(100), NANO, batch=65_536, devices=CPU)


def test_a_step_takes_more_with_more_patches_and_larger_networks() -> None:
    accurate = catalogue.get_network("accurate")
    assert placement.step_bytes(NANO, 256) == 2 * placement.step_bytes(NANO, 128)
    assert placement.step_bytes(accurate, 128) > placement.step_bytes(NANO, 128)
