"""Figures of a run: computation, storage in the result file, and presentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from rich.table import Table

from benchmarks.quality.layers import PLAIN, QUANTIZED
from benchmarks.quality.runs import Numbers, Reference, Run
from fluxperf.harness.records import Machine, WorkloadRow


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of a run against the reference, ``||x - reference|| / ||reference||``; the outermost index is the seed.

    ``forward``: error of the velocity at each step, computed from the reference's latents, so of one forward.
    ``latents``: error of the latents after each step of a generation of its own, so of all steps so far. ``cosine``:
    cosine similarity of the final latents with the reference's.
    """

    forward: list[list[float]]
    latents: list[list[float]]
    cosine: list[float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run, with its figures or the reason why there are none.

    ``group``: rung, layers (one type in e4m3) or peer; ``precision`` of its products: float32, bfloat16 or e4m3.
    """

    name: str
    group: str
    precision: str
    what: str
    figures: Figures | None = None
    reason: str | None = None
    time_s: float = 0.0


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of a run divided by those of a peer in the same precision; below 1 the run is closer to the reference.

    ``forward``: geometric mean over steps and seeds. ``forward_largest``: the largest of any step and seed.
    ``latents``: the largest of any seed, for the final latents.
    """

    of: str
    against: str
    forward: float
    forward_largest: float
    latents: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the file: machine, workload and all rows.

    ``seeds`` are those of the inputs, ``dirty`` is the checkout's state.
    """

    schema: int = 1
    created_utc: str
    commit: str | None
    dirty: bool | None
    machine: Machine
    versions: dict[str, str]
    device: str
    workload: WorkloadRow
    reference: str
    reference_s: float
    seeds: list[int]
    rows: list[Row] = []
    ratios: list[Ratio] = []


def compared(run: Run, references: Sequence[Reference]) -> Figures | str:
    """Figures of a run against references, one per seed; or a reason if its results are not finite."""
    forward, latents, cosines = [], [], []
    for reference in references:
        given, behind = reference.latents[:-1], reference.latents[1:]
        forward.append(_errors(run.velocities(reference.inputs, given), reference.velocities))
        found = run.denoised(reference.inputs)
        latents.append(_errors(found, behind))
        cosines.append(_cosine(found[-1], behind[-1]))
    for what, errors in (("velocity", forward), ("latents", latents)):
        for seed, steps in enumerate(errors):
            if not np.isfinite(steps).all():
                first = int(np.isfinite(steps).argmin()) + 1
                return f"expected finite values, got NaN or infinity in the {what} of step {first} with seed {seed}."
    return Figures(forward=forward, latents=latents, cosine=cosines)


def ratios(rows: Sequence[Row]) -> Iterator[Ratio]:
    """Every rung, and the products alone, divided by every peer in the same precision."""
    peers = [row for row in rows if row.group == "peer"]
    for row in rows:
        if row.group == "rung" or (row.group, row.name) == ("layers", "products"):
            for peer in peers:
                if peer.precision == row.precision and row.figures is not None and peer.figures is not None:
                    yield _ratio(row, row.figures, peer, peer.figures)


def shares(rows: Sequence[Row]) -> dict[str, float]:
    """For each layer type, its share of the squared error that e4m3 adds to a forward, over all steps and seeds.

    ``(e_type^2 - e_plain^2) / (e_fp8^2 - e_plain^2)`` with means of squares. Empty without both rungs.
    """
    squares = {(row.group, row.name): _mean_square(row.figures) for row in rows if row.figures is not None}
    plain, whole = squares.get(("rung", PLAIN)), squares.get(("rung", QUANTIZED))
    if plain is None or whole is None or whole == plain:
        return {}
    return {
        name: (square - plain) / (whole - plain)
        for (group, name), square in squares.items()
        if group == "layers" and name != "all"
    }


def headings(result: Result) -> tuple[str, ...]:
    """Headings of the columns that `cells` fills."""
    return ("", "step 1", f"step {result.workload.steps}", "worst", "latents", "1 - cos")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, the largest of all seeds: name; error of the first, the last and the worst velocity; the rest."""
    name = row.name if row.group != "layers" else f"{row.precision}: {row.name}"
    if row.figures is None:
        return (name, *["none"] * 5)
    forward = row.figures.forward
    shown = (
        max(steps[0] for steps in forward),
        max(steps[-1] for steps in forward),
        max(map(max, forward)),
        max(steps[-1] for steps in row.figures.latents),
    )
    return (name, *map(_share, shown), f"{1 - min(row.figures.cosine):.1e}")


def view(result: Result) -> Table:
    """The rows as a table."""
    seeds = "" if len(result.seeds) == 1 else f", the largest of {len(result.seeds)} seeds"
    table = Table(
        title=f"{result.workload.name}: errors against {result.reference}{seeds}",
        caption="A step's error is that of its velocity, from the reference's latents; that of the final latents is "
        "of a generation of its own.",
        caption_justify="left",
    )
    for heading in headings(result):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in result.rows:
        table.add_row(*cells(row))
    return table


def sentences(result: Result) -> Iterator[str]:
    """Sentences: where the error comes from, the ratios, and why rows have no figures."""
    if parts := shares(result.rows):
        listed = ", ".join(f"{name} {100 * part:.0f} %" for name, part in parts.items())
        yield f"of the squared error that e4m3 adds to a forward: {listed}"
    for ratio in result.ratios:
        yield (
            f"{ratio.of} over {ratio.against}: forward {ratio.forward:.2f} (at most {ratio.forward_largest:.2f}), "
            f"final latents {ratio.latents:.2f}"
        )
    for row in result.rows:
        if row.reason is not None:
            yield f"{row.name} has no figures: {row.reason}"


def relative_error(x: Numbers, reference: Numbers) -> float:
    """``||x - reference|| / ||reference||``; the shapes must agree."""
    if x.shape != reference.shape:
        raise AssertionError(f"shape {x.shape}, expected {reference.shape}")
    return float(np.linalg.norm(x - reference) / np.linalg.norm(reference))


def _mean_square(figures: Figures) -> float:
    return float(np.mean(np.square(figures.forward)))


def _errors(found: Sequence[Numbers], expected: Sequence[Numbers]) -> list[float]:
    return [relative_error(x, y) for x, y in zip(found, expected, strict=True)]


def _cosine(x: Numbers, y: Numbers) -> float:
    return float(np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y)))


def _ratio(row: Row, ours: Figures, peer: Row, theirs: Figures) -> Ratio:
    each = [x / y for mine, other in zip(ours.forward, theirs.forward, strict=True)
            for x, y in zip(mine, other, strict=True)]  # fmt: skip
    ends = [mine[-1] / other[-1] for mine, other in zip(ours.latents, theirs.latents, strict=True)]
    mean = math.exp(sum(map(math.log, each)) / len(each)) if all(each) else 0.0
    return Ratio(of=row.name, against=peer.name, forward=mean, forward_largest=max(each), latents=max(ends))


def _share(error: float) -> str:
    """In percent, or as a power of ten where percent would show only zeros."""
    return f"{100 * error:.2f} %" if error >= 1e-4 else f"{error:.1e}"
