from pathlib import Path

import numpy as np
import pytest

from histoedge.edge.errors import ConfigError, ModelError
from histoedge.lab import backend, catalogue, slim, weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Row

pytestmark = pytest.mark.lab


def test_baseline_has_the_published_number_of_parameters() -> None:
    model = weights.build(backend.keras(), catalogue.get_network("baseline"))
    assert model.count_params() == 2_386_817


@pytest.mark.parametrize("name", [name for name in catalogue.BUDGETS if name in catalogue.NETWORKS])
def test_each_family_is_within_its_budget(name: str) -> None:
    assert catalogue.over_budget(catalogue.get_network(name), name) is None


def test_edge_reads_every_fourth_pixel() -> None:
    assert catalogue.get_network("edge").rows[0].stride == 4


ROWS = """rows = [
  {kind = "conv", channels = 24, kernel = 5, stride = 4},
  {kind = "conv", channels = 32, kernel = 3, stride = 2},
  {kind = "head", channels = 1, kernel = 11, bias = true},
]
"""


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_a_network_in_the_settings_file_is_built_as_written(settings_file: Path) -> None:
    settings_file.write_text('[network]\nname = "mine"\n' + ROWS)
    network = catalogue.get_network("mine", file=settings_file)
    assert network.name == "mine"
    assert network.rows[1] == Row(kind="conv", channels=32, kernel=3, stride=2)
    assert weights.build(backend.keras(), network).output_shape == (None, 1, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels = 32", "chanels = 32", r"\[network\] row 2: unknown setting 'chanels'; did you mean channels"),
        ("channels = 32", "channels = '32'", r"row 2: channels must be of type int, got '32'"),
        ("channels = 32", "channels = 30", "network mine: channel counts must be multiples of 4"),
        ("channels = 32", "channels = -4", "network mine: layer conv2: channels must be at least 1"),
        ("stride = 2", "stride = 3", "network mine: layer head: kernel 11 is larger than its input of 7 px"),
        ("kernel = 11", "kernel = 10", "network mine: a 96 px patch gives 2 x 2 outputs, expected one"),
        ('"conv", channels = 24', '"head", channels = 24', "the first row must be a conv"),
        ('"head"', '"haed"', r"row 3: unknown kind 'haed'; did you mean head"),
        ('"mine"', '"my own"', "name must consist of letters"),
        ('name = "mine"', 'nmae = "mine"', r"unknown key 'nmae'; did you mean name"),
    ],
)
def test_a_wrong_network_in_the_file_is_one_line_that_names_it(
    settings_file: Path, old: str, new: str, message: str
) -> None:
    text = ('[network]\nname = "mine"\n' + ROWS).replace(old, new, 1)
    settings_file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        catalogue.get_network("mine", file=settings_file)
    assert str(caught.value).startswith(str(settings_file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "channels", "message"),
    [
        ("edge", 400, "network edge: 11.5 MMAC and 152 kB exceed the budget of edge, 11 MMAC and 150 kB"),
        ("nano", 120, "exceed the budget of nano, 3 MMAC and 40 kB"),
    ],
)
def test_a_network_over_the_budget_of_its_name_is_one_line(
    settings_file: Path, family: str, channels: int, message: str
) -> None:
    text = f'[network]\nname = "{family}"\n' + ROWS.replace("channels = 32", f"channels = {channels}")
    settings_file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        catalogue.get_network(family, file=settings_file)
    assert str(caught.value).startswith(f"{settings_file}: network {family}: ")


@pytest.mark.parametrize("recipe", ["int8", "slim50_int8"])
def test_the_estimated_size_of_the_int8_file_is_right(all_recipes_run: Path, recipe: str) -> None:
    network = (
        catalogue.get_network("edge") if recipe == "int8" else slim.slim_network(catalogue.get_network("edge"), 50)
    )
    measured_kb = (all_recipes_run / "models" / f"{recipe}.tflite").stat().st_size / 1000
    assert network.int8_kb == pytest.approx(measured_kb, rel=0.06)  # the file has fixed parts too


@pytest.mark.parametrize("name", list(catalogue.NETWORKS))
def test_the_keras_model_agrees_with_the_rows(name: str) -> None:
    network = catalogue.get_network(name)
    model = weights.build(backend.keras(), network, folded=True)
    assert model.count_params() == network.params
    assert model.output_shape == (None, 1, 1, 1)
    assert 32 % network.stride_px == 0
    assert network.receptive_field_px <= 96


def test_a_field_has_the_logits_of_its_patches() -> None:
    keras = backend.keras()
    network = catalogue.get_network("edge")
    model = weights.build(keras, network, field_px=None)
    field = np.random.default_rng(0).random((1, 136, 120, 3), dtype=np.float32)
    answers = np.asarray(model(field))
    rows, columns = (136 - 96) // network.stride_px + 1, (120 - 96) // network.stride_px + 1
    assert answers.shape == (1, rows, columns, 1)
    for i, j in ((0, 0), (rows - 1, columns - 1)):
        corner = i * network.stride_px, j * network.stride_px
        patch = field[:, corner[0] : corner[0] + 96, corner[1] : corner[1] + 96]
        np.testing.assert_allclose(answers[0, i, j, 0], np.asarray(model(patch))[0, 0, 0, 0], atol=1e-5)


@pytest.mark.parametrize("name", list(catalogue.NETWORKS))
def test_folding_batch_norm_does_not_change_the_logits(name: str) -> None:
    keras = backend.keras()
    network = catalogue.get_network(name)
    model = weights.build(keras, network)
    random = np.random.default_rng(0)
    arrays = weights.get_weights(model)
    for key in arrays:
        if key.endswith(("gamma", "moving_variance")):
            arrays[key] = random.uniform(0.5, 2, arrays[key].shape).astype(np.float32)
        elif key.endswith(("beta", "moving_mean", "bias")):
            arrays[key] = random.normal(0, 0.1, arrays[key].shape).astype(np.float32)
    weights.set_weights(model, arrays, where="test")
    folded = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(folded, weights.fold(network, arrays), where="test")
    pixels = random.random((2, 96, 96, 3), dtype=np.float32)
    expected = model.predict_on_batch(pixels)
    np.testing.assert_allclose(folded.predict_on_batch(pixels), expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_name_is_answered_with_the_closest_network() -> None:
    with pytest.raises(ConfigError, match="did you mean edge"):
        catalogue.get_network("egde")


def test_a_stride_that_does_not_divide_the_label_square_is_refused() -> None:
    rows = (Row(kind="conv", channels=8, kernel=5, stride=5), Row(kind="head", channels=1, kernel=19))
    with pytest.raises(ModelError, match="must divide 32"):
        Network("odd", rows)


def test_weights_of_another_network_are_refused() -> None:
    keras = backend.keras()
    model = weights.build(keras, catalogue.get_network("edge"), folded=True)
    arrays = weights.get_weights(model)
    arrays["stem/kernel"] = arrays["stem/kernel"][:, :, :, :8]
    with pytest.raises(ModelError, match="stem/kernel"):
        weights.set_weights(model, arrays, where="somewhere.h5")


def test_logits_are_float32_under_mixed_precision() -> None:
    keras = backend.keras()
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = weights.build(keras, catalogue.get_network("edge"))
        assert model.get_layer("conv2").compute_dtype == "bfloat16"
        assert model.output.dtype == "float32"
        assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    finally:
        keras.mixed_precision.set_global_policy(before)
