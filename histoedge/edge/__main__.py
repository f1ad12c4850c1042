"""``python -m histoedge.edge``: self-test, golden patches and doctor, for the machine that embeds the model.

Exit codes: 0 pass; 1 an error, one line on stderr; 2 wrong usage; 3 the comparison failed.
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
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except HistoedgeError as error:
        sys.stderr.write(f"{__package__}: {' '.join(str(error).split())}\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Check an embedded model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, summary: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=summary, description=summary)
        subparser.add_argument("place", type=Path, metavar="DIR|MODEL", help="an exported file, or a folder with one")
        subparser.add_argument("--json", action="store_true", help="print one JSON document")
        subparser.set_defaults(command=function)
        return subparser

    command("selftest", _selftest, "check all hashes, and run the golden patches on each installed runtime")
    golden = command("golden", _golden, "write the golden patches as PPM files, and their expected logits")
    golden.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder to write")
    doctor = command("doctor", _doctor, "find the mistake that explains your program's logits of the golden patches")
    doctor.add_argument(
        "logits", type=Path, metavar="LOGITS.csv", help="one logit per golden patch, in the order of the patches"
    )
    return parser


def _selftest(options: argparse.Namespace) -> int:
    report = selftest(options.place)
    if options.json:
        _print_json(report.as_json())
    else:
        for check in report.checks:
            print(check)
        print("pass" if report.passed else "FAILED")
    return 0 if report.passed else ComparisonFailed.exit_code


def _golden(options: argparse.Namespace) -> int:
    path = model(options.place)
    files = write_golden(goldens.read_golden(path, manifests.read(path)), options.into)
    if options.json:
        _print_json({"format": 1, "files": [str(file) for file in files]})
    else:
        print(f"{options.into}: {len(files) - 1} golden patches, and their expected logits in {files[-1].name}")
    return 0


def examine(place: Path, logits: Path) -> Diagnosis:
    """Diagnose a program by its logits of the golden patches.

    Args:
        place: a model file, or a folder with one model file.
        logits: CSV file, one logit per golden patch.

    Raises:
        ModelError: ``place`` is no model, or a folder with none or several; a file is missing, unreadable or altered.
        DataError: the logits are missing or unreadable, or their number differs from the number of patches.
        RuntimeUnavailable: no installed runtime opens the model.
    """
    path = model(place)
    manifest = manifests.read(path)
    golden = goldens.read_golden(path, manifest)
    values = read_logits(logits, len(golden.logits))
    case = Case(
        golden.patches,
        golden.logits,
        load(path).predict,
        tolerance=manifest.tolerance,
        temperature=manifest.temperature,
        um_per_px=manifest.um_per_px,
        saturated=golden.saturated,
    )
    return diagnose(case, values)


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
