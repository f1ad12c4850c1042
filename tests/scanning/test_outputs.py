"""The outputs of a map: positions, areas and values in every file match the slide."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skimage")  # the extra `slides`

from histoedge.edge import manifest as manifests
from histoedge.scanning import foci, geojson, heatmap, ometiff, summary, tiles
from histoedge.scanning.slidemap import SlideMap

SCALE = 2.0  # level-0 pixels per plane pixel: squares of 64 px
THRESHOLD = 0.5


@pytest.fixture
def flat(mean_red: Path) -> SlideMap:
    """A map of 10 x 20 squares with logit -2; the last column has no tissue."""
    tissue = np.ones((10, 20), bool)
    tissue[:, -1] = False
    height, width = (12 * 64, 22 * 64)
    return SlideMap(
        slide="slide.svs",
        width_px=width,
        height_px=height,
        slide_um_per_px=0.5,
        um_per_px=1.0,
        scale=SCALE,
        logits=np.where(tissue, np.float32(-2), np.float32(np.nan)),
        tissue=tissue,
        thumbnail=np.full((height // 16, width // 16, 3), 200, np.uint8),
        thumbnail_scale=16,
        computed_share=1.1,
        manifest=replace(manifests.read(mean_red), temperature=1.0),
    )


def mark(flat: SlideMap, *places: tuple[slice | int, slice | int], logit: float = 2) -> SlideMap:
    logits = flat.logits.copy()
    for place in places:
        logits[place] = logit
    return replace(flat, logits=logits)


def test_squares_that_touch_are_one_focus_and_the_largest_comes_first(flat: SlideMap) -> None:
    regions = foci.foci(mark(flat, (0, 0), (slice(4, 6), slice(5, 8)), (6, 8)), THRESHOLD)
    assert [len(focus.rows) for focus in regions] == [7, 1]  # the seventh square touches at a corner
    square_mm2 = 0.032**2
    assert regions[0].area_mm2 == pytest.approx(7 * square_mm2)
    assert regions[0].outline.area == 7 * 64**2
    assert regions[0].outline.bounds == (6 * 64, 5 * 64, 10 * 64, 8 * 64)
    assert regions[0].diameter_mm == pytest.approx(np.hypot(4, 3) * 0.032)
    assert regions[0].mean_probability == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_hole_is_not_part_of_a_focus(flat: SlideMap) -> None:
    ring = mark(flat, (slice(2, 5), slice(2, 5)))
    ring.logits[3, 3] = -2
    (focus,) = foci.foci(ring, THRESHOLD)
    assert focus.outline.area == 8 * 64**2
    assert len(heatmap.rings(focus)) == 2


def test_a_probability_at_the_threshold_counts(flat: SlideMap) -> None:
    assert len(foci.foci(mark(flat, (3, 3), logit=0), THRESHOLD)) == 1
    assert foci.foci(flat, THRESHOLD) == []


def test_top_fields_do_not_overlap(flat: SlideMap) -> None:
    slide_map = mark(flat, (4, 4), logit=5)
    slide_map.logits[4, 5], slide_map.logits[4, 7] = 4.5, 4
    assert foci.top_fields(slide_map, 2) == [(4, 4), (4, 7)]
    assert len(foci.top_fields(slide_map, 1000)) <= 4 * 7


def test_annotations_are_in_pixels_of_level_0(flat: SlideMap) -> None:
    document = geojson.collection(foci.foci(mark(flat, (2, 3)), THRESHOLD), "tumour")
    assert document["type"] == "FeatureCollection"
    (feature,) = document["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert {tuple(corner) for corner in ring} == {(x, y) for x in (256, 320) for y in (192, 256)}
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Tumor"
    assert set(feature["properties"]["measurements"]) == {
        "area mm^2",
        "diameter mm",
        "mean probability",
        "largest probability",
    }


def test_the_ome_tiff_contains_the_map_with_resolution_and_position(flat: SlideMap, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    slide_map = mark(flat, (2, 3))
    ometiff.write_ometiff(slide_map, tmp_path / "map.ome.tif")
    with tifffile.TiffFile(tmp_path / "map.ome.tif") as file:
        assert file.is_ome
        probability, logits = file.series
        assert (probability.name, logits.name) == ("tumour probability", "tumour logit")
        np.testing.assert_array_equal(logits.asarray(), slide_map.logits)
        np.testing.assert_array_equal(probability.asarray(), slide_map.probability)
        assert probability.asarray().dtype == np.float32
        assert [level.shape for level in probability.levels] == [(10, 20), (5, 10)]
        mean = probability.levels[1].asarray()
        assert mean[1, 1] == pytest.approx(slide_map.probability[2:4, 2:4].mean(), abs=1e-6)
        assert mean[0, 9] == pytest.approx(
            slide_map.probability[0, 18], abs=1e-6
        )  # the square next to it has no tissue
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"][0]["Pixels"]
        assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 32.0
        assert pixels["Plane"]["PositionX"] == pixels["Plane"]["PositionY"] == 32.0
    again = tmp_path / "again" / "map.ome.tif"
    ometiff.write_ometiff(slide_map, again)
    assert again.read_bytes() == (tmp_path / "map.ome.tif").read_bytes()


@pytest.mark.parametrize(("rows", "columns", "levels"), [(1, 1, 2), (64, 3, 2), (129, 5, 3)])
def test_a_pyramid_has_at_least_one_coarser_level(rows: int, columns: int, levels: int) -> None:
    pyramid = ometiff.pyramid(np.zeros((rows, columns), np.float32))
    assert len(pyramid) == levels
    assert pyramid[-1].shape == (-(-rows // 2 ** (levels - 1)), -(-columns // 2 ** (levels - 1)))
    assert not np.isnan(pyramid[-1]).any()


def test_the_heatmap_shows_a_focus_at_its_position(flat: SlideMap, tmp_path: Path) -> None:
    from PIL import Image

    slide_map = mark(flat, (slice(5, 7), slice(9, 12)), logit=9)
    scale = heatmap.draw(slide_map, foci.foci(slide_map, THRESHOLD), tmp_path / "f.png", threshold=THRESHOLD)
    picture = np.asarray(Image.open(tmp_path / "f.png").convert("RGB")).astype(int)
    slide_part = picture[: round(slide_map.height_px / scale), : round(slide_map.width_px / scale)]
    red = slide_part[..., 0] - slide_part[..., 1] > 60
    rows, columns = np.nonzero(red)
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * scale
    np.testing.assert_allclose(
        edges, (10 * 64, 6 * 64, 13 * 64, 8 * 64), atol=2 * scale
    )  # the outline is drawn on the edge


def test_the_table_has_the_columns_of_wsinfer(flat: SlideMap, tmp_path: Path) -> None:
    slide_map = replace(mark(flat, (0, 1)), scale=62.33 / 32)
    assert tiles.write_tiles(slide_map, tmp_path / "tiles.csv") == 190
    with open(tmp_path / "tiles.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["minx", "miny", "width", "height", "prob_Other", "prob_Tumor"]
    assert [int(rows[1][key]) for key in ("minx", "miny", "width", "height")] == [125, 62, 62, 63]
    assert float(rows[1]["prob_Tumor"]) == pytest.approx(slide_map.probability[0, 1], abs=1e-6)
    assert float(rows[1]["prob_Other"]) + float(rows[1]["prob_Tumor"]) == pytest.approx(1)
    assert int(rows[0]["minx"]) + int(rows[0]["width"]) == int(rows[1]["minx"])  # neither gap nor overlap


def test_the_summary_contains_areas_foci_and_top_fields(flat: SlideMap) -> None:
    slide_map = mark(flat, (2, 3))
    figures = summary.of(slide_map, foci.foci(slide_map, THRESHOLD), threshold=THRESHOLD)
    assert figures["tissue_mm2"] == pytest.approx(190 * 0.032**2)
    assert figures["positive_mm2"] == pytest.approx(0.032**2)
    assert figures["largest_focus_mm"] == pytest.approx(np.sqrt(2) * 0.032)
    first = figures["top_fields"][0]
    assert (first["x"], first["y"], first["logit"]) == (256, 192, 2)
    assert figures["model"]["sha256"] == slide_map.manifest.sha256
    assert "in 1 focus, largest diameter 0.05 mm" in summary.sentence(figures)


def test_the_sentence_without_tissue(flat: SlideMap) -> None:
    empty = replace(flat, logits=np.full_like(flat.logits, np.nan), tissue=np.zeros_like(flat.tissue))
    figures = summary.of(empty, foci.foci(empty, THRESHOLD), threshold=THRESHOLD)
    assert summary.sentence(figures) == "no tissue: the map is empty"
    assert (figures["positive_share"], figures["largest_focus_mm"], figures["top_fields"]) == (None, None, [])


@pytest.mark.parametrize(("most", "length"), [(999, 500), (1000, 1000), (2.5, 2), (0.19, 0.1)])
def test_scale_bars_have_round_lengths(most: float, length: float) -> None:
    assert heatmap.round_length(most) == pytest.approx(length)


def test_a_large_slide_is_reduced_and_a_small_slide_enlarged(flat: SlideMap) -> None:
    picture, scale = heatmap.slide_picture(flat)
    assert picture.shape == (48 * 7, 88 * 7, 3)
    assert scale == pytest.approx(16 / 7)
    large = replace(flat, thumbnail=np.zeros((2500, 4000, 3), np.uint8), thumbnail_scale=8)
    picture, scale = heatmap.slide_picture(large)
    assert picture.shape == (1250, 2000, 3)
    assert scale == 16
