// A product D [M, N] = X [M, K] W [N, K]^T by one block an SM: one warpgroup copies, the others multiply (sm_90a).
//
// The ring: STAGES places in shared memory, each for one step of K of both tiles (128 bytes of each row). A place has two barriers:
// `full` when its bytes have come, `empty` when all who read it are done. One thread of the first warpgroup fills places in their
// order; each other warpgroup owns 64 rows of the tile. Blocks stay and walk over tiles, so copies of the next tile run while the
// last one is finished. What a tile is finished with (an epilogue that is STAGED) takes places of the ring too: the boxes of 64
// columns that are added come into them behind the last step of K, results are written over them, and copied out of them.
//
// An epilogue `E` has: STAGED; LOADS, whether boxes come (`E::from`); `aside`, what warps that have nothing to do work out once;
// and, staged, `box`, the order of the boxes, and what is done to each (see epilogues.cuh); else `finish` of
// 64 rows, and `end` behind all tiles.
#pragma once
#include "common/wgmma.cuh"

template <int M_, int N_, int STAGES_> struct Tile {
    static constexpr int M = M_, N = N_, STAGES = STAGES_;
    static constexpr int CONSUMERS = M / 64, THREADS = 128 * (CONSUMERS + 1), SUMS = N / 2;
    static constexpr int A_BYTES = 128 * M, B_BYTES = 128 * N, STAGE_BYTES = A_BYTES + B_BYTES, SLAB_BYTES = 128 * 64;
    // Boxes of 64 columns: in one place of the ring, and places that a whole tile takes.
    static constexpr int BOXES = N / 64, PER_PLACE = STAGE_BYTES / A_BYTES, PLACES = (BOXES + PER_PLACE - 1) / PER_PLACE;
    static_assert(M % 64 == 0 && N % 64 == 0 && (CONSUMERS == 2 || CONSUMERS == 3), "two or three warpgroups multiply");
    static_assert(STAGES * STAGE_BYTES + 1024 + 16 * STAGES + 64 <= 232448, "shared memory of a block");
    static_assert(STAGES >= PLACES + 2, "results of a tile wait in the ring until the second step of the next one");
};

struct Shape {
    int m, n, k, group;  // group: rows of tiles that are walked over together, so that both operands stay in the L2 cache
};

#if HOPPER

// Where a warpgroup's part of a tile is: its first row of D, the tile's first column, and the thread's place in it.
struct Place {
    int row, column, rows;  // rows: of D
    u32 who, warp, lane;
    __device__ __forceinline__ int mine() const { return row + static_cast<int>(16 * warp + (lane >> 2)); }
    __device__ __forceinline__ int quad() const { return static_cast<int>(lane & 3); }
};

template <class T> struct Ring {
    u32 base, stage = 0, phase = 0;
    __device__ __forceinline__ u32 at() const { return base + stage * T::STAGE_BYTES; }
    __device__ __forceinline__ u32 full() const { return base + T::STAGES * T::STAGE_BYTES + 8 * stage; }
    __device__ __forceinline__ u32 empty(u32 which) const { return base + T::STAGES * (T::STAGE_BYTES + 8) + 8 * which; }
    // Floats that `aside` leaves for the others.
    __device__ __forceinline__ u32 notes() const { return base + T::STAGES * (T::STAGE_BYTES + 16); }
    __device__ __forceinline__ void next() {
        if (++stage == T::STAGES) stage = 0, phase ^= 1;
    }
    // Gives a place back, for one warp or, by one thread, for the four of a warpgroup.
    __device__ __forceinline__ void release(u32 which, u32 lane) const {
        if (lane == 0) barrier_arrive(empty(which), 1);
    }
    __device__ __forceinline__ void release_for_all(u32 which) const { barrier_arrive(empty(which), 4); }
};

