"""Latency, memory, size and AUC of every file on every runtime, each cell in a process of its own."""

from histoedge.bench.matrix import find, inputs_of
from histoedge.bench.measure import bench, bench_to
from histoedge.bench.results import STATUSES, Measurement, Results, is_current, read, write

__all__ = [
    "STATUSES",
    "Measurement",
    "Results",
    "bench",
    "bench_to",
    "find",
    "inputs_of",
    "is_current",
    "read",
    "write",
]
