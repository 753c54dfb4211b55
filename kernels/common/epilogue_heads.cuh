// A QKV product's tile of two heads: bias, RMS norm of Q and K, rotation, and the layout by head.
#pragma once
#include "common/epilogues.cuh"
#include "common/reduce.cuh"
#include "common/rope.cuh"

struct HeadsOf {
    const bf16 *bias, *q_norm, *k_norm;
    const float *cos, *sin;  // of the stream's first token, rows of 128 behind each other
    i64 start;               // of the stream in the joint sequence
    int width;  // of Q: H d
    float eps;
};

struct PlainHeadsOf {
    bf16* to;    // [3 H, L, 128]
    i64 length;  // L
};

struct ScalesOf {
    const float *rows, *columns, *lengths;  // lengths: upper bounds of those of X's rows
    i64 row_stride;                         // of both
};

struct ScaledHeadsOf {
    e4m3 *q, *k, *v;  // [H, L, 128]
    float* powers;    // scales of q, k, v and of means of v; scale of v divided by that of means
    u32* tally;       // V's largest value so far, and the number of warps that have added theirs; zero between launches
    i64 length;       // L
    float reach;
};

#if HOPPER

__device__ __forceinline__ HeadsOf one_of(const HeadsOf& first, const HeadsOf& second, bool other) {
    return {
        other ? second.bias : first.bias, other ? second.q_norm : first.q_norm, other ? second.k_norm : first.k_norm,
        other ? second.cos : first.cos, other ? second.sin : first.sin, other ? second.start : first.start, first.width, first.eps
    };
}

// Sums four values over the 16 lanes that hold them: lane l gets the sum of value l / 4 % 4.
__device__ __forceinline__ float four_sums(const float (&x)[4], u32 lane) {
    const bool upper = (lane & 8) != 0, odd = (lane & 4) != 0;
    float first = upper ? x[2] : x[0], second = upper ? x[3] : x[1];
    first += __shfl_xor_sync(ALL_LANES, upper ? x[0] : x[2], 8);
    second += __shfl_xor_sync(ALL_LANES, upper ? x[1] : x[3], 8);
    float sum = odd ? second : first;
    sum += __shfl_xor_sync(ALL_LANES, odd ? first : second, 4);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    return sum + __shfl_xor_sync(ALL_LANES, sum, 1);
}

// Eight columns of a row of a table in which each frequency stands twice, from shared memory; volatile, so that the access stays
// one of 16 bytes.
__device__ __forceinline__ void frequencies(u32 from, float (&to)[4]) {
    [[maybe_unused]] float again, twice;
    asm volatile("ld.volatile.shared.v4.f32 {%0, %2, %1, %3}, [%4];" : "=f"(to[0]), "=f"(to[1]), "=f"(again), "=f"(twice) : "r"(from) : "memory");
    asm volatile("ld.volatile.shared.v4.f32 {%0, %2, %1, %3}, [%4];" : "=f"(to[2]), "=f"(to[3]), "=f"(again), "=f"(twice) : "r"(from + 16) : "memory");
}

// Processes two heads of 128 columns, 16 lanes per row of each. A warp takes four rows at a time; meanwhile the rotations of the
// next rows are copied to shared memory. `E` has three functions: `begin_tile` reads the vectors for a tile's rows and for this
// lane's eight columns of D; `widen` applies scales and bias to a row's values; `write` stores them.
template <class T, class E>
__device__ __forceinline__ void finish_heads(E& epilogue, const HeadsOf& of, const Ring<T>& ring, u32 phase, const Place& place, u32& turned) {
    constexpr int AHEAD = 4, STEP = AHEAD * FINISHERS, BYTES = 512;  // of a row of a table
    static_assert(T::N == 256 && T::SCRATCH_BYTES >= FINISHERS * 2 * AHEAD * BYTES, "two heads, and rotations of the rows under way");
    const int lane = static_cast<int>(place.lane), warp = static_cast<int>(place.warp), unit = lane & 15, head = lane >> 4;
    const int part = place.column / of.width, rows = min(T::M, place.rows - place.row);
    const u32 tables = ring.scratch() + warp * (2 * AHEAD * BYTES), come = ring.turned(warp);
    const auto turn = [&](int row) {
        if (part < 2 && lane == 0 && row < rows) {
            const u32 bytes = min(AHEAD, rows - row) * BYTES;
            const i64 from = static_cast<i64>(place.row + row) * 128;
            barrier_expect(come, 2 * bytes);
            load_bytes(tables, of.cos + from, bytes, come);
            load_bytes(tables + AHEAD * BYTES, of.sin + from, bytes, come);
        }
        __syncwarp();
    };
    turn(AHEAD * warp);
    const int column = place.column + 128 * head + 8 * unit;
    const auto by = epilogue.begin_tile(place, rows, column, part, place.column / 128 + head, 8 * unit);
    float weight[8];
    expand(load<8>((part == 0 ? of.q_norm : of.k_norm) + 8 * unit), weight);
#pragma unroll
    for (int i = 0; i < 8; ++i) weight[i] *= epilogue.finer(part);
    barrier_wait(ring.handed(), phase);
    u32 at = handed_at<T>(ring.results(), AHEAD * warp, 16 * head + unit);
#pragma unroll 1
    for (int first = AHEAD * warp, group = 0; first < rows; first += STEP, ++group, at = (at ^ 64u) + STEP * 128) {
        float value[AHEAD][8];
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) epilogue.widen(handed_pack((at ^ (u << 4)) + u * 128), value[u], by, group, u);
        if (part < 2) {
            float squares[AHEAD];
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                squares[u] = value[u][0] * value[u][0];
#pragma unroll
                for (int i = 1; i < 8; ++i) squares[u] = fmaf(value[u][i], value[u][i], squares[u]);
            }
            const float inverse = inverse_sqrt(four_sums(squares, place.lane) * (1.0f / 128.0f) + of.eps);
            barrier_wait(come, turned);
            turned ^= 1;
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                const float mine = __shfl_sync(ALL_LANES, inverse, (lane & 16) | (4 * u));
                Rotation<8> rotation;
                frequencies(tables + u * BYTES + 32 * unit, rotation.cosine);
                frequencies(tables + (AHEAD + u) * BYTES + 32 * unit, rotation.sine);
#pragma unroll
                for (int i = 0; i < 8; ++i) value[u][i] = value[u][i] * mine * weight[i];
                rotate<8>(value[u], rotation);
            }
            __syncwarp();  // all have read the rotations
            turn(first + STEP);
        }
        if (first + AHEAD <= rows) {
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) epilogue.write(value[u], first, u, part);
        } else {
#pragma unroll
            for (int u = 0; u < AHEAD - 1; ++u) {
                if (first + u < rows) epilogue.write(value[u], first, u, part);
            }
        }
    }
}

