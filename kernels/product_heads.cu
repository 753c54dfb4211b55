// product_heads: a QKV product in bfloat16 on Hopper with qkv_heads as epilogue: bias, RMS norm of Q and K, rotation, layout by
// head.
//
//     u = x W^T + bias;  q, k, v = split(u);  q, k -> rotate(y / sqrt(mean(y^2) + eps) * norm, cos, sin)
//
// Shapes: X [M, K], W [3 H 128, K]; `to` [3 H, L, 128], the heads of q, then of k, then of v; bias [3 H 128], norms [128]; cos and
// sin [M, 128] float32, contiguous. M tokens of a stream; one stream, or two with projections of their own, whose order in the
// joint sequence is given by `start`. Blocks: along x, at most one per multiprocessor.
// Numerics: as a bfloat16 product and qkv_heads: float32 sums rounded to bfloat16, a float32 epilogue, rounded again.
// Alignment: 16 bytes everywhere.
//
// Versions: 128x256, two heads per tile, so that a head's row is in one warp.
#include "common/epilogue_heads.cuh"

TWO_PRODUCT(
    product_heads_128x256, Tile128x256,
    (const __grid_constant__ HeadsOf first, const __grid_constant__ HeadsOf second, const __grid_constant__ PlainHeadsOf to),
    Heads epilogue(first, second, to)
)
