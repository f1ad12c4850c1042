"""A map with larger steps contains the same values, and ONNX Runtime computes only these."""

import random
from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge.errors import ConfigError
from histoedge.edge.strided import strided

EXPORTED = Path(__file__).parents[2] / "exported"
INT8 = EXPORTED / "edge" / "models" / "int8.onnx"
OPENED = [
    (path.relative_to(EXPORTED), row.name)
    for row in edge.RUNTIMES.values()
    for path in sorted(EXPORTED.glob("*/models/*"))
    if path.suffix[1:] in row.formats
]


@pytest.mark.parametrize(("name", "runtime"), OPENED, ids=[f"{name}-{runtime}" for name, runtime in OPENED])
def test_larger_steps_give_the_same_values(name: Path, runtime: str) -> None:
    pytest.importorskip(edge.RUNTIMES[runtime].module)
    field = np.random.default_rng(0).integers(0, 256, (300, 235, 3), np.uint8)
    runner = edge.load(EXPORTED / name, runtime=runtime)
    full_map = runner.map(field)
    assert full_map.shape == (26, 18)
    for step_px, shape in [(8, (26, 18)), (16, (13, 9)), (32, (7, 5)), (64, (4, 3)), (1024, (1, 1))]:
        stepping = edge.load(EXPORTED / name, runtime=runtime, step_px=step_px)
        logits = stepping.map(field)
        assert logits.shape == shape
        expected = full_map[:: step_px // 8, :: step_px // 8]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=0 if "int8" in name.name else 1e-4)
        assert stepping.predict(field[None, :96, :96]) == pytest.approx(runner.predict(field[None, :96, :96]), abs=1e-4)
        computed = stepping.interpreter.predict(field[None])[0, :, :, 0].shape
        assert computed == (shape if runtime == "onnxruntime" and step_px < 1024 else full_map.shape)


def test_steps_that_are_no_multiple_of_the_stride_are_refused(mean_red: Path) -> None:
    for step_px in (0, -32, 48):
        with pytest.raises(
            ConfigError, match=f"step_px is {step_px}; expected a multiple of the model's stride, 32 px"
        ):
            edge.load(mean_red, step_px=step_px)


@pytest.mark.parametrize(
    "fixture", ["mean_red", "mean_red_int8"]
)  # without a stride attribute, and with a stride of 32
def test_other_graphs_are_computed_completely(fixture: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(fixture)
    assert strided(model.read_bytes(), 2) is None
    field = np.random.default_rng(0).integers(0, 256, (300, 235, 3), np.uint8)
    logits = edge.load(model, step_px=64).map(field)
    np.testing.assert_array_equal(logits, edge.load(model).map(field)[::2, ::2])
    assert logits.shape == (4, 3)


def test_only_pointwise_operators_may_follow_the_convolution() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(INT8.read_bytes())
    model.graph.node[-1].op_type = "Softmax"
    assert strided(model.SerializeToString(), 4) is None


def test_two_changed_bytes_give_a_valid_file() -> None:
    onnx = pytest.importorskip("onnx")
    content = INT8.read_bytes()
    changed = strided(content, 4)
    assert changed is not None
    assert [(was, now) for was, now in zip(content, changed, strict=True) if was != now] == [(1, 4), (1, 4)]
    *_, last = (node for node in onnx.load_from_string(changed).graph.node if node.op_type == "Conv")
    assert {item.name: list(item.ints) for item in last.attribute}["strides"] == [4, 4]
    assert strided(content, 128) is None


def test_arbitrary_bytes_raise_nothing() -> None:
    content, draw = INT8.read_bytes(), random.Random(0)
    for garbage in (b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 100_000, b"\x0b" * 9, draw.randbytes(5000)):
        assert strided(garbage, 4) is None
    for _ in range(300):
        assert strided(content[: draw.randrange(len(content))], 4) is None
    for _ in range(3000):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 20)):
            changed[draw.randrange(len(content)) if draw.random() < 0.5 else -draw.randrange(1, 3000)] = draw.randrange(
                256
            )
        result = strided(bytes(changed), 4)
        assert result is None or len(result) == len(content)
