import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, ModelError, RuntimeUnavailable


def test_the_logit_is_the_mean_red_value(mean_red: Path) -> None:
    patches = np.zeros((3, 96, 96, 3), np.uint8)
    patches[1, :, :, 0], patches[2, :, :, 2] = 255, 255
    logits = edge.load(mean_red).predict(patches)
    np.testing.assert_allclose(logits.reshape(-1), [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        (np.zeros((1, 96, 96, 3), np.float32), "do not divide, normalise"),
        (np.full((1, 96, 96, 3), np.nan), "patches are float64 with NaN in it"),
        (np.zeros((1, 3, 96, 96), np.uint8), r"channels first, use numpy.transpose\(patches, \(0, 2, 3, 1\)\)"),
        (np.zeros((96, 96, 3), np.uint8), r"shape \(96, 96, 3\).* patches\[None\]"),
        (np.zeros((1, 96, 96, 4), np.uint8), r"shape \(1, 96, 96, 4\)"),
        (np.zeros((0, 96, 96, 3), np.uint8), "at least one patch"),
        (np.zeros((1, 95, 96, 3), np.uint8), r"shape \(1, 95, 96, 3\); expected at least one patch, of 96 x 96 px"),
        (np.ma.zeros((1, 96, 96, 3), np.uint8), "patches are MaskedArray"),
        ([[1]], "patches are list"),
    ],
)
def test_wrong_pixels_are_refused_in_one_line(mean_red: Path, patches: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        edge.load(mean_red).predict(patches)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (np.zeros((96, 96, 3), np.float32), "the field is float32"),
        (np.zeros((3, 96, 128), np.uint8), r"channels first, use numpy.transpose\(patches, \(1, 2, 0\)\)"),
        (np.zeros((1, 96, 96, 3), np.uint8), "one field at a time"),
        (np.zeros((300, 95, 3), np.uint8), "the field is 300 x 95 px"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line(mean_red: Path, field: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        edge.load(mean_red).map(field)


def test_logits_probabilities_and_verdicts_follow_from_each_other(mean_red_calibrated: Path) -> None:
    runner = edge.load(mean_red_calibrated)
    patches = np.zeros((2, 96, 96, 3), np.uint8)
    patches[1, ..., 0] = 255
    probability = runner.probability(patches)
    np.testing.assert_allclose(probability.reshape(-1), [0.5, 1 / (1 + np.exp(-1 / runner.manifest.temperature))])
    assert runner.decide(patches).reshape(-1).tolist() == [False, True]  # at 0.6
    patches[1, ..., 0] = 100  # a probability of 0.69
    assert runner.decide(patches).reshape(-1).tolist() == [False, True]
    assert runner.decide(patches, at="specificity 0.95").reshape(-1).tolist() == [False, False]  # at 0.7
    assert runner.decide(patches).shape == runner.predict(patches).shape == (2, 1, 1, 1)


def test_a_map_contains_the_logit_of_each_whole_patch(mean_red: Path) -> None:
    field = np.random.default_rng(0).integers(0, 256, (200, 139, 3), np.uint8)
    runner = edge.load(mean_red)
    logits = runner.map(field)
    assert (logits.shape, logits.dtype) == ((4, 2), np.float32)
    cut = np.stack([field[top : top + 96, left : left + 96] for top in (0, 32, 64, 96) for left in (0, 32)])
    np.testing.assert_allclose(logits.reshape(-1), runner.predict(cut).reshape(-1), atol=1e-6)


def test_a_missing_or_changed_golden_file_is_refused(mean_red: Path) -> None:
    golden = goldens.golden_path(mean_red)
    content = golden.read_bytes()
    golden.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="changed after the manifest was written"):
        edge.load(mean_red)
    golden.unlink()
    with pytest.raises(ModelError, match="the golden patches are missing"):
        edge.load(mean_red)


def test_every_flipped_bit_of_a_manifest_is_caught(mean_red_calibrated: Path) -> None:
    path = manifests.manifest_path(mean_red_calibrated)
    body = json.loads(path.read_text()) | {"temperature": 0.9516702203269367, "tolerance": 1e-05}
    content = json.dumps(body | {"digest": manifests.digest(body)}, indent=1).encode()
    path.write_bytes(content)
    manifests.read(mean_red_calibrated)
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(ModelError):
                manifests.read(mean_red_calibrated)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stride_px": 0}, "stride_px is 0, expected at least 1"),
        ({"stride_px": True}, "stride_px is 'True', expected int"),
        ({"macs": 10**20}, r"macs is 1e\+20, expected at most 1e\+15"),
        ({"temperature": "1"}, "temperature is '1', expected float"),
        ({"temperature": -1.0}, "temperature is -1, expected at least 0.001"),
        ({"may_saturate": [1]}, "may_saturate is"),
        ({"parents": {"weights": 1}}, "parents is"),
        ({"input_statistics": {"red": {"p01": "x"}}}, "input_statistics is"),
        ({"output_quantum": [0.1]}, "output_quantum is"),
        ({"network": {}}, "network is '{}', expected str"),
    ],
)
def test_a_signed_manifest_with_wrong_types_is_refused(mean_red: Path, changed: dict, message: str) -> None:
    path = manifests.manifest_path(mean_red)
    body = json.loads(path.read_text()) | changed
    path.write_text(json.dumps(body | {"digest": manifests.digest(body)}))
    with pytest.raises(ModelError, match=message) as caught:
        edge.load(mean_red)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"NaN", b"\xff\xfe", b'{"contract": 2, "digest": Infinity}', b" " * 300_000]
)
def test_a_manifest_that_would_crash_a_json_reader_is_refused(mean_red: Path, content: bytes) -> None:
    manifests.manifest_path(mean_red).write_bytes(content)
    with pytest.raises(ModelError):
        edge.load(mean_red)


