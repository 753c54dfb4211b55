"""Packing: patches of 2 x 2 latent pixels are the tokens of the transformer.

Source: ``prepare`` and ``unpack`` in black-forest-labs/flux ``sampling.py``. A token's features are ordered by channel,
then row in the patch, then column in the patch.
"""

from __future__ import annotations

from typing import Any


def packed(latents: Any) -> Any:
    """Tokens [B, (h/2) (w/2), 4 C] of latents [B, C, h, w]: tensors or NumPy arrays; copies."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    # [b, c, y, p, x, q] -> [b, y, x, c, p, q], by axis exchanges that tensors and arrays both have.
    patches = patches.swapaxes(1, 2).swapaxes(2, 4).swapaxes(3, 4)
    return patches.reshape(batch, height // 2 * (width // 2), 4 * channels)


def unpacked(tokens: Any, rows: int, columns: int) -> Any:
    """Latents [B, C, 2 rows, 2 columns] of tokens [B, rows columns, 4 C]; the reverse of `packed`."""
    batch, _, features = tokens.shape
    patches = tokens.reshape(batch, rows, columns, features // 4, 2, 2)
    # [b, y, x, c, p, q] -> [b, c, y, p, x, q]
    patches = patches.swapaxes(1, 3).swapaxes(2, 3).swapaxes(3, 4)
    return patches.reshape(batch, features // 4, 2 * rows, 2 * columns)
