// A team: four warps that share a token and loop over tokens, with the next row in flight; for norms over packs of a row.
//
// Packs stay packed in registers. Each warp centres its values about their own mean; the results are combined by the formula of
// Chan, Golub and LeVeque (1979), so that one barrier per token suffices.
#pragma once
#include "common/element.cuh"
#include "common/reduce.cuh"

// Threads that share a token, and number of such blocks that an SM must hold; the launcher relies on both.
constexpr int TEAM = 128, TEAM_WARPS = TEAM / 32;
template <int P> constexpr int RESIDENT = P > 3 ? 4 : 5;

// A thread's packs of a row; `mine` is the first one. A row that does not exist gives zeros.
template <int W, int P, class T>
__device__ __forceinline__ void load_share(Pack<T, W> (&held)[P], const T* __restrict__ mine, int packs, bool exists) {
#pragma unroll
    for (int k = 0; k < P; ++k) {
        held[k] = exists && static_cast<int>(threadIdx.x) + TEAM * k < packs ? load<W>(mine + TEAM * W * k) : zero_pack<T, W>();
    }
}

// Keeps packs packed: otherwise the compiler would convert them before the loop, and run out of registers.
template <int P, class Held> __device__ __forceinline__ void keep_packed(Held (&held)[P]) {
#pragma unroll
    for (int k = 0; k < P; ++k) {
#pragma unroll
        for (unsigned& word : held[k].word) asm volatile("" : "+r"(word));
    }
}

// Shared memory of a team. For the current token: each warp's mean, and its sum of squares about that mean; two buffers alternate,
// so one barrier per token suffices. For all tokens: the number of values of each warp, its reciprocal (0 for none), and that of
// all.
struct Partial {
    float2 of[2][TEAM_WARPS];
    float count[TEAM_WARPS], share[TEAM_WARPS], whole;
};

// Number of values of a row of that many packs in this thread's warp.
template <int W, int P> __device__ __forceinline__ float warp_share(int packs) {
    int mine = 0;
#pragma unroll
    for (int k = 0; k < P; ++k) mine += min(max(packs - TEAM * k - static_cast<int>(threadIdx.x & ~31u), 0), 32);
    return static_cast<float>(mine * W);
}

// Mean and variance of the row that a team holds.
template <int W, int P>
__device__ __forceinline__ float2 moments(const float (&value)[P][W], int packs, Partial& partial, int turn) {
    const int warp = threadIdx.x / 32;
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int k = 0; k < P; ++k) {
#pragma unroll
        for (int i = 0; i < W; ++i) sum += value[k][i];
    }
    const float near = warp_sum(sum) * partial.share[warp];
#pragma unroll
    for (int k = 0; k < P; ++k) {
        if (static_cast<int>(threadIdx.x) + TEAM * k >= packs) continue;
#pragma unroll
        for (int i = 0; i < W; ++i) squares += (value[k][i] - near) * (value[k][i] - near);
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) partial.of[turn][warp] = make_float2(near, squares);
    __syncthreads();
    float mean = 0.0f, spread = 0.0f;
#pragma unroll
    for (int w = 0; w < TEAM_WARPS; ++w) mean += partial.of[turn][w].x * partial.count[w];
    mean *= partial.whole;
#pragma unroll
    for (int w = 0; w < TEAM_WARPS; ++w) {
        const float off = partial.of[turn][w].x - mean;
        spread += partial.of[turn][w].y + partial.count[w] * off * off;
    }
    return make_float2(mean, spread * partial.whole);
}
