// quantize_values: V in e4m3 with one scale, that of its largest value; and the scales of Q and K, which follow from their norms.
//
// Shapes: v [n] bf16, data [n] e4m3, n a multiple of 8; peaks [count] float32, largest numbers of parts of V; norms of Q and K [dim] bf16
// of both streams (a single one twice); powers [3] float32, the scales of q, k and v. Blocks: along x, each a share of n.
// Numerics: one rounding, to e4m3. V was rounded to bf16 before, which may exceed its peak by up to 2^-9: values beyond 448 are
// rounded to 448.
// Alignment: 16 bytes.
//
// Versions: one; eight packs in flight per thread.
#include "common/e4m3.cuh"
#include "common/reduce.cuh"

constexpr int THREADS = 256, W = 8, AHEAD = 8;

__device__ __forceinline__ float largest_norm(const bf16* first, const bf16* second, int dim, float* scratch) {
    float most = 0.0f;
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        float one[1], other[1];
        expand(load<1>(first + i), one);
        expand(load<1>(second + i), other);
        most = fmaxf(most, fmaxf(fabsf(one[0]), fabsf(other[0])));
    }
    return block_max(most, scratch);
}

extern "C" __global__ void __launch_bounds__(THREADS) quantize_values_bf16(
    const bf16* __restrict__ v, e4m3* __restrict__ data, const float* __restrict__ peaks, const bf16* q_norm, const bf16* other_q_norm,
    const bf16* k_norm, const bf16* other_k_norm, float* powers, i64 packs, int count, int dim
) {
    __shared__ float scratch[32];
    const i64 first = static_cast<i64>(blockIdx.x) * THREADS * AHEAD + threadIdx.x;
    Pack<bf16, W> held[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; ++k) {
        const i64 at = first + k * THREADS;
        held[k] = at < packs ? load_once<W>(v + at * W) : zero_pack<bf16, W>();
    }
    float most = 0.0f;
    for (int i = threadIdx.x; i < count; i += THREADS) most = fmaxf(most, peaks[i]);
    const float power = power_scale(block_max(most, scratch)), down = power_inverse(power);
    if (blockIdx.x == 0) {
        const float longest = sqrtf(static_cast<float>(dim));
        const float q = power_scale(longest * largest_norm(q_norm, other_q_norm, dim, scratch));
        const float k = power_scale(longest * largest_norm(k_norm, other_k_norm, dim, scratch));
        if (threadIdx.x == 0) powers[0] = q, powers[1] = k, powers[2] = power;
    }
#pragma unroll
    for (int k = 0; k < AHEAD; ++k) {
        const i64 at = first + k * THREADS;
        if (at >= packs) continue;
        float value[W];
        expand(held[k], value);
        store_e4m3<W>(data + at * W, value, down);
    }
}
