// Layer norm of one row: (x - mean) / sqrt(variance + eps), in two passes over centred numbers (no E[x^2] - E[x]^2).
//
// `finish(value, p)` may change the W normalized floats of pack p before they are rounded and stored. With one warp per row,
// `ready()` is called once before the first of them; loads for it may still be in flight until then.
#pragma once
#include "common/element.cuh"
#include "common/reduce.cuh"

// By one warp, with the row in registers: up to 32 * P packs, read once, all loads in flight together.
template <int W, int P, class T, class Ready, class Finish>
__device__ __forceinline__ void norm_by_warp(
    const T* __restrict__ row, T* __restrict__ out, int packs, float eps, Ready ready, Finish finish
) {
    const int lane = threadIdx.x % 32;
    Pack<T, W> held[P];
#pragma unroll
    for (int k = 0; k < P; ++k) {
        const int p = lane + 32 * k;
        held[k] = p < packs ? load<W>(row + p * W) : zero_pack<T, W>();
    }
    const float count = static_cast<float>(packs * W);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < P; ++k) {
        float value[W];
        expand(held[k], value);
#pragma unroll
        for (int i = 0; i < W; ++i) sum += value[i];
    }
    const float mean = warp_sum(sum) / count;
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < P; ++k) {
        if (lane + 32 * k >= packs) continue;
        float value[W];
        expand(held[k], value);
#pragma unroll
        for (int i = 0; i < W; ++i) squares += (value[i] - mean) * (value[i] - mean);
    }
    const float inverse = inverse_sqrt(warp_sum(squares) / count + eps);
    ready();
#pragma unroll
    for (int k = 0; k < P; ++k) {
        const int p = lane + 32 * k;
        if (p >= packs) continue;
        float value[W];
        expand(held[k], value);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = (value[i] - mean) * inverse;
        finish(value, p);
        store<W>(out + p * W, value);
    }
}

// By one block, for rows of any length: read three times, the second and third from cache.
template <int W, class T, class Finish>
__device__ __forceinline__ void norm_by_block(
    const T* __restrict__ row, T* __restrict__ out, int packs, float eps, Finish finish
) {
    __shared__ float scratch[32];
    const float count = static_cast<float>(packs) * W;
    float value[W];
    float sum = 0.0f;
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
#pragma unroll
        for (int i = 0; i < W; ++i) sum += value[i];
    }
    const float mean = block_sum(sum, scratch) / count;
    float squares = 0.0f;
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
#pragma unroll
        for (int i = 0; i < W; ++i) squares += (value[i] - mean) * (value[i] - mean);
    }
    const float inverse = inverse_sqrt(block_sum(squares, scratch) / count + eps);
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = (value[i] - mean) * inverse;
        finish(value, p);
        store<W>(out + static_cast<i64>(p) * W, value);
    }
}
