"""Collecting: a table of measurements, each in its own processes, becomes a folder of evidence of one commit.

The folder contains the finished measurements. A part is not measured again, even if the next command runs on another
machine of the same kind. The results of a process are saved when it ends, so a command can be stopped at any time.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from fluxperf.errors import ConfigError, RecordError
from fluxperf.files import append_line, locked, place, write_whole
from fluxperf.harness.measure.processes import Replicas, merge_all, run_once
from fluxperf.harness.parts import Head, Here, Key, Origin, Part, Step, Took, differing, head_in, key_of, kind_of
from fluxperf.harness.records import Machine, Record, read_records
from fluxperf.words import first_few

#: Paths of records of single processes and latents until a part is complete, and of the seconds of each process.
PROCESSES, SECONDS = "processes", "parts.ndjson"

#: Suffix of a process that differs from the others of its part, and is kept for whoever looks for the reason.
_APART = ".differs"

#: Name of what a running command has a lock on.
_MEASURING = "measuring"


class Collection:
    """A folder of evidence.

    Args:
        folder: path of the folder.
        suite: name of the table; the records are in ``SUITE.jsonl``.
        parts: the table.
        others: other folders of this kind, whose seconds are estimates here.
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
            RecordError: the folder's records cannot be read, or something else lies where its files belong.
        """
        asked = f"evidence {self._suite} -o {self.folder}"
        if here.commit is None:
            raise ConfigError(
                f"{asked}: expected a known commit for the evidence, found no checkout. Name the commit: "
                "FLUXPERF_COMMIT=..."
            )
        for part in self.parts:
            path = self.folder / part.document
            if part.document and path.exists() and self._head(part) is None:
                raise RecordError(
                    f"{asked}: {path} is no document of {part.name}, which would take its place. Move or remove it."
                )
        for what, found in self._origins():
            if differs := differing(found, here):
                raise ConfigError(
                    f"{asked}: {what} has {differs}. Evidence is of one commit and one kind of machine. Name another "
                    "folder, or use the commit and the kind of machine of this one. Remove what does not belong to it."
                )

    @property
    def begun(self) -> bool:
        """Whether the folder is of this suite: it has seconds of its parts."""
        ladder = {part.name for part in self.parts if part.key}
        return any(row.part in ladder for row in _took_in(self.folder))

    @property
    def own(self) -> Here | None:
        """Commit and machine of the folder's first record; ``None`` where there is none.

        Raises:
            RecordError: the folder's records cannot be read.
        """
        first = next((found for _, found in self._origins() if all(one is not None for one in found)), None)
        return Here(first[0], first[1], first[2] or "") if first else None

    def _origins(self) -> Iterator[tuple[str, Origin]]:
        """Paths of evidence, and its commit and machine; ``None`` for unknown ones."""
        beside = [self.folder / part.records for part in self.parts if part.records]
        files = [(path, _records(path)) for path in (self.file, *beside)]
        files += [(path, self._read(path, part)) for part in self.parts if part.key for path in self._pieces(part)]
        for path, records in files:
            for record in records:
                yield str(path), (record.commit, record.dirty, kind_of(record.machine))
        for part in self.parts:
            if (head := self._head(part)) is not None:
                gpu = head.machine.get("gpu")
                yield str(self.folder / part.document), (head.commit, head.dirty, str(gpu) if gpu else None)

    def _head(self, part: Part) -> Head | None:
        """Origin of a part's document; ``None`` if there is no readable one."""
        return head_in(self.folder / part.document)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other commands from measuring into the folder: two at once disturb each other's times.

        Raises:
            RecordError: another one measures into it, or nothing can be written there.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / _MEASURING, patience_s=0))
            except RecordError as error:
                raise RecordError(
                    f"evidence {self._suite} -o {self.folder}: expected to measure alone, as two at once disturb each "
                    f"other's times. {error}"
                ) from error
            yield

    def lacking(self, parts: Iterable[Part]) -> dict[str, list[int]]:
        """Numbers of the processes that are missing, by the names of parts.

        Raises:
            RecordError: the folder's records cannot be read.
        """
        kept = _records(self.file)
        return {part.name: self._lacking(part, kept) for part in parts}

    def _lacking(self, part: Part, kept: Sequence[Record]) -> list[int]:
        if part.key is None:
            there = self._head(part) is not None and (not part.records or (self.folder / part.records).exists())
            return [] if there else [1]
        whole = [one for one in kept if _is_of(one, part) and _as_asked(one, part)]
        if max(map(_processes, whole), default=0) >= part.processes:
            return []
        numbers = [number for number in range(1, part.processes + 1) if not self._piece(part, number).exists()]
        return numbers or [part.processes]  # all are there, but not merged, as `settle` does

    def missing(self, only: Callable[[Part], bool] = lambda part: True) -> list[Step]:
        """Processes to run, by round and in the table's order.

        Args:
            only: selects parts. Of other parts one process is run if its latents are needed and missing.
        """
        lacking = {part.name: list[int]() for part in self.parts}
        lacking |= self.lacking(part for part in self.parts if only(part))
        wanted = {part.needs for part in self.parts if lacking[part.name]} - {""}
        for part in self.parts:
            if part.makes in wanted and not self._latents(part.makes).exists():
                lacking[part.name] = lacking[part.name] or [1]  # other parts need latents that are not in the folder
        steps = [Step(part, number) for part in self.parts for number in lacking[part.name]]
        return sorted(steps, key=lambda step: step.part.rounds[step.number - 1])

    def estimate(self, part: Part, kind: str) -> tuple[float, bool]:
        """Seconds of a process of a part, and whether such a process was measured on this kind of machine.

        The longest measured time counts: the first process on a machine compiles what later ones find.
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
            ConfigError: the process measured another commit.
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
        problem = self._keep(step, out, here)
        if not problem:
            self._note(step, time.monotonic() - began, here)
        return problem

    def _keep(self, step: Step, out: Path, here: Here) -> str:
        """Keeps what a process wrote; returns what is wrong with it.

        Raises:
            ConfigError: it is of another commit than the evidence, as when the checkout changes meanwhile.
        """
        part = step.part
        if part.key is None:
            head = head_in(out)
            self._of_this(step, (head.commit, head.dirty, None) if head else (None, None, None), here)
            for made in sorted(out.parent.glob(f"{out.stem}.*"), key=lambda path: path == out):
                place(made, (self.folder / part.document).with_suffix(made.suffix))
            return ""
        file = read_records(out)
        if file.problems or not any(_is_of(record, part) for record in file.records):
            return " ".join(file.problems) or f"wrote no record of {part.name}"
        for record in file.records:
            self._of_this(step, (record.commit, record.dirty, kind_of(record.machine)), here)
        piece = self._piece(part, step.number)
        write_whole(piece, out.read_bytes())
        if problem := self._merge(part, file.records[0].machine):
            apart = piece.with_suffix(_APART)  # it is not done, but took its time
            place(piece, apart)
            earlier = ", ".join(path.name for path in self._pieces(part))
            advice = f"If it is right and earlier ones are not, remove {earlier}."
            return f"{problem}\nThis process is kept in {apart}. {advice}"
        return ""

    def _of_this(self, step: Step, found: Origin, here: Here) -> None:
        if differs := differing(found, here):
            raise ConfigError(
                f"evidence {self._suite} -o {self.folder}: process {step.number} of {step.part.name} measured "
                f"{differs}. It is not kept, as evidence is of one commit: leave the checkout as it is while this runs."
            )

    def settle(self) -> None:
        """Merges processes that were kept, but not merged, since the command was killed in between.

        Raises:
            RecordError: they cannot be read, or do not fit together.
        """
        for part in (part for part in self.parts if part.key):
            pieces = self._pieces(part)
            kept = max((_processes(record) for record in _records(self.file) if _is_of(record, part)), default=0)
            machines = [self._read(path, part)[0].machine for path in pieces]
            problem = self._merge(part, max(machines, key=machines.count)) if kept < len(machines) else ""
            if problem:
                raise RecordError(f"{problem}\nRemove {', '.join(map(str, pieces))} to measure {part.name} anew.")

    def _merge(self, part: Part, machine: Machine) -> str:
        """Replaces the merged record of a part's earlier processes by one that includes the new process."""
        pieces = self._pieces(part)
        records = [self._read(path, part) for path in pieces]
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
        # Parts that another machine started are started again here: a record is of one machine.
        for path in others if len(rows) < part.processes else pieces:
            path.unlink()
        return ""

    def _pieces(self, part: Part) -> list[Path]:
        """Files of a part's processes."""
        paths = [self._piece(part, number) for number in range(1, part.processes + 1)]
        return [path for path in paths if path.exists()]

    def _read(self, path: Path, part: Part) -> list[Record]:
        """Records of one process of a part.

        Raises:
            RecordError: it is damaged, or of something else.
        """
        try:
            file = read_records(path)
        except RecordError:
            file = None
        if file is None or file.problems or not any(_is_of(record, part) for record in file.records):
            raise RecordError(
                f"{path}: expected what a process of {part.name} measured, found something else. Remove it, and the "
                "process is measured again."
            )
        return file.records

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
        here: current commit and machine.
        steps: processes, in order.
        budget_s: seconds; a process that would take longer than the remaining time is skipped, later shorter ones still
            run.
        take: runs one, and returns its problem.
        now: seconds of the host's clock.

    Yields:
        Each step; its seconds, ``None`` if it was not started; and its problem, or why it was not started.
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
        RecordError: it is damaged, or no file.
    """
    if path.exists() and not path.is_file():
        raise RecordError(f"{path}: expected a file of records, found something else. Move or remove it.")
    if not path.exists() or not path.stat().st_size:
        return []
    file = read_records(path)
    if file.problems:
        said = " ".join(first_few(file.problems, "damaged line"))
        raise RecordError(f"{said} Evidence is not added to a damaged file. Remove the damaged lines from it.")
    return file.records


def _is_of(record: Record, part: Part) -> bool:
    return record.implementation == "fluxperf" and _key(record) == part.key


def _as_asked(record: Record, part: Part) -> bool:
    """Whether a record has the witness and the error that its part asks for."""
    asked = (("--witness" in part.words, record.witness), (part.needs, record.error))
    return all(found is not None for wanted, found in asked if wanted)


def _key(record: Record) -> Key:
    return key_of(record.workload, record.rung, record.settings)


def _same(one: Record, other: Record) -> bool:
    return (one.implementation, _key(one)) == (other.implementation, _key(other))


def _processes(record: Record) -> int:
    return sum(bool(samples) for samples in record.times_s.get("denoise", ()))


def _took_in(folder: Path) -> list[Took]:
    """Seconds of processes, as stored in a folder. Unreadable lines are skipped."""
    path = folder / SECONDS
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            rows.append(msgspec.json.decode(line, type=Took))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return rows
