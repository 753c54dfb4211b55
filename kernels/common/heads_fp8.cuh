// A stream of a QKV product in e4m3 without its scales, as the kernels after it take it.
#pragma once
#include "common/e4m3.cuh"

// qkv [B, Li, 3 H d] with its scales by token and by column; its tokens start at `start` in the joint sequence. A missing stream
// has no tokens.
struct ScaledStream {
    const bf16* qkv;
    const float *rows, *columns;
    const bf16 *bias, *q_norm, *k_norm;
    i64 batch_stride, token_stride, row_batch_stride, row_stride;
    int tokens, start;
};

// Field by field, because indexing kernel parameters would copy them to local memory.
__device__ __forceinline__ ScaledStream one_of(const ScaledStream& first, const ScaledStream& second, bool is_first) {
    return {
        is_first ? first.qkv : second.qkv, is_first ? first.rows : second.rows, is_first ? first.columns : second.columns,
        is_first ? first.bias : second.bias, is_first ? first.q_norm : second.q_norm, is_first ? first.k_norm : second.k_norm,
        is_first ? first.batch_stride : second.batch_stride, is_first ? first.token_stride : second.token_stride,
        is_first ? first.row_batch_stride : second.row_batch_stride, is_first ? first.row_stride : second.row_stride,
        is_first ? first.tokens : second.tokens, is_first ? first.start : second.start
    };
}
