"""Collecting evidence: completed parts are not repeated, runs are not mixed, the time limit holds,
partial results stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fluxperf.errors import ConfigError, RecordError
from fluxperf.harness import collecting
from fluxperf.harness.collecting import Collection, collected
from fluxperf.harness.parts import Here, Part, Step, key_of, kind_of
from fluxperf.harness.records import Record, read_records
from tests.pure.test_records import WORKLOAD, make

COMMIT = "a" * 40
KIND = kind_of(make("fused").machine)
HERE = Here(COMMIT, False, KIND)


def part(rung: str, rounds: tuple[int, ...] = (1, 2, 3), seconds: float = 10.0, **more) -> Part:
    return Part(f"w-{rung}", (f"run-{rung}", "-o", "{out}"), rounds, seconds, key_of(WORKLOAD, rung, {}), **more)


DOCUMENT = Part("ops", ("ops", "{out}"), (2,), 5.0, document="ops.json")
PARTS = [part("batched", (0, 3), makes="l.npz"), part("fused", needs="l.npz"), DOCUMENT]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder, and simulated processes: each writes what a plan says, or else a valid result."""

    class World:
        def __init__(self) -> None:
            self.folder, self.scratch = tmp_path / "evidence", tmp_path / "scratch"
            self.scratch.mkdir()
            self.ran: list[list[str]] = []
            self.changes: dict[str, object] = {}
            self.fails: dict[str, str] = {}

        def collection(self, parts=PARTS, **more) -> Collection:
            return Collection(self.folder, "suite", parts, **more)

        def once(self, command: list[str], out: Path, root: Path) -> tuple[str, str]:
            words = command[2:]
            self.ran.append(words)
            if words[0] in self.fails:
                return "ended with exit code 2", self.fails[words[0]]
            for word in words:
                name, _, value = word.partition("=")
                if name == "--reference-to":
                    Path(value).parent.mkdir(parents=True, exist_ok=True)
                    Path(value).write_bytes(b"latents")
                assert name != "--reference" or Path(value).exists()
            if words[0] == "ops":
                out.write_text(json.dumps({"commit": COMMIT, "machine": {"gpu": None}}))
                return "", ""
            samples = [float(len(self.ran)), float(len(self.ran)) + 0.5]
            record = msgspec.structs.replace(make(words[0][4:]), times_s={"denoise": [samples]}, **self.changes)
            out.write_bytes(msgspec.json.encode(record) + b"\n")
            return "", ""

        def go(
            self, parts=PARTS, budget_s: float | None = None, here: Here = HERE, now: Callable[[], float] | None = None
        ):
            collection = self.collection(parts)
            collection.check(here)

            def take(step: Step) -> str:
                return collection.take(step, here, self.scratch, tmp_path)

            clock = {} if now is None else {"now": now}
            return list(collected(collection, here, collection.missing(), budget_s, take, **clock))

        @property
        def records(self) -> list[Record]:
            return read_records(self.folder / "suite.jsonl").records

    found = World()
    monkeypatch.setattr(collecting, "run_once", found.once)
    return found


def names(steps) -> list[str]:
    return [f"{step.part.name} {step.number}" for step in steps]


def test_processes_come_by_round_and_become_one_record_each(world) -> None:
    assert names(world.collection().missing()) == [
        "w-batched 1", "w-fused 1", "w-fused 2", "ops 1", "w-batched 2", "w-fused 3",
    ]  # fmt: skip
    done = world.go()
    assert [problem for _, _, problem in done] == [""] * 6
    assert [(record.rung, len(record.times_s["denoise"])) for record in world.records] == [("batched", 2), ("fused", 3)]
    assert world.records[1].times_s["denoise"] == [[2.0, 2.5], [3.0, 3.5], [6.0, 6.5]]
    assert not list((world.folder / "processes").glob("*.process")), "merged and gone"
    assert (world.folder / "ops.json").exists()
    assert world.collection().missing() == []
    assert world.go() == [], "nothing is measured twice"
    assert [word for word in world.ran[1] if word.startswith("--reference=")] == [
        f"--reference={world.folder}/processes/l.npz"
    ]


