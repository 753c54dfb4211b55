"""A verdict as JUnit XML: a suite for each rung, a case for each metric."""

from __future__ import annotations

import platform
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from fluxperf.harness.text.escape import neutral
from fluxperf.harness.verdict import Row, Verdict

#: Element of a case for each outcome. Unsure counts as a failure, as it does not pass.
_ELEMENT = {"regression": "failure", "unsure": "failure", "error": "error", "ungated": "skipped"}


def junit(verdict: Verdict) -> str:
    """The verdict as JUnit XML that conforms to Ant's JUnit schema."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in verdict.rows:
        groups.setdefault((row.workload, row.rung), []).append(row)
    root = ET.Element("testsuites")
    for number, ((workload, rung), rows) in enumerate(groups.items()):
        name = f"{neutral(workload)}/{neutral(rung)}" if workload or rung else "gate"
        root.append(_suite(number, name, rows, verdict))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(number: int, name: str, rows: Sequence[Row], verdict: Verdict) -> ET.Element:
    outcomes = [row.outcome for row in rows]
    suite = ET.Element(
        "testsuite",
        {
            "name": name,
            "package": "fluxperf.gate",
            "id": str(number),
            "timestamp": verdict.created_utc[:19],
            "hostname": neutral(platform.node()) or "localhost",
            "tests": str(len(rows)),
            "failures": str(outcomes.count("regression") + outcomes.count("unsure")),
            "errors": str(outcomes.count("error")),
            "skipped": str(outcomes.count("ungated")),
            "time": "0.000",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in (
        ("outcome", verdict.outcome),
        ("base", verdict.base),
        ("head", verdict.head),
        *verdict.provenance.lines,
    ):
        ET.SubElement(properties, "property", {"name": key, "value": neutral(value)})
    for row in rows:
        names = {"name": neutral(row.metric), "classname": f"fluxperf.gate.{name}", "time": "0.000"}
        case = ET.SubElement(suite, "testcase", names)
        element = _ELEMENT.get(row.outcome)
        if element == "skipped":
            ET.SubElement(case, element)
        elif element:
            details = {"type": f"{row.verdict}.{row.reason}", "message": neutral(row.message)}
            ET.SubElement(case, element, details).text = neutral(row.message)
    ET.SubElement(suite, "system-out")
    ET.SubElement(suite, "system-err")
    return suite
