// The way into the float32 steps, and float64.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/device.h"
#include "rnn/rnn.h"
#include "rnn/row.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(rnn_product, (const RnnProduct<float>& product, int64_t begin, int64_t end));
SEQKIT_DECLARE_LEVELS(rnn_forward, (const RnnInputs<float>& in, const RnnForward<float>& to, int64_t step,
                                    int64_t begin, int64_t end));
SEQKIT_DECLARE_LEVELS(rnn_backward, (const RnnInputs<float>& in, const RnnBackward<float>& to, int64_t step,
                                     int64_t slots, int64_t begin, int64_t end));

SEQKIT_DECLARE_LEVELS(rnn_round, (const float* x, int64_t depth, Bfloat16* to, int64_t begin, int64_t end));

namespace {

struct Doubles {
  using Number = double;
  using Vec = double;
  static constexpr int kWidth = 1;
  static double load(const double* from, int) { return *from; }
  static void store(double* to, double value, int) { *to = value; }
  static double splat(double value) { return value; }
  static double fma(double a, double b, double c) { return a * b + c; }
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
  static double tanh(double x) { return std::tanh(x); }
  static double relu(double x) { return x < 0 ? 0 : x; }
  static double where_positive(double y, double value) { return y > 0 ? value : 0; }
  static double sum(double value) { return value; }
  static double root(double x) { return std::sqrt(x); }
  static double first(double value, int) { return value; }
};

}  // namespace

template <typename Number>
void rnn_pack(const Number* weight, bool turned, int64_t depth, int64_t columns, Number* to, int64_t begin,
              int64_t end) {
  constexpr int64_t kBlock = 16;  // steps of k of which all columns of a panel are in the nearest cache
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kRnnPanel, width = std::min(kRnnPanel, columns - first);
    Number* packed = to + panel * depth * kRnnPanel;
    for (int64_t start = 0; start < depth; start += kBlock) {
      const int64_t stop = std::min(start + kBlock, depth);
      if (turned) {
        for (int64_t k = start; k < stop; ++k) {
          std::copy_n(weight + k * columns + first, width, packed + k * kRnnPanel);
        }
      } else {
        for (int64_t n = 0; n < width; ++n) {
          const Number* from = weight + (first + n) * depth;
          for (int64_t k = start; k < stop; ++k) packed[k * kRnnPanel + n] = from[k];
        }
      }
      for (int64_t k = start; k < stop; ++k) {
        std::fill_n(packed + k * kRnnPanel + width, kRnnPanel - width, Number(0));
      }
    }
  }
}

template void rnn_pack(const float*, bool, int64_t, int64_t, float*, int64_t, int64_t);
template void rnn_pack(const double*, bool, int64_t, int64_t, double*, int64_t, int64_t);

template <>
void rnn_product(const RnnProduct<float>& product, int64_t begin, int64_t end) {
  SEQKIT_PICK_LEVEL(rnn_product)(product, begin, end);
}

template <>
void rnn_product(const RnnProduct<double>& product, int64_t begin, int64_t end) {
  for (int64_t n = begin * kRnnPanel; n < std::min(end * kRnnPanel, product.columns); ++n) {
    const double* weights = product.packed + n / kRnnPanel * product.depth * kRnnPanel + n % kRnnPanel;
    for (int64_t row = 0; row < product.rows; ++row) {
      double& y = product.y[row * product.columns + n];
      if (!product.add) y = 0;
      for (int64_t k = 0; k < product.depth; ++k) y += product.x[row * product.depth + k] * weights[k * kRnnPanel];
    }
  }
}

void rnn_round(const float* x, int64_t depth, Bfloat16* to, int64_t begin, int64_t end) {
  SEQKIT_PICK_LEVEL(rnn_round)(x, depth, to, begin, end);
}

template <>
void rnn_forward(const RnnInputs<float>& in, const RnnForward<float>& to, int64_t step, int64_t begin, int64_t end) {
  SEQKIT_PICK_LEVEL(rnn_forward)(in, to, step, begin, end);
}

template <>
void rnn_forward(const RnnInputs<double>& in, const RnnForward<double>& to, int64_t step, int64_t begin, int64_t end) {
  for (int64_t slot = begin; slot < end; ++slot) Row<Doubles>::forward(in, to, step, slot);
}

template <>
void rnn_backward(const RnnInputs<float>& in, const RnnBackward<float>& to, int64_t step, int64_t slots, int64_t begin,
                  int64_t end) {
  SEQKIT_PICK_LEVEL(rnn_backward)(in, to, step, slots, begin, end);
}

template <>
void rnn_backward(const RnnInputs<double>& in, const RnnBackward<double>& to, int64_t step, int64_t slots,
                  int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) Row<Doubles>::backward_group(in, to, step, slots, group);
}

}  // namespace seqkit
