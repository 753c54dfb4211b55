"""The tracer and the witness of a region, on CUPTI's stand-in."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from fluxperf.errors import DeviceError
from fluxperf.harness.timeline.call_sites import CallSites
from fluxperf.harness.timeline.cupti_source import bindings
from fluxperf.harness.timeline.ranges import Ranges
from fluxperf.harness.timeline.tracer import UNSEEN, Copy, Sync, Tracer
from fluxperf.harness.timeline.transfers import Transfers
from fluxperf.harness.timeline.witness import Witness


@pytest.mark.parametrize("error", ["ImportError('no')", "OSError('no libcupti')", "ValueError('struct size changed')"])
def test_bindings_that_do_not_import_are_one_error_with_the_reason(tmp_path, monkeypatch, error):
    (tmp_path / "cupti.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("cupti", "cupti.cupti"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("fluxperf.harness.timeline.driver.device_count", lambda: 1)
    with pytest.raises(DeviceError, match="of one CUDA release") as caught:
        bindings()
    assert error.split("'")[1] in str(caught.value)


def line() -> int:
    return sys._getframe(1).f_lineno


def test_a_copy_has_kinds_bytes_seconds_and_its_line(fake):
    tracer = Tracer(fake.cupti)
    tracer.start()
    fake.gpu.copy(2, 24, 3, 2)
    before = line() - 1
    tracer.stop()
    (copy,) = tracer.copies
    assert (copy.name, copy.bytes, copy.source, copy.target) == ("d2h", 24, "device", "pinned")
    assert copy.seconds == pytest.approx(1e-6)
    assert copy.call.site is not None
    assert copy.call.site[:2] == (__file__, before)
    assert copy.call.site.function == "test_a_copy_has_kinds_bytes_seconds_and_its_line"


def test_only_what_crosses_or_blocks_is_reported(fake):
    tracer = Tracer(fake.cupti)
    tracer.start()
    for kind in range(11):
        fake.gpu.copy(kind)
    for wait in range(5):
        fake.gpu.synchronize(wait)
    fake.gpu.launch()
    tracer.stop()
    assert [event.name for event in tracer.events] == ["h2d", "d2h", "h2d", "d2h", "event", "stream", "context"]
    assert all(isinstance(event, Copy) for event in tracer.events[:4])
    assert all(isinstance(event, Sync) for event in tracer.events[4:])


def test_launches_of_kernels_are_not_called_back(fake):
    tracer = Tracer(fake.cupti)
    tracer.start()
    names = {fake.cupti.RuntimeApiTraceCbid(cbid).name for domain, cbid in fake.cupti.STATE.callbacks if domain == 2}
    tracer.stop()
    # A graph may contain copies, so its launch is one of these calls.
    assert names == {"cudaMemcpyAsync_v3020", "cudaStreamSynchronize_v3020", "cudaGraphLaunch_v10000"}


def test_waiting_for_work_is_not_the_programs(fake):
    tracer = Tracer(fake.cupti, settle=lambda: fake.gpu.synchronize(4))
    tracer.start()
    fake.gpu.synchronize(3)
    tracer.read()
    fake.gpu.copy()
    tracer.stop()
    assert [event.name for event in tracer.events] == ["stream", "d2h"]


def test_a_copy_of_another_thread_while_waiting_is_the_programs(fake):
    def settle() -> None:
        other = threading.Thread(target=fake.gpu.copy)
        other.start()
        other.join()

    tracer = Tracer(fake.cupti, settle=settle)
    tracer.start()
    tracer.stop()
    assert len(tracer.copies) == 1


def test_a_record_whose_call_was_not_seen_is_still_reported(fake):
    tracer = Tracer(fake.cupti)
    tracer.start()
    fake.cupti.STATE.callbacks.clear()
    fake.gpu.copy()
    tracer.stop()
    assert tracer.copies[0].call is UNSEEN
    assert "no Python call site" in str(tracer.copies[0])


def test_frames_of_libraries_are_passed_over_and_the_innermost_taken_if_there_is_no_other(fake, tmp_path):
    source = "def read(f):\n    f()\n"
    library = str(tmp_path / "site-packages" / "lib.py")
    own, foreign = {}, {}
    exec(compile(source, str(tmp_path / "own.py"), "exec"), own)
    exec(compile(source, library, "exec"), foreign)
    found = []
    sites = CallSites([str(tmp_path / "vendored")])
    own["read"](lambda: foreign["read"](lambda: found.append(sites.of(sys._getframe(1)))))
    assert (found[0].file, found[0].function.rpartition(".")[2]) == (__file__, "<lambda>")
    foreign["read"](lambda: own["read"](lambda: found.append(sites.of(sys._getframe(1)))))
    assert found[1][:2] == (str(tmp_path / "own.py"), 2)
    assert sites.of(None) is None
    frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=library, co_qualname="read"), f_lineno=2, f_back=None)
    assert sites.of(frame)[:2] == (library, 2)


@pytest.mark.parametrize(
    ("file", "library"),
    [
        (threading.__file__, True),
        (pytest.__file__, True),
        (sys.modules["fluxperf"].__file__, True),
        ("<frozen runpy>", True),
        ("<__array_function__ internals>", True),
        ("/tmp/torchinductor_me/ab/cab.py", True),
        ("<string>", False),
        ("<stdin>", False),
        ("script.py", False),
        ("/elsewhere/fluxperf_like/x.py", False),
    ],
)
def test_which_code_is_a_librarys(file, library):
    assert CallSites()._judged(file)[0] == library


def test_dropped_records_raise_wherever_they_are_noticed(fake):
    tracer = Tracer(fake.cupti)
    tracer.start()
    fake.gpu.copy(drop=True)
    with pytest.raises(DeviceError, match="dropped 1 record,"):
        tracer.read()
    fake.gpu.copy(drop=True)
    with pytest.raises(DeviceError, match="dropped 1 record,"):
        tracer.stop()


def test_the_witness_of_a_region_counts(fake):
    with Witness(fake.cupti) as seen:
        x = fake.gpu.Array([1.0, 2.0])
        x.item()
        fake.gpu.launch()
        fake.gpu.launch("other")
    totals = seen.totals
    assert (totals.h2d_copies, totals.h2d_bytes, totals.d2h_copies, totals.d2h_bytes) == (1, 16, 1, 16)
    assert (totals.launches, totals.syncs) == (2, 1)
    assert seen.kernels["other"].seconds == pytest.approx(3e-6)


def test_the_witness_of_a_region_tells_of_dropped_records_unless_another_error_comes(fake):
    with pytest.raises(DeviceError, match="dropped"), Witness(fake.cupti):
        fake.gpu.copy(drop=True)

    def fails() -> None:
        with Witness(fake.cupti):
            fake.gpu.copy(drop=True)
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        fails()


def test_a_paused_witness_counts_nothing_not_even_the_waits_at_both_ends(fake):
    def wait() -> None:
        waits.append(fake.gpu.synchronize(4))

    waits: list[object] = []
    with Witness(fake.cupti) as seen:
        fake.gpu.launch()
        with seen.paused(wait), seen.paused(wait):
            fake.gpu.launch("trial")
            fake.gpu.Array([1.0, 2.0]).item()
        fake.gpu.launch("other")
    assert len(waits) == 2, "the inner pause is within the outer one"
    assert {name: kernel.launches for name, kernel in seen.kernels.items()} == {"kernel": 1, "other": 1}
    assert (seen.totals.h2d_copies, seen.totals.d2h_copies, seen.totals.syncs) == (0, 0, 0)


def test_work_that_is_queued_at_the_ends_of_a_pause_is_counted_where_it_belongs(fake):
    """A GPU runs behind the host: without the waits a forward would lose kernels, or gain those of a trial."""
    queued = ["forward", "trial"]
    with Witness(fake.cupti) as seen, seen.paused(lambda: fake.gpu.launch(queued.pop(0))):
        pass
    assert not queued
    assert list(seen.kernels) == ["forward"]


def test_a_trial_that_fails_does_not_end_the_count(fake):
    with Witness(fake.cupti) as seen:
        with pytest.raises(ValueError, match="planted"), seen.paused(lambda: None):
            raise ValueError("planted")
        fake.gpu.launch()
        with seen.paused(lambda: None):
            fake.gpu.launch("trial")
    assert list(seen.kernels) == ["kernel"]


def test_transfers_so_far(fake):
    counted = Transfers(fake.cupti)
    counted.start()
    assert (counted.d2h, counted.h2d, counted.syncs) == (0, 0, 0)
    x = fake.gpu.Array([1.0, 2.0])
    assert (counted.h2d, counted.h2d_bytes, counted.d2h) == (1, 16, 0)
    x.item()
    assert (counted.d2h, counted.d2h_bytes, counted.syncs) == (1, 16, 1)
    assert [copy.name for copy in counted.copies] == ["h2d", "d2h"]
    counted.stop()


def test_bindings_without_callbacks_are_refused(fake):
    without = SimpleNamespace(ActivityKind=fake.cupti.ActivityKind)
    with pytest.raises(DeviceError, match="callback API"):
        Tracer(without)


def test_a_library_that_knows_none_of_the_calls_is_refused(fake, monkeypatch):
    monkeypatch.setenv("FAKE_CUPTI", "strange")
    with pytest.raises(DeviceError, match="expected to start CUPTI, but it refused"):
        Tracer().start()
    monkeypatch.delenv("FAKE_CUPTI")
    tracer = Tracer()
    tracer.start()
    assert 554 not in {number for _, number in fake.cupti.STATE.callbacks}, "newer than the library, and skipped"
    tracer.stop()


@pytest.mark.parametrize("spelled", ["runtime_api_trace_cbid", "Runtime_api_trace_cbid"])  # 12.8 and 13.0; between
def test_older_bindings_name_their_lists_otherwise(fake, monkeypatch, spelled):
    for name in ("Runtime", "Driver"):
        other = f"{name if spelled[0].isupper() else name.lower()}_api_trace_cbid"
        monkeypatch.setattr(fake.cupti, other, getattr(fake.cupti, f"{name}ApiTraceCbid"), False)
        monkeypatch.delattr(fake.cupti, f"{name}ApiTraceCbid")
    tracer = Tracer(fake.cupti)
    tracer.start()
    assert len(fake.cupti.STATE.callbacks) == 6
    tracer.stop()


def test_bindings_without_their_lists_are_refused_and_leave_no_subscriber(fake, monkeypatch):
    with monkeypatch.context() as patched:
        patched.delattr(fake.cupti, "DriverApiTraceCbid")
        with pytest.raises(DeviceError, match="lists no calls of the driver API"):
            Tracer(fake.cupti).start()
    tracer = Tracer(fake.cupti)
    tracer.start()
    tracer.stop()


def test_ranges_of_domains_nest_on_their_own():
    ranges = Ranges()
    ranges.push("a")
    ranges.push("b", domain=1)
    ranges.pop()
    assert ranges.open() == ("b",)
    ranges.pop()
    ranges.pop(1)
    ranges.push(None)
    assert ranges.open() == ("(unnamed)",)
    assert ranges.seen == {"a", "b", "(unnamed)"}


def test_a_query_of_an_event_is_no_wait_though_its_record_has_that_type(fake):
    asked = {"kind": 38, "type": 1, "start": 1000, "end": 6000, "device_id": 0, "stream_id": 7, "graph_node_id": 0}
    tracer = Tracer(fake.cupti)
    tracer.start()
    fake.cupti.call("cudaLaunchKernel_v7000", "cuLaunchKernel", asked)  # a call that can neither copy nor block
    fake.gpu.synchronize(1)
    tracer.stop()
    assert [event.name for event in tracer.events] == ["event"]
    with Witness(fake.cupti) as seen:
        fake.cupti.call("cudaLaunchKernel_v7000", "cuLaunchKernel", asked)
        fake.gpu.synchronize(1)
    assert seen.totals.syncs == 1
