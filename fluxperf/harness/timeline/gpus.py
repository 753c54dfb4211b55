"""Maps each process's GPU numbers to GPUs of the machine: two processes may both use a GPU 0 that is not the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fluxperf.harness.timeline.model import process_id
from fluxperf.words import plural


class Gpus(NamedTuple):
    """The GPU number in the timeline for each process and its own number, with names and a note about gaps."""

    numbers: dict[tuple[int, int], int]
    names: dict[int, str]
    notes: list[str]


class Device(NamedTuple):
    """A device of a process: the GPU of the machine, and an id that distinguishes instances of one GPU (MIG)."""

    gpu: int
    id: str = ""


#: No machine has as many GPUs: a number beyond is none.
_MOST = 1 << 16


class _Key(NamedTuple):
    """A GPU, ordered by number. GPUs without a mapping, which belong to one process each, come last."""

    alone: bool
    machine: int
    device: int
    process: int = 0
    instance: str = ""


def gpus_of(
    used: Iterable[tuple[int, int]],
    known: Mapping[tuple[int, int], Device],
    names: Mapping[tuple[int, int], str],
) -> Gpus:
    """Numbers the GPUs of a capture.

    Without a mapping in the capture, a GPU number is taken as the number on the machine if only one process of the
    machine uses GPUs. With several processes each gets its own GPUs, since nothing shows that they are the same. A GPU
    that is known by several ids is divided, and each of its instances is a GPU here.

    Args:
        used: processes with the number that each gives a GPU.
        known: devices by pid and CUDA's number.
        names: by machine and GPU; machine -1 stands for any.
    """
    pairs = sorted(set(used))
    processes = {process for process, _ in pairs}
    machines = {process >> 48 for process in processes}
    several = {machine for machine in machines if sum(process >> 48 == machine for process in processes) > 1}
    ids: dict[int, set[str]] = {}
    for one in known.values():
        ids.setdefault(one.gpu, set()).add(one.id)
    found: dict[_Key, list[tuple[int, int]]] = {}
    for process, device in pairs:
        machine, own = process >> 48, known.get((process_id(process), device))
        if own is not None:
            key = _Key(False, machine, own.gpu, instance=own.id if len(ids[own.gpu]) > 1 else "")
        elif machine in several:
            key = _Key(True, machine, device, process)
        else:
            key = _Key(False, machine, device)
        found.setdefault(key, []).append((process, device))
    numbers: dict[tuple[int, int], int] = {}
    called: dict[int, str] = {}
    for key in sorted(found):
        number = key.device
        while number in called or not 0 <= number < _MOST:
            number = max(called, default=-1) + 1
        numbers |= dict.fromkeys(found[key], number)
        called[number] = _name(key, names, len(machines) > 1)
    apart = [key for key in found if key.alone]
    notes = []
    if apart:
        notes.append(
            "The capture does not map the GPU numbers of processes to GPUs of the machine. "
            f"{plural(len(apart), 'GPU')} of {plural(len({key.process for key in apart}), 'process', 'processes')} "
            "are shown separately, although some may be the same GPU."
        )
    return Gpus(numbers, called, notes)


def _name(key: _Key, names: Mapping[tuple[int, int], str], several_machines: bool) -> str:
    name = names.get((key.machine, key.device)) or names.get((-1, key.device), "")
    if key.alone:
        of = f"GPU {key.device} of process {process_id(key.process)}"
        return f"{of}, perhaps {name}" if name else of
    parts = [name, f"of machine {key.machine}" if several_machines else "", f"({key.instance})" if key.instance else ""]
    return " ".join(part for part in parts if part)
