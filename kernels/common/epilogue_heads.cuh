// A QKV product's tile of two heads: bias, RMS norm of Q and K, rotation, and the layout by head.
#pragma once
#include "common/epilogues.cuh"
#include "common/reduce.cuh"
#include "common/rope.cuh"

struct HeadsOf {
    const bf16 *bias, *q_norm, *k_norm;
    const float *cos, *sin;  // of the stream's first token
    i64 cos_stride, sin_stride;
    i64 start;  // of the stream in the joint sequence
    int width;  // of Q: H d
    float eps;
};

struct PlainHeadsOf {
    bf16* to;    // [3 H, L, 128]
    i64 length;  // L
};

struct ScalesOf {
    const float *rows, *columns;
    i64 row_stride;
};

struct ScaledHeadsOf {
    e4m3 *q, *k;  // [H, L, 128]
    bf16* v;
    float* peaks;  // of V, three by block
    i64 length;    // L
};

#if HOPPER

__device__ __forceinline__ HeadsOf one_of(const HeadsOf& first, const HeadsOf& second, bool other) {
    return {
        other ? second.bias : first.bias, other ? second.q_norm : first.q_norm, other ? second.k_norm : first.k_norm,
        other ? second.cos : first.cos, other ? second.sin : first.sin, other ? second.cos_stride : first.cos_stride,
        other ? second.sin_stride : first.sin_stride, other ? second.start : first.start, first.width, first.eps
    };
}

// Eight columns of a token's rotation, of a table in which each frequency stands twice.
__device__ __forceinline__ void frequencies(const float* from, float (&to)[4]) {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.z, to[2] = high.x, to[3] = high.z;
}

// Two heads of 128 numbers, 16 lanes to a row of both, which share its rotation. `E` has `widen`, which adds the bias to eight numbers
// of a column of D, `write`, which stores eight of a head's row, and AHEAD, rows of a lane that are under way together.
template <class T, class E>
__device__ __forceinline__ void finish_heads(E& epilogue, const HeadsOf& of, u32 results, const Place& place) {
    static_assert(T::N == 256, "two heads");
    constexpr int AHEAD = E::AHEAD, STEP = 2 * FINISHERS;
    const int unit = static_cast<int>(place.lane) & 15, part = place.column / of.width, last = place.rows - 1 - place.row;
    float weight[8];
    expand(load<8>((part == 0 ? of.q_norm : of.k_norm) + 8 * unit), weight);
    Rotation<8> rotation[AHEAD], next[AHEAD];
    const auto turn = [&](int row) {
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
            const i64 token = place.row + min(row + u * STEP, last);
            frequencies(of.cos + token * of.cos_stride + 8 * unit, next[u].cosine);
            frequencies(of.sin + token * of.sin_stride + 8 * unit, next[u].sine);
        }
    };
    const int begin = 2 * static_cast<int>(place.warp) + (static_cast<int>(place.lane) >> 4);
    if (part < 2) turn(begin);
#pragma unroll 1
    for (int first = begin; first < T::M; first += AHEAD * STEP) {  // all lanes stay for the sums
        float value[AHEAD][2][8], squares[AHEAD][2] = {};
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
            rotation[u] = next[u];
            const int row = min(first + u * STEP, T::M - 1);
#pragma unroll
            for (int head = 0; head < 2; ++head) {
                expand(handed_pack<T>(results, row, 16 * head + unit), value[u][head]);
                epilogue.widen(value[u][head], place.row + min(row, last), place.column + 128 * head + 8 * unit);
            }
        }
        if (part < 2) {
            turn(first + AHEAD * STEP);
#pragma unroll
            for (int i = 0; i < 2 * AHEAD * 8; ++i) {
                const float x = value[i / 16][i / 8 % 2][i % 8];
                squares[i / 16][i / 8 % 2] += x * x;
            }
#pragma unroll
            for (int distance = 8; distance > 0; distance /= 2) {
#pragma unroll
                for (int i = 0; i < 2 * AHEAD; ++i) squares[i / 2][i % 2] += __shfl_xor_sync(ALL_LANES, squares[i / 2][i % 2], distance);
            }
#pragma unroll
            for (int i = 0; i < 2 * AHEAD; ++i) {
                const float inverse = inverse_sqrt(squares[i / 2][i % 2] * (1.0f / 128.0f) + of.eps);
#pragma unroll
                for (int j = 0; j < 8; ++j) value[i / 2][i % 2][j] = value[i / 2][i % 2][j] * inverse * weight[j];
                rotate<8>(value[i / 2][i % 2], rotation[i / 2]);
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * AHEAD; ++i) {
            const int row = first + i / 2 * STEP;
            if (row <= min(last, T::M - 1)) epilogue.write(value[i / 2][i % 2], place.row + row, place.column / 128 + i % 2, part, 8 * unit);
        }
    }
}

