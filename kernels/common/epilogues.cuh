// Epilogues of a product's tile, from float32 accumulators: bias, GELU, gate and residual.
//
// Plain results and those with gate and residual are STAGED (`stage_out` of pipeline.cuh) and rounded once: `begin` reads the
// vectors for 64 columns, `pair` takes two neighbouring sums of a row and the inputs for them, `store` copies a box of 64 x 64 out.
// GELU takes sums that were rounded to bfloat16 on their way to the epilogue warps, as rows of eight columns.
#pragma once
#include "common/e4m3.cuh"
#include "common/pipeline.cuh"
#include "common/reduce.cuh"

#if HOPPER

__device__ __forceinline__ float low_half(u32 word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_half(u32 word) { return __uint_as_float(word & 0xffff0000u); }

// Two neighbouring bfloat16 values; volatile, so that they are loaded where they are used and not kept in registers from one tile
// to the next.
__device__ __forceinline__ u32 two_at(const bf16* from) {
    u32 word;
    asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(word) : "l"(from));
    return word;
}
__device__ __forceinline__ float2 two_at(const float* from) {
    float2 pair;
    asm volatile("ld.global.nc.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "l"(from));
    return pair;
}

// GELU times `by`: the tanh form with the hardware's tanh, whose error is below 2^-11; bfloat16 keeps 2^-9 of the result, e4m3
// 2^-4.
__device__ __forceinline__ float quick_gelu(float x, float half_of_by) {
    const float inner = x * fmaf(0.035677408136300125f, x * x, 0.7978845608028654f), half = x * half_of_by;
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(inner));
    return fmaf(half, t, half);
}

// Two bfloat16 values times a power of two, which stands twice in a word: exact.
__device__ __forceinline__ void scale_pack(Pack<bf16, 8>& pack, u32 power) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm("mul.rn.bf16x2 %0, %0, %1;" : "+r"(pack.word[i]) : "r"(power));
}
__device__ __forceinline__ u32 power_twice(float power) { return (__float_as_uint(power) >> 16) * 0x10001u; }

// Common part of most staged epilogues: one scale along K, boxes from left to right, and no preparation before the first.
struct Staged {
    static constexpr bool STAGED = true, TURNS = false;
    static __device__ __forceinline__ constexpr int box(int turn) { return turn; }
    template <int SUMS> __device__ __forceinline__ void prepare(float (&)[SUMS], const Place&) {}
};

template <class N> struct Plain : Staged {
    typedef N Number;
    static constexpr bool LOADS = false;
    const TensorMap& to;
    __device__ __forceinline__ explicit Plain(const TensorMap& to) : to(to) {}

    __device__ __forceinline__ void begin(const Place&, int) {}
    __device__ __forceinline__ u32 pair(int, int, float x, float y, u32) { return rounded_pair(x, y); }
    __device__ __forceinline__ void store(u32 slab, const Place& place, int offset) {
        store_box(to, slab, place.column + offset, place.row);
    }
};

// residual + gate (sum + bias), for one sample
struct Gated : Staged {
    typedef Bfloat16 Number;
    static constexpr bool LOADS = true;
    const TensorMap &from, &to;
    const bf16 *gate, *bias;
    u32 by[8], plus[8];
    __device__ __forceinline__ Gated(const TensorMap& from, const TensorMap& to, const bf16* gate, const bf16* bias)
        : from(from), to(to), gate(gate), bias(bias) {}

    __device__ __forceinline__ void begin(const Place& place, int offset) {
        const int column = place.column + offset + 2 * place.quad();
#pragma unroll
        for (int j = 0; j < 8; ++j) by[j] = two_at(gate + column + 8 * j), plus[j] = two_at(bias + column + 8 * j);
    }
    __device__ __forceinline__ u32 pair(int j, int, float x, float y, u32 before) {
        return rounded_pair(
            fmaf(low_half(by[j]), x + low_half(plus[j]), low_half(before)),
            fmaf(high_half(by[j]), y + high_half(plus[j]), high_half(before))
        );
    }
    __device__ __forceinline__ void store(u32 slab, const Place& place, int offset) {
        store_box(to, slab, place.column + offset, place.row);
    }
};

