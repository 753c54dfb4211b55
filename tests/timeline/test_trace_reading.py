"""A written trace reads back completely; damaged traces and those of other programs are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest

from fluxperf.errors import TimelineError
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import GROUPINGS, summarize
from fluxperf.harness.timeline.trace import trace
from tests.timeline.making import US, Capture, example


def again(timeline: Timeline, folder: Path) -> Timeline:
    path = folder / "again.json"
    path.write_text(trace(timeline))
    return read_timeline(path)


def many_things() -> Capture:
    """Event kinds that the example lacks: processes, threads, overlapping ranges, graphs, unified
    memory, lost events.
    """
    capture = Capture(graph_mode="Graph")
    capture.add("PROCESSES", globalPid=1 << 48 | 200 << 24, pid=200, name="other")
    capture.add("DIAGNOSTIC_EVENT", severity=3, text="12 events were dropped")
    capture.started("one", 0, 50 * US, end_tid=2)
    capture.started("two", 20 * US, 90 * US)
    capture.range("named", 0, 300 * US, pid=200, tid=7, payload=12)
    capture.launch("first", 5 * US, 10 * US, 20 * US)
    capture.launch("overlaps", 6 * US, 25 * US, 20 * US, tid=2)
    number = capture.call("cuGraphLaunch", 100 * US, 110 * US, pid=200, tid=7)
    capture._gpu("GRAPH_TRACE", 120 * US, 190 * US, number, 200, 1, 9, graphId=5)
    capture.copy(12, 200 * US, 210 * US, 99, 4096, source=4, target=4, pid=200, count=3)
    capture.memset(220 * US, 221 * US, 98, 64)
    capture.sync(4, 230 * US, 240 * US, 97)
    return capture


@pytest.mark.parametrize("make", [example, many_things])
def test_a_trace_holds_the_whole_timeline(make, tmp_path: Path):
    one = make().read(tmp_path)
    two = again(one, tmp_path)
    assert findings(one) == findings(two)
    for by in GROUPINGS:
        sums = [msgspec.to_builtins(summarize(each, by)) for each in (one, two)]
        assert {**sums[0], "source": ""} == {**sums[1], "source": ""}
    assert (two.lost, two.graph_mode, two.notes) == (one.lost, one.graph_mode, one.notes)
    paid = [
        {(row.name, row.start_ns - each.ranges.start_ns.min()): row.payload for row in each.ranges}
        for each in (one, two)
    ]
    assert paid[0] == paid[1]
    assert trace(again(two, tmp_path)) == trace(two), "another turn changes nothing"


def test_times_are_kept_to_the_nanosecond(tmp_path: Path):
    capture = Capture()
    begun, lasts = 1_732_000_000_123_456_789, 987_654_321_123
    capture.range("step 0", begun, begun + lasts)
    capture.launch("kernel", begun + 1, begun + 333, 7)
    two = again(capture.read(tmp_path), tmp_path)
    assert (two.ranges[0].start_ns, two.ranges[0].end_ns) == (0, lasts)
    assert [(row.start_ns, row.end_ns) for row in two.work] == [(333, 340)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a complete trace of fluxperf"),
        ("[]", "expected a complete trace of fluxperf"),
        ('{"traceEvents": []}', "otherData"),
        ('{"traceEvents": [], "otherData": {"version": "My Application v1.0"}}', "fluxperf"),
        ('{"traceEvents": [], "otherData": {"fluxperf": 9}}', "expected a trace of version 1, got 9"),
        ("\x00\xff", "expected a complete trace of fluxperf"),
    ],
)
def test_what_is_no_trace_of_ours_is_refused(text: str, says: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TimelineError) as error:
        read_timeline(path)
    assert says in str(error.value)


@pytest.mark.parametrize("kind", ["copy", "memset"])
def test_work_that_lost_its_kind_is_no_kernel(kind: str, tmp_path: Path):
    path = tmp_path / "x.json"
    whole = trace(many_things().read(tmp_path))
    assert f'"kind":"{kind}"' in whole
    path.write_text(whole.replace(f'"kind":"{kind}"', f'"kin ":"{kind}"', 1))
    with pytest.raises(TimelineError, match=r"an event of the category gpu_mem(cpy|set) whose kind is kernel"):
        read_timeline(path)


def test_a_trace_that_is_not_there(tmp_path: Path):
    with pytest.raises(TimelineError, match=r"No such file.*fluxperf profile"):
        read_timeline(tmp_path / "x.json")


def test_a_damaged_trace_is_an_error_or_a_timeline_and_never_a_traceback(tmp_path: Path):
    whole = trace(example().read(tmp_path)).encode()
    rng, path, refused = random.Random(5), tmp_path / "damaged.json", 0
    for _ in range(80):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.choice((1, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data))
        try:
            timeline = read_timeline(path)
        except TimelineError:
            refused += 1
        else:
            summarize(timeline)
            findings(timeline)
    assert refused > 20


@pytest.mark.parametrize(
    ("field", "value"),
    [("pid", -5), ("pid", 2**40), ("ts", 1e300), ("ts", -1e9), ("dur", -1.0), ("tid", 2**62), ("id", -1)],
)
def test_numbers_that_no_trace_has_do_not_break(field: str, value: float, tmp_path: Path):
    document = json.loads(trace(example().read(tmp_path)))
    for event in document["traceEvents"][::3]:
        if field in event:
            event[field] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    try:
        timeline = read_timeline(path)
    except TimelineError:
        return
    summarize(timeline)
    findings(timeline)
    trace(timeline)
