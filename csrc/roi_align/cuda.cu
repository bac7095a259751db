// roi_align.h on a card, in float32 whatever the element, with no order left to chance.
//
// Forward: a thread for a bin in a few channels, which share the points and their weights. Backward: a block for a few
// planes of an image, which visits the image's RoIs in order. It first spreads rows of bins along x into a tile, then
// the tile along y into the planes. A pixel of a plane belongs to one thread for good, by its row and column: no
// atomics, and no barrier between RoIs but for the tile. The planes stand in shared memory where they fit.
//
// Coordinates are rounded as axis.h rounds them: whether a point is inside the map can hang on the last bit.
#include "common/cuda.h"
#include "roi_align/roi_align.h"

namespace seqkit {
namespace {

using Call = RoiAlignCall<void>;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kChannels = 4;                       // of a thread of the forward pass
constexpr int kPlanes = 2;                         // of a block of the backward pass
constexpr int kTile = kPlanes * kWarps * 32;       // numbers: a warp for each row of bins, a lane for each column
constexpr size_t kMostShared = 96 * size_t{1024};  // bytes: two blocks share the memory of a multiprocessor

SEQKIT_DEVICE bool finite(float x) { return fabsf(x) < INFINITY; }

struct Axis {
  float start, bin, points;  // as RoiAxis
  int bins, length;

  SEQKIT_DEVICE Axis(const Call& call, float low, float high, int64_t bins_, int64_t length_)
      : bins(static_cast<int>(bins_)), length(static_cast<int>(length_)) {
    const float offset = call.aligned ? 0.5f : 0.0f;
    start = rounded_product(low, call.scale) - offset;
    float size = rounded_product(high, call.scale) - offset - start;
    if (!call.aligned) size = fmaxf(size, 1.0f);
    bin = size / static_cast<float>(bins);
    points = call.sampling_ratio > 0 ? static_cast<float>(call.sampling_ratio) : ceilf(bin);
  }

  SEQKIT_DEVICE bool sound() const {
    return finite(start) && finite(bin) && points * static_cast<float>(bins) <= static_cast<float>(kMostPoints);
  }

  SEQKIT_DEVICE float at(int of_bin, int point) const {
    const float offset = rounded_product(static_cast<float>(of_bin), bin);
    return start + offset + rounded_product(static_cast<float>(point) + 0.5f, bin) / points;
  }
};

// A box, and whether the CPU would take it.
struct Roi {
  Axis y, x;
  int64_t image;

  SEQKIT_DEVICE Roi(const Call& call, int64_t roi)
      : y(call, call.boxes[roi * 5 + 2], call.boxes[roi * 5 + 4], call.bins_y, call.height),
        x(call, call.boxes[roi * 5 + 1], call.boxes[roi * 5 + 3], call.bins_x, call.width) {
    const float* const box = call.boxes + roi * 5;
    const bool known = box[0] >= 0.0f && box[0] < static_cast<float>(call.batch) && box[0] == floorf(box[0]);
    const bool ordered = box[1] <= box[3] && box[2] <= box[4];  // which NaN is not
    image = known && ordered && x.sound() && y.sound() ? static_cast<int64_t>(box[0]) : -1;
  }
};

// As in axis.h.
struct Neighbours {
  bool inside;
  int low, high;
  float low_weight, high_weight;

