// The float64 kernels, which are the specification, and the tables and the way into the float32 ones.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/device.h"
#include "roi_align/axis.h"
#include "roi_align/plan.h"
#include "roi_align/roi_align.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(roi_align_forward, (const RoiAlignCall<float>& call, const RoiTables& tables,
                                          const RoiPlanes& which, const float* planes, float* out));
SEQKIT_DECLARE_LEVELS(roi_align_backward, (const RoiAlignCall<float>& call, const RoiTables& tables,
                                           const RoiPlanes& which, const float* grad_out, float* planes));

namespace {

// Planes that share a reading of the tables: as many as a core's cache holds. What a RoI writes for 32 channels of 7 x
// 7 bins is a page and a half, so that a page is mostly written once, while it is near.
int64_t planes_at_once(int64_t size) { return std::clamp<int64_t>((1 << 18) / std::max<int64_t>(size, 1), 4, 32); }

int64_t lanes_of_level() { return int64_t{4} << cpu_level(); }

template <typename Number>
int64_t image_of(const RoiAlignCall<Number>& call, int64_t roi) {
  return static_cast<int64_t>(call.boxes[roi * 5]);
}

// Calls visit(bin, y, x) for every sampling point of a RoI inside the map, with its pixels along y and x.
template <typename Visit>
void for_points(const RoiAlignCall<double>& call, int64_t roi, const Visit& visit) {
  const RoiAxis<double> along_y = axis_y(call, roi), along_x = axis_x(call, roi);
  const int64_t points_y = static_cast<int64_t>(along_y.points), points_x = static_cast<int64_t>(along_x.points);
  for (int64_t p = 0; p < call.bins_y; ++p) {
    for (int64_t i = 0; i < points_y; ++i) {
      const Neighbours<double> y(along_y.at(p, i), call.height);
      for (int64_t q = 0; y.inside && q < call.bins_x; ++q) {
        for (int64_t j = 0; j < points_x; ++j) {
          const Neighbours<double> x(along_x.at(q, j), call.width);
          if (x.inside) visit(p * call.bins_x + q, y, x);
        }
      }
    }
  }
}

// What a mean over a bin divides by.
double points_of_bin(const RoiAlignCall<double>& call, int64_t roi) {
  return std::max(axis_y(call, roi).points * axis_x(call, roi).points, 1.0);
}

}  // namespace

template <typename Number>
RoiFaultAt roi_align_fault(const RoiAlignCall<Number>& call) {
  for (int64_t roi = 0; roi < call.rois; ++roi) {
    const Number* box = call.boxes + roi * 5;
    if (!std::all_of(box, box + 5, [](Number x) { return std::isfinite(x); })) return {RoiFault::kNotFinite, roi};
    if (!(box[0] >= 0 && box[0] < Number(call.batch) && box[0] == std::floor(box[0]))) return {RoiFault::kImage, roi};
    if (box[3] < box[1] || box[4] < box[2]) return {RoiFault::kNegative, roi};
    for (const RoiAxis<Number>& axis : {axis_y(call, roi), axis_x(call, roi)}) {
      if (!std::isfinite(axis.start) || !std::isfinite(axis.bin)) return {RoiFault::kNotFinite, roi};
    }
    if (double(axis_y(call, roi).points) * double(call.bins_y) > double(kMostPoints) ||
        double(axis_x(call, roi).points) * double(call.bins_x) > double(kMostPoints)) {
      return {RoiFault::kPoints, roi};
    }
  }
  return {RoiFault::kNone, 0};
}

template RoiFaultAt roi_align_fault(const RoiAlignCall<float>&);
template RoiFaultAt roi_align_fault(const RoiAlignCall<double>&);