// Of one stream or two; fields one by one, as an index into parameters would put them into local memory.
struct Heads {
    typedef Bfloat16 Number;
    static constexpr bool STAGED = false;
    static constexpr int AHEAD = 1;
    const HeadsOf &first, &second;
    const PlainHeadsOf& to;
    const bf16* bias;
    i64 start;

    __device__ __forceinline__ Heads(const HeadsOf& first, const HeadsOf& second, const PlainHeadsOf& to)
        : first(first), second(second), to(to) {}
    __device__ __forceinline__ void begin(u32, int, u32) const {}
    template <class T> __device__ __forceinline__ void finish(u32 results, const Place& place) {
        const HeadsOf of = one_of(first, second, place.other);
        bias = of.bias, start = of.start;
        finish_heads<T>(*this, of, results, place);
    }
    __device__ __forceinline__ void widen(float (&value)[8], int, int column) const {
        float plus[8];
        expand(load<8>(bias + column), plus);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] += plus[i];
    }
    __device__ __forceinline__ void write(const float (&value)[8], int row, int head, int, int offset) const {
        store<8>(to.to + (head * to.length + start + row) * 128 + offset, value);
    }
    __device__ __forceinline__ void end(u32, u32) const {}
};

// The same behind the scales of a product in e4m3: Q and K in e4m3 with scales that the norms bound; V, whose scale is that of its
// largest number, in bfloat16, and the largest number of each warp.
struct ScaledHeads {
    typedef E4m3 Number;
    static constexpr bool STAGED = false;
    static constexpr int AHEAD = 2;
    const HeadsOf &first, &second;
    const ScalesOf &first_scales, &second_scales;
    const ScaledHeadsOf& to;
    float down[2], peak;
    const bf16* bias;
    ScalesOf scales;
    i64 start;
    int width;

    __device__ __forceinline__ ScaledHeads(
        const HeadsOf& first, const HeadsOf& second, const ScalesOf& first_scales, const ScalesOf& second_scales,
        const ScaledHeadsOf& to
    )
        : first(first), second(second), first_scales(first_scales), second_scales(second_scales), to(to), peak(0.0f) {}

    // Each warp finds the norms' largest weights by itself.
    __device__ __forceinline__ void begin(u32 thread, int, u32) {
        const int at = 4 * static_cast<int>(thread & 31);
        const bf16* const norms[2][2] = {{first.q_norm, second.q_norm}, {first.k_norm, second.k_norm}};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float one[4], other[4];
            expand(load<4>(norms[i][0] + at), one);
            expand(load<4>(norms[i][1] + at), other);
            const float most = warp_max(fmaxf(largest(one), largest(other)));
            down[i] = power_inverse(power_scale(11.3137085f * most));  // sqrt(128)
        }
    }
    template <class T> __device__ __forceinline__ void finish(u32 results, const Place& place) {
        const HeadsOf of = one_of(first, second, place.other);
        bias = of.bias, start = of.start, width = of.width;
        scales = {
            place.other ? second_scales.rows : first_scales.rows, place.other ? second_scales.columns : first_scales.columns,
            place.other ? second_scales.row_stride : first_scales.row_stride
        };
        finish_heads<T>(*this, of, results, place);
    }
    __device__ __forceinline__ void widen(float (&value)[8], int row, int column) const {
        const float by = scales.rows[row * scales.row_stride];
        float plus[8], factor[8];
        expand(load<8>(bias + column), plus);
        load_floats(scales.columns + column, factor);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] = fmaf(value[i] * by, factor[i], plus[i]);
    }
    __device__ __forceinline__ void write(const float (&value)[8], int row, int head, int part, int offset) {
        const i64 at = ((head - part * (width / 128)) * to.length + start + row) * 128 + offset;
        if (part == 2) {
            peak = fmaxf(peak, largest(value));
            store<8>(to.v + at, value);
        } else {
            store_e4m3<8>((part == 0 ? to.q : to.k) + at, value, part == 0 ? down[0] : down[1]);
        }
    }
    // The largest number of V that a warp has had, 0 of none.
    __device__ __forceinline__ void end(u32 warp, u32 lane) const {
        const float most = warp_max(peak);
        if (lane == 0) to.peaks[FINISHERS * blockIdx.x + warp] = most;
    }
};

#endif
