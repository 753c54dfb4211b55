"""``fluxperf witness``: lists every host-device copy of any Python program, with the line that caused it."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fluxperf.cli.grammar import STDOUT, Json, deliver
from fluxperf.cli.rescue import write_or_rescue
from fluxperf.cli.terminal import Console
from fluxperf.documents import plain
from fluxperf.errors import ConfigError, DeviceError, RecordError
from fluxperf.files import check_writable
from fluxperf.harness.timeline.call_sites import printable
from fluxperf.harness.timeline.program import program, run
from fluxperf.harness.timeline.traced import Event, copies_in, groups, totals, write_rows
from fluxperf.harness.timeline.tracer import Copy, Tracer
from fluxperf.words import plural

_ROWS = 40


def witness(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- python FILE [ARGS]", help="The program to run; also -m MODULE or -c CODE."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write every copy and wait to this JSON Lines file.")
    ] = None,
    fail_on_copies_in: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RANGE",
            help="Exit with 1 if a copy happens inside an NVTX range with this name; repeat for several.",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Run a Python program and list its host-device copies and blocking waits with call sites; needs a GPU.

    The program runs in this process, under fluxperf's own interpreter, with any CUDA library. Its child processes are
    not observed. Exit codes: the program's own if it is not 0; 1 a copy in a range of --fail-on-copies-in; 2 an error,
    so nothing is proven.
    """
    wanted, guarded = program(command), fail_on_copies_in or []
    for path in (output, json):
        if path is not None and path != STDOUT:
            check_writable(path)
    tracer = Tracer()
    tracer.start()
    code = run(wanted)
    problem = _stopped(tracer)
    events = tracer.events
    found = copies_in(events, guarded)
    absent = [name for name in guarded if name not in tracer.ranges_seen]
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    refused = ""
    if output is not None:
        try:
            write_or_rescue(output, partial(write_rows, events=events))
        except RecordError as error:
            refused = str(error)
    if json is not None:
        deliver(json_text.dumps(plain(_summary(events, found, code, problem))), json)
    else:
        console.print(_table(events))
    for copy in found:
        text = f"{copy} in range {printable(', '.join(n for n in copy.call.ranges if n in guarded))}"
        console.print(Text(f"fluxperf: {text}", style="red"))
    if code:
        told = " ".join(part for part in (f"the program exited with {code}.", problem, refused) if part)
        console.print(f"fluxperf: {told}")
        raise typer.Exit(code)
    if problem:
        raise DeviceError(f"{problem} {refused}".strip())
    if refused:
        raise RecordError(refused)
    if absent:
        raise ConfigError(
            "witness --fail-on-copies-in: expected the program to open a range named "
            f"{printable(', '.join(absent))}, but it did not. Ranges it opened: "
            f"{printable(', '.join(sorted(tracer.ranges_seen))) or 'none'}. Name one of these."
        )
    raise typer.Exit(1 if found else 0)


def _stopped(tracer: Tracer) -> str:
    """Ends tracing. Returns the reason if the counts are too low, else nothing."""
    try:
        tracer.stop()
    except DeviceError as error:
        return str(error)
    return ""


def _summary(events: Sequence[Event], found: Sequence[Copy], code: int, problem: str) -> dict[str, Any]:
    return {
        "exit_code": code,
        "complete": not problem,
        **totals(events),
        "copies_where_none_may_be": [str(copy) for copy in found],
        "groups": [group.row() for group in groups(events)],
    }


def _table(events: Sequence[Event]) -> Table:
    """Table of sums per kind, range and call site."""
    rows, sums = groups(events), totals(events)
    caption = (
        f"{plural(sums['d2h_copies'], 'copy', 'copies')} down, {sums['h2d_copies']:,} up, "
        f"{plural(sums['syncs'], 'blocking wait')}. ms: of copies on the device, of waits on the host."
    )
    if len(rows) > _ROWS:
        caption += f" {plural(len(rows) - _ROWS, 'more row')}; use -o FILE for all."
    view = Table(caption=caption, caption_justify="left")
    for heading in ("what", "n", "bytes", "ms", "memory", "range", "call site"):
        view.add_column(heading, justify="right" if heading in ("n", "bytes", "ms") else "left", overflow="fold")
    for group in rows[:_ROWS]:
        what = group.name if group.kind == "copy" else f"wait for {group.name}"
        size = str(group.bytes) if group.kind == "copy" else ""
        cells = (what, str(group.number), size, f"{group.seconds * 1e3:.3f}", group.memory)
        place = (printable(group.call.range or ""), group.call.where)
        view.add_row(*(Text(cell) for cell in (*cells, *place)))
    return view