void roi_align_forward(const RoiAlignCall<double>& call, const double* input, double* out, int64_t begin, int64_t end) {
  const int64_t bins = call.bins_y * call.bins_x;
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t image = plane / call.channels, channel = plane % call.channels;
    const double* pixels = input + plane * call.height * call.width;
    for (int64_t roi = 0; roi < call.rois; ++roi) {
      if (image_of(call, roi) != image) continue;
      double* to = out + (roi * call.channels + channel) * bins;
      std::fill_n(to, bins, 0.0);
      for_points(call, roi, [&](int64_t bin, const Neighbours<double>& y, const Neighbours<double>& x) {
        const double *low = pixels + y.low * call.width, *high = pixels + y.high * call.width;
        to[bin] += y.low_weight * x.low_weight * low[x.low] + y.low_weight * x.high_weight * low[x.high] +
                   y.high_weight * x.low_weight * high[x.low] + y.high_weight * x.high_weight * high[x.high];
      });
      for (int64_t bin = 0; bin < bins; ++bin) to[bin] /= points_of_bin(call, roi);
    }
  }
}

void roi_align_backward(const RoiAlignCall<double>& call, const double* grad_out, double* grad_input, int64_t begin,
                        int64_t end) {
  const int64_t bins = call.bins_y * call.bins_x, size = call.height * call.width;
  std::fill(grad_input + begin * size, grad_input + end * size, 0.0);
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t image = plane / call.channels, channel = plane % call.channels;
    double* pixels = grad_input + plane * size;
    for (int64_t roi = 0; roi < call.rois; ++roi) {
      if (image_of(call, roi) != image) continue;
      const double* from = grad_out + (roi * call.channels + channel) * bins;
      for_points(call, roi, [&](int64_t bin, const Neighbours<double>& y, const Neighbours<double>& x) {
        const double share = from[bin] / points_of_bin(call, roi);
        double *low = pixels + y.low * call.width, *high = pixels + y.high * call.width;
        low[x.low] += y.low_weight * x.low_weight * share;
        low[x.high] += y.low_weight * x.high_weight * share;
        high[x.low] += y.high_weight * x.low_weight * share;
        high[x.high] += y.high_weight * x.high_weight * share;
      });
    }
  }
}

// ---- The tables ----

namespace {

// Adds to the pixel's weight in the bin whose taps begin at `first`; pixels never decrease, so it is one of the last.
void add_tap(std::vector<RoiTap>& taps, int64_t first, int64_t pixel, float weight) {
  if (weight == 0.0f) return;
  const int64_t count = static_cast<int64_t>(taps.size());
  for (int64_t n = count - 1; n >= first && n >= count - 2; --n) {
    if (taps[n].pixel == pixel) {
      taps[n].weight += weight;
      return;
    }
  }
  taps.push_back({pixel, weight});
}

// Appends the taps of every bin of an axis, whose weights are means over the bin's points, and where each bin begins.
void add_taps(const RoiAxis<float>& axis, int64_t bins, int64_t length, std::vector<RoiTap>& taps,
              std::vector<int64_t>& starts) {
  const int64_t points = static_cast<int64_t>(axis.points);
  for (int64_t bin = 0; bin < bins; ++bin) {
    const int64_t first = static_cast<int64_t>(taps.size());
    starts.push_back(first);
    for (int64_t point = 0; point < points; ++point) {
      const Neighbours<float> near(axis.at(bin, point), length);
      if (!near.inside) continue;
      add_tap(taps, first, near.low, near.low_weight);
      add_tap(taps, first, near.high, near.high_weight);
    }
    for (size_t n = static_cast<size_t>(first); n < taps.size(); ++n) taps[n].weight /= axis.points;
  }
  starts.push_back(static_cast<int64_t>(taps.size()));
}

}  // namespace

RoiPlan::RoiPlan(const RoiAlignCall<float>& call, bool backward) {
  group_by_image(call);
  std::vector<RoiTap> taps;
  std::vector<int64_t> starts;
  for (PlannedRoi& planned : rois_) {
    taps.clear();
    starts.clear();
    add_taps(axis_y(call, planned.roi), call.bins_y, call.height, taps, starts);
    add_rows(taps, starts, call.width, planned);
    taps.clear();
    starts.clear();
    add_taps(axis_x(call, planned.roi), call.bins_x, call.width, taps, starts);
    planned.first_segment = static_cast<int64_t>(segments_.size());
    add_segments(taps, starts, backward);
    planned.last_segment = static_cast<int64_t>(segments_.size());
  }
}

