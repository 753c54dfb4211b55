"""FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
