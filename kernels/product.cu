// product: D = X W^T in bfloat16 on Hopper, finished in the same launch.
//
//     plain: D;  gelu: GELU(D + bias);  gated: residual + gate (D + bias), for one sample
//
// Shapes: X [M, K], W [N, K], D and residual [M, N], all bf16 with rows that are multiples of 16 bytes apart, as their maps say;
// bias and gate [N]. Any M and K; N a multiple of the tile's. Blocks: along x, as many as there are multiprocessors or fewer.
// Numerics: float32 sums and float32 behind them; rounds once. The GELU is the tanh form, with the hardware's tanh.
// Alignment: addresses and rows of matrices 16 bytes, bias and gate 4.
//
// Versions, by tile (rows x columns) and warpgroups that multiply (64 rows each):
//   192x192  three; fits shapes with N = 3072 into 132 multiprocessors (97 % of its waves; 128x256: 82 %). Loses at 4096 rows.
//   128x256  two; larger tiles of W. 97 % of its waves at 4096 x 3072.
#include "common/epilogues.cuh"

#define PRODUCT(NAME, M, N, STAGES)                                                                                        \
    extern "C" __global__ void __launch_bounds__(2 * M + 128, 1) NAME##_plain(                                             \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap to,    \
        const Shape shape                                                                                                  \
    ) {                                                                                                                    \
        BODY(Plain<Bfloat16> epilogue(to); product<Tile<M, N, STAGES>>(x, w, epilogue, shape);)                            \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * M + 128, 1) NAME##_gelu(                                              \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap to,    \
        const bf16* bias, const Shape shape                                                                                \
    ) {                                                                                                                    \
        BODY(Gelu epilogue(to, bias); product<Tile<M, N, STAGES>>(x, w, epilogue, shape);)                                 \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * M + 128, 1) NAME##_gated(                                             \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap from,  \
        const __grid_constant__ TensorMap to, const bf16* gate, const bf16* bias, const Shape shape                        \
    ) {                                                                                                                    \
        BODY(Gated epilogue(from, to, gate, bias);                                                                         \
             product<Tile<M, N, STAGES>>(x, w, epilogue, shape);)                                                          \
    }

PRODUCT(product_192x192, 192, 192, 4)
PRODUCT(product_128x256, 128, 256, 4)
