// euler_step: out = latents + delta velocity, one step of the flow-matching ODE.
//
// Shapes: latents [..] in float32, velocity [..] in float32 or bfloat16, both with any strides along the leading axes; out
// [..] float32, contiguous. Contiguous arrays arrive as one row.
// Numerics: float32, delta too, one fused multiply-add.
// Alignment: w4 moves 16 bytes of float32 and 8 of bfloat16, so it needs rows aligned to those and a last axis that is a
// multiple of 4; w1 takes anything.
//
// Versions:
//   w4  four elements per access, MAP_PACKS of each operand in flight per thread.
//   w1  one element per access, for odd sizes and misaligned views.
#include "common/map.cuh"

struct Step {
    float delta;

    __device__ __forceinline__ float operator()(float latent, float velocity) const {
        return fmaf(delta, velocity, latent);
    }
};

#define EULER_STEP(NAME, V, W)                                                                                             \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) NAME(                                                        \
        const float* __restrict__ latents, const V* __restrict__ velocity, float* __restrict__ out, const Extents extents, \
        const Strides latent_strides, const Strides velocity_strides, int packs, int tiles, float delta                    \
    ) {                                                                                                                    \
        map_two<W>(latents, velocity, out, extents, latent_strides, velocity_strides, packs, tiles, Step{delta});          \
    }

EULER_STEP(euler_step_f32_w1, float, 1)
EULER_STEP(euler_step_f32_w4, float, 4)
EULER_STEP(euler_step_bf16_w1, bf16, 1)
EULER_STEP(euler_step_bf16_w4, bf16, 4)
