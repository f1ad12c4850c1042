"""Latency, memory, size and AUC of every file on every runtime, each cell in a process of its own."""

from histoedge.benchmark.layer_errors import FileLayers, Layer
from histoedge.benchmark.matrix import bench_inputs, find_models
from histoedge.benchmark.measure import bench, bench_to
from histoedge.benchmark.results import (
    STATUSES,
    Measurement,
    Results,
    is_int8,
    read_results,
    results_are_current,
    write_results,
)

__all__ = [
    "STATUSES",
    "FileLayers",
    "Layer",
    "Measurement",
    "Results",
    "bench",
    "bench_inputs",
    "bench_to",
    "find_models",
    "is_int8",
    "read_results",
    "results_are_current",
    "write_results",
]
