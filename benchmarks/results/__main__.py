"""Generates README, docs and changelog from one folder of evidence, and the course from all records.

    python -m benchmarks.results reports/records/evidence-h200
    python -m benchmarks.results reports/records/evidence-h200 --without schnell-1024-t256-baseline
    python -m benchmarks.results                                 # the course alone

`make renew` runs it on the folder that the Makefile names (``SHOWN``), and renews sample and pictures too. A folder
that lacks a process is refused, unless the process is of a part that is named (``LACKING``): pages say what is missing.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.quality.document import as_markdown
from benchmarks.quality.document import read as quality_in
from benchmarks.results import tables
from benchmarks.results.evidence import ROOT, Evidence, read
from benchmarks.results.words import seconds, time_of, times
from fluxperf.cli.course import course_of, course_table
from fluxperf.cli.terminal import Console
from fluxperf.errors import FluxperfError, RecordError
from fluxperf.files import write_whole
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.samples import speedup, summary_of
from fluxperf.harness.revisions import is_shallow
from fluxperf.workloads import HEADLINE

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def drawn(evidence: Evidence) -> dict[str, str]:
    """The new text of each page, by its path in the checkout.

    Raises:
        RecordError: a figure of a page has no record.
    """
    known = figures(evidence)
    loader = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
        autoescape=False,
    )  # fmt: skip

    def part(name: str) -> str:
        return loader.get_template(f"{name}.md").render(known)

    readme = between(page("README.md"), "## Results\n", "## Install\n", part("readme").removeprefix("## Results\n"))
    readme = re.sub(r"a sample from an H\d+", f"a sample from an {evidence.card.removeprefix('NVIDIA ')}", readme)
    return {
        "README.md": readme,
        "docs/results.md": part("results"),
        **{
            f"docs/{name}.md": marked(page(f"docs/{name}.md"), part(name))
            for name in ("evidence", "memory", "generate")
        },
        "docs/fp8.md": _quality(evidence),
        "CHANGELOG.md": marked(page("CHANGELOG.md"), part("changelog")),
        "reports/sample/README.md": part("sample"),
    }


def _quality(evidence: Evidence) -> str:
    """The page about errors, with the table of the evidence."""
    before = "At full size, of the evidence that [results.md](results.md) shows:\n\n"
    content = as_markdown(quality_in(evidence.folder / "quality.json"))
    table = f"<!-- quality: {evidence.name}/quality.json -->\n{content}\n"
    return between(page("docs/fp8.md"), before, "<!-- /quality -->", table)


def course() -> dict[str, str]:
    """The new text of the page with the project's course; empty if the checkout has not its whole history.

    Raises:
        RecordError: no record is of a GPU.
    """
    if not (ROOT / ".git").exists() or is_shallow(ROOT):
        return {}
    with redirect_stdout(io.StringIO()) as printed:  # no terminal, wherever this runs
        Console(highlight=False).print(course_table(course_of([ROOT / "reports" / "records"], True, ROOT)))
    lines = [line.rstrip() for line in printed.getvalue().rstrip().splitlines()]
    table = "\n".join(["```", *lines, "```", ""])
    name = "docs/progress.md"
    return {name: between(page(name), "<!-- course -->\n", "<!-- /course -->", table)}


def page(name: str) -> str:
    """Text of a page of the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def between(text: str, start: str, end: str, new: str) -> str:
    """The text with new content between two strings that stay.

    Raises:
        RecordError: the text does not have these two strings.
    """
    before, found, rest = text.partition(start)
    if not found or end not in rest:
        raise RecordError(
            f"expected {start.strip()!r} before {end.strip()!r} in the generated page, found other text. Restore the "
            "page."
        )
    return f"{before}{start}{new}{rest[rest.index(end) :]}"


def marked(text: str, new: str) -> str:
    """The text with new content between the markers of generated parts."""
    return between(text, "<!-- evidence -->\n", "<!-- /evidence -->", new)


def figures(evidence: Evidence) -> dict[str, Any]:
    """All values that templates use: figures and tables, some as functions of a workload.

    Raises:
        RecordError: a value has no record.
    """
    study, shown = evidence.study, evidence.ladder(HEADLINE)
    published, base, best = study.context.published, shown.baseline, shown.best
    eager = next((peer for peer, _, _ in beside_peers(study, shown) if peer.name == published.peer_name), None)
    gap, whole = speedup(base, eager.record if eager else None), speedup(base, best.record if best else None)
    found = summary_of(best.record) if best else None
    if not (base and best and eager and gap and whole and found):
        raise RecordError(
            f"{evidence.folder}: expected a baseline, a quickest rung and eager diffusers measured in "
            "turns with a rung."
        )
    of: dict[str, Callable[..., str]] = {
        name: partial(getattr(tables, name), evidence) for name in ("ladder", "work", "peers", "budgets")
    }
    phases = [times(climb.found) for climb in climbs(study, shown) if climb.expected]
    return {
        **of,
        "sizes": tables.sizes(evidence),
        "errors": tables.errors(evidence),
        "pictures": tables.pictures(evidence),
        "starts": tables.starts(evidence),
        "profiled": tables.profiled,
        "explained": tables.explained,
        "turned": tables.turned(evidence),
        "per_op": sorted(evidence.documents.per_op),
        "card": evidence.card,
        "commit": evidence.commit,
        "folder": evidence.name,
        "processes": evidence.processes,
        "lacking": list(evidence.lacking),
        "bound": study.context.sustained_source,
        "published_s": f"{published.baseline_s:g}",
        "peer_s": f"{published.peer_s:g}",
        "target_s": f"{published.target_s:g}",
        "published_gap": f"{published.gap:.0f}",
        "baseline": time_of(base),
        "diffusers": time_of(eager.record),
        "diffusers_gap": times(gap),
        "best": best.name,
        "best_time": seconds(found.median),
        "best_gap": times(whole),
        "moved_gb": f"{sum(row.bytes for row in base.ledger) / 1e9:.0f}",
        "phases": f"{', '.join(phases[:-1])} and {phases[-1]}",
    }


def _committed(folder: Path) -> Path:
    """The folder, if readers of the pages find it in the checkout.

    Raises:
        RecordError: it lies elsewhere.
    """
    records = ROOT / "reports" / "records"
    if not folder.resolve().is_relative_to(records):
        raise RecordError(f"{folder}: expected a folder of evidence in {records}, as pages name it. Copy it there.")
    return folder.resolve()


def main(words: list[str] | None = None) -> None:
    """Writes the pages; prints which of them changed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="A folder of `fluxperf evidence headline`.")
    parser.add_argument(
        "--without", action="append", default=[], metavar="PART", help="A part that may be missing. Repeat for several."
    )
    asked = parser.parse_args(words)
    try:
        pages = drawn(read(_committed(asked.folder), asked.without)) if asked.folder else {}
        for name, text in (pages | course()).items():
            if page(name) != text:
                write_whole(ROOT / name, text)
                print(f"drew {name}")
    except FluxperfError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
