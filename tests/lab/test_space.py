"""The networks that the search of ``tune`` draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from branched_networks import quantised, random_weights

from histoedge.config import TrainConfig
from histoedge.edge.errors import ConfigError
from histoedge.edge.litert import open_litert
from histoedge.edge.ort import open_ort
from histoedge.lab import catalogue, space, symmetry, to_onnx, to_tflite
from histoedge.lab.architecture import Network

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.lab

ONE_OF_EACH: dict[str, Any] = {
    **{"symmetric": False, "stem_kernel": 3, "stem_stride": 4, "stem_channels": 8, "batch": 32},
    **{f"rows_{stage}": 1 for stage in (1, 2, 3)},
    **{f"channels_{stage}": 16 for stage in (1, 2, 3)},
}


@pytest.mark.parametrize("family", [*catalogue.BUDGETS, "tuned"])
def test_every_point_of_the_space_is_a_network_and_some_keep_the_budget(family: str) -> None:
    random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made = [space.suggest(random.ask(), TrainConfig(network=family)) for _ in range(100)]
    for chosen, network in made:  # Network itself refuses what breaks the contract
        assert network.name == chosen.network == family
        assert {row.channels % 8 for row in network.rows[:-1]} == {0}
        assert {row.kernel for row in network.rows[1:-1]} <= ({3, 4} if network.symmetric else {1, 3})
        assert network.dense
        if network.symmetric:
            symmetry.check_network(network)
    assert {network.symmetric for _, network in made} == {False, True}
    plain = [network for _, network in made if not network.symmetric and network.plain]
    branched = [network for _, network in made if not network.plain]
    assert plain
    assert {row.kind for network in branched for row in network.rows} == {"conv", "depthwise", "add", "head"}
    assert family not in catalogue.BUDGETS or any(catalogue.over_budget(one, family) is None for _, one in made)


def test_a_residual_block_adds_to_its_own_first_convolution() -> None:
    network = chosen_network({**ONE_OF_EACH, "block_1": "residual", "block_2": "separable", "block_3": "plain"})
    inputs = {node.name: node.inputs for node in network.nodes}
    assert list(inputs) == ["stem", "conv2", "conv3", "conv4", "add5", "depthwise6", "conv7", "conv8", "head"]
    assert inputs["add5"] == ("conv2", "conv4")
    assert [row.stride for row in network.rows] == [4, 1, 1, 1, 1, 2, 1, 2, 1]


def test_a_network_of_blocks_has_dense_integer_files_in_both_formats() -> None:
    network = chosen_network({**ONE_OF_EACH, "block_1": "residual", "block_2": "separable", "block_3": "plain"})
    field = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    arrays = quantised(network, random_weights(network), field[:, :96, :96].astype(np.float32) / 255)
    low, high = arrays["head/range"]
    onnx = open_ort(to_onnx.convert(network, arrays, precision="int8"))
    litert = open_litert(to_tflite.convert(network, arrays, precision="int8"))
    patch = onnx.predict(field[:, 32:, 32:])
    np.testing.assert_array_equal(onnx.predict(field)[:, 2:, 2:], patch)
    assert np.abs(litert.predict(field[:, 32:, 32:]) - patch).max() <= 1.01 * (high - low) / 255


def chosen_network(parameters: dict[str, Any]) -> Network:
    """The network of a trial with these parameters and the first or lowest value of all others."""
    values = {"learning_rate": 1e-3, "weight_decay": 1e-2, "stain_jitter": 0.0, "focus": 0.0, "shift_px": 0}
    return space.suggest(optuna.trial.FixedTrial({**values, **parameters}), TrainConfig(network="tuned"))[1]


def test_a_file_with_a_network_of_its_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[network]\nname = "nano"\nrows = []\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: tune searches the network"):
        space.base_settings(file, family="nano", epochs=None, seed=None)
