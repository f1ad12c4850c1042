"""Does the doctor name the right mistake? ``python benchmarks/diagnoses.py MODEL... --out F [--sets N]``.

For each exported file MODEL and each of N sets of 16 synthetic patches, the doctor gets these logits:

- of the patches damaged by each known mistake (with a random parameter where the mistake has one, and by Pillow where
  the doctor simulates the mistake in NumPy),
- correct logits, also with a quantum of rounding and from other runtimes,
- random logits.

Each row counts the doctor's diagnoses of one case.
"""

import argparse
import collections
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from record import Row, changed_options, run_script, write_record
from targets import files_on_runtimes, labelled

from histoedge import edge
from histoedge.data import synthetic
from histoedge.edge import manifest as manifests
from histoedge.edge.doctor.diagnosis import Case, Diagnosis, diagnose
from histoedge.edge.manifest import Manifest
from histoedge.progress import Progress, on_terminal

PATCHES = 16
SEED = 30_000  # of the first set; the golden patches have another seed
UM_PER_PX = (*(0.23, 0.25, 0.46, 0.486, 0.5, 0.65), *(0.75, 0.9, 1.0, 1.2, 1.944, 3.888))  # usual scanner resolutions
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.NEAREST)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # torchvision's for ImageNet

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _each(patches: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(patch))) for patch in patches])


def through_jpeg(patches: np.ndarray, random: np.random.Generator, *, subsampling: int) -> np.ndarray:
    """Compress with Pillow's JPEG at a random quality from 30 to 95."""
    quality = int(random.integers(30, 96))

    def change(image: Image.Image) -> Image.Image:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality, subsampling=subsampling)
        return Image.open(content)

    return _each(patches, change)


def at_another_scale(patches: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Resize with Pillow to a wrong um per px; crop to the centre, or pad with black."""
    whole = patches.shape[1]
    side, kind = round(whole * 0.972 / float(random.choice(UM_PER_PX))), FILTERS[random.integers(len(FILTERS))]

    def change(image: Image.Image) -> Image.Image:
        canvas = Image.new("RGB", (whole, whole))
        canvas.paste(image.resize((side, side), kind), ((whole - side) // 2,) * 2)
        return canvas

    return _each(patches, change)


def centre_enlarged(patches: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Enlarge the centre 32, 48, 64 or 80 px to the whole patch."""
    whole, side = patches.shape[1], int(random.choice([32, 48, 64, 80]))
    start = (whole - side) // 2
    box = (start, start, start + side, start + side)
    return _each(patches, lambda image: image.crop(box).resize((whole, whole), Image.Resampling.BILINEAR))


def centre_on_a_border(patches: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Paste the centre 32, 48, 64 or 80 px into the centre or the corner of a black or white patch."""
    whole, side = patches.shape[1], int(random.choice([32, 48, 64, 80]))
    start, colour = (whole - side) // 2, (int(random.choice([0, 255])),) * 3
    place = int(random.choice([0, start]))

    def change(image: Image.Image) -> Image.Image:
        canvas = Image.new("RGB", (whole, whole), colour)
        canvas.paste(image.crop((start, start, start + side, start + side)), (place, place))
        return canvas

    return _each(patches, change)


def window_shifted(patches: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shift by up to 6 px; fill the border with black, white or the edge pixels."""
    down, right = 0, 0
    while (down, right) == (0, 0):
        down, right = random.integers(-6, 7, 2)
    whole, mode = patches.shape[1], ("black", "white", "edge")[random.integers(3)]
    rows, columns = np.arange(whole) - down, np.arange(whole) - right
    moved = patches[:, rows.clip(0, whole - 1)][:, :, columns.clip(0, whole - 1)]
    outside = ((rows < 0) | (rows >= whole))[:, None] | ((columns < 0) | (columns >= whole))
    if mode != "edge":
        moved[:, outside] = 0 if mode == "black" else 255
    return moved


def _normalised(patches: np.ndarray) -> np.ndarray:
    return np.asarray((patches / 255 - MEAN) / DEVIATION)


def _first_bytes(patches: np.ndarray) -> np.ndarray:
    size = patches[0].size
    buffers = [(patch / 255).astype("<f4").tobytes()[:size] for patch in patches]
    return np.stack([np.frombuffer(buffer, np.uint8) for buffer in buffers]).reshape(patches.shape)


DAMAGES: dict[str, tuple[str, Damage]] = {
    "bgr": ("bgr", lambda x, _: x[..., [2, 1, 0]]),
    "planes": ("planes", lambda x, _: np.stack([np.moveaxis(p, 2, 0).copy().reshape(p.shape) for p in x])),
    "divided, truncated": ("divided", lambda x, _: (x / 255).astype(np.uint8)),
    "divided, rounded": ("divided", lambda x, _: np.round(x / 255).astype(np.uint8)),
    "normalised, clipped": ("normalised", lambda x, _: _normalised(x).clip(0).astype(np.uint8)),
    "normalised, wrapped": ("normalised", lambda x, _: _normalised(x).astype(np.int64).astype(np.uint8)),
    "float buffer": ("float buffer", lambda x, _: _first_bytes(x)),
    "offset, clipped": ("offset", lambda x, _: (x.astype(int) - 128).clip(0).astype(np.uint8)),
    "offset, wrapped": ("offset", lambda x, _: x + np.uint8(128)),
    "mirrored": ("mirrored", lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT))),
    "upside down": ("upside down", lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM))),
    "rotated 90": ("rotated 90", lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.ROTATE_90))),
    "rotated 180": ("rotated 180", lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.ROTATE_180))),
    "rotated 270": ("rotated 270", lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.ROTATE_270))),
    "transposed": ("transposed", lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.TRANSPOSE))),
    "transposed across": (
        "transposed across",
        lambda x, _: _each(x, lambda i: i.transpose(Image.Transpose.TRANSVERSE)),
    ),
    "jpeg 4:4:4": ("jpeg", lambda x, random: through_jpeg(x, random, subsampling=0)),
    "jpeg 4:2:0": ("jpeg", lambda x, random: through_jpeg(x, random, subsampling=2)),
    "scaled": ("scaled", at_another_scale),
    "scaled, the centre enlarged": ("scaled", centre_enlarged),
    "cut": ("cut", centre_on_a_border),
    "shifted": ("shifted", window_shifted),
}


