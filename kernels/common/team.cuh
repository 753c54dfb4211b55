// A team: four warps that share a token and loop over tokens, with the next row in flight; for norms over packs of a row.
//
// The next row stays packed in registers; the vectors that a row is modulated by are in registers as floats. A warp's squares about
// its own mean come from sums about zero, and the warps' results are combined by the formula of Chan, Golub and LeVeque (1979), so
// that one barrier per token suffices.
#pragma once
#include "common/element.cuh"
#include "common/reduce.cuh"

// Threads that share a token, and number of such blocks that an SM must hold; the launcher relies on both.
constexpr int TEAM = 128, TEAM_WARPS = TEAM / 32;
template <int P> constexpr int RESIDENT = 5 - P / 2;

// A thread's packs of a row; `mine` is the first one. Packs behind the row are zeros.
template <int W, int P, class T>
__device__ __forceinline__ void load_share(Pack<T, W> (&held)[P], const T* __restrict__ mine, int packs) {
#pragma unroll
    for (int k = 0; k < P; ++k) {
        held[k] = static_cast<int>(threadIdx.x) + TEAM * k < packs ? load<W>(mine + TEAM * W * k) : zero_pack<T, W>();
    }
}

// The same of another row of that length, if it exists.
template <int W, int P, class T>
__device__ __forceinline__ void load_next(Pack<T, W> (&held)[P], const T* __restrict__ mine, int packs, bool exists) {
    if (!exists) return;
#pragma unroll
    for (int k = 0; k < P; ++k) {
        if (static_cast<int>(threadIdx.x) + TEAM * k < packs) held[k] = load<W>(mine + TEAM * W * k);
    }
}

// A thread's packs of scale and shift: `factor` is 1 + scale. Both are zero behind the row, and so is what they modulate.
template <int W, int P, class T>
__device__ __forceinline__ void load_modulation(
    float (&factor)[P][W], float (&term)[P][W], const T* __restrict__ scale, const T* __restrict__ shift, int packs
) {
    Pack<T, W> by[P], plus[P];
    load_share<W>(by, scale, packs);
    load_share<W>(plus, shift, packs);
#pragma unroll
    for (int k = 0; k < P; ++k) {
        const float one = static_cast<int>(threadIdx.x) + TEAM * k < packs ? 1.0f : 0.0f;
        expand(by[k], factor[k]);
        expand(plus[k], term[k]);
#pragma unroll
        for (int i = 0; i < W; ++i) {
            factor[k][i] += one;
            // Keeps the floats: otherwise the compiler would keep the packs, and convert them for every token.
            asm volatile("" : "+f"(factor[k][i]), "+f"(term[k][i]));
        }
    }
}

// Shared memory of a team. For the current token: each warp's mean, and its sum of squares about that mean; two buffers alternate,
// so one barrier per token suffices. For all tokens: the number of values of each warp.
struct Partial {
    float2 of[2][TEAM_WARPS];
    float count[TEAM_WARPS];
};

// Numbers of values: of this thread, and reciprocals of those of its warp (0 for none) and of the row.
struct Counts {
    float mine, of_warp, of_row;
};

template <int W, int P> __device__ __forceinline__ Counts counted(int packs, Partial& partial) {
    int mine = 0, together = 0;
#pragma unroll
    for (int k = 0; k < P; ++k) {
        mine += static_cast<int>(threadIdx.x) + TEAM * k < packs ? W : 0;
        together += W * min(max(packs - TEAM * k - static_cast<int>(threadIdx.x & ~31u), 0), 32);
    }
    const float count = static_cast<float>(together);
    if (threadIdx.x % 32 == 0) partial.count[threadIdx.x / 32] = count;
    return {static_cast<float>(mine), count > 0.0f ? 1.0f / count : 0.0f, 1.0f / static_cast<float>(packs * W)};
}

// Mean and variance of the row that a team holds.
//
// Sums of a thread's bfloat16 numbers, and of their squares, lose no digits where the numbers are alike: a square has 16 bits, and up
// to 32 of them are added. Only there do digits cancel, when the mean is taken off; that is done by fused steps.
template <int W, int P>
__device__ __forceinline__ float2 moments(const float (&value)[P][W], const Counts& counts, Partial& partial, int turn) {
    constexpr int CHAINS = W < 4 ? W : 4;
    const int warp = threadIdx.x / 32;
    float sums[4] = {}, squared[4] = {};
#pragma unroll
    for (int k = 0; k < P; ++k) {
#pragma unroll
        for (int i = 0; i < W; ++i) {
            sums[i % CHAINS] += value[k][i];
            squared[i % CHAINS] = fmaf(value[k][i], value[k][i], squared[i % CHAINS]);
        }
    }
    const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]), square = (squared[0] + squared[1]) + (squared[2] + squared[3]);
    const float near = warp_sum(sum) * counts.of_warp, rest = fmaf(-counts.mine, near, sum);
    const float squares = fmaxf(warp_sum(fmaf(-near, rest, fmaf(-near, sum, square))), 0.0f);
    if (threadIdx.x % 32 == 0) partial.of[turn][warp] = make_float2(near, squares);
    __syncthreads();
    float mean = 0.0f, spread = 0.0f;
#pragma unroll
    for (int w = 0; w < TEAM_WARPS; ++w) mean += partial.of[turn][w].x * partial.count[w];
    mean *= counts.of_row;
#pragma unroll
    for (int w = 0; w < TEAM_WARPS; ++w) {
        const float off = partial.of[turn][w].x - mean;
        spread += partial.of[turn][w].y + partial.count[w] * off * off;
    }
    return make_float2(mean, spread * counts.of_row);
}
