import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge.cell import EDGE_COMMAND, Cell
from histoedge.config import Recipe
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.lab import appearance, checkpoint, export, quantise, saturate

pytestmark = pytest.mark.lab


def test_products_of_neighbours_are_cut_at_16_bits() -> None:
    rows = np.array([[255, 255, 255, 255], [255, 0, 0, 255], [100, 100, 0, 0]], np.uint8)
    columns = np.array([[127, -128], [127, -128], [127, 127], [-127, 127]], np.int8)
    exact = [[2 * 255 * 127, -2 * 255 * 128 + 2 * 255 * 127], [0, -255], [25400, -25600]]
    assert saturate.pairwise_sums(rows, columns, saturating=False).tolist() == exact
    cut = [[32767, -32768 + 32767], [0, -255], [25400, -25600]]  # the third and fourth codes cancel in one pair
    assert saturate.pairwise_sums(rows, columns, saturating=True).tolist() == cut


def test_an_odd_product_stands_alone() -> None:
    rows, columns = np.full((1, 3), 255, np.uint8), np.full((3, 1), 127, np.int8)
    assert saturate.pairwise_sums(rows, columns, saturating=True).tolist() == [[32767 + 255 * 127]]


def test_without_saturation_it_is_the_integer_network(mean_red_int8: Path) -> None:
    golden = goldens.read_golden(mean_red_int8, manifests.read(mean_red_int8))
    content = mean_red_int8.read_bytes()
    logits = saturate.simulated_logits(content, golden.patches)
    np.testing.assert_allclose(logits, golden.logits, atol=1e-6)  # red alone: no two neighbours add up
    assert logits.dtype == np.float32


def test_an_operator_of_floats_is_refused_by_name(mean_red: Path) -> None:
    with pytest.raises(ModelError, match="operator Cast of .* is not emulated"):
        saturate.simulated_logits(mean_red.read_bytes(), np.zeros((1, 96, 96, 3), np.uint8))


def exported(run: Path, into: Path, largest_code: int) -> Path:
    """The run's int8 weights exported with codes up to this one, whatever the run itself chose."""
    into.mkdir()
    for name in ("fp32", "int8"):
        saved = checkpoint.read(checkpoint.path_of(run, name))
        codes = {} if name == "fp32" else {quantise.KERNEL_CODES: np.array([-largest_code, largest_code])}
        checkpoint.write(checkpoint.path_of(into, name), dataclasses.replace(saved, arrays={**saved.arrays, **codes}))
    shutil.copy(run / appearance.NAME, into)
    return export.export(into, Recipe.parse("int8"))[1].model


@pytest.fixture
def finer(finished_run: Path, tmp_path: Path) -> Path:
    """Codes that may saturate."""
    return exported(finished_run, tmp_path / "finer", 127)


@pytest.fixture
def safe(finished_run: Path, tmp_path: Path) -> Path:
    """Codes that cannot."""
    return exported(finished_run, tmp_path / "safe", 63)


def test_export_stores_saturated_logits_only_where_they_may_occur(safe: Path, finer: Path) -> None:
    with np.load(goldens.golden_path(safe)) as arrays:
        assert set(arrays) == {"patches", "labels", "logits"}
    with np.load(goldens.golden_path(finer.with_suffix(".tflite"))) as arrays:
        assert set(arrays) == {"patches", "labels", "logits"}  # LiteRT's sums are exact everywhere
    golden = goldens.read_golden(finer, manifests.read(finer))
    assert golden.saturated is not None
    exact = saturate.simulated_logits(finer.read_bytes(), golden.patches, saturating=False)
    np.testing.assert_array_equal(exact, golden.logits)
    assert golden.saturated.shape == golden.logits.shape


def test_a_cpu_without_vnni_returns_these_logits(
    finer: Path, tmp_path: Path, without_vnni: tuple[str, ...], sign: Callable[..., Path]
) -> None:
    """Asked for no exact sums: the manifest of a copy hides that it may saturate."""
    golden = goldens.read_golden(finer, manifests.read(finer))
    copied = tmp_path / "unguarded.onnx"
    shutil.copy(finer, copied)
    shutil.copy(goldens.golden_path(finer), goldens.golden_path(copied))
    shutil.copy(manifests.manifest_path(finer), manifests.manifest_path(copied))
    sign(copied, may_saturate=[])
    with Cell((*without_vnni, *EDGE_COMMAND)) as cell:
        cell.load(copied, runtime="onnxruntime")
        logits = cell.predict(golden.patches).reshape(-1)
    assert golden.saturated is not None
    np.testing.assert_array_equal(logits, golden.saturated)
