// The steps of glove.h, once per machine level.
#include "common/device.h"
#include "common/numerics.h"
#include "embedding/glove_steps.h"

namespace {

using seqkit::embedding::GloVePair;
using seqkit::embedding::GloVeSteps;

constexpr int64_t kAhead = 3;  // pairs between the fetch of a row and its use
constexpr int64_t kLineFloats = 16;

SEQKIT_INLINE void fetch(const float* row, int64_t floats) {
  for (int64_t at = 0; at < floats; at += kLineFloats) __builtin_prefetch(row + at, 1, 2);
}

// 1 / sqrt(x) to 2^-14, which is enough for the length of a step; 0 for infinity.
SEQKIT_INLINE Vec inverse_root(Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return splat(1.0f) / (Vec)_mm256_sqrt_ps((__m256)x);
#else
  Vec root;
  for (int lane = 0; lane < kLanes; ++lane) root[lane] = 1.0f / __builtin_sqrtf(x[lane]);
  return root;
#endif
}

// x moves against g y and y against g x.
SEQKIT_INLINE void move(float* x, float* y, float* x_sums, float* y_sums, Vec g) {
  const Vec a = load(x), b = load(y), a_sum = load(x_sums), b_sum = load(y_sums);
  const Vec a_step = g * b, b_step = g * a;
  store(x, fma(-a_step, inverse_root(a_sum), a));
  store(y, fma(-b_step, inverse_root(b_sum), b));
  store(x_sums, fma(a_step, a_step, a_sum));
  store(y_sums, fma(b_step, b_step, b_sum));
}

}  // namespace

namespace seqkit::embedding {

void SEQKIT_AT_LEVEL(glove_steps)(const GloVeSteps& steps) {
  const int64_t width = steps.width, stride = 4 * width;
  double loss = 0;
  for (int64_t n = 0; n < steps.size; ++n) {
    if (n + kAhead < steps.size) {
      const GloVePair& next = steps.pairs[n + kAhead];
      fetch(steps.rows + next.i * stride, stride);
      fetch(steps.rows + next.j * stride, stride);
    }
    const GloVePair& pair = steps.pairs[n];
    float* i = steps.rows + pair.i * stride;
    float* j = steps.rows + pair.j * stride;
    if (pair.i == pair.j) {
      Vec score{};
      for (int64_t at = 0; at < width; at += kLanes) score = fma(load(i + at), load(i + width + at), score);
      const float miss = sum(score) - pair.log_count;
      loss += static_cast<double>(pair.weight * miss * miss);
      const Vec g = splat(steps.eta * pair.weight * miss);
      for (int64_t at = 0; at < width; at += kLanes) {
        move(i + at, i + width + at, i + 2 * width + at, i + 3 * width + at, g);
      }
      continue;
    }
    Vec score{}, back_score{};
    for (int64_t at = 0; at < width; at += kLanes) {
      score = fma(load(i + at), load(j + width + at), score);
      back_score = fma(load(j + at), load(i + width + at), back_score);
    }
    const float miss = sum(score) - pair.log_count, back_miss = sum(back_score) - pair.log_count;
    loss += static_cast<double>(pair.weight * (miss * miss + back_miss * back_miss));
    const Vec g = splat(steps.eta * pair.weight * miss), back_g = splat(steps.eta * pair.weight * back_miss);
    for (int64_t at = 0; at < width; at += kLanes) {
      move(i + at, j + width + at, i + 2 * width + at, j + 3 * width + at, g);
      move(j + at, i + width + at, j + 2 * width + at, i + 3 * width + at, back_g);
    }
  }
  *steps.loss += loss;
}

}  // namespace seqkit::embedding
