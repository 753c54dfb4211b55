// gated_residual_fp8: out = x + gate (y rows columns + bias), the epilogue of a projection in e4m3.
//
// Shapes: x [B, L, D] bf16 with any batch and token stride; y [B, L, D] bf16, the product without its scales, likewise; rows
// [B, L] float32 likewise, columns [D] float32; gate [B, D] with any batch stride, bias [D]; out [B, L, D] with any batch and token
// stride. Blocks: x over groups of ROWS tokens and, within a group, tiles of D; y over samples.
// Numerics: float32; rows and columns are powers of two, so nothing is rounded before the bias is added. Rounds once. out may be x
// itself (each thread reads what it writes before it writes).
// Alignment: w8 needs 16-byte aligned rows and D a multiple of 8; w1 takes anything.
//
// Versions: as gated_residual.
#include "common/e4m3.cuh"
#include "common/rows.cuh"

constexpr int ROWS = 4;

template <int W>
__device__ __forceinline__ void gated_residual_fp8(
    const bf16* x, const bf16* __restrict__ gate, const bf16* __restrict__ y, const float* __restrict__ rows,
    const float* __restrict__ columns, const bf16* __restrict__ bias, bf16* out, const TokenStrides& x_strides, i64 gate_stride,
    const TokenStrides& y_strides, const TokenStrides& row_strides, const TokenStrides& out_strides, int tokens, int packs,
    int tiles
) {
    const unsigned group = blockIdx.x / static_cast<unsigned>(tiles), tile = blockIdx.x - group * tiles;
    const int pack = static_cast<int>(tile * blockDim.x + threadIdx.x), first = static_cast<int>(group) * ROWS;
    if (pack >= packs) return;
    const i64 sample = blockIdx.y, column = static_cast<i64>(pack) * W;
    x += sample * x_strides.batch + first * x_strides.token + column;
    y += sample * y_strides.batch + first * y_strides.token + column;
    rows += sample * row_strides.batch + first * row_strides.token;
    out += sample * out_strides.batch + first * out_strides.token + column;
    Pack<bf16, W> kept[ROWS], added[ROWS];
    float row[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r < tokens) {
            kept[r] = load<W>(x + r * x_strides.token);
            added[r] = load_once<W>(y + r * y_strides.token);
            row[r] = rows[r * row_strides.token];
        }
    }
    float by[W], plus[W], factor[W];
    expand(load<W>(gate + sample * gate_stride + column), by);
    expand(load<W>(bias + column), plus);
#pragma unroll
    for (int i = 0; i < W; ++i) factor[i] = columns[column + i];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r >= tokens) return;
        float residual[W], value[W];
        expand(kept[r], residual);
        expand(added[r], value);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = fmaf(by[i], fmaf(value[i] * row[r], factor[i], plus[i]), residual[i]);
        store<W>(out + r * out_strides.token, value);
    }
}

#define GATED_RESIDUAL_FP8(NAME, W)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128) NAME(                                                                \
        const bf16* x, const bf16* __restrict__ gate, const bf16* __restrict__ y, const float* __restrict__ rows,          \
        const float* __restrict__ columns, const bf16* __restrict__ bias, bf16* out, const TokenStrides x_strides,         \
        i64 gate_stride, const TokenStrides y_strides, const TokenStrides row_strides, const TokenStrides out_strides,     \
        int tokens, int packs, int tiles                                                                                   \
    ) {                                                                                                                    \
        gated_residual_fp8<W>(                                                                                             \
            x, gate, y, rows, columns, bias, out, x_strides, gate_stride, y_strides, row_strides, out_strides, tokens,     \
            packs, tiles                                                                                                   \
        );                                                                                                                 \
    }

GATED_RESIDUAL_FP8(gated_residual_fp8_bf16_w1, 1)
GATED_RESIDUAL_FP8(gated_residual_fp8_bf16_w8, 8)
