import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, ModelError


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_manifest_is_caught(
    bits: int, mean_red_calibrated: Path, sign: Callable[..., Path]
) -> None:
    path = manifests.manifest_path(sign(mean_red_calibrated, temperature=0.9516702203269367, tolerance=1e-05))
    content = path.read_bytes()
    manifests.read(mean_red_calibrated)
    for position in range(len(content)):
        for bit in range(position, position + bits):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit % 8
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
def test_a_signed_manifest_with_wrong_types_is_refused(
    mean_red: Path, changed: dict, message: str, sign: Callable[..., Path]
) -> None:
    sign(mean_red, **changed)
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
        ('{"contract": 99}', "contract version 99, expected 2 or 3; update histoedge"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(mean_red: Path, content: str, message: str) -> None:
    manifests.manifest_path(mean_red).write_text(content)
    with pytest.raises(ModelError, match=message):
        edge.load(mean_red)


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
def test_invalid_operating_points_are_refused(mean_red: Path, points: object, sign: Callable[..., Path]) -> None:
    sign(mean_red, operating_points=points)
    with pytest.raises(ModelError, match="operating_points: missing or unknown keys") as caught:
        manifests.read(mean_red)
    assert "\n" not in str(caught.value)