// The same for a product in e4m3, after its scales by row and by column.
struct ScaledGated : Staged {
    typedef E4m3 Number;
    static constexpr bool LOADS = true;
    const TensorMap &from, &to;
    const float *rows, *columns;
    const bf16 *gate, *bias;
    int row_stride;
    float row[2];
    u32 by[8], plus[8];
    float2 factor[8];
    __device__ __forceinline__ ScaledGated(
        const TensorMap& from, const TensorMap& to, const float* rows, const float* columns, const bf16* gate, const bf16* bias,
        int row_stride
    )
        : from(from), to(to), rows(rows), columns(columns), gate(gate), bias(bias), row_stride(row_stride) {}

    template <int SUMS> __device__ __forceinline__ void prepare(float (&)[SUMS], const Place& place) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
            row[half] = rows[static_cast<i64>(min(place.mine() + 8 * half, place.rows - 1)) * row_stride];
    }
    __device__ __forceinline__ void begin(const Place& place, int offset) {
        const int column = place.column + offset + 2 * place.quad();
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            by[j] = two_at(gate + column + 8 * j), plus[j] = two_at(bias + column + 8 * j);
            factor[j] = two_at(columns + column + 8 * j);
        }
    }
    __device__ __forceinline__ u32 pair(int j, int half, float x, float y, u32 before) {
        x = fmaf(x * row[half], factor[j].x, low_half(plus[j])), y = fmaf(y * row[half], factor[j].y, high_half(plus[j]));
        return rounded_pair(fmaf(low_half(by[j]), x, low_half(before)), fmaf(high_half(by[j]), y, high_half(before)));
    }
    __device__ __forceinline__ void store(u32 slab, const Place& place, int offset) {
        store_box(to, slab, place.column + offset, place.row);
    }
};

// Finishes a tile in units of eight columns: 64 columns after each other, eight lanes per row. `E` has `rows`, which prepares the
// rows of a warp before the sums arrive; `column`, which reads the vectors for eight columns of D; `write`, which takes a row of
// the tile and eight values of the product; and AHEAD, an even number: the rows of a lane that are processed together.
template <class T, class E>
__device__ __forceinline__ void by_eights(const E& epilogue, const Ring<T>& ring, u32 phase, const Place& place) {
    constexpr int AHEAD = E::AHEAD, STEP = 4 * FINISHERS;
    static_assert(AHEAD % 2 == 0 && STEP % 8 == 4, "rows under way lie an odd number of fours apart");
    const int eighth = static_cast<int>(place.lane) & 7, begin = 4 * static_cast<int>(place.warp) + (static_cast<int>(place.lane) >> 3);
    const int last = min(T::M, place.rows - place.row);
    epilogue.rows(ring.scratch(), place, last);
    barrier_wait(ring.handed(), phase);
#pragma unroll 1
    for (int box = 0; box < T::BOXES; ++box) {
        const int column = place.column + 64 * box + 8 * eighth;
        const auto of_column = epilogue.column(column);
        u32 at = handed_at<T>(ring.results(), begin, 8 * box + eighth);
        int first = begin;
#pragma unroll 1
        for (; first + (AHEAD - 1) * STEP < last; first += AHEAD * STEP, at += AHEAD * STEP * 128) {
            Pack<bf16, 8> pack[AHEAD];
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) pack[u] = handed_pack((u % 2 ? at ^ 64u : at) + u * STEP * 128);
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) epilogue.write(pack[u], ring.scratch(), first + u * STEP, place.row, column, of_column);
        }
#pragma unroll 1
        for (; first < last; first += STEP, at = (at ^ 64u) + STEP * 128) {
            epilogue.write(handed_pack(at), ring.scratch(), first, place.row, column, of_column);
        }
    }
}

// GELU(sum + bias)
struct Gelu {
    typedef Bfloat16 Number;
    static constexpr bool STAGED = false;
    static constexpr int AHEAD = 2;
    const bf16* bias;
    bf16* to;
    i64 stride;

    __device__ __forceinline__ void begin(u32, const Shape&, u32) const {}
    __device__ __forceinline__ void end(u32, u32) const {}
    template <class T> __device__ __forceinline__ void finish(const Ring<T>& ring, u32 phase, const Place& place) const {
        by_eights<T>(*this, ring, phase, place);
    }
    __device__ __forceinline__ void rows(u32, const Place&, int) const {}
    __device__ __forceinline__ Pack<bf16, 8> column(int column) const { return load<8>(bias + column); }
    __device__ __forceinline__ void write(
        const Pack<bf16, 8>& pack, u32, int row, int first_row, int column, const Pack<bf16, 8>& plus
    ) const {
        float value[8], term[8];
        expand(pack, value);
        expand(plus, term);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] = quick_gelu(value[i] + term[i], 0.5f);
        store<8>(to + (first_row + row) * stride + column, value);
    }
};

