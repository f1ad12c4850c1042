"""The command line: each command parses its arguments, calls one function of ``histoedge.api`` and prints."""

from histoedge.cli import bench, data, keras_import, lab, lists, model, scan  # each module registers its commands
from histoedge.cli.group import main

__all__ = ["bench", "data", "keras_import", "lab", "lists", "main", "model", "scan"]
