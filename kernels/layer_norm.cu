// layer_norm: out = (x - mean) / sqrt(variance + eps) over the last axis, biased variance, no affine.
//
// Shapes: x [.., D], up to four leading axes of any stride, unit stride along D; out [.., D] contiguous.
// Numerics: float32 throughout, variance of the centred row; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and D a multiple of the width; w1 takes anything.
//
// Versions:
//   block  a block per row, the row read three times (twice from cache). Any D. Loses wherever a row fits one warp's
//          registers: two block-wide reductions with barriers per row.
//   warp   a warp per row, the row in registers (p is packs per lane), read once. Up to 32 p packs; loses its point when
//          few rows leave most of the card idle.
#include "common/norm.cuh"
#include "common/rows.cuh"

struct Nothing {
    __device__ void operator()() const {}
    template <int W> __device__ void operator()(float (&)[W], int) const {}
};

#define LAYER_NORM_WARP(NAME, T, W, P)                                                                                     \
    extern "C" __global__ void __launch_bounds__(128, 3) NAME(                                                             \
        const T* __restrict__ x, T* __restrict__ out, const Extents extents, const Strides strides, int rows, int packs,   \
        float eps                                                                                                          \
    ) {                                                                                                                    \
        const unsigned row = blockIdx.x * 4 + threadIdx.x / 32;                                                            \
        if (row >= static_cast<unsigned>(rows)) return;                                                                    \
        norm_by_warp<W, P>(                                                                                                \
            x + row_offset(row, extents, strides), out + static_cast<i64>(row) * packs * W, packs, eps, Nothing(), Nothing() \
        );                                                                                                                 \
    }

#define LAYER_NORM_BLOCK(NAME, T, W)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                                \
        const T* __restrict__ x, T* __restrict__ out, const Extents extents, const Strides strides, int rows, int packs,   \
        float eps                                                                                                          \
    ) {                                                                                                                    \
        norm_by_block<W>(                                                                                                  \
            x + row_offset(blockIdx.x, extents, strides), out + static_cast<i64>(blockIdx.x) * packs * W, packs, eps,      \
            Nothing()                                                                                                      \
        );                                                                                                                 \
    }

LAYER_NORM_BLOCK(layer_norm_f32_w1_block, float, 1)
LAYER_NORM_BLOCK(layer_norm_f32_w4_block, float, 4)
LAYER_NORM_BLOCK(layer_norm_bf16_w1_block, bf16, 1)
LAYER_NORM_BLOCK(layer_norm_bf16_w8_block, bf16, 8)
LAYER_NORM_WARP(layer_norm_f32_w4_p8, float, 4, 8)
LAYER_NORM_WARP(layer_norm_f32_w4_p24, float, 4, 24)
LAYER_NORM_WARP(layer_norm_bf16_w8_p4, bf16, 8, 4)
LAYER_NORM_WARP(layer_norm_bf16_w8_p12, bf16, 8, 12)
LAYER_NORM_WARP(layer_norm_bf16_w8_p16, bf16, 8, 16)
