// Rotation of adjacent pairs: (even, odd) -> (even cos - odd sin, odd cos + even sin).
//
// Tables are [L, d] float32 with each frequency twice, so only the even columns are read.
#pragma once
#include "common/element.cuh"

template <int W> struct Rotation {
    float cosine[W / 2], sine[W / 2];
};

// Of the W columns from `cos` and `sin` on.
template <int W> __device__ __forceinline__ Rotation<W> rotation_at(const float* __restrict__ cos, const float* __restrict__ sin) {
    Rotation<W> rotation;
#pragma unroll
    for (int i = 0; i < W; i += 2) rotation.cosine[i / 2] = cos[i], rotation.sine[i / 2] = sin[i];
    return rotation;
}

template <int W> __device__ __forceinline__ void rotate(float (&value)[W], const Rotation<W>& rotation) {
#pragma unroll
    for (int i = 0; i < W; i += 2) {
        const float even = value[i], odd = value[i + 1], c = rotation.cosine[i / 2], s = rotation.sine[i / 2];
        value[i] = even * c - odd * s;
        value[i + 1] = odd * c + even * s;
    }
}

// A pair that need not be aligned.
template <class T> __device__ __forceinline__ void load_pair(const T* from, float (&pair)[2]) {
    float one[1];
    expand(load<1>(from), one);
    pair[0] = one[0];
    expand(load<1>(from + 1), one);
    pair[1] = one[0];
}

template <class T> __device__ __forceinline__ void store_pair(T* to, const float (&pair)[2]) {
    const float first[1] = {pair[0]}, second[1] = {pair[1]};
    store<1>(to, first);
    store<1>(to + 1, second);
}
