// norm_modulate: out = layer_norm(x) (1 + scale) + shift, scale and shift per sample.
//
// Shapes: x [B, L, D] with any batch and token stride, shift and scale [B, D] with any batch stride; out [B, L, D]
// contiguous. Blocks: x over tokens, y over samples.
// Numerics: float32 throughout, variance of the centred row (team: of each warp's share about its own mean, from sums of a
// thread's few bf16 numbers, which are exact where digits would cancel; then joined by the formula of Chan, Golub and LeVeque,
// 1979; rows: of the whole row in the same way, by one warp); rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and D a multiple of the width; w1 takes anything.
//
// Versions:
//   block  a block per token, the row read three times (twice from cache). Any D. Loses wherever a row fits registers: two
//          block-wide reductions with barriers per token.
//   warp   a warp per token, the row in registers (p is packs per lane; 24 packs of 4 floats hold D = 3072), read once with
//          all loads in flight; shift and scale are read meanwhile and lie in shared memory as floats for the block's four
//          tokens. Up to 32 p packs. Loses in bfloat16, where a lane has twice the numbers per byte and computes too long
//          while nothing is in flight.
//   team   four warps share a token (t is packs per thread; 3 packs of 8 bf16 hold D = 3072) and walk over tokens with the
//          next row in flight; shift and 1 + scale stay in registers as floats, one barrier per token. Up to 128 t packs.
//          Blocks are as many as the card holds at once, so none starts late. Loses with float32, whose rows fill the registers.
//   rows   rows of 3072, on sm_90a: a warp per token without barriers, rows through shared memory by bulk copies, vectors there as
//          floats. Fewer instructions than a team. Loses where tokens are fewer than the warps that run at once; needs that width.
#include "common/norm.cuh"
#include "common/norm_rows.cuh"
#include "common/rows.cuh"
#include "common/team.cuh"

// Warps of a block, a token each; the launcher divides by it.
constexpr int WARPS = 4;

template <class T, int W> struct Modulation {
    const T* __restrict__ shift;
    const T* __restrict__ scale;

    __device__ __forceinline__ void operator()(float (&value)[W], int p) const {
        float by[W], plus[W];
        expand(load<W>(scale + static_cast<i64>(p) * W), by);
        expand(load<W>(shift + static_cast<i64>(p) * W), plus);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = fmaf(value[i], 1.0f + by[i], plus[i]);
    }
};

// The same vectors for the tokens of a block, as floats in shared memory: converted, and 1 added, once. Each group of four floats
// of a pack is in an array of its own, so that neighbouring lanes read neighbouring words.
template <int W, int P> struct SharedModulation {
    static constexpr int QUADS = W / 4;
    float4 (*shift)[32 * P];
    float4 (*scale)[32 * P];

    __device__ __forceinline__ void operator()(float (&value)[W], int p) const {
#pragma unroll
        for (int q = 0; q < QUADS; ++q) {
            const float4 by = scale[q][p], plus = shift[q][p];
            value[4 * q] = fmaf(value[4 * q], by.x, plus.x);
            value[4 * q + 1] = fmaf(value[4 * q + 1], by.y, plus.y);
            value[4 * q + 2] = fmaf(value[4 * q + 2], by.z, plus.z);
            value[4 * q + 3] = fmaf(value[4 * q + 3], by.w, plus.w);
        }
    }
};

// A thread's share of the vectors: loaded before the row, put into shared memory once the row has been reduced.
template <class T, int W, int P> struct Arriving {
    static constexpr int SHARE = P / WARPS;
    SharedModulation<W, P> shared;
    Pack<T, W> shift[SHARE], scale[SHARE];

    __device__ __forceinline__ void request(const T* __restrict__ shifts, const T* __restrict__ scales, int packs) {
#pragma unroll
        for (int k = 0; k < SHARE; ++k) {
            const int p = threadIdx.x + 32 * WARPS * k;
            shift[k] = p < packs ? load<W>(shifts + p * W) : zero_pack<T, W>();
            scale[k] = p < packs ? load<W>(scales + p * W) : zero_pack<T, W>();
        }
    }

    __device__ __forceinline__ void operator()() const {
#pragma unroll
        for (int k = 0; k < SHARE; ++k) {
            const int p = threadIdx.x + 32 * WARPS * k;
            float by[W], plus[W];
            expand(scale[k], by);
            expand(shift[k], plus);
#pragma unroll
            for (int q = 0; q < W / 4; ++q) {
                shared.scale[q][p] = make_float4(1.0f + by[4 * q], 1.0f + by[4 * q + 1], 1.0f + by[4 * q + 2], 1.0f + by[4 * q + 3]);
                shared.shift[q][p] = make_float4(plus[4 * q], plus[4 * q + 1], plus[4 * q + 2], plus[4 * q + 3]);
            }
        }
        __syncthreads();
    }
};

