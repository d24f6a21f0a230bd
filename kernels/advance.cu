// The turn of a segment, after each of its turns.
//
//   advance  grid (1)

#include "common.cuh"

KERNEL(advance, 32, AdvanceParams) {
    if (threadIdx.x == 0) {
        const int next = *p.turn + 1;
        *p.turn = next < p.turns ? next : 0;
    }
}
