"""Templates and other files of ``assets/``, and how each becomes text of a page.

Each package of pages has its files in its own folder ``assets``. The macros, the style sheet and the script of all
pages are in this package.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fluxperf.harness.text.escape import neutral

_SHARED = "fluxperf.harness.pages"


@cache
def environment(package: str) -> Environment:
    """The Jinja environment for a package's templates: everything is escaped, and an unknown name is an error."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(name, "assets") for name in (package, _SHARED)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    made.filters["shape"] = lambda block: type(block).__name__
    return made


def asset(name: str, package: str = _SHARED) -> str:
    """The text of a file of a package's ``assets/``."""
    return (resources.files(package) / "assets" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The hash of a script for a content security policy: its SHA-256, in base64."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _harmless(value: Any) -> Any:
    """A template's value without characters that hide or reorder text. Our own markup is not changed."""
    return neutral(value) if isinstance(value, str) and not isinstance(value, Markup) else value
