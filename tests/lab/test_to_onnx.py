import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from histoedge.edge.errors import ConfigError
from histoedge.lab import backend, to_onnx
from histoedge.lab import network as networks

pytestmark = pytest.mark.lab


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], *, to: int = TensorProto.FLOAT
) -> onnx.GraphProto:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", to, ["n"])
    return helper.make_graph(nodes, "test", [x], [y], initializers)


def answer(graph: onnx.GraphProto, x: np.ndarray) -> np.ndarray:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def operators(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


def relu_and_quantise(zero_point: int) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return graph_of(nodes, {"s": np.float32(0.1), "z": np.int8(zero_point)})


def test_a_relu_that_the_quantisation_enforces_is_absorbed() -> None:
    graph, x = relu_and_quantise(-128), np.linspace(-3, 30, 101, dtype=np.float32)
    expected = answer(graph, x)
    to_onnx.absorb_relu(graph)
    assert operators(graph) == ["QuantizeLinear", "DequantizeLinear"]
    np.testing.assert_array_equal(answer(graph, x), expected)


def test_a_relu_that_the_quantisation_does_not_enforce_stays() -> None:
    graph = relu_and_quantise(-3)
    to_onnx.absorb_relu(graph)
    assert operators(graph)[0] == "Relu"


def test_int8_activations_become_uint8_with_the_same_answers() -> None:
    graph, x = relu_and_quantise(-3), np.linspace(-3, 30, 101, dtype=np.float32)
    expected = answer(graph, x)
    to_onnx.activations_to_uint8(graph)
    zero_points = {
        numpy_helper.to_array(value).item()
        for value in graph.initializer
        for node in graph.node
        if len(node.input) > 2 and value.name == node.input[2]
    }
    assert zero_points == {125}
    np.testing.assert_array_equal(answer(graph, x), expected)


@pytest.mark.parametrize(("scale", "left"), [(0.1, 2), (0.2, 4)])
def test_only_a_requantisation_to_the_same_scale_is_dropped(scale: float, left: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s1", "z"], ["q1"]),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z"], ["d1"]),
        helper.make_node("QuantizeLinear", ["d1", "s2", "z"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z"], ["y"]),
    ]
    graph = graph_of(nodes, {"s1": np.float32(0.1), "s2": np.float32(scale), "z": np.uint8(0)})
    x = np.linspace(0, 20, 51, dtype=np.float32)
    expected = answer(graph, x)
    to_onnx.drop_requantisation(graph)
    assert len(graph.node) == left
    np.testing.assert_array_equal(answer(graph, x), expected)


def test_the_opset_follows_the_oldest_runtime_to_serve() -> None:
    assert to_onnx.target("1.15") == (17, 8)
    assert to_onnx.target("1.8") == (14, 7)
    with pytest.raises(ConfigError, match="1.7 or newer"):
        to_onnx.target("1.2")
    with pytest.raises(ConfigError, match="expects a release"):
        to_onnx.target("new")


TAILS = [
    ["Reshape", "Squeeze"],
    ["Reshape"],
    ["Reshape", "Squeeze", "DequantizeLinear"],
    ["Reshape", "DequantizeLinear", "Squeeze"],
    ["DequantizeLinear", "Reshape", "Squeeze"],
]


@pytest.mark.parametrize("tail", TAILS, ids="-".join)
def test_whatever_moves_the_channel_becomes_a_transpose(tail: list[str]) -> None:
    constants = {
        "shape": np.array([1, 1, 0, 0, 1]),
        "axes": np.array([0]),
        "scale": np.float32(0.1),
        "zero": np.uint8(3),
    }
    inputs = {"Reshape": ["shape"], "Squeeze": ["axes"], "DequantizeLinear": ["scale", "zero"]}
    values = ["x", *(f"v{number}" for number in range(len(tail) - 1)), "y"]
    nodes = [helper.make_node("Identity", ["raw"], ["x"])]
    nodes += [
        helper.make_node(operator, [values[number], *inputs[operator]], [values[number + 1]])
        for number, operator in enumerate(tail)
    ]
    integers = "DequantizeLinear" in tail
    raw = helper.make_tensor_value_info("raw", TensorProto.UINT8 if integers else TensorProto.FLOAT, ["n", 1, "h", "w"])
    logit = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "h", "w", 1])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tail", [raw], [logit], initializers)
    to_onnx.transpose_at_the_end(graph)
    assert operators(graph) == ["Identity", "Transpose"] + ["DequantizeLinear"] * integers
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    codes = np.arange(2 * 6).reshape(2, 1, 2, 3).astype(np.uint8 if integers else np.float32)
    expected = codes.transpose(0, 2, 3, 1).astype(np.float32)
    if integers:
        expected = (expected - 3) * np.float32(0.1)
    np.testing.assert_allclose(session.run(None, {"raw": codes})[0], expected, rtol=1e-6)


def test_the_counter_of_tf2onnx_does_not_change_the_file() -> None:
    import tf2onnx

    network = networks.named("edge")
    backend.tf_keras().utils.set_random_seed(7)
    arrays = networks.weights_of(networks.build(backend.tf_keras(), network, folded=True))
    made = []
    for count in (1, 75, 970):  # 75 lost the Squeeze of this network's float file
        tf2onnx.utils.INTERNAL_NAME = count
        made.append(to_onnx.convert(network, arrays, precision="fp32"))
    assert made[0] == made[1] == made[2]
