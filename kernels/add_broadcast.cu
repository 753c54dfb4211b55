// add_broadcast: out = x + y by NumPy's rules of broadcasting.
//
// Shapes: x and y [..], any strides along the leading axes (0 where broadcast), up to four of them after the Python side has
// merged neighbours; out contiguous. Equal contiguous shapes arrive as one row; a vector as rows with stride 0.
// Numerics: float32; rounds once.
// Alignment: w8 and w4 need 16-byte aligned rows, unit stride along the last axis of both, and a last axis that is a
// multiple of the width; w1 needs the unit stride; any takes the rest.
//
// Versions:
//   w8, w4  16 bytes per access, MAP_PACKS of each operand in flight. A vector is read again for every row, from L1.
//   w1      one element per access, for odd sizes and misaligned views.
//   any     also broadcasts along the last axis (stride 0).
#include "common/map.cuh"

struct Sum {
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

#define ADD_BROADCAST(NAME, T, W)                                                                                          \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) NAME(                                                        \
        const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, const Extents extents,                      \
        const Strides x_strides, const Strides y_strides, int packs, int tiles                                             \
    ) {                                                                                                                    \
        map_two<W>(x, y, out, extents, x_strides, y_strides, packs, tiles, Sum());                                         \
    }

#define ADD_BROADCAST_ANY(NAME, T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) NAME(                                                        \
        const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, const Extents extents,                      \
        const Strides x_strides, const Strides y_strides, int columns, int tiles, int x_step, int y_step                   \
    ) {                                                                                                                    \
        const MapPlace place = map_place(tiles);                                                                           \
        x += row_offset(place.row, extents, x_strides);                                                                    \
        y += row_offset(place.row, extents, y_strides);                                                                    \
        out += static_cast<i64>(place.row) * columns;                                                                      \
        for (int k = 0; k < MAP_PACKS; ++k) {                                                                              \
            const i64 c = place.first + k * MAP_THREADS;                                                                   \
            if (c >= columns) return;                                                                                      \
            float a[1], b[1];                                                                                              \
            expand(load<1>(x + c * x_step), a);                                                                            \
            expand(load<1>(y + c * y_step), b);                                                                            \
            a[0] += b[0];                                                                                                  \
            store<1>(out + c, a);                                                                                          \
        }                                                                                                                  \
    }

ADD_BROADCAST(add_broadcast_f32_w1, float, 1)
ADD_BROADCAST(add_broadcast_f32_w4, float, 4)
ADD_BROADCAST(add_broadcast_bf16_w1, bf16, 1)
ADD_BROADCAST(add_broadcast_bf16_w8, bf16, 8)
ADD_BROADCAST_ANY(add_broadcast_f32_any, float)
ADD_BROADCAST_ANY(add_broadcast_bf16_any, bf16)
