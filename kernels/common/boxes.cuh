// Boxes: copies [n0, n1, n2, columns] words from one strided place to another, for the ops that only move data.
//
// A word is 16, 4 or 2 bytes; the Python side merges axes that are evenly spaced in both places and picks the widest word
// that addresses and strides allow. Rows of up to COPY_THREADS words share a block; longer ones are cut into tiles. Either
// way a thread has COPY_WORDS independent loads in flight.
#pragma once
#include "common/element.cuh"

constexpr int COPY_THREADS = 256, COPY_WORDS = 4;

struct Box {
    const void* from;
    void* to;
    i64 from_stride[3], to_stride[3];  // words
    int rows, n1, n2, columns;         // rows = n0 n1 n2
    int lanes, tiles;                  // threads per row (a power of two) if tiles is 0; else tiles per row
};

template <class Word> __device__ __forceinline__ void copy_box(const Box& box, unsigned block) {
    const Word* const from = static_cast<const Word*>(box.from);
    Word* const to = static_cast<Word*>(box.to);
    const int thread = static_cast<int>(threadIdx.x);
    int row, column, next_row, next_column;
    if (box.tiles == 0) {
        next_row = COPY_THREADS / box.lanes, next_column = 0;
        row = static_cast<int>(block) * COPY_WORDS * next_row + thread / box.lanes;
        column = thread & (box.lanes - 1);
    } else {
        row = static_cast<int>(block / static_cast<unsigned>(box.tiles));
        column = static_cast<int>(block - static_cast<unsigned>(row) * box.tiles) * (COPY_THREADS * COPY_WORDS) + thread;
        next_row = 0, next_column = COPY_THREADS;
    }
    Word held[COPY_WORDS];
    i64 target[COPY_WORDS];
#pragma unroll
    for (int k = 0; k < COPY_WORDS; ++k) {
        const int r = row + k * next_row, c = column + k * next_column;
        target[k] = -1;
        if (r >= box.rows || c >= box.columns) continue;
        const unsigned upper = static_cast<unsigned>(r) / box.n2, i2 = static_cast<unsigned>(r) - upper * box.n2;
        const unsigned i0 = upper / box.n1, i1 = upper - i0 * box.n1;
        held[k] = from[i0 * box.from_stride[0] + i1 * box.from_stride[1] + i2 * box.from_stride[2] + c];
        target[k] = i0 * box.to_stride[0] + i1 * box.to_stride[1] + i2 * box.to_stride[2] + c;
    }
#pragma unroll
    for (int k = 0; k < COPY_WORDS; ++k) {
        if (target[k] >= 0) to[target[k]] = held[k];
    }
}

// Two boxes in one launch: the first `blocks` blocks copy the first.
template <class Word> __device__ __forceinline__ void copy_boxes(const Box& first, const Box& second, unsigned blocks) {
    if (blockIdx.x < blocks) {
        copy_box<Word>(first, blockIdx.x);
    } else {
        copy_box<Word>(second, blockIdx.x - blocks);
    }
}
