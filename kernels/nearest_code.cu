// NearestCode, twin of src/ops/nearest_code.rs: the nearest entry of a codebook, the lowest index on a tie. Distances are
// f64, so the answer is the CPU's but for distances equal to 1e-15.
//
//   nearest_code  grid (ceil(M / 2))

#include "common.cuh"

const int NEAREST_WARPS = 8, NEAREST_ROWS = 2;

struct Nearest {
    double distance;
    int code;

    DEVICE void join(double other, int other_code) {
        if (other < distance || (other == distance && other_code < code)) distance = other, code = other_code;
    }
};

// A warp takes every 8th entry, a lane every 32nd number of it.
KERNEL(nearest_code, NEAREST_WARPS * 32, NearestCodeParams) {
    SHARED(Nearest, parts, NEAREST_WARPS * NEAREST_ROWS);
    const int turn = turn_now(p.turn), rows = count(p.x), cols = p.x.cols, first = blockIdx.x * NEAREST_ROWS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* x[NEAREST_ROWS];
    Nearest best[NEAREST_ROWS];
#pragma unroll
    for (int r = 0; r < NEAREST_ROWS; r++) {
        x[r] = row_of<const float>(p.x, turn, smaller(first + r, rows - 1));
        best[r] = {infinity(), 0};
    }
    for (int code = warp; code < p.codes; code += NEAREST_WARPS) {
        const float* entry = p.codebook + (long long)code * cols;
        double sums[NEAREST_ROWS] = {};
        for (int c = lane; c < cols; c += 32) {
#pragma unroll
            for (int r = 0; r < NEAREST_ROWS; r++) {
                const double d = (double)x[r][c] - entry[c];
                sums[r] += d * d;
            }
        }
#pragma unroll
        for (int r = 0; r < NEAREST_ROWS; r++) best[r].join(warp_sum(sums[r]), code);
    }
    if (lane == 0) {
#pragma unroll
        for (int r = 0; r < NEAREST_ROWS; r++) parts[warp * NEAREST_ROWS + r] = best[r];
    }
    __syncthreads();
    const int r = threadIdx.x;
    if (r >= NEAREST_ROWS || first + r >= rows) return;
    Nearest all = parts[r];
    for (int i = 1; i < NEAREST_WARPS; i++) {
        const Nearest& other = parts[i * NEAREST_ROWS + r];
        all.join(other.distance, other.code);
    }
    *row_of<int>(p.out, turn, first + r) = all.code;
}
