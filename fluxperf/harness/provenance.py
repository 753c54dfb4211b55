"""Origin of a verdict: what was compared, on which machine, by which rules, and what was not counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fluxperf.harness.records import Record

#: Maximum number of omissions that are named. The notes of the JSON verdict have all.
_MOST = 12


class SideOf(msgspec.Struct, frozen=True, kw_only=True):
    """One side as named by its records."""

    commit: str | None = None
    dirty: bool | None = None
    fluxperf: str = ""
    processes: int = 0

    @property
    def in_words(self) -> str:
        """Commit, whether files were changed, and number of processes."""
        if not self.commit:
            return f"not recorded{f', fluxperf {self.fluxperf}' if self.fluxperf else ''}"
        state = {True: " (with changed files)", False: " (clean)", None: ""}[self.dirty]
        return f"{self.commit}{state}{f', fluxperf {self.fluxperf}' if self.fluxperf else ''}"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of a verdict, included in all of its outputs.

    Digests are SHA-256 of files as they were read, "" if there is none. ``judge`` is the commit from which policy,
    baseline and calibration were read, or "this checkout". ``seed`` is that of the order inside pairs. ``seconds`` is
    the time from the start of the first process to the verdict, if the gate measured, without builds. ``alive`` is the
    number of processes of each side that stayed alive, 0 if each pair had its own.
    """

    base: SideOf = SideOf()
    head: SideOf = SideOf()
    machine: str = ""
    driver: str = ""
    judge: str = "this checkout"
    policy: str = ""
    baseline: str = ""
    calibration: str = ""
    pairs: int = 0
    seed: int | None = None
    seconds: float | None = None
    alive: int = 0
    excluded: list[str] = []

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Name and value of every field, as text, for formats with fixed fields."""
        more = len(self.excluded) - _MOST
        left = [*self.excluded[:_MOST], *([f"{more} more"] if more > 0 else [])]
        turns = f"{self.alive} of each side alive at once, in turns" if self.alive else "a new one for each turn"
        return [
            ("base commit", self.base.in_words),
            ("head commit", self.head.in_words),
            ("machine", self.machine or "none"),
            ("driver", self.driver or "none"),
            ("judged by the rules of", self.judge),
            ("policy digest", self.policy or "none"),
            ("baseline digest", self.baseline or "none"),
            ("calibration digest", self.calibration or "none"),
            ("pairs", f"{self.pairs} with times"),
            ("processes", f"{self.base.processes} of the base, {self.head.processes} of the head; {turns}"),
            ("time of the verdict", "not measured here" if self.seconds is None else f"{self.seconds:.1f} s"),
            ("order", "as in the files" if self.seed is None else f"random, seed {self.seed}"),
            ("excluded", "; ".join(left) or "nothing"),
        ]

    @property
    def told(self) -> list[tuple[str, str]]:
        """The lines that say something about this comparison, for readers.

        Files have neither an order nor a time of the verdict. If only exact values were compared, calibration, pairs
        and processes do not apply either.
        """
        measured = self.seed is not None
        apply = {
            "driver": bool(self.driver),
            "calibration digest": measured or bool(self.pairs or self.calibration),
            "pairs": measured or bool(self.pairs),
            "processes": measured or bool(self.pairs),
            "time of the verdict": self.seconds is not None,
            "order": measured,
        }
        found = {name: value for name, value in self.lines if apply.get(name, True)}
        if not measured and not self.alive and "processes" in found:
            found["processes"] = found["processes"].partition(";")[0]
        return list(found.items())


def digest(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, "" if it cannot be read."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return ""


def side_of(records: Sequence[Record]) -> SideOf:
    """One side of a comparison. Rows report disagreements of its records."""
    if not records:
        return SideOf()
    first = records[0]
    dirty = [record.dirty for record in records]
    processes = {row.process for record in records for row in record.sampling} or {None}
    return SideOf(
        commit=first.commit,
        dirty=True if True in dirty else None if None in dirty else False,
        fluxperf=first.fluxperf,
        processes=len(processes) if None not in processes else len(records),
    )


def compared(base: Sequence[Record], head: Sequence[Record], **more: object) -> Provenance:
    """The provenance of two sides of records; ``more`` are fields that records do not have."""
    first = next(iter([*head, *base]), None)
    machine = (first.machine.gpu or first.machine.cpu) if first else ""
    return Provenance(
        base=side_of(base),
        head=side_of(head),
        machine=machine,
        driver=(first.machine.driver or "") if first else "",
        **more,  # type: ignore[arg-type]
    )
