// Exact attention without a [T, S] matrix: out_i = sum_j softmax_j(scale q_i . k_j + bias_ij - slope |p_i - j|) v_j.
//
// Forward keeps a running maximum and sum over blocks of 64 keys (online softmax, Milakov and Gimelshein 2018; blocks
// as in Dao et al. 2022, algorithm 1) and saves (maximum, 1 / sum) a row; backward computes the weights again from
// them.
//
// A row of `out` depends on its own query and the keys it sees, to the last bit: key blocks start at absolute multiples
// of 64, every product is one chain of fused multiply-adds in the order of d or j, and a key that a row does not see is
// not multiplied by zero but left out, so that neither padding (NaN included), nor the number of rows, nor threads can
// matter.
//
// Layout: q, k, v and bias in any strides whose last is 1 (bias: or 0); everything that is written is contiguous with
// the heads next to the last axis, [B, T, H, D], which makes merging heads free.
//
// Tried and dropped:
//   dot products with a sum across lanes    1.7 times the work of transposing each key block once for all rows
//   zero weights beyond a row's own range   0 * NaN, and -0 + 0, change bits
#pragma once

#include <cstdint>

namespace seqkit {

constexpr int64_t kKeyBlock = 64;
constexpr int64_t kRowBlock = 66;  // a multiple of the six rows of a register tile

// What a call looks at, but not the numbers.
struct AttentionShape {
  int64_t batch, heads, kv_heads, targets, sources, width, value_width;  // B, H, Hkv, T, S, Dh, Dv
  const int64_t* q_lengths;                                              // [B] or null
  const int64_t* k_lengths;                                              // [B] or null
  bool causal;     // query i stands at p = i + S - T and sees j <= p; otherwise at p = i
  int64_t window;  // -1, or the reach: |p - j| <= window, and with causal the last `window` keys
  double scale;
  uint32_t drop_below;  // a weight is dropped when its random word is below this; 0 for no dropout
  uint64_t seed;
};

// Keys [begin, end) that a query sees; empty when begin == end.
struct KeyRange {
  int64_t begin, end;
};

// A batch, head and position stride; the last axis has stride 1.
struct Strides {
  int64_t batch, head, row;
};

template <typename Real>
struct AttentionInputs {
  const Real *q, *k, *v;
  Strides q_strides, k_strides, v_strides;
  const Real* bias;         // or null
  Strides bias_strides;     // zero where it is broadcast
  int64_t bias_key_stride;  // 1 or 0
  const Real* slopes;       // [H] or null
};

template <typename Real>
struct AttentionOutputs {
  Real* out;      // [B, T, H, Dv]
  Real* stats;    // [B, H, T, 2]: the maximum and one over the sum; both 0 where a row sees nothing
  Real* weights;  // [B, H, T, S] before dropout, or null
};

template <typename Real>
struct AttentionGradients {
  const Real *out, *stats, *weights;           // as the forward wrote them; weights may be null
  const Real *grad_out, *grad_weights;         // [B, T, H, Dv]; [B, H, T, S] or null, and only with weights
  Real *grad_q, *grad_k, *grad_v, *grad_bias;  // zeros on entry: [B, T, H, Dh], [B, S, Hkv, D], [B, H, T, S] or null
};

inline int64_t row_blocks(const AttentionShape& shape) { return (shape.targets + kRowBlock - 1) / kRowBlock; }

// Units of work: forward B * H * row_blocks, backward B * Hkv.
template <typename Real>
void attention_forward(const AttentionShape& shape, const AttentionInputs<Real>& in, const AttentionOutputs<Real>& out,
                       int64_t begin, int64_t end);

template <typename Real>
void attention_backward(const AttentionShape& shape, const AttentionInputs<Real>& in,
                        const AttentionGradients<Real>& grads, int64_t begin, int64_t end);

}  // namespace seqkit