// One stream or two. Fields are selected one by one, because indexing kernel parameters would copy them to local memory.
struct Heads {
    typedef Bfloat16 Number;
    static constexpr bool STAGED = false;
    const HeadsOf &first, &second;
    const PlainHeadsOf& to;
    const bf16* bias;
    bf16* at;
    i64 start;
    u32 turned;

    __device__ __forceinline__ Heads(const HeadsOf& first, const HeadsOf& second, const PlainHeadsOf& to)
        : first(first), second(second), to(to), turned(0) {}
    __device__ __forceinline__ void begin(u32, const Shape&, u32) const {}
    template <class T> __device__ __forceinline__ void finish(const Ring<T>& ring, u32 phase, const Place& place) {
        const HeadsOf of = one_of(first, second, place.other);
        bias = of.bias, start = of.start;
        finish_heads<T>(*this, of, ring, phase, place, turned);
    }
    __device__ __forceinline__ Pack<bf16, 8> begin_tile(const Place& place, int, int column, int, int head, int offset) {
        at = to.to + (head * to.length + start + place.row) * 128 + offset;
        return load<8>(bias + column);
    }
    __device__ __forceinline__ float finer(int) const { return 1.0f; }
    __device__ __forceinline__ void widen(const Pack<bf16, 8>& pack, float (&value)[8], const Pack<bf16, 8>& by, int, int) const {
        float plus[8];
        expand(pack, value);
        expand(by, plus);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] += plus[i];
    }
    __device__ __forceinline__ void write(const float (&value)[8], int first, int u, int) const {
        store<8>(at + first * 128 + u * 128, value);
    }
    __device__ __forceinline__ void end(u32, u32) const {}
};

// At least the largest value of V of one stream: by the Cauchy-Schwarz inequality, as in ScaledGelu, with a scale of W for each
// column. This thread's share of columns.
__device__ __forceinline__ float bound_of_values(const HeadsOf& of, const ScalesOf& scales, float longest, u32 thread) {
    float most = 0.0f;
#pragma unroll 2
    for (int i = 2 * of.width + 8 * static_cast<int>(thread); i < 3 * of.width; i += 8 * 32 * FINISHERS) {
        float factor[8], plus[8];
        load_floats(scales.columns + i, factor);
        expand(load<8>(of.bias + i), plus);
#pragma unroll
        for (int j = 0; j < 8; ++j) most = fmaxf(most, fmaf(longest, factor[j], fabsf(plus[j])));
    }
    return most;
}

__device__ __forceinline__ float longest_of(const ScalesOf& scales, int rows, u32 thread) {
    float most = 0.0f;
#pragma unroll 8
    for (int i = static_cast<int>(thread); i < rows; i += 32 * FINISHERS) most = fmaxf(most, scales.lengths[i * scales.row_stride]);
    return most;
}

// The same for a product in e4m3, after its scales. All results are in e4m3, with scales that are fixed before the product: those
// of Q and K follow from their norms, that of V from a bound that is the same in all blocks. The bound is about 64 times too
// large, which costs V nothing, but would cost bits of averages, which are smaller. So the launch also finds V's largest value:
// attention's result has its scale.
struct ScaledHeads {
    typedef E4m3 Number;
    static constexpr bool STAGED = false;
    struct Column {
        float factor[8];
        Pack<bf16, 8> bias;
    };
    const HeadsOf &first, &second;
    const ScalesOf &first_scales, &second_scales;
    const ScaledHeadsOf& to;
    float down[3], peak;  // peak: in units of V's scale
    const bf16* bias;
    ScalesOf scales;
    i64 start;
    int width;
    e4m3* at;
    u32 powers[2];  // of rows: lane 4 g + u has those of row u of groups g and 8 + g of this warp, twice in bfloat16
    u32 turned;

