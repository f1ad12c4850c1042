"""Judged gates as a JUnit file, which every CI shows: a test case per gate and cell.

Elements and attributes are those that Jenkins' JUnit plug-in and GitLab read (``testsuites``, ``testsuite``,
``testcase``, ``failure``, ``skipped``); an undecided gate is a failure of type ``undecided``.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from histoedge import files
from histoedge.benchmark.gates import Judgement

_NO_CHARACTER_OF_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def text(judgements: Sequence[Judgement]) -> str:
    """The document. The class name is the gate, the name the cell."""
    failing = [one for one in judgements if not one.holds_up]
    skipped = [one for one in judgements if one.outcome == "skipped"]
    counts = {"tests": len(judgements), "failures": len(failing), "skipped": len(skipped), "errors": 0}
    told = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", {"name": "histoedge bench", **told})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "gates", **told})
    for one in judgements:
        where = {"classname": _clean(one.gate), "name": _clean(one.cell or "no cell")}
        case = ElementTree.SubElement(suite, "testcase", where)
        if one.outcome == "skipped":
            ElementTree.SubElement(case, "skipped", {"message": _clean(one.reason or "")})
        elif not one.holds_up:
            ElementTree.SubElement(case, "failure", {"type": one.outcome, "message": _clean(said(one))})
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def write_junit(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write ``text`` to ``path``, whole or not at all.

    Raises:
        WriteError: the place cannot be written.
    """
    files.write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + text(judgements))


def said(judgement: Judgement) -> str:
    """What was found, in words: ``0.612 [0.598, 0.631]``, and why where there is a reason."""
    if judgement.value is None:
        return judgement.reason or ""
    value = f"{judgement.value:.5g}"
    if judgement.lo is not None and judgement.hi is not None:
        value += f" [{judgement.lo:.5g}, {judgement.hi:.5g}]"
    return value + (f": {judgement.reason}" if judgement.reason else "")


def _clean(words: str) -> str:
    return _NO_CHARACTER_OF_XML.sub("\ufffd", words)
