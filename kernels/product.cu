// product: D = X W^T in bfloat16 on Hopper, with the epilogue in the same launch.
//
//     plain: D;  gelu: GELU(D + bias);  gated: residual + gate (D + bias), for one sample
//
// Shapes: X [M, K], W [N, K], D and residual [M, N], all bf16, described by tensor maps, with row strides that are multiples of 16
// bytes; bias and gate [N]. Any M and K; N a multiple of the tile's. Blocks: along x, at most one per multiprocessor.
// Numerics: float32 sums and a float32 epilogue. Plain and gated results round once; GELU's product is rounded to bfloat16 on its
// way to the epilogue warps. The GELU is the tanh form, with the hardware's tanh.
// Alignment: 16 bytes for addresses and rows of matrices and for GELU's bias; 4 for gate and other biases.
//
// Versions, by tile (rows x columns) and number of warpgroups that multiply (64 rows each):
//   192x192  three; fits shapes with N = 3072 to 132 multiprocessors (97 % of its waves are filled; 128x256: 82 %). Loses at 4096
//            rows.
//   128x256  two; larger tiles of W. 97 % of its waves are filled at 4096 x 3072.
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
