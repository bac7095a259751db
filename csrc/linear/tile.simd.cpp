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

// Two vectors of columns, within a panel or all of one.
struct Strip {
  int64_t column;
  const float* weights;
};

constexpr int64_t kStripsPerPanel = kPanel / kTileColumns;

SEQKIT_INLINE Strip strip_at(const LinearCall& call, int64_t index) {
  const int64_t panel = index / kStripsPerPanel, offset = index % kStripsPerPanel * kTileColumns;
  return {panel * kPanel + offset, call.packed + panel * kPanel * call.depth + offset};
}

// Rows [row, row + kRows) of kStrips strips from number `first` on.
template <int kRows, int kStrips>
void tile(const LinearCall& call, int64_t row, int64_t first) {
  const float* x = call.x + row * call.depth;
  Strip strips[kStrips];
  for (int s = 0; s < kStrips; ++s) strips[s] = strip_at(call, first + s);
  Vec sums[kRows][2 * kStrips] = {};
  for (int64_t chunk = 0; chunk < call.depth; chunk += kChunk) {
    const int64_t end = chunk + kChunk < call.depth ? chunk + kChunk : call.depth;
    Vec parts[kRows][2 * kStrips] = {};
    for (int64_t k = chunk; k < end; ++k) {
#pragma GCC unroll 2
      for (int s = 0; s < kStrips; ++s) {
        const float* weights = strips[s].weights + k * kPanel;
        const Vec left = load(weights), right = load(weights + kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Vec factor = splat(x[r * call.depth + k]);
          parts[r][2 * s] = fma(factor, left, parts[r][2 * s]);
          parts[r][2 * s + 1] = fma(factor, right, parts[r][2 * s + 1]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < 2 * kStrips; ++n) sums[r][n] = sums[r][n] + parts[r][n];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < 2 * kStrips; ++n) {
      finish(call, row + r, strips[n / 2].column + n % 2 * kLanes, sums[r][n]);
    }
  }
}

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(linear_block)(const LinearCall& call, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                                   int64_t panel_end) {
  int64_t strip = panel_begin * kStripsPerPanel;
  const int64_t end = panel_end * kStripsPerPanel;
  if (row_end - row_begin == 1) {  // one row in one strip would wait for its own additions
    for (; strip + 1 < end; strip += 2) tile<1, 2>(call, row_begin, strip);
  }
  for (; strip < end; ++strip) {
    int64_t row = row_begin;
    for (; row + kTileRows <= row_end; row += kTileRows) tile<kTileRows, 1>(call, row, strip);
    switch (row_end - row) {
      case 5:
        tile<5, 1>(call, row, strip);
        break;
      case 4:
        tile<4, 1>(call, row, strip);
        break;
      case 3:
        tile<3, 1>(call, row, strip);
        break;
      case 2:
        tile<2, 1>(call, row, strip);
        break;
      case 1:
        tile<1, 1>(call, row, strip);
        break;
      default:
        break;
    }
  }
}

}  // namespace seqkit