// Tile number t: groups of `group` rows of tiles, and within one the rows first.
__device__ __forceinline__ void tile_of(int t, int rows, int columns, int group, int& m, int& n) {
    const int area = group * columns, which = t / area, first = which * group, inside = t - which * area;
    const int size = min(rows - first, group);
    n = inside / size;
    m = first + inside - n * size;
}

template <class T, class E>
__device__ __forceinline__ void fill(
    Ring<T>& ring, const TensorMap& x, const TensorMap& w, const E& epilogue, int row, int column, int steps
) {
    constexpr int DEPTH = 128 / E::Number::BYTES;
    for (int k = 0; k < steps; ++k, ring.next()) {
        barrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
        barrier_expect(ring.full(), T::STAGE_BYTES);
        load_box(ring.at(), x, ring.full(), k * DEPTH, row);
        load_box(ring.at() + T::A_BYTES, w, ring.full(), k * DEPTH, column);
    }
    if constexpr (E::STAGED) {
        for (int place = 0; place < T::PLACES; ++place, ring.next()) {
            barrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
            if constexpr (E::LOADS) {
                const int boxes = min(T::PER_PLACE, T::BOXES - place * T::PER_PLACE);
                barrier_expect(ring.full(), boxes * T::A_BYTES);
                for (int box = 0; box < boxes; ++box) {
                    const int first_column = column + 64 * E::box(place * T::PER_PLACE + box);
                    load_box(ring.at() + box * T::A_BYTES, epilogue.from, ring.full(), first_column, row);
                }
            } else {
                barrier_arrive(ring.full(), 1);
            }
        }
    }
}

// Finishes a tile in places of the ring; they are given back when the boxes have been read, which the caller waits for.
template <class T, class E>
__device__ __forceinline__ void stage_out(float (&sums)[T::SUMS], E& epilogue, Ring<T>& ring, const Place& place) {
    const u32 thread = threadIdx.x & 127, lane_row = 16 * place.warp + (place.lane & 15);
    epilogue.template prepare<T::SUMS>(sums, place);
#pragma unroll
    for (int used = 0; used < T::PLACES; ++used, ring.next()) {
        barrier_wait(ring.full(), ring.phase);
#pragma unroll
        for (int part = 0; part < T::PER_PLACE; ++part) {
            if (used * T::PER_PLACE + part >= T::BOXES) continue;
            const int box = E::box(used * T::PER_PLACE + part);
            const u32 slab = ring.at() + part * T::A_BYTES + place.who * T::SLAB_BYTES;
            epilogue.begin(place, 64 * box);
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {  // 16 columns: two blocks of 8
                const u32 chunk = 2 * pair + (place.lane >> 4);
                const u32 at = slab + lane_row * 128 + ((chunk ^ (lane_row & 7)) << 4);
                u32 word[4] = {0, 0, 0, 0};  // block of columns outer, rows r and r + 8 inner
                if constexpr (E::LOADS) load_matrices(at, word);
#pragma unroll
                for (int block = 0; block < 2; ++block) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int from = 4 * (8 * box + 2 * pair + block) + 2 * half;
                        word[2 * block + half] =
                            epilogue.pair(2 * pair + block, half, sums[from], sums[from + 1], word[2 * block + half]);
                    }
                }
                store_matrices(at, word);
            }
            shared_written();
            named_sync(1 + place.who, 128);
            if (thread == 0) epilogue.store(slab, place, 64 * box);
            __syncwarp();
        }
    }
    if (thread == 0) stores_begin();
    __syncwarp();
}

