// timestep_embedding: out[s, i] = cos(1000 t_s w_i), out[s, half + i] = sin(1000 t_s w_i), w_i = 10000^(-i / half).
//
// Shapes: up to 64 timesteps and 128 frequencies as parameters of the launch (so nothing is copied); out [S, 2 half]
// float32 contiguous.
// Numerics: frequencies are those that the models were trained with, float32 numbers made on the host: an angle of 30,000
// radians turns one bit of them, which is what an exp on another device may differ by, into 1e-3. Angles are a float32
// product, as diffusers and the original have them; their cosines and sines in float64, rounded.
//
// Versions: one. A thread per frequency, a block per timestep; launched once per run, so nothing is to be gained.

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
