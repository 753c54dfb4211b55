"""Which GPU of the machine a process means by a number: two processes may both see a GPU 0 that is not the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fluxperf.harness.timeline.model import process_id
from fluxperf.words import plural


class Gpus(NamedTuple):
    """For each process and its number of a GPU the number in the timeline, names of those, and what is not known."""

    numbers: dict[tuple[int, int], int]
    names: dict[int, str]
    notes: list[str]


def gpus_of(
    used: Iterable[tuple[int, int]], known: dict[tuple[int, int], int], names: dict[tuple[int, int], str]
) -> Gpus:
    """Numbers the GPUs of a capture.

    What the capture does not map is the GPU of that number where one process of a machine uses GPUs; of several
    processes each has GPUs of its own then, since nothing says that they are the same.

    Args:
        used: processes with the number that each gives a GPU.
        known: GPU of the machine by pid and CUDA's number.
        names: by machine and GPU; machine -1 stands for any.
    """
    devices = sorted(set(used))
    processes = {process for process, _ in devices}
    machines = {process >> 48 for process in processes}
    several = {machine for machine in machines if sum(process >> 48 == machine for process in processes) > 1}
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for process, device in devices:
        machine, gpu = process >> 48, known.get((process_id(process), device))
        alone = gpu is None and machine in several
        key: tuple[int, ...] = (machine, device, process) if alone else (machine, device if gpu is None else gpu)
        found.setdefault(key, []).append((process, device))
    numbers: dict[tuple[int, int], int] = {}
    called: dict[int, str] = {}
    taken: set[int] = set()
    for key in sorted(found, key=lambda key: (len(key), key)):
        number = key[1]
        while number in taken:
            number = max(taken) + 1
        taken.add(number)
        numbers |= dict.fromkeys(found[key], number)
        name = names.get((key[0], key[1])) or names.get((-1, key[1]), "")
        if len(key) == 3:
            of = f"GPU {key[1]} of process {process_id(key[2])}"
            name = f"{of}, perhaps {name}" if name else of
        elif len(machines) > 1:
            name = f"{name} of machine {key[0]}".strip()
        called[number] = name
    apart = [key for key in found if len(key) == 3]
    notes = []
    if apart:
        notes.append(
            "The capture does not say which GPU of the machine a process means by its number. "
            f"{plural(len(apart), 'GPU')} of {plural(len({key[2] for key in apart}), 'process', 'processes')} are kept "
            "apart, though some of them may be the same GPU."
        )
    return Gpus(numbers, called, notes)
