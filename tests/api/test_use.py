"""Functions that use exported models do what their commands do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import histoedge
from histoedge.edge.errors import ConfigError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, red in (("b", 255), ("a", 0)):
        Image.fromarray(np.full((96, 96, 3), (red, 0, 0), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_predict_is_the_command(mean_red: Path, images: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    calls: list[Any] = []
    predictions = histoedge.predict(
        str(mean_red), images, csv=tmp_path / "a.csv", progress=lambda *arguments: calls.append(arguments)
    )
    assert [(row.id, row.positive) for row in predictions] == [("a", True), ("b", True)]
    assert calls == [("predict, images", 1, 2), ("predict, images", 2, 2)]
    command("predict", mean_red, images, "--csv", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert histoedge.predict(mean_red, [images / "b.png"])[0] == predictions[1]


def test_explain_is_the_command(mean_red: Path, images: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    pytest.importorskip("matplotlib")
    explained = histoedge.explain(mean_red, images / "b.png", out=tmp_path / "out")
    assert [row["id"] for row in explained.images] == ["b"]
    assert explained.contact_sheet is None
    shown = command("explain", mean_red, images / "b.png", "--out", tmp_path / "out")
    assert explained.images[0]["picture"] in shown
    with pytest.raises(ConfigError, match="explain needs patches"):
        histoedge.explain(mean_red)


def test_scan_is_the_command(mean_red: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    pytest.importorskip("tifffile")
    Image.new("RGB", (256, 256)).save(tmp_path / "s.png")
    (done,) = histoedge.scan(tmp_path / "s.png", model=mean_red, out=tmp_path / "maps", um_per_px=0.972, workers=1)
    assert done.status == "done"
    shown = command(
        *("scan", tmp_path / "s.png", "--model", mean_red, "--out", tmp_path / "maps"),
        *("--um-per-px", 0.972, "--workers", 1, "--json"),
    )
    assert '"status": "kept"' in shown
