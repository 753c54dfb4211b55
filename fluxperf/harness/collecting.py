"""Collecting: a table of measurements, each in processes of its own, becomes a folder of evidence of one commit.

What lies in the folder is what is done: a part is not measured again, on whatever machine of the kind the next command
runs. A process that ends is kept at once, so a command may be stopped at any moment.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxperf.errors import ConfigError, RecordError
from fluxperf.files import append_line, locked, place, write_whole
from fluxperf.harness.measure.processes import Replicas, merge_all, run_once
from fluxperf.harness.records import Machine, Record, WorkloadRow, read_records
from fluxperf.words import first_few

#: Where records of single processes and latents lie until a part is done, and what each process took.
PROCESSES, SECONDS = "processes", "parts.ndjson"

#: Fields of a workload that say what is computed; its name does not.
_SIZES = ("model", "height", "width", "text_tokens", "steps", "batch")

#: Settings that tell parts apart; others are the same in all of them.
_SETTINGS = ("in_turns_with", "memory_gb", "rest_s")


class Key(NamedTuple):
    """Identity of the record of a part: sizes of its workload, its rung, and how it was run."""

    sizes: tuple[str | int, ...]
    rung: str
    settings: tuple[tuple[str, str], ...]


def key_of(workload: WorkloadRow, rung: str, settings: dict[str, str]) -> Key:
    """The key of a rung of a workload, run with some settings."""
    told = tuple((name, settings[name]) for name in _SETTINGS if name in settings)
    return Key(tuple(getattr(workload, field) for field in _SIZES), rung, told)


class Part(NamedTuple):
    """One measurement of the table.

    Args:
        name: of its own, which names files.
        words: the command behind ``python -m``; ``{out}`` stands for the file that it writes, ``{scratch}`` for a
            folder that is gone afterwards.
        rounds: for each process the round in which its turn comes; processes of a round follow in the table's order.
        seconds: of one process, where nobody has measured it.
        key: of the record that it makes; ``None`` where it writes a document.
        document: name of the JSON file that it writes.
        makes: name of a file of latents that each process writes.
        needs: name of one that it reads.
    """

    name: str
    words: tuple[str, ...]
    rounds: tuple[int, ...]
    seconds: float
    key: Key | None = None
    document: str = ""
    makes: str = ""
    needs: str = ""

    @property
    def processes(self) -> int:
        """How many it has."""
        return len(self.rounds)


class Here(NamedTuple):
    """The code and the machine: commit, whether files were changed, and the kind of machine."""

    commit: str | None
    dirty: bool | None
    kind: str


class Step(NamedTuple):
    """One process of a part, from 1."""

    part: Part
    number: int


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a process of a part took, from its start to its end, on a kind of machine."""

    part: str
    process: int
    seconds: float
    kind: str
    commit: str | None
    created_utc: str


class _Head(msgspec.Struct, frozen=True):
    """Fields about the origin of a document."""

    machine: dict[str, str | int | None]
    commit: str | None = None


def kind_of(machine: Machine) -> str:
    """The kind of machine: its GPU, or its CPU for host twins."""
    return machine.gpu or f"{machine.cpu}, {machine.cores} cores"


