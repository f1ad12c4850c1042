import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import backend, catalogue, onnx_passes, to_onnx, weights

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


def clip_and_quantise(zero_point: int, bounds: tuple[float, float] | None = None) -> onnx.GraphProto:
    """A Relu, or a Clip with these bounds, before a quantisation to int8 with scale 0.1."""
    clip = helper.make_node("Relu", ["x"], ["r"])
    constants = {"s": np.float32(0.1), "z": np.int8(zero_point)}
    if bounds is not None:
        clip = helper.make_node("Clip", ["x", "low", "high"], ["r"])
        constants |= {"low": np.float32(bounds[0]), "high": np.float32(bounds[1])}
    nodes = [
        clip,
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return graph_of(nodes, constants)


X = np.linspace(-30, 30, 601, dtype=np.float32)


@pytest.mark.parametrize(("zero_point", "bounds"), [(-128, None), (-128, (0, 25.6)), (-128, (0, 100)), (0, (-13, 13))])
def test_clipping_that_the_quantisation_enforces_is_absorbed(
    zero_point: int, bounds: tuple[float, float] | None
) -> None:
    graph = clip_and_quantise(zero_point, bounds)
    expected = answer(graph, X)
    onnx_passes.absorb_clipping(graph)
    assert operators(graph) == ["QuantizeLinear", "DequantizeLinear"]
    np.testing.assert_array_equal(answer(graph, X), expected)


@pytest.mark.parametrize(("zero_point", "bounds"), [(-3, None), (-128, (0, 6)), (0, (0, 12.7)), (-128, (1, 30))])
def test_clipping_that_the_quantisation_does_not_enforce_stays(
    zero_point: int, bounds: tuple[float, float] | None
) -> None:
    graph = clip_and_quantise(zero_point, bounds)
    before = answer(graph, X)
    onnx_passes.absorb_clipping(graph)
    assert operators(graph)[0] == ("Relu" if bounds is None else "Clip")
    graph.node[1].input[0] = "x"
    assert not np.array_equal(answer(graph, X), before)  # absorbing it would have changed the answer


def test_clipping_with_a_second_reader_or_unknown_bounds_stays() -> None:
    graph = clip_and_quantise(-128)
    graph.node.append(helper.make_node("Identity", ["r"], ["also"]))
    onnx_passes.absorb_clipping(graph)
    assert operators(graph)[0] == "Relu"
    graph = clip_and_quantise(-128, (0, 100))
    graph.node[0].input[2] = "x"
    onnx_passes.absorb_clipping(graph)
    assert operators(graph)[0] == "Clip"


def quantised_chain(operator: str, **settings: object) -> onnx.GraphProto:
    nodes = [
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["x"]),
        helper.make_node(operator, ["x"], ["v"], name="conv3", **settings),
        helper.make_node("QuantizeLinear", ["v", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return graph_of(nodes, {"s": np.float32(0.1), "z": np.uint8(0)})


def test_a_graph_between_quantised_values_passes() -> None:
    onnx_passes.check_integer_only(quantised_chain("MaxPool", kernel_shape=[2, 2]))


@pytest.mark.parametrize("operator", ["Tanh", "Gelu", "Resize"])
def test_an_operator_that_does_not_run_in_integers_is_refused_by_name(operator: str) -> None:
    with pytest.raises(ModelError, match=f"operator {operator} .layer conv3. has no integer support; replace"):
        onnx_passes.check_integer_only(quantised_chain(operator))


@pytest.mark.parametrize("cut", [0, 2])
def test_an_operator_with_a_float_input_or_output_is_refused_by_name(cut: int) -> None:
    graph = quantised_chain("MaxPool", kernel_shape=[2, 2])
    graph.node[cut].op_type = "Cast"
    graph.node[cut].input[:] = graph.node[cut].input[:1]
    with pytest.raises(ModelError, match=r"Cast|operator MaxPool .layer conv3. has a float input or output"):
        onnx_passes.check_integer_only(graph)
    del graph.node[cut]
    with pytest.raises(ModelError, match=r"operator MaxPool .layer conv3. has a float input or output"):
        onnx_passes.check_integer_only(graph)


def test_int8_activations_become_uint8_with_the_same_answers() -> None:
    graph = clip_and_quantise(-3)
    expected = answer(graph, X)
    onnx_passes.activations_to_uint8(graph)
    zero_points = {
        numpy_helper.to_array(value).item()
        for value in graph.initializer
        for node in graph.node
        if len(node.input) > 2 and value.name == node.input[2]
    }
    assert zero_points == {125}
    np.testing.assert_array_equal(answer(graph, X), expected)


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
    onnx_passes.drop_requantisation(graph)
    assert len(graph.node) == left
    np.testing.assert_array_equal(answer(graph, x), expected)


def test_the_opset_follows_the_oldest_runtime_to_serve() -> None:
    assert to_onnx.opset_and_ir_version("1.15") == (17, 8)
    assert to_onnx.opset_and_ir_version("1.8") == (14, 7)
    with pytest.raises(ConfigError, match="1.7 or newer"):
        to_onnx.opset_and_ir_version("1.2")
    with pytest.raises(ConfigError, match="expects a release"):
        to_onnx.opset_and_ir_version("new")


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
    onnx_passes.transpose_at_the_end(graph)
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

    network = catalogue.get_network("edge")
    backend.tf_keras().utils.set_random_seed(7)
    arrays = weights.get_weights(weights.build(backend.tf_keras(), network, folded=True))
    made = []
    for count in (1, 75, 970):  # 75 lost the Squeeze of this network's float file
        tf2onnx.utils.INTERNAL_NAME = count
        made.append(to_onnx.convert(network, arrays, precision="fp32"))
    assert made[0] == made[1] == made[2]


def quantised_stem(strides: list[int], *, source: str = "patches") -> onnx.GraphProto:
    """uint8 patches, transposed, dequantised, through a 5 x 5 convolution with int8 weights."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", [source], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["kernel"], axis=0),
        helper.make_node("Conv", ["x", "kernel"], ["y"], strides=strides, kernel_shape=[5, 5]),
    ]
    if source != "patches":
        nodes.insert(0, helper.make_node("Identity", ["patches"], [source]))
    constants = {
        **{"s": np.float32(1 / 255), "z": np.uint8(0), "wz": np.zeros(8, np.int8)},
        **{"w": random.integers(-63, 64, (8, 3, 5, 5)).astype(np.int8), "ws": np.linspace(0.01, 0.1, 8, dtype="f4")},
    }
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    patches = helper.make_tensor_value_info("patches", TensorProto.UINT8, ["n", "h", "w", 3])
    sums = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, "r", "c"])
    return helper.make_graph(nodes, "stem", [patches], [sums], initializers)


def test_a_stem_with_a_stride_reads_columns_of_pixels_and_answers_the_same() -> None:
    graph = quantised_stem([4, 4])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 96, 112, 3)).astype(np.uint8)

    def answered() -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"patches": pixels})[0])

    expected = answered()
    onnx_passes.pack_stem(model.graph)
    assert operators(model.graph)[:2] == ["Reshape", "Transpose"]
    (convolution,) = (node for node in model.graph.node if node.op_type == "Conv")
    assert {entry.name: list(entry.ints) for entry in convolution.attribute} == {
        "strides": [4, 1],
        "kernel_shape": [5, 2],
    }
    np.testing.assert_allclose(answered(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "graph", [quantised_stem([1, 1]), quantised_stem([4, 2]), quantised_stem([4, 4], source="others")]
)
def test_a_stem_of_another_form_stays(graph: onnx.GraphProto) -> None:
    before = graph.SerializeToString()
    onnx_passes.pack_stem(graph)
    assert graph.SerializeToString() == before
