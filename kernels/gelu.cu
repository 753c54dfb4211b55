// gelu: out = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the tanh form.
//
// Shapes: x [..], up to four leading axes of any stride after the Python side has merged neighbours, unit stride along the
// last; out [..] contiguous. Contiguous arrays arrive as one row.
// Numerics: float32 with the precise tanhf; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and a last axis that is a multiple of the width; w1 takes anything.
//
// Versions:
//   w8, w4  16 bytes per access, MAP_PACKS of them in flight per thread.
//   w1      one element per access, for odd sizes and misaligned views.
#include "common/map.cuh"

struct Gelu {
    __device__ __forceinline__ float operator()(float x) const {
        const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + tanhf(inner));
    }
};

#define GELU(NAME, T, W)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) NAME(                                                        \
        const T* __restrict__ x, T* __restrict__ out, const Extents extents, const Strides strides, int packs, int tiles   \
    ) {                                                                                                                    \
        map_one<W>(x, out, extents, strides, packs, tiles, Gelu());                                                        \
    }

GELU(gelu_f32_w1, float, 1)
GELU(gelu_f32_w4, float, 4)
GELU(gelu_bf16_w1, bf16, 1)
GELU(gelu_bf16_w8, bf16, 8)
