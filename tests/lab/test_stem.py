import numpy as np
import pytest

from histoedge.lab import backend, catalogue, stem

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize(("size", "stride"), [(5, 4), (4, 4), (8, 4), (3, 2), (7, 2)])
def test_blocks_of_pixels_give_the_same_sums(size: int, stride: int, rows: bool) -> None:
    tf = backend.tensorflow()
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, 96, 112, 3)).astype(np.float64)
    kernel = random.integers(-63, 64, (size, size, 3, 8)).astype(np.float64)
    expected = tf.nn.conv2d(pixels, kernel, stride, "VALID").numpy()
    packed = stem.pack(kernel, stride, rows=rows)
    if rows:
        output = tf.nn.conv2d(tf.nn.space_to_depth(pixels, stride), packed, 1, "VALID")
    else:
        output = tf.nn.conv2d(pixels.reshape(2, 96, 112 // stride, 3 * stride), packed, [1, stride, 1, 1], "VALID")
    np.testing.assert_array_equal(output.numpy()[:, : expected.shape[1], : expected.shape[2]], expected)
    np.testing.assert_array_equal(stem.unpack(packed, kernel.shape, stride, rows=rows), kernel)


def test_only_a_stem_with_a_stride_is_packed() -> None:
    assert stem.packs(catalogue.get_network("edge"))
    assert not stem.packs(catalogue.get_network("baseline"))