template <class T, class E>
__device__ __forceinline__ void multiply_tiles(
    Ring<T> ring, E& epilogue, const Shape& shape, int rows, int columns, int first, int stride, u32 who, u32 warp, u32 lane
) {
    constexpr int DEPTH = 128 / E::Number::BYTES;
    const int tiles = rows * columns, steps = (shape.k + DEPTH - 1) / DEPTH;
    const bool leader = (threadIdx.x & 127) == 0;
    float sums[T::SUMS];
    u32 waiting = T::STAGES;  // the first place that results still wait in; none
    const auto give_back = [&] {
        if (E::STAGED && leader && waiting < T::STAGES) {
            stores_read();
            for (int used = 0; used < T::PLACES; ++used) ring.release_for_all((waiting + used) % T::STAGES);
        }
        waiting = T::STAGES;
    };
    for (int t = first; t < tiles; t += stride) {
        int m, n;
        tile_of(t, rows, columns, shape.group, m, n);
        u32 last = 0;
#pragma unroll 1
        for (int k = 0; k < steps; ++k) {
            barrier_wait(ring.full(), ring.phase);
            const u64 a = tile_descriptor(ring.at() + who * T::SLAB_BYTES), b = tile_descriptor(ring.at() + T::A_BYTES);
            if (k == 0) keep(sums);
            products_begin();
#pragma unroll
            for (int s = 0; s < 4; ++s) multiply(typename E::Number{}, sums, a + 2 * s, b + 2 * s, (k | s) != 0);
            products_commit();
            products_wait<1>();  // the place of the step before is free
            if (k > 0) ring.release(last, lane);
            if (k == 1) {
                give_back();
                __syncwarp();
            }
            last = ring.stage;
            ring.next();
        }
        products_wait<0>();
        keep(sums);
        ring.release(last, lane);
        give_back();
        __syncwarp();
        const Place place = {
            m * T::M + static_cast<int>(who) * 64, n * T::N, shape.m, who, warp, lane
        };
        if constexpr (E::STAGED) {
            waiting = ring.stage;
            stage_out<T>(sums, epilogue, ring, place);
        } else {
            if (t == first && E::ASIDE) named_sync(4, 96 + 128 * T::CONSUMERS);
            epilogue.template finish<T::SUMS>(sums, place, ring.notes());
        }
    }
    if constexpr (!E::STAGED) epilogue.end(threadIdx.x / 32 - 4, lane);
    if (E::STAGED && leader) stores_done();
    __syncwarp();
}

template <class T, class E>
__device__ __forceinline__ void product(const TensorMap& x, const TensorMap& w, E& epilogue, const Shape& shape) {
    extern __shared__ char raw[];
    Ring<T> ring = {(shared_address(raw) + 1023u) & ~1023u};
    const u32 thread = threadIdx.x, lane = thread & 31, warp = __shfl_sync(0xffffffffu, thread >> 5, 0);
    if (thread == 0) {
        for (u32 s = 0; s < T::STAGES; ++s) {
            ring.stage = s;
            barrier_init(ring.full(), 1);
            barrier_init(ring.empty(s), 4 * T::CONSUMERS);
        }
        ring.stage = 0;
        asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" : : : "memory");
        fetch_map(x);
        fetch_map(w);
    }
    ring.stage = 0;
    __syncthreads();
    const int rows = (shape.m + T::M - 1) / T::M, columns = shape.n / T::N;
    const int first = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);
    if (warp < 4) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(T::CONSUMERS == 2 ? 24 : 32));
        if (thread == 0) {
            constexpr int DEPTH = 128 / E::Number::BYTES;
            for (int t = first; t < rows * columns; t += stride) {
                int m, n;
                tile_of(t, rows, columns, shape.group, m, n);
                fill<T>(ring, x, w, epilogue, m * T::M, n * T::N, (shape.k + DEPTH - 1) / DEPTH);
            }
        } else if constexpr (E::ASIDE) {
            if (warp > 0) {
                epilogue.aside(thread - 32, shape.n, ring.notes());
                named_arrive(4, 96 + 128 * T::CONSUMERS);
            }
        }
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(T::CONSUMERS == 2 ? 240 : 160));
        multiply_tiles<T>(ring, epilogue, shape, rows, columns, first, stride, (warp >> 2) - 1, warp & 3, lane);
    }
}

#endif
