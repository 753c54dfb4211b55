"""Processes that are forked from one that has imported everything, for what is measured very often.

A forked process has a CUDA context, memory, kernels, plans and weights of its own, as any process has; it only does not
import again, and code and libraries lie where they lie in all others. The process that forks must never have touched a
GPU: a fork of one that has would share its driver's state. That is looked at before each measurement.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from fluxperf.errors import BuildError
from fluxperf.harness.checkouts import PATIENCE_S, last_lines
from fluxperf.harness.gate import Side
from fluxperf.harness.isolation import surroundings
from fluxperf.harness.records import Record, read_records
from fluxperf.lifeline import tie

#: Device files of NVIDIA's drivers begin so: of servers and desktops, of Jetson, of Windows' subsystem.
_DEVICES = ("/dev/nvidia", "/dev/nvhost", "/dev/nvmap", "/dev/dxg")

_GRACE_S = 10.0

Main = Callable[[Sequence[str]], None]


class Forks:
    """Measures a side by a fluxperf command in a process forked from one that has imported it. Both sides are the same.

    Args:
        main: runs a command, given its words; a function of a module, so that another process finds it.
        arguments: the command, ``run`` or ``kernels``, and its options.
        folder: where records are, and the processes' working directory.
        preload: modules that are imported before forking. One that cannot be is imported by each process.
    """

    def __init__(self, main: Main, arguments: Sequence[str], folder: Path, preload: Iterable[str]) -> None:
        self._main, self._arguments, self._folder = main, tuple(arguments), folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._taken = 0

    def measure(self, side: Side) -> list[Record]:
        """Records of one process, one for each rung.

        Raises:
            BuildError: the process failed, or the one that forks has touched a GPU.
            RecordError: it wrote no record, or half of one.
        """
        self._taken += 1
        output, log = (self._folder / f"{side}-{self._taken}.{ending}" for ending in ("jsonl", "txt"))
        words = [*self._arguments, "-o", str(output)]
        told = {**surroundings(), "FLUXPERF_CACHE": str(self._folder / f"cache-{side}")}
        process = self._context.Process(target=_measured, args=(self._main, words, self._folder, log, told))
        try:
            with _surrounded_by(told):  # what the process that forks is started with
                process.start()
            process.join(PATIENCE_S)
            alive = process.is_alive()
        finally:
            _end(process)
        if alive:
            raise BuildError(f"measuring {side}: expected an end within {PATIENCE_S:g} s, there was none.")
        if process.exitcode:
            said = last_lines(log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")
            raise BuildError(
                f"measuring {side}: expected exit code 0, got {process.exitcode}. Correct what it says:\n{said}"
            )
        found = read_records(output)
        if found.problems:
            raise BuildError(f"measuring {side}: {found.problems[0]} Run the gate again.")
        return found.records


def devices_of(process: int) -> list[str]:
    """Device files of NVIDIA's drivers that a process has open, or mapped.

    Raises:
        OSError: that cannot be seen.
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


@contextmanager
def _surrounded_by(environment: Mapping[str, str]) -> Iterator[None]:
    """This process's environment replaced by another one, for what it starts."""
    before = dict(os.environ)
    try:
        _take(environment)
        yield
    finally:
        _take(before)


def _take(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _measured(main: Main, words: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    """What a forked process does, in the environment of any process that measures. What it prints goes to ``log``."""
    _take(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    os.chdir(folder)
    tie(os.getppid())
    for process in (os.getppid(), os.getpid()):
        try:
            devices = devices_of(process)
        except OSError as error:
            _refuse(f"expected to see which files process {process} has open, got: {error}")
        if devices:
            _refuse(f"expected a process without a GPU to fork from, but it has {', '.join(devices)}")
    main(words)


def _refuse(what: str) -> NoReturn:
    raise SystemExit(f"forked: {what}. Measure in processes that are not forked.")


def _end(process: BaseProcess) -> None:
    """Ends a process that still runs, and kills it if it does not."""
    if process.pid is not None and process.is_alive():
        process.terminate()
        process.join(_GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()
