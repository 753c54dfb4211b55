"""The page: sections built from records, drawn by Jinja into one HTML file that asks the network for nothing.

A section is a row of ``SECTIONS``: an anchor, a title, a builder that makes plain data of a study, and a template
with the section's name in ``assets/``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from fluxperf.errors import RecordError
from fluxperf.harness.records import RecordsFile
from fluxperf.harness.report import ladder, ledger, machines, ops, plots, published, raw, summary
from fluxperf.harness.report.inputs import Context
from fluxperf.harness.report.study import TWIN_NOTE, Study, provenance, survey
from fluxperf.harness.report.templates import asset, environment, script_hash


class Section(NamedTuple):
    """One section of the page; ``assets/<anchor>.html.j2`` draws what ``build`` returns."""

    anchor: str
    title: str
    build: Callable[[Study], Any]


def _progress(study: Study) -> dict[str, Any]:
    records = [record for one in plots.on_axis(study) for record in one.records]
    where = provenance(records) if records else "The lines are published figures; no record of these files is drawn."
    return {"figure": plots.progress(study, "progress"), "provenance": where}


SECTIONS = (
    Section("summary", "Summary", summary.build),
    Section("machines", "Machines and comparability", machines.build),
    Section("ladder", "The ladder", ladder.build),
    Section("ledger", "Transfer ledger", ledger.build),
    Section("published", "The published baseline", published.build),
    Section("progress", "Progress toward the target", _progress),
    Section("ops", "Ops", ops.build),
    Section("phases", "Phase tables", ops.build_phases),
    Section("raw", "Raw data", raw.build),
)


def render(files: Sequence[RecordsFile], context: Context) -> str:
    """The whole page as HTML. The same records give the same page, to the byte."""
    study = survey(files, context)
    script = asset("page.js")
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            sections=[(section, section.build(study)) for section in SECTIONS],
            study=study,
            twin_note=TWIN_NOTE,
            # Safe as markup: both are files of this package.
            style=Markup(asset("style.css")),
            script=Markup(script),
            script_hash=script_hash(script),
        )
    )


def write(html: str, path: Path) -> None:
    """Writes the page to ``path``; what stood there stays whole until the new page is.

    Raises:
        RecordError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RecordError(
            f"cannot write the report to {path}: {error.strerror}. Expected a file in a folder that can be written to; "
            "choose another with -o."
        ) from error
