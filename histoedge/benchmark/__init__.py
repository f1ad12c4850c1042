"""Latency, memory, size and AUC of every file on every runtime, each cell in a process of its own."""

from histoedge.benchmark.layer_errors import FileLayers, Layer
from histoedge.benchmark.matrix import find, inputs_of
from histoedge.benchmark.measure import bench, bench_to
from histoedge.benchmark.results import STATUSES, Measurement, Results, is_current, is_int8, read, write

__all__ = [
    "STATUSES",
    "FileLayers",
    "Layer",
    "Measurement",
    "Results",
    "bench",
    "bench_to",
    "find",
    "inputs_of",
    "is_current",
    "is_int8",
    "read",
    "write",
]
