// e4m3: 8-bit floats with 3 bits of mantissa, at most 448, and the scales that go with them.
//
// Scales are powers of two. A float has the same relative precision at every exponent, so a power of two loses nothing against amax
// / 448. Multiplying by it rounds nothing, and a value can get another scale without being rounded again.
//
// The hardware converts from sm_89 on. For older targets the conversion works on bits, so that every file compiles for all of them;
// they run no product in e4m3.
#pragma once
#include "common/element.cuh"

struct e4m3 {
    unsigned char bits;
};

constexpr float E4M3_MOST = 448.0f;

// The smallest power of two s with most / s <= 448; 1 for zero. It lies between 2^-126 and 2^120, so that 1 / s is normal too.
__device__ __forceinline__ float power_scale(float most) {
    const unsigned bits = __float_as_uint(most);
    // 448 is 1.75 times 2^8: a mantissa beyond .75 needs the next power.
    const int exponent = static_cast<int>(bits >> 23) - 8 + ((bits & 0x7fffffu) > 0x600000u ? 1 : 0);
    return most > 0.0f ? __uint_as_float(static_cast<unsigned>(min(max(exponent, 1), 247)) << 23) : 1.0f;
}

// 1 / s of a power of two, exactly.
__device__ __forceinline__ float power_inverse(float s) { return __uint_as_float((254u << 23) - __float_as_uint(s)); }

#if __CUDA_ARCH__ < 890
__device__ __forceinline__ unsigned e4m3_bits(float x) {
    const unsigned sign = (__float_as_uint(x) >> 24) & 0x80u;
    const float size = fminf(fabsf(x), E4M3_MOST);
    if (x != x) return 0x7fu;
    // Adding 2^(e + 20) leaves 3 bits of mantissa, rounded to nearest even; below 2^-6 the step stays 2^-9.
    const unsigned exponent = max(__float_as_uint(size) >> 23, 121u);
    const float pad = __uint_as_float((exponent + 20u) << 23);
    const float rounded = __fsub_rn(__fadd_rn(size, pad), pad);
    const unsigned bits = __float_as_uint(rounded);
    if (rounded < 0.015625f) return sign | static_cast<unsigned>(rounded * 512.0f);
    return sign | ((((bits >> 23) - 120u) << 3) + ((bits >> 20) & 7u));
}
#endif

// Two floats rounded to e4m3 (to nearest even, at most 448), the first in the lower byte.
__device__ __forceinline__ unsigned e4m3_pair(float low, float high) {
#if __CUDA_ARCH__ >= 890
    unsigned short pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return e4m3_bits(low) | (e4m3_bits(high) << 8);
#endif
}

// The value of an e4m3 byte.
__device__ __forceinline__ float e4m3_value(unsigned byte) {
    const unsigned exponent = (byte >> 3) & 15u, mantissa = byte & 7u, sign = (byte & 0x80u) << 24;
    if ((byte & 0x7fu) == 0x7fu) return __uint_as_float(0x7fffffffu);
    const float subnormal = static_cast<float>(mantissa) * 0.001953125f;
    const float size = exponent ? __uint_as_float(((exponent + 120u) << 23) | (mantissa << 20)) : subnormal;
    return __uint_as_float(__float_as_uint(size) | sign);
}

// The values of the two e4m3 bytes of a pair.
__device__ __forceinline__ void expand_pair(unsigned pair, float& low, float& high) {
#if __CUDA_ARCH__ >= 890
    unsigned halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<unsigned short>(pair)));
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }" : "=f"(low), "=f"(high) : "r"(halves));
#else
    low = e4m3_value(pair & 0xffu), high = e4m3_value((pair >> 8) & 0xffu);
#endif
}

// Rounds W floats to e4m3 and stores them with one access of W bytes.
template <int W> __device__ __forceinline__ void store_e4m3(e4m3* to, const float (&from)[W]) {
    static_assert(W == 1 || W == 4 || W == 8 || W == 16, "one access");
    if constexpr (W == 1) {
        to->bits = static_cast<unsigned char>(e4m3_pair(from[0], 0.0f));
    } else {
        unsigned word[W / 4];
#pragma unroll
        for (int i = 0; i < W / 4; ++i) {
            const unsigned low = e4m3_pair(from[4 * i], from[4 * i + 1]);
            word[i] = low | (e4m3_pair(from[4 * i + 2], from[4 * i + 3]) << 16);
        }
        if constexpr (W == 16) {
            store_16_bytes(to, word[0], word[1], word[2], word[3]);
        } else if constexpr (W == 8) {
            store_8_bytes(to, word[0], word[1]);
        } else {
            *reinterpret_cast<unsigned*>(to) = word[0];
        }
    }
}

// The same, after a multiplication by `by`.
template <int W> __device__ __forceinline__ void store_e4m3(e4m3* to, const float (&from)[W], float by) {
    float scaled[W];
#pragma unroll
    for (int i = 0; i < W; ++i) scaled[i] = from[i] * by;
    store_e4m3<W>(to, scaled);
}

// Largest magnitude of some floats.
template <int W> __device__ __forceinline__ float largest(const float (&value)[W]) {
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < W; ++i) most = fmaxf(most, fabsf(value[i]));
    return most;
}

// 8 floats from a 16-byte boundary on.
__device__ __forceinline__ void load_floats(const float* from, float (&to)[8]) {
    const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
