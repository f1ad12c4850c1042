"""Results documents: what every script writes and the pages are built from."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from histoedge import files
from histoedge.benchmark import environment
from histoedge.edge.errors import HistoedgeError

FORMAT = 1

Row = dict[str, Any]


def write_record(
    out: Path,
    *,
    kind: str,
    command: str,
    about: str,
    rows: Sequence[Row] = (),
    machine: Mapping[str, Any] | None = None,
    **extra: Any,
) -> None:
    """Write a results document and print its path.

    Args:
        out: the JSON file.
        kind: selects the section of the generated page (``sections.SECTIONS``).
        command: the command that makes the document; words in capitals stand for paths.
        about: a paragraph for the page: what was measured, how, and what the columns mean.
        rows: the table. Every row has the same keys; their order is that of the columns.
        machine: ``environment.this_machine()``; by default as it is now. A script that pins itself to some CPUs
            passes what it read before.
        extra: further keys of the document.
    """
    document: dict[str, Any] = {"format": FORMAT, "kind": kind, "command": command, "about": about}
    document["environment"] = machine or environment.this_machine()
    if rows:
        document |= {"columns": list(rows[0]), "rows": list(rows)}
    files.write_json(out, document | extra)
    sys.stdout.write(f"{out}\n")


def recorded_rows(out: Path) -> list[Row]:
    """Return the rows of an earlier, unfinished document; none where the file is missing."""
    return list(json.loads(out.read_text())["rows"]) if out.is_file() else []


def changed_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace, *names: str) -> str:
    """Return the options that differ from their defaults, as typed: `` --rounds 5``.

    Args:
        parser: has the defaults.
        arguments: as parsed.
        names: of the options, without dashes in front.
    """
    values = {name: getattr(arguments, name.replace("-", "_")) for name in names}
    changed = {name: value for name, value in values.items() if value != parser.get_default(name.replace("-", "_"))}
    return "".join(f" --{name} {value}" for name, value in changed.items())


def run_script(command: Callable[[], None]) -> None:
    """Run a script's command; end with a one-line message on an error of histoedge."""
    try:
        command()
    except HistoedgeError as error:
        sys.exit(str(error))
