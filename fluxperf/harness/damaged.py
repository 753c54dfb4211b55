"""Explains in a sentence why a line is not a record."""

from __future__ import annotations

import msgspec


class Head(msgspec.Struct):
    """The one field that every schema has."""

    schema: int


#: Errors of decoding a damaged line: msgspec's own, and those for bad UTF-8 and for deep nesting.
NOT_A_RECORD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def explain(line: bytes, error: Exception, known: int, *, torn: bool) -> str:
    """A sentence about a line that is not a record: what was expected, what was found, what to do."""
    try:
        schema = msgspec.json.decode(line, type=Head).schema
    except msgspec.ValidationError:
        return f"expected a record with an integer 'schema' {known}, got other JSON; the line was skipped."
    except NOT_A_RECORD:
        what = "the last line is incomplete (the run was killed while writing it)" if torn else "the line is not JSON"
        return (
            f"{what}; expected a complete record, got {len(line)} bytes; the line was skipped, measure that rung again."
        )
    if schema != known:
        return (
            f"expected schema {known}, got schema {schema}; the line was skipped, read it with the version of "
            "fluxperf that wrote it."
        )
    return f"expected a record of schema {known}: {error}; the line was skipped."
