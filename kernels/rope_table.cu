// rope_table: cos and sin of position times frequency for each token: text tokens at (0, 0, 0), image tokens at
// (0, row, column) in row-major order; frequency theta^(-2 (i / 2) / width) for column i of an axis of that width.
//
// Shapes: cos and sin [T + rows columns, d] float32 contiguous, d the sum of three even widths. Every extent is a parameter
// of the launch, so nothing is copied.
// Numerics: frequencies, angles, cosines and sines in float64, rounded to float32 once.
//
// Versions: one. A block per token, a thread per pair of columns; it runs once per shape, so its time does not matter.

struct Widths {
    int axis[3];
};

extern "C" __global__ void __launch_bounds__(128) rope_table_f32(
    float* __restrict__ cos_table, float* __restrict__ sin_table, double theta, const Widths widths, int text, int columns
) {
    const int token = static_cast<int>(blockIdx.x), dim = widths.axis[0] + widths.axis[1] + widths.axis[2];
    const int place = token - text;
    const int row = place < 0 ? 0 : place / columns, column = place < 0 ? 0 : place - row * columns;
    for (int i = 2 * static_cast<int>(threadIdx.x); i < dim; i += 2 * static_cast<int>(blockDim.x)) {
        int within = i, width = widths.axis[0], position = 0;
        if (i >= widths.axis[0] + widths.axis[1]) {
            within = i - widths.axis[0] - widths.axis[1], width = widths.axis[2], position = column;
        } else if (i >= widths.axis[0]) {
            within = i - widths.axis[0], width = widths.axis[1], position = row;
        }
        const double angle = position * pow(theta, -(static_cast<double>(within) / width));
        const float cosine = static_cast<float>(cos(angle)), sine = static_cast<float>(sin(angle));
        const long long at = static_cast<long long>(token) * dim + i;
        cos_table[at] = cos_table[at + 1] = cosine;
        sin_table[at] = sin_table[at + 1] = sine;
    }
}
