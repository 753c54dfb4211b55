// apply_rope: rotates adjacent pairs of x by the angles of its token.
//
// Shapes: x [B, L, H, d] with any stride along B, L and H, d even; cos and sin [L, d] float32 with any row stride; out
// [B, L, H, d] contiguous. Blocks: x over tokens, y over samples.
// Numerics: float32; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and d a multiple of the width; w2 moves single elements.
//
// Versions:
//   w8, w4  a block per token: a thread keeps the rotation of its columns in registers over the heads. Loses when H is
//           small: a block then has little to do.
//   w2      the same, a pair of single elements per thread.
#include "common/rope.cuh"
#include "common/rows.cuh"

constexpr int THREADS = 128;

template <class T, int W> __device__ __forceinline__ void rotate_in_memory(const T* from, T* to, const Rotation<W>& rotation) {
    float value[W];
    if constexpr (W == 2) {
        load_pair(from, value);
    } else {
        expand(load<W>(from), value);
    }
    rotate<W>(value, rotation);
    if constexpr (W == 2) {
        store_pair(to, value);
    } else {
        store<W>(to, value);
    }
}

// `lanes` per head is a power of two; packs beyond it come in further rounds.
template <class T, int W>
__device__ __forceinline__ void apply_rope(
    const T* __restrict__ x, const float* __restrict__ cos, const float* __restrict__ sin, T* __restrict__ out,
    const TokenStrides& strides, i64 head_stride, i64 cos_stride, i64 sin_stride, int heads, int packs, int lanes
) {
    const i64 token = blockIdx.x, sample = blockIdx.y, tokens = gridDim.x;
    x += sample * strides.batch + token * strides.token;
    out += (sample * tokens + token) * heads * packs * W;
    for (int p = threadIdx.x & (lanes - 1); p < packs; p += lanes) {
        const int column = p * W;
        const Rotation<W> rotation = rotation_at<W>(cos + token * cos_stride + column, sin + token * sin_stride + column);
        for (int head = threadIdx.x / lanes; head < heads; head += THREADS / lanes) {
            rotate_in_memory<T, W>(x + head * head_stride + column, out + static_cast<i64>(head) * packs * W + column, rotation);
        }
    }
}

#define APPLY_ROPE(NAME, T, W)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                            \
        const T* __restrict__ x, const float* __restrict__ cos, const float* __restrict__ sin, T* __restrict__ out,        \
        const TokenStrides strides, i64 head_stride, i64 cos_stride, i64 sin_stride, int heads, int packs, int lanes       \
    ) {                                                                                                                    \
        apply_rope<T, W>(x, cos, sin, out, strides, head_stride, cos_stride, sin_stride, heads, packs, lanes);             \
    }

APPLY_ROPE(apply_rope_f32_w2, float, 2)
APPLY_ROPE(apply_rope_f32_w4, float, 4)
APPLY_ROPE(apply_rope_bf16_w2, bf16, 2)
APPLY_ROPE(apply_rope_bf16_w8, bf16, 8)
