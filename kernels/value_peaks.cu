// value_peaks: largest magnitude of V in an e4m3 QKV product, with scales and bias applied; one value per block.
//
//     peaks[block] = max |qkv rows columns + bias| over the block's tokens and the last third of the columns
//
// Shapes: one or two streams of qkv [B, Li, 3 H d] bf16 with any batch and token stride, rows [B, Li] float32 with any batch and
// token stride, columns [3 H d] float32, bias [3 H d] bf16; peaks [blocks along y, blocks along x] float32. Blocks along x are
// groups of `per_block` tokens, the first `blocks` of them of the first stream; y over samples.
// Numerics: float32; exact but for the sum with the bias.
// Alignment: 16-byte aligned rows and H d a multiple of 8.
//
// Versions: one; four tokens in flight per thread. `qkv_heads_fp8` takes the maximum over blocks: attention has one scale for all
// of V, which must be known before V is rounded.
#include "common/heads_fp8.cuh"
#include "common/reduce.cuh"

constexpr int THREADS = 384, W = 8, AHEAD = 4;

extern "C" __global__ void __launch_bounds__(THREADS) value_peaks_bf16(
    const __grid_constant__ ScaledStream first, const __grid_constant__ ScaledStream second, float* __restrict__ peaks,
    int width, int per_block, int blocks
) {
    __shared__ float scratch[32];
    const bool is_first = static_cast<int>(blockIdx.x) < blocks;
    const ScaledStream stream = one_of(first, second, is_first);
    const int begin = (static_cast<int>(blockIdx.x) - (is_first ? 0 : blocks)) * per_block;
    const int end = min(begin + per_block, stream.tokens);
    const bf16* const values = stream.qkv + blockIdx.y * stream.batch_stride + 2 * width;
    const float* const rows = stream.rows + blockIdx.y * stream.row_batch_stride;
    float most = 0.0f;
    for (int column = threadIdx.x * W; column < width; column += THREADS * W) {
        float plus[W], factor[W];
        expand(load<W>(stream.bias + 2 * width + column), plus);
#pragma unroll
        for (int i = 0; i < W; ++i) factor[i] = stream.columns[2 * width + column + i];
        for (int token = begin; token < end; token += AHEAD) {
            Pack<bf16, W> held[AHEAD];
            float row[AHEAD];
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                const int at = min(token + u, end - 1);
                held[u] = load<W>(values + at * stream.token_stride + column);
                row[u] = rows[at * stream.row_stride];
            }
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                float value[W];
                expand(held[u], value);
#pragma unroll
                for (int i = 0; i < W; ++i) most = fmaxf(most, fabsf(fmaf(value[i] * row[u], factor[i], plus[i])));
            }
        }
    }
    most = block_max(most, scratch);
    if (threadIdx.x == 0) peaks[blockIdx.y * gridDim.x + blockIdx.x] = most;
}
