// modulate: out = x (1 + scale) + shift, scale and shift per sample.
//
// Shapes: x [B, L, D] with any batch and token stride, scale and shift [B, D] with any batch stride; out [B, L, D]
// contiguous. Blocks: x over groups of ROWS tokens and, within a group, tiles of D; y over samples.
// Numerics: float32, one fused multiply-add; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and D a multiple of the width; w1 takes anything.
//
// Versions:
//   w8, w4  16 bytes per access, ROWS tokens per thread: scale and shift are loaded and expanded once for all of them, and
//           the loads of x are in flight together. Loses to one token per thread when L is below a few hundred.
//   w1      one element per access, for odd D and misaligned views.
#include "common/rows.cuh"

constexpr int ROWS = 4;

template <class T, int W>
__device__ __forceinline__ void modulate(
    const T* __restrict__ x, const T* __restrict__ scale, const T* __restrict__ shift, T* __restrict__ out,
    const TokenStrides& x_strides, i64 scale_stride, i64 shift_stride, int tokens, int packs, int tiles
) {
    const unsigned group = blockIdx.x / static_cast<unsigned>(tiles), tile = blockIdx.x - group * tiles;
    const int pack = static_cast<int>(tile * blockDim.x + threadIdx.x), first = static_cast<int>(group) * ROWS;
    if (pack >= packs) return;
    const i64 sample = blockIdx.y, column = static_cast<i64>(pack) * W, width = static_cast<i64>(packs) * W;
    x += sample * x_strides.batch + first * x_strides.token + column;
    out += (sample * tokens + first) * width + column;
    Pack<T, W> held[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r < tokens) held[r] = load<W>(x + r * x_strides.token);
    }
    float by[W], plus[W];
    expand(load<W>(scale + sample * scale_stride + column), by);
    expand(load<W>(shift + sample * shift_stride + column), plus);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r >= tokens) return;
        float value[W];
        expand(held[r], value);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = fmaf(value[i], 1.0f + by[i], plus[i]);
        store<W>(out + r * width, value);
    }
}

#define MODULATE(NAME, T, W)                                                                                               \
    extern "C" __global__ void __launch_bounds__(128) NAME(                                                                \
        const T* __restrict__ x, const T* __restrict__ scale, const T* __restrict__ shift, T* __restrict__ out,            \
        const TokenStrides x_strides, i64 scale_stride, i64 shift_stride, int tokens, int packs, int tiles                 \
    ) {                                                                                                                    \
        modulate<T, W>(x, scale, shift, out, x_strides, scale_stride, shift_stride, tokens, packs, tiles);                 \
    }

MODULATE(modulate_f32_w1, float, 1)
MODULATE(modulate_f32_w4, float, 4)
MODULATE(modulate_bf16_w1, bf16, 1)
MODULATE(modulate_bf16_w8, bf16, 8)
