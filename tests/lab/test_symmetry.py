from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoedge.edge.errors import ConfigError
from histoedge.lab import backend, symmetry, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row

pytestmark = pytest.mark.lab

SMALL = Network(
    "small",
    (
        Row(kind="conv", channels=8, kernel=8, stride=4),
        Row(kind="conv", channels=16, kernel=3, dropout=0.1),
        Row(kind="maxpool", kernel=3, stride=2),
        Row(kind="conv", channels=8, kernel=3),
        Row(kind="head", channels=1, kernel=8, bias=True),
    ),
)


def orientations(patches: np.ndarray) -> list[np.ndarray]:
    """The eight orientations of (n, side, side, 3)."""
    turned = [np.rot90(patches, quarters, axes=(1, 2)) for quarters in range(4)]
    return turned + [np.flip(one, axis=2) for one in turned]


@pytest.fixture(scope="module")
def model() -> Any:
    """The symmetric form with random weights, batch norm's included."""
    keras = backend.keras()
    keras.utils.set_random_seed(1)
    model = symmetry.build(keras, SMALL)
    random = np.random.default_rng(0)
    arrays = weights.get_weights(model)
    for key, value in arrays.items():
        low, high = (0.5, 1.5) if key.endswith(("gamma", "variance")) else (-0.5, 0.5)
        if not key.endswith("kernel"):
            arrays[key] = random.uniform(low, high, value.shape).astype(np.float32)
    weights.set_weights(model, arrays, where="test")
    return model


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(2).random((3, 96, 96, 3), dtype=np.float32)


def test_all_orientations_of_a_patch_get_one_answer(model: Any, pixels: np.ndarray) -> None:
    answers = [np.asarray(model(np.ascontiguousarray(turned))) for turned in orientations(pixels)]
    assert np.std(answers[0]) > 0.01
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


def test_the_plain_network_answers_as_its_symmetric_form(model: Any, pixels: np.ndarray) -> None:
    plain = weights.build(backend.keras(), SMALL)
    weights.set_weights(plain, symmetry.expand(SMALL, weights.get_weights(model)), where="test")
    np.testing.assert_allclose(np.asarray(plain(pixels)), np.asarray(model(pixels)), atol=1e-5)


def test_the_first_block_contains_the_shared_weights(model: Any) -> None:
    arrays = weights.get_weights(model)
    back = symmetry.first_block(SMALL, symmetry.expand(SMALL, arrays))
    assert back.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)


def test_an_eighth_of_the_parameters_is_trained(model: Any) -> None:
    kernels = {name: value.size for name, value in weights.get_weights(model).items() if name.endswith("kernel")}
    for name, shape in SMALL.kernel_shapes.items():
        assert 8 * kernels[f"{name}/kernel"] == np.prod(shape)


def changed(row: int, **values: Any) -> Network:
    rows = list(SMALL.rows)
    rows[row] = Row(**{**rows[row].__dict__, **values})
    return Network("changed", tuple(rows))


STEM, CONV, HEAD = SMALL.rows[0], Row(kind="conv", channels=8), Row(kind="head", channels=1, kernel=23)
BRANCHED = Network("branched", (STEM, CONV, CONV, Row(kind="add", inputs=("stem", "conv3")), HEAD))
JUMPING = Network(
    "jumping",
    (STEM, CONV, Row(kind="conv", channels=8, inputs=("stem",)), Row(kind="add", inputs=("conv2", "conv3")), HEAD),
)


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (changed(1, channels=12), "layer conv2: .* multiple of 8 channels, got 12"),
        (changed(1, bias=True), "layer conv2: .* does not support a bias"),
        (changed(1, norm=False), "layer conv2: .* this conv has no batch norm"),
        (changed(1, activation="relu6"), "layer conv2: .* this conv has the activation relu6"),
        (changed(1, kernel=2, dilation=2), "layer conv2: .* this conv has padding or dilation"),
        (changed(2, kind="avgpool"), "layer pool3: .* this avgpool is another layer"),
        (BRANCHED, "layer add4: .* this add is another layer"),
        (JUMPING, "layer conv3: .* this conv reads stem instead of conv2"),
        (changed(0, kernel=5), "layer stem: .* leaves 3 of 96 px unused"),
    ],
)
def test_a_row_that_cannot_have_the_orientations_is_named(network: Network, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        symmetry.build(backend.keras(), network)


def test_layers_may_have_names_of_their_own(pixels: np.ndarray) -> None:
    keras = backend.keras()
    rows = (changed(0, name="first").rows[0], *SMALL.rows[1:])
    network = Network("named", rows, symmetric=True)
    model, plain = symmetry.build(keras, network), weights.build(keras, network)
    weights.set_weights(plain, symmetry.expand(network, weights.get_weights(model)), where="test")
    np.testing.assert_allclose(np.asarray(plain(pixels)), np.asarray(model(pixels)), atol=1e-5)


def test_a_network_that_cannot_be_symmetric_is_refused_before_anything_is_written(
    settings: Path, tiny_data: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    file = tmp_path / "mine.toml"
    rows = "{kind='conv', channels=8, kernel=4, stride=4}, {kind='depthwise'}, {kind='head', channels=1, kernel=24}"
    file.write_text(f"{settings.read_text()}[network]\nname = 'mine'\nsymmetric = true\nrows = [{rows}]\n")
    result = invoke("train", "--data", tiny_data, "--out", tmp_path / "run", "--network", "mine", "--config", file)
    assert result.exit_code == 1
    assert "network mine, layer depthwise2: symmetric training requires a chain of valid convolutions" in result.stderr
    assert not (tmp_path / "run" / "network.json").exists()
