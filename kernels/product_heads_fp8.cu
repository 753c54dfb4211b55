// product_heads_fp8: an e4m3 QKV product on Hopper with qkv_heads_fp8 as epilogue.
//
//     u = (x W^T) rows columns + bias;  q, k, v = split(u);  q, k -> rotate(y / sqrt(mean(y^2) + eps) * norm, cos, sin)
//
// Shapes: X [M, K], W [3 H 128, K] e4m3; rows [M] float32, powers of two, and lengths [M] float32, upper bounds of the lengths of X's
// rows, both `row_stride` apart; columns [3 H 128] float32; bias [3 H 128], norms [128]; cos and sin [M, 128] float32, contiguous; q, k
// and v [H, L, 128] e4m3, from token `start` on; powers [5] float32: the scales of q, k and v, that of v's largest value, and v's
// divided by it; tally [2] unsigned, zero before and after a launch; reach: 448 sqrt(K). M tokens of a stream; one stream, or two with
// projections of their own, whose order in the joint sequence is given by `start`.
// Blocks: along x, at most one per multiprocessor.
// Numerics: the tensor core's sums rounded to bfloat16, before their scales; a float32 epilogue, which rounds once more, to e4m3. Q
// and K have the scales of qkv_heads_fp8. V has one that is an upper bound: max over streams of max |length| reach columns + |bias|.
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
