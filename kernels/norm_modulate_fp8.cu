// norm_modulate_fp8: layer_norm(x) (1 + scale) + shift in e4m3, with one scale per token, and a bound of each token's length.
//
// Shapes: x [B, L, D] bf16 with any batch and token stride, shift and scale [B, D] with any batch stride; data [B, L, D]
// contiguous, powers and lengths [B, L] float32. Blocks: x over tokens, y over samples.
// Numerics: as norm_modulate, float32 throughout; rounds once, to e4m3. A length is that of the row before rounding, increased by a
// sixteenth: rounding increases no value by more, except those near zero, for which a 500th is added.
// Alignment: w8 needs 16-byte aligned rows and D a multiple of 8; w1 takes anything.
//
// Versions:
//   block  a block per token, the row read four times (three times from cache). Any D. Loses wherever a row fits registers.
//   team   as in norm_modulate, with a second barrier per token: the largest number must be known before the first is rounded.
//   rows   as in norm_modulate, without barriers; needs rows of 3072 and sm_90a.
#include "common/e4m3.cuh"
#include "common/norm_rows.cuh"
#include "common/rows.cuh"
#include "common/team.cuh"

// At least the length of a row in e4m3, from the sum of squares before rounding.
__device__ __forceinline__ float length_bound(float squares) { return 1.0645f * sqrtf(squares); }

#define NORM_MODULATE_FP8_TEAM(NAME, W, P)                                                                                 \
    extern "C" __global__ void __launch_bounds__(TEAM, RESIDENT<P>) NAME(                                                  \
        const bf16* __restrict__ x, const bf16* __restrict__ shift, const bf16* __restrict__ scale,                        \
        e4m3* __restrict__ data, float* __restrict__ powers, float* __restrict__ lengths, const TokenStrides x_strides,    \
        i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps                                               \
    ) {                                                                                                                    \
        __shared__ Partial partial;                                                                                        \
        __shared__ float2 peaks[2][TEAM_WARPS];                                                                            \
        const i64 sample = blockIdx.y;                                                                                     \
        const i64 column = threadIdx.x * W, first = blockIdx.x;                                                            \
        const bf16* from = x + sample * x_strides.batch + first * x_strides.token + column;                                \
        e4m3* to = data + (sample * tokens + first) * packs * W + column;                                                  \
        powers += sample * tokens, lengths += sample * tokens;                                                             \
        Pack<bf16, W> held[P];                                                                                             \
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
            float most[2] = {}, squares[2] = {};                                                                           \
            _Pragma("unroll") for (int k = 0; k < P; ++k) {                                                                \
                _Pragma("unroll") for (int i = 0; i < W; ++i) {                                                            \
                    value[k][i] = fmaf(fmaf(value[k][i], inverse, minus), factor[k][i], term[k][i]);                       \
                    most[i % 2] = fmaxf(most[i % 2], fabsf(value[k][i]));                                                  \
                    squares[i % 2] = fmaf(value[k][i], value[k][i], squares[i % 2]);                                       \
                }                                                                                                          \
            }                                                                                                              \
            float peak = warp_largest(fmaxf(most[0], most[1])), length = warp_sum(squares[0] + squares[1]);                \
            if (threadIdx.x % 32 == 0) peaks[turn][threadIdx.x / 32] = make_float2(peak, length);                          \
            __syncthreads();                                                                                               \
            length = 0.0f;                                                                                                 \
            _Pragma("unroll") for (int w = 0; w < TEAM_WARPS; ++w)                                                         \
                peak = fmaxf(peak, peaks[turn][w].x), length += peaks[turn][w].y;                                          \
            const float power = power_scale(peak), down = power_inverse(power);                                            \
            _Pragma("unroll") for (int k = 0; k < P; ++k) {                                                                \
                if (static_cast<int>(threadIdx.x) + TEAM * k < packs) store_e4m3<W>(to + TEAM * W * k, value[k], down);    \
            }                                                                                                              \
            if (threadIdx.x == 0) powers[token] = power, lengths[token] = length_bound(length);                            \
            to += static_cast<i64>(gridDim.x) * packs * W;                                                                 \
        }                                                                                                                  \
    }

