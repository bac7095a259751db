// Connectionist temporal classification (Graves et al. 2006): the loss of a label sequence over all its alignments.
//
// An alignment gives each frame a label of the target or the blank; repeats are merged, then blanks dropped. With
// labels l_0 .. l_{L-1}, blank i stands before label i and blank L at the end, and alpha(t, .) is the probability of
// all the ways to a state, with the emission y of frame t:
//   alpha_blank(t, i) = y(t, blank) (alpha_blank(t-1, i) + alpha_label(t-1, i-1))
//   alpha_label(t, i) = y(t, l_i) (alpha_label(t-1, i) + alpha_blank(t-1, i) + [l_i != l_{i-1}] alpha_label(t-1, i-1))
// The loss is -log P, P = alpha_blank(T-1, L) + alpha_label(T-1, L-1); beta is the same from the other end, and
// occupancy(t, state) = alpha beta / P. The gradient of log-probabilities is torch's: exp(logp) - occupancy, which is
// that of the logits behind them. Where P is 0 the loss is infinite and the gradient NaN, or both 0 (zero_infinity).
//
// The forward pass leaves the occupancies, [T, L + 1] numbers, and nothing with C of them: the backward pass reads the
// frames once and writes the gradient once. From logits the forward pass reads them once more for their log-sum-exp.
//
// A sentence's loss and gradient depend on its own frames within its length, to the last bit: not on the padding, the
// batch or the threads.
//
// Layout: frames are [T, B, C] or [B, T, C], by their strides; the rest is contiguous.
//
// Tried and dropped:
//   logarithms in float for the states, as torch     at T500 N16 C1000 L60 the gradient's error is 2e-3, ours 2e-6
//   subnormal shares in the sums                     the lattice of T1500 N8 L150 took 10.6 ms, without them 4.2
//   the gradient stored past the caches              forward and backward at T500 N16 C1000 L60 13.4 ms, through 12.1
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/device.h"

namespace seqkit {

// Number is float or double, or void for CUDA, which is told the element.
template <typename Number>
struct CtcInputs {
  const Number* frames;                   // log-probabilities or logits
  int64_t frame_stride, sentence_stride;  // in numbers; the C numbers of a frame are contiguous
  const int64_t* targets;                 // [B, S]
  const int64_t* input_lengths;           // [B] in 0 .. T
  const int64_t* target_lengths;          // [B] in 0 .. S
  int64_t batch, times, classes, width;   // B, T, C, S
  int64_t blank;
};

// What is computed in and returned: double for doubles, float for all else.
template <typename Number>
using RealOf = std::conditional_t<std::is_same_v<Number, double>, double, float>;

// How many occupancies a frame has: the blank's, then those of the labels. A target longer than T has no alignment.
constexpr int64_t slots_of(int64_t times, int64_t width) { return (width < times ? width : times) + 1; }

template <typename Number>
struct CtcOutputs {
  using Real = RealOf<Number>;
  Real* losses;       // [B]
  Real* normalizers;  // [B, T], the log-sum-exp of a frame of logits, 0 beyond the length; null for log-probabilities
  Real* occupancy;    // [B, T, slots], 0 where nothing counts; null when no gradient is wanted
};

template <typename Number>
struct CtcGradients {
  using Real = RealOf<Number>;
  const Real* grad_losses;  // [B]
  const Real* losses;       // as the forward pass wrote them, with the next two
  const Real* normalizers;  // or null
  const Real* occupancy;
  bool zero_infinity;
  Number* grad;  // as the frames
};

// The most probable alignment: as alpha with the maximum for the sum. Of equal ways to a state the one that stays wins,
// then the one from the state before, then the skip; of equal ends the blank.
template <typename Number>
struct CtcAlignment {
  using Real = RealOf<Number>;
  int64_t* labels;  // [B, T], the blank included; -1 beyond the length and where there is no alignment
  Real* scores;     // [B], the log-probability; -infinity where there is none
};

// Frames [begin, end) of B * T. Comes before the lattice, which reads the normalizers.
template <typename Number>
void ctc_normalizers(const CtcInputs<Number>& in, const CtcOutputs<Number>& out, int64_t begin, int64_t end);

// Sentences [begin, end).
template <typename Number>
void ctc_lattice(const CtcInputs<Number>& in, const CtcOutputs<Number>& out, int64_t begin, int64_t end);

// Frames [begin, end) of B * T.
template <typename Number>
void ctc_gradient(const CtcInputs<Number>& in, const CtcGradients<Number>& grads, int64_t begin, int64_t end);

// Sentences [begin, end).
template <typename Number>
void ctc_align(const CtcInputs<Number>& in, const CtcAlignment<Number>& out, int64_t begin, int64_t end);

// The whole call on a card; targets of up to 4095 labels there. All scratch is float32.
struct CtcScratch {
  float* emissions;     // [B, T, slots], may be the occupancies
  float *alpha, *beta;  // [B, T, slots, 4], or null when no gradient is wanted
  float* totals;        // [B, 2]
};
const char* ctc_forward_cuda(const CtcInputs<void>& in, const CtcOutputs<void>& out, const CtcScratch& scratch,
                             Element element, void* stream);
const char* ctc_gradient_cuda(const CtcInputs<void>& in, const CtcGradients<void>& grads, Element element,
                              void* stream);

// `emissions` and `ways` are scratch, [B, T, slots].
const char* ctc_align_cuda(const CtcInputs<void>& in, const CtcAlignment<void>& out, float* emissions, uint8_t* ways,
                           Element element, void* stream);

}  // namespace seqkit
