// product_heads: a QKV product in bfloat16 on Hopper, finished as qkv_heads: bias, RMS norm of Q and K, rotation, layout by head.
//
//     u = x W^T + bias;  q, k, v = split(u);  q, k -> rotate(y / sqrt(mean(y^2) + eps) * norm, cos, sin)
//
// Shapes: X [M, K], W [3 H 128, K]; `to` [3 H, M, 128], the heads of q, k and v behind each other; bias [3 H 128], norms [128]; cos
// and sin [M, 128] float32 with any row stride. M tokens of one stream. Blocks: along x, at most as many as multiprocessors.
// Numerics: float32 sums and float32 behind them; rounds once, where product and qkv_heads round twice.
// Alignment: addresses and rows of matrices 16 bytes.
//
// Versions: 128x256, two heads in a tile, so that a head's row lies in one warp.
#include "common/epilogue_heads.cuh"

extern "C" __global__ void __launch_bounds__(384, 1) product_heads_128x256(
    const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const __grid_constant__ TensorMap to,
    const __grid_constant__ HeadsOf of, const Shape shape
) {
    BODY(Heads epilogue(to, of); product<Tile<128, 256, 4>>(x, w, epilogue, shape);)
}
