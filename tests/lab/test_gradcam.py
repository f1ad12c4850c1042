"""Grad-CAM of a network whose evidence is known, and of a small trained one."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import histoedge
from histoedge.cli import main
from histoedge.data import synthetic
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.explanation import centre_share
from histoedge.lab import catalogue, checkpoint
from histoedge.lab.architecture import Network
from histoedge.lab.calibrate import Calibration
from histoedge.lab.checkpoint import Checkpoint
from histoedge.lab.gradcam import GradCam, nearest_positions
from histoedge.lab.graph import Field, Row
from histoedge.lab.reference import KerasRunner
from histoedge.lab.weights import Arrays

pytestmark = pytest.mark.lab

CELLS = Network("cells", (Row(kind="conv", channels=4, kernel=8, stride=8), Row(kind="head", channels=1, kernel=12)))
BIAS = -2.0


def zeros_of(network: Network) -> Arrays:
    shapes = network.kernel_shapes
    kernels = {f"{name}/kernel": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return kernels | {f"{name}/bias": np.zeros(shape[-1], np.float32) for name, shape in shapes.items()}


def saved(path: Path, network: Network, arrays: Arrays) -> Path:
    checkpoint.write(path, Checkpoint(network, "fp32", arrays, {}, 0.5, Calibration(1.0, ())))
    return path


@pytest.fixture
def red_cells(tmp_path: Path) -> Path:
    """Weights whose logit is the sum of red (0..1) over 8 x 8 cells' means, less that of green, less 2."""
    arrays = zeros_of(CELLS)
    for channel, sign in ((0, 1), (1, -1)):
        arrays["stem/kernel"][:, :, channel, channel] = 1 / 64
        arrays["head/kernel"][:, :, channel, 0] = sign
    arrays["head/bias"][:] = BIAS
    return saved(tmp_path / "fp32.weights.h5", CELLS, arrays)


def test_grad_cam_marks_the_cells_that_are_evidence_for_tumour(red_cells: Path) -> None:
    patches = np.zeros((3, 96, 96, 3), np.uint8)
    patches[0, 40:48, 32:40, 0] = 255  # one red cell in the centre
    patches[1, 40:48, 32:40, 0] = 255
    patches[1, :8, :24, 0] = 51  # and three cells outside it, a fifth as red
    patches[2, 40:48, 32:40, 1] = 255  # a green one
    network = GradCam(red_cells)
    assert network.layer == "stem"
    assert network.predict(patches).reshape(-1) == pytest.approx([1 + BIAS, 1 + 0.6 + BIAS, BIAS - 1], abs=1e-6)
    maps = network.maps(patches)
    expected = patches[..., 0] / np.float32(255)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    share = centre_share(maps)
    assert share[:2] == pytest.approx([1, 1 / 1.6])
    assert np.isnan(share[2])
    assert network.uniform_share == pytest.approx(1 / 9)


def test_pixels_belong_to_the_place_centred_nearest() -> None:
    nearest = nearest_positions(Field(0, 53, 8), 6, 96)  # the last convolution of the network edge
    assert np.flatnonzero(nearest >= 0).tolist() == list(range(22, 70))
    assert [np.flatnonzero(nearest == place)[0] for place in range(6)] == [22, 30, 38, 46, 54, 62]
    assert nearest_positions(Field(0, 8, 8), 12, 96).tolist() == [pixel // 8 for pixel in range(96)]


def test_the_convolution_that_stands_for_a_dense_layer_is_passed_over(tmp_path: Path) -> None:
    baseline = catalogue.NETWORKS["baseline"]
    network = GradCam(saved(tmp_path / "fp32.weights.h5", baseline, zeros_of(baseline)))
    assert network.layer == "conv8"
    assert network.maps(np.zeros((1, 96, 96, 3), np.uint8)).shape == (1, 96, 96)


def test_a_network_without_places_is_refused(tmp_path: Path) -> None:
    dense = Network("dense", (Row(kind="conv", channels=4, kernel=96), Row(kind="head", channels=1)))
    with pytest.raises(ModelError, match="no convolution of dense"):
        GradCam(saved(tmp_path / "fp32.weights.h5", dense, zeros_of(dense)))


def test_the_folded_network_answers_like_the_trained_one(finished_run: Path) -> None:
    weights = checkpoint.path_of(finished_run, "fp32")
    patches, _ = synthetic.golden(16)
    network = GradCam(weights)
    # sums of float32 in another order: the tolerance of an fp32 file
    np.testing.assert_allclose(network.predict(patches), KerasRunner(weights).predict(patches), atol=1e-4)
    assert network.uniform_share == pytest.approx(4 / 9)  # 6 x 6 places of 8 px


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_weights_are_explained_by_both_methods(finished_run: Path, tmp_path: Path, recipe: str) -> None:
    patches, _ = synthetic.golden(16)
    Image.fromarray(patches[0]).save(tmp_path / "one.png")
    weights = checkpoint.path_of(finished_run, recipe)
    arguments = ["explain", str(weights), str(tmp_path / "one.png"), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {"occlusion_share", "gradcam_share"} <= document["images"][0].keys()
    assert [row["method"] for row in document["evidence"]] == ["occlusion", "gradcam"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.explained.png"]


def test_weights_and_their_fp32_file_have_the_same_occlusion_share(
    finished_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    shares = []
    for model in (checkpoint.path_of(finished_run, "fp32"), finished_run / "models" / "fp32.tflite"):
        arguments = ["explain", str(model), "--data", str(tiny_data), "--out", str(tmp_path), "--json"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        rows = json.loads(result.stdout)["evidence"]
        shares.append([row["share"] for row in rows if row["method"] == "occlusion"])
    assert shares[0] == pytest.approx(shares[1], abs=1e-3)


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_weights_and_their_exported_file_have_the_same_probabilities(
    finished_run: Path, tmp_path: Path, recipe: str
) -> None:
    patches, _ = synthetic.golden(16)
    paths = [tmp_path / f"{number:02}.png" for number in range(16)]
    for path, patch in zip(paths, patches, strict=True):
        Image.fromarray(patch).save(path)
    exported = finished_run / "models" / f"{recipe}.onnx"
    manifest = manifests.read(exported)
    assert manifest.temperature != pytest.approx(1, abs=0.05)  # at 1 the test could not fail
    weights, file = (
        histoedge.explain(model, paths, out=tmp_path / model.name)
        for model in (checkpoint.path_of(finished_run, recipe), exported)
    )
    assert weights.temperature == file.temperature == manifest.temperature
    for row, other in zip(weights.images, file.images, strict=True):
        assert row["probability"] == pytest.approx(float(manifest.probability(np.array([row["logit"]]))[0]), abs=1e-9)
        # the slope of a sigmoid is at most 1/4; rounding to int8 moves the logit beyond the tolerance of the file
        quanta = manifest.tolerance if recipe == "fp32" else 8 * (manifest.output_quantum or 0)
        assert row["probability"] == pytest.approx(other["probability"], abs=quanta / 4 / manifest.temperature)


def test_weights_of_something_else_are_one_line(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["weights"] = np.zeros(3)
    result = CliRunner().invoke(main, ["explain", str(tmp_path / "theirs.h5"), "--data", "synthetic"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "theirs.h5" in result.stderr
    assert result.stdout == ""
