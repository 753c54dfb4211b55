// concat_tokens: out = first tokens, then second, along axis 1.
//
// Shapes: first [B, L1, ..], second [B, L2, ..], three or four axes of any stride but the last; out [B, L1 + L2, ..]
// contiguous.
// No arithmetic: words are copied as they are, whatever the element type.
// Alignment: the widest word (16, 4 or 2 bytes) that addresses, strides and extents allow.
//
// Versions:
//   b16  16-byte words, both parts in one launch, COPY_WORDS loads in flight per thread. Loses when rows are a little over a
//        power of two words: threads beyond the row are idle.
//   b4, b2  narrower words, for odd sizes and misaligned views.
#include "common/boxes.cuh"

#define COPY(NAME, WORD)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(COPY_THREADS) NAME(                                                       \
        const __grid_constant__ Box first, const __grid_constant__ Box second, unsigned blocks                             \
    ) {                                                                                                                    \
        copy_boxes<WORD>(first, second, blocks);                                                                           \
    }

COPY(concat_tokens_b16, uint4)
COPY(concat_tokens_b4, unsigned)
COPY(concat_tokens_b2, unsigned short)
