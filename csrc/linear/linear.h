// y = activation(x W^T + bias) in which a row of y depends on that row of x alone.
//
// Every element is a sum of chains of fused multiply-adds over 256 steps of k, in order, whatever M is and wherever the
// row stands, then + bias, then the activation. A BLAS chooses its blocking by M and so moves the last bits with the
// batch.
//
// Layout: weights packed [ceil(N/32)][K][32] (columns beyond N are zero), x [M][K], y [M][N], float32.
// A register tile is kRows rows by two vectors of columns; a block of rows stays in the cache while 32-column panels
// pass.
//
// Tried and dropped:
//   one chain over all of k    five times the error of sgemm at K = 2048, and no faster
//   packing x as well          no gain up to K = 2048: six rows never fill a cache set
#pragma once

#include <cstdint>

namespace seqkit {

constexpr int64_t kPanel = 32;  // columns of a packed panel

enum class Activation : int64_t { kNone = 0, kRelu = 1, kGelu = 2, kTanh = 3 };

struct LinearCall {
  const float* x;       // [M, K]
  const float* packed;  // [panels, K, 32]
  const float* bias;    // [N] or null
  float* y;             // [M, N]
  int64_t rows, columns, depth;
  Activation activation;
};

// The grid of independent blocks of one call.
int64_t linear_blocks(const LinearCall& call);

// Computes blocks [begin, end).
void linear_run(const LinearCall& call, int64_t begin, int64_t end);

// Packs panels [begin, end) of weight [N, K].
void linear_pack(const float* weight, float* packed, int64_t columns, int64_t depth, int64_t begin, int64_t end);

}  // namespace seqkit
