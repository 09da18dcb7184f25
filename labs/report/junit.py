"""A run as JUnit XML: one test case an expectation, so that a build server shows what held."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from labs.report.sentence import sentence

_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML 1.0 has no way to write these


def render(document: Mapping[str, Any]) -> str:
    """The XML text."""
    expectations = document["expectations"]
    broken = [e for e in expectations if not e["held"] and not e["warn"]]
    suite = ElementTree.Element(
        "testsuite",
        name=f"fwlab.{document['lab']}",
        tests=str(len(expectations) + bool(document["problem"])),
        failures=str(len(broken)),
        errors="1" if document["problem"] else "0",
        time=str(document["seconds"]),
    )
    if "seed" in document:
        properties = ElementTree.SubElement(suite, "properties")
        for name in ("world", "seed"):
            ElementTree.SubElement(properties, "property", name=name, value=str(document[name]))
    for expectation in expectations:
        name = f"{expectation['text']} (at {expectation['at']})"
        case = ElementTree.SubElement(suite, "testcase", classname=f"fwlab.{document['lab']}", name=name)
        if not expectation["held"]:
            told = f"{expectation['that']} should be {expectation['wanted']}; seen: {expectation['seen']}"
            if expectation["warn"]:
                ElementTree.SubElement(case, "system-out").text = f"warning: {told}"
            else:
                ElementTree.SubElement(case, "failure", message=told)
    if document["problem"]:
        case = ElementTree.SubElement(suite, "testcase", classname=f"fwlab.{document['lab']}", name="the run")
        ElementTree.SubElement(case, "error", message=document["problem"])
    ElementTree.SubElement(suite, "system-out").text = sentence(document)
    ElementTree.indent(suite)
    text = _NO_XML.sub("?", ElementTree.tostring(suite, encoding="unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'
