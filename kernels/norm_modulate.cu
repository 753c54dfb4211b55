// norm_modulate: out = layer_norm(x) (1 + scale) + shift, scale and shift per sample.
//
// Shapes: x [B, L, D] with any batch and token stride, shift and scale [B, D] with any batch stride; out [B, L, D]
// contiguous. Blocks: x over tokens, y over samples.
// Numerics: float32 throughout, variance of the centred row; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and D a multiple of the width; w1 takes anything.
//
// Versions:
//   block  a block per token, the row read three times (twice from cache). Any D. Loses wherever a row fits one warp's
//          registers: two block-wide reductions with barriers per token.
//   warp   a warp per token, the row in registers (p is packs per lane; 12 packs of 8 bf16 hold D = 3072), read once with
//          all loads in flight; shift and scale are copied to shared memory meanwhile, once for the block's tokens
//          (read through L1 after the reductions they cost a quarter of the time). Up to 32 p packs. Loses when there are
//          few tokens: 512 fill 128 blocks of four.
#include "common/norm.cuh"
#include "common/rows.cuh"

// Warps of a block, a token each; the launcher divides by it.
constexpr int WARPS = 6;

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

// The same vectors in shared memory, for the tokens of a block.
template <class T, int W> struct SharedModulation {
    const Pack<T, W>* shift;
    const Pack<T, W>* scale;

    __device__ __forceinline__ void operator()(float (&value)[W], int p) const {
        float by[W], plus[W];
        expand(scale[p], by);
        expand(shift[p], plus);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = fmaf(value[i], 1.0f + by[i], plus[i]);
    }
};

// Waits for the vectors.
struct Arrived {
    __device__ __forceinline__ void operator()() const {
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncthreads();
    }
};

__device__ __forceinline__ void copy_async(void* shared, const void* global) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

#define NORM_MODULATE_WARP(NAME, T, W, P)                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) NAME(                                                         \
        const T* __restrict__ x, const T* __restrict__ shift, const T* __restrict__ scale, T* __restrict__ out,            \
        const TokenStrides x_strides, i64 shift_stride, i64 scale_stride, int tokens, int packs, float eps                 \
    ) {                                                                                                                    \
        __shared__ Pack<T, W> vectors[2][32 * P];                                                                          \
        const i64 token = static_cast<i64>(blockIdx.x) * WARPS + threadIdx.x / 32, sample = blockIdx.y;                    \
        for (int p = threadIdx.x; p < packs; p += 32 * WARPS) {                                                            \
            copy_async(&vectors[0][p], shift + sample * shift_stride + static_cast<i64>(p) * W);                           \
            copy_async(&vectors[1][p], scale + sample * scale_stride + static_cast<i64>(p) * W);                           \
        }                                                                                                                  \
        if (token >= tokens) {                                                                                             \
            Arrived()();                                                                                                   \
            return;                                                                                                        \
        }                                                                                                                  \
        const SharedModulation<T, W> modulation = {vectors[0], vectors[1]};                                                \
        norm_by_warp<W, P>(                                                                                                \
            x + sample * x_strides.batch + token * x_strides.token, out + (sample * tokens + token) * packs * W, packs,    \
            eps, Arrived(), modulation                                                                                     \
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
NORM_MODULATE_WARP(norm_modulate_bf16_w8_p4, bf16, 8, 4)
NORM_MODULATE_WARP(norm_modulate_bf16_w8_p12, bf16, 8, 12)
NORM_MODULATE_WARP(norm_modulate_bf16_w8_p16, bf16, 8, 16)
