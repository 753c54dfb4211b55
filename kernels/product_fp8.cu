// product_fp8: D = X W^T of numbers in e4m3 on Hopper, finished behind their scales in the same launch.
//
//     D = (X W^T) rows columns;  gated: residual + gate (D + bias), for one sample;  gelu: GELU(D + bias) in e4m3
//
// Shapes: X [M, K], W [N, K] e4m3; rows [M], columns [N] float32, powers of two; residual and its result [M, N] bf16; bias and gate [N];
// gelu: data [M, N] e4m3 with any row stride, powers [M], bounds of the lengths of X's rows [M]. Any M and K; N a multiple of the
// tile's. Blocks: along x, as many as there are multiprocessors or fewer.
// Numerics: the tensor core's sums, float32 behind them; rounds once. GELU's scales are known beforehand: see ScaledGelu.
// Alignment: addresses and rows of matrices 16 bytes.
//
// Versions, by tile: 192x192, three warpgroups of 64 rows multiply; 128x256, two. As in product.
#include "common/epilogues.cuh"

#define PRODUCT_FP8(NAME, M, N, STAGES)                                                                                    \
    extern "C" __global__ void __launch_bounds__(2 * M + 128, 1) NAME##_plain(                                             \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap to,    \
        const Shape shape                                                                                                  \
    ) {                                                                                                                    \
        BODY(Plain<E4m3> epilogue(to); product<Tile<M, N, STAGES>>(x, w, epilogue, shape);)                                \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * M + 128, 1) NAME##_gated(                                             \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap from,  \
        const __grid_constant__ TensorMap to, const float* rows, const float* columns, const bf16* gate, const bf16* bias, \
        int row_stride, const Shape shape                                                                                  \
    ) {                                                                                                                    \
        BODY(ScaledGated epilogue(from, to, rows, columns, gate, bias, row_stride);                                        \
             product<Tile<M, N, STAGES>>(x, w, epilogue, shape);)                                                          \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * M + 128, 1) NAME##_gelu(                                              \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const float* rows, const float* columns, \
        const float* lengths, const bf16* bias, e4m3* data, float* powers, i64 stride, float reach, const Shape shape      \
    ) {                                                                                                                    \
        BODY(ScaledGelu epilogue = {rows, columns, lengths, bias, data, powers, stride, reach};                            \
             product<Tile<M, N, STAGES>>(x, w, epilogue, shape);)                                                          \
    }

PRODUCT_FP8(product_fp8_192x192, 192, 192, 4)
PRODUCT_FP8(product_fp8_128x256, 128, 256, 4)
