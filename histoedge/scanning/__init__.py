"""Whole slides: from pixels on glass to a map with one verdict for every 32 x 32 px square."""

from histoedge.scanning.engine import Workers
from histoedge.scanning.scanner import FIELD_PX, Scan, scan

__all__ = ["FIELD_PX", "Scan", "Workers", "scan"]
