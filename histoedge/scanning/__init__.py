"""Whole-slide scanning: from a slide file to a map with one probability for every labelled square.

The modules in call order, each calling only those after it:

1. ``batch``: all slides of a command; ``scanner``: one slide.
2. ``tissue``: the tissue mask; ``cluster`` and ``engine``: compute fields on a Dask cluster or in this process.
3. ``readers`` and ``segments``: open a slide file, decode its tiles.
4. ``unfinished``: the map on disk while it is computed; ``grid``: which pixels a field covers; ``plane``: a slide at
   the model's resolution; ``slide``: an open slide; ``cache``: arrays shared by threads.
5. Outputs: ``page``, ``heatmap``, ``ometiff``, ``geojson``, ``tiles``, ``outcome``, ``summary``, ``foci``, and the
   ``slidemap`` from which all of them are derived.
"""

from histoedge.scanning.engine import Workers
from histoedge.scanning.scanner import FIELD_PX, Scan, scan

__all__ = ["FIELD_PX", "Scan", "Workers", "scan"]
