"""What is made of a map: every place in it is found again where it is on the slide."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("skimage")  # the extra `slides`

from histoedge.edge import manifest as manifests
from histoedge.scanning import foci, geojson, heatmap, ometiff, summary, tiles
from histoedge.scanning.slidemap import SlideMap

SCALE = 2.0  # level-0 pixels to one of the plane: squares of 64
THRESHOLD = 0.5


@pytest.fixture
def flat(mean_red: Path) -> SlideMap:
    """A map of 10 x 20 squares, all tissue but the last column, logit -2 everywhere."""
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
        manifest=replace(manifests.read(mean_red), temperature=1.0),
    )


def marked(flat: SlideMap, *places: tuple[slice | int, slice | int], logit: float = 2) -> SlideMap:
    logits = flat.logits.copy()
    for place in places:
        logits[place] = logit
    return replace(flat, logits=logits)


def test_squares_that_touch_are_one_focus_and_the_largest_comes_first(flat: SlideMap) -> None:
    found = foci.foci(marked(flat, (0, 0), (slice(4, 6), slice(5, 8)), (6, 8)), THRESHOLD)
    assert [len(focus.rows) for focus in found] == [7, 1]  # the seventh touches at a corner
    square_mm2 = 0.032**2
    assert found[0].area_mm2 == pytest.approx(7 * square_mm2)
    assert found[0].outline.area == 7 * 64**2
    assert found[0].outline.bounds == (6 * 64, 5 * 64, 10 * 64, 8 * 64)
    assert found[0].diameter_mm == pytest.approx(np.hypot(4, 3) * 0.032)
    assert found[0].mean_probability == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_hole_is_no_part_of_a_focus(flat: SlideMap) -> None:
    ring = marked(flat, (slice(2, 5), slice(2, 5)))
    ring.logits[3, 3] = -2
    (focus,) = foci.foci(ring, THRESHOLD)
    assert focus.outline.area == 8 * 64**2
    assert len(heatmap.rings(focus)) == 2


def test_a_probability_at_the_threshold_counts(flat: SlideMap) -> None:
    assert len(foci.foci(marked(flat, (3, 3), logit=0), THRESHOLD)) == 1
    assert foci.foci(flat, THRESHOLD) == []


def test_top_fields_do_not_overlap(flat: SlideMap) -> None:
    found = marked(flat, (4, 4), logit=5)
    found.logits[4, 5], found.logits[4, 7] = 4.5, 4
    assert foci.top_fields(found, 2) == [(4, 4), (4, 7)]
    assert len(foci.top_fields(found, 1000)) <= 4 * 7


def test_annotations_are_in_pixels_of_level_0(flat: SlideMap) -> None:
    document = geojson.collection(foci.foci(marked(flat, (2, 3)), THRESHOLD))
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


def test_the_ome_tiff_holds_the_map_with_its_resolution_and_place(flat: SlideMap, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    found = marked(flat, (2, 3))
    ometiff.write_ometiff(found, tmp_path / "map.ome.tif")
    with tifffile.TiffFile(tmp_path / "map.ome.tif") as file:
        assert file.is_ome
        probability, logits = file.series
        assert (probability.name, logits.name) == ("tumour probability", "tumour logit")
        np.testing.assert_array_equal(logits.asarray(), found.logits)
        np.testing.assert_array_equal(probability.asarray(), found.probability)
        assert probability.asarray().dtype == np.float32
        assert [level.shape for level in probability.levels] == [(10, 20), (5, 10)]
        mean = probability.levels[1].asarray()
        assert mean[1, 1] == pytest.approx(found.probability[2:4, 2:4].mean(), abs=1e-6)
        assert mean[0, 9] == pytest.approx(found.probability[0, 18], abs=1e-6)  # beside it there is no tissue
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"][0]["Pixels"]
        assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 32.0
        assert pixels["Plane"]["PositionX"] == pixels["Plane"]["PositionY"] == 32.0
    again = tmp_path / "again" / "map.ome.tif"
    ometiff.write_ometiff(found, again)
    assert again.read_bytes() == (tmp_path / "map.ome.tif").read_bytes()


@pytest.mark.parametrize(("rows", "columns", "levels"), [(1, 1, 2), (64, 3, 2), (129, 5, 3)])
def test_a_pyramid_has_a_coarser_level_and_ends(rows: int, columns: int, levels: int) -> None:
    made = ometiff.pyramid(np.zeros((rows, columns), np.float32))
    assert len(made) == levels
    assert made[-1].shape == (-(-rows // 2 ** (levels - 1)), -(-columns // 2 ** (levels - 1)))
    assert not np.isnan(made[-1]).any()


def test_the_heatmap_shows_a_focus_where_it_is(flat: SlideMap, tmp_path: Path) -> None:
    from PIL import Image

    found = marked(flat, (slice(5, 7), slice(9, 12)), logit=9)
    scale = heatmap.draw(found, foci.foci(found, THRESHOLD), tmp_path / "f.png", threshold=THRESHOLD)
    picture = np.asarray(Image.open(tmp_path / "f.png").convert("RGB")).astype(int)
    shown = picture[: round(found.height_px / scale), : round(found.width_px / scale)]
    red = shown[..., 0] - shown[..., 1] > 60  # the legend is below
    rows, columns = np.nonzero(red)
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * scale
    np.testing.assert_allclose(edges, (10 * 64, 6 * 64, 13 * 64, 8 * 64), atol=2 * scale)  # outlined over the edge


def test_the_table_has_the_columns_of_wsinfer(flat: SlideMap, tmp_path: Path) -> None:
    found = replace(marked(flat, (0, 1)), scale=62.33 / 32)
    assert tiles.write_tiles(found, tmp_path / "tiles.csv") == 190
    with open(tmp_path / "tiles.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["minx", "miny", "width", "height", "prob_Other", "prob_Tumor"]
    assert [int(rows[1][key]) for key in ("minx", "miny", "width", "height")] == [125, 62, 62, 63]
    assert float(rows[1]["prob_Tumor"]) == pytest.approx(found.probability[0, 1], abs=1e-6)
    assert float(rows[1]["prob_Other"]) + float(rows[1]["prob_Tumor"]) == pytest.approx(1)
    assert int(rows[0]["minx"]) + int(rows[0]["width"]) == int(rows[1]["minx"])  # no gap, no overlap


def test_the_summary_tells_areas_foci_and_top_fields(flat: SlideMap) -> None:
    found = marked(flat, (2, 3))
    told = summary.of(found, foci.foci(found, THRESHOLD), threshold=THRESHOLD)
    assert told["tissue_mm2"] == pytest.approx(190 * 0.032**2)
    assert told["positive_mm2"] == pytest.approx(0.032**2)
    assert told["largest_focus_mm"] == pytest.approx(np.sqrt(2) * 0.032)
    first = told["top_fields"][0]
    assert (first["x"], first["y"], first["logit"]) == (256, 192, 2)
    assert told["model"]["sha256"] == found.manifest.sha256
    assert "in 1 focus, the largest 0.05 mm across" in summary.sentence(told)


def test_no_tissue_is_said_in_plain_words(flat: SlideMap) -> None:
    empty = replace(flat, logits=np.full_like(flat.logits, np.nan), tissue=np.zeros_like(flat.tissue))
    told = summary.of(empty, foci.foci(empty, THRESHOLD), threshold=THRESHOLD)
    assert summary.sentence(told) == "no tissue found: the map is empty"
    assert (told["positive_share"], told["largest_focus_mm"], told["top_fields"]) == (None, None, [])


@pytest.mark.parametrize(("most", "length"), [(999, 500), (1000, 1000), (2.5, 2), (0.19, 0.1)])
def test_scale_bars_have_round_lengths(most: float, length: float) -> None:
    assert heatmap.round_length(most) == pytest.approx(length)


def test_a_large_slide_is_shown_smaller_and_a_small_one_larger(flat: SlideMap) -> None:
    picture, scale = heatmap.shown(flat)
    assert picture.shape == (48 * 7, 88 * 7, 3)
    assert scale == pytest.approx(16 / 7)
    large = replace(flat, thumbnail=np.zeros((2500, 4000, 3), np.uint8), thumbnail_scale=8)
    picture, scale = heatmap.shown(large)
    assert picture.shape == (1250, 2000, 3)
    assert scale == 16
