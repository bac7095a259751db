// The arithmetic of GloVe on a list of pairs; the objective and a row's parts are in glove.h.
//
// It stands apart because a file that is compiled for several machine levels must see no standard container.
#pragma once

#include <cstdint>

namespace seqkit::embedding {

// A pair of words as it is trained.
struct GloVePair {
  int32_t i, j;
  float log_count;
  float weight;  // f(X_ij)
};

// Steps on pairs, one after the other; each takes (i, j) and, unless i = j, (j, i).
struct GloVeSteps {
  float* rows;  // [V, 4 * width]
  int64_t width;
  const GloVePair* pairs;
  int64_t size;
  float eta;
  double* loss;  // the sum of f (...)^2 before each step is added
};

}  // namespace seqkit::embedding
