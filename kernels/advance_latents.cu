// advance_latents: latents += delta[step] velocity in place, as `euler_step`; the step index comes from a state.
//
// Shapes: state as `begin_steps` sets it; latents [n] float32, velocity [n] float32 or bfloat16, both contiguous.
// Numerics: float32, delta too, one fused multiply-add: bit-identical to `euler_step`.
// Order: this kernel reads state[1], which `select_step` has set to the next step, and writes state[0]. So no block reads a word
// that another block of the same launch writes.
//
// Versions: one, an element per access. A step has one or two megabytes, which takes about as long as a launch.
#include "common/element.cuh"

constexpr int THREADS = 256;

template <typename V>
__device__ __forceinline__ void advance(long long* state, float* latents, const V* __restrict__ velocity, long long count) {
    const long long following = state[1];
    const float delta = reinterpret_cast<const float*>(state[3])[following - 1];
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
        float value[1];
        expand(load<1>(velocity + i), value);
        latents[i] = fmaf(delta, value[0], latents[i]);
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        state[0] = following;
    }
}

#define ADVANCE_LATENTS(NAME, V)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                             \
        long long* state, float* latents, const V* __restrict__ velocity, long long count              \
    ) {                                                                                                 \
        advance<V>(state, latents, velocity, count);                                                    \
    }

ADVANCE_LATENTS(advance_latents_f32, float)
ADVANCE_LATENTS(advance_latents_bf16, bf16)
