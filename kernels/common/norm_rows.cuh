// Layer norm with modulation by a warp per row of 3072 bfloat16 values, rows through shared memory by bulk copies (sm_90a).
//
// Scale and shift lie in shared memory as floats, once for all warps of a block; after that a warp waits for no other. It has a place
// for one row, which is filled anew as soon as the row is in registers. Few instructions per value are what this is for.
#pragma once
#include "common/hopper.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

// Warps of a block; values of a row; bytes of shared memory: vectors, rows, barriers. The launcher relies on all of them.
constexpr int ROW_WARPS = 12, ROW_VALUES = 3072, ROW_SHARED = 98400;
// Packs of a lane.
constexpr int ROW_PACKS = ROW_VALUES / 256;
static_assert(ROW_SHARED == 8 * ROW_VALUES + ROW_WARPS * (2 * ROW_VALUES + 8), "shared memory");

#if HOPPER
// Calls `finish(value, token)` for every token with this lane's normalized and modulated numbers; pack k of lane l is pack l + 32 k of
// the row. Tokens are those of one sample.
template <class Finish>
__device__ __forceinline__ void norm_rows(
    const bf16* __restrict__ x, const bf16* __restrict__ shift, const bf16* __restrict__ scale, i64 token_stride, int tokens,
    float eps, Finish finish
) {
    extern __shared__ __align__(128) unsigned char memory[];
    float4(*vector)[32 * ROW_PACKS] = reinterpret_cast<float4(*)[32 * ROW_PACKS]>(memory);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, step = gridDim.x * ROW_WARPS;
    const i64 along = step * token_stride;
    unsigned char* place = memory + 8 * ROW_VALUES + 2 * ROW_VALUES * warp;
    const uint4* row = reinterpret_cast<const uint4*>(place) + lane;
    const u32 to = shared_address(place), barrier = shared_address(memory) + ROW_SHARED - 8 * (ROW_WARPS - warp);
    int token = blockIdx.x + gridDim.x * warp;  // few tokens too are spread over all blocks
    const bf16* from = x + token * token_stride;
    const auto request = [&] {
        barrier_expect(barrier, 2 * ROW_VALUES);
        load_bytes(to, from, 2 * ROW_VALUES, barrier);
    };
    if (lane == 0) {
        barrier_init(barrier, 1);
        shared_written();
        if (token < tokens) request();
    }
    for (int p = threadIdx.x; p < 32 * ROW_PACKS; p += 32 * ROW_WARPS) {
        float by[8], plus[8];
        expand(load<8>(scale + 8 * p), by);
        expand(load<8>(shift + 8 * p), plus);
        vector[0][p] = make_float4(1.0f + by[0], 1.0f + by[1], 1.0f + by[2], 1.0f + by[3]);
        vector[1][p] = make_float4(1.0f + by[4], 1.0f + by[5], 1.0f + by[6], 1.0f + by[7]);
        vector[2][p] = make_float4(plus[0], plus[1], plus[2], plus[3]);
        vector[3][p] = make_float4(plus[4], plus[5], plus[6], plus[7]);
    }
    __syncthreads();
    constexpr float WHOLE = 1.0f / ROW_VALUES;
    u32 parity = 0;
    for (; token < tokens; token += step, parity ^= 1) {
        float value[ROW_PACKS][8], sums[4] = {}, squared[4] = {};
        barrier_wait(barrier, parity);
#pragma unroll
        for (int k = 0; k < ROW_PACKS; ++k) {
            const uint4 word = row[32 * k];
            const Pack<bf16, 8> pack = {{word.x, word.y, word.z, word.w}};
            expand(pack, value[k]);
        }
        __syncwarp();
        from += along;
        if (lane == 0 && token + step < tokens) request();
#pragma unroll
        for (int k = 0; k < ROW_PACKS; ++k) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                sums[i % 4] += value[k][i];
                squared[i % 4] = fmaf(value[k][i], value[k][i], squared[i % 4]);
            }
        }
        // As in common/team.cuh: sums of a lane's numbers and of their squares lose few digits where the numbers are alike.
        const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        const float square = (squared[0] + squared[1]) + (squared[2] + squared[3]);
        const float mean = warp_sum(sum) * WHOLE, rest = fmaf(-8.0f * ROW_PACKS, mean, sum);
        const float spread = fmaxf(warp_sum(fmaf(-mean, rest, fmaf(-mean, sum, square))), 0.0f);
        const float inverse = inverse_sqrt(fmaf(spread, WHOLE, eps)), minus = -mean * inverse;
#pragma unroll
        for (int k = 0; k < ROW_PACKS; ++k) {
            const int p = lane + 32 * k;
            const float4 a = vector[0][p], b = vector[1][p], c = vector[2][p], d = vector[3][p];
            const float by[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            const float plus[8] = {c.x, c.y, c.z, c.w, d.x, d.y, d.z, d.w};
#pragma unroll
            for (int i = 0; i < 8; ++i) value[k][i] = fmaf(fmaf(value[k][i], inverse, minus), by[i], plus[i]);
        }
        finish(value, token);
    }
}
#endif
