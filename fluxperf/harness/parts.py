"""Parts of a suite: what each measures, of which commit and machine a result is, and how long a process took."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from fluxperf.harness.records import Machine, WorkloadRow

#: Fields of a workload that define the computation; its name does not.
SIZES = ("model", "height", "width", "text_tokens", "steps", "batch")

#: Settings that distinguish parts; others are the same in all of them.
_SETTINGS = ("in_turns_with", "memory_gb", "rest_s")


#: Commit, whether files were changed, and kind of machine, as evidence says; ``None`` for what it does not say.
Origin: TypeAlias = tuple[str | None, bool | None, str | None]


class Key(NamedTuple):
    """Identity of the record of a part: sizes of its workload, its rung, and how it was run."""

    sizes: tuple[str | int, ...]
    rung: str
    settings: tuple[tuple[str, str], ...]


def key_of(workload: WorkloadRow, rung: str, settings: dict[str, str]) -> Key:
    """The key of a rung of a workload, run with some settings."""
    told = tuple((name, settings[name]) for name in _SETTINGS if name in settings)
    return Key(tuple(getattr(workload, field) for field in SIZES), rung, told)


class Part(NamedTuple):
    """One measurement of the table.

    Args:
        name: unique name, used for files.
        words: the command after ``python -m``; ``{out}`` is replaced by the file that it writes, ``{scratch}`` by a
            temporary folder.
        rounds: for each process the round in which it runs; processes of a round run in the table's order.
        seconds: estimate for one process, used until one was measured.
        key: of the record that it makes; ``None`` if it writes a document.
        document: name of the JSON file that it writes.
        records: name of the records that it writes beside the document.
        makes: name of a file of latents that each process writes.
        needs: name of a file of latents that it reads.
    """

    name: str
    words: tuple[str, ...]
    rounds: tuple[int, ...]
    seconds: float
    key: Key | None = None
    document: str = ""
    records: str = ""
    makes: str = ""
    needs: str = ""

    @property
    def processes(self) -> int:
        """Number of processes."""
        return len(self.rounds)


class Here(NamedTuple):
    """The code and the machine: commit, whether files were changed, and the kind of machine."""

    commit: str | None
    dirty: bool | None
    kind: str


class Step(NamedTuple):
    """One process of a part, numbered from 1."""

    part: Part
    number: int


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a process of a part, from its start to its end, on a kind of machine."""

    part: str
    process: int
    seconds: float
    kind: str
    commit: str | None
    created_utc: str


class Head(msgspec.Struct, frozen=True):
    """Fields about the origin of a document."""

    machine: dict[str, str | int | None]
    commit: str | None = None
    dirty: bool | None = None


def kind_of(machine: Machine) -> str:
    """The kind of machine: its GPU, or its CPU for host twins."""
    return machine.gpu or f"{machine.cpu}, {machine.cores} cores"


def differing(found: Origin, here: Here) -> str:
    """In words, what evidence is of instead of this code and machine; "" where it is of them, or does not say."""
    names = ("commit", "", "machine")
    trees = {True: "changes that are not committed", False: "no changes that are not committed"}
    return ", ".join(
        f"{name} {there} instead of {this}" if name else trees[bool(there)]
        for name, there, this in zip(names, found, here, strict=True)
        if there is not None and there != this
    )


def head_in(path: Path) -> Head | None:
    """Origin of a document, ``None`` where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
