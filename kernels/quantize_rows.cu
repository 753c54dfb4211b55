// quantize_rows: rows of x in e4m3 with one scale each, the least power of two that keeps the row's largest number within 448.
//
// Shapes: x [.., K], up to four leading axes of any stride after the Python side has merged neighbours, unit stride along the
// last; data [.., K] contiguous, scale [..] float32. Blocks: x over rows.
// Numerics: one rounding, to e4m3. A row of zeros has the least scale: a product that bounds its results by the largest scale of a
// weight's rows would round them all to zero if it were 1.
// Alignment: w8 needs 16-byte aligned rows and K a multiple of 8; w1 takes anything.
//
// Versions: one, a block per row, which is read twice (the second time from cache). Weights are quantized once, at load;
// activations are quantized by the kernels that produce them.
#include "common/e4m3.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"

constexpr float LEAST = 0x1p-126f;

template <class T, int W>
__device__ __forceinline__ void quantize_row(const T* __restrict__ row, e4m3* __restrict__ data, float* scale, int packs) {
    __shared__ float scratch[32];
    float most = 0.0f, value[W];
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
        most = fmaxf(most, largest(value));
    }
    most = block_max(most, scratch);
    const float s = most > 0.0f ? power_scale(most) : LEAST, by = power_inverse(s);
    for (int p = threadIdx.x; p < packs; p += blockDim.x) {
        expand(load<W>(row + static_cast<i64>(p) * W), value);
        store_e4m3<W>(data + static_cast<i64>(p) * W, value, by);
    }
    if (threadIdx.x == 0) *scale = s;
}

#define QUANTIZE_ROWS(NAME, T, W)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                                \
        const T* __restrict__ x, e4m3* __restrict__ data, float* __restrict__ scale, const Extents extents,                \
        const Strides strides, int packs                                                                                   \
    ) {                                                                                                                    \
        const i64 row = blockIdx.x;                                                                                        \
        quantize_row<T, W>(x + row_offset(blockIdx.x, extents, strides), data + row * packs * W, scale + row, packs);      \
    }

QUANTIZE_ROWS(quantize_rows_bf16_w1, bf16, 1)
QUANTIZE_ROWS(quantize_rows_bf16_w8, bf16, 8)
QUANTIZE_ROWS(quantize_rows_f32_w1, float, 1)
QUANTIZE_ROWS(quantize_rows_f32_w4, float, 4)
