"""A process that has imported everything, and runs a command in a fork of itself for every line of input.

python -m fluxperf.harness.forked MODULE:FUNCTION MODULE..

``FUNCTION`` runs a command, given its words; the modules after it are imported first. A line of standard input is a
JSON object with ``words``, ``folder``, ``log`` and ``environment``. The fork is a process in that folder, with only
that environment, that prints to that file and ends like any Python process. Its exit code, negative for a signal, is
written as a line of standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from fluxperf.lifeline import follow, tie

#: Prefixes of device files of NVIDIA's drivers: for servers and desktops, Jetson, and Windows' subsystem.
_DEVICES = ("/dev/nvidia", "/dev/nvhost", "/dev/nvmap", "/dev/dxg")

Main = Callable[[Sequence[str]], None]


def serve(main: Main) -> None:
    """Runs commands in forks, one after another. Returns when the input ends."""
    while line := sys.stdin.readline():
        asked = json.loads(line)
        child = os.fork()
        if not child:
            run(main, asked["words"], Path(asked["folder"]), Path(asked["log"]), asked["environment"])
            return
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)


def run(main: Main, words: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    """Runs the work of a forked process. The starter sees the end of its output when it ends."""
    tie(os.getppid())
    os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for given, standard in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(given, standard)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for process in (os.getppid(), os.getpid()):
        try:
            devices = devices_of(process)
        except OSError as error:
            _refuse(f"expected to see the open files of process {process}, got: {error}")
        if devices:
            _refuse(f"expected a process without a GPU to fork from, but it has {', '.join(devices)}")
    main(words)


def _refuse(what: str) -> NoReturn:
    raise SystemExit(f"forked: {what}. Measure in processes that are not forked.")


def devices_of(process: int) -> list[str]:
    """Device files of NVIDIA's drivers that a process has open or mapped.

    Raises:
        OSError: they cannot be listed.
    """
    folder = Path("/proc") / str(process)
    found = []
    for entry in (folder / "fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:  # closed in between
            continue
    found += [line.split(maxsplit=5)[-1] for line in (folder / "maps").read_text().splitlines()]
    return sorted({name for name in found if name.startswith(_DEVICES)})


def main_of(name: str) -> Main:
    """A function by its module and name."""
    module, _, function = name.partition(":")
    found: Main = getattr(import_module(module), function)
    return found


if __name__ == "__main__":
    follow()
    for _module in sys.argv[2:]:
        with suppress(ImportError):  # each process that needs it reports this
            import_module(_module)
    serve(main_of(sys.argv[1]))
