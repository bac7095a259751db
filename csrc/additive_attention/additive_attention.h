// Additive attention (Bahdanau et al. 2015, A.1.2): score(t, s) = sum_a v[a] tanh(query[t, a] + keys[s, a]).
//
// Forward only. The [T, S, A] tensor of the tanh is never stored. Every (sentence, t) is one independent row whose sums
// run over its own `length` positions in one order, so neither padding nor neighbours change its bits.
#pragma once

#include <cstdint>

namespace seqkit {

struct AdditiveAttention {
  const float* query;                      // [B, T, A]
  const float* keys;                       // [B, S, A]
  const float* values;                     // [B, S, D]
  const float* v;                          // [A]
  const int64_t* lengths;                  // [B] in 0 .. S, or null for S
  float* context;                          // [B, T, D]; zero where the length is
  float* weights;                          // [B, T, S]; zero beyond the length
  int64_t targets, sources, depth, width;  // T, S, A, D
};

// Computes rows [begin, end) of the B * T.
void additive_attention_run(const AdditiveAttention& call, int64_t begin, int64_t end);

}  // namespace seqkit