class Collection:
    """A folder of evidence.

    Args:
        folder: where it lies.
        suite: name of the table; the records are in ``SUITE.jsonl``.
        parts: the table.
        others: other folders of the kind, whose seconds are estimates here.
    """

    def __init__(self, folder: Path, suite: str, parts: Sequence[Part], others: Iterable[Path] = ()) -> None:
        self.folder, self.parts = folder, parts
        self.file = folder / f"{suite}.jsonl"
        self._suite = suite
        self._took = [*_took_in(folder), *(row for other in others for row in _took_in(other))]

    def check(self, here: Here) -> None:
        """Refuses to mix.

        Raises:
            ConfigError: nobody knows the commit, or the folder has evidence of another one or of another kind of card.
            RecordError: the folder's records cannot be read.
        """
        asked = f"evidence {self._suite} -o {self.folder}"
        if here.commit is None:
            raise ConfigError(
                f"{asked}: expected a commit that the evidence is of, found no checkout. Name it: FLUXPERF_COMMIT=..."
            )
        for what, found in self._origins():
            differs = [
                f"{name} {there} instead of {this}"
                for name, there, this in zip(("commit", "changed files", "machine"), found, here, strict=True)
                if there is not None and there != this
            ]
            if differs:
                raise ConfigError(
                    f"{asked}: {what} has {', '.join(differs)}. Evidence is of one commit and one kind of machine: "
                    "name another folder, or go on where this one was begun."
                )

    @property
    def kind(self) -> str:
        """The kind of machine that the folder's evidence is of; "" where it has none.

        Raises:
            RecordError: the folder's records cannot be read.
        """
        return next((kind for _, (_, _, kind) in self._origins() if kind), "")

    def _origins(self) -> Iterator[tuple[str, tuple[str | None, bool | None, str | None]]]:
        """Where evidence lies, and what it is of; ``None`` for what it does not say."""
        files = [self.file, *sorted((self.folder / PROCESSES).glob("*.process"))]
        for path in files:
            for record in _records(path):
                yield str(path), (record.commit, record.dirty, kind_of(record.machine))
        for part in self.parts:
            if (head := self._head(part)) is not None:
                gpu = head.machine.get("gpu")
                yield str(self.folder / part.document), (head.commit, None, str(gpu) if gpu else None)

    def _head(self, part: Part) -> _Head | None:
        """Origin of a part's document, ``None`` where there is none that can be read."""
        try:
            return msgspec.json.decode((self.folder / part.document).read_bytes(), type=_Head)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def lacking(self, part: Part) -> list[int]:
        """Numbers of a part's processes that are not kept."""
        if part.key is None:
            return [] if self._head(part) is not None else [1]
        kept = max((_processes(record) for record in _records(self.file) if _is_of(record, part)), default=0)
        if kept >= part.processes:
            return []
        return [number for number in range(1, part.processes + 1) if not self._piece(part, number).exists()]

    def missing(self, only: Callable[[Part], bool] = lambda part: True) -> list[Step]:
        """Processes that are to be run, by round and in the table's order.

        Args:
            only: which parts; of others there is one process, if its latents are needed and not there.
        """
        lacking = {part.name: self.lacking(part) if only(part) else [] for part in self.parts}
        wanted = {part.needs for part in self.parts if lacking[part.name]} - {""}
        for part in self.parts:
            if part.makes in wanted and not self._latents(part.makes).exists():
                lacking[part.name] = lacking[part.name] or [1]  # others need latents that did not come with the folder
        steps = [Step(part, number) for part in self.parts for number in lacking[part.name]]
        return sorted(steps, key=lambda step: step.part.rounds[step.number - 1])

    def estimate(self, part: Part, kind: str) -> tuple[float, bool]:
        """Seconds of a process of a part, and whether such a process was measured on this kind of machine.

        The longest that was measured stands: the first process of a machine compiles what others find.
        """
        known = [row.seconds for row in self._took if row.part == part.name and row.kind == kind]
        return (max(known), True) if known else (part.seconds, False)

    def take(self, step: Step, here: Here, scratch: Path, root: Path) -> str:
        """Runs one process of a part and keeps what it measured.

        Args:
            step: which.
            here: where this is.
            scratch: folder for what the process writes, which the caller removes.
            root: folder that the program's modules are in.

        Returns:
            What went wrong, with the end of the process's messages; nothing if all went well.

        Raises:
            RecordError: the folder cannot be written to.
        """
        part, out = step.part, scratch / f"{step.part.name}-{step.number}.json"
        out.unlink(missing_ok=True)
        words = [word.format(out=out, scratch=scratch) for word in part.words]
        if part.needs:
            words.append(f"--reference={self._latents(part.needs)}")
        if part.makes:
            words.append(f"--reference-to={self._latents(part.makes)}")
        began = time.monotonic()
        failure, said = run_once([sys.executable, "-m", *words], out, root)
        if failure:
            return f"{failure}\n{said}" if said else failure
        if not out.exists():
            return f"wrote no {out.name}"
        problem = self._keep(step, out)
        if not problem:
            self._note(step, time.monotonic() - began, here)
        return problem

    def _keep(self, step: Step, out: Path) -> str:
        """Keeps what a process wrote; returns what is wrong with it."""
        part = step.part
        if part.key is None:
            for made in sorted(out.parent.glob(f"{out.stem}.*"), key=lambda path: path == out):
                place(made, (self.folder / part.document).with_suffix(made.suffix))
            return ""
        file = read_records(out)
        if file.problems or not any(_is_of(record, part) for record in file.records):
            return " ".join(file.problems) or f"wrote no record of {part.name}"
        write_whole(self._piece(part, step.number), out.read_bytes())
        return self._merge(part, file.records[0].machine)

    def _merge(self, part: Part, machine: Machine) -> str:
        """Puts the merged records of a part's processes in the place of those of fewer of them."""
        pieces = self._pieces(part)
        records = [_records(path) for path in pieces]
        others = [path for path, rows in zip(pieces, records, strict=True) if rows[0].machine != machine]
        rows = [one for one in records if one[0].machine == machine]
        merged, problems, _ = merge_all(Replicas(rows, "", ""), len(rows))
        if problems:
            return "\n".join(problems)
        with locked(self.file):
            kept = _records(self.file)
            more = [one for one in merged if not any(_same(one, old) and _processes(old) > len(rows) for old in kept)]
            kept = [old for old in kept if not any(_same(one, old) for one in more)]
            write_whole(self.file, b"".join(msgspec.json.encode(one) + b"\n" for one in [*kept, *more]))
        # What another machine of the kind had begun is begun anew here: a record is of one machine.
        for path in others if len(rows) < part.processes else pieces:
            path.unlink()
        return ""

    def _pieces(self, part: Part) -> list[Path]:
        """Files of a part's processes."""
        paths = [self._piece(part, number) for number in range(1, part.processes + 1)]
        return [path for path in paths if path.exists()]

    def _piece(self, part: Part, number: int) -> Path:
        return self.folder / PROCESSES / f"{part.name}-{number}.process"

    def _latents(self, name: str) -> Path:
        return self.folder / PROCESSES / name

    def _note(self, step: Step, seconds: float, here: Here) -> None:
        row = Took(
            part=step.part.name,
            process=step.number,
            seconds=round(seconds, 2),
            kind=here.kind,
            commit=here.commit,
            created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        self._took.append(row)
        append_line(self.folder / SECONDS, msgspec.json.encode(row) + b"\n")


def collected(
    collection: Collection,
    here: Here,
    steps: Sequence[Step],
    budget_s: float | None,
    take: Callable[[Step], str],
    now: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Step, float | None, str]]:
    """Runs processes one after another.

    Args:
        collection: of the folder.
        here: where this is.
        steps: which, in their order.
        budget_s: seconds; a process that would not fit into what is left is not begun, shorter ones that follow are.
        take: runs one, and returns what went wrong.
        now: seconds of the host's clock.

    Yields:
        Each step; seconds that it took, ``None`` if it was not begun; and what went wrong, or why it was not begun.
    """
    began, failed = now(), set[str]()
    for step in steps:
        name = step.part.name
        if name in failed:
            yield step, None, "a process of this part failed before"
            continue
        left = None if budget_s is None else budget_s - (now() - began)
        seconds, _ = collection.estimate(step.part, here.kind)
        if left is not None and seconds > left:
            yield step, None, f"needs about {seconds:.0f} s, {max(left, 0):.0f} s are left"
            continue
        start = now()
        problem = take(step)
        if problem:
            failed.add(name)
        yield step, now() - start, problem


def _records(path: Path) -> list[Record]:
    """Records of a file, none if it is not there.

    Raises:
        RecordError: it is damaged.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    file = read_records(path)
    if file.problems:
        said = " ".join(first_few(file.problems, "damaged line"))
        raise RecordError(f"{said} Evidence is not added to a damaged file: mend or remove it.")
    return file.records


def _is_of(record: Record, part: Part) -> bool:
    return record.implementation == "fluxperf" and _key(record) == part.key


def _key(record: Record) -> Key:
    return key_of(record.workload, record.rung, record.settings)


def _same(one: Record, other: Record) -> bool:
    return (one.implementation, _key(one)) == (other.implementation, _key(other))


def _processes(record: Record) -> int:
    return len(record.times_s.get("denoise", ()))


def _took_in(folder: Path) -> list[Took]:
    """Seconds that processes took, as a folder says; lines that cannot be read are skipped."""
    path = folder / SECONDS
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            rows.append(msgspec.json.decode(line, type=Took))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return rows
