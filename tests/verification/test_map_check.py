"""The geometry in a manifest is checked against the file, whatever the manifest states."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from histoedge import edge, verification
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import DataError, ModelError
from histoedge.verification import map_check

RELEASED = Path(__file__).parents[2] / "exported"


def reasons(model: Path) -> str:
    """Return the reasons of a verdict that fails on every installed runtime."""
    verdict = verification.verify(model)
    assert not verdict.passed
    assert not manifests.verdict_path(model).exists()
    ran = [check for check in verdict.golden if check.status != "unavailable"]
    assert {check.status for check in ran} == {"failed"}
    assert all("\n" not in (check.reason or "") for check in ran)
    return ran[0].reason or ""


def test_a_padded_network_that_pools_its_whole_input_has_no_map(mobilenet: Callable[..., Path]) -> None:
    """The case of a hand-written manifest: golden patches pass, and a scan would be plausible and wrong."""
    reason = reasons(mobilenet("lie", edge_mode="valid"))
    assert "the logits of a field of 192 x 192 px differ from those of its 16 patches by up to " in reason
    assert "it gave logits of shape (1, 1, 1, 1), expected (1, 4, 4, 1)" in reason
    assert reason.endswith("write edge_mode: patch into its manifest")
    assert "golden" not in reason


def test_a_map_of_the_right_shape_with_padding_in_it_is_refused(mobilenet: Callable[..., Path]) -> None:
    reason = reasons(mobilenet("padded", pool="window", edge_mode="valid"))
    assert "differ from those of its 16 patches by up to" in reason
    assert "it gave logits" not in reason


@pytest.mark.parametrize("patch_px", [32, 64, 96, 224])
def test_the_same_network_passes_as_single_patches(mobilenet: Callable[..., Path], patch_px: int) -> None:
    verdict = verification.verify(mobilenet("honest", patch_px=patch_px, label_px=patch_px, stride_px=32))
    assert verdict.passed, verdict
    for check in verdict.golden:
        assert check.status == "unavailable" or check.field_px == patch_px + 96
        assert check.field_largest is None or check.field_largest < 1e-5
    assert "as patches, in batches (edge_mode patch)" in (verdict.geometry_line() or "")


@pytest.mark.parametrize("stride_px", [8, 16, 31, 33, 64])
def test_a_wrong_stride_is_refused(mean_red_int8: Path, sign: Callable[..., Path], stride_px: int) -> None:
    lying = sign(mean_red_int8, stride_px=stride_px)
    assert f"stride_px {stride_px}; " in reasons(lying) or "receptive_field_px is 96" in reasons(lying)
    assert verification.verify(sign(mean_red_int8, stride_px=32)).passed


@pytest.mark.skipif(not RELEASED.is_dir(), reason="not a checkout")
@pytest.mark.parametrize("name", ["int8.onnx", "fp32.onnx", "int8.tflite", "fp32.tflite"])
@pytest.mark.parametrize("stride_px", [4, 7, 9, 16])
def test_a_wrong_stride_of_a_released_file_is_refused(
    tmp_path: Path, sign: Callable[..., Path], name: str, stride_px: int
) -> None:
    model = tmp_path / name
    for path_of in (Path, manifests.manifest_path, goldens.golden_path):
        shutil.copy(path_of(RELEASED / "edge" / "models" / name), path_of(model))
    assert f"the manifest's stride_px {stride_px}; " in reasons(sign(model, stride_px=stride_px))
    assert verification.verify(sign(model, stride_px=8)).passed


def test_data_of_another_size_are_refused(mean_red_of: Callable[..., Path]) -> None:
    split = SimpleNamespace(name="test", patches=np.zeros((2, 96, 96, 3), np.uint8), labels=np.array([0, 1]))
    with pytest.raises(DataError, match="test: patches of 96 px, mean_red_64.onnx expects 64 px; use the data"):
        verification.verify(mean_red_of(64, 16), split=split)


def test_a_wrong_patch_size_is_refused(mean_red_of: Callable[..., Path], sign: Callable[..., Path]) -> None:
    model = mean_red_of(64, 16)
    with pytest.raises(ModelError, match=r"expected \(N, 96, 96, 3\)"):
        verification.verify(sign(model, patch_px=96, receptive_field_px=96))
    golden = np.load(goldens.golden_path(model))
    larger = np.zeros((3, 96, 96, 3), np.uint8)
    larger[..., 0] = golden["patches"][:, :1, :1, 0]
    np.savez(goldens.golden_path(model), patches=larger, labels=golden["labels"], logits=golden["logits"])
    assert "27 logits of 3 patches of 96 x 96 px; expected one of each" in reasons(sign(model, patch_px=96))


def test_swapped_colours_are_refused(mean_red: Path, sign: Callable[..., Path]) -> None:
    onnx = pytest.importorskip("onnx")
    changed = onnx.load(mean_red)
    kernel = next(value for value in changed.graph.initializer if value.name == "red")
    swapped = onnx.numpy_helper.to_array(kernel)[:, ::-1].copy()
    kernel.CopyFrom(onnx.numpy_helper.from_array(swapped, kernel.name))
    mean_red.write_bytes(changed.SerializeToString())
    assert "logits differ by 1, expected at most 0.0001" in reasons(sign(mean_red))


def test_a_wrong_receptive_field_is_refused(mean_red: Path, sign: Callable[..., Path]) -> None:
    assert "pixels beyond the receptive_field_px of 80 change the logit" in reasons(
        sign(mean_red, receptive_field_px=80)
    )
    assert "receptive_field_px is 64, expected 65 to 96" in reasons(sign(mean_red, receptive_field_px=64))
    assert "receptive_field_px is 97, expected 65 to 96" in reasons(sign(mean_red, receptive_field_px=97))


def test_patches_that_change_each_other_in_a_batch_are_refused(write_onnx: Callable[..., Path]) -> None:
    """As a network with batch norm that was exported in its training mode."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["all"], axes=[0, 1, 2], keepdims=1),
        helper.make_node("ReduceMean", ["pixels"], ["each"], axes=[1, 2], keepdims=1),
        helper.make_node("Sub", ["each", "all"], ["rest"]),
        helper.make_node("Conv", ["planes", "red"], ["logit"]),
        helper.make_node("Transpose", ["logit"], ["tumour_logit"], perm=[0, 2, 3, 1]),
    ]
    nodes.insert(4, helper.make_node("Transpose", ["rest"], ["planes"], perm=[0, 3, 1, 2]))
    red = np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)
    model = write_onnx("batch_norm", nodes, {"red": red}, edge_mode="patch", tolerance=1e9)
    manifest = manifests.read(model)
    check = map_check.check_map(edge.load(model), goldens.read_golden(model, manifest))
    assert check.largest is not None
    assert check.largest > 1


