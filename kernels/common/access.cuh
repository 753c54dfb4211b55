// PTX instructions that C++ cannot request reliably: a compiler may split a plain 16-byte store into four, these stay whole.
#pragma once

__device__ __forceinline__ void store_16_bytes(void* to, unsigned a, unsigned b, unsigned c, unsigned d) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" : : "l"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

__device__ __forceinline__ void store_8_bytes(void* to, unsigned a, unsigned b) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" : : "l"(to), "r"(a), "r"(b) : "memory");
}

// Two floats rounded to bf16 (to nearest, ties to even), the first in the lower half.
__device__ __forceinline__ unsigned rounded_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