  SEQKIT_DEVICE Neighbours(float at, int length)
      : inside(length > 0 && at >= -1.0f && at <= static_cast<float>(length)),
        low(0),
        high(0),
        low_weight(0.0f),
        high_weight(0.0f) {
    if (!inside) return;
    at = fmaxf(at, 0.0f);
    low = static_cast<int>(at);
    if (low >= length - 1) {
      low = length - 1;
      at = static_cast<float>(low);
    }
    high_weight = at - static_cast<float>(low);
    low_weight = 1.0f - high_weight;
    high = high_weight > 0.0f ? low + 1 : low;  // a pixel without weight is not read
  }
};

template <typename E>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(const Call call, const E* input, E* out) {
  const int64_t bins = call.bins_y * call.bins_x, groups = (call.channels + kChannels - 1) / kChannels;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t bin = thread % bins, group = thread / bins % groups, k = thread / bins / groups;
  if (k >= call.rois) return;
  const int64_t first = group * kChannels;
  const int channels = static_cast<int>(call.channels - first < kChannels ? call.channels - first : kChannels);
  const int p = static_cast<int>(bin / call.bins_x), q = static_cast<int>(bin % call.bins_x);
  const Roi roi(call, k);

  float sums[kChannels] = {};
  const int64_t size = call.height * call.width;
  const E* const planes = input + (roi.image * call.channels + first) * size;
  const int points_y = roi.image < 0 ? 0 : static_cast<int>(roi.y.points), points_x = static_cast<int>(roi.x.points);
  for (int i = 0; i < points_y; ++i) {
    const Neighbours y(roi.y.at(p, i), roi.y.length);
    if (!y.inside) continue;
    const int64_t low = y.low * call.width, high = y.high * call.width;
    for (int j = 0; j < points_x; ++j) {
      const Neighbours x(roi.x.at(q, j), roi.x.length);
      if (!x.inside) continue;
      const float low_low = y.low_weight * x.low_weight, low_high = y.low_weight * x.high_weight;
      const float high_low = y.high_weight * x.low_weight, high_high = y.high_weight * x.high_weight;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (c >= channels) break;
        const E* const plane = planes + c * size;
        sums[c] = fmaf(low_low, to_float(plane[low + x.low]), sums[c]);
        sums[c] = fmaf(low_high, to_float(plane[low + x.high]), sums[c]);
        sums[c] = fmaf(high_low, to_float(plane[high + x.low]), sums[c]);
        sums[c] = fmaf(high_high, to_float(plane[high + x.high]), sums[c]);
      }
    }
  }
  const float count = fmaxf(static_cast<float>(points_y) * static_cast<float>(points_x), 1.0f);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (c < channels) out[(k * call.channels + first + c) * bins + bin] = from_float<E>(sums[c] / count);
  }
}

// [first, last] of something, none where last is the smaller.
struct Range {
  int first, last;
};

// From `low` to `high` as far as they are in 0 .. count - 1.
SEQKIT_DEVICE Range range(float low, float high, int count) {
  return {static_cast<int>(fminf(fmaxf(low, 0.0f), static_cast<float>(count))), high < 0.0f ? -1
                                                                                : high < static_cast<float>(count - 1)
                                                                                    ? static_cast<int>(high)
                                                                                    : count - 1};
}

// Pixels that may have a weight in a RoI.
SEQKIT_DEVICE Range pixels_of(const Axis& axis) {
  const float end = axis.start + axis.bin * static_cast<float>(axis.bins);
  return range(floorf(axis.start) - 1.0f, floorf(end) + 2.0f, axis.length);
}

// Bins that may have a point within a pixel's distance of it.
SEQKIT_DEVICE Range bins_of(const Axis& axis, int pixel) {
  if (!(axis.bin > 0.0f)) return {0, axis.bins - 1};
  const float distance = static_cast<float>(pixel) - axis.start;
  return range(floorf((distance - 1.0f) / axis.bin) - 1.0f, floorf((distance + 1.0f) / axis.bin) + 1.0f, axis.bins);
}

// What a pixel counts in a bin, along an axis.
SEQKIT_DEVICE float weight_of(const Axis& axis, int bin, int pixel) {
  float weight = 0.0f;
  const int points = static_cast<int>(axis.points);
  for (int point = 0; point < points; ++point) {
    const Neighbours near(axis.at(bin, point), axis.length);
    if (near.low == pixel) weight += near.low_weight;
    if (near.high == pixel) weight += near.high_weight;
  }
  return points > 0 ? weight / axis.points : 0.0f;
}

