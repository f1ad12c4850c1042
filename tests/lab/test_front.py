"""The settings file of a point of the front."""

import dataclasses
import json
from pathlib import Path

import pytest
from branched_networks import NETWORKS, conv, head

from histoedge.config import TrainConfig
from histoedge.lab import catalogue, front
from histoedge.lab.architecture import Network

pytestmark = pytest.mark.lab

SMALL_PATCHES = Network("small", (conv("", 8, kernel=4, stride=4), head(16)), patch_px=64)


def point_of(network: Network) -> front.Point:
    return front.Point(
        trial=1,
        valid_auc=0.9,
        p50_ratio=1.0,
        int8_p50_us=100.0,
        mmac=1.0,
        int8_kb=10.0,
        train=dataclasses.asdict(TrainConfig()),
        network=json.loads(json.dumps(network.as_json())),
    )


@pytest.mark.parametrize("network", [*NETWORKS.values(), SMALL_PATCHES], ids=lambda network: network.name)
def test_the_settings_file_contains_the_whole_network(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    file.write_text(front.settings_toml(point_of(network)))
    assert catalogue.read_network(file) == network


def test_the_shape_of_a_row_is_one_word() -> None:
    assert point_of(NETWORKS["residual"]).shape == "8s2 8 8 add avgpoolk48"
    assert point_of(NETWORKS["mobile"]).shape == (
        "depthwisek1 8s2 24k1 depthwises2 8k1 activation depthwise activation avgpoolk24"
    )
