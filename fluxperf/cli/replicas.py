"""``fluxperf run --processes``: the same run in fresh processes, merged into one record per rung."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Container
from pathlib import Path

import typer

from fluxperf.cli.keeping import Keeping, kept
from fluxperf.cli.ladder import ladder
from fluxperf.cli.progress import Progress
from fluxperf.cli.terminal import Console, say
from fluxperf.errors import ProcessError, RecordError
from fluxperf.harness.measure.processes import Replicas, folder_for, merge_all, replicate
from fluxperf.harness.records import Record
from fluxperf.words import plural

#: Options that belong to the run as a whole and are not given to its processes.
_OF_THE_WHOLE = ("processes", "output")


def measured_in_processes(context: typer.Context, processes: int, output: Path | None) -> list[Record]:
    """Records of a run in fresh processes, merged by rung and appended to the output.

    Args:
        context: of the command, whose other options are passed on.
        processes: how many, one after another.
        output: records file, or ``None``.

    Raises:
        ProcessError: a process failed, or the processes disagree about exact counts. What was finished and agrees is
            appended and shown before. Where they disagree, their own records are kept.
        RecordError: the output cannot be written, or did not take a record; says where that is.
        KeyboardInterrupt: the command was stopped; likewise.
    """
    keeping = Keeping(output)  # looks first whether the file can be written
    folder = folder_for(output)
    command = [sys.executable, "-m", "fluxperf", "run", *options(context, _OF_THE_WHOLE)]
    replicas = _replicated(command, processes, folder)
    merged, problems, notes = merge_all(replicas, processes)
    for note in (replicas.notes, *notes):
        if note:
            say(note, err=True)
    clean = not problems
    if problems:
        problems.append(f"The processes' own records are in {folder}.")
    if replicas.failure:
        problems.insert(0, f"{replicas.failure}\n{kept(merged, output)}")
    try:
        with keeping.until_done():
            keeping.add(merged)
    except RecordError as error:
        for problem in problems:
            error.add_note(problem)
        raise
    finally:
        if clean and len(keeping.records) == len(merged):  # whoever is killed before finds the processes' own records
            shutil.rmtree(folder, ignore_errors=True)
    if not problems and not replicas.stopped:
        return merged
    if merged:
        Console().print(ladder(merged))
    if replicas.stopped:
        for note in (kept(merged, output), *problems):
            replicas.stopped.add_note(note)
        raise replicas.stopped
    raise ProcessError(f"run --processes {processes}: " + "\n".join(problems))


def options(context: typer.Context, without: Container[str]) -> list[str]:
    """Options of a command as they were given, without some."""
    words = []
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words += [option.opts[0]] if value else []
        else:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"{max(option.opts, key=len)}={one}" for one in values]
    return words


def _replicated(command: list[str], processes: int, folder: Path) -> Replicas:
    """Runs the processes, with a progress bar."""
    with Progress("processes", processes) as progress:

        def show(number: int, records: int) -> None:
            progress.show(f"process {number}, {plural(records, 'record')} so far", done=number - 1)

        return replicate(command, processes, folder, show)
