"""Documents beside records: ops of a profiled step, errors beside a peer's, pictures beside a peer's.

`python -m benchmarks.quality`, `python -m benchmarks.end_to_end` and `fluxperf profile --per-op` write them. They are
searched in the folders of a report's records, and shown if they are of a machine of the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from fluxperf.harness.facts.per_op import PerOp
from fluxperf.harness.records import LoadRow

T = TypeVar("T")


class QualityRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `benchmarks.quality`: figures by seed and step, or ``None`` with the ``reason`` if it did not run."""

    name: str
    group: str
    precision: str
    figures: dict[str, list[list[float] | float]] | None
    reason: str | None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of rungs and of a peer on the same weights, against ``reference``."""

    commit: str | None
    machine: dict[str, str | int | None]
    workload: dict[str, str | int]
    reference: str
    rows: list[QualityRow]


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures of a peer in turns with ours, in seconds; and stages of a few more of the peer alone."""

    name: str
    form: str
    picture_s: list[float]
    fluxperf_picture_s: list[float]
    stages_s: dict[str, list[float]] = {}


class PictureRung(msgspec.Struct, frozen=True, kw_only=True):
    """A rung of `benchmarks.end_to_end`: what loading took, its first pictures, and the peers beside it."""

    rung: str
    peers: list[Beside]
    loads: dict[str, LoadRow] = {}
    pictures_s: dict[str, float] = {}


class Pictures(msgspec.Struct, frozen=True, kw_only=True):
    """From a prompt to a file, beside a peer's pipeline."""

    commit: str | None
    machine: dict[str, str | int | None]
    rungs: list[PictureRung]


class Documents(NamedTuple):
    """Documents of each kind, with the names of their files."""

    per_op: Sequence[tuple[str, PerOp]] = ()
    quality: Sequence[tuple[str, Quality]] = ()
    pictures: Sequence[tuple[str, Pictures]] = ()


def documents_in(folders: Iterable[Path]) -> Documents:
    """The documents in some folders. Other JSON files are ignored."""
    found: Mapping[type, list[tuple[str, object]]] = {PerOp: [], Quality: [], Pictures: []}
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json")) if path.is_file()]
    for path in paths:
        for kind, rows in found.items():
            try:
                rows.append((path.name, msgspec.json.decode(path.read_bytes(), type=kind)))
            except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            break
    return Documents(_of(found, PerOp), _of(found, Quality), _of(found, Pictures))


def _of(found: Mapping[type, list[tuple[str, object]]], kind: type[T]) -> list[tuple[str, T]]:
    return [(name, one) for name, one in found[kind] if isinstance(one, kind)]