// The maxima of two quantities over the epilogue warps; neither is negative.
__device__ __forceinline__ float2 largest_of_all(u32 notes, u32 thread, float one, float other) {
    one = warp_max(one), other = warp_max(other);
    if (thread % 32 == 0) {
        asm volatile("st.shared.v2.f32 [%0], {%1, %2};" : : "r"(notes + thread / 4), "f"(one), "f"(other) : "memory");
    }
    named_sync(1, 32 * FINISHERS);
    float2 most = make_float2(0.0f, 0.0f);
#pragma unroll
    for (u32 warp = 0; warp < FINISHERS; ++warp) {
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(one), "=f"(other) : "r"(notes + 8 * warp));
        most.x = fmaxf(most.x, one), most.y = fmaxf(most.y, other);
    }
    named_sync(1, 32 * FINISHERS);  // notes may be written again
    return most;
}

// GELU(sum rows columns + bias) in e4m3, with a scale per row that is fixed before the product. By the Cauchy-Schwarz inequality no
// sum exceeds the length of X's row times that of W's row, and no element of W exceeds 448 times its scale: `reach` is 448 sqrt(K).
// So nothing saturates. A float has the same relative precision at every exponent: a bound that is 64 times too large only costs
// range at the lower end.
struct ScaledGelu {
    typedef E4m3 Number;
    static constexpr bool STAGED = false;
    static constexpr int AHEAD = 4;
    struct Column {
        Pack<bf16, 8> bias;
        float factor[8];
    };
    const float *rows_, *columns, *lengths;
    const bf16* bias;
    e4m3* data;
    float* powers;
    i64 stride;
    float reach;
    float2 most;  // scale by column, size of a bias

    __device__ __forceinline__ void begin(u32 thread, const Shape& shape, u32 notes) {
        float widest = 0.0f, largest_bias = 0.0f;
#pragma unroll 4
        for (int i = 4 * static_cast<int>(thread); i < shape.n; i += 4 * 32 * FINISHERS) {
            const float4 scales = *reinterpret_cast<const float4*>(columns + i);
            widest = fmaxf(fmaxf(fmaxf(widest, scales.x), fmaxf(scales.y, scales.z)), scales.w);
            float term[4];
            expand(load<4>(bias + i), term);
            largest_bias = fmaxf(largest_bias, largest(term));
        }
        most = largest_of_all(notes, thread, widest, largest_bias);
    }

    template <class T> __device__ __forceinline__ void finish(const Ring<T>& ring, u32 phase, const Place& place) const {
        by_eights<T>(*this, ring, phase, place);
    }
    // For each row of this warp: the product's scale, twice in bfloat16, and half of the factor from the result to its scale.
    __device__ __forceinline__ void rows(u32 scratch, const Place& place, int last) const {
#pragma unroll 1
        for (int j = static_cast<int>(place.lane);; j += 32) {
            const int row = 4 * static_cast<int>(place.warp) + (j & 3) + 4 * FINISHERS * (j >> 2);
            if (row >= last) break;
            const float power = power_scale(fmaf(lengths[place.row + row] * reach, most.x, most.y));
            asm volatile("st.shared.v2.b32 [%0], {%1, %2};"
                         :
                         : "r"(scratch + 8 * row), "r"(power_twice(rows_[place.row + row])),
                           "r"(__float_as_uint(0.5f * power_inverse(power)))
                         : "memory");
            if (place.column == 0) powers[place.row + row] = power;
        }
        __syncwarp();
    }
    __device__ __forceinline__ Column column(int column) const {
        Column found = {load<8>(bias + column)};
        load_floats(columns + column, found.factor);
        return found;
    }
    __device__ __forceinline__ void write(
        Pack<bf16, 8> pack, u32 scratch, int row, int first_row, int column, const Column& by
    ) const {
        u32 power, half;
        asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(power), "=r"(half) : "r"(scratch + 8 * row) : "memory");
        float value[8], term[8];
        scale_pack(pack, power);
        expand(pack, value);
        expand(by.bias, term);
#pragma unroll
        for (int i = 0; i < 8; ++i) value[i] = quick_gelu(fmaf(value[i], by.factor[i], term[i]), __uint_as_float(half));
        store_e4m3<8>(data + (first_row + row) * stride + column, value);
    }
    __device__ __forceinline__ void end(u32, u32) const {}
};

#endif
