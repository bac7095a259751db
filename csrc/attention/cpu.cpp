// The float64 kernels, which are the specification, and the way into the float32 ones.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "attention/attention.h"
#include "attention/rows.h"
#include "common/device.h"

namespace seqkit {

#define SEQKIT_DECLARE_ATTENTION(Number)                                                      \
  SEQKIT_DECLARE_LEVELS(attention_forward_##Number,                                           \
                        (const AttentionShape& shape, const AttentionInputs<Number>& in,      \
                         const AttentionOutputs<Number>& out, int64_t unit, float* scratch)); \
  SEQKIT_DECLARE_LEVELS(attention_backward_##Number,                                          \
                        (const AttentionShape& shape, const AttentionInputs<Number>& in,      \
                         const AttentionGradients<Number>& grads, int64_t unit, float* scratch))
SEQKIT_DECLARE_ATTENTION(float);
SEQKIT_DECLARE_ATTENTION(Half);
SEQKIT_DECLARE_ATTENTION(Bfloat16);

namespace {

// One query row in float64: its logits over the keys it sees, and the dropout factor of a key.
class Row {
 public:
  Row(const AttentionShape& shape, const AttentionInputs<double>& in, int64_t sentence, int64_t head, int64_t row)
      : shape_(shape), in_(in), sentence_(sentence), head_(head), row_(row), range_(keys_seen(shape, sentence, row)) {
    kv_head_ = head / (shape.heads / shape.kv_heads);
    q_ = in.q + sentence * in.q_strides.batch + head * in.q_strides.head + row * in.q_strides.row;
  }

  const double* query() const { return q_; }
  const KeyRange& range() const { return range_; }
  int64_t kv_head() const { return kv_head_; }

  const double* key(int64_t j) const {
    return in_.k + sentence_ * in_.k_strides.batch + kv_head_ * in_.k_strides.head + j * in_.k_strides.row;
  }

  const double* value(int64_t j) const {
    return in_.v + sentence_ * in_.v_strides.batch + kv_head_ * in_.v_strides.head + j * in_.v_strides.row;
  }

  double logit(int64_t j) const {
    double dot = 0;
    for (int64_t d = 0; d < shape_.width; ++d) dot += q_[d] * key(j)[d];
    double value = dot * shape_.scale;
    if (in_.bias) {
      value += in_.bias[sentence_ * in_.bias_strides.batch + head_ * in_.bias_strides.head +
                        row_ * in_.bias_strides.row + j * in_.bias_key_stride];
    }
    if (in_.slopes) value -= in_.slopes[head_] * static_cast<double>(std::abs(query_position(shape_, row_) - j));
    return value;
  }

  // 0 when dropped, else one over the share that is kept.
  double keep(int64_t j) const {
    if (shape_.drop_below == 0) return 1;
    const uint32_t head = static_cast<uint32_t>(sentence_ * shape_.heads + head_);
    if (random_word(shape_.seed, head, static_cast<uint32_t>(row_), j) < shape_.drop_below) return 0;
    return 1 / (1 - shape_.drop_below * 0x1p-32);
  }

 private:
  const AttentionShape& shape_;
  const AttentionInputs<double>& in_;
  int64_t sentence_, head_, row_, kv_head_;
  KeyRange range_;
  const double* q_;
};

void forward_row(const AttentionShape& shape, const AttentionInputs<double>& in, const AttentionOutputs<double>& out,
                 int64_t sentence, int64_t head, int64_t row_index) {
  const Row row(shape, in, sentence, head, row_index);
  const auto [begin, end] = row.range();
  double* result = out.out + ((sentence * shape.targets + row_index) * shape.heads + head) * shape.value_width;
  const int64_t flat = (sentence * shape.heads + head) * shape.targets + row_index;
  double* weights = out.weights ? out.weights + flat * shape.sources : nullptr;
  std::fill_n(result, shape.value_width, 0.0);
  if (weights) std::fill_n(weights, shape.sources, 0.0);

  std::vector<double> logits;
  for (int64_t j = begin; j < end; ++j) logits.push_back(row.logit(j));
  const double lowest = -std::numeric_limits<double>::infinity();
  double largest = lowest;
  for (double logit : logits) largest = std::max(largest, logit);
  if (largest == lowest) largest = 0;  // all are hidden, or NaN, which the sum then is
  double sum = 0;
  for (double logit : logits) sum += std::exp(logit - largest);
  const double inverse = sum == 0 ? 0 : 1 / sum;
  out.stats[2 * flat] = largest;
  out.stats[2 * flat + 1] = inverse;
  if (sum == 0) return;
  for (int64_t j = begin; j < end; ++j) {
    const double weight = std::exp(logits[j - begin] - largest) * inverse;
    if (weights) weights[j] = weight;
    const double factor = weight * row.keep(j);
    for (int64_t d = 0; d < shape.value_width; ++d) result[d] += factor * row.value(j)[d];
  }
}

void backward_row(const AttentionShape& shape, const AttentionInputs<double>& in,
                  const AttentionGradients<double>& grads, int64_t sentence, int64_t head, int64_t row_index) {
  const Row row(shape, in, sentence, head, row_index);
  const int64_t flat = (sentence * shape.heads + head) * shape.targets + row_index;
  const int64_t merged = (sentence * shape.targets + row_index) * shape.heads + head;
  const double* out = grads.out + merged * shape.value_width;
  const double* grad_out = grads.grad_out + merged * shape.value_width;
  double* grad_q = grads.grad_q + merged * shape.width;

  // delta = sum_j weight_j d(loss)/d(weight_j), the term of the softmax's gradient that all its keys share.
  double delta = 0;
  for (int64_t d = 0; d < shape.value_width; ++d) delta += grad_out[d] * out[d];
  for (int64_t j = row.range().begin; grads.grad_weights && j < row.range().end; ++j) {
    delta += grads.weights[flat * shape.sources + j] * grads.grad_weights[flat * shape.sources + j];
  }
  for (int64_t j = row.range().begin; j < row.range().end; ++j) {
    const double weight = std::exp(row.logit(j) - grads.stats[2 * flat]) * grads.stats[2 * flat + 1];
    const double keep = row.keep(j);
    const int64_t key_row = (sentence * shape.sources + j) * shape.kv_heads + row.kv_head();
    double grad_weight = 0;
    for (int64_t d = 0; d < shape.value_width; ++d) {
      grad_weight += keep * grad_out[d] * row.value(j)[d];
      grads.grad_v[key_row * shape.value_width + d] += keep * weight * grad_out[d];
    }
    if (grads.grad_weights) grad_weight += grads.grad_weights[flat * shape.sources + j];
    const double grad_logit = weight * (grad_weight - delta);
    if (grads.grad_bias) grads.grad_bias[flat * shape.sources + j] = grad_logit;
    for (int64_t d = 0; d < shape.width; ++d) {
      grad_q[d] += shape.scale * grad_logit * row.key(j)[d];
      grads.grad_k[key_row * shape.width + d] += shape.scale * grad_logit * row.query()[d];
    }
  }
}

}  // namespace

template <>
void attention_forward(const AttentionShape& shape, const AttentionInputs<double>& in,
                       const AttentionOutputs<double>& out, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit % row_blocks(shape), head = unit / row_blocks(shape);
    const int64_t last = std::min((block + 1) * kRowBlock, shape.targets);
    for (int64_t row = block * kRowBlock; row < last; ++row) {
      forward_row(shape, in, out, head / shape.heads, head % shape.heads, row);
    }
  }
}

