"""Other processes on the GPU during the gate's measurement: names, memory and load, read through NVML.

On a shared GPU cycles include the work of others, so a verdict beside a busy process is unsure. NVML's lists are read
in the process that requests turns, before each turn and after the last. During a turn nothing is read.

Inside of a container the driver may report the host's process numbers. Then names are unknown, but processes that do
not belong to the gate can be counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from fluxperf.harness.forked import devices_of
from fluxperf.harness.gate import Runner, Side
from fluxperf.harness.measure.clocks import nvml
from fluxperf.harness.records import Record
from fluxperf.words import first_few, plural

#: NVML's lists of processes that use a GPU, for any purpose.
_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)


#: All of the time, in percent.
_ALL = 100


class Neighbour(msgspec.Struct):
    """A process that is not the gate's: its name, the number of looks at which it was present, memory, and load.

    ``busy`` is the largest share of the time, in percent, in which it had work on a multiprocessor or used the memory;
    ``None`` if NVML does not report it. ``nbytes`` is its largest memory use, 0 if NVML does not report it.
    """

    name: str
    looks: int = 0
    nbytes: int = 0
    busy: int | None = None

    def in_words(self, number: int, looks: int) -> str:
        """Name and process number, and how much it used the GPU."""
        said = [f"{self.nbytes / 1e9:.1f} GB"] if self.nbytes else []
        if self.busy is not None:
            said.append(f"up to {self.busy} % of the time busy")
        said.append(f"there at {self.looks} of {plural(looks, 'look')}")
        return f"{self.name!r} (process {number}; {', '.join(said)})"


class Neighbours:
    """Other processes on one GPU.

    Args:
        bus_id: PCI bus id of the GPU; ``None`` searches for nothing.
        library: NVML's module; the installed one if not given.
        parents: parent of every process of this machine, by number.
        holders: those of some processes that have a GPU open.
    """

    def __init__(
        self,
        bus_id: str | None,
        library: Any | None = None,
        parents: Callable[[], dict[int, int]] | None = None,
        holders: Callable[[set[int]], set[int]] | None = None,
    ) -> None:
        self._nvml = (library or nvml()) if bus_id is not None else None
        self._parents, self._holders = parents or _parents, holders or _holders
        self._handle: Any = None
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
        self._since_us = time.time_ns() // 1000
        self._seen: dict[int, Neighbour] = {}
        self._looks, self._unnamed = 0, 0

    def look(self) -> None:
        """Records which processes use the GPU now."""
        if self._handle is None:
            return
        self._looks += 1
        listed, parents = self._listed(), self._parents()
        own = {number for number in (*parents, os.getpid()) if _descends(number, parents)}
        busy = self._busy()
        if listed and not own.intersection(listed) and (held := self._holders(own)):
            # This process or one of its children has the GPU open, but none is listed: the numbers are those of another
            # system.
            self._unnamed = max(self._unnamed, len(listed) - len(held))
            return
        for number in listed.keys() - own:
            if number not in parents and not (parents and _there(number)):
                continue  # a process that just ended has no owner
            one = self._seen.setdefault(number, Neighbour(_name(number)))
            one.looks += 1
            one.nbytes = max(one.nbytes, listed[number])
            if busy is not None:
                one.busy = max(one.busy or 0, busy.get(number, 0))

    @property
    def notes(self) -> list[str]:
        """Sentences about other users of the GPU, the busiest first; empty if there are none, or if unknown.

        A process that only holds memory (a desktop, an idle notebook) takes no time from others, and is left out.
        """
        told_of = [item for item in self._seen.items() if item[1].busy != 0]
        order = sorted(told_of, key=lambda item: (-(item[1].busy or 0), -item[1].nbytes, item[0]))
        told = [one.in_words(number, self._looks) for number, one in order]
        notes = []
        if told:
            which = "; ".join(first_few(told, "process", "processes"))
            notes.append(f"the GPU was shared during the measurement, with {which}: measure again without other users")
        if self._unnamed > 0:
            notes.append(
                f"the GPU was shared during the measurement, with {plural(self._unnamed, 'process', 'processes')}; "
                "the driver uses the process numbers of another system (the host of a container), so their names "
                "are unknown here"
            )
        return notes

    def _listed(self) -> dict[int, int]:
        """Bytes that each process holds, by its number."""
        found: dict[int, int] = {}
        for name in _LISTS:
            for process in self._ask(name) or ():
                found[int(process.pid)] = max(found.get(int(process.pid), 0), int(process.usedGpuMemory or 0))
        return found

    def _busy(self) -> dict[int, int] | None:
        """Largest load of each process since the last look, in percent; ``None`` if NVML does not report it."""
        samples = self._ask("nvmlDeviceGetProcessUtilization", self._since_us)
        if samples is None:
            return None
        found: dict[int, int] = {}
        for sample in samples:
            share = max(int(sample.smUtil), int(sample.memUtil))
            if share > _ALL:  # some drivers fill the rest of their answer with invalid samples
                continue
            self._since_us = max(self._since_us, int(sample.timeStamp))
            found[int(sample.pid)] = max(found.get(int(sample.pid), 0), share)
        return found

    def _ask(self, function: str, *args: Any) -> Sequence[Any] | None:
        library = self._nvml
        if library is None or not hasattr(library, function):
            return None
        try:
            found: Sequence[Any] = getattr(library, function)(self._handle, *args)
        except library.NVMLError as error:
            # No sample since then is a valid answer. NVML's module also reports an empty answer as an error.
            empty = [getattr(library, name, None) for name in ("NVML_ERROR_NOT_FOUND", "NVML_SUCCESS")]
            value = getattr(error, "value", None)
            return () if value is not None and value in empty else None
        return found


class Watched:
    """A runner with a check for other users of the GPU before each turn."""

    def __init__(self, runner: Runner, neighbours: Neighbours) -> None:
        self._runner, self._neighbours = runner, neighbours

    def measure(self, side: Side, *planted: int | None) -> Sequence[Record]:
        """Records of a turn, from the runner.

        Raises:
            FluxperfError: errors of the runner.
        """
        self._neighbours.look()
        return self._runner.measure(side, *planted)


def _parents() -> dict[int, int]:
    """Parent of every process, by number; empty if there is no ``/proc``."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            # The name is in brackets, and may contain any characters.
            found[int(entry.parent.name)] = int(entry.read_bytes().rpartition(b")")[2].split()[1])
    return found


def _descends(number: int, parents: dict[int, int]) -> bool:
    """Whether a process is this one or one of its descendants."""
    for _ in range(len(parents) + 1):
        if number == os.getpid():
            return True
        if number not in parents:
            return False
        number = parents[number]
    return False


def _there(number: int) -> bool:
    """Whether a process exists that ``/proc`` hides, as it may hide those of other users (its option hidepid)."""
    if os.name != "posix":  # on other systems signal 0 would be a real one
        return False
    try:
        os.kill(number, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _holders(numbers: set[int]) -> set[int]:
    """Processes that have a GPU open, as far as this can be seen."""
    found = set()
    for number in numbers:
        with suppress(OSError):
            if devices_of(number):
                found.add(number)
    return found


def _name(number: int) -> str:
    """A process's name as the system shows it."""
    try:
        return Path(f"/proc/{number}/comm").read_text(encoding="utf-8", errors="replace").strip() or "?"
    except OSError:
        return "?"
