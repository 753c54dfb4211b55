// select_step: out = vectors[step], the slice of the state's current step, so that a captured graph finds it at a fixed address.
//
// Shapes: state as `begin_steps` sets it; vectors [S, n] and out [n] contiguous, n counted in words.
// Numerics: No arithmetic.
// Order: this kernel reads state[0] and writes state[1], `advance_latents` the reverse. So no block reads a word that another block
// of the same launch writes, and the step index advances without the host.
// Alignment: b16 moves words of 16 bytes, so addresses and slices must be multiples of them; b2 takes any of 2 bytes.
//
// Versions: one, with two word sizes. A step has some megabytes, which take about as long as a launch.
#include "common/access.cuh"

constexpr int THREADS = 256;

template <typename Word>
__device__ __forceinline__ void select(long long* state, Word* __restrict__ out, long long words) {
    const long long step = state[0];
    const Word* const source = reinterpret_cast<const Word*>(state[2]) + step * words;
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < words; i += stride) {
        out[i] = __ldg(source + i);
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        const long long following = step + 1;
        store_8_bytes(state + 1, static_cast<unsigned>(following), static_cast<unsigned>(following >> 32));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) select_step_b16(long long* state, uint4* out, long long words) {
    select<uint4>(state, out, words);
}

extern "C" __global__ void __launch_bounds__(THREADS) select_step_b2(long long* state, unsigned short* out, long long words) {
    select<unsigned short>(state, out, words);
}
