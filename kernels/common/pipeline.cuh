// A product D [M, N] = X [M, K] W [N, K]^T with one block per SM: one warpgroup copies, the others multiply (sm_90a).
//
// The ring: STAGES stages in shared memory, each for one step of K of both tiles (128 bytes of each row). A stage has two barriers:
// `full` when its bytes have arrived, `empty` when all its readers are done. One thread of the first warpgroup fills the stages in
// order; each other warpgroup owns 64 rows of the tile. Blocks are persistent and loop over tiles, so copies for the next tile run
// during the epilogue of the current one. There are two kinds of epilogues, E:
//
//   STAGED  run by the warpgroups that multiply, in stages of the ring. The boxes of 64 columns that are added arrive there after
//           the last step of K; results overwrite them and are copied out. This suits little arithmetic. E has LOADS (whether boxes
//           are loaded, from `E::from`), `box` (the order of the boxes), and the work on each box (see epilogues.cuh). If it TURNS,
//           the sums of a row are multiplied by `ratios` before step number `turn`: X has another scale from there on.
//   others  run by the other three warps of the first warpgroup while the others multiply the next tile. They receive the sums,
//           rounded to bfloat16, in a buffer of a tile's size, so the ring has one stage less. E has `begin` before all tiles,
//           `finish` for each tile, and `end`. (A separate warpgroup would leave too few registers for wgmma: ptxas divides those
//           of the launch.)
#pragma once
#include "common/tiles.cuh"

#if HOPPER

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

// Runs a staged epilogue in stages of the ring. The caller frees them after the boxes have been read.
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

// Rounds 64 rows of a tile into the result buffer.
template <class T>
__device__ __forceinline__ void hand_over(const float (&sums)[T::SUMS], u32 results, u32 who, u32 warp, u32 lane) {
    const u32 row = 16 * warp + (lane & 15), to = results + who * T::SLAB_BYTES + row * 128;
#pragma unroll
    for (int pair = 0; pair < T::N / 16; ++pair) {  // 16 columns: two blocks of 8
        const u32 chunk = 2 * (pair & 3) + (lane >> 4);
        u32 word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) word[i] = rounded_pair(sums[8 * pair + 2 * i], sums[8 * pair + 2 * i + 1]);
        store_matrices(to + (pair >> 2) * T::A_BYTES + ((chunk ^ (row & 7)) << 4), word);
    }
}

// Address of eight neighbouring values of a result row: `unit` is their index among the row's groups of eight. Four rows further
// are 512 bytes on with bit 6 flipped, eight rows 1024 bytes.
template <class T> __device__ __forceinline__ u32 handed_at(u32 results, int row, int unit) {
    return results + (unit >> 3) * T::A_BYTES + row * 128 + (((unit ^ row) & 7) << 4);
}

__device__ __forceinline__ Pack<bf16, 8> handed_pack(u32 from) {
    Pack<bf16, 8> pack;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pack.word[0]), "=r"(pack.word[1]), "=r"(pack.word[2]), "=r"(pack.word[3])
                 : "r"(from)
                 : "memory");
    return pack;
}

// The loop of the epilogue warps. `finish` itself waits for `handed`, after everything that needs no sums.
template <class T, class E>
__device__ __forceinline__ void finish_tiles(
    const Ring<T>& ring, E& epilogue, const Shape& shape, const Walk& walk, int first, int stride, u32 warp, u32 lane
) {
    epilogue.begin(32 * warp + lane, shape, ring.notes());
    u32 phase = 0;
    for (int t = first; t < walk.tiles(); t += stride, phase ^= 1) {
        int m, n;
        const bool other = walk.at(t, m, n);
        epilogue.template finish<T>(ring, phase, {m * T::M, n * T::N, other ? shape.other : shape.m, 0, warp, lane, other});
        __syncwarp();
        if (lane == 0) barrier_arrive(ring.taken(), 1);
    }
    epilogue.end(warp, lane);
}

// Multiplies the sums of rows r and r + 8 by factors, which are loaded while the step before still runs.
template <class T, class E>
__device__ __forceinline__ void turn_sums(float (&sums)[T::SUMS], const E& epilogue, const Place& place) {
    const float2 by = epilogue.ratios(place);
    products_wait<0>();
    keep(sums);
#pragma unroll
    for (int i = 0; i < T::SUMS; ++i) sums[i] *= i & 2 ? by.y : by.x;
}

