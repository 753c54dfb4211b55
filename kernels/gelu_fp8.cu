// gelu_fp8: tanh-GELU of an e4m3 product with its scales and bias applied; the result is e4m3 with one scale per token.
//
//     u = y rows columns + bias;  out = u / 2 (1 + tanh(sqrt(2 / pi) (u + 0.044715 u^3)))
//
// Shapes: y [B, L, M] bf16, the product without its scales, with any batch and token stride; rows [B, L] float32 with any batch
// and token stride, columns [M] float32, bias [M] bf16; data [B, L, M] with any batch and token stride, powers [B, L] float32.
// Blocks: x over tokens, y over samples.
// Numerics: float32; rows and columns are powers of two, so nothing is rounded before the bias is added. The tanh form is
// u / (1 + exp(-2 ..)), by the hardware's exponential and reciprocal: within 2^-20, where e4m3 keeps 2^-4. Rounds once, to e4m3.
// Alignment: w8 needs y, columns and bias 16-byte and data 8-byte aligned rows and M a multiple of 8; w1 takes anything.
//
// Versions:
//   block  a block per token, the values computed twice. Any M. Loses wherever a row fits registers.
//   team   a block loops over tokens with the next row in flight (t is packs per thread; 3 packs of 8 bf16 and 512 threads hold M =
//          12288). Bias and columns are read through L1: in registers they would leave room for only one block per SM, which would
//          then idle at its own barrier. There are as many blocks as the card holds at once.
#include "common/e4m3.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

// Threads of a team; and teams that an SM holds, which the launcher relies on.
constexpr int THREADS = 512, WARPS = THREADS / 32, RESIDENT = 2;

// exp and 1 / x by the hardware's approximations.
__device__ __forceinline__ float gelu(float x) {
    const float inner = x * fmaf(0.044715f * x, x, 1.0f);
    float power, inverse;
    // exp(-2 sqrt(2 / pi) inner) as a power of two
    asm("ex2.approx.f32 %0, %1;" : "=f"(power) : "f"(inner * -2.3022081986f));
    asm("rcp.approx.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
    return x * inverse;
}

template <int W, int P>
__device__ __forceinline__ void gelu_fp8_team(
    const bf16* __restrict__ y, const float* __restrict__ rows, const float* __restrict__ columns,
    const bf16* __restrict__ bias, e4m3* __restrict__ data, float* __restrict__ powers, const TokenStrides& y_strides,
    const TokenStrides& row_strides, const TokenStrides& out_strides, int tokens, int packs
) {
    __shared__ float peaks[2][WARPS];
    const i64 sample = blockIdx.y;
    const int column = threadIdx.x * W;
    y += sample * y_strides.batch + column;
    rows += sample * row_strides.batch;
    data += sample * out_strides.batch + column;
    Pack<bf16, W> held[P];
    const auto fetch = [&](int token) {
#pragma unroll
        for (int k = 0; k < P; ++k) {
            const bool there = token < tokens && static_cast<int>(threadIdx.x) + THREADS * k < packs;
            held[k] = there ? load_once<W>(y + token * y_strides.token + THREADS * W * k) : zero_pack<bf16, W>();
        }
    };
    fetch(blockIdx.x);
    int turn = 0;
    for (int token = blockIdx.x; token < tokens; token += gridDim.x, turn ^= 1) {
        const float row = rows[token * row_strides.token];
        float value[P][W], most = 0.0f;
#pragma unroll
        for (int k = 0; k < P; ++k) expand(held[k], value[k]);
        fetch(token + static_cast<int>(gridDim.x));
#pragma unroll
        for (int k = 0; k < P; ++k) {
            if (static_cast<int>(threadIdx.x) + THREADS * k >= packs) continue;
            float factor[W], term[W];
            load_floats(columns + column + THREADS * W * k, factor);
            expand(load<W>(bias + column + THREADS * W * k), term);
#pragma unroll
            for (int i = 0; i < W; ++i) value[k][i] = gelu(fmaf(value[k][i] * row, factor[i], term[i]));
            most = fmaxf(most, largest(value[k]));
        }
        most = warp_max(most);
        if (threadIdx.x % 32 == 0) peaks[turn][threadIdx.x / 32] = most;
        __syncthreads();
#pragma unroll
        for (int w = 0; w < WARPS; ++w) most = fmaxf(most, peaks[turn][w]);
        const float power = power_scale(most), down = power_inverse(power);
        e4m3* const to = data + token * out_strides.token;
#pragma unroll
        for (int k = 0; k < P; ++k) {
            if (static_cast<int>(threadIdx.x) + THREADS * k < packs) store_e4m3<W>(to + THREADS * W * k, value[k], down);
        }
        if (threadIdx.x == 0) powers[sample * tokens + token] = power;
    }
}

#define GELU_FP8_TEAM(NAME, W, P)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) NAME(                                                  \
        const bf16* __restrict__ y, const float* __restrict__ rows, const float* __restrict__ columns,                     \
        const bf16* __restrict__ bias, e4m3* __restrict__ data, float* __restrict__ powers, const TokenStrides y_strides,  \
        const TokenStrides row_strides, const TokenStrides out_strides, int tokens, int packs                              \
    ) {                                                                                                                    \
        gelu_fp8_team<W, P>(                                                                                               \
            y, rows, columns, bias, data, powers, y_strides, row_strides, out_strides, tokens, packs                       \
        );                                                                                                                 \
    }

template <int W>
__device__ __forceinline__ void gelu_fp8_row(
    const bf16* __restrict__ y, float row, const float* __restrict__ columns, const bf16* __restrict__ bias,
    e4m3* __restrict__ data, float* power, int packs
) {
    __shared__ float scratch[32];
    float value[W], term[W], most = 0.0f;
    const auto finished = [&](int p) {
        const i64 at = static_cast<i64>(p) * W;
        expand(load<W>(y + at), value);
        expand(load<W>(bias + at), term);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = gelu(fmaf(value[i] * row, columns[at + i], term[i]));
    };
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        finished(p);
        most = fmaxf(most, largest(value));
    }
    const float s = power_scale(block_max(most, scratch)), by = power_inverse(s);
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        finished(p);
        store_e4m3<W>(data + static_cast<i64>(p) * W, value, by);
    }
    if (threadIdx.x == 0) *power = s;
}

#define GELU_FP8_BLOCK(NAME, W)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                                \
        const bf16* __restrict__ y, const float* __restrict__ rows, const float* __restrict__ columns,                     \
        const bf16* __restrict__ bias, e4m3* __restrict__ data, float* __restrict__ powers, const TokenStrides y_strides,  \
        const TokenStrides row_strides, const TokenStrides out_strides, int tokens, int packs                              \
    ) {                                                                                                                    \
        const i64 token = blockIdx.x, sample = blockIdx.y;                                                                 \
        gelu_fp8_row<W>(                                                                                                   \
            y + sample * y_strides.batch + token * y_strides.token, rows[sample * row_strides.batch + token * row_strides.token], \
            columns, bias, data + sample * out_strides.batch + token * out_strides.token, powers + sample * tokens + token, packs \
        );                                                                                                                 \
    }

GELU_FP8_BLOCK(gelu_fp8_bf16_w1_block, 1)
GELU_FP8_BLOCK(gelu_fp8_bf16_w8_block, 8)
GELU_FP8_TEAM(gelu_fp8_bf16_w8_t1, 8, 1)
GELU_FP8_TEAM(gelu_fp8_bf16_w8_t3, 8, 3)