template <int W>
__device__ __forceinline__ void norm_modulate_fp8_row(
    const bf16* __restrict__ row, const bf16* __restrict__ shift, const bf16* __restrict__ scale, e4m3* __restrict__ data,
    float* power, float* length, int packs, float eps
) {
    __shared__ float scratch[32];
    const float count = static_cast<float>(packs) * W;
    float value[W], sum = 0.0f, squares = 0.0f, most = 0.0f;
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
#pragma unroll
        for (int i = 0; i < W; ++i) sum += value[i];
    }
    const float mean = block_sum(sum, scratch) / count;
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
#pragma unroll
        for (int i = 0; i < W; ++i) squares += (value[i] - mean) * (value[i] - mean);
    }
    const float inverse = inverse_sqrt(block_sum(squares, scratch) / count + eps);
    const auto finished = [&](int p) {
        float factor[W], term[W];
        expand(load<W>(row + static_cast<i64>(p) * W), value);
        expand(load<W>(scale + static_cast<i64>(p) * W), factor);
        expand(load<W>(shift + static_cast<i64>(p) * W), term);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = fmaf((value[i] - mean) * inverse, 1.0f + factor[i], term[i]);
    };
    squares = 0.0f;
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        finished(p);
        most = fmaxf(most, largest(value));
#pragma unroll
        for (int i = 0; i < W; ++i) squares = fmaf(value[i], value[i], squares);
    }
    squares = block_sum(squares, scratch);
    const float s = power_scale(block_max(most, scratch)), by = power_inverse(s);
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        finished(p);
        store_e4m3<W>(data + static_cast<i64>(p) * W, value, by);
    }
    if (threadIdx.x == 0) *power = s, *length = length_bound(squares);
}

#define NORM_MODULATE_FP8_BLOCK(NAME, W)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                                \
        const bf16* __restrict__ x, const bf16* __restrict__ shift, const bf16* __restrict__ scale,                        \
        e4m3* __restrict__ data, float* __restrict__ powers, float* __restrict__ lengths, const TokenStrides x_strides,    \
        i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps                                               \
    ) {                                                                                                                    \
        const i64 token = blockIdx.x, sample = blockIdx.y, place = sample * tokens + token;                                \
        norm_modulate_fp8_row<W>(                                                                                          \
            x + sample * x_strides.batch + token * x_strides.token, shift + sample * shift_stride,                         \
            scale + sample * scale_stride, data + place * packs * W, powers + place, lengths + place, packs, eps           \
        );                                                                                                                 \
    }

NORM_MODULATE_FP8_BLOCK(norm_modulate_fp8_bf16_w1_block, 1)
NORM_MODULATE_FP8_BLOCK(norm_modulate_fp8_bf16_w8_block, 8)
NORM_MODULATE_FP8_TEAM(norm_modulate_fp8_bf16_w8_t1, 8, 1)
NORM_MODULATE_FP8_TEAM(norm_modulate_fp8_bf16_w8_t3, 8, 3)
NORM_MODULATE_FP8_TEAM(norm_modulate_fp8_bf16_w8_t4, 8, 4)

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 1) norm_modulate_fp8_bf16_w8_r12(
    const bf16* __restrict__ x, const bf16* __restrict__ shift, const bf16* __restrict__ scale, e4m3* __restrict__ data,
    float* __restrict__ powers, float* __restrict__ lengths, const TokenStrides x_strides, i64 shift_stride, i64 scale_stride,
    int tokens, int packs, float eps
) {
    BODY(
        const i64 sample = blockIdx.y;
        const int lane = threadIdx.x % 32;
        e4m3* to = data + sample * tokens * ROW_VALUES + lane * 8;
        powers += sample * tokens, lengths += sample * tokens;
        norm_rows(
            x + sample * x_strides.batch, shift + sample * shift_stride, scale + sample * scale_stride, x_strides.token, tokens, eps,
            [&](const float (&value)[ROW_PACKS][8], int token) {
                float most[4] = {}, squares[4] = {};
_Pragma("unroll")
                for (int k = 0; k < ROW_PACKS; ++k) {
_Pragma("unroll")
                    for (int i = 0; i < 8; ++i) {
                        most[i % 4] = fmaxf(most[i % 4], fabsf(value[k][i]));
                        squares[i % 4] = fmaf(value[k][i], value[k][i], squares[i % 4]);
                    }
                }
                const float power = power_scale(warp_largest(fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]))));
                const float down = power_inverse(power);
                const float length = warp_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
                e4m3* row = to + static_cast<i64>(token) * ROW_VALUES;
_Pragma("unroll")
                for (int k = 0; k < ROW_PACKS; ++k) store_e4m3<8>(row + 256 * k, value[k], down);
                if (lane == 0) powers[token] = power, lengths[token] = length_bound(length);
            }
        );
    )
}