def test_a_file_with_fixed_sides_cannot_compute_a_map(mean_red: Path, sign: Callable[..., Path]) -> None:
    onnx = pytest.importorskip("onnx")
    fixed = onnx.load(mean_red)
    for at in (1, 2):
        fixed.graph.input[0].type.tensor_type.shape.dim[at].dim_value = 96
    mean_red.write_bytes(fixed.SerializeToString())
    check = verification.verify(sign(mean_red)).golden[0]  # OpenVINO changes the sides of such a file
    assert check.status == "failed"
    expected = "a map of 192 x 192 px cannot be computed (ONNX Runtime cannot run this file on pixels of shape"
    assert expected in (check.reason or "")
    assert verification.verify(sign(mean_red, edge_mode="patch")).passed
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    mean_red.write_bytes(fixed.SerializeToString())
    failed = verification.verify(sign(mean_red)).golden[0]
    assert failed.status == "failed"
    assert "ONNX Runtime cannot run this file on pixels of shape (3, 96, 96, 3)" in (failed.reason or "")


def test_a_verdict_is_on_the_manifest_too(mobilenet: Callable[..., Path], sign: Callable[..., Path]) -> None:
    model = mobilenet("changed")
    assert verification.verify(model).passed
    assert verification.passed_on(model)
    sign(model, edge_mode="valid")
    with pytest.raises(ModelError, match="no passing verdict of this file next to it"):
        verification.passed_on(model)


@pytest.mark.parametrize(
    "name",
    sorted(
        str(path.relative_to(RELEASED)) for path in RELEASED.glob("*/models/*") if path.suffix[1:] in manifests.FORMATS
    ),
)
def test_released_files_have_a_verdict_on_their_manifest(name: str) -> None:
    assert verification.passed_on(RELEASED / name)
    assert manifests.read(RELEASED / name).contract == manifests.CONTRACT
