// One row of additive_attention.h, once per machine level.
#include "additive_attention/additive_attention.h"
#include "common/device.h"
#include "common/numerics.h"

namespace seqkit {

void SEQKIT_AT_LEVEL(additive_row)(const AdditiveAttention& call, int64_t row) {
  const int64_t sentence = row / call.targets;
  const int64_t length = call.lengths ? call.lengths[sentence] : call.sources;
  const float* query = call.query + row * call.depth;
  const float* keys = call.keys + sentence * call.sources * call.depth;
  const float* values = call.values + sentence * call.sources * call.width;
  float* weights = call.weights + row * call.sources;
  float* context = call.context + row * call.width;

  // Scores, in the place of the weights, and their maximum.
  float largest = -__builtin_inff();
  for (int64_t s = 0; s < length; ++s) {
    Vec total{};
    for (int64_t a = 0; a < call.depth; a += kLanes) {
      const int count = call.depth - a < kLanes ? int(call.depth - a) : kLanes;
      const Vec energy = tanh(load_some(query + a, count) + load_some(keys + s * call.depth + a, count));
      total = fma(load_some(call.v + a, count), energy, total);  // lanes beyond the end hold v = 0
    }
    weights[s] = sum(total);
    largest = weights[s] > largest ? weights[s] : largest;
  }

  // Softmax over the row's own positions.
  Vec totals{};
  for (int64_t s = 0; s < length; s += kLanes) {
    const int count = length - s < kLanes ? int(length - s) : kLanes;
    store_some(weights + s, exp(load_some(weights + s, count) - splat(largest)), count);
    totals = totals + load_some(weights + s, count);
  }
  const Vec total = splat(sum(totals));
  for (int64_t s = 0; s < length; s += kLanes) {
    const int count = length - s < kLanes ? int(length - s) : kLanes;
    store_some(weights + s, load_some(weights + s, count) / total, count);
  }
  for (int64_t s = length; s < call.sources; ++s) weights[s] = 0.0f;

  for (int64_t d = 0; d < call.width; d += kLanes) {
    const int count = call.width - d < kLanes ? int(call.width - d) : kLanes;
    Vec mean{};
    for (int64_t s = 0; s < length; ++s) {
      mean = fma(splat(weights[s]), load_some(values + s * call.width + d, count), mean);
    }
    store_some(context + d, mean, count);
  }
}

}  // namespace seqkit
