// product_fp8: D = X W^T of e4m3 operands on Hopper, with scales and epilogue in the same launch.
//
//     D = (X W^T) rows columns;  gated: residual + gate (D + bias), for one sample;  gelu: GELU(D + bias) in e4m3
//     halves: as gated, with D = (X1 W1^T ahead + X2 W2^T rows) columns, X = [X1, X2] and W = [W1, W2] along K
//
// Shapes: X [M, K], W [N, K] e4m3; rows [M], columns [N] float32, powers of two; residual and its result [M, N] bf16; bias and gate [N];
// halves: ahead [M], X1 and W1 are the first `turn` steps of 128 of K, 0 < 128 turn < K;
// gelu: data [M, N] e4m3 with any row stride, powers [M], bounds of the lengths of X's rows [M]. Any M and K; N a multiple of the
// tile's. Blocks: along x, as many as there are multiprocessors or fewer.
// Numerics: the tensor core's sums, a float32 epilogue. GELU's product is rounded to bfloat16, before its scales, on its way to the
// epilogue warps; its result's scales are fixed before the product: see ScaledGelu. All others round once.
// Alignment: 16 bytes for addresses and rows of matrices and for GELU's vectors; 4 for gate and bias.
//
// Versions, by tile: 192x192, three warpgroups of 64 rows multiply; 128x256, two. As in product.
#include "common/epilogue_halves.cuh"

#define TILES(NAME, STAGED, FINISHED)                                                                                      \
    PRODUCT(NAME##_plain, STAGED, (const __grid_constant__ TensorMap to), Plain<E4m3> epilogue(to))                        \
    PRODUCT(                                                                                                               \
        NAME##_gated, STAGED,                                                                                              \
        (const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, const float* rows,                  \
         const float* columns, const bf16* gate, const bf16* bias, int row_stride),                                        \
        ScaledGated epilogue(from, to, rows, columns, gate, bias, row_stride)                                              \
    )                                                                                                                      \
    PRODUCT(                                                                                                               \
        NAME##_halves, STAGED,                                                                                             \
        (const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, const float* rows,                  \
         const float* columns, const bf16* gate, const bf16* bias, const float* ahead, int row_stride, int ahead_stride,   \
         int turn),                                                                                                        \
        HalvesGated epilogue({from, to, rows, columns, gate, bias, row_stride}, ahead, ahead_stride, turn)                 \
    )                                                                                                                      \
    PRODUCT(                                                                                                               \
        NAME##_gelu, FINISHED,                                                                                             \
        (const float* rows, const float* columns, const float* lengths, const bf16* bias, e4m3* data, float* powers,       \
         i64 stride, float reach),                                                                                         \
        ScaledGelu epilogue = {rows, columns, lengths, bias, data, powers, stride, reach}                                  \
    )

TILES(product_fp8_192x192, Tile192x192Staged, Tile192x192)
TILES(product_fp8_128x256, Tile128x256Staged, Tile128x256)
