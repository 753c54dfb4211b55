// A head's row over G lanes: RMS norm, learned weight, rotation.
#pragma once
#include "common/reduce.cuh"
#include "common/rope.cuh"

// Normalized by its mean square over the G lanes of a head, weighted and rotated.
template <int G, int W, class T>
__device__ __forceinline__ void norm_and_rotate(
    float (&value)[W], const Pack<T, W>& norm, const Rotation<W>& rotation, float inverse_dim, float eps
) {
    float squares = 0.0f, weight[W];
#pragma unroll
    for (int i = 0; i < W; ++i) squares += value[i] * value[i];
    const float inverse = inverse_sqrt(group_sum<G>(squares) * inverse_dim + eps);
    expand(norm, weight);
#pragma unroll
    for (int i = 0; i < W; ++i) value[i] = value[i] * inverse * weight[i];
    rotate<W>(value, rotation);
}
