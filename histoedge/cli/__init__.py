"""The command line: a command parses its arguments, calls one function of ``histoedge.api`` and prints."""

from histoedge.cli import bench, data, lab, lists, model, scan  # each adds its commands to the group
from histoedge.cli.group import main

__all__ = ["bench", "data", "lab", "lists", "main", "model", "scan"]
