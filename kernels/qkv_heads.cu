// qkv_heads: per stream, bias added to the QKV projection, split into Q, K and V, Q and K RMS-normalized per head and
// rotated, all three laid out by head; streams follow each other in token order.
//
//     u = qkv + bias;  q, k, v = split(u);  q, k -> rotate(x / sqrt(mean(x^2) + eps) * norm, cos, sin)
//
// Shapes: one or two streams of qkv [B, Li, 3 H d] with any batch and token stride, bias [3 H d], norms [d]; cos and sin
// [L, d] float32 with any row stride, L the sum of Li; q, k, v [B, H, L, d] contiguous. One launch: blocks along x are groups
// of `per_block` tokens, the first `blocks` of them of the first stream; y over samples.
// Numerics: float32 throughout; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and d a multiple of the width; w2 moves single elements.
//
// Versions:
//   w8, w4  G lanes hold one head's row (16 for d = 128 in bfloat16), one pack of Q, K and V each; a block has the lanes of
//           all heads, or an even share of them, so the rotation of a token is read through L1 once, and bias and norm weights
//           stay in registers over the tokens. Six loads per thread are in flight (two tokens). Loses when there are few heads
//           or few tokens: blocks are then small or few.
//   w2      a warp per head, single elements, rows read twice. Any even d; every shape that the others take, slower.
#include "common/heads.cuh"

constexpr int MOST_THREADS = 384, PLAIN_THREADS = 128;

struct Stream {
    const void *qkv, *bias, *q_norm, *k_norm;
    i64 batch_stride, token_stride;
    int tokens, start;
};

struct Heads {
    const float *cos, *sin;
    void *q, *k, *v;
    i64 cos_stride, sin_stride;
    int heads, dim, length, per_block;
    float eps;
};

template <int W, class T> __device__ __forceinline__ void add_expanded(const Pack<T, W>& a, const Pack<T, W>& b, float (&sum)[W]) {
    float plus[W];
    expand(a, sum);
    expand(b, plus);
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] += plus[i];
}

template <class T, int W, int G> __device__ __forceinline__ void qkv_heads(const Stream& stream, const Heads& all, int block) {
    const int lane = threadIdx.x % G, column = lane * W, groups = blockDim.x / G, part = all.heads * all.dim;
    const int first = block * all.per_block, last = min(first + all.per_block, stream.tokens);
    const bool column_exists = column < all.dim;
    const float inverse_dim = 1.0f / static_cast<float>(all.dim);
    for (int head = threadIdx.x / G, round = 0; round < all.heads; head += groups, round += groups) {
        const bool mine = column_exists && head < all.heads;  // idle lanes must take part in the shuffles
        const int at = head * all.dim + column;
        Pack<T, W> plus[3];
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            plus[j] = mine ? load<W>(static_cast<const T*>(stream.bias) + j * part + at) : zero_pack<T, W>();
        }
        const T* row = static_cast<const T*>(stream.qkv) + blockIdx.y * stream.batch_stride + first * stream.token_stride + at;
        i64 to = ((static_cast<i64>(blockIdx.y) * all.heads + head) * all.length + stream.start + first) * all.dim + column;
        for (int pair = first; pair < last; pair += 2) {
            Pack<T, W> held[2][3];
#pragma unroll
            for (int u = 0; u < 2; ++u) {
                const bool here = mine && pair + u < last;
#pragma unroll
                for (int j = 0; j < 3; ++j) held[u][j] = here ? load_once<W>(row + j * part) : zero_pack<T, W>();
                row += stream.token_stride;
            }
#pragma unroll
            for (int u = 0; u < 2; ++u) {
                const bool here = mine && pair + u < last;
                const i64 token = stream.start + pair + u;
                Rotation<W> rotation = {};
                Pack<T, W> q_norm = zero_pack<T, W>(), k_norm = zero_pack<T, W>();
                if (here) {
                    q_norm = load<W>(static_cast<const T*>(stream.q_norm) + column);
                    k_norm = load<W>(static_cast<const T*>(stream.k_norm) + column);
                    rotation = rotation_at<W>(
                        all.cos + token * all.cos_stride + column, all.sin + token * all.sin_stride + column
                    );
                }
                float value[W];
                add_expanded<W>(held[u][0], plus[0], value);
                norm_and_rotate<G, W>(value, q_norm, rotation, inverse_dim, all.eps);
                if (here) store<W>(static_cast<T*>(all.q) + to, value);
                add_expanded<W>(held[u][1], plus[1], value);
                norm_and_rotate<G, W>(value, k_norm, rotation, inverse_dim, all.eps);
                if (here) store<W>(static_cast<T*>(all.k) + to, value);
                add_expanded<W>(held[u][2], plus[2], value);
                if (here) store<W>(static_cast<T*>(all.v) + to, value);
                to += all.dim;
            }
        }
    }
}

