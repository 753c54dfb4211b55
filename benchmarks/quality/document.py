"""Prints a result file as the Markdown that the documentation shows.

    python -m benchmarks.quality.document reports/records/h100-quality.json

A document has it between ``<!-- quality: FILE -->`` and ``<!-- /quality -->``; a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.quality.figures import Result, cells, headings, sentences
from fluxperf.errors import FluxperfError, RecordError


def read(path: Path) -> Result:
    """A result file.

    Raises:
        RecordError: the file is missing, or is not a result file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}. Expected a file of benchmarks.quality.") from error
    except msgspec.MsgspecError as error:
        raise RecordError(f"{path}: expected a file of benchmarks.quality, got something else ({error}).") from error


def as_markdown(result: Result) -> str:
    """Machine and workload, the table of all rows, and the ratios to the peer."""
    return "\n".join([*_about(result), "", *_table(result), "", *(f"- {said}" for said in sentences(result))])


def _about(result: Result) -> Iterator[str]:
    work, machine = result.workload, result.machine
    where = machine.gpu or f"{machine.cpu}, host device (twins of the kernels)"
    changed = " with uncommitted changes" if result.dirty else ""
    seeds = len(result.seeds)
    yield (
        f"`{work.name}` ({work.width} x {work.height}, {work.text_tokens} text tokens, {work.steps} steps, batch "
        f"{work.batch}; weights: {work.weights}), on {where}, commit {(result.commit or 'unknown')[:7]}{changed}."
    )
    largest = "inputs of one seed" if seeds == 1 else f"the largest of {seeds} seeds of the inputs"
    yield f"Relative errors against `{result.reference}`, {largest}:"


def _table(result: Result) -> Iterator[str]:
    names = headings(result)
    yield f"| {' | '.join(names)} |"
    yield f"|---|{'---:|' * (len(names) - 1)}"
    for row in result.rows:
        name, *numbers = cells(row)
        yield f"| {' | '.join([f'`{name}`' if row.group != 'layers' else name, *numbers])} |"


def main() -> None:
    """Prints the Markdown of the files that are named."""
    if len(sys.argv) < 2:
        print("usage: python -m benchmarks.quality.document FILE...", file=sys.stderr)
        sys.exit(2)
    try:
        print("\n\n".join(as_markdown(read(Path(name))) for name in sys.argv[1:]))
    except FluxperfError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
