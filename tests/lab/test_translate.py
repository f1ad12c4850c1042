"""Models of Keras as files: read as data, rebuilt layer by layer, translated into networks with the same logits."""

from pathlib import Path

import keras_models
import numpy as np
import pytest

from histoedge.lab import archive, backend, rebuild, translate, weights
from histoedge.lab.row_writer import PIXEL_RANGES

pytestmark = pytest.mark.lab


@pytest.fixture(params=keras_models.MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("suffix", [".keras", pytest.param(".h5", marks=pytest.mark.slow)])
def test_a_model_and_its_network_have_the_same_logits(tmp_path: Path, name: str, suffix: str) -> None:
    keras = backend.keras()
    original = keras_models.build(keras, name)
    path = tmp_path / f"model{suffix}"
    original.save(path)
    model = archive.read_model(path)
    rebuild.check_built_in(model, where=str(path))
    side = rebuild.input_px(model, where=str(path))
    patches = np.random.default_rng(0).integers(0, 256, (4, side, side, 3)).astype(np.float32)
    scale, offset = PIXEL_RANGES[keras_models.MODELS[name][1]]
    expected = original.predict_on_batch(patches / 255 * scale + offset)
    whole = rebuild.build(keras, model, where=str(path))
    np.testing.assert_allclose(whole.predict_on_batch(patches / 255 * scale + offset), expected, atol=1e-6)
    linear = rebuild.build(keras, model, where=str(path), drop_last_activation=True)
    logits = linear.predict_on_batch(patches / 255 * scale + offset)
    logits = logits[:, -1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
    network, arrays = translate.translate(
        model, name=name, patch_px=side, pixels=keras_models.MODELS[name][1], positive=1, where=str(path)
    )
    built = weights.build(backend.tf_keras(), network, folded=True)
    weights.set_weights(built, arrays, where=name)
    np.testing.assert_allclose(built.predict_on_batch(patches / 255).ravel(), logits, atol=1e-4)
