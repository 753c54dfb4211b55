// Element types and packs: the form of values in memory, and in float32 registers.
//
// An element is float or bf16 (the upper half of a float, rounded to nearest even). Arithmetic is in float32 throughout.
// A pack is W neighbouring elements moved by one access: 16 bytes (4 floats, 8 bf16) wherever addresses allow, and W = 1
// as the fallback for odd sizes and misaligned pointers. It stays packed in registers until it is expanded, so that a
// thread can have several loads in flight at half the registers that floats would take.
//
// No CUDA header is included: NVRTC then needs no toolkit and compiles each file in a few milliseconds.
#pragma once
#include "common/access.cuh"

typedef long long i64;

struct bf16 {
    unsigned short bits;
};

template <class T> struct Is { static constexpr bool bf16_ = false; };
template <> struct Is<bf16> { static constexpr bool bf16_ = true; };

// Aligned like its access, so that packs in shared memory can be moved whole too.
template <class T, int W> struct alignas(W * sizeof(T) < 4 ? 4 : W * sizeof(T)) Pack {
    static constexpr int BYTES = W * static_cast<int>(sizeof(T));
    static_assert(BYTES == 2 || BYTES == 4 || BYTES == 8 || BYTES == 16, "one access moves 2, 4, 8 or 16 bytes");
    unsigned word[(BYTES + 3) / 4];
};

// Loads a pack from memory that is read again, or shared between threads.
template <int W, class T> __device__ __forceinline__ Pack<T, W> load(const T* from) {
    Pack<T, W> pack;
    if constexpr (Pack<T, W>::BYTES == 16) {
        const uint4 bits = *reinterpret_cast<const uint4*>(from);
        pack.word[0] = bits.x, pack.word[1] = bits.y, pack.word[2] = bits.z, pack.word[3] = bits.w;
    } else if constexpr (Pack<T, W>::BYTES == 8) {
        const uint2 bits = *reinterpret_cast<const uint2*>(from);
        pack.word[0] = bits.x, pack.word[1] = bits.y;
    } else if constexpr (Pack<T, W>::BYTES == 4) {
        pack.word[0] = *reinterpret_cast<const unsigned*>(from);
    } else {
        pack.word[0] = *reinterpret_cast<const unsigned short*>(from);
    }
    return pack;
}

// Loads a pack from memory that is not read again: marked to be evicted first.
template <int W, class T> __device__ __forceinline__ Pack<T, W> load_once(const T* from) {
    if constexpr (Pack<T, W>::BYTES == 16) {
        const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(from));
        Pack<T, W> pack;
        pack.word[0] = bits.x, pack.word[1] = bits.y, pack.word[2] = bits.z, pack.word[3] = bits.w;
        return pack;
    } else {
        return load<W>(from);
    }
}

template <class T, int W> __device__ __forceinline__ Pack<T, W> zero_pack() {
    Pack<T, W> pack;
#pragma unroll
    for (unsigned& word : pack.word) word = 0;
    return pack;
}

template <class T, int W> __device__ __forceinline__ void expand(const Pack<T, W>& pack, float (&to)[W]) {
    if constexpr (!Is<T>::bf16_) {
#pragma unroll
        for (int i = 0; i < W; ++i) to[i] = __uint_as_float(pack.word[i]);
    } else if constexpr (W == 1) {
        to[0] = __uint_as_float(pack.word[0] << 16);
    } else {
#pragma unroll
        for (int i = 0; i < W; i += 2) {
            to[i] = __uint_as_float(pack.word[i / 2] << 16);
            to[i + 1] = __uint_as_float(pack.word[i / 2] & 0xffff0000u);
        }
    }
}

// Rounds W floats to T and stores them.
template <int W, class T> __device__ __forceinline__ void store(T* to, const float (&from)[W]) {
    Pack<T, W> pack;
    if constexpr (!Is<T>::bf16_) {
#pragma unroll
        for (int i = 0; i < W; ++i) pack.word[i] = __float_as_uint(from[i]);
    } else if constexpr (W == 1) {
        pack.word[0] = rounded_pair(from[0], 0.0f);
    } else {
#pragma unroll
        for (int i = 0; i < W; i += 2) pack.word[i / 2] = rounded_pair(from[i], from[i + 1]);
    }
    if constexpr (Pack<T, W>::BYTES == 16) {
        store_16_bytes(to, pack.word[0], pack.word[1], pack.word[2], pack.word[3]);
    } else if constexpr (Pack<T, W>::BYTES == 8) {
        store_8_bytes(to, pack.word[0], pack.word[1]);
    } else if constexpr (Pack<T, W>::BYTES == 4) {
        *reinterpret_cast<unsigned*>(to) = pack.word[0];
    } else {
        *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(pack.word[0]);
    }
}

// 1 / sqrt(x) for ordinary positive x: the hardware's approximation (2 ulp) with one step of Newton, without the calls that an
// exact square root and division may make.
__device__ __forceinline__ float inverse_sqrt(float x) {
    const float guess = rsqrtf(x);
    return fmaf(0.5f * guess, fmaf(-x * guess, guess, 1.0f), guess);
}
