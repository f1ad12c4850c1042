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


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (changed(1, channels=12), "layer conv2: .* multiple of 8 channels, got 12"),
        (changed(1, bias=True), "layer conv2: .* does not support a bias"),
        (changed(0, kernel=5), "layer stem: .* leaves 3 of 96 px unused"),
    ],
)
def test_a_row_that_cannot_have_the_orientations_is_named(network: Network, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        symmetry.build(backend.keras(), network)
