// gated_residual: out = x + gate (y + bias), gate per sample, bias optional (a null pointer for none).
//
// Shapes: x and y [B, L, D] with any batch and token stride, gate [B, D] with any batch stride, bias [D]; out [B, L, D]
// with any batch and token stride. Blocks: x over groups of ROWS tokens and, within a group, tiles of D; y over samples.
// Numerics: float32; rounds once. out may be x itself (each thread reads what it writes before it writes).
// Alignment: w8 and w4 need 16-byte aligned rows and D a multiple of the width; w1 takes anything.
//
// Versions:
//   w8, w4  16 bytes per access, ROWS tokens per thread: gate and bias are loaded and expanded once for all of them, and
//           2 * ROWS loads are in flight together; y is read once and marked to be evicted first. Loses to one token per
//           thread when L is below a few hundred.
//   w1      one element per access, for odd D and misaligned views.
#include "common/rows.cuh"

constexpr int ROWS = 4;

template <class T, int W>
__device__ __forceinline__ void gated_residual(
    const T* x, const T* __restrict__ gate, const T* __restrict__ y, const T* __restrict__ bias, T* out,
    const TokenStrides& x_strides, i64 gate_stride, const TokenStrides& y_strides, const TokenStrides& out_strides,
    int tokens, int packs, int tiles
) {
    const unsigned group = blockIdx.x / static_cast<unsigned>(tiles), tile = blockIdx.x - group * tiles;
    const int pack = static_cast<int>(tile * blockDim.x + threadIdx.x), first = static_cast<int>(group) * ROWS;
    if (pack >= packs) return;
    const i64 sample = blockIdx.y, column = static_cast<i64>(pack) * W;
    x += sample * x_strides.batch + first * x_strides.token + column;
    y += sample * y_strides.batch + first * y_strides.token + column;
    out += sample * out_strides.batch + first * out_strides.token + column;
    Pack<T, W> kept[ROWS], added[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r < tokens) {
            kept[r] = load<W>(x + r * x_strides.token);
            added[r] = load_once<W>(y + r * y_strides.token);
        }
    }
    float by[W], plus[W] = {};
    expand(load<W>(gate + sample * gate_stride + column), by);
    if (bias != nullptr) expand(load<W>(bias + column), plus);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r >= tokens) return;
        float residual[W], value[W];
        expand(kept[r], residual);
        expand(added[r], value);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = fmaf(by[i], value[i] + plus[i], residual[i]);
        store<W>(out + r * out_strides.token, value);
    }
}

#define GATED_RESIDUAL(NAME, T, W)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128) NAME(                                                                \
        const T* x, const T* __restrict__ gate, const T* __restrict__ y, const T* __restrict__ bias, T* out,               \
        const TokenStrides x_strides, i64 gate_stride, const TokenStrides y_strides, const TokenStrides out_strides,       \
        int tokens, int packs, int tiles                                                                                   \
    ) {                                                                                                                    \
        gated_residual<T, W>(                                                                                              \
            x, gate, y, bias, out, x_strides, gate_stride, y_strides, out_strides, tokens, packs, tiles                    \
        );                                                                                                                 \
    }

GATED_RESIDUAL(gated_residual_f32_w1, float, 1)
GATED_RESIDUAL(gated_residual_f32_w4, float, 4)
GATED_RESIDUAL(gated_residual_bf16_w1, bf16, 1)
GATED_RESIDUAL(gated_residual_bf16_w8, bf16, 8)
