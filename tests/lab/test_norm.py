import numpy as np
import pytest

from histoedge.lab import backend, norm

pytestmark = pytest.mark.lab


def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (16, 5, 5, 8)).astype(np.float32)


def test_a_training_step_answers_as_keras_own_layer() -> None:
    keras = backend.keras()
    ours, theirs = norm.layer(keras, "norm"), keras.layers.BatchNormalization(epsilon=norm.EPSILON)
    np.testing.assert_allclose(ours(batch(), training=True), theirs(batch(), training=True), atol=1e-4)


def test_it_follows_the_mean_and_variance_of_the_batches() -> None:
    layer = norm.layer(backend.keras(), "norm")
    for _ in range(300):
        layer(batch(), training=True)
    np.testing.assert_allclose(layer.moving_mean, batch().mean((0, 1, 2)), atol=1e-2)
    np.testing.assert_allclose(layer.moving_variance, batch().var((0, 1, 2)), rtol=1e-2)
    np.testing.assert_allclose(layer(batch()), layer(batch(), training=True), atol=1e-2)


def test_blocks_share_one_mean_and_variance() -> None:
    layer = norm.layer(backend.keras(), "norm", blocks=4)
    for _ in range(300):
        layer(batch(), training=True)
    together = batch().reshape(-1, 4, 2)
    assert layer.gamma.shape == (2,)
    np.testing.assert_allclose(layer.moving_mean, together.mean((0, 1)), atol=1e-2)
    np.testing.assert_allclose(layer.moving_variance, together.var((0, 1)), rtol=1e-2)
