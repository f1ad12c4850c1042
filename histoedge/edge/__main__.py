"""``python -m histoedge.edge``: the self-test and the doctor, for the machine that embeds the model.

Exit codes: 0 pass; 1 a deliberate error, one line on stderr; 2 wrong usage; 3 the comparison failed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import golden as goldens
from . import manifest as manifests
from .doctor.diagnosis import Case, Diagnosis, diagnose
from .doctor.handover import read_logits, write_golden
from .errors import ComparisonFailed, HistoedgeError
from .runtimes import load
from .selftest import model, selftest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except HistoedgeError as error:
        sys.stderr.write(f"{__package__}: {' '.join(str(error).split())}\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Check an embedded model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, told: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=told, description=told)
        made.add_argument("place", type=Path, metavar="DIR|MODEL", help="an exported file, or the folder that holds it")
        made.add_argument("--json", action="store_true", help="one JSON document on stdout")
        made.set_defaults(command=function)
        return made

    command("selftest", _selftest, "check every hash, and the golden patches on each runtime installed")
    golden = command("golden", _golden, "write the golden patches as PPM files, and the logits to expect")
    golden.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder to write")
    doctor = command("doctor", _doctor, "name the mistake behind the logits that your program got for them")
    doctor.add_argument("logits", type=Path, metavar="LOGITS.csv", help="one logit per golden patch, in their order")
    return parser


def _selftest(options: argparse.Namespace) -> int:
    found = selftest(options.place)
    if options.json:
        _print_json(found.as_json())
    else:
        for check in found.checks:
            print(check)
        print("pass" if found.passed else "FAILED")
    return 0 if found.passed else ComparisonFailed.exit_code


def _golden(options: argparse.Namespace) -> int:
    path = model(options.place)
    written = write_golden(goldens.read_golden(path, manifests.read(path)), options.into)
    if options.json:
        _print_json({"format": 1, "files": [str(one) for one in written]})
    else:
        print(f"{options.into}: {len(written) - 1} golden patches and the logits to expect, {written[-1].name}")
    return 0


def examine(place: Path, logits: Path) -> Diagnosis:
    """What the logits in a CSV file, those of the golden patches, say about the program that got them.

    Raises:
        ModelError: ``place`` is no model and holds none, or several; a file missing, unreadable or altered.
        DataError: logits that are missing, unreadable, or of another number.
        RuntimeUnavailable: no runtime installed opens the model.
    """
    path = model(place)
    manifest = manifests.read(path)
    golden = goldens.read_golden(path, manifest)
    found = read_logits(logits, len(golden.logits))
    case = Case(
        golden.patches,
        golden.logits,
        load(path).predict,
        tolerance=manifest.tolerance,
        temperature=manifest.temperature,
        um_per_px=manifest.um_per_px,
        saturated=golden.saturated,
    )
    return diagnose(case, found)


def _doctor(options: argparse.Namespace) -> int:
    diagnosis = examine(options.place, options.logits)
    if options.json:
        _print_json(diagnosis.as_json())
    else:
        for line in diagnosis.lines():
            print(line)
    return 0 if diagnosis.verdict == "right" else ComparisonFailed.exit_code


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=1, sort_keys=True, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
