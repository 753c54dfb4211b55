"""Revisions: the order of commits in a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path


def is_shallow(checkout: Path) -> bool:
    """Whether a checkout lacks commits because it was cloned with limited depth."""
    return _said(checkout, "rev-parse", "--is-shallow-repository").strip() == "true"


def moments(checkout: Path) -> dict[str, str]:
    """Date of each commit of a checkout, as ISO 8601; empty if there is no checkout."""
    listed = _said(checkout, "log", "--all", "--format=%H %cI").splitlines()
    return {commit: moment for commit, _, moment in (line.partition(" ") for line in listed)}


def positions(checkout: Path) -> dict[str, int]:
    """Position of every commit of a checkout, parents before children; empty if there is no checkout."""
    listed = _said(checkout, "rev-list", "--date-order", "--reverse", "--all").split()
    return {commit: position for position, commit in enumerate(listed)}


def _said(checkout: Path, *words: str) -> str:
    """Output of git; empty if it fails. Its error messages may contain bytes that are not text."""
    command = ["git", "-C", str(checkout), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=60)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout
