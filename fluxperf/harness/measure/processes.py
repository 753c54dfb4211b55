"""Processes: repeats a run in new processes, one after another, because the process is the unit of analysis.

Memory addresses of code and data, algorithm choices of libraries and clocks differ between processes and are constant
within one. So samples of a single process cannot show how much a number would change in another measurement (Kalibera
and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fluxperf.errors import RecordError
from fluxperf.harness.measure.merging import merge
from fluxperf.harness.records import Record, read_records
from fluxperf.lifeline import led, undisturbed
from fluxperf.words import plural

#: Seconds between two checks of the output of a process.
_POLL_S = 0.1

#: Seconds that a process has to end after it was asked to.
_GRACE_S = 10.0

#: Lines of a failed process's messages that are shown.
_MOST_LINES = 12


class Replicas(NamedTuple):
    """Results of the processes: records by process, in order, and the messages of the first one.

    ``failure`` says which process failed and how, with its last messages; empty if none did. ``stopped`` is the
    exception that ended them early, such as Ctrl-C.
    """

    records: list[list[Record]]
    notes: str
    failure: str
    stopped: KeyboardInterrupt | None = None


def folder_for(output: Path | None) -> Path:
    """A new folder for the processes' own records, beside the output, so that they remain after a killed run.

    Args:
        output: file of the merged records; without one the folder is a temporary one.

    Raises:
        RecordError: it cannot be created.
    """
    try:
        if output is None:
            return Path(tempfile.mkdtemp(prefix="fluxperf-processes-"))
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{output.name}.processes-", dir=output.parent))
    except OSError as error:
        raise RecordError(
            f"cannot write records to {output}: {error.strerror}. Expected a file that can be appended to; "
            "choose another with -o."
        ) from error


def replicate(
    command: Sequence[str], processes: int, folder: Path, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Replicas:
    """Runs a command in new processes, one after another, until all are finished, one fails, or Ctrl-C is pressed.

    Args:
        command: the command; ``-o FILE`` is added, to which it appends records.
        processes: number of processes.
        folder: folder of these files, ``process-1.jsonl`` and so on.
        on_progress: called periodically with the number of the process, from 1, and the number of records it has
            written.
    """
    records: list[list[Record]] = []
    notes = ""
    for number in range(1, processes + 1):
        output = folder / f"process-{number}.jsonl"
        try:
            failure, said = _run([*command, "-o", str(output)], output, partial(on_progress, number))
        except KeyboardInterrupt as stopped:
            return Replicas([*records, _finished(output)[0]], notes, "", stopped)
        written, problem = _finished(output)
        records.append(written)
        failure = failure or problem
        if not failure and len(written) != len(records[0]):
            failure = f"wrote {plural(len(written), 'record')}, where process 1 wrote {len(records[0])}"
        notes = said if number == 1 else notes
        if failure:
            head = f"process {number} of {processes} {failure}"
            return Replicas(records, "", f"{head}\n{said}" if said else head)
    return Replicas(records, notes, "")


def run_once(command: Sequence[str], output: Path, root: Path) -> tuple[str, str]:
    """Runs a command in one new process, which ends together with this one.

    Args:
        command: the command.
        output: file that it writes, beside which it may store compiled modules.
        root: additional folder for its modules.

    Returns:
        How it failed, or nothing; and its last messages.
    """
    return _run(command, output, lambda count: None, str(root))


def _run(command: Sequence[str], output: Path, on_count: Callable[[int], None], *roots: str) -> tuple[str, str]:
    """How a process failed, or nothing; and its last messages."""
    with tempfile.TemporaryFile() as messages:
        process = None
        environment = {**_environment(*roots), **compiled_in(output.parent), **led()}
        nothing = subprocess.DEVNULL
        try:
            with undisturbed():  # a signal during the start would leave the process without an owner
                process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=messages, env=environment)
            failure = _failure(_watched(process, output, on_count))
        finally:
            if process is not None:
                _end(process)
        messages.seek(0)
        lines = messages.read().decode(errors="replace").strip().splitlines()
    return failure, "\n".join(lines[-_MOST_LINES:])


def _watched(process: subprocess.Popen[bytes], output: Path, on_count: Callable[[int], None]) -> int:
    """Exit code of a process, negative for a signal. Meanwhile its records are counted."""
    while True:
        try:
            return process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            on_count(_lines(output))


def _failure(code: int) -> str:
    """How a process ended, or nothing if it succeeded."""
    if code == 0:
        return ""
    return f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"


def _environment(*roots: str) -> dict[str, str]:
    """This process's environment and module search path, so that both run the same code."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in (*sys.path, *roots))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def compiled_in(folder: Path) -> dict[str, str]:
    """Environment in which processes share compiled modules in a folder, if Python writes none beside the sources.

    Container images often disable writing them: then every process would compile all its imports, which takes a second.
    """
    if not sys.dont_write_bytecode:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder.absolute() / "bytecode")}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that still runs, and kills it if it does not end. Its written records are on the disk."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _finished(path: Path) -> tuple[list[Record], str]:
    """Records that a process has written, and their problem, such as that there are none."""
    try:
        file = read_records(path)
    except RecordError:
        return [], "wrote no record"
    return file.records, f"wrote what cannot be read: {' '.join(file.problems)}" if file.problems else ""


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def merge_all(replicas: Replicas, processes: int) -> tuple[list[Record], list[str], list[str]]:
    """Merged records of every rung, and sentences about differences.

    Each rung has the processes that finished it, which may be fewer than requested.

    Args:
        replicas: results of the processes.
        processes: number of requested processes.

    Returns:
        The merged records, a problem for each rung that was not merged, and notes about allowed differences of counts.
    """
    merged: list[Record] = []
    problems: list[str] = []
    notes: list[str] = []
    for index in range(max(map(len, replicas.records), default=0)):
        group = [records[index] for records in replicas.records if index < len(records)]
        outcome = merge(group)
        if outcome.record is None:
            rows = "\n  - ".join(outcome.differences)
            problems.append(
                f"rung {group[0].rung}: expected the same exact counts in all {len(group)} processes, but these rows "
                f"differ, so no record of it was made:\n  - {rows}"
            )
            continue
        rung = group[0].rung
        notes += [
            f"rung {rung}: {note} (a library or the memory pool made another choice in another process)"
            for note in outcome.notes
        ]
        if len(group) < processes:
            notes.append(f"rung {rung}: measured by {len(group)} of {processes} processes")
        merged.append(outcome.record)
    return merged, problems, notes
