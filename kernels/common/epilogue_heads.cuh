// A QKV product's tile of two heads: bias, RMS norm of Q and K, rotation, and the layout by head.
#pragma once
#include "common/epilogues.cuh"

struct HeadsOf {
    const bf16 *bias, *q_norm, *k_norm;
    const float *cos, *sin;  // of the stream's first token
    i64 cos_stride, sin_stride;
    int width;  // of Q: H d
    float eps;
};

struct ScaledHeadsOf {
    const float *rows, *columns;
    const bf16 *other_q_norm, *other_k_norm;  // of the other stream, or of this one again
    e4m3 *q, *k;                              // [H, L, 128]
    bf16* v;
    float* peaks;  // of V, eight by block
    i64 length;    // L
    int start, row_stride;
};

#if HOPPER

// The rotation of 64 columns: that of column blocks 2 i and 2 i + 1 as one thread has them, from 16 columns of a table in which each
// frequency stands twice. Lane q of four reads frequencies 2 q and 2 q + 1 of eight, and needs q and 4 + q: two exchanges.
__device__ __forceinline__ void frequencies(const float* row, u32 lane, float (&to)[8]) {
    const bool odd = lane & 1, upper = lane & 2;
    const u32 first = (lane & ~3u) | ((lane & 1) << 1) | ((lane & 2) >> 1), second = first ^ 2u;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float4 four;
        asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(four.x), "=f"(four.y), "=f"(four.z), "=f"(four.w)
                     : "l"(row + 16 * i + 4 * (lane & 3)));
        const float a = __shfl_sync(0xffffffffu, upper ? four.z : four.x, first);
        const float b = __shfl_sync(0xffffffffu, upper ? four.x : four.z, second);
        to[2 * i] = odd ? b : a, to[2 * i + 1] = odd ? a : b;
    }
}

// Norms and rotations of a tile of two heads, which share them, 64 columns at a time.
struct HeadRows {
    const HeadsOf& of;
    float inverse[2][2];  // 1 / root mean square, by head and half
    u32 weight[8];
    float cosine[2][8], sine[2][8];
    int part;  // of Q, K or V

    // From sums of squares by head and half of this lane's columns.
    __device__ __forceinline__ void measure(const float (&squares)[2][2]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float sum = squares[i / 2][i % 2];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            inverse[i / 2][i % 2] = inverse_sqrt(sum * (1.0f / 128.0f) + of.eps);
        }
    }
    // Columns `offset` to `offset` + 63 of a head.
    __device__ __forceinline__ void begin(const Place& place, int offset) {
        const bf16* const norm = (part == 0 ? of.q_norm : of.k_norm) + offset + 2 * place.quad();
#pragma unroll
        for (int j = 0; j < 8; ++j) weight[j] = two_at(norm + 8 * j);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const i64 token = min(place.mine() + 8 * half, place.rows - 1);
            frequencies(of.cos + token * of.cos_stride + offset, place.lane, cosine[half]);
            frequencies(of.sin + token * of.sin_stride + offset, place.lane, sine[half]);
        }
    }
    __device__ __forceinline__ void turn(int head, int j, int half, float& x, float& y) const {
        const float even = x * inverse[head][half] * low_half(weight[j]);
        const float odd = y * inverse[head][half] * high_half(weight[j]);
        x = even * cosine[half][j] - odd * sine[half][j], y = odd * cosine[half][j] + even * sine[half][j];
    }
};

// Heads of 128 numbers, two in a tile of 256 columns; `to` is [3 H, tokens of the stream, 128].
struct Heads : Staged {
    typedef Bfloat16 Number;
    static constexpr bool LOADS = false;
    const TensorMap& to;
    HeadRows rows;
    int head;

    __device__ __forceinline__ Heads(const TensorMap& to, const HeadsOf& of) : to(to), rows{of} {}
    // The first halves of both heads, then the second ones.
    static __device__ __forceinline__ constexpr int box(int turn) { return (turn & 1) * 2 + (turn >> 1); }

    template <int SUMS> __device__ __forceinline__ void prepare(float (&sums)[SUMS], const Place& place) {
        static_assert(SUMS == 128, "two heads");
        rows.part = place.column / rows.of.width;
        float squares[2][2] = {};
#pragma unroll
        for (int j = 0; j < 32; ++j) {
            const u32 plus = two_at(rows.of.bias + place.column + 8 * j + 2 * place.quad());
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float &x = sums[4 * j + 2 * half], &y = sums[4 * j + 2 * half + 1];
                x += low_half(plus), y += high_half(plus);
                squares[j / 16][half] = fmaf(x, x, fmaf(y, y, squares[j / 16][half]));
            }
        }
        if (rows.part < 2) rows.measure(squares);
    }
    __device__ __forceinline__ void begin(const Place& place, int offset) {
        head = offset / 128;
        if (rows.part < 2 && head == 0) rows.begin(place, offset);
    }
    __device__ __forceinline__ u32 pair(int j, int half, float x, float y, u32) {
        if (rows.part < 2) rows.turn(head, j, half, x, y);
        return rounded_pair(x, y);
    }
    __device__ __forceinline__ void store(u32 slab, const Place& place, int offset) {
        store_box(to, slab, offset & 64, place.row, (place.column + offset) / 128);
    }
};

