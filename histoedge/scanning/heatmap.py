"""The map in colours over the slide: one picture with a legend, and the image layers of the page."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.scanning.foci import Focus
from histoedge.scanning.slidemap import SlideMap

LARGEST_PX, SMALLEST_PX = 2_000, 700  # longest side of the slide's picture; a small picture is enlarged by an integer
LEGEND_PX = 96  # height of the legend below the picture
DPI = 100
COLOURS = "YlOrRd"
OPACITY = 0.6  # the tissue stays visible
BAR_PX = 360  # largest length of the scale bar


def draw(slide_map: SlideMap, foci: Sequence[Focus], path: Path, *, threshold: float) -> float:
    """Write a PNG file: the slide in grey, the map in colours, the foci outlined, below them a legend and a scale bar.

    The picture's upper left corner is the slide's. Return the level-0 pixels per pixel of the picture.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from PIL import Image

    picture, scale = slide_picture(slide_map)
    height, width = picture.shape[:2]
    whole_width, whole_height = max(width, SMALLEST_PX), height + LEGEND_PX
    figure = Figure(figsize=(whole_width / DPI, whole_height / DPI), dpi=DPI, facecolor="none")
    axes = figure.add_axes((0, LEGEND_PX / whole_height, width / whole_width, height / whole_height))
    axes.set_axis_off()
    outlines = [ring / scale for focus in foci for ring in rings(focus)]
    axes.add_collection(LineCollection(outlines, colors="black", linewidths=0.8), autolim=False)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    title = f"probability of {slide_map.manifest.classes[1]}; outlines at {threshold:.3g}"
    _legend(figure, scale * slide_map.slide_um_per_px, whole_width, whole_height, threshold=threshold, title=title)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture_with_legend = Image.new("RGBA", canvas.get_width_height(), "white")
    picture_with_legend.paste(
        _painted(slide_map, picture, scale)
    )  # not with matplotlib, which needs 64 bytes per pixel
    picture_with_legend.alpha_composite(Image.fromarray(np.asarray(canvas.buffer_rgba())))
    with files.replacing(path) as temporary:
        picture_with_legend.convert("RGB").save(temporary, format="png")
    return scale


def slide_picture(slide_map: SlideMap) -> tuple[np.ndarray, float]:
    """Return the slide as a picture of about 700 to 2,000 px, uint8 (h, w, 3), and its level-0 pixels per pixel."""
    from PIL import Image

    height, width = slide_map.thumbnail.shape[:2]
    longest = max(height, width)
    if longest > LARGEST_PX:
        size = max(1, round(width * LARGEST_PX / longest)), max(1, round(height * LARGEST_PX / longest))
        smaller = Image.fromarray(slide_map.thumbnail).resize(size, Image.Resampling.LANCZOS)
        return np.asarray(smaller), slide_map.thumbnail_scale * longest / LARGEST_PX
    enlargement = max(1, SMALLEST_PX // longest)
    picture = slide_map.thumbnail.repeat(enlargement, 0).repeat(enlargement, 1)
    return picture, slide_map.thumbnail_scale / enlargement


def _painted(slide_map: SlideMap, picture: np.ndarray, scale: float) -> Any:
    """Return the picture in grey with the map's squares over it, a Pillow image."""
    from PIL import Image

    grey = Image.fromarray(picture).convert("L").convert("RGB")
    step = slide_map.step_level0_px / scale
    left, top = (corner / scale for corner in slide_map.corner_level0_px(0, 0))
    to_map = 1 / step, 0, -left / step, 0, 1 / step, -top / step
    layer = Image.fromarray(colours(slide_map)).transform(grey.size, Image.Transform.AFFINE, to_map)
    grey.paste(layer, mask=layer)
    return grey


def colours(slide_map: SlideMap) -> np.ndarray:
    """Return the map's squares as RGBA, uint8 (rows, columns, 4), transparent without tissue."""
    import matplotlib

    painted: np.ndarray = matplotlib.colormaps[COLOURS](slide_map.probability, bytes=True)
    painted[..., 3] = np.where(slide_map.tissue, round(255 * OPACITY), 0)
    return painted


def rings(focus: Focus) -> list[np.ndarray]:
    """Return the outlines of a focus and of its holes, float64 (N, 2) each, in pixels of level 0."""
    import shapely

    parts = shapely.get_parts(focus.outline)
    return [np.asarray(ring.coords) for part in parts for ring in (part.exterior, *part.interiors)]


def _legend(
    figure: Any, um_per_px: float, whole_width: int, whole_height: int, *, threshold: float, title: str
) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.add_axes((20 / whole_width, 42 / whole_height, 260 / whole_width, 14 / whole_height))
    figure.colorbar(ScalarMappable(cmap=COLOURS), cax=bar, orientation="horizontal", alpha=OPACITY)
    bar.axvline(threshold, color="black", linewidth=1.5)
    bar.set_title(title, fontsize=9, loc="left", pad=4, parse_math=False)
    bar.tick_params(labelsize=8)
    length_um = round_length(BAR_PX * um_per_px)
    length = length_um / um_per_px
    rule = figure.add_axes((310 / whole_width, 46 / whole_height, length / whole_width, 5 / whole_height))
    rule.set_facecolor("black")
    rule.set(xticks=[], yticks=[])
    label = f"{length_um / 1e3:g} mm" if length_um >= 1e3 else f"{length_um:g} µm"
    rule.set_title(label, fontsize=9, loc="left", pad=4)


def round_length(most: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def png(pixels: np.ndarray) -> bytes:
    """Return uint8 (h, w, 3 or 4) pixels as a PNG file."""
    return _encoded(pixels, "PNG", optimize=True)


def jpeg(pixels: np.ndarray) -> bytes:
    """Return uint8 (h, w, 3) pixels as a JPEG file."""
    return _encoded(pixels, "JPEG", quality=85)


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def swatches(count: int = 11) -> list[str]:
    """Return the colours of probabilities 0 to 1 as the map shows them on white, in hexadecimal."""
    import matplotlib
    from matplotlib.colors import to_hex

    painted = matplotlib.colormaps[COLOURS](np.linspace(0, 1, count))[:, :3]
    return [to_hex(1 - OPACITY + OPACITY * colour) for colour in painted]
