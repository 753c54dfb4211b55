// product_heads_fp8: an e4m3 QKV product on Hopper with qkv_heads_fp8 as epilogue, except for the last step of V.
//
//     u = (x W^T) rows columns + bias;  q, k, v = split(u);  q, k -> rotate(y / sqrt(mean(y^2) + eps) * norm, cos, sin)
//
// Shapes: X [M, K], W [3 H 128, K] e4m3; rows [M], columns [3 H 128] float32, powers of two; bias [3 H 128], norms [128]; cos and
// sin [M, 128] float32, contiguous; q and k [H, L, 128] e4m3, v [H, L, 128] bf16, from token `start` on; peaks [blocks, 3] float32.
// M tokens of a stream; one stream, or two with projections of their own, whose order in the joint sequence is given by `start`.
// Blocks: along x, at most one per multiprocessor.
// Numerics: the tensor core's sums rounded to bfloat16, before their scales; a float32 epilogue. Q and K round again to e4m3, by
// the scales of qkv_heads_fp8. V rounds to bf16, and then to e4m3 in quantize_values, as its scale is that of the largest value of
// all tokens.
// Alignment: 16 bytes everywhere.
//
// Versions: 128x256, two heads per tile, so that a head's row is in one warp.
#include "common/epilogue_heads.cuh"

TWO_PRODUCT(
    product_heads_fp8_128x256, Tile128x256,
    (const __grid_constant__ HeadsOf first, const __grid_constant__ HeadsOf second, const __grid_constant__ ScalesOf first_scales,
     const __grid_constant__ ScalesOf second_scales, const __grid_constant__ ScaledHeadsOf to),
    ScaledHeads epilogue(first, second, first_scales, second_scales, to)
)
