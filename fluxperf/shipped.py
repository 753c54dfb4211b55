"""Files of the repository that are part of the package: the policy, and its baselines."""

from __future__ import annotations

from pathlib import Path

import fluxperf

POLICY = Path("reports/policy.toml")
BASELINES = Path("reports/baselines")


def present(path: Path) -> Path:
    """The path itself; for a missing default path, as outside of a checkout, fluxperf's own file of that name.

    A wheel contains it inside the package, a checkout beside it.
    """
    default = path == POLICY or path.is_relative_to(BASELINES)
    if path.exists() or not default:
        return path
    package = Path(fluxperf.__file__).resolve().parent
    return next((own for own in (package / path, package.parent / path) if own.exists()), path)
