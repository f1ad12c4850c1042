import io
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from histoedge import edge
from histoedge.data import synthetic
from histoedge.edge import manifest as manifests
from histoedge.edge.__main__ import main
from histoedge.edge.doctor import jpeg, mistakes, windows
from histoedge.edge.doctor.diagnosis import Case, diagnose
from histoedge.edge.doctor.handover import read_logits
from histoedge.edge.errors import DataError

ROOT = Path(__file__).parents[3]
RELEASED = ROOT / "exported" / "nano" / "models" / "int8.onnx"
pytestmark = pytest.mark.skipif(not RELEASED.is_file(), reason="not a checkout")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return synthetic.golden(16, seed=7)[0]


@pytest.fixture(scope="module")
def released(patches: np.ndarray) -> Case:
    """The released nano in int8, whose tolerance is one quantum and which has the eight orientations built in."""
    manifest, runner = manifests.read(RELEASED), edge.load(RELEASED)
    expected = runner.predict(patches).reshape(-1)
    return Case(patches, expected, runner.predict, manifest.tolerance, manifest.temperature, manifest.um_per_px)


@pytest.fixture
def diagnoses(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("diagnoses")


@pytest.fixture
def lopsided(write_onnx: Callable[..., Path]) -> Path:
    """A small float network with random weights: each orientation returns other logits."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(1)
    shapes = {"stem": (12, 3, 8, 8), "body": (16, 12, 3, 3), "head": (1, 16, 11, 11)}
    constants = {
        name: (random.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    constants |= {"share": np.float32(1 / 64), "middle": np.float32(128)}
    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "share"], ["values"]),
        helper.make_node("Conv", ["values", "stem"], ["a"], strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "body"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "head"], ["e"]),
        helper.make_node("Transpose", ["e"], ["tumour_logit"], perm=[0, 2, 3, 1]),
    ]
    return write_onnx("lopsided", nodes, constants, temperature=0.8)


def names(case: Case, logits: np.ndarray) -> tuple[str, ...]:
    return tuple(finding.mistake for finding in diagnose(case, logits).findings)


# ---- a short run of benchmarks/diagnoses.py -------------------------------------------------------------------


@pytest.mark.slow  # the network without symmetry covers the same mistakes
def test_every_known_mistake_is_named_on_a_released_network(diagnoses: ModuleType) -> None:
    rows = diagnoses.count_diagnoses(RELEASED, sets=1, progress=lambda *_: None)
    assert {row["made"]: row["otherwise"] for row in rows if row["percent"] not in (None, 100)} == {}
    assert sum(row["within_tolerance"] for row in rows) <= len(mistakes.TURNS)  # a symmetric network hides them


def test_every_known_mistake_is_named_on_a_network_without_symmetry(diagnoses: ModuleType, lopsided: Path) -> None:
    rows = diagnoses.count_diagnoses(lopsided, sets=1, progress=lambda *_: None)
    assert {row["made"]: row["otherwise"] for row in rows if row["percent"] != 100} == {}
    alone = {row["made"] for row in rows if row["named_alone"] == 1}
    assert {"mirrored", "upside down", "rotated 90", "rotated 180", "rotated 270", "transposed", "bgr"} <= alone


# ---- the order of the checks -------------------------------------------------------------------------------------


def test_logits_within_a_quantum_are_right_and_a_symmetric_network_has_a_note(released: Case) -> None:
    quantum = released.tolerance / 1.01
    for sign in (-1, 0, 1):
        diagnosis = diagnose(released, released.expected + sign * quantum)
        assert (diagnosis.verdict, diagnosis.findings) == ("right", ())
        assert diagnosis.turns_unseen
        assert any("mirrored and rotated" in line for line in diagnosis.lines())


def test_a_single_logit_two_quanta_off_is_no_known_mistake(released: Case) -> None:
    logits = released.expected.astype(np.float64)
    logits[5] += 2 * released.tolerance
    diagnosis = diagnose(released, logits)
    assert (diagnosis.verdict, diagnosis.worst) == ("unknown", 5)
    assert diagnosis.largest == pytest.approx(2 * released.tolerance, rel=1e-3)


def test_missing_digits_are_suggested(released: Case) -> None:
    strict = Case(released.patches, released.expected, released.predict, tolerance=1e-4)
    lines = list(diagnose(strict, released.expected + np.tile([1e-3, -1e-3], 8)).lines())
    assert lines[1] == "unknown: no known mistake explains these logits"
    assert "write all digits" in lines[2]


def test_random_logits_are_unknown(released: Case) -> None:
    random = np.random.default_rng(3)
    mean, spread = released.expected.mean(), released.expected.std()
    assert {diagnose(released, random.normal(mean, spread, 16)).verdict for _ in range(5)} == {"unknown"}


def test_two_mistakes_with_the_same_logits_are_both_named(released: Case) -> None:
    black = released.predict(np.zeros_like(released.patches)).reshape(-1)
    diagnosis = diagnose(released, black)
    assert {"empty", "divided"} <= {finding.mistake for finding in diagnosis.findings}
    assert "note: this model returns the same logits for each of these mistakes" in list(diagnosis.lines())


def test_the_same_logit_for_every_patch_is_named(released: Case) -> None:
    assert names(released, np.full(16, 40.0)) == ("constant",)


def test_saturated_kernels_are_named_within_a_quantum(released: Case) -> None:
    saturated = released.expected + np.linspace(-2, 2, 16)
    case = Case(
        released.patches,
        released.expected,
        released.predict,
        released.tolerance,
        saturated=saturated.astype(np.float32),
    )
    diagnosis = diagnose(case, saturated + 0.9 * case.tolerance)
    assert [finding.mistake for finding in diagnosis.findings] == ["saturation"]
    assert "session.x64quantprecision" in diagnosis.findings[0].mend
    assert diagnose(released, saturated).verdict == "unknown"


def test_the_parameter_of_a_mistake_is_in_its_detail(released: Case) -> None:
    larger = [np.asarray(Image.fromarray(patch).resize((192, 192)))[48:144, 48:144] for patch in released.patches]
    diagnosis = diagnose(released, released.predict(np.stack(larger)).reshape(-1))
    assert [finding.mistake for finding in diagnosis.findings] == ["scaled"]
    assert "0.486 um per px instead of 0.972; the central 48 px fill the patch" in diagnosis.findings[0].detail
    moved = np.roll(released.patches, 3, axis=2)
    assert "3 px right, border wrap" in str(diagnose(released, released.predict(moved).reshape(-1)).findings[0])


@pytest.mark.parametrize(("count", "message"), [(15, "15 logits for 16 patches"), (17, "17 logits for 16 patches")])
def test_a_wrong_number_of_logits_is_refused(released: Case, count: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        diagnose(released, np.zeros(count))


def test_too_few_patches_are_refused(released: Case) -> None:
    with pytest.raises(DataError, match="3 patches are too few for a diagnosis; expected 8 or more"):
        Case(released.patches[:3], released.expected[:3], released.predict, released.tolerance)


# ---- simulated mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 98])
@pytest.mark.parametrize("halved", [True, False])
def test_jpeg_equals_pillows_bit_for_bit(patches: np.ndarray, quality: int, halved: bool) -> None:
    for patch in patches[:4]:
        content = io.BytesIO()
        Image.fromarray(patch).save(content, "JPEG", quality=quality, subsampling=2 if halved else 0)
        decoded = np.asarray(Image.open(content))
        np.testing.assert_array_equal(jpeg.recompressed(patch[None], quality, halved=halved)[0], decoded)


@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 50), (33, 90), (75, 41)])
def test_jpeg_equals_pillows_for_other_sides_too(patches: np.ndarray, height: int, width: int, halved: bool) -> None:
    patch = np.ascontiguousarray(patches[0, :height, :width])
    content = io.BytesIO()
    Image.fromarray(patch).save(content, "JPEG", quality=75, subsampling=2 if halved else 0)
    decoded = np.asarray(Image.open(content))
    np.testing.assert_array_equal(jpeg.recompressed(patch[None], 75, halved=halved)[0], decoded)


@pytest.mark.parametrize("patch_px", [32, 64, 96, 97, 192, 512])
def test_each_scale_is_near_one_of_the_coarse_search(patch_px: int) -> None:
    *_, scales = mistakes.families(patch_px, 0.5)
    sides = {suspect.numbers[0]: suspect for suspect in scales.coarse()}
    reached = set(sides)
    for suspect in sides.values():
        reached |= {neighbour.numbers[0] for neighbour in scales.neighbours(suspect)}
    assert set(range(min(sides), max(sides))) - reached <= {patch_px}
    assert len(sides) <= 250


@pytest.mark.parametrize(
    ("patch_px", "mistake"), [(64, "bgr"), (64, "upside down"), (64, "scaled"), (64, "shifted"), (128, "scaled")]
)
def test_patches_of_other_sizes_are_diagnosed(patch_px: int, mistake: str) -> None:
    """A model that is a random filter over the whole patch."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 200, (10, patch_px // 8, patch_px // 8, 3))
    whole = coarse.repeat(8, 1).repeat(8, 2) + random.integers(0, 56, (10, patch_px, patch_px, 3))
    pixels = whole.astype(np.uint8)
    kernel = random.normal(0, 1 / patch_px, pixels.shape[1:])

    def predict(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.tensordot(values.astype(np.float64) / 255, kernel, 3))

    damage = {
        "bgr": lambda values: values[..., ::-1],
        "upside down": lambda values: values[:, ::-1],
        "scaled": lambda values: windows.resized(values, 3 * patch_px // 4, kernel="linear", fill="black"),
        "shifted": lambda values: windows.shifted(values, 2, -1, "black"),
    }[mistake]
    case = Case(pixels, predict(pixels), predict, tolerance=1e-6, um_per_px=0.5)
    diagnosis = diagnose(case, predict(damage(pixels)))
    assert diagnosis.findings[0].mistake == mistake
    assert diagnosis.findings[0].exact


@pytest.mark.parametrize("side", [24, 49, 77, 97, 187])
@pytest.mark.parametrize(
    ("kernel", "filter_"),
    [
        ("linear", Image.Resampling.BILINEAR),
        ("cubic", Image.Resampling.BICUBIC),
        ("area", Image.Resampling.BOX),
        ("nearest", Image.Resampling.NEAREST),
    ],
)
def test_resizing_equals_pillows_except_for_rounding(
    patches: np.ndarray, side: int, kernel: str, filter_: Image.Resampling
) -> None:
    canvas = Image.new("RGB", (96, 96))
    canvas.paste(Image.fromarray(patches[1]).resize((side, side), filter_), ((96 - side) // 2,) * 2)
    resized = windows.resized(patches[1:2], side, kernel=kernel)[0]
    difference = np.abs(resized.astype(int) - np.asarray(canvas))
    between = 0.05 if kernel == "nearest" else 0.001  # a centre between two pixels has two nearest ones
    assert np.mean(difference > 2) < between  # both passes round; Pillow uses fixed point


def test_a_window_is_moved_and_its_border_filled() -> None:
    square = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=3)
    moved = {
        fill: windows.shifted(square, 1, -2, fill)[0, :, :, 0].tolist() for fill in ("black", "white", "edge", "wrap")
    }
    assert moved["black"] == [[0, 0, 0, 0], [2, 3, 0, 0], [6, 7, 0, 0], [10, 11, 0, 0]]
    assert moved["white"] == [[255] * 4, [2, 3, 255, 255], [6, 7, 255, 255], [10, 11, 255, 255]]
    assert moved["edge"] == [[2, 3, 3, 3], [2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]
    assert moved["wrap"] == [[14, 15, 12, 13], [2, 3, 0, 1], [6, 7, 4, 5], [10, 11, 8, 9]]
    assert windows.cut(square, 2, "corner", "white")[0, :, :, 0].tolist() == [
        [5, 6, 255, 255],
        [9, 10, 255, 255],
        [255] * 4,
        [255] * 4,
    ]


# ---- the integrator's file, and the command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0.5\n-1\n2e0\n",
        "logit\n0.5\n-1\n2\n",
        "\ufefflogit\r\n0.5\r\n-1\r\n\r\n2\r\n",
        "0,0.5\n1,-1\n2,2\n",
        "logit;label\n0.5;0\n-1;1\n2;1\n",
        "label\tscore\n0\t0.5\n1\t-1\n1\t2\n",
        "index,logit\n2,2\n0,0.5\n1,-1\n",
        "logit,patch\n-1,01.ppm\n0.5,00.ppm\n2,02.ppm\n",
        "name,value\na,0.5\nb,-1\nc,2\n",
    ],
)
def test_logits_are_read_from_any_plain_csv(tmp_path: Path, text: str) -> None:
    path = tmp_path / "logits.csv"
    path.write_text(text, encoding="utf-8")
    assert read_logits(path, 3).tolist() == [0.5, -1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; expected one logit per row"),
        (b" \n\n", "empty; expected one logit per row"),
        (b"logit\n", "0 rows of logits, expected 3"),
        (b"1\n2\n", "2 rows of logits, expected 3"),
        (b"1\n2\n3\n4\n", "4 rows of logits, expected 3"),
        (b"1\ntwo\n3\n", "row 2 is 'two'; expected a number"),
        (b"1\nnan\n3\n", "the logit in row 2 is nan; expected a finite number"),
        (b"1\n2\n-inf\n", "the logit in row 3 is -inf"),
        (b"a,logit\nx,1\ny\nz,3\n", "row 2 is 'y'"),
        (b"index,logit\n0,1\n0,2\n2,3\n", "column index must contain 0 to 2 once each"),
        (b"\xff\xfe1\n", "not a text file"),
        (b"1\n" * (1 << 20), "more than 1048576 bytes"),
    ],
)
def test_a_file_without_logits_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "logits.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_logits(path, 3)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_logits(tmp_path / "nothing.csv", 3)


def test_from_golden_patches_to_a_named_mistake(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["golden", str(RELEASED), "--into", str(tmp_path)]) == 0
    assert main(["doctor", str(RELEASED), str(tmp_path / "expected.csv")]) == 0
    assert "right: the largest difference in logits is" in capsys.readouterr().out
    swapped = [np.asarray(Image.open(path))[..., ::-1] for path in sorted(tmp_path.glob("*.ppm"))]
    logits = edge.load(RELEASED).predict(np.ascontiguousarray(np.stack(swapped))).reshape(-1)
    (tmp_path / "swapped.csv").write_text("\n".join(f"{logit:.4f}" for logit in logits))
    assert main(["doctor", str(RELEASED), str(tmp_path / "swapped.csv")]) == 3
    output = capsys.readouterr().out
    assert "mistake: red and blue are swapped (BGR for RGB)" in output
    assert "to do: reverse the channels" in output
    assert main(["doctor", str(RELEASED), str(tmp_path / "swapped.csv"), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["findings"][0]["mistake"]) == ("mistake", "bgr")
    assert main(["doctor", str(RELEASED), str(tmp_path / "nothing.csv")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["golden", str(RELEASED), "--into", str(tmp_path / "taken")]) == 1
    assert "cannot be written" in capsys.readouterr().err
