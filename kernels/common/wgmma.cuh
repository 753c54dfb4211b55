// Products of a warpgroup (`wgmma`, sm_90a): D [64, N] += A [64, K] B [N, K]^T, both operands in shared memory.
//
// The tile of an operand has rows of 128 bytes along K, as a copy with the 128-byte swizzle leaves them: 64 bfloat16 or 128 e4m3
// values. One instruction takes 32 bytes of each row. Sums are float32; for e4m3 they are the tensor core's own, which keeps fewer
// bits. A thread has rows r and r + 8 (r = 16 warp + lane / 4) of columns 8 j + 2 (lane % 4) + {0, 1}, as d[4 j + {0, 1}] and d[4 j
// + {2, 3}].
#pragma once
#include "common/hopper.cuh"

struct Bfloat16 {
    static constexpr int BYTES = 2;
};
struct E4m3 {
    static constexpr int BYTES = 1;
};

#if HOPPER

// Descriptor of a tile at that address, a multiple of 1024: rows of 128 bytes in groups of eight, one group after the other.
__device__ __forceinline__ u64 tile_descriptor(u32 address) {
    return static_cast<u64>((address & 0x3ffffu) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }
// Waits until all groups but the latest LEFT are complete.
template <int LEFT> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(LEFT) : "memory");
}

// Keeps sums in place: the compiler must not move them while products are running.
template <int N> __device__ __forceinline__ void keep(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i]) : : "memory");
}

#define NAMES_0 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_32 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_64 \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_96 \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)

// `accumulate` 0 starts a new sum. The operands after the predicate are the signs of A and B and, for bfloat16, that both have K
// last.
#define MULTIPLY(TYPES, SIGNS, NAMES, A, B, P, ...)                                                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n"                                                           \
                 "wgmma.mma_async.sync.aligned." TYPES " {" NAMES "}, " A ", " B ", p, " SIGNS ";\n}\n"                    \
                 : __VA_ARGS__                                                                                             \
                 : "l"(a), "l"(b), "r"(accumulate))

__device__ __forceinline__ void multiply(Bfloat16, float (&d)[64], u64 a, u64 b, u32 accumulate) {
    MULTIPLY(
        "m64n128k16.f32.bf16.bf16", "1, 1, 0, 0", NAMES_0 ", " NAMES_32, "%64", "%65", "%66",
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48)
    );
}
__device__ __forceinline__ void multiply(E4m3, float (&d)[64], u64 a, u64 b, u32 accumulate) {
    MULTIPLY(
        "m64n128k32.f32.e4m3.e4m3", "1, 1", NAMES_0 ", " NAMES_32, "%64", "%65", "%66",
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48)
    );
}
__device__ __forceinline__ void multiply(Bfloat16, float (&d)[96], u64 a, u64 b, u32 accumulate) {
    MULTIPLY(
        "m64n192k16.f32.bf16.bf16", "1, 1, 0, 0", NAMES_0 ", " NAMES_32 ", " NAMES_64, "%96", "%97", "%98",
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80)
    );
}
__device__ __forceinline__ void multiply(E4m3, float (&d)[96], u64 a, u64 b, u32 accumulate) {
    MULTIPLY(
        "m64n192k32.f32.e4m3.e4m3", "1, 1", NAMES_0 ", " NAMES_32 ", " NAMES_64, "%96", "%97", "%98",
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80)
    );
}
__device__ __forceinline__ void multiply(Bfloat16, float (&d)[128], u64 a, u64 b, u32 accumulate) {
    MULTIPLY(
        "m64n256k16.f32.bf16.bf16", "1, 1, 0, 0", NAMES_0 ", " NAMES_32 ", " NAMES_64 ", " NAMES_96, "%128", "%129", "%130",
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96), SIXTEEN(112)
    );
}
__device__ __forceinline__ void multiply(E4m3, float (&d)[128], u64 a, u64 b, u32 accumulate) {
    MULTIPLY(
        "m64n256k32.f32.e4m3.e4m3", "1, 1", NAMES_0 ", " NAMES_32 ", " NAMES_64 ", " NAMES_96, "%128", "%129", "%130",
        SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96), SIXTEEN(112)
    );
}

#undef FOUR
#undef SIXTEEN
#undef MULTIPLY
#endif
