// Epilogue of a product in e4m3 whose rows are two halves along K with scales of their own: bias, gate and residual.
//
// Sums of the first half are multiplied by the ratio of both scales before the second half is added to them, so that the second
// scale is then that of the whole row. The ratio is a power of two: no bit is lost, and neither half is rounded again.
#pragma once
#include "common/epilogues.cuh"

#if HOPPER

// The first `turn` steps of K have the scales `ahead`, the others `rows`.
//
// Range: sums of a half are multiples of 2^-18 and at most 2^18 K. A ratio above REACH could overflow, and infinity times zero is no
// number; such a row has the scale ahead / REACH instead of its second one. That is too large for the second half, but its sums
// are then below 2^-30 of any sum of the first half other than zero. A ratio that underflows makes zeros of sums that are as small
// beside the second half's.
struct HalvesGated : ScaledGated {
    static constexpr bool TURNS = true;
    static constexpr float REACH = 0x1p80f;
    const float* ahead;
    int ahead_stride, turn;
    __device__ __forceinline__ HalvesGated(const ScaledGated& scaled, const float* ahead, int ahead_stride, int turn)
        : ScaledGated(scaled), ahead(ahead), ahead_stride(ahead_stride), turn(turn) {}

    // Scale of the first half of row r or r + 8 of this thread, and of the whole row.
    __device__ __forceinline__ float2 scales(const Place& place, int half) const {
        const i64 at = min(place.mine() + 8 * half, place.rows - 1);
        const float first = ahead[at * ahead_stride];
        return make_float2(first, fmaxf(rows[at * row_stride], first * (1.0f / REACH)));
    }
    __device__ __forceinline__ float2 ratios(const Place& place) const {
        const float2 upper = scales(place, 0), lower = scales(place, 1);
        return make_float2(upper.x * power_inverse(upper.y), lower.x * power_inverse(lower.y));
    }
    template <int SUMS> __device__ __forceinline__ void prepare(float (&)[SUMS], const Place& place) {
        row[0] = scales(place, 0).y, row[1] = scales(place, 1).y;
    }
};

#endif
