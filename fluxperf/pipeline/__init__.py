"""From a prompt to a picture: text encoders and VAE are PyTorch's, transformer, sampler and packing are fluxperf's."""

from __future__ import annotations
