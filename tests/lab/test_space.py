"""The networks that the search of ``tune`` draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoedge.config import TrainConfig
from histoedge.edge.errors import ConfigError
from histoedge.lab import backend, catalogue, space, symmetry, weights
from histoedge.lab.architecture import Network

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.lab


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
    fixed = {"symmetric": False, "stem_kernel": 3, "stem_stride": 4, "stem_channels": 8, "batch": 32}
    stages = {f"rows_{stage}": 1 for stage in (1, 2, 3)} | {f"channels_{stage}": 16 for stage in (1, 2, 3)}
    blocks = {"block_1": "residual", "block_2": "separable", "block_3": "plain"}
    network = chosen_network({**fixed, **stages, **blocks})
    inputs = {node.name: node.inputs for node in network.nodes}
    assert list(inputs) == ["stem", "conv2", "conv3", "conv4", "add5", "depthwise6", "conv7", "conv8", "head"]
    assert inputs["add5"] == ("conv2", "conv4")
    assert [row.stride for row in network.rows] == [4, 1, 1, 1, 1, 2, 1, 2, 1]
    keras = backend.keras()
    field = np.random.default_rng(0).random((1, 128, 128, 3), dtype=np.float32)
    model = weights.build(keras, network, field_px=None)
    answers, corner = np.asarray(model(field)), np.asarray(model(field[:, 32:, 32:]))
    np.testing.assert_allclose(answers[0, -1, -1], corner[0, 0, 0], atol=1e-5)


def chosen_network(parameters: dict[str, Any]) -> Network:
    """The network of a trial with these parameters and the first or lowest value of all others."""
    values = {"learning_rate": 1e-3, "weight_decay": 1e-2, "stain_jitter": 0.0, "focus": 0.0, "shift_px": 0}
    return space.suggest(optuna.trial.FixedTrial({**values, **parameters}), TrainConfig(network="tuned"))[1]


def test_a_file_with_a_network_of_its_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[network]\nname = "nano"\nrows = []\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: tune searches the network"):
        space.base_settings(file, family="nano", epochs=None, seed=None)
