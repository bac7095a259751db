// The RoIs of one image over a few of its planes (roi_align.h), once per machine level.
//
// A window is read and written in whole vectors, beyond the pixels of its segment and of its row: those lanes are
// picked by no bin, and get zeros added. The loops of a RoI have the same length for every channel and row of bins, and
// the usual lengths are known to the compiler: a branch that is guessed wrongly costs as much as a row of bins.
#include "common/device.h"
#include "common/numerics.h"
#include "roi_align/roi_align.h"

namespace {

using seqkit::PlannedRoi;
using seqkit::RoiAlignCall;
using seqkit::RoiPlanes;
using seqkit::RoiRow;
using seqkit::RoiSegment;
using seqkit::RoiTables;

// Channels that share the loads of weights, as many as registers hold: with two AVX-512 takes a tenth longer.
#if defined(__AVX512F__)
constexpr int kChannelsAtOnce = 4;
#else
constexpr int kChannelsAtOnce = 2;
#endif

SEQKIT_INLINE VecInt load_lanes(const int32_t* from) {
  VecInt value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// numerics.h's splat adds zero, which costs an instruction where the value comes from memory; taking it off is nothing.
SEQKIT_INLINE Vec spread(float value) { return value - Vec{}; }

// The lanes and weights of a segment's taps, in registers if their number is known.
template <int kTaps>
struct Taps {
  const int32_t* lanes;
  const float* weights;
  VecInt kept_lanes[kTaps ? kTaps : 1];
  Vec kept_weights[kTaps ? kTaps : 1];

  SEQKIT_INLINE Taps(const int32_t* lanes, const float* weights) : lanes(lanes), weights(weights) {
#pragma GCC unroll 4
    for (int tap = 0; tap < kTaps; ++tap) {
      kept_lanes[tap] = load_lanes(lanes + tap * kLanes);
      kept_weights[tap] = load(weights + tap * kLanes);
    }
  }
  SEQKIT_INLINE VecInt lane(int tap) const { return kTaps ? kept_lanes[tap] : load_lanes(lanes + tap * kLanes); }
  SEQKIT_INLINE Vec weight(int tap) const { return kTaps ? kept_weights[tap] : load(weights + tap * kLanes); }
};

// The first lanes of a vector, again and again.
struct Part {
#if defined(__AVX512F__)
  __mmask16 lanes;
  SEQKIT_INLINE explicit Part(int count) : lanes(static_cast<__mmask16>((1u << count) - 1)) {}
  SEQKIT_INLINE Vec load(const float* from) const { return (Vec)_mm512_maskz_loadu_ps(lanes, from); }
  SEQKIT_INLINE void store(float* to, Vec value) const { _mm512_mask_storeu_ps(to, lanes, (__m512)value); }
#elif defined(__AVX2__)
  VecInt lanes;
  SEQKIT_INLINE explicit Part(int count) : lanes(VecInt{0, 1, 2, 3, 4, 5, 6, 7} < count) {}
  SEQKIT_INLINE Vec load(const float* from) const { return (Vec)_mm256_maskload_ps(from, (__m256i)lanes); }
  SEQKIT_INLINE void store(float* to, Vec value) const { _mm256_maskstore_ps(to, (__m256i)lanes, (__m256)value); }
#else
  int count;
  SEQKIT_INLINE explicit Part(int count) : count(count) {}
  SEQKIT_INLINE Vec load(const float* from) const { return load_part(from, count); }
  SEQKIT_INLINE void store(float* to, Vec value) const { store_part(to, value, count); }
#endif
};

// What the loops over one segment of a RoI need.
struct Work {
  const RoiAlignCall<float>& call;
  const RoiTables& tables;
  const RoiPlanes& which;
  const PlannedRoi& planned;
  const RoiSegment& segment;

  // The bins of a channel and a row of bins, in [K, C, bins_y, bins_x].
  SEQKIT_INLINE int64_t bins_at(int64_t c, int64_t p) const {
    const int64_t plane = planned.roi * call.channels + which.channel + c;
    return (plane * call.bins_y + p) * call.bins_x + segment.first;
  }
};

// kRows and kTaps are zero where they are not known.
template <int kChannels, int kVectors, int kRows, int kTaps>
SEQKIT_INLINE void forward_channels(const Work& work, const float* plane, float* out) {
  const int64_t n_rows = kRows ? kRows : work.planned.n_rows;
  // Copies: the compiler would read them again after every store.
  const int64_t next_plane = work.which.size, bins_y = work.call.bins_y, bins_x = work.call.bins_x;
  const int64_t next_bins = bins_y * bins_x;
  const bool adds = work.segment.adds;
  const int32_t taps = kTaps ? kTaps : work.segment.taps;
  const int32_t* lanes = work.tables.lanes + work.segment.lanes;
  const Taps<kTaps> tap_of(lanes + kLanes, work.tables.weights + work.segment.weights);
  const VecInt counts = load_lanes(lanes);
  const Part part(work.segment.bins);
  const RoiRow* rows = work.tables.rows + work.planned.rows;
  for (int64_t p = 0; p < bins_y; ++p, rows += n_rows, out += bins_x) {
    Vec sums[kChannels][kVectors] = {};
#pragma GCC unroll 4
    for (int64_t r = 0; r < n_rows; ++r) {
      const Vec weight = spread(rows[r].weight);
      const float* from = plane + rows[r].offset;
      for (int c = 0; c < kChannels; ++c) {
        for (int n = 0; n < kVectors; ++n) {
          sums[c][n] = fma(weight, load(from + c * next_plane + n * kLanes), sums[c][n]);
        }
      }
    }
    Vec results[kChannels] = {};
#pragma GCC unroll 4
    for (int32_t tap = 0; tap < taps; ++tap) {
      const VecInt pixels = tap_of.lane(tap);
      const Vec weight = tap_of.weight(tap);
      for (int c = 0; c < kChannels; ++c) {
        Vec picked;
        if constexpr (kVectors == 1) {
          picked = __builtin_shuffle(sums[c][0], pixels);
        } else {
          picked = __builtin_shuffle(sums[c][0], sums[c][kVectors - 1], pixels);
        }
        results[c] = fma(weight, picked, results[c]);
      }
    }
    const VecInt row_counts = counts & rows[0].counts;
    for (int c = 0; c < kChannels; ++c) {
      Vec result = (Vec)((VecInt)results[c] & row_counts);
      if (adds) result = result + part.load(out + c * next_bins);
      part.store(out + c * next_bins, result);
    }
  }
}

template <int kVectors, int kRows, int kTaps>
SEQKIT_INLINE void forward_segment(const Work& work, const float* planes, float* out) {
  const float* plane = planes + work.segment.column;
  int64_t c = 0;
  for (; c + kChannelsAtOnce <= work.which.count; c += kChannelsAtOnce) {
    forward_channels<kChannelsAtOnce, kVectors, kRows, kTaps>(work, plane + c * work.which.size,
                                                              out + work.bins_at(c, 0));
  }
  for (; c < work.which.count; ++c) {
    forward_channels<1, kVectors, kRows, kTaps>(work, plane + c * work.which.size, out + work.bins_at(c, 0));
  }
}

template <int kVectors, int kRows, int kTaps>
SEQKIT_INLINE void backward_segment(const Work& work, const float* grad_out, float* planes) {
  const int64_t n_rows = kRows ? kRows : work.planned.n_rows;
  const int32_t taps = kTaps ? kTaps : work.segment.taps;
  // Twice the taps for two vectors: too many to keep.
  const Taps<kVectors == 1 ? kTaps : 0> tap_of(work.tables.lanes + work.segment.lanes,
                                               work.tables.weights + work.segment.weights);
  const Part part(work.segment.bins);
  const int64_t bins_y = work.call.bins_y, bins_x = work.call.bins_x, count = work.which.count;
  for (int64_t c = 0; c < count; ++c) {
    float* plane = planes + c * work.which.size + work.segment.column;
    const float* from = grad_out + work.bins_at(c, 0);
    const RoiRow* rows = work.tables.rows + work.planned.rows;
    for (int64_t p = 0; p < bins_y; ++p, rows += n_rows, from += bins_x) {
      if (!rows[0].counts) continue;
      const Vec grads = part.load(from);
      Vec shares[kVectors] = {};
      for (int n = 0; n < kVectors; ++n) {
#pragma GCC unroll 4
        for (int32_t tap = 0; tap < taps; ++tap) {
          const int at = n * taps + tap;
          shares[n] = fma(tap_of.weight(at), __builtin_shuffle(grads, Vec{}, tap_of.lane(at)), shares[n]);
        }
      }
#pragma GCC unroll 4
      for (int64_t r = 0; r < n_rows; ++r) {
        float* to = plane + rows[r].offset;
        const Vec weight = spread(rows[r].weight);
        for (int n = 0; n < kVectors; ++n) store(to + n * kLanes, fma(weight, shares[n], load(to + n * kLanes)));
      }
    }
  }
}

// Calls run.operator()<kVectors, kRows, kTaps>(work) for each segment of each RoI of the image.
template <int kVectors, int kRows, typename Run>
SEQKIT_INLINE void with_taps(const Work& work, const Run& run) {
  switch (work.segment.taps) {
    case 2:
      return run.template operator()<kVectors, kRows, 2>(work);
    case 3:
      return run.template operator()<kVectors, kRows, 3>(work);
    case 4:
      return run.template operator()<kVectors, kRows, 4>(work);
    default:
      return run.template operator()<kVectors, kRows, 0>(work);
  }
}

template <int kVectors, typename Run>
SEQKIT_INLINE void with_rows(const Work& work, const Run& run) {
  switch (work.planned.n_rows) {
    case 2:
      return with_taps<kVectors, 2>(work, run);
    case 3:
      return with_taps<kVectors, 3>(work, run);
    case 4:
      return with_taps<kVectors, 4>(work, run);
    default:
      return with_taps<kVectors, 0>(work, run);
  }
}

template <typename Run>
SEQKIT_INLINE void for_segments(const RoiAlignCall<float>& call, const RoiTables& tables, const RoiPlanes& which,
                                const Run& run) {
  for (int64_t n = tables.image_starts[which.image]; n < tables.image_starts[which.image + 1]; ++n) {
    const PlannedRoi& planned = tables.rois[n];
    for (int64_t s = planned.first_segment; s < planned.last_segment; ++s) {
      const Work work{call, tables, which, planned, tables.segments[s]};
      if (work.segment.vectors == 1) {
        with_rows<1>(work, run);
      } else {
        with_rows<2>(work, run);
      }
    }
  }
}

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(roi_align_forward)(const RoiAlignCall<float>& call, const RoiTables& tables,
                                        const RoiPlanes& which, const float* planes, float* out) {
  for_segments(call, tables, which, [&]<int kVectors, int kRows, int kTaps>(const Work& work) {
    forward_segment<kVectors, kRows, kTaps>(work, planes, out);
  });
}

void SEQKIT_AT_LEVEL(roi_align_backward)(const RoiAlignCall<float>& call, const RoiTables& tables,
                                         const RoiPlanes& which, const float* grad_out, float* planes) {
  for_segments(call, tables, which, [&]<int kVectors, int kRows, int kTaps>(const Work& work) {
    backward_segment<kVectors, kRows, kTaps>(work, grad_out, planes);
  });
}

}  // namespace seqkit
