// begin_steps: sets the state of a generation's steps: state = {0, 0, vectors, deltas}, deltas[first + i] = values[i].
//
// Shapes: state 4 words of 8 bytes: the current step, the next one, the address of the vectors that `select_step` slices, and that
// of the step lengths; deltas [S] float32; up to 64 values as a launch parameter, so that nothing is copied.
// Numerics: float32 values, stored unchanged.
//
// Versions: one. A thread per value, a launch per 64 steps; it runs once per image, so its time does not matter.

constexpr int DELTAS = 64;

struct Values {
    float at[DELTAS];
};

extern "C" __global__ void __launch_bounds__(DELTAS) begin_steps_f32(
    long long* state, const void* vectors, float* deltas, const __grid_constant__ Values values, int first, int count
) {
    const int i = threadIdx.x;
    if (i < count) {
        deltas[first + i] = values.at[i];
    }
    if (i == 0) {
        state[0] = 0;
        state[1] = 0;
        state[2] = reinterpret_cast<long long>(vectors);
        state[3] = reinterpret_cast<long long>(deltas);
    }
}
