"""FLUX.1 configurations: the published models, and small ones of the same structure for machines without a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from fluxperf.errors import ConfigError, UnknownNameError


@dataclass(frozen=True)
class FluxConfig:
    """Sizes of a FLUX.1 transformer, in elements unless a field says otherwise.

    Source: ``config.json`` of black-forest-labs/FLUX.1-schnell and FLUX.1-dev, in the terms of diffusers'
    ``FluxTransformer2DModel``. ``guidance`` says whether the model embeds a guidance scale (dev) or not (schnell).
    ``axes`` splits the head dimension among the three RoPE axes (0, row, column); ``theta`` is RoPE's base. ``inner``
    says that the blocks stand for those inside a larger model: even the last one computes its text tokens.
    """

    name: str
    double_blocks: int = 19
    single_blocks: int = 38
    heads: int = 24
    head_dim: int = 128
    in_channels: int = 64
    text_dim: int = 4096
    pooled_dim: int = 768
    mlp_ratio: int = 4
    axes: tuple[int, int, int] = (16, 56, 56)
    theta: int = 10_000
    guidance: bool = False
    inner: bool = False

    #: Number of sinusoidal features of a timestep or a guidance scale.
    time_features = 256

    @property
    def dim(self) -> int:
        """Width of the residual stream, D."""
        return self.heads * self.head_dim

    @property
    def mlp_dim(self) -> int:
        """Width of the MLP, M."""
        return self.dim * self.mlp_ratio

    @property
    def modulation_rows(self) -> int:
        """Rows of all modulation projections, stacked: 6 D per double block and stream, 3 D per single, 2 D final."""
        return self.dim * (12 * self.double_blocks + 3 * self.single_blocks + 2)

    def __post_init__(self) -> None:
        if sum(self.axes) != self.head_dim or any(axis % 2 for axis in self.axes):
            raise ConfigError(
                f"model {self.name!r}: expected even RoPE axes that sum to the head dimension {self.head_dim}, "
                f"got {self.axes}."
            )


_TINY = {"double_blocks": 2, "single_blocks": 2, "heads": 4, "head_dim": 16, "axes": (4, 6, 6)}
_TINY_TEXT = {"text_dim": 32, "pooled_dim": 24, "in_channels": 64}

CONFIGS: dict[str, FluxConfig] = {
    config.name: config
    for config in (
        FluxConfig("schnell"),
        FluxConfig("dev", guidance=True),
        # One block of each kind at full width. It starts in seconds, and a block takes as long as in the real model.
        FluxConfig("schnell-blocks", double_blocks=1, single_blocks=1, inner=True),
        FluxConfig("tiny", **_TINY, **_TINY_TEXT),  # type: ignore[arg-type]
        FluxConfig("tiny-dev", **_TINY, **_TINY_TEXT, guidance=True),  # type: ignore[arg-type]
        # The depth of FLUX.1 at the width of tiny: its copy counts are those of the real model.
        FluxConfig("tiny-57", **{**_TINY, "double_blocks": 19, "single_blocks": 38}, **_TINY_TEXT),  # type: ignore[arg-type]
    )
}


def config_named(name: str) -> FluxConfig:
    """Configuration with that name.

    Raises:
        UnknownNameError: there is none; the message lists the known ones.
    """
    try:
        return CONFIGS[name]
    except KeyError:
        raise UnknownNameError("model", name, CONFIGS) from None
