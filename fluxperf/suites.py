"""Suites: tables of all measurements for a page of evidence, each an existing command with its options.

Rounds are in order of value: measurements that a headline needs come first, and the first process of every rung comes
before the second of any. So ten minutes on a GPU measure the whole ladder except the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import config_named
from fluxperf.errors import ConfigError
from fluxperf.harness.collecting import Collection
from fluxperf.harness.parts import Part, key_of
from fluxperf.harness.records import IN_TURNS_WITH
from fluxperf.harness.text.units import listing
from fluxperf.record_rows import workload_row
from fluxperf.workloads import HEADLINE, WORKLOADS, Workload

_T256, _DEV, _512 = WORKLOADS["schnell-1024-t256"], WORKLOADS["dev-1024"], WORKLOADS["schnell-512"]
_SCHNELL = WORKLOADS[HEADLINE]


def _rung(
    workload: Workload,
    rung: str,
    rounds: Sequence[int],
    seconds: float,
    *options: str,
    peers: Sequence[str] = (),
    memory_gb: str = "",
    makes: str = "",
    needs: str = "",
) -> Part:
    """A part that measures a rung.

    Args:
        workload: sizes; if they are not those of a workload, ``name`` is a label and ``model`` is a workload to modify.
        rung: the rung.
        rounds: of its processes.
        seconds: estimate for one process from earlier records, used until one was measured.
        options: of ``fluxperf run``.
        peers: in turns with it.
        memory_gb: a memory budget.
        makes: latents that it writes.
        needs: latents for its error.
    """
    settings = {IN_TURNS_WITH: ", ".join(peers)} if peers else {}
    words = ["fluxperf", "run", *_sizes(workload), f"--rung={rung}", *options, *(f"--peer={peer}" for peer in peers)]
    name = f"{workload.name}-{rung}"
    if memory_gb:
        words.append(f"--memory-gb={memory_gb}")
        settings["memory_gb"] = memory_gb
        name += f"-{memory_gb}gb"
    if peers:
        name += f"-beside-{'-'.join(peers)}"
    row = workload_row(workload, SyntheticWeights(config_named(workload.model)))
    words += ["-o", "{out}"]
    return Part(name, tuple(words), tuple(rounds), seconds, key_of(row, rung, settings), makes=makes, needs=needs)


def _sizes(workload: Workload) -> list[str]:
    """Options that turn a named workload into another one."""
    if WORKLOADS.get(workload.name) == workload:
        return [f"--workload={workload.name}"]
    base = next(one for one in reversed(WORKLOADS.values()) if one.model == workload.model and not one.repeats)
    fields = ("height", "width", "text_tokens", "steps", "batch")
    changed = {field: getattr(workload, field) for field in fields if getattr(workload, field) != getattr(base, field)}
    options = [f"--{field.replace('_', '-')}={value}" for field, value in changed.items()]
    return [f"--workload={base.name}", *options]


def _document(name: str, number: int, seconds: float, *words: str, records: str = "") -> Part:
    """A part that writes a JSON document, in a round; and perhaps records beside it."""
    return Part(name, words, (number,), seconds, document=f"{name}.json", records=records)


def _ladder(workload: Workload, first: int, last: int) -> list[Part]:
    """All rungs but the baseline, in four rounds from the first on; errors are against float32.

    The float32 rungs take 15 times as long as the others: their second and third processes are in the last round.
    """
    latents = f"latents-{workload.name}.npz"
    quick = range(first + 1, first + 4)
    # One warm-up generation: these are so long that a GPU's clock is steady within the first.
    long = ("--repeat=2", "--time-limit-s=20", "--witness")
    return [
        _rung(workload, "batched", [first, last, last], 38, *long, makes=latents),
        *(
            _rung(workload, rung, quick, 16, "--repeat=9", "--witness", needs=latents)
            for rung in ("fp8", "captured", "fused")
        ),
        _rung(workload, "tensorcore", quick, 20, "--repeat=5", "--witness", needs=latents),
        _rung(workload, "broadcast", [first + 1, last, last], 40, *long, needs=latents),
    ]


def _baseline(workload: Workload, rounds: Sequence[int]) -> Part:
    """A generation of the baseline takes minutes: one for each process, whose steps are its samples."""
    options = ("--repeat=1", "--warmup=0", "--witness")
    return _rung(workload, "baseline", rounds, 440, *options, needs=f"latents-{workload.name}.npz")


def _beside(workload: Workload, rung: str, peer: str, rounds: Sequence[int], seconds: float) -> Part:
    """A rung in turns with a peer; one peer at a time, as a GPU has memory for two models."""
    latents = f"latents-{workload.name}.npz"
    return _rung(workload, rung, rounds, seconds, "--repeat=7", "--witness", peers=[peer], needs=latents)


def _other_size(workload: Workload, number: int, seconds: float) -> list[Part]:
    """``captured`` and ``fp8`` at another size, with errors against ``captured``, as float32 takes minutes there."""
    latents, rounds = f"latents-{workload.name}.npz", [number, number + 1, number + 1]
    return [
        _rung(workload, "captured", rounds, seconds, "--repeat=7", "--witness", makes=latents),
        _rung(workload, "fp8", rounds, seconds, "--repeat=7", "--witness", needs=latents),
    ]


def _per_op(rung: str, number: int) -> Part:
    words = ("fluxperf", "profile", f"--workload={HEADLINE}", f"--rung={rung}", "--measured-steps=4", "--warmup=4")
    return _document(f"{rung}-ops", number, 30, *words, "--per-op={out}", "--output={scratch}/profile", "--overwrite")


def _within(rung: str, number: int) -> Part:
    """A rung in 16 GB, with the same results as without the budget."""
    latents, options = f"latents-{HEADLINE}.npz", ("--repeat=9", "--witness")
    return _rung(_SCHNELL, rung, [number] * 3, 25, *options, memory_gb="16", needs=latents)


def _headline() -> list[Part]:
    """All measurements on the page of a GPU."""
    return [
        *_ladder(_SCHNELL, 0, 6),
        _baseline(_SCHNELL, [4, 8]),
        _beside(_SCHNELL, "captured", "diffusers-compiled", [5, 7, 7], 65),
        _beside(_SCHNELL, "fp8", "diffusers-fp8", [5, 7, 7], 50),
        _document("kernels", 5, 30, "benchmarks.kernels", "-o", "{out}"),
        _per_op("fp8", 5),
        _per_op("captured", 5),
        _document(
            "quality", 5, 60, "benchmarks.quality", "--rung=tensorcore", "--rung=fused", "--rung=captured",
            "--rung=fp8", "-o", "{out}",
        ),
        _within("fp8", 9),
        _within("captured", 9),
        *_ladder(_T256, 10, 15),
        _beside(_T256, "captured", "diffusers-compiled", [14, 16, 16], 65),
        *_other_size(_512, 17, 15),
        *_other_size(_DEV, 17, 45),
        *_other_size(replace(_SCHNELL, name="schnell-2048", height=2048, width=2048), 17, 40),
        *_other_size(replace(_SCHNELL, name="schnell-1024-b4", batch=4), 17, 30),
        _beside(_SCHNELL, "fused", "diffusers", [19, 20, 20], 40),
        _document(
            "end-to-end", 19, 240, "benchmarks.end_to_end", "--folder={scratch}/model", "--rung=captured",
            "--rung=fp8", "--witness", "-o", "{out}",
            records="end-to-end.jsonl",
        ),
        _baseline(_T256, [21, 22]),
    ]  # fmt: skip


def _tiny() -> list[Part]:
    """The same for a small model on any machine: every rung, three processes, the float64 oracle for errors."""
    tiny = WORKLOADS["tiny"]
    rungs = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")
    quality = ("benchmarks.quality", "--workload=tiny", "--device=host", "--reference=oracle")
    asked = ("--peer=none", "--layers=none", "-o", "{out}")
    return [
        *(_rung(tiny, rung, (0, 1, 2), 2, "--device=host", "--repeat=3") for rung in rungs),
        _document("quality", 3, 3, *quality, *asked),
    ]


#: Tables by name. `GPU_SUITES` need a GPU; the other runs anywhere.
SUITES = {"headline": _headline, "tiny": _tiny}
GPU_SUITES = ("headline",)


def lacking_in(folder: Path, suite: str) -> dict[str, int] | None:
    """Parts of a suite of which a folder lacks processes, with their number; ``None`` where it is no such folder.

    Raises:
        RecordError: its records cannot be read.
    """
    collection = Collection(folder, suite, SUITES[suite]())
    if not collection.begun:
        return None
    return {name: len(numbers) for name, numbers in collection.lacking(collection.parts).items() if numbers}


def processes_of(suite: str) -> int:
    """The number of processes of a suite."""
    return sum(part.processes for part in SUITES[suite]())


def mixed_in(folder: Path, suite: str) -> str:
    """A sentence about evidence in a suite's folder that is of another commit or machine than the first; "" if none is.

    Raises:
        RecordError: its records cannot be read.
    """
    collection = Collection(folder, suite, SUITES[suite]())
    try:
        if collection.begun and (own := collection.own):
            collection.check(own)
    except ConfigError as error:
        return str(error)
    return ""


def missing_in(folder: Path, suite: str) -> str | None:
    """A sentence about the processes that a folder of a suite's evidence lacks, "" if none; ``None`` for other folders.

    Raises:
        RecordError: its records cannot be read.
    """
    lacking = lacking_in(folder, suite)
    if lacking is None:
        return None
    names = listing([f"{name} ({count})" for name, count in lacking.items()])
    number, of = sum(lacking.values()), processes_of(suite)
    return f"Evidence of the suite {suite} lacks {number} of {of} processes: {names}." if lacking else ""