template <typename E>
__global__ void __launch_bounds__(kThreads, 2)
    backward_kernel(const Call call, const E* grad_out, float* sums, E* grad_input, bool in_shared) {
  SEQKIT_DYNAMIC_SHARED(float, tile);  // [kPlanes, kWarps, 32], then the planes if they fit
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t groups = (call.channels + kPlanes - 1) / kPlanes, image = blockIdx.x / groups;
  const int64_t first = blockIdx.x % groups * kPlanes, size = call.height * call.width;
  const int64_t bins = call.bins_y * call.bins_x, offset = (image * call.channels + first) * size;
  const int channels = static_cast<int>(call.channels - first < kPlanes ? call.channels - first : kPlanes);
  float* const planes = in_shared ? tile + kTile : sums + offset;

  // The pixels of a thread: rows warp, warp + kWarps, ..., columns lane, lane + 32, ...
  for (int c = 0; c < channels; ++c) {
    for (int64_t y = warp; y < call.height; y += kWarps) {
      for (int64_t x = lane; x < call.width; x += 32) planes[c * size + y * call.width + x] = 0.0f;
    }
  }

  for (int64_t k = 0; k < call.rois; ++k) {
    if (call.boxes[k * 5] != static_cast<float>(image)) continue;
    const Roi roi(call, k);
    if (roi.image != image) continue;
    const E* const grads = grad_out + (k * call.channels + first) * bins;
    const Range rows = pixels_of(roi.y), columns = pixels_of(roi.x);
    for (int begin = 0; begin < roi.y.bins; begin += kWarps) {
      for (int left = columns.first / 32 * 32; left <= columns.last; left += 32) {
        const int x = left + lane, p = begin + warp;
        const bool counts = x >= columns.first && x <= columns.last;
        float shares[kPlanes] = {};
        if (counts && p < roi.y.bins) {
          const Range near = bins_of(roi.x, x);
          for (int q = near.first; q <= near.last; ++q) {
            const float weight = weight_of(roi.x, q, x);
            if (weight == 0.0f) continue;
#pragma unroll
            for (int c = 0; c < kPlanes; ++c) {
              if (c < channels) shares[c] = fmaf(weight, to_float(grads[c * bins + p * call.bins_x + q]), shares[c]);
            }
          }
        }
        __syncthreads();  // the tile is read no more
#pragma unroll
        for (int c = 0; c < kPlanes; ++c) tile[(c * kWarps + warp) * 32 + lane] = shares[c];
        __syncthreads();
        for (int y = rows.first + (warp - rows.first % kWarps + kWarps) % kWarps; y <= rows.last; y += kWarps) {
          const Range near = bins_of(roi.y, y);
          const int last = near.last < begin + kWarps - 1 ? near.last : begin + kWarps - 1;
          float added[kPlanes] = {};
          for (int bin = near.first > begin ? near.first : begin; bin <= last; ++bin) {
            const float weight = weight_of(roi.y, bin, y);
            if (weight == 0.0f) continue;
#pragma unroll
            for (int c = 0; c < kPlanes; ++c) {
              added[c] = fmaf(weight, tile[(c * kWarps + bin - begin) * 32 + lane], added[c]);
            }
          }
          if (!counts) continue;
#pragma unroll
          for (int c = 0; c < kPlanes; ++c) {
            if (c < channels) planes[c * size + y * call.width + x] += added[c];
          }
        }
      }
    }
  }

  if (!in_shared && std::is_same_v<E, float>) return;  // sums are the gradient
  for (int c = 0; c < channels; ++c) {
    for (int64_t y = warp; y < call.height; y += kWarps) {
      for (int64_t x = lane; x < call.width; x += 32) {
        const int64_t at = c * size + y * call.width + x;
        grad_input[offset + at] = from_float<E>(planes[at]);
      }
    }
  }
}

template <typename E>
const char* forward(const Call& call, const void* input, void* out, void* stream) {
  const int64_t groups = (call.channels + kChannels - 1) / kChannels;
  const int64_t threads = call.rois * groups * call.bins_y * call.bins_x;
  if (threads == 0) return nullptr;
  SEQKIT_LAUNCH((forward_kernel<E>), dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads)), dim3(kThreads),
                0, stream, call, static_cast<const E*>(input), static_cast<E*>(out));
  return launch_error();
}

template <typename E>
const char* backward(const Call& call, const void* grad_out, float* sums, void* grad_input, void* stream) {
  const int64_t size = call.height * call.width, blocks = call.batch * ((call.channels + kPlanes - 1) / kPlanes);
  if (blocks * size == 0) return nullptr;
  const bool in_shared = (kTile + kPlanes * size) * sizeof(float) <= kMostShared;
  const size_t shared = (kTile + (in_shared ? kPlanes * size : 0)) * sizeof(float);
  SEQKIT_LAUNCH((backward_kernel<E>), dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared, stream, call,
                static_cast<const E*>(grad_out), sums, static_cast<E*>(grad_input), in_shared);
  return launch_error();
}

}  // namespace

const char* roi_align_forward_cuda(const Call& call, const void* input, void* out, Element element, void* stream) {
  switch (element) {
    case Element::kFloat:
      return forward<float>(call, input, out, stream);
    case Element::kHalf:
      return forward<__half>(call, input, out, stream);
    default:
      return forward<__nv_bfloat16>(call, input, out, stream);
  }
}

const char* roi_align_backward_cuda(const Call& call, const void* grad_out, float* sums, void* grad_input,
                                    Element element, void* stream) {
  switch (element) {
    case Element::kFloat:
      return backward<float>(call, grad_out, sums, grad_input, stream);
    case Element::kHalf:
      return backward<__half>(call, grad_out, sums, grad_input, stream);
    default:
      return backward<__nv_bfloat16>(call, grad_out, sums, grad_input, stream);
  }
}

}  // namespace seqkit
