// The arithmetic of one window: logistic regressions between a few input rows and a few output rows.
//
// Row r of the input and row k of the output give the score x = in_r . out_k. With the sign s = +1 for an output that
// was seen (label 1) and -1 for one that was drawn (label 0), p = sigmoid(s x) is the probability of the right label,
// the loss is -log p, and a step of the rate |weight_k| moves both rows along g = (1 - p) weight_k, where s is the sign
// of weight_k:
//   in_r += sum over k of g out_k,  out_k += sum over r of g in_r,  both from the rows as they were.
// So a word's window is one small matrix product each way, in registers (Ji et al. 2016, arXiv:1604.04661). The
// negatives of a window, or the path of a word in the Huffman tree, are the output rows.
//
// Rows are padded with zeros to a multiple of kRowFloats and aligned; zeros stay zeros.
//
// Tried and dropped:
//   clamping x to +-6 with a table of sigmoids (word2vec.c)   slower than exp in vectors, and biased
#pragma once

#include <cstdint>

namespace seqkit::embedding {

constexpr int64_t kRowFloats = 16;
constexpr int64_t kBlockOutputs =
    8;  // output rows of a block; AVX-512 holds one in registers, other levels half of one

// Products of probabilities, as mantissas and exponents: one logarithm a chunk, not one a pair. Of all outputs, and of
// those with label 1 alone.
struct LossSum {
  alignas(64) float mantissa[2][16];
  alignas(64) int32_t exponent[2][16];
};

struct Window {
  float* const* in;
  int64_t n_in;
  float* const* out;    // no row twice; the order of the rows is that of the weights
  const float* weight;  // [n_out + 16], 0 for an output that is left out
  int64_t n_out;
  int64_t width;   // floats of a row
  float* scratch;  // scratch_floats(...)
  LossSum* loss;
};

// Floats of scratch for so many rows at most.
constexpr int64_t scratch_floats(int64_t n_in, int64_t n_out, int64_t width) {
  return n_in * n_out + 64 + (n_in + 2) * width;
}

}  // namespace seqkit::embedding