// One token of one stream, a warp per head, in pairs of single elements.
template <class T> __device__ __forceinline__ void qkv_heads_plain(const Stream& stream, const Heads& all, int token) {
    const int lane = threadIdx.x % 32, pairs = all.dim / 2;
    const i64 sample = blockIdx.y, part = static_cast<i64>(all.heads) * all.dim, place = stream.start + token;
    const T* const row = static_cast<const T*>(stream.qkv) + sample * stream.batch_stride + token * stream.token_stride;
    const T* const bias = static_cast<const T*>(stream.bias);
    const void* const norms[2] = {stream.q_norm, stream.k_norm};
    void* const results[3] = {all.q, all.k, all.v};
    for (int head = threadIdx.x / 32; head < all.heads; head += PLAIN_THREADS / 32) {
        const i64 to = ((sample * all.heads + head) * all.length + place) * all.dim;
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            const i64 at = j * part + static_cast<i64>(head) * all.dim;
            float squares = 0.0f, value[2], plus[2], weight[2];
            if (j < 2) {
                for (int p = lane; p < pairs; p += 32) {
                    load_pair(row + at + 2 * p, value);
                    load_pair(bias + at + 2 * p, plus);
                    value[0] += plus[0], value[1] += plus[1];
                    squares += value[0] * value[0] + value[1] * value[1];
                }
                squares = warp_sum(squares);
            }
            const float inverse = inverse_sqrt(squares / static_cast<float>(all.dim) + all.eps);
            for (int p = lane; p < pairs; p += 32) {
                load_pair(row + at + 2 * p, value);
                load_pair(bias + at + 2 * p, plus);
                value[0] += plus[0], value[1] += plus[1];
                if (j < 2) {
                    load_pair(static_cast<const T*>(norms[j]) + 2 * p, weight);
                    value[0] = value[0] * inverse * weight[0], value[1] = value[1] * inverse * weight[1];
                    rotate<2>(value, rotation_at<2>(all.cos + place * all.cos_stride + 2 * p, all.sin + place * all.sin_stride + 2 * p));
                }
                store_pair(static_cast<T*>(results[j]) + to + 2 * p, value);
            }
        }
    }
}

#define QKV_HEADS(NAME, T, W, G)                                                                                           \
    extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) NAME(                                                    \
        const __grid_constant__ Stream first, const __grid_constant__ Stream second, const __grid_constant__ Heads all,    \
        int blocks                                                                                                         \
    ) {                                                                                                                    \
        const int block = static_cast<int>(blockIdx.x);                                                                    \
        const bool is_first = block < blocks;                                                                              \
        const Stream stream = {                                                                                            \
            is_first ? first.qkv : second.qkv, is_first ? first.bias : second.bias,                                        \
            is_first ? first.q_norm : second.q_norm, is_first ? first.k_norm : second.k_norm,                              \
            is_first ? first.batch_stride : second.batch_stride, is_first ? first.token_stride : second.token_stride,      \
            is_first ? first.tokens : second.tokens, is_first ? first.start : second.start                                 \
        };                                                                                                                 \
        qkv_heads<T, W, G>(stream, all, is_first ? block : block - blocks);                                                \
    }

#define QKV_HEADS_PLAIN(NAME, T)                                                                                           \
    extern "C" __global__ void __launch_bounds__(PLAIN_THREADS) NAME(                                                      \
        const __grid_constant__ Stream first, const __grid_constant__ Stream second, const __grid_constant__ Heads all,    \
        int blocks                                                                                                         \
    ) {                                                                                                                    \
        const int block = static_cast<int>(blockIdx.x);                                                                    \
        if (block < blocks) {                                                                                              \
            qkv_heads_plain<T>(first, all, block);                                                                         \
        } else {                                                                                                           \
            qkv_heads_plain<T>(second, all, block - blocks);                                                               \
        }                                                                                                                  \
    }

QKV_HEADS(qkv_heads_f32_w4_g4, float, 4, 4)
QKV_HEADS(qkv_heads_f32_w4_g8, float, 4, 8)
QKV_HEADS(qkv_heads_f32_w4_g16, float, 4, 16)
QKV_HEADS(qkv_heads_f32_w4_g32, float, 4, 32)
QKV_HEADS(qkv_heads_bf16_w8_g4, bf16, 8, 4)
QKV_HEADS(qkv_heads_bf16_w8_g8, bf16, 8, 8)
QKV_HEADS(qkv_heads_bf16_w8_g16, bf16, 8, 16)
QKV_HEADS(qkv_heads_bf16_w8_g32, bf16, 8, 32)
QKV_HEADS_PLAIN(qkv_heads_f32_w2, float)
QKV_HEADS_PLAIN(qkv_heads_bf16_w2, bf16)
