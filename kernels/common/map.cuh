// Maps: out[r, c] = f(x[r, c]) and out[r, c] = f(x[r, c], y[r, c]) over rows with any strides, out contiguous.
//
// A block takes a tile of MAP_THREADS * MAP_PACKS packs of one row; each thread has MAP_PACKS independent loads in flight.
#pragma once
#include "common/rows.cuh"

constexpr int MAP_THREADS = 128, MAP_PACKS = 4;

struct MapPlace {
    unsigned row;
    int first;  // pack of this thread; the next ones are MAP_THREADS apart
};

__device__ __forceinline__ MapPlace map_place(int tiles) {
    const unsigned row = blockIdx.x / static_cast<unsigned>(tiles);
    const int tile = static_cast<int>(blockIdx.x - row * static_cast<unsigned>(tiles));
    return {row, tile * (MAP_THREADS * MAP_PACKS) + static_cast<int>(threadIdx.x)};
}

template <int W, class X, class Out, class F>
__device__ __forceinline__ void map_one(
    const X* __restrict__ x, Out* __restrict__ out, const Extents& extents, const Strides& strides, int packs, int tiles, F f
) {
    const MapPlace place = map_place(tiles);
    x += row_offset(place.row, extents, strides);
    out += static_cast<i64>(place.row) * packs * W;
    Pack<X, W> held[MAP_PACKS];
#pragma unroll
    for (int k = 0; k < MAP_PACKS; ++k) {
        const int p = place.first + k * MAP_THREADS;
        if (p < packs) held[k] = load<W>(x + static_cast<i64>(p) * W);
    }
#pragma unroll
    for (int k = 0; k < MAP_PACKS; ++k) {
        const int p = place.first + k * MAP_THREADS;
        if (p >= packs) continue;
        float value[W];
        expand(held[k], value);
#pragma unroll
        for (int i = 0; i < W; ++i) value[i] = f(value[i]);
        store<W>(out + static_cast<i64>(p) * W, value);
    }
}

template <int W, class X, class Y, class Out, class F>
__device__ __forceinline__ void map_two(
    const X* __restrict__ x, const Y* __restrict__ y, Out* __restrict__ out, const Extents& extents,
    const Strides& x_strides, const Strides& y_strides, int packs, int tiles, F f
) {
    const MapPlace place = map_place(tiles);
    x += row_offset(place.row, extents, x_strides);
    y += row_offset(place.row, extents, y_strides);
    out += static_cast<i64>(place.row) * packs * W;
    Pack<X, W> left[MAP_PACKS];
    Pack<Y, W> right[MAP_PACKS];
#pragma unroll
    for (int k = 0; k < MAP_PACKS; ++k) {
        const int p = place.first + k * MAP_THREADS;
        if (p < packs) {
            left[k] = load<W>(x + static_cast<i64>(p) * W);
            right[k] = load<W>(y + static_cast<i64>(p) * W);
        }
    }
#pragma unroll
    for (int k = 0; k < MAP_PACKS; ++k) {
        const int p = place.first + k * MAP_THREADS;
        if (p >= packs) continue;
        float a[W], b[W];
        expand(left[k], a);
        expand(right[k], b);
#pragma unroll
        for (int i = 0; i < W; ++i) a[i] = f(a[i], b[i]);
        store<W>(out + static_cast<i64>(p) * W, a);
    }
}
