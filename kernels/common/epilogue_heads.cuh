// A QKV product's tile of two heads: bias, RMS norm of Q and K, rotation, and the layout by head.
#pragma once
#include "common/epilogues.cuh"
#include "common/heads.cuh"

struct HeadsOf {
    const bf16 *bias, *q_norm, *k_norm;
    const float *cos, *sin;  // of the stream's first token
    i64 cos_stride, sin_stride;
    int width;  // of Q: H d
    float eps;
};

struct PlainHeadsOf {
    bf16* to;    // [3 H, L, 128], from the stream's first token on
    i64 length;  // L
};

struct ScaledHeadsOf {
    const float *rows, *columns;
    const bf16 *other_q_norm, *other_k_norm;  // of the other stream, or of this one again
    e4m3 *q, *k;                              // [H, L, 128]
    bf16* v;
    float* peaks;  // of V, three by block
    i64 length;    // L
    int start, row_stride;
};

#if HOPPER

// Eight columns of a token's rotation, of a table in which each frequency stands twice.
__device__ __forceinline__ void frequencies(const float* from, float (&to)[4]) {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.z, to[2] = high.x, to[3] = high.z;
}

// Two heads of 128 numbers, 16 lanes to a row of both, which share its rotation. `E` has `widen`, which adds the bias to eight numbers
// of a column of D, and `write`, which stores them; `lane` columns apart are a head's sixteenths.
template <class T, class E>
__device__ __forceinline__ void finish_heads(E& epilogue, const HeadsOf& of, u32 results, const Place& place) {
    static_assert(T::N == 256, "two heads");
    const int unit = static_cast<int>(place.lane) & 15, part = place.column / of.width;
    const Pack<bf16, 8> weight = load<8>((part == 0 ? of.q_norm : of.k_norm) + 8 * unit);
    Rotation<8> rotation, next;
    const auto rotation_of = [&](int row, Rotation<8>& to) {
        const i64 token = min(place.row + row, place.rows - 1);
        frequencies(of.cos + token * of.cos_stride + 8 * unit, to.cosine);
        frequencies(of.sin + token * of.sin_stride + 8 * unit, to.sine);
    };
    const int first = 2 * static_cast<int>(place.warp) + (static_cast<int>(place.lane) >> 4);
    if (part < 2) rotation_of(first, next);
#pragma unroll 1
    for (int row = first; row < T::M; row += 2 * FINISHERS) {  // all lanes stay for the sums
        rotation = next;
        if (part < 2 && row + 2 * FINISHERS < T::M) rotation_of(row + 2 * FINISHERS, next);
#pragma unroll
        for (int head = 0; head < 2; ++head) {
            float value[8];
            expand(handed_pack<T>(results, row, 16 * head + unit), value);
            epilogue.widen(value, min(place.row + row, place.rows - 1), place.column + 128 * head + 8 * unit);
            if (part < 2) norm_and_rotate<16, 8>(value, weight, rotation, 1.0f / 128.0f, of.eps);
            if (place.row + row < place.rows) epilogue.write(value, place.row + row, place.column / 128 + head, part, 8 * unit);
        }
    }
}

struct Heads {
    typedef Bfloat16 Number;
    static constexpr bool STAGED = false;
    const HeadsOf& of;
    const PlainHeadsOf& to;

    __device__ __forceinline__ void begin(u32, int, u32) const {}
    template <class T> __device__ __forceinline__ void finish(u32 results, const Place& place) {
        finish_heads<T>(*this, of, results, place);
    }
    __device__ __forceinline__ void widen(float (&value)[8], int, int column) const {
        float plus[8];
        expand(load<8>(of.bias + column), plus);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] += plus[i];
    }
    __device__ __forceinline__ void write(const float (&value)[8], int row, int head, int, int offset) const {
        store<8>(to.to + (head * to.length + row) * 128 + offset, value);
    }
    __device__ __forceinline__ void end(u32, u32) const {}
};

// The same behind the scales of a product in e4m3: Q and K in e4m3 with scales that the norms bound; V, whose scale is that of its
// largest number, in bfloat16, and the largest number of each warp.
struct ScaledHeads {
    typedef E4m3 Number;
    static constexpr bool STAGED = false;
    const HeadsOf& of;
    const ScaledHeadsOf& to;
    float down[2], peak;

    __device__ __forceinline__ ScaledHeads(const HeadsOf& of, const ScaledHeadsOf& to) : of(of), to(to), peak(0.0f) {}

    // Each warp finds the norms' largest weights by itself.
    __device__ __forceinline__ void begin(u32 thread, int, u32) {
        const int at = 4 * static_cast<int>(thread & 31);
        const bf16* const norms[2][2] = {{of.q_norm, to.other_q_norm}, {of.k_norm, to.other_k_norm}};
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
        finish_heads<T>(*this, of, results, place);
    }
    __device__ __forceinline__ void widen(float (&value)[8], int row, int column) const {
        const float by = to.rows[static_cast<i64>(row) * to.row_stride];
        float plus[8], factor[8];
        expand(load<8>(of.bias + column), plus);
        load_floats(to.columns + column, factor);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] = fmaf(value[i] * by, factor[i], plus[i]);
    }
    __device__ __forceinline__ void write(const float (&value)[8], int row, int head, int part, int offset) {
        const i64 at = ((head - part * (of.width / 128)) * to.length + to.start + row) * 128 + offset;
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
