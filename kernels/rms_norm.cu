// rms_norm: out = x / sqrt(mean(x^2) + eps) * weight over the last axis.
//
// Shapes: x [.., d], up to four leading axes of any stride, unit stride along d; weight [d]; out [.., d] contiguous.
// Numerics: float32 throughout; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows and d a multiple of the width; w1 takes anything.
//
// Versions:
//   w8, w4  a group of lanes per row (16 for d = 128 in bfloat16), one 16-byte pack per lane held in registers; packs beyond
//           a warp's 32 are read twice. Loses to a block per row when d runs into the thousands.
//   w1      the same, one element per access.
#include "common/reduce.cuh"
#include "common/rows.cuh"

constexpr int THREADS = 256;

template <class T, int W>
__device__ __forceinline__ float squares(const Pack<T, W>& pack) {
    float value[W], sum = 0.0f;
    expand(pack, value);
#pragma unroll
    for (int i = 0; i < W; ++i) sum += value[i] * value[i];
    return sum;
}

template <class T, int W>
__device__ __forceinline__ void write(T* out, const Pack<T, W>& pack, const T* __restrict__ weight, float inverse) {
    float value[W], by[W];
    expand(pack, value);
    expand(load<W>(weight), by);
#pragma unroll
    for (int i = 0; i < W; ++i) value[i] = value[i] * inverse * by[i];
    store<W>(out, value);
}

// `lanes` per row is a power of two; lanes without a row must take part in the shuffles.
template <class T, int W>
__device__ __forceinline__ void rms_norm(
    const T* __restrict__ x, const T* __restrict__ weight, T* __restrict__ out, const Extents& extents,
    const Strides& strides, int rows, int packs, int lanes, float eps
) {
    const int lane = threadIdx.x & (lanes - 1);
    const unsigned row = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
    const bool mine = row < static_cast<unsigned>(rows) && lane < packs;
    Pack<T, W> held = zero_pack<T, W>();
    float sum = 0.0f;
    if (mine) {
        x += row_offset(row, extents, strides);
        held = load<W>(x + lane * W);
        sum = squares<T, W>(held);
        for (int p = lane + lanes; p < packs; p += lanes) sum += squares<T, W>(load<W>(x + static_cast<i64>(p) * W));
    }
    const float inverse = inverse_sqrt(group_sum(sum, lanes) / (static_cast<float>(packs) * W) + eps);
    if (!mine) return;
    out += static_cast<i64>(row) * packs * W;
    write<T, W>(out + lane * W, held, weight + lane * W, inverse);
    for (int p = lane + lanes; p < packs; p += lanes) {
        const i64 column = static_cast<i64>(p) * W;
        write<T, W>(out + column, load<W>(x + column), weight + column, inverse);
    }
}

#define RMS_NORM(NAME, T, W)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                            \
        const T* __restrict__ x, const T* __restrict__ weight, T* __restrict__ out, const Extents extents,                 \
        const Strides strides, int rows, int packs, int lanes, float eps                                                   \
    ) {                                                                                                                    \
        rms_norm<T, W>(x, weight, out, extents, strides, rows, packs, lanes, eps);                                         \
    }

RMS_NORM(rms_norm_f32_w1, float, 1)
RMS_NORM(rms_norm_f32_w4, float, 4)
RMS_NORM(rms_norm_bf16_w1, bf16, 1)
RMS_NORM(rms_norm_bf16_w8, bf16, 8)
