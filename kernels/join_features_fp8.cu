// join_features_fp8: brings two halves of rows in e4m3, each with a scale, to one scale per row, for products that take no two.
//
// Shapes: rows of `left` + `right` bytes with the right halves, and left halves, which may already lie in these rows or elsewhere;
// any batch and token strides; left_powers [B, L] float32 with any batch and token stride, powers [B, L] float32: on entry the
// scales of the right halves, afterwards those of whole rows. Blocks: x over groups of WARPS tokens, y over samples; a warp per
// token.
// Numerics: float32 in between; scales are powers of two, so a number keeps its bits unless it ends up below 2^-6 of the new scale,
// where e4m3 has fewer.
// Alignment: b16 needs 16-byte aligned rows and halves that are multiples of 16; b1 takes anything.
//
// Versions: b16 moves 16 bytes per access, b1 single bytes. The scale of the right half is kept wherever the left half fits it, so
// only the left half is rewritten; otherwise the row takes the larger scale, and both halves are. Rows in place whose halves have
// equal scales are not touched. A lane has six words in flight: the whole left half of a row of FLUX.1, read at once.
#include "common/e4m3.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

constexpr int WARPS = 4, AHEAD = 6;

template <int W> __device__ __forceinline__ uint4 load_word(const e4m3* from) {
    if constexpr (W == 1) {
        return make_uint4(from->bits, 0, 0, 0);
    } else {
        return *reinterpret_cast<const uint4*>(from);
    }
}

// The values of a word of W bytes.
template <int W> __device__ __forceinline__ void numbers_of(const uint4& bits, float (&value)[W]) {
    if constexpr (W == 1) {
        value[0] = e4m3_value(bits.x);
    } else {
        const unsigned word[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            expand_pair(word[i] & 0xffffu, value[4 * i], value[4 * i + 1]);
            expand_pair(word[i] >> 16, value[4 * i + 2], value[4 * i + 3]);
        }
    }
}

template <int W> __device__ __forceinline__ float largest_of(const e4m3* row, int packs) {
    float most = 0.0f, value[W];
    for (int p = threadIdx.x % 32; p < packs; p += 32) {
        numbers_of<W>(load_word<W>(row + p * W), value);
        most = fmaxf(most, largest(value));
    }
    return warp_max(most);
}

template <int W> __device__ __forceinline__ void rescale(const e4m3* from, e4m3* to, int packs, float by) {
    for (int first = threadIdx.x % 32; first < packs; first += 32 * AHEAD) {
        uint4 held[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
            if (first + 32 * u < packs) held[u] = load_word<W>(from + (first + 32 * u) * W);
        }
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
            float value[W];
            if (first + 32 * u >= packs) break;
            numbers_of<W>(held[u], value);
            store_e4m3<W>(to + (first + 32 * u) * W, value, by);
        }
    }
}

#define JOIN_FEATURES_FP8(NAME, W)                                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) NAME(                                                         \
        const e4m3* half, e4m3* whole, const float* __restrict__ left_powers, float* powers,                               \
        const TokenStrides half_strides, const TokenStrides strides, const TokenStrides left_strides, int tokens,          \
        int left, int right                                                                                                \
    ) {                                                                                                                    \
        const int token = blockIdx.x * WARPS + threadIdx.x / 32;                                                           \
        if (token >= tokens) return;                                                                                       \
        const i64 sample = blockIdx.y;                                                                                     \
        const e4m3* const from = half + sample * half_strides.batch + token * half_strides.token;                          \
        e4m3* const row = whole + sample * strides.batch + token * strides.token;                                          \
        const float mine = left_powers[sample * left_strides.batch + token * left_strides.token];                          \
        const float kept = powers[sample * tokens + token];                                                                \
        if (mine == kept && from == row) return;                                                                           \
        float power = kept, by = mine * power_inverse(kept);                                                               \
        if (mine > kept) {                                                                                                 \
            const float most = largest_of<W>(from, left) * mine;                                                           \
            if (most > 0.0f) power = fmaxf(kept, power_scale(most));                                                       \
            by = most > 0.0f ? mine * power_inverse(power) : 1.0f; /* zeros fit every scale */                             \
        }                                                                                                                  \
        rescale<W>(from, row, left, by);                                                                                   \
        if (power == kept) return;                                                                                         \
        rescale<W>(row + left * W, row + left * W, right, kept * power_inverse(power));                                    \
        __syncwarp();                                                                                                      \
        if (threadIdx.x % 32 == 0) powers[sample * tokens + token] = power;                                                \
    }

JOIN_FEATURES_FP8(join_features_fp8_b1, 1)
JOIN_FEATURES_FP8(join_features_fp8_b16, 16)
