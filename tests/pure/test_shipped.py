"""Outside of a checkout, the package's own default files are used."""

from __future__ import annotations

import tomllib
from pathlib import Path

from fluxperf.shipped import BASELINES, POLICY, present
from tests.contracts import tree


def test_a_default_that_is_not_here_is_the_packages_own(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert present(POLICY) == tree.ROOT / POLICY
    assert present(BASELINES / "host.jsonl") == tree.ROOT / BASELINES / "host.jsonl"
    assert present(Path("mine.toml")) == Path("mine.toml"), "a name of one's own is never replaced"
    POLICY.parent.mkdir()
    POLICY.write_text("")
    assert present(POLICY) == POLICY, "one that is here comes first"


def test_a_wheel_has_them():
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for path in (POLICY, BASELINES):
        assert included[str(path)] == f"fluxperf/{path}"
