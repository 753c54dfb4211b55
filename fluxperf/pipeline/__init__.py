"""From a prompt to a picture. Text encoders and VAE run in PyTorch; transformer, sampler and packing are fluxperf's."""

from __future__ import annotations
