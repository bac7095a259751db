// One box against many, by columns x1, y1, x2, y2, area; once per machine level.
#include "common/device.h"
#include "common/numerics.h"

namespace {

// As std::max and std::min have it: the first where they are equal or one is NaN.
SEQKIT_INLINE Vec larger(Vec a, Vec b) { return a < b ? b : a; }
SEQKIT_INLINE Vec smaller(Vec a, Vec b) { return b < a ? b : a; }

SEQKIT_INLINE bool any(VecInt mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  int32_t found = 0;
  for (int lane = 0; lane < kLanes; ++lane) found |= mask[lane];
  return found != 0;
#endif
}

struct Sides {
  Vec width, height;
};

SEQKIT_INLINE Sides intersection(const float* const* others, int64_t i, const Vec (&box)[4]) {
  return {smaller(load(others[2] + i), box[2]) - larger(load(others[0] + i), box[0]),
          smaller(load(others[3] + i), box[3]) - larger(load(others[1] + i), box[1])};
}

SEQKIT_INLINE Vec overlap(const Sides& sides, Vec area, Vec other_area) {
  const Vec zero{}, inter = larger(zero, sides.width) * larger(zero, sides.height);
  return inter / (other_area + area - inter);
}

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(nms_meets)(const float* const* kept, int64_t count, const float* box, float threshold,
                                bool* meets) {
  const Vec corners[4] = {splat(box[0]), splat(box[1]), splat(box[2]), splat(box[3])};
  const Vec area = splat((box[2] - box[0]) * (box[3] - box[1])), zero{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Sides sides = intersection(kept, i, corners);
    // Without an intersection the IoU is 0 or NaN, which a threshold of 0 or more does not fall below.
    const VecInt touch = (sides.width > zero) & (sides.height > zero);
    if (threshold >= 0.0f && !any(touch)) continue;
    VecInt near = overlap(sides, area, load(kept[4] + i)) > splat(threshold);
    for (int lane = 0; lane < kLanes && count - i < kLanes; ++lane) near[lane] = i + lane < count ? near[lane] : 0;
    if (any(near)) {
      *meets = true;
      return;
    }
  }
  *meets = false;
}

void SEQKIT_AT_LEVEL(nms_overlaps)(const float* const* others, int64_t count, const float* box, float* iou) {
  const Vec corners[4] = {splat(box[0]), splat(box[1]), splat(box[2]), splat(box[3])};
  const Vec area = splat((box[2] - box[0]) * (box[3] - box[1]));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec value = overlap(intersection(others, i, corners), area, load(others[4] + i));
    store_some(iou + i, value, count - i < kLanes ? int(count - i) : kLanes);
  }
}

}  // namespace seqkit
