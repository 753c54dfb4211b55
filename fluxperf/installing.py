"""The install command of an extra, from the source of the installed fluxperf, as it is on no package index."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlparse


def install_command(extra: str = "") -> str:
    """A shell command for the running interpreter, such as ``/env/bin/python -m pip install -e '/checkout[cuda12]'``.

    Args:
        extra: name of the extra, or several with commas; none for a plain install.
    """
    try:
        origin = json.loads(distribution("fluxperf").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    return f"{shlex.quote(sys.executable)} -m pip install {_source(origin, f'[{extra}]' if extra else '')}"


def _source(origin: dict[str, object], extras: str) -> str:
    """The requirement for pip; ``origin`` is pip's ``direct_url.json`` (packaging.python.org, "Direct URL")."""
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        editable = "-e " if dict(origin["dir_info"]).get("editable") else ""  # type: ignore[call-overload]
        return editable + shlex.quote(unquote(urlparse(url).path) + extras)
    if isinstance(version := origin.get("vcs_info"), dict):
        url = f"{version['vcs']}+{url}@{version['commit_id']}"
    return shlex.quote(f"fluxperf{extras} @ {url}" if url else f"fluxperf{extras}")
