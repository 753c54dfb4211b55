// Rows of an array with any strides: where row number r begins, the leading axes being counted outermost first.
//
// The Python side merges neighbouring axes that are evenly spaced in every operand, so contiguous arrays arrive as one row.
// Finding a row costs divisions; it is done once per row or block, never per element.
#pragma once
#include "common/element.cuh"

// Extents of the leading axes. The outermost is not needed to find a row; unused axes are 1.
struct Extents {
    int n[4];
};

// Elements from one index to the next along each leading axis; 0 where an operand is broadcast.
struct Strides {
    i64 s[4];
};

__device__ __forceinline__ i64 row_offset(unsigned row, const Extents& extents, const Strides& strides) {
    i64 offset = 0;
#pragma unroll
    for (int axis = 3; axis > 0; --axis) {
        const unsigned extent = static_cast<unsigned>(extents.n[axis]);
        if (extent > 1) {  // the same for all threads
            offset += static_cast<i64>(row % extent) * strides.s[axis];
            row /= extent;
        }
    }
    return offset + static_cast<i64>(row) * strides.s[0];
}

// Token and batch strides of x [B, L, ..], in elements.
struct TokenStrides {
    i64 batch, token;
};
