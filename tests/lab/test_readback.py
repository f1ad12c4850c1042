import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from histoedge.config import Recipe
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import ModelError
from histoedge.edge.manifest import FORMATS
from histoedge.lab import catalogue, checkpoint, constraints, export, quantise, readback

pytestmark = pytest.mark.lab

EDGE = catalogue.get_network("edge")


def kernels_of(run: Path, recipe: str, format_: str) -> dict[str, np.ndarray]:
    network = checkpoint.read(checkpoint.path_of(run, recipe)).network
    return readback.read_kernels((run / "models" / f"{recipe}.{format_}").read_bytes(), format_, network)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("recipe", ["fp32", "fp16", "prune50"])
def test_float_files_contain_the_kernels_of_the_weights(finished_run: Path, recipe: str, format_: str) -> None:
    saved = checkpoint.read(checkpoint.path_of(finished_run, recipe)).folded
    for name, kernel in kernels_of(finished_run, recipe, format_).items():
        expected = saved[f"{name}/kernel"] / (255 if name == "stem" else 1)
        np.testing.assert_allclose(kernel, expected, rtol=1e-3 if recipe == "fp16" else 1e-6, atol=1e-7)


@pytest.mark.parametrize("recipe", ["int8", "prune50_int8", "int8ptq", "2of4_int8", "cluster16_int8", "slim50_int8"])
def test_both_formats_contain_the_same_codes_and_the_manifest_lists_layers_that_may_saturate(
    all_recipes_run: Path, recipe: str
) -> None:
    """Some hundred patches do not decide which grid is kept: either is right if the manifest tells."""
    tflite, onnx = (kernels_of(all_recipes_run, recipe, format_) for format_ in FORMATS)
    largest = checkpoint.read(checkpoint.path_of(all_recipes_run, recipe)).arrays[quantise.KERNEL_CODES][1]
    for name, codes in tflite.items():
        assert codes.dtype == np.int8
        assert np.abs(codes).max() == largest
        np.testing.assert_array_equal(codes, onnx[name])
    for format_ in FORMATS:
        listed = manifests.read(all_recipes_run / "models" / f"{recipe}.{format_}").may_saturate
        assert listed == readback.may_saturate(tflite)
        assert bool(listed) == (largest == 127)


@pytest.mark.parametrize("format_", FORMATS)
def test_files_satisfy_the_constraint_in_their_names(all_recipes_run: Path, format_: str) -> None:
    for recipe in ("prune50", "prune50_int8", "2of4_int8", "cluster16_int8"):
        codes = kernels_of(all_recipes_run, recipe, format_)
        constraints.check_kernels(Recipe.parse(recipe), EDGE, codes, where=recipe)
        manifest = manifests.read(all_recipes_run / "models" / f"{recipe}.{format_}")
        assert manifest.zeros == readback.zero_share(codes)
        assert manifest.zeros > 0.45 or recipe == "cluster16_int8"


def test_the_constraint_is_visible_in_every_kernel_of_the_raw_file(all_recipes_run: Path) -> None:
    for name in ("2of4_int8", "cluster16_int8"):
        graph = onnx.load(all_recipes_run / "models" / f"{name}.onnx").graph
        kernels = [onnx.numpy_helper.to_array(value) for value in graph.initializer if len(value.dims) == 4]
        assert len(kernels) == 6
        for kernel in kernels:
            if name == "cluster16_int8":
                assert max(len(np.unique(channel)) for channel in kernel) <= 16
            elif kernel.shape[1] % 4 == 0:
                fours = kernel.reshape(kernel.shape[0], -1, 4, *kernel.shape[2:])
                assert ((fours == 0).sum(axis=2) >= 2).all()


def test_a_slim_file_is_a_smaller_network(all_recipes_run: Path) -> None:
    whole, slim = (manifests.read(all_recipes_run / "models" / f"{name}.onnx") for name in ("int8", "slim50_int8"))
    assert slim.network == "edge-slim50"
    assert slim.macs < 0.4 * whole.macs
    size = {name: (all_recipes_run / "models" / f"{name}.tflite").stat().st_size for name in ("int8", "slim50_int8")}
    assert size["slim50_int8"] < 0.5 * size["int8"]


@pytest.mark.parametrize(
    ("codes", "saturates"),
    [
        ([64, 64, -64, -64], False),
        ([65, 64, 0, 0], True),
        ([127, 1, -127, -1], False),
        ([127, 0, -120, 1], False),
        ([0, -65, 3, -64], True),
        ([127, 2, 0, 0], True),
    ],
)
def test_two_codes_of_one_sign_must_fit_16_bits(codes: list[int], saturates: bool) -> None:
    kernel = np.array(codes, np.int8).reshape(2, 2, 1, 1)
    assert readback.may_saturate({"stem": kernel, "head": np.zeros_like(kernel)}) == (["stem"] if saturates else [])
    pairs = [255 * (a + b) for i, a in enumerate(codes) for b in codes[i + 1 :]]
    if not saturates:
        assert min(pairs) >= -(2**15)
        assert max(pairs) < 2**15


def test_a_file_of_another_network_is_refused(all_recipes_run: Path) -> None:
    content = (all_recipes_run / "models" / "int8.tflite").read_bytes()
    with pytest.raises(ModelError, match="its network expects"):
        readback.read_kernels(content, "tflite", catalogue.get_network("baseline"))


def test_a_recipe_that_breaks_its_promise_is_not_exported(all_recipes_run: Path, tmp_path: Path) -> None:
    for name in ("fp32", "2of4_int8"):
        saved = checkpoint.read(checkpoint.path_of(all_recipes_run, name))
        if name == "2of4_int8":
            saved.arrays["conv4/kernel"][0, 0, :4] = 0.1
        checkpoint.write(checkpoint.path_of(tmp_path, name), saved)
    shutil.copy(all_recipes_run / "appearance.json", tmp_path)
    with pytest.raises(ModelError, match=r"2of4_int8.tflite: conv4 has fewer than two zeros"):
        export.export(tmp_path, Recipe.parse("2of4_int8"))
    assert not list((tmp_path / "models").glob("*"))
