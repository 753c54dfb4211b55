// timestep_embedding: out[s, i] = cos(1000 t_s w_i), out[s, half + i] = sin(1000 t_s w_i), w_i = 10000^(-i / half).
//
// Shapes: up to 64 timesteps and 128 frequencies as parameters of the launch (so nothing is copied); out [S, 2 half]
// float32 contiguous.
// Numerics: the frequencies are the float32 values that the models were trained with, computed on the host. With an angle of 30,000
// radians one unit in a frequency's last place, by which an exp on another device may differ, changes the result by 1e-3. Angles
// are a float32 product, as in diffusers and the original; their cosines and sines are computed in float64 and rounded.
//
// Versions: one. A thread per frequency, a block per timestep; it writes few values, so its time does not matter.

constexpr int TIMESTEPS = 64;
constexpr int FREQUENCIES = 128;

struct Timesteps {
    float at[TIMESTEPS];
};

struct Frequencies {
    float at[FREQUENCIES];
};

extern "C" __global__ void __launch_bounds__(128) timestep_embedding_f32(
    float* __restrict__ out,
    const __grid_constant__ Timesteps timesteps,
    const __grid_constant__ Frequencies frequencies,
    int half
) {
    const float scaled = timesteps.at[blockIdx.x] * 1000.0f;
    float* const row = out + static_cast<long long>(blockIdx.x) * 2 * half;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const double angle = static_cast<double>(__fmul_rn(scaled, frequencies.at[i]));
        row[i] = static_cast<float>(cos(angle));
        row[half + i] = static_cast<float>(sin(angle));
    }
}
