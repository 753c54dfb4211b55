"""Revisions: the order of commits, as a git checkout knows it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def is_shallow(checkout: Path) -> bool:
    """Whether a checkout lacks commits because it was cloned with a depth."""
    command = ["git", "-C", str(checkout), "rev-parse", "--is-shallow-repository"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "true"
    except (OSError, subprocess.SubprocessError):
        return False


def moments(checkout: Path) -> dict[str, str]:
    """When each commit that a checkout knows was made, as ISO 8601; nothing where there is no checkout."""
    command = ["git", "-C", str(checkout), "log", "--all", "--format=%H %cI"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {commit: moment for commit, _, moment in (line.partition(" ") for line in listed)}


def positions(checkout: Path) -> dict[str, int]:
    """Position of every commit that a checkout knows, parents before children; nothing where there is no checkout."""
    command = ["git", "-C", str(checkout), "rev-list", "--date-order", "--reverse", "--all"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {commit: position for position, commit in enumerate(listed)}
