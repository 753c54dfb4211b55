"""The blocks of a record's model, and whether it is the model with published numbers of copies."""

from __future__ import annotations

from fluxperf.harness.records import Record

#: Blocks of the model with published numbers of copies: double, single.
FULL_BLOCKS = (19, 38)


def blocks_of(record: Record) -> tuple[int, int]:
    """Number of double and single blocks in the record's forward."""
    sections = [row.section for row in record.blocks]
    return sections.count("double"), sections.count("single")


def is_full(record: Record) -> bool:
    """Whether the record's model has the blocks of the model with published numbers of copies."""
    return blocks_of(record) == FULL_BLOCKS
