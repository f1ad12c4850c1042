import numpy as np
import pytest

from histoedge.config import Recipe
from histoedge.edge.errors import ModelError
from histoedge.lab import catalogue, constraints
from histoedge.lab.weights import Arrays

pytestmark = pytest.mark.lab

EDGE = catalogue.get_network("edge")
CLUSTER, FOURS, HALF = (Recipe.parse(name) for name in ("cluster16_int8", "2of4_int8", "prune50_int8"))


def random_kernels(seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    shapes = EDGE.kernel_shapes
    return {f"{name}/kernel": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def by_layer(arrays: Arrays) -> Arrays:
    return {name.removesuffix("/kernel"): value for name, value in arrays.items()}


def half_zero(arrays: Arrays) -> Arrays:
    """The larger two of each four input channels, where there are fours."""
    made = dict(arrays)
    for name in EDGE.prunable_2of4:
        kernel = arrays[f"{name}/kernel"]
        height, width, inputs, outputs = kernel.shape
        fours = kernel.reshape(height, width, inputs // 4, 4, outputs)
        rank = np.argsort(np.argsort(np.abs(fours), axis=3), axis=3)
        made[f"{name}/kernel"] = np.where(rank >= 2, fours, 0).reshape(kernel.shape)
    return made


def test_clustering_leaves_16_values_near_the_old_ones() -> None:
    kernel = random_kernels()["conv3/kernel"]
    clustered = constraints.cluster_kernel(kernel)
    assert max(len(np.unique(column)) for column in clustered.reshape(-1, kernel.shape[-1]).T) == constraints.CLUSTERS
    # 16 levels of a normal variable, placed as well as can be, leave 0.0095 of its variance (Max 1960, table I)
    assert 0.0085 < np.mean((clustered - kernel) ** 2) / np.var(kernel) < 0.012


def test_a_channel_of_few_values_is_left_alone() -> None:
    kernel = np.tile(np.array([0, 0.5, -0.25, 1], np.float32)[:, None], (1, 3)).reshape(2, 2, 1, 3)
    np.testing.assert_array_equal(constraints.cluster_kernel(kernel), kernel)


def test_tied_weights_stay_tied_while_their_values_change() -> None:
    arrays = {name: constraints.cluster_kernel(value) for name, value in random_kernels().items()}
    project = constraints.projections(CLUSTER, EDGE, arrays)
    assert set(project) == set(EDGE.convolutions)
    noise = np.random.default_rng(1).normal(0, 0.01, arrays["conv2/kernel"].shape).astype(np.float32)
    moved = project["conv2"](arrays["conv2/kernel"] + noise)
    channel, before = moved[..., 0].reshape(-1), arrays["conv2/kernel"][..., 0].reshape(-1)
    for value in np.unique(before):
        assert len(np.unique(channel[before == value])) == 1
        assert channel[before == value][0] == pytest.approx((value + noise[..., 0].reshape(-1)[before == value]).mean())
    np.testing.assert_array_equal(project["conv2"](moved), moved)


def test_zeros_stay_zero_where_the_recipe_put_them() -> None:
    arrays = half_zero(random_kernels())
    for recipe, layers in ((FOURS, EDGE.prunable_2of4), (HALF, EDGE.prunable)):
        project = constraints.projections(recipe, EDGE, arrays)
        assert tuple(project) == layers
        for name in layers:
            kernel = arrays[f"{name}/kernel"]
            np.testing.assert_array_equal(project[name](kernel + 1) != 0, kernel != 0)


def test_kernels_that_satisfy_the_constraint_pass() -> None:
    for recipe in (FOURS, HALF):
        constraints.check_kernels(recipe, EDGE, by_layer(half_zero(random_kernels())), where="test")
    clustered = {name: constraints.cluster_kernel(value) for name, value in by_layer(random_kernels()).items()}
    constraints.check_kernels(CLUSTER, EDGE, clustered, where="test")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (HALF, "0.0% zeros in conv2, expected at least 49%"),
        (FOURS, "conv2 has fewer than two zeros"),
        (CLUSTER, "values in a channel of stem, expected at most 16"),
    ],
)
def test_kernels_that_violate_the_constraint_are_refused_by_layer(recipe: Recipe, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        constraints.check_kernels(recipe, EDGE, by_layer(random_kernels()), where="test")
