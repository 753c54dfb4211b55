// cast: out = x in the other element type: float32 to bfloat16 (to nearest, ties to even) or back (exact).
//
// Shapes: x [..], up to four leading axes of any stride after the Python side has merged neighbours, unit stride along the
// last; out [..] contiguous. Contiguous arrays arrive as one row.
// Alignment: w4 moves 16 bytes of float32 and 8 of bfloat16, so it needs rows aligned to those and a last axis that is a
// multiple of 4; w1 takes anything.
//
// Versions:
//   w4  four elements per access, MAP_PACKS of them in flight per thread.
//   w1  one element per access, for odd sizes and misaligned views.
#include "common/map.cuh"

struct Same {
    __device__ __forceinline__ float operator()(float x) const { return x; }
};

#define CAST(NAME, FROM, TO, W)                                                                                            \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) NAME(                                                        \
        const FROM* __restrict__ x, TO* __restrict__ out, const Extents extents, const Strides strides, int packs,         \
        int tiles                                                                                                          \
    ) {                                                                                                                    \
        map_one<W>(x, out, extents, strides, packs, tiles, Same());                                                        \
    }

CAST(cast_f32_bf16_w1, float, bf16, 1)
CAST(cast_f32_bf16_w4, float, bf16, 4)
CAST(cast_bf16_f32_w1, bf16, float, 1)
CAST(cast_bf16_f32_w4, bf16, float, 4)
