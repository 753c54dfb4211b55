// product_heads: a QKV product in bfloat16 on Hopper, finished as qkv_heads: bias, RMS norm of Q and K, rotation, layout by head.
//
//     u = x W^T + bias;  q, k, v = split(u);  q, k -> rotate(y / sqrt(mean(y^2) + eps) * norm, cos, sin)
//
// Shapes: X [M, K], W [3 H 128, K]; `to` [3 H, L, 128], the heads of q, k and v behind each other; bias [3 H 128], norms [128]; cos
// and sin [M, 128] float32, contiguous. M tokens of a stream; one stream, or two with projections of their own,
// whose tokens follow each other by `start` and not by their order here. Blocks: along x, at most as many as multiprocessors.
// Numerics: those of a product in bfloat16 and qkv_heads: float32 sums rounded to bfloat16, float32 behind them, rounded again.
// Alignment: 16 bytes everywhere.
//
// Versions: 128x256, two heads in a tile, so that a head's row lies in one warp.
#include "common/epilogue_heads.cuh"

TWO_PRODUCT(
    product_heads_128x256, Tile128x256,
    (const __grid_constant__ HeadsOf first, const __grid_constant__ HeadsOf second, const __grid_constant__ PlainHeadsOf to),
    Heads epilogue(first, second, to)
)
