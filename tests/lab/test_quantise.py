import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from histoedge.data import synthetic
from histoedge.edge import litert
from histoedge.lab import backend, quantise, to_tflite
from histoedge.lab import network as networks
from histoedge.lab.network import Arrays, Network

pytestmark = pytest.mark.lab

PATCHES, _ = synthetic.golden(16)
PIXELS = PATCHES.astype(np.float32) / 255


def random_weights(network: Network) -> Arrays:
    keras = backend.tf_keras()
    keras.utils.set_random_seed(7)
    arrays = networks.weights_of(networks.build(keras, network, folded=True))
    random = np.random.default_rng(7)
    for name in network.convolutions:
        arrays[f"{name}/bias"] = random.normal(0, 0.05, arrays[f"{name}/bias"].shape).astype(np.float32)
    return arrays


def calibrated(network: Network) -> Arrays:
    arrays = random_weights(network)
    folded = networks.build(backend.tf_keras(), network, folded=True)
    networks.set_weights(folded, arrays, where="test")
    return arrays | quantise.calibrate(folded, network, [PIXELS])


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_ranges_come_from_data_with_relu_at_zero_and_the_input_at_one(name: str) -> None:
    network = networks.named(name)
    arrays = calibrated(network)
    assert arrays["input/range"].tolist() == [0, 1]
    for layer in network.convolutions:
        low, high = arrays[f"{layer}/range"]
        assert low <= 0 <= high
        assert low < high
        assert low == 0 or layer == "head"


@pytest.mark.parametrize("name", list(networks.NETWORKS))
def test_the_integer_file_answers_like_the_simulated_network(name: str) -> None:
    network = networks.named(name)
    arrays = calibrated(network)
    simulated = quantise.rebuild(network, arrays).predict_on_batch(PIXELS)
    found = litert.open_model(to_tflite.convert(network, arrays, precision="int8")).predict(PATCHES)
    low, high = arrays["head/range"]
    quantum = (high - low) / 255
    # a half may round either way in each of the layers; a wrong scale or zero point is off by tens
    assert np.abs(found - simulated).max() <= 4.01 * quantum


def test_raw_pixels_are_the_quantised_input() -> None:
    network = networks.named("edge")
    content = to_tflite.convert(network, calibrated(network), precision="int8")
    details = Interpreter(model_content=content).get_input_details()[0]
    assert details["dtype"] is np.uint8
    assert details["quantization"] == (pytest.approx(1 / 255), 0)


def test_converting_twice_gives_the_same_bytes() -> None:
    network = networks.named("edge")
    arrays = calibrated(network)
    for precision in ("fp32", "fp16", "int8"):
        first, second = (to_tflite.convert(network, arrays, precision=precision) for _ in range(2))
        assert first == second
