// The register tile of linear.h, once per machine level.
#include "common/device.h"
#include "common/numerics.h"
#include "linear/linear.h"

namespace {

using seqkit::Activation;
using seqkit::kPanel;
using seqkit::LinearCall;

constexpr int kTileRows = 6;
constexpr int kTileColumns = 2 * kLanes;
constexpr int64_t kChunk = 256;  // the length of one chain

SEQKIT_INLINE Vec activate(Vec value, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return value < splat(0.0f) ? splat(0.0f) : value;  // NaN passes
    case Activation::kGelu:
      return gelu(value);
    case Activation::kTanh:
      return tanh(value);
    default:
      return value;
  }
}

// Writes one vector of y; out of line, so that every row count runs the same instructions.
__attribute__((noinline)) void finish(const LinearCall& call, int64_t row, int64_t column, Vec value) {
  const int64_t left = call.columns - column;
  if (left <= 0) return;
  const bool whole = left >= kLanes;
  if (call.bias) value = value + (whole ? load(call.bias + column) : load_part(call.bias + column, int(left)));
  value = activate(value, call.activation);
  float* to = call.y + row * call.columns + column;
  if (whole) {
    store(to, value);
  } else {
    store_part(to, value, int(left));
  }
}

template <int kRows>
void tile(const LinearCall& call, int64_t row, int64_t column, const float* weights) {
  const float* x = call.x + row * call.depth;
  Vec sums[kRows][2] = {};
  for (int64_t chunk = 0; chunk < call.depth; chunk += kChunk) {
    const int64_t end = chunk + kChunk < call.depth ? chunk + kChunk : call.depth;
    Vec parts[kRows][2] = {};
    for (int64_t k = chunk; k < end; ++k) {
      const Vec left = load(weights + k * kPanel), right = load(weights + k * kPanel + kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Vec factor = splat(x[r * call.depth + k]);
        parts[r][0] = fma(factor, left, parts[r][0]);
        parts[r][1] = fma(factor, right, parts[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sums[r][0] = sums[r][0] + parts[r][0];
      sums[r][1] = sums[r][1] + parts[r][1];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    finish(call, row + r, column, sums[r][0]);
    finish(call, row + r, column + kLanes, sums[r][1]);
  }
}

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(linear_block)(const LinearCall& call, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                                   int64_t panel_end) {
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    for (int64_t offset = 0; offset < kPanel; offset += kTileColumns) {
      const int64_t column = panel * kPanel + offset;
      const float* weights = call.packed + panel * kPanel * call.depth + offset;
      int64_t row = row_begin;
      for (; row + kTileRows <= row_end; row += kTileRows) tile<kTileRows>(call, row, column, weights);
      switch (row_end - row) {
        case 5:
          tile<5>(call, row, column, weights);
          break;
        case 4:
          tile<4>(call, row, column, weights);
          break;
        case 3:
          tile<3>(call, row, column, weights);
          break;
        case 2:
          tile<2>(call, row, column, weights);
          break;
        case 1:
          tile<1>(call, row, column, weights);
          break;
        default:
          break;
      }
    }
  }
}

}  // namespace seqkit
