#include <algorithm>

#include "common/device.h"
#include "linear/linear.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(linear_block, (const LinearCall& call, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                                     int64_t panel_end));

namespace {

constexpr int64_t kBlockRows = 96;   // rows of x that stay in the cache while the panels pass
constexpr int64_t kBlockPanels = 2;  // so that one row still gives every thread work

int64_t divide_up(int64_t size, int64_t part) { return (size + part - 1) / part; }

}  // namespace

int64_t linear_blocks(const LinearCall& call) {
  return divide_up(call.rows, kBlockRows) * divide_up(divide_up(call.columns, kPanel), kBlockPanels);
}

void linear_run(const LinearCall& call, int64_t begin, int64_t end) {
  const int64_t panels = divide_up(call.columns, kPanel);
  const int64_t across = divide_up(panels, kBlockPanels);
  const auto block = SEQKIT_PICK_LEVEL(linear_block);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index / across * kBlockRows;
    const int64_t panel = index % across * kBlockPanels;
    block(call, row, std::min(row + kBlockRows, call.rows), panel, std::min(panel + kBlockPanels, panels));
  }
}

void linear_pack(const float* weight, float* packed, int64_t columns, int64_t depth, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel;
    const int64_t width = std::min(kPanel, columns - first);
    for (int64_t k = 0; k < depth; ++k) {
      float* to = packed + (panel * depth + k) * kPanel;
      for (int64_t column = 0; column < width; ++column) to[column] = weight[(first + column) * depth + k];
      for (int64_t column = width; column < kPanel; ++column) to[column] = 0.0f;
    }
  }
}

}  // namespace seqkit
