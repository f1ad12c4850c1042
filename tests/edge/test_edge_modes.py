"""A model to which only single patches have a meaning: its map is cut and computed in batches."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ConfigError, DataError, ModelError

RELEASED = Path(__file__).parents[2] / "exported" / "edge" / "models"
FIELD = np.random.default_rng(0).integers(0, 256, (231, 190, 3), np.uint8)


@pytest.mark.parametrize("runtime", list(edge.RUNTIMES))
@pytest.mark.parametrize("patch_px", [64, 96])
def test_a_map_equals_the_patches_one_by_one(
    mobilenet: Callable[..., Path], tmp_path: Path, sign: Callable[..., Path], runtime: str, patch_px: int
) -> None:
    pytest.importorskip(edge.RUNTIMES[runtime].module)
    stride_px = 24
    if runtime == "litert":
        patch_px = 96
        model = tmp_path / "int8.tflite"
        for path_of in (Path, manifests.manifest_path, goldens.golden_path):
            shutil.copy(path_of(RELEASED / model.name), path_of(model))
        sign(model, edge_mode="patch", stride_px=stride_px)
    else:
        model = mobilenet("single", patch_px=patch_px, stride_px=stride_px, label_px=32)
    runner = edge.load(model, runtime=runtime)
    logits = runner.map(FIELD)
    assert logits.dtype == np.float32
    assert logits.shape == ((231 - patch_px) // 24 + 1, (190 - patch_px) // 24 + 1)
    for (row, column), logit in np.ndenumerate(logits):
        top, left = 24 * row, 24 * column
        alone = runner.predict(FIELD[None, top : top + patch_px, left : left + patch_px])
        assert alone.shape == (1, 1, 1, 1)
        assert alone.item() == pytest.approx(logit, abs=1e-5)
    other = edge.load(model, runtime=runtime, step_px=7)  # no multiple of the stride: only these patches are cut
    np.testing.assert_allclose(other.map(FIELD)[::24, ::24], logits[::7, ::7], atol=1e-5)


def test_a_released_file_has_the_same_map_in_both_modes(tmp_path: Path, sign: Callable[..., Path]) -> None:
    model = tmp_path / "int8.onnx"
    for path_of in (Path, manifests.manifest_path, goldens.golden_path):
        shutil.copy(path_of(RELEASED / model.name), path_of(model))
    dense = edge.load(model).map(FIELD)
    np.testing.assert_array_equal(edge.load(sign(model, edge_mode="patch")).map(FIELD), dense)


def test_larger_patches_are_refused_by_single_patch_models(mobilenet: Callable[..., Path]) -> None:
    model = mobilenet("single")
    runner = edge.load(model)
    with pytest.raises(DataError, match=r"shape \(1, 128, 96, 3\); this model computes single patches") as caught:
        runner.predict(np.zeros((1, 128, 96, 3), np.uint8))
    assert "map(field) cuts a field" in str(caught.value)
    with pytest.raises(DataError, match="the field is 95 x 96 px; expected 96 x 96 px or more"):
        runner.map(np.zeros((95, 96, 3), np.uint8))
    with pytest.raises(ConfigError, match="step_px is 0"):
        edge.load(model, step_px=0)


def test_a_map_of_the_wrong_shape_is_refused(mobilenet: Callable[..., Path]) -> None:
    """Without this, a single logit would be spread over the whole field."""
    runner = edge.load(mobilenet("lie", edge_mode="valid"))
    with pytest.raises(ModelError, match=r"logits of shape \(1, 1, 1, 1\), expected \(1, 5, 3, 1\)") as caught:
        runner.map(FIELD)
    assert "run histoedge verify" in str(caught.value)


@pytest.mark.parametrize("patch_px", [32, 64, 224, 512])
def test_fields_of_other_patch_sizes(mean_red_of: Callable[..., Path], patch_px: int) -> None:
    runner = edge.load(mean_red_of(patch_px, 16))
    field = np.random.default_rng(0).integers(0, 256, (patch_px + 40, patch_px + 17, 3), np.uint8)
    logits = runner.map(field)
    assert logits.shape == (3, 2)
    assert logits[2, 1] == pytest.approx(field[32 : 32 + patch_px, 16 : 16 + patch_px, 0].mean() / 255, abs=1e-5)
    with pytest.raises(DataError, match=f"{patch_px} x {patch_px} px or more"):
        runner.predict(field[None, : patch_px - 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"edge_mode": "same"}, "edge_mode is 'same', expected valid or patch"),
        ({"classes": ["tumour", "tumour"]}, "expected the two names"),
        ({"classes": ["a", "b", "c"]}, "expected the two names"),
        ({"classes": ["", "b"]}, "expected the two names"),
        ({"classes": ["a\n", "b"]}, "expected the two names"),
        ({"classes": ["a" * 65, "b"]}, "expected the two names"),
        ({"classes": "ab"}, "classes is 'ab', expected tuple"),
        ({"classes": [1, 2]}, "classes is"),
        ({"patch_px": 31}, "patch_px is 31, expected at least 32"),
        ({"patch_px": 513}, "patch_px is 513, expected at most 512"),
        ({"label_px": 97}, "label_px is 97, expected at most 96, the patch_px"),
        ({"stride_px": 97}, "stride_px is 97, expected at most 96, the patch_px"),
        ({"contract": 2}, "missing or unknown keys: 'classes'"),
        ({"contract": True}, "contract version True, expected 2 or 3"),
        ({"contract": 3.0}, "contract version 3.0, expected 2 or 3"),
    ],
)
def test_a_signed_manifest_with_an_impossible_geometry_is_refused(
    mean_red: Path, fields: dict, message: str, sign: Callable[..., Path]
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        edge.load(sign(mean_red, **fields))
    assert "\n" not in str(caught.value)


def test_a_manifest_of_the_second_contract_is_read_and_keeps_its_digest(mean_red: Path) -> None:
    path = manifests.manifest_path(mean_red)
    body = json.loads(path.read_text())
    del body["classes"], body["digest"]
    body["contract"] = 2
    path.write_text(json.dumps(body | {"digest": manifests.digest(body)}))
    manifest = edge.load(mean_red).manifest
    assert (manifest.classes, manifest.is_dense) == (("normal", "tumour"), True)
    assert json.loads(json.dumps(manifest.as_json())) == json.loads(path.read_text())
