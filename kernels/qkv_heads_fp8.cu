// qkv_heads_fp8: qkv_heads after an e4m3 product, with Q, K and V in e4m3, one scale each.
//
//     u = qkv rows columns + bias;  q, k, v = split(u);  q, k -> rotate(x / sqrt(mean(x^2) + eps) * norm, cos, sin)
//
// Shapes: one or two streams of qkv [B, Li, 3 H d] bf16 with any batch and token stride, rows [B, Li] float32 likewise, columns
// [3 H d] float32, bias [3 H d], norms [d]; cos and sin [L, d] float32 with any row stride, L the sum of Li; peaks float32, from
// value_peaks; q, k, v [B, H, L, d] contiguous; powers [3] float32, the scales of q, k and v. One launch: blocks along x are groups
// of `per_block` tokens, the first `blocks` of them of the first stream; y over samples.
// Numerics: float32 throughout; rounds once, to e4m3. An RMS-normalized row has a length of at most sqrt(d) before its weight, and
// a rotation keeps lengths. So sqrt(d) max |norm| bounds Q and K, and their values need not be scanned. All heads share norms, so
// one scale serves them as well as one each. V has the scale of its largest value.
// Alignment: 16-byte aligned rows, columns, bias and norms, and d a multiple of 8.
//
// Versions: by G, the lanes that hold one head's row (16 for d = 128), one pack of Q, K and V each, as in qkv_heads. Scales of
// columns, bias and norms are read through L1 for each token: in registers they would leave room for fewer warps, and cost 8 us of
// 65.
#include "common/heads.cuh"
#include "common/heads_fp8.cuh"

constexpr int MOST_THREADS = 384, W = 8;

struct Heads {
    const float *cos, *sin, *peaks;
    e4m3 *q, *k, *v;
    float* powers;
    i64 cos_stride, sin_stride;
    int heads, dim, length, per_block, peaks_count;
    float eps;
};

// Largest weight of a norm over both streams; every lane of a group of G gets it.
template <int G>
__device__ __forceinline__ float largest_norm(const bf16* first, const bf16* second, int column, int dim) {
    float most = 0.0f, value[W];
    if (column < dim) {
        expand(load<W>(first + column), value);
        most = largest(value);
        if (second != nullptr) {
            expand(load<W>(second + column), value);
            most = fmaxf(most, largest(value));
        }
    }
#pragma unroll
    for (int distance = G / 2; distance > 0; distance /= 2) most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, distance));
    return most;
}

// The values of a pack with scales and bias applied; zeros for an idle lane, whose squares are summed too.
__device__ __forceinline__ void scaled(
    const Pack<bf16, W>& product, float row, const float* columns, const bf16* bias, bool mine, float (&value)[W]
) {
    float factor[W], plus[W];
    expand(product, value);
    load_floats(columns, factor);
    expand(load<W>(bias), plus);
#pragma unroll
    for (int i = 0; i < W; ++i) value[i] = mine ? fmaf(value[i] * row, factor[i], plus[i]) : 0.0f;
}

template <int G>
__device__ __forceinline__ void qkv_heads_fp8(
    const ScaledStream& stream, const bf16* const (&norms)[4], const Heads& all, int block, bool writes_powers
) {
    __shared__ float scratch[32];
    const int lane = threadIdx.x % G, column = lane * W, groups = blockDim.x / G, part = all.heads * all.dim;
    const int first = block * all.per_block, last = min(first + all.per_block, stream.tokens);
    const bool column_exists = column < all.dim;
    const float inverse_dim = 1.0f / static_cast<float>(all.dim), longest = sqrtf(static_cast<float>(all.dim));
    float peak = 0.0f;
    for (int i = threadIdx.x; i < all.peaks_count; i += blockDim.x) peak = fmaxf(peak, all.peaks[i]);
    const float q_power = power_scale(longest * largest_norm<G>(norms[0], norms[1], column, all.dim));
    const float k_power = power_scale(longest * largest_norm<G>(norms[2], norms[3], column, all.dim));
    const float v_power = power_scale(block_max(peak, scratch));
    if (writes_powers && threadIdx.x == 0) all.powers[0] = q_power, all.powers[1] = k_power, all.powers[2] = v_power;
    const float q_down = power_inverse(q_power), k_down = power_inverse(k_power), v_down = power_inverse(v_power);
    const float* const rows = stream.rows + blockIdx.y * stream.row_batch_stride;
    for (int head = threadIdx.x / G, round = 0; round < all.heads; head += groups, round += groups) {
        const bool mine = column_exists && head < all.heads;  // idle lanes must take part in the shuffles
        const int at = mine ? head * all.dim + column : 0, norm_at = mine ? column : 0;
        const bf16* row = stream.qkv + blockIdx.y * stream.batch_stride + first * stream.token_stride + at;
        i64 to = ((static_cast<i64>(blockIdx.y) * all.heads + head) * all.length + stream.start + first) * all.dim + column;
        for (int token = first; token < last; ++token) {
            Pack<bf16, W> held[3];
#pragma unroll
            for (int j = 0; j < 3; ++j) held[j] = mine ? load_once<W>(row + j * part) : zero_pack<bf16, W>();
            row += stream.token_stride;
            const float power = rows[token * stream.row_stride];
            const i64 place = stream.start + token;
            const Rotation<W> rotation = rotation_at<W>(
                all.cos + place * all.cos_stride + norm_at, all.sin + place * all.sin_stride + norm_at
            );
            float value[W];
            scaled(held[0], power, stream.columns + at, stream.bias + at, mine, value);
            norm_and_rotate<G, W>(value, load<W>(stream.q_norm + norm_at), rotation, inverse_dim, all.eps);
            if (mine) store_e4m3<W>(all.q + to, value, q_down);
            scaled(held[1], power, stream.columns + part + at, stream.bias + part + at, mine, value);
            norm_and_rotate<G, W>(value, load<W>(stream.k_norm + norm_at), rotation, inverse_dim, all.eps);
            if (mine) store_e4m3<W>(all.k + to, value, k_down);
            scaled(held[2], power, stream.columns + 2 * part + at, stream.bias + 2 * part + at, mine, value);
            if (mine) store_e4m3<W>(all.v + to, value, v_down);
            to += all.dim;
        }
    }
}

#define QKV_HEADS_FP8(NAME, G)                                                                                             \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 3) NAME(                                                    \
        const __grid_constant__ ScaledStream first, const __grid_constant__ ScaledStream second,                           \
        const __grid_constant__ Heads all, int blocks                                                                      \
    ) {                                                                                                                    \
        const int block = static_cast<int>(blockIdx.x);                                                                    \
        const bool is_first = block < blocks;                                                                              \
        const bf16* const norms[4] = {first.q_norm, second.q_norm, first.k_norm, second.k_norm};                           \
        qkv_heads_fp8<G>(                                                                                                  \
            one_of(first, second, is_first), norms, all, is_first ? block : block - blocks,                                \
            blockIdx.x == 0 && blockIdx.y == 0                                                                             \
        );                                                                                                                 \
    }

QKV_HEADS_FP8(qkv_heads_fp8_bf16_g4, 4)
QKV_HEADS_FP8(qkv_heads_fp8_bf16_g8, 8)
QKV_HEADS_FP8(qkv_heads_fp8_bf16_g16, 16)
QKV_HEADS_FP8(qkv_heads_fp8_bf16_g32, 32)
