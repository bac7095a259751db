// One axis of a RoI: its bins, their sampling points, and the two pixels around a point. All in the precision of the
// boxes and in torchvision's order of operations: whether a point is inside the map can hang on the last bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "roi_align/roi_align.h"

namespace seqkit {

template <typename Number>
struct RoiAxis {
  Number start, bin;  // in pixels
  Number points;      // of a bin; an integer once the box is checked

  RoiAxis(const RoiAlignCall<Number>& call, Number low, Number high, int64_t bins) {
    const Number offset = call.aligned ? Number(0.5) : Number(0);
    start = low * call.scale - offset;
    Number size = high * call.scale - offset - start;
    if (!call.aligned) size = std::max(size, Number(1));
    bin = size / Number(bins);
    points = call.sampling_ratio > 0 ? Number(call.sampling_ratio) : std::ceil(bin);
  }

  Number at(int64_t of_bin, int64_t point) const {
    return start + Number(of_bin) * bin + (Number(point) + Number(0.5)) * bin / points;
  }
};

template <typename Number>
RoiAxis<Number> axis_y(const RoiAlignCall<Number>& call, int64_t roi) {
  return {call, call.boxes[roi * 5 + 2], call.boxes[roi * 5 + 4], call.bins_y};
}

template <typename Number>
RoiAxis<Number> axis_x(const RoiAlignCall<Number>& call, int64_t roi) {
  return {call, call.boxes[roi * 5 + 1], call.boxes[roi * 5 + 3], call.bins_x};
}

// The pixels around a point, and what is theirs of it. A point up to one pixel outside takes the border's.
template <typename Number>
struct Neighbours {
  bool inside;
  int64_t low, high;
  Number low_weight, high_weight;

  Neighbours(Number at, int64_t length) : inside(length > 0 && at >= Number(-1) && at <= Number(length)) {
    if (!inside) return;
    at = std::max(at, Number(0));
    low = static_cast<int64_t>(at);
    if (low >= length - 1) {
      low = high = length - 1;
      at = Number(low);
    } else {
      high = low + 1;
    }
    high_weight = at - Number(low);
    if (high_weight == 0) high = low;  // a pixel without weight is not looked at: it may be NaN
    low_weight = Number(1) - high_weight;
  }
};

}  // namespace seqkit
