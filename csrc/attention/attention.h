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
// the heads next to the last axis, [B, T, H, D], which makes merging heads free. Tensors of 16-bit numbers are
// converted where a block is read or a row is written; sums, statistics and slopes are float32 then.
//
// Tried and dropped:
//   dot products with a sum across lanes    1.7 times the work of transposing each key block once for all rows
//   zero weights beyond a row's own range   0 * NaN, and -0 + 0, change bits
//   products that read [B, T, H, D] rows in place, not dense copies    backward of 64 x 8 x 64 x 64: 38 ms, copied 32
//   66 rows of queries to a key block       forward of 8 x 8 x 512 x 64: 63 ms, with 132 rows 56, with 264 the same
//   256 rows to a key block, faster tiles   forward of 8 x 8 x 512 x 64: 36.4 ms, with 128 rows 35.9
//   logits in registers until their exp     the same forward 36.4 ms, through memory 35.9
//   gradients written through the caches    backward of 64 x 8 x 64 x 64: 20.3 ms, past them 13.6; read
//   after, 22.5, 17.5 `out` written past the caches           forward of 64 x 8 x 30 x 64: 2.04 ms, through them 1.68
//   no asking for the next head's rows      forward of 64 x 8 x 64 x 64: 9.7 ms, with it 6.4
//   tiles of six rows, the last one lower   training of 64 x 8 x 60 x 64, causal: 21.7 ms, of eight and even 18.9
#pragma once

#include <cstdint>
#include <type_traits>

namespace seqkit {

constexpr int64_t kKeyBlock = 64;
constexpr int64_t kTileRows = 8;  // of the largest register tile
constexpr int64_t kRowBlock = 128;

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

// What sums and statistics are kept in: Number is double, float, Half or Bfloat16.
template <typename Number>
using RealOf = std::conditional_t<std::is_same_v<Number, double>, double, float>;

template <typename Number>
struct AttentionInputs {
  const Number *q, *k, *v;
  Strides q_strides, k_strides, v_strides;
  const Number* bias;            // or null
  Strides bias_strides;          // zero where it is broadcast
  int64_t bias_key_stride;       // 1 or 0
  const RealOf<Number>* slopes;  // [H] or null
};

template <typename Number>
struct AttentionOutputs {
  Number* out;            // [B, T, H, Dv]
  RealOf<Number>* stats;  // [B, H, T, 2]: the maximum and one over the sum; both 0 where a row sees nothing
  Number* weights;        // [B, H, T, S] before dropout, or null
};

template <typename Number>
struct AttentionGradients {
  const Number* out;  // as the forward wrote it, and so the next two
  const RealOf<Number>* stats;
  const Number* weights;                  // or null
  const Number *grad_out, *grad_weights;  // [B, T, H, Dv]; [B, H, T, S] or null, and only with weights
  Number *grad_q, *grad_k, *grad_v;       // [B, T, H, Dh], [B, S, Hkv, D]
  Number* grad_bias;                      // [B, H, T, S], zeros on entry, or null
};

inline int64_t row_blocks(const AttentionShape& shape) { return (shape.targets + kRowBlock - 1) / kRowBlock; }

// Units of work: forward B * H * row_blocks, backward B * Hkv.
template <typename Number>
void attention_forward(const AttentionShape& shape, const AttentionInputs<Number>& in,
                       const AttentionOutputs<Number>& out, int64_t begin, int64_t end);

template <typename Number>
void attention_backward(const AttentionShape& shape, const AttentionInputs<Number>& in,
                        const AttentionGradients<Number>& grads, int64_t begin, int64_t end);

// On CUDA, for float, Half and Bfloat16: null, or what went wrong with the launch. Lengths are cut to their range.
// `delta` has room for [B, H, T] floats. The maximum in `stats` is in units of log 2.
constexpr int64_t kWidestCuda = 256, kMostRowsCuda = int64_t{1} << 28;

template <typename Number>
const char* attention_forward_cuda(const AttentionShape& shape, const AttentionInputs<Number>& in,
                                   const AttentionOutputs<Number>& out, void* stream);

template <typename Number>
const char* attention_backward_cuda(const AttentionShape& shape, const AttentionInputs<Number>& in,
                                    const AttentionGradients<Number>& grads, float* delta, void* stream);

}  // namespace seqkit
