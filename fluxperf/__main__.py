"""``python -m fluxperf`` is the ``fluxperf`` command."""

from __future__ import annotations

from fluxperf.cli import main

if __name__ == "__main__":
    main()
