// softmax: out = exp(x - max) / sum(exp(x - max)) over the last axis.
//
// Shapes: x [.., N], up to four leading axes of any stride, unit stride along N; out [.., N] contiguous, in float32 or
// bfloat16. A block per row.
// Numerics: float32 with the precise expf, times the inverse of the sum; rounds once.
// Alignment: w4 moves four elements per access, so it needs rows aligned to them and N a multiple of 4; w1 takes anything.
//
// Versions:
//   w4_held  the row in registers, HELD packs per thread, read once: up to 4 * HELD * 1024 = 16384 elements.
//   w1       any length, read three times (twice from cache) and the exponentials computed twice.
#include "common/reduce.cuh"
#include "common/rows.cuh"

constexpr int HELD = 4;

template <class In, class Out>
__device__ __forceinline__ void softmax_held(
    const In* __restrict__ x, Out* __restrict__ out, const Extents& extents, const Strides& strides, int packs
) {
    __shared__ float scratch[32];
    x += row_offset(blockIdx.x, extents, strides);
    out += static_cast<i64>(blockIdx.x) * packs * 4;
    float value[HELD][4];
    float most = minus_infinity();
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        const int p = threadIdx.x + k * blockDim.x;
        if (p < packs) {
            expand(load<4>(x + p * 4), value[k]);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) value[k][i] = minus_infinity();
        }
    }
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) most = fmaxf(most, value[k][i]);
    }
    most = block_max(most, scratch);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        if (static_cast<int>(threadIdx.x + k * blockDim.x) >= packs) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            value[k][i] = expf(value[k][i] - most);
            sum += value[k][i];
        }
    }
    const float inverse = 1.0f / block_sum(sum, scratch);
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        const int p = threadIdx.x + k * blockDim.x;
        if (p >= packs) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) value[k][i] *= inverse;
        store<4>(out + p * 4, value[k]);
    }
}

template <class In, class Out>
__device__ __forceinline__ void softmax_read_again(
    const In* __restrict__ x, Out* __restrict__ out, const Extents& extents, const Strides& strides, int columns
) {
    __shared__ float scratch[32];
    x += row_offset(blockIdx.x, extents, strides);
    out += static_cast<i64>(blockIdx.x) * columns;
    float value[1];
    float most = minus_infinity();
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        expand(load<1>(x + c), value);
        most = fmaxf(most, value[0]);
    }
    most = block_max(most, scratch);
    float sum = 0.0f;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        expand(load<1>(x + c), value);
        sum += expf(value[0] - most);
    }
    const float inverse = 1.0f / block_sum(sum, scratch);
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        expand(load<1>(x + c), value);
        value[0] = expf(value[0] - most) * inverse;
        store<1>(out + c, value);
    }
}

#define SOFTMAX(NAME, IN, OUT)                                                                                             \
    extern "C" __global__ void __launch_bounds__(1024) NAME##_w4_held(                                                     \
        const IN* __restrict__ x, OUT* __restrict__ out, const Extents extents, const Strides strides, int packs           \
    ) {                                                                                                                    \
        softmax_held(x, out, extents, strides, packs);                                                                     \
    }                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(1024) NAME##_w1(                                                          \
        const IN* __restrict__ x, OUT* __restrict__ out, const Extents extents, const Strides strides, int packs           \
    ) {                                                                                                                    \
        softmax_read_again(x, out, extents, strides, packs);                                                               \
    }

SOFTMAX(softmax_f32_f32, float, float)
SOFTMAX(softmax_f32_bf16, float, bf16)
SOFTMAX(softmax_bf16_f32, bf16, float)
SOFTMAX(softmax_bf16_bf16, bf16, bf16)
