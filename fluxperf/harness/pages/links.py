"""Links from a page to its evidence."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from fluxperf.harness.places import is_url

#: URL schemes that a browser opens. Others (buckets, archives, chains of fsspec) are shown as text.
_FOLLOWED = ("https://", "http://")

#: Characters that stay unchanged in an existing URL.
_OF_URLS = "%/:?#[]@!$&()*+,;=~"


def link_to(file: str, home: Path | None) -> str:
    """The link from a page to a file, relative to the page's folder, or to its URL.

    For any file name the result is ASCII, uses no other scheme than that of the page or HTTP, and cannot end an
    attribute.

    Args:
        file: path of a file, or its URL; "" for none.
        home: the page's folder; ``None`` for a page without one.

    Returns:
        The link; "" if there is no folder, no file, or no URL that a browser opens.
    """
    if is_url(file):
        return quote(file, safe=_OF_URLS) if file.lower().startswith(_FOLLOWED) else ""
    if not file or home is None or "\0" in file or not os.path.isfile(file):
        return ""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(home))
    # The dot keeps a name with a colon from being read as a scheme, and one with two slashes as a host.
    return f"./{quote(os.fsencode(path), safe='/')}"
