"""A complete folder of evidence: what was measured, and invented processes in the place of what was not."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import msgspec

from fluxperf.harness import collecting
from fluxperf.harness.collecting import Collection
from fluxperf.harness.parts import SIZES, Here, Part, Step, key_of, kind_of
from fluxperf.harness.records import IN_TURNS_WITH, ErrorRow, Record, WorkloadRow, read_records
from fluxperf.suites import SUITES

RECORDS = Path(__file__).resolve().parents[2] / "reports/records"

#: Records of before whose counts, ops and samples are those of the missing parts, but for the numbers.
_MODELS = (
    "evidence-h200/headline", "h100-schnell-1024", "h100-scaling", "h200-schnell-1024-finishing-peers",
    "h100-schnell-1024-fp8-sustained", "h100-schnell-1024-16gb",
)  # fmt: skip

#: Documents of before by those that they stand for.
_DOCUMENTS = {
    "quality": ("h100-quality.json",),
    "end-to-end": ("h100-end-to-end.json", "h100-end-to-end.jsonl"),
    "captured-ops": ("evidence-h200/captured-ops.json",),
    "fp8-ops": ("evidence-h200/fp8-ops.json",),
    "kernels": ("evidence-h200/kernels.json",),
}

_BFLOAT16 = ("tensorcore", "fused", "captured")

#: What an invented record may have that no measurement is of: which process it was, and when.
_DAY = "2026-11-29T12:{:02}:{:02}+00:00"


class Inventor:
    """Processes of a suite, each of the first record that is like it.

    Args:
        folder: evidence that was measured, whose commit and machine all others get.
    """

    def __init__(self, folder: Path) -> None:
        self._models = [one for name in _MODELS for one in read_records(RECORDS / f"{name}.jsonl").records]
        self._first = read_records(folder / "headline.jsonl").records[0]
        self._random, self._number = random.Random(25), 0
        self._makers = {part.makes: part.key.rung for part in SUITES["headline"]() if part.makes and part.key}

    @property
    def here(self) -> Here:
        """The commit and the kind of card."""
        return Here(self._first.commit, False, kind_of(self._first.machine))

    def write(self, part: Part, out: Path) -> None:
        """Writes what a process of the part would."""
        self._number += 1
        if part.key is None:
            self._document(part, out)
            return
        names = ["", *(word.partition("=")[2] for word in part.words if word.startswith("--peer="))]
        lines = [msgspec.json.encode(self._record(part, name)) for name in names]
        out.write_bytes(b"\n".join(lines) + b"\n")

    def _record(self, part: Part, peer: str) -> Record:
        """A record of a rung or of a peer, whose samples lie around those of a real one."""
        assert part.key is not None
        sizes = WorkloadRow(name="", weights="", **dict(zip(SIZES, part.key.sizes, strict=True)))
        model, factor = self._like(sizes, part, peer)
        settings = {"nvtx": "off", **dict(part.key.settings)}
        rung = self._makers.get(part.needs, "")
        told = "float32" if rung == "batched" else "bfloat16"
        error = ErrorRow(
            relative=0.016 if part.key.rung == "fp8" else 0.006 if part.key.rung in _BFLOAT16 else 4e-7,
            against=f"rung {rung} ({told}), final latents",
            rung=rung,
        )
        name = next((word.partition("=")[2] for word in part.words if word.startswith("--workload=")), "")
        custom = any(word.startswith(("--height=", "--batch=")) for word in part.words)
        sizes = msgspec.structs.replace(sizes, name="custom" if custom else name, weights=model.workload.weights)
        level = factor * (1 + self._random.gauss(0, 0.0015))
        spread = {"times_s": model.times_s, "cycles": model.cycles, "energy_j": model.energy_j}
        return msgspec.structs.replace(
            model,
            created_utc=_DAY.format(self._number // 60, self._number % 60),
            commit=self._first.commit, dirty=False, machine=self._first.machine,
            workload=sizes, settings=settings, error=error if rung and not peer else None,
            witness=model.witness or (model.totals if "--witness" in part.words else None),
            clock_hz={metric: rows[:1] for metric, rows in model.clock_hz.items()},
            sampling=model.sampling[:1], conditions=(model.conditions or [])[:1] or None,
            **{field: self._around(rows, level) for field, rows in spread.items()},
        )  # fmt: skip

    def _like(self, sizes: WorkloadRow, part: Part, peer: str) -> tuple[Record, float]:
        """The nearest real record, and the share of its time that this one takes, by its operations."""
        assert part.key is not None
        budget = dict(part.key.settings).get("memory_gb")
        same = [
            one for one in self._models
            if (one.rung == peer or (not peer and one.implementation == "fluxperf" and one.rung == part.key.rung))
        ]  # fmt: skip
        fitting = [one for one in same if one.settings.get("memory_gb") == budget] or same
        alike = [one for one in fitting if key_of(one.workload, one.rung, {}).sizes == part.key.sizes]
        if alike:
            return alike[0], 1.0
        tokens = (sizes.height // 16) ** 2 + sizes.text_tokens
        model = fitting[0]
        base = (model.workload.height // 16) ** 2 + model.workload.text_tokens
        share = sizes.batch / model.workload.batch * tokens / base
        ops = [msgspec.structs.replace(row, flops=int(row.flops * share)) for row in model.ops]
        return msgspec.structs.replace(model, ops=ops), share

    def _around(self, rows: dict[str, list[list[float]]], level: float) -> dict[str, list[list[float]]]:
        """The samples of the first process, a little off."""
        return {
            metric: [[value * level * (1 + self._random.gauss(0, 0.002)) for value in values] for values in found[:1]]
            for metric, found in rows.items()
        }

    def _document(self, part: Part, out: Path) -> None:
        for name in _DOCUMENTS[part.name]:
            path = RECORDS / name
            about = {"commit": self._first.commit, "dirty": False}
            if path.suffix == ".json":
                found = json.loads(path.read_text(encoding="utf-8"))
                machine = {**found["machine"], **msgspec.to_builtins(self._first.machine)}
                out.write_text(json.dumps({**found, **about, "machine": machine}), encoding="utf-8")
            else:
                records = [
                    msgspec.structs.replace(
                        one,
                        machine=self._first.machine,
                        created_utc=_DAY.format(1, 1),
                        **about,
                        witness=one.witness or one.totals,
                    )
                    for one in read_records(path).records
                ]
                out.with_suffix(".jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in records))


def complete(folder: Path, scratch: Path) -> Iterator[Step]:
    """Adds invented processes to a folder of evidence of the headline until nothing is missing there.

    Args:
        folder: it, with what was measured.
        scratch: another folder, for what a process writes.

    Yields:
        Each process that was invented.
    """
    collection, inventor = Collection(folder, "headline", SUITES["headline"]()), Inventor(folder)
    for step in collection.missing():

        def once(words: list[str], out: Path, root: Path, step: Step = step) -> tuple[str, str]:
            inventor.write(step.part, out)
            return "", ""

        with mock.patch.object(collecting, "run_once", once):
            problem = collection.take(step, inventor.here, scratch, scratch)
        assert not problem, f"{step.part.name}: {problem}"
        yield step


#: So that a reader finds the setting that the invented records of peers share with real ones.
assert IN_TURNS_WITH
