"""The map in colours over the slide: one picture with a legend, and the layers that the page is made of."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.scanning.foci import Focus
from histoedge.scanning.slidemap import SlideMap

LARGEST_PX, SMALLEST_PX = 2_000, 700  # sides of the picture of a slide; a small one is enlarged by whole numbers
LEGEND_PX = 96  # below it
DPI = 100
COLOURS = "YlOrRd"
OPACITY = 0.6  # tissue stays visible underneath
BAR_PX = 360  # the scale bar is shorter


def colours(found: SlideMap) -> np.ndarray:
    """The map's squares as RGBA, uint8 (rows, columns, 4): transparent where there is no tissue."""
    import matplotlib

    painted: np.ndarray = matplotlib.colormaps[COLOURS](found.probability, bytes=True)
    painted[..., 3] = np.where(found.tissue, round(255 * OPACITY), 0)
    return painted


def shown(found: SlideMap) -> tuple[np.ndarray, float]:
    """The slide as a picture of handy size, uint8 (h, w, 3), and how many level-0 pixels one of its own is."""
    from PIL import Image

    height, width = found.thumbnail.shape[:2]
    longest = max(height, width)
    if longest > LARGEST_PX:
        size = max(1, round(width * LARGEST_PX / longest)), max(1, round(height * LARGEST_PX / longest))
        picture = Image.fromarray(found.thumbnail).resize(size, Image.Resampling.LANCZOS)
        return np.asarray(picture), found.thumbnail_scale * longest / LARGEST_PX
    by = max(1, SMALLEST_PX // longest)
    return found.thumbnail.repeat(by, 0).repeat(by, 1), found.thumbnail_scale / by


def draw(found: SlideMap, foci: Sequence[Focus], path: Path, *, threshold: float) -> float:
    """Draw the slide in grey, its map in colours, its foci outlined, a scale bar and a legend below, to a PNG file.

    The picture's upper left corner is the slide's; returns how many level-0 pixels one of its pixels is.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from PIL import Image

    picture, scale = shown(found)
    height, width = picture.shape[:2]
    whole_width, whole_height = max(width, SMALLEST_PX), height + LEGEND_PX
    figure = Figure(figsize=(whole_width / DPI, whole_height / DPI), dpi=DPI, facecolor="none")
    axes = figure.add_axes((0, LEGEND_PX / whole_height, width / whole_width, height / whole_height))
    axes.set_axis_off()
    outlines = [ring / scale for focus in foci for ring in rings(focus)]
    axes.add_collection(LineCollection(outlines, colors="black", linewidths=0.8), autolim=False)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    _legend(figure, scale * found.slide_um_per_px, whole_width, whole_height, threshold=threshold)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    whole = Image.new("RGBA", canvas.get_width_height(), "white")
    whole.paste(_painted(found, picture, scale))  # not by matplotlib, which takes 64 bytes for each of its pixels
    whole.alpha_composite(Image.fromarray(np.asarray(canvas.buffer_rgba())))
    with files.replacing(path) as temporary:
        whole.convert("RGB").save(temporary, format="png")
    return scale


def _painted(found: SlideMap, picture: np.ndarray, scale: float) -> Any:
    """The map's squares over the picture in grey, a Pillow image."""
    from PIL import Image

    ground = Image.fromarray(picture).convert("L").convert("RGB")
    step = found.step_level0_px / scale
    left, top = (at / scale for at in found.corner_level0_px(0, 0))
    onto_map = 1 / step, 0, -left / step, 0, 1 / step, -top / step
    layer = Image.fromarray(colours(found)).transform(ground.size, Image.Transform.AFFINE, onto_map)
    ground.paste(layer, mask=layer)
    return ground


def rings(focus: Focus) -> list[np.ndarray]:
    """The outlines of a focus and of its holes, float64 (N, 2) each, in pixels of level 0."""
    import shapely

    parts = shapely.get_parts(focus.outline)
    return [np.asarray(ring.coords) for part in parts for ring in (part.exterior, *part.interiors)]


def _legend(figure: Any, um_per_px: float, whole_width: int, whole_height: int, *, threshold: float) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.add_axes((20 / whole_width, 42 / whole_height, 260 / whole_width, 14 / whole_height))
    figure.colorbar(ScalarMappable(cmap=COLOURS), cax=bar, orientation="horizontal", alpha=OPACITY)
    bar.axvline(threshold, color="black", linewidth=1.5)
    bar.set_title(f"probability of tumour; outlined from {threshold:.3g} on", fontsize=9, loc="left", pad=4)
    bar.tick_params(labelsize=8)
    length_um = round_length(BAR_PX * um_per_px)
    length = length_um / um_per_px
    rule = figure.add_axes((310 / whole_width, 46 / whole_height, length / whole_width, 5 / whole_height))
    rule.set_facecolor("black")
    rule.set(xticks=[], yticks=[])
    told = f"{length_um / 1e3:g} mm" if length_um >= 1e3 else f"{length_um:g} µm"
    rule.set_title(told, fontsize=9, loc="left", pad=4)


def round_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def png(pixels: np.ndarray) -> bytes:
    """uint8 (h, w, 3 or 4) as a PNG file."""
    return _encoded(pixels, "PNG", optimize=True)


def jpeg(pixels: np.ndarray) -> bytes:
    """uint8 (h, w, 3) as a JPEG file."""
    return _encoded(pixels, "JPEG", quality=85)


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(pixels).save(held, kind, **options)
    return held.getvalue()


def swatches(count: int = 11) -> list[str]:
    """The colours of probabilities 0 to 1, as the map shows them on white, in hexadecimal."""
    import matplotlib
    from matplotlib.colors import to_hex

    painted = matplotlib.colormaps[COLOURS](np.linspace(0, 1, count))[:, :3]
    return [to_hex(1 - OPACITY + OPACITY * colour) for colour in painted]