def test_a_run_that_is_stopped_goes_on_where_it_was(world, monkeypatch) -> None:
    real, left = world.once, [3]

    def stopped(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(collecting, "run_once", stopped)
    with pytest.raises(KeyboardInterrupt):
        world.go()
    assert [(one.rung, len(one.times_s["denoise"])) for one in world.records] == [("batched", 1), ("fused", 2)], (
        "the page has what there is"
    )
    monkeypatch.setattr(collecting, "run_once", real)
    assert names(step for step, _, _ in world.go()) == ["ops 1", "w-batched 2", "w-fused 3"]
    assert [len(one.times_s["denoise"]) for one in world.records] == [2, 3]


def test_what_does_not_fit_into_the_budget_is_not_begun_and_shorter_work_is(world) -> None:
    # At first; what is left, start and end of the first; what is left for the next two, and so on.
    clock = iter([0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 14.0, 14.0])
    rungs = {"fused": 10.0, "captured": 10.0, "fp8": 6.0, "batched": 90.0}
    parts = [part(rung, (1,), seconds) for rung, seconds in rungs.items()]
    done = world.go(parts, budget_s=15.0, now=lambda: next(clock, 14.0))
    assert [(step.part.name, seconds is not None) for step, seconds, _ in done] == [
        ("w-fused", True), ("w-captured", False), ("w-fp8", True), ("w-batched", False),
    ]  # fmt: skip
    assert "needs about 10 s, 6 s are left" in done[1][2]


def test_what_was_measured_is_the_estimate_of_the_next_folder(world, tmp_path: Path) -> None:
    world.go()
    row = json.loads((world.folder / "parts.ndjson").read_text().splitlines()[0])
    assert (row["part"], row["process"], row["kind"], row["commit"]) == ("w-batched", 1, KIND, COMMIT)
    (world.folder / "parts.ndjson").write_text(json.dumps({**row, "seconds": 33.0}) + "\n{torn")
    other = Collection(tmp_path / "other", "suite", PARTS, others=[world.folder])
    assert other.estimate(PARTS[0], KIND) == (33.0, True)
    assert other.estimate(PARTS[0], "another card") == (10.0, False)
    assert other.estimate(PARTS[1], KIND) == (10.0, False)


def test_a_part_that_fails_leaves_the_others(world) -> None:
    world.fails = {"run-fused": "out of memory"}
    done = world.go()
    told = {f"{step.part.name} {step.number}": problem for step, _, problem in done}
    assert told["w-fused 1"] == "ended with exit code 2\nout of memory"
    assert told["w-fused 2"] == "a process of this part failed before"
    assert (told["w-batched 2"], told["ops 1"]) == ("", "")
    world.fails = {}
    assert names(step for step, _, _ in world.go()) == ["w-fused 1", "w-fused 2", "w-fused 3"]


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (Here("b" * 40, False, KIND), f"commit {COMMIT} instead of {'b' * 40}"),
        (Here(COMMIT, True, KIND), "no changes that are not committed"),
        (Here(COMMIT, False, "NVIDIA H200"), f"machine {KIND} instead of NVIDIA H200"),
        (Here(None, None, KIND), "FLUXPERF_COMMIT"),
    ],
)
def test_nothing_is_mixed(world, here: Here, said: str) -> None:
    world.go()
    before = (world.folder / "suite.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=said):
        world.go(here=here)
    assert (world.folder / "suite.jsonl").read_bytes() == before


def test_records_beside_a_document_are_a_part_of_it(world) -> None:
    pair = DOCUMENT._replace(records="ops.jsonl")
    world.go([DOCUMENT])
    beside = world.folder / "ops.jsonl"
    assert [world.collection([one]).lacking([one])["ops"] for one in (DOCUMENT, pair)] == [[], [1]]
    beside.write_bytes(msgspec.json.encode(make("fused")) + b"\n")
    assert world.collection([pair]).lacking([pair])["ops"] == []
    world.collection([pair]).check(HERE)
    beside.write_bytes(msgspec.json.encode(msgspec.structs.replace(make("fused"), commit="b" * 40)) + b"\n")
    with pytest.raises(ConfigError, match=r"ops.jsonl has commit b+ instead of a+"):
        world.collection([pair]).check(HERE)


def test_a_document_of_another_commit_or_card_is_found_too(world) -> None:
    world.folder.mkdir()
    for about in ({"commit": "c" * 40, "machine": {}}, {"commit": COMMIT, "machine": {"gpu": "NVIDIA H200"}}):
        (world.folder / "ops.json").write_text(json.dumps(about))
        with pytest.raises(ConfigError, match=r"ops\.json has"):
            world.go()


def test_another_machine_of_the_kind_restarts_a_record_and_keeps_whole_ones(world) -> None:
    parts = [part("fused", (1, 2)), part("fp8", (3, 3))]
    world.go(parts[:1])
    world.go([part("fp8", (3,))])  # one of two that the other machine will miss
    other = msgspec.structs.replace(make("fp8").machine, memory_bytes=5)
    world.changes = {"machine": other}
    assert names(step for step, _, _ in world.go(parts)) == ["w-fp8 1", "w-fp8 2"]
    assert [(one.rung, one.machine == other, len(one.times_s["denoise"])) for one in world.records] == [
        ("fused", False, 2),
        ("fp8", True, 2),
    ]


def test_a_record_of_fewer_processes_gives_way_to_one_of_more_only(world) -> None:
    world.go([part("fused", (1, 1))])
    world.changes = {"machine": msgspec.structs.replace(make("fused").machine, memory_bytes=5)}
    collection = world.collection([part("fused", (1, 1, 1))])
    assert collection.take(Step(collection.parts[0], 1), HERE, world.scratch, world.scratch) == ""
    assert [len(one.times_s["denoise"]) for one in world.records] == [2]


def test_latents_that_did_not_come_with_the_folder_are_made_again(world) -> None:
    world.go(PARTS[:1])
    (world.folder / "processes" / "l.npz").unlink()
    assert names(step for step, _, _ in world.go()) == ["w-batched 1", "w-fused 1", "w-fused 2", "ops 1", "w-fused 3"]
    assert [len(one.times_s["denoise"]) for one in world.records] == [2, 3]


def test_some_parts_need_one_process_of_what_makes_their_latents(world) -> None:
    def only(part: Part) -> bool:
        return part.name == "w-fused"

    wanted = ["w-batched 1", "w-fused 1", "w-fused 2", "w-fused 3"]
    assert names(world.collection().missing(only)) == wanted
    world.go(PARTS[:1])
    assert names(world.collection().missing(only)) == wanted[1:]


def test_processes_that_disagree_make_no_record(world) -> None:
    world.go([part("fused", (1,))])
    (world.folder / "suite.jsonl").unlink()
    world.go([part("fused", (1, 1, 1))][:1], budget_s=None)
    piece = world.folder / "processes" / "w-fp8-1.process"
    record = make("fp8")
    piece.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, phase_table={"linear": "other"})) + b"\n")
    ((_, _, problem),) = world.go([part("fp8", (1, 1))])
    assert "expected the same exact counts" in problem


