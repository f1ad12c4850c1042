import numpy as np
import pytest

from histoedge.data import synthetic
from histoedge.lab import backend, catalogue, slim, weights

pytestmark = pytest.mark.lab

PIXELS = synthetic.golden(16)[0].astype(np.float32) / 255


@pytest.mark.parametrize("name", list(catalogue.NETWORKS))
def test_a_slim_network_has_smaller_numbers_and_nothing_else(name: str) -> None:
    network = catalogue.get_network(name)
    slimmed = slim.slim_network(network, 50)
    assert slimmed.name == f"{name}-slim50"
    for row, whole in zip(slimmed.rows, network.rows, strict=True):
        assert (row.kind, row.kernel, row.stride) == (whole.kind, whole.kernel, whole.stride)
        if row.kind == "conv":
            assert row.channels == 8 * -(-whole.channels // 16)
    assert slimmed.macs() < 0.5 * network.macs()


@pytest.mark.parametrize("name", list(catalogue.NETWORKS))
def test_channels_without_information_are_removed_first_without_loss(name: str) -> None:
    """With every other channel silent (gamma = beta = 0), half of the channels answer like all of them."""
    network = catalogue.get_network(name)
    keras = backend.keras()
    keras.utils.set_random_seed(3)
    model = weights.build(keras, network)
    arrays = weights.get_weights(model)
    for layer in network.convolutions[:-1]:
        for weight in ("gamma", "beta"):
            arrays[f"{layer}_norm/{weight}"][1::2] = 0
    weights.set_weights(model, arrays, where="test")
    target = slim.slim_network(network, 50)
    ranking = slim.channel_importance(keras, network, weights.fold(network, arrays), [PIXELS[:8], PIXELS[8:]])
    small = weights.build(keras, target)
    weights.set_weights(small, slim.slice_weights(network, target, arrays, ranking), where="test")
    expected = model.predict_on_batch(PIXELS)
    np.testing.assert_allclose(small.predict_on_batch(PIXELS), expected, atol=1e-4 * np.abs(expected).max())


def test_the_ranking_weighs_the_inputs_of_the_next_layer() -> None:
    network = catalogue.get_network("edge")
    keras = backend.keras()
    keras.utils.set_random_seed(3)
    folded = weights.get_weights(weights.build(keras, network, folded=True))
    folded["conv3/kernel"][:, :, 5] = 0  # nobody reads channel 5 of conv2
    ranking = slim.channel_importance(keras, network, folded, [PIXELS])
    assert set(ranking) == set(network.convolutions[:-1])
    assert ranking["conv2"][5] == 0
