// product: D = X W^T in bfloat16 on Hopper, finished in the same launch.
//
//     plain: D;  gelu: GELU(D + bias);  gated: residual + gate (D + bias), for one sample
//
// Shapes: X [M, K], W [N, K], D and residual [M, N], all bf16 with rows that are multiples of 16 bytes apart, as their maps say;
// bias and gate [N]. Any M and K; N a multiple of the tile's. Blocks: along x, as many as there are multiprocessors or fewer.
// Numerics: float32 sums and float32 behind them. Plain and gated results round once; GELU's product is rounded to bfloat16 on its way
// to the warps that finish it. The GELU is the tanh form, with the hardware's tanh.
// Alignment: addresses and rows of matrices 16 bytes, GELU's bias too; gate and other biases 4.
//
// Versions, by tile (rows x columns) and warpgroups that multiply (64 rows each):
//   192x192  three; fits shapes with N = 3072 into 132 multiprocessors (97 % of its waves; 128x256: 82 %). Loses at 4096 rows.
//   128x256  two; larger tiles of W. 97 % of its waves at 4096 x 3072.
#include "common/epilogues.cuh"

#define TILES(NAME, STAGED, FINISHED)                                                                                      \
    PRODUCT(NAME##_plain, STAGED, (const __grid_constant__ TensorMap to), Plain<Bfloat16> epilogue(to))                    \
    PRODUCT(                                                                                                               \
        NAME##_gated, STAGED,                                                                                              \
        (const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, const bf16* gate, const bf16* bias), \
        Gated epilogue(from, to, gate, bias)                                                                               \
    )                                                                                                                      \
    PRODUCT(NAME##_gelu, FINISHED, (const bf16* bias, bf16* to, i64 stride), Gelu epilogue = {bias, to, stride})

TILES(product_192x192, Tile192x192Staged, Tile192x192)
TILES(product_128x256, Tile128x256Staged, Tile128x256)
