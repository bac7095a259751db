// Additive attention (Bahdanau et al. 2015, A.1.2): score(t, s) = sum_a v[a] tanh(query[t, a] + keys[s, a]), weights =
// softmax of the scores over s < length, context(t) = sum_s weights(t, s) values(s).
//
// The [T, S, A] tensor of the tanh is never stored: the backward pass computes it again, and nothing is kept for it but
// the weights. With h = tanh(query[t, a] + keys[s, a]) and g(t, s) the gradient of a score,
//   g(t, s) = weights(t, s) (d(t, s) - sum_s' weights(t, s') d(t, s')),  d = grad_context(t) . values(s) + grad_weights
//   grad_query[t, a] = v[a] sum_s g (1 - h^2),  grad_keys[s, a] = v[a] sum_t g (1 - h^2),  grad_v[a] = sum_bts g h.
//
// A row of `context` and of `weights` depends on its own query and on the first `length` keys and values, to the last
// bit. What stands beyond a length is not read. Every sum of a gradient has one order, whatever the threads.
//
// Layout: everything is contiguous.
//
// Tried and dropped:
//   the tanh of each sum by exp and a division    forward of B64 T50 S50 A1000 D1000 on one core: 84 ms, factored 27
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/device.h"

namespace seqkit {

constexpr int64_t kRowBlock = 64;     // of the T query rows that share their tables
constexpr int64_t kDepthSlice = 64;   // of the A columns of one unit of the backward pass
constexpr int64_t kWidthSlice = 512;  // of the D columns of one unit of the values' gradient

// Number is float or double, or void for CUDA, which is told the element.
template <typename Number>
struct AdditiveInputs {
  const Number* query;                            // [B, T, A]
  const Number* keys;                             // [B, S, A]
  const Number* values;                           // [B, S, D]
  const Number* v;                                // [A]
  const int64_t* lengths;                         // [B] in 0 .. S, or null for S
  int64_t batch, targets, sources, depth, width;  // B, T, S, A, D
};

template <typename Number>
struct AdditiveOutputs {
  Number* context;  // [B, T, D]; zero where the length is
  Number* weights;  // [B, T, S]; zero beyond the length
};

// What sums that leave the registers are kept in.
template <typename Number>
using SumOf = std::conditional_t<std::is_same_v<Number, double>, double, float>;

template <typename Number>
struct AdditiveGradients {
  using Real = SumOf<Number>;
  const Number* weights;       // as the forward pass wrote them
  const Number* grad_context;  // [B, T, D]
  const Number* grad_weights;  // [B, T, S] or null
  Real* grad_scores;           // [B, T, S], scratch: g, undefined beyond the length
  Real* grad_v_parts;          // [B, A], scratch: one sentence's share
  Number *grad_query, *grad_keys, *grad_values, *grad_v;
};

constexpr int64_t blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Units [begin, end) of B * blocks(T, kRowBlock).
template <typename Number>
void additive_forward(const AdditiveInputs<Number>& in, const AdditiveOutputs<Number>& out, int64_t begin, int64_t end);

// Fills grad_scores; units as above. The next two read it or the weights, and may run in any order.
template <typename Number>
void additive_backward_scores(const AdditiveInputs<Number>& in, const AdditiveGradients<Number>& grads, int64_t begin,
                              int64_t end);

// grad_query, grad_keys and grad_v_parts; units of B * blocks(A, kDepthSlice).
template <typename Number>
void additive_backward_energies(const AdditiveInputs<Number>& in, const AdditiveGradients<Number>& grads, int64_t begin,
                                int64_t end);

// grad_values; units of B * blocks(D, kWidthSlice).
template <typename Number>
void additive_backward_values(const AdditiveInputs<Number>& in, const AdditiveGradients<Number>& grads, int64_t begin,
                              int64_t end);

// grad_v, the parts added in the order of the sentences.
template <typename Number>
void additive_backward_v(const AdditiveInputs<Number>& in, const AdditiveGradients<Number>& grads);

// The whole call on a card. `scores` is scratch, [B, T, S]; where the weights are floats it may be they.
const char* additive_forward_cuda(const AdditiveInputs<void>& in, const AdditiveOutputs<void>& out, float* scores,
                                  Element element, void* stream);

// `query_sums` is scratch, [B, T, A], and may be grad_query where that is float; it is not used up to kKeysAtOnce keys.
constexpr int64_t kKeysAtOnce = 64;
const char* additive_backward_cuda(const AdditiveInputs<void>& in, const AdditiveGradients<void>& grads,
                                   float* query_sums, Element element, void* stream);

}  // namespace seqkit
