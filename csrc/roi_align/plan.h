// The tables of all RoIs of a call: made once, read for every plane.
#pragma once

#include <cstdint>
#include <vector>

#include "roi_align/roi_align.h"

namespace seqkit {

// A pixel along an axis and its weight in a bin.
struct RoiTap {
  int64_t pixel;
  float weight;
};

class RoiPlan {
 public:
  // `backward`: whether the lanes are pixels.
  RoiPlan(const RoiAlignCall<float>& call, bool backward);

  RoiTables tables() const {
    return {rois_.data(), image_starts_.data(), rows_.data(), segments_.data(), lanes_.data(), weights_.data()};
  }

 private:
  void group_by_image(const RoiAlignCall<float>& call);
  void add_rows(const std::vector<RoiTap>& taps, const std::vector<int64_t>& starts, int64_t width, PlannedRoi& to);
  void add_segments(const std::vector<RoiTap>& taps, const std::vector<int64_t>& starts, bool backward);
  void add_segment(const RoiTap* taps, const int64_t* starts, RoiSegment segment, bool backward);

  std::vector<PlannedRoi> rois_;
  std::vector<int64_t> image_starts_;
  std::vector<RoiRow> rows_;
  std::vector<RoiSegment> segments_;
  std::vector<int32_t> lanes_;
  std::vector<float> weights_;
};

// Planes [begin, end) of B * C, as for float64.
void roi_align_forward(const RoiAlignCall<float>& call, const RoiPlan& plan, const float* input, float* out,
                       int64_t begin, int64_t end);
void roi_align_backward(const RoiAlignCall<float>& call, const RoiPlan& plan, const float* grad_out, float* grad_input,
                        int64_t begin, int64_t end);

}  // namespace seqkit
