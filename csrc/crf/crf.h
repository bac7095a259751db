// Linear-chain conditional random field (Lafferty et al. 2001): a sentence of n positions with tags y scores
//   score(y) = start[y_0] + sum_t emissions[t, y_t] + sum_t transitions[y_(t-1), y_t] + end[y_(n-1)],
// and log p(y) = score(y) - log Z with Z the sum of exp(score) over all tag sequences. -inf in transitions, start or
// end forbids.
//
// The likelihood and its gradient come in one pass over a sentence: the forward and the backward recursion give the
// marginals of tags and of pairs, and the gradient is what was observed minus what was expected. A sentence is a pure
// function of its own positions, to the last bit.
//
// The recursions run in float64 on probabilities that are scaled to sum to one at each position (Rabiner 1989, V.A), so
// that a position costs one exponential a tag and one logarithm. Where a sum falls below 1e-200, so that a scaled
// probability may have been lost, the sentence is done again in logarithms; float64 always is, which is the
// specification.
//
// Layout: everything is contiguous. emissions [B, T, C], transitions [C, C] from row to column.
#pragma once

#include <cstdint>

#include "common/device.h"

namespace seqkit {

constexpr int64_t kCrfPad = 16;  // rows of C numbers are padded to a multiple, on the CPU

template <typename Number>
struct CrfInputs {
  const Number* emissions;                  // [B, T, C]
  const Number *transitions, *start, *end;  // [C, C], [C], [C]
  const int64_t* lengths;                   // [B] in 1 .. T
  int64_t batch, positions, tags;           // B, T, C
};

template <typename Number>
struct CrfLikelihood {
  const int64_t* observed;  // [B, T], tags in 0 .. C - 1 up to the length
  Number* log_likelihood;   // [B]
  // The gradient of each sentence's log-likelihood, or all null. Zeros beyond the length.
  Number* grad_emissions;         // [B, T, C]
  Number* grad_transitions;       // [B, C, C]
  Number *grad_start, *grad_end;  // [B, C]
};

// The n best tag sequences of each sentence, best first; equal scores go by the lower tag, from the last position back.
template <typename Number>
struct CrfDecode {
  int64_t n_best;
  int64_t* tags;   // [B, N, T]; -1 beyond the length, and where there are fewer sequences
  Number* scores;  // [B, N]; -inf where there are fewer
};

// Doubles that one sentence needs.
int64_t crf_likelihood_scratch(int64_t positions, int64_t tags);

// Sentences [begin, end).
template <typename Number>
void crf_likelihood(const CrfInputs<Number>& in, const CrfLikelihood<Number>& out, int64_t begin, int64_t end);
template <typename Number>
void crf_decode(const CrfInputs<Number>& in, const CrfDecode<Number>& out, int64_t begin, int64_t end);

// On CUDA: null, or what went wrong with the launch. Lengths and tags are cut to their range; T + 2 C is at most
// kMostCrfCuda. Scratch: alphas [B, T, C]; scores and sources [B, (T C + 1) N].
constexpr int64_t kMostCrfCuda = 50000;
const char* crf_likelihood_cuda(const CrfInputs<float>& in, const CrfLikelihood<float>& out, float* alphas,
                                void* stream);
const char* crf_decode_cuda(const CrfInputs<float>& in, const CrfDecode<float>& out, float* scores, int* sources,
                            void* stream);

}  // namespace seqkit
