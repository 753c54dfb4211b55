// What a tile of a product is finished with, behind sums in float32: bias, GELU, gate and residual; results are rounded once.
//
// Results in bfloat16 pass through places of the ring (`stage_out` of pipeline.cuh): `begin` reads what belongs to 64 columns, `pair`
// takes two neighbouring sums of a row and what came for them, `store` copies a box of 64 x 64 out.
#pragma once
#include "common/e4m3.cuh"
#include "common/pipeline.cuh"

#if HOPPER

__device__ __forceinline__ float low_half(u32 word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_half(u32 word) { return __uint_as_float(word & 0xffff0000u); }

// Two neighbouring numbers of bfloat16; volatile, so that they are read where they are used and not kept in registers from one
// tile to the next.
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

// The tanh form, with the hardware's tanh: within 2^-11 of it, where bfloat16 keeps 2^-9 of the result and e4m3 2^-4.
__device__ __forceinline__ float quick_gelu(float x) {
    const float inner = 0.7978845608028654f * x * fmaf(0.044715f * x, x, 1.0f);
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(inner));
    return fmaf(0.5f * x, t, 0.5f * x);
}

// What most staged ones have in common: boxes from left to right, and nothing to be done before the first.
struct Staged {
    static constexpr bool STAGED = true, ASIDE = false;
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

// GELU(sum + bias)
struct Gelu : Staged {
    typedef Bfloat16 Number;
    static constexpr bool LOADS = false;
    const TensorMap& to;
    const bf16* bias;
    u32 plus[8];
    __device__ __forceinline__ Gelu(const TensorMap& to, const bf16* bias) : to(to), bias(bias) {}

    __device__ __forceinline__ void begin(const Place& place, int offset) {
#pragma unroll
        for (int j = 0; j < 8; ++j) plus[j] = two_at(bias + place.column + offset + 8 * j + 2 * place.quad());
    }
    __device__ __forceinline__ u32 pair(int j, int, float x, float y, u32) {
        return rounded_pair(quick_gelu(x + low_half(plus[j])), quick_gelu(y + high_half(plus[j])));
    }
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

// The same behind the scales of a product in e4m3, by row and by column.
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

// Four lanes with four words each: word i of lane q becomes word q of lane i. Its own inverse.
__device__ __forceinline__ void quad_transpose(u32 (&v)[4], u32 lane) {
    const bool odd = lane & 1, upper = lane & 2;
    u32 a = __shfl_xor_sync(0xffffffffu, odd ? v[0] : v[1], 1), b = __shfl_xor_sync(0xffffffffu, odd ? v[2] : v[3], 1);
    if (odd) {
        v[0] = a, v[2] = b;
    } else {
        v[1] = a, v[3] = b;
    }
    a = __shfl_xor_sync(0xffffffffu, upper ? v[0] : v[2], 2), b = __shfl_xor_sync(0xffffffffu, upper ? v[1] : v[3], 2);
    if (upper) {
        v[0] = a, v[1] = b;
    } else {
        v[2] = a, v[3] = b;
    }
}

// 64 columns of rows r and r + 8 in e4m3, from `to` of row r on: word j holds two numbers of column block j of row r, and two of row
// r + 8 above them. Even blocks transposed give lane q block 2 q, odd ones 2 q + 1: 16 bytes side by side.
__device__ __forceinline__ void store_e4m3_rows(u32 (&even)[4], u32 (&odd)[4], e4m3* to, i64 stride, const Place& place) {
    quad_transpose(even, place.lane);
    quad_transpose(odd, place.lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const u32 pick = half ? 0x7632 : 0x5410;
        if (place.mine() + 8 * half < place.rows) {
            store_16_bytes(
                to + 8 * half * stride + 16 * place.quad(), __byte_perm(even[0], even[1], pick),
                __byte_perm(even[2], even[3], pick), __byte_perm(odd[0], odd[1], pick), __byte_perm(odd[2], odd[3], pick)
            );
        }
    }
}

// What the three warps of `aside` leave for all others: two largest numbers each, none below zero.
__device__ __forceinline__ void leave_notes(u32 notes, u32 warp, float one, float other) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" : : "r"(notes + 8 * warp), "f"(one), "f"(other) : "memory");
}
__device__ __forceinline__ float2 read_notes(u32 notes) {
    float2 most = make_float2(0.0f, 0.0f);
#pragma unroll
    for (u32 warp = 0; warp < 3; ++warp) {
        float one, other;
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(one), "=f"(other) : "r"(notes + 8 * warp));
        most.x = fmaxf(most.x, one), most.y = fmaxf(most.y, other);
    }
    return most;
}

// GELU(sum rows columns + bias) in e4m3, with a scale per row that is known beforehand. By Cauchy and Schwarz no sum is larger than
// the length of X's row times that of W's, and no number of W larger than 448 times its scale: `reach` is 448 sqrt(K). So nothing
// saturates. A float keeps its precision wherever it lies: a bound that is 64 times too far off costs range at the lower end alone.
struct ScaledGelu {
    typedef E4m3 Number;
    static constexpr bool STAGED = false, LOADS = false, ASIDE = true;
    const float *rows, *columns, *lengths;
    const bf16* bias;
    e4m3* data;
    float* powers;
    i64 stride;
    float reach;

    // Largest scale by column, and size of a bias, of N, by 96 threads.
    __device__ __forceinline__ void aside(u32 thread, int n, u32 notes) const {
        float widest = 0.0f, most = 0.0f;
        for (int i = 4 * static_cast<int>(thread); i < n; i += 4 * 96) {
            const float4 scales = *reinterpret_cast<const float4*>(columns + i);
            widest = fmaxf(fmaxf(fmaxf(widest, scales.x), fmaxf(scales.y, scales.z)), scales.w);
            float term[4];
            expand(load<4>(bias + i), term);
            most = fmaxf(most, largest(term));
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
            widest = fmaxf(widest, __shfl_xor_sync(0xffffffffu, widest, distance));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, distance));
        }
        if (thread % 32 == 0) leave_notes(notes, thread / 32, widest, most);
        __syncwarp();
    }

    __device__ __forceinline__ void end(u32, u32) const {}

    template <int SUMS> __device__ __forceinline__ void finish(float (&sums)[SUMS], const Place& place, u32 notes) const {
        const float2 noted = read_notes(notes);
        const float widest = noted.x, most = noted.y;
        float row[2], down[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int mine = place.mine() + 8 * half, at = min(mine, place.rows - 1);
            const float power = power_scale(fmaf(lengths[at] * reach, widest, most));
            row[half] = rows[at], down[half] = power_inverse(power);
            if (place.column == 0 && place.quad() == 0 && mine < place.rows) powers[mine] = power;
        }
        const int column = place.column + 2 * place.quad();
        e4m3* const to = data + place.mine() * stride + place.column;
#pragma unroll
        for (int box = 0; box < SUMS / 32; ++box) {
            u32 word[2][4];
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const u32 plus = two_at(bias + column + 64 * box + 8 * j);
                const float2 factor = two_at(columns + column + 64 * box + 8 * j);
                u32 pair[2];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int from = 4 * (8 * box + j) + 2 * half;
                    const float x = quick_gelu(fmaf(sums[from] * row[half], factor.x, low_half(plus)));
                    const float y = quick_gelu(fmaf(sums[from + 1] * row[half], factor.y, high_half(plus)));
                    pair[half] = e4m3_pair(x * down[half], y * down[half]);
                }
                word[j & 1][j >> 1] = pair[0] | (pair[1] << 16);
            }
            store_e4m3_rows(word[0], word[1], to + 64 * box, stride, place);
        }
    }
};

#endif
