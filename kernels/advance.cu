// The turn of a segment, between two of its turns or segments.
//
//   advance  grid (1)

#include "common.cuh"

KERNEL(advance, 32, AdvanceParams) {
    if (threadIdx.x == 0) *p.turn = p.set ? p.to : *p.turn + 1;
}
