"""The blocks of a record's model, and whether it is the model whose copies were published."""

from __future__ import annotations

from fluxperf.harness.records import Record

#: The blocks of the model whose copies were published: double, single.
FULL_BLOCKS = (19, 38)


def blocks_of(record: Record) -> tuple[int, int]:
    """How many double and single blocks the record's forward has."""
    sections = [row.section for row in record.blocks]
    return sections.count("double"), sections.count("single")


def is_full(record: Record) -> bool:
    """Whether the record's model has the blocks of the model whose copies were published."""
    return blocks_of(record) == FULL_BLOCKS
