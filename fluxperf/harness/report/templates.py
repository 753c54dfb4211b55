"""Templates and other files of ``assets/``: how each becomes text of a page."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fluxperf.harness.text.escape import neutral


def environment() -> Environment:
    """Jinja for this package: everything is escaped, and a name that is missing is an error."""
    return Environment(
        loader=PackageLoader("fluxperf.harness.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )


def asset(name: str) -> str:
    """The text of a file of ``assets/``."""
    return (resources.files("fluxperf.harness.report") / "assets" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """What a content security policy calls a script: its SHA-256, in base64."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _harmless(value: Any) -> Any:
    """Whatever a template prints, without characters that hide or reorder text; markup is ours and stays."""
    return neutral(value) if isinstance(value, str) and not isinstance(value, Markup) else value