def test_a_damaged_file_is_left_alone(world) -> None:
    world.go(PARTS[:1])
    with (world.folder / "suite.jsonl").open("a") as file:
        file.write('{"torn')
    with pytest.raises(RecordError, match="Evidence is not added to a damaged file"):
        world.go()


def test_a_process_that_writes_something_else_is_a_failure(world) -> None:
    world.changes = {"rung": "fp8"}
    ((_, _, problem),) = world.go([part("fused", (1,))])
    assert problem == "wrote no record of w-fused"
    assert not (world.folder / "suite.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "b" * 40}, f"commit {'b' * 40} instead of {COMMIT}"),
        ({"dirty": True}, "changes that are not committed"),
    ],
)
def test_a_checkout_that_changes_meanwhile_ends_it_and_mixes_nothing(world, changes, said: str) -> None:
    world.go(PARTS[:1])
    before = (world.folder / "suite.jsonl").read_bytes()
    world.changes = changes
    with pytest.raises(ConfigError, match=rf"process 1 of w-fused measured {said}.*leave the checkout as it is"):
        world.go()
    assert (world.folder / "suite.jsonl").read_bytes() == before
    assert list((world.folder / "processes").glob("*.process")) == []


def test_a_document_of_a_commit_that_came_meanwhile_is_not_kept(world, monkeypatch) -> None:
    def once(command: list[str], out: Path, root: Path) -> tuple[str, str]:
        out.write_text(json.dumps({"commit": "b" * 40, "dirty": False, "machine": {}}))
        return "", ""

    monkeypatch.setattr(collecting, "run_once", once)
    with pytest.raises(ConfigError, match="process 1 of ops measured commit"):
        world.go([DOCUMENT])
    assert not (world.folder / "ops.json").exists()


