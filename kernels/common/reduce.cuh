// Sums and maxima over the lanes of a group, a warp or a block. Every lane gets the result.
#pragma once

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

// Over groups of neighbouring lanes; the group size is a power of two up to 32. All 32 lanes of the warp must call it.
__device__ __forceinline__ float group_sum(float x, int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

template <int LANES> __device__ __forceinline__ float group_sum(float x) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

__device__ __forceinline__ float warp_sum(float x) { return group_sum<32>(x); }

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// The largest of numbers that are neither negative nor NaN, by one instruction on their bits.
__device__ __forceinline__ float warp_largest(float x) {
    unsigned most;
    asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(most) : "r"(__float_as_uint(x)));
    return __uint_as_float(most);
}

// Over a block of whole warps. `scratch` is 32 floats of shared memory; each warp adds up the partial sums itself.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    if (lane == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    const float total = warp_sum(lane < warps ? scratch[lane] : 0.0f);
    __syncthreads();  // scratch may be written again
    return total;
}

__device__ __forceinline__ float block_max(float x, float* scratch) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = warp_max(x);
    if (lane == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    const float most = warp_max(lane < warps ? scratch[lane] : minus_infinity());
    __syncthreads();
    return most;
}
