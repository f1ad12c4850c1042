"""The known integration mistakes: their effect on pixels or logits, a description and a remedy.

Pixels are uint8 (N, S, S, 3) RGB, the model's input; a ``Suspect`` returns what the model received instead.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..manifest import probability
from ..patches import PATCH_PX
from . import jpeg, windows

Pixels = Callable[[np.ndarray], np.ndarray]
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Mistake:
    """Description of a mistake, and its remedy: one line each."""

    description: str
    remedy: str


_TURN = "pass the rows from top to bottom and the pixels of a row from left to right, as the camera records them"
_RAW = "pass the raw bytes 0..255 as uint8: the file contains all scaling that the network needs"
_DECODE = "take temperature and threshold from the manifest, and apply the sigmoid once"

MISTAKES = {
    "bgr": Mistake("red and blue are swapped (BGR for RGB)", "reverse the channels: OpenCV's COLOR_BGR2RGB"),
    "planes": Mistake(
        "the bytes are stored channel by channel (CHW for HWC)",
        "transpose (3, height, width) to (height, width, 3): R, G, B of each pixel",
    ),
    "divided": Mistake("pixels were divided by 255, then converted to uint8", _RAW),
    "normalised": Mistake("pixels were normalised with a mean and a standard deviation, then converted to uint8", _RAW),
    "float buffer": Mistake("the bytes of a float32 buffer were read as uint8", f"cast the pixels to uint8; {_RAW}"),
    "offset": Mistake("128 was subtracted from each pixel, as for an int8 input", _RAW),
    "empty": Mistake("the patches are black: the buffer was not filled", "copy the pixels before the model is run"),
    "mirrored": Mistake("patches are mirrored left to right", _TURN),
    "upside down": Mistake("patches are upside down (rows from bottom to top)", _TURN),
    "rotated 90": Mistake("patches are rotated by 90 degrees anticlockwise", _TURN),
    "rotated 180": Mistake("patches are rotated by 180 degrees", _TURN),
    "rotated 270": Mistake("patches are rotated by 90 degrees clockwise", _TURN),
    "transposed": Mistake("rows and columns are swapped (x before y)", _TURN),
    "transposed across": Mistake("patches are mirrored at the other diagonal", _TURN),
    "jpeg": Mistake(
        "patches were compressed with JPEG", "pass uncompressed pixels, or store them losslessly (PNG, PPM)"
    ),
    "shifted": Mistake(
        "patches are shifted", "check the corner of the window, the padding and the rounding of positions"
    ),
    "cut": Mistake(
        "only the middle of the patches arrived", "pass whole patches, of the manifest's patch_px, without padding"
    ),
    "scaled": Mistake("patches are resized", "pass pixels at the manifest's um_per_px: read a slide at that level"),
    "sigmoid": Mistake("the sigmoid was applied to the output", f"compare logits; {_DECODE}"),
    "sigmoid twice": Mistake("the sigmoid was applied twice", f"compare logits; {_DECODE}"),
    "calibrated": Mistake("the logits were divided by the temperature", f"compare the raw logits; {_DECODE}"),
    "sign": Mistake(
        "the sign is flipped", "the file's only output is the logit of the positive class: do not negate it"
    ),
    "order": Mistake("the logits are right but in another order", "write one row per patch: 00.ppm first"),
    "constant": Mistake(
        "every patch got the same logit",
        "the model read the same buffer each time: copy each patch into it before the model is run",
    ),
    "saturation": Mistake(
        "this CPU's 8-bit kernels saturate (x86 without VNNI)",
        "set ONNX Runtime's session option session.x64quantprecision to 1, as edge.load does",
    ),
}


@dataclass(frozen=True)
class Suspect:
    """One variant of a mistake: ``detail`` describes it, ``numbers`` are its parameters, ``damaged`` applies it."""

    mistake: str
    detail: str
    damaged: Pixels
    numbers: tuple[int, ...] = ()


# ---- mistakes in pixels, without a free parameter ----------------------------------------------------------------


_MEAN, _DEVIATION = (np.array(each, np.float32) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def _shares(patches: np.ndarray) -> np.ndarray:
    return patches.astype(np.float32) / np.float32(255)


def _imagenet(patches: np.ndarray) -> np.ndarray:
    return (_shares(patches) - _MEAN) / _DEVIATION


def _centred(patches: np.ndarray) -> np.ndarray:
    return patches.astype(np.float32) / np.float32(127.5) - 1


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(values, 0, 255).astype(np.uint8))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _wrapped(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32).astype(np.uint8)  # the conversion of C: towards 0, then modulo 256


def _bytes(values: np.ndarray) -> np.ndarray:
    """Return the first bytes of each float32 buffer, as many as a uint8 patch has."""
    read = np.ascontiguousarray(values, "<f4").reshape(len(values), -1).view(np.uint8)
    return read[:, : values[0].size].reshape(values.shape)


SIMPLE = (
    Suspect("bgr", "", lambda x: x[..., ::-1]),
    Suspect("planes", "", lambda x: x.transpose(0, 3, 1, 2).reshape(x.shape)),
    Suspect("divided", "truncated", lambda x: _clipped(_shares(x))),
    Suspect("divided", "rounded", lambda x: _rounded(_shares(x))),
    Suspect("normalised", "ImageNet mean, truncated", lambda x: _clipped(_imagenet(x))),
    Suspect("normalised", "ImageNet mean, rounded", lambda x: _rounded(_imagenet(x))),
    Suspect("normalised", "ImageNet mean, wrapped", lambda x: _wrapped(_imagenet(x))),
    Suspect("normalised", "to -1..1, truncated", lambda x: _clipped(_centred(x))),
    Suspect("normalised", "to -1..1, rounded", lambda x: _rounded(_centred(x))),
    Suspect("normalised", "to -1..1, wrapped", lambda x: _wrapped(_centred(x))),
    Suspect("float buffer", "of 0..1", lambda x: _bytes(_shares(x))),
    Suspect("float buffer", "of 0..255", lambda x: _bytes(x.astype(np.float32))),
    Suspect("float buffer", "normalised with the ImageNet mean", lambda x: _bytes(_imagenet(x))),
    Suspect("offset", "clipped at 0", lambda x: np.maximum(x, 128) - np.uint8(128)),
    Suspect("offset", "wrapped", lambda x: x ^ np.uint8(128)),
    Suspect("empty", "", np.zeros_like),
)

TURNS = (
    Suspect("mirrored", "", lambda x: x[:, :, ::-1]),
    Suspect("upside down", "", lambda x: x[:, ::-1]),
    Suspect("rotated 90", "", lambda x: np.rot90(x, 1, (1, 2))),
    Suspect("rotated 180", "", lambda x: np.rot90(x, 2, (1, 2))),
    Suspect("rotated 270", "", lambda x: np.rot90(x, 3, (1, 2))),
    Suspect("transposed", "", lambda x: x.transpose(0, 2, 1, 3)),
    Suspect("transposed across", "", lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1, 3)),
)


# ---- mistakes in pixels with a free parameter: a coarse search, then the neighbours of the best ------------------

QUALITIES = range(20, 99, 3)
LARGEST_SHIFT_PX = 6  # along both axes
LARGEST_AXIS_SHIFT_PX = 16  # along one axis
LARGEST_FACTOR = 4.4
SHIFT_FILLS = ("edge", "black", "white", "wrap")
SCALE_FILLS = ("black", "white", "edge")
KERNELS = ("linear", "cubic", "area", "nearest", "plain linear")


@dataclass(frozen=True)
class Family:
    """A mistake with a free parameter: ``coarse`` is the first search, ``neighbours`` refine a good candidate."""

    coarse: Callable[[], Iterable[Suspect]]
    neighbours: Callable[[Suspect], Iterable[Suspect]] = lambda _: ()


def families(patch_px: int, um_per_px: float) -> tuple[Family, ...]:
    """Return the families: JPEG, shifts, cuts and scales of patches of ``patch_px`` at ``um_per_px``."""

    def scales(sides: Iterable[int], kernels: Iterable[str]) -> Iterator[Suspect]:
        for side in sides:
            for kernel in kernels:
                for fill in SCALE_FILLS if side < patch_px else SCALE_FILLS[:1]:  # an enlarged patch has no border
                    yield _scaled(side, kernel, fill, patch_px=patch_px, um_per_px=um_per_px)

    reach = _step(patch_px) - 1

    def near_scales(best: Suspect) -> Iterator[Suspect]:
        (side,) = best.numbers
        return scales((near for near in range(side - reach, side + reach + 1) if near != patch_px), KERNELS)

    return (
        Family(
            lambda: (_jpeg(quality, halved) for quality in QUALITIES for halved in (0, 1)),
            lambda best: (_jpeg(best.numbers[0] + step, best.numbers[1]) for step in (-1, 1)),
        ),
        Family(_shifts, lambda best: (_shifted(best.numbers, fill) for fill in SHIFT_FILLS)),
        Family(lambda: _cuts(patch_px)),
        Family(lambda: scales(_sides(patch_px), KERNELS[:1]), near_scales),
    )


def _jpeg(quality: int, halved: int) -> Suspect:
    damaged = partial(jpeg.recompressed, quality=quality, halved=bool(halved))
    return Suspect("jpeg", f"quality {quality}, {'4:2:0' if halved else '4:4:4'}", damaged, (quality, halved))


def _shifts() -> Iterator[Suspect]:
    near = range(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX + 1)
    moves = [(down, right) for down in near for right in near if (down, right) != (0, 0)]
    for far in range(LARGEST_SHIFT_PX + 1, LARGEST_AXIS_SHIFT_PX + 1):
        moves += [(far, 0), (-far, 0), (0, far), (0, -far)]
    return (_shifted(move, fill) for move in moves for fill in SHIFT_FILLS[:2])


def _shifted(move: tuple[int, ...], fill: str) -> Suspect:
    down, right = move
    parts = [f"{abs(down)} px {'down' if down > 0 else 'up'}"] if down else []
    parts += [f"{abs(right)} px {'right' if right > 0 else 'left'}"] if right else []
    damaged = partial(windows.shifted, down=down, right=right, fill=fill)
    return Suspect("shifted", f"{' and '.join(parts)}, border {fill}", damaged, move)


def _cuts(patch_px: int) -> Iterator[Suspect]:
    """Yield the sides from a sixth of the patch, with a black or a white border."""
    for side in range(patch_px // 6, patch_px, _step(patch_px)):
        for place, words in (("centre", "in the centre of"), ("corner", "at the top left of")):
            for fill in windows.FILLS:
                damaged = partial(windows.cut, side=side, place=place, fill=fill)
                yield Suspect("cut", f"{side} px, {words} {fill}", damaged)


def _sides(patch_px: int) -> tuple[int, ...]:
    """Return the sides to try for resized patches: of 96 px in steps of 2 up to twice the side, then in steps of 3."""
    smallest, largest, step = round(patch_px / LARGEST_FACTOR), round(patch_px * LARGEST_FACTOR), _step(patch_px)
    larger = (*range(patch_px + 1, 2 * patch_px, step), *range(2 * patch_px, largest, step * 3 // 2))
    return (*range(smallest, patch_px, step), patch_px - 1, *larger)


def _step(patch_px: int) -> int:
    """Return the step of the coarse search over sides, in pixels: 2 for patches of 96 px, more for larger ones."""
    return 2 * max(1, patch_px // PATCH_PX)


def _scaled(side: int, kernel: str, fill: str, *, patch_px: int, um_per_px: float) -> Suspect:
    """Return the suspect of patches resized to ``side`` px, then cropped or padded to ``patch_px``."""
    factor = side / patch_px
    detail = f"by about {factor:.3g}, {kernel}: {um_per_px / factor:.3g} um per px instead of {um_per_px:g}"
    detail += f", border {fill}" if side < patch_px else f"; the central {patch_px / factor:.0f} px fill the patch"
    damaged = partial(windows.resized, side=side, kernel=kernel, fill=fill)
    return Suspect("scaled", detail, damaged, (side,))


# ---- mistakes in logits ------------------------------------------------------------------------------------------


def logit_mistakes(temperature: float) -> Iterator[tuple[str, str, Logits]]:
    """Yield mistake, detail and function of the mistakes that change the logits."""
    plain = partial(probability, temperature=1.0)
    warm = partial(probability, temperature=temperature)
    yield "sigmoid", "", plain
    yield "sigmoid", f"with the temperature {temperature:.4g}", warm
    yield "sigmoid twice", "", lambda logits: plain(plain(logits))
    yield "sigmoid twice", f"with the temperature {temperature:.4g}", lambda logits: warm(warm(logits))
    yield "sigmoid twice", f"with the temperature {temperature:.4g} first", lambda logits: plain(warm(logits))
    yield "calibrated", f"{temperature:.4g}", lambda logits: logits / temperature
    yield "sign", "", lambda logits: -logits
