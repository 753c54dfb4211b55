"""Links from a page to the evidence that it was made of."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from fluxperf.harness.places import is_url

#: URLs that a browser follows. Others (buckets, archives, chains of fsspec) are said in words.
_FOLLOWED = ("https://", "http://")

#: Characters that stay as they are in a URL that is one already.
_OF_URLS = "%/:?#[]@!$&()*+,;=~"


def link_to(file: str, home: Path | None) -> str:
    """Where a link leads that stands in a page: to a file's place as seen from the page's folder, or to its URL.

    Whatever the file is called, what comes out is ASCII, leads to a place below no other scheme than that of the page
    or HTTP, and ends no attribute.

    Args:
        file: path of a file, or its URL; "" for none.
        home: the page's folder; ``None`` for a page that has no place.

    Returns:
        The link; "" where there is none: without a place, to what is not there, and to what no browser opens.
    """
    if is_url(file):
        return quote(file, safe=_OF_URLS) if file.lower().startswith(_FOLLOWED) else ""
    if not file or home is None or "\0" in file or not os.path.isfile(file):
        return ""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(home))
    # The dot keeps a name with a colon from being a scheme, one with two slashes from being a host.
    return f"./{quote(os.fsencode(path), safe='/')}"