def test_many_threads_get_the_same_logits_as_one(mean_red: Path) -> None:
    runner = edge.load(mean_red)
    patches = np.random.default_rng(0).integers(0, 256, (64, 96, 96, 3), np.uint8)
    alone = runner.predict(patches)
    with ThreadPoolExecutor(8) as pool:
        logits = list(pool.map(lambda at: runner.predict(patches[at % 64 : at % 64 + 1]), range(512)))
    np.testing.assert_array_equal(np.concatenate(logits).reshape(8, 64), np.tile(alone.reshape(1, 64), (8, 1)))


def test_a_changed_model_file_is_refused_before_any_interpreter_sees_it(mean_red: Path) -> None:
    mean_red.write_bytes(mean_red.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed after its manifest was written"):
        edge.load(mean_red)


def test_a_changed_manifest_is_refused(mean_red: Path) -> None:
    path = manifests.manifest_path(mean_red)
    body = json.loads(path.read_text())
    body["threshold"] = 0.1
    path.write_text(json.dumps(body))
    with pytest.raises(ModelError, match="its digest does not match"):
        edge.load(mean_red)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a valid manifest"),
        ("[]", "contract version"),
        ('{"contract": 99}', "contract version 99, expected 2; update histoedge"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(mean_red: Path, content: str, message: str) -> None:
    manifests.manifest_path(mean_red).write_text(content)
    with pytest.raises(ModelError, match=message):
        edge.load(mean_red)


def test_a_model_without_manifest_and_a_manifest_without_model_have_different_messages(mean_red: Path) -> None:
    manifest = manifests.manifest_path(mean_red)
    text = manifest.read_text()
    manifest.unlink()
    with pytest.raises(ModelError, match="the manifest is missing"):
        edge.load(mean_red)
    manifest.write_text(text)
    mean_red.unlink()
    with pytest.raises(ModelError, match=r"no such model file \(its manifest exists\)"):
        edge.load(mean_red)


def test_a_runtime_that_does_not_open_the_format_is_named(mean_red: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="litert does not open onnx files"):
        edge.load(mean_red, runtime="litert")
    with pytest.raises(RuntimeUnavailable, match="unknown runtime"):
        edge.load(mean_red, runtime="tensorrt9")


def test_garbage_with_a_fitting_manifest_is_one_line(mean_red: Path) -> None:
    mean_red.write_bytes(b"garbage")
    path = manifests.manifest_path(mean_red)
    body = json.loads(path.read_text())
    body["sha256"] = manifests.hashlib.sha256(b"garbage").hexdigest()
    body["digest"] = manifests.digest(body)
    path.write_text(json.dumps(body))
    with pytest.raises(ModelError, match="ONNX Runtime cannot open this file") as caught:
        edge.load(mean_red)
    assert "\n" not in str(caught.value)


def test_a_golden_file_with_pickled_objects_is_refused(mean_red: Path) -> None:
    golden = goldens.golden_path(mean_red)
    np.savez(golden, patches=np.array([object()]), labels=[0], logits=[0.0])
    path = manifests.manifest_path(mean_red)
    body = json.loads(path.read_text())
    body["golden_sha256"] = manifests.hashlib.sha256(golden.read_bytes()).hexdigest()
    body["digest"] = manifests.digest(body)
    path.write_text(json.dumps(body))
    with pytest.raises(ModelError, match="not a golden file"):
        goldens.read_golden(mean_red, manifests.read(mean_red))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_threshold_logit_has_the_threshold_as_its_probability(threshold: float) -> None:
    logit = manifests.threshold_logit(threshold, 2.5)
    assert manifests.probability(np.array(logit), 2.5) == pytest.approx(threshold)


@pytest.mark.parametrize(("threshold", "logit"), [(0.0, -np.inf), (1.0, np.inf)])
def test_the_threshold_logit_is_infinite_at_zero_and_one(threshold: float, logit: float) -> None:
    assert manifests.threshold_logit(threshold, 2.0) == logit


def test_probability_uses_the_temperature(mean_red: Path) -> None:
    manifest = manifests.read(mean_red)
    np.testing.assert_allclose(manifest.probability(np.array([0.0, 2.0])), [0.5, 1 / (1 + np.exp(-2.0))])


def test_operating_points_are_read_and_selected_by_name(mean_red_calibrated: Path) -> None:
    manifest = manifests.read(mean_red_calibrated)
    point = manifest.operating_point("specificity 0.95")
    assert (point.threshold, point.sensitivity, point.n_negative) == (0.7, 0.5, 200)
    np.testing.assert_allclose(manifest.probability(np.array([0.5 * np.log(0.7 / 0.3)])), [point.threshold])
    again = json.loads(json.dumps(manifest.as_json()))
    assert again == json.loads(manifests.manifest_path(mean_red_calibrated).read_text())
    with pytest.raises(ConfigError, match="no operating point 'sensitivity 1'; this model has: 'specificity 0.95'"):
        manifest.operating_point("sensitivity 1")


def test_a_model_without_operating_points_has_a_clear_message(mean_red: Path) -> None:
    with pytest.raises(ConfigError, match="this model has: none"):
        manifests.read(mean_red).operating_point("specificity 0.95")


@pytest.mark.parametrize("points", [None, 3, [3], [{"name": "specificity 0.95"}]])
def test_invalid_operating_points_are_refused(mean_red: Path, points: object) -> None:
    path = manifests.manifest_path(mean_red)
    body = json.loads(path.read_text()) | {"operating_points": points}
    path.write_text(json.dumps(body | {"digest": manifests.digest(body)}))
    with pytest.raises(ModelError, match="operating_points: missing or unknown keys") as caught:
        manifests.read(mean_red)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("side", "cut"), [(96, 96), (103, 96), (104, 104), (384, 384), (200, 200), (239, 232)])
def test_a_field_is_cut_to_whole_patches(side: int, cut: int) -> None:
    field = np.zeros((1, side, 96, 3), np.uint8)
    assert edge.check_patches(field, stride_px=8).shape == (1, cut, 96, 3)
    assert edge.check_patches(field.transpose(0, 2, 1, 3), stride_px=8).flags.c_contiguous
