import numpy as np
import pytest

from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import backend
from histoedge.lab import network as networks
from histoedge.lab.network import Network, Row

pytestmark = pytest.mark.lab


def test_baseline_has_the_published_number_of_parameters() -> None:
    model = networks.build(backend.keras(), networks.named("baseline"))
    assert model.count_params() == 2_386_817


def test_edge_keeps_its_budget() -> None:
    edge = networks.named("edge")
    assert edge.macs() <= 11e6
    assert edge.params <= 130_000
    assert edge.rows[0].stride == 4


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_what_the_rows_say_is_what_keras_builds(name: str) -> None:
    network = networks.named(name)
    model = networks.build(backend.keras(), network, folded=True)
    assert model.count_params() == network.params
    assert model.output_shape == (None, 1, 1, 1)
    assert 32 % network.stride_px == 0
    assert network.receptive_field_px <= 96


def test_a_field_answers_like_its_patches() -> None:
    keras = backend.keras()
    network = networks.named("edge")
    model = networks.build(keras, network, field_px=None)
    field = np.random.default_rng(0).random((1, 136, 120, 3), dtype=np.float32)
    answers = np.asarray(model(field))
    rows, columns = (136 - 96) // network.stride_px + 1, (120 - 96) // network.stride_px + 1
    assert answers.shape == (1, rows, columns, 1)
    for i, j in ((0, 0), (rows - 1, columns - 1)):
        corner = i * network.stride_px, j * network.stride_px
        patch = field[:, corner[0] : corner[0] + 96, corner[1] : corner[1] + 96]
        np.testing.assert_allclose(answers[0, i, j, 0], np.asarray(model(patch))[0, 0, 0, 0], atol=1e-5)


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_folding_batch_norm_does_not_change_the_answer(name: str) -> None:
    keras = backend.keras()
    network = networks.named(name)
    model = networks.build(keras, network)
    random = np.random.default_rng(0)
    arrays = networks.weights_of(model)
    for key in arrays:
        if key.endswith(("gamma", "moving_variance")):
            arrays[key] = random.uniform(0.5, 2, arrays[key].shape).astype(np.float32)
        elif key.endswith(("beta", "moving_mean", "bias")):
            arrays[key] = random.normal(0, 0.1, arrays[key].shape).astype(np.float32)
    networks.set_weights(model, arrays, where="test")
    folded = networks.build(backend.tf_keras(), network, folded=True)
    networks.set_weights(folded, networks.fold(network, arrays), where="test")
    pixels = random.random((2, 96, 96, 3), dtype=np.float32)
    expected = model.predict_on_batch(pixels)
    np.testing.assert_allclose(folded.predict_on_batch(pixels), expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean edge"):
        networks.named("egde")


def test_a_stride_that_does_not_divide_the_label_square_is_refused() -> None:
    rows = (Row(kind="conv", channels=8, kernel=5, stride=5), Row(kind="head", channels=1, kernel=19))
    with pytest.raises(ModelError, match="must divide 32"):
        Network("odd", rows)


def test_weights_of_another_network_are_refused() -> None:
    keras = backend.keras()
    model = networks.build(keras, networks.named("edge"), folded=True)
    arrays = networks.weights_of(model)
    arrays["stem/kernel"] = arrays["stem/kernel"][:, :, :, :8]
    with pytest.raises(ModelError, match="stem/kernel"):
        networks.set_weights(model, arrays, where="somewhere.h5")


def test_logits_are_float32_under_mixed_precision() -> None:
    keras = backend.keras()
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = networks.build(keras, networks.named("edge"))
        assert model.get_layer("conv2").compute_dtype == "bfloat16"
        assert model.output.dtype == "float32"
        assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    finally:
        keras.mixed_precision.set_global_policy(before)
