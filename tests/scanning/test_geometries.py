"""Scans with models of other patches, labels and classes, and with models that compute single patches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge.errors import ConfigError
from histoedge.scanning import Scan, Workers, page, scan
from histoedge.scanning.grid import grid_of
from histoedge.scanning.plane import of_model
from histoedge.scanning.readers import open_slide

SIDE = 700
ONE_EACH = Workers(readers=1, interpreters=1)


@pytest.mark.parametrize(
    ("patch_px", "label_px", "stride_px", "edge_mode"),
    [
        (64, 64, 32, "valid"),
        (64, 32, 16, "valid"),
        (224, 224, 32, "valid"),
        (130, 33, 11, "valid"),
        (96, 40, 24, "patch"),
    ],
)
def test_each_square_has_the_logit_of_the_patch_around_it(
    write_slide: Callable[..., Path],
    texture: Callable[[int, int], np.ndarray],
    mean_red_of: Callable[..., Path],
    tmp_path: Path,
    patch_px: int,
    label_px: int,
    stride_px: int,
    edge_mode: str,
) -> None:
    pixels = texture(SIDE, SIDE + 90)
    model = mean_red_of(patch_px, stride_px, label_px=label_px, edge_mode=edge_mode, um_per_px=0.5)
    path = write_slide(pixels, um_per_px=0.5)
    settings = Scan(mask=False, field_px=400)
    slide_map, *_ = scan(path, model, tmp_path / "out", settings=settings, workers=ONE_EACH)
    rows, columns = ((side - patch_px) // label_px + 1 for side in (SIDE, SIDE + 90))
    assert slide_map.logits.shape == (rows, columns)
    margin = (patch_px - label_px) / 2
    for (row, column), logit in np.ndenumerate(slide_map.logits):
        top, left = row * label_px, column * label_px
        patch = pixels[top : top + patch_px, left : left + patch_px, 0]
        assert logit == pytest.approx(patch.mean() / 255, abs=1e-5)
        assert slide_map.corner_level0_px(row, column) == pytest.approx((left + margin, top + margin))


def test_a_model_of_single_patches_is_scanned_patch_by_patch_and_says_so(
    write_slide: Callable[..., Path],
    texture: Callable[[int, int], np.ndarray],
    mobilenet: Callable[..., Path],
    scan: Callable[..., Any],
    logits: Callable[[Path], np.ndarray],
    tmp_path: Path,
) -> None:
    pixels = texture(400, 300)
    model = mobilenet("single", classes=["benign", "in situ <b>"])
    result = scan(write_slide(pixels), "--model", model, "--out", tmp_path, "--everywhere", "--field", 200)
    assert result.exit_code == 0, result.output
    assert "computed patch by patch (edge_mode patch), 9.0 pixels computed for each pixel" in result.stdout
    predict = edge.load(model).predict
    values = logits(tmp_path / "slide")
    assert values.shape == (10, 7)
    for (row, column), logit in np.ndenumerate(values):
        alone = predict(pixels[None, 32 * row : 32 * row + 96, 32 * column : 32 * column + 96])
        assert logit == pytest.approx(alone.item(), abs=1e-5)
    document = json.loads((tmp_path / "slide" / "summary.json").read_text())
    assert document["map"]["computed"] == "patches"
    assert document["map"]["pixels_computed"] == 9
    assert document["model"]["classes"] == ["benign", "in situ <b>"]
    text = (tmp_path / "slide" / "page.html").read_text()
    assert "Probability of in situ &lt;b&gt; on the slide" in text
    assert "patch by patch (edge_mode patch), 9.0 pixels" in text
    assert "<b>" not in text.split("in situ ")[1][:10]
    header = (tmp_path / "slide" / "tiles.csv").read_text().splitlines()[0]
    assert header == "minx,miny,width,height,prob_benign,prob_in situ <b>"


def test_a_field_of_a_dense_model_computes_little_more_than_the_map(
    write_slide: Callable[..., Path], texture: Callable[[int, int], np.ndarray], mean_red: Path
) -> None:
    plane = of_model(open_slide(write_slide(texture(300, 300))), 0.972, None)
    grid = grid_of(plane, edge.load(mean_red).manifest, 1024)
    assert (grid.per_field, grid.field_px) == (30, 1024)
    assert grid.computed_share(is_dense=True) == pytest.approx((1024 / 960) ** 2)
    assert grid.computed_share(is_dense=False) == 9


def test_the_square_of_a_top_field_is_the_labelled_one(
    write_slide: Callable[..., Path],
    texture: Callable[[int, int], np.ndarray],
    mean_red_of: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pixels = texture(200, 200)
    model = mean_red_of(64, 16, label_px=32, um_per_px=0.5)
    settings = Scan(mask=False, field_px=400)
    slide_map, *_ = scan(write_slide(pixels, um_per_px=0.5), model, tmp_path, settings=settings, workers=ONE_EACH)
    assert page.picture_px(slide_map) == 128
    assert page.square_of(slide_map) == {"start": 37.5, "side": 25.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"label_px": 40},
            "the model's stride is 16 px; a scan needs a stride that divides the labelled square, 40 px",
        ),
        ({"label_px": 4}, "the model's labels are for squares of 4 px; a scan needs 8 px or more"),
    ],
)
def test_geometries_without_a_map_are_refused(
    write_slide: Callable[..., Path],
    texture: Callable[[int, int], np.ndarray],
    mean_red_of: Callable[..., Path],
    fields: dict[str, int],
    message: str,
) -> None:
    plane = of_model(open_slide(write_slide(texture(300, 300))), 0.972, None)
    with pytest.raises(ConfigError, match=message):
        grid_of(plane, edge.load(mean_red_of(64, 16, **fields)).manifest, 256)
