// The float64 kernels, which are the specification, and the way into the float32 ones.
#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

#include "additive_attention/additive_attention.h"
#include "common/device.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(additive_forward, (const AdditiveInputs<float>& in, const AdditiveOutputs<float>& out,
                                         int64_t unit, float* scratch));
SEQKIT_DECLARE_LEVELS(additive_backward_scores,
                      (const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t unit));
SEQKIT_DECLARE_LEVELS(additive_backward_energies,
                      (const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t unit,
                       float* scratch));
SEQKIT_DECLARE_LEVELS(additive_backward_values,
                      (const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t unit));

namespace {

// Memory for whole vectors: one that crosses a cache line is read twice.
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<float*>(::operator new(static_cast<size_t>(count) * sizeof(float), kLine))) {}
  ~Scratch() { ::operator delete(data_, kLine); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* get() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  float* data_;
};

int64_t length_of(const AdditiveInputs<double>& in, int64_t sentence) {
  return in.lengths ? in.lengths[sentence] : in.sources;
}

// One query row in float64, and where its numbers stand.
struct Row {
  int64_t sentence, length;
  const double *query, *keys, *values;  // the last two of the sentence
  int64_t flat;                         // of the B * T
};

// Calls visit(row) for the rows of each unit of kRowBlock.
template <typename Visit>
void for_rows(const AdditiveInputs<double>& in, int64_t begin, int64_t end, const Visit& visit) {
  const int64_t units = blocks(in.targets, kRowBlock);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t sentence = unit / units, first = unit % units * kRowBlock;
    for (int64_t t = first; t < std::min(first + kRowBlock, in.targets); ++t) {
      visit(Row{.sentence = sentence,
                .length = length_of(in, sentence),
                .query = in.query + (sentence * in.targets + t) * in.depth,
                .keys = in.keys + sentence * in.sources * in.depth,
                .values = in.values + sentence * in.sources * in.width,
                .flat = sentence * in.targets + t});
    }
  }
}

}  // namespace

template <>
void additive_forward(const AdditiveInputs<double>& in, const AdditiveOutputs<double>& out, int64_t begin,
                      int64_t end) {
  for_rows(in, begin, end, [&](const Row& row) {
    double *weights = out.weights + row.flat * in.sources, *context = out.context + row.flat * in.width;
    std::fill_n(weights, in.sources, 0.0);
    std::fill_n(context, in.width, 0.0);
    for (int64_t s = 0; s < row.length; ++s) {
      for (int64_t a = 0; a < in.depth; ++a) {
        weights[s] += in.v[a] * std::tanh(row.query[a] + row.keys[s * in.depth + a]);
      }
    }
    const double largest = row.length ? *std::max_element(weights, weights + row.length) : 0.0;
    double total = 0;
    for (int64_t s = 0; s < row.length; ++s) total += weights[s] = std::exp(weights[s] - largest);
    for (int64_t s = 0; s < row.length; ++s) {
      weights[s] /= total;
      for (int64_t d = 0; d < in.width; ++d) context[d] += weights[s] * row.values[s * in.width + d];
    }
  });
}

template <>
void additive_backward_scores(const AdditiveInputs<double>& in, const AdditiveGradients<double>& grads, int64_t begin,
                              int64_t end) {
  for_rows(in, begin, end, [&](const Row& row) {
    const double* weights = grads.weights + row.flat * in.sources;
    double* slopes = grads.grad_scores + row.flat * in.sources;
    double mean = 0;
    for (int64_t s = 0; s < row.length; ++s) {
      slopes[s] = grads.grad_weights ? grads.grad_weights[row.flat * in.sources + s] : 0.0;
      for (int64_t d = 0; d < in.width; ++d) {
        slopes[s] += grads.grad_context[row.flat * in.width + d] * row.values[s * in.width + d];
      }
      mean += weights[s] * slopes[s];
    }
    for (int64_t s = 0; s < row.length; ++s) slopes[s] = weights[s] * (slopes[s] - mean);
  });
}

