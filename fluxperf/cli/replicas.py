"""``fluxperf run --processes``: repeats a run in new processes and merges their results into one record per rung."""

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

#: Options of the run as a whole. They are not passed to its processes.
_OF_THE_WHOLE = ("processes", "output")


def measured_in_processes(context: typer.Context, processes: int, output: Path | None) -> list[Record]:
    """Records of a run in new processes, merged by rung and appended to the output.

    Args:
        context: context of the command, whose other options are passed on.
        processes: number of processes, run one after another.
        output: records file, or ``None``.

    Raises:
        ProcessError: a process failed, or the processes disagree about exact counts. Finished results that agree are
            saved and shown before. If they disagree, the records of each process are saved.
        RecordError: the output cannot be written. If this happens after measuring, the message says where the records
            are.
        KeyboardInterrupt: the command was stopped. Finished results are saved, as above.
    """
    keeping = Keeping(output)  # checks first that the file can be written
    folder = folder_for(output)
    command = [sys.executable, "-m", "fluxperf", "run", *options(context, _OF_THE_WHOLE)]
    replicas = _replicated(command, processes, folder)
    merged, problems, notes = merge_all(replicas, processes)
    for note in (replicas.notes, *notes):
        if note:
            say(note, err=True)
    clean = not problems
    if problems:
        problems.append(f"The separate records of the processes are in {folder}.")
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
        if clean and len(keeping.records) == len(merged):  # if saving failed, the records of each process remain
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
    """Options of a command as they were given, except some."""
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