// The same behind the scales of a product in e4m3: Q and K in e4m3 with scales that the norms bound; V, whose scale is that of its
// largest number, in bfloat16, and the largest number of each warp.
struct ScaledHeads {
    typedef E4m3 Number;
    static constexpr bool STAGED = false, LOADS = false, ASIDE = true;
    const ScaledHeadsOf& to;
    HeadRows rows;
    float peak;

    __device__ __forceinline__ ScaledHeads(const HeadsOf& of, const ScaledHeadsOf& to) : to(to), rows{of}, peak(0.0f) {}

    // Largest weights of the norms, by 96 threads.
    __device__ __forceinline__ void aside(u32 thread, int, u32 notes) const {
        float most[2] = {};
        for (u32 i = 2 * thread; i < 128; i += 2 * 96) {
            const u32 word[4] = {
                two_at(rows.of.q_norm + i), two_at(to.other_q_norm + i), two_at(rows.of.k_norm + i), two_at(to.other_k_norm + i)
            };
#pragma unroll
            for (int w = 0; w < 4; ++w)
                most[w / 2] = fmaxf(most[w / 2], fmaxf(fabsf(low_half(word[w])), fabsf(high_half(word[w]))));
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
            most[0] = fmaxf(most[0], __shfl_xor_sync(0xffffffffu, most[0], distance));
            most[1] = fmaxf(most[1], __shfl_xor_sync(0xffffffffu, most[1], distance));
        }
        if (thread % 32 == 0) leave_notes(notes, thread / 32, most[0], most[1]);
        __syncwarp();
    }

    template <int SUMS> __device__ __forceinline__ void finish(float (&sums)[SUMS], const Place& place, u32 notes) {
        static_assert(SUMS == 128, "two heads");
        const int width = rows.of.width, column = place.column + 2 * place.quad();
        rows.part = place.column / width;
        float squares[2][2] = {}, row[2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
            row[half] = to.rows[static_cast<i64>(min(place.mine() + 8 * half, place.rows - 1)) * to.row_stride];
#pragma unroll
        for (int j = 0; j < 32; ++j) {
            const u32 plus = two_at(rows.of.bias + column + 8 * j);
            const float2 factor = two_at(to.columns + column + 8 * j);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float &x = sums[4 * j + 2 * half], &y = sums[4 * j + 2 * half + 1];
                x = fmaf(x * row[half], factor.x, low_half(plus)), y = fmaf(y * row[half], factor.y, high_half(plus));
                squares[j / 16][half] = fmaf(x, x, fmaf(y, y, squares[j / 16][half]));
            }
        }
        const i64 first = ((place.column - rows.part * width) / 128 * to.length + to.start + place.mine()) * 128;
        if (rows.part == 2) {
            store_values(sums, place, first);
            return;
        }
        rows.measure(squares);
        const float2 most = read_notes(notes);
        const float down = power_inverse(power_scale(11.3137085f * (rows.part == 0 ? most.x : most.y)));  // sqrt(128)
        e4m3* const out = (rows.part == 0 ? to.q : to.k) + first;
#pragma unroll
        for (int offset = 0; offset < 128; offset += 64) {
            rows.begin(place, offset);
#pragma unroll
            for (int head = 0; head < 2; ++head) {
                u32 word[2][4];
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    u32 pair[2];
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int from = 4 * (16 * head + offset / 8 + j) + 2 * half;
                        float x = sums[from], y = sums[from + 1];
                        rows.turn(head, j, half, x, y);
                        pair[half] = e4m3_pair(x * down, y * down);
                    }
                    word[j & 1][j >> 1] = pair[0] | (pair[1] << 16);
                }
                store_e4m3_rows(word[0], word[1], out + head * to.length * 128 + offset, 128, place);
            }
        }
    }

    __device__ __forceinline__ void store_values(const float (&sums)[128], const Place& place, i64 first) {
#pragma unroll
        for (int block = 0; block < 8; ++block) {  // 32 columns
            bf16* const out = to.v + first + (block / 4) * to.length * 128 + (block % 4) * 32 + 8 * place.quad();
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                u32 word[4];
                const bool there = place.mine() + 8 * half < place.rows;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float x = sums[4 * (4 * block + j) + 2 * half], y = sums[4 * (4 * block + j) + 2 * half + 1];
                    word[j] = rounded_pair(x, y);
                    if (there) peak = fmaxf(peak, fmaxf(fabsf(x), fabsf(y)));
                }
                quad_transpose(word, place.lane);
                if (there) store_16_bytes(out + 8 * half * 128, word[0], word[1], word[2], word[3]);
            }
        }
    }

    // The largest number of V that a warp has had, 0 of none.
    __device__ __forceinline__ void end(u32 warp, u32 lane) const {
        float most = peak;
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, distance));
        if (lane == 0) to.peaks[8 * blockIdx.x + warp] = most;
    }
};

#endif
