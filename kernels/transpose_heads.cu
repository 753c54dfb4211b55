// transpose_heads: out[b, h, l, :] = x[b, l, h, :], tokens by heads, or back.
//
// Shapes: x [B, L, H, d] with any stride along B, L and H, unit stride along d; out [B, H, L, d] contiguous.
// No arithmetic: words are copied as they are, whatever the element type.
// Alignment: the widest word (16, 4 or 2 bytes) that addresses, strides and d allow.
//
// Versions:
//   b16  16-byte words in the order of the result: writes are contiguous, reads come in runs of d (256 bytes for d = 128 in
//        bfloat16). Loses when d is below 32 bytes: a sector is then read for less than it holds.
//   b4, b2  narrower words, for odd sizes and misaligned views.
#include "common/boxes.cuh"

#define TRANSPOSE(NAME, WORD)                                                                                              \
    extern "C" __global__ void __launch_bounds__(COPY_THREADS) NAME(const __grid_constant__ Box box) {                     \
        copy_box<WORD>(box, blockIdx.x);                                                                                   \
    }

TRANSPOSE(transpose_heads_b16, uint4)
TRANSPOSE(transpose_heads_b4, unsigned)
TRANSPOSE(transpose_heads_b2, unsigned short)