template <>
void attention_backward(const AttentionShape& shape, const AttentionInputs<double>& in,
                        const AttentionGradients<double>& grads, int64_t begin, int64_t end) {
  const int64_t group = shape.heads / shape.kv_heads;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t sentence = unit / shape.kv_heads, first = unit % shape.kv_heads * group;
    for (int64_t head = first; head < first + group; ++head) {
      for (int64_t row = 0; row < shape.targets; ++row) backward_row(shape, in, grads, sentence, head, row);
    }
  }
}

namespace {

struct Release {
  void operator()(float* floats) const { ::operator delete[](floats, std::align_val_t{64}); }
};
using Scratch = std::unique_ptr<float[], Release>;

// Room for parts of these sizes, each on cache lines of its own: a vector across two lines is loaded twice.
Scratch make_scratch(std::initializer_list<int64_t> sizes) {
  int64_t floats = 0;
  for (int64_t size : sizes) floats += whole_lines(size);
  return Scratch(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t{64})));
}

// The parts are those that forward_unit and backward_unit in unit.simd.cpp take.
Scratch forward_scratch(const AttentionShape& shape, bool weights) {
  const int64_t rows = row_capacity(shape);
  return make_scratch({rows * shape.width, shape.width * kKeyBlock, kKeyBlock * shape.value_width,
                       kTileRows * kKeyBlock, rows * shape.value_width, weights ? rows * shape.sources : 0});
}

Scratch backward_scratch(const AttentionShape& shape) {
  const int64_t rows = row_capacity(shape);
  return make_scratch({rows * shape.width, rows * shape.value_width, shape.width * kKeyBlock, kKeyBlock * shape.width,
                       shape.value_width * kKeyBlock, rows * kKeyBlock, rows * kKeyBlock, rows * shape.width,
                       shape.sources * shape.width, shape.sources * shape.value_width});
}

}  // namespace

#define SEQKIT_DEFINE_ATTENTION(Number)                                                             \
  template <>                                                                                       \
  void attention_forward(const AttentionShape& shape, const AttentionInputs<Number>& in,            \
                         const AttentionOutputs<Number>& out, int64_t begin, int64_t end) {         \
    const auto one_unit = SEQKIT_PICK_LEVEL(attention_forward_##Number);                            \
    const Scratch scratch = forward_scratch(shape, out.weights != nullptr);                         \
    for (int64_t unit = begin; unit < end; ++unit) one_unit(shape, in, out, unit, scratch.get());   \
  }                                                                                                 \
  template <>                                                                                       \
  void attention_backward(const AttentionShape& shape, const AttentionInputs<Number>& in,           \
                          const AttentionGradients<Number>& grads, int64_t begin, int64_t end) {    \
    const auto one_unit = SEQKIT_PICK_LEVEL(attention_backward_##Number);                           \
    const Scratch scratch = backward_scratch(shape);                                                \
    for (int64_t unit = begin; unit < end; ++unit) one_unit(shape, in, grads, unit, scratch.get()); \
  }
SEQKIT_DEFINE_ATTENTION(float)
SEQKIT_DEFINE_ATTENTION(Half)
SEQKIT_DEFINE_ATTENTION(Bfloat16)

}  // namespace seqkit
