"""Files of the repository that come with the package: the policy, and the baselines that it compares with."""

from __future__ import annotations

from pathlib import Path

import fluxperf

POLICY = Path("reports/policy.toml")
BASELINES = Path("reports/baselines")


def present(path: Path) -> Path:
    """The path itself; where it is a default that is not here, as outside of a checkout, fluxperf's own of that name.

    A wheel has it inside the package, a checkout beside it.
    """
    default = path == POLICY or path.is_relative_to(BASELINES)
    if path.exists() or not default:
        return path
    package = Path(fluxperf.__file__).resolve().parent
    return next((own for own in (package / path, package.parent / path) if own.exists()), path)