void RoiPlan::group_by_image(const RoiAlignCall<float>& call) {
  image_starts_.assign(static_cast<size_t>(call.batch + 1), 0);
  for (int64_t roi = 0; roi < call.rois; ++roi) image_starts_[image_of(call, roi) + 1] += 1;
  for (int64_t image = 0; image < call.batch; ++image) image_starts_[image + 1] += image_starts_[image];
  std::vector<int64_t> next(image_starts_.begin(), image_starts_.end() - 1);
  rois_.resize(static_cast<size_t>(call.rois));
  for (int64_t roi = 0; roi < call.rois; ++roi) rois_[next[image_of(call, roi)]++].roi = roi;
}

void RoiPlan::add_rows(const std::vector<RoiTap>& taps, const std::vector<int64_t>& starts, int64_t width,
                       PlannedRoi& to) {
  const int64_t bins = static_cast<int64_t>(starts.size()) - 1;
  to.rows = static_cast<int64_t>(rows_.size());
  to.n_rows = 1;
  for (int64_t bin = 0; bin < bins; ++bin) to.n_rows = std::max(to.n_rows, starts[bin + 1] - starts[bin]);
  for (int64_t bin = 0; bin < bins; ++bin) {
    const int64_t count = starts[bin + 1] - starts[bin];
    for (int64_t n = 0; n < to.n_rows; ++n) {
      const bool counts = n < count;
      const RoiTap tap = count > 0 ? taps[starts[bin] + (counts ? n : 0)] : RoiTap{0, 0.0f};
      rows_.push_back({tap.pixel * width, counts ? tap.weight : 0.0f, count > 0 ? -1 : 0});
    }
  }
}

// Cuts the bins of a RoI into segments: as many as there are lanes, and whose pixels fit into two vectors. A bin that
// does not fit alone has several segments to itself.
void RoiPlan::add_segments(const std::vector<RoiTap>& taps, const std::vector<int64_t>& starts, bool backward) {
  const int64_t lanes = lanes_of_level(), window = 2 * lanes, bins = static_cast<int64_t>(starts.size()) - 1;
  for (int64_t bin = 0; bin < bins;) {
    int64_t last = bin;  // the segment's bins are [bin, last)
    for (; last < bins && last - bin < lanes; ++last) {
      if (starts[last + 1] > starts[bin] && taps[starts[last + 1] - 1].pixel - taps[starts[bin]].pixel >= window) break;
    }
    RoiSegment segment{};
    segment.first = static_cast<int32_t>(bin);
    segment.bins = static_cast<int32_t>(std::max<int64_t>(last - bin, 1));
    if (last > bin) {
      add_segment(taps.data(), starts.data() + bin, segment, backward);
      bin = last;
      continue;
    }
    for (int64_t tap = starts[bin]; tap < starts[bin + 1];) {
      const int64_t ends[2] = {tap, [&] {
                                 int64_t end = tap;
                                 while (end < starts[bin + 1] && taps[end].pixel - taps[tap].pixel < window) ++end;
                                 return end;
                               }()};
      segment.adds = tap > starts[bin];
      add_segment(taps.data(), ends, segment, backward);
      tap = ends[1];
    }
    bin += 1;
  }
}