template <class T, class E>
__device__ __forceinline__ void multiply_tiles(
    Ring<T> ring, E& epilogue, const Shape& shape, const Walk& walk, int first, int stride, u32 who, u32 warp, u32 lane
) {
    constexpr int DEPTH = 128 / E::Number::BYTES;
    const int tiles = walk.tiles(), steps = (shape.k + DEPTH - 1) / DEPTH;
    const bool leader = (threadIdx.x & 127) == 0;
    float sums[T::SUMS];
    u32 waiting = T::STAGES;  // the first place that results still wait in; none
    u32 phase = 1;            // of the buffer of results, which is free at first
    const auto give_back = [&] {
        if (E::STAGED && leader && waiting < T::STAGES) {
            stores_read();
            for (int used = 0; used < T::PLACES; ++used) ring.release_for_all((waiting + used) % T::STAGES);
        }
        waiting = T::STAGES;
    };
    const auto place_of = [&](int t) -> Place {
        int m, n;
        walk.at(t, m, n);
        return {m * T::M + static_cast<int>(who) * 64, n * T::N, shape.m, who, warp, lane, false};
    };
    for (int t = first; t < tiles; t += stride) {
        u32 last = 0;
#pragma unroll 1
        for (int k = 0; k < steps; ++k) {
            if constexpr (E::STAGED) {
                if constexpr (E::TURNS) {
                    if (k == epilogue.turn) turn_sums<T>(sums, epilogue, place_of(t));
                }
            }
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
        if constexpr (E::STAGED) {
            waiting = ring.stage;
            stage_out<T>(sums, epilogue, ring, place_of(t));
        } else {
            barrier_wait(ring.taken(), phase);
            phase ^= 1;
            hand_over<T>(sums, ring.results(), who, warp, lane);
            __syncwarp();
            if (lane == 0) barrier_arrive(ring.handed(), 1);
        }
    }
    if (E::STAGED && leader) stores_done();
    __syncwarp();
}

template <class T, class E>
__device__ __forceinline__ void product(
    const TensorMap& x, const TensorMap& w, E& epilogue, const Shape& shape, const TensorMap& other_x, const TensorMap& other_w
) {
    extern __shared__ char raw[];
    Ring<T> ring = {(shared_address(raw) + 1023u) & ~1023u};
    const u32 thread = threadIdx.x, lane = thread & 31, warp = __shfl_sync(0xffffffffu, thread >> 5, 0);
    if (thread == 0) {
        for (u32 s = 0; s < T::STAGES; ++s) {
            ring.stage = s;
            barrier_init(ring.full(), 1);
            barrier_init(ring.empty(s), 4 * T::CONSUMERS);
        }
        barrier_init(ring.handed(), 4 * T::CONSUMERS);
        barrier_init(ring.taken(), FINISHERS);
        for (u32 which = 0; which < FINISHERS; ++which) barrier_init(ring.turned(which), 1);
        ring.stage = 0;
        asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" : : : "memory");
        fetch_map(x);
        fetch_map(w);
    }
    ring.stage = 0;
    __syncthreads();
    const Walk walk = {(shape.m + T::M - 1) / T::M, shape.n / T::N, shape.group, (shape.other + T::M - 1) / T::M};
    const int first = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);
    if (warp < 4) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(T::COPIES));
        if (thread == 0) {
            constexpr int DEPTH = 128 / E::Number::BYTES;
            for (int t = first; t < walk.tiles(); t += stride) {
                int m, n;
                const bool other = walk.at(t, m, n);
                const TensorMap &from_x = other ? other_x : x, &from_w = other ? other_w : w;
                fill<T>(ring, from_x, from_w, epilogue, m * T::M, n * T::N, (shape.k + DEPTH - 1) / DEPTH);
            }
        }
        if constexpr (!E::STAGED) {
            if (warp > 0) finish_tiles<T>(ring, epilogue, shape, walk, first, stride, warp - 1, lane);
        }
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(T::MULTIPLIES));
        multiply_tiles<T>(ring, epilogue, shape, walk, first, stride, (warp >> 2) - 1, warp & 3, lane);
    }
}

#endif

// An entry point: its maps of X and W, the epilogue's parameters in parentheses, and the epilogue's declaration; and one for two
// products.
#define UNWRAPPED(...) __VA_ARGS__
#define PRODUCT(NAME, TILE, PARAMETERS, ...)                                                                                \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, 1) NAME(                                                    \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, UNWRAPPED PARAMETERS, const Shape shape   \
    ) {                                                                                                                     \
        BODY(__VA_ARGS__; product<TILE>(x, w, epilogue, shape, x, w);)                                                      \
    }
#define TWO_PRODUCT(NAME, TILE, PARAMETERS, ...)                                                                            \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, 1) NAME(                                                    \
        const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap other_x, \
        const __grid_constant__ TensorMap other_w, UNWRAPPED PARAMETERS, const Shape shape                                  \
    ) {                                                                                                                     \
        BODY(__VA_ARGS__; product<TILE>(x, w, epilogue, shape, other_x, other_w);)                                          \
    }
