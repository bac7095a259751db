// Mean features in the bins of boxes (He et al. 2017, Mask R-CNN, section 3): a region of interest, RoI, is cut into
// bins, a bin has a grid of sampling points, a point is interpolated from the four pixels around it.
//
// The weight of a pixel in a bin is a product of one along y and one along x, so that
//   out[k, c, p, q] = sum_y sum_x wy(k, p, y) wx(k, q, x) input[image(k), c, y, x]
// and points that share a pixel are merged before a pixel is read: the work for a bin is the pixels under it, whatever
// the number of points. The float32 kernels sum along y with the pixels of a row in a vector, then pick from it along x
// with one lane for each bin. The gradient goes the other way: a thread owns planes of [H, W], visits their RoIs in
// order and adds along rows, so that no two threads meet and the sum of a pixel has one order.
//
// A RoI's result depends on its box and its image, to the last bit. Float64 goes point by point: the specification.
//
// Layout: everything is contiguous. Values of boxes are checked on the CPU (roi_align_fault); on a card a box that
// would be refused gives zeros and takes no part in the gradient.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/device.h"

namespace seqkit {

constexpr int64_t kMostPoints = 32768;  // sampling points of a RoI along an axis, and bins

// Number is float or double, the boxes' too; on CUDA void, with boxes in float.
template <typename Number>
using CoordinateOf = std::conditional_t<std::is_same_v<Number, double>, double, float>;

template <typename Number>
struct RoiAlignCall {
  using Coordinate = CoordinateOf<Number>;
  const Coordinate* boxes;                       // [K, 5]: image, x1, y1, x2, y2
  int64_t rois, batch, channels, height, width;  // K, B, C, H, W
  int64_t bins_y, bins_x;                        // of a RoI
  Coordinate scale;                              // from a box to pixels
  int64_t sampling_ratio;                        // points of a bin along an axis; one a pixel where it is not positive
  bool aligned;                                  // pixel centres at .5; else a RoI is at least one pixel wide
};

// What a box may not be.
enum class RoiFault { kNone, kNotFinite, kImage, kNegative, kPoints };

struct RoiFaultAt {
  RoiFault fault;
  int64_t roi;
};

template <typename Number>
RoiFaultAt roi_align_fault(const RoiAlignCall<Number>& call);

// Planes [begin, end) of B * C; out is [K, C, bins_y, bins_x], input and grad_input are [B, C, H, W].
void roi_align_forward(const RoiAlignCall<double>& call, const double* input, double* out, int64_t begin, int64_t end);
void roi_align_backward(const RoiAlignCall<double>& call, const double* grad_out, double* grad_input, int64_t begin,
                        int64_t end);

// ---- What the float32 kernels read instead of boxes; plan.h makes it ----

// A pixel of a bin along y: where its row begins in the plane, its weight, and -1 or, in a bin outside of the map, 0.
// All bins of a RoI have as many; one with fewer pixels repeats its first with the weight zero.
struct RoiRow {
  int64_t offset;
  float weight;
  int32_t counts;
};

// Neighbouring bins along x whose pixels stand in one window of at most two vectors. In the forward pass a lane is a
// bin, and `lanes` holds a mask of the bins that have a pixel, then for each tap the pixel of each bin; in the backward
// pass a lane is a pixel, and for each vector and tap it holds the bin, or the number of lanes for none.
struct RoiSegment {
  int64_t column;       // of the window's first pixel
  int64_t lanes;        // where its lanes begin
  int64_t weights;      // where the weights of the taps begin, as many rows of lanes
  int32_t first, bins;  // along x
  int32_t vectors;      // 1 or 2
  int32_t taps;         // the most of any lane
  bool adds;            // to what the segment before it gave for its one bin
};

struct PlannedRoi {
  int64_t roi;
  int64_t rows, n_rows;  // where they begin: [bins_y, n_rows]
  int64_t first_segment, last_segment;
};

struct RoiTables {
  const PlannedRoi* rois;       // those of an image after those of another, as they came
  const int64_t* image_starts;  // [B + 1], into rois
  const RoiRow* rows;
  const RoiSegment* segments;
  const int32_t* lanes;
  const float* weights;
};

// `count` planes of one image from `planes` on, after which two vectors may be read (and, backward, written).
struct RoiPlanes {
  int64_t image, channel, count, size;  // size: H * W
};

// ---- On a card ----

const char* roi_align_forward_cuda(const RoiAlignCall<void>& call, const void* input, void* out, Element element,
                                   void* stream);

// `sums` is [B, C, H, W] in float, and is grad_input where that is float.
const char* roi_align_backward_cuda(const RoiAlignCall<void>& call, const void* grad_out, float* sums, void* grad_input,
                                    Element element, void* stream);

}  // namespace seqkit