def answers(
    manifest: Manifest, expected: np.ndarray, others: Sequence[np.ndarray], random: np.random.Generator
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield case, expected diagnosis and logits of the cases that change logits, not patches."""
    rounding = (manifest.output_quantum or manifest.tolerance) * random.integers(-1, 2, len(expected))
    yield "nothing", "right", expected
    yield "nothing, a quantum of rounding", "right", expected + rounding
    for other in others:
        yield "nothing, another runtime", "right", other
    for name, temperature in (("", 1.0), (" with temperature", manifest.temperature)):
        once = 1 / (1 + np.exp(-expected / temperature))
        yield f"sigmoid{name}", "sigmoid", once
        yield f"sigmoid twice{name}", "sigmoid twice", 1 / (1 + np.exp(-once / temperature))
    yield "calibrated", "calibrated", expected / manifest.temperature
    yield "sign", "sign", -expected
    yield "order", "order", np.roll(expected, 1)
    yield "random", "unknown", random.normal(expected.mean(), expected.std(), len(expected))


def mistakes_named(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return the mistakes named, or the verdict where there are none."""
    return tuple(finding.mistake for finding in diagnosis.findings) or (diagnosis.verdict,)


def count_diagnoses(model: Path, *, sets: int, progress: Progress) -> list[Row]:
    """Return a row for each case: how often its mistake was named, alone or with others, and the other diagnoses.

    Raises:
        ModelError: file or manifest missing, changed or unreadable.
        RuntimeUnavailable: no installed runtime opens the file.
    """
    manifest = manifests.read(model)
    runner, *rest = (edge.load(model, runtime=runtime) for _, runtime in files_on_runtimes([model]))
    counts: dict[tuple[str, str], collections.Counter[tuple[str, ...]]] = collections.defaultdict(collections.Counter)
    for number in range(sets):
        random = np.random.default_rng(SEED + number)
        patches, _ = synthetic.golden(PATCHES, seed=SEED + number)
        expected, *others = (each.predict(patches).reshape(-1).astype(np.float64) for each in (runner, *rest))
        case = Case(
            patches,
            expected,
            runner.predict,
            tolerance=manifest.tolerance,
            temperature=manifest.temperature,
            um_per_px=manifest.um_per_px,
        )
        cases = list(answers(manifest, expected, others, random))
        for name, (truth, damage) in DAMAGES.items():
            damaged = np.ascontiguousarray(damage(patches, random))
            cases.append((name, truth, runner.predict(damaged).reshape(-1)))
        for name, truth, logits in cases:
            counts[name, truth][mistakes_named(diagnose(case, logits))] += 1
        progress(f"doctor, sets for {manifest.network} {model.name}", number + 1, sets)
    return [_figures(labelled(model), name, truth, named) for (name, truth), named in counts.items()]


def _figures(model: str, case: str, truth: str, counts: collections.Counter[tuple[str, ...]]) -> Row:
    total = counts.total()
    hits = sum(count for names, count in counts.items() if truth in names)
    right = counts[("right",)] if truth != "right" else 0
    others = {
        " or ".join(names): count for names, count in counts.items() if truth not in names and names != ("right",)
    }
    judged = total - right
    return {
        "model": model,
        "made": case,
        "to_be_named": truth,
        "sets": total,
        "named": hits,
        "named_alone": counts[(truth,)],
        "within_tolerance": right,
        "otherwise": ", ".join(f"{name} {count}" for name, count in sorted(others.items())),
        "percent": 100 * hits / judged if judged else None,
    }


def diagnoses_command() -> None:
    """Write a row for each case and file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="exported files")
    parser.add_argument("--out", type=Path, required=True, help="results file (JSON)")
    parser.add_argument("--sets", type=int, default=50, help="of 16 patches")
    arguments = parser.parse_args()
    if arguments.sets < 1:
        parser.error("expected at least 1 set")
    with on_terminal() as show:
        rows = [row for model in arguments.models for row in count_diagnoses(model, sets=arguments.sets, progress=show)]
    write_record(
        arguments.out,
        kind="doctor",
        command="python benchmarks/diagnoses.py MODEL... --out F" + changed_options(parser, arguments, "sets"),
        about=f"Diagnoses of the logits of {PATCHES} synthetic patches, in {arguments.sets} sets. `named` counts the "
        "sets in which the doctor named the mistake, `named_alone` those in which it named no other mistake with it, "
        "`within_tolerance` those in which the mistake changed no logit by more than the tolerance, where `right` is "
        "the correct diagnosis. `percent` is `named` as a share of the sets that are not `within_tolerance`.",
        rows=rows,
    )


if __name__ == "__main__":
    run_script(diagnoses_command)