// `starts` are those of the segment's bins, and where the last ends.
void RoiPlan::add_segment(const RoiTap* taps, const int64_t* starts, RoiSegment segment, bool backward) {
  const int32_t lanes = static_cast<int32_t>(lanes_of_level());
  const int64_t begin = starts[0], end = starts[segment.bins];
  segment.column = begin < end ? taps[begin].pixel : 0;
  segment.vectors = begin < end && taps[end - 1].pixel - segment.column >= lanes ? 2 : 1;
  segment.lanes = static_cast<int64_t>(lanes_.size());
  segment.weights = static_cast<int64_t>(weights_.size());
  if (!backward) {
    for (int32_t bin = 0; bin < segment.bins; ++bin) {
      segment.taps = std::max(segment.taps, static_cast<int32_t>(starts[bin + 1] - starts[bin]));
    }
    lanes_.resize(lanes_.size() + static_cast<size_t>((1 + segment.taps) * lanes));
    weights_.resize(weights_.size() + static_cast<size_t>(segment.taps * lanes));
    int32_t* to = lanes_.data() + segment.lanes;
    float* weights = weights_.data() + segment.weights;
    for (int32_t bin = 0; bin < segment.bins; ++bin) {
      const int32_t count = static_cast<int32_t>(starts[bin + 1] - starts[bin]);
      to[bin] = count > 0 ? -1 : 0;
      for (int32_t n = 0; n < segment.taps; ++n) {
        // A lane with fewer taps takes its first pixel for nothing: another's may be NaN.
        const RoiTap& tap = taps[count > 0 ? starts[bin] + (n < count ? n : 0) : 0];
        to[(1 + n) * lanes + bin] = count > 0 ? static_cast<int32_t>(tap.pixel - segment.column) : 0;
        weights[n * lanes + bin] = n < count ? tap.weight : 0.0f;
      }
    }
  } else {
    int32_t counts[2 * 16] = {};
    for (int64_t n = begin; n < end; ++n) counts[taps[n].pixel - segment.column] += 1;
    segment.taps = *std::max_element(counts, counts + 2 * 16);
    const size_t size = static_cast<size_t>(segment.vectors * segment.taps * lanes);
    lanes_.resize(lanes_.size() + size, lanes);
    weights_.resize(weights_.size() + size);
    std::fill_n(counts, 2 * 16, 0);
    for (int32_t bin = 0; bin < segment.bins; ++bin) {
      for (int64_t n = starts[bin]; n < starts[bin + 1]; ++n) {
        const int32_t pixel = static_cast<int32_t>(taps[n].pixel - segment.column);
        const int32_t at = (pixel / lanes * segment.taps + counts[pixel]++) * lanes + pixel % lanes;
        lanes_[segment.lanes + at] = bin;
        weights_[segment.weights + at] = taps[n].weight;
      }
    }
  }
  segments_.push_back(segment);
}

// ---- The float32 kernels, a few planes of one image at a time ----

namespace {

template <typename Visit>
void for_planes(const RoiAlignCall<float>& call, int64_t begin, int64_t end, const Visit& visit) {
  const int64_t most = planes_at_once(call.height * call.width);
  for (int64_t plane = begin; plane < end;) {
    const int64_t image = plane / call.channels, channel = plane % call.channels;
    const int64_t count = std::min({most, call.channels - channel, end - plane});
    visit(RoiPlanes{image, channel, count, call.height * call.width}, plane);
    plane += count;
  }
}

}  // namespace

void roi_align_forward(const RoiAlignCall<float>& call, const RoiPlan& plan, const float* input, float* out,
                       int64_t begin, int64_t end) {
  const auto some_planes = SEQKIT_PICK_LEVEL(roi_align_forward);
  const int64_t beyond = 2 * lanes_of_level(), size = call.height * call.width;
  std::vector<float> copy;
  for_planes(call, begin, end, [&](const RoiPlanes& which, int64_t plane) {
    const float* planes = input + plane * size;
    if ((call.batch * call.channels - plane - which.count) * size < beyond) {  // the end of the tensor is near
      copy.assign(planes, planes + which.count * size);
      copy.resize(copy.size() + static_cast<size_t>(beyond));
      planes = copy.data();
    }
    some_planes(call, plan.tables(), which, planes, out);
  });
}

void roi_align_backward(const RoiAlignCall<float>& call, const RoiPlan& plan, const float* grad_out, float* grad_input,
                        int64_t begin, int64_t end) {
  const auto some_planes = SEQKIT_PICK_LEVEL(roi_align_backward);
  const int64_t beyond = 2 * lanes_of_level(), size = call.height * call.width;
  // Not in grad_input: a window may reach into the next plane, which is another thread's.
  std::vector<float> sums;
  for_planes(call, begin, end, [&](const RoiPlanes& which, int64_t plane) {
    sums.assign(static_cast<size_t>(which.count * size + beyond), 0.0f);
    some_planes(call, plan.tables(), which, grad_out, sums.data());
    std::copy_n(sums.data(), which.count * size, grad_input + plane * size);
  });
}

}  // namespace seqkit