#define NORM_MODULATE_TEAM(NAME, T, W, P)                                                                                  \
    extern "C" __global__ void __launch_bounds__(TEAM, RESIDENT<P>) NAME(                                                  \
        const T* __restrict__ x, const T* __restrict__ shift, const T* __restrict__ scale, T* __restrict__ out,            \
        const TokenStrides x_strides, i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps                 \
    ) {                                                                                                                    \
        __shared__ Partial partial;                                                                                        \
        const i64 sample = blockIdx.y;                                                                                     \
        const i64 column = threadIdx.x * W, first = blockIdx.x;                                                            \
        const T* from = x + sample * x_strides.batch + first * x_strides.token + column;                                   \
        T* to = out + (sample * tokens + first) * packs * W + column;                                                      \
        Pack<T, W> held[P];                                                                                                \
        float factor[P][W], term[P][W];                                                                                    \
        load_share<W>(held, from, packs);                                                                                  \
        load_modulation<W>(factor, term, scale + sample * scale_stride + column, shift + sample * shift_stride + column, packs);\
        const Counts counts = counted<W, P>(packs, partial);                                                               \
        __syncthreads();                                                                                                   \
        int turn = 0;                                                                                                      \
        for (int token = blockIdx.x; token < tokens; token += gridDim.x, turn ^= 1) {                                      \
            float value[P][W];                                                                                             \
            _Pragma("unroll") for (int k = 0; k < P; ++k) expand(held[k], value[k]);                                       \
            from += gridDim.x * x_strides.token;                                                                           \
            load_next<W>(held, from, packs, token + static_cast<int>(gridDim.x) < tokens);                                 \
            const float2 row = moments<W, P>(value, counts, partial, turn);                                                \
            const float inverse = inverse_sqrt(row.y + eps), minus = -row.x * inverse;                                     \
            _Pragma("unroll") for (int k = 0; k < P; ++k) {                                                                \
                _Pragma("unroll") for (int i = 0; i < W; ++i)                                                              \
                    value[k][i] = fmaf(fmaf(value[k][i], inverse, minus), factor[k][i], term[k][i]);                       \
                if (static_cast<int>(threadIdx.x) + TEAM * k < packs) store<W>(to + TEAM * W * k, value[k]);               \
            }                                                                                                              \
            to += static_cast<i64>(gridDim.x) * packs * W;                                                                 \
        }                                                                                                                  \
    }

#define NORM_MODULATE_WARP(NAME, T, W, P)                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) NAME(                                                         \
        const T* __restrict__ x, const T* __restrict__ shift, const T* __restrict__ scale, T* __restrict__ out,            \
        const TokenStrides x_strides, i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps                 \
    ) {                                                                                                                    \
        __shared__ float4 shifts[W / 4][32 * P], scales[W / 4][32 * P];                                                    \
        const i64 token = static_cast<i64>(blockIdx.x) * WARPS + threadIdx.x / 32, sample = blockIdx.y;                    \
        Arriving<T, W, P> vectors = {{shifts, scales}};                                                                    \
        vectors.request(shift + sample * shift_stride, scale + sample * scale_stride, packs);                              \
        if (token >= tokens) {                                                                                             \
            vectors();                                                                                                     \
            return;                                                                                                        \
        }                                                                                                                  \
        norm_by_warp<W, P>(                                                                                                \
            x + sample * x_strides.batch + token * x_strides.token, out + (sample * tokens + token) * packs * W, packs,    \
            eps, vectors, vectors.shared                                                                                   \
        );                                                                                                                 \
    }

#define NORM_MODULATE_BLOCK(NAME, T, W)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                                \
        const T* __restrict__ x, const T* __restrict__ shift, const T* __restrict__ scale, T* __restrict__ out,            \
        const TokenStrides x_strides, i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps                 \
    ) {                                                                                                                    \
        const i64 token = blockIdx.x, sample = blockIdx.y;                                                                 \
        const Modulation<T, W> modulation = {shift + sample * shift_stride, scale + sample * scale_stride};                \
        norm_by_block<W>(                                                                                                  \
            x + sample * x_strides.batch + token * x_strides.token, out + (sample * tokens + token) * packs * W, packs,    \
            eps, modulation                                                                                                \
        );                                                                                                                 \
    }

NORM_MODULATE_BLOCK(norm_modulate_f32_w1_block, float, 1)
NORM_MODULATE_BLOCK(norm_modulate_f32_w4_block, float, 4)
NORM_MODULATE_BLOCK(norm_modulate_bf16_w1_block, bf16, 1)
NORM_MODULATE_BLOCK(norm_modulate_bf16_w8_block, bf16, 8)
NORM_MODULATE_WARP(norm_modulate_f32_w4_p8, float, 4, 8)
NORM_MODULATE_WARP(norm_modulate_f32_w4_p24, float, 4, 24)
NORM_MODULATE_TEAM(norm_modulate_bf16_w8_t1, bf16, 8, 1)
NORM_MODULATE_TEAM(norm_modulate_bf16_w8_t3, bf16, 8, 3)
NORM_MODULATE_TEAM(norm_modulate_bf16_w8_t4, bf16, 8, 4)

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 1) norm_modulate_bf16_w8_r12(
    const bf16* __restrict__ x, const bf16* __restrict__ shift, const bf16* __restrict__ scale, bf16* __restrict__ out,
    const TokenStrides x_strides, i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps
) {
    BODY(
        const i64 sample = blockIdx.y;
        bf16* to = out + sample * tokens * ROW_VALUES + threadIdx.x % 32 * 8;
        norm_rows(
            x + sample * x_strides.batch, shift + sample * shift_stride, scale + sample * scale_stride, x_strides.token, tokens, eps,
            [&](const float (&value)[ROW_PACKS][8], int token) {
                bf16* row = to + static_cast<i64>(token) * ROW_VALUES;
_Pragma("unroll")
                for (int k = 0; k < ROW_PACKS; ++k) store<8>(row + 256 * k, value[k]);
            }
        );
    )
}
