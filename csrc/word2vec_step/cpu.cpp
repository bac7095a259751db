// The specification of word2vec_step.h: one window after the other.
#include <algorithm>
#include <cmath>
#include <vector>

#include "word2vec_step/word2vec_step.h"

namespace seqkit {
namespace {

// Partial sums, so that the compiler may add in vectors.
float dot(const float* a, const float* b, int64_t width) {
  constexpr int64_t kSums = 16;
  float sums[kSums] = {}, rest = 0;
  int64_t d = 0;
  for (; d + kSums <= width; d += kSums) {
    for (int64_t i = 0; i < kSums; ++i) sums[i] += a[d + i] * b[d + i];
  }
  for (; d < width; ++d) rest += a[d] * b[d];
  for (const float sum : sums) rest += sum;
  return rest;
}

void add(float* to, float factor, const float* row, int64_t width) {
  for (int64_t d = 0; d < width; ++d) to[d] += factor * row[d];
}

}  // namespace

void word2vec_step(const Word2VecStep& call) {
  if (call.positions == 0) return;
  const int64_t D = call.width, n_out = call.n_negatives + 1;
  std::vector<float> rows(2 * call.window * D), moves(2 * call.window * D), steps(2 * call.window * n_out);
  std::vector<int64_t> words(2 * call.window), outputs(n_out);
  for (int64_t i = 0; i < call.positions; ++i) {
    call.losses[i] = 0;
    call.pairs[i] = 0;
    const int64_t t = call.begin + i, word = call.ids[t], radius = call.radii[i];
    if (word < 0) continue;
    int64_t from = t, to = t, n_in = 0;
    while (from > 0 && t - from < radius && call.ids[from - 1] >= 0) --from;
    while (to + 1 < call.size && to - t < radius && call.ids[to + 1] >= 0) ++to;
    for (int64_t c = from; c <= to; ++c) {
      if (c != t) words[n_in++] = call.ids[c];
    }
    if (n_in == 0) continue;

    const int64_t n_rows = call.mean ? 1 : n_in;
    std::fill_n(rows.begin(), n_rows * D, 0.0f);
    std::fill_n(moves.begin(), n_rows * D, 0.0f);
    const float share = 1.0f / static_cast<float>(n_in / n_rows);
    for (int64_t r = 0; r < n_in; ++r) add(rows.data() + r % n_rows * D, share, call.inputs + words[r] * D, D);
    outputs[0] = word;
    for (int64_t k = 1; k < n_out; ++k) outputs[k] = call.negatives[i * call.n_negatives + k - 1];

    double loss = 0;
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t k = 0; k < n_out; ++k) {
        float& step = steps[r * n_out + k];
        step = 0;
        if (k > 0 && outputs[k] == word) continue;
        const float sign = k == 0 ? 1.0f : -1.0f, weight = k == 0 ? 1.0f : call.negative_weight;
        const float* out = call.outputs + outputs[k] * D;
        const float right = sign * dot(rows.data() + r * D, out, D), e = std::exp(-std::abs(right));
        loss += static_cast<double>(weight * (std::max(-right, 0.0f) + std::log1p(e)));
        step = call.rate * weight * sign * ((right >= 0 ? e : 1.0f) / (1.0f + e));
        add(moves.data() + r * D, step, out, D);
      }
    }
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t k = 0; k < n_out; ++k) {
        if (steps[r * n_out + k] != 0) {
          add(call.outputs + outputs[k] * D, steps[r * n_out + k], rows.data() + r * D, D);
        }
      }
    }
    for (int64_t r = 0; r < n_in; ++r) add(call.inputs + words[r] * D, 1.0f, moves.data() + r % n_rows * D, D);
    call.losses[i] = static_cast<float>(loss);
    call.pairs[i] = static_cast<int32_t>(n_rows);
  }
}

}  // namespace seqkit
