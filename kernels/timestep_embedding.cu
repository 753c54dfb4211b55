// timestep_embedding: out[s, i] = cos(1000 t_s w_i), out[s, half + i] = sin(1000 t_s w_i), w_i = 10000^(-i / half).
//
// Shapes: up to 64 timesteps as a parameter of the launch (so nothing is copied); out [S, 2 half] float32 contiguous.
// Numerics: frequencies in float64, rounded to float32 once (an angle of 1000 radians and more turns one bit of them into
// 1e-4); angles as a float32 product, as diffusers and the original have them; their cosines and sines in float64, rounded.
//
// Versions: one. A thread per frequency, a block per timestep; launched once per run, so nothing is to be gained.

constexpr int TIMESTEPS = 64;

struct Timesteps {
    float at[TIMESTEPS];
};

extern "C" __global__ void __launch_bounds__(128) timestep_embedding_f32(
    float* __restrict__ out, const __grid_constant__ Timesteps timesteps, int half
) {
    const float scaled = timesteps.at[blockIdx.x] * 1000.0f;
    float* const row = out + static_cast<long long>(blockIdx.x) * 2 * half;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const float frequency = static_cast<float>(exp(-9.210340371976184 * i / half));  // ln 10000
        const double angle = static_cast<double>(__fmul_rn(scaled, frequency));
        row[i] = static_cast<float>(cos(angle));
        row[half + i] = static_cast<float>(sin(angle));
    }
}
