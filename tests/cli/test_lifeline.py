"""A measuring process ends with the command that started it, even if that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluxperf import lifeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the child")

CHILD = (
    "import os, time; from fluxperf.lifeline import follow; follow(); print(os.getpid(), flush=True); time.sleep(600)"
)
PARENT = """
import os, subprocess, sys
from fluxperf.lifeline import led
subprocess.run([sys.executable, "-c", sys.argv[1]], env={**os.environ, **led()})
"""


def test_a_child_ends_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()
    while _runs(child):  # the kernel has sent the signal already
        time.sleep(0.01)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_whose_parent_is_gone_ends_at_once(monkeypatch):
    monkeypatch.setenv(lifeline.PARENT, "1")
    monkeypatch.setattr(os, "getppid", lambda: 2)
    monkeypatch.setattr(lifeline.ctypes, "CDLL", lambda name: type("C", (), {"prctl": staticmethod(lambda *_: 0)}))
    with pytest.raises(SystemExit) as end:
        lifeline.follow()
    assert end.value.code == 128 + signal.SIGTERM
    assert lifeline.PARENT not in os.environ


def test_a_process_that_nobody_leads_goes_on(monkeypatch):
    monkeypatch.delenv(lifeline.PARENT, raising=False)
    lifeline.follow()


def test_measuring_processes_are_led(tmp_path):
    from fluxperf.harness.measure.processes import replicate

    program = f"import os, sys; open({str(tmp_path / 'seen')!r}, 'w').write(os.environ['{lifeline.PARENT}'])"
    replicate([sys.executable, "-c", program], 1, tmp_path)
    assert (tmp_path / "seen").read_text() == str(os.getpid())