@pytest.mark.parametrize("number", [1, 3])
def test_a_process_that_was_kept_when_the_command_was_killed_is_merged_by_the_next(world, monkeypatch, number) -> None:
    """Between the process's own file and the record of all: no other process would come to merge the last."""
    merge, left = Collection._merge, [number]

    def killed(*given):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return merge(*given)

    monkeypatch.setattr(Collection, "_merge", killed)
    with pytest.raises(KeyboardInterrupt):
        world.go([part("fused", (1, 1, 1))])
    monkeypatch.setattr(Collection, "_merge", merge)
    collection = world.collection([part("fused", (1, 1, 1))])
    collection.settle()
    assert [len(one.times_s["denoise"]) for one in world.records] == [number]
    assert len(collection.missing()) == 3 - number
    world.go([part("fused", (1, 1, 1))])
    assert [len(one.times_s["denoise"]) for one in world.records] == [3]
    assert len(world.ran) == 3
    assert list((world.folder / "processes").glob("*.process")) == []


def test_only_one_command_measures_into_a_folder(world) -> None:
    collection = world.collection()
    with collection.alone():
        with (
            pytest.raises(RecordError, match="expected to measure alone, as two at once disturb each other"),
            world.collection().alone(),
        ):
            pass
        with Collection(world.scratch / "other", "suite", PARTS).alone():
            pass
    with collection.alone():
        pass
    assert [path.name for path in world.folder.iterdir()] == []


def _foreign(world, what: str) -> Path:
    """Something that lies where a file of the evidence belongs."""
    piece, record = world.folder / "processes" / "w-fused-1.process", world.folder / "suite.jsonl"
    if what == "notes":
        (world.folder / "ops.json").write_text("my own notes")
        return world.folder / "ops.json"
    if what == "pipe":
        record.rename(record.with_suffix(".old"))
        os.mkfifo(record)
        return record
    contents = {"empty": b"", "other": record.read_bytes(), "torn": record.read_bytes()[:-9]}
    piece.write_bytes(contents[what])
    return piece


@pytest.mark.parametrize("what", ["notes", "pipe", "empty", "other", "torn"])
def test_what_is_foreign_in_a_folder_is_named_and_stays(world, what: str) -> None:
    world.go(PARTS[:1])
    path = _foreign(world, what)
    before = None if what == "pipe" else path.read_bytes()
    with pytest.raises(RecordError, match=str(path)):
        world.go()
    assert len(world.ran) == 2, "nothing is measured that could not be kept"
    assert before is None or path.read_bytes() == before


def test_files_of_no_part_are_left_alone(world) -> None:
    world.go(PARTS[:1])
    for name in ("notes.process", "w-gone-1.process"):
        (world.folder / "processes" / name).write_text("x")
    assert [problem for _, _, problem in world.go()] == [""] * 4


def test_processes_that_do_not_fit_together_stay_missing(world) -> None:
    """The one that came last is kept aside: a list that counts it would say that nothing is missing."""
    world.go([part("fused", (1,))])
    (world.folder / "suite.jsonl").unlink()
    parts = [part("fused", (1, 1))]
    first = world.folder / "processes" / "w-fused-1.process"
    record = msgspec.structs.replace(make("fused"), phase_table={"linear": "other"}, times_s={"denoise": [[1.0]]})
    first.write_bytes(msgspec.json.encode(record) + b"\n")
    for _ in range(2):
        ((step, _, problem),) = world.go(parts)
        assert (step.number, "expected the same exact counts" in problem) == (2, True)
        apart = world.folder / "processes" / "w-fused-2.differs"
        assert f"\nThis process is kept in {apart}. If it is right" in problem
        assert problem.endswith("remove w-fused-1.process.")
        assert b'"rung":"fused"' in apart.read_bytes()
    assert names(world.collection(parts).missing()) == ["w-fused 2"]
