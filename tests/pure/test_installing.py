"""The command that installs an extra names the source that fluxperf was installed from."""

from __future__ import annotations

import sys

import pytest

from fluxperf.installing import _source, install_command


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ({"url": "file:///a/b%20c", "dir_info": {"editable": True}}, "-e '/a/b c[cuda12]'"),
        ({"url": "file:///checkout", "dir_info": {}}, "'/checkout[cuda12]'"),
        ({"url": "file:///w/fluxperf-0.1.0-py3-none-any.whl", "archive_info": {}},
         "'fluxperf[cuda12] @ file:///w/fluxperf-0.1.0-py3-none-any.whl'"),
        ({"url": "https://host/f.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
         "'fluxperf[cuda12] @ git+https://host/f.git@abc'"),
        ({}, "'fluxperf[cuda12]'"),
    ],
)  # fmt: skip
def test_what_pip_is_given(origin, source):
    assert _source(origin, "[cuda12]") == source


def test_the_command_is_for_this_interpreter():
    assert install_command("cuda12").startswith(f"{sys.executable} -m pip install ")
    assert "[cuda12]" in install_command("cuda12")
    assert "[" not in install_command().split("install ")[1]
