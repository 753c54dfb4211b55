"""The pytest plugin, in test runs of its own on CUPTI's stand-in."""

from __future__ import annotations

import pytest

from tests.contracts import tree
from tests.witness.conftest import PACKAGES, plugin

GPU = "from fluxperf.harness.timeline import driver\ndriver.device_count = lambda: 1\n"

TESTS = """
import fakegpu, pytest

X = None

@pytest.fixture
def x():
    return fakegpu.Array([1.0, 2.0])

@pytest.mark.no_transfers
def test_clean(x):
    fakegpu.launch()
    fakegpu.synchronize()

@pytest.mark.no_transfers
def test_reads(x):
    float(x[0])

@pytest.mark.no_transfers
def test_fails_by_itself(x):
    x.item()
    raise ValueError("planted")

def test_fixture(x, transfers):
    assert transfers.d2h == 0
    x.item()
    assert (transfers.d2h, transfers.d2h_bytes, transfers.h2d, transfers.syncs) == (1, 16, 0, 1)
    assert transfers.copies[0].call.site.line == 25

@pytest.mark.no_transfers
def test_both(transfers):
    fakegpu.copy()

@pytest.mark.no_transfers
def test_reads_before_the_body(transfers, x):
    assert transfers.h2d == 1

def test_unmarked(x):
    x.item()
"""


@pytest.fixture
def tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest on a file of tests in a process of its own, with the plugin."""
    monkeypatch.setenv("PYTHONPATH", f"{tree.ROOT}:{PACKAGES}")
    monkeypatch.setenv("PYTEST_ADDOPTS", "")

    def run(text: str, *options: str, conftest: str = GPU) -> pytest.RunResult:
        pytester.makeconftest(conftest)
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess(*plugin(), "--strict-markers", "-W", "error", *options)

    return run


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_copies_in_a_body_fail_the_test_and_are_named(tests, options):
    done = tests(TESTS, *options)
    done.assert_outcomes(passed=4, failed=3)
    done.stdout.fnmatch_lines(["no_transfers: expected no host-device copy, got 1:"])
    done.stdout.fnmatch_lines(["  d2h of 8 bytes (device to pageable) at *.py:16 in test_reads"])
    done.stdout.fnmatch_lines(["  d2h of 8 bytes (device to pageable) at *.py:31 in test_both"])
    done.stdout.fnmatch_lines(["*ValueError: planted"])


def test_without_a_gpu_tests_are_skipped_with_the_reason(tests):
    done = tests(TESTS, "-rs", conftest=GPU.replace("1", "0"))
    done.assert_outcomes(passed=1, skipped=6)
    done.stdout.fnmatch_lines(
        ["*needs an NVIDIA GPU with a working driver: host-device copies are counted through CUPTI*"]
    )


def test_unused_it_imports_nothing(tests):
    done = tests(
        """
        import sys

        def test_nothing():
            assert not [name for name in sys.modules if name.startswith(("cupti", "numpy", "fluxperf.harness"))]
        """,
        conftest="",
    )
    done.assert_outcomes(passed=1)


def test_dropped_records_are_no_pass(tests):
    done = tests(
        """
        import fakegpu, pytest

        @pytest.mark.no_transfers
        def test_drops():
            fakegpu.copy(drop=True)
        """
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*dropped 1 record,*"])


def test_a_gpu_whose_cupti_is_taken_is_no_pass(tests, monkeypatch):
    monkeypatch.setenv("FAKE_CUPTI", "busy")
    done = tests("import pytest\n\n@pytest.mark.no_transfers\ndef test_it():\n    pass\n")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*expected to start CUPTI, but it refused*"])
