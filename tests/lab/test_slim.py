import dataclasses

import numpy as np
import pytest
from branched_networks import NETWORKS, conv, head, random_weights

from histoedge.data import synthetic
from histoedge.edge.errors import ModelError
from histoedge.lab import backend, catalogue, slim, weights
from histoedge.lab.architecture import Network
from histoedge.lab.channels import channels_of
from histoedge.lab.graph import Row
from histoedge.lab.weights import Arrays

pytestmark = pytest.mark.lab

BRANCHED = {
    "residual": Network(  # a shortcut around two convolutions, and one around a third that reads a pool
        "residual",
        (
            conv("stem", 16, kernel=4, stride=4),
            conv("a", 24),
            conv("b", 16, activation="none"),
            Row(kind="add", name="first", inputs=("stem", "b"), activation="relu"),
            Row(kind="maxpool", name="pool", kernel=2, stride=2),
            conv("c", 16, norm=False),
            Row(kind="add", name="second", inputs=("c", "pool")),
            Row(kind="avgpool", name="mean", kernel=12),
            head(),
        ),
    ),
    "mobile": Network(
        "mobile",
        (
            Row(kind="depthwise", name="normalise", activation="none", norm=False, bias=True),
            conv("stem", 16, kernel=4, stride=4),
            conv("wide", 48, activation="relu6"),
            Row(kind="depthwise", name="spread", kernel=3, stride=2, padding="same"),
            conv("narrow", 16, activation="none", norm=False),
            Row(kind="activation", name="bent", activation="hard_swish"),
            Row(kind="avgpool", name="mean", kernel=12),
            head(),
        ),
    ),
    "joined": Network(  # one add of a concat, and a layer that is read twice
        "joined",
        (
            conv("stem", 16, kernel=8, stride=8),
            conv("a", 16, kernel=3),
            conv("b", 24, kernel=3, inputs=("stem",)),
            Row(kind="concat", name="both", inputs=("a", "b")),
            conv("c", 40, inputs=("both",), activation="none"),
            Row(kind="add", name="sum", inputs=("both", "c")),
            Row(kind="concat", name="twice", inputs=("sum", "a")),
            head(10),
        ),
    ),
}
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
    weights.set_weights(small, slim.slice_weights(network, 50, arrays, ranking), where="test")
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


def silenced(network: Network) -> Arrays:
    """Weights of the training form in which every other channel of each convolution is 0."""
    model = weights.build(backend.keras(), network)
    arrays = {name: value.copy() for name, value in weights.get_weights(model).items()}
    random = np.random.default_rng(0)
    for node in network.nodes:
        for key in (f"{node.name}/{kind}" for kind in ("kernel", "bias")):
            if key in arrays:
                arrays[key] = random.normal(0, 0.3, arrays[key].shape).astype(np.float32)
        for key in (f"{node.name}_norm/{kind}" for kind in ("gamma", "moving_variance")):
            if key in arrays:
                arrays[key] = random.uniform(0.5, 1.5, arrays[key].shape).astype(np.float32)
        if node.row.kind == "conv" or (node.row.kind == "depthwise" and node.in_channels > 3):
            layer, silent = (
                (f"{node.name}_norm", ("gamma", "beta")) if node.row.norm else (node.name, ("kernel", "bias"))
            )
            for key in (f"{layer}/{kind}" for kind in silent):
                arrays[key][..., 1::2] = 0
    return arrays


@pytest.mark.parametrize("name", BRANCHED)
def test_silent_channels_are_removed_through_branches_without_loss(name: str) -> None:
    network, keras = BRANCHED[name], backend.keras()
    arrays = silenced(network)
    target = slim.slim_network(network, 50)
    ranking = slim.channel_importance(keras, network, weights.fold(network, arrays), [PIXELS[:8], PIXELS[8:]])
    logits = []
    for form, values in ((network, arrays), (target, slim.slice_weights(network, 50, arrays, ranking))):
        model = weights.build(keras, form)
        weights.set_weights(model, values, where="test")
        logits.append(model.predict_on_batch(PIXELS).ravel())
    assert np.std(logits[0]) > 1e-4
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4 * np.abs(logits[0]).max())
    # the deployed form is sliced alike
    folded = slim.slice_weights(network, 50, weights.fold(network, arrays), ranking)
    assert {key: value.shape for key, value in folded.items()} == {
        key: value.shape for key, value in random_weights(target).items()
    }


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("residual", {"stem": 8, "a": 16, "b": 8, "c": 8}),
        ("mobile", {"stem": 8, "wide": 24, "narrow": 8}),
        ("joined", {"stem": 8, "a": 8, "b": 16, "c": 24}),
    ],
)
def test_layers_that_are_added_keep_the_same_number_of_channels(name: str, channels: dict[str, int]) -> None:
    slimmed = slim.slim_network(BRANCHED[name], 50)
    assert {node.name: node.channels for node in slimmed.nodes if node.row.kind == "conv"} == channels


def test_added_channels_share_one_ranking_of_all_their_readers() -> None:
    network = BRANCHED["residual"]
    arrays = random_weights(network)
    ranking = slim.channel_importance(backend.keras(), network, arrays, [PIXELS])
    assert set(ranking) == {"stem", "a", "b", "c"}
    for other in ("b", "c"):
        np.testing.assert_array_equal(ranking[other], ranking["stem"])
    second, best = np.argsort(ranking["stem"])[-2:]
    for reader in ("a", "c", "head"):
        arrays[f"{reader}/kernel"][:, :, best] = 0
    ranking = slim.channel_importance(backend.keras(), network, arrays, [PIXELS])
    assert ranking["stem"][best] == 0
    arrays["head/kernel"][:, :, second] *= 1e4  # one reader is enough
    ranking = slim.channel_importance(backend.keras(), network, arrays, [PIXELS])
    assert np.argmax(ranking["b"]) == second


def test_channels_of_the_pixels_and_the_head_are_in_no_block() -> None:
    network = Network(
        "shifted",
        (
            Row(kind="depthwise", name="scale", activation="none"),
            conv("colours", 3, activation="none"),
            Row(kind="add", name="added", inputs=("scale", "colours")),
            conv("stem", 16, kernel=4, stride=4),
            head(24),
        ),
    )
    (block,) = channels_of(network).blocks
    np.testing.assert_array_equal(block, channels_of(network).groups["stem"])
    slimmed = slim.slim_network(network, 50)
    assert {name: row.channels for name, row in slimmed.layers if row.kind == "conv"} == {"colours": 3, "stem": 8}


def test_few_channels_stay_and_are_never_more() -> None:
    rows = (conv("stem", 12, kernel=4, stride=4), conv("a", 80), head(24))
    slimmed = slim.slim_network(Network("narrow", rows), 10)
    assert [row.channels for row in slimmed.rows] == [12, 72, 1]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_is_too_narrow_is_refused_by_its_widest_layer(name: str) -> None:
    rows = tuple(dataclasses.replace(row, channels=8) if row.kind == "conv" else row for row in NETWORKS[name].rows)
    with pytest.raises(ModelError, match=r"layer \w+: slim50 removes none of \d+ channels"):
        slim.slim_network(dataclasses.replace(NETWORKS[name], rows=rows), 50)
