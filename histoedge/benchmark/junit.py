"""Judged gates as a JUnit file for CI systems: one test case per gate and cell.

Elements and attributes follow Jenkins' JUnit plug-in and GitLab (``testsuites``, ``testsuite``,
``testcase``, ``failure``, ``skipped``); an undecided gate is a failure of type ``undecided``.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from histoedge import files
from histoedge.benchmark.gates import Judgement

_NOT_ALLOWED_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def text(judgements: Sequence[Judgement]) -> str:
    """Return the document. The class name of a test case is the gate, its name the cell."""
    failing = [judgement for judgement in judgements if not judgement.passes]
    skipped = [judgement for judgement in judgements if judgement.outcome == "skipped"]
    numbers = {"tests": len(judgements), "failures": len(failing), "skipped": len(skipped), "errors": 0}
    counts = {name: str(number) for name, number in numbers.items()}
    root = ElementTree.Element("testsuites", {"name": "histoedge bench", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "gates", **counts})
    for judgement in judgements:
        attributes = {"classname": _clean(judgement.gate), "name": _clean(judgement.cell or "no cell")}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if judgement.outcome == "skipped":
            ElementTree.SubElement(case, "skipped", {"message": _clean(judgement.reason or "")})
        elif not judgement.passes:
            attributes = {"type": judgement.outcome, "message": _clean(value_and_reason(judgement))}
            ElementTree.SubElement(case, "failure", attributes)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def write_junit(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write ``text`` to ``path``. The file appears complete or not at all.

    Raises:
        WriteError: the path cannot be written.
    """
    files.write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + text(judgements))


def value_and_reason(judgement: Judgement) -> str:
    """Return the value with its interval, such as ``0.612 [0.598, 0.631]``, and the reason if there is one."""
    if judgement.value is None:
        return judgement.reason or ""
    value = f"{judgement.value:.5g}"
    if judgement.lo is not None and judgement.hi is not None:
        value += f" [{judgement.lo:.5g}, {judgement.hi:.5g}]"
    return value + (f": {judgement.reason}" if judgement.reason else "")


def _clean(content: str) -> str:
    return _NOT_ALLOWED_IN_XML.sub("\ufffd", content)