template <>
void additive_backward_energies(const AdditiveInputs<double>& in, const AdditiveGradients<double>& grads, int64_t begin,
                                int64_t end) {
  const int64_t slices = blocks(in.depth, kDepthSlice);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t sentence = unit / slices, first = unit % slices * kDepthSlice;
    for (int64_t a = first; a < std::min(first + kDepthSlice, in.depth); ++a) {
      double& grad_v = grads.grad_v_parts[sentence * in.depth + a];
      grad_v = 0;
      const int64_t keys = sentence * in.sources * in.depth + a;
      for (int64_t s = 0; s < in.sources; ++s) grads.grad_keys[keys + s * in.depth] = 0;
      for (int64_t t = 0; t < in.targets; ++t) {
        const int64_t row = sentence * in.targets + t;
        double& grad_query = grads.grad_query[row * in.depth + a];
        grad_query = 0;
        for (int64_t s = 0; s < length_of(in, sentence); ++s) {
          const double h = std::tanh(in.query[row * in.depth + a] + in.keys[keys + s * in.depth]);
          const double g = grads.grad_scores[row * in.sources + s], slope = g * in.v[a] * (1 - h * h);
          grad_query += slope;
          grads.grad_keys[keys + s * in.depth] += slope;
          grad_v += g * h;
        }
      }
    }
  }
}

template <>
void additive_backward_values(const AdditiveInputs<double>& in, const AdditiveGradients<double>& grads, int64_t begin,
                              int64_t end) {
  const int64_t slices = blocks(in.width, kWidthSlice);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t sentence = unit / slices, first = unit % slices * kWidthSlice;
    const int64_t last = std::min(first + kWidthSlice, in.width);
    for (int64_t s = 0; s < in.sources; ++s) {
      double* to = grads.grad_values + (sentence * in.sources + s) * in.width;
      std::fill(to + first, to + last, 0.0);
      for (int64_t t = 0; s < length_of(in, sentence) && t < in.targets; ++t) {
        const int64_t row = sentence * in.targets + t;
        const double weight = grads.weights[row * in.sources + s];
        for (int64_t d = first; d < last; ++d) to[d] += weight * grads.grad_context[row * in.width + d];
      }
    }
  }
}

template <>
void additive_forward(const AdditiveInputs<float>& in, const AdditiveOutputs<float>& out, int64_t begin, int64_t end) {
  const auto one_unit = SEQKIT_PICK_LEVEL(additive_forward);
  // v, two numbers for each of the depth of four keys and of the unit's queries, in whole vectors.
  const int64_t rows = std::min(kRowBlock, in.targets);
  const Scratch scratch((1 + 2 * (4 + rows)) * blocks(in.depth, 16) * 16);
  for (int64_t unit = begin; unit < end; ++unit) one_unit(in, out, unit, scratch.get());
}

template <>
void additive_backward_scores(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t begin,
                              int64_t end) {
  const auto one_unit = SEQKIT_PICK_LEVEL(additive_backward_scores);
  for (int64_t unit = begin; unit < end; ++unit) one_unit(in, grads, unit);
}

template <>
void additive_backward_energies(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t begin,
                                int64_t end) {
  const auto one_unit = SEQKIT_PICK_LEVEL(additive_backward_energies);
  const Scratch scratch(3 * 2 * 16 * in.sources);  // two numbers and a sum for each key and lane of two vectors
  for (int64_t unit = begin; unit < end; ++unit) one_unit(in, grads, unit, scratch.get());
}

template <>
void additive_backward_values(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t begin,
                              int64_t end) {
  const auto one_unit = SEQKIT_PICK_LEVEL(additive_backward_values);
  for (int64_t unit = begin; unit < end; ++unit) one_unit(in, grads, unit);
}

namespace {

template <typename Number>
void add_v_parts(const AdditiveInputs<Number>& in, const AdditiveGradients<Number>& grads) {
  std::fill_n(grads.grad_v, in.depth, Number{0});
  for (int64_t sentence = 0; sentence < in.batch; ++sentence) {
    for (int64_t a = 0; a < in.depth; ++a) grads.grad_v[a] += grads.grad_v_parts[sentence * in.depth + a];
  }
}

}  // namespace

template <>
void additive_backward_v(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads) {
  add_v_parts(in, grads);
}

template <>
void additive_backward_v(const AdditiveInputs<double>& in, const AdditiveGradients<double>& grads) {
  add_v_parts(in, grads);
}

}  // namespace seqkit
