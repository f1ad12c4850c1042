"""Explanations of models with known evidence, such as one that sees the centre only and one that counts pixels."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from histoedge import explanation
from histoedge.cli import main
from histoedge.data import synthetic
from histoedge.edge.errors import ConfigError, ModelError, RuntimeUnavailable
from histoedge.explanation import occlusion

CENTRE = np.s_[:, 32:64, 32:64]


def bright(patches: np.ndarray) -> np.ndarray:
    """Return the number of white pixels as the logit: covering a square with a darker mean colour removes its own."""
    return (patches == 255).all(axis=-1).sum(axis=(1, 2)).astype(np.float32).reshape(-1, 1, 1, 1)


def bright_centre(patches: np.ndarray) -> np.ndarray:
    return bright(patches[CENTRE])


def model(predict: Callable[[np.ndarray], np.ndarray], **rest: Any) -> explanation.Model:
    return explanation.Model(name="by hand", predict=predict, temperature=1.0, **rest)


@pytest.fixture
def chequered() -> np.ndarray:
    """Two chequered patches of white and black pixels: 128 white pixels in each tile."""
    patches = np.zeros((2, 96, 96, 3), np.uint8)
    patches[:, np.indices((96, 96)).sum(axis=0) % 2 == 0] = 255
    return patches


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).choice(np.array([0, 255], np.uint8), (4, 96, 96, 1)).repeat(3, axis=3)


@pytest.fixture
def centre_red(write_onnx: Callable[..., Path]) -> Path:
    """An exported file whose logit is the mean red value of the centre 32 x 32 px / 255."""
    from onnx import TensorProto, helper

    kernel = np.zeros((1, 3, 96, 96), np.float32)
    kernel[0, 0, 32:64, 32:64] = 1 / 255 / 32**2
    nodes = [
        helper.make_node("Cast", ["patches"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["logit"], strides=[32, 32]),
        helper.make_node("Transpose", ["logit"], ["tumour_logit"], perm=[0, 2, 3, 1]),
    ]
    return write_onnx("centre_red", nodes, {"kernel": kernel})


# ---- occlusion


def test_covering_a_square_removes_its_part_of_the_logit(chequered: np.ndarray) -> None:
    chequered[0, :16, :16] = 0
    drops = occlusion.drops(bright, chequered, per_side=6, fine=False)
    assert drops.shape == (2, 6, 6)
    assert drops[0, 0, 0] == 0
    assert (drops[0].ravel()[1:] == 128).all()
    assert (drops[1] == 128).all()


def test_a_patch_of_one_colour_has_no_evidence_because_the_cover_is_the_mean_colour() -> None:
    patches = np.full((1, 96, 96, 3), (200, 120, 160), np.uint8)
    drops = occlusion.drops(
        lambda variants: variants.sum(axis=(1, 2, 3)).astype(np.float32), patches, per_side=6, fine=False
    )
    assert (drops == 0).all()
    assert np.isnan(explanation.centre_share(drops)).all()


def test_tiles_are_among_the_squares_of_the_finer_map(noise: np.ndarray) -> None:
    fine = occlusion.drops(bright, noise, per_side=6, fine=True)
    assert fine.shape == (4, 11, 11)
    np.testing.assert_array_equal(occlusion.tiles(fine), occlusion.drops(bright, noise, per_side=6, fine=False))


def test_spread_keeps_the_position_of_each_square() -> None:
    assert (occlusion.spread(np.full((11, 11), 2.5), 96) == 2.5).all()
    drops = np.zeros((11, 11))
    drops[2, 10] = 1
    rows, columns = np.nonzero(occlusion.spread(drops, 96))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 80, 95)


# ---- the share of the centre


def test_a_model_that_sees_only_the_centre_has_all_evidence_there(noise: np.ndarray) -> None:
    assert (explanation.centre_share(occlusion.drops(bright_centre, noise, per_side=6, fine=False)) == 1).all()


def test_uniform_evidence_has_a_ninth_in_the_centre(chequered: np.ndarray) -> None:
    assert explanation.centre_share(occlusion.drops(bright, chequered, per_side=6, fine=False)) == pytest.approx(1 / 9)
    assert explanation.centre_share(np.ones((1, 96, 96))) == pytest.approx(1 / 9)


def test_evidence_against_tumour_is_ignored() -> None:
    maps = np.full((2, 6, 6), -5.0)
    maps[0, 2, 3], maps[0, 0, 0] = 1, 3
    share, without = explanation.centre_share(maps)
    assert share == 0.25
    assert np.isnan(without)


def test_evidence_has_a_mean_and_an_interval_over_patches_with_a_share() -> None:
    shares = {"occlusion": np.array([0.2, 0.4, 0.6, np.nan])}
    (row,) = explanation.evidence("images", shares, model(bright, threshold=0.5))
    assert (row.n_patches, row.n_without) == (3, 1)
    assert row.share == pytest.approx(0.4)
    assert row.share_hi == pytest.approx(0.4 + 1.96 * 0.2 / 3**0.5)
    (single,) = explanation.evidence("images", {"occlusion": shares["occlusion"][:1]}, model(bright, threshold=0.5))
    assert (single.share, single.share_lo) == (0.2, None)
    (empty,) = explanation.evidence("images", {"occlusion": shares["occlusion"][3:]}, model(bright, threshold=0.5))
    assert empty.share is None


def test_the_sample_of_a_split_is_reproducible_and_reported_by_class() -> None:
    split = synthetic.generate("valid", patches=40, seed=0)

    def dark_centre(patches: np.ndarray) -> np.ndarray:
        return -patches[CENTRE].mean(axis=(1, 2, 3)).astype(np.float32)

    rows = explanation.evidence_of_split(model(dark_centre, threshold=0.5), split)
    assert rows == explanation.evidence_of_split(model(dark_centre, threshold=0.5), split)
    assert [row.patches for row in rows] == ["tumour", "normal"]
    assert sum(row.n_patches + row.n_without for row in rows) == 40
    assert all(row.share == 1 for row in rows)


def test_most_confident_patches_are_sorted_within_each_kind() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 1])
    probability = np.array([0.6, 0.9, 0.1, 0.2, 0.05, 0.7, 0.5])
    kinds = {kind: chosen.tolist() for kind, chosen in explanation.most_confident(labels, probability, 0.5).items()}
    expected = {"true positive": [1, 0, 6], "false negative": [2], "false positive": [5], "true negative": [4, 3]}
    assert kinds == expected
    many = explanation.most_confident(np.ones(50), np.linspace(0.5, 1, 50), 0.5)
    assert many["true positive"].tolist() == list(range(49, 41, -1))


# ---- the command


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def assert_one_line(result: Any, message: str) -> None:
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def red_noise(folder: Path, *names: str) -> list[Path]:
    """Write images of noise with a redder centre."""
    random = np.random.default_rng(5)
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 128, (96, 96, 3), dtype=np.uint8)
        pixels[32:64, 32:64, 0] += 127
        Image.fromarray(pixels).save(path)
    return paths


def test_images_explained_with_a_model_that_sees_only_the_centre(centre_red: Path, tmp_path: Path) -> None:
    red_noise(tmp_path / "in", "a$x$.png", "b.tif")
    result = invoke(centre_red, tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["id"] for row in document["images"]] == ["a$x$", "b"]
    for row in document["images"]:
        assert row["logit"] == pytest.approx((63.5 + 127) / 255, abs=0.02)
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-row["logit"])))
        assert row["occlusion_share"] > 0.999  # float32 sums outside the centre
    (evidence,) = document["evidence"]
    assert evidence["share"] > 0.999
    assert evidence["uniform_share"] == pytest.approx(1 / 9)
    assert document["contact_sheet"] is None
    assert document["temperature"] == 1.0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a$x$.explained.png", "b.explained.png"]
    with Image.open(document["images"][0]["picture"]) as picture:
        assert picture.format == "PNG"
        assert picture.width > 900


def test_the_table_has_a_row_per_image(centre_red: Path, tmp_path: Path) -> None:
    (path,) = red_noise(tmp_path, "one.png")
    lines = invoke(centre_red, path, "--out", tmp_path / "out").stdout.splitlines()
    assert lines[0].split() == ["id", "verdict", "logit", "probability", "occlusion_share", "picture"]
    assert lines[1].split()[:2] == ["one", "tumour"]
    assert lines[3].split()[:2] == ["images", "occlusion"]
    assert lines[-1] == "probabilities at temperature 1"


def test_the_contact_sheet_needs_only_the_valid_split(centre_red: Path, tmp_path: Path) -> None:
    synthetic.synth(tmp_path / "data", patches=32, seed=0)
    for path in (tmp_path / "data").glob("*_split_t*"):
        path.unlink()  # of train and test
    result = invoke(centre_red, "--data", tmp_path / "data", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["patches"] for row in document["evidence"]] == ["tumour", "normal"]
    assert sum(row["n_patches"] + row["n_without"] for row in document["evidence"]) == 16
    assert document["images"] == []
    assert document["contact_sheet"] == str(tmp_path / "out" / "contact_sheet.png")
    with Image.open(document["contact_sheet"]) as sheet:
        assert np.asarray(sheet.convert("L")).std() > 20
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["contact_sheet.png"]


def test_explain_without_patches_is_a_one_line_error(centre_red: Path) -> None:
    assert_one_line(invoke(centre_red), "give images, folders of images, or --data DATA")


def test_an_image_of_another_size_is_a_one_line_error_without_output(centre_red: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    result = invoke(centre_red, tmp_path / "small.png", "--out", tmp_path / "out")
    assert_one_line(result, "small.png: 32 x 32 px, expected a 96 x 96")
    assert not (tmp_path / "out").exists()


def test_two_images_of_the_same_name_are_refused(centre_red: Path, tmp_path: Path) -> None:
    paths = red_noise(tmp_path / "a", "x.png") + red_noise(tmp_path / "b", "x.tif")
    assert_one_line(invoke(centre_red, *paths, "--out", tmp_path / "out"), "have the same id")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="have the same id"):
        next(explanation.images(explanation.exported(centre_red), paths))


def test_a_missing_model_or_runtime_is_a_one_line_error(centre_red: Path, tmp_path: Path) -> None:
    (path,) = red_noise(tmp_path, "one.png")
    assert_one_line(invoke(tmp_path / "int8.onnx", path), "no such model file")
    assert_one_line(invoke(centre_red, path, "--runtime", "litert"), "litert does not open onnx files")
    assert_one_line(invoke(tmp_path / "fp32.weights.h5", path, "--runtime", "litert"), "omit --runtime")
    with pytest.raises(ModelError):
        explanation.exported(tmp_path / "int8.onnx")
    with pytest.raises(RuntimeUnavailable):
        explanation.exported(centre_red, runtime="litert")


def test_without_matplotlib_the_error_names_the_extra(centre_red: Path, tmp_path: Path) -> None:
    (path,) = red_noise(tmp_path, "one.png")
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'matplotlib': raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from histoedge.cli import main\n"
        f"main(['explain', {str(centre_red)!r}, {str(path)!r}, '--out', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    expected = "histoedge: explain needs matplotlib, which is not installed: pip install 'histoedge[bench]'\n"
    assert done.stderr == expected
    assert not (tmp_path / "out").exists()
