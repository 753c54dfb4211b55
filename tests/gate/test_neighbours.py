"""Other processes on the card: which of them the verdict names, and which not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from fluxperf.harness import neighbours
from fluxperf.harness.gate import Side
from fluxperf.harness.neighbours import Neighbours, Watched
from tests.pure.test_clocks import BUS

OWN = os.getpid()
WORKER, COPIES, DESKTOP, GONE = 900_001, 900_002, 900_003, 900_004


class Nvml:
    """Lists of the processes of one GPU."""

    NVML_ERROR_NOT_FOUND, NVML_SUCCESS = 6, 0

    class NVMLError(Exception):
        def __init__(self, value: int = 3) -> None:
            super().__init__(value)
            self.value = value

    def __init__(self, compute: dict[int, int | None], utilization: Any = ()) -> None:
        self.compute, self.utilization, self.since = compute, utilization, list[int]()

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> str:
        if bus != BUS:
            raise self.NVMLError
        return bus

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=nbytes) for pid, nbytes in self.compute.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        raise self.NVMLError

    def nvmlDeviceGetProcessUtilization(self, handle: str, since: int) -> list[Any]:
        self.since.append(since)
        if isinstance(self.utilization, Exception):
            raise self.utilization
        return [
            SimpleNamespace(pid=pid, timeStamp=since + 1000, smUtil=share, memUtil=memory)
            for pid, share, memory in self.utilization
        ]


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_name", {COPIES: "copies", DESKTOP: "Xorg"}.__getitem__)


def looked(nvml: Nvml, looks: int = 2, others: Iterable[int] = (COPIES, DESKTOP), held: int = 1) -> list[str]:
    parents = {OWN: 1, WORKER: OWN, **dict.fromkeys(others, 1)}
    found = Neighbours(BUS, nvml, lambda: parents, lambda own: set(sorted(own)[:held]))
    for _ in range(looks):
        found.look()
    return found.notes


def test_a_neighbour_is_named_with_what_it_holds_and_does() -> None:
    nvml = Nvml({OWN: 10**9, WORKER: 2 * 10**9, COPIES: 12_300_000_000}, [(COPIES, 20, 87), (WORKER, 99, 50)])
    (note,) = looked(nvml, looks=3)
    assert "'copies' (process 900002; 12.3 GB, up to 87 % of the time busy, there at 3 of 3 looks)" in note
    assert str(WORKER) not in note
    assert nvml.since[1:] == [nvml.since[0] + 1000, nvml.since[0] + 2000], "each sample is asked for once"


def test_the_busiest_look_and_the_most_memory_count() -> None:
    nvml = Nvml({OWN: 1, COPIES: 3 * 10**9}, [(COPIES, 70, 0)])
    found = Neighbours(BUS, nvml, lambda: {OWN: 1, COPIES: 1}, lambda own: own)
    found.look()
    nvml.compute, nvml.utilization = {OWN: 1, COPIES: 10**9}, [(COPIES, 5, 0)]
    found.look()
    (note,) = found.notes
    assert "3.0 GB, up to 70 % of the time busy" in note


def test_those_of_the_gate_itself_one_that_has_ended_and_a_resting_one_are_nobody() -> None:
    assert looked(Nvml({OWN: None, WORKER: None, GONE: 10**9}, [(WORKER, 99, 9), (GONE, 99, 9)])) == []
    assert looked(Nvml({OWN: None, DESKTOP: 10**8}, [(COPIES, 50, 0)])) == [], (
        "busy is another one, which holds nothing"
    )
    assert looked(Nvml({OWN: None, DESKTOP: 10**8}, Nvml.NVMLError(Nvml.NVML_ERROR_NOT_FOUND))) == []


def test_where_nobody_tells_how_busy_one_is_it_is_named_all_the_same() -> None:
    (note,) = looked(Nvml({OWN: None, COPIES: None}, Nvml.NVMLError()), looks=1)
    assert "'copies' (process 900002; there at 1 of 1 look)" in note


def test_numbers_of_another_system_are_counted_and_name_nobody() -> None:
    # As in a container: 41 to 43 are the host's ids of the gate, its worker and a neighbour. 900002 is also visible
    # here.
    nvml = Nvml({41: 10**9, 42: 10**9, COPIES: 10**9}, [(COPIES, 99, 9)])
    (note,) = looked(nvml, held=2)
    assert "with 1 process; the driver uses the process numbers of another system" in note
    assert "copies" not in note
    assert looked(Nvml({41: 10**9, 42: 10**9}), held=2) == []
    assert looked(Nvml({}), held=2) == [], "a driver that lists nobody"


def test_a_process_that_proc_hides_is_there_and_one_that_has_ended_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with hidepid: another user's process is no folder of /proc, and no signal may be sent to it."""
    hidden = 900_005
    asked: list[int] = []

    def kill(number: int, signal: int) -> None:
        asked.append(signal)
        raise PermissionError if number == hidden else ProcessLookupError

    monkeypatch.setattr(neighbours, "_name", {hidden: "?"}.__getitem__)
    monkeypatch.setattr(os, "kill", kill)
    (note,) = looked(Nvml({OWN: 1, hidden: 2 * 10**9, GONE: 1}, [(hidden, 80, 0)]), others=())
    assert "'?' (process 900005; 2.0 GB, up to 80 % of the time busy" in note
    assert set(asked) == {0}
    monkeypatch.setattr(neighbours, "os", SimpleNamespace(name="nt", getpid=os.getpid, kill=kill))
    assert looked(Nvml({OWN: 1, hidden: 1}), others=()) == [], "where signal 0 is one, nobody is asked"


