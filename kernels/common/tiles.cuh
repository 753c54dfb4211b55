// Tiles of a product (pipeline.cuh): sizes, registers, order of traversal, and the ring in shared memory.
#pragma once
#include "common/element.cuh"
#include "common/wgmma.cuh"

template <int M_, int N_, bool STAGED> struct Tile {
    static constexpr int M = M_, N = N_, STAGES = STAGED ? 4 : 3;
    static constexpr int CONSUMERS = M / 64, THREADS = 128 * (CONSUMERS + 1), SUMS = N / 2;
    static constexpr int A_BYTES = 128 * M, B_BYTES = 128 * N, STAGE_BYTES = A_BYTES + B_BYTES, SLAB_BYTES = 128 * 64;
    // Boxes of 64 columns per stage of the ring, and stages for a whole tile.
    static constexpr int BOXES = N / 64, PER_PLACE = STAGE_BYTES / A_BYTES, PLACES = (BOXES + PER_PLACE - 1) / PER_PLACE;
    static_assert(M % 64 == 0 && N % 64 == 0 && (CONSUMERS == 2 || CONSUMERS == 3), "two or three warpgroups multiply");
    static constexpr int RESULT_BYTES = STAGED ? 0 : BOXES * A_BYTES;
    // Values that epilogue warps keep of rows: rotations of the current rows of two heads, or eight bytes per row.
    static constexpr int SCRATCH_BYTES = STAGED ? 0 : N == 256 ? 12288 : 8 * M;
    // Registers of a thread of the first warpgroup and of one that multiplies. Their sum is what the block is launched with.
    static constexpr int COPIES = STAGED ? (CONSUMERS == 2 ? 24 : 32) : (CONSUMERS == 2 ? 120 : 104);
    static constexpr int MULTIPLIES = STAGED ? (CONSUMERS == 2 ? 240 : 160) : (CONSUMERS == 2 ? 192 : 136);
    static_assert(STAGES * STAGE_BYTES + RESULT_BYTES + SCRATCH_BYTES + 1024 + 16 * STAGES + 64 <= 232448, "shared memory of a block");
    static_assert(!STAGED || STAGES >= PLACES + 2, "results of a tile wait in the ring until the second step of the next one");
};

// By the name in entry points, results through the ring or by a warpgroup of their own.
typedef Tile<192, 192, true> Tile192x192Staged;
typedef Tile<128, 256, true> Tile128x256Staged;
typedef Tile<192, 192, false> Tile192x192;
typedef Tile<128, 256, false> Tile128x256;

constexpr int FINISHERS = 3;  // warps

// group: rows of tiles that are traversed together, so that both operands stay in the L2 cache; other: M of a second product with
// the same N and K in the same launch, or 0.
struct Shape {
    int m, n, k, group, other;
};

#if HOPPER

// Position of a warpgroup's part of a tile: its first row of D, the tile's first column, and the thread's place in it.
struct Place {
    int row, column, rows;  // rows: of D
    u32 who, warp, lane;
    bool other;  // of the second product
    __device__ __forceinline__ int mine() const { return row + static_cast<int>(16 * warp + (lane >> 2)); }
    __device__ __forceinline__ int quad() const { return static_cast<int>(lane & 3); }
};

template <class T> struct Ring {
    u32 base, stage = 0, phase = 0;
    __device__ __forceinline__ u32 at() const { return base + stage * T::STAGE_BYTES; }
    // Sums for the epilogue warps: boxes of 64 columns of all rows, with the 128-byte swizzle.
    __device__ __forceinline__ u32 results() const { return base + T::STAGES * T::STAGE_BYTES; }
    __device__ __forceinline__ u32 full() const { return results() + T::RESULT_BYTES + 8 * stage; }
    __device__ __forceinline__ u32 empty(u32 which) const { return results() + T::RESULT_BYTES + 8 * (T::STAGES + which); }
    // Barriers of the result buffer: it is filled, it has been read. After them the scratch values that warps exchange.
    __device__ __forceinline__ u32 handed() const { return empty(T::STAGES); }
    __device__ __forceinline__ u32 taken() const { return handed() + 8; }
    __device__ __forceinline__ u32 notes() const { return handed() + 16; }
    // For each epilogue warp: the barrier of its rotations; and its scratch.
    __device__ __forceinline__ u32 turned(u32 warp) const { return handed() + 40 + 8 * warp; }
    __device__ __forceinline__ u32 scratch() const { return handed() + 64; }
    __device__ __forceinline__ void next() {
        if (++stage == T::STAGES) stage = 0, phase ^= 1;
    }
    // Frees a stage, for one warp or (called by one thread) for the four warps of a warpgroup.
    __device__ __forceinline__ void release(u32 which, u32 lane) const {
        if (lane == 0) barrier_arrive(empty(which), 1);
    }
    __device__ __forceinline__ void release_for_all(u32 which) const { barrier_arrive(empty(which), 4); }
};

// Tile number t of one product: groups of `group` rows of tiles, and inside a group rows first.
__device__ __forceinline__ void tile_of(int t, int rows, int columns, int group, int& m, int& n) {
    const int area = group * columns, which = t / area, first = which * group, inside = t - which * area;
    const int size = min(rows - first, group);
    n = inside / size;
    m = first + inside - n * size;
}

// Rows and columns of tiles; and rows of tiles of the second product, which follow the first one's.
struct Walk {
    int rows, columns, group, others;
    __device__ __forceinline__ int tiles() const { return (rows + others) * columns; }
    // Position of tile number t, and whether it belongs to the second product.
    __device__ __forceinline__ bool at(int t, int& m, int& n) const {
        const int before = rows * columns;
        const bool other = t >= before;
        tile_of(other ? t - before : t, other ? others : rows, columns, group, m, n);
        return other;
    }
};

#endif
