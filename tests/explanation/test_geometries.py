"""Explanations of models with other patches, labels and classes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from histoedge import explanation
from histoedge.edge.errors import DataError
from histoedge.explanation import occlusion


@pytest.mark.parametrize(
    ("patch_px", "label_px", "count"),
    [(96, 32, 6), (64, 32, 8), (64, 64, 6), (224, 224, 6), (256, 64, 8), (128, 64, 8), (32, 16, 8), (97, 33, 6)],
)
def test_no_square_crosses_the_edge_of_the_label_where_that_is_possible(
    patch_px: int, label_px: int, count: int
) -> None:
    assert occlusion.squares_per_side(patch_px, label_px) == count
    margin = (patch_px - label_px) / 2
    fits = all((edge * count / patch_px).is_integer() for edge in (margin, margin + label_px))
    assert fits == (patch_px != 97)


@pytest.mark.parametrize(("patch_px", "label_px"), [(64, 32), (128, 64), (256, 64), (64, 64)])
def test_a_model_that_sees_only_the_label_has_all_evidence_there(patch_px: int, label_px: int) -> None:
    start = (patch_px - label_px) // 2
    centre = np.s_[:, start : start + label_px, start : start + label_px]
    model = explanation.Model(
        name="by hand",
        predict=lambda patches: (
            patches[centre].max(axis=(1, 2, 3)).astype(np.float32)
            + patches[centre].std(axis=(1, 2, 3)).astype(np.float32)
        ),
        temperature=1.0,
        threshold=0.5,
        patch_px=patch_px,
        label_px=label_px,
    )
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (2, patch_px, patch_px, 3))
    drops = occlusion.drops(model.predict, noise, per_side=model.per_side, fine=True)
    assert (model.centre_share(occlusion.tiles(drops)) == 1).all()
    assert model.uniform_shares == {"occlusion": (label_px / patch_px) ** 2}
    heat = occlusion.spread(drops[0], patch_px)
    assert heat.shape == (patch_px, patch_px)
    outside = np.ones((patch_px, patch_px), bool)
    reach = round(patch_px / model.per_side / 2) + 1  # squares of the finer map lie half outside
    inner = slice(max(0, start - reach), start + label_px + reach)
    outside[inner, inner] = False
    assert (heat[outside] == 0).all()


def test_a_value_that_belongs_to_the_centre_in_part_counts_in_part() -> None:
    share = explanation.centre_share(np.ones((1, 6, 6)), patch_px=97, label_px=33)
    assert share == pytest.approx((33 / 97) ** 2)
    one = np.zeros((1, 4, 4))
    one[0, 1, 2] = 1
    assert explanation.centre_share(one, patch_px=64, label_px=16) == pytest.approx(0.25)


def test_images_of_another_size_are_explained_with_the_names_of_their_classes(
    mean_red_of: Callable[..., Path], tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    model = mean_red_of(64, 16, label_px=32, classes=["benign", "in situ"], threshold=0.6)
    for name, red in (("a.png", 0), ("b.png", 255)):
        Image.new("RGB", (64, 64), (red, 0, 0)).save(tmp_path / name)
    result = invoke("explain", model, tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["verdict"] for row in document["images"]] == ["benign", "in situ"]
    predicted = invoke("predict", model, tmp_path / "a.png", tmp_path / "b.png")
    assert [line.split("  ")[1] for line in predicted.stdout.splitlines()] == ["benign", "in situ"]
    Image.new("RGB", (96, 96)).save(tmp_path / "c.png")
    for command in (["predict", model, tmp_path / "c.png"], ["explain", model, tmp_path / "c.png"]):
        refused = invoke(*command)
        assert refused.exit_code == 1
        assert "c.png: 96 x 96 px, expected a 64 x 64" in refused.stderr


def test_a_split_of_another_size_is_refused_in_one_line(mean_red_of: Callable[..., Path]) -> None:
    split = SimpleNamespace(name="valid", patches=np.zeros((2, 96, 96, 3), np.uint8), labels=np.array([0, 1]))
    model = explanation.exported(mean_red_of(64, 16))
    with pytest.raises(DataError, match=r"valid: patches of 96 px, mean_red_64.onnx expects 64 px"):
        explanation.evidence_of_split(model, split)