    __device__ __forceinline__ ScaledHeads(
        const HeadsOf& first, const HeadsOf& second, const ScalesOf& first_scales, const ScalesOf& second_scales,
        const ScaledHeadsOf& to
    )
        : first(first), second(second), first_scales(first_scales), second_scales(second_scales), to(to), peak(0.0f), turned(0) {}

    // Each warp finds the largest weights of the norms by itself; all together V's bound.
    __device__ __forceinline__ void begin(u32 thread, const Shape& shape, u32 notes) {
        const int offset = 4 * static_cast<int>(thread & 31);
        const bf16* const norms[2][2] = {{first.q_norm, second.q_norm}, {first.k_norm, second.k_norm}};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float one[4], other[4];
            expand(load<4>(norms[i][0] + offset), one);
            expand(load<4>(norms[i][1] + offset), other);
            const float most = warp_max(fmaxf(largest(one), largest(other)));
            down[i] = power_inverse(power_scale(11.3137085f * most));  // sqrt(128)
        }
        const float2 longest = largest_of_all(
            notes, thread, longest_of(first_scales, shape.m, thread), longest_of(second_scales, shape.other, thread)
        );
        const float one = bound_of_values(first, first_scales, to.reach * longest.x, thread);
        const float other = bound_of_values(second, second_scales, to.reach * longest.y, thread);
        down[2] = power_inverse(power_scale(largest_of_all(notes, thread, fmaxf(one, other), 0.0f).x));
    }
    template <class T> __device__ __forceinline__ void finish(const Ring<T>& ring, u32 phase, const Place& place) {
        static_assert(T::M <= 16 * 4 * FINISHERS, "two powers a lane");
        const HeadsOf of = one_of(first, second, place.other);
        bias = of.bias, start = of.start, width = of.width;
        scales = {
            place.other ? second_scales.rows : first_scales.rows, place.other ? second_scales.columns : first_scales.columns,
            nullptr, place.other ? second_scales.row_stride : first_scales.row_stride
        };
        finish_heads<T>(*this, of, ring, phase, place, turned);
    }
    __device__ __forceinline__ Column begin_tile(const Place& place, int rows, int column, int part, int head, int offset) {
        const int lane = static_cast<int>(place.lane), warp = static_cast<int>(place.warp);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = min(4 * (warp + FINISHERS * (8 * i + (lane >> 2))) + (lane & 3), rows - 1);
            powers[i] = power_twice(scales.rows[(place.row + row) * scales.row_stride]);
        }
        e4m3* const plane = part == 0 ? to.q : part == 1 ? to.k : to.v;
        at = plane + ((head - part * (width / 128)) * to.length + start + place.row) * 128 + offset;
        Column found;
        load_floats(scales.columns + column, found.factor);
        found.bias = load<8>(bias + column);
        if (part == 2) {  // in units of its scale from here on: a power of two, which rounds nothing
#pragma unroll
            for (int i = 0; i < 8; ++i) found.factor[i] *= down[2];
            scale_pack(found.bias, power_twice(down[2]));
        }
        return found;
    }
    __device__ __forceinline__ float finer(int part) const { return part == 0 ? down[0] : down[1]; }
    __device__ __forceinline__ void widen(Pack<bf16, 8> pack, float (&value)[8], const Column& by, int group, int u) const {
        float plus[8];
        scale_pack(pack, __shfl_sync(ALL_LANES, group < 8 ? powers[0] : powers[1], 4 * (group & 7) + u));
        expand(pack, value);
        expand(by.bias, plus);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] = fmaf(value[i], by.factor[i], plus[i]);
    }
    __device__ __forceinline__ void write(const float (&value)[8], int first, int u, int part) {
        if (part == 2) peak = fmaxf(peak, largest(value));
        store_e4m3<8>(at + first * 128 + u * 128, value);
    }
    // Adds this warp's largest value to the tally. The last warp of the launch writes the scales; the tally is zero again then,
    // because atomicInc returns to zero after its second argument. Values are not negative, so their bits are in their order.
    __device__ __forceinline__ void end(u32, u32 lane) const {
        const u32 most = __float_as_uint(warp_max(peak)), last = FINISHERS * gridDim.x - 1;
        if (lane != 0) return;
        atomicMax(to.tally, most);
        __threadfence();
        if (atomicInc(to.tally + 1, last) != last) return;
        __threadfence();  // the largest value is read after the last count, and not ahead of it
        const float values = power_inverse(down[2]), means = power_scale(__uint_as_float(atomicExch(to.tally, 0u)) * values);
        to.powers[0] = power_inverse(down[0]), to.powers[1] = power_inverse(down[1]), to.powers[2] = values;
        to.powers[3] = means, to.powers[4] = values * power_inverse(means);
    }
};

#endif
