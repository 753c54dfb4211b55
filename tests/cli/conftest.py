from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from fluxperf.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def fluxperf(monkeypatch, capsys):
    """Runs the command line in this process, from its arguments to its exit code."""

    def call(*arguments) -> Result:
        monkeypatch.setattr(sys, "argv", ["fluxperf", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