def test_what_is_no_sample_of_work_is_left_out() -> None:
    # NVML's module cuts its answer from memory that the driver need not have filled.
    nvml = Nvml({OWN: None, DESKTOP: 10**8}, [(DESKTOP, 2**32 - 1, 7)])
    assert looked(nvml) == []
    assert nvml.since[0] == nvml.since[1], "nor is its time one"
    assert looked(Nvml({OWN: None, DESKTOP: 10**8}, Nvml.NVMLError(Nvml.NVML_SUCCESS))) == [], "no sample, said oddly"


@pytest.mark.parametrize(("value", "named"), [(3, True), (4, True), (6, False)])
def test_every_refusal_of_nvml_is_an_answer(value: int, named: bool) -> None:
    """Not supported (as on a part of a GPU, MIG), no permission, nothing found."""
    assert bool(looked(Nvml({OWN: None, COPIES: None}, Nvml.NVMLError(value)))) == named

    class Silent(Nvml):
        def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
            raise self.NVMLError(value)

    assert looked(Silent({COPIES: 1}, [(COPIES, 99, 9)])) == [], "a driver that lists nobody names nobody"


@pytest.mark.parametrize(("bus", "library"), [(None, Nvml({COPIES: 1})), ("other", Nvml({COPIES: 1}))])
def test_without_a_gpu_nobody_is_looked_for(bus: str | None, library: Nvml) -> None:
    found = Neighbours(bus, library)
    found.look()
    assert (found.notes, library.since) == ([], [])


def test_every_turn_comes_behind_a_look() -> None:
    said: list[Any] = []

    class Runner:
        def measure(self, side: Side, planted: int | None = None) -> list[Any]:
            said.append((side, planted))
            return [planted]

    neighbours_now: Any = SimpleNamespace(look=lambda: said.append("look"))
    watched = Watched(Runner(), neighbours_now)
    assert (watched.measure("base"), watched.measure("head", 7)) == ([None], [7])
    assert said == ["look", ("base", None), "look", ("head", 7)]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_what_this_process_starts_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    command = [sys.executable, "-ISc", "import subprocess, sys; subprocess.run([sys.executable, '-ISc', 'input()'])"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        while not (started := [child for child, parent in neighbours._parents().items() if parent == process.pid]):
            assert process.poll() is None
        parents = neighbours._parents()
        assert neighbours._descends(started[0], parents)
        assert not neighbours._descends(parents[OWN], parents)
        assert neighbours._name(process.pid).startswith("python")
        process.communicate(b"\n")
    assert neighbours._name(2**30) == "?"
