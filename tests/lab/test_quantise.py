import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from histoedge.data import synthetic
from histoedge.edge import litert
from histoedge.edge.errors import DataError, ModelError
from histoedge.lab import activation_ranges, backend, catalogue, quantise, to_tflite, weights
from histoedge.lab.architecture import Network
from histoedge.lab.weights import Arrays

pytestmark = pytest.mark.lab

PATCHES, _ = synthetic.golden(16)
PIXELS = PATCHES.astype(np.float32) / 255


def random_weights(network: Network) -> Arrays:
    keras = backend.tf_keras()
    keras.utils.set_random_seed(7)
    arrays = weights.get_weights(weights.build(keras, network, folded=True))
    random = np.random.default_rng(7)
    for name in network.convolutions:
        arrays[f"{name}/bias"] = random.normal(0, 0.05, arrays[f"{name}/bias"].shape).astype(np.float32)
    return arrays


def ranges(network: Network, arrays: Arrays, pixels: np.ndarray = PIXELS) -> Arrays:
    folded = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(folded, arrays, where="test")
    return activation_ranges.calibrate(folded, network, [pixels])


def calibrated(network: Network, largest_code: int = 63) -> Arrays:
    arrays = random_weights(network)
    return arrays | ranges(network, arrays) | {quantise.KERNEL_CODES: np.array([-largest_code, largest_code])}


@pytest.mark.parametrize("name", list(catalogue.NETWORKS))
def test_ranges_come_from_data_with_relu_at_zero_and_the_input_at_one(name: str) -> None:
    network = catalogue.get_network(name)
    arrays = calibrated(network)
    assert arrays["input/range"].tolist() == [0, 1]
    for layer in network.convolutions:
        low, high = arrays[f"{layer}/range"]
        assert low <= 0 <= high
        assert low < high
        assert low == 0 or layer == "head"


def test_calibration_patches_of_one_colour_are_refused() -> None:
    network = catalogue.get_network("edge")
    with pytest.raises(DataError, match=r"every pixel has the colour \[51, 102, 255\]; expected patches"):
        ranges(network, random_weights(network), np.ones_like(PIXELS) * np.float32([0.2, 0.4, 1.0]))


@pytest.mark.parametrize(("layer", "spoil", "values"), [("conv3", -1e6, r"0 \.\. 0"), ("head", np.inf, r"0 \.\. inf")])
def test_a_layer_without_a_range_is_refused_by_name(layer: str, spoil: float, values: str) -> None:
    network = catalogue.get_network("edge")
    arrays = random_weights(network)
    arrays[f"{layer}/bias"][:] = spoil
    with pytest.raises(ModelError, match=f"outputs of layer {layer} are in {values} on the calibration patches"):
        ranges(network, arrays)


def test_kernel_ranges_put_the_largest_weight_on_the_largest_code() -> None:
    kernel = np.array([[0.5, -2.0, 0.0], [-1.0, 1.0, 0.0]], np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(quantise.kernel_range(kernel, largest_code=127), [1, 2, 2e-4], rtol=1e-6)
    np.testing.assert_allclose(quantise.kernel_range(kernel, largest_code=63) * 63 / 127, [1, 2, 2e-4], rtol=1e-6)


@pytest.mark.parametrize("largest_code", quantise.LARGEST_CODES)
def test_training_sees_the_grid_that_is_deployed(largest_code: int) -> None:
    network = catalogue.get_network("edge")
    arrays = calibrated(network, largest_code)
    folded = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(folded, arrays, where="test")
    trained = quantise.wrap(folded, network, largest_code=largest_code)
    quantise.set_ranges(trained, network, arrays)
    trained(PIXELS, training=True)  # the toolkit takes kernel ranges anew from the weights
    quantise.restore_activation_ranges(trained, network, arrays)
    differences = np.abs(trained.predict_on_batch(PIXELS) - quantise.simulate(network, arrays, PIXELS).numpy())
    low, high = arrays["head/range"]
    assert np.median(differences) < 1e-6
    assert differences.max() < 3 * (high - low) / 255  # sums in another order: a half in some layer rounds otherwise


@pytest.mark.parametrize("largest_code", quantise.LARGEST_CODES)
@pytest.mark.parametrize("name", list(catalogue.NETWORKS))
def test_the_integer_file_answers_like_the_simulated_network(name: str, largest_code: int) -> None:
    network = catalogue.get_network(name)
    arrays = calibrated(network, largest_code)
    simulated = quantise.simulate(network, arrays, PIXELS).numpy()
    logits = litert.open_litert(to_tflite.convert(network, arrays, precision="int8")).predict(PATCHES)
    low, high = arrays["head/range"]
    quantum = (high - low) / 255
    # a half may round either way in each of the layers; an untrained range is narrow; a wrong scale is off by tens
    assert np.abs(logits - simulated).max() <= 2.01 * len(network.convolutions) * quantum


def test_raw_pixels_are_the_quantised_input() -> None:
    network = catalogue.get_network("edge")
    content = to_tflite.convert(network, calibrated(network), precision="int8")
    details = Interpreter(model_content=content).get_input_details()[0]
    assert details["dtype"] is np.uint8
    assert details["quantization"] == (pytest.approx(1 / 255), 0)


def test_converting_twice_gives_the_same_bytes() -> None:
    network = catalogue.get_network("edge")
    arrays = calibrated(network)
    for precision in ("fp32", "fp16", "int8"):
        first, second = (to_tflite.convert(network, arrays, precision=precision) for _ in range(2))
        assert first == second
