"""JPEG compression and decompression of pixels in numpy, with libjpeg's default settings.

The result is bit for bit that of libjpeg and libjpeg-turbo: ``jccolor.c``, ``jcsample.c``, ``jfdctint.c``,
``jcdctmgr.c``, ``jidctint.c``, ``jdsample.c``, ``jdcolor.c``. The tables are those of ITU-T T.81, annex K, scaled by
``jcparam.c``.
"""

import numpy as np

BLOCK = 8
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32),
)


def recompressed(patches: np.ndarray, quality: int, *, halved: bool) -> np.ndarray:
    """Return uint8 (N, H, W, 3) RGB patches after JPEG compression and decompression.

    Args:
        patches: uint8 (N, H, W, 3) RGB.
        quality: 1 to 100.
        halved: chroma subsampling 4:2:0; otherwise 4:4:4.
    """
    red, green, blue = (patches[..., channel].astype(np.int32) for channel in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    centre = (128 << 16) + 32767
    chroma = [
        (-11059 * red - 21709 * green + 32768 * blue + centre) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + centre) >> 16,
    ]
    luma = _coded(luma, _table(LUMINANCE, quality))
    table = _table(CHROMINANCE, quality)
    if halved:
        # the sides are filled before the pixels are averaged, the rows below them afterwards
        halves = (_halved(_filled(plane, 2, 2 * BLOCK)) for plane in chroma)
        rows, columns = -(-patches.shape[1] // 2), -(-patches.shape[2] // 2)
        chroma = [_doubled(_coded(plane, table)[:, :rows, :columns]) for plane in halves]
    else:
        chroma = [_coded(plane, table) for plane in chroma]
    cb, cr = (plane[:, : patches.shape[1], : patches.shape[2]] - 128 for plane in chroma)
    decoded = (
        luma + ((91881 * cr + 32768) >> 16),
        luma + ((-22554 * cb - 46802 * cr + 32768) >> 16),
        luma + ((116130 * cb + 32768) >> 16),
    )
    return np.asarray(np.clip(np.stack(decoded, axis=-1), 0, 255), np.uint8)


def _table(base: tuple[int, ...], quality: int) -> np.ndarray:
    """Return the quantisation steps, int (8, 8)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.asarray(np.clip((np.array(base) * scale + 50) // 100, 1, 255)).reshape(BLOCK, BLOCK)


_HALVES = np.array(  # the left half of each row: even rows are symmetric, odd ones antisymmetric
    [
        *([8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703]),
        *([9633, -2259, -11362, -6436], [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633]),
        *([4433, -10704, 10704, -4433], [2260, -6436, 9633, -11363]),
    ],
    np.float64,
)
COSINES = np.hstack([_HALVES, _HALVES[:, ::-1] * np.where(np.arange(BLOCK) % 2, -1, 1)[:, None]])
"""libjpeg's 8-point cosine transform times 2 ** 13 (frequency, position): the sums of its 13-bit constants."""


def _transformed(blocks: np.ndarray, matrix: np.ndarray, bits: int) -> np.ndarray:
    """Multiply each row of the blocks (..., 8, 8) by the matrix, divide by 2 ** bits, round halves up, transpose."""
    sums = blocks.reshape(-1, BLOCK) @ matrix
    return np.asarray(np.floor(sums * 0.5**bits + 0.5)).reshape(blocks.shape).swapaxes(-1, -2)


def _coded(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return a plane of 0..255, int32 (N, H, W), after transform, quantisation and inverse transform."""
    rows, columns = plane.shape[1:]
    plane = _filled(plane, BLOCK, BLOCK)
    count, height, width = plane.shape
    blocks = (plane - 128.0).reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
    eighths = _transformed(_transformed(blocks, COSINES.T, 11), COSINES.T, 15)
    coefficients = np.copysign(np.floor(np.abs(eighths) / (8 * table) + 0.5), eighths) * table
    pixels = _transformed(_transformed(coefficients.swapaxes(-1, -2), COSINES, 11), COSINES, 18).swapaxes(-1, -2) + 128
    return (
        np.asarray(np.clip(pixels, 0, 255), np.int32).transpose(0, 1, 3, 2, 4).reshape(plane.shape)[:, :rows, :columns]
    )


def _filled(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the plane with its last row and column repeated, up to whole multiples of ``height`` and ``width``."""
    return np.pad(plane, ((0, 0), (0, -plane.shape[1] % height), (0, -plane.shape[2] % width)), mode="edge")


def _halved(plane: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 pixels, rounded down and up alternately along a row."""
    sums = plane[:, ::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, ::2] + plane[:, 1::2, 1::2]
    return np.asarray((sums + np.arange(sums.shape[2]) % 2 + 1) >> 2)


def _doubled(plane: np.ndarray) -> np.ndarray:
    """Return the plane at twice the side: 3/4 the nearer and 1/4 the farther neighbour, along both axes."""
    above, below = plane[:, [0, *range(plane.shape[1] - 1)]], plane[:, [*range(1, plane.shape[1]), -1]]
    rows = np.stack([3 * plane + above, 3 * plane + below], axis=2).reshape(len(plane), -1, plane.shape[2])
    before, after = rows[..., [0, *range(rows.shape[2] - 1)]], rows[..., [*range(1, rows.shape[2]), -1]]
    columns = np.stack([(3 * rows + before + 8) >> 4, (3 * rows + after + 7) >> 4], axis=3)
    return columns.reshape(len(plane), rows.shape[1], -1)
